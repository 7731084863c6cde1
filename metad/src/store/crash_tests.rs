//! What a crash leaves: the files of a store in use are copied and the copy is opened.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use foresail_schemas::TaskName;
use proptest::prelude::*;
use redb::{Key, Value};
use tempfile::TempDir;

use super::ahead::GROUPS_MAX;
use super::change::Change;
use super::journal::{BYTES_MAX, ENTRY_BYTES_MAX, Medium};
use super::models::{Former, Piece, Saved};
use super::*;

/// The files as they are; what is only in memory is lost, as in a crash.
pub fn copy(directory: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in [journal::FILE_NAME, FILE_NAME] {
        std::fs::copy(directory.join(name), copy.path().join(name)).unwrap();
    }
    copy
}

fn rows<K: Key + 'static, V: Value + 'static>(view: &ReadView, name: &str) -> Vec<String> {
    let table = view.0.open_table(TableDefinition::<K, V>::new(name)).unwrap();
    let row = |entry: std::result::Result<(redb::AccessGuard<K>, redb::AccessGuard<V>), _>| {
        let (key, value) = entry.unwrap();
        format!("{name} {:?} {:?}", key.value(), value.value())
    };
    table.iter().unwrap().map(row).collect()
}

/// Everything in every table but `meta`.
fn content(reader: &StoreReader) -> Vec<String> {
    let view = reader.view().unwrap();
    [
        rows::<u32, &[u8]>(&view, "workflows"),
        rows::<(u32, u64), &[u8]>(&view, "batches"),
        rows::<(u32, &[u8]), &[u8]>(&view, "batch_ids"),
        rows::<(u32, u64), &[u8]>(&view, "batch_order"),
        rows::<u32, &[u8]>(&view, "models"),
        rows::<(u32, &str), &[u8]>(&view, "model_tasks"),
        rows::<(u32, u64), &[u8]>(&view, "quarantine"),
        rows::<u64, &[u8]>(&view, "runs"),
        rows::<&[u8], u64>(&view, "run_ids"),
        rows::<u64, &[u8]>(&view, "run_ends"),
        rows::<u64, &[u8]>(&view, "run_workflows"),
        rows::<(u64, u64), &[u8]>(&view, "run_plans"),
        rows::<(u64, u64), &[u8]>(&view, "run_events"),
        rows::<(u64, &[u8]), &[u8]>(&view, "blobs"),
        rows::<u64, u64>(&view, "blob_totals"),
    ]
    .concat()
}

fn content_after_crash(directory: &Path) -> Vec<String> {
    let copy = copy(directory);
    let (_writer, reader) = open(copy.path()).unwrap();
    content(&reader)
}

/// Numbers and bytes that any change can be made of.
type Seed = (u8, u8, u8, Vec<u8>, Vec<u8>);

const KINDS: u8 = 15;

fn change((kind, a, b, name, value): &Seed) -> Change<'_> {
    let (workflow, run, number) = (u32::from(*a), u64::from(*a), u64::from(*b));
    match kind % KINDS {
        0 => Change::PutWorkflow { workflow, row: value },
        1 => Change::PutBatch { workflow, sequence: number, batch: value },
        2 => Change::DropBatch { workflow, sequence: number },
        3 => Change::PutReceipt { workflow, sequence: number, batch_id: name, receipt: value },
        4 => Change::DropReceipt { workflow, sequence: number, batch_id: name },
        5 => Change::PutQuarantined { workflow, number, record: value },
        6 => Change::DropQuarantined { workflow, number_max: number },
        7 => Change::PutRun { number: run, run: name, header: value },
        8 => Change::PutRunEnd { number: run, summary: value },
        9 => Change::DropRun { number: run, run: name },
        10 => Change::PutWorkflowDocument { run, json: value },
        11 => Change::PutPlanDocument { run, epoch: number, json: value },
        12 => Change::PutEvents { run, first: number, json: value },
        13 => Change::PutBlob { run, key: name, content: value, total: number },
        _ => Change::DropBlob { run, key: name, total: number },
    }
}

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Seed>),
    /// As a piece of a checkpoint: redb stores the group itself.
    Piece(Seed),
    Large(u8),
    Settle,
    GiveUp(Seed),
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..9);
    let name = proptest::collection::vec(97u8..99, 1..3);
    let seed = || (0..KINDS, 0u8..3, 0u8..4, name.clone(), bytes());
    prop_oneof![
        8 => proptest::collection::vec(seed(), 1..9).prop_map(Step::Commit),
        1 => seed().prop_map(Step::Piece),
        1 => any::<u8>().prop_map(Step::Large),
        1 => Just(Step::Settle),
        1 => seed().prop_map(Step::GiveUp),
        1 => Just(Step::Restart),
    ]
}

