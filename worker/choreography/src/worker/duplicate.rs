//! Task-dup: a planned worker that waits runs a task of another worker as well, and the first result stands.
//!
//! A copy takes no lease and has attempt 0. It occupies a lane and is not stopped when a task of this worker
//! becomes ready; it is given up before it begins where such a task took the last lane meanwhile. Its
//! failure is dropped. Candidates are parents of tasks of this worker whose children here are all open: of
//! one that has a child that ran here the result is known.

use std::collections::{BTreeMap, BTreeSet};

use foresail_schemas::graph::Graph;
use foresail_schemas::run::{Operation, OperationResult, RunStatus};

use super::{Phase, Worker};
use crate::plan_view::PlanView;
use crate::protocol::Action;

/// Most candidates in one request.
const CANDIDATES_MAX: usize = 64;

/// Tasks of others that this worker may run as well.
#[derive(Debug, Clone, Default)]
pub(super) struct Copies {
    /// By rank.
    candidates: Vec<Candidate>,
    /// Asked for and not ready; until they are heard of again.
    waiting: BTreeSet<u32>,
    /// Became ready since the last request.
    heard: BTreeSet<u32>,
}

#[derive(Debug, Clone)]
struct Candidate {
    task: u32,
    /// Its children here.
    children: Vec<u32>,
}

impl Copies {
    pub fn of(graph: &Graph, plan: &PlanView, worker: Option<u32>, mine: &[u32]) -> Self {
        let mut children: BTreeMap<(u32, u32), Vec<u32>> = BTreeMap::new();
        for &task in mine {
            let others = graph.parents(task).iter().filter(|&&p| plan.may_be_copied(p));
            for &parent in others.filter(|&&p| plan.worker_index(p) != worker) {
                children.entry((plan.rank(parent), parent)).or_default().push(task);
            }
        }
        let candidates =
            children.into_iter().map(|((_, task), children)| Candidate { task, children }).collect();
        Self { candidates, ..Self::default() }
    }
}

impl Worker {
    /// A task became ready: one that was asked for in vain may be asked for again.
    pub(super) fn may_copy(&mut self, task: u32) {
        if !self.copies.candidates.is_empty() && self.plan.may_be_copied(task) {
            self.copies.waiting.remove(&task);
            self.copies.heard.insert(task);
        }
    }

    /// Asks for a task of another worker when there is nothing to do but wait.
    pub(super) fn copy_if_idle(&mut self, now_ms: f64) {
        let waits = !self.mine.is_empty() && self.handed_over.is_empty();
        if self.copies.candidates.is_empty() || !waits || self.has_work() || !self.outbox.is_empty() {
            return;
        }
        let mut candidates = std::mem::take(&mut self.copies.candidates);
        candidates.retain(|candidate| {
            let waits = |child: &u32| self.mine.contains(child);
            candidate.children.iter().all(|child| waits(child) || self.skips.has(*child))
                && candidate.children.iter().any(waits)
                && !self.is_known_committed(candidate.task)
                && !self.skips.has(candidate.task)
        });
        let fitting = candidates.iter().map(|c| c.task).filter(|&t| self.fits_into_life(t, now_ms));
        let tasks: Vec<u32> = fitting.take(CANDIDATES_MAX).collect();
        self.copies.candidates = candidates;
        if tasks.iter().any(|task| !self.copies.waiting.contains(task)) {
            self.copies.heard.clear();
            self.outbox.push(Operation::Duplicate { tasks, instance: self.settings.instance.clone() });
        }
    }

    pub(super) fn copy_answered(&mut self, asked: &[u32], result: OperationResult, out: &mut Vec<Action>) {
        match result {
            OperationResult::Duplicated { task, parents } => {
                let goes_on = self.phase == Phase::Working && self.status == RunStatus::Running;
                if goes_on && self.free_lanes() > 0 && !self.has_begun(task) {
                    self.copies.candidates.retain(|candidate| candidate.task != task);
                    self.running.insert(task, 0);
                    self.ahead.tried(task);
                    out.push(Action::Execute { task, attempt: 0, parents, hold_bytes_min: None });
                }
            }
            _ => {
                let silent = asked.iter().filter(|&task| !self.copies.heard.contains(task));
                self.copies.waiting.extend(silent);
            }
        }
    }
}
