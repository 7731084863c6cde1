//! Outputs that a worker keeps in memory instead of storing them, because the tasks that read them run here.
//!
//! They are not part of the cache: nothing displaces them before they are stored or dropped. How many there
//! are is bounded by the choreography; the memory cap of the worker bounds their size.

use std::collections::HashMap;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use foresail_schemas::Workflow;
use foresail_schemas::run::{FailureKind, Location, StoredObject};

use super::store::object_key;
use super::{Data, lock};
use crate::registry::TaskError;

/// The objects, by the key under which they would be stored.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<HashMap<String, Bytes>>);

impl Held {
    pub fn get(&self, key: &str) -> Option<Bytes> {
        lock(&self.0).get(key).cloned()
    }

    pub fn remove(&self, key: &str) -> Option<Bytes> {
        lock(&self.0).remove(key)
    }
}

impl Data {
    /// Keeps the outputs of an attempt in memory; small ones ride inside the commit as ever.
    #[must_use]
    pub fn hold(
        &self,
        workflow: &Workflow,
        task: u32,
        attempt: u32,
        outputs: Vec<Bytes>,
    ) -> Vec<StoredObject> {
        let spec = workflow.task(task);
        let mut held = lock(&self.held.0);
        let mut keep = |(name, object): (_, Bytes)| {
            let bytes = object.len() as u64;
            let hash = blake3::hash(&object).to_hex().to_string();
            let location = if bytes <= self.inline_bytes_max {
                Location::Inline(BASE64.encode(&object))
            } else {
                let key = object_key(&self.run, &spec.id, attempt, &self.instance, name);
                held.insert(key.clone(), object);
                Location::Unstored(key)
            };
            StoredObject { bytes, hash, location }
        };
        spec.output_names().iter().zip(outputs).map(&mut keep).collect()
    }

    /// Stores after all what was held.
    ///
    /// # Errors
    /// [`FailureKind::OutputNotStored`] when the store does not take an object, or it is not held any more.
    pub fn store_held(&self, objects: &[StoredObject]) -> Result<Vec<StoredObject>, TaskError> {
        let store = |object: &StoredObject| {
            let Location::Unstored(key) = &object.location else { return Ok(object.clone()) };
            let gone = || {
                let cause = format!("output `{key}` is not in memory any more");
                TaskError::of(FailureKind::OutputNotStored, cause)
            };
            let content = self.held.get(key).ok_or_else(gone)?;
            self.upload(key, key, content, self.durable)?;
            self.held.remove(key);
            Ok(StoredObject { location: Location::Stored(key.clone()), ..object.clone() })
        };
        objects.iter().map(store).collect()
    }
}