fn take(writer: &StoreWriter, step: &Step) {
    let group = writer.begin().unwrap();
    match step {
        Step::Commit(seeds) => seeds.iter().for_each(|seed| group.make(change(seed)).unwrap()),
        Step::Piece(seed) => {
            let saved = Saved { sequence: 7, part: seed.4.clone() };
            let tasks = vec![(TaskName::new("t").unwrap(), saved.clone())];
            let (workflow, former) = (u32::from(seed.1), Former::Kept);
            group.make(change(seed)).unwrap();
            group.put_piece(&Piece { workflow, former, tasks, rest: Some(saved) }).unwrap();
        }
        Step::Large(byte) => {
            let content = &vec![*byte; ENTRY_BYTES_MAX];
            group.make(Change::PutBlob { run: 1, key: b"large", content, total: 9 }).unwrap();
        }
        Step::GiveUp(seed) => return group.make(change(seed)).unwrap(),
        Step::Settle | Step::Restart => {
            drop(group);
            return writer.settle().unwrap();
        }
    }
    group.commit().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn a_crash_at_any_time_leaves_every_group_once_and_as_if_there_were_no_journal(
        steps in proptest::collection::vec((any_step(), any::<bool>()), 1..14),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let (mut writer, mut reader) = open(directory.path()).unwrap();
        let (bare, bare_reader) = testing::in_memory();
        for (step, read) in &steps {
            if matches!(step, Step::Restart) {
                drop((writer, reader));
                (writer, reader) = open(directory.path()).unwrap();
            }
            take(&writer, step);
            take(&bare, step);
            // Groups that nobody reads between share a transaction of the database.
            prop_assert!(!read || content(&reader) == content(&bare_reader));
        }
        prop_assert!(content_after_crash(directory.path()) == content(&bare_reader));
        prop_assert!(content(&reader) == content(&bare_reader));
        // A crash right after a crash, and orderly stops before and after.
        let copied = copy(directory.path());
        drop(open(copied.path()).unwrap());
        prop_assert!(content_after_crash(copied.path()) == content(&bare_reader));
    }
}

fn put_batch(writer: &StoreWriter, sequence: u64, batch: &[u8]) -> Result<()> {
    let group = writer.begin()?;
    group.make(Change::PutBatch { workflow: 0, sequence, batch })?;
    group.commit()
}

#[test]
fn a_last_group_torn_at_any_byte_is_left_out_as_a_whole() {
    let directory = tempfile::tempdir().unwrap();
    let (writer, reader) = open(directory.path()).unwrap();
    put_batch(&writer, 1, b"one").unwrap();
    let without = std::fs::read(directory.path().join(journal::FILE_NAME)).unwrap();
    let before = content(&reader);
    let group = writer.begin().unwrap();
    for sequence in [2, 3] {
        group.make(Change::PutBatch { workflow: 0, sequence, batch: b"x" }).unwrap();
    }
    group.commit().unwrap();
    let with = std::fs::read(directory.path().join(journal::FILE_NAME)).unwrap();
    let differ: Vec<usize> = (0..with.len()).filter(|&at| with[at] != without[at]).collect();
    for at in differ[0]..=*differ.last().unwrap() {
        let copy = copy(directory.path());
        let torn = [&with[..at], &without[at..]].concat();
        std::fs::write(copy.path().join(journal::FILE_NAME), torn).unwrap();
        let (_writer, reader) = open(copy.path()).unwrap();
        assert_eq!(content(&reader), before, "torn at {at}");
    }
    assert_eq!(content_after_crash(directory.path()), content(&reader));
    assert_eq!(content(&reader).len(), before.len() + 2);
}

