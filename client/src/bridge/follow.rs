//! Follows runs: how far they are, when they will end, what they cost so far, and how they ended.
//!
//! Few requests: of the events only those of workers, failures and the end are read, and the counts come from
//! the summary that metad keeps.

use std::sync::Arc;
use std::time::{Duration, Instant};

use foresail_schemas::id::RunId;
use foresail_schemas::run::RunStatus;
use serde::Deserialize;
use serde_json::{Value, json};

use super::calls::Session;
use super::eta::Eta;
use super::wire::Fault;
use crate::error::ClientError;
use crate::progress::Progress;
use crate::run::RunHandle;

/// Events that are read.
const KINDS: &str = "worker_joined,worker_left,task_failed,tasks_skipped,plan_replaced,plan_suggested,\
                     run_finished";
/// The end alone.
const END: &str = "run_finished";
/// Shortest time between two notifications of a run.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// Asks to be told of a run.
#[derive(Deserialize)]
pub struct Follow {
    run: RunId,
    /// Time between two notifications; absent: only the end is told.
    #[serde(default)]
    every_ms: Option<f64>,
}

/// Begins to tell of a run by notifications: `progress` as it goes on, `ended` at once when it has ended, and
/// `settled` when its workers have told what they used.
pub async fn begin(session: &Arc<Session>, follow: Follow) -> Result<Value, Fault> {
    let handle = session.run(&follow.run).await?;
    let session = Arc::clone(session);
    let every = follow.every_ms.and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok());
    tokio::spawn(async move {
        let told = match every {
            Some(every) => tell_progress(&session, &handle, every.max(PAUSE_MIN)).await,
            None => wait(&handle).await,
        };
        if let Err(error) = tell_end(&session, &handle, told).await {
            let run = handle.id();
            tracing::warn!(%run, "the run is not followed any more: {error}");
            let lost = json!({ "run": run, "reason": error.to_string(), "hint": error.hint() });
            session.tell("lost", &lost).await;
        }
    });
    Ok(Value::Null)
}

/// How far a run is now.
pub async fn once(session: &Session, run: &RunId) -> Result<Value, Fault> {
    let handle = session.run(run).await?;
    let mut progress = handle.new_progress();
    progress = read(&handle, progress, 0, Duration::ZERO, KINDS).await?.0;
    Ok(told(&handle, &progress, &Eta::new(handle.plan())).await?)
}

/// Waits for the end, and for nothing else.
async fn wait(handle: &RunHandle) -> Result<(), ClientError> {
    let mut after = 0;
    loop {
        let page = handle.page(after, handle.poll(), Some(END)).await?;
        if page.status != RunStatus::Running {
            return Ok(());
        }
        after = page.next_after;
    }
}

/// Tells how far the run is until it has ended.
async fn tell_progress(session: &Session, handle: &RunHandle, every: Duration) -> Result<(), ClientError> {
    let (mut progress, mut after, eta) = (handle.new_progress(), 0, Eta::new(handle.plan()));
    loop {
        let began = Instant::now();
        (progress, after) = read(handle, progress, after, every, KINDS).await?;
        if progress.status != RunStatus::Running {
            return Ok(());
        }
        session.tell("progress", &told(handle, &progress, &eta).await?).await;
        tokio::time::sleep(every.saturating_sub(began.elapsed())).await;
    }
}

/// Applies what is new; waits up to `wait` for the first.
async fn read(
    handle: &RunHandle,
    mut progress: Progress,
    mut after: u64,
    mut wait: Duration,
    kinds: &str,
) -> Result<(Progress, u64), ClientError> {
    loop {
        let page = handle.page(after, wait, Some(kinds)).await?;
        page.events.iter().for_each(|event| progress.apply(event));
        progress.status = page.status;
        let is_last = page.events.is_empty() || page.next_after <= after;
        after = after.max(page.next_after);
        if is_last {
            return Ok((progress, after));
        }
        wait = Duration::ZERO;
    }
}

async fn told(handle: &RunHandle, progress: &Progress, eta: &Eta) -> Result<Value, ClientError> {
    let summary = handle.summary().await?;
    let cost = progress.summary(handle.rates(), summary.elapsed_ms).cost_usd;
    let left_ms = match summary.status {
        RunStatus::Running => eta.left_ms(summary.committed + progress.skipped, summary.elapsed_ms),
        _ => 0.0,
    };
    let predicted = &handle.plan().predicted;
    Ok(json!({
        "run": handle.id(),
        "status": summary.status,
        "tasks": summary.tasks,
        "done": summary.committed,
        "running": summary.running,
        "skipped": progress.skipped,
        "failed_attempts": progress.failed_attempts,
        "workers": progress.workers(),
        "replanned": progress.replanned,
        "suggested": progress.suggested,
        "elapsed_ms": summary.elapsed_ms,
        "left_ms": left_ms,
        "cost_usd": cost,
        "predicted_ms": predicted.makespan_ms,
        "predicted_usd": predicted.cost_usd,
    }))
}

async fn tell_end(
    session: &Session,
    handle: &RunHandle,
    followed: Result<(), ClientError>,
) -> Result<(), ClientError> {
    followed?;
    let summary = handle.summary().await?;
    let ended = json!({
        "run": handle.id(),
        "status": summary.status,
        "failure": summary.failure,
        "tasks": summary.tasks,
        "done": summary.committed,
        "elapsed_ms": summary.elapsed_ms,
    });
    session.tell("ended", &ended).await;
    let outcome = handle.settle(handle.new_progress()).await?;
    let settled = json!({
        "run": handle.id(),
        "predicted": outcome.predicted,
        "actual": outcome.actual,
        "usage": outcome.progress.usage(),
        "failed_attempts": outcome.progress.failed_attempts,
        "replanned": outcome.progress.replanned,
        "suggested": outcome.progress.suggested,
        "skipped": outcome.progress.skipped,
    });
    session.tell("settled", &settled).await;
    Ok(())
}
