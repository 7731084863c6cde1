//! The library: build, predict, plan, submit, events, results.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use foresail::predict;
use foresail::schemas::optimization::PreWarming;
use foresail::schemas::plan::{Objective, Plan};
use foresail::schemas::prediction::{Basis, Query};
use foresail::schemas::run::{Change, RunOptions, RunStatus};
use foresail::schemas::{Sla, Workflow};
use foresail::{
    Client, ClientError, LocalStack, StackSettings, SubmitOptions, WorkerCommand, WorkflowBuilder, problem,
};
use foresail_model::Predictor;
use foresail_planner as planner;
use futures_util::TryStreamExt;
use serde_json::json;

async fn stack() -> LocalStack {
    let program = env!("CARGO_BIN_EXE_foresail").into();
    let worker = Some(WorkerCommand { program, args: Vec::new() });
    LocalStack::start(StackSettings { worker, ..StackSettings::default() }).await.unwrap()
}

async fn plan(stack: &LocalStack, client: &Client, workflow: &Workflow) -> Plan {
    let predictions = client.predictions(workflow, stack.platform(), Sla::MEDIAN).await.unwrap();
    let problem = problem(workflow, stack.platform(), predictions, Objective::Fastest, 1);
    client.plan("auto", &problem).unwrap()
}

