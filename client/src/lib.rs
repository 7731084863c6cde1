//! Define, plan, submit and watch workflows on serverless workers.
//!
//! ```no_run
//! use foresail::{Client, LocalStack, StackSettings, SubmitOptions, WorkflowBuilder};
//! use foresail::schemas::plan::Objective;
//! use foresail::schemas::Sla;
//!
//! # async fn show() -> Result<(), Box<dyn std::error::Error>> {
//! let mut flow = WorkflowBuilder::new("word-count");
//! let text = flow.task("text").command("printf 'b a b'").handle();
//! flow.task("count").command("wc -w").reads(&text);
//! let workflow = flow.build()?;
//!
//! let stack = LocalStack::start(StackSettings::default()).await?;
//! let client = stack.client().await?;
//! let predictions = client.predictions(&workflow, stack.platform(), Sla::Mean).await?;
//! let problem =
//!     foresail::problem(&workflow, stack.platform(), predictions, Objective::Fastest, 0);
//! let run = client.submit(&workflow, client.plan("auto", &problem)?, SubmitOptions::default()).await?;
//! let outcome = run.wait().await?.completed()?;
//! println!("{:?} in {} ms", run.result("count").await?, outcome.actual.makespan_ms);
//! stack.stop().await;
//! # Ok(()) }
//! ```
//!
//! A program that brings functions of its own calls [`worker`] first thing in `main`; see
//! `examples/hello.rs`.
//!
//! Units stand in the last part of a name: times in ms, sizes in bytes, memory in MB, money in USD.

mod basis;
mod beside;
pub mod bill;
pub mod bridge;
pub mod builder;
pub mod cli;
pub mod client;
pub mod error;
pub mod examples;
pub mod forecast;
pub mod functions;
mod http;
pub mod lab;
pub mod omitted;
pub mod outlook;
pub mod page;
pub mod planning;
pub mod predict;
pub mod prepare;
pub mod progress;
pub mod reasons;
mod replan;
mod resume;
pub mod run;
pub mod samples;
pub mod settings;
pub mod stack;
pub mod text;
pub mod tune;
pub mod uncertainty;
pub mod units;
mod watch;

pub use builder::{BuildError, TaskBuilder, TaskHandle, WorkflowBuilder};
pub use client::{Client, SubmitOptions, plan, problem};
pub use error::ClientError;
pub use foresail_planner::Verdict;
pub use foresail_schemas as schemas;
pub use foresail_schemas::retry::Retry;
pub use foresail_worker::host::local::WorkerCommand;
pub use foresail_worker::{
    CustomOptimization, OptimizedTask, Reach, Registry, TaskError, TaskInput, TaskOutput,
};
pub use prepare::PlanRequest;
pub use progress::Progress;
pub use replan::{Kept, Proposal};
pub use run::{RunHandle, RunOutcome};
pub use settings::ClientSettings;
pub use stack::{LocalStack, StackSettings, Workers};
pub use tune::{TuneRequest, Tuning, tune};

/// Makes this program a worker where a host has started it as one, and returns at once otherwise.
///
/// Call it first thing in `main`: a local stack starts workers by running this very program again, and with
/// the feature `aws` this very program is the function that AWS Lambda starts.
pub fn worker(registry: Registry) {
    #[cfg(feature = "aws")]
    foresail_lambda::run_worker_if_asked(&registry);
    foresail_worker::run_worker_if_asked(&registry);
}
