//! Objects of a remote store that the workers of one machine share, as in FaaStore (Li et al., FaaSFlow,
//! ASPLOS'22): who writes or fetches one leaves it in a directory that the others map.
//!
//! Where the store itself is a directory of this machine its own files are mapped instead, see
//! [`mapped`](super::mapped). Bounded in bytes for all workers together; past that the oldest go first, which
//! loses nothing, because the store has every object. Nothing here is durable: files are not synced, and the
//! host empties the directory when it starts, and the part of a run when that has ended. A file is written in
//! the scratch directory of its process, which the host deletes when the process dies, and moved to its place
//! whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::mapped::{self, SHARED_BYTES_MIN};

/// Name of the file that whoever adds an object holds the lock of.
const LOCK: &str = ".lock";

/// The shared objects of a machine, as one of its workers sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedMemory {
    /// Where they lie, by run.
    pub dir: PathBuf,
    /// Most bytes of all objects together.
    pub bytes_max: u64,
}

/// A file that is there.
struct Entry {
    since: SystemTime,
    path: PathBuf,
    bytes: u64,
}

impl SharedMemory {
    /// The object of this key, mapped; nothing where it is not here.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Bytes> {
        mapped::content(&self.path(key)).ok()
    }

    /// Leaves an object for the other workers, through `scratch`, a directory of this process on the same
    /// file system. One that is small or larger than all may be together is left out.
    ///
    /// # Errors
    /// When it cannot be written; nothing is there then.
    pub fn put(&self, key: &str, object: &Bytes, scratch: &Path) -> io::Result<()> {
        let bytes = object.len() as u64;
        if bytes < SHARED_BYTES_MIN || bytes > self.bytes_max {
            return Ok(());
        }
        let path = self.path(key);
        fs::create_dir_all(path.parent().unwrap_or(&self.dir))?;
        let locked = self.make_room(bytes)?;
        if mapped::link(object, &path, |_| Ok(()))? {
            return Ok(());
        }
        drop(locked);
        let mut file = tempfile::Builder::new().prefix("shared-").tempfile_in(scratch)?;
        file.write_all(object)?;
        let _locked = self.make_room(bytes)?;
        file.persist(&path).map(drop).map_err(|e| e.error)
    }

    /// Forgets an object.
    pub fn remove(&self, key: &str) {
        let _ = fs::remove_file(self.path(key));
    }

    /// Forgets what a run left, named by the first part of its keys.
    pub fn forget(&self, run_part: &str) {
        let _ = fs::remove_dir_all(self.dir.join(run_part));
    }

    /// Deletes the oldest objects until so many bytes more are allowed; nobody else adds any as long as the
    /// file that is returned is open.
    fn make_room(&self, bytes: u64) -> io::Result<File> {
        let lock = File::create(self.dir.join(LOCK))?;
        lock.lock()?;
        let mut entries = self.entries();
        let mut sum: u64 = entries.iter().map(|entry| entry.bytes).sum();
        entries.sort_by_key(|entry| entry.since);
        for entry in entries {
            if sum + bytes <= self.bytes_max {
                break;
            }
            // One that somebody else has just deleted is gone all the same.
            let _ = fs::remove_file(&entry.path);
            sum -= entry.bytes;
        }
        Ok(lock)
    }

    fn entries(&self) -> Vec<Entry> {
        let below = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
        let runs = below(&self.dir).filter(|entry| entry.path().is_dir());
        let files = runs.flat_map(|run| below(&run.path()));
        let entry = |file: fs::DirEntry| {
            let about = file.metadata().ok()?;
            Some(Entry { since: about.modified().ok()?, path: file.path(), bytes: about.len() })
        };
        files.filter_map(entry).collect()
    }

    /// A flat name in the directory of the run, which is the first part of the key.
    fn path(&self, key: &str) -> PathBuf {
        let run = key.split('/').next().unwrap_or_default();
        // A key is read from a commit; what is no plain name is none of ours and finds nothing.
        let run = if matches!(run, "" | "." | "..") { "=" } else { run };
        self.dir.join(run).join(blake3::hash(key.as_bytes()).to_hex().as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = SHARED_BYTES_MIN;

    fn shared(dir: &Path, objects_max: u64) -> SharedMemory {
        SharedMemory { dir: dir.join("shared"), bytes_max: objects_max * LEN }
    }

    fn object(byte: u8) -> Bytes {
        vec![byte; LEN as usize].into()
    }

    #[test]
    fn what_one_leaves_another_maps_and_nothing_else_stays() {
        let (dir, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let shared = shared(dir.path(), 4);
        assert_eq!(shared.get("r/t/1-w/out"), None);
        shared.put("r/t/1-w/out", &object(1), scratch.path()).unwrap();
        assert_eq!(shared.clone().get("r/t/1-w/out"), Some(object(1)));
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
        shared.forget("r");
        assert_eq!((shared.get("r/t/1-w/out"), shared.entries().len()), (None, 0));
    }

    #[test]
    fn past_the_quota_the_oldest_go_and_the_quota_holds() {
        let dir = tempfile::tempdir().unwrap();
        let shared = shared(dir.path(), 3);
        for at in 0..10 {
            shared.put(&format!("r-{at}/t/1-w/out"), &object(at), dir.path()).unwrap();
            assert!(shared.entries().iter().map(|e| e.bytes).sum::<u64>() <= shared.bytes_max);
            // Times of files are as fine as the clock tick of the kernel.
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let left: Vec<u8> = (0..10).filter(|at| shared.get(&format!("r-{at}/t/1-w/out")).is_some()).collect();
        assert_eq!(left, [7, 8, 9]);
    }

    #[test]
    fn an_object_larger_than_the_quota_displaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let shared = shared(dir.path(), 1);
        shared.put("r/a", &object(1), dir.path()).unwrap();
        shared.put("r/b", &vec![0; LEN as usize + 1].into(), dir.path()).unwrap();
        assert!(shared.get("r/a").is_some() && shared.get("r/b").is_none());
    }

    #[test]
    fn a_key_that_leads_elsewhere_finds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let shared = shared(dir.path(), 1);
        for key in ["../x", "/etc/passwd", "", ".", "a"] {
            assert_eq!(shared.get(key), None, "{key}");
            assert!(shared.path(key).starts_with(&shared.dir), "{key}");
        }
    }
}
