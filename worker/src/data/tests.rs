//! Tests of gathering and storing, with a store of files in a temporary directory.

use super::*;
use crate::data::kept::contents;
use crate::data::store::{BlobStore, FileStore};
use foresail_schemas::run::Measured;
use foresail_schemas::{ErrorCode, Problem};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};

const INLINE_BYTES_MAX: u64 = 16;

fn workflow() -> Workflow {
    serde_json::from_value(json!({"name": "w", "tasks": [
        {"id": "make", "name": "make", "run": "x", "outputs": [{"name": "small"}, {"name": "large"}]},
        {"id": "use", "name": "use", "run": "x", "inputs": [
            {"task": "make", "output": "large"}, {"value": {"a": [1, "x"]}},
            {"task": "make", "output": "small"}]},
    ]}))
    .unwrap()
}

fn data(dir: &std::path::Path, instance: &str) -> Data {
    let cache = Arc::new(Mutex::new(ObjectCache::new(1 << 20)));
    let (run, instance) = (RunId::new("r").unwrap(), InstanceId::new(instance).unwrap());
    Data::new(run, instance, Arc::new(FileStore::new(dir)), cache, INLINE_BYTES_MAX)
}

fn commit(data: &Data, workflow: &Workflow) -> Commit {
    let outputs = vec![Bytes::from_static(b"small"), Bytes::from(vec![7; 1000])];
    committed(data, workflow, outputs)
}

/// What the first task of a workflow commits with these outputs.
pub(super) fn committed(data: &Data, workflow: &Workflow, outputs: Vec<Bytes>) -> Commit {
    commit_of(data.store(workflow, 0, 1, outputs.into_iter().map(Into::into).collect()).unwrap())
}

fn commit_of(outputs: Vec<StoredObject>) -> Commit {
    let (instance, measured) = (InstanceId::new("a").unwrap(), Measured::default());
    Commit { attempt: 1, instance, outputs, measured, decision: None, printed: None }
}

#[test]
fn a_worker_that_made_an_object_downloads_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (workflow, here) = (workflow(), data(dir.path(), "a"));
    let commit = commit(&here, &workflow);
    let inputs = here.gather(&workflow, 1, &[Some(commit)]).unwrap();
    let expected = [Bytes::from(vec![7; 1000]), r#"{"a":[1,"x"]}"#.into(), "small".into()];
    assert_eq!(contents(&inputs).unwrap(), expected.map(Some));
    let usage = here.usage();
    assert_eq!((usage.puts, usage.gets, usage.upload_bytes, usage.saved_bytes), (1, 0, 1000, 1000));
    assert_eq!(usage.inline_bytes, 5, "`small` came inside the commit");
}

#[test]
fn another_worker_downloads_once_and_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let workflow = workflow();
    let commit = commit(&data(dir.path(), "a"), &workflow);
    let there = data(dir.path(), "b");
    for _ in 0..2 {
        there.gather(&workflow, 1, &[Some(commit.clone())]).unwrap();
    }
    let usage = there.usage();
    assert_eq!((usage.puts, usage.gets, usage.download_bytes, usage.saved_bytes), (0, 1, 1000, 1000));
    let transfers = there.take_transfers();
    assert_eq!(transfers.len(), 1);
    assert_eq!(
        (transfers[0].direction, transfers[0].bytes, transfers[0].store),
        (Direction::Download, 1000, "file")
    );
    assert!(there.take_transfers().is_empty());
}

#[test]
fn a_small_output_rides_in_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    let commit = commit(&data(dir.path(), "a"), &workflow());
    assert_eq!(commit.outputs[0].location, Location::Inline("c21hbGw=".to_owned()));
    assert_eq!(commit.outputs[1].location, Location::Stored("r/make==1-a==large".to_owned()));
}

#[test]
fn content_that_changed_is_an_unavailable_input() {
    let dir = tempfile::tempdir().unwrap();
    let workflow = workflow();
    let commit = commit(&data(dir.path(), "a"), &workflow);
    std::fs::write(dir.path().join("r/make==1-a==large"), vec![8; 1000]).unwrap();
    let error = data(dir.path(), "b").gather(&workflow, 1, &[Some(commit)]).unwrap_err();
    assert_eq!(error.kind, FailureKind::InputUnavailable);
    assert!(error.message.contains("`make/large`") && error.message.contains("hash"), "{error:?}");
}

/// A store that notes what must outlive a loss of power and what need not.
#[derive(Default)]
struct Noted {
    durable: Mutex<Vec<String>>,
    rebuildable: Mutex<Vec<String>>,
}

