//! Where objects too large for a commit record lie between tasks: files of a directory, blobs of metad, or a
//! bucket ([`super::s3`]).
//!
//! A put is atomic: a key holds the whole object or nothing. Keys are
//! `{run}/{task}=={attempt}-{instance}=={output}`, so no two attempts ever write the same key and an object
//! never changes. A run has one directory: those of a task and an attempt would take a file system longer to
//! make than a small object, and a durable one would wait for each of them. A large file is mapped, so that
//! all its readers on this machine share its pages. All calls block. Sizes in bytes.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use foresail_schemas::id::{InstanceId, ObjectName, RunId, TaskId};
use tokio::runtime::Handle;

use super::mapped::{self, SHARED_BYTES_MIN};
use crate::api::{ApiError, TRANSFER_LIMIT};
use crate::metad::Metad;

/// Longest encoded part of a key; a longer one is replaced by its beginning and its hash.
const PART_LEN_MAX: usize = 200;
/// Between the names in a part: an encoded name has `=` only before a hexadecimal digit.
const BETWEEN: &str = "==";
/// Tries of one request to a remote store.
const TRIES_MAX: u32 = 5;
/// Pause after the first failed try; it doubles with each.
const PAUSE_FIRST: Duration = Duration::from_millis(50);

/// Why an object could not be written, read or deleted.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing lies under this key.
    #[error("object `{key}` is not in the store `{store}`")]
    Missing {
        /// The key.
        key: String,
        /// The store.
        store: &'static str,
    },
    /// The store will not do it however often it is asked.
    #[error("object `{key}` is refused by the store `{store}`: {cause}")]
    Refused {
        /// The key.
        key: String,
        /// The store.
        store: &'static str,
        /// Why.
        cause: String,
    },
    /// The store did not do what was asked.
    #[error("object `{key}` in the store `{store}`: {cause}")]
    Failed {
        /// The key.
        key: String,
        /// The store.
        store: &'static str,
        /// Why.
        cause: String,
    },
}

/// A store of objects that never change.
pub trait ObjectStore: Send + Sync {
    /// Its name in measurements.
    fn name(&self) -> &'static str;

    /// Writes a whole object.
    ///
    /// # Errors
    /// [`StoreError::Failed`]; nothing is there then, or the whole object.
    fn put(&self, key: &str, object: &Bytes) -> Result<(), StoreError>;

    /// Writes a whole object that can be made again: it outlives every process, and need not outlive a loss
    /// of power. Whoever reads it compares it with its hash, and a run makes it again where it is not whole.
    ///
    /// # Errors
    /// [`StoreError::Failed`], as of [`ObjectStore::put`].
    fn put_rebuildable(&self, key: &str, object: &Bytes) -> Result<(), StoreError> {
        self.put(key, object)
    }

    /// Whether an object of this size is read in place, in memory that all workers of this machine share.
    fn is_shared(&self, bytes: u64) -> bool {
        let _ = bytes;
        false
    }

    /// The directory on whose file system objects lie, where they do; it is made.
    fn dir(&self) -> Option<PathBuf> {
        None
    }

    /// Reads a whole object.
    ///
    /// # Errors
    /// [`StoreError`] when nothing is there or the store does not answer.
    fn get(&self, key: &str) -> Result<Bytes, StoreError>;

    /// Deletes an object; one that is not there is no error.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when the store does not answer.
    fn delete(&self, key: &str) -> Result<(), StoreError>;

    /// Whether the store can be reached and read, asked once before anything rests on it.
    ///
    /// # Errors
    /// [`StoreError::Failed`] with the reason.
    fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Deletes the objects of a run whose keys are not `kept`; gives how many. Stores that do not know what
    /// they hold of a run delete nothing here.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when the store does not answer; some are deleted then.
    fn sweep(&self, run: &RunId, kept: &HashSet<String>) -> Result<u64, StoreError> {
        let _ = (run, kept);
        Ok(0)
    }

    /// Deletes everything that it holds; gives how many objects that were. Stores that do not know what they
    /// hold delete nothing here.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when the store does not answer; some are deleted then.
    fn clear(&self) -> Result<u64, StoreError> {
        Ok(0)
    }
}

/// The key of an output; every part is safe in a path and in an address.
#[must_use]
pub fn object_key(
    run: &RunId,
    task: &TaskId,
    attempt: u32,
    instance: &InstanceId,
    output: &ObjectName,
) -> String {
    let attempt = format!("{attempt}-{instance}");
    let name = [task.as_str(), &attempt, output.as_str()].map(safe_part).join(BETWEEN);
    format!("{}/{}", safe_part(run.as_str()), shortened(name))
}

