//! Running ahead: a planned worker begins its own tasks without waiting for the store's answers.
//!
//! Its tasks are nobody else's as long as it lives, so that the answer to a lease is known beforehand: a task
//! whose parents have all run here begins at once. Its lease follows with the next request, at the latest
//! [`CLAIM_MS`] later; where it ends before that, its commit goes alone, as attempt 0. Commits travel in the
//! order in which the tasks ended, many in one request, parents before children; each names the parents whose
//! commits are not answered yet, and the store refuses what rests on a result that is not by this worker.
//! What was refused runs again under a lease. What may be lost with the worker is bounded: so many results
//! wait for their answer at most.
//!
//! A worker whose predecessor disappeared waits for every lease: a task that ends its worker has its attempts
//! counted. Times in ms, sizes in bytes.

use std::collections::{BTreeMap, BTreeSet};

use foresail_schemas::run::{
    Assumption, Before, Commit, Failure, Location, Operation, OperationResult, StoredObject,
};

use super::{Phase, Worker};
use crate::protocol::{Action, Executed};
use crate::skips::skipped_by;

/// How long a task runs at most before its lease is asked for.
const CLAIM_MS: f64 = 20.0;
/// Most results whose commit is not answered.
const UNANSWERED_MAX: usize = 2_048;
/// Most bytes of outputs in the commits that are not answered.
const UNANSWERED_BYTES_MAX: u64 = 4 << 20;

/// What ran, and runs, ahead of the store.
#[derive(Debug, Clone, Default)]
pub(super) struct Ahead {
    is_allowed: bool,
    /// Tasks that began ahead and have not ended, and what is known of their lease.
    running: BTreeMap<u32, Claim>,
    /// Results made here, while tasks of this worker that read them have not begun.
    made: BTreeMap<u32, Made>,
    /// By task of this worker: parents that were made here.
    arrived: BTreeMap<u32, u32>,
    /// Tasks of this worker whose commit is not answered: their attempt, and the bytes of their outputs in
    /// it.
    unanswered: BTreeMap<u32, (u32, u64)>,
    unanswered_bytes: u64,
    /// Tasks that were begun here in vain: the next attempt waits for its lease.
    tried: BTreeSet<u32>,
}

/// What is known of the lease of a task that began without.
#[derive(Debug, Clone)]
enum Claim {
    /// To be asked for at this time.
    Unasked(f64),
    Asked,
    /// Answered. Where the plan was replaced meanwhile it is not granted; what runs may end.
    Answered,
}

#[derive(Debug, Clone)]
struct Made {
    commit: Commit,
    /// Tasks of this worker that read it and have not begun.
    readers: usize,
}

impl Ahead {
    pub fn joined(&mut self, before: Before) {
        self.is_allowed = before == Before::Left;
    }

    pub fn has(&self, task: u32) -> bool {
        self.running.contains_key(&task)
    }

    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// The next attempt of the task here waits for its lease.
    pub fn tried(&mut self, task: u32) {
        self.tried.insert(task);
    }

    /// What is known of tasks that have not begun holds for the plan under which it was learned.
    pub fn replanned(&mut self) {
        self.made.clear();
        self.arrived.clear();
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The attempt of a task whose commit is not answered.
    pub fn unanswered_attempt(&self, task: u32) -> Option<u32> {
        self.unanswered.get(&task).map(|&(attempt, _)| attempt)
    }

    /// A result made here lies elsewhere now: a reader that has not begun looks for it there.
    pub fn moved(&mut self, task: u32, outputs: &[StoredObject]) {
        if let Some(made) = self.made.get_mut(&task) {
            made.commit.outputs = outputs.to_vec();
        }
    }

    fn sent(&mut self, task: u32, attempt: u32, executed: &Executed) {
        let inline = executed.outputs.iter().map(|output| match &output.location {
            Location::Inline(text) => text.len() as u64,
            _ => 0,
        });
        let printed = executed.printed.as_ref().map_or(0, |text| text.len() as u64);
        let bytes = inline.sum::<u64>() + printed;
        self.unanswered.insert(task, (attempt, bytes));
        self.unanswered_bytes += bytes;
    }
}

impl Worker {
    /// What the task reads, where it needs no answer to begin: per parent its commit, or nothing for one that
    /// is skipped.
    pub(super) fn parents_ahead(&self, task: u32) -> Option<Vec<Option<Commit>>> {
        let ahead = &self.ahead;
        let has_room =
            ahead.unanswered.len() < UNANSWERED_MAX && ahead.unanswered_bytes < UNANSWERED_BYTES_MAX;
        let parents = self.graph.parents(task);
        let arrived = ahead.arrived.get(&task).map_or(0, |&arrived| arrived as usize);
        let is_own = self.phase == Phase::Working && self.mine.contains(&task) && self.is_mine(task);
        if !(ahead.is_allowed && has_room && is_own) || arrived != parents.len() {
            return None;
        }
        let known = |parent: &u32| match ahead.made.get(parent) {
            Some(made) => Some(Some(made.commit.clone())),
            None => self.skips.has_or_will(*parent).then_some(None),
        };
        (!ahead.tried.contains(&task)).then(|| parents.iter().map(known).collect())?
    }

