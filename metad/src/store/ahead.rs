//! What is stored but not shown yet: the open transaction of redb that is ahead of what readers see.
//!
//! Of the last group the transaction may lack a part, which is applied before anything else happens to it.
//! Several groups share one transaction, because committing it costs more than the groups do. Their entries
//! are kept until it is committed: when a later group is given up, its changes cannot be taken out of the
//! transaction, so that is aborted and the entries are applied to a new one, as at a start.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redb::{Database, Durability, WriteTransaction};

use super::change::apply_all;
use super::journal::{HEAD, Journal};
use super::{META, Result, StoreError};

/// Most groups that are stored and not shown.
pub const GROUPS_MAX: usize = 32;
/// Longest wait of a reader until what was stored is shown: that takes the end of one group.
const SHOW_WAIT_MAX: Duration = Duration::from_secs(30);
/// Key in `meta`: sequence of the last group that the database has.
pub(super) const SEQUENCE: &str = "journal_sequence";

/// The journal, and what redb is behind it.
#[derive(Debug)]
pub struct Log {
    database: Arc<Database>,
    journal: Mutex<Journal>,
    ahead: Mutex<Ahead>,
    shown: Condvar,
}

#[derive(Default)]
struct Ahead {
    /// With what is stored and not shown; a group that is under way has it.
    transaction: Option<WriteTransaction>,
    /// The entries in it, with their sequences.
    entries: Vec<(u64, Vec<u8>)>,
    /// Bytes of the last entry that the transaction has; nothing: all.
    applied: Option<usize>,
    /// Groups shown so far.
    turn: u64,
    /// A reader waits.
    wanted: bool,
    /// What was stored cannot be shown before the next start.
    lost: bool,
}

impl std::fmt::Debug for Ahead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ahead").field("groups", &self.entries.len()).finish_non_exhaustive()
    }
}

impl Log {
    pub fn new(database: Arc<Database>, journal: Journal) -> Self {
        Self { database, journal: Mutex::new(journal), ahead: Mutex::default(), shown: Condvar::new() }
    }

    pub fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a reader waits.
    #[cfg(test)]
    pub fn is_wanted(&self) -> bool {
        self.ahead().wanted
    }

    fn ahead(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open transaction, for the next group.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn take(&self) -> Result<Option<WriteTransaction>> {
        let mut ahead = self.ahead();
        self.catch_up(&mut ahead)?;
        Ok(ahead.transaction.take())
    }

    /// Applies what is left of the last entry, so that the next group need not.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn apply(&self) -> Result<()> {
        self.catch_up(&mut self.ahead())
    }

    /// Applies what is left of the last entry.
    fn catch_up(&self, ahead: &mut Ahead) -> Result<()> {
        let (Some(from), Some(transaction)) = (ahead.applied.take(), &ahead.transaction) else {
            return Ok(());
        };
        let Some((sequence, entry)) = ahead.entries.last() else { return Ok(()) };
        let done = apply_all(&entry[from..], *sequence, transaction);
        if done.is_err() {
            (ahead.lost, ahead.transaction) = (true, None);
            self.shown.notify_all();
        }
        done
    }

    /// The group changed nothing.
    pub fn put_back(&self, transaction: WriteTransaction) {
        let mut ahead = self.ahead();
        if ahead.entries.is_empty() {
            return;
        }
        ahead.transaction = Some(transaction);
        if ahead.wanted {
            self.show_now(&mut ahead);
        }
    }

    /// The group's entry is in the journal; the transaction has `applied` bytes of it.
    ///
    /// # Errors
    /// [`StoreError::Database`] when the transaction had to be committed and was not.
    pub fn stored(
        &self,
        transaction: WriteTransaction,
        sequence: u64,
        entry: Vec<u8>,
        applied: usize,
    ) -> Result<()> {
        let mut ahead = self.ahead();
        ahead.applied = Some(applied);
        ahead.entries.push((sequence, entry));
        ahead.transaction = Some(transaction);
        match ahead.wanted || ahead.entries.len() >= GROUPS_MAX {
            true => self.show_ahead(&mut ahead),
            false => Ok(()),
        }
    }

    /// Commits a transaction that has everything before it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn commit(&self, transaction: WriteTransaction, durability: Durability, sequence: u64) -> Result<()> {
        self.finish(&mut self.ahead(), transaction, durability, sequence)
    }

    fn finish(
        &self,
        ahead: &mut Ahead,
        mut transaction: WriteTransaction,
        durability: Durability,
        sequence: u64,
    ) -> Result<()> {
        let done = (|| {
            transaction.open_table(META)?.insert(SEQUENCE, sequence)?;
            transaction.set_durability(durability)?;
            Ok(transaction.commit()?)
        })();
        ahead.lost = ahead.lost || (done.is_err() && !ahead.entries.is_empty());
        if done.is_ok() {
            ahead.entries.clear();
        }
        ahead.turn += 1;
        ahead.wanted = false;
        self.shown.notify_all();
        done
    }

    /// Shows what is stored.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn show(&self) -> Result<()> {
        self.show_ahead(&mut self.ahead())
    }

    fn show_ahead(&self, ahead: &mut Ahead) -> Result<()> {
        self.catch_up(ahead)?;
        let last = ahead.entries.last().map(|(sequence, _)| *sequence);
        let (Some(transaction), Some(sequence)) = (ahead.transaction.take(), last) else { return Ok(()) };
        self.finish(ahead, transaction, Durability::None, sequence)
    }

    fn show_now(&self, ahead: &mut Ahead) {
        if let Err(error) = self.show_ahead(ahead) {
            tracing::error!(%error, "stored changes are not shown before the next start");
        }
    }

    /// Takes back what a group changed.
    pub fn take_back(&self, transaction: WriteTransaction) {
        let mut ahead = self.ahead();
        drop(transaction);
        if ahead.entries.is_empty() {
            return;
        }
        let again = || {
            let transaction = self.database.begin_write()?;
            for (sequence, entry) in &ahead.entries {
                apply_all(&entry[HEAD..], *sequence, &transaction)?;
            }
            Ok::<_, StoreError>(transaction)
        };
        match again() {
            Ok(transaction) => {
                ahead.transaction = Some(transaction);
                self.show_now(&mut ahead);
            }
            Err(error) => {
                tracing::error!(%error, "stored changes are not shown before the next start");
                ahead.lost = true;
                self.shown.notify_all();
            }
        }
    }

    /// Returns when everything that was stored before the call is shown.
    ///
    /// # Errors
    /// [`StoreError::Behind`] when that cannot be or takes too long.
    pub fn wait_until_shown(&self) -> Result<()> {
        let mut ahead = self.ahead();
        if ahead.lost {
            return Err(StoreError::Behind);
        }
        if ahead.entries.is_empty() {
            return Ok(());
        }
        if ahead.transaction.is_some() {
            return self.show_ahead(&mut ahead);
        }
        // A group is under way; its end shows what was stored before it, too.
        ahead.wanted = true;
        let turn = ahead.turn;
        let waits = |ahead: &mut Ahead| ahead.turn == turn && !ahead.lost;
        let waited = self.shown.wait_timeout_while(ahead, SHOW_WAIT_MAX, waits);
        let (ahead, elapsed) = waited.unwrap_or_else(PoisonError::into_inner);
        if ahead.lost || elapsed.timed_out() {
            return Err(StoreError::Behind);
        }
        Ok(())
    }
}