fn numbers() -> Workflow {
    let mut flow = WorkflowBuilder::new("numbers");
    let left = flow.task("left").command("echo 20").handle();
    let right = flow.task("right").command("echo 22; head -c 20000 /dev/zero | tr '\\0' ' '").handle();
    flow.task("sum").function("example.add", ()).reads(&left).reads(&right);
    flow.build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_is_planned_run_and_its_results_are_read() {
    let stack = stack().await;
    let client = stack.client().await.unwrap();
    let workflow = numbers();
    let limits = RunOptions { keep_intermediate: true, ..RunOptions::default() };
    let options = SubmitOptions { limits, ..SubmitOptions::default() };
    let run = client.submit(&workflow, plan(&stack, &client, &workflow).await, options).await.unwrap();
    let outcome = run.wait().await.unwrap().completed().unwrap();
    assert_eq!(outcome.progress.committed, 3);
    assert_eq!(outcome.progress.workers(), 0, "all workers have reported what they used");
    assert!(outcome.actual.cost_usd > 0.0);
    assert_eq!(run.result("sum").await.unwrap(), "42");
    let large = run.result("right").await.unwrap();
    assert_eq!(large.len(), 20_003, "an object outside the commit record");
    assert!(matches!(run.result("product").await, Err(ClientError::NoSuchResult(_))));

    let again = client.attach(run.id()).await.unwrap();
    assert_eq!(again.result_output("sum", "out").await.unwrap(), "42");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_starts_the_workers_whose_clock_is_that_of_the_run() {
    let stack = stack().await;
    let client = stack.client().await.unwrap();
    let mut flow = WorkflowBuilder::new("long");
    flow.task("long").command("sleep 1");
    let workflow = flow.build().unwrap();
    let mut plan = plan(&stack, &client, &workflow).await;
    let (config, serves) = (plan.tasks[0].config, plan.tasks[0].task.clone());
    for (delays_ms, joined) in [(vec![], 1), (vec![300.0, 0.0], 3), (vec![1e9], 1)] {
        let start = |&delay_ms| PreWarming { config, after: None, delay_ms, serves: serves.clone() };
        plan.prewarms = delays_ms.iter().map(start).collect();
        let run = client.submit(&workflow, plan.clone(), SubmitOptions::default()).await.unwrap();
        let events: Vec<_> = run.events().try_collect().await.unwrap();
        let joins = events.iter().filter(|e| matches!(e.change, Change::WorkerJoined { .. })).count();
        assert_eq!(joins, joined, "{delays_ms:?}");
        assert_eq!(events.iter().filter(|e| matches!(e.change, Change::TaskLeased { .. })).count(), 1);
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_in_order_without_gaps_and_end_with_the_run() {
    let stack = stack().await;
    let client = stack.client().await.unwrap();
    let workflow = numbers();
    let run = client
        .submit(&workflow, plan(&stack, &client, &workflow).await, SubmitOptions::default())
        .await
        .unwrap();
    let events: Vec<_> = run.events().try_collect().await.unwrap();
    assert!(events.iter().map(|e| e.seq).eq(1..=events.len() as u64));
    let commits = events.iter().filter(|e| matches!(e.change, Change::TaskCommitted { .. })).count();
    let ends = events.iter().filter(|e| matches!(e.change, Change::RunFinished { .. })).count();
    assert_eq!((commits, ends), (3, 1));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_plan_rests_on_the_first_run() {
    let stack = stack().await;
    let client = stack.client().await.unwrap();
    let workflow = numbers();
    let blind = client.predictions(&workflow, stack.platform(), Sla::MEDIAN).await.unwrap();
    assert_eq!((blind.epoch, blind.basis.as_slice()), (0, [Basis::None; 3].as_slice()));
    let run = client
        .submit(&workflow, plan(&stack, &client, &workflow).await, SubmitOptions::default())
        .await
        .unwrap();
    run.wait().await.unwrap().completed().unwrap();
    measured(&client, &workflow).await;
    let known = client.predictions(&workflow, stack.platform(), Sla::MEDIAN).await.unwrap();
    assert!(known.epoch > 0);
    assert!(known.basis.iter().all(|basis| *basis != Basis::None), "{:?}", known.basis);
    let right = workflow.graph().writes(1)[0] as usize;
    assert_eq!(known.object_bytes[right], 20_003);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_asked_at_the_size_that_its_run_recorded() {
    let stack = stack().await;
    let client = stack.client().await.unwrap();
    let mut flow = WorkflowBuilder::new("sizes");
    let alone = flow.task("alone").command("cat").reads_value("12345678").handle();
    let twice = flow.task("twice").command("cat").reads(&alone).reads_value(json!({"a": [1, null]}));
    twice.reads(&alone);
    let workflow = flow.build().unwrap();
    let run = client
        .submit(&workflow, plan(&stack, &client, &workflow).await, SubmitOptions::default())
        .await
        .unwrap();
    run.wait().await.unwrap().completed().unwrap();
    let model = measured(&client, &workflow).await;
    let blind = planner::blind_table(&workflow, stack.platform(), Sla::MEDIAN);
    let asked = RefCell::new(BTreeMap::new());
    let table = predict::table(&workflow, blind, 1, stack.platform().inline_bytes_max, |query, sla| {
        if let Query::ExecutionTime { task, input_bytes, .. } = query {
            asked.borrow_mut().insert(task.clone(), *input_bytes);
        }
        model.predict(query, &[sla])
    });
    assert!(table.basis.iter().all(|basis| *basis != Basis::None), "{:?}", table.basis);
    for (task, input_bytes) in asked.into_inner() {
        let recorded = model.report(&task).unwrap().input.unwrap();
        assert_eq!((recorded.min_bytes, recorded.max_bytes), (input_bytes, input_bytes), "{task}");
        assert!(input_bytes >= 10, "{task}: the value counts");
    }
    stack.stop().await;
}

/// The model once every task was measured.
async fn measured(client: &Client, workflow: &Workflow) -> Predictor {
    // Measurements travel when a worker ends; how long that takes is the worker's affair.
    for _ in 0..200 {
        if let Some((model, _)) = client.model(workflow.name()).await.unwrap()
            && model.tasks().count() == workflow.tasks().len()
        {
            return model;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the workers sent nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_ends_as_cancelled() {
    let stack = stack().await;
    let client = stack.client().await.unwrap();
    let mut flow = WorkflowBuilder::new("long");
    flow.task("burn").function("foresail.burn", json!({ "sleep_ms": 600_000 }));
    let workflow = flow.build().unwrap();
    let run = client
        .submit(&workflow, plan(&stack, &client, &workflow).await, SubmitOptions::default())
        .await
        .unwrap();
    while run.progress().await.unwrap().running() == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    run.cancel("enough").await.unwrap();
    run.cancel("enough").await.unwrap();
    let outcome = run.wait().await.unwrap();
    assert_eq!(outcome.status, RunStatus::Cancelled);
    let error = outcome.completed().unwrap_err().to_string();
    assert!(error.contains("enough"), "{error}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_no_worker_has_fails_the_run_at_once() {
    let stack = stack().await;
    let client = stack.client().await.unwrap();
    let mut flow = WorkflowBuilder::new("unknown");
    flow.task("a").function("no.such.function", ());
    let workflow = flow.build().unwrap();
    let run = client
        .submit(&workflow, plan(&stack, &client, &workflow).await, SubmitOptions::default())
        .await
        .unwrap();
    let outcome = run.wait().await.unwrap();
    assert_eq!((outcome.status, outcome.progress.failed_attempts), (RunStatus::Failed, 1));
    let error = outcome.completed().unwrap_err();
    assert!(error.to_string().contains("no.such.function"), "{error}");
    assert!(error.hint().contains("foresail runs"), "{}", error.hint());
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_several_pages_come_whole() {
    let data = tempfile::tempdir().unwrap();
    let settings =
        foresail_metad::Settings { list_max: 2, ..foresail_metad::Settings::embedded(data.path()) };
    let metad = foresail_metad::Server::start(settings).unwrap();
    let url = format!("http://{}", metad.address());
    for workflow in ["w-1", "w-2", "w-3", "w-4", "w-5"] {
        let record = |task: &str| json!({"kind": "task", "task": task, "memory_mb": 512, "exec_ms": 1.0});
        let records = ["c", "a", "b"].map(record);
        let body = json!({"batch_id": "b-1", "records": records});
        let post = reqwest::Client::new().post(format!("{url}/v1/workflows/{workflow}/batches"));
        post.json(&body).send().await.unwrap().error_for_status().unwrap();
    }
    let client = Client::connect(&url, &url).await.unwrap();
    let found: Vec<String> =
        client.workflows().await.unwrap().into_iter().map(|entry| entry.workflow.to_string()).collect();
    assert_eq!(found, ["w-1", "w-2", "w-3", "w-4", "w-5"]);
    let tasks = client.tasks(&"w-3".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(tasks.iter().map(|entry| entry.task.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(client.tasks(&"w-6".parse().unwrap()).await.unwrap().is_none());
}
