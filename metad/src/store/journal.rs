//! The journal: the one file that is synced for each group; redb follows without a sync of its own.
//!
//! File `metad.journal` in the data directory. A page of 4096 bytes begins with `FSJOURNL` and the version of
//! the layout (u32); entries follow without gaps. All numbers are little endian:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | length of the payload |
//! | 4 | CRC-32 of salt, sequence, length and payload |
//! | 8 | sequence |
//! | … | the payload: changes of one group |
//!
//! The file is written with zeros ahead of its entries, so that a sync finds neither size nor extents to
//! store: this is what makes it cost about as much as a bare fdatasync. It grows by [`STEP_BYTES`] up to
//! [`BYTES_MAX`]. Once redb has everything durably, entries begin at the front again, with higher sequences.
//! The salt is in redb and changes at every start: an entry that an earlier process left behind never counts,
//! nor does one of another store. A file is made beside its place and renamed, so that its head is whole or
//! the file is not there.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use super::{Result, StoreError};

/// Name of the file in the data directory.
pub const FILE_NAME: &str = "metad.journal";
/// Bytes of an entry before its payload.
pub const HEAD: usize = 16;
/// Largest entry in bytes; a larger group is cheaper stored once, by redb, than twice.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;
/// Largest file in bytes. It also bounds what a start replays and what redb holds unsynced.
pub const BYTES_MAX: u64 = 32 << 20;
/// Bytes that the file grows by.
const STEP_BYTES: u64 = 4 << 20;
/// Where entries begin.
const FRONT: u64 = 4096;
const MAGIC: &[u8; 8] = b"FSJOURNL";
/// Version of the layout.
const VERSION: u32 = 1;

/// What the journal is written to.
pub trait Medium: Debug + Send {
    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// Those of the system.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns when all that was written survives a power cut.
    ///
    /// # Errors
    /// Those of the system.
    fn sync(&mut self) -> io::Result<()>;
}

impl Medium for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// The journal, opened to be written.
#[derive(Debug)]
pub struct Journal {
    medium: Box<dyn Medium>,
    salt: u64,
    /// Sequence of the last group, whether it went through the journal or straight to the database.
    sequence: u64,
    /// Where the next entry goes.
    offset: u64,
    /// Bytes of the file.
    len: u64,
    /// Whether everything behind the last acknowledged entry is known not to count. It is not, from the
    /// moment an entry is written until its group is complete: what a failed sync left is anybody's guess.
    trusted: bool,
    /// Since when there are entries that redb does not have durably.
    since: Option<Instant>,
}

/// An entry that was found whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its sequence.
    pub sequence: u64,
    /// The changes.
    pub payload: &'a [u8],
}

fn failed(error: io::Error) -> StoreError {
    StoreError::Journal(error)
}

/// Opens the file at `path` and reads it; it is made where it does not exist.
///
/// # Errors
/// [`StoreError`] when it cannot be read or made, or is not one that this version understands.
pub fn open(path: &Path) -> Result<(File, Vec<u8>)> {
    let refused = |reason: String| StoreError::Open { path: path.to_owned(), reason };
    let content = match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => make(path),
        other => other,
    };
    let content = content.map_err(|e| refused(e.to_string()))?;
    let version: Option<[u8; 4]> = content.get(8..12).and_then(|bytes| bytes.try_into().ok());
    match version.map(u32::from_le_bytes).filter(|_| content.starts_with(MAGIC)) {
        Some(VERSION) if content.len() as u64 >= FRONT => {}
        Some(version) if version > VERSION => {
            return Err(refused(format!(
                "it has layout {version}, this metad understands up to {VERSION}\n\
                 hint: start the newer metad that wrote it, or choose another --data directory"
            )));
        }
        _ => {
            return Err(refused(
                "it is no journal; acknowledged changes may be in it\n\
                 hint: restore the data directory, or move this file away to go on without the last changes"
                    .to_owned(),
            ));
        }
    }
    let file = File::options().write(true).open(path).map_err(|e| refused(e.to_string()))?;
    Ok((file, content))
}

