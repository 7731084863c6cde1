//! What surrounds the machines of a simulated run beside links and hosts: the service that keeps the run's
//! state, the platform that takes invocations, the store of objects.
//!
//! Whoever implements [`Surroundings`] sees what is asked of them, and says when it is done; without one all
//! of it is done at once. Calls come in the order of time, so that a queue is a time until which somebody is
//! busy. Times in ms since the start of the run.

use foresail_schemas::run::{Operation, OperationAnswer, RunEvent, WorkerUsage};

/// When a request to the run's state is carried out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Served {
    /// When; not before it arrived.
    pub at_ms: f64,
    /// When whoever asked gives the answer up, where that is before it comes.
    pub given_up_ms: Option<f64>,
}

/// An invocation that has left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Left {
    /// What it used.
    pub usage: WorkerUsage,
    /// Attempts whose code came to its end there.
    pub attempts: u64,
    /// Whether it was a planned worker.
    pub is_planned: bool,
}

/// See the module. Every default takes no time.
pub trait Surroundings {
    /// Events handled after which the run is given up.
    fn steps_max(&self) -> u64 {
        u64::MAX
    }

    /// Time after which the run is given up.
    fn end_ms(&self) -> f64 {
        f64::INFINITY
    }

    /// Machine `by` (0: the client) asks for a worker: when the platform has taken that.
    fn invoked(&mut self, by: usize, now_ms: f64) -> f64 {
        let _ = by;
        now_ms
    }

    /// The platform needs a new container of this size: when it begins to start it.
    fn grown(&mut self, size: usize, now_ms: f64) -> f64 {
        let _ = size;
        now_ms
    }

    /// A worker is up: when it knows what is to be done.
    fn begun(&mut self, is_planned: bool, now_ms: f64) -> f64 {
        let _ = is_planned;
        now_ms
    }

    /// A request arrives at the run's state.
    fn asked(&mut self, operations: &[Operation], now_ms: f64) -> Served {
        let _ = operations;
        Served { at_ms: now_ms, given_up_ms: None }
    }

    /// It was carried out, with these events: when the answer has left.
    fn answered(&mut self, answer: &OperationAnswer, events: &[RunEvent], now_ms: f64) -> f64 {
        let _ = (answer, events);
        now_ms
    }

    /// What happened is told to those who listen: when that leaves.
    fn told(&mut self, now_ms: f64) -> f64 {
        now_ms
    }

    /// So many objects are asked of the store: when it has answered, beside the time of the transfers.
    fn fetched(&mut self, gets: u64, now_ms: f64) -> f64 {
        let _ = gets;
        now_ms
    }

    /// So many objects are given to the store: when it has taken them, beside the time of the transfers.
    fn stored(&mut self, puts: u64, now_ms: f64) -> f64 {
        let _ = puts;
        now_ms
    }

    /// An invocation ends.
    fn left(&mut self, left: &Left, now_ms: f64) {
        let _ = (left, now_ms);
    }
}

/// Everything is done at once.
#[derive(Debug)]
pub(super) struct Undisturbed;

impl Surroundings for Undisturbed {}
