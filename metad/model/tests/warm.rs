//! Which answers need much to be fitted first, and that they are the same once it was.

#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use std::sync::Arc;

use foresail_model::{Cold, Predictor, WorkflowModel};
use foresail_schemas::Sla;
use foresail_schemas::prediction::Query;
use jiff::Timestamp;
use serde_json::{Value, json};

const SLAS: [Sla; 2] = [Sla::MEDIAN, Sla::P95];

fn learn(model: &mut WorkflowModel, second: i64, record: Value) -> Arc<Predictor> {
    let record = serde_json::from_value(record).unwrap();
    model.update(&record, Timestamp::from_second(second).unwrap());
    model.snapshot()
}

fn task(name: &str, memory_mb: u32, exec_ms: f64) -> Value {
    json!({"kind": "task", "task": name, "memory_mb": memory_mb, "exec_ms": exec_ms, "output_bytes": 7})
}

fn query(question: Value) -> Query {
    serde_json::from_value(question).unwrap()
}

/// Three tasks, each at two sizes, a transfer and a start.
fn measured() -> (WorkflowModel, Arc<Predictor>) {
    let mut model = WorkflowModel::new();
    for n in 0..30 {
        let (name, memory_mb) = (["a", "b", "c"][n % 3], 512 << (n % 2));
        learn(&mut model, n as i64, task(name, memory_mb, 100.0 * 512.0 / f64::from(memory_mb) + n as f64));
    }
    let transfer =
        json!({"kind": "transfer", "direction": "upload", "bytes": 9, "time_ms": 3.0, "memory_mb": 512});
    learn(&mut model, 31, transfer);
    let last = learn(
        &mut model,
        32,
        json!({"kind": "startup", "state": "cold", "time_ms": 640.0, "memory_mb": 512}),
    );
    (model, last)
}

#[test]
fn a_cold_answer_is_told_from_a_warm_one_and_is_the_same_once_it_is_warm() {
    let (_, predictor) = measured();
    for question in [
        json!({"kind": "execution_time", "task": "a", "memory_mb": 3000}),
        json!({"kind": "output_size", "task": "a"}),
        json!({"kind": "transfer_time", "direction": "upload", "bytes": 5, "memory_mb": 512}),
        json!({"kind": "startup_time", "state": "cold", "memory_mb": 512}),
    ] {
        let query = query(question);
        assert_eq!(predictor.known_warm(&query, &SLAS), Err(Cold), "{query:?}");
        let known = predictor.known(&query, &SLAS);
        assert!(known.is_some());
        assert_eq!(predictor.known_warm(&query, &SLAS), Ok(known));
    }
}

#[test]
fn a_config_of_its_own_and_a_task_that_is_not_known_are_never_cold() {
    let (_, predictor) = measured();
    for (name, is_known) in [("a", true), ("nobody", false)] {
        let query = query(json!({"kind": "execution_time", "task": name, "memory_mb": 512}));
        assert_eq!(predictor.known_warm(&query, &SLAS).map(|known| known.is_some()), Ok(is_known));
    }
}

#[test]
fn a_change_of_the_pool_makes_the_answers_that_lean_on_it_cold_until_one_was_made() {
    let (mut model, before) = measured();
    let query = query(json!({"kind": "execution_time", "task": "a", "memory_mb": 3000}));
    before.known(&query, &SLAS).unwrap();
    assert!(before.known_warm(&query, &SLAS).is_ok());
    let after = learn(&mut model, 40, task("b", 512, 130.0));
    assert_eq!(after.known_warm(&query, &SLAS), Err(Cold));
    let known = after.known(&query, &SLAS);
    assert_eq!(after.known_warm(&query, &SLAS), Ok(known));
}

#[test]
fn a_download_is_never_cold() {
    let (_, predictor) = measured();
    let text = serde_json::to_string(&*predictor).unwrap();
    let download: Predictor = serde_json::from_str(&text).unwrap();
    let query = query(json!({"kind": "execution_time", "task": "a", "memory_mb": 3000}));
    assert_eq!(download.known_warm(&query, &SLAS), Ok(predictor.known(&query, &SLAS)));
}
