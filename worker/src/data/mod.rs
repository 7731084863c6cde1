//! The data of one run, as its worker sees it: inputs gathered before a task, outputs stored after it.
//!
//! An output of at most `inline_bytes_max` bytes rides inside the commit record, a larger one goes to the
//! object store before the commit. An input is looked for in the memory of the worker, which keeps what it
//! made or fetched, or in the process of a Python function that made it ([`kept`]); then in memory that the
//! workers of this machine share ([`mapped`], [`shared`]), where it is read in place; then it is brought from
//! the store. Nothing is fetched twice at the same time. What does
//! not come from the worker's own memory is compared with its BLAKE3 hash. Every transfer is measured. All
//! calls block; times in ms, sizes in bytes.

pub mod cache;
mod external;
mod fetches;
mod held;
pub mod kept;
pub mod mapped;
mod preload;
pub mod s3;
pub mod shared;
pub mod store;
mod storing;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use foresail_schemas::Workflow;
use foresail_schemas::id::{InstanceId, ObjectName, RunId, TaskId};
use foresail_schemas::metric::Direction;
use foresail_schemas::run::{Commit, FailureKind, Location, StoredObject, WorkerUsage};
use foresail_schemas::workflow::Input;

use crate::data::cache::ObjectCache;
use crate::data::fetches::{Fetches, Found};
use crate::data::kept::Object;
use crate::data::shared::SharedMemory;
use crate::data::store::{ObjectStore, StoreError};
use crate::registry::TaskError;

/// Largest file outside the workflow that is read as an input, in bytes.
pub const EXTERNAL_BYTES_MAX: u64 = 8 << 30;
/// Store name under which the reading of files outside the workflow is measured.
const EXTERNAL_STORE: &str = "file";
/// Store name under which readings of what the workers of this machine share are measured.
const SHARED_STORE: &str = "shared";

/// One object moved between this worker and a store.
#[derive(Debug, Clone, PartialEq)]
pub struct Transfer {
    /// Which way.
    pub direction: Direction,
    /// Size.
    pub bytes: u64,
    /// Time it took.
    pub time_ms: f64,
    /// The store.
    pub store: &'static str,
}

/// What the data of an invocation cost so far.
#[derive(Debug, Default)]
struct Account {
    usage: WorkerUsage,
    transfers: Vec<Transfer>,
    /// Objects fetched beforehand that no task has read yet: the first reading saves no bytes.
    fetched_early: HashSet<String>,
}

/// What the workers of this machine share, and where this one writes what it adds.
#[derive(Debug)]
struct Sharing {
    memory: SharedMemory,
    scratch: PathBuf,
}

/// Which objects a store must have on the disk before their commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// All of them: the run keeps its intermediate objects.
    All,
    /// Results, which are outputs of tasks that nothing waits for. What other tasks read can be made again.
    Results,
}

/// The data of one invocation.
#[derive(Clone)]
pub struct Data {
    run: RunId,
    instance: InstanceId,
    store: Arc<dyn ObjectStore>,
    cache: Arc<Mutex<ObjectCache>>,
    shared: Option<Arc<Sharing>>,
    inline_bytes_max: u64,
    durable: Durable,
    account: Arc<Mutex<Account>>,
    fetches: Arc<Fetches>,
    held: Arc<held::Held>,
    held_bytes_max: u64,
    is_over: Arc<AtomicBool>,
}

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Data")
            .field("run", &self.run)
            .field("store", &self.store.name())
            .finish_non_exhaustive()
    }
}

impl Data {
    /// The data of the invocation `instance` of `run`; `cache` lives as long as the process.
    #[must_use]
    pub fn new(
        run: RunId,
        instance: InstanceId,
        store: Arc<dyn ObjectStore>,
        cache: Arc<Mutex<ObjectCache>>,
        inline_bytes_max: u64,
    ) -> Self {
        Self {
            run,
            instance,
            store,
            cache,
            shared: None,
            inline_bytes_max,
            durable: Durable::All,
            account: Arc::default(),
            fetches: Arc::default(),
            held: Arc::default(),
            held_bytes_max: u64::MAX,
            is_over: Arc::default(),
        }
    }

    /// The same, with objects of the store shared with the other workers of this machine; `scratch` is a
    /// directory of this process alone on the same file system.
    #[must_use]
    pub fn sharing(self, memory: SharedMemory, scratch: PathBuf) -> Self {
        Self { shared: Some(Arc::new(Sharing { memory, scratch })), ..self }
    }

    /// The same, with only what must be on the disk there before a commit.
    #[must_use]
    pub fn durable(self, durable: Durable) -> Self {
        Self { durable, ..self }
    }

