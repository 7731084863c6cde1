//! What every store of objects must do, and that files, blobs of metad and a bucket do it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foresail_schemas::id::{InstanceId, ObjectName, RunId, TaskId};
use foresail_worker::data::s3;
use foresail_worker::data::store::{BlobStore, FileStore, ObjectStore, StoreError, object_key};
use foresail_worker::metad::Metad;

use crate::servers::{Moto, breaking_after, silence};
use crate::workloads::ended_run;

/// Largest blob of metad.
const BLOB_BYTES_MAX: usize = 16 << 20;

/// A store under test.
struct Subject<'a> {
    store: &'a dyn ObjectStore,
    object_bytes_max: usize,
    /// The same store on a way that breaks in the middle of every larger put.
    torn: &'a dyn ObjectStore,
}

/// Bytes that no compression or repetition hides.
fn content(len: usize, seed: u8) -> Bytes {
    let mut reader = blake3::Hasher::new().update(&[seed]).finalize_xof();
    let mut bytes = vec![0; len];
    reader.fill(&mut bytes);
    bytes.into()
}

fn key(task: &str, output: &str) -> String {
    let (run, instance) = (RunId::new("r:1").unwrap(), InstanceId::new("w-1.a").unwrap());
    object_key(&run, &TaskId::new(task).unwrap(), 1, &instance, &ObjectName::new(output).unwrap())
}

fn is_missing<T>(answer: &Result<T, StoreError>) -> bool {
    matches!(answer, Err(StoreError::Missing { .. }))
}

fn is_failed<T>(answer: &Result<T, StoreError>) -> bool {
    matches!(answer, Err(StoreError::Failed { .. }))
}

fn conforms(subject: &Subject<'_>) {
    objects_come_back_whole(subject);
    what_is_not_there_is_missing_and_deleting_it_is_no_error(subject.store);
    a_put_that_is_repeated_changes_nothing(subject.store);
    writers_at_once_do_not_mix(subject.store);
    a_put_that_breaks_leaves_nothing(subject);
    keys_may_hold_any_name_and_lead_nowhere_else(subject.store);
}

fn objects_come_back_whole(subject: &Subject<'_>) {
    for len in [0, 1, 5_000_000, 40_000_000] {
        if len > subject.object_bytes_max {
            continue;
        }
        let (key, object) = (key("whole", &format!("o{len}")), content(len, 1));
        subject.store.put(&key, &object).unwrap();
        assert!(subject.store.get(&key).unwrap() == object, "{len} bytes came back otherwise");
        subject.store.put_rebuildable(&format!("{key}-again"), &object).unwrap();
        assert!(subject.store.get(&format!("{key}-again")).unwrap() == object, "{len} bytes, rebuildable");
        subject.store.delete(&key).unwrap();
        assert!(is_missing(&subject.store.get(&key)));
    }
}

fn what_is_not_there_is_missing_and_deleting_it_is_no_error(store: &dyn ObjectStore) {
    let key = key("missing", "out");
    let answer = store.get(&key);
    assert!(is_missing(&answer), "{answer:?}");
    assert!(answer.unwrap_err().to_string().contains(&key));
    store.delete(&key).unwrap();
    store.put(&key, &content(10, 1)).unwrap();
    store.delete(&key).unwrap();
    store.delete(&key).unwrap();
    assert!(is_missing(&store.get(&key)));
}

fn a_put_that_is_repeated_changes_nothing(store: &dyn ObjectStore) {
    for len in [100_000, 12_000_000] {
        let (key, object) = (key("twice", &format!("o{len}")), content(len, 2));
        store.put(&key, &object).unwrap();
        store.put(&key, &object).unwrap();
        assert!(store.get(&key).unwrap() == object);
    }
}

fn writers_at_once_do_not_mix(store: &dyn ObjectStore) {
    let (shared, contested) = (key("many", "same"), key("many", "contested"));
    let same = content(1_000_000, 3);
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let (shared, contested, same) = (&shared, &contested, &same);
            scope.spawn(move || {
                let (own, object) = (key("many", &format!("own{writer}")), content(300_000, writer));
                store.put(&own, &object).unwrap();
                store.put(shared, same).unwrap();
                // One stands, and the others may be told.
                let _ = store.put(contested, &content(200_000, writer));
                assert!(store.get(&own).unwrap() == object);
            });
        }
    });
    assert!(store.get(&shared).unwrap() == same);
    let stands = store.get(&contested).unwrap();
    assert!((0..8).any(|writer| content(200_000, writer) == stands), "it is nobody's whole object");
}

fn a_put_that_breaks_leaves_nothing(subject: &Subject<'_>) {
    for len in [5_000_000, 40_000_000] {
        let (key, object) = (key("torn", &format!("o{len}")), content(len, 4));
        let put = subject.torn.put(&key, &object);
        assert!(is_failed(&put), "{len} bytes: {put:?}");
        let found = subject.store.get(&key);
        assert!(is_missing(&found), "{len} bytes: {:?}", found.map(|object| object.len()));
        if len <= subject.object_bytes_max {
            subject.store.put(&key, &object).unwrap();
            assert!(subject.store.get(&key).unwrap() == object);
        }
    }
}

