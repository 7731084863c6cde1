//! Groups of changes and how they become durable and seen.
//!
//! A change is written to the group's redo entry. The commit appends the entry to the journal (one write, one
//! fdatasync): from here on the group survives a crash and may be answered. The entry is applied to redb's
//! open transaction when something is read from that, or when nothing waits, at the latest before the next
//! group begins: whoever waits for the answer does not wait for redb. The transaction stays open for the
//! groups that follow ([`super::ahead`]), and is committed, without a sync, when a reader asks, when nothing
//! comes for a moment, or after [`super::ahead::GROUPS_MAX`] groups: a reader never sees what a crash could
//! take back, and always sees what was answered before it asked. redb stores with each commit the sequence of
//! its last group, so that a start knows which entries are missing. From time to time redb commits with a
//! sync, which makes everything before it durable too, and the journal begins at the front again: when the
//! journal is full, when the group is large, when the writer asks for it ([`StoreWriter::settle`]), and after
//! the journal failed.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use redb::{Database, Durability, ReadableTable, WriteTransaction};

use super::ahead::{Log, SEQUENCE};
use super::batch_ids::Receipt;
use super::change::{Change, Tables, apply_all};
use super::journal::{self, ENTRY_BYTES_MAX, HEAD, Journal};
use super::{META, Result};

/// Key in `meta`: what entries of the journal are salted with.
const SALT: &str = "journal_salt";

/// Writes. There is one, and the writer thread has it.
#[derive(Debug)]
pub struct StoreWriter {
    pub(super) database: Arc<Database>,
    /// Nothing for a store in memory, whose groups redb commits alone.
    pub(super) log: Option<Arc<Log>>,
}

/// One group of changes: all of them are stored by [`WriteGroup::commit`], or none.
pub struct WriteGroup {
    /// There until the group is over.
    transaction: Option<WriteTransaction>,
    /// The entry as far as it goes; nothing when redb stores the group itself.
    redo: RefCell<Option<Vec<u8>>>,
    /// Bytes of the entry that the transaction has.
    applied: Cell<usize>,
    /// The receipts of the group by the id of their batch and the number of its workflow.
    pub(super) receipts: RefCell<HashMap<String, HashMap<u32, Receipt>>>,
    log: Option<Arc<Log>>,
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
        let ahead = self.log.as_ref().map_or(Ok(None), |log| log.take())?;
        let transaction = ahead.map_or_else(|| self.database.begin_write(), Ok)?;
        let redo = RefCell::new(self.log.is_some().then(|| vec![0; HEAD]));
        let (transaction, applied) = (Some(transaction), Cell::new(HEAD));
        let receipts = RefCell::default();
        Ok(WriteGroup { transaction, redo, applied, receipts, log: self.log.clone() })
    }

    /// Since when there are changes that only the journal has durably.
    #[must_use]
    pub fn unsettled_since(&self) -> Option<Instant> {
        self.log.as_ref().and_then(|log| log.journal().since())
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
        group.bypass()?;
        group.commit()
    }

    /// Applies what was stored last to the open transaction, before the next group has to.
    ///
    /// # Errors
    /// [`super::StoreError::Database`]; nothing is lost, the journal has it.
    pub fn apply(&self) -> Result<()> {
        self.log.as_ref().map_or(Ok(()), |log| log.apply())
    }

    /// Lets readers see what is stored, before anybody asks.
    ///
    /// # Errors
    /// [`super::StoreError::Database`]; nothing is lost, the journal has it.
    pub fn show(&self) -> Result<()> {
        self.log.as_ref().map_or(Ok(()), |log| log.show())
    }
}

impl WriteGroup {
    /// The transaction that the group is part of, without those of its changes that nobody needed to see yet.
    pub(super) fn open(&self) -> &WriteTransaction {
        self.transaction.as_ref().expect("it is there until the group is over")
    }

    /// The transaction that the group is part of, with all changes that were made.
    ///
    /// # Errors
    /// [`super::StoreError::Database`].
    pub(super) fn transaction(&self) -> Result<&WriteTransaction> {
        if let Some(entry) = &*self.redo.borrow() {
            apply_all(&entry[self.applied.get()..], 0, self.open())?;
            self.applied.set(entry.len());
        }
        Ok(self.open())
    }

    /// Makes a change, as part of this group.
    ///
    /// # Errors
    /// [`super::StoreError::Database`].
    pub(super) fn make(&self, change: Change) -> Result<()> {
        let entry = self.redo.take();
        let Some(entry) = entry else { return change.apply(&mut Tables::of(self.open())) };
        let entry = change.write(entry);
        let is_too_large = entry.len() > ENTRY_BYTES_MAX;
        self.redo.replace(Some(entry));
        if is_too_large { self.bypass() } else { Ok(()) }
    }

    /// Redb is to store this group itself: something in it is not in the entry.
    ///
    /// # Errors
    /// [`super::StoreError::Database`].
    pub(super) fn bypass(&self) -> Result<()> {
        self.transaction()?;
        self.redo.replace(None);
        Ok(())
    }

    fn only_read(&self) -> bool {
        self.redo.borrow().as_ref().is_some_and(|entry| entry.len() == HEAD)
    }

    /// Stores the group: when this returns, it survives a crash (one sync), and who asks from now on sees it.
    ///
    /// # Errors
    /// [`super::StoreError`]; the group may then be there after a restart, or not, but never in part.
    pub fn commit(mut self) -> Result<()> {
        let Some(log) = self.log.clone() else {
            return self.transaction.take().map_or(Ok(()), |transaction| Ok(transaction.commit()?));
        };
        if self.only_read() {
            return Ok(());
        }
        let mut journal = log.journal();
        if self.redo.borrow().as_ref().is_some_and(|entry| !journal.takes(entry.len())) {
            self.bypass()?;
        }
        let Some(mut entry) = self.redo.take() else {
            let transaction = self.transaction.take().expect("it is there until the group is over");
            log.commit(transaction, Durability::Immediate, journal.next())?;
            journal.restarted();
            return Ok(());
        };
        journal.append(&mut entry)?;
        let sequence = journal.next();
        journal.appended(entry.len());
        let transaction = self.transaction.take().expect("it is there until the group is over");
        log.stored(transaction, sequence, entry, self.applied.get())
    }
}

impl Drop for WriteGroup {
    /// What the group changed is taken back; what was stored before it in the same transaction is not.
    fn drop(&mut self) {
        let (Some(log), Some(transaction)) = (&self.log, self.transaction.take()) else { return };
        if self.only_read() {
            return log.put_back(transaction);
        }
        log.take_back(transaction);
    }
}
