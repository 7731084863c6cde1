//! Outputs that a worker keeps in memory instead of storing them, because the tasks that read them run here.
//!
//! They are not part of the cache: nothing displaces them before they are stored or dropped. How many there
//! are is bounded by the choreography, their bytes by [`Data::holding`]: what finds no room is stored. They
//! are not hashed before they are stored: nobody reads them but the process that they are in.

use std::collections::HashMap;
use std::sync::Mutex;

use foresail_schemas::Workflow;
use foresail_schemas::run::{FailureKind, Location, StoredObject};

use super::kept::Object;
use super::{Data, lock};
use crate::registry::TaskError;

/// The objects, by the key under which they would be stored.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<HashMap<String, Object>>);

impl Held {
    pub fn get(&self, key: &str) -> Option<Object> {
        lock(&self.0).get(key).cloned()
    }

    pub fn remove(&self, key: &str) -> Option<Object> {
        lock(&self.0).remove(key)
    }

    fn bytes(&self) -> u64 {
        lock(&self.0).values().map(Object::len).sum()
    }
}

impl Data {
    /// Most bytes of outputs that are held, and of results that the process of a function keeps.
    #[must_use]
    pub fn held_bytes_max(&self) -> u64 {
        self.held_bytes_max
    }

    /// Whether there is room for outputs of so many bytes in all.
    #[must_use]
    pub fn can_hold(&self, bytes: u64) -> bool {
        self.held.bytes().saturating_add(bytes) <= self.held_bytes_max
    }

    /// Keeps the outputs of an attempt in memory; small ones ride inside the commit as ever.
    ///
    /// # Errors
    /// [`FailureKind::OutputNotStored`] when a small one cannot be read.
    pub fn hold(
        &self,
        workflow: &Workflow,
        task: u32,
        attempt: u32,
        outputs: Vec<Object>,
    ) -> Result<Vec<StoredObject>, TaskError> {
        let mut held = lock(&self.held.0);
        self.place(workflow.task(task), attempt, outputs, |key, _, object| {
            let bytes = object.len();
            held.insert(key.clone(), object);
            Ok(StoredObject { bytes, hash: String::new(), location: Location::Unstored(key) })
        })
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
            let stored = self.keep(key, key, content, self.durable);
            // What cannot be stored is made again.
            self.held.remove(key);
            stored
        };
        objects.iter().map(store).collect()
    }
}
