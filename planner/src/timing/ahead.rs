//! Running ahead in the timing pass: a planned worker begins a task whose parents have all run in it without
//! waiting for the run's state, as the worker's state machine does it.

use crate::dense::NONE;
use crate::timing::{Phase, SOURCE, Timing};

impl Timing<'_> {
    /// A task of a planned worker has ended: its children there that wait for nothing else may begin.
    pub(super) fn made(&mut self, id: u32, task: u32, now_ms: f64) {
        let live = &self.live[id as usize];
        let (worker, container) = (live.worker, live.container);
        if worker == NONE || self.planned_on[task as usize] != worker {
            return;
        }
        let is_first = self.tasks[task as usize].committed_nth == NONE;
        if is_first && self.dense.uploads[task as usize].objects > 0 {
            self.moved.made(self.dense, container, task, now_ms);
        }
        let graph = self.dense.graph;
        for &child in graph.children(task) {
            if self.planned_on[child as usize] != worker {
                continue;
            }
            let times = &mut self.tasks[child as usize];
            if times.is_taken || times.is_absent() {
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
