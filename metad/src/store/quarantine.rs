//! Records that were set aside, with the reason.
//!
//! Table `quarantine`: (workflow u32, number u64 from 1) -> JSON of `foresail_schemas::metric::Quarantined`,
//! which is self-describing because the record in it may be anything. Retention drops the oldest.

use foresail_schemas::metric::Quarantined;
use redb::{TableDefinition, WriteTransaction};

use super::change::Change;
use super::{ReadView, Result, WriteGroup, corrupt};

const NAME: &str = "quarantine";
const TABLE: TableDefinition<(u32, u64), &[u8]> = TableDefinition::new(NAME);

fn encode(record: &Quarantined) -> Vec<u8> {
    serde_json::to_vec(record).expect("a value that came as JSON goes as JSON")
}

fn decode(value: &[u8]) -> std::result::Result<Quarantined, String> {
    serde_json::from_slice(value).map_err(|e| e.to_string())
}

pub(super) fn prepare(group: &WriteTransaction) -> Result<()> {
    group.open_table(TABLE)?;
    Ok(())
}

pub(super) fn put(transaction: &WriteTransaction, key: (u32, u64), record: &[u8]) -> Result<()> {
    transaction.open_table(TABLE)?.insert(key, record)?;
    Ok(())
}

/// Drops those of a workflow up to a number.
pub(super) fn drop(transaction: &WriteTransaction, (workflow, number_max): (u32, u64)) -> Result<()> {
    transaction.open_table(TABLE)?.retain_in((workflow, 0)..=(workflow, number_max), |_, _| false)?;
    Ok(())
}

impl ReadView {
    /// The youngest `limit` quarantined records of a workflow, youngest first.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn quarantined(&self, workflow: u32, limit: usize) -> Result<Vec<Quarantined>> {
        let table = self.0.open_table(TABLE)?;
        let range = table.range((workflow, 0)..=(workflow, u64::MAX))?;
        range
            .rev()
            .take(limit)
            .map(|entry| {
                let (key, value) = entry?;
                decode(value.value()).map_err(|e| corrupt(NAME, key.value(), e))
            })
            .collect()
    }
}

impl WriteGroup {
    /// Writes a quarantined record.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn put_quarantined(&self, workflow: u32, number: u64, record: &Quarantined) -> Result<()> {
        self.make(Change::PutQuarantined { workflow, number, record: &encode(record) })
    }

    /// Drops the quarantined records of a workflow up to `number_max`.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn drop_quarantined(&self, workflow: u32, number_max: u64) -> Result<()> {
        self.make(Change::DropQuarantined { workflow, number_max })
    }
}

#[cfg(test)]
mod tests {
    use foresail_schemas::metric::Rejected;
    use foresail_schemas::{BatchId, ErrorCode};
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::store::testing;

    fn record(index: u64, detail: String, text: String) -> Quarantined {
        Quarantined {
            batch_id: BatchId::new("b-1").unwrap(),
            at: Timestamp::from_second(1_700_000_000).unwrap(),
            rejected: Rejected { index, code: ErrorCode::InvalidRecord, detail },
            record: serde_json::json!({"kind": text, "list": [1, 2.5, null]}),
        }
    }

    proptest! {
        #[test]
        fn quarantined_records_round_trip(index in any::<u64>(), detail in ".{0,40}", text in ".{0,40}") {
            let record = record(index, detail, text);
            prop_assert_eq!(decode(&encode(&record)).unwrap(), record);
        }
    }

    #[test]
    fn the_youngest_come_first_and_the_oldest_are_dropped() {
        let (writer, reader) = testing::in_memory();
        let group = writer.begin().unwrap();
        for n in 1..=4 {
            group.put_quarantined(0, n, &record(n, String::new(), String::new())).unwrap();
        }
        group.drop_quarantined(0, 2).unwrap();
        group.commit().unwrap();
        let view = reader.view().unwrap();
        let left: Vec<_> = view.quarantined(0, 9).unwrap().into_iter().map(|q| q.rejected.index).collect();
        assert_eq!(left, [4, 3]);
        assert!(view.quarantined(1, 9).unwrap().is_empty());
    }
}
