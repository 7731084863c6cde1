//! Arguments of re-planning: what a run does by itself, and `foresail replan`.

use clap::{Args, ValueEnum};
use foresail_schemas::id::RunId;
use foresail_schemas::run::ReplanMode;

/// What happens when a run does not go as planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Replan {
    /// Its plan stays.
    Off,
    /// A better plan is shown.
    Suggest,
    /// A better plan is put in force.
    Auto,
}

impl From<Replan> for ReplanMode {
    fn from(replan: Replan) -> Self {
        match replan {
            Replan::Off => Self::Off,
            Replan::Suggest => Self::Suggest,
            Replan::Auto => Self::Auto,
        }
    }
}

/// `foresail replan`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  foresail replan r-20260105-101530-4f2a1c\n  \
    foresail replan r-20260105-101530-4f2a1c --accept\n\n\
    The rest of a run that is under way is planned again, with what metad knows now and what the run has\n\
    shown. A better plan is kept beside the one in force, until it is accepted or another takes its place;\n\
    so is the one that a run under --replan suggest finds. Tasks that have begun stay where they are.")]
pub struct ReplanArgs {
    /// The run.
    pub run: RunId,
    /// Puts a better plan in force at once.
    #[arg(long, conflicts_with = "accept")]
    pub auto: bool,
    /// Puts the plan in force that was suggested last, and looks for no other.
    #[arg(long)]
    pub accept: bool,
}
