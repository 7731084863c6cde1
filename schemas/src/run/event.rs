//! Events: every change of a run's state, numbered from 1 without gaps.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Commit, Failure, Replanning, RunStatus, WorkerUsage};
use crate::config::ResourceConfig;
use crate::id::{InstanceId, RunId, WorkerId};
use crate::metric::StartState;
use crate::number::{non_negative, non_negative_opt};

/// One event: a change of the run's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunEvent {
    /// Its number in the run, from 1, without gaps.
    pub seq: u64,
    /// When it happened, in ms since the run was created.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub at_ms: f64,
    /// What happened.
    #[serde(flatten)]
    pub change: Change,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// An invocation began.
    WorkerJoined {
        /// The planned worker; absent for a flexible one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worker: Option<WorkerId>,
        /// The invocation.
        instance: InstanceId,
        /// Its size.
        config: ResourceConfig,
        /// How it was started.
        start: StartState,
    },
    /// An invocation ended.
    WorkerLeft {
        /// The invocation.
        instance: InstanceId,
        /// What it used.
        usage: WorkerUsage,
    },
    /// A worker took a task.
    TaskLeased {
        /// The task.
        task: u32,
        /// Number of the attempt.
        attempt: u32,
        /// Who took it.
        instance: InstanceId,
        /// Epoch of the plan.
        epoch: u64,
        /// When the lease ends without a heartbeat, in ms since the run was created.
        #[serde(deserialize_with = "non_negative")]
        #[schemars(range(min = 0.0))]
        expires_ms: f64,
        /// Parents without a result that the worker holds the outputs of.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        assuming: Vec<u32>,
    },
    /// A worker runs a task as well as whoever holds its lease.
    TaskDuplicated {
        /// The task.
        task: u32,
        /// Who runs it too.
        instance: InstanceId,
    },
    /// An attempt failed; its lease is free.
    TaskFailed {
        /// The task.
        task: u32,
        /// The attempt.
        attempt: u32,
        /// Who ran it.
        instance: InstanceId,
        /// Why.
        failure: Failure,
        /// Earliest time of the next attempt, in ms since the run was created.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "non_negative_opt")]
        #[schemars(range(min = 0.0))]
        again_ms: Option<f64>,
        /// The size of worker that the next attempt needs, where that grew.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        config: Option<ResourceConfig>,
    },
    /// A task has its result, and its out-edges are marked.
    TaskCommitted {
        /// The task.
        task: u32,
        /// The result.
        commit: Commit,
    },
    /// Tasks will not run, because of what another decided; their in-edges need no marks any more.
    TasksSkipped {
        /// The task that decided.
        by: u32,
        /// The tasks, those that need something of a skipped one included.
        tasks: Vec<u32>,
    },
    /// Results are taken back, because objects of theirs are lost; their out-edges are not marked any more.
    TasksInvalidated {
        /// The tasks.
        tasks: Vec<u32>,
        /// The task whose attempt failed for want of them; that attempt does not count.
        by: u32,
    },
    /// All in-edges of a task are marked.
    TaskReady {
        /// The task.
        task: u32,
    },
    /// The run began with results of an earlier one; their commits follow.
    RunResumed {
        /// The earlier run.
        of: RunId,
        /// Results that were taken over.
        reused: u64,
    },
    /// The plan was replaced.
    PlanReplaced {
        /// The new epoch.
        epoch: u64,
        /// Why, where whoever replaced it said so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<Box<Replanning>>,
    },
    /// A better plan was found and not put in force.
    PlanSuggested {
        /// Epoch of the plan in force.
        epoch: u64,
        /// What it would bring.
        why: Box<Replanning>,
    },
    /// The run ended.
    RunFinished {
        /// How.
        status: RunStatus,
        /// Why, unless every task has a result.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
    },
}

impl Change {
    /// All kinds, as [`Change::kind`] names them.
    pub const KINDS: [&'static str; 13] = [
        "worker_joined",
        "worker_left",
        "task_leased",
        "task_duplicated",
        "task_failed",
        "task_committed",
        "tasks_skipped",
        "tasks_invalidated",
        "task_ready",
        "run_resumed",
        "plan_replaced",
        "plan_suggested",
        "run_finished",
    ];

    /// The kind, as in the field `kind`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::WorkerJoined { .. } => "worker_joined",
            Self::WorkerLeft { .. } => "worker_left",
            Self::TaskLeased { .. } => "task_leased",
            Self::TaskDuplicated { .. } => "task_duplicated",
            Self::TaskFailed { .. } => "task_failed",
            Self::TaskCommitted { .. } => "task_committed",
            Self::TasksSkipped { .. } => "tasks_skipped",
            Self::TasksInvalidated { .. } => "tasks_invalidated",
            Self::TaskReady { .. } => "task_ready",
            Self::RunResumed { .. } => "run_resumed",
            Self::PlanReplaced { .. } => "plan_replaced",
            Self::PlanSuggested { .. } => "plan_suggested",
            Self::RunFinished { .. } => "run_finished",
        }
    }
}

/// A page of events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventPage {
    /// Where the run stands.
    pub status: RunStatus,
    /// The events, in order.
    pub events: Vec<RunEvent>,
    /// Ask for events after this number next; at least the last one here, filtered ones included.
    pub next_after: u64,
}
