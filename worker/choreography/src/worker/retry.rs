//! After a failed attempt: the store says when the task may be taken again, which size of worker it needs, or
//! what has to be made again before it.

use foresail_schemas::ResourceConfig;
use foresail_schemas::run::{LargerTask, OperationResult};

use super::Worker;
use crate::protocol::{Action, Invoke};

impl Worker {
    pub(super) fn failure_noted(
        &mut self,
        task: u32,
        result: &OperationResult,
        now_ms: f64,
        out: &mut Vec<Action>,
    ) {
        match result {
            OperationResult::Again { in_ms } => self.delayed.push((now_ms + in_ms, task)),
            OperationResult::NeedsLarger { config } => self.run_on_larger(task, *config, out),
            // Without the store it cannot be repeated here: its inputs are stored.
            OperationResult::NotReady => drop(self.give_up_parents(task)),
            OperationResult::Frontier { ready, larger, .. } => {
                self.give_up_parents(task);
                self.make_again(ready, larger, out);
            }
            OperationResult::Skipped => self.skipped([task]),
            // The end of the run comes with the same answer; or somebody else has the task.
            _ => {}
        }
    }

    /// What this worker found lost, and can be made again now: on the size that it ran on before, here where
    /// that is a free lane of this one.
    fn make_again(&mut self, ready: &[u32], larger: &[LargerTask], out: &mut Vec<Action>) {
        for &task in ready {
            let Some(&LargerTask { config, .. }) = larger.iter().find(|larger| larger.task == task) else {
                // Its planned worker, which this may be, has it for done.
                if self.is_mine(task) {
                    self.mine.insert(task);
                }
                self.dispatch(task, out);
                continue;
            };
            let is_like_it = self.index.is_none() && config.key() == self.settings.config.key();
            if is_like_it && self.free_lanes() > self.queue.len() && !self.has_begun(task) {
                self.enqueue(task);
            } else {
                self.run_on_larger(task, config, out);
            }
        }
    }

    /// A task that ran out of memory leaves its worker, planned or not, for a flexible one of this size. What
    /// is held for it is stored first; the commits that follow make it ready, and whoever asks for it hears
    /// of the size again.
    pub(super) fn run_on_larger(&mut self, task: u32, config: ResourceConfig, out: &mut Vec<Action>) {
        self.mine.remove(&task);
        if !self.give_up_parents(task) {
            out.push(Action::Invoke(Invoke { worker: None, config, tasks: vec![task] }));
        }
    }
}