    /// The same, with so many bytes of outputs in memory at most that are not stored.
    #[must_use]
    pub fn holding(self, bytes_max: u64) -> Self {
        Self { held_bytes_max: bytes_max, ..self }
    }

    /// Puts, gets and bytes so far; `billed_ms` is 0 here.
    #[must_use]
    pub fn usage(&self) -> WorkerUsage {
        lock(&self.account).usage
    }

    /// The transfers since the last call.
    #[must_use]
    pub fn take_transfers(&self) -> Vec<Transfer> {
        std::mem::take(&mut lock(&self.account).transfers)
    }

    /// The inputs of `task` in its order, given the commits of its parents in the order of the graph; nothing
    /// for an optional input of a parent that has none, because it is skipped.
    ///
    /// # Errors
    /// [`FailureKind::InputUnavailable`] when an object cannot be read or is not what was committed.
    pub fn gather(
        &self,
        workflow: &Workflow,
        task: u32,
        parents: &[Option<Commit>],
    ) -> Result<Vec<Option<Object>>, TaskError> {
        let spec = workflow.task(task);
        let read = |input: &Input| match input {
            Input::Task { task: parent, output, optional } => {
                let object = committed(workflow, task, parents, parent, output);
                if object.is_none() && *optional {
                    return Ok(None);
                }
                let object = object
                    .ok_or_else(|| unavailable(format!("`{parent}/{output}` is not in the commits given")))?;
                self.read(object).map(Some).map_err(|unread| {
                    let Unread { cause, lost } = unread;
                    let error = unavailable(format!("input `{parent}/{output}`: {cause}"));
                    TaskError { lost: lost.into_iter().collect(), ..error }
                })
            }
            Input::External { uri, .. } => {
                let read = self.read_external(uri);
                read.map(|content| Some(content.into()))
                    .map_err(|cause| unavailable(format!("input file `{uri}`: {cause}")))
            }
            Input::Value { value } => Ok(Some(Bytes::from(value.to_string()).into())),
        };
        spec.inputs.iter().map(read).collect()
    }

    fn read(&self, object: &StoredObject) -> Result<Object, Unread> {
        let key = match &object.location {
            Location::Inline(text) => {
                let content = BASE64.decode(text).map_err(|e| format!("is not base64: {e}"))?;
                lock(&self.account).usage.inline_bytes += object.bytes;
                return Ok(verified(content.into(), object)?.into());
            }
            Location::Stored(key) => key,
            Location::Unstored(key) => {
                // It may have been stored since this was told of it, and is in the cache or the store then.
                let stored = || lock(&self.cache).get(key).or_else(|| self.store.get(key).ok());
                let content = self.held.get(key).or_else(|| stored().map(Object::Here));
                let gone = || "was held in memory by a worker that is gone".to_owned();
                let content = content.ok_or_else(|| Unread::lost(key, gone()))?;
                self.saved(key, object.bytes);
                return Ok(content);
            }
        };
        let _fetch = match self.fetches.find(key, || lock(&self.cache).get(key)) {
            Found::Here(content) => {
                self.saved(key, object.bytes);
                return Ok(content.into());
            }
            Found::Nowhere(fetch) => fetch,
        };
        self.fetch(key, object).map(Object::Here)
    }

    /// Brings an object that is not in the memory of this worker there.
    fn fetch(&self, key: &str, object: &StoredObject) -> Result<Bytes, Unread> {
        let content = match self.find_shared(key, object) {
            Some(content) => content,
            None => self.read_store(key, object)?,
        };
        lock(&self.cache).put(key.to_owned(), content.clone());
        Ok(content)
    }

    /// An object that another worker of this machine left; a damaged one is forgotten.
    fn find_shared(&self, key: &str, object: &StoredObject) -> Option<Bytes> {
        let memory = &self.shared.as_deref()?.memory;
        let started = Instant::now();
        match verified(memory.get(key)?, object) {
            Ok(content) => {
                self.read_in_place(object.bytes, started, SHARED_STORE);
                Some(content)
            }
            Err(cause) => {
                tracing::warn!(key, cause, "a shared object is damaged and comes from the store");
                memory.remove(key);
                None
            }
        }
    }

    fn read_store(&self, key: &str, object: &StoredObject) -> Result<Bytes, Unread> {
        let get = || {
            self.store.get(key).map_err(|error| match error {
                StoreError::Missing { .. } => Unread::lost(key, error.to_string()),
                StoreError::Refused { .. } | StoreError::Failed { .. } => Unread::from(error.to_string()),
            })
        };
        let verified = |content| verified(content, object).map_err(|cause| Unread::lost(key, cause));
        if self.store.is_shared(object.bytes) {
            let started = Instant::now();
            let content = verified(get()?)?;
            self.read_in_place(object.bytes, started, self.store.name());
            return Ok(content);
        }
        let started = self.begin_download(object.bytes);
        let content = get()?;
        self.moved(Direction::Download, content.len() as u64, started, self.store.name());
        Ok(self.share(key, verified(content)?))
    }

