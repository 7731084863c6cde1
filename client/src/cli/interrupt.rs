//! Ctrl-C and SIGTERM: heard once for the whole command, so that none is lost between two waits.
//!
//! The first asks the command to end in good order; the second ends the process at once (workers end with
//! their host).

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Longest time a command may take to end in good order.
const GRACE: Duration = Duration::from_secs(15);
/// Exit code of a process that was interrupted.
pub const EXIT_CODE: u8 = 130;

/// Tells whether the user has interrupted. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Interrupt {
    asked: watch::Receiver<bool>,
}

impl Interrupt {
    /// Begins to listen. Where the system gives no signals the command cannot be interrupted in good order.
    #[must_use]
    pub fn listen() -> Self {
        let (tell, asked) = watch::channel(false);
        tokio::spawn(async move {
            let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
            let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
                tracing::warn!("signals cannot be heard; Ctrl-C will not end the command in good order");
                return std::future::pending().await;
            };
            one_of(&mut interrupt, &mut terminate).await;
            tell.send_replace(true);
            one_of(&mut interrupt, &mut terminate).await;
            std::process::exit(i32::from(EXIT_CODE));
        });
        Self { asked }
    }

    /// Completes once the user has interrupted, however long ago.
    pub async fn asked(&self) {
        if self.asked.clone().wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Completes when the user has interrupted and the time to end in good order is over.
    pub async fn overdue(&self) {
        self.asked().await;
        tokio::time::sleep(GRACE).await;
    }
}

async fn one_of(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
