//! Lists that metad answers with: workflows, tasks, the quarantine, runs.
//!
//! Guarantees: sizes of workers are legal, times are finite and not negative. Times in ms, memory in MB.
//! Lists of workflows and tasks come in pages. Lists are for reading; nothing of a run or a plan rests on
//! them.

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::ResourceConfig;
use crate::id::{TaskName, WorkflowName};
use crate::metric::Quarantined;
use crate::number::{non_negative_opt, positive_opt};
use crate::run::RunSummary;

/// The workflows that something is known of, in the order in which they became known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkflowList {
    /// Epoch of the last batch of any workflow.
    pub epoch: u64,
    /// The workflows.
    pub workflows: Vec<WorkflowEntry>,
    /// What `after` is for the next page: the last workflow of this one; null where it is the last page.
    #[serde(default)]
    pub next_after: Option<WorkflowName>,
}

/// A workflow in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkflowEntry {
    /// Its name.
    pub workflow: WorkflowName,
    /// Epoch of its last batch.
    pub epoch: u64,
    /// Tasks with a model.
    pub tasks: u64,
    /// Batches stored.
    pub batches: u64,
    /// Records ever stored.
    pub records_accepted: u64,
    /// Records ever set aside.
    pub records_rejected: u64,
    /// Raw records that retention still keeps.
    pub records_kept: u64,
    /// Records set aside that retention still keeps.
    pub quarantined_kept: u64,
}

/// The measured tasks of a workflow, by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskList {
    /// Epoch of the last batch of the workflow.
    pub epoch: u64,
    /// The tasks.
    pub tasks: Vec<TaskEntry>,
    /// What `after` is for the next page: the last task of this one; null where it is the last page.
    #[serde(default)]
    pub next_after: Option<TaskName>,
}

/// A task in short: its time on the config it ran on most often, whatever the input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskEntry {
    /// The function.
    pub task: TaskName,
    /// Executions measured, on all configs.
    pub samples: u64,
    /// Configs it was measured on.
    pub configs: u64,
    /// Memory of the config it ran on most often, in MB; null where it was never measured.
    #[serde(default, deserialize_with = "memory_opt")]
    #[schemars(range(min = 1, max = 1048576))]
    pub memory_mb: Option<u32>,
    /// vCPUs of that config; null where they follow from memory.
    #[serde(default, deserialize_with = "positive_opt")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub vcpu: Option<f64>,
    /// Median time on that config in ms; null where it was never measured.
    #[serde(default, deserialize_with = "non_negative_opt")]
    #[schemars(range(min = 0.0))]
    pub median_ms: Option<f64>,
    /// 95th percentile of the times on that config in ms; null where it was never measured.
    #[serde(default, deserialize_with = "non_negative_opt")]
    #[schemars(range(min = 0.0))]
    pub p95_ms: Option<f64>,
}

/// The records of a workflow that were set aside, youngest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct QuarantineList {
    /// Records ever set aside.
    pub rejected: u64,
    /// Those that retention still keeps; the list may hold fewer.
    pub kept: u64,
    /// The records.
    pub records: Vec<Quarantined>,
}

/// Runs, youngest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunList {
    /// The runs.
    pub runs: Vec<RunSummary>,
}

/// Memory that a worker can have, or nothing.
fn memory_opt<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    let Some(memory_mb) = Option::<u32>::deserialize(from)? else { return Ok(None) };
    let config = ResourceConfig::new(memory_mb, None).map_err(D::Error::custom)?;
    Ok(Some(config.memory_mb))
}
