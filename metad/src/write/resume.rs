//! What a new run takes over from one that has ended: its results, and their objects where metad keeps them.

use foresail_schemas::run::{Commit, Location, Resume, RunStatus};
use foresail_schemas::{ErrorCode, Problem, RunId, Workflow};

use super::{Group, Runs};
use crate::shared::Shared;
use crate::store::StoreError;

/// Results of an earlier run.
pub(super) struct Taken {
    /// It.
    pub of: RunId,
    /// Its number in the store.
    number: u64,
    /// By task of the new run, parents before children.
    pub results: Vec<(u32, Commit)>,
}

impl Runs {
    /// The results of the run that stand for tasks of `workflow`.
    pub(super) fn take_over(
        &mut self,
        resume: &Resume,
        workflow: &Workflow,
        group: &Group,
        shared: &Shared,
    ) -> Result<Result<Taken, Problem>, StoreError> {
        let old = match self.get(&resume.run, group, shared)? {
            Ok(old) => old,
            Err(problem) => return Ok(Err(problem)),
        };
        let of = resume.run.clone();
        if old.ledger.status() == RunStatus::Running {
            let detail = format!("run `{of}` has not ended, only one that has can be resumed");
            return Ok(Err(Problem::new(ErrorCode::RunNotOver, detail)));
        }
        let results = old.ledger.reusable(&old.workflow, workflow, &resume.without);
        Ok(Ok(Taken { of, number: old.number, results }))
    }
}

impl Taken {
    /// The new run has objects of its own, so that the old one can be dropped. What is not here lies in
    /// another store, whose keys do not belong to a run.
    pub(super) fn copy_blobs(&self, to_number: u64, group: &mut Group) -> Result<(), StoreError> {
        let objects = self.results.iter().flat_map(|(_, commit)| &commit.outputs);
        let keys = objects.filter_map(|object| match &object.location {
            Location::Stored(key) => Some(key),
            Location::Inline(_) | Location::Unstored(_) => None,
        });
        let writes = group.writes()?;
        for key in keys {
            if let Some(content) = writes.blob(self.number, key)? {
                // The limit was kept by the run that they were written by.
                writes.put_blob(to_number, key, &content, u64::MAX)?;
            }
        }
        Ok(())
    }
}
