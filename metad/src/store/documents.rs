//! The workflow and the plans of a run, as the JSON text that is served.
//!
//! Table `run_workflows`: run number (u64) -> JSON of the workflow.
//! Table `run_plans`: (run number u64, epoch u64 from 1) -> JSON of the plan. Former plans stay until the run
//! goes. Under epoch 0 ([`SUGGESTED`]) lies the plan that was suggested last, as the request that would put
//! it in force.
//!
//! They are kept as text because they are read far more often than they are changed, and a read is a copy.

use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::change::Change;
use super::{ReadView, Result, WriteGroup};

const WORKFLOWS: TableDefinition<u64, &[u8]> = TableDefinition::new("run_workflows");
const PLANS: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("run_plans");
/// The place of the plan that was suggested last, among those in force, which count from 1.
pub const SUGGESTED: u64 = 0;

pub(super) fn prepare(group: &WriteTransaction) -> Result<()> {
    group.open_table(WORKFLOWS)?;
    group.open_table(PLANS)?;
    Ok(())
}

pub(super) fn put_workflow(transaction: &WriteTransaction, run: u64, json: &[u8]) -> Result<()> {
    transaction.open_table(WORKFLOWS)?.insert(run, json)?;
    Ok(())
}

pub(super) fn put_plan(transaction: &WriteTransaction, key: (u64, u64), json: &[u8]) -> Result<()> {
    transaction.open_table(PLANS)?.insert(key, json)?;
    Ok(())
}

/// Drops the documents of a run.
pub(super) fn drop_all(transaction: &WriteTransaction, run: u64) -> Result<()> {
    transaction.open_table(WORKFLOWS)?.remove(run)?;
    transaction.open_table(PLANS)?.retain_in((run, 0)..=(run, u64::MAX), |_, _| false)?;
    Ok(())
}

impl ReadView {
    /// The workflow of a run.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn workflow_document(&self, run: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.0.open_table(WORKFLOWS)?.get(run)?.map(|v| v.value().to_vec()))
    }

    /// A plan of a run.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn plan_document(&self, run: u64, epoch: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.0.open_table(PLANS)?.get((run, epoch))?.map(|v| v.value().to_vec()))
    }
}

impl WriteGroup {
    /// A plan of a run, as far as this group knows.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn plan_document(&self, run: u64, epoch: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.transaction()?.open_table(PLANS)?.get((run, epoch))?.map(|v| v.value().to_vec()))
    }

    /// The workflow of a run, as far as this group knows.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn workflow_document(&self, run: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.transaction()?.open_table(WORKFLOWS)?.get(run)?.map(|v| v.value().to_vec()))
    }

    /// Writes the workflow of a run.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn put_workflow_document(&self, run: u64, json: &[u8]) -> Result<()> {
        self.make(Change::PutWorkflowDocument { run, json })
    }

    /// Writes a plan of a run.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn put_plan_document(&self, run: u64, epoch: u64, json: &[u8]) -> Result<()> {
        self.make(Change::PutPlanDocument { run, epoch, json })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::SUGGESTED;
    use crate::store::testing;

    proptest! {
        #[test]
        fn documents_come_back_byte_for_byte(
            run in any::<u64>(), epoch in SUGGESTED..9, json in proptest::collection::vec(any::<u8>(), 0..99),
        ) {
            let (writer, reader) = testing::in_memory();
            let group = writer.begin().unwrap();
            group.put_workflow_document(run, &json).unwrap();
            group.put_plan_document(run, epoch, &json).unwrap();
            prop_assert_eq!(group.plan_document(run, epoch).unwrap(), Some(json.clone()));
            group.commit().unwrap();
            let view = reader.view().unwrap();
            prop_assert_eq!(view.workflow_document(run).unwrap(), Some(json.clone()));
            prop_assert_eq!(view.plan_document(run, epoch).unwrap(), Some(json));
            prop_assert_eq!(view.plan_document(run, epoch + 1).unwrap(), None);
        }
    }
}
