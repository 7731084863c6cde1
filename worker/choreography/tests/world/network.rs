//! The network: hints, requests and invocations, each of which may be lost or doubled.

use std::sync::Arc;

use foresail_choreography::{CommitHints, Event, Invoke};
use foresail_schemas::run::{Change, Commit, OPERATIONS_PER_REQUEST_MAX, Operation, RunEvent};
use rand::RngExt;

use super::work::is_unstored;
use super::{Happening, Running, WATCHDOG, World, tell};

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
