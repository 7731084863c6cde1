//! What a run in Redis costs: bytes of its log, requests a second, and how long a late comer folds.
//!
//! `FORESAIL_REDIS_URL=redis://127.0.0.1:6379 cargo bench -p foresail-redis --bench log -- TASKS WORKERS`;
//! without a server it says so and measures nothing. Each worker has connections of its own, leases its share
//! of the tasks and commits them, one request each, with a heartbeat per ten tasks; half of the commits have
//! an output of 1 KiB inside.

use std::time::Instant;

use foresail_redis::{NewRun, Runs};
use foresail_schemas::ResourceConfig;
use foresail_schemas::id::{InstanceId, RunId};
use foresail_schemas::metric::StartState;
use foresail_schemas::plan::PlanSummary;
use foresail_schemas::run::{
    Commit, Location, Measured, Operation, OperationResult, RunOptions, RunStatus, RunSummary, StoredObject,
};
use foresail_schemas::workflow::Workflow;
use serde_json::json;

type Anything<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Anything<()> {
    let Ok(url) = std::env::var("FORESAIL_REDIS_URL") else {
        println!("nothing is measured: FORESAIL_REDIS_URL names no Redis");
        return Ok(());
    };
    let numbers: Vec<u32> = std::env::args().filter_map(|text| text.parse().ok()).collect();
    let (tasks, participants) =
        (numbers.first().copied().unwrap_or(2_000), numbers.get(1).copied().unwrap_or(8));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(&url, tasks, participants))
}

async fn measure(url: &str, tasks: u32, participants: u32) -> Anything<()> {
    let run =
        RunId::new(format!("bench-{}-{tasks}-{participants}", jiff::Timestamp::now().as_millisecond()))?;
    let workflow = wide(tasks)?;
    begin(&Runs::open(url)?, &run, &workflow).await?;
    let began = Instant::now();
    let mut working = Vec::new();
    for participant in 0..participants {
        let (runs, run) = (Runs::open(url)?, run.clone());
        working.push(tokio::spawn(async move {
            work(&runs, &run, (participant..tasks).step_by(participants as usize)).await
        }));
    }
    let mut requests = 0;
    for worked in working {
        requests += worked.await??;
    }
    let worked_s = began.elapsed().as_secs_f64();
    let (entries, bytes) = size(url, &run).await?;
    let began = Instant::now();
    let late = Runs::open(url)?.summary(&run).await?;
    let fold_s = began.elapsed().as_secs_f64();
    assert_eq!((late.status, late.committed), (RunStatus::Completed, u64::from(tasks)));
    println!("tasks {tasks}, participants {participants}");
    println!("requests per s          {:.0}", f64::from(requests) / worked_s);
    println!("entries per task        {:.2}", entries as f64 / f64::from(tasks));
    println!("bytes per task          {:.0}", bytes as f64 / f64::from(tasks));
    println!("late comer, entries/s   {:.0}", entries as f64 / fold_s);
    println!("late comer, ms          {:.0}", fold_s * 1000.0);
    Ok(())
}

fn wide(tasks: u32) -> Anything<Workflow> {
    let tasks: Vec<_> =
        (0..tasks).map(|at| json!({"id": format!("t{at}"), "name": "t", "run": "true"})).collect();
    Ok(serde_json::from_value(json!({"name": "wide", "tasks": tasks}))?)
}

async fn begin(runs: &Runs, run: &RunId, workflow: &Workflow) -> Anything<()> {
    let options = RunOptions::default();
    let events = foresail_choreography::Ledger::new(workflow, options).begin(0.0);
    let summary = RunSummary {
        run: run.clone(),
        workflow: workflow.name().clone(),
        status: RunStatus::Running,
        failure: None,
        created_at: jiff::Timestamp::now(),
        planner: "simple".parse()?,
        plan_epoch: 1,
        tasks: workflow.tasks().len() as u64,
        committed: 0,
        skipped: 0,
        running: 0,
        retries: 0,
        elapsed_ms: 0.0,
        predicted: PlanSummary::default(),
        usage: Vec::new(),
        last_event: 0,
        stalled_ms: None,
    };
    let workflow = serde_json::to_vec(workflow)?;
    runs.begin(NewRun { summary, options, workflow: &workflow, plan: b"{}", events }).await?;
    Ok(())
}

async fn work(runs: &Runs, run: &RunId, tasks: impl Iterator<Item = u32>) -> Anything<u32> {
    let mut requests = 0;
    let instance = InstanceId::new(format!("i-{:p}", runs))?;
    let (config, start) = (ResourceConfig::new(1_769, None)?, StartState::Warm);
    let join = Operation::Join { worker: None, instance: instance.clone(), config, start };
    runs.operate(run, vec![join]).await?;
    for task in tasks {
        let lease = Operation::Lease { task, instance: instance.clone(), epoch: 1, assuming: Vec::new() };
        let answer = runs.operate(run, vec![lease]).await?;
        let Some(OperationResult::Granted { attempt, .. }) = answer.results.first() else {
            return Err(format!("task {task}: {answer:?}").into());
        };
        let inline = Location::Inline("a".repeat(if task % 2 == 0 { 1_366 } else { 0 }));
        let outputs = vec![StoredObject { bytes: 1_024, hash: "0".repeat(64), location: inline }];
        let commit = Commit {
            attempt: *attempt,
            instance: instance.clone(),
            outputs,
            measured: Measured::default(),
            decision: None,
            printed: None,
        };
        let mut operations = vec![Operation::Commit { task, commit, assuming: Vec::new() }];
        if task % 10 == 0 {
            operations.push(Operation::Renew { instance: instance.clone(), tasks: Vec::new() });
        }
        runs.operate(run, operations).await?;
        requests += 2;
    }
    Ok(requests)
}

/// Entries and bytes of the log.
async fn size(url: &str, run: &RunId) -> Anything<(usize, usize)> {
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let log: Vec<String> = redis::cmd("LRANGE")
        .arg(foresail_redis::keys::log(run))
        .arg(0)
        .arg(-1)
        .query_async(&mut connection)
        .await?;
    Ok((log.len(), log.iter().map(String::len).sum()))
}
