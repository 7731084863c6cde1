//! A worker that no process of its host watches: it ends its invocations in time itself, and has the last
//! word on what it had to give up.
//!
//! Where a host on the same machine finds a worker dead, it reports what ran and ends what is left. A worker
//! behind an endpoint or in a function of a cloud has nobody like that: past its time the platform ends it
//! without a word, and everybody would wait for its leases to end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use foresail_schemas::run::{FailureKind, WorkerUsage};
use jiff::Timestamp;
use tokio::time::timeout;

use super::WorkerError;
use super::carrier::Carrier;
use super::carry::Started;
use super::settings::ProcessSettings;
use crate::executor::memory::{children_peak_memory_mb, peak_memory_mb};
use crate::host::{Host, again};
use crate::metad::Metad;
use crate::metrics::send_left_over;
use crate::note::Notes;
use crate::registry::Registry;

/// How long the last words may take: they are said within the time that the platform leaves.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(2);
/// How long measurements that an earlier invocation left are sent.
const LEFT_OVER_LIMIT: Duration = Duration::from_secs(2);

/// A worker by itself.
pub struct Alone {
    carrier: Carrier,
    /// Most memory seen so far.
    peak_memory_mb: f64,
}

/// How an invocation ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Carried {
    /// What it used.
    pub usage: WorkerUsage,
    /// Most resident memory of the worker or of a command of it so far, in MB.
    pub peak_memory_mb: f64,
    /// Whether the process can take another.
    pub fitness: Fitness,
}

/// Whether a worker can take another invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fitness {
    /// It can.
    Fit,
    /// Something of the last one goes on in it: a new process shall take its place.
    Unfit,
}

impl Alone {
    /// A worker with these functions; it asks `host` for others.
    ///
    /// # Errors
    /// [`WorkerError::Setup`] when its directories cannot be made.
    pub fn new(
        registry: &Registry,
        settings: ProcessSettings,
        host: Arc<dyn Host>,
    ) -> Result<Self, WorkerError> {
        for dir in [&settings.scratch_dir, &settings.spool_dir] {
            std::fs::create_dir_all(dir).map_err(|e| {
                WorkerError::Setup(format!("directory `{}` cannot be made: {e}", dir.display()))
            })?;
        }
        Ok(Self { carrier: Carrier::new(registry, settings, host), peak_memory_mb: 0.0 })
    }

    /// Carries out an invocation; past `ends` it is given up, and metad told.
    pub async fn carry_out(&mut self, started: Started, ends: Instant) -> Carried {
        let left = ends.saturating_duration_since(Instant::now());
        let begun = started.clone();
        let passed_ms = Timestamp::now().duration_since(started.invoked_at).as_secs_f64() * 1000.0;
        let life_ms = passed_ms.max(0.0) + left.as_secs_f64() * 1000.0;
        let life_ms_max = life_ms.min(self.carrier.life_ms_max());
        let (done, fitness) = match timeout(left, self.carrier.carry_out(started, life_ms_max)).await {
            Ok(usage) => (usage, Fitness::Fit),
            Err(_) => (self.cut(&begun, life_ms).await, Fitness::Unfit),
        };
        let fitness = if self.carrier.has_strays().await { Fitness::Unfit } else { fitness };
        self.send_left_over(&begun).await;
        self.peak_memory_mb = self.peak_memory_mb.max(peak_memory_mb()).max(children_peak_memory_mb());
        Carried { usage: done, peak_memory_mb: self.peak_memory_mb, fitness }
    }

    /// Tells metad of what was given up and starts it again elsewhere; what is not said in time the watchdog
    /// of the run finds.
    async fn cut(&mut self, begun: &Started, life_ms: f64) -> WorkerUsage {
        tracing::warn!(instance = %begun.instance, "the time of the invocation is over: it is given up");
        let notes = Notes::read_all(self.carrier.scratch_dir());
        let message = format!("its worker has no more time: an invocation may last {life_ms:.0} ms there");
        // What it had moved by then nobody knows.
        let init_ms = begun.init_ms.unwrap_or(0.0);
        let usage = WorkerUsage { billed_ms: life_ms.ceil(), init_ms, ..WorkerUsage::default() };
        let operations = again::obituary(&begun.instance, &notes, FailureKind::Timeout, message, usage);
        if let Ok(metad) = self.carrier.metad(&begun.invocation.metad) {
            let host = Arc::clone(&self.carrier.host);
            let told = again::tell(metad, host, begun.invocation.clone(), operations);
            let _ = timeout(LAST_WORDS_LIMIT, told).await;
        }
        usage
    }

    /// Sends what metad did not take before.
    async fn send_left_over(&mut self, begun: &Started) {
        let spool = self.carrier.spool_dir().to_owned();
        let is_empty = std::fs::read_dir(&spool).is_ok_and(|mut entries| entries.next().is_none());
        if is_empty {
            return;
        }
        let metad: Option<Metad> = self.carrier.metad(&begun.invocation.metad).ok();
        if let Some(metad) = metad {
            let _ = timeout(LEFT_OVER_LIMIT, send_left_over(&spool, &metad)).await;
        }
    }
}
