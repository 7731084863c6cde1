//! Workflows that come with Foresail, each built at any size by one number.
//!
//! They serve as examples and as workloads for comparing planners (`foresail lab run`): those of WUKONG
//! (SoCC'20), numpywren (SoCC'20), FaaSFlow (ASPLOS'22) and of the reference design, rebuilt from what was
//! published of them. Their functions are pure in parameters and inputs, so every run has the same result.

pub mod image;
pub mod matrix;
mod recorded;
pub mod reference;
mod tree;

use std::path::{Path, PathBuf};

use foresail_schemas::Workflow;

use crate::builder::{BuildError, WorkflowBuilder};
use crate::text::{TextAnalysis, TextError};

/// Largest size of an example: numbers, tiles or words.
pub const SIZE_MAX: u64 = 100_000;

/// A workflow that comes with Foresail.
#[derive(Debug, Clone, Copy)]
pub struct Example {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does and what its size means.
    pub description: &'static str,
    /// The size where none is given.
    pub size_default: u64,
    /// Smallest size.
    pub size_min: u64,
    /// Largest size.
    pub size_max: u64,
    build: Build,
}

#[derive(Debug, Clone, Copy)]
enum Build {
    /// From the size alone.
    Sized(fn(u64) -> Result<Workflow, BuildError>),
    /// From files of a folder as well.
    OfFiles(fn(u64, &Path) -> Result<Workflow, TextError>),
}

/// Why an example could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ExampleError {
    /// The size is out of range.
    #[error("the size `{size}` of example `{example}` must lie between {min} and {max}")]
    Size {
        /// The example.
        example: &'static str,
        /// The size given.
        size: u64,
        /// Smallest size.
        min: u64,
        /// Largest size.
        max: u64,
    },
    /// The files to analyse are not there.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The workflow breaks a rule.
    #[error(transparent)]
    Build(#[from] BuildError),
}

const fn sized(
    name: &'static str,
    description: &'static str,
    [size_default, size_min, size_max]: [u64; 3],
    build: fn(u64) -> Result<Workflow, BuildError>,
) -> Example {
    Example { name, description, size_default, size_min, size_max, build: Build::Sized(build) }
}

const fn of_files(
    name: &'static str,
    description: &'static str,
    [size_default, size_min, size_max]: [u64; 3],
    build: fn(u64, &Path) -> Result<Workflow, TextError>,
) -> Example {
    Example { name, description, size_default, size_min, size_max, build: Build::OfFiles(build) }
}

/// Range of the recorded workloads: 1,000 is what was published.
const MILLE: [u64; 3] = [100, 1, 10_000];

/// All of them.
pub const ALL: [Example; 21] = [
    sized("hello", "three shell commands in a row (size: greetings)", [3, 1, 1_000], hello),
    of_files(
        "text-analysis",
        "typical words per language in a folder (size: MB of files)",
        [24, 1, 4_096],
        text_analysis,
    ),
    of_files("wordcount", "words of a folder, 8 parts (size: MB of files)", [4, 1, 4_096], wordcount),
    sized("tree-reduction", "adds numbers pairwise (size: numbers)", [64, 2, SIZE_MAX], tree::reduction),
    sized(
        "tree-reduction-50ms",
        "the same with 50 ms of sleep per task (size: numbers)",
        [64, 2, SIZE_MAX],
        tree::reduction_50_ms,
    ),
    sized(
        "tree-reduction-500ms",
        "the same with 500 ms of sleep per task (size: numbers)",
        [64, 2, SIZE_MAX],
        tree::reduction_500_ms,
    ),
    sized("gemm", "product of two matrices (size: blocks per side)", [4, 1, 40], matrix::gemm),
    sized("svd1", "SVD of a tall matrix (size: blocks of rows)", [8, 1, 1_000], matrix::svd1),
    sized("svd2", "compressed SVD (size: blocks per side)", [4, 1, 40], matrix::svd2),
    sized("tsqr", "QR of a tall matrix by a tree (size: blocks of rows)", [16, 1, 10_000], matrix::tsqr),
    sized(
        "image-transform",
        "filters over 16 tiles of a picture (size: its width)",
        [1_200, 64, 8_000],
        image::transform,
    ),
    sized("montage", "mosaic of tiles, synthetic load (size: tiles)", [8, 2, 10_000], recorded::montage),
    sized("cycles", "agriculture, synthetic load (size: thousandths)", MILLE, recorded::cycles),
    sized("epigenomics", "sequencing, synthetic load (size: thousandths)", MILLE, recorded::epigenomics),
    sized("genome", "1000 genomes, synthetic load (size: thousandths)", MILLE, recorded::genome),
    sized("soykb", "soybean genomes, synthetic load (size: thousandths)", MILLE, recorded::soykb),
    sized("video", "transcoding, synthetic load (size: thousandths)", MILLE, recorded::video),
    sized(
        "recognizer",
        "censoring pictures, synthetic load (size: thousandths)",
        MILLE,
        recorded::recognizer,
    ),
    sized("file-processing", "two long steps, synthetic load (size: thousandths)", MILLE, recorded::files),
    sized("excamera", "video encoding, synthetic load (size: thousandths)", MILLE, recorded::excamera),
    sized(
        "map-reduce",
        "map, shuffle, reduce, synthetic load (size: thousandths)",
        MILLE,
        recorded::map_reduce,
    ),
];

