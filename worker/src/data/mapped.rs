//! Files of objects read in place: a large one is mapped, so that every worker of this machine that reads it
//! shares the pages that its writer filled, and none holds a copy.
//!
//! The pages are those of the page cache. They are not taken from the memory of a worker's size for good, as
//! those of a file system in memory (`/dev/shm`) would be, which count as memory of the worker that wrote
//! them until the file is gone: the kernel writes them to the disk and takes them back when it needs room. An
//! object is never changed once it has its name, and one that is deleted lives on where it is mapped. Who
//! cuts such a file short by hand ends the workers that read it (SIGBUS); their tasks are tried again and
//! read the store.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use memmap2::Mmap;

/// Smallest object that is mapped and shared, in bytes: below it reading is as fast, and mappings of a
/// process are limited in number (65,530 by default on Linux).
pub const SHARED_BYTES_MIN: u64 = 256 << 10;

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
            Ok(map) => return Ok(Bytes::from_owner(map)),
            // A file system without mappings, or too many of them: the object is read like a small one.
            Err(error) => tracing::debug!(%error, path = %path.display(), "an object is not mapped"),
        }
    }
    let mut content = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    file.read_to_end(&mut content)?;
    Ok(content.into())
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
