//! The network: hints, requests and invocations, each of which may be lost or doubled.

use std::sync::Arc;

use foresail_choreography::{CommitHints, Event, Invoke};
use foresail_schemas::run::{OPERATIONS_PER_REQUEST_MAX, Operation};
use rand::RngExt;

use super::{Happening, Running, World, tell};

impl World {
    /// Tells those who listen for it, unless the hint is lost.
    pub(super) fn hint(&mut self, is_wanted: impl Fn(CommitHints) -> bool, hint: Event) {
        let listens = |m: &Running| m.listens.is_some_and(&is_wanted);
        let listeners: Vec<u64> =
            self.machines.iter().filter(|(_, m)| listens(m)).map(|(id, _)| *id).collect();
        for machine in listeners {
            if !self.chance(self.faults.lose) {
                let delay_ms = self.rng.random_range(0.1..5.0);
                self.later(delay_ms, tell(machine, hint.clone()));
            }
        }
    }

    pub(super) fn send(&mut self, id: u64, request: u64, operations: Arc<[Operation]>) {
        if operations.len() > OPERATIONS_PER_REQUEST_MAX {
            self.broken = Some(format!("{id} sends {} operations at once", operations.len()));
        }
        let lost = self.chance(self.faults.lose);
        let answer_lost = self.chance(self.faults.lose);
        let copies = 1 + u32::from(self.chance(self.faults.double));
        for _ in 0..copies {
            let delay_ms = self.rng.random_range(0.1..1.0);
            if !lost {
                let operations = Arc::clone(&operations);
                self.later(delay_ms, Happening::Request { machine: id, request, operations, answer_lost });
            }
        }
        if lost || answer_lost {
            self.later(5_000.0, tell(id, Event::Unanswered { request }));
        }
    }

    pub(super) fn invoke(&mut self, invoke: Invoke) {
        if self.chance(self.faults.lose) {
            return;
        }
        let copies = 1 + u32::from(self.chance(self.faults.double));
        for _ in 0..copies {
            let delay_ms = self.rng.random_range(1.0..600.0);
            self.later(delay_ms, Happening::Start { invoke: invoke.clone() });
        }
    }
}
