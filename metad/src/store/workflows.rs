//! Workflows known to the store and what was counted of them.
//!
//! Table `workflows`: number of the workflow (u32, from 0 without gaps) -> version byte 1, postcard of
//! [`WorkflowRow`]. One row per workflow, at most `workflows_max` of them; a row has at most about 330 bytes.

use redb::{ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::change::Change;
use super::{ReadView, Result, WriteGroup, corrupt};

const NAME: &str = "workflows";
const TABLE: TableDefinition<u32, &[u8]> = TableDefinition::new(NAME);
const VERSION: u8 = 1;

/// One workflow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowRow {
    /// Its name.
    pub name: String,
    /// Epoch of its last batch.
    pub epoch: u64,
    /// Sequence that the next batch gets, from 1.
    pub next_sequence: u64,
    /// Batches ever stored.
    pub batches: u64,
    /// Records ever accepted.
    pub accepted: u64,
    /// Records ever rejected.
    pub rejected: u64,
    /// Raw records still kept.
    pub records_kept: u64,
    /// Batch ids still kept.
    pub ids_kept: u64,
    /// Number that the next quarantined record gets, from 1.
    pub next_quarantined: u64,
    /// Quarantined records still kept.
    pub quarantined_kept: u64,
}

impl WorkflowRow {
    /// The row of a workflow that has no batch yet.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), next_sequence: 1, next_quarantined: 1, ..Self::default() }
    }
}

pub(super) fn prepare(group: &WriteTransaction) -> Result<()> {
    group.open_table(TABLE)?;
    Ok(())
}

pub(super) fn put(transaction: &WriteTransaction, workflow: u32, row: &[u8]) -> Result<()> {
    transaction.open_table(TABLE)?.insert(workflow, row)?;
    Ok(())
}

fn encode(row: &WorkflowRow) -> Vec<u8> {
    postcard::to_extend(row, vec![VERSION]).expect("numbers and text always have a postcard form")
}

fn decode(value: &[u8]) -> std::result::Result<WorkflowRow, String> {
    match value.split_first() {
        Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|e| e.to_string()),
        _ => Err("unknown version".to_owned()),
    }
}

impl ReadView {
    /// Every workflow, by number.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn workflows(&self) -> Result<Vec<WorkflowRow>> {
        let table = self.0.open_table(TABLE)?;
        let mut rows = Vec::new();
        for entry in table.iter()? {
            let (key, value) = entry?;
            if key.value() as usize != rows.len() {
                return Err(corrupt(NAME, rows.len(), "the row is missing"));
            }
            rows.push(decode(value.value()).map_err(|e| corrupt(NAME, key.value(), e))?);
        }
        Ok(rows)
    }
}

impl WriteGroup {
    /// Writes the row of a workflow.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn put_workflow(&self, workflow: u32, row: &WorkflowRow) -> Result<()> {
        self.make(Change::PutWorkflow { workflow, row: &encode(row) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::testing;

    proptest! {
        #[test]
        fn rows_round_trip(name in "[a-z]{1,255}", n in any::<[u64; 9]>()) {
            let row = WorkflowRow {
                name, epoch: n[0], next_sequence: n[1], batches: n[2], accepted: n[3], rejected: n[4],
                records_kept: n[5], ids_kept: n[6], next_quarantined: n[7], quarantined_kept: n[8],
            };
            prop_assert_eq!(decode(&encode(&row)).unwrap(), row);
        }

        #[test]
        fn foreign_bytes_are_refused_or_read_but_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn rows_come_back_by_number() {
        let (writer, reader) = testing::in_memory();
        let group = writer.begin().unwrap();
        group.put_workflow(1, &WorkflowRow::new("b")).unwrap();
        group.put_workflow(0, &WorkflowRow::new("a")).unwrap();
        group.commit().unwrap();
        let names: Vec<_> = reader.view().unwrap().workflows().unwrap().into_iter().map(|w| w.name).collect();
        assert_eq!(names, ["a", "b"]);
    }
}
