//! What can go wrong with a run in Redis.

use foresail_schemas::RunId;

/// How an address is written.
pub(crate) const ADDRESS_HINT: &str = "write redis://USER:PASSWORD@HOST:PORT/DB, rediss:// for TLS, or \
                                       redis+cluster://USER:PASSWORD@HOST:PORT,HOST:PORT for a cluster";

/// Why a request to a run in Redis failed.
#[derive(Debug, thiserror::Error)]
pub enum CoordinationError {
    /// The address is none.
    #[error("`{shown}` is no address of Redis: {cause}; hint: {hint}")]
    Settings {
        /// The address, without a password.
        shown: String,
        /// Why.
        cause: String,
        /// What to do.
        hint: &'static str,
    },
    /// No answer came, or none that helps; whether the request had an effect is not known.
    #[error("Redis at `{at}`: {cause}; hint: {hint}")]
    Unreachable {
        /// Where.
        at: String,
        /// Why.
        cause: String,
        /// What to do.
        hint: &'static str,
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