impl ObjectStore for Noted {
    fn name(&self) -> &'static str {
        "noted"
    }

    fn put(&self, key: &str, _: &Bytes) -> Result<(), StoreError> {
        self.durable.lock().unwrap().push(key.to_owned());
        Ok(())
    }

    fn put_rebuildable(&self, key: &str, _: &Bytes) -> Result<(), StoreError> {
        self.rebuildable.lock().unwrap().push(key.to_owned());
        Ok(())
    }

    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        Err(StoreError::Missing { key: key.to_owned(), store: self.name() })
    }

    fn delete(&self, _: &str) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A server that answers everything with this problem; gives its address and counts what it is asked.
fn refusing(problem: Problem) -> (String, Arc<AtomicUsize>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut request = [0; 4096];
            let _read = std::io::Read::read(&mut connection, &mut request);
            counter.fetch_add(1, Ordering::SeqCst);
            let (status, body) = (problem.status, json!(problem).to_string());
            let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/problem+json\r\n");
            let rest = format!("content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            let _sent = std::io::Write::write_all(&mut connection, (head + &rest).as_bytes());
        }
    });
    (address, asked)
}

#[test]
fn what_the_store_will_never_take_is_refused_at_once_and_what_it_may_take_later_is_not() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (code, kind, tries) in [
        (ErrorCode::TooLarge, FailureKind::TaskRefused, 1),
        (ErrorCode::StoreFailed, FailureKind::OutputNotStored, 5),
    ] {
        let (address, asked) = refusing(Problem::new(code, "larger than 16777216 bytes"));
        let (run, instance) = (RunId::new("r").unwrap(), InstanceId::new("a").unwrap());
        let metad = crate::metad::Metad::new(&address, None).unwrap();
        let store = BlobStore::new(metad, run.clone(), runtime.handle().clone());
        let cache = Arc::new(Mutex::new(ObjectCache::new(1 << 20)));
        let data = Data::new(run, instance, Arc::new(store), cache, INLINE_BYTES_MAX);
        let outputs = vec![Bytes::from_static(b"small").into(), Bytes::from(vec![7; 1000]).into()];
        let refused = data.store(&workflow(), 0, 1, outputs).unwrap_err();
        assert_eq!((refused.kind, asked.load(Ordering::SeqCst)), (kind, tries), "{refused:?}");
        for told in ["`make/large`", "16777216"] {
            assert!(refused.message.contains(told), "`{told}` in {refused:?}");
        }
    }
}

#[test]
fn results_are_stored_durably_and_what_other_tasks_read_only_where_it_is_kept() {
    let workflow = workflow();
    let (made, used) = ("r/make==1-a==large", "r/use==1-a==out");
    for (durable, expect) in [(Durable::Results, vec![used]), (Durable::All, vec![made, used])] {
        let store = Arc::new(Noted::default());
        let cache = Arc::new(Mutex::new(ObjectCache::new(1 << 20)));
        let (run, instance) = (RunId::new("r").unwrap(), InstanceId::new("a").unwrap());
        let data = Data::new(run, instance, store.clone(), cache, INLINE_BYTES_MAX).durable(durable);
        commit(&data, &workflow);
        data.store(&workflow, 1, 1, vec![Bytes::from(vec![7; 1000]).into()]).unwrap();
        assert_eq!(*store.durable.lock().unwrap(), expect, "{durable:?}");
        assert_eq!(store.rebuildable.lock().unwrap().len(), 2 - expect.len(), "{durable:?}");
    }
}

#[test]
fn an_object_that_a_power_loss_cut_short_or_took_is_lost_and_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let workflow = workflow();
    let commit = commit(&data(dir.path(), "a").durable(Durable::Results), &workflow);
    let path = dir.path().join("r/make==1-a==large");
    let lost = || data(dir.path(), "b").gather(&workflow, 1, &[Some(commit.clone())]).unwrap_err().lost;
    std::fs::write(&path, vec![0; 1000]).unwrap();
    assert_eq!(lost(), ["r/make==1-a==large"], "other content");
    std::fs::write(&path, "").unwrap();
    assert_eq!(lost(), ["r/make==1-a==large"], "no content");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(lost(), ["r/make==1-a==large"], "no file");
}

#[test]
fn a_discarded_attempt_leaves_nothing_in_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let (workflow, here) = (workflow(), data(dir.path(), "a"));
    let commit = commit(&here, &workflow);
    here.discard(&workflow, 0, 1);
    let error = here.gather(&workflow, 1, &[Some(commit)]).unwrap_err();
    assert!(error.message.contains("not in the store"), "{error:?}");
}

