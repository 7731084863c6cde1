//! The terms that are typical of a language, and the report of an analysis.
//!
//! A term's weight is its share of the language's words times the logarithm of how much larger that share is
//! than in the other languages (a smoothed Kullback-Leibler term), so words that are frequent everywhere
//! weigh nothing.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::count::Counts;

/// Terms seen fewer times are not listed: chance alone makes them typical.
const TIMES_MIN: u64 = 3;

/// What is typical of one language.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Typical {
    /// The language.
    pub language: String,
    /// Files.
    pub files: u64,
    /// Lines.
    pub lines: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Words, repeated ones included.
    pub words: u64,
    /// Different words.
    pub vocabulary: u64,
    /// Its most typical terms with their counts, heaviest first.
    pub terms: Vec<(String, u64)>,
    /// The language that shares most phrases with it, and the share.
    pub nearest: Option<(String, f64)>,
}

/// The whole analysis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Files.
    pub files: u64,
    /// Lines.
    pub lines: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Languages that were looked at, largest first.
    pub languages: Vec<Typical>,
}

/// What is typical of `language` among `counts`; a language that is not there has no terms.
#[must_use]
pub fn typical(counts: &Counts, language: &str, top: usize) -> Typical {
    let mine = counts.get(language).cloned().unwrap_or_default();
    let others: Vec<_> = counts.iter().filter(|(name, _)| *name != language).map(|(_, c)| c).collect();
    let other_words: u64 = others.iter().map(|c| c.words).sum();
    let mut weighed: Vec<(f64, &String, u64)> = mine
        .terms
        .iter()
        .filter(|(_, times)| **times >= TIMES_MIN)
        .map(|(term, &times)| {
            let elsewhere: u64 = others.iter().filter_map(|c| c.terms.get(term)).sum();
            let here = times as f64 / mine.words as f64;
            let there = (elsewhere as f64 + 1.0) / (other_words as f64 + 1.0);
            (here * (here / there).ln(), term, times)
        })
        .collect();
    weighed.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    let nearest = counts
        .iter()
        .filter(|(name, _)| *name != language)
        .map(|(name, count)| (name.clone(), mine.similarity(count)))
        .max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))
        .filter(|(_, share)| *share > 0.0);
    Typical {
        language: language.to_owned(),
        files: mine.files,
        lines: mine.lines,
        bytes: mine.bytes,
        words: mine.words,
        vocabulary: mine.terms.len() as u64,
        terms: weighed.iter().take(top).map(|(_, term, times)| ((*term).clone(), *times)).collect(),
        nearest,
    }
}

/// Puts the languages together, largest first.
#[must_use]
pub fn report(mut languages: Vec<Typical>) -> Report {
    languages.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.language.cmp(&b.language)));
    Report {
        files: languages.iter().map(|l| l.files).sum(),
        lines: languages.iter().map(|l| l.lines).sum(),
        bytes: languages.iter().map(|l| l.bytes).sum(),
        languages,
    }
}

impl Report {
    /// The report as Markdown.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut text = format!(
            "# Text analysis\n\n{} files, {} lines, {} bytes\n\n\
             | language | files | lines | words | vocabulary | typical terms | nearest |\n\
             |---|---|---|---|---|---|---|\n",
            self.files, self.lines, self.bytes
        );
        for l in &self.languages {
            let terms: Vec<_> = l.terms.iter().map(|(term, _)| term.as_str()).collect();
            let nearest =
                l.nearest.as_ref().map_or_else(String::new, |(n, s)| format!("{n} {:.1} %", s * 100.0));
            let row = [
                l.language.clone(),
                l.files.to_string(),
                l.lines.to_string(),
                l.words.to_string(),
                l.vocabulary.to_string(),
                terms.join(", "),
                nearest,
            ];
            // Writing to a String cannot fail.
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::count::{count, merge, write_file};

    fn counts() -> Counts {
        let mut all = Counts::new();
        for (language, content) in [
            ("Rust", "impl trait the the impl match impl trait match trait match"),
            ("C", "struct the the void struct void struct void the"),
        ] {
            let mut part = Vec::new();
            write_file(&mut part, language, content.as_bytes()).unwrap();
            merge(&mut all, count(&part).unwrap());
        }
        all
    }

    #[test]
    fn typical_terms_are_frequent_here_and_rare_elsewhere() {
        let rust = typical(&counts(), "Rust", 3);
        let terms: Vec<_> = rust.terms.iter().map(|(t, _)| t.as_str()).collect();
        assert_eq!(terms, ["impl", "match", "trait"]);
        assert_eq!(rust.vocabulary, 4);
    }

    #[test]
    fn a_language_that_is_not_there_is_empty() {
        let none = typical(&counts(), "Cobol", 3);
        assert_eq!((none.files, none.terms.len(), none.nearest), (0, 0, None));
    }

    #[test]
    fn the_largest_language_stands_first() {
        let all = counts();
        let whole = report(vec![typical(&all, "C", 2), typical(&all, "Rust", 2)]);
        assert_eq!(whole.languages[0].language, "Rust");
        assert_eq!(whole.files, 2);
        assert!(whole.to_markdown().contains("| Rust | 1 |"));
    }
}
