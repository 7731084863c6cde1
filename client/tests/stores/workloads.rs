//! Real runs on a stack of this process, and what they give.

use foresail::schemas::plan::Objective;
use foresail::schemas::run::{RunOptions, RunStatus};
use foresail::schemas::{Sla, Workflow};
use foresail::{Client, LocalStack, RunHandle, StackSettings, SubmitOptions, WorkerCommand, WorkflowBuilder};
use foresail_schemas::id::RunId;
use foresail_worker::host::local::ObjectPlace;

pub fn settings() -> StackSettings {
    let program = env!("CARGO_BIN_EXE_foresail").into();
    StackSettings { worker: Some(WorkerCommand { program, args: Vec::new() }), ..StackSettings::default() }
}

/// A stack whose metad knows a run that has ended.
pub async fn ended_run() -> (LocalStack, RunId) {
    let stack = LocalStack::start(settings()).await.unwrap();
    let client = stack.client().await.unwrap();
    let mut flow = WorkflowBuilder::new("short");
    flow.task("short").command("true");
    let run = submit(&stack, &client, &flow.build().unwrap(), RunOptions::default()).await;
    assert_eq!(run.wait().await.unwrap().status, RunStatus::Completed);
    let id = run.id().clone();
    (stack, id)
}

/// Plans and submits.
pub async fn submit(
    stack: &LocalStack,
    client: &Client,
    workflow: &Workflow,
    limits: RunOptions,
) -> RunHandle {
    let table = client.predictions(workflow, stack.platform(), Sla::MEDIAN).await.unwrap();
    let problem = foresail::problem(workflow, stack.platform(), table, Objective::Fastest, 1);
    let plan = client.plan("simple", &problem).unwrap();
    client.submit(workflow, plan, SubmitOptions { limits, ..SubmitOptions::default() }).await.unwrap()
}

/// A stack whose objects lie there.
pub async fn stack_on(objects: ObjectPlace) -> LocalStack {
    LocalStack::start(StackSettings { objects, ..settings() }).await.unwrap()
}
