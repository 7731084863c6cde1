//! Files of objects read in place: a large one is mapped, so that every worker of this machine that reads it
//! shares the pages that its writer filled, and none holds a copy.
//!
//! The pages are those of the page cache. They are not taken from the memory of a worker's size for good, as
//! those of a file system in memory (`/dev/shm`) would be, which count as memory of the worker that wrote
//! them until the file is gone: the kernel writes them to the disk and takes them back when it needs room. An
//! object is never changed once it has its name, and one that is deleted lives on where it is mapped. Who
//! cuts such a file short by hand ends the workers that read it (SIGBUS); their tasks are tried again and
//! read the store.
//!
//! Where a mapped object lies is remembered as long as it is mapped, so that it can be handed to another
//! process as a descriptor, see [`file_of`].

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use memmap2::Mmap;

/// Smallest object that is mapped and shared, in bytes: below it reading is as fast, and mappings of a
/// process are limited in number (65,530 by default on Linux).
pub const SHARED_BYTES_MIN: u64 = 256 << 10;
/// Nameless files that are kept open beside their mapping: descriptors of a process are limited in number
/// (1,024 by default on Linux). What comes past it is mapped all the same, and copied where it is handed on.
const FILES_KEPT_MAX: usize = 256;

/// The content of a file whose content never changes: mapped where it is large, else read.
///
/// # Errors
/// Those of opening and reading the file.
pub fn content(path: &Path) -> io::Result<Bytes> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    if len >= SHARED_BYTES_MIN {
        // SAFETY: objects never change once they have their name, and the mapping keeps a deleted one alive.
        match unsafe { Mmap::map(&file) } {
            Ok(map) => return Ok(Mapped::keep(map, Origin::Path(path.to_owned()))),
            // A file system without mappings, or too many of them: the object is read like a small one.
            Err(error) => tracing::debug!(%error, path = %path.display(), "an object is not mapped"),
        }
    }
    let mut content = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    file.read_to_end(&mut content)?;
    Ok(content.into())
}

/// The first `len` bytes of a file without a name, which nobody changes any more.
///
/// # Errors
/// When the file is shorter than that, or cannot be mapped.
pub fn nameless(file: File, len: u64) -> io::Result<Bytes> {
    let found = file.metadata()?.len();
    if found < len {
        let cause = format!("a file of {found} bytes cannot hold {len}");
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, cause));
    }
    let bytes = usize::try_from(len).map_err(io::Error::other)?;
    // SAFETY: the file is long enough and has no name by which somebody else could reach it; its writer has
    // given it away.
    let map = unsafe { memmap2::MmapOptions::new().len(bytes).map(&file) }?;
    Ok(Mapped::keep(map, Origin::file(file)))
}

/// The file in which a mapped object lies, and at which byte of it the object begins; nothing where it is in
/// no file, or its file has lost its name.
#[must_use]
pub fn file_of(content: &Bytes) -> Option<(Arc<File>, u64)> {
    let at = content.as_ptr() as usize;
    let (path, offset) = {
        let mappings = mappings();
        let (start, (len, origin)) = mappings.range(..=at).next_back()?;
        if at + content.len() > start + len {
            return None;
        }
        let offset = (at - start) as u64;
        match origin {
            Origin::File(file) => return Some((Arc::clone(&file.0), offset)),
            Origin::Path(path) => (path.clone(), offset),
            Origin::Gone => return None,
        }
    };
    let file = File::open(path).ok()?;
    let is_whole = file.metadata().is_ok_and(|about| about.len() >= offset + content.len() as u64);
    is_whole.then(|| (Arc::new(file), offset))
}

/// Gives a mapped file without a name this one, if `content` is all of it: nothing is copied. Before that
/// `ready` makes the file fit for it. False where that cannot be, and nothing was done.
///
/// # Errors
/// That of `ready`.
pub fn link(content: &Bytes, path: &Path, ready: impl Fn(&File) -> io::Result<()>) -> io::Result<bool> {
    let Some((file, 0)) = file_of(content) else { return Ok(false) };
    let about = file.metadata()?;
    if about.nlink() > 0 || about.len() != content.len() as u64 {
        return Ok(false);
    }
    ready(&file)?;
    let from = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let to = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: a plain system call on two texts. Source: open(2), O_TMPFILE.
    let linked = unsafe {
        libc::linkat(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), libc::AT_SYMLINK_FOLLOW)
    };
    if linked != 0 {
        // Memory, another file system, or something has the name already: whoever asked copies.
        let error = io::Error::last_os_error();
        tracing::debug!(%error, path = %path.display(), "an object is copied into its place");
        return Ok(false);
    }
    if let Some((_, origin)) = mappings().get_mut(&(content.as_ptr() as usize)) {
        *origin = Origin::Path(path.to_owned());
    }
    Ok(true)
}

/// A new file in memory; `append` ones are written at their end whoever writes.
pub(crate) fn memory_file(append: Append) -> io::Result<File> {
    // SAFETY: plain system calls; the descriptor is new and nobody else's.
    let file = unsafe {
        let descriptor = libc::memfd_create(c"foresail".as_ptr(), libc::MFD_CLOEXEC);
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        File::from_raw_fd(descriptor)
    };
    if append == Append::AtEnd {
        // SAFETY: a plain system call on a descriptor of our own.
        let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_APPEND | libc::O_RDWR) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(file)
}

