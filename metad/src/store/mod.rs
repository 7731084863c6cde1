//! The store: the only place that names redb.
//!
//! Two files in the data directory: `metad.redb`, the database, and `metad.journal`, which takes each group
//! first and is the only one that is synced for it ([`journal`], [`group`]). Every table belongs to one key
//! family, and every family to one file here, which says how its keys and values are laid out, in which
//! version, and proves that they come back as they went in. Integers in keys are those of redb (ordered,
//! little-endian on disk), names are their UTF-8 bytes.
//!
//! | file | table | key | value |
//! |---|---|---|---|
//! | `mod.rs` | `meta` | text | `schema` -> version of the whole layout, [`SCHEMA_VERSION`] |
//! | [`group`], [`ahead`] | `meta` | text | `journal_sequence`, `journal_salt`: what the journal has beyond |
//! | [`workflows`] | `workflows` | number of the workflow | name and counters, postcard |
//! | [`batches`] | `batches` | (workflow, sequence) | one value per batch: record count, then postcard |
//! | [`batch_ids`] | `batch_ids` | (workflow, batch id) | the first answer, postcard |
//! | | `batch_order` | (workflow, sequence) | batch id |
//! | [`models`] | `models` | workflow | sequence up to which it learnt, then postcard of the model |
//! | [`quarantine`] | `quarantine` | (workflow, number) | the record and why it was set aside, JSON |
//! | [`runs`] | `runs`, `run_ids`, `run_ends` | run number, run id | header, number, last summary, JSON |
//! | [`documents`] | `run_workflows`, `run_plans` | run, (run, epoch) | the JSON text that is served |
//! | [`run_events`] | `run_events` | (run, first event) | up to 128 of one commit group, a JSON array |
//! | [`blobs`] | `blobs`, `blob_totals` | (run, key), run | content, bytes of all blobs of the run |
//!
//! Values that hold wire types of `foresail-schemas` are JSON, because those enums carry their tag inside and
//! only a self-describing format can read them back; all others begin with a version byte and go on as
//! postcard. Nothing that is read is trusted: what cannot be decoded is a [`StoreError::Corrupt`], never a
//! panic.
//!
//! [`StoreWriter`] exists once and belongs to the writer thread. [`StoreReader`] may be cloned; a read sees
//! everything that was answered before it ([`ahead`]). Predictions read nothing here.

mod ahead;
pub mod batch_ids;
pub mod batches;
pub mod blobs;
mod change;
#[cfg(test)]
pub(crate) mod crash_tests;
pub mod documents;
mod group;
mod journal;
pub mod models;
pub mod quarantine;
pub mod run_events;
pub mod runs;
pub mod workflows;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ahead::Log;
pub use group::{StoreWriter, WriteGroup};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

/// Version of the whole layout. A change of layout raises it and teaches `open` to bring older files along.
/// Version 2 has a journal beside it, without which the last changes would be missing.
pub const SCHEMA_VERSION: u64 = 2;
/// Name of the file in the data directory.
pub const FILE_NAME: &str = "metad.redb";
/// Memory that redb may use to keep pages, in bytes.
const CACHE_BYTES: usize = 256 << 20;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data directory or the file in it cannot be opened.
    #[error("the store `{path}` cannot be opened: {reason}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Written by a newer metad.
    #[error(
        "the store has layout {found}, this metad understands up to {SCHEMA_VERSION}\n\
         hint: start the newer metad that wrote it, or choose another --data directory"
    )]
    Newer {
        /// Version found.
        found: u64,
    },
    /// A value that cannot be read.
    #[error("table `{table}`, key `{key}`: {reason}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The key.
        key: String,
        /// What is wrong with the value.
        reason: String,
    },
    /// The journal cannot be read or written.
    #[error("the journal failed: {0}")]
    Journal(#[source] std::io::Error),
    /// What was stored cannot be shown.
    #[error("the last changes are stored but cannot be read\nhint: restart metad; it brings them back")]
    Behind,
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(Box<redb::Error>),
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                Self::Database(Box::new(error.into()))
            }
        })*
    };
}
from_redb!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    redb::SetDurabilityError
);

/// Shorthand of this module.
pub type Result<T> = std::result::Result<T, StoreError>;

/// A [`StoreError::Corrupt`] of `table` at `key`.
fn corrupt(table: &'static str, key: impl std::fmt::Debug, reason: impl ToString) -> StoreError {
    StoreError::Corrupt { table, key: format!("{key:?}"), reason: reason.to_string() }
}

/// Reads: each [`ReadView`] sees one committed state.
#[derive(Debug, Clone)]
pub struct StoreReader {
    database: Arc<Database>,
    log: Option<Arc<Log>>,
}

/// One committed state of the store.
pub struct ReadView(redb::ReadTransaction);