#[test]
fn a_journal_that_is_full_begins_again_and_never_grows_beyond_its_limit() {
    let directory = tempfile::tempdir().unwrap();
    let (writer, reader) = open(directory.path()).unwrap();
    let (size, mut rounds) = (ENTRY_BYTES_MAX - 100, 0);
    for sequence in 0..80 {
        let unsettled = writer.unsettled_since().is_some();
        put_batch(&writer, sequence % 5, &vec![sequence as u8; size]).unwrap();
        rounds += usize::from(unsettled && writer.unsettled_since().is_none());
        if sequence % 16 == 3 {
            assert!(content_after_crash(directory.path()) == content(&reader), "after {sequence}");
        }
    }
    assert_eq!(rounds, 80 * size / BYTES_MAX as usize);
    assert_eq!(std::fs::metadata(directory.path().join(journal::FILE_NAME)).unwrap().len(), BYTES_MAX);
    assert!(content_after_crash(directory.path()) == content(&reader));
}

/// A file the writes or syncs of which fail when they are told to.
#[derive(Debug)]
struct Faulty {
    file: File,
    faults: Arc<Faults>,
}

#[derive(Debug, Default)]
struct Faults {
    writes: AtomicBool,
    syncs: AtomicBool,
    synced: AtomicU64,
}

impl Medium for Faulty {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        if self.faults.writes.load(Ordering::SeqCst) {
            // As much as there was room for.
            self.file.write_all_at(&bytes[..bytes.len() / 2], offset)?;
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> std::io::Result<()> {
        self.faults.synced.fetch_add(1, Ordering::SeqCst);
        match self.faults.syncs.load(Ordering::SeqCst) {
            true => Err(std::io::Error::other("a sector is gone")),
            false => self.file.sync_data(),
        }
    }
}

fn faulty(directory: &Path) -> (StoreWriter, StoreReader, Arc<Faults>) {
    let (writer, reader) = open(directory).unwrap();
    let file = File::options().write(true).open(directory.join(journal::FILE_NAME)).unwrap();
    let faults = Arc::new(Faults::default());
    let medium = Faulty { file, faults: Arc::clone(&faults) };
    writer.log.as_ref().unwrap().journal().set_medium(Box::new(medium));
    (writer, reader, faults)
}

#[test]
fn after_a_failed_write_or_sync_the_group_is_refused_and_the_journal_waits_for_the_database() {
    for (writes, syncs) in [(true, false), (false, true)] {
        let directory = tempfile::tempdir().unwrap();
        let (writer, reader, faults) = faulty(directory.path());
        put_batch(&writer, 1, b"one").unwrap();
        let before = content(&reader);
        faults.writes.store(writes, Ordering::SeqCst);
        faults.syncs.store(syncs, Ordering::SeqCst);
        let refused = put_batch(&writer, 2, b"two").unwrap_err();
        assert!(matches!(refused, StoreError::Journal(_)), "{refused}");
        assert_eq!(content(&reader), before, "nobody sees what was refused");
        let found = content_after_crash(directory.path());
        assert!(found.starts_with(&before[..1]), "{found:?}");
        // The journal still fails, and nothing needs it: redb stores the next group itself.
        put_batch(&writer, 3, b"three").unwrap();
        let after = content(&reader);
        assert_eq!(content_after_crash(directory.path()), after, "what was refused does not come back");
        faults.writes.store(false, Ordering::SeqCst);
        faults.syncs.store(false, Ordering::SeqCst);
        put_batch(&writer, 4, b"four").unwrap();
        assert!(writer.unsettled_since().is_some(), "the journal is in use again");
        assert_eq!(content_after_crash(directory.path()), content(&reader));
        assert_eq!(content(&reader).len(), before.len() + 2);
    }
}

#[test]
fn a_failed_group_takes_nothing_along_that_was_stored_before_it_and_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let (writer, reader, faults) = faulty(directory.path());
    put_batch(&writer, 1, b"one").unwrap();
    put_batch(&writer, 2, b"two").unwrap();
    faults.writes.store(true, Ordering::SeqCst);
    put_batch(&writer, 3, b"three").unwrap_err();
    let found = content(&reader);
    assert_eq!(found.iter().filter(|row| row.starts_with("batches")).count(), 2, "{found:?}");
}

