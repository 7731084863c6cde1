//! Tasks that do not run in the timing pass, because it is decided otherwise in a draw: skipped as the run's
//! state skips them, when the task that decides has its result, with what cannot run without them.

use crate::dense::NONE;
use crate::timing::Timing;

impl Timing<'_> {
    /// A child that does not run: skipped now if it is `task` that decides so.
    pub(super) fn decided_against(&mut self, child: u32, task: u32) {
        if self.dense.graph.condition(child).is_some_and(|(decider, _)| decider == task) {
            self.skipping.push(child);
        }
    }

    /// Skips what is known not to run, and what follows from that.
    pub(super) fn skip_on(&mut self, id: u32, now_ms: f64) {
        while let Some(task) = self.skipping.pop() {
            let times = &mut self.tasks[task as usize];
            if times.committed_nth != NONE {
                continue;
            }
            (times.committed_nth, times.is_taken) = (self.committed, true);
            self.committed += 1;
            let worker = self.planned_on[task as usize];
            if worker != NONE {
                let state = &mut self.workers[worker as usize];
                state.left -= 1;
                if state.alive != NONE {
                    let mine = &mut self.live[state.alive as usize].mine;
                    *mine = mine.saturating_sub(1);
                }
            }
            for &child in self.dense.graph.children(task) {
                if !self.tasks[child as usize].is_absent() {
                    self.fill(id, (task, child), now_ms);
                } else if !self.dense.graph.is_optional(task, child) {
                    self.skipping.push(child);
                }
            }
        }
    }
}
