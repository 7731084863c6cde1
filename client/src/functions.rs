//! The functions that come with Foresail, as workers know them: `text.*`, `matrix.*`, `image.*` and
//! `example.*`.

use std::time::Duration;

use bytes::Bytes;
use foresail_worker::{Registry, TaskError, TaskInput, TaskOutput};
use serde::Deserialize;

use crate::examples::{image, matrix};
use crate::text;

/// Longest sleep of an addition in ms.
const SLEEP_MS_MAX: u64 = 60_000;

/// A registry with everything the built-in examples need. Add functions of your own with `register`.
#[must_use]
pub fn registry() -> Registry {
    let registry = image::register(matrix::register(Registry::new()));
    registry
        .register("text.split", |input| {
            let parts = text::split(&input.params_as()?).map_err(TaskError::new)?;
            Ok(parts.into_iter().map(Bytes::from).collect::<Vec<_>>().into())
        })
        .register("text.count", |input| Ok(text::count_part(first(&input)?).map_err(TaskError::new)?.into()))
        .register("text.merge", |input| Ok(text::merge(&input.inputs).map_err(TaskError::new)?.into()))
        .register("text.terms", |input| {
            Ok(text::terms(&input.params_as()?, first(&input)?).map_err(TaskError::new)?.into())
        })
        .register("text.report", |input| {
            let report = text::report(&input.inputs).map_err(TaskError::new)?;
            Ok(report.map(Bytes::from).to_vec().into())
        })
        .register("example.add", add)
}

fn first(input: &TaskInput) -> Result<&Bytes, TaskError> {
    input.inputs.first().ok_or_else(|| TaskError::new("the function reads one input and was given none"))
}

/// Parameters of `example.add`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddParams {
    /// Time asleep before the sum is given, in ms.
    #[serde(default)]
    sleep_ms: u64,
}

/// Adds whole numbers written as text.
fn add(input: TaskInput) -> Result<TaskOutput, TaskError> {
    let params: AddParams = if input.params.is_null() { AddParams::default() } else { input.params_as()? };
    std::thread::sleep(Duration::from_millis(params.sleep_ms.min(SLEEP_MS_MAX)));
    let mut sum: u64 = 0;
    for (bytes, name) in input.inputs.iter().zip(&input.input_names) {
        let text = String::from_utf8_lossy(bytes);
        let number: u64 = text
            .trim()
            .parse()
            .map_err(|e| TaskError::new(format!("input `{name}` is `{text}`, not a whole number: {e}")))?;
        sum = sum.checked_add(number).ok_or_else(|| TaskError::new("the sum is too large for 64 bits"))?;
    }
    Ok(sum.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_added_and_what_is_none_is_named() {
        let registry = registry();
        let add = registry.get("example.add").unwrap();
        let input = |values: &[&'static str]| {
            TaskInput::new(serde_json::Value::Null, values.iter().map(|v| (*v).into()).collect())
        };
        assert_eq!(add(input(&["20", "22\n"])).unwrap().0[0], "42");
        assert!(add(input(&["x"])).unwrap_err().message.contains("`x`"));
        assert!(add(input(&["18446744073709551615", "1"])).is_err());
    }
}
