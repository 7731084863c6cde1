//! Everything that crosses a process boundary in Foresail.
//!
//! One module per subject: names ([`id`]), resource sizes and quantiles ([`config`]), measurements
//! ([`metric`]), predictions ([`prediction`]), workflows and their dense graph ([`workflow`], [`graph`]),
//! what tasks decide at run time ([`decision`]), code that travels with a workflow ([`code`]),
//! platforms as data ([`platform`]), plans ([`plan`]) and their uncertainty
//! ([`uncertainty`]), runs, their operations and events ([`run`]), what follows a failed attempt
//! ([`retry`]), lists of what is kept ([`listing`]), invocations of workers ([`invocation`]) and errors
//! ([`error`]). [`packed`] has compact forms for stores. [`wfformat`] reads and writes the exchange format
//! of WfCommons; [`generate`] and [`openapi`] make JSON Schemas, examples and the OpenAPI document of the
//! types.
//!
//! Guarantee: a value of these types is valid. Names have a legal charset and length, sizes and times are
//! finite and not negative, graphs are acyclic; what breaks a rule is refused when it is constructed or
//! deserialised. Units stand in the last part of a name: times in ms, sizes in bytes, memory in MB (2^20
//! bytes, as on Lambda), money in USD.

pub mod code;
pub mod config;
pub mod decision;
pub mod error;
pub mod examples;
pub mod generate;
pub mod graph;
pub mod id;
pub mod invocation;
pub mod listing;
pub mod metric;
mod number;
pub mod openapi;
pub mod optimization;
pub mod packed;
pub mod plan;
pub mod platform;
pub mod prediction;
pub mod retry;
pub mod run;
pub mod score;
pub mod uncertainty;
pub mod wfformat;
pub mod workflow;

pub use config::{ResourceConfig, Sla};
pub use error::{ErrorCode, Problem};
pub use graph::Graph;
pub use id::{BatchId, InstanceId, ObjectName, RunId, TaskId, TaskName, WorkerId, WorkflowName};
pub use plan::{Objective, Plan};
pub use platform::Platform;
pub use workflow::Workflow;
