//! Checkpoints of the learnt models.
//!
//! Table `models`: workflow (u32) -> version byte 1, sequence of the last batch that the model contains (u64,
//! little endian), postcard of `foresail_model::WorkflowModel`. A checkpoint saves time at the start, nothing
//! else: what it does not contain is learnt again from the raw batches, so that one of an unknown version may
//! simply be ignored.

use redb::{TableDefinition, WriteTransaction};

use super::{ReadView, Result, WriteGroup};

const TABLE: TableDefinition<u32, &[u8]> = TableDefinition::new("models");
const VERSION: u8 = 1;
const HEAD: usize = 9;

/// A model as it was at one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Sequence of the last batch that it contains.
    pub sequence: u64,
    /// Postcard of the model.
    pub model: Vec<u8>,
}

pub(super) fn prepare(group: &WriteTransaction) -> Result<()> {
    group.open_table(TABLE)?;
    Ok(())
}

fn encode(checkpoint: &Checkpoint) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEAD + checkpoint.model.len());
    value.push(VERSION);
    value.extend(checkpoint.sequence.to_le_bytes());
    value.extend(&checkpoint.model);
    value
}

fn decode(value: &[u8]) -> Option<Checkpoint> {
    let (head, model) = value.split_at_checked(HEAD)?;
    let (&version, sequence) = head.split_first()?;
    let sequence = u64::from_le_bytes(sequence.try_into().ok()?);
    (version == VERSION).then(|| Checkpoint { sequence, model: model.to_vec() })
}

impl ReadView {
    /// The checkpoint of a workflow; nothing where there is none that this version understands.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn checkpoint(&self, workflow: u32) -> Result<Option<Checkpoint>> {
        let table = self.0.open_table(TABLE)?;
        Ok(table.get(workflow)?.and_then(|value| decode(value.value())))
    }
}

impl WriteGroup {
    /// Writes the checkpoint of a workflow over the former one.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn put_checkpoint(&self, workflow: u32, checkpoint: &Checkpoint) -> Result<()> {
        self.0.open_table(TABLE)?.insert(workflow, encode(checkpoint).as_slice())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn checkpoints_round_trip(
            sequence in any::<u64>(), model in proptest::collection::vec(any::<u8>(), 0..99),
        ) {
            let checkpoint = Checkpoint { sequence, model };
            prop_assert_eq!(decode(&encode(&checkpoint)), Some(checkpoint));
        }
    }

    #[test]
    fn an_unknown_version_counts_as_no_checkpoint() {
        assert_eq!(decode(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 1]), None);
        assert_eq!(decode(&[1, 0]), None);
        assert_eq!(decode(&[]), None);
    }
}
