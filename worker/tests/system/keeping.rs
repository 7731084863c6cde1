//! Results of planned workers that only their next task reads: they stay in memory, and in the process of
//! their function, as long as that loses nothing.

use std::path::Path;

use foresail_schemas::Workflow;
use foresail_schemas::metric::Record;
use foresail_schemas::run::{Change, Commit, FailureKind, Location, RunOptions, RunStatus, WorkerUsage};
use serde_json::json;

use crate::pickled::{interpreter, sources};
use crate::support::*;

const BYTES: usize = 1_000_000;

/// `make` writes a large value, which `read`, whose body is given, reads.
fn chain(body: &str) -> Workflow {
    let make =
        format!("import pickle\ndef f():\n    return pickle.PickleBuffer(bytearray(b'x') * {BYTES})\n");
    let read =
        format!("import foresail, os, time\ndef f(a):\n{body}\n    return foresail.Raw(str(len(a)))\n");
    sources(json!([
        {"id": "make", "name": "make", "run": make},
        {"id": "read", "name": "read", "run": read, "inputs": [{"task": "make"}]},
    ]))
}

/// What came of a run on one worker.
struct Ran {
    status: RunStatus,
    failure: Option<(FailureKind, String)>,
    usage: WorkerUsage,
    commits: Vec<Commit>,
    failed: usize,
    records: usize,
}

fn run_with(body: &str, options: RunOptions) -> Ran {
    run_workflow(&chain(body), options)
}

fn run_workflow(workflow: &Workflow, options: RunOptions) -> Ran {
    let bench = Bench::new(|settings| settings.python = Some(interpreter()));
    let size = config(1769, 1.0);
    let plan = plan(workflow, &[(Some("a"), size), (Some("a"), size)]);
    let run = bench.submit("r", workflow, &plan, options);
    bench.wait_for_end(&run);
    let summary = bench.store.summary(&run);
    let mut usage = WorkerUsage::default();
    summary.usage.iter().for_each(|of_config| usage.add(&of_config.usage));
    let records = bench.store.records().iter().filter(|r| matches!(r, Record::Task(_))).count();
    let held = bench.store.held();
    let events = &held.runs[&run].events;
    let commits = events.iter().filter_map(|event| match &event.change {
        Change::TaskCommitted { commit, .. } => Some(commit.clone()),
        _ => None,
    });
    let failed = events.iter().filter(|event| matches!(event.change, Change::TaskFailed { .. }));
    Ran {
        status: summary.status,
        failure: summary.failure.map(|failure| (failure.kind, failure.message)),
        usage,
        commits: commits.collect(),
        failed: failed.count(),
        records,
    }
}

fn run(body: &str) -> Ran {
    run_with(body, RunOptions::default())
}

/// A line that does this once, however often the task runs.
fn once(marker: &Path, what: &str) -> String {
    let marker = marker.display();
    format!("    if not os.path.exists('{marker}'):\n        open('{marker}', 'w').close()\n        {what}")
}

fn is_stored(commit: &Commit) -> bool {
    matches!(commit.outputs[0].location, Location::Stored(_))
}

#[test]
fn a_result_that_only_the_next_task_reads_is_never_stored() {
    let ran = run("    pass");
    assert_eq!((ran.status, ran.commits.len(), ran.failed), (RunStatus::Completed, 2, 0));
    assert!(matches!(ran.commits[0].outputs[0].location, Location::Unstored(_)), "{:?}", ran.commits);
    assert_eq!((ran.usage.puts, ran.usage.upload_bytes, ran.usage.shared_bytes), (0, 0, 0));
    assert!(ran.usage.saved_bytes > BYTES as u64 && ran.records == 2);
}

#[test]
fn a_run_that_keeps_its_intermediate_objects_stores_them() {
    let ran = run_with("    pass", RunOptions { keep_intermediate: true, ..RunOptions::default() });
    assert!(ran.status == RunStatus::Completed && is_stored(&ran.commits[0]), "{:?}", ran.commits);
}

#[test]
fn what_waits_for_a_long_task_is_stored_meanwhile() {
    let ran = run("    time.sleep(2.6)");
    assert!(ran.status == RunStatus::Completed && is_stored(&ran.commits[0]), "{:?}", ran.commits);
    assert_eq!((ran.commits.len(), ran.usage.puts, ran.records), (2, 1, 2));
}

#[test]
fn the_result_before_a_task_that_fails_is_stored_first() {
    let options = RunOptions { attempts_max: 2, ..RunOptions::default() };
    let ran = run_with("    raise ValueError('no')", options);
    let (kind, message) = ran.failure.unwrap();
    assert!(kind == FailureKind::TaskError && message.contains("ValueError: no"), "{message}");
    assert_eq!((ran.status, ran.failed, ran.commits.len()), (RunStatus::Failed, 2, 1));
    assert!(is_stored(&ran.commits[0]), "a resumed run goes on behind it");
}

#[test]
fn where_the_process_is_lost_with_what_it_kept_both_tasks_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let ends = [("abort", "os.abort()"), ("worker", "os.kill(os.getppid(), 9); time.sleep(60)")];
    for (name, end) in ends {
        let ran = run(&once(&dir.path().join(name), end));
        assert_eq!((ran.status, ran.commits.len()), (RunStatus::Completed, 2), "{name}: {:?}", ran.failure);
        let made = &ran.commits[0].outputs[0];
        assert!(made.bytes > BYTES as u64, "{name}");
    }
}

#[test]
fn a_task_that_may_run_once_is_not_lost_with_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = chain(&once(&dir.path().join("once"), "os.abort()")).spec().clone();
    spec.tasks[0].attempts_max = Some(1);
    let workflow = serde_json::from_value(serde_json::to_value(spec).unwrap()).unwrap();
    let ran = run_workflow(&workflow, RunOptions::default());
    assert_eq!((ran.status, ran.failed), (RunStatus::Completed, 1), "{:?}", ran.failure);
}
