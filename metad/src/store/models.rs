//! Checkpoints of the learnt models, in pieces: a row per task, and one for the rest of a workflow.
//!
//! Table `model_tasks`: (workflow u32, task name) -> version byte 2, sequence of the last batch that the row
//! contains (u64, little endian), postcard of `foresail_model::SavedTask`; version 1 is the same without its
//! last field, the peak memory. Table `models`: workflow (u32) -> version byte 3, sequence of the last batch
//! that the rest and every task contain, postcard of `foresail_model::SavedRest`; version 2 is the same
//! without its last field, the decisions. A task may be younger than the rest, where a crash cut a checkpoint
//! off.
//!
//! A checkpoint saves time at the start, nothing else: what it does not contain is learnt again from the raw
//! batches, so that one of an unknown version may simply be ignored. Tasks count only beside a rest. A row
//! that is damaged costs what only it has (`recover`); it stays until the next checkpoint of its task or of
//! the rest.

use foresail_schemas::TaskName;
use redb::{TableDefinition, WriteTransaction};

use super::{ReadView, Result, WriteGroup};

const REST: TableDefinition<u32, &[u8]> = TableDefinition::new("models");
const TASKS: TableDefinition<(u32, &str), &[u8]> = TableDefinition::new("model_tasks");
const REST_VERSION: u8 = 3;
const REST_VERSION_WITHOUT_DECISIONS: u8 = 2;
const TASK_VERSION: u8 = 2;
const TASK_VERSION_WITHOUT_PEAKS: u8 = 1;
/// Postcard of a field that is not there, or is empty.
const NOTHING: [u8; 1] = [0];
const HEAD: usize = 9;

/// A part of a model as it was at one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Sequence of the last batch that it contains.
    pub sequence: u64,
    /// Postcard of the part.
    pub part: Vec<u8>,
}

/// A piece of a checkpoint of one workflow; pieces are stored in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Number of the workflow.
    pub workflow: u32,
    /// What stands before it.
    pub former: Former,
    /// Tasks.
    pub tasks: Vec<(TaskName, Saved)>,
    /// The rest, with the last piece.
    pub rest: Option<Saved>,
}

/// What a piece does with the tasks that are already stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Former {
    /// Those that are not in it stay.
    Kept,
    /// All go: they are of a model that was not used at the start.
    Dropped,
}

pub(super) fn prepare(group: &WriteTransaction) -> Result<()> {
    group.open_table(REST)?;
    group.open_table(TASKS)?;
    Ok(())
}

fn encode(version: u8, saved: &Saved) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEAD + saved.part.len());
    value.push(version);
    value.extend(saved.sequence.to_le_bytes());
    value.extend(&saved.part);
    value
}

fn decode(expected: u8, value: &[u8]) -> Option<(u64, &[u8])> {
    let (head, part) = value.split_at_checked(HEAD)?;
    let (&version, sequence) = head.split_first()?;
    let sequence = u64::from_le_bytes(sequence.try_into().ok()?);
    (version == expected).then_some((sequence, part))
}

impl ReadView {
    /// The rest of a workflow's checkpoint; nothing where there is none that this version understands.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn saved_rest(&self, workflow: u32) -> Result<Option<Saved>> {
        let table = self.0.open_table(REST)?;
        let found = table.get(workflow)?;
        let Some(value) = found.as_ref().map(|value| value.value()) else { return Ok(None) };
        let old = decode(REST_VERSION_WITHOUT_DECISIONS, value);
        let old = old.map(|(sequence, part)| Saved { sequence, part: [part, &NOTHING].concat() });
        let new = decode(REST_VERSION, value);
        Ok(old.or(new.map(|(sequence, part)| Saved { sequence, part: part.to_vec() })))
    }

    /// Hands the tasks of a workflow's checkpoint to `take`: the name, and sequence and postcard, or nothing
    /// where the row is of an unknown version.
    ///
    /// # Errors
    /// [`super::StoreError`] when the database fails.
    pub fn saved_tasks(&self, workflow: u32, mut take: impl FnMut(&str, Option<(u64, &[u8])>)) -> Result<()> {
        let table = self.0.open_table(TASKS)?;
        for entry in table.range((workflow, "")..)? {
            let (key, value) = entry?;
            let (owner, name) = key.value();
            if owner != workflow {
                break;
            }
            let value = value.value();
            if let Some((sequence, part)) = decode(TASK_VERSION_WITHOUT_PEAKS, value) {
                take(name, Some((sequence, &[part, &NOTHING].concat())));
            } else {
                take(name, decode(TASK_VERSION, value));
            }
        }
        Ok(())
    }
}

