//! Objects as tasks give and take them: their bytes here, or in the process that made them.
//!
//! An object that the process of a Python function keeps is copied only where somebody here needs its bytes:
//! into a file of the store's file system, once, and hashed on the way. Until then whoever runs in that
//! process reads it where it lies. The process gives its memory back when nobody here refers to the object
//! any more. When the process has ended the object is lost, and the task that made it runs again. Sizes in
//! bytes.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::mapped;

/// So much is copied, hashed and written at a time: it stays in the cache of the processor meanwhile.
const CHUNK_BYTES: usize = 512 << 10;

/// An object that a task reads or writes.
#[derive(Debug, Clone)]
pub enum Object {
    /// Its bytes.
    Here(Bytes),
    /// In the memory of the process that made it.
    Kept(Arc<Kept>),
}

impl Object {
    /// Its size.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Here(content) => content.len() as u64,
            Self::Kept(kept) => kept.len(),
        }
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its bytes.
    ///
    /// # Errors
    /// When the process that has it has ended, or there is no room for a copy.
    pub fn bytes(&self) -> io::Result<Bytes> {
        match self {
            Self::Here(content) => Ok(content.clone()),
            Self::Kept(kept) => kept.bring().map(|(content, _)| content),
        }
    }
}

/// The bytes of objects that exist.
///
/// # Errors
/// As of [`Object::bytes`].
pub fn contents(objects: &[Option<Object>]) -> io::Result<Vec<Option<Bytes>>> {
    objects.iter().map(|object| object.as_ref().map(Object::bytes).transpose()).collect()
}

#[cfg(test)]
impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Object {
    fn eq(&self, other: &T) -> bool {
        self.bytes().unwrap() == other.as_ref()
    }
}

impl From<Bytes> for Object {
    fn from(content: Bytes) -> Self {
        Self::Here(content)
    }
}

/// A process that keeps objects.
pub trait Keeper: Send + Sync + std::fmt::Debug {
    /// Fills `buffer` with what lies at this address of it.
    ///
    /// # Errors
    /// When it has ended.
    fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// The object of this number is not needed any more.
    fn release(&self, number: u64, bytes: u64);
}

/// Where the bytes of a part lie in their process, and how many they are.
pub type Span = (u64, u64);

/// An object in the memory of the process that made it.
#[derive(Debug)]
pub struct Kept {
    keeper: Arc<dyn Keeper>,
    number: u64,
    spans: Vec<Span>,
    bytes: u64,
    dir: Option<PathBuf>,
    brought: OnceLock<(Bytes, blake3::Hash)>,
}

impl Kept {
    /// The object that `keeper` knows by this number; its parts follow one another. A copy is written into
    /// `dir`, where there is one, else into memory.
    #[must_use]
    pub fn new(keeper: Arc<dyn Keeper>, number: u64, spans: Vec<Span>, dir: Option<&Path>) -> Self {
        let bytes = spans.iter().map(|(_, bytes)| bytes).sum();
        Self { keeper, number, spans, bytes, dir: dir.map(Path::to_owned), brought: OnceLock::new() }
    }

    /// Its size.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "what is small is not kept")]
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Its number, for the process that keeps it.
    #[must_use]
    pub fn number_in(&self, keeper: &Arc<impl Keeper>) -> Option<u64> {
        let own = Arc::as_ptr(&self.keeper).cast::<()>();
        (own == Arc::as_ptr(keeper).cast::<()>()).then_some(self.number)
    }

    /// Its bytes and their BLAKE3 hash. They are copied once.
    ///
    /// # Errors
    /// When the process that has it has ended, or there is no room for a copy.
    pub fn bring(&self) -> io::Result<(Bytes, blake3::Hash)> {
        if let Some(brought) = self.brought.get() {
            return Ok(brought.clone());
        }
        let copied = self.copy()?;
        // Of two at a time the first copy stands, and the other is gone with its last reader.
        Ok(self.brought.get_or_init(|| copied).clone())
    }

    fn copy(&self) -> io::Result<(Bytes, blake3::Hash)> {
        let mut file = self.file()?;
        let mut hasher = blake3::Hasher::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut filled = 0;
        for &(address, bytes) in &self.spans {
            let mut done = 0;
            while done < bytes {
                let part = ((CHUNK_BYTES - filled) as u64).min(bytes - done) as usize;
                self.keeper.read(address + done, &mut chunk[filled..filled + part])?;
                (done, filled) = (done + part as u64, filled + part);
                if filled == CHUNK_BYTES {
                    hasher.update(&chunk);
                    file.write_all(&chunk)?;
                    filled = 0;
                }
            }
        }
        hasher.update(&chunk[..filled]);
        file.write_all(&chunk[..filled])?;
        Ok((mapped::nameless(file, self.bytes)?, hasher.finalize()))
    }

