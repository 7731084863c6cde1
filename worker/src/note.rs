//! Notes of what runs in a worker, for the host that finds the worker dead.
//!
//! A worker that a function takes down (memory, a fault) cannot tell anybody. So it leaves a small file per
//! running attempt in its scratch directory; the host reads them when the process is gone and reports the
//! failure, instead of everybody waiting for the lease to end.

use std::fs;
use std::path::{Path, PathBuf};

use foresail_schemas::id::{InstanceId, RunId, TaskId};
use serde::{Deserialize, Serialize};

/// An attempt that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// The run.
    pub run: RunId,
    /// The invocation.
    pub instance: InstanceId,
    /// The task, by index.
    pub task: u32,
    /// Its id.
    pub task_id: TaskId,
    /// The attempt.
    pub attempt: u32,
}

/// A note on disk; gone when dropped.
#[derive(Debug)]
pub(crate) struct Pinned(PathBuf);

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Note {
    /// Leaves the note in `dir`. Where that fails the lease ends by itself.
    pub(crate) fn pin(&self, dir: &Path) -> Pinned {
        let path = dir.join(format!("running-{}-{}.json", self.task, self.attempt));
        let written = serde_json::to_vec(self).map_err(Into::into).and_then(|text| fs::write(&path, text));
        if let Err(error) = written {
            tracing::warn!(%error, path = %path.display(), "no note of the running task for the host");
        }
        Pinned(path)
    }

    /// The notes in `dir`.
    pub(crate) fn read_all(dir: &Path) -> Vec<Self> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("running-"))
            .filter_map(|entry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_there_while_it_is_pinned() {
        let dir = tempfile::tempdir().unwrap();
        let note = Note {
            run: RunId::new("r").unwrap(),
            instance: InstanceId::new("f-1").unwrap(),
            task: 3,
            task_id: TaskId::new("t").unwrap(),
            attempt: 1,
        };
        let pinned = note.pin(dir.path());
        assert_eq!(Note::read_all(dir.path()), [note]);
        drop(pinned);
        assert!(Note::read_all(dir.path()).is_empty());
    }
}
