//! What the threads of the daemon share: the serving state, the way to the writer, the counters, the limits.
//!
//! Three threads: HTTP (one current-thread runtime: faster here than two workers), the writer (all changes of
//! the store and of the runs), the learner (the models). Changes go HTTP -> writer -> learner through bounded
//! queues; what they lead to comes back through [`Shared::world`] and [`Shared::boards`], which are swapped
//! as a whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use arc_swap::ArcSwap;
use foresail_schemas::{ErrorCode, Problem};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::batch_log::BatchLog;
use crate::board::Boards;
use crate::coordination::Coordination;
use crate::meter::Meter;
use crate::settings::Settings;
use crate::store::StoreReader;
use crate::world::World;
use crate::write::{Command, Reply};

/// Bytes that one permit of [`Shared::body_budget`] stands for.
pub const BUDGET_UNIT_BYTES: u64 = 1024;

/// Most cold questions that are answered at once.
pub const COLD_MAX: usize = 2;

/// What the threads share.
pub struct Shared {
    /// The settings.
    pub settings: Settings,
    /// The store, for reading.
    pub store: StoreReader,
    /// What predictions are answered from.
    pub world: ArcSwap<World>,
    /// The runs.
    pub boards: ArcSwap<Boards>,
    /// The counters.
    pub meter: Meter,
    /// Whether changes are taken.
    pub health: Health,
    /// True once the daemon begins to stop: ends long polls and streams.
    pub stopping: watch::Sender<bool>,
    /// Places for requests.
    pub requests: Arc<Semaphore>,
    /// Places for requests that listen for events.
    pub listeners: Arc<Semaphore>,
    /// Places for downloads, each of which keeps its place until it ends.
    pub exports: Arc<Semaphore>,
    /// Places for cold questions, each of which keeps its place until its work ends.
    pub cold: Arc<Semaphore>,
    /// Memory for bodies, in units of [`BUDGET_UNIT_BYTES`].
    pub body_budget: Arc<Semaphore>,
    /// The runs whose state lies elsewhere, where some may.
    pub coordination: Option<Coordination>,
    /// The log that batches go through, where several replicas share one.
    pub batch_log: Option<BatchLog>,
    commands: mpsc::Sender<Command>,
}

/// Whether the daemon takes changes.
#[derive(Debug, Default)]
pub struct Health(AtomicU8);

const SERVING: u8 = 0;
const STORE_FAILED: u8 = 1;

impl Health {
    /// No change is taken any more until a restart: memory may be ahead of the disk.
    pub fn store_failed(&self) {
        self.0.store(STORE_FAILED, Ordering::SeqCst);
    }

    /// Why changes are not taken, where they are not.
    #[must_use]
    pub fn problem(&self) -> Option<Problem> {
        (self.0.load(Ordering::SeqCst) != SERVING).then(store_failed)
    }
}

/// The answer to every change after the store failed.
#[must_use]
pub fn store_failed() -> Problem {
    Problem::new(
        ErrorCode::StoreFailed,
        "the store could not write a group of changes; no change is taken until a restart",
    )
}

/// The answer when there is no room.
#[must_use]
pub fn overloaded(what: &str, limit: u64) -> Problem {
    Problem::new(ErrorCode::Overloaded, format!("{what}: the limit `{limit}` is reached")).with_limit(limit)
}

/// The answer while the daemon stops.
#[must_use]
pub fn stopping() -> Problem {
    Problem::new(ErrorCode::Unavailable, "metad is stopping")
}

impl Shared {
    /// The shared state over a store that was recovered, and the writer's end of the queue.
    #[must_use]
    pub fn new(
        settings: Settings,
        store: StoreReader,
        world: World,
        boards: Boards,
    ) -> (Arc<Self>, mpsc::Receiver<Command>) {
        let (commands, queue) = mpsc::channel(settings.queue_max as usize);
        let places = |n: u64| Arc::new(Semaphore::new((n as usize).min(Semaphore::MAX_PERMITS)));
        let budget = settings.body_bytes_waiting_max.div_ceil(BUDGET_UNIT_BYTES);
        // An address that is none was refused with the other settings.
        let coordination = settings.redis().and_then(|url| Coordination::open(url).ok());
        let batch_log = settings.batch_log.as_deref().and_then(|text| BatchLog::open(text, world.epoch));
        let shared = Self {
            requests: places(settings.requests_max),
            listeners: places(settings.listeners_max),
            exports: places(settings.exports_max),
            cold: Arc::new(Semaphore::new(COLD_MAX)),
            body_budget: places(budget),
            settings,
            store,
            world: ArcSwap::from_pointee(world),
            boards: ArcSwap::from_pointee(boards),
            meter: Meter::default(),
            health: Health::default(),
            stopping: watch::Sender::new(false),
            coordination,
            batch_log,
            commands,
        };
        (Arc::new(shared), queue)
    }

    /// Hands a change to the writer and waits for its answer, which comes when the change is durable.
    ///
    /// # Errors
    /// The problem of the change itself; overloaded when the queue is full; store failed.
    pub async fn change<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Problem> {
        if let Some(problem) = self.health.problem() {
            return Err(problem);
        }
        let (reply, answer) = oneshot::channel();
        self.commands.try_send(command(reply)).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => {
                overloaded("too many changes wait for the store", self.settings.queue_max)
            }
            mpsc::error::TrySendError::Closed(_) => self.refusal(),
        })?;
        answer.await.unwrap_or_else(|_| Err(self.refusal()))
    }

    /// Hands a change to the writer as soon as there is room, without waiting for its answer.
    ///
    /// # Errors
    /// Store failed, or stopping.
    #[cfg(feature = "nats")]
    pub async fn hand_over<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<oneshot::Receiver<Result<T, Problem>>, Problem> {
        if let Some(problem) = self.health.problem() {
            return Err(problem);
        }
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| self.refusal())?;
        Ok(answer)
    }

    /// A place for a download, which goes on after its request was answered.
    ///
    /// # Errors
    /// Unavailable, when all are taken.
    pub fn export_place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.exports).try_acquire_owned().map_err(|_| {
            let limit = self.settings.exports_max;
            let detail = format!("too many downloads are under way: the limit `{limit}` is reached");
            Problem::new(ErrorCode::Unavailable, detail).with_limit(limit)
        })
    }

    /// Why the writer did not answer.
    fn refusal(&self) -> Problem {
        if *self.stopping.borrow() { stopping() } else { store_failed() }
    }

    /// Wakes the writer; when the queue is full it is awake anyway.
    pub fn wake_writer(&self) {
        let _full_means_awake = self.commands.try_send(Command::Wake);
    }

    /// Asks the writer to finish what waits and to end.
    pub fn stop_writer(&self) {
        let _gone_means_stopped = self.commands.blocking_send(Command::Stop);
    }

    /// Changes that wait for the writer.
    #[must_use]
    pub fn queue_depth(&self) -> u64 {
        (self.commands.max_capacity() - self.commands.capacity()) as u64
    }
}
