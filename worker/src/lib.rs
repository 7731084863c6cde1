//! Workers of Foresail: executors, data, measurements, and the hosts that start them.
//!
//! - [`registry`]: the functions that tasks name; [`builtin`]: those that every worker has.
//! - [`custom`]: optimisations of one's own.
//! - [`executor`]: how functions and commands are run; [`data`]: how objects come and go.
//! - [`runtime`]: the worker process; it carries out what the choreography machine decides.
//! - [`host`]: platforms that start workers; [`host::local`] does so with processes on this machine.
//! - [`serve`]: a worker behind an HTTP endpoint.
//! - [`coordination`]: where the state of runs is kept, in metad or in Redis.
//! - [`metrics`]: measurements, on disk before they are sent.
//! - [`watch`]: what whoever watches over a run does.
//!
//! A program that calls [`run_worker_if_asked`] first thing in `main` is its own worker:
//!
//! ```
//! use foresail_worker::registry::{Registry, TaskInput};
//!
//! let registry = Registry::new().register("double", |input: TaskInput| {
//!     let n: i64 = serde_json::from_slice(&input.inputs[0])?;
//!     Ok((2 * n).to_string().into())
//! });
//! foresail_worker::run_worker_if_asked(&registry); // returns at once: no host started this program
//! ```
//!
//! Guarantees: no process that a worker or a host started outlives it; an output is stored before its commit
//! is sent; a measurement that was written is sent, however often that must be tried. Absent on purpose: this
//! crate decides nothing about tasks (the choreography does) and knows nothing of who planned.

pub mod api;
pub mod builtin;
pub mod coordination;
pub mod custom;
pub mod data;
mod documents;
mod ending;
pub mod executor;
pub mod host;
pub mod metad;
pub mod metrics;
mod note;
pub mod registry;
pub mod runtime;
pub mod serve;
mod text;
pub mod watch;

pub use custom::{CustomOptimization, OptimizedTask, Reach};
pub use host::local::{LocalFaas, LocalSettings};
pub use registry::{Registry, TaskError, TaskInput, TaskOutput};
pub use runtime::{run_worker_if_asked, worker_main};
