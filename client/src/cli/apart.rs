//! Work that takes the processor: on a thread of its own, which an interrupt does not wait for.

use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use super::error::CliError;
use super::interrupt::Interrupt;
use super::terminal::Terminal;
use crate::planning::Stop;

/// How long work has to end once the user interrupts: enough to end a process that it started.
const STOP_LIMIT: Duration = Duration::from_millis(400);
/// Time between two lines about work that goes on.
const TOLD_EVERY: Duration = Duration::from_millis(500);

/// Computes; the caller may stop waiting.
///
/// # Errors
/// When the work panicked.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, CliError> {
    let (tell, told) = tokio::sync::oneshot::channel();
    // Nobody may be left to be told: that is what an interrupt is.
    std::thread::spawn(move || drop(tell.send(work())));
    Ok(told.await.map_err(|_| io::Error::other("the computation ended without a result"))?)
}

/// Computes until the user interrupts; `stop` is asked for then. `what` is told with the time it takes.
///
/// # Errors
/// [`CliError::Stopped`] when the user interrupted.
pub async fn until_interrupted<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
    what: &str,
    stop: &Stop,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<T, CliError> {
    let began = Instant::now();
    let mut line = terminal.elapsed();
    let mut working = pin!(run(work));
    let done = loop {
        tokio::select! {
            done = &mut working => break done,
            () = interrupt.asked() => {
                stop.ask();
                let _ = tokio::time::timeout(STOP_LIMIT, &mut working).await;
                break Err(CliError::Stopped { hint: "" });
            }
            () = tokio::time::sleep(TOLD_EVERY) => line.show(what, began.elapsed()),
        }
    };
    line.end();
    done
}
