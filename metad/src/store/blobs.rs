//! Blobs of runs: small objects that tasks exchange where there is no other object store.
//!
//! Table `blobs`: (run number u64, key) -> content.
//! Table `blob_totals`: run number (u64) -> bytes of all blobs of the run, so that the limit per run costs
//! one look-up.

use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::change::Change;
use super::{ReadView, Result, WriteGroup};

const BLOBS: TableDefinition<(u64, &[u8]), &[u8]> = TableDefinition::new("blobs");
const TOTALS: TableDefinition<u64, u64> = TableDefinition::new("blob_totals");
/// Sorts after every key: a key is text, and no UTF-8 text has a byte 255.
const LAST_KEY: &[u8] = &[255];

pub(super) fn prepare(group: &WriteTransaction) -> Result<()> {
    group.open_table(BLOBS)?;
    group.open_table(TOTALS)?;
    Ok(())
}

/// Writes a blob; the blobs of its run have `total` bytes with it.
pub(super) fn put(
    transaction: &WriteTransaction,
    (run, key): (u64, &[u8]),
    content: &[u8],
    total: u64,
) -> Result<()> {
    transaction.open_table(BLOBS)?.insert((run, key), content)?;
    transaction.open_table(TOTALS)?.insert(run, total)?;
    Ok(())
}

/// Removes a blob; the others of its run have `total` bytes.
pub(super) fn drop(transaction: &WriteTransaction, (run, key): (u64, &[u8]), total: u64) -> Result<()> {
    transaction.open_table(BLOBS)?.remove((run, key))?;
    transaction.open_table(TOTALS)?.insert(run, total)?;
    Ok(())
}

/// Drops the blobs of a run.
pub(super) fn drop_all(transaction: &WriteTransaction, run: u64) -> Result<()> {
    transaction.open_table(BLOBS)?.retain_in((run, &[][..])..(run, LAST_KEY), |_, _| false)?;
    transaction.open_table(TOTALS)?.remove(run)?;
    Ok(())
}

impl ReadView {
    /// A blob.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn blob(&self, run: u64, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.0.open_table(BLOBS)?.get((run, key.as_bytes()))?.map(|v| v.value().to_vec()))
    }
}

impl WriteGroup {
    /// Writes a blob unless the run would then have more than `total_max` bytes; answers whether it did.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn put_blob(&self, run: u64, key: &str, content: &[u8], total_max: u64) -> Result<bool> {
        let key = key.as_bytes();
        let total = self.others(run, key)? + content.len() as u64;
        if total > total_max {
            return Ok(false);
        }
        self.make(Change::PutBlob { run, key, content, total })?;
        Ok(true)
    }

    /// A blob, as this group finds it.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn blob(&self, run: u64, key: &str) -> Result<Option<Vec<u8>>> {
        let blobs = self.transaction()?.open_table(BLOBS)?;
        Ok(blobs.get((run, key.as_bytes()))?.map(|v| v.value().to_vec()))
    }

    /// Removes a blob; one that is not there is none the worse.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn drop_blob(&self, run: u64, key: &str) -> Result<()> {
        let key = key.as_bytes();
        self.make(Change::DropBlob { run, key, total: self.others(run, key)? })
    }

    /// Bytes of all blobs of the run but one.
    fn others(&self, run: u64, key: &[u8]) -> Result<u64> {
        let (blobs, totals) =
            (self.transaction()?.open_table(BLOBS)?, self.transaction()?.open_table(TOTALS)?);
        let this = blobs.get((run, key))?.map_or(0, |v| v.value().len() as u64);
        Ok(totals.get(run)?.map_or(0, |v| v.value()).saturating_sub(this))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::store::testing;

    proptest! {
        #[test]
        fn blobs_come_back_byte_for_byte(
            key in "[ -~äß/]{1,40}", content in proptest::collection::vec(any::<u8>(), 0..999),
        ) {
            let (writer, reader) = testing::in_memory();
            let group = writer.begin().unwrap();
            prop_assert!(group.put_blob(1, &key, &content, 1000).unwrap());
            group.commit().unwrap();
            prop_assert_eq!(reader.view().unwrap().blob(1, &key).unwrap(), Some(content));
        }
    }

    #[test]
    fn the_limit_counts_what_is_there_and_not_what_was_replaced() {
        let (writer, _reader) = testing::in_memory();
        let group = writer.begin().unwrap();
        assert!(group.put_blob(1, "a", &[0; 60], 100).unwrap());
        assert!(!group.put_blob(1, "b", &[0; 60], 100).unwrap());
        assert!(group.put_blob(1, "a", &[0; 90], 100).unwrap());
        assert!(group.put_blob(2, "b", &[0; 60], 100).unwrap());
        group.drop_blob(1, "a").unwrap();
        group.drop_blob(1, "never").unwrap();
        assert!(group.put_blob(1, "b", &[0; 100], 100).unwrap());
    }
}