    /// Reads a file outside the workflow; within one run it is taken not to change.
    fn read_external(&self, uri: &str) -> Result<Bytes, String> {
        let key = self.external_key(uri);
        let _fetch = match self.fetches.find(&key, || lock(&self.cache).get(&key)) {
            Found::Here(content) => {
                self.saved(&key, content.len() as u64);
                return Ok(content);
            }
            Found::Nowhere(fetch) => fetch,
        };
        self.fetch_external(&key, uri)
    }

    fn external_key(&self, uri: &str) -> String {
        format!("{}\n{uri}", self.run)
    }

    fn fetch_external(&self, key: &str, uri: &str) -> Result<Bytes, String> {
        let path = external::path(uri)?;
        let len = std::fs::metadata(&path).map_err(|e| e.to_string())?.len();
        if len > EXTERNAL_BYTES_MAX {
            return Err(format!("has `{len}` bytes, at most {EXTERNAL_BYTES_MAX} are read"));
        }
        let started = self.begin_download(len);
        let content = Bytes::from(std::fs::read(&path).map_err(|e| e.to_string())?);
        self.moved(Direction::Download, content.len() as u64, started, EXTERNAL_STORE);
        lock(&self.cache).put(key.to_owned(), content.clone());
        Ok(content)
    }

    fn saved(&self, key: &str, bytes: u64) {
        let mut account = lock(&self.account);
        if !account.fetched_early.remove(key) {
            account.usage.saved_bytes += bytes;
        }
    }

    /// Counts what was read without being moved. It is measured like a download: a planner asks how long an
    /// input takes to be there, and that is the answer.
    fn read_in_place(&self, bytes: u64, started: Instant, store: &'static str) {
        lock(&self.account).usage.shared_bytes += bytes;
        self.moved(Direction::Download, bytes, started, store);
    }

    /// A download counts from its beginning: the invocation may end before one that nobody waits for does.
    fn begin_download(&self, bytes: u64) -> Instant {
        let usage = &mut lock(&self.account).usage;
        usage.gets += 1;
        usage.download_bytes += bytes;
        Instant::now()
    }

    fn moved(&self, direction: Direction, bytes: u64, started: Instant, store: &'static str) {
        let time_ms = started.elapsed().as_secs_f64() * 1000.0;
        let mut account = lock(&self.account);
        if direction == Direction::Upload {
            account.usage.puts += 1;
            account.usage.upload_bytes += bytes;
        }
        account.transfers.push(Transfer { direction, bytes, time_ms, store });
    }
}

/// Why an input cannot be read.
#[derive(Debug)]
struct Unread {
    cause: String,
    /// Its key, where it never will be.
    lost: Option<String>,
}

impl Unread {
    fn lost(key: &str, cause: String) -> Self {
        Self { cause, lost: Some(key.to_owned()) }
    }
}

impl From<String> for Unread {
    fn from(cause: String) -> Self {
        Self { cause, lost: None }
    }
}

/// A panic elsewhere leaves sums and a cache, both valid at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unavailable(cause: String) -> TaskError {
    TaskError::of(FailureKind::InputUnavailable, cause)
}

/// The object `parent/output` in the commits of the parents of `task`.
fn committed<'a>(
    workflow: &Workflow,
    task: u32,
    parents: &'a [Option<Commit>],
    parent: &TaskId,
    output: &ObjectName,
) -> Option<&'a StoredObject> {
    let graph = workflow.graph();
    let index = graph.find(parent)?;
    let place = graph.parents(task).iter().position(|&p| p == index)?;
    let at = workflow.task(index).output_names().iter().position(|name| name == output)?;
    parents.get(place)?.as_ref()?.outputs.get(at)
}

fn verified(content: Bytes, object: &StoredObject) -> Result<Bytes, String> {
    let hash = blake3::hash(&content).to_hex();
    if content.len() as u64 == object.bytes && *hash == object.hash {
        return Ok(content);
    }
    let (found, expected) = (content.len(), object.bytes);
    Err(format!(
        "{found} bytes with hash `{hash}` are not what was committed: {expected} bytes with hash `{}`",
        object.hash
    ))
}

#[cfg(test)]
mod preload_tests;
#[cfg(test)]
mod shared_tests;
#[cfg(test)]
mod tests;
