//! Workflows that come with Foresail, each built at any size by one number.

use std::path::{Path, PathBuf};

use foresail_schemas::Workflow;
use foresail_schemas::wfformat::{BURN, BurnParams};

use crate::builder::{BuildError, TaskHandle, WorkflowBuilder};
use crate::text::{TextAnalysis, TextError};

/// Largest size of an example: numbers, tiles or words.
pub const SIZE_MAX: u64 = 100_000;

/// A workflow that comes with Foresail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Example {
    /// Three command lines: the smallest workflow there is to see.
    Hello,
    /// Words that are typical of each language in a folder of files.
    TextAnalysis,
    /// Numbers added pairwise until one is left: measures the engine itself.
    TreeReduction,
    /// The shape of an astronomical mosaic (Montage), with tasks that burn CPU.
    Montage,
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

impl Example {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Hello, Self::TextAnalysis, Self::TreeReduction, Self::Montage];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::TextAnalysis => "text-analysis",
            Self::TreeReduction => "tree-reduction",
            Self::Montage => "montage",
        }
    }

    /// What it does and what its size means.
    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            Self::Hello => "three shell commands in a row (size: greetings, default 3)",
            Self::TextAnalysis => "typical words per language in a folder (size: MB of files, default 24)",
            Self::TreeReduction => "adds numbers pairwise until one is left (size: numbers, default 64)",
            Self::Montage => "mosaic of image tiles, synthetic load (size: tiles, default 8)",
        }
    }

    /// The example of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|example| example.name() == name)
    }

    /// Builds it. `folder` is used by the text analysis alone; see [`default_folder`].
    ///
    /// # Errors
    /// [`ExampleError`] when the size is out of range or the folder has nothing to analyse.
    pub fn workflow(self, size: Option<u64>, folder: &Path) -> Result<Workflow, ExampleError> {
        let (default, min, max) = match self {
            Self::Hello => (3, 1, 1_000),
            Self::TextAnalysis => (24, 1, 4_096),
            Self::TreeReduction => (64, 2, SIZE_MAX),
            Self::Montage => (8, 2, 10_000),
        };
        let size = size.unwrap_or(default);
        if !(min..=max).contains(&size) {
            return Err(ExampleError::Size { example: self.name(), size, min, max });
        }
        match self {
            Self::Hello => Ok(hello(size)?),
            Self::TreeReduction => Ok(tree_reduction(size)?),
            Self::Montage => Ok(montage(size)?),
            Self::TextAnalysis => {
                let bytes_max = size * 1_000_000;
                Ok(TextAnalysis { bytes_max, ..TextAnalysis::of(folder.to_owned()) }.workflow()?)
            }
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

fn tree_reduction(numbers: u64) -> Result<Workflow, BuildError> {
    let mut flow =
        WorkflowBuilder::new("tree-reduction").description("Adds numbers pairwise until one is left");
    let mut level: Vec<TaskHandle> = Vec::new();
    for i in 0..numbers / 2 {
        // An odd number out joins the last pair.
        let last = numbers % 2 == 1 && i == numbers / 2 - 1;
        let values: Vec<u64> = (2 * i + 1..=2 * i + 2 + u64::from(last)).collect();
        let task = flow.task(format!("add-1-{}", i + 1)).named("add").function("example.add", ());
        level.push(values.iter().fold(task, |task, value| task.reads_value(value)).handle());
    }
    let mut depth = 1;
    while level.len() > 1 {
        depth += 1;
        let mut next = Vec::with_capacity(level.len().div_ceil(2));
        for (i, pair) in level.chunks(2).enumerate() {
            match pair {
                [left, right] => {
                    let task = flow.task(format!("add-{depth}-{}", i + 1)).named("add");
                    next.push(task.function("example.add", ()).reads(left).reads(right).handle());
                }
                odd => next.extend_from_slice(odd),
            }
        }
        level = next;
    }
    flow.build()
}

/// Montage's steps: project every tile, fit the overlaps of neighbours, solve for the backgrounds, correct
/// every tile, add them up, shrink the mosaic. CPU times and sizes are a hundredth to a tenth of a real small
/// mosaic.
fn montage(tiles: u64) -> Result<Workflow, BuildError> {
    const TILE_BYTES: u64 = 400_000;
    let mut flow =
        WorkflowBuilder::new("montage-example").description("Shape of a Montage mosaic, synthetic load");
    let mut load = |id: String, name: &str, cpu_ms: f64, bytes: u64, reads: &[&TaskHandle]| {
        let task = flow.task(id).named(name).function(BURN, BurnParams { cpu_ms }).output_of("out", bytes);
        reads.iter().fold(task, |task, read| task.reads(read)).handle()
    };
    let mut projected = Vec::new();
    for i in 1..=tiles {
        projected.push(load(format!("project-{i}"), "project", 180.0, TILE_BYTES, &[]));
    }
    let mut fits = Vec::new();
    for (i, pair) in projected.windows(2).enumerate() {
        fits.push(load(format!("fit-{}", i + 1), "fit", 40.0, 300, &[&pair[0], &pair[1]]));
    }
    let fits: Vec<&TaskHandle> = fits.iter().collect();
    let concat = load("concat".to_owned(), "concat", 30.0, 2_000, &fits);
    let model = load("model".to_owned(), "model", 120.0, 2_000, &[&concat]);
    let mut corrected = Vec::new();
    for (i, tile) in projected.iter().enumerate() {
        corrected.push(load(format!("correct-{}", i + 1), "correct", 50.0, TILE_BYTES, &[tile, &model]));
    }
    let corrected: Vec<&TaskHandle> = corrected.iter().collect();
    let add = load("add".to_owned(), "add", 250.0, tiles * TILE_BYTES / 2, &corrected);
    load("shrink".to_owned(), "shrink", 60.0, 50_000, &[&add]);
    flow.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_builds_at_its_default_and_at_a_small_size() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.rs"), "fn main() {}").unwrap();
        for example in Example::ALL {
            assert_eq!(Example::find(example.name()), Some(example));
            for size in [None, Some(2)] {
                assert!(!example.workflow(size, dir.path()).unwrap().tasks().is_empty(), "{example:?}");
            }
            assert!(example.workflow(Some(0), dir.path()).is_err());
        }
    }

    #[test]
    fn a_tree_of_n_numbers_has_one_task_per_addition() {
        for (numbers, tasks) in [(2, 1), (3, 1), (64, 63), (1024, 1023)] {
            let workflow = tree_reduction(numbers).unwrap();
            assert_eq!(workflow.tasks().len(), tasks);
            assert_eq!(workflow.graph().sinks().count(), 1);
        }
    }

    #[test]
    fn a_mosaic_of_n_tiles_has_the_steps_of_montage() {
        let workflow = montage(8).unwrap();
        assert_eq!(workflow.tasks().len(), 8 + 7 + 1 + 1 + 8 + 1 + 1);
        assert_eq!(workflow.graph().sinks().count(), 1);
    }
}
