//! Pre-load: inputs of a task that has not begun are brought into memory.
//!
//! What fails is forgotten: the task fetches it again when it begins, and says what is wrong if it must.

use std::sync::atomic::Ordering;

use foresail_schemas::Workflow;
use foresail_schemas::run::{Commit, Location, StoredObject};
use foresail_schemas::workflow::Input;

use super::{Data, Found, external, lock};

impl Data {
    /// Fetches what `task` reads from outside the workflow and of these parents, one object after another in
    /// the order of its inputs. An object that is there, on its way, inside its commit or larger than the
    /// memory for objects is left out.
    pub fn preload(&self, workflow: &Workflow, task: u32, parents: &[(u32, Commit)]) {
        for input in &workflow.task(task).inputs {
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            let outcome = match input {
                Input::Value { .. } => Ok(()),
                Input::External { uri, .. } => self.preload_external(uri),
                Input::Task { task: parent, output, .. } => {
                    let graph = workflow.graph();
                    let made = graph.find(parent).and_then(|p| parents.iter().find(|(made, _)| *made == p));
                    let object = made.and_then(|(p, commit)| {
                        let names = workflow.task(*p).output_names();
                        commit.outputs.get(names.iter().position(|name| name == output)?)
                    });
                    object.map_or(Ok(()), |object| self.preload_object(object))
                }
            };
            if let Err(cause) = outcome {
                tracing::debug!(task, cause, "an input was not fetched beforehand");
            }
        }
    }

    /// Nothing more is fetched beforehand; what is on its way comes to its end by itself.
    pub fn end_preloads(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    fn preload_object(&self, object: &StoredObject) -> Result<(), String> {
        let Location::Stored(key) = &object.location else { return Ok(()) };
        if !lock(&self.cache).can_keep(object.bytes) {
            return Ok(());
        }
        if let Found::Nowhere(_fetch) = self.fetches.find(key, || lock(&self.cache).get(key)) {
            self.fetch(key, object).map_err(|unread| unread.cause)?;
            lock(&self.account).fetched_early.insert(key.clone());
        }
        Ok(())
    }

    fn preload_external(&self, uri: &str) -> Result<(), String> {
        let key = self.external_key(uri);
        let len = std::fs::metadata(external::path(uri)?).map_err(|e| e.to_string())?.len();
        if !lock(&self.cache).can_keep(len) {
            return Ok(());
        }
        if let Found::Nowhere(_fetch) = self.fetches.find(&key, || lock(&self.cache).get(&key)) {
            self.fetch_external(&key, uri)?;
            lock(&self.account).fetched_early.insert(key.clone());
        }
        Ok(())
    }
}
