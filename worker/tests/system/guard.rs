//! Runs that nobody watches over but their host.

use foresail_schemas::run::{Change, RunOptions, RunStatus};
use serde_json::json;

use crate::support::*;

fn short_leases() -> RunOptions {
    RunOptions { lease_ms: 500.0, heartbeat_ms: 100.0, watch_ms: 100.0, ..RunOptions::default() }
}

fn send(pid: u32, signal: i32) {
    // SAFETY: a plain system call on a process that this test started.
    assert_eq!(unsafe { libc::kill(pid as i32, signal) }, 0);
}

/// A worker that stands still ends no process, so that the host is told of no death, and only who looks finds
/// that its lease has ended.
#[test]
fn a_run_without_a_client_goes_on_when_its_worker_stands_still() {
    for worker in [Some("w"), None] {
        let bench = Bench::new(|settings| settings.guard_ms = 100.0);
        let mark = bench.data.path().join("mark");
        let line = format!("test -e {0} && exit 0; touch {0}; sleep 600", mark.display());
        let mut after = burn("after", json!({}));
        after["after"] = json!(["c"]);
        let workflow = workflow(json!([{"id": "c", "name": "c", "run": line}, after]));
        let plan = plan(&workflow, &[(worker, config(256, 1.0)); 2]);
        let run = bench.submit("r", &workflow, &plan, short_leases());
        wait_until("the command to start", || mark.exists());
        let pids = bench.host.pids();
        assert_eq!(pids.len(), 1);
        send(pids[0], libc::SIGSTOP);
        wait_until("the run to end", || bench.store.status(&run) != RunStatus::Running);
        send(pids[0], libc::SIGCONT);
        let held = bench.store.held();
        assert_eq!(held.runs[&run].ledger.status(), RunStatus::Completed);
        let joined =
            |event: &&foresail_schemas::run::RunEvent| matches!(&event.change, Change::WorkerJoined { .. });
        let workers = held.runs[&run].events.iter().filter(joined).count();
        assert!(workers >= 2, "another worker took the task: {workers}");
    }
}

/// The looks of the host are no work: a run that goes on by itself gets no worker that it does not need.
#[test]
fn a_run_that_goes_on_gets_no_worker_from_its_host() {
    let bench = Bench::new(|settings| settings.guard_ms = 50.0);
    let workflow = workflow(json!([burn("a", json!({"sleep_ms": 700}))]));
    let plan = plan(&workflow, &[(Some("w"), config(256, 1.0))]);
    let run = bench.submit("r", &workflow, &plan, RunOptions::default());
    bench.wait_for_end(&run);
    let held = bench.store.held();
    let joined = |e: &&foresail_schemas::run::RunEvent| matches!(e.change, Change::WorkerJoined { .. });
    assert_eq!(held.runs[&run].events.iter().filter(joined).count(), 1, "{:?}", held.runs[&run].events);
}
