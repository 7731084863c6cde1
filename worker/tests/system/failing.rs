//! What follows failures, with real processes: larger workers, exit codes that end it, processes that go.

use foresail_schemas::ResourceConfig;
use foresail_schemas::retry::SizeMenu;
use foresail_schemas::run::{Change, FailureKind, RunOptions, RunStatus};
use foresail_schemas::{RunId, Workflow};
use serde_json::json;

use crate::support::*;

/// Bytes that no worker of 128 MB can make.
const TOO_MANY_BYTES: u64 = 200 << 20;

fn on_menu(memory_mb: &[u32]) -> RunOptions {
    let sizes: Vec<ResourceConfig> = memory_mb.iter().map(|&mb| config(mb, 1.0)).collect();
    RunOptions { sizes: SizeMenu::of(&sizes), ..RunOptions::default() }
}

/// The sizes that the attempts of a task ran on, in order, and whether each was a planned worker.
fn ran_on(bench: &Bench, run: &RunId, task: u32) -> Vec<(u32, bool)> {
    let held = bench.store.held();
    let events = &held.runs[run].events;
    let joined = |name: &foresail_schemas::InstanceId| {
        events.iter().find_map(|event| match &event.change {
            Change::WorkerJoined { worker, instance, config, .. } if instance == name => {
                Some((config.memory_mb, worker.is_some()))
            }
            _ => None,
        })
    };
    let leased = events.iter().filter_map(|event| match &event.change {
        Change::TaskLeased { task: t, instance, .. } if *t == task => joined(instance),
        _ => None,
    });
    leased.collect()
}

fn holds_memory(bench: &Bench) -> bool {
    if !bench.host.holds_cpu_share() {
        eprintln!("skipped: control groups are not writable here, memory is limited per process only");
    }
    bench.host.holds_cpu_share()
}

#[test]
fn a_function_that_runs_out_of_memory_runs_again_on_the_next_size_and_its_planned_worker_goes_on() {
    let bench = Bench::new(|_| {});
    if !holds_memory(&bench) {
        return;
    }
    let small = burn("small", json!({}));
    let large = burn("large", json!({"output_bytes": TOO_MANY_BYTES}));
    let mut last = burn("last", json!({}));
    last["after"] = json!(["large"]);
    let workflow = workflow(json!([small, large, last]));
    let plan = plan(&workflow, &[(Some("w"), config(128, 1.0)); 3]);
    let run = bench.submit("r", &workflow, &plan, on_menu(&[128, 160, 1024]));
    bench.wait_for_end(&run);
    assert_eq!(bench.store.status(&run), RunStatus::Completed, "{:?}", bench.store.summary(&run).failure);
    assert_eq!(ran_on(&bench, &run, 1), [(128, true), (160, false), (1024, false)]);
    assert!(ran_on(&bench, &run, 0).iter().chain(&ran_on(&bench, &run, 2)).all(|ran| *ran == (128, true)));
}

#[test]
fn a_command_that_runs_out_of_memory_runs_again_on_the_next_size() {
    let bench = Bench::new(|_| {});
    if !holds_memory(&bench) {
        return;
    }
    let line = "head -c 200M /dev/zero | tail | wc -c";
    let eater = workflow(json!([{"id": "c", "name": "c", "run": line}]));
    let run = bench.submit("r", &eater, &flexible(&eater, config(128, 1.0)), on_menu(&[128, 1024]));
    bench.wait_for_end(&run);
    assert_eq!(bench.store.status(&run), RunStatus::Completed, "{:?}", bench.store.summary(&run).failure);
    assert_eq!(ran_on(&bench, &run, 0), [(128, false), (1024, false)]);
}

#[test]
fn out_of_memory_on_the_largest_size_fails_the_run_with_the_size_and_a_hint() {
    let bench = Bench::new(|_| {});
    if !holds_memory(&bench) {
        return;
    }
    let workflow = workflow(json!([burn("t", json!({"output_bytes": TOO_MANY_BYTES}))]));
    let run = bench.submit("r", &workflow, &flexible(&workflow, config(128, 1.0)), on_menu(&[128, 160]));
    bench.wait_for_end(&run);
    let failure = bench.store.summary(&run).failure.unwrap();
    assert_eq!((failure.kind, failure.attempt), (FailureKind::OutOfMemory, 2), "{failure:?}");
    for told in [
        "used more memory than its size of 160 MB",
        "no larger size",
        "`foresail run --memory",
        "attempt 1 `out_",
    ] {
        assert!(failure.message.contains(told), "`{told}` in {failure:?}");
    }
    assert_eq!(failure.message.matches("hint:").count(), 1, "{failure:?}");
}

fn command(line: &str, settings: serde_json::Value) -> Workflow {
    let mut task = json!({"id": "c", "name": "c", "run": line});
    task.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    workflow(json!([task]))
}

#[test]
fn a_command_is_tried_again_unless_its_exit_code_says_no() {
    let bench = Bench::new(|_| {});
    let file = bench.data.path().join("tries");
    let tries = || std::fs::read_to_string(&file).unwrap_or_default().lines().count();
    let line = format!("echo x >> {}; exit 22", file.display());
    let retry = json!({"backoff_ms": 1, "not_on_exit": [22]});
    for (settings, kind, count) in [
        (json!({"attempts_max": 3, "retry": {"backoff_ms": 1}}), FailureKind::TaskCrash, 3),
        (json!({"attempts_max": 3, "retry": retry}), FailureKind::TaskRefused, 4),
    ] {
        let workflow = command(&line, settings);
        let plan = flexible(&workflow, config(256, 1.0));
        let run = bench.submit(&format!("r-{count}"), &workflow, &plan, RunOptions::default());
        bench.wait_for_end(&run);
        let failure = bench.store.summary(&run).failure.unwrap();
        assert_eq!((failure.kind, tries()), (kind, count), "{failure:?}");
        assert!(failure.message.contains("exit code 22"), "{failure:?}");
        let names_rule = failure.message.contains("`22` (`not_on_exit`)");
        assert_eq!(names_rule, kind == FailureKind::TaskRefused, "{failure:?}");
    }
}

#[test]
fn a_command_past_its_limit_takes_every_process_below_it_along() {
    let bench = Bench::new(|_| {});
    let file = bench.data.path().join("pids");
    let note = format!("echo $! >> {}", file.display());
    let line = format!("setsid sleep 600 & {note}; (sleep 600 & {note}; wait) & {note}; wait");
    let workflow = command(&line, json!({"timeout_ms": 1500, "attempts_max": 1}));
    let run = bench.submit("r", &workflow, &flexible(&workflow, config(256, 1.0)), RunOptions::default());
    bench.wait_for_end(&run);
    assert_eq!(bench.store.summary(&run).failure.unwrap().kind, FailureKind::Timeout);
    let pids: Vec<u32> =
        std::fs::read_to_string(&file).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(pids.len(), 3, "the command did not come so far within its limit");
    pids.into_iter().for_each(wait_until_gone);
    assert_eq!(bench.host.pids().len(), 1, "its worker goes on");
}
