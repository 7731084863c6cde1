//! Numbers that are not finite or negative are refused wherever a time, a size or a price stands.

use foresail_schemas::examples;
use foresail_schemas::generate::subjects;
use serde_json::Value;

/// Fields that may be any finite number: none are times, sizes or prices of the wire. A record that was set
/// aside is kept as it came, faults included.
const FREE: &[&str] = &["value", "params", "record"];
/// Types whose numbers are checked by a rule of their own after they were read.
const CHECKED_LATER: &[&str] = &["platform", "planning-problem"];

/// The address of every number in `value`, as a JSON pointer.
fn numbers(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Number(_) => found.push(at.to_owned()),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| numbers(item, &format!("{at}/{i}"), found));
        }
        Value::Object(fields) => fields
            .iter()
            .filter(|(name, _)| !FREE.contains(&name.as_str()))
            .for_each(|(name, field)| numbers(field, &format!("{at}/{name}"), found)),
        _ => {}
    }
}

#[test]
fn no_time_size_or_price_may_be_negative() {
    for subject in subjects().iter().filter(|s| !CHECKED_LATER.contains(&s.file)) {
        let mut found = Vec::new();
        numbers(&subject.example, "", &mut found);
        for at in found.iter().filter(|at| !at.contains("/values/") && !at.contains("/interval/")) {
            let mut damaged = subject.example.clone();
            *damaged.pointer_mut(at).unwrap() = (-1.5).into();
            assert!(subject.round_trip(&damaged).is_err(), "{}{at} took -1.5", subject.file);
        }
    }
}

#[test]
fn numbers_that_are_not_finite_are_no_json() {
    let text = serde_json::to_string(&examples::batch()).unwrap();
    assert!(text.contains("1523.4"));
    for bad in ["NaN", "Infinity", "-Infinity", "1e999", "-0.5", "null", "\"1\""] {
        let damaged = text.replace("1523.4", bad);
        assert!(serde_json::from_str::<foresail_schemas::metric::Batch>(&damaged).is_err(), "{bad}");
    }
}
