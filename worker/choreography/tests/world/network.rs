//! The network: hints, requests and invocations, each of which may be lost or doubled; requests and answers
//! may also come after leases have ended.

use std::sync::Arc;

use foresail_choreography::{CommitHints, Event, Invoke};
use foresail_schemas::run::{Change, Commit, OPERATIONS_PER_REQUEST_MAX, Operation, RunEvent};
use rand::RngExt;

use super::work::is_unstored;
use super::{Happening, Running, WATCHDOG, World, tell};

/// How long a machine waits for an answer before it asks again.
const PATIENCE_MS: f64 = 5_000.0;
/// How many leases a late request or answer takes at most.
const LATE_LEASES_MAX: f64 = 4.0;

fn hint(ready: Vec<u32>, committed: Vec<(u32, Commit)>, skipped: Vec<u32>) -> Event {
    Event::Hint { ready, committed, skipped }
}

impl World {
    /// Events happen: who listens hears of them, unless the hint is lost.
    pub(super) fn store(&mut self, events: Vec<RunEvent>) {
        for event in events {
            self.note(&format!("event {} {:?}", event.seq, event.change));
            match &event.change {
                Change::TaskLeased { task, .. } => self.notice(&[*task], None),
                Change::TaskReady { task } => {
                    self.hint(|_| true, hint(vec![*task], Vec::new(), Vec::new()));
                }
                Change::TaskCommitted { task, commit } => {
                    let number = commit.instance.as_str().trim_start_matches('i').parse().unwrap_or(WATCHDOG);
                    self.check_read(number, *task);
                    self.forgive(*task);
                    let maker = self.machines.get(&number);
                    let planned = &self.plan.tasks[*task as usize].worker;
                    let is_copy = commit.attempt == 0 && maker.is_some_and(|m| m.worker != *planned);
                    self.seen.copies_won += u64::from(is_copy);
                    self.seen.never_stored += u64::from(is_unstored(commit));
                    let is_kept = is_unstored(commit) && maker.is_some_and(|m| m.worker.is_some());
                    self.seen.kept += u64::from(is_kept);
                    let hint = hint(Vec::new(), vec![(*task, commit.clone())], Vec::new());
                    self.hint(|hints| hints == CommitHints::Pass, hint);
                }
                Change::TasksSkipped { tasks, .. } => {
                    self.seen.skipped += tasks.len() as u64;
                    self.hint(|_| true, hint(Vec::new(), Vec::new(), tasks.clone()));
                }
                _ => {}
            }
            self.events.push(event);
        }
    }

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
            if !lost {
                let delay_ms = self.travel_ms(id, request);
                let operations = Arc::clone(&operations);
                self.later(delay_ms, Happening::Request { machine: id, request, operations, answer_lost });
            }
        }
        if lost || answer_lost {
            self.later(PATIENCE_MS, tell(id, Event::Unanswered { request }));
        }
    }

    /// How long a request or an answer travels. Who waits for a late one gives up, and asks again while the
    /// first is still on its way.
    pub(super) fn travel_ms(&mut self, id: u64, request: u64) -> f64 {
        if !self.chance(self.faults.late) {
            return self.rng.random_range(0.1..1.0);
        }
        let delay_ms = self.rng.random_range(0.0..LATE_LEASES_MAX * self.options.lease_ms);
        if delay_ms > PATIENCE_MS {
            self.seen.late += 1;
            self.later(PATIENCE_MS, tell(id, Event::Unanswered { request }));
        }
        delay_ms
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