fn make(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = vec![0; STEP_BYTES as usize];
    content[..8].copy_from_slice(MAGIC);
    content[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let beside = path.with_extension("journal.new");
    let file = File::create(&beside)?;
    file.write_all_at(&content, 0)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok(content)
}

/// The entries of a file that redb, which has everything up to `after`, does not have. They end at the first
/// that is missing, torn, damaged, or of an earlier round.
#[must_use]
pub fn entries(content: &[u8], salt: u64, after: u64) -> Vec<Entry<'_>> {
    let (mut found, mut last) = (Vec::new(), None);
    let mut rest = content.get(FRONT as usize..).unwrap_or_default();
    while let Some((entry, behind)) = take(rest, salt) {
        let follows = match last {
            // The front may be older than redb's state, where its last commit was not followed by an entry.
            None => entry.sequence <= after.saturating_add(1),
            Some(last) => entry.sequence == last + 1,
        };
        if !follows {
            break;
        }
        (last, rest) = (Some(entry.sequence), behind);
        if entry.sequence > after {
            found.push(entry);
        }
    }
    found
}

fn take(bytes: &[u8], salt: u64) -> Option<(Entry<'_>, &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let length = u32::from_le_bytes(head[..4].try_into().ok()?);
    let checksum = u32::from_le_bytes(head[4..8].try_into().ok()?);
    let sequence = u64::from_le_bytes(head[8..].try_into().ok()?);
    let (payload, behind) = rest.split_at_checked(length as usize)?;
    let whole = length > 0 && checksum == crc(salt, sequence, payload);
    whole.then_some((Entry { sequence, payload }, behind))
}

