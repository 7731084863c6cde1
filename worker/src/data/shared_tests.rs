//! Tests of what the workers of one machine share, with files and with a remote store in memory.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::mapped::SHARED_BYTES_MIN;
use super::store::{FileStore, StoreError};
use super::tests::committed;
use super::*;
use serde_json::json;

const LEN: u64 = 4 * SHARED_BYTES_MIN;

/// A store far away, which counts how often it is read.
#[derive(Default)]
struct Remote {
    objects: Mutex<HashMap<String, Bytes>>,
    reads: AtomicU64,
}

impl ObjectStore for Remote {
    fn name(&self) -> &'static str {
        "remote"
    }

    fn put(&self, key: &str, object: &Bytes) -> Result<(), StoreError> {
        lock(&self.objects).insert(key.to_owned(), object.clone());
        Ok(())
    }

    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let missing = || StoreError::Missing { key: key.to_owned(), store: self.name() };
        lock(&self.objects).get(key).cloned().ok_or_else(missing)
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        lock(&self.objects).remove(key);
        Ok(())
    }
}

fn workflow() -> Workflow {
    serde_json::from_value(json!({"name": "w", "tasks": [
        {"id": "make", "name": "make", "run": "x"},
        {"id": "use", "name": "use", "run": "x", "inputs": [{"task": "make"}]},
    ]}))
    .unwrap()
}

fn data(store: Arc<dyn ObjectStore>, instance: &str) -> Data {
    let cache = Arc::new(Mutex::new(ObjectCache::new(64 << 20)));
    Data::new(RunId::new("r").unwrap(), InstanceId::new(instance).unwrap(), store, cache, 16)
}

fn worker(store: &Arc<Remote>, instance: &str, dir: &Path, bytes_max: u64) -> Data {
    let memory = SharedMemory { dir: dir.join("shared"), bytes_max };
    data(Arc::clone(store) as Arc<dyn ObjectStore>, instance).sharing(memory, dir.to_owned())
}

fn made(data: &Data) -> Commit {
    committed(data, &workflow(), vec![vec![7; LEN as usize].into()])
}

fn read(data: &Data, commit: &Commit) -> WorkerUsage {
    let inputs = data.gather(&workflow(), 1, &[Some(commit.clone())]).unwrap();
    let input = inputs[0].as_ref().expect("it is not optional");
    assert!(input.len() == LEN && input.bytes().unwrap().iter().all(|byte| *byte == 7));
    data.usage()
}

/// Gets, downloaded, shared and saved bytes.
fn figures(usage: WorkerUsage) -> (u64, u64, u64, u64) {
    (usage.gets, usage.download_bytes, usage.shared_bytes, usage.saved_bytes)
}

#[test]
fn files_are_read_in_place_by_other_workers_of_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let worker = |instance| data(Arc::new(FileStore::new(dir.path())), instance);
    let commit = made(&worker("a"));
    let there = worker("b");
    assert_eq!(figures(read(&there, &commit)), (0, 0, LEN, 0));
    assert_eq!(figures(read(&there, &commit)), (0, 0, LEN, LEN), "the second reading finds it in memory");
    let transfers = there.take_transfers();
    assert_eq!(transfers.iter().map(|t| (t.bytes, t.store)).collect::<Vec<_>>(), [(LEN, "file")]);
}

#[test]
fn what_one_worker_stores_or_fetches_the_others_do_not_fetch() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Arc::new(Remote::default());
    let commit = made(&worker(&store, "a", dir.path(), 2 * LEN));
    assert_eq!(figures(read(&worker(&store, "b", dir.path(), 2 * LEN), &commit)), (0, 0, LEN, 0));
    let other_machine = |instance| worker(&store, instance, elsewhere.path(), 2 * LEN);
    assert_eq!(figures(read(&other_machine("c"), &commit)), (1, LEN, 0, 0));
    assert_eq!(figures(read(&other_machine("d"), &commit)), (0, 0, LEN, 0));
    assert_eq!(store.reads.load(Ordering::SeqCst), 1);
}

#[test]
fn what_exceeds_the_quota_comes_from_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Remote::default());
    let commit = made(&worker(&store, "a", dir.path(), LEN - 1));
    assert_eq!(figures(read(&worker(&store, "b", dir.path(), LEN - 1), &commit)), (1, LEN, 0, 0));
}

#[test]
fn a_damaged_shared_object_comes_from_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Remote::default());
    let commit = made(&worker(&store, "a", dir.path(), LEN));
    let file = std::fs::read_dir(dir.path().join("shared/r")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&file, vec![8; LEN as usize]).unwrap();
    assert_eq!(figures(read(&worker(&store, "b", dir.path(), LEN), &commit)), (1, LEN, 0, 0));
    assert_eq!(figures(read(&worker(&store, "c", dir.path(), LEN), &commit)), (0, 0, LEN, 0));
}

#[test]
fn a_discarded_attempt_leaves_nothing_shared() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Remote::default());
    let here = worker(&store, "a", dir.path(), LEN);
    made(&here);
    here.discard(&workflow(), 0, 1);
    assert_eq!(std::fs::read_dir(dir.path().join("shared/r")).unwrap().count(), 0);
    assert!(lock(&store.objects).is_empty());
}
