//! Arguments of `foresail lab scale`: a run at size, in virtual time.

use std::path::PathBuf;

use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::plans::parse_positive;
use crate::lab::scale::WORKERS_MAX;
use crate::lab::scale::service::Keeper;

/// `foresail lab scale`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    foresail lab scale --workers 10,1000,10000\n  \
    foresail lab scale --workers 100000 --runs 100 -o json\n  \
    foresail lab scale --workers 1000 --coordination redis --tasks-per-worker 20 --task-ms 10000\n  \
    foresail lab scale --workers 64 --workflow tree:1024\n  \
    foresail lab scale --measure > mine.toml && foresail lab scale --workers 1000 --service mine.toml\n\n\
    The state machines of real runs carry a run out twice in virtual time: once where nothing has to\n\
    wait, and once where the keeper of its state, the platform and the store let it wait when they are\n\
    busy. A ratio over 1 is a limit that is met; the largest breaks first. docs/scale.md explains the\n\
    columns, and which numbers are measured, calculated, simulated or taken from documentation.")]
pub struct LabScaleArgs {
    /// Workers at the same time, several numbers separated by commas.
    #[arg(long, value_name = "N,...", value_delimiter = ',', required_unless_present = "measure",
        value_parser = count(u64::from(WORKERS_MAX)))]
    pub workers: Vec<u32>,
    /// Equal runs at the same time that the workers are divided over.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count(100_000))]
    pub runs: u32,
    /// What is run: a workflow or WfFormat file, or a shape as `lab plans` has them [default: layers of one
    /// task per worker].
    #[arg(long, value_name = "FILE|SHAPE", conflicts_with_all = ["tasks_per_worker", "task_ms"])]
    pub workflow: Option<String>,
    /// Layers, where no workflow is named.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = count(10_000))]
    pub tasks_per_worker: u32,
    /// Mean time of their tasks in ms.
    #[arg(long, value_name = "MS", default_value_t = 10_000.0, value_parser = parse_positive)]
    pub task_ms: f64,
    /// Limits and sizes: local, aws-lambda-x86, aws-lambda-arm64, knative or a TOML file.
    #[arg(long, default_value = "aws-lambda-x86", value_name = "NAME|FILE")]
    pub platform: String,
    /// Who keeps the state of the runs.
    #[arg(long, value_enum, default_value = "metad")]
    pub coordination: Keeper,
    /// What it can do, as a table like those in client/src/lab/scale/ [default: as measured by us].
    #[arg(long, value_name = "FILE")]
    pub service: Option<PathBuf>,
    /// Measures what metad can do instead, the one of `--metad` or one of this process, and writes the table.
    #[arg(long, conflicts_with = "workers")]
    pub measure: bool,
    /// Seed of what is drawn: how far the time of each task is from the planned one.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

fn count(most: u64) -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(1..=most)
}
