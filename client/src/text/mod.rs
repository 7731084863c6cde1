//! The text analysis that the demo runs: which words are typical of which language in a folder of files.
//!
//! The workflow: `split` chooses files and cuts them into parts; `count` counts each part; `merge` adds
//! counts up in a binary tree; `terms` finds what is typical of one language; `report` puts it together. The
//! functions are pure in their parameters and inputs ([`split`] alone reads the folder), so every run over
//! the same files has the same result.

pub mod count;
pub mod report;
pub mod scan;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::builder::{BuildError, TaskHandle, WorkflowBuilder};
use foresail_schemas::Workflow;

/// Name of the workflow.
pub const WORKFLOW: &str = "text-analysis";
/// Name of the workflow that only counts.
pub const WORD_COUNT: &str = "wordcount";
/// Most parts a folder is cut into.
pub const PARTS_MAX: usize = 1_000;
/// Name of the report's output that holds the report as JSON.
pub const REPORT_JSON: &str = "report.json";
/// Name of the report's output that holds the report as Markdown.
pub const REPORT_MARKDOWN: &str = "report.md";

/// What is analysed, and how finely it is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextAnalysis {
    /// Where the files are.
    pub folder: PathBuf,
    /// Most bytes of files in all.
    pub bytes_max: u64,
    /// Parts that are counted in parallel.
    pub parts: usize,
    /// Most languages with a list of terms; the largest are taken.
    pub languages_max: usize,
    /// Terms listed per language.
    pub top: usize,
}

/// Parameters of `text.split`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SplitParams {
    /// Where the files are.
    pub folder: PathBuf,
    /// Most bytes of files in all.
    pub bytes_max: u64,
    /// Parts to cut.
    pub parts: usize,
}

/// Parameters of `text.terms`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TermsParams {
    /// The language.
    pub language: String,
    /// Terms listed.
    pub top: usize,
}

/// Why there is nothing to analyse.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The folder cannot be listed.
    #[error("the folder `{}` cannot be read: {source}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The folder has no file of a known language.
    #[error("`{}` has no source or text files within the limit of {bytes_max} bytes", folder.display())]
    Empty {
        /// The folder.
        folder: PathBuf,
        /// The limit.
        bytes_max: u64,
    },
    /// The workflow could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
}

impl TextAnalysis {
    /// The analysis of `folder` with the sizes the demo uses.
    #[must_use]
    pub fn of(folder: PathBuf) -> Self {
        Self { folder, bytes_max: 24_000_000, parts: 12, languages_max: 6, top: 8 }
    }

    /// The workflow. Looks at the folder to learn which languages there are; contents are read by the run.
    ///
    /// # Errors
    /// [`TextError`] when the folder cannot be listed or has nothing to analyse.
    pub fn workflow(&self) -> Result<Workflow, TextError> {
        let folder = std::path::absolute(&self.folder).unwrap_or_else(|_| self.folder.clone());
        let sources = scan::choose(&folder, self.bytes_max)
            .map_err(|source| TextError::Folder { folder: folder.clone(), source })?;
        let languages = scan::languages(&sources);
        if languages.is_empty() {
            return Err(TextError::Empty { folder, bytes_max: self.bytes_max });
        }
        let names: Vec<_> = languages.iter().take(self.languages_max).map(|(name, _)| *name).collect();
        Ok(self.build(&folder, &names)?)
    }

    /// The counts alone, added up by one task.
    ///
    /// # Errors
    /// [`TextError`] when the folder cannot be listed or has nothing to count.
    pub fn word_count(&self) -> Result<Workflow, TextError> {
        let folder = std::path::absolute(&self.folder).unwrap_or_else(|_| self.folder.clone());
        let sources = scan::choose(&folder, self.bytes_max)
            .map_err(|source| TextError::Folder { folder: folder.clone(), source })?;
        if scan::languages(&sources).is_empty() {
            return Err(TextError::Empty { folder, bytes_max: self.bytes_max });
        }
        let mut flow = WorkflowBuilder::new(WORD_COUNT).description("Counts the words of a folder in parts");
        let counts = self.counts(&mut flow, &folder);
        let merge = flow.task("merge").function("text.merge", ());
        counts.iter().fold(merge, |task, count| task.reads(count));
        Ok(flow.build()?)
    }

    /// Splits the files and counts every part.
    fn counts(&self, flow: &mut WorkflowBuilder, folder: &Path) -> Vec<TaskHandle> {
        let count = self.parts.clamp(1, PARTS_MAX);
        let parts: Vec<String> = (1..=count).map(|i| format!("part-{i}")).collect();
        let params = SplitParams { folder: folder.to_owned(), bytes_max: self.bytes_max, parts: count };
        let split = flow.task("split").function("text.split", params).outputs(parts.iter()).handle();
        let mut counts = Vec::with_capacity(count);
        for part in &parts {
            let id = part.replace("part", "count");
            let task = flow.task(id).named("count").function("text.count", ());
            counts.push(task.reads_output(&split, part).handle());
        }
        counts
    }

    fn build(&self, folder: &Path, languages: &[&str]) -> Result<Workflow, BuildError> {
        let mut flow =
            WorkflowBuilder::new(WORKFLOW).description("Words that are typical of each language in a folder");
        let level = self.counts(&mut flow, folder);
        let counts = merge_tree(&mut flow, level);
        let mut terms = Vec::with_capacity(languages.len());
        for language in languages {
            let params = TermsParams { language: (*language).to_owned(), top: self.top };
            let id = format!("terms-{}", language.to_lowercase().replace('#', "sharp"));
            terms.push(flow.task(id).named("terms").function("text.terms", params).reads(&counts).handle());
        }
        let mut report = flow.task("report").function("text.report", ());
        for list in &terms {
            report = report.reads(list);
        }
        report.outputs([REPORT_JSON, REPORT_MARKDOWN]);
        flow.build()
    }
}