fn crc(salt: u64, sequence: u64, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&sequence.to_le_bytes());
    hasher.update(&(payload.len() as u32).to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Fills in the first [`HEAD`] bytes of an entry.
fn seal(entry: &mut [u8], salt: u64, sequence: u64) {
    let (head, payload) = entry.split_at_mut(HEAD);
    head[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    head[4..8].copy_from_slice(&crc(salt, sequence, payload).to_le_bytes());
    head[8..].copy_from_slice(&sequence.to_le_bytes());
}

impl Journal {
    /// A journal of `len` bytes, none of which count: redb has everything up to `sequence` durably, and
    /// `salt` was never used before.
    #[must_use]
    pub fn new(medium: Box<dyn Medium>, len: u64, salt: u64, sequence: u64) -> Self {
        Self { medium, salt, sequence, offset: FRONT, len, trusted: true, since: None }
    }

    /// Sequence of the next group.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.sequence + 1
    }

    /// Since when there are entries that redb does not have durably.
    #[must_use]
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Whether an entry of `bytes` may be appended; if not, the group goes straight to the database.
    #[must_use]
    pub fn takes(&self, bytes: usize) -> bool {
        self.trusted && bytes <= ENTRY_BYTES_MAX && self.offset + bytes as u64 <= BYTES_MAX
    }

    /// Stores the next entry, the payload of which begins after [`HEAD`] bytes: one write, one sync. The
    /// journal takes no other until [`Self::appended`].
    ///
    /// # Errors
    /// [`StoreError::Journal`]; the entry may then be found after a restart, or not.
    pub fn append(&mut self, entry: &mut [u8]) -> Result<()> {
        self.trusted = false;
        seal(entry, self.salt, self.next());
        self.reach(self.offset + entry.len() as u64).map_err(failed)?;
        self.medium.write_at(entry, self.offset).and_then(|()| self.medium.sync()).map_err(failed)
    }

    /// Writes zeros until the file has `end` bytes.
    fn reach(&mut self, end: u64) -> io::Result<()> {
        if end <= self.len {
            return Ok(());
        }
        let len = end.next_multiple_of(STEP_BYTES).min(BYTES_MAX);
        self.medium.write_at(&vec![0; (len - self.len) as usize], self.len)?;
        self.medium.sync()?;
        self.len = len;
        Ok(())
    }

    /// The group of the last entry, which had `bytes`, is complete.
    pub fn appended(&mut self, bytes: usize) {
        self.sequence += 1;
        self.offset += bytes as u64;
        self.trusted = true;
        self.since.get_or_insert_with(Instant::now);
    }

    /// A group went straight to the database, and everything before it became durable with it: begin at the
    /// front.
    pub fn restarted(&mut self) {
        self.sequence += 1;
        self.offset = FRONT;
        self.trusted = true;
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SALT: u64 = 77;

    impl Journal {
        /// Writes to `medium` from now on.
        pub fn set_medium(&mut self, medium: Box<dyn Medium>) {
            self.medium = medium;
        }
    }

    /// A file with entries of these payloads from `first` on.
    fn file(first: u64, payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut content = vec![0; FRONT as usize];
        for (payload, sequence) in payloads.iter().zip(first..) {
            let mut entry = [&[0; HEAD], payload.as_slice()].concat();
            seal(&mut entry, SALT, sequence);
            content.extend(entry);
        }
        content
    }

    fn sequences(content: &[u8], after: u64) -> Vec<u64> {
        entries(content, SALT, after).into_iter().map(|entry| entry.sequence).collect()
    }

    fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..60), 1..6)
    }

    proptest! {
        #[test]
        fn an_entry_torn_at_any_byte_ends_what_counts_and_costs_no_other(
            payloads in payloads(), rubbish in any::<u8>(),
        ) {
            let whole = file(5, &payloads);
            let last = whole.len() - HEAD - payloads.last().unwrap().len();
            let others: Vec<u64> = (5..).take(payloads.len() - 1).collect();
            for at in last..whole.len() {
                prop_assert_eq!(&sequences(&whole[..at], 4), &others, "cut at {}", at);
                let mut torn = whole.clone();
                torn[at..].fill(rubbish);
                let same = torn == whole;
                torn.extend([rubbish; 99]);
                prop_assert!(same || sequences(&torn, 4) == others, "rubbish from {}", at);
            }
            prop_assert_eq!(sequences(&whole, 4).len(), payloads.len());
        }

        #[test]
        fn a_flipped_bit_ends_what_counts_where_it_is(
            payloads in payloads(), at in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let mut content = file(5, &payloads);
            let at = FRONT as usize + at.index(content.len() - FRONT as usize);
            content[at] ^= 1 << bit;
            let mut end = FRONT as usize;
            let before = payloads.iter().take_while(|payload| {
                end += HEAD + payload.len();
                end <= at
            });
            let before = before.count();
            prop_assert_eq!(sequences(&content, 4).len(), before);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let content = [vec![0; FRONT as usize], bytes].concat();
            prop_assert!(entries(&content, SALT, 0).is_empty());
        }
    }

    #[test]
    fn only_what_follows_the_database_without_a_gap_counts() {
        let content = file(5, &[vec![1], vec![2], vec![3]]);
        assert_eq!(sequences(&content, 4), [5, 6, 7]);
        assert_eq!(sequences(&content, 5), [6, 7]);
        assert_eq!(sequences(&content, 7), [0u64; 0]);
        assert_eq!(sequences(&content, 99), [0u64; 0]);
        assert_eq!(sequences(&content, 3), [0u64; 0], "4 is missing, so 5 rests on what is not there");
        assert!(entries(&content, SALT + 1, 4).is_empty(), "of another process");
    }

    #[test]
    fn entries_of_an_earlier_round_behind_the_new_ones_do_not_count() {
        let mut content = file(5, &[vec![1; 9], vec![2; 9], vec![3; 9]]);
        let new = file(8, &[vec![4; 9]]);
        content[..new.len()].copy_from_slice(&new);
        assert_eq!(sequences(&content, 7), [8]);
    }

    #[test]
    fn a_file_of_a_newer_layout_or_of_another_kind_is_refused_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        let (_, content) = open(&path).unwrap();
        assert_eq!(content.len() as u64, STEP_BYTES);
        let mut newer = content.clone();
        newer[8..12].copy_from_slice(&(VERSION + 1).to_le_bytes());
        for (bad, hint) in [(newer, "newer metad"), (b"text".to_vec(), "no journal"), (Vec::new(), "hint")] {
            std::fs::write(&path, &bad).unwrap();
            let refused = open(&path).unwrap_err().to_string();
            assert!(refused.contains(hint), "{refused}");
            assert_eq!(std::fs::read(&path).unwrap(), bad);
        }
    }
}
