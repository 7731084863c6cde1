//! Raw samples for others to read: NDJSON and Parquet, made piece by piece from stored batches.
//!
//! Both have the same records in the same order, and every record says when it was measured: where the
//! worker did not say so, when its batch arrived. NDJSON is the form in which records came, so it can be sent
//! again; Parquet has a row per record in the columns of [`parquet::COLUMNS`].

pub mod parquet;

use foresail_schemas::metric::Record;

use crate::store::batches::StoredBatch;

/// Records of a batch, one per line.
///
/// # Errors
/// What serde says of a record that has no JSON form.
pub fn lines(batch: StoredBatch, out: &mut Vec<u8>) -> serde_json::Result<()> {
    let arrival = batch.arrival;
    for record in batch.records {
        serde_json::to_writer(&mut *out, &timed(record, arrival))?;
        out.push(b'\n');
    }
    Ok(())
}

/// The record with a time.
fn timed(mut record: Record, arrival: jiff::Timestamp) -> Record {
    let at = match &mut record {
        Record::Task(r) => &mut r.at,
        Record::Transfer(r) => &mut r.at,
        Record::Startup(r) => &mut r.at,
    };
    at.get_or_insert(arrival);
    record
}
