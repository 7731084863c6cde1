//! A run that failed goes on where it ended: only what is missing runs again.

use std::path::Path;
use std::time::Duration;

use foresail::schemas::Workflow;
use foresail::schemas::plan::{Objective, Plan};
use foresail::schemas::run::{Change, FailureKind, Location, RunStatus};
use foresail::schemas::{ErrorCode, Sla};
use foresail::{
    Client, ClientError, LocalStack, StackSettings, SubmitOptions, TaskHandle, WorkerCommand,
    WorkflowBuilder, problem,
};
use futures_util::TryStreamExt;

use crate::support;

async fn stack(data: &Path) -> LocalStack {
    let program = env!("CARGO_BIN_EXE_foresail").into();
    let worker = Some(WorkerCommand { program, args: Vec::new() });
    let settings = StackSettings { worker, data: Some(data.to_owned()), ..StackSettings::default() };
    LocalStack::start(settings).await.unwrap()
}

/// a and b, then c of a, which fails until `go` is there, then d of all. Each notes that it ran. The output
/// of a is too large for a commit record.
fn stumbling(dir: &Path, last: &str) -> Workflow {
    let dir = dir.display();
    let mut flow = WorkflowBuilder::new("stumbling");
    let note = |task: &str| format!("echo {task} >> {dir}/ran; ");
    let a = format!("{}head -c 20000 /dev/zero | tr '\\0' a", note("a"));
    let a = flow.task("a").command(a).handle();
    let b = flow.task("b").command(format!("{}echo b", note("b"))).handle();
    let c = format!("{}test -e {dir}/go || {{ echo 'no go' >&2; exit 3; }}; wc -c", note("c"));
    let c = flow.task("c").command(c).reads(&a).after(&b).attempts(1).handle();
    let inputs: [&TaskHandle; 3] = [&a, &b, &c];
    let d = flow.task("d").command(format!("{}cat \"$FORESAIL_INPUTS\"/2; echo {last}", note("d")));
    inputs.into_iter().fold(d, foresail::TaskBuilder::reads);
    flow.build().unwrap()
}

/// The tasks that ran since the last look, in order of their names.
fn ran(dir: &Path) -> String {
    let text = std::fs::read_to_string(dir.join("ran")).unwrap_or_default();
    let _ = std::fs::remove_file(dir.join("ran"));
    let mut tasks: Vec<&str> = text.lines().collect();
    tasks.sort_unstable();
    tasks.concat()
}

