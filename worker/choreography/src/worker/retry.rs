//! After a failed attempt: the store says when the task may be taken again, or which size of worker it needs.

use foresail_schemas::ResourceConfig;
use foresail_schemas::run::OperationResult;

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
            OperationResult::Skipped => self.skipped([task]),
            // The end of the run comes with the same answer; or somebody else has the task.
            _ => {}
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