/// Letters, digits, `_`, `-` and inner `.` stay, every other byte becomes `=XX`.
pub(crate) fn safe_part(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => safe.push(byte as char),
            b'.' if at > 0 => safe.push('.'),
            _ => safe.push_str(&format!("={byte:02X}")),
        }
    }
    shortened(safe)
}

/// A part that is too long, by its beginning and its hash.
fn shortened(mut safe: String) -> String {
    if safe.len() > PART_LEN_MAX {
        let hash = blake3::hash(safe.as_bytes()).to_hex();
        safe.truncate(PART_LEN_MAX - 65);
        safe = format!("{safe}={hash}");
    }
    safe
}

/// The run whose keys begin with this part; nothing where that was shortened or is none.
pub(crate) fn run_of_part(part: &str) -> Option<RunId> {
    let mut pieces = part.split('=');
    let mut name = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2)?;
        name.push(u8::from_str_radix(digits, 16).ok()?);
        name.extend(rest.bytes());
    }
    let run = RunId::new(String::from_utf8(name).ok()?).ok()?;
    (safe_part(run.as_str()) == part).then_some(run)
}

/// Objects as files below a directory that all workers see.
#[derive(Debug, Clone)]
pub struct FileStore {
    root: PathBuf,
}

impl FileStore {
    /// A store below `root`, which is made when the first object is written.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Writes a file; `ready` is done with its content before it has its name.
    fn write(
        &self,
        path: &Path,
        object: &Bytes,
        ready: fn(&File) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let dir = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(dir)?;
        if !mapped::link(object, path, ready)? {
            let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
            file.write_all(object)?;
            ready(file.as_file())?;
            file.persist(path).map_err(|e| e.error)?;
        }
        Ok(())
    }

    /// A commit may be durable at once, and a power loss must not take the object of a commit: its content is
    /// on disk before it has its name, and its name before the put ends.
    fn write_durably(&self, path: &Path, object: &Bytes) -> std::io::Result<()> {
        let dir = path.parent().unwrap_or(&self.root);
        // The directory is that of one attempt alone: who finds it missing makes its name durable too.
        let is_new = !dir.exists();
        self.write(path, object, File::sync_all)?;
        let made =
            if is_new { dir.ancestors().take_while(|up| up.starts_with(&self.root)).count() } else { 1 };
        dir.ancestors().take(made.max(1)).try_for_each(|up| File::open(up)?.sync_all())
    }
}

impl ObjectStore for FileStore {
    fn name(&self) -> &'static str {
        "file"
    }

    fn put(&self, key: &str, object: &Bytes) -> Result<(), StoreError> {
        self.write_durably(&self.path(key)?, object).map_err(|e| self.failed(key, e))
    }

    fn put_rebuildable(&self, key: &str, object: &Bytes) -> Result<(), StoreError> {
        self.write(&self.path(key)?, object, |_| Ok(())).map_err(|e| self.failed(key, e))
    }

    fn is_shared(&self, bytes: u64) -> bool {
        bytes >= SHARED_BYTES_MIN
    }

    fn dir(&self) -> Option<PathBuf> {
        fs::create_dir_all(&self.root).ok().map(|()| self.root.clone())
    }

    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        match mapped::content(&self.path(key)?) {
            Ok(content) => Ok(content),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                Err(StoreError::Missing { key: key.to_owned(), store: self.name() })
            }
            Err(e) => Err(self.failed(key, e)),
        }
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        match fs::remove_file(self.path(key)?) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(self.failed(key, e)),
            _ => Ok(()),
        }
    }
}

/// Refuses a key that leads out of the store: keys are read from commits.
pub(super) fn check_key(key: &str, store: &'static str) -> Result<(), StoreError> {
    match key.split('/').all(|part| !matches!(part, "" | "." | "..")) {
        true => Ok(()),
        false => {
            let cause = "a key has no empty part and no `.` or `..`".to_owned();
            Err(StoreError::Failed { key: key.to_owned(), store, cause })
        }
    }
}

impl FileStore {
    fn path(&self, key: &str) -> Result<PathBuf, StoreError> {
        check_key(key, self.name())?;
        Ok(self.root.join(key))
    }

