//! Optimisations: what is done for a task beside running it, as a user asks for it and as a plan says it.
//!
//! Each has two halves: a planner decides where it pays, a worker carries it out. None changes a result: a
//! plan without them, or a worker that leaves one out, gives the same outputs later or for more money.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::ResourceConfig;
use crate::id::{TaskId, TaskName};
use crate::number::non_negative;

/// Smallest output in bytes that counts as large to flexible workers, where nothing else is said: the
/// threshold of the reference design (WUKONG's own is 200 MB).
pub const LARGE_OUTPUT_BYTES: u64 = 5_000_000;

/// One optimisation of one task. In a workflow it is forced: every plan has it where it can be carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Optimization {
    /// The planned worker of the task downloads each of its inputs as soon as it exists, while it runs other
    /// tasks.
    PreLoad,
    /// A planned worker that waits for the output of this task, which another worker runs, may run it too;
    /// the first result stands.
    TaskDup,
    /// A worker of the size of the task is started beforehand, so that its own worker starts warm.
    PreWarm,
    /// One that is registered in the worker's binary under this name.
    Custom {
        /// Its name.
        name: TaskName,
        /// Its parameters.
        #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
        params: serde_json::Value,
    },
}

/// What a planner may decide to do beside running tasks; what a workflow forces is done anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OptimizationKind {
    /// See [`Optimization::PreLoad`].
    PreLoad,
    /// See [`Optimization::TaskDup`].
    TaskDup,
    /// See [`Optimization::PreWarm`].
    PreWarm,
}

impl OptimizationKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::PreLoad, Self::TaskDup, Self::PreWarm];

    /// Its name: `pre-load`, `task-dup` or `pre-warm`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PreLoad => "pre-load",
            Self::TaskDup => "task-dup",
            Self::PreWarm => "pre-warm",
        }
    }
}

/// An empty invocation that leaves a warm worker behind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PreWarming {
    /// Size of the worker.
    pub config: ResourceConfig,
    /// The clock begins when this task begins; absent: when the run begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<TaskId>,
    /// When it is sent, in ms on that clock.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub delay_ms: f64,
    /// The task whose worker shall start warm.
    pub serves: TaskId,
}

/// What flexible workers do with large outputs. Source: WUKONG (SoCC'20), sections 3.3 and 3.4; here an
/// output is stored before its edges are marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FlexibleRules {
    /// A worker that holds a large output runs every child here that waits for nothing else, instead of
    /// storing the output and starting workers (task clustering for fan-outs).
    pub cluster_fan_out: bool,
    /// A worker that had to store a large output looks once more at the children, and runs here those that
    /// became ready meanwhile (task clustering for fan-ins).
    pub cluster_fan_in: bool,
    /// A worker keeps a large output for children that still wait for small inputs of others, and neither
    /// stores nor marks before it gives up.
    pub delayed_io: bool,
    /// Outputs of at least so many bytes are large.
    pub large_output_bytes: u64,
}

impl Default for FlexibleRules {
    fn default() -> Self {
        Self {
            cluster_fan_out: true,
            cluster_fan_in: true,
            delayed_io: true,
            large_output_bytes: LARGE_OUTPUT_BYTES,
        }
    }
}
