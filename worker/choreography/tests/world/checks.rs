//! What must hold at the end of every run.

use foresail_choreography::Ledger;
use foresail_schemas::run::RunStatus;

use super::World;

impl World {
    pub(super) fn check_end(&self) -> Result<(), String> {
        if self.ledger.status() != RunStatus::Completed {
            return Err(format!("the run stands at {:?} and nothing happens any more", self.ledger.status()));
        }
        if !self.machines.is_empty() {
            return Err(format!("machines {:?} never left", self.machines.keys()));
        }
        self.check_called()
    }

    pub fn check_replay(&self) {
        let mut replayed = Ledger::new(&self.workflow, self.options);
        self.events.iter().for_each(|event| replayed.replay(event));
        assert_eq!(replayed.last_seq(), self.ledger.last_seq());
        assert_eq!(replayed.status(), self.ledger.status());
        assert_eq!(replayed.summary(self.now_ms), self.ledger.summary(self.now_ms));
        for task in 0..self.tasks() as u32 {
            assert_eq!(replayed.commit(task), self.ledger.commit(task));
            assert_eq!(replayed.is_skipped(task), self.ledger.is_skipped(task));
        }
    }
}