#[test]
fn a_reader_waits_for_the_group_under_way_and_sees_what_was_stored_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let (writer, reader) = open(directory.path()).unwrap();
    put_batch(&writer, 1, b"one").unwrap();
    let group = writer.begin().unwrap();
    group.make(Change::PutBatch { workflow: 0, sequence: 2, batch: b"two" }).unwrap();
    let waiting = std::thread::spawn(move || content(&reader));
    while !writer.log.as_ref().unwrap().is_wanted() {
        assert!(!waiting.is_finished(), "it did not wait");
        std::thread::yield_now();
    }
    group.commit().unwrap();
    assert_eq!(waiting.join().unwrap().len(), 2);
}

#[test]
fn no_more_groups_than_the_limit_are_stored_and_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let (writer, reader) = open(directory.path()).unwrap();
    let shown = || {
        let view = ReadView(reader.database.begin_read().unwrap());
        rows::<(u32, u64), &[u8]>(&view, "batches").len()
    };
    for sequence in 1..=GROUPS_MAX as u64 {
        assert_eq!(shown(), 0);
        put_batch(&writer, sequence, b"x").unwrap();
    }
    assert_eq!(shown(), GROUPS_MAX);
}

#[test]
fn a_group_costs_one_sync_and_one_that_only_reads_costs_none() {
    let directory = tempfile::tempdir().unwrap();
    let (writer, _reader, faults) = faulty(directory.path());
    for sequence in 1..=3 {
        put_batch(&writer, sequence, b"x").unwrap();
        let group = writer.begin().unwrap();
        assert!(group.receipt(0, "b").unwrap().is_none());
        group.commit().unwrap();
        assert_eq!(faults.synced.load(Ordering::SeqCst), sequence);
    }
}

#[test]
fn a_store_of_the_layout_without_a_journal_is_brought_along() {
    let directory = tempfile::tempdir().unwrap();
    let (writer, reader) = open(directory.path()).unwrap();
    put_batch(&writer, 1, b"one").unwrap();
    let before = content(&reader);
    let transaction = writer.database.begin_write().unwrap();
    {
        let mut meta = transaction.open_table(META).unwrap();
        meta.retain(|_, _| false).unwrap();
        meta.insert("schema", 1).unwrap();
    }
    transaction.commit().unwrap();
    drop((writer, reader));
    std::fs::remove_file(directory.path().join(journal::FILE_NAME)).unwrap();
    let (writer, reader) = open(directory.path()).unwrap();
    assert_eq!(content(&reader), before);
    put_batch(&writer, 2, b"two").unwrap();
    assert_eq!(content_after_crash(directory.path()), content(&reader));
}

#[test]
fn a_change_that_cannot_be_read_keeps_the_store_closed_instead_of_being_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let (writer, _reader) = open(directory.path()).unwrap();
    {
        let mut journal = writer.log.as_ref().unwrap().journal();
        let mut entry = vec![0; journal::HEAD];
        entry.push(KINDS);
        journal.append(&mut entry).unwrap();
    }
    let copied = copy(directory.path());
    let refused = open(copied.path()).unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { table: "journal", .. }), "{refused}");
}
