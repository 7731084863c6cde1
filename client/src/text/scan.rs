//! Chooses the files of a text analysis and cuts them into parts of about the same size.
//!
//! Which files are chosen depends on the folder's content and the limits alone: candidates are ordered by a
//! hash of their relative path, so that a bounded choice is a fair sample of the folder. Sizes in bytes. At
//! most [`FILES_SEEN_MAX`] entries are looked at and files beyond [`FILE_BYTES_MAX`] (mostly generated) are
//! left out.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Most directory entries looked at.
pub const FILES_SEEN_MAX: usize = 200_000;
/// Largest file taken, in bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

const LANGUAGES: [(&str, &[&str]); 24] = [
    ("Rust", &["rs"]),
    ("C", &["c", "h"]),
    ("C++", &["cc", "cpp", "cxx", "hh", "hpp", "hxx"]),
    ("Python", &["py", "pyi"]),
    ("JavaScript", &["js", "mjs", "cjs", "jsx"]),
    ("TypeScript", &["ts", "tsx"]),
    ("Java", &["java"]),
    ("Kotlin", &["kt"]),
    ("Go", &["go"]),
    ("Ruby", &["rb"]),
    ("PHP", &["php"]),
    ("C#", &["cs"]),
    ("Swift", &["swift"]),
    ("Scala", &["scala"]),
    ("Haskell", &["hs"]),
    ("Perl", &["pl", "pm"]),
    ("Shell", &["sh", "bash"]),
    ("Assembly", &["s", "asm"]),
    ("Markdown", &["md", "markdown"]),
    ("Text", &["txt", "rst", "tex", "org"]),
    ("TOML", &["toml"]),
    ("YAML", &["yml", "yaml"]),
    ("HTML", &["html", "htm"]),
    ("CSS", &["css", "scss"]),
];

/// One file that was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// Its language.
    pub language: &'static str,
    /// Its size when it was seen.
    pub bytes: u64,
}

/// Chooses files of known languages under `folder`, `bytes_max` bytes in all.
///
/// # Errors
/// When `folder` cannot be listed; folders below it that cannot are left out.
pub fn choose(folder: &Path, bytes_max: u64) -> io::Result<Vec<Source>> {
    let mut found = list(folder)?;
    found.sort_by_cached_key(|source| {
        let relative = source.path.strip_prefix(folder).unwrap_or(&source.path);
        *blake3::hash(relative.as_os_str().as_encoded_bytes()).as_bytes()
    });
    let mut total = 0;
    found.retain(|source| {
        let fits = total + source.bytes <= bytes_max;
        total += if fits { source.bytes } else { 0 };
        fits
    });
    Ok(found)
}

/// Bytes per language, largest first; ties by name.
#[must_use]
pub fn languages(sources: &[Source]) -> Vec<(&'static str, u64)> {
    let mut by_language: BTreeMap<&str, u64> = BTreeMap::new();
    for source in sources {
        *by_language.entry(source.language).or_default() += source.bytes;
    }
    let mut list: Vec<_> = by_language.into_iter().collect();
    list.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    list
}

/// Cuts `sources` into `parts` lists: the largest file first, always to the part with the fewest bytes.
#[must_use]
pub fn parts(mut sources: Vec<Source>, parts: usize) -> Vec<Vec<Source>> {
    sources.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
    let mut lists: Vec<(u64, Vec<Source>)> = vec![(0, Vec::new()); parts.max(1)];
    for source in sources {
        let Some(smallest) = lists.iter_mut().min_by_key(|(bytes, _)| *bytes) else { break };
        smallest.0 += source.bytes;
        smallest.1.push(source);
    }
    lists.into_iter().map(|(_, list)| list).collect()
}

fn list(folder: &Path) -> io::Result<Vec<Source>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    let mut seen = 0;
    while let Some(at) = folders.pop() {
        let entries = match std::fs::read_dir(&at) {
            Ok(entries) => entries,
            Err(error) if at == folder => return Err(error),
            Err(_) => continue,
        };
        for entry in entries.flatten() {
            seen += 1;
            if seen > FILES_SEEN_MAX {
                return Ok(found);
            }
            let name = entry.file_name();
            let hidden = name.as_encoded_bytes().starts_with(b".");
            // Links are not followed: they could lead in a circle or out of the folder.
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && !hidden && name != "target" && name != "node_modules" => {
                    folders.push(entry.path());
                }
                Ok(kind) if kind.is_file() => found.extend(source(&entry)),
                _ => {}
            }
        }
    }
    Ok(found)
}

fn source(entry: &std::fs::DirEntry) -> Option<Source> {
    let path = entry.path();
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    let (language, _) = LANGUAGES.iter().find(|(_, all)| all.contains(&extension.as_str()))?;
    let bytes = entry.metadata().ok()?.len();
    (bytes > 0 && bytes <= FILE_BYTES_MAX).then_some(Source { path, language, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("deep")).unwrap();
        std::fs::create_dir(dir.path().join(".git")).unwrap();
        for (name, bytes) in
            [("a.rs", 30), ("b.py", 20), ("deep/c.rs", 50), (".git/d.rs", 9), ("e.bin", 9), ("f.md", 10)]
        {
            std::fs::write(dir.path().join(name), "x".repeat(bytes)).unwrap();
        }
        dir
    }

    #[test]
    fn files_of_known_languages_are_chosen_within_the_limit() {
        let dir = folder();
        let all = choose(dir.path(), u64::MAX).unwrap();
        assert_eq!(all.len(), 4);
        assert_eq!(languages(&all), [("Rust", 80), ("Python", 20), ("Markdown", 10)]);
        let some = choose(dir.path(), 60).unwrap();
        assert!(some.iter().map(|s| s.bytes).sum::<u64>() <= 60);
        assert_eq!(some, choose(dir.path(), 60).unwrap());
        assert!(choose(&dir.path().join("none"), 60).is_err());
    }

    #[test]
    fn parts_hold_every_file_once_and_weigh_about_the_same() {
        let dir = folder();
        let all = choose(dir.path(), u64::MAX).unwrap();
        let cut = parts(all.clone(), 2);
        let bytes: Vec<u64> = cut.iter().map(|part| part.iter().map(|s| s.bytes).sum()).collect();
        assert_eq!(bytes.iter().sum::<u64>(), 110);
        assert!(bytes.iter().all(|b| (50..=60).contains(b)), "{bytes:?}");
        assert_eq!(cut.iter().map(Vec::len).sum::<usize>(), all.len());
    }
}
