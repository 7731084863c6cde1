//! Examples of what clients, hosts and worker processes tell each other.

use super::{config, instance, run_id, time, usage, worker_id};
use crate::invocation::{HostMessage, HostStatus, Invocation, Invoked, Purpose, WarmWorkers, WorkerMessage};
use crate::metric::StartState;

/// A host is asked for the planned worker.
#[must_use]
pub fn invocation() -> Invocation {
    Invocation {
        run: run_id(),
        worker: Some(worker_id()),
        config: config(),
        tasks: vec![0],
        metad: "http://127.0.0.1:7070".to_owned(),
        purpose: Purpose::Work,
        asked_at: None,
        documents: None,
    }
}

/// The answer to an invocation.
#[must_use]
pub fn invoked() -> Invoked {
    Invoked { instance: instance() }
}

/// A host starts a worker.
#[must_use]
pub fn host_message() -> HostMessage {
    HostMessage::Start {
        instance: instance(),
        invocation: invocation(),
        start: StartState::Cold,
        invoked_at: time("2026-01-05T10:00:00.105Z"),
    }
}

/// A worker is done.
#[must_use]
pub fn worker_message() -> WorkerMessage {
    WorkerMessage::Done { instance: instance(), usage: usage() }
}

/// A host that carries out an invocation beside an idle worker.
#[must_use]
pub fn host_status() -> HostStatus {
    let warm = vec![WarmWorkers { config: config(), count: 1 }];
    HostStatus { busy: 1, idle: 1, queued: 0, concurrency_max: 2, cold_starts: 2, warm_starts: 0, warm }
}
