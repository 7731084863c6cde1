//! What a large workflow takes in memory while it is read and once it is: the bytes asked of the system,
//! per task.

#![allow(clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

mod counting;

use std::fmt::Write;
use std::sync::atomic::Ordering;

use foresail_schemas::Workflow;

use counting::{IN_USE, PEAK};

/// As many as are a power of two, so that what grows by doubling is full.
const TASKS: usize = 1 << 14;
/// Bytes of a task with two inputs, its graph included: 432 of its row, 144 of its inputs, the rest are names
/// and the graph.
const KEPT_MAX: usize = 1_000;
/// Bytes beyond those while the graph is built.
const BESIDE_MAX: usize = 100;

#[test]
fn a_large_workflow_is_read_into_little_more_memory_than_it_takes() {
    let mut text = r#"{"name":"w","tasks":[{"id":"t0","name":"f","run":"true"}"#.to_owned();
    for t in 1..TASKS {
        let (one, other) = (t - 1, t / 2);
        let inputs = format!(r#"[{{"task":"t{one}"}},{{"task":"t{other}"}}]"#);
        write!(text, r#",{{"id":"t{t}","name":"f","run":"true","inputs":{inputs}}}"#).unwrap();
    }
    text.push_str("]}");
    let before = IN_USE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let workflow: Workflow = serde_json::from_str(&text).unwrap();
    let kept = (IN_USE.load(Ordering::Relaxed) - before) / TASKS;
    let beside = (PEAK.load(Ordering::Relaxed) - before) / TASKS - kept;
    assert_eq!(workflow.graph().len(), TASKS);
    assert!(kept <= KEPT_MAX, "a task keeps {kept} bytes");
    assert!(beside <= BESIDE_MAX, "while it is read it takes {beside} more");
}
