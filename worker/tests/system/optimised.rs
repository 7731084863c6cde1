//! Each optimisation through real worker processes, on and off, with a store in which every blob takes long.
//!
//! What is compared is the order of events, and times of one run against each other with wide margins.

use std::time::Duration;

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::metric::StartState;
use foresail_schemas::optimization::{Optimization, PreWarming};
use foresail_schemas::run::{Change, Commit, FailureKind, RunEvent, RunOptions, RunStatus};
use foresail_schemas::{Plan, RunId, Workflow};
use foresail_worker::host::local::ObjectPlace;
use serde_json::{Value, json};

use crate::support::*;

/// More than rides inside a commit.
const LARGE_BYTES: u64 = 50_000;
/// Time of each blob, either way.
const BLOB_DELAY: Duration = Duration::from_millis(300);

fn bench() -> Bench {
    let bench = Bench::new(|settings| settings.objects = ObjectPlace::Metad);
    bench.store.held().blob_delay = BLOB_DELAY;
    bench
}

fn size() -> ResourceConfig {
    config(256, 1.0)
}

/// A task that sleeps and writes.
fn task(id: &str, sleep_ms: u64, output_bytes: u64, parents: &[&str]) -> Value {
    let mut task = burn(id, json!({"sleep_ms": sleep_ms, "output_bytes": output_bytes}));
    task["inputs"] = parents.iter().map(|parent| json!({"task": parent})).collect();
    task
}

fn placed(workflow: &Workflow, workers: &[&str]) -> Plan {
    let placed: Vec<_> = workers.iter().map(|worker| (Some(*worker), size())).collect();
    plan(workflow, &placed)
}

/// Runs to the end and gives all events.
fn run(bench: &Bench, name: &str, workflow: &Workflow, plan: &Plan, options: RunOptions) -> Vec<RunEvent> {
    let run = bench.submit(name, workflow, plan, options);
    bench.wait_for_end(&run);
    assert_eq!(bench.store.status(&run), RunStatus::Completed, "{:?}", bench.store.summary(&run).failure);
    bench.store.held().runs[&run].events.clone()
}

fn place(events: &[RunEvent], what: &str, is_it: impl Fn(&Change) -> bool) -> usize {
    events.iter().position(|event| is_it(&event.change)).unwrap_or_else(|| panic!("no {what}"))
}

fn leased(events: &[RunEvent], task: u32) -> usize {
    place(events, "lease", |c| matches!(c, Change::TaskLeased { task: t, .. } if *t == task))
}

fn committed(events: &[RunEvent], task: u32) -> usize {
    place(events, "commit", |c| matches!(c, Change::TaskCommitted { task: t, .. } if *t == task))
}

fn commit(bench: &Bench, run: &str, task: u32) -> Commit {
    let run = RunId::new(run).unwrap();
    bench.store.held().runs[&run].ledger.commit(task).unwrap().clone()
}

#[test]
fn a_worker_computes_while_it_uploads_unless_it_is_told_not_to() {
    let workflow = workflow(json!([task("a", 0, LARGE_BYTES, &[]), task("b", 0, LARGE_BYTES, &[])]));
    let plan = placed(&workflow, &["w", "w"]);
    for overlap_uploads in [true, false] {
        let bench = bench();
        let options = RunOptions { overlap_uploads, ..RunOptions::default() };
        let events = run(&bench, "r", &workflow, &plan, options);
        let overlapped = leased(&events, 1) < committed(&events, 0);
        assert_eq!(overlapped, overlap_uploads, "{events:?}");
    }
}

#[test]
fn a_failing_upload_is_a_failed_attempt_while_the_next_task_runs() {
    let workflow = workflow(json!([task("a", 0, LARGE_BYTES, &[]), task("b", 900, 10, &[])]));
    let plan = placed(&workflow, &["w", "w"]);
    let bench = bench();
    bench.store.held().blobs_refused = 1;
    let events = run(&bench, "r", &workflow, &plan, RunOptions::default());
    let failed = place(&events, "failure", |c| matches!(c, Change::TaskFailed { task: 0, .. }));
    assert!(leased(&events, 1) < failed && failed < committed(&events, 0), "{events:?}");
}

/// An object is stored elsewhere; the worker of the last task runs `long` meanwhile.
fn compare_downloads(workflow: &Workflow, workers: &[&str]) {
    let mut plan = placed(workflow, workers);
    let last = plan.tasks.len() - 1;
    let mut download_ms = Vec::new();
    for preload in [false, true] {
        let bench = bench();
        if preload {
            plan.tasks[last].optimizations.push(Optimization::PreLoad);
        }
        run(&bench, "r", workflow, &plan, RunOptions::default());
        download_ms.push(commit(&bench, "r", last as u32).measured.download_ms);
        let usage = bench.store.summary(&RunId::new("r").unwrap()).usage[0].usage;
        assert_eq!((usage.gets, usage.download_bytes), (1, LARGE_BYTES), "nothing is fetched twice");
    }
    assert!(download_ms[1] < 0.3 * download_ms[0], "{download_ms:?}");
}

#[test]
fn an_input_is_in_memory_before_its_task_begins_where_the_plan_says_so() {
    let workflow = workflow(json!([
        task("made", 0, LARGE_BYTES, &[]),
        task("long", 1_500, 10, &[]),
        task("use", 0, 10, &["made", "long"]),
    ]));
    compare_downloads(&workflow, &["b", "a", "a"]);
}

