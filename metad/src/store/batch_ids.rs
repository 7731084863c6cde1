//! Ids of batches that were stored, with the answer that was given: what makes a repeated batch harmless.
//!
//! Table `batch_ids`: (workflow u32, batch id) -> version byte 1, postcard of [`FlatReceipt`].
//! Table `batch_order`: (workflow u32, sequence u64) -> batch id; by it retention finds the oldest ids.

use foresail_schemas::ErrorCode;
use foresail_schemas::metric::Rejected;
use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

#[cfg(feature = "nats")]
use super::ReadView;
use super::change::Change;
use super::{Result, WriteGroup, corrupt};

const NAME: &str = "batch_ids";
const TABLE: TableDefinition<(u32, &[u8]), &[u8]> = TableDefinition::new(NAME);
const ORDER: TableDefinition<(u32, u64), &[u8]> = TableDefinition::new("batch_order");
const VERSION: u8 = 1;

/// The first answer to a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    /// Records stored.
    pub accepted: u64,
    /// Records set aside.
    pub rejected: Vec<Rejected>,
}

#[derive(Serialize, Deserialize)]
struct FlatReceipt {
    accepted: u64,
    /// Place, code as text (places of codes in the enum may change), detail.
    rejected: Vec<(u64, String, String)>,
}

fn encode(receipt: &Receipt) -> Vec<u8> {
    let rejected =
        receipt.rejected.iter().map(|r| (r.index, r.code.as_str().to_owned(), r.detail.clone())).collect();
    let flat = FlatReceipt { accepted: receipt.accepted, rejected };
    postcard::to_extend(&flat, vec![VERSION]).expect("numbers and text always have a postcard form")
}

fn decode(value: &[u8]) -> std::result::Result<Receipt, String> {
    let Some((&VERSION, rest)) = value.split_first() else { return Err("unknown version".to_owned()) };
    let flat: FlatReceipt = postcard::from_bytes(rest).map_err(|e| e.to_string())?;
    let known = |text: &str| ErrorCode::ALL.iter().copied().find(|c| c.as_str() == text);
    let rejected = flat.rejected.into_iter().map(|(index, code, detail)| {
        // A code of a newer version is still a record that was set aside.
        Rejected { index, code: known(&code).unwrap_or(ErrorCode::InvalidRecord), detail }
    });
    Ok(Receipt { accepted: flat.accepted, rejected: rejected.collect() })
}

pub(super) fn prepare(group: &WriteTransaction) -> Result<()> {
    group.open_table(TABLE)?;
    group.open_table(ORDER)?;
    Ok(())
}

/// Both tables, opened once for several changes.
pub(super) struct Rows<'t> {
    ids: Table<'t, (u32, &'static [u8]), &'static [u8]>,
    order: Table<'t, (u32, u64), &'static [u8]>,
}

impl<'t> Rows<'t> {
    pub fn open(transaction: &'t WriteTransaction) -> Result<Self> {
        Ok(Self { ids: transaction.open_table(TABLE)?, order: transaction.open_table(ORDER)? })
    }

    pub fn put(&mut self, (workflow, sequence): (u32, u64), batch_id: &[u8], receipt: &[u8]) -> Result<()> {
        self.ids.insert((workflow, batch_id), receipt)?;
        self.order.insert((workflow, sequence), batch_id)?;
        Ok(())
    }

    pub fn drop(&mut self, (workflow, sequence): (u32, u64), batch_id: &[u8]) -> Result<()> {
        self.order.remove((workflow, sequence))?;
        self.ids.remove((workflow, batch_id))?;
        Ok(())
    }
}

#[cfg(feature = "nats")]
impl ReadView {
    /// The first answer to a batch, where it is known.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn receipt(&self, workflow: u32, batch_id: &str) -> Result<Option<Receipt>> {
        let table = self.0.open_table(TABLE)?;
        let value = table.get((workflow, batch_id.as_bytes()))?;
        value.map(|v| decode(v.value()).map_err(|e| corrupt(NAME, (workflow, batch_id), e))).transpose()
    }
}

impl WriteGroup {
    /// The first answer to a batch, where it was stored before (in this group or earlier).
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn receipt(&self, workflow: u32, batch_id: &str) -> Result<Option<Receipt>> {
        if let Some(own) = self.receipts.borrow().get(batch_id).and_then(|of| of.get(&workflow)) {
            return Ok(Some(own.clone()));
        }
        // What this group wrote is above: it need not be applied for every look.
        let table = self.open().open_table(TABLE)?;
        let value = table.get((workflow, batch_id.as_bytes()))?;
        value.map(|v| decode(v.value()).map_err(|e| corrupt(NAME, (workflow, batch_id), e))).transpose()
    }

    /// Writes the answer to a batch.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn put_receipt(&self, workflow: u32, sequence: u64, batch_id: &str, receipt: &Receipt) -> Result<()> {
        let (id, encoded) = (batch_id.as_bytes(), &encode(receipt));
        self.make(Change::PutReceipt { workflow, sequence, batch_id: id, receipt: encoded })?;
        let mut own = self.receipts.borrow_mut();
        own.entry(batch_id.to_owned()).or_default().insert(workflow, receipt.clone());
        Ok(())
    }

    /// Forgets the oldest batch id of a workflow; answers whether there was one.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn drop_oldest_receipt(&self, workflow: u32) -> Result<bool> {
        let oldest = {
            let order = self.transaction()?.open_table(ORDER)?;
            let first = order.range((workflow, 0)..=(workflow, u64::MAX))?.next().transpose()?;
            first.map(|(key, value)| (key.value().1, value.value().to_vec()))
        };
        let Some((sequence, batch_id)) = oldest else { return Ok(false) };
        self.make(Change::DropReceipt { workflow, sequence, batch_id: &batch_id })?;
        if let Ok(id) = std::str::from_utf8(&batch_id)
            && let Some(own) = self.receipts.borrow_mut().get_mut(id)
        {
            own.remove(&workflow);
        }
        // It may be of an earlier group: from here on the table itself must say that it is gone.
        self.transaction()?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::testing;

    proptest! {
        #[test]
        fn receipts_round_trip(
            accepted in any::<u64>(), rejected in proptest::collection::vec((any::<u64>(), ".{0,30}"), 0..5),
        ) {
            let code = ErrorCode::InvalidRecord;
            let rejected = rejected.into_iter().map(|(index, detail)| Rejected { index, code, detail });
            let rejected = rejected.collect();
            let receipt = Receipt { accepted, rejected };
            prop_assert_eq!(decode(&encode(&receipt)).unwrap(), receipt);
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn the_oldest_id_is_forgotten_first() {
        let (writer, _reader) = testing::in_memory();
        let group = writer.begin().unwrap();
        let receipt = Receipt { accepted: 1, rejected: Vec::new() };
        group.put_receipt(3, 1, "z", &receipt).unwrap();
        group.put_receipt(3, 2, "a", &receipt).unwrap();
        group.put_receipt(4, 1, "z", &receipt).unwrap();
        assert!(group.drop_oldest_receipt(3).unwrap());
        assert_eq!(group.receipt(3, "z").unwrap(), None);
        assert_eq!(group.receipt(3, "a").unwrap(), Some(receipt.clone()));
        assert_eq!(group.receipt(4, "z").unwrap(), Some(receipt));
        assert!(group.drop_oldest_receipt(3).unwrap());
        assert!(!group.drop_oldest_receipt(3).unwrap());
    }
}