impl WriteGroup {
    /// Writes a piece of a checkpoint over what the former one has.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn put_piece(&self, piece: &Piece) -> Result<()> {
        // A checkpoint is large, and a start without it only takes longer.
        self.bypass()?;
        let mut tasks = self.transaction()?.open_table(TASKS)?;
        if piece.former == Former::Dropped {
            self.transaction()?.open_table(REST)?.remove(piece.workflow)?;
            tasks.retain_in((piece.workflow, "")..(piece.workflow + 1, ""), |_, _| false)?;
        }
        for (name, saved) in &piece.tasks {
            tasks.insert((piece.workflow, name.as_str()), encode(TASK_VERSION, saved).as_slice())?;
        }
        if let Some(rest) = &piece.rest {
            self.transaction()?
                .open_table(REST)?
                .insert(piece.workflow, encode(REST_VERSION, rest).as_slice())?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::{StoreWriter, testing};

    /// Spoils the row of a task, or of the rest where no task is named.
    pub fn damage(writer: &StoreWriter, workflow: u32, task: Option<&str>) {
        let group = writer.begin().unwrap();
        let bytes = |version| [&[version][..], &[0xff; 20]].concat();
        match task {
            Some(task) => {
                let mut tasks = group.transaction().unwrap().open_table(TASKS).unwrap();
                tasks.insert((workflow, task), bytes(TASK_VERSION).as_slice()).unwrap();
            }
            None => {
                let mut rests = group.transaction().unwrap().open_table(REST).unwrap();
                rests.insert(workflow, bytes(REST_VERSION).as_slice()).unwrap();
            }
        }
        group.bypass().unwrap();
        group.commit().unwrap();
    }

    proptest! {
        #[test]
        fn parts_round_trip(
            version in any::<u8>(),
            sequence in any::<u64>(),
            part in proptest::collection::vec(any::<u8>(), 0..99),
        ) {
            let saved = Saved { sequence, part };
            let bytes = encode(version, &saved);
            prop_assert_eq!(decode(version, &bytes), Some((sequence, &saved.part[..])));
            prop_assert_eq!(decode(version.wrapping_add(1), &bytes), None);
        }
    }

    #[test]
    fn a_task_stored_before_there_was_peak_memory_is_read_without() {
        let mut model = foresail_model::WorkflowModel::new();
        let record = serde_json::json!({"kind": "task", "task": "t", "memory_mb": 512, "exec_ms": 5.0});
        let record = serde_json::from_value(record).unwrap();
        model.update(&record, jiff::Timestamp::UNIX_EPOCH);
        let (name, task) = model.take_changed().remove(0);
        let (mut part, sequence) = (postcard::to_allocvec(&task).unwrap(), 3);
        assert_eq!(part.pop(), Some(NOTHING[0]), "its last field is not there");
        let (writer, reader) = testing::in_memory();
        let group = writer.begin().unwrap();
        let row = encode(TASK_VERSION_WITHOUT_PEAKS, &Saved { sequence, part });
        group
            .transaction()
            .unwrap()
            .open_table(TASKS)
            .unwrap()
            .insert((0, name.as_str()), row.as_slice())
            .unwrap();
        group.bypass().unwrap();
        group.commit().unwrap();
        let mut found = Vec::new();
        let take = |_: &str, row: Option<(u64, &[u8])>| {
            found.push(
                row.map(|(at, part)| (at, postcard::from_bytes::<foresail_model::SavedTask>(part).unwrap())),
            );
        };
        reader.view().unwrap().saved_tasks(0, take).unwrap();
        assert_eq!(found, [Some((sequence, task))]);
    }

    #[test]
    fn a_rest_stored_before_there_were_decisions_is_read_without_any() {
        let rest = foresail_model::WorkflowModel::new().rest();
        let mut part = postcard::to_allocvec(&rest).unwrap();
        assert_eq!(part.pop(), Some(NOTHING[0]), "its last field is not there");
        part[0] = 4;
        let (writer, reader) = testing::in_memory();
        let group = writer.begin().unwrap();
        let row = encode(REST_VERSION_WITHOUT_DECISIONS, &Saved { sequence: 3, part });
        group.transaction().unwrap().open_table(REST).unwrap().insert(0, row.as_slice()).unwrap();
        group.bypass().unwrap();
        group.commit().unwrap();
        let found = reader.view().unwrap().saved_rest(0).unwrap().unwrap();
        assert_eq!(found.sequence, 3);
        assert_eq!(postcard::from_bytes::<foresail_model::SavedRest>(&found.part).unwrap(), rest);
    }

    #[test]
    fn short_bytes_count_as_no_checkpoint() {
        assert_eq!(decode(1, &[1, 0]), None);
        assert_eq!(decode(1, &[]), None);
    }

    #[test]
    fn pieces_add_up_and_a_fresh_one_drops_what_its_workflow_had() {
        let (writer, reader) = testing::in_memory();
        let put = |workflow: u32, former: Former, names: &[&str], sequence: u64, rest: Option<Saved>| {
            let saved = |name: &&str| (TaskName::new(name).unwrap(), Saved { sequence, part: vec![7] });
            let piece = Piece { workflow, former, tasks: names.iter().map(saved).collect(), rest };
            let group = writer.begin().unwrap();
            group.put_piece(&piece).unwrap();
            group.commit().unwrap();
        };
        let found = |workflow: u32| {
            let (view, mut found) = (reader.view().unwrap(), Vec::new());
            let take = |name: &str, row: Option<(u64, &[u8])>| found.push((name.to_owned(), row.unwrap().0));
            view.saved_tasks(workflow, take).unwrap();
            (found, view.saved_rest(workflow).unwrap().map(|rest| rest.sequence))
        };
        let rest = |sequence: u64| Some(Saved { sequence, part: Vec::new() });
        put(0, Former::Kept, &["a", "b"], 1, rest(1));
        put(1, Former::Kept, &["a"], 5, rest(5));
        put(0, Former::Kept, &["b"], 2, None);
        assert_eq!(found(0), (vec![("a".to_owned(), 1), ("b".to_owned(), 2)], Some(1)));
        put(0, Former::Dropped, &["c"], 3, None);
        assert_eq!(found(0), (vec![("c".to_owned(), 3)], None));
        assert_eq!(found(1), (vec![("a".to_owned(), 5)], Some(5)));
    }
}
