//! Blobs of runs: small objects that tasks exchange where there is no other object store.
//!
//! Table `blobs`: (run number u64, key) -> content.
//! Table `blob_totals`: run number (u64) -> bytes of all blobs of the run, so that the limit per run costs
//! one look-up.

use redb::{ReadableTable, TableDefinition, WriteTransaction};

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
        let mut blobs = self.0.open_table(BLOBS)?;
        let mut totals = self.0.open_table(TOTALS)?;
        let key = (run, key.as_bytes());
        let former = blobs.get(key)?.map_or(0, |v| v.value().len() as u64);
        let total = totals.get(run)?.map_or(0, |v| v.value());
        let total = total.saturating_sub(former) + content.len() as u64;
        if total > total_max {
            return Ok(false);
        }
        blobs.insert(key, content)?;
        totals.insert(run, total)?;
        Ok(true)
    }

    /// Removes a blob; one that is not there is none the worse.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn drop_blob(&self, run: u64, key: &str) -> Result<()> {
        let removed =
            self.0.open_table(BLOBS)?.remove((run, key.as_bytes()))?.map_or(0, |v| v.value().len() as u64);
        let mut totals = self.0.open_table(TOTALS)?;
        let total = totals.get(run)?.map_or(0, |v| v.value());
        totals.insert(run, total.saturating_sub(removed))?;
        Ok(())
    }

    pub(super) fn drop_blobs(&self, run: u64) -> Result<()> {
        self.0.open_table(BLOBS)?.retain_in((run, &[][..])..(run, LAST_KEY), |_, _| false)?;
        self.0.open_table(TOTALS)?.remove(run)?;
        Ok(())
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
