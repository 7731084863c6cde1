//! Changes of the store as values: what a group does to the database, and what the journal repeats.
//!
//! The form on disk is postcard, one change after the other. A change says outright what it does (the key
//! that goes, not "the oldest"), so that applying the same changes in the same order to the same state always
//! gives the same state. How keys and values look is the business of each key family's file.

use redb::WriteTransaction;
use serde::{Deserialize, Serialize, Serializer};

use super::{Result, batch_ids, batches, blobs, corrupt, documents, quarantine, run_events, runs, workflows};

/// One change. New kinds go to the end: the place of a kind is what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change<'a> {
    /// The row of a workflow.
    PutWorkflow {
        /// Its number.
        workflow: u32,
        /// The encoded row.
        #[serde(serialize_with = "raw")]
        row: &'a [u8],
    },
    /// A batch.
    PutBatch {
        /// Number of its workflow.
        workflow: u32,
        /// Its sequence.
        sequence: u64,
        /// The encoded batch.
        #[serde(serialize_with = "raw")]
        batch: &'a [u8],
    },
    /// A batch goes.
    DropBatch {
        /// Number of its workflow.
        workflow: u32,
        /// Its sequence.
        sequence: u64,
    },
    /// The answer to a batch.
    PutReceipt {
        /// Number of the workflow.
        workflow: u32,
        /// Sequence of the batch.
        sequence: u64,
        /// Id of the batch.
        #[serde(serialize_with = "raw")]
        batch_id: &'a [u8],
        /// The encoded answer.
        #[serde(serialize_with = "raw")]
        receipt: &'a [u8],
    },
    /// The answer to a batch goes.
    DropReceipt {
        /// Number of the workflow.
        workflow: u32,
        /// Sequence of the batch.
        sequence: u64,
        /// Id of the batch.
        #[serde(serialize_with = "raw")]
        batch_id: &'a [u8],
    },
    /// A quarantined record.
    PutQuarantined {
        /// Number of its workflow.
        workflow: u32,
        /// Its number.
        number: u64,
        /// The encoded record.
        #[serde(serialize_with = "raw")]
        record: &'a [u8],
    },
    /// Quarantined records go.
    DropQuarantined {
        /// Number of the workflow.
        workflow: u32,
        /// The last one that goes.
        number_max: u64,
    },
    /// The header of a run.
    PutRun {
        /// Its number.
        number: u64,
        /// Its id.
        #[serde(serialize_with = "raw")]
        run: &'a [u8],
        /// The encoded header.
        #[serde(serialize_with = "raw")]
        header: &'a [u8],
    },
    /// The last summary of a run.
    PutRunEnd {
        /// Its number.
        number: u64,
        /// The encoded summary.
        #[serde(serialize_with = "raw")]
        summary: &'a [u8],
    },
    /// A run goes with all that belongs to it.
    DropRun {
        /// Its number.
        number: u64,
        /// Its id.
        #[serde(serialize_with = "raw")]
        run: &'a [u8],
    },
    /// The workflow of a run.
    PutWorkflowDocument {
        /// Number of the run.
        run: u64,
        /// The workflow.
        #[serde(serialize_with = "raw")]
        json: &'a [u8],
    },
    /// A plan of a run.
    PutPlanDocument {
        /// Number of the run.
        run: u64,
        /// Epoch of the plan.
        epoch: u64,
        /// The plan.
        #[serde(serialize_with = "raw")]
        json: &'a [u8],
    },
    /// Events of a run.
    PutEvents {
        /// Number of the run.
        run: u64,
        /// Number of the first event.
        first: u64,
        /// The events.
        #[serde(serialize_with = "raw")]
        json: &'a [u8],
    },
    /// A blob of a run.
    PutBlob {
        /// Number of the run.
        run: u64,
        /// Its key.
        #[serde(serialize_with = "raw")]
        key: &'a [u8],
        /// Its content.
        #[serde(serialize_with = "raw")]
        content: &'a [u8],
        /// Bytes of all blobs of the run with it.
        total: u64,
    },
    /// A blob of a run goes.
    DropBlob {
        /// Number of the run.
        run: u64,
        /// Its key.
        #[serde(serialize_with = "raw")]
        key: &'a [u8],
        /// Bytes of all blobs of the run without it.
        total: u64,
    },
}

