//! Arguments of the parts of `foresail lab` that carry workloads out: planners and optimisations beside each
//! other, on real runs.

use std::path::PathBuf;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use foresail_schemas::config::Sla;
use foresail_schemas::plan::Objective;

use super::{HostArgs, parse_objective};

/// `foresail lab run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    foresail lab run --workloads gemm,tsqr:32 --planners simple,auto,random --repeats 5\n  \
    foresail lab run --workloads all --planners simple,auto --learn 5 -o csv > runs.csv\n\n\
    A workload is an example, with a size after a colon where its default is not wanted. Each has a stack\n\
    and a history of its own: first runs that only learn, then repetitions in turn, planner by planner,\n\
    every one from a cold start. The result of every run is compared with that of the same functions\n\
    carried out in this process. The planner named first is what the others are held against.\n\
    Ctrl-C cancels the run under way and shows what is done.")]
pub struct LabRunArgs {
    /// What is run.
    #[command(flatten)]
    pub bench: BenchArgs,
    /// Who plans, separated by commas: names, or exec:PROGRAM.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "simple,auto,random")]
    pub planners: Vec<String>,
    /// Runs under each planner.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = count(1))]
    pub repeats: u32,
}

/// What is run on a stack of its own, and on what.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Workflows, separated by commas: NAME or NAME:SIZE of `foresail run`, or all.
    #[arg(long, value_name = "LIST", value_delimiter = ',', required = true)]
    pub workloads: Vec<String>,
    /// Runs before that only learn: the first under `simple`, the others under `auto`.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = count(0))]
    pub learn: u32,
    /// What the plans shall be best at: fastest, cheapest, deadline:20s, budget:0.01, balance:0.5.
    #[arg(long, default_value = "fastest", value_parser = parse_objective)]
    pub objective: Objective,
    /// Statistic of times that is planned with.
    #[arg(long, default_value = "mean")]
    pub sla: Sla,
    /// Where files are read, for the workloads that read files [default: sources of this machine].
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// The workers.
    #[command(flatten)]
    pub workers: HostArgs,
}

/// `foresail lab optimisations`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    foresail lab optimisations --workloads gemm,soykb:30 --repeats 5 -o markdown\n  \
    foresail lab optimisations --workloads all --cold-start-ms 200\n\n\
    Each optimisation is switched off in turns with everything on, every run from a cold start: starting\n\
    workers beforehand, fetching inputs beforehand, running a task twice, storing outputs while the next\n\
    task runs, beginning tasks before the store has answered, and holding large outputs as WUKONG does.\n\
    The ratio is that of the pairs, with its 95 % confidence interval. `planned` says in how many of the\n\
    plans it was: what no plan has brings nothing and costs nothing.")]
pub struct LabOptimisationsArgs {
    /// What is run.
    #[command(flatten)]
    pub bench: BenchArgs,
    /// Who plans; held outputs are planned by `wukong`.
    #[arg(long, value_name = "NAME", default_value = "nonuniform")]
    pub planner: String,
    /// Pairs of runs for each optimisation.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = count(1))]
    pub repeats: u32,
    /// Outputs of so many bytes are large to workers that hold them.
    #[arg(long, value_name = "BYTES", default_value_t = 100_000)]
    pub large_output_bytes: u64,
}

fn count(min: u64) -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(min..=1_000)
}
