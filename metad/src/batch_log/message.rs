//! A batch as a message of the log: `FSL1`, the length of a head (u32, little endian), the head as JSON
//! (workflow and rejected records), then the batch as [`crate::store::batches`] keeps it.

use foresail_schemas::metric::Rejected;
use foresail_schemas::{BatchId, InstanceId, RunId, WorkflowName};
use serde::{Deserialize, Serialize};

use crate::store::batches::{StoredBatch, decode as decode_batch, encode as encode_batch};
use crate::write::Ingest;

/// What all versions begin with.
const MARK: &[u8] = b"FSL";
/// Version of the form.
const VERSION: u8 = b'1';

#[derive(Serialize, Deserialize)]
struct Head {
    workflow: WorkflowName,
    rejected: Vec<(Rejected, serde_json::Value)>,
}

/// Why a message is no batch.
#[derive(Debug, PartialEq)]
pub enum Unread {
    /// Nobody who publishes batches wrote it; every replica passes over it.
    Foreign(String),
    /// A newer metad wrote it; who passed over it would learn something else than the others.
    Newer(char),
}

/// The message of a batch.
#[must_use]
pub fn encode(batch: Ingest) -> Vec<u8> {
    let Ingest { workflow, batch_id, run, worker, arrival, records, rejected, .. } = batch;
    let head = serde_json::to_vec(&Head { workflow, rejected }).expect("wire types always have a JSON form");
    let stored = StoredBatch {
        batch_id: batch_id.into(),
        run: run.map(String::from),
        worker: worker.map(String::from),
        arrival,
        records,
    };
    let mut message = MARK.to_vec();
    message.push(VERSION);
    message.extend((head.len() as u32).to_le_bytes());
    message.extend(head);
    message.extend(encode_batch(&stored));
    message
}

/// The batch in the message at `place` of the log.
///
/// # Errors
/// [`Unread`].
pub fn decode(message: &[u8], place: u64) -> Result<Ingest, Unread> {
    let foreign = |reason: &str| Unread::Foreign(reason.to_owned());
    let rest = message.strip_prefix(MARK).ok_or_else(|| foreign("it does not begin like a batch"))?;
    let (&version, rest) = rest.split_first().ok_or_else(|| foreign("it has no version"))?;
    if version != VERSION {
        return Err(Unread::Newer(char::from(version)));
    }
    let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(|| foreign("it is cut short"))?;
    let (head, batch) = rest
        .split_at_checked(u32::from_le_bytes(*length) as usize)
        .ok_or_else(|| foreign("it is cut short"))?;
    let Head { workflow, rejected } =
        serde_json::from_slice(head).map_err(|error| Unread::Foreign(error.to_string()))?;
    let StoredBatch { batch_id, run, worker, arrival, records } =
        decode_batch(batch).map_err(Unread::Foreign)?;
    let named = |error: foresail_schemas::id::NameError| Unread::Foreign(error.to_string());
    Ok(Ingest {
        workflow,
        batch_id: BatchId::new(batch_id).map_err(named)?,
        run: run.map(RunId::new).transpose().map_err(named)?,
        worker: worker.map(InstanceId::new).transpose().map_err(named)?,
        arrival,
        records,
        rejected,
        place: Some(place),
    })
}

#[cfg(test)]
mod tests {
    use foresail_schemas::ErrorCode;
    use proptest::prelude::*;

    use super::*;
    use crate::store::batches::tests::any_record;

    fn batch(records: Vec<foresail_schemas::metric::Record>) -> Ingest {
        let bad = Rejected { index: 3, code: ErrorCode::InvalidRecord, detail: "no".to_owned() };
        Ingest {
            workflow: WorkflowName::new("w.x").unwrap(),
            batch_id: BatchId::new("b-1").unwrap(),
            run: Some(RunId::new("r-1").unwrap()),
            worker: None,
            arrival: jiff::Timestamp::new(1_700_000_000, 123_456_789).unwrap(),
            records,
            rejected: vec![(bad, serde_json::json!({"kind": "task", "x": 0.1}))],
            place: Some(7),
        }
    }

    proptest! {
        #[test]
        fn batches_come_back_as_they_were(records in proptest::collection::vec(any_record(), 0..20)) {
            let batch = batch(records);
            let read = decode(&encode(batch.clone()), 7).unwrap();
            prop_assert_eq!(format!("{read:?}"), format!("{batch:?}"));
        }

        #[test]
        fn damaged_messages_are_refused_or_read_but_never_panic(
            records in proptest::collection::vec(any_record(), 0..4),
            at in any::<prop::sample::Index>(), to in any::<u8>(),
        ) {
            let mut message = encode(batch(records));
            let at = at.index(message.len());
            message[at] = to;
            let _ = decode(&message, 1);
            let _ = decode(&message[..at], 1);
        }
    }

    #[test]
    fn a_foreign_message_is_told_from_one_of_a_newer_version() {
        assert!(matches!(decode(b"hello", 1), Err(Unread::Foreign(_))));
        assert!(matches!(decode(b"FSL1", 1), Err(Unread::Foreign(_))));
        assert_eq!(decode(b"FSL2 whatever", 1).unwrap_err(), Unread::Newer('2'));
    }
}
