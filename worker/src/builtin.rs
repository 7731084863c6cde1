//! Functions that every worker has: a synthetic load and a concatenation.
//!
//! `foresail.burn` stands in for a task whose code is not at hand: it takes the CPU time and writes the bytes
//! that were recorded of it. Times in ms, sizes in bytes.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;

use crate::registry::{TaskError, TaskInput, TaskOutput};

/// Name of the synthetic load.
pub const BURN: &str = "foresail.burn";
/// Name of the concatenation.
pub const CONCAT: &str = "foresail.concat";
/// Most bytes that one burn writes, all outputs together.
pub const BURN_OUTPUT_BYTES_MAX: u64 = 1 << 32;
/// Longest time that one burn may be asked for, CPU and sleep each, in ms.
pub const BURN_MS_MAX: f64 = 86_400_000.0;

/// Longest sleep between two looks at the cancel flag.
const SLEEP_SLICE: Duration = Duration::from_millis(20);

/// Parameters of the synthetic load.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Burn {
    /// CPU time of the calling thread in ms; a cap on the CPU share therefore makes it take longer.
    #[serde(default)]
    cpu_ms: f64,
    /// Time spent asleep in ms, after the CPU time.
    #[serde(default)]
    sleep_ms: f64,
    /// Sizes of the outputs: one for all, or one each; where absent, the sizes that the task declares, or 0.
    #[serde(default)]
    output_bytes: Option<Sizes>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Sizes {
    Each(u64),
    List(Vec<u64>),
}

/// Takes `cpu_ms` of CPU time, sleeps `sleep_ms` and writes outputs of `output_bytes`, the same for the same
/// task id.
///
/// # Errors
/// [`TaskError`] when a parameter is out of range, or when the attempt is given up meanwhile.
pub fn burn(input: TaskInput) -> Result<TaskOutput, TaskError> {
    let started = thread_cpu();
    let burn: Burn = if input.params.is_null() { Burn::default() } else { input.params_as()? };
    for (name, ms) in [("cpu_ms", burn.cpu_ms), ("sleep_ms", burn.sleep_ms)] {
        if !(0.0..=BURN_MS_MAX).contains(&ms) {
            return Err(TaskError::new(format!(
                "`{name}` is `{ms}`, it must lie between 0 and {BURN_MS_MAX}"
            )));
        }
    }
    let outputs = content(&input, &output_sizes(&input, burn.output_bytes)?);
    let until = started + Duration::from_secs_f64(burn.cpu_ms / 1000.0);
    spin(&input, until)?;
    sleep(&input, Duration::from_secs_f64(burn.sleep_ms / 1000.0))?;
    Ok(outputs.into())
}

/// Writes all inputs, one behind the other, into the first output; the others stay empty.
///
/// # Errors
/// None; the result is of the form that a registry wants.
pub fn concat(input: TaskInput) -> Result<TaskOutput, TaskError> {
    let mut all = BytesMut::with_capacity(input.inputs.iter().map(Bytes::len).sum());
    input.inputs.iter().for_each(|bytes| all.extend_from_slice(bytes));
    let mut outputs = vec![Bytes::new(); input.outputs.len().max(1)];
    outputs[0] = all.freeze();
    Ok(outputs.into())
}

fn output_sizes(input: &TaskInput, asked: Option<Sizes>) -> Result<Vec<u64>, TaskError> {
    let count = input.outputs.len();
    let sizes = match asked {
        None => input.outputs.iter().map(|o| o.bytes.unwrap_or(0)).collect(),
        Some(Sizes::Each(bytes)) => vec![bytes; count],
        Some(Sizes::List(list)) if list.len() == count => list,
        Some(Sizes::List(list)) => {
            let given = list.len();
            return Err(TaskError::new(format!(
                "`output_bytes` has {given} sizes, the task has {count} outputs"
            )));
        }
    };
    let total = sizes.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
    if total > BURN_OUTPUT_BYTES_MAX {
        return Err(TaskError::new(format!("`{total}` output bytes are more than {BURN_OUTPUT_BYTES_MAX}")));
    }
    Ok(sizes)
}

