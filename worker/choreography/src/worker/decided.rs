//! What will not run: as the store has said, and as a decision made here says that it has not answered.
//!
//! The second is taken back where the result that decided does not stand; until then it only lets tasks of
//! this worker begin that would wait for a skipped parent. What rests on it names the task that decided when
//! it is committed, so that the store refuses it where another result stands.

use std::collections::{BTreeMap, BTreeSet};

use foresail_schemas::decision::Decision;

use super::Worker;
use crate::skips::is_called;

/// Tasks that will not run; bounded by the workflow.
#[derive(Debug, Clone, Default)]
pub(super) struct Skips {
    known: BTreeSet<u32>,
    /// To the task of this worker that decided it, whose commit is not answered.
    ahead: BTreeMap<u32, u32>,
}

impl Skips {
    /// Whether the store has said so.
    pub fn has(&self, task: u32) -> bool {
        self.known.contains(&task)
    }

    /// Whether the store has said so, or will unless what was made here does not stand.
    pub fn has_or_will(&self, task: u32) -> bool {
        self.has(task) || self.ahead.contains_key(&task)
    }

    /// Whose unanswered decision skips the task.
    pub fn will_by(&self, task: u32) -> Option<u32> {
        self.ahead.get(&task).copied()
    }

    /// The result of a task does not stand: what it would have skipped.
    pub fn take_back(&mut self, decider: u32) -> Vec<u32> {
        let taken = self.ahead.iter().filter(|(_, by)| **by == decider).map(|(task, _)| *task);
        let taken: Vec<u32> = taken.collect();
        self.ahead.retain(|_, by| *by != decider);
        taken
    }
}

impl Worker {
    /// The store has said that these tasks will not run.
    pub(super) fn skipped(&mut self, tasks: impl IntoIterator<Item = u32>) {
        for task in tasks {
            if task as usize >= self.graph.len() || !self.skips.known.insert(task) {
                continue;
            }
            self.mine.remove(&task);
            self.dequeue(task);
            if self.skips.ahead.remove(&task).is_none() {
                self.in_edges_settled(task);
            }
        }
    }

    /// A task of this worker has decided that these will not run.
    pub(super) fn will_be_skipped(&mut self, decider: u32, tasks: &[u32]) {
        for &task in tasks {
            if !self.skips.has_or_will(task) {
                self.skips.ahead.insert(task, decider);
                self.in_edges_settled(task);
            }
        }
    }

    /// Children here that can do without a skipped task wait for it no longer.
    fn in_edges_settled(&mut self, task: u32) {
        let graph = self.graph.clone();
        for &child in graph.children(task) {
            if graph.is_optional(task, child) && self.awaits_parents(child) {
                self.parent_arrived(child);
            }
        }
    }

    /// Whether a child of a task that has just ended may run, as far as is known.
    pub(super) fn may_follow(&self, child: u32, parent: u32, decision: Option<&Decision>) -> bool {
        !self.skips.has(child)
            && decision.is_none_or(|decision| is_called(&self.graph, child, parent, decision))
    }
}
