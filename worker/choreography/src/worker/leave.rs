//! How an invocation ends: it lingers, says what it used, looks for what is stuck, leaves, hands over.

use foresail_schemas::run::{Operation, OperationResult, RunStatus, WorkerUsage};

use super::{Phase, Worker};
use crate::protocol::{Action, Invoke};
use crate::watchdog::RESCUES_PER_LOOK_MAX;

impl Worker {
    pub(super) fn has_work(&self) -> bool {
        let begun = self.running.len() + self.storing.len() + self.leasing.len();
        let waits =
            self.delayed.len() + usize::from(!self.holds.is_empty()) + usize::from(!self.ahead.is_empty());
        let waits = waits + usize::from(!self.keeps.is_empty());
        begun + self.queue.len() + waits > 0 || !self.asked.is_empty() || self.reading_plan
    }

    /// The run is over: stop what runs, then leave.
    pub(super) fn end(&mut self, status: RunStatus, out: &mut Vec<Action>) {
        if status == RunStatus::Running || self.status != RunStatus::Running {
            return;
        }
        self.status = status;
        self.abort_all(out);
        self.queue.clear();
        self.delayed.clear();
        self.leasing.clear();
        self.told.clear();
        self.mine.clear();
        self.asked.clear();
        self.prewarms.clear();
        self.holds.clear();
        self.keeps.clear();
        self.ahead.clear();
        self.reading_plan = false;
        // What is made and stored is a result for who resumes a run that failed.
        let has_failed = status == RunStatus::Failed;
        self.outbox
            .clear_pending_but(|operation| has_failed && matches!(operation, Operation::Commit { .. }));
        if self.phase == Phase::Joining {
            self.finish(out);
        }
    }

    pub(super) fn leave(&mut self, usage: WorkerUsage) {
        if self.phase != Phase::Accounting {
            return;
        }
        self.phase = Phase::Leaving;
        let instance = self.settings.instance.clone();
        if self.status == RunStatus::Running {
            let idle_ms_min = self.settings.options.watch_ms;
            self.outbox.push(Operation::Frontier { idle_ms_min, limit: RESCUES_PER_LOOK_MAX });
        }
        let tasks =
            if self.handed_over.is_empty() { self.mine.iter().copied().collect() } else { Vec::new() };
        self.outbox.push(Operation::Leave { instance, tasks, usage });
    }

    pub(super) fn left(&mut self, result: OperationResult, out: &mut Vec<Action>) {
        match result {
            OperationResult::Stay { tasks } => {
                self.phase = Phase::Working;
                tasks.into_iter().for_each(|task| self.enqueue(task));
            }
            _ => {
                let tasks = std::mem::take(&mut self.handed_over);
                let (worker, config) = (self.settings.worker.clone(), self.settings.config);
                if !tasks.is_empty() && self.status == RunStatus::Running {
                    out.push(Action::Invoke(Invoke { worker, config, tasks }));
                }
            }
        }
    }

    pub(super) fn finish(&mut self, out: &mut Vec<Action>) {
        self.phase = Phase::Finished;
        self.abort_all(out);
        out.push(Action::Finished);
    }

    fn abort_all(&mut self, out: &mut Vec<Action>) {
        let begun = [&mut self.running, &mut self.storing].map(std::mem::take);
        out.extend(begun.into_iter().flatten().map(|(task, _)| Action::Abort { task }));
    }

    /// A planned worker with tasks left lingers for a while; everybody else leaves at once.
    pub(super) fn leave_if_idle(&mut self, now_ms: f64, out: &mut Vec<Action>) {
        if self.has_work() {
            self.idle_since_ms = None;
            return;
        }
        let since_ms = *self.idle_since_ms.get_or_insert(now_ms);
        if !self.outbox.is_empty() {
            return;
        }
        let may_linger = !self.mine.is_empty() && self.handed_over.is_empty();
        if !may_linger || now_ms >= since_ms + self.settings.options.linger_ms {
            self.phase = Phase::Accounting;
            self.idle_since_ms = None;
            self.prewarms.clear();
            out.push(Action::ReadUsage);
        }
    }
}
