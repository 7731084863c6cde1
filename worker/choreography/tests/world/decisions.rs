//! What deciding tasks decide, and which tasks that calls for: a rule of its own, over the whole graph at
//! once, that the ledger's is held against.

use foresail_schemas::decision::Decision;
use foresail_schemas::run::{Change, RunEvent};
use foresail_schemas::workflow::Input;

use super::World;
use super::problems::decision;

impl World {
    /// What an attempt decides: what the task always does, or something else where that is a fault.
    pub(super) fn decide(&mut self, task: u32) -> Option<Decision> {
        self.workflow.task(task).decision.as_ref()?;
        let other = decision(&mut self.rng);
        let wavers = self.chance(self.faults.waver);
        Some(if wavers { other } else { self.decisions[task as usize].clone() })
    }

    /// By task, whether the decisions that stand call for it.
    fn called_for(&self) -> Vec<bool> {
        let graph = self.workflow.graph();
        let mut called = vec![true; self.tasks()];
        for &task in graph.order() {
            let spec = self.workflow.task(task);
            let runs = |id| graph.find(id).is_some_and(|parent| called[parent as usize]);
            let reads = spec.inputs.iter().all(|input| match input {
                Input::Task { task, optional, .. } => *optional || runs(task),
                _ => true,
            });
            let holds = spec.when.as_ref().is_none_or(|when| {
                let decider = graph.find(&when.task).expect("the workflow was checked");
                let decided = self.ledger.commit(decider).and_then(|commit| commit.decision.as_ref());
                runs(&when.task) && decided.is_some_and(|decided| when.wanted.holds(decided))
            });
            called[task as usize] = reads && holds && spec.after.iter().all(runs);
        }
        called
    }

    /// Exactly the tasks that are called for have a result, the others were skipped, once and untouched.
    pub(super) fn check_called(&self) -> Result<(), String> {
        for (task, called) in (0..).zip(self.called_for()) {
            let count = |is_it: &dyn Fn(&Change) -> bool| {
                self.events.iter().filter(|event: &&RunEvent| is_it(&event.change)).count()
            };
            let commits = count(&|c| matches!(c, Change::TaskCommitted { task: t, .. } if *t == task));
            let skips = count(&|c| matches!(c, Change::TasksSkipped { tasks, .. } if tasks.contains(&task)));
            let begins = |c: &Change| match c {
                Change::TaskLeased { task: t, .. } | Change::TaskReady { task: t } => *t == task,
                _ => false,
            };
            let leases = count(&begins);
            let taken_back = self.times_taken_back(task);
            if (commits, skips) != (usize::from(called) + taken_back, usize::from(!called)) {
                return Err(format!(
                    "task {task}, called for: {called}, was committed {commits} times, {taken_back} of them \
                     taken back, and skipped {skips} times"
                ));
            }
            if !called && (leases > 0 || !self.ledger.is_skipped(task)) {
                return Err(format!("task {task} is skipped and was leased or ready {leases} times"));
            }
        }
        Ok(())
    }
}
