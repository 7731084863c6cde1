//! Arguments of `foresail lab plans`: planners beside each other, without a stack.

use std::path::PathBuf;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use foresail_schemas::config::Sla;
use foresail_schemas::optimization::OptimizationKind;

use super::parse_optimization;
use crate::lab::plans::{Curve, Goal};
use crate::lab::shapes::Shape;

/// `foresail lab plans`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    foresail lab plans --wfformat recorded/ --tasks-ms-max 60000,5000\n  \
    foresail lab plans --wfformat a.json b.json --planners simple,auto --objective at-simple\n  \
    foresail lab plans --shapes tree:1024,gemm:5 --planners all -o csv > plans.csv\n  \
    foresail lab plans --wfformat recorded/ --planners simple,auto --history 0,1,5,20 --seeds 5\n  \
    foresail lab plans --shapes svd --planners auto,'exec:python3 mine.py'\n\n\
    Every plan is carried out in virtual time with the recorded times of the tasks. A trace says\n\
    nothing of other sizes of worker: --curve says what is taken for true there. Without --history\n\
    planners are told the truth; with it, what the predictor makes of that many earlier runs.\n\
    Ctrl-C shows what is done so far. docs/planning.md explains the columns.")]
pub struct PlannersArgs {
    /// WfFormat 1.5 instances, or folders of them.
    #[arg(long, value_name = "FILE|DIR", num_args = 1..)]
    pub wfformat: Vec<PathBuf>,
    /// Synthetic workflows, separated by commas: tree:N, gemm:N, svd:N, tsqr:N, fork-join:SxW, layered:LxW;
    /// each has numbers where none are given.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub shapes: Vec<Shape>,
    /// Who plans, separated by commas: all, names, exec:PROGRAM.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "all")]
    pub planners: Vec<String>,
    /// What the plans shall be best at: fastest, cheapest, deadline:20s, budget:0.01, balance:0.5, or
    /// at-simple, the least cost within the time of the fastest plan of `simple`.
    #[arg(long, default_value = "fastest", value_parser = parse_goal)]
    pub objective: Goal,
    /// What planners shall not do beside running tasks, separated by commas: pre-load, task-dup, pre-warm.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = parse_optimization)]
    pub without: Vec<OptimizationKind>,
    /// How often each problem is planned, with other seeds of what is drawn.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = seeds())]
    pub seeds: u64,
    /// Lengths of the history that predictions are learned from, separated by commas.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = lengths())]
    pub history: Vec<u32>,
    /// Spread of times in the history: standard deviation of their logarithm.
    #[arg(long, value_name = "X", default_value_t = 0.2, value_parser = parse_noise)]
    pub noise: f64,
    /// How time depends on the size of the worker: drawn (a serial share and a number of usable vCPUs, drawn
    /// from the name of the function) or one-vcpu (up to one vCPU in proportion, no further).
    #[arg(long, value_name = "NAME", default_value = "drawn")]
    pub curve: Curve,
    /// Scales times so that the longest task of a workflow takes this many ms at most; several after another,
    /// separated by commas [default: as recorded].
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = parse_positive)]
    pub tasks_ms_max: Vec<f64>,
    /// Prices and sizes: local, aws-lambda-x86, aws-lambda-arm64, knative or a TOML file.
    #[arg(long, default_value = "aws-lambda-x86", value_name = "NAME|FILE")]
    pub platform: String,
    /// Statistic that is planned with, where something was learned.
    #[arg(long, default_value = "median")]
    pub sla: Sla,
    /// Writes the data to this file instead of stdout.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

fn seeds() -> RangedU64ValueParser<u64> {
    RangedU64ValueParser::new().range(1..=1_000)
}

fn lengths() -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(0..=1_000)
}

/// Reads an objective, or `at-simple`.
///
/// # Errors
/// A sentence that names what was expected.
pub fn parse_goal(text: &str) -> Result<Goal, String> {
    match text {
        "at-simple" => Ok(Goal::AtReference),
        _ => super::parse_objective(text).map(Goal::Given).map_err(|e| format!("{e}, or at-simple")),
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|x: &f64| x.is_finite() && *x >= 0.0)
}

fn parse_noise(text: &str) -> Result<f64, String> {
    let noise = number(text).filter(|x| *x <= 3.0);
    noise.ok_or_else(|| format!("`{text}` is not a spread from 0 to 3"))
}

/// Reads a time in ms above 0.
///
/// # Errors
/// A sentence that names what was expected.
pub fn parse_positive(text: &str) -> Result<f64, String> {
    let ms = number(text).filter(|x| *x > 0.0);
    ms.ok_or_else(|| format!("`{text}` is not a time in ms, for instance 60000"))
}
