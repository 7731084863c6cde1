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

use foresail_schemas::run::{Assumption, Before, Commit, Failure, Location, Operation, OperationResult};

use super::{Phase, Worker};
use crate::protocol::{Action, Executed};

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

    /// Parents whose commits are not answered.
    pub fn unanswered(&self, parents: &[u32]) -> Vec<Assumption> {
        let assumption = |&task: &u32| {
            let &(attempt, _) = self.unanswered.get(&task)?;
            Some(Assumption { task, attempt })
        };
        parents.iter().filter_map(assumption).collect()
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
    /// Whether the task needs no answer to begin.
    pub(super) fn may_run_ahead(&self, task: u32) -> bool {
        let ahead = &self.ahead;
        let has_room =
            ahead.unanswered.len() < UNANSWERED_MAX && ahead.unanswered_bytes < UNANSWERED_BYTES_MAX;
        let parents = self.graph.parents(task).len();
        let arrived = ahead.arrived.get(&task).map_or(0, |&arrived| arrived as usize);
        let is_own = self.phase == Phase::Working && self.mine.contains(&task) && self.is_mine(task);
        ahead.is_allowed && has_room && is_own && arrived == parents && !ahead.tried.contains(&task)
    }

    pub(super) fn begin_ahead(&mut self, task: u32, now_ms: f64, out: &mut Vec<Action>) {
        let made = |parent: &u32| self.ahead.made.get(parent).map(|made| made.commit.clone());
        let parents: Vec<Commit> = self.graph.parents(task).iter().filter_map(made).collect();
        self.begins(task);
        self.ahead.running.insert(task, Claim::Unasked(now_ms + CLAIM_MS));
        self.running.insert(task, 0);
        out.push(Action::Execute { task, attempt: 0, parents, hold_bytes_min: None });
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
        let unasked = self.ahead.running.iter_mut().filter(|(_, claim)| matches!(claim, Claim::Unasked(_)));
        for (&task, claim) in unasked {
            *claim = Claim::Asked;
            let (instance, epoch) = (self.settings.instance.clone(), self.plan.epoch());
            self.outbox.push(Operation::Lease { task, instance, epoch, assuming: Vec::new() });
        }
    }

    /// When a lease is to be asked for, where no request is under way that it would wait for.
    pub(super) fn claim_ms(&self) -> Option<f64> {
        let due = self.ahead.running.values().filter_map(|claim| match claim {
            Claim::Unasked(due_ms) => Some(*due_ms),
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
                if let OperationResult::Committed { .. } = other {
                    self.mine.remove(&task);
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
        let readers: Vec<u32> =
            graph.children(task).iter().copied().filter(|child| self.mine.contains(child)).collect();
        if readers.is_empty() {
            return;
        }
        let Executed { outputs, measured, printed } = executed.clone();
        let commit = Commit {
            attempt,
            instance: self.settings.instance.clone(),
            outputs,
            measured,
            decision: None,
            printed,
        };
        self.ahead.made.insert(task, Made { commit, readers: readers.len() });
        for child in readers {
            let arrived = self.ahead.arrived.entry(child).or_default();
            *arrived += 1;
            if *arrived as usize == graph.parents(child).len() {
                self.enqueue(child);
            }
        }
    }

    /// The attempt has failed: as attempt 0, whose number the store knows or finds.
    pub(super) fn executed_badly_ahead(&mut self, task: u32, failure: Failure) {
        self.ahead.running.remove(&task);
        self.failed(task, 0, failure);
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

    /// What a task made here is not its result: what runs on it is given up.
    fn lose(&mut self, task: u32, out: &mut Vec<Action>) {
        self.ahead.made.remove(&task);
        let graph = self.graph.clone();
        for &child in graph.children(task) {
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