    fn failed(&self, key: &str, error: std::io::Error) -> StoreError {
        let cause = format!("{error} (below `{}`)", self.root.display());
        StoreError::Failed { key: key.to_owned(), store: self.name(), cause }
    }
}

/// Objects as blobs of a run in metad.
#[derive(Debug, Clone)]
pub struct BlobStore {
    metad: Metad,
    run: RunId,
    handle: Handle,
    limit: Duration,
}

impl BlobStore {
    /// The blobs of `run`; requests run on the runtime of `handle`, which must not be the calling thread's.
    #[must_use]
    pub fn new(metad: Metad, run: RunId, handle: Handle) -> Self {
        Self { metad, run, handle, limit: TRANSFER_LIMIT }
    }

    /// The same, with another limit of the time of a call, its repetitions included.
    #[must_use]
    pub fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    fn with_retries<T, F>(&self, key: &str, mut ask: impl FnMut() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        check_key(key, self.name())?;
        let (ends, mut tries) = (Instant::now() + self.limit, 1);
        loop {
            let left = ends.saturating_duration_since(Instant::now());
            let asked = self.handle.block_on(async { tokio::time::timeout(left, ask()).await });
            let Ok(answer) = asked else {
                let cause = format!("`{}` did not answer within {:?}", self.metad.base(), self.limit);
                return Err(StoreError::Failed { key: key.to_owned(), store: self.name(), cause });
            };
            match answer {
                Ok(done) => return Ok(done),
                Err(e) if e.is_missing() => {
                    return Err(StoreError::Missing { key: key.to_owned(), store: self.name() });
                }
                Err(e) if e.is_final() => {
                    let cause = e.to_string();
                    return Err(StoreError::Refused { key: key.to_owned(), store: self.name(), cause });
                }
                Err(e) if tries >= TRIES_MAX || !e.is_retryable() => {
                    return Err(StoreError::Failed {
                        key: key.to_owned(),
                        store: self.name(),
                        cause: e.to_string(),
                    });
                }
                Err(_) => std::thread::sleep(PAUSE_FIRST * (1 << (tries - 1))),
            }
            tries += 1;
        }
    }
}

impl ObjectStore for BlobStore {
    fn name(&self) -> &'static str {
        "metad"
    }

    fn put(&self, key: &str, object: &Bytes) -> Result<(), StoreError> {
        self.with_retries(key, || self.metad.put_blob(&self.run, key, object.clone()))
    }

    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.with_retries(key, || self.metad.get_blob(&self.run, key))
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        match self.with_retries(key, || self.metad.delete_blob(&self.run, key)) {
            Err(StoreError::Missing { .. }) => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_safe_and_tell_attempts_apart() {
        let (run, instance) = (RunId::new("r:1").unwrap(), InstanceId::new("w-1.a").unwrap());
        let task = TaskId::new("t@x").unwrap();
        let key = |attempt, output: &str| {
            object_key(&run, &task, attempt, &instance, &ObjectName::new(output).unwrap())
        };
        assert_eq!(key(1, "out"), "r=3A1/t=40x==1-w-1.a==out");
        assert_eq!(key(1, "../a b"), "r=3A1/t=40x==1-w-1.a===2E.=2Fa=20b");
        assert_ne!(key(1, "out"), key(2, "out"));
        let (long, other) = ("x".repeat(1000), format!("{}y", "x".repeat(999)));
        assert!(key(1, &long).rsplit('/').next().unwrap().len() <= PART_LEN_MAX);
        assert_ne!(key(1, &long), key(1, &other));
    }

    #[test]
    fn a_file_store_gives_back_what_was_put() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::new(dir.path().join("objects"));
        let object = Bytes::from_static(b"content");
        assert!(matches!(store.get("r/t/1-w/out"), Err(StoreError::Missing { .. })));
        store.put("r/t/1-w/out", &object).unwrap();
        store.put("r/t/1-w/out", &object).unwrap();
        assert_eq!(store.get("r/t/1-w/out").unwrap(), object);
        store.delete("r/t/1-w/out").unwrap();
        store.delete("r/t/1-w/out").unwrap();
        assert!(matches!(store.get("r/t/1-w/out"), Err(StoreError::Missing { .. })));
    }

    #[test]
    fn a_put_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::new(dir.path());
        store.put("a", &Bytes::from_static(b"1")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_store_that_cannot_be_written_says_where() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = FileStore::new(&file).put("a", &Bytes::new()).unwrap_err();
        assert!(error.to_string().contains(&file.display().to_string()), "{error}");
    }
}
