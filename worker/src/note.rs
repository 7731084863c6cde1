//! Notes of what runs in a worker, for the host that finds the worker dead.
//!
//! A worker that a function takes down (memory, a fault) cannot tell anybody. So it writes into a file of its
//! scratch directory, a line per running attempt in a place of its own; the host reads them when the process
//! is gone and reports the failure, instead of everybody waiting for the lease to end. A note costs two
//! writes to memory of the kernel, which outlives the process.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use foresail_schemas::id::{InstanceId, RunId, TaskId};
use serde::{Deserialize, Serialize};

/// The file.
const FILE: &str = "running";
/// Room for a note: three names and two numbers.
const NOTE_BYTES_MAX: usize = 4096;

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

/// The notes of a worker.
#[derive(Debug)]
pub(crate) struct Notes {
    /// Nothing where it cannot be written: then leases end by themselves.
    file: Option<File>,
    /// Places that are free, below all that were ever taken.
    free: Mutex<(Vec<u64>, u64)>,
}

/// A note in its place; gone when dropped.
#[derive(Debug)]
pub(crate) struct Pinned<'a> {
    notes: &'a Notes,
    place: u64,
}

impl Notes {
    /// The notes of a worker with this scratch directory.
    pub(crate) fn in_dir(dir: &Path) -> Self {
        let path = dir.join(FILE);
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path);
        let file = file.inspect_err(|error| {
            tracing::warn!(%error, path = %path.display(), "no notes of running tasks for the host");
        });
        Self { file: file.ok(), free: Mutex::default() }
    }

    /// Leaves a note.
    pub(crate) fn pin(&self, note: &Note) -> Pinned<'_> {
        let place = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            free.0.pop().unwrap_or_else(|| {
                free.1 += 1;
                free.1 - 1
            })
        };
        let mut line = serde_json::to_vec(note).unwrap_or_default();
        line.truncate(NOTE_BYTES_MAX - 1);
        line.push(b'\n');
        self.write(place, &line);
        Pinned { notes: self, place }
    }

    fn write(&self, place: u64, line: &[u8]) {
        let Some(file) = &self.file else { return };
        if let Err(error) = file.write_all_at(line, place * NOTE_BYTES_MAX as u64) {
            tracing::warn!(%error, "no note of a running task for the host");
        }
    }

    /// The notes in the scratch directory of a worker that has ended.
    pub(crate) fn read_all(dir: &Path) -> Vec<Note> {
        let content = std::fs::read(dir.join(FILE)).unwrap_or_default();
        let note = |place: &[u8]| serde_json::from_slice(place.split(|byte| *byte == b'\n').next()?).ok();
        content.chunks(NOTE_BYTES_MAX).filter_map(note).collect()
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        self.notes.write(self.place, b"\n");
        self.notes.free.lock().unwrap_or_else(PoisonError::into_inner).0.push(self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_there_while_it_is_pinned() {
        let dir = tempfile::tempdir().unwrap();
        let note = |task| Note {
            run: RunId::new("r").unwrap(),
            instance: InstanceId::new("f-1").unwrap(),
            task,
            task_id: TaskId::new("t").unwrap(),
            attempt: 1,
        };
        let notes = Notes::in_dir(dir.path());
        assert!(Notes::read_all(dir.path()).is_empty());
        let first = notes.pin(&note(1));
        let second = notes.pin(&note(2));
        assert_eq!(Notes::read_all(dir.path()), [note(1), note(2)]);
        drop(first);
        assert_eq!(Notes::read_all(dir.path()), [note(2)]);
        let third = notes.pin(&note(3));
        assert_eq!(Notes::read_all(dir.path()), [note(3), note(2)], "in the place that was free");
        drop((second, third));
        assert!(Notes::read_all(dir.path()).is_empty());
    }
}