#[test]
fn files_outside_the_workflow_are_read_by_path_and_by_address() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a b.txt");
    std::fs::write(&file, "outside").unwrap();
    let address = format!("file://{}", file.display()).replace(' ', "%20");
    for (uri, expect) in [
        (file.display().to_string(), Ok("outside")),
        (address, Ok("outside")),
        ("/no/such/file".to_owned(), Err("No such file")),
        ("s3://bucket/key".to_owned(), Err("`s3://`")),
    ] {
        let workflow = serde_json::from_value(json!({"name": "w", "tasks": [
            {"id": "t", "name": "t", "run": "x", "inputs": [{"uri": uri}]}]}));
        let found = data(dir.path(), "a").gather(&workflow.unwrap(), 0, &[]);
        match (found, expect) {
            (Ok(inputs), Ok(content)) => assert_eq!(inputs[0].as_ref().unwrap(), content.as_bytes()),
            (Err(error), Err(words)) => assert!(error.message.contains(words), "{error:?}"),
            (found, expect) => panic!("`{uri}`: {found:?} instead of {expect:?}"),
        }
    }
}

#[test]
fn a_key_that_leads_out_of_the_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::new(dir.path().join("root"));
    std::fs::write(dir.path().join("secret"), "x").unwrap();
    let absolute = dir.path().join("secret").display().to_string();
    for key in ["../secret", "a/../../secret", &absolute, "", "a//b", "a/./b", "a/"] {
        let refused =
            [store.get(key).map(drop), store.put(key, &Bytes::from_static(b"y")), store.delete(key)];
        for result in refused {
            let error = result.unwrap_err().to_string();
            assert!(error.contains("no empty part"), "{key}: {error}");
        }
    }
    assert_eq!(std::fs::read(dir.path().join("secret")).unwrap(), b"x");
}

/// What a task reads whose parent made the object `large` of a thousand sevens and committed it like this.
fn large_input(data: &Data, workflow: &Workflow, outputs: Vec<StoredObject>) -> Result<Object, TaskError> {
    data.gather(workflow, 1, &[Some(commit_of(outputs))]).map(|inputs| inputs[0].clone().unwrap())
}

fn in_another_process() -> (Arc<impl std::fmt::Debug>, Vec<Object>) {
    let (memory, object) = kept::tests::kept(&[7; 1000], 100, None);
    (memory, vec![Bytes::from_static(b"small").into(), object])
}

#[test]
fn what_the_process_of_a_function_keeps_is_stored_with_its_hash_like_anything_else() {
    let dir = tempfile::tempdir().unwrap();
    let (workflow, here) = (workflow(), data(dir.path(), "a"));
    let (_memory, outputs) = in_another_process();
    let stored = here.store(&workflow, 0, 1, outputs).unwrap();
    assert_eq!(stored, commit(&data(dir.path(), "a"), &workflow).outputs);
    let read = large_input(&data(dir.path(), "b"), &workflow, stored).unwrap();
    assert_eq!(&read, &[7; 1000]);
    assert_eq!((here.usage().puts, here.usage().upload_bytes), (1, 1000));
}

#[test]
fn what_is_held_stays_in_its_process_until_it_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let (workflow, here) = (workflow(), data(dir.path(), "a"));
    let (_memory, outputs) = in_another_process();
    let held = here.hold(&workflow, 0, 1, outputs).unwrap();
    let read = large_input(&here, &workflow, held.clone()).unwrap();
    assert!(matches!(read, Object::Kept(_)) && here.usage().puts == 0, "{read:?}");
    let stored = here.store_held(&held).unwrap();
    assert_eq!(stored, commit(&data(dir.path(), "a"), &workflow).outputs);
    // Whoever was told before that it is held finds it all the same.
    assert_eq!(&large_input(&here, &workflow, held.clone()).unwrap(), &[7; 1000]);
    assert_eq!(&large_input(&data(dir.path(), "b"), &workflow, held).unwrap(), &[7; 1000]);
}

#[test]
fn an_object_that_is_lost_with_its_process_is_an_output_that_is_not_stored() {
    let dir = tempfile::tempdir().unwrap();
    let (workflow, here) = (workflow(), data(dir.path(), "a"));
    let (memory, object) = kept::tests::kept(&[7; 1000], 100, None);
    memory.has_ended.store(true, std::sync::atomic::Ordering::SeqCst);
    let outputs = vec![Bytes::from_static(b"small").into(), object];
    let error = here.store(&workflow, 0, 1, outputs).unwrap_err();
    assert!(error.kind == FailureKind::OutputNotStored && error.message.contains("make/large"), "{error:?}");
}

#[test]
fn no_more_is_held_than_there_is_room_for() {
    let dir = tempfile::tempdir().unwrap();
    let (workflow, here) = (workflow(), data(dir.path(), "a").holding(1_500));
    assert!(here.can_hold(1_500) && !here.can_hold(1_501));
    let (_memory, outputs) = in_another_process();
    let held = here.hold(&workflow, 0, 1, outputs).unwrap();
    assert!(here.can_hold(500) && !here.can_hold(501));
    here.store_held(&held).unwrap();
    assert!(here.can_hold(1_500));
}
