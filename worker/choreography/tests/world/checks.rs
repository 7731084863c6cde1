//! What must hold at the end of every run.

use foresail_choreography::Ledger;
use foresail_schemas::run::{Change, RunEvent, RunStatus};

use super::World;

impl World {
    pub(super) fn check_end(&self) -> Result<(), String> {
        if self.ledger.status() != RunStatus::Completed {
            return Err(format!("the run stands at {:?} and nothing happens any more", self.ledger.status()));
        }
        if !self.machines.is_empty() {
            return Err(format!("machines {:?} never left", self.machines.keys()));
        }
        for task in 0..self.tasks() as u32 {
            let committed =
                |e: &&RunEvent| matches!(&e.change, Change::TaskCommitted { task: t, .. } if *t == task);
            let commits = self.events.iter().filter(committed).count();
            if commits != 1 {
                return Err(format!("task {task} was committed {commits} times"));
            }
        }
        Ok(())
    }

    pub fn check_replay(&self) {
        let mut replayed = Ledger::new(&self.workflow, self.options);
        self.events.iter().for_each(|event| replayed.replay(event));
        assert_eq!(replayed.last_seq(), self.ledger.last_seq());
        assert_eq!(replayed.status(), self.ledger.status());
        assert_eq!(replayed.summary(self.now_ms), self.ledger.summary(self.now_ms));
        for task in 0..self.tasks() as u32 {
            assert_eq!(replayed.commit(task), self.ledger.commit(task));
        }
    }
}
