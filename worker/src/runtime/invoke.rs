//! Requests for other workers, each tried some times.

use std::sync::Arc;
use std::time::Duration;

use foresail_schemas::invocation::{Documents, Invocation};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::carry::PAUSE_MAX;
use crate::host::Host;

/// Tries to invoke another worker; what fails for good is repaired by the run's watchdog.
const INVOKE_TRIES_MAX: u32 = 8;
/// First pause after a failed invocation; it doubles up to [`PAUSE_MAX`].
pub(super) const INVOKE_PAUSE_FIRST: Duration = Duration::from_millis(20);

/// Invokes when it gets a place, with the documents of the run where the platform has room for them.
pub(super) async fn invoke_in_turn(
    places: Arc<Semaphore>,
    host: Arc<dyn Host>,
    mut invocation: Invocation,
    documents: impl FnOnce(usize) -> Option<Documents> + Send + 'static,
) {
    // The places are never closed.
    let _place = places.acquire().await;
    let bytes_max = host.documents_bytes_max();
    if bytes_max > 0 {
        // Without them, should packing panic, the worker reads them.
        let documents = spawn_blocking(move || documents(bytes_max)).await;
        invocation.documents = documents.ok().flatten().map(Box::new);
    }
    invoke_patiently(host, invocation).await;
}

async fn invoke_patiently(host: Arc<dyn Host>, invocation: Invocation) {
    let mut pause = INVOKE_PAUSE_FIRST;
    for tries in 1.. {
        match host.invoke(invocation.clone()).await {
            Ok(invoked) => {
                tracing::debug!(instance = %invoked.instance, "invoked");
                return;
            }
            Err(error) if tries >= INVOKE_TRIES_MAX || !error.is_retryable() => {
                tracing::warn!(%error, "an invocation is left to the watchdog of the run");
                return;
            }
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
