//! What happens when a worker or the store is lost: places, leases, measurements.

use foresail_schemas::error::ErrorCode;
use foresail_schemas::invocation::Invocation;
use foresail_schemas::run::{Change, FailureKind, RunOptions, RunStatus};
use foresail_worker::host::local::WorkerCommand;
use serde_json::json;

use crate::support::*;

/// Leases that never end by themselves within a test.
fn long_leases() -> RunOptions {
    RunOptions { lease_ms: 3_600_000.0, ..RunOptions::default() }
}

fn kill(pid: u32) {
    // SAFETY: a plain system call on a process that this test started.
    unsafe { libc::kill(pid as i32, libc::SIGKILL) };
}

#[test]
fn a_killed_worker_frees_its_place_and_its_lease_at_once() {
    let bench = Bench::new(|settings| settings.concurrency_max = 1);
    let mark = bench.data.path().join("mark");
    let line = format!("test -e {0} && exit 0; touch {0}; sleep 600", mark.display());
    let workflow = workflow(json!([{"id": "c", "name": "c", "run": line}]));
    let plan = plan(&workflow, &[(Some("w"), config(256, 1.0))]);
    let run = bench.submit("r", &workflow, &plan, long_leases());
    wait_until("the command to start", || mark.exists());
    let pids = bench.host.pids();
    assert_eq!(pids.len(), 1);
    kill(pids[0]);
    bench.wait_until_idle();
    let failure = || {
        let held = bench.store.held();
        held.runs[&run].events.iter().find_map(|e| match &e.change {
            Change::TaskFailed { failure, .. } => Some(failure.clone()),
            _ => None,
        })
    };
    wait_until("the failure to be told", || failure().is_some());
    assert_eq!(failure().unwrap().kind, FailureKind::WorkerLost);
    // The planned worker counts as gone: a new instance of it joins and finishes the run.
    let left = || bench.store.held().runs[&run].events.iter().any(|e| e.change.kind() == "worker_left");
    wait_until("the worker to have left", left);
    let (worker, config) = (plan.tasks[0].worker.clone(), plan.tasks[0].config);
    let metad = bench.store.url.clone();
    bench.invoke(Invocation::new(run.clone(), worker, config, vec![0], metad)).unwrap();
    bench.wait_for_end(&run);
    assert_eq!(bench.store.status(&run), RunStatus::Completed);
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
}

#[test]
fn an_invocation_that_metad_refuses_for_good_ends_and_gives_its_place_back() {
    let bench = Bench::new(|_| {});
    bench.store.held().takes_operations = Some(ErrorCode::Unauthorized);
    let workflow = workflow(json!([burn("a", json!({}))]));
    let plan = flexible(&workflow, config(256, 1.0));
    let run = bench.submit("r", &workflow, &plan, long_leases());
    wait_until("the refusal", || bench.store.held().refused > 0);
    bench.wait_until_idle();
    assert_eq!((bench.store.status(&run), bench.status().idle), (RunStatus::Running, 1));
}

#[test]
fn a_program_that_never_becomes_a_worker_cancels_its_run_with_the_reason() {
    let bench = Bench::new(|settings| {
        let args = ["-c", "exit 0"].map(str::to_owned).to_vec();
        settings.worker = Some(WorkerCommand { program: "sh".into(), args });
    });
    let workflow = workflow(json!([burn("a", json!({}))]));
    let plan = flexible(&workflow, config(256, 1.0));
    let run = bench.submit("r", &workflow, &plan, long_leases());
    for _ in 0..2 {
        bench.wait_until_idle();
        assert_eq!(bench.store.status(&run), RunStatus::Running);
        let (config, metad) = (plan.tasks[0].config, bench.store.url.clone());
        bench.invoke(Invocation::new(run.clone(), None, config, vec![0], metad)).unwrap();
    }
    bench.wait_for_end(&run);
    assert_eq!(bench.store.status(&run), RunStatus::Cancelled);
    let told = format!("{:?}", bench.store.held().runs[&run].events);
    assert!(told.contains("foresail::worker(registry)"), "{told}");
}

#[test]
fn measurements_that_nobody_took_are_sent_later_and_once() {
    measurements_are_sent_later(ErrorCode::Unavailable);
}

#[test]
fn measurements_wait_until_the_token_is_right() {
    measurements_are_sent_later(ErrorCode::Unauthorized);
}

fn measurements_are_sent_later(refusal: ErrorCode) {
    let mut bench = Bench::new(|_| {});
    bench.store.held().takes_batches = Some(refusal);
    let workflow = workflow(json!([burn("a", json!({})), burn("b", json!({}))]));
    bench.complete("r", &workflow, &flexible(&workflow, config(256, 1.0)));
    let spool = || std::fs::read_dir(bench.data.path().join("spool")).unwrap().count();
    assert!(bench.store.records().is_empty() && spool() > 0);
    bench.store.held().takes_batches = None;
    bench.host.stop();
    let spool = std::fs::read_dir(bench.data.path().join("spool")).unwrap().count();
    let tasks = bench
        .store
        .records()
        .iter()
        .filter(|r| matches!(r, foresail_schemas::metric::Record::Task(_)))
        .count();
    assert_eq!((spool, tasks), (0, 2));
}

#[test]
fn the_measurements_of_a_killed_worker_are_not_lost() {
    let mut bench = Bench::new(|_| {});
    let mark = bench.data.path().join("mark");
    let line = format!("touch {}; sleep 600", mark.display());
    let workflow = workflow(json!([burn("a", json!({})),
        {"id": "b", "name": "b", "run": line, "after": ["a"]}]));
    bench.submit("r", &workflow, &flexible(&workflow, config(256, 1.0)), long_leases());
    wait_until("the second task to start", || mark.exists());
    bench.host.pids().into_iter().for_each(kill);
    bench.wait_until_idle();
    bench.host.stop();
    let records = bench.store.records();
    let names: Vec<&str> = records
        .iter()
        .filter_map(|r| match r {
            foresail_schemas::metric::Record::Task(task) => Some(task.task.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!((names.as_slice(), starts(&records).len()), (["burn"].as_slice(), 1));
}

#[test]
fn a_cancelled_run_ends_its_tasks_and_keeps_its_workers_warm() {
    let bench = Bench::new(|_| {});
    let workflow = workflow(json!([burn("a", json!({"sleep_ms": 600_000})),
        {"id": "b", "name": "b", "run": "sleep 600"}]));
    let options = RunOptions { heartbeat_ms: 50.0, ..RunOptions::default() };
    let run = bench.submit("r", &workflow, &flexible(&workflow, config(256, 1.0)), options);
    wait_until("both tasks to run", || bench.store.summary(&run).running == 2);
    let cancel = foresail_schemas::run::Operation::Cancel { reason: "enough".to_owned() };
    let (_, events) = bench.store.held().runs.get_mut(&run).unwrap().ledger.apply(&cancel, 1e6);
    bench.store.held().runs.get_mut(&run).unwrap().events.extend(events);
    bench.wait_for_end(&run);
    assert_eq!(bench.store.status(&run), RunStatus::Cancelled);
    assert_eq!(bench.status().idle, 2);
}
