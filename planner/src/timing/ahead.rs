//! Running ahead in the timing pass: a planned worker begins a task whose parents have all run in it without
//! waiting for the run's state, as the worker's state machine does it.

use crate::dense::NONE;
use crate::timing::{Phase, SOURCE, Timing};

impl Timing<'_> {
    /// A task of a planned worker has ended: its children there that wait for nothing else may begin. The
    /// first of its children there by rank, or [`NONE`].
    pub(super) fn made(&mut self, id: u32, task: u32, now_ms: f64) -> u32 {
        let live = &self.live[id as usize];
        let (worker, container) = (live.worker, live.container);
        if worker == NONE || self.planned_on[task as usize] != worker {
            return self.first_child_on(worker, task);
        }
        let is_first = self.tasks[task as usize].committed_nth == NONE;
        if is_first && self.dense.uploads[task as usize].objects > 0 {
            self.moved.made(self.dense, container, task, now_ms);
        }
        let graph = self.dense.graph;
        let (mut first, mut first_rank) = (NONE, NONE);
        for &child in graph.children(task) {
            if self.planned_on[child as usize] != worker {
                continue;
            }
            let times = &mut self.tasks[child as usize];
            if times.is_absent() {
                continue;
            }
            if first == NONE || times.rank < first_rank {
                (first, first_rank) = (child, times.rank);
            }
            if times.is_taken {
                continue;
            }
            if times.awaited_in != id {
                (times.awaited, times.awaited_in) = (graph.parents(child).len() as u32, id);
            }
            times.awaited -= 1;
            if times.awaited == 0 {
                times.filled_by = task;
                self.enqueue(id, child);
            }
        }
        first
    }

    /// The first child by rank that is planned on this worker and runs, or [`NONE`].
    pub(super) fn first_child_on(&self, worker: u32, task: u32) -> u32 {
        if worker == NONE {
            return NONE;
        }
        let children = self.dense.graph.children(task).iter();
        let mine = children.filter(|&&c| self.planned_on[c as usize] == worker);
        let runs = mine.filter(|&&c| !self.tasks[c as usize].is_absent());
        runs.min_by_key(|&&c| self.tasks[c as usize].rank).copied().unwrap_or(NONE)
    }

    /// Whether the task needs no answer to begin.
    pub(super) fn may_run_ahead(&self, id: u32, task: u32) -> bool {
        let live = &self.live[id as usize];
        live.phase == Phase::Working
            && live.worker != NONE
            && live.worker == self.planned_on[task as usize]
            && self.has_arrived(id, task)
    }

    /// Whether all parents of the task ran in this invocation.
    pub(super) fn has_arrived(&self, id: u32, task: u32) -> bool {
        let times = &self.tasks[task as usize];
        if times.awaited_in == id { times.awaited == 0 } else { times.flags & SOURCE != 0 }
    }
}
