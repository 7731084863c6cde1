//! How the end of an attempt is told to the driver of its invocation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use foresail_choreography::Event;
use foresail_schemas::TaskId;
use foresail_schemas::run::Failure;
use tokio::sync::mpsc;

use super::attempt::Made;
use crate::registry::TaskError;

/// Tells the end of an attempt, once: where it was given up, what becomes of it later is nobody's.
#[derive(Clone)]
pub(super) struct Telling {
    id: TaskId,
    task: u32,
    attempt: u32,
    pub events: mpsc::Sender<Event>,
    is_told: Arc<AtomicBool>,
}

impl Telling {
    pub fn new(id: TaskId, task: u32, attempt: u32, events: mpsc::Sender<Event>) -> Self {
        Self { id, task, attempt, events, is_told: Arc::default() }
    }

    pub fn tell(&self, outcome: Result<Made, TaskError>) {
        if self.is_told.swap(true, Ordering::SeqCst) {
            return;
        }
        let (task, attempt) = (self.task, self.attempt);
        let event = match outcome {
            Ok(Made::Held(executed)) => Event::Held { task, attempt, executed },
            Ok(Made::Stored(executed)) => Event::Executed { task, attempt, outcome: Ok(executed) },
            Err(error) => failed(self.id.clone(), task, attempt, error),
        };
        // Nobody listens any more when the invocation is over.
        let _ = self.events.blocking_send(event);
    }
}

/// The end of an attempt that failed.
pub(super) fn failed(id: TaskId, task: u32, attempt: u32, error: TaskError) -> Event {
    let TaskError { kind, message, exception, lost } = error;
    tracing::info!(task = %id, attempt, %message, "the attempt failed");
    let failure = Failure { task: Some(id), attempt, kind, message, exception, lost };
    Event::Executed { task, attempt, outcome: Err(failure) }
}
