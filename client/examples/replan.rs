//! A run whose tasks take three times as long as its plan was made for, as planned and re-planned.
//!
//! `cargo run -p foresail --example replan [REPEATS]` learns from runs with steps of 100 ms, plans for a
//! deadline, and carries the plan out with steps of 300 ms, in turn with `off` and with `auto`. A line per
//! run, and the reasons of each new plan. Times in ms.

use std::time::Duration;

use foresail::schemas::plan::{Objective, Plan};
use foresail::schemas::run::{Change, ReplanMode};
use foresail::schemas::{Sla, Workflow};
use foresail::{Client, ClientError, LocalStack, Registry, StackSettings, SubmitOptions, WorkflowBuilder};
use futures_util::TryStreamExt;
use serde_json::json;

/// Steps of one type.
const STEPS: u32 = 24;
/// What a step took when its history was made.
const USUAL_MS: u32 = 100;
/// How much longer it takes now.
const SLOWER: u32 = 3;
/// Runs that history is made of.
const LEARNING_RUNS: u32 = 3;
/// Runs per mode by default.
const REPEATS: u32 = 5;

fn steps(sleep_ms: u32) -> Workflow {
    let mut flow = WorkflowBuilder::new("steps");
    let params = json!({ "sleep_ms": sleep_ms, "output_bytes": 10 });
    let steps: Vec<_> = (0..STEPS)
        .map(|at| {
            flow.task(format!("s{at}")).named("step").function("foresail.burn", params.clone()).handle()
        })
        .collect();
    let all = flow.task("all").function("foresail.concat", ());
    steps.iter().fold(all, foresail::TaskBuilder::reads);
    flow.build().expect("it is a DAG")
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    foresail::worker(Registry::new());
    tokio::runtime::Runtime::new()?.block_on(compare())
}

async fn compare() -> Result<(), Box<dyn std::error::Error>> {
    let repeats = std::env::args().nth(1).map_or(Ok(REPEATS), |n| n.parse())?;
    println!("mode  predicted_ms  makespan_ms  cost_usd  plans");
    for _ in 0..repeats {
        for mode in [ReplanMode::Off, ReplanMode::Auto] {
            once(mode).await?;
        }
    }
    Ok(())
}

/// One run on a stack of its own, so that no run profits from what another has found out.
async fn once(mode: ReplanMode) -> Result<(), Box<dyn std::error::Error>> {
    let mut settings = StackSettings::default();
    // Steps sleep, so that more workers than processors are of use.
    settings.platform.concurrency_max = 8;
    let stack = LocalStack::start(settings).await?;
    let client = stack.client().await?;
    for _ in 0..LEARNING_RUNS {
        let plan = plan(&stack, &client, Objective::Fastest).await?;
        let run = client.submit(&steps(USUAL_MS), plan, SubmitOptions::on(stack.platform())).await?;
        run.wait().await?.completed()?;
        quiet(&client).await?;
    }
    let makespan_ms = f64::from(STEPS * USUAL_MS) * 1.4;
    let plan = plan(&stack, &client, Objective::Deadline { makespan_ms }).await?;
    let predicted_ms = plan.predicted.makespan_ms;
    let mut options = SubmitOptions::on(stack.platform());
    options.limits.replan = mode;
    let run = client.submit(&steps(SLOWER * USUAL_MS), plan, options).await?;
    let outcome = run.wait().await?.completed()?;
    let (actual, plans) = (outcome.actual, outcome.progress.replanned + 1);
    println!("{mode:?}  {predicted_ms:.0}  {:.0}  {:.8}  {plans}", actual.makespan_ms, actual.cost_usd);
    let events: Vec<_> = run.events().try_collect().await?;
    for event in &events {
        if let Change::PlanReplaced { epoch, why: Some(why) } = &event.change {
            println!("  plan {epoch} at {:.0} ms: {}; {}", event.at_ms, why.cause, why.reason);
        }
    }
    stack.stop().await;
    Ok(())
}

async fn plan(stack: &LocalStack, client: &Client, objective: Objective) -> Result<Plan, ClientError> {
    let workflow = steps(USUAL_MS);
    let predictions = client.predictions(&workflow, stack.platform(), Sla::MEDIAN).await?;
    client.plan("auto", &foresail::problem(&workflow, stack.platform(), predictions, objective, 1))
}

/// Waits until all workers have sent what they measured.
async fn quiet(client: &Client) -> Result<(), ClientError> {
    loop {
        let status = client.host_status().await?;
        if status.busy == 0 && status.queued == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
