//! Counts words per language, and merges counts.
//!
//! A word is an identifier cut at `_` and at changes from lower to upper case, in lower case, of
//! [`WORD_LEN_MIN`] to [`WORD_LEN_MAX`] bytes. Counts merge in any order to the same result. Beside the
//! counts every language has a MinHash sketch of its phrases of three words (Broder 1997, "On the resemblance
//! and containment of documents"): the share of equal places in two sketches estimates the Jaccard similarity
//! of the phrase sets.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

/// Shortest word counted, in bytes.
pub const WORD_LEN_MIN: usize = 3;
/// Longest word counted, in bytes.
pub const WORD_LEN_MAX: usize = 32;
/// Places of a sketch: the standard error of a similarity is 1 / sqrt of this, at most.
pub const SKETCH_LEN: usize = 256;

/// Counts of every language, by name.
pub type Counts = BTreeMap<String, Count>;

/// What was counted in one language.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Files.
    pub files: u64,
    /// Lines.
    pub lines: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Words, repeated ones included.
    pub words: u64,
    /// How often each word stands there.
    pub terms: BTreeMap<String, u64>,
    /// Smallest hash of any phrase under each of [`SKETCH_LEN`] hash functions.
    pub sketch: Vec<u64>,
}

/// A file as a part carries it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FileHeader {
    /// Its language.
    pub language: String,
    /// Size of the content that follows the header's line, in bytes.
    pub bytes: usize,
}

/// Appends one file to a part: a line of JSON, then the content.
pub fn write_file(part: &mut Vec<u8>, language: &str, content: &[u8]) -> serde_json::Result<()> {
    let header = FileHeader { language: language.to_owned(), bytes: content.len() };
    serde_json::to_writer(&mut *part, &header)?;
    part.push(b'\n');
    part.extend_from_slice(content);
    Ok(())
}

/// Counts one part.
///
/// # Errors
/// A sentence when the part is not what [`write_file`] writes.
pub fn count(part: &[u8]) -> Result<Counts, String> {
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    let mut rest = part;
    while !rest.is_empty() {
        let end = rest.iter().position(|&b| b == b'\n').ok_or("the part ends within a header")?;
        let header: FileHeader =
            serde_json::from_slice(&rest[..end]).map_err(|e| format!("a header is damaged: {e}"))?;
        let body = &rest[end + 1..];
        let content = body.get(..header.bytes).ok_or("the part ends within a file")?;
        tallies.entry(header.language).or_default().add(content);
        rest = &body[header.bytes..];
    }
    Ok(tallies.into_iter().map(|(language, tally)| (language, tally.finish())).collect())
}

/// Adds `other` to `into`.
pub fn merge(into: &mut Counts, other: Counts) {
    for (language, count) in other {
        match into.get_mut(&language) {
            None => drop(into.insert(language, count)),
            Some(mine) => mine.add(count),
        }
    }
}

impl Count {
    fn add(&mut self, other: Self) {
        self.files += other.files;
        self.lines += other.lines;
        self.bytes += other.bytes;
        self.words += other.words;
        for (term, times) in other.terms {
            *self.terms.entry(term).or_default() += times;
        }
        for (mine, theirs) in self.sketch.iter_mut().zip(other.sketch) {
            *mine = (*mine).min(theirs);
        }
    }

    /// Estimated share of phrases that both have among all phrases of either.
    #[must_use]
    pub fn similarity(&self, other: &Self) -> f64 {
        let equal = self.sketch.iter().zip(&other.sketch).filter(|(a, b)| a == b && **a != u64::MAX).count();
        equal as f64 / SKETCH_LEN as f64
    }
}

struct Tally {
    count: Count,
    terms: HashMap<Vec<u8>, u64>,
    phrase: [u64; 3],
}

impl Default for Tally {
    fn default() -> Self {
        let count = Count { sketch: vec![u64::MAX; SKETCH_LEN], ..Count::default() };
        Self { count, terms: HashMap::new(), phrase: [0; 3] }
    }
}

