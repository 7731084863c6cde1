//! A plan in force, and how another takes its place.

use std::sync::Arc;

use foresail_schemas::plan::Plan;
use foresail_schemas::run::Operation;

use super::Worker;
use super::duplicate::Copies;
use super::preload::PreLoads;
use crate::plan_view::PlanView;
use crate::protocol::Action;

impl Worker {
    /// Takes what the plan says of this worker.
    pub(super) fn follow(&mut self, plan: Arc<PlanView>) {
        self.index = self.settings.worker.as_ref().and_then(|worker| plan.index(worker));
        let mine = self.index.map(|index| plan.tasks_of(index)).unwrap_or_default();
        self.mine = mine.iter().copied().filter(|&task| !self.skips.has(task)).collect();
        self.preloads = PreLoads::of(&self.graph, &plan, mine);
        self.copies = Copies::of(&self.graph, &plan, self.index, mine);
        self.plan = plan;
    }

    pub(super) fn read_plan(&mut self, out: &mut Vec<Action>) {
        if !self.reading_plan {
            self.reading_plan = true;
            out.push(Action::ReadPlan);
        }
    }

    pub(super) fn plan_read(&mut self, epoch: u64, plan: &Plan, out: &mut Vec<Action>) {
        self.reading_plan = false;
        if epoch <= self.plan.epoch() {
            return;
        }
        let heard_commits = !self.preloads.is_empty();
        self.follow(Arc::new(PlanView::new(epoch, plan)));
        self.ahead.replanned();
        self.give_up_all();
        if !heard_commits && !self.preloads.is_empty() {
            self.listen(out);
        }
        self.ask_for_commits();
        let queued: Vec<u32> = std::mem::take(&mut self.queue).into_iter().map(|(_, task)| task).collect();
        for task in queued {
            match self.plan.worker(task).cloned() {
                Some(worker) if !self.is_mine(task) => {
                    self.outbox.push(Operation::WhoIs { worker: worker.clone() });
                    self.asked.entry(worker).or_default().insert(task);
                }
                _ => self.enqueue(task),
            }
        }
    }
}