/// Adds two at a time until one is left; an odd one waits for the next level.
fn merge_tree(flow: &mut WorkflowBuilder, mut level: Vec<TaskHandle>) -> TaskHandle {
    let mut depth = 0;
    while level.len() > 1 {
        depth += 1;
        level = level
            .chunks(2)
            .enumerate()
            .map(|(i, pair)| match pair {
                [left, right] => {
                    let task = flow.task(format!("merge-{depth}-{}", i + 1)).named("merge");
                    task.function("text.merge", ()).reads(left).reads(right).handle()
                }
                _ => pair[0].clone(),
            })
            .collect();
    }
    level.remove(0)
}

/// `text.split`: reads the files and writes one object per part.
///
/// # Errors
/// A sentence when the folder cannot be read. A file that vanished in between counts as empty.
pub fn split(params: &SplitParams) -> Result<Vec<Vec<u8>>, String> {
    let folder = params.folder.display();
    let sources = scan::choose(&params.folder, params.bytes_max)
        .map_err(|e| format!("the folder `{folder}` cannot be read: {e}"))?;
    let mut objects = Vec::with_capacity(params.parts);
    for list in scan::parts(sources, params.parts.clamp(1, PARTS_MAX)) {
        let mut part = Vec::with_capacity(list.iter().map(|s| s.bytes as usize + 64).sum());
        for source in list {
            let content = std::fs::read(&source.path).unwrap_or_default();
            count::write_file(&mut part, source.language, &content).map_err(|e| e.to_string())?;
        }
        objects.push(part);
    }
    Ok(objects)
}

/// `text.count`: counts one part.
///
/// # Errors
/// A sentence when the part is damaged.
pub fn count_part(part: &[u8]) -> Result<Vec<u8>, String> {
    encode(&count::count(part)?)
}

/// `text.merge`: adds counts.
///
/// # Errors
/// A sentence when one of them is damaged.
pub fn merge(inputs: &[impl AsRef<[u8]>]) -> Result<Vec<u8>, String> {
    let mut sum = count::Counts::new();
    for input in inputs {
        count::merge(&mut sum, decode(input.as_ref())?);
    }
    encode(&sum)
}

/// `text.terms`: what is typical of one language.
///
/// # Errors
/// A sentence when the counts are damaged.
pub fn terms(params: &TermsParams, counts: &[u8]) -> Result<Vec<u8>, String> {
    encode(&report::typical(&decode(counts)?, &params.language, params.top))
}

/// `text.report`: the whole as JSON and as Markdown.
///
/// # Errors
/// A sentence when one of the lists is damaged.
pub fn report(inputs: &[impl AsRef<[u8]>]) -> Result<[Vec<u8>; 2], String> {
    let languages = inputs.iter().map(|input| decode(input.as_ref())).collect::<Result<_, _>>()?;
    let whole = report::report(languages);
    let json = serde_json::to_vec_pretty(&whole).map_err(|e| e.to_string())?;
    Ok([json, whole.to_markdown().into_bytes()])
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, String> {
    serde_json::to_vec(value).map_err(|e| format!("a result cannot be written as JSON: {e}"))
}

fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|e| format!("an input is not what this function reads: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("a.rs", "impl trait match impl trait match impl trait match"),
            ("b.rs", "impl match trait impl match trait"),
            ("c.py", "def yield def yield def yield lambda lambda lambda"),
        ] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    fn analyse(folder: &Path, parts: usize) -> Vec<u8> {
        let params = SplitParams { folder: folder.to_owned(), bytes_max: 1 << 20, parts };
        let counts: Vec<_> = split(&params).unwrap().iter().map(|p| count_part(p).unwrap()).collect();
        let sum = merge(&counts).unwrap();
        let lists: Vec<_> = ["Rust", "Python"]
            .map(|language| terms(&TermsParams { language: language.into(), top: 3 }, &sum).unwrap())
            .into();
        let [json, _] = report(&lists).unwrap();
        json
    }

    #[test]
    fn the_report_does_not_depend_on_how_the_folder_is_cut() {
        let dir = sources();
        let whole = analyse(dir.path(), 1);
        assert_eq!(whole, analyse(dir.path(), 3));
        let report: report::Report = serde_json::from_slice(&whole).unwrap();
        assert_eq!(report.languages[0].language, "Rust");
        assert_eq!(report.languages[1].terms[0], ("def".to_owned(), 3));
    }

    #[test]
    fn the_workflow_is_a_split_a_tree_and_a_report() {
        let dir = sources();
        let analysis = TextAnalysis { parts: 5, ..TextAnalysis::of(dir.path().to_owned()) };
        let workflow = analysis.workflow().unwrap();
        let named = |name: &str| workflow.tasks().iter().filter(|t| t.name.as_str() == name).count();
        assert_eq!(["split", "count", "merge", "terms", "report"].map(named), [1, 5, 4, 2, 1]);
        assert_eq!(workflow.graph().sinks().count(), 1);
    }

    #[test]
    fn a_folder_without_text_is_refused_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let error = TextAnalysis::of(dir.path().to_owned()).workflow().unwrap_err().to_string();
        assert!(error.contains(&dir.path().display().to_string()), "{error}");
    }
}
