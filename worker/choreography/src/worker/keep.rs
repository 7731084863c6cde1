//! Results of a planned worker that only its own next task reads: they stay in its memory, and most are never
//! stored.
//!
//! A result is kept where one task reads it, that task is planned for this worker, and it can begin at once.
//! It runs ahead of the store as ever, and both are committed in one request, the result that was kept first:
//! a commit never outlives data that somebody still needs, and a worker that dies takes both along, so that
//! both run again. What is kept for [`KEPT_MS_MAX`] is stored after all, so that no more than that is lost
//! with a worker beside the task that runs; so is what a task reads that failed, before its failure is told:
//! a run that ends there can be resumed behind the result. A task that read what was kept is stored itself,
//! so that nothing waits for a chain of others. A brief reader goes before what the plan has before it, as
//! long as the next of that serves this worker alone: of many chains side by side most results would
//! otherwise be stored before their readers begin.
//!
//! Outputs of flexible workers are held back by other rules, see [`super::hold`]. Times in ms.

use std::collections::{BTreeMap, BTreeSet};

use foresail_schemas::run::{Failure, StoredObject};

use super::Worker;
use crate::protocol::{Action, Executed};

/// How long a result is kept without being stored.
const KEPT_MS_MAX: f64 = 2_000.0;
/// Most results kept at a time; the next is stored.
const KEPT_MAX: usize = 8;

/// Results that are kept, by their tasks.
#[derive(Debug, Clone, Default)]
pub(super) struct Keeps {
    kept: BTreeMap<u32, Kept>,
    /// Of them, what is to be stored.
    given_up: BTreeSet<u32>,
}

#[derive(Debug, Clone)]
struct Kept {
    attempt: u32,
    executed: Executed,
    /// The task that reads it.
    reader: u32,
    /// When it is stored.
    due_ms: f64,
    is_storing: bool,
    /// How the reader failed: told once this is committed.
    failed: Option<Failure>,
}

impl Keeps {
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Whether the task has run here and its result is not committed.
    pub fn has(&self, task: u32) -> bool {
        self.kept.contains_key(&task)
    }

    /// Tasks with a lease that is not to end.
    pub fn tasks(&self) -> impl Iterator<Item = u32> + '_ {
        self.kept.keys().copied()
    }

    /// When the next result is to be stored.
    pub fn due_ms(&self) -> Option<f64> {
        self.kept.values().filter(|kept| !kept.is_storing).map(|kept| kept.due_ms).reduce(f64::min)
    }

    /// The task whose result is kept for this one.
    pub fn read_by(&self, reader: u32) -> Option<u32> {
        self.kept.iter().find(|(_, kept)| kept.reader == reader).map(|(&task, _)| task)
    }

    /// What is kept for the task is to be stored. False where nothing is.
    pub fn give_up_for(&mut self, reader: u32) -> bool {
        let task = self.read_by(reader);
        self.given_up.extend(task);
        task.is_some()
    }

    pub fn give_up_all(&mut self) {
        self.given_up.extend(self.kept.keys());
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Worker {
    /// Outputs of this many bytes in all are to be kept by the host, where that may serve.
    pub(super) fn keep_bytes_min(&self, task: u32) -> Option<u64> {
        let bytes_min = self.settings.keep_bytes_min?;
        let reads_kept = self.graph.parents(task).iter().any(|parent| self.keeps.has(*parent));
        let serves = self.only_reader(task).is_some() && !reads_kept && !self.graph.decides(task);
        (serves && self.runs_ahead() && self.keeps.kept.len() < KEPT_MAX).then_some(bytes_min)
    }

    /// The one task that reads what a task of this worker makes, where it is of this worker too.
    fn only_reader(&self, task: u32) -> Option<u32> {
        let &[reader] = self.graph.children(task) else { return None };
        (self.is_mine(task) && self.awaits_parents(reader)).then_some(reader)
    }

    /// An attempt of a planned worker has ended and its outputs are in memory: they stay there where their
    /// reader can begin now.
    pub(super) fn keep(
        &mut self,
        task: u32,
        attempt: u32,
        executed: Executed,
        now_ms: f64,
        out: &mut Vec<Action>,
    ) {
        let is_last =
            |reader: &u32| self.lacks_only_one_parent(*reader) && self.fits_into_life(*reader, now_ms);
        let has_room = self.keeps.kept.len() < KEPT_MAX && self.runs_ahead();
        match self.only_reader(task).filter(is_last).filter(|_| has_room) {
            Some(reader) => {
                self.took(&executed.measured);
                self.made(task, attempt, &executed);
                self.go_first(reader);
                let due_ms = now_ms + KEPT_MS_MAX;
                let kept = Kept { attempt, executed, reader, due_ms, is_storing: false, failed: None };
                self.keeps.kept.insert(task, kept);
            }
            None => {
                self.storing.insert(task, attempt);
                out.push(Action::Store { task, attempt });
            }
        }
        self.take_tasks(now_ms, out);
    }

    /// A task has ended well: the result that was kept for it is committed before its own.
    pub(super) fn commit_kept_for(&mut self, reader: u32) {
        let Some(task) = self.keeps.read_by(reader) else { return };
        self.storing.remove(&task);
        self.keeps.given_up.remove(&task);
        if let Some(kept) = self.keeps.kept.remove(&task) {
            self.commit(task, kept.attempt, kept.executed);
        }
    }

    /// A task that began ahead has failed: that is told once the result that was kept for it is stored and
    /// committed. Gives the failure back where nothing was kept.
    pub(super) fn fail_after_kept(&mut self, reader: u32, failure: Failure) -> Option<Failure> {
        let task = self.keeps.read_by(reader);
        let Some(kept) = task.and_then(|task| self.keeps.kept.get_mut(&task)) else { return Some(failure) };
        kept.failed = Some(failure);
        self.keeps.given_up.extend(task);
        None
    }

    /// What was kept is stored, or could not be: gives whether it was kept, and how its reader failed.
    pub(super) fn kept_is_stored(
        &mut self,
        task: u32,
        stored: Option<&[StoredObject]>,
    ) -> Option<Option<(u32, Failure)>> {
        let kept = self.keeps.kept.remove(&task)?;
        self.keeps.given_up.remove(&task);
        if let Some(outputs) = stored {
            self.ahead.moved(task, outputs);
        }
        Some(kept.failed.map(|failure| (kept.reader, failure)))
    }

    /// What was kept cannot be stored. Where the task that read it has failed before, that is why, as the
    /// process that had both is gone: its failure is told, and what was kept is made again, uncounted.
    pub(super) fn kept_is_lost(
        &mut self,
        task: u32,
        attempt: u32,
        failure: Failure,
        of_reader: Option<(u32, Failure)>,
    ) {
        let Some((reader, of_reader)) = of_reader else { return self.failed(task, attempt, failure) };
        self.failed(reader, 0, of_reader);
        self.ahead.tried(task);
        self.enqueue(task);
    }

    /// Has the host store what was given up, and what was kept for long enough.
    pub(super) fn store_kept(&mut self, now_ms: f64, out: &mut Vec<Action>) {
        if self.keeps.is_empty() {
            return;
        }
        let Keeps { kept, given_up } = &mut self.keeps;
        let is_due = |task: &u32, kept: &Kept| given_up.contains(task) || kept.due_ms <= now_ms;
        for (&task, kept) in kept.iter_mut().filter(|(task, kept)| !kept.is_storing && is_due(task, kept)) {
            kept.is_storing = true;
            self.storing.insert(task, kept.attempt);
            out.push(Action::Store { task, attempt: kept.attempt });
        }
        given_up.clear();
    }
}
