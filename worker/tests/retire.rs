//! A function that does not end when its time is over: its worker is replaced, and what it had to do is done.
//!
//! Without the test harness, because workers must run this very program, which knows the function.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall end")]

#[path = "system/store.rs"]
#[allow(dead_code, reason = "shared with the other tests, which use all of it")]
mod store;
#[path = "system/support.rs"]
#[allow(dead_code, reason = "shared with the other tests, which use all of it")]
mod support;

use std::path::Path;
use std::time::Duration;

use foresail_schemas::run::{Change, FailureKind, RunEvent, RunOptions, RunStatus};
use foresail_worker::registry::{Registry, TaskInput};
use foresail_worker::run_worker_if_asked;
use serde_json::{Value, json};

use support::{Bench, burn, config, plan, wait_until, wait_until_gone, workflow};

/// Sleeps on whatever it is told, unless the mark is there.
fn stubborn(input: &TaskInput) {
    let mark = input.params["mark"].as_str().unwrap();
    if Path::new(mark).exists() {
        return;
    }
    std::fs::write(mark, std::process::id().to_string()).unwrap();
    loop {
        std::thread::sleep(Duration::from_secs(600));
    }
}

/// Who committed each task.
fn committed_by(events: &[RunEvent]) -> Vec<(u32, String)> {
    let mut by: Vec<(u32, String)> = events
        .iter()
        .filter_map(|event| match &event.change {
            Change::TaskCommitted { task, commit } => Some((*task, commit.instance.to_string())),
            _ => None,
        })
        .collect();
    by.sort_unstable();
    by
}

/// `before`, `stubborn` and `after` in a row and `beside` are planned on one worker. Where `beside` runs is
/// its own matter: there may be time for it until the function is given up.
fn a_worker_whose_function_ignores_its_limit_is_replaced() {
    let bench = Bench::new(|settings| settings.worker = None);
    let mark = bench.data.path().join("mark");
    let input = |task: &str| json!([{ "task": task }]);
    let mut before = burn("before", json!({ "output_bytes": 10 }));
    before["inputs"] = json!([]);
    let task =
        |id: &str, run: Value, inputs: Value| json!({"id": id, "name": id, "run": run, "inputs": inputs});
    let params = json!({ "mark": mark.to_str().unwrap() });
    let mut stubborn = task("stubborn", json!({"function": "stubborn", "params": params}), input("before"));
    stubborn["timeout_ms"] = json!(100);
    stubborn["attempts_max"] = json!(2);
    // Long enough for the worker to notice that the function goes on.
    stubborn["retry"] = json!({ "backoff_ms": 2000 });
    let concat = |id: &str, parent: &str| task(id, json!({"function": "foresail.concat"}), input(parent));
    let workflow =
        workflow(json!([before, stubborn, concat("after", "stubborn"), concat("beside", "before")]));
    let size = config(256, 1.0);
    let run = bench.submit("r", &workflow, &plan(&workflow, &[(Some("w"), size); 4]), RunOptions::default());
    wait_until("the function to begin", || mark.exists());
    let pid = || std::fs::read_to_string(&mark).unwrap().parse().unwrap_or(0);
    wait_until("its process to be told", || pid() > 0);
    bench.wait_for_end(&run);
    let events = bench.store.held().runs[&run].events.clone();
    assert_eq!(bench.store.status(&run), RunStatus::Completed, "{events:#?}");
    let failed = events.iter().find_map(|event| match &event.change {
        Change::TaskFailed { task: 1, instance, failure, .. } => Some((instance.to_string(), failure.kind)),
        _ => None,
    });
    let (first, kind) = failed.unwrap();
    assert_eq!(kind, FailureKind::Timeout);
    let by = committed_by(&events);
    assert_eq!(by.len(), 4);
    assert_eq!(by[0], (0, first.clone()));
    assert!(by[1].1 != first && by[2].1 != first, "the worker begins nothing more: {by:?}");
    let place = |kind: &str, instance: &str| {
        events.iter().position(|event| match &event.change {
            Change::WorkerLeft { instance: who, .. } => kind == "left" && who.as_str() == instance,
            Change::WorkerJoined { instance: who, .. } => kind == "joined" && who.as_str() == instance,
            _ => false,
        })
    };
    assert!(place("left", &first).is_some_and(|left| place("joined", &by[1].1).is_some_and(|at| left < at)));
    wait_until_gone(pid());
    assert!(!bench.host.pids().contains(&pid()));
}

fn main() {
    run_worker_if_asked(&Registry::new().register("stubborn", |input| {
        stubborn(&input);
        Ok(String::new().into())
    }));
    a_worker_whose_function_ignores_its_limit_is_replaced();
    println!("test a_worker_whose_function_ignores_its_limit_is_replaced ... ok");
}
