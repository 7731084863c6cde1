//! The metadata and prediction daemon of Foresail.
//!
//! It takes measurements in batches, learns from them, answers what a task will take, and keeps the state of
//! runs for the workers that carry them out. [`Server::start`] runs it on threads of its own, in the binary
//! `metad` and inside other processes alike.
//!
//! Guarantees: what was acknowledged survives a crash; a batch counts once, however often it is sent; a bad
//! record never costs a good one; reads wait for no write; every queue, body, batch and retention has a limit
//! in [`Settings`].
//!
//! | module | what it does |
//! |---|---|
//! | `settings` | one list of all settings: flags, environment, file, defaults |
//! | `store` | the only place that names redb: one file per key family |
//! | `write` | the writer thread (group commit, runs) and the learner thread (models) |
//! | `recover` | brings everything back at the start |
//! | `world`, `board` | what is read: an immutable world of models, a board per run |
//! | `batch_log` | batches through one log for several replicas (feature `nats`) |
//! | `export` | raw samples as NDJSON and Parquet |
//! | `http` | the REST API: parse, hand over, reply |
//! | `meter` | counters and the OpenMetrics text |
//! | `server` | starts and stops the whole |

mod batch_log;
mod board;
mod coordination;
mod export;
mod http;
mod meter;
mod recover;
mod server;
mod settings;
mod shared;
mod store;
mod world;
mod write;

pub use server::{Server, StartError};
pub use settings::{Overrides, Settings, SettingsError};
pub use store::StoreError;
