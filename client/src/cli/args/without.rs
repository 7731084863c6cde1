//! What can be typed after commands that this program was built without: anything, so that it can be said
//! what is missing.

use clap::Args;

/// A command whose part of the program is missing.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Missing {
    /// Whatever is asked of it.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub asked: Vec<String>,
}

/// `foresail deploy`.
pub type DeployArgs = Missing;
/// `foresail doctor`.
pub type DoctorArgs = Missing;
/// `foresail destroy`.
pub type DestroyArgs = Missing;