    /// What the attempt of a task here rests on and the store has not answered: parents, and decisions that
    /// skip parents.
    pub(super) fn assumptions(&self, task: u32) -> Vec<Assumption> {
        let mut assumed: Vec<Assumption> = Vec::new();
        for &parent in self.graph.parents(task) {
            let made = self.skips.will_by(parent).unwrap_or(parent);
            if let Some(attempt) = self.ahead.unanswered_attempt(made)
                && assumed.iter().all(|assumption| assumption.task != made)
            {
                assumed.push(Assumption { task: made, attempt });
            }
        }
        assumed
    }

    pub(super) fn begin_ahead(
        &mut self,
        task: u32,
        parents: Vec<Option<Commit>>,
        now_ms: f64,
        out: &mut Vec<Action>,
    ) {
        self.begins(task);
        let hold_bytes_min = self.keep_bytes_min(task);
        self.ahead.running.insert(task, Claim::Unasked(now_ms + CLAIM_MS));
        self.running.insert(task, 0);
        out.push(Action::Execute { task, attempt: 0, parents, hold_bytes_min });
        self.prewarms.begin(self.plan.prewarms(Some(task)), now_ms);
    }

    /// A task begins: one reader less for what its parents made.
    pub(super) fn begins(&mut self, task: u32) {
        if self.ahead.arrived.remove(&task).is_none() {
            return;
        }
        for parent in self.graph.parents(task) {
            if let Some(made) = self.ahead.made.get_mut(parent) {
                made.readers -= 1;
                if made.readers == 0 {
                    self.ahead.made.remove(parent);
                }
            }
        }
    }

    /// Asks for the leases of what began without, with a request that goes out anyway or when it is time: who
    /// watches the run sees them.
    pub(super) fn claim(&mut self, now_ms: f64) {
        let is_due = self.claim_ms().is_some_and(|due| due <= now_ms);
        if !self.outbox.sends() && !is_due {
            return;
        }
        let keeps = &self.keeps;
        let is_unasked = |(task, claim): &(&u32, &mut Claim)| {
            matches!(claim, Claim::Unasked(_)) && keeps.read_by(**task).is_none()
        };
        for (&task, claim) in self.ahead.running.iter_mut().filter(is_unasked) {
            *claim = Claim::Asked;
            let (instance, epoch) = (self.settings.instance.clone(), self.plan.epoch());
            self.outbox.push(Operation::Lease { task, instance, epoch, assuming: Vec::new() });
        }
    }

    /// When a lease is to be asked for, where no request is under way that it would wait for.
    pub(super) fn claim_ms(&self) -> Option<f64> {
        let due = self.ahead.running.iter().filter_map(|(task, claim)| match claim {
            // The store would not grant what reads a result that it does not have: that is stored in time.
            Claim::Unasked(due_ms) => Some(*due_ms).filter(|_| self.keeps.read_by(*task).is_none()),
            _ => None,
        });
        due.reduce(f64::min).filter(|_| !self.outbox.waits())
    }

    /// The answer to the lease of a task that began without.
    pub(super) fn claimed(&mut self, task: u32, result: OperationResult, out: &mut Vec<Action>) {
        let Some(claim) = self.ahead.running.get_mut(&task) else { return };
        match result {
            OperationResult::Granted { .. } => *claim = Claim::Answered,
            OperationResult::StaleEpoch => {
                *claim = Claim::Answered;
                self.read_plan(out);
            }
            other => {
                self.give_up_ahead(task, out);
                // Otherwise another has it, or what it rests on does not stand: it is heard of when it is
                // ready.
                match other {
                    OperationResult::Committed { .. } => drop(self.mine.remove(&task)),
                    OperationResult::Skipped => self.skipped([task]),
                    _ => {}
                }
            }
        }
    }

