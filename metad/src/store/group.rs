//! Groups of changes and how they become durable.
//!
//! A change is applied to redb's open transaction and written to the group's redo entry. The commit appends
//! the entry to the journal (one write, one fdatasync) and only then commits redb, without a sync: a reader
//! never sees what a crash could take back. redb stores with each group its sequence, so that a start knows
//! which entries are missing. From time to time a group is committed by redb with a sync, which makes
//! everything before it durable too, and the journal begins at the front again: when the journal is full, when
//! the group is large, when the writer asks for it ([`StoreWriter::settle`]), and after the journal failed.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use redb::{Database, Durability, ReadableTable};

use super::change::{Change, apply_all};
use super::journal::{self, ENTRY_BYTES_MAX, HEAD, Journal};
use super::{META, Result};

/// Key in `meta`: sequence of the last group that the database has.
const SEQUENCE: &str = "journal_sequence";
/// Key in `meta`: what entries of the journal are salted with.
const SALT: &str = "journal_salt";

/// Writes. There is one, and the writer thread has it.
#[derive(Debug)]
pub struct StoreWriter {
    pub(super) database: Arc<Database>,
    /// Nothing for a store in memory, whose groups redb commits alone.
    pub(super) journal: Option<Arc<Mutex<Journal>>>,
}

/// One group of changes: all of them are stored by [`WriteGroup::commit`], or none.
pub struct WriteGroup {
    pub(super) transaction: redb::WriteTransaction,
    /// The entry as far as it goes; nothing when redb stores the group itself.
    redo: RefCell<Option<Vec<u8>>>,
    journal: Option<Arc<Mutex<Journal>>>,
}

/// Brings the database to what the journal at `path` has beyond it, durably, and opens the journal.
pub(super) fn replay(database: &Database, path: &Path) -> Result<Journal> {
    let (file, content) = journal::open(path)?;
    let transaction = database.begin_write()?;
    let mut sequence;
    let salt = std::collections::hash_map::RandomState::new().build_hasher().finish();
    {
        let mut meta = transaction.open_table(META)?;
        let found = |key: &str| Ok::<_, super::StoreError>(meta.get(key)?.map(|v| v.value()));
        let (after, former) = (found(SEQUENCE)?.unwrap_or(0), found(SALT)?);
        sequence = after;
        let entries = former.map(|former| journal::entries(&content, former, after)).unwrap_or_default();
        for entry in &entries {
            apply_all(entry.payload, entry.sequence, &transaction)?;
            sequence = entry.sequence;
        }
        if !entries.is_empty() {
            tracing::info!(groups = entries.len(), "changes were brought back from the journal");
        }
        meta.insert(SEQUENCE, sequence)?;
        meta.insert(SALT, salt)?;
    }
    transaction.commit()?;
    Ok(Journal::new(Box::new(file), content.len() as u64, salt, sequence))
}

impl StoreWriter {
    /// Begins a group. Dropping it changes nothing.
    ///
    /// # Errors
    /// [`super::StoreError::Database`].
    pub fn begin(&self) -> Result<WriteGroup> {
        let transaction = self.database.begin_write()?;
        let redo = RefCell::new(self.journal.is_some().then(|| vec![0; HEAD]));
        Ok(WriteGroup { transaction, redo, journal: self.journal.clone() })
    }

    /// Since when there are changes that only the journal has durably.
    #[must_use]
    pub fn unsettled_since(&self) -> Option<Instant> {
        self.journal.as_ref().and_then(|j| j.lock().unwrap_or_else(PoisonError::into_inner).since())
    }

    /// Makes redb store durably what only the journal has; the journal is empty then.
    ///
    /// # Errors
    /// [`super::StoreError::Database`]; nothing is lost, the journal still has it.
    pub fn settle(&self) -> Result<()> {
        if self.unsettled_since().is_none() {
            return Ok(());
        }
        let group = self.begin()?;
        group.bypass();
        group.commit()
    }
}

impl WriteGroup {
    /// Makes a change, as part of this group.
    ///
    /// # Errors
    /// [`super::StoreError::Database`].
    pub(super) fn make(&self, change: Change) -> Result<()> {
        change.apply(&self.transaction)?;
        let mut redo = self.redo.borrow_mut();
        *redo = redo.take().map(|entry| change.write(entry)).filter(|entry| entry.len() <= ENTRY_BYTES_MAX);
        Ok(())
    }

    /// Redb is to store this group itself: something in it is not in the entry.
    pub(super) fn bypass(&self) {
        self.redo.replace(None);
    }

    /// Stores the group: when this returns, it survives a crash (one sync), and readers see it.
    ///
    /// # Errors
    /// [`super::StoreError`]; the group may then be there after a restart, or not, but never in part.
    pub fn commit(self) -> Result<()> {
        let Self { mut transaction, redo, journal } = self;
        let Some(journal) = journal else { return Ok(transaction.commit()?) };
        let redo = redo.into_inner();
        if redo.as_ref().is_some_and(|entry| entry.len() == HEAD) {
            // Only read: what it saw is durable already.
            return Ok(transaction.abort()?);
        }
        let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
        transaction.open_table(META)?.insert(SEQUENCE, journal.next())?;
        match redo.filter(|entry| journal.takes(entry.len())) {
            Some(mut entry) => {
                transaction.set_durability(Durability::None)?;
                journal.append(&mut entry)?;
                transaction.commit()?;
                journal.appended(entry.len());
            }
            None => {
                transaction.set_durability(Durability::Immediate)?;
                transaction.commit()?;
                journal.restarted();
            }
        }
        Ok(())
    }
}