#[test]
fn what_exists_when_a_worker_joins_is_fetched_while_its_first_task_runs() {
    // The worker of `long` is started by what comes after `made`.
    let workflow = workflow(json!([
        task("made", 0, LARGE_BYTES, &[]),
        task("then", 600, 10, &["made"]),
        task("long", 1_500, 10, &["then"]),
        task("use", 0, 10, &["made", "long"]),
    ]));
    compare_downloads(&workflow, &["b", "b", "a", "a"]);
}

/// The worker of `use` waits for `short`, which stands behind `slow` on another worker.
fn waiting_for_a_worker(slow_ms: u64, short_ms: u64) -> Workflow {
    workflow(json!([
        task("first", 0, 10, &[]),
        task("slow", slow_ms, 10, &[]),
        task("short", short_ms, LARGE_BYTES, &[]),
        task("use", 0, 10, &["first", "short"]),
    ]))
}

#[test]
fn a_copy_that_comes_first_is_the_result_and_its_original_is_not_run() {
    let workflow = waiting_for_a_worker(2_500, 0);
    let mut plan = placed(&workflow, &["a", "b", "b", "a"]);
    plan.tasks[2].optimizations.push(Optimization::TaskDup);
    let bench = bench();
    let events = run(&bench, "r", &workflow, &plan, RunOptions::default());
    let copy = commit(&bench, "r", 2);
    assert_eq!(copy.attempt, 0);
    assert!(committed(&events, 3) < committed(&events, 1), "`use` did not wait for `slow`");
    let commits = events.iter().filter(|e| matches!(e.change, Change::TaskCommitted { .. }));
    assert_eq!(commits.count(), 4);
    assert!(!events.iter().any(|e| matches!(e.change, Change::TaskLeased { task: 2, .. })));
    assert_eq!(bench.store.held().blobs_put.len(), 1);
    plan.tasks[2].optimizations.clear();
    let events = run(&bench, "off", &workflow, &plan, RunOptions::default());
    assert!(committed(&events, 3) > committed(&events, 1), "`use` waits");
    assert!(!events.iter().any(|e| matches!(e.change, Change::TaskDuplicated { .. })));
}

#[test]
fn the_object_of_a_copy_that_comes_second_is_deleted() {
    // The owner begins `short` when the run begins; the copy begins when `first` has ended.
    let workflow = workflow(json!([
        task("first", 500, 10, &[]),
        task("short", 1_000, LARGE_BYTES, &[]),
        task("use", 0, 10, &["first", "short"]),
    ]));
    let mut plan = placed(&workflow, &["a", "b", "a"]);
    plan.tasks[1].optimizations.push(Optimization::TaskDup);
    let bench = bench();
    bench.store.held().blob_delay = Duration::ZERO;
    let events = run(&bench, "r", &workflow, &plan, RunOptions::default());
    assert!(events.iter().any(|e| matches!(e.change, Change::TaskDuplicated { task: 1, .. })));
    assert_eq!(commit(&bench, "r", 1).attempt, 1);
    let held = bench.store.held();
    let (kept, put): (Vec<&String>, Vec<&String>) =
        (held.blobs.keys().collect(), held.blobs_put.iter().collect());
    assert_eq!((kept.len(), put.len()), (1, 2), "{put:?}");
    assert!(kept[0].contains("==1-b-"), "{kept:?}");
}

#[test]
fn a_worker_that_was_started_beforehand_joins_warm() {
    let workflow = workflow(json!([task("long", 1_200, 10, &[]), task("next", 0, 10, &["long"])]));
    let mut plan = placed(&workflow, &["a", "b"]);
    for prewarm in [false, true] {
        let bench = bench();
        if prewarm {
            let (after, serves) = (Some(plan.tasks[0].task.clone()), plan.tasks[1].task.clone());
            plan.prewarms = vec![PreWarming { config: size(), after, delay_ms: 50.0, serves }];
        }
        let events = run(&bench, "r", &workflow, &plan, RunOptions::default());
        let joined = events.iter().filter_map(|event| match &event.change {
            Change::WorkerJoined { worker, start, .. } => {
                Some((worker.as_ref().map(|w| w.to_string()), *start))
            }
            _ => None,
        });
        let joined: Vec<_> = joined.collect();
        let named = |name: &str, start| (Some(name.to_owned()), start);
        let expected = match prewarm {
            true => {
                vec![named("a", StartState::Cold), (None, StartState::Cold), named("b", StartState::Warm)]
            }
            false => vec![named("a", StartState::Cold), named("b", StartState::Cold)],
        };
        assert_eq!(joined, expected);
        let usage = &bench.store.summary(&RunId::new("r").unwrap()).usage[0];
        assert_eq!(usage.invocations, expected.len() as u64, "it is counted");
        assert_eq!(starts(&bench.store.records()).len(), expected.len(), "every start is measured");
    }
}

#[test]
fn a_custom_optimisation_that_the_worker_does_not_have_fails_the_run_at_once() {
    let workflow = workflow(json!([task("a", 0, 10, &[])]));
    let mut plan = placed(&workflow, &["w"]);
    let name = "nobody-has-it".parse().unwrap();
    plan.tasks[0].optimizations.push(Optimization::Custom { name, params: Value::Null });
    let bench = bench();
    let run = bench.submit("r", &workflow, &plan, RunOptions::default());
    bench.wait_for_end(&run);
    let failure = bench.store.summary(&run).failure.unwrap();
    assert_eq!((failure.kind, failure.attempt), (FailureKind::UnknownFunction, 1));
    assert!(failure.message.contains("`nobody-has-it`"), "{}", failure.message);
}
