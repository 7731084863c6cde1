//! Tests of fetching beforehand, with a store that counts and waits to be let through.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::store::StoreError;
use super::*;
use foresail_schemas::run::Measured;
use serde_json::json;

/// A store whose reads wait for a word, count themselves and fail as often as they are told to.
#[derive(Default)]
struct Gate {
    objects: Mutex<std::collections::HashMap<String, Bytes>>,
    is_open: Mutex<bool>,
    opened: Condvar,
    reads: AtomicU32,
    failures: AtomicU32,
}

impl Gate {
    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

impl ObjectStore for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn put(&self, key: &str, object: &Bytes) -> Result<(), StoreError> {
        self.objects.lock().unwrap().insert(key.to_owned(), object.clone());
        Ok(())
    }

    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let waited = Duration::from_secs(60);
        let guard = self.is_open.lock().unwrap();
        drop(self.opened.wait_timeout_while(guard, waited, |is_open| !*is_open).unwrap());
        let fails = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        let missing = || StoreError::Missing { key: key.to_owned(), store: "gate" };
        if fails.is_ok() {
            return Err(missing());
        }
        self.objects.lock().unwrap().get(key).cloned().ok_or_else(missing)
    }

    fn delete(&self, _: &str) -> Result<(), StoreError> {
        Ok(())
    }
}

fn workflow() -> Workflow {
    serde_json::from_value(json!({"name": "w", "tasks": [
        {"id": "make", "name": "make", "run": "x"},
        {"id": "other", "name": "other", "run": "x"},
        {"id": "use", "name": "use", "run": "x", "inputs": [{"task": "make"}, {"task": "other"}]},
    ]}))
    .unwrap()
}

struct Bench {
    gate: Arc<Gate>,
    workflow: Arc<Workflow>,
    commits: Vec<Commit>,
    data: Data,
}

/// Two stored objects and a worker that has neither, with so much memory.
fn bench(cache_bytes_max: u64) -> Bench {
    let (gate, workflow) = (Arc::new(Gate::default()), Arc::new(workflow()));
    let data = |instance: &str, bytes| {
        let cache = Arc::new(Mutex::new(ObjectCache::new(bytes)));
        let (run, instance) = (RunId::new("r").unwrap(), InstanceId::new(instance).unwrap());
        Data::new(run, instance, gate.clone(), cache, 16)
    };
    let maker = data("a", 1 << 20);
    let commit = |task| Commit {
        attempt: 1,
        instance: InstanceId::new("a").unwrap(),
        outputs: maker.store(&workflow, task, 1, vec![Bytes::from(vec![task as u8; 1000]).into()]).unwrap(),
        measured: Measured::default(),
        decision: None,
        printed: None,
    };
    let commits = vec![commit(0), commit(1)];
    let data = data("b", cache_bytes_max);
    Bench { gate, workflow, commits, data }
}

impl Bench {
    fn preload(&self, parents: &[u32]) {
        let parents: Vec<_> = parents.iter().map(|&p| (p, self.commits[p as usize].clone())).collect();
        self.data.preload(&self.workflow, 2, &parents);
    }

    fn gather(&self) -> Vec<Bytes> {
        let commits: Vec<_> = self.commits.iter().cloned().map(Some).collect();
        let inputs = self.data.gather(&self.workflow, 2, &commits).unwrap();
        inputs.into_iter().map(|input| input.expect("no input is optional").bytes().unwrap()).collect()
    }

    fn reads(&self) -> u32 {
        self.gate.reads.load(Ordering::SeqCst)
    }
}

#[test]
fn a_task_waits_for_what_is_on_its_way_instead_of_fetching_it_again() {
    let bench = bench(1 << 20);
    std::thread::scope(|scope| {
        scope.spawn(|| bench.preload(&[0]));
        while bench.reads() == 0 {
            std::thread::yield_now();
        }
        let task = scope.spawn(|| bench.gather());
        bench.gate.open();
        assert_eq!(task.join().unwrap()[0], vec![0; 1000]);
    });
    assert_eq!(bench.reads(), 2, "each object once");
    let usage = bench.data.usage();
    assert_eq!((usage.gets, usage.download_bytes, usage.saved_bytes), (2, 2000, 0));
}

#[test]
fn only_what_exists_is_fetched_and_never_twice() {
    let bench = bench(1 << 20);
    bench.gate.open();
    bench.preload(&[]);
    assert_eq!(bench.reads(), 0);
    bench.preload(&[1]);
    bench.preload(&[0, 1]);
    assert_eq!(bench.reads(), 2);
    bench.gather();
    bench.gather();
    assert_eq!((bench.reads(), bench.data.usage().saved_bytes), (2, 2000), "the second reading saves");
}

#[test]
fn what_could_not_be_fetched_beforehand_is_fetched_by_the_task() {
    let bench = bench(1 << 20);
    bench.gate.open();
    bench.gate.failures.store(1, Ordering::SeqCst);
    bench.preload(&[0]);
    assert_eq!(bench.gather()[0], vec![0; 1000]);
    assert_eq!(bench.reads(), 3);
}

#[test]
fn nothing_is_fetched_beforehand_that_memory_cannot_hold_or_after_the_end() {
    let small = bench(999);
    small.gate.open();
    small.preload(&[0, 1]);
    assert_eq!(small.reads(), 0);
    let ended = bench(1 << 20);
    ended.gate.open();
    ended.data.end_preloads();
    ended.preload(&[0, 1]);
    assert_eq!(ended.reads(), 0);
}