/// Opens the store in `directory`, which is made where it does not exist.
///
/// # Errors
/// [`StoreError`] when the directory cannot be made, another metad has the file open, or a newer one
/// wrote it.
pub fn open(directory: &Path) -> Result<(StoreWriter, StoreReader)> {
    let path = directory.join(FILE_NAME);
    let refused = |reason: String| StoreError::Open { path: path.clone(), reason };
    // Results and code are for its owner alone; a directory that is there keeps the rights that it was given.
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|e| refused(e.to_string()))?;
    let database = redb::Builder::new().set_cache_size(CACHE_BYTES).create(&path).map_err(|e| match e {
        redb::DatabaseError::DatabaseAlreadyOpen => {
            refused("another metad has it open\nhint: stop it or choose another --data directory".to_owned())
        }
        other => refused(other.to_string()),
    })?;
    // The database is locked from here on, so the journal is this process's too.
    prepare(&database)?;
    let journal = group::replay(&database, &directory.join(journal::FILE_NAME))?;
    let database = Arc::new(database);
    let log = Log::new(Arc::clone(&database), journal);
    Ok(opened(database, Some(Arc::new(log))))
}

fn opened(database: Arc<Database>, log: Option<Arc<Log>>) -> (StoreWriter, StoreReader) {
    (StoreWriter { database: Arc::clone(&database), log: log.clone() }, StoreReader { database, log })
}

/// Checks the version and makes every table, so that a read never meets one that is missing.
fn prepare(database: &Database) -> Result<()> {
    let group = database.begin_write()?;
    {
        let mut meta = group.open_table(META)?;
        let found = meta.get("schema")?.map(|v| v.value());
        match found {
            Some(found) if found > SCHEMA_VERSION => return Err(StoreError::Newer { found }),
            Some(SCHEMA_VERSION) => {}
            _ => {
                meta.insert("schema", SCHEMA_VERSION)?;
            }
        }
    }
    workflows::prepare(&group)?;
    batches::prepare(&group)?;
    batch_ids::prepare(&group)?;
    models::prepare(&group)?;
    quarantine::prepare(&group)?;
    runs::prepare(&group)?;
    documents::prepare(&group)?;
    run_events::prepare(&group)?;
    blobs::prepare(&group)?;
    Ok(group.commit()?)
}

impl StoreReader {
    /// The state with everything that was stored before the call. It waits at most for the group that is
    /// under way.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Behind`].
    pub fn view(&self) -> Result<ReadView> {
        if let Some(log) = &self.log {
            log.wait_until_shown()?;
        }
        Ok(ReadView(self.database.begin_read()?))
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Stores in memory, and one that fails when it is told to.

    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};

    use redb::backends::InMemoryBackend;

    use super::*;

    /// A store in memory.
    pub fn in_memory() -> (StoreWriter, StoreReader) {
        let database = redb::Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        prepare(&database).unwrap();
        opened(Arc::new(database), None)
    }

    /// A backend whose writes fail from the moment the switch is on, like a full disk.
    #[derive(Debug)]
    pub struct FailingBackend {
        inner: InMemoryBackend,
        fails: Arc<AtomicBool>,
    }

    impl FailingBackend {
        fn check(&self) -> io::Result<()> {
            match self.fails.load(Ordering::SeqCst) {
                true => Err(io::Error::other("no space left on device")),
                false => Ok(()),
            }
        }
    }

    impl redb::StorageBackend for FailingBackend {
        fn len(&self) -> io::Result<u64> {
            self.inner.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.inner.read(offset, out)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.check()?;
            self.inner.set_len(len)
        }
        fn sync_data(&self) -> io::Result<()> {
            self.check()?;
            self.inner.sync_data()
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.check()?;
            self.inner.write(offset, data)
        }
    }

    /// A store and the switch that makes its writes fail.
    pub fn failing() -> (StoreWriter, StoreReader, Arc<AtomicBool>) {
        let fails = Arc::new(AtomicBool::new(false));
        let backend = FailingBackend { inner: InMemoryBackend::new(), fails: Arc::clone(&fails) };
        let database = redb::Builder::new().create_with_backend(backend).unwrap();
        prepare(&database).unwrap();
        let (writer, reader) = opened(Arc::new(database), None);
        (writer, reader, fails)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_layout_is_refused_with_a_hint() {
        let directory = tempfile::tempdir().unwrap();
        let (writer, reader) = open(directory.path()).unwrap();
        let group = writer.begin().unwrap();
        group.transaction().unwrap().open_table(META).unwrap().insert("schema", SCHEMA_VERSION + 1).unwrap();
        group.bypass().unwrap();
        group.commit().unwrap();
        drop((writer, reader));
        let refused = open(directory.path()).unwrap_err();
        assert!(matches!(refused, StoreError::Newer { found } if found == SCHEMA_VERSION + 1), "{refused}");
        assert!(refused.to_string().contains("hint:"));
    }

    #[test]
    fn a_store_that_is_open_is_not_opened_twice() {
        let directory = tempfile::tempdir().unwrap();
        let _open = open(directory.path()).unwrap();
        assert!(open(directory.path()).unwrap_err().to_string().contains("another metad"));
    }
}
