//! The size of a worker as a limit: CPU share, memory, life.

use foresail_schemas::metric::Record;
use foresail_schemas::run::{FailureKind, RunOptions};
use serde_json::json;

use crate::support::*;

/// One attempt and nothing else: what happens to it decides the run.
fn once() -> RunOptions {
    RunOptions { attempts_max: 1, ..RunOptions::default() }
}

#[test]
fn half_the_cpu_share_takes_twice_as_long() {
    let bench = Bench::new(|settings| settings.concurrency_max = 1);
    if !bench.host.holds_cpu_share() {
        eprintln!("skipped: control groups are not writable here, CPU shares cannot be held");
        return;
    }
    // Both far below one core, and the best of several, so that other load on the machine slows neither below
    // its share.
    let workflow = workflow(json!([burn("t", json!({"cpu_ms": 150}))]));
    let mut exec_ms = Vec::new();
    for vcpu in [0.4, 0.2] {
        for turn in 0..4 {
            let run = format!("r-{vcpu}-{turn}");
            bench.complete(&run, &workflow, &flexible(&workflow, config(256, vcpu)));
        }
        let of_size = |r: &Record| match r {
            Record::Task(task) if task.vcpu == Some(vcpu) => Some(task.exec_ms),
            _ => None,
        };
        exec_ms.extend(bench.store.records().iter().filter_map(of_size).reduce(f64::min));
    }
    let ratio = exec_ms[1] / exec_ms[0];
    assert!((1.5..2.7).contains(&ratio), "{exec_ms:?} ms at 0.4 and 0.2 vCPU: ratio {ratio:.2}");
}

#[test]
fn a_command_that_takes_too_much_memory_is_told_as_such() {
    let bench = Bench::new(|_| {});
    if !bench.host.holds_cpu_share() {
        eprintln!("skipped: control groups are not writable here, memory is limited per process only");
        return;
    }
    // `tail` keeps the only line, 400 MB long; the exit code of the pipeline is that of `wc` and hides what
    // happened.
    let line = "head -c 400M /dev/zero | tail | wc -c";
    let eater = workflow(json!([{"id": "c", "name": "c", "run": line}]));
    let run = bench.submit("r", &eater, &flexible(&eater, config(128, 1.0)), once());
    bench.wait_for_end(&run);
    let failure = bench.store.summary(&run).failure.unwrap();
    assert_eq!(failure.kind, FailureKind::OutOfMemory, "{failure:?}");
    assert!(failure.message.contains("hint"), "{failure:?}");
}

#[test]
fn a_function_that_takes_too_much_memory_costs_its_worker_and_is_told_as_such() {
    let bench = Bench::new(|_| {});
    if !bench.host.holds_cpu_share() {
        eprintln!("skipped: control groups are not writable here, memory is limited per process only");
        return;
    }
    let workflow = workflow(json!([burn("t", json!({"output_bytes": 400 << 20}))]));
    let run = bench.submit("r", &workflow, &flexible(&workflow, config(128, 1.0)), once());
    bench.wait_for_end(&run);
    let failure = bench.store.summary(&run).failure.unwrap();
    assert_eq!((failure.kind, failure.attempt), (FailureKind::OutOfMemory, 1), "{failure:?}");
    wait_until("the worker to be gone", || bench.host.pids().is_empty());
}

#[test]
fn an_invocation_that_outlives_its_limit_is_killed() {
    let bench = Bench::new(|settings| settings.life_ms_max = 700.0);
    let workflow = workflow(json!([burn("t", json!({"sleep_ms": 600_000}))]));
    let run = bench.submit("r", &workflow, &flexible(&workflow, config(256, 1.0)), once());
    bench.wait_for_end(&run);
    let failure = bench.store.summary(&run).failure.unwrap();
    assert_eq!(failure.kind, FailureKind::Timeout, "{failure:?}");
    for told in ["700 ms", "split the task", "`--life-ms-max`"] {
        assert!(failure.message.contains(told), "`{told}` in {failure:?}");
    }
    assert_eq!(failure.message.matches("hint:").count(), 1, "{failure:?}");
    assert!(failure.message.contains("700 ms"), "{failure:?}");
}

#[test]
fn a_task_past_its_own_limit_fails_and_its_worker_goes_on() {
    let bench = Bench::new(|_| {});
    let mut task = burn("t", json!({"sleep_ms": 600_000}));
    task["timeout_ms"] = json!(100);
    let workflow = workflow(json!([task]));
    let plan = flexible(&workflow, config(256, 1.0));
    let run = bench.submit("r", &workflow, &plan, once());
    bench.wait_for_end(&run);
    assert_eq!(bench.store.summary(&run).failure.unwrap().kind, FailureKind::Timeout);
    let pids = bench.host.pids();
    let other = crate::support::workflow(json!([burn("t", json!({}))]));
    bench.complete("r-2", &other, &flexible(&other, config(256, 1.0)));
    assert_eq!(bench.host.pids(), pids);
}