    /// A new file without a name.
    fn file(&self) -> io::Result<File> {
        let there = self.dir.as_deref().map(tempfile::tempfile_in);
        // The directory may be gone, or its file system full: there may be room in memory.
        there.and_then(Result::ok).map_or_else(|| mapped::memory_file(mapped::Append::Nowhere), Ok)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.keeper.release(self.number, self.bytes);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    /// A process that is this one: addresses are places in its memory.
    #[derive(Debug)]
    pub(crate) struct Memory {
        content: Vec<u8>,
        reads: AtomicUsize,
        pub has_ended: AtomicBool,
        pub released: Mutex<Vec<(u64, u64)>>,
    }

    impl Keeper for Memory {
        fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<()> {
            self.reads.fetch_add(1, Ordering::SeqCst);
            if self.has_ended.load(Ordering::SeqCst) {
                return Err(io::Error::other("it has ended"));
            }
            let at = address as usize;
            buffer.copy_from_slice(&self.content[at..at + buffer.len()]);
            Ok(())
        }

        fn release(&self, number: u64, bytes: u64) {
            self.released.lock().unwrap().push((number, bytes));
        }
    }

    /// A process that keeps these bytes as object 7, whose parts lie in reverse order in its memory.
    pub(crate) fn kept(content: &[u8], part_bytes: usize, dir: Option<&Path>) -> (Arc<Memory>, Object) {
        let parts: Vec<&[u8]> = content.chunks(part_bytes).rev().collect();
        let memory = Arc::new(Memory {
            content: parts.concat(),
            reads: AtomicUsize::new(0),
            has_ended: AtomicBool::new(false),
            released: Mutex::default(),
        });
        let mut at = 0;
        let mut spans: Vec<Span> = parts
            .iter()
            .map(|part| {
                at += part.len() as u64;
                (at - part.len() as u64, part.len() as u64)
            })
            .collect();
        spans.reverse();
        let kept = Kept::new(Arc::clone(&memory) as _, 7, spans, dir);
        (memory, Object::Kept(Arc::new(kept)))
    }

    #[test]
    fn the_parts_are_brought_once_in_their_order_with_their_hash() {
        let dir = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..3 * CHUNK_BYTES + 77).map(|at| (at % 251) as u8).collect();
        for (part_bytes, dir) in [(100_000, Some(dir.path())), (content.len(), None), (CHUNK_BYTES, None)] {
            let (memory, object) = kept(&content, part_bytes, dir);
            let Object::Kept(inner) = &object else { unreachable!() };
            let (brought, hash) = inner.bring().unwrap();
            assert!(brought == content && hash == blake3::hash(&content), "parts of {part_bytes}");
            let reads = memory.reads.load(Ordering::SeqCst);
            assert!(reads > 0 && object.bytes().unwrap() == content);
            assert_eq!(memory.reads.load(Ordering::SeqCst), reads, "nothing is copied twice");
            drop(object);
            assert_eq!(*memory.released.lock().unwrap(), [(7, content.len() as u64)]);
        }
    }

    #[test]
    fn a_copy_is_a_file_that_takes_its_name_where_the_store_is() {
        let dir = tempfile::tempdir().unwrap();
        let content = vec![5; 1 << 20];
        let place = |name: &str| dir.path().join(name);
        for (made_in, name, expect) in
            [(Some(dir.path()), "a", true), (Some(Path::new("/no/such")), "b", false), (None, "c", false)]
        {
            let (_memory, object) = kept(&content, 4096, made_in);
            let linked = mapped::link(&object.bytes().unwrap(), &place(name), |_| Ok(())).unwrap();
            assert_eq!(linked, expect, "{name}");
        }
        assert_eq!(std::fs::read(place("a")).unwrap(), content);
    }

    #[test]
    fn what_was_not_brought_is_lost_with_its_process() {
        let (memory, object) = kept(&[1; 100_000], 4096, None);
        memory.has_ended.store(true, Ordering::SeqCst);
        assert!(object.bytes().is_err() && object.len() == 100_000);
        memory.has_ended.store(false, Ordering::SeqCst);
        assert_eq!(object.bytes().unwrap().len(), 100_000, "a failure is not remembered");
        assert!(memory.released.lock().unwrap().is_empty());
    }
}
