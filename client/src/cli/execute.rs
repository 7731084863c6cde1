//! Follows one run to its end: shows how far it is, cancels it when the user interrupts.

use std::pin::pin;
use std::time::{Duration, Instant};

use foresail_schemas::run::RunStatus;

use super::error::CliError;
use super::interrupt::Interrupt;
use super::replan::accept_hint;
use super::terminal::{ProgressLine, Terminal};
use crate::error::ClientError;
use crate::progress::Progress;
use crate::run::{RunHandle, RunOutcome};

/// Time between two looks at a run; workers have the processor in between.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Follows `handle` to its end, `limit` at most.
///
/// # Errors
/// [`CliError::Interrupted`] when the user interrupted, after the run was cancelled;
/// [`CliError::NotCancelled`] where that could not be done; [`CliError::OutOfSight`] when nobody can say any
/// more how far it is, which it goes on without. A run that failed is no error here.
pub async fn follow(
    handle: &RunHandle,
    terminal: &Terminal,
    interrupt: &Interrupt,
    limit: Option<Duration>,
) -> Result<RunOutcome, CliError> {
    // No other command finds the stack of this one.
    let accept = accept_hint(handle.id(), Some(handle.services.metad.address()));
    let mut line = terminal.progress(accept, handle.plan().predicted);
    let mut progress = handle.new_progress();
    let ended = {
        let mut looking = pin!(look(handle, &mut progress, &mut line));
        let overdue = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            done = &mut looking => done.map_err(CliError::from),
            () = interrupt.asked() => Err(CliError::Interrupted),
            () = overdue => {
                let what = format!("run `{}`", handle.id());
                Err(ClientError::TimedOut { what, limit: limit.unwrap_or_default() }.into())
            }
        }
    };
    line.end();
    match ended {
        Ok(()) => Ok(handle.settle(progress).await?),
        Err(CliError::Client(error)) if !matches!(error, ClientError::TimedOut { .. }) => {
            Err(CliError::OutOfSight { run: handle.id().clone(), error: Box::new(error) })
        }
        Err(asked) => Err(cancelled(handle, progress, terminal, asked).await),
    }
}

/// Cancels the run, as the user or the time limit asked for; the error says so where it could not be done.
async fn cancelled(handle: &RunHandle, progress: Progress, terminal: &Terminal, asked: CliError) -> CliError {
    terminal.say(&format!("cancelling run {}", handle.id()));
    if let Err(cause) = handle.cancel(&asked.to_string()).await {
        let (run, asked, cause) = (handle.id().clone(), Box::new(asked), Box::new(cause));
        return CliError::NotCancelled { run, asked, cause };
    }
    // The run is cancelled, whether or not its workers tell what they used until then.
    if let Err(error) = handle.settle(progress).await {
        tracing::warn!("what the run used until its end is not known: {error}");
    }
    asked
}

/// Looks at the run until it has ended.
async fn look(
    handle: &RunHandle,
    progress: &mut Progress,
    line: &mut ProgressLine,
) -> Result<(), ClientError> {
    let began = Instant::now();
    loop {
        handle.follow(progress, Duration::ZERO).await?;
        if progress.status != RunStatus::Running {
            return Ok(());
        }
        let now_ms = began.elapsed().as_secs_f64() * 1000.0;
        line.kept(&handle.kept());
        line.show(progress, &progress.summary(handle.rates(), now_ms));
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}
