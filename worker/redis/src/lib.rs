//! The state of runs in Redis or Valkey: one log per run, folded by everybody who takes part.
//!
//! A request to a run is appended to its log, with the time of the server, by a script that gives back what
//! was appended since the asker looked last, all in one round trip. Everybody folds the log with the one
//! [`Ledger`](foresail_choreography::Ledger) that metad uses, so the answer to a request is what the fold
//! says at its place, and events are what falls out of it: there is no second implementation of the rules,
//! and nothing is decided in the script. What changes nothing (questions) is not appended.
//!
//! - [`fold`]: requests, and what they come to; [`entry`]: requests as bytes; [`snapshot`]: the state of a
//!   fold for who joins late. Pure.
//! - [`keys`]: what lies where; all keys of a run share a hash slot, and a script touches those of one run.
//! - [`runs`]: the client, of one server or of a cluster. Publishing only wakes who waits; without it,
//!   waiting is polling.
//!
//! Guarantees: requests are atomic, and a repeated one answers like the first, as far as the ledger promises
//! it, so a request whose answer was lost is sent again. A lease ends by the clock of the server alone. Every
//! wait has a limit. A log that is not the one folded so far is noticed and folded anew. Times in ms.

mod address;
pub mod entry;
mod error;
pub mod fold;
pub mod keys;
mod listen;
mod log;
pub mod runs;
pub mod snapshot;

pub use error::CoordinationError;
pub use runs::{NewRun, Runs};