async fn plan(stack: &LocalStack, client: &Client, workflow: &Workflow) -> Plan {
    let predictions = client.predictions(workflow, stack.platform(), Sla::MEDIAN).await.unwrap();
    let problem = problem(workflow, stack.platform(), predictions, Objective::Fastest, 1);
    client.plan("auto", &problem).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_run_runs_only_what_is_missing_changed_or_lost() {
    let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let stack = stack(data.path()).await;
    let client = stack.client().await.unwrap();
    let workflow = stumbling(dir.path(), "end");
    let plan = plan(&stack, &client, &workflow).await;
    let first = client.submit(&workflow, plan.clone(), SubmitOptions::default()).await.unwrap();
    let outcome = first.wait().await.unwrap();
    let failure = outcome.failure.unwrap();
    assert_eq!((outcome.status, failure.kind), (RunStatus::Failed, FailureKind::TaskCrash));
    assert!(failure.message.contains("no go") && failure.message.contains("last of 1"), "{failure:?}");
    assert_eq!(ran(dir.path()), "abc");
    assert_eq!(first.result("b").await.unwrap(), "b\n", "results of siblings are kept");

    std::fs::write(dir.path().join("go"), "").unwrap();
    let resume =
        |run: &foresail::RunHandle| SubmitOptions { resume: Some(run.id().clone()), ..Default::default() };
    let second = client.submit(&workflow, plan.clone(), resume(&first)).await.unwrap();
    assert_eq!(second.reused(), 2);
    second.wait().await.unwrap().completed().unwrap();
    assert_eq!(ran(dir.path()), "cd");
    assert_eq!(second.result("d").await.unwrap(), "20000\nend\n");
    let events: Vec<_> = second.events().try_collect().await.unwrap();
    assert!(matches!(&events[0].change, Change::RunResumed { of, reused: 2 } if of == first.id()));

    let changed = stumbling(dir.path(), "other end");
    let third = client.submit(&changed, plan.clone(), resume(&second)).await.unwrap();
    third.wait().await.unwrap().completed().unwrap();
    assert_eq!((third.reused(), ran(dir.path()).as_str()), (3, "d"), "only the task that changed");

    let objects: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.change {
            Change::TaskCommitted { commit, .. } => match &commit.outputs[0].location {
                Location::Stored(key) => Some(key.clone()),
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert_eq!(objects.len(), 1);
    let files = support::files_named(data.path(), objects[0].rsplit('/').next().unwrap());
    assert!(!files.is_empty());
    files.iter().for_each(|file| std::fs::remove_file(file).unwrap());
    let fourth = client.submit(&workflow, plan.clone(), resume(&first)).await.unwrap();
    fourth.wait().await.unwrap().completed().unwrap();
    assert_eq!(
        (fourth.reused(), ran(dir.path()).as_str()),
        (1, "acd"),
        "the producer of the lost object too"
    );

    let all = client.submit(&workflow, plan, resume(&fourth)).await.unwrap();
    all.wait().await.unwrap().completed().unwrap();
    assert_eq!((all.reused(), ran(dir.path()).as_str()), (4, ""));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_goes_on_cannot_be_resumed_until_it_is_cancelled() {
    let data = tempfile::tempdir().unwrap();
    let stack = stack(data.path()).await;
    let client = stack.client().await.unwrap();
    let mut flow = WorkflowBuilder::new("long");
    flow.task("long").command("sleep 600");
    let workflow = flow.build().unwrap();
    let plan = plan(&stack, &client, &workflow).await;
    let run = client.submit(&workflow, plan.clone(), SubmitOptions::default()).await.unwrap();
    let resume = || SubmitOptions { resume: Some(run.id().clone()), ..SubmitOptions::default() };
    let error = client.submit(&workflow, plan.clone(), resume()).await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused { problem, .. } if problem.code == ErrorCode::RunNotOver));
    let workers = || tokio::time::timeout(Duration::from_secs(60), run.wait());
    run.cancel("enough").await.unwrap();
    assert_eq!(workers().await.unwrap().unwrap().progress.workers(), 0, "nothing of it is left running");
    let resumed = client.submit(&workflow, plan, resume()).await.unwrap();
    assert_eq!(resumed.reused(), 0);
    resumed.cancel("enough").await.unwrap();
    resumed.wait().await.unwrap();
    stack.stop().await;
}

#[test]
fn the_command_resumes_a_run_and_tells_what_it_re_used() {
    let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = dir.path().join("workflow.json");
    let workflow = serde_json::to_vec(&stumbling(dir.path(), "end")).unwrap();
    std::fs::write(&file, workflow).unwrap();
    let failed = support::run(data.path(), &["run", file.to_str().unwrap(), "-o", "json"]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stderr.contains("foresail resume"), "{failed:?}");
    let run = failed.json()["run"].as_str().unwrap().to_owned();
    assert_eq!(ran(dir.path()), "abc");
    std::fs::write(dir.path().join("go"), "").unwrap();
    let resumed = support::run(data.path(), &["resume", &run, "-o", "json"]);
    assert_eq!((resumed.code, ran(dir.path()).as_str()), (Some(0), "cd"), "{resumed:?}");
    assert!(resumed.stderr.contains("2 of 4 tasks re-used"), "{resumed:?}");
    assert_eq!(resumed.json()["reused"], 2);
    let shown = support::run(data.path(), &["runs", resumed.json()["run"].as_str().unwrap()]);
    assert!(shown.stdout.contains(&format!("2 results of run {run}")), "{shown:?}");
}
