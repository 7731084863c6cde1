//! Raw samples for others to read: NDJSON and Parquet, made piece by piece from stored batches.
//!
//! Both have the same records in the same order, and every record says when it was measured: where the
//! worker did not say so, when its batch arrived. NDJSON is the form in which records came, so it can be sent
//! again; Parquet has a row per record in the columns of [`parquet::COLUMNS`].

pub mod parquet;

use foresail_schemas::metric::Record;

use crate::store::batches::StoredBatch;

/// The records of a batch that are not written yet.
pub struct Remaining {
    arrival: jiff::Timestamp,
    records: std::vec::IntoIter<Record>,
}

impl From<StoredBatch> for Remaining {
    fn from(batch: StoredBatch) -> Self {
        Self { arrival: batch.arrival, records: batch.records.into_iter() }
    }
}

impl Remaining {
    /// Writes records, one per line, until there are none or `out` has `bytes_max` bytes or more.
    ///
    /// # Errors
    /// What serde says of a record that has no JSON form.
    pub fn write(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> serde_json::Result<()> {
        while out.len() < bytes_max
            && let Some(record) = self.records.next()
        {
            serde_json::to_writer(&mut *out, &timed(record, self.arrival))?;
            out.push(b'\n');
        }
        Ok(())
    }

    /// Whether all were written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.len() == 0
    }
}

/// The record with a time.
fn timed(mut record: Record, arrival: jiff::Timestamp) -> Record {
    record.at_mut().get_or_insert(arrival);
    record
}