impl Tally {
    fn add(&mut self, content: &[u8]) {
        self.count.files += 1;
        self.count.bytes += content.len() as u64;
        self.count.lines += content.iter().filter(|&&b| b == b'\n').count() as u64;
        let identifiers = content.split(|b| !(b.is_ascii_alphanumeric() || *b >= 0x80));
        let mut lower = Vec::with_capacity(WORD_LEN_MAX);
        for identifier in identifiers {
            for word in words(identifier) {
                lower.clear();
                lower.extend(word.iter().map(u8::to_ascii_lowercase));
                self.word(&lower);
            }
        }
    }

    fn word(&mut self, word: &[u8]) {
        self.count.words += 1;
        match self.terms.get_mut(word) {
            Some(times) => *times += 1,
            None => drop(self.terms.insert(word.to_vec(), 1)),
        }
        self.phrase = [self.phrase[1], self.phrase[2], hash(word)];
        let [a, b, c] = self.phrase;
        let phrase = mix(a ^ b.rotate_left(21) ^ c.rotate_left(42));
        for (place, least) in self.count.sketch.iter_mut().enumerate() {
            // An odd multiplier per place makes a different order of the phrases for each.
            let order = phrase.wrapping_mul((place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            *least = (*least).min(order ^ (order >> 29));
        }
    }

    fn finish(mut self) -> Count {
        for (term, times) in self.terms {
            *self.count.terms.entry(String::from_utf8_lossy(&term).into_owned()).or_default() += times;
        }
        self.count
    }
}

/// The words of an identifier: cut where a capital follows a letter that is none; what begins with a digit is
/// none.
fn words(identifier: &[u8]) -> impl Iterator<Item = &[u8]> {
    identifier
        .chunk_by(|before, after| !after.is_ascii_uppercase() || before.is_ascii_uppercase())
        .filter(|w| (WORD_LEN_MIN..=WORD_LEN_MAX).contains(&w.len()) && !w[0].is_ascii_digit())
}

/// FNV-1a in 64 bits.
fn hash(word: &[u8]) -> u64 {
    word.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// The finaliser of SplitMix64: spreads every input bit over all output bits.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(files: &[(&str, &str)]) -> Vec<u8> {
        let mut part = Vec::new();
        for (language, content) in files {
            write_file(&mut part, language, content.as_bytes()).unwrap();
        }
        part
    }

    #[test]
    fn identifiers_are_cut_into_words() {
        let counts = count(&part(&[("Rust", "fn readFile_sync(HashMap) {\n x += read_file;\n}\n")])).unwrap();
        let rust = &counts["Rust"];
        let terms: Vec<_> = rust.terms.iter().map(|(t, n)| (t.as_str(), *n)).collect();
        assert_eq!(terms, [("file", 2), ("hash", 1), ("map", 1), ("read", 2), ("sync", 1)]);
        assert_eq!((rust.files, rust.lines, rust.words), (1, 3, 7));
    }

    #[test]
    fn merged_counts_are_those_of_the_whole_in_any_order() {
        let a = [("Rust", "one two three four"), ("C", "five six seven")];
        let b = [("Rust", "two three four eight")];
        let (a, b) = (count(&part(&a)).unwrap(), count(&part(&b)).unwrap());
        let (mut ab, mut ba) = (a.clone(), b.clone());
        merge(&mut ab, b);
        merge(&mut ba, a);
        assert_eq!(ab, ba);
        assert_eq!(ab["Rust"].terms["two"], 2);
        assert_eq!(ab["Rust"].files, 2);
    }

    #[test]
    fn similarity_tells_alike_from_different() {
        let text: String = (0..500).map(|i| format!("word{} ", i % 97)).collect();
        let words: String = "abcdefghijklmnop".chars().flat_map(|a| [a, a, a, ' ']).collect();
        let counts = count(&part(&[("A", &words), ("B", &words), ("C", &text)])).unwrap();
        assert!((counts["A"].similarity(&counts["B"]) - 1.0).abs() < 1e-9);
        assert!(counts["A"].similarity(&counts["C"]) < 0.1);
    }

    #[test]
    fn a_damaged_part_is_refused() {
        let mut good = part(&[("Rust", "abc def")]);
        good.pop();
        assert!(count(&good).unwrap_err().contains("within a file"));
        assert!(count(b"no header\n").unwrap_err().contains("header"));
        assert!(count(b"").unwrap().is_empty());
    }
}