impl Example {
    /// The example of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        ALL.into_iter().find(|example| example.name == name)
    }

    /// Builds it. `folder` is used by those that read files alone; see [`default_folder`].
    ///
    /// # Errors
    /// [`ExampleError`] when the size is out of range or the folder has nothing to analyse.
    pub fn workflow(&self, size: Option<u64>, folder: &Path) -> Result<Workflow, ExampleError> {
        let (min, max) = (self.size_min, self.size_max);
        let size = size.unwrap_or(self.size_default);
        if !(min..=max).contains(&size) {
            return Err(ExampleError::Size { example: self.name, size, min, max });
        }
        match self.build {
            Build::Sized(build) => Ok(build(size)?),
            Build::OfFiles(build) => Ok(build(size, folder)?),
        }
    }
}

/// Where there is text to analyse: the sources in the user's cargo registry, failing that the current folder.
#[must_use]
pub fn default_folder() -> PathBuf {
    let cargo = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let registry = cargo.map(|cargo| cargo.join("registry/src")).filter(|folder| folder.is_dir());
    registry.unwrap_or_else(|| PathBuf::from("."))
}

fn text_analysis(megabytes: u64, folder: &Path) -> Result<Workflow, TextError> {
    TextAnalysis { bytes_max: megabytes * 1_000_000, ..TextAnalysis::of(folder.to_owned()) }.workflow()
}

fn wordcount(megabytes: u64, folder: &Path) -> Result<Workflow, TextError> {
    TextAnalysis { bytes_max: megabytes * 1_000_000, parts: 8, ..TextAnalysis::of(folder.to_owned()) }
        .word_count()
}

fn hello(greetings: u64) -> Result<Workflow, BuildError> {
    let mut flow =
        WorkflowBuilder::new("hello").description("Greets, counts the greetings and says how many");
    let greet = flow
        .task("greet")
        .command(format!("for i in $(seq {greetings}); do echo \"hello $i\"; done"))
        .handle();
    let count = flow.task("count").command("wc -l").reads(&greet).handle();
    let say = "read n; echo \"$n greetings, sorted backwards:\"; ";
    flow.task("sort").command("sort -r").reads(&greet);
    flow.task("say").command(format!("{say}echo done")).reads(&count);
    flow.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_builds_at_its_default_and_at_a_small_size() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.rs"), "fn main() {}").unwrap();
        for example in ALL {
            assert_eq!(Example::find(example.name).unwrap().description, example.description);
            for size in [None, Some(example.size_min)] {
                let workflow = example.workflow(size, dir.path()).unwrap();
                assert!(!workflow.tasks().is_empty(), "{example:?}");
            }
            assert!(example.workflow(Some(0), dir.path()).is_err());
            assert!(example.workflow(Some(example.size_max + 1), dir.path()).is_err());
        }
    }
}
