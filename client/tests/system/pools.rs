//! The serverful pool in a real run: a task that no worker of the menu outlives ends in the pool.

use foresail::schemas::plan::Objective;
use foresail::schemas::platform::Pool;
use foresail::schemas::run::Change;
use foresail::schemas::{Sla, Workflow};
use foresail::{LocalStack, StackSettings, SubmitOptions, WorkerCommand, WorkflowBuilder, problem};
use futures_util::TryStreamExt;

use crate::support::LIMIT;

/// Life of a worker of the menu in ms.
const LIFE_MS: f64 = 4_000.0;
const POOL: Pool = Pool { memory_mb: 2_048, vcpu: 1.0, workers_max: 1, worker_hour_usd: 3.6 };

/// One task that takes longer than a worker of the menu lives, between two short ones.
fn workflow() -> Workflow {
    let mut flow = WorkflowBuilder::new("long");
    let short = flow.task("short").command("echo 20").expects_exec_ms(200.0).handle();
    let long = flow.task("long").command("sleep 5; echo 22").expects_exec_ms(5_000.0).reads(&short).handle();
    flow.task("sum").function("example.add", ()).expects_exec_ms(200.0).reads(&short).reads(&long);
    flow.build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_outlives_every_worker_of_the_menu_runs_in_the_pool() {
    let program = env!("CARGO_BIN_EXE_foresail").into();
    let worker = Some(WorkerCommand { program, args: Vec::new() });
    let mut settings = StackSettings { worker, ..StackSettings::default() };
    settings.platform.life_ms_max = LIFE_MS;
    let without = settings.platform.clone();
    settings.platform.pool = Some(POOL);
    let stack = LocalStack::start(settings).await.unwrap();
    let client = stack.client().await.unwrap();
    let workflow = workflow();
    let platform = stack.platform();
    let table = client.predictions(&workflow, platform, Sla::MEDIAN).await.unwrap();
    let made = client.plan("auto", &problem(&workflow, platform, table, Objective::Fastest, 1)).unwrap();
    assert_eq!(made.tasks[1].config, POOL.config(), "{}", made.tasks[1].why);
    assert_eq!(made.tasks[1].worker.as_ref().unwrap().as_str(), "pool1");

    let table = client.predictions(&workflow, &without, Sla::MEDIAN).await.unwrap();
    let refused = client.plan("auto", &problem(&workflow, &without, table, Objective::Fastest, 1));
    let refused = refused.unwrap_err();
    let (text, hint) = (refused.to_string(), refused.hint());
    assert!(text.contains("`long`") && hint.contains("[pool]"), "{text}; {hint}");

    let options = SubmitOptions { rates: Some(platform.rates()), ..SubmitOptions::default() };
    let run = client.submit(&workflow, made, options).await.unwrap();
    let outcome = tokio::time::timeout(LIMIT, run.wait()).await.unwrap().unwrap().completed().unwrap();
    assert_eq!(run.result("sum").await.unwrap(), "42");
    let events: Vec<_> = run.events().try_collect().await.unwrap();
    let failures = events.iter().filter(|e| matches!(e.change, Change::TaskFailed { .. })).count();
    assert_eq!(failures, 0, "nobody was killed");
    let sizes = outcome.progress.sizes();
    assert!(sizes.iter().any(|(config, _)| config.key() == POOL.config().key()), "{sizes:?}");
    // 3.6 USD an hour are a thousandth per second, far more than all the rest.
    let (usd, makespan_ms) = (outcome.actual.cost_usd, outcome.actual.makespan_ms);
    assert!(usd >= 5_000.0 * POOL.usd_per_ms() && usd < makespan_ms * POOL.usd_per_ms() + 1e-3, "{usd}");
    stack.stop().await;
}
