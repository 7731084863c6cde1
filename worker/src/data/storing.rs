//! Outputs on their way out of the worker: into the commit record, or into the store, hashed meanwhile.

use std::path::PathBuf;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use foresail_schemas::Workflow;
use foresail_schemas::id::ObjectName;
use foresail_schemas::metric::Direction;
use foresail_schemas::run::{FailureKind, Location, StoredObject};
use foresail_schemas::workflow::Task;

use super::kept::Object;
use super::mapped::SHARED_BYTES_MIN;
use super::store::{StoreError, object_key};
use super::{Data, Durable, Sharing, lock};
use crate::registry::TaskError;

impl Data {
    /// Where an output can be written as a file that is stored without a copy, see
    /// [`link`](super::mapped::link).
    #[must_use]
    pub fn outputs_dir(&self) -> Option<PathBuf> {
        let shared = || self.shared.as_ref().map(|sharing| sharing.scratch.clone());
        self.store.dir().or_else(shared)
    }

    /// Whether one of these outputs goes to the store and not into the commit.
    #[must_use]
    pub fn stores_any(&self, outputs: &[Object]) -> bool {
        outputs.iter().any(|output| output.len() > self.inline_bytes_max)
    }

    /// Stores the outputs of an attempt, in order.
    ///
    /// # Errors
    /// [`FailureKind::OutputNotStored`] when the store does not take one, [`FailureKind::TaskRefused`] when
    /// it never will.
    pub fn store(
        &self,
        workflow: &Workflow,
        task: u32,
        attempt: u32,
        outputs: Vec<Object>,
    ) -> Result<Vec<StoredObject>, TaskError> {
        let is_result = workflow.graph().children(task).is_empty();
        let durable = if is_result { Durable::All } else { self.durable };
        let spec = workflow.task(task);
        self.place(spec, attempt, outputs, |key, name, object| {
            self.keep(&key, &format!("{}/{name}", spec.id), object, durable)
        })
    }

    /// Puts the outputs of an attempt where they belong, in order: small ones into the commit record, the
    /// others where `put` says, under the key that they have in the store.
    pub(super) fn place(
        &self,
        spec: &Task,
        attempt: u32,
        outputs: Vec<Object>,
        mut put: impl FnMut(String, &ObjectName, Object) -> Result<StoredObject, TaskError>,
    ) -> Result<Vec<StoredObject>, TaskError> {
        let place = |(name, object): (&ObjectName, Object)| {
            if object.len() <= self.inline_bytes_max {
                return self.inline(name, &object);
            }
            put(object_key(&self.run, &spec.id, attempt, &self.instance, name), name, object)
        };
        spec.output_names().iter().zip(outputs).map(place).collect()
    }

    /// An object that rides inside the commit record.
    fn inline(&self, name: &ObjectName, object: &Object) -> Result<StoredObject, TaskError> {
        let content = object.bytes().map_err(|error| not_stored(name.as_str(), &error))?;
        let hash = blake3::hash(&content).to_hex().to_string();
        let location = Location::Inline(BASE64.encode(&content));
        Ok(StoredObject { bytes: content.len() as u64, hash, location })
    }

    /// Stores an object and hashes it: one that lies in the process that made it while it is brought.
    pub(super) fn keep(
        &self,
        key: &str,
        name: &str,
        object: Object,
        durable: Durable,
    ) -> Result<StoredObject, TaskError> {
        let (bytes, started) = (object.len(), Instant::now());
        let upload = |content| self.upload(key, name, content, durable, started);
        let (hash, stored) = match object {
            Object::Here(content) => hash_beside(content, upload),
            Object::Kept(kept) => {
                let (content, hash) = kept.bring().map_err(|error| not_stored(name, &error))?;
                (hash.to_hex().to_string(), upload(content))
            }
        };
        stored.map(|()| StoredObject { bytes, hash, location: Location::Stored(key.to_owned()) })
    }

    /// Puts an object into the store and keeps it in memory.
    fn upload(
        &self,
        key: &str,
        name: &str,
        object: Bytes,
        durable: Durable,
        started: Instant,
    ) -> Result<(), TaskError> {
        let stored = match durable {
            Durable::All => self.store.put(key, &object),
            Durable::Results => self.store.put_rebuildable(key, &object),
        };
        stored.map_err(|error| match error {
            // The next attempt would make the same.
            StoreError::Refused { .. } => not_stored(name, &error).not_retried(),
            error => not_stored(name, &error),
        })?;
        self.moved(Direction::Upload, object.len() as u64, started, self.store.name());
        let object = self.share(key, object);
        lock(&self.cache).put(key.to_owned(), object);
        Ok(())
    }

    /// Leaves an object of a remote store for the other workers of this machine; gives the object that is
    /// to be kept from here on, so that the machine has one copy of it.
    pub(super) fn share(&self, key: &str, object: Bytes) -> Bytes {
        let Some(Sharing { memory, scratch }) = self.shared.as_deref() else { return object };
        if let Err(error) = memory.put(key, &object, scratch) {
            tracing::warn!(%error, dir = %memory.dir.display(), "an object is not shared");
        }
        memory.get(key).filter(|shared| shared.len() == object.len()).unwrap_or(object)
    }

    /// Deletes what an attempt of this invocation stored: another attempt won.
    pub fn discard(&self, workflow: &Workflow, task: u32, attempt: u32) {
        let spec = workflow.task(task);
        for name in spec.output_names() {
            let key = object_key(&self.run, &spec.id, attempt, &self.instance, &name);
            lock(&self.cache).remove(&key);
            self.shared.iter().for_each(|shared| shared.memory.remove(&key));
            if self.held.remove(&key).is_some() {
                continue;
            }
            if let Err(error) = self.store.delete(&key) {
                tracing::warn!(%error, "the object of a losing attempt stays where it is");
            }
        }
    }
}

fn not_stored(name: &str, cause: &dyn std::fmt::Display) -> TaskError {
    TaskError::of(FailureKind::OutputNotStored, format!("output `{name}`: {cause}"))
}

/// The hash of an object, and what came of storing it: a large one is hashed while it is stored.
fn hash_beside<T: Send>(object: Bytes, store: impl FnOnce(Bytes) -> T + Send) -> (String, T) {
    let content = object.clone();
    let hash = move || blake3::hash(&content).to_hex().to_string();
    if (object.len() as u64) < SHARED_BYTES_MIN {
        return (hash(), store(object));
    }
    std::thread::scope(|scope| {
        let storing = scope.spawn(|| store(object));
        let hash = hash();
        // A panic goes on where it would have without the thread.
        (hash, storing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