    /// A task of this worker has ended well: its children here may begin before its commit is answered.
    pub(super) fn made(&mut self, task: u32, attempt: u32, executed: &Executed) {
        self.ahead.running.remove(&task);
        if !self.ahead.is_allowed || !self.is_mine(task) {
            return;
        }
        self.ahead.sent(task, attempt, executed);
        let graph = self.graph.clone();
        let decision = executed.decision.as_ref();
        let skipped = decision.map(|decision| skipped_by(&graph, task, decision)).unwrap_or_default();
        let reads = |child: &u32| self.mine.contains(child) && skipped.binary_search(child).is_err();
        let readers: Vec<u32> = graph.children(task).iter().copied().filter(reads).collect();
        if !readers.is_empty() {
            let commit = self.commit_of(attempt, executed.clone());
            self.ahead.made.insert(task, Made { commit, readers: readers.len() });
        }
        readers.into_iter().for_each(|child| self.parent_arrived(child));
        self.will_be_skipped(task, &skipped);
    }

    /// A parent of a task of this worker was made here, or is skipped.
    pub(super) fn parent_arrived(&mut self, task: u32) {
        let arrived = self.ahead.arrived.entry(task).or_default();
        *arrived += 1;
        if *arrived as usize == self.graph.parents(task).len() {
            self.enqueue(task);
        }
    }

    /// Whether running ahead would count a parent of the task.
    pub(super) fn awaits_parents(&self, task: u32) -> bool {
        let is_new = !self.has_begun(task) && !self.ahead.tried.contains(&task);
        self.ahead.is_allowed && is_new && self.is_mine(task) && self.mine.contains(&task)
    }

    /// Whether tasks begin before the store has answered.
    pub(super) fn runs_ahead(&self) -> bool {
        self.ahead.is_allowed && self.phase == Phase::Working
    }

    /// Whether all parents of a task of this worker but one have arrived.
    pub(super) fn lacks_only_one_parent(&self, task: u32) -> bool {
        let arrived = self.ahead.arrived.get(&task).copied().unwrap_or(0);
        arrived as usize + 1 == self.graph.parents(task).len()
    }

    /// The attempt has failed: as attempt 0, whose number the store knows or finds.
    pub(super) fn executed_badly_ahead(&mut self, task: u32, failure: Failure) {
        self.ahead.running.remove(&task);
        self.ahead.tried(task);
        if let Some(failure) = self.fail_after_kept(task, failure) {
            self.failed(task, 0, failure);
        }
    }

    /// The answer to the commit of a task of this worker.
    pub(super) fn settled(
        &mut self,
        task: u32,
        attempt: u32,
        result: &OperationResult,
        out: &mut Vec<Action>,
    ) {
        let Some((_, bytes)) = self.ahead.unanswered.remove(&task) else { return };
        self.ahead.unanswered_bytes -= bytes;
        match result {
            OperationResult::Won { .. } | OperationResult::RunOver => {}
            OperationResult::Committed { .. } => self.lose(task, out),
            OperationResult::Skipped => {
                self.lose(task, out);
                self.skipped([task]);
            }
            _ => {
                out.push(Action::Discard { task, attempt });
                self.lose(task, out);
                if self.is_mine(task) {
                    self.mine.insert(task);
                }
                self.ahead.tried(task);
                self.enqueue(task);
            }
        }
    }

    /// What a task made here could not be stored: it has no result, and what runs on it is given up.
    pub(super) fn unmade(&mut self, task: u32, out: &mut Vec<Action>) {
        if let Some((_, bytes)) = self.ahead.unanswered.remove(&task) {
            self.ahead.unanswered_bytes -= bytes;
        }
        self.lose(task, out);
    }

    /// What a task made here is not its result: what runs on it is given up, and on what it decided.
    fn lose(&mut self, task: u32, out: &mut Vec<Action>) {
        self.ahead.made.remove(&task);
        let graph = self.graph.clone();
        let lost = self.skips.take_back(task);
        for &child in lost.iter().chain([&task]).flat_map(|&lost| graph.children(lost)) {
            self.ahead.arrived.remove(&child);
            if self.ahead.has(child) {
                self.give_up_ahead(child, out);
                self.enqueue(child);
            }
        }
    }

    fn give_up_ahead(&mut self, task: u32, out: &mut Vec<Action>) {
        self.ahead.running.remove(&task);
        self.ahead.tried(task);
        if self.running.remove(&task).or_else(|| self.storing.remove(&task)).is_some() {
            out.push(Action::Abort { task });
        }
    }
}
