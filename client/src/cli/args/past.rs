//! Arguments of the commands that are about runs which were started before.

use std::path::PathBuf;

use clap::Args;
use foresail_schemas::id::RunId;

use super::HostArgs;
use crate::units;

/// `foresail runs`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  foresail runs\n  foresail runs r-20260105-101530-4f2a1c\n  \
    foresail runs RUN -o ndjson     every event, one per line")]
pub struct RunsArgs {
    /// The run to show in detail.
    pub run: Option<RunId>,
}

/// `foresail resume`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  foresail resume r-20260105-101530-4f2a1c\n\n\
    A new run of the same workflow under the same plan begins with the results that the old one has.\n\
    A workflow that was changed is resumed with: foresail run FILE --resume RUN")]
pub struct ResumeArgs {
    /// The run that failed, was cancelled, or stands still because nobody looks after it any more.
    pub run: RunId,
    /// Saves the results in this folder, one file per output.
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Gives up after this time, for instance 10min.
    #[arg(long, value_name = "TIME", value_parser = units::parse_ms)]
    pub timeout: Option<f64>,
    /// Workers, where a stack is started for the run.
    #[command(flatten)]
    pub workers: HostArgs,
}

/// `foresail cancel`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  foresail cancel r-20260105-101530-4f2a1c --reason 'wrong input'\n\n\
    A run that has ended before stays as it is; the exit code is then 1.")]
pub struct CancelArgs {
    /// The run.
    pub run: RunId,
    /// Why; kept with the run.
    #[arg(long, default_value = "cancelled on the command line")]
    pub reason: String,
}

/// `foresail bill`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  foresail bill r-20260105-101530-4f2a1c\n  \
    foresail bill RUN -o json\n\n\
    The prediction is that of the plan which the run began with. The causes add up to the difference.")]
pub struct BillArgs {
    /// The run.
    pub run: RunId,
}
