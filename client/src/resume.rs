//! What a resumed run begins with: which results of the earlier run are still there, which tasks are ready.

use std::path::Path;

use foresail_schemas::Workflow;
use foresail_schemas::id::{RunId, TaskId};
use foresail_schemas::run::{Commit, Location, Operation, OperationResult};

use crate::error::ClientError;
use crate::http::Call;
use crate::watch::Services;

/// Tasks that are asked about in one request.
const TASKS_PER_REQUEST: usize = 5_000;

/// Tasks of an ended run whose result has an object that is lost. Looked for where the folder of the objects
/// is known; objects in metad are kept as long as their run, and one missing in a bucket is made again when
/// a task finds it so.
///
/// # Errors
/// [`ClientError`] when metad does not answer or has no such run.
pub(crate) async fn lost(services: &Services, run: &RunId) -> Result<Vec<TaskId>, ClientError> {
    let Some(folder) = services.metad.settings().objects.clone() else { return Ok(Vec::new()) };
    let call = Call::get(&["v1", "runs", run.as_str(), "workflow"]);
    let workflow: Workflow = services.metad.json(call).await?;
    let mut lost = Vec::new();
    for tasks in all(&workflow).chunks(TASKS_PER_REQUEST) {
        let asked = Operation::Commits { tasks: tasks.to_vec() };
        for result in services.operate(run, vec![asked]).await?.results {
            let OperationResult::Commits { commits } = result else { continue };
            let gone = |(task, commit): (&u32, Option<Commit>)| {
                commit.is_some_and(|c| is_lost(&folder, &c)).then(|| workflow.task(*task).id.clone())
            };
            lost.extend(tasks.iter().zip(commits).filter_map(gone));
        }
    }
    Ok(lost)
}

/// Tasks of a run that are ready and that nobody has.
///
/// # Errors
/// [`ClientError`] when metad does not answer.
pub(crate) async fn ready(
    services: &Services,
    run: &RunId,
    workflow: &Workflow,
) -> Result<Vec<u32>, ClientError> {
    let mut found = Vec::new();
    for tasks in all(workflow).chunks(TASKS_PER_REQUEST) {
        for result in services.operate(run, vec![Operation::Open { tasks: tasks.to_vec() }]).await?.results {
            if let OperationResult::Open { ready, .. } = result {
                found.extend(ready);
            }
        }
    }
    Ok(found)
}

fn all(workflow: &Workflow) -> Vec<u32> {
    (0..workflow.tasks().len() as u32).collect()
}

fn is_lost(folder: &Path, commit: &Commit) -> bool {
    commit.outputs.iter().any(|output| match &output.location {
        Location::Stored(key) => {
            let found = std::fs::metadata(folder.join(key));
            !found.is_ok_and(|file| file.len() == output.bytes)
        }
        Location::Inline(_) | Location::Unstored(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use foresail_schemas::run::{Measured, StoredObject};

    use super::*;

    #[test]
    fn an_object_is_lost_when_its_file_is_gone_or_has_another_size() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("here"), b"four").unwrap();
        let commit = |key: &str, bytes| Commit {
            attempt: 1,
            instance: "i".parse().unwrap(),
            outputs: vec![StoredObject {
                bytes,
                hash: String::new(),
                location: Location::Stored(key.to_owned()),
            }],
            measured: Measured::default(),
            decision: None,
            printed: None,
        };
        let lost = |key, bytes| is_lost(folder.path(), &commit(key, bytes));
        assert_eq!((lost("here", 4), lost("here", 5), lost("gone", 4)), (false, true, true));
    }
}
