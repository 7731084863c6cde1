//! Peak memory in reports: which part of it, over stored forms and merges, within bounds.

#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use foresail_model::{PeakMemory, SavedTask, WorkflowModel};
use foresail_schemas::TaskName;
use jiff::Timestamp;
use serde_json::json;

fn learn(model: &mut WorkflowModel, second: i64, memory_mb: u32, peak_memory_mb: Option<f64>) {
    let record = json!({
        "kind": "task", "task": "t", "memory_mb": memory_mb, "exec_ms": 5.0, "peak_memory_mb": peak_memory_mb,
    });
    let record = serde_json::from_value(record).unwrap();
    model.update(&record, Timestamp::from_second(second).unwrap());
}

/// The peak memory by config.
fn peaks(model: &mut WorkflowModel) -> Vec<(u32, Option<PeakMemory>)> {
    let report = model.snapshot().report(&TaskName::new("t").unwrap()).unwrap();
    report.configs.iter().map(|part| (part.config.memory_mb, part.peak_memory)).collect()
}

#[test]
fn the_report_has_the_95th_percentile_and_the_maximum_of_each_config_that_knows_it() {
    let mut model = WorkflowModel::new();
    (1..=1000).for_each(|n| learn(&mut model, n, 512, Some(n as f64 / 4.0)));
    learn(&mut model, 1001, 512, None);
    learn(&mut model, 1002, 1024, None);
    learn(&mut model, 1003, 2048, Some(0.0));
    let found = peaks(&mut model);
    let small = found[0].1.unwrap();
    assert_eq!((small.samples, small.max_mb), (1000, 250.0));
    assert!((small.p95_mb / 237.5 - 1.0).abs() < 0.01, "{}", small.p95_mb);
    let nothing = PeakMemory { samples: 1, p95_mb: 0.0, max_mb: 0.0 };
    assert_eq!(found[1..], [(1024, None), (2048, Some(nothing))]);
}

#[test]
fn stored_and_merged_models_know_the_same() {
    let (mut all, mut left, mut right) = (WorkflowModel::new(), WorkflowModel::new(), WorkflowModel::new());
    for n in 0..300 {
        let (memory_mb, peak) = (512 << (n % 2), Some(f64::from(n * n)));
        learn(&mut all, i64::from(n), memory_mb, peak);
        learn(if n % 3 == 0 { &mut left } else { &mut right }, i64::from(n), memory_mb, peak);
    }
    left.merge(&right);
    assert!(left == all && peaks(&mut left) == peaks(&mut all));
    let saved = all.take_changed().into_iter().map(|(name, task)| {
        let bytes = postcard::to_allocvec(&task).unwrap();
        (name, postcard::from_bytes::<SavedTask>(&bytes).unwrap())
    });
    let mut again = WorkflowModel::from_saved(left.rest(), saved);
    assert_eq!(peaks(&mut again), peaks(&mut all));
}

#[test]
fn a_config_that_was_displaced_is_forgotten_here_too() {
    let mut model = WorkflowModel::new();
    (0..300).for_each(|n| learn(&mut model, i64::from(n), 128 + n, Some(1.0)));
    let known = peaks(&mut model);
    assert!(known.len() < 100 && known.iter().all(|(_, peak)| peak.is_some_and(|p| p.samples == 1)));
    let one: Vec<u8> = postcard::to_allocvec(&model.take_changed()[0].1).unwrap();
    (300..600).for_each(|n| learn(&mut model, i64::from(n), 128 + n, Some(1.0)));
    let later: Vec<u8> = postcard::to_allocvec(&model.take_changed()[0].1).unwrap();
    assert!(later.len() < one.len() + one.len() / 4, "{} after {}", later.len(), one.len());
}
