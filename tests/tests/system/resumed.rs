//! A run that goes on where another failed, with its objects in metad: they are the new run's own.

use foresail::{Client, SubmitOptions, WorkflowBuilder};
use foresail_schemas::plan::Objective;
use foresail_schemas::run::{Change, Location, RunStatus};
use foresail_schemas::{Platform, Sla};

use crate::stack::{Process, metad};

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_run_reads_what_the_old_one_stored_in_metad() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let metad = metad(&dir.path().join("metad"), "127.0.0.1:0");
    let data = dir.path().join("host");
    let args = ["host", "--metad", &metad.address, "--objects", "metad", "--data"];
    let host =
        Process::start("foresail-worker", &[&args[..], &[data.to_str().expect("a plain name")]].concat());
    let client = Client::connect(&metad.address, &host.address).await.expect("both listen");
    let here = dir.path().display();
    let mut flow = WorkflowBuilder::new("blobs");
    let large = format!("echo large >> {here}/ran; head -c 20000 /dev/zero | tr '\\0' a");
    let large = flow.task("large").command(large).handle();
    let count = format!("echo count >> {here}/ran; test -e {here}/go && wc -c");
    flow.task("count").command(count).reads(&large).attempts(1);
    let workflow = flow.build().expect("it is a DAG");
    let platform = Platform::built_in().remove(0);
    let table = client.predictions(&workflow, &platform, Sla::MEDIAN).await.expect("metad answers");
    let problem = foresail::problem(&workflow, &platform, table, Objective::Fastest, 1);
    let plan = client.plan("simple", &problem).expect("the planner plans");
    let first = client.submit(&workflow, plan.clone(), SubmitOptions::default()).await.expect("it starts");
    assert_eq!(first.wait().await.expect("metad answers").status, RunStatus::Failed);
    std::fs::write(dir.path().join("go"), "").expect("it is written");
    let resume = SubmitOptions { resume: Some(first.id().clone()), ..SubmitOptions::default() };
    let second = client.submit(&workflow, plan, resume).await.expect("it starts");
    let outcome = second.wait().await.expect("metad answers");
    assert_eq!((outcome.status, second.reused()), (RunStatus::Completed, 1), "{:?}", outcome.failure);
    assert_eq!(second.result("count").await.expect("it has a result")[..], *b"20000\n");
    let ran = std::fs::read_to_string(dir.path().join("ran")).expect("tasks ran");
    assert_eq!(ran, "large\ncount\ncount\n", "what was there was not made again");
    let events = second.events_after(0, std::time::Duration::ZERO).await.expect("metad answers").events;
    let is_stored = |event: &foresail_schemas::run::RunEvent| {
        let Change::TaskCommitted { task: 0, commit } = &event.change else { return false };
        matches!(commit.outputs[0].location, Location::Stored(_))
    };
    assert!(events.iter().any(is_stored), "it was no matter of the commit record: {events:?}");
}
