//! Follows one run to its end: shows how far it is, cancels it when the user interrupts.

use std::pin::pin;
use std::time::{Duration, Instant};

use foresail_schemas::run::RunStatus;

use super::error::CliError;
use super::interrupt::Interrupt;
use super::terminal::{ProgressLine, Terminal};
use crate::error::ClientError;
use crate::progress::Progress;
use crate::run::{RunHandle, RunOutcome};

/// Time between two looks at a run; workers have the processor in between.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Follows `handle` to its end, `limit` at most.
///
/// # Errors
/// [`CliError::Interrupted`] when the user interrupted, after the run was cancelled; else what the client
/// says. A run that failed is no error here.
pub async fn follow(
    handle: &RunHandle,
    terminal: &Terminal,
    interrupt: &Interrupt,
    limit: Option<Duration>,
) -> Result<RunOutcome, CliError> {
    let mut line = terminal.progress(handle.plan().predicted);
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
    if let Err(error) = ended {
        terminal.say(&format!("cancelling run {}", handle.id()));
        handle.cancel(&error.to_string()).await?;
        handle.settle(progress).await?;
        return Err(error);
    }
    Ok(handle.settle(progress).await?)
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
        line.show(progress, &progress.summary(handle.rates(), now_ms));
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}