/// The transaction that changes are made in, with the tables that are open for the next of them: those of
/// batches, of which a group has many. While they are, nobody else can open them.
pub struct Tables<'t> {
    transaction: &'t WriteTransaction,
    batches: Option<batches::Rows<'t>>,
    batch_ids: Option<batch_ids::Rows<'t>>,
}

impl<'t> Tables<'t> {
    /// None is open yet.
    #[must_use]
    pub fn of(transaction: &'t WriteTransaction) -> Self {
        Self { transaction, batches: None, batch_ids: None }
    }

    fn batches(&mut self) -> Result<&mut batches::Rows<'t>> {
        let open = self.batches.take().map_or_else(|| batches::Rows::open(self.transaction), Ok)?;
        Ok(self.batches.insert(open))
    }

    fn batch_ids(&mut self) -> Result<&mut batch_ids::Rows<'t>> {
        let open = self.batch_ids.take().map_or_else(|| batch_ids::Rows::open(self.transaction), Ok)?;
        Ok(self.batch_ids.insert(open))
    }
}

/// Bytes as one piece: serde would write them one by one.
fn raw<S: Serializer>(bytes: &&[u8], to: S) -> std::result::Result<S::Ok, S::Error> {
    to.serialize_bytes(bytes)
}

impl Change<'_> {
    /// Makes the change.
    ///
    /// # Errors
    /// [`super::StoreError::Database`].
    pub fn apply(&self, tables: &mut Tables) -> Result<()> {
        let transaction = tables.transaction;
        match *self {
            Self::PutWorkflow { workflow, row } => workflows::put(transaction, workflow, row),
            Self::PutBatch { workflow, sequence, batch } => {
                tables.batches()?.put((workflow, sequence), batch)
            }
            Self::DropBatch { workflow, sequence } => tables.batches()?.drop((workflow, sequence)),
            Self::PutReceipt { workflow, sequence, batch_id, receipt } => {
                tables.batch_ids()?.put((workflow, sequence), batch_id, receipt)
            }
            Self::DropReceipt { workflow, sequence, batch_id } => {
                tables.batch_ids()?.drop((workflow, sequence), batch_id)
            }
            Self::PutQuarantined { workflow, number, record } => {
                quarantine::put(transaction, (workflow, number), record)
            }
            Self::DropQuarantined { workflow, number_max } => {
                quarantine::drop(transaction, (workflow, number_max))
            }
            Self::PutRun { number, run, header } => runs::put(transaction, number, run, header),
            Self::PutRunEnd { number, summary } => runs::put_end(transaction, number, summary),
            Self::DropRun { number, run } => runs::drop(transaction, number, run),
            Self::PutWorkflowDocument { run, json } => documents::put_workflow(transaction, run, json),
            Self::PutPlanDocument { run, epoch, json } => {
                documents::put_plan(transaction, (run, epoch), json)
            }
            Self::PutEvents { run, first, json } => run_events::put(transaction, (run, first), json),
            Self::PutBlob { run, key, content, total } => blobs::put(transaction, (run, key), content, total),
            Self::DropBlob { run, key, total } => blobs::drop(transaction, (run, key), total),
        }
    }

    /// Writes the change behind what `redo` has.
    #[must_use]
    pub fn write(&self, redo: Vec<u8>) -> Vec<u8> {
        postcard::to_extend(self, redo).expect("numbers and bytes always have a postcard form")
    }
}

/// Makes all changes that were written into `payload`, in order; `sequence` is that of the entry.
///
/// # Errors
/// [`super::StoreError::Corrupt`] where a change cannot be read: it was acknowledged, so it is not left out.
pub fn apply_all(mut payload: &[u8], sequence: u64, transaction: &WriteTransaction) -> Result<()> {
    let mut tables = Tables::of(transaction);
    while !payload.is_empty() {
        let taken = postcard::take_from_bytes::<Change>(payload);
        let (change, rest) = taken.map_err(|e| corrupt("journal", sequence, e))?;
        change.apply(&mut tables)?;
        payload = rest;
    }
    Ok(())
}
