//! A run whose client is killed: its host sees to its end.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use foresail::{Client, ClientSettings, RunHandle, WorkflowBuilder};
use foresail_schemas::Workflow;
use foresail_schemas::run::RunStatus;

use crate::runs::workers;
use crate::stack::{Process, binary, metad};

/// Longest wait for anything here.
const LIMIT: Duration = Duration::from_secs(180);

/// Four that wait and print a number, one that adds them up.
fn addition() -> Workflow {
    let mut flow = WorkflowBuilder::new("orphan");
    let numbers: Vec<_> =
        (1..=4).map(|n| flow.task(format!("n-{n}")).command(format!("sleep 1; echo {n}")).handle()).collect();
    let mut sum = flow.task("sum").command("cat \"$FORESAIL_INPUTS\"/* | awk '{s += $1} END {print s}'");
    for number in &numbers {
        sum = sum.reads(number);
    }
    let _sum = sum.handle();
    flow.build().expect("it is a DAG")
}

async fn until(handle: &RunHandle, is_so: impl Fn(&foresail_schemas::run::RunSummary) -> bool) {
    let ends = Instant::now() + LIMIT;
    loop {
        let summary = handle.summary().await.expect("metad answers");
        if is_so(&summary) {
            return;
        }
        assert!(Instant::now() < ends, "waited in vain: {summary:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn send(pid: i32, signal: i32) {
    // SAFETY: kill has no memory effects.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

/// The client dies by SIGKILL, one worker too, and another stands still: it holds a lease that only ends when
/// nobody looks at it any more, and no process whose end the host could see.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_completes_whose_client_and_worker_were_killed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let metad = metad(&dir.path().join("metad"), "127.0.0.1:0");
    let data = dir.path().join("host");
    let data = data.to_str().expect("a plain name");
    let args = ["host", "--metad", &metad.address, "--data", data, "--guard-ms", "500"];
    let host = Process::start("foresail-worker", &[&args[..], &["--concurrency-max", "2"]].concat());
    let file = dir.path().join("workflow.json");
    std::fs::write(&file, serde_json::to_vec(&addition()).expect("JSON")).expect("it is written");
    let mut run = Command::new(binary("foresail"));
    run.arg("run").arg(&file).args(["--planner", "uniform", "--metad", &metad.address]);
    run.args(["--host", &host.address, "--data", dir.path().join("client").to_str().expect("a plain name")]);
    let mut submitting =
        run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary was built");
    let objects = Some(dir.path().join("host/objects"));
    let settings = ClientSettings { objects, ..ClientSettings::default() };
    let client = Client::connect_with(&metad.address, &host.address, settings).await.expect("both listen");
    let ends = Instant::now() + LIMIT;
    let id = loop {
        if let Some(found) = client.runs().await.expect("metad answers").first() {
            break found.run.clone();
        }
        assert!(Instant::now() < ends, "the client submits its run");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let handle = client.attach(&id).await.expect("it is there");
    until(&handle, |summary| summary.running == 2).await;
    submitting.kill().expect("it runs");
    submitting.wait().expect("it is ours");
    let alive = workers(&host);
    assert_eq!(alive.len(), 2, "two tasks run");
    send(alive[0], libc::SIGSTOP);
    send(alive[1], libc::SIGKILL);
    until(&handle, |summary| summary.status != RunStatus::Running).await;
    send(alive[0], libc::SIGCONT);
    let summary = handle.summary().await.expect("metad answers");
    assert_eq!(summary.status, RunStatus::Completed, "{summary:?}");
    assert_eq!(handle.result("sum").await.expect("it has a result")[..], *b"10\n");
}
