//! What can go wrong with a run in Redis.

use foresail_schemas::RunId;

/// Why a request to a run in Redis failed.
#[derive(Debug, thiserror::Error)]
pub enum CoordinationError {
    /// The address is none.
    #[error("`{shown}` is no address of Redis: {cause}; hint: write redis://USER:PASSWORD@HOST:PORT/DB")]
    Settings {
        /// The address, without a password.
        shown: String,
        /// Why.
        cause: String,
    },
    /// No answer came, or none that helps; whether the request had an effect is not known.
    #[error("Redis at `{at}`: {cause}; hint: is it running, and is the address right?")]
    Unreachable {
        /// Where.
        at: String,
        /// Why.
        cause: String,
    },
    /// There is no such run.
    #[error("there is no run `{0}` in Redis")]
    NoSuchRun(RunId),
    /// Another plan is in force than the one expected, or the run is over.
    #[error("plan `{0}` is in force, or the run is over")]
    OtherPlan(u64),
    /// What lies there cannot be read.
    #[error("run `{run}` in Redis: {cause}")]
    Damaged {
        /// The run.
        run: RunId,
        /// Why.
        cause: String,
    },
}