fn keys_may_hold_any_name_and_lead_nowhere_else(store: &dyn ObjectStore) {
    let names = ["a b", "../up", "ä/ö?#%25&+", "=41", ".", "*", &"x".repeat(200)];
    for (at, name) in names.iter().enumerate() {
        store.put(&key("odd", name), &content(100, at as u8)).unwrap();
    }
    for (at, name) in names.iter().enumerate() {
        assert!(store.get(&key("odd", name)).unwrap() == content(100, at as u8), "`{name}`");
    }
    for bad in ["", "a//b", "../a", "a/../../b", "a/."] {
        assert!(is_failed(&store.put(bad, &content(1, 1))), "`{bad}` was written");
        assert!(is_failed(&store.get(bad)), "`{bad}` was read");
    }
}

/// Files, where no way can break: what breaks is that the directory cannot be made.
struct NoRoom(FileStore);

impl ObjectStore for NoRoom {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn put(&self, key: &str, object: &Bytes) -> Result<(), StoreError> {
        let blocked = format!("{key}/below");
        self.0.put(key, &Bytes::from_static(b"a file where a directory would be")).unwrap();
        let put = self.0.put(&blocked, object);
        self.0.delete(key).unwrap();
        put
    }
    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.0.get(key)
    }
    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.0.delete(key)
    }
}

#[test]
fn files_conform() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::new(dir.path());
    let torn = NoRoom(store.clone());
    conforms(&Subject { store: &store, object_bytes_max: usize::MAX, torn: &torn });
}

#[test]
fn blobs_of_metad_conform() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (stack, run) = runtime.block_on(ended_run());
    let store =
        |base: &str| BlobStore::new(Metad::new(base, None).unwrap(), run.clone(), runtime.handle().clone());
    let address = stack.metad_address().trim_start_matches("http://").parse().unwrap();
    let torn = store(&format!("http://{}", breaking_after(address, 1_000_000)));
    let whole = store(stack.metad_address());
    conforms(&Subject { store: &whole, object_bytes_max: BLOB_BYTES_MAX, torn: &torn });
    let silent = store(&format!("http://{}", silence())).within(Duration::from_millis(200));
    silence_is_an_error(&silent);
    runtime.block_on(stack.stop());
}

#[test]
fn a_bucket_conforms() {
    let Some(moto) = Moto::start() else { return };
    let store = s3::open(&moto.bucket()).unwrap();
    store.check().unwrap();
    let torn = s3::open(&moto.bucket_through(breaking_after(moto.address(), 1_000_000), 2_000)).unwrap();
    conforms(&Subject { store: &*store, object_bytes_max: usize::MAX, torn: &*torn });
    let silent = s3::open(&moto.bucket_through(silence(), 200)).unwrap();
    silence_is_an_error(&*silent);
    assert!(is_failed(&silent.check()));
}

fn silence_is_an_error(silent: &dyn ObjectStore) {
    for len in [100, 12_000_000] {
        let put = silent.put(&key("silent", "out"), &content(len, 5));
        assert!(is_failed(&put), "{put:?}");
    }
    assert!(is_failed(&silent.get(&key("silent", "out"))));
    assert!(is_failed(&silent.delete(&key("silent", "out"))));
}

#[test]
fn what_lies_in_a_bucket_is_not_replaced() {
    let Some(moto) = Moto::start() else { return };
    let store = s3::open(&moto.bucket()).unwrap();
    for len in [100, 20_000_000] {
        let key = key("first", &format!("o{len}"));
        store.put(&key, &content(len, 1)).unwrap();
        let second = store.put(&key, &content(len, 2));
        assert!(is_failed(&second), "{second:?}");
        assert!(store.get(&key).unwrap() == content(len, 1), "{len} bytes");
    }
}

#[test]
fn a_sweep_of_a_bucket_takes_what_is_not_kept_of_one_run() {
    let Some(moto) = Moto::start() else { return };
    let store = s3::open(&moto.bucket()).unwrap();
    let other = "r=3A11/t/1-w/out";
    store.put(other, &content(10, 1)).unwrap();
    let mine: Vec<String> = (0..20).map(|at| key("swept", &format!("o{at}"))).collect();
    mine.iter().for_each(|key| store.put(key, &content(10, 1)).unwrap());
    let kept = HashSet::from([mine[3].clone()]);
    assert_eq!(store.sweep(&RunId::new("r:1").unwrap(), &kept).unwrap(), 19);
    assert_eq!(store.sweep(&RunId::new("r:1").unwrap(), &kept).unwrap(), 0);
    assert!(store.get(&mine[3]).is_ok() && store.get(other).is_ok() && is_missing(&store.get(&mine[4])));
}

#[test]
fn a_bucket_that_is_not_there_is_named() {
    let Some(moto) = Moto::start() else { return };
    let settings = s3::S3Settings { bucket: "nowhere".to_owned(), ..moto.bucket() };
    let store: Arc<dyn ObjectStore> = s3::open(&settings).unwrap();
    for answer in [store.check(), store.put("a", &content(10, 1)), store.put("a", &content(20_000_000, 1))] {
        assert!(is_failed(&answer), "{answer:?}");
        let said = answer.unwrap_err().to_string();
        assert!(said.contains("nowhere"), "{said}");
    }
}