/// Where writing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Append {
    /// To the end, whatever the position.
    AtEnd,
    /// To the position.
    Nowhere,
}

/// What is mapped in this process, by its first byte.
static MAPPINGS: Mutex<BTreeMap<usize, (usize, Origin)>> = Mutex::new(BTreeMap::new());

fn mappings() -> MutexGuard<'static, BTreeMap<usize, (usize, Origin)>> {
    // Every change is one insertion or removal: a panic elsewhere leaves a whole map.
    MAPPINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was mapped.
enum Origin {
    /// A file that has this name.
    Path(PathBuf),
    /// A file without one.
    File(Kept),
    /// A file that could be reached through its mapping alone.
    Gone,
}

/// A file that is kept open.
struct Kept(Arc<File>);

static FILES_KEPT: AtomicUsize = AtomicUsize::new(0);

impl Origin {
    fn file(file: File) -> Self {
        if FILES_KEPT.fetch_add(1, Ordering::Relaxed) >= FILES_KEPT_MAX {
            FILES_KEPT.fetch_sub(1, Ordering::Relaxed);
            return Self::Gone;
        }
        Self::File(Kept(Arc::new(file)))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        FILES_KEPT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A mapping that is known as long as it lasts.
struct Mapped(Mmap);

impl Mapped {
    fn keep(map: Mmap, origin: Origin) -> Bytes {
        mappings().insert(map.as_ptr() as usize, (map.len(), origin));
        Bytes::from_owner(Self(map))
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // Forgotten before it is unmapped: afterwards its place may be that of another.
        let forgotten = mappings().remove(&(self.0.as_ptr() as usize));
        drop(forgotten);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn the_file_of_a_mapped_object_is_found_with_its_place_in_it() {
        let mut file = tempfile::tempfile().unwrap();
        let object: Vec<u8> = (0..SHARED_BYTES_MIN).map(|at| (at % 251) as u8).collect();
        file.write_all(&object).unwrap();
        let whole = nameless(file, SHARED_BYTES_MIN).unwrap();
        let part = whole.slice(1000..5000);
        drop(whole);
        let (found, offset) = file_of(&part).unwrap();
        let mut read = vec![0; part.len()];
        found.read_exact_at(&mut read, offset).unwrap();
        assert_eq!((offset, read), (1000, part.to_vec()));
        assert!(file_of(&Bytes::from(object)).is_none(), "it lies in no file");
    }

    #[test]
    fn a_nameless_file_gets_its_name_without_a_copy_and_is_found_by_it() {
        let dir = tempfile::tempdir().unwrap();
        let [path, other] = ["object", "other"].map(|name| dir.path().join(name));
        let mut file = tempfile::tempfile_in(dir.path()).unwrap();
        file.write_all(&vec![7; SHARED_BYTES_MIN as usize]).unwrap();
        let number = file.metadata().unwrap().ino();
        let object = nameless(file, SHARED_BYTES_MIN).unwrap();
        assert!(!link(&object.slice(1..), &path, |_| Ok(())).unwrap(), "a part is not the file");
        assert!(!link(&Bytes::from(object.to_vec()), &path, |_| Ok(())).unwrap(), "it lies in no file");
        assert!(link(&object, &path, |_| Err(io::Error::other("not ready"))).is_err());
        assert!(!path.exists());
        assert!(link(&object, &path, File::sync_all).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), number);
        assert!(!link(&object, &other, |_| Ok(())).unwrap(), "it has a name");
        std::fs::remove_file(&path).unwrap();
        assert!(file_of(&object).is_none());
    }

    #[test]
    fn a_file_that_has_lost_its_name_is_not_found_and_one_that_is_too_short_not_mapped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("object");
        std::fs::write(&path, vec![7; SHARED_BYTES_MIN as usize]).unwrap();
        let object = content(&path).unwrap();
        assert!(file_of(&object).is_some());
        std::fs::remove_file(&path).unwrap();
        assert!(file_of(&object).is_none());
        assert!(nameless(tempfile::tempfile().unwrap(), 1).is_err());
    }

    /// Whether `content` lies in a mapping of `path`, by what the kernel says of this process.
    fn is_mapped(content: &Bytes, path: &Path) -> bool {
        let at = content.as_ptr() as usize;
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.ends_with(&path.display().to_string())).any(|line| {
            let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let [from, to] = [from, to].map(|text| usize::from_str_radix(text, 16).unwrap());
            (from..to).contains(&at)
        })
    }

    #[test]
    fn a_large_file_is_mapped_and_a_small_one_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = std::fs::canonicalize(dir.path()).unwrap().join("object");
        for (len, expect) in [(0, false), (SHARED_BYTES_MIN - 1, false), (SHARED_BYTES_MIN, true)] {
            let object = vec![7; len as usize];
            std::fs::write(&path, &object).unwrap();
            let found = content(&path).unwrap();
            assert_eq!((found.to_vec() == object, is_mapped(&found, &path)), (true, expect), "{len} bytes");
            std::fs::remove_file(&path).unwrap();
            assert_eq!(found, object, "a deleted object lives on where it is read");
        }
    }

    #[test]
    fn what_is_appended_goes_on_at_the_front_when_the_file_was_emptied() {
        let mut file = memory_file(Append::AtEnd).unwrap();
        file.write_all(b"first").unwrap();
        file.set_len(0).unwrap();
        file.write_all(b"second").unwrap();
        assert_eq!(file.metadata().unwrap().len(), 6);
    }
}