/// Bytes that depend on the task id and the place of the output alone: every attempt writes the same.
fn content(input: &TaskInput, sizes: &[u64]) -> Vec<Bytes> {
    let fill = |(at, &bytes): (usize, &u64)| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(input.task.as_str().as_bytes()).update(&(at as u64).to_le_bytes());
        let mut buffer = vec![0; bytes as usize];
        hasher.finalize_xof().fill(&mut buffer);
        Bytes::from(buffer)
    };
    sizes.iter().enumerate().map(fill).collect()
}

fn spin(input: &TaskInput, until: Duration) -> Result<(), TaskError> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while thread_cpu() < until {
        if input.is_cancelled() {
            return Err(TaskError::new("given up while it burned CPU time"));
        }
        // About 10 us of dependent multiplications between two readings of the clock.
        for _ in 0..4_000 {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).rotate_left(17) ^ 0xda3e_39cb;
        }
        std::hint::black_box(state);
    }
    Ok(())
}

fn sleep(input: &TaskInput, mut left: Duration) -> Result<(), TaskError> {
    while !left.is_zero() {
        if input.is_cancelled() {
            return Err(TaskError::new("given up while it slept"));
        }
        let slice = left.min(SLEEP_SLICE);
        std::thread::sleep(slice);
        left -= slice;
    }
    Ok(())
}

/// CPU time that the calling thread has used.
pub(crate) fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec that the call fills; this clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use foresail_schemas::id::ObjectName;
    use foresail_schemas::workflow::Output;
    use serde_json::json;

    fn cpu_ms_of(params: serde_json::Value) -> f64 {
        let before = thread_cpu();
        burn(TaskInput::new(params, vec![])).unwrap();
        (thread_cpu() - before).as_secs_f64() * 1000.0
    }

    #[test]
    fn burn_takes_the_cpu_time_asked_for_and_little_more() {
        let (short_ms, long_ms) = (cpu_ms_of(json!({"cpu_ms": 20})), cpu_ms_of(json!({"cpu_ms": 80})));
        assert!(short_ms >= 20.0 && long_ms >= 80.0, "{short_ms} and {long_ms} ms of CPU time");
        assert!((3.0..5.0).contains(&(long_ms / short_ms)), "{short_ms} and {long_ms} ms of CPU time");
    }

    #[test]
    fn sleep_takes_no_cpu_time() {
        let started = std::time::Instant::now();
        let used_ms = cpu_ms_of(json!({"sleep_ms": 60}));
        assert!(used_ms < started.elapsed().as_secs_f64() * 500.0, "{used_ms} ms of CPU time");
    }

    #[test]
    fn content_depends_on_the_task_and_the_output_alone() {
        let mut input = TaskInput::new(json!({"output_bytes": [1000, 1000]}), vec![]);
        input.outputs.push(Output { name: ObjectName::new("b").unwrap(), bytes: None });
        let first = burn(input.clone()).unwrap();
        input.attempt = 2;
        assert_eq!(burn(input.clone()).unwrap(), first);
        assert_ne!(first.0[0], first.0[1]);
        input.task = foresail_schemas::TaskId::new("other").unwrap();
        assert_ne!(burn(input).unwrap(), first);
    }

    #[test]
    fn sizes_come_from_the_task_where_the_parameters_have_none() {
        let mut input = TaskInput::new(serde_json::Value::Null, vec![]);
        input.outputs[0].bytes = Some(17);
        assert_eq!(burn(input).unwrap().0[0].len(), 17);
    }

    #[test]
    fn bad_parameters_are_named() {
        for (params, word) in [
            (json!({"cpu_ms": -1}), "cpu_ms"),
            (json!({"output_bytes": [1, 2]}), "2 sizes"),
            (json!({"cpu": 1}), "unknown field"),
            (json!({"output_bytes": u64::MAX}), "more than"),
        ] {
            let error = burn(TaskInput::new(params, vec![])).unwrap_err();
            assert!(error.message.contains(word), "{error:?}");
        }
    }

    #[test]
    fn a_cancelled_burn_ends_early() {
        let input = TaskInput::new(json!({"cpu_ms": 60_000, "sleep_ms": 60_000}), vec![]);
        input.cancel.set();
        assert!(burn(input).unwrap_err().message.contains("given up"));
    }

    #[test]
    fn concat_keeps_the_order() {
        let input = TaskInput::new(json!(null), vec!["ab".into(), "".into(), "c".into()]);
        assert_eq!(concat(input).unwrap().0[0], "abc");
    }
}
