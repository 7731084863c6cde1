//! Runs whose state lies in Redis: the same results, through broken connections and lost logs.

use std::time::{Duration, Instant};

use foresail::examples::Example;
use foresail::schemas::run::{Change, RunOptions, RunStatus};
use foresail::{ClientSettings, LocalStack, RunHandle, StackSettings, WorkflowBuilder};
use foresail_worker::coordination::CoordinationSettings;
use foresail_worker::host::local::ObjectPlace;

use crate::buckets::results;
use crate::servers::{Moto, Redis};
use crate::workloads::{settings, stack_on, submit};

/// Longest time any test waits for anything.
pub const LIMIT: Duration = Duration::from_secs(60);

async fn stack(redis: &Redis, objects: ObjectPlace) -> LocalStack {
    stack_at(CoordinationSettings::Redis(redis.url.clone()), objects).await
}

pub async fn stack_at(coordination: CoordinationSettings, objects: ObjectPlace) -> LocalStack {
    LocalStack::start(StackSettings { coordination, objects, ..settings() }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_over_redis_and_a_bucket_give_what_runs_of_metad_give() {
    let (Some(redis), Some(moto)) = (Redis::start(), Moto::start()) else { return };
    let alone = stack_on(ObjectPlace::Files).await;
    let shared = stack(&redis, ObjectPlace::S3(moto.bucket())).await;
    for example in ["gemm", "tree-reduction"] {
        let workflow = Example::find(example).unwrap().workflow(Some(4), std::path::Path::new(".")).unwrap();
        let (_, expected) = results(&alone, &workflow).await;
        let (run, found) = results(&shared, &workflow).await;
        assert!(!expected.is_empty() && found == expected, "{example}: {:?}", found.keys());
        let log = redis.ask(&format!("LLEN foresail:{{{}}}:log", run.id()));
        assert!(log.strip_prefix(':').unwrap().parse::<u64>().unwrap() > 1, "its state lay there: {log}");
        let ttl = redis.ask(&format!("TTL foresail:{{{}}}:log", run.id()));
        assert!((1..=3600).contains(&ttl.strip_prefix(':').unwrap().parse::<i64>().unwrap()), "{ttl}");
    }
    alone.stop().await;
    shared.stop().await;
}

/// 40 tasks in ten rounds of four.
pub fn rounds() -> foresail::schemas::Workflow {
    let mut flow = WorkflowBuilder::new("rounds");
    let mut before = Vec::new();
    for round in 0..10 {
        let mut now = Vec::new();
        for at in 0..4 {
            let name = format!("t{round}x{at}");
            let task = flow.task(&name).command(format!("cat >/dev/null; sleep 0.05; echo {round} {at}"));
            let task = before.iter().fold(task, |task, parent| task.reads(parent));
            now.push(task.handle());
        }
        before = now;
    }
    flow.build().unwrap()
}

/// Waits until some tasks of the run are done, and most are not.
pub async fn is_under_way(run: &RunHandle) {
    let began = Instant::now();
    while run.summary().await.unwrap().committed < 8 {
        assert!(began.elapsed() < LIMIT, "the run does not begin");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_completes_though_all_connections_are_broken_again_and_again() {
    let Some(redis) = Redis::start() else { return };
    let stack = stack(&redis, ObjectPlace::Files).await;
    // Nobody but metad sends again what was asked.
    let once = ClientSettings { attempts_max: 1, ..ClientSettings::default() };
    let client = stack.client_with(once).await.unwrap();
    let run = submit(&stack, &client, &rounds(), RunOptions::default()).await;
    let (began, mut broken) = (Instant::now(), redis.kill_connections());
    while run.summary().await.expect("what broke is made anew").status == RunStatus::Running {
        broken += redis.kill_connections();
        assert!(began.elapsed() < LIMIT, "the run does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let outcome = run.wait().await.unwrap().completed().unwrap();
    assert_eq!(outcome.progress.committed, 40);
    assert!(broken > 3, "{broken} connections were broken");
    for at in 0..4 {
        assert_eq!(run.result(&format!("t9x{at}")).await.unwrap(), format!("9 {at}\n"));
    }
    let events = run.events_after(0, Duration::ZERO).await.unwrap().events;
    let committed = events.iter().filter(|e| matches!(e.change, Change::TaskCommitted { .. })).count();
    assert_eq!(committed, 40, "each once");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_after_metad_and_workers_were_started_anew() {
    let Some(redis) = Redis::start() else { return };
    let data = tempfile::tempdir().unwrap();
    let on_data = || StackSettings {
        data: Some(data.path().to_owned()),
        coordination: CoordinationSettings::Redis(redis.url.clone()),
        ..settings()
    };
    let first = LocalStack::start(on_data()).await.unwrap();
    let client = first.client().await.unwrap();
    let limits = RunOptions { lease_ms: 1_000.0, heartbeat_ms: 200.0, ..RunOptions::default() };
    let run = submit(&first, &client, &rounds(), limits).await;
    is_under_way(&run).await;
    let id = run.id().clone();
    drop((run, client));
    first.stop().await;
    let second = LocalStack::start(on_data()).await.unwrap();
    let client = second.client().await.unwrap();
    let run = client.take_up(&id).await.unwrap();
    let outcome = run.wait().await.unwrap().completed().unwrap();
    assert_eq!(outcome.progress.committed, 40);
    assert_eq!(run.result("t9x0").await.unwrap(), "9 0\n");
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_redis_has_lost_goes_on_in_metad() {
    let Some(redis) = Redis::start() else { return };
    let stack = stack(&redis, ObjectPlace::Files).await;
    let client = stack.client().await.unwrap();
    let limits = RunOptions { lease_ms: 1_000.0, heartbeat_ms: 200.0, ..RunOptions::default() };
    let run = submit(&stack, &client, &rounds(), limits).await;
    is_under_way(&run).await;
    assert_eq!(redis.ask("FLUSHALL"), "+OK");
    let outcome = run.wait().await.unwrap().completed().unwrap();
    assert_eq!(outcome.progress.committed, 40);
    assert_eq!(run.result("t9x3").await.unwrap(), "9 3\n");
    stack.stop().await;
}
