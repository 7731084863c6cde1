//! Operations: what workers and watchdogs ask of a run's state, and what they are told.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Commit, Failure, RunStatus, WorkerUsage};
use crate::config::ResourceConfig;
use crate::id::{InstanceId, WorkerId};
use crate::metric::StartState;
use crate::number::non_negative;

/// Operations in order; the answer has one result for each, in the same order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OperationRequest {
    /// The operations.
    pub operations: Vec<Operation>,
}

/// Results in the order of the operations, and where the run stands after them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OperationAnswer {
    /// Where the run stands.
    pub status: RunStatus,
    /// Epoch of the plan in force.
    pub plan_epoch: u64,
    /// One result per operation.
    pub results: Vec<OperationResult>,
}

/// One request to change or read the state of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Operation {
    /// An invocation begins. A planned worker has at most one live instance.
    Join {
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
    /// An invocation wants to end. Refused while one of its `tasks` is ready and nobody has it.
    Leave {
        /// The invocation.
        instance: InstanceId,
        /// The tasks it answers for.
        tasks: Vec<u32>,
        /// What it used.
        usage: WorkerUsage,
    },
    /// Take a task: granted when its inputs are there and nobody else has it.
    Lease {
        /// The task.
        task: u32,
        /// Who wants it.
        instance: InstanceId,
        /// Epoch of the plan that told it to.
        epoch: u64,
        /// Parents without a result whose outputs the asker holds in its memory, under leases of its own;
        /// their in-edges count as marked.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        assuming: Vec<u32>,
    },
    /// Run one of these tasks as well as whoever has it: granted for the first that is ready and has no
    /// result. It takes no lease and its failure is nobody's; its commit has attempt 0.
    Duplicate {
        /// The tasks, the most wanted first.
        tasks: Vec<u32>,
        /// Who wants to.
        instance: InstanceId,
    },
    /// Heartbeat: prolong leases and the life of the instance.
    Renew {
        /// Who lives.
        instance: InstanceId,
        /// The tasks it runs.
        tasks: Vec<u32>,
    },
    /// Store the result of a task unless it has one, and mark its out-edges in the in-edge sets of its
    /// children, both at once.
    Commit {
        /// The task.
        task: u32,
        /// The result.
        commit: Commit,
        /// What it took from the memory of its worker before the commits of these parents were answered.
        /// Refused where the result of one of them is another.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        assuming: Vec<Assumption>,
    },
    /// An attempt failed; its lease is given back.
    Fail {
        /// The task.
        task: u32,
        /// The attempt.
        attempt: u32,
        /// Who ran it.
        instance: InstanceId,
        /// Why.
        failure: Failure,
    },
    /// End the run.
    Cancel {
        /// Why.
        reason: String,
    },
    /// Read: commits of tasks.
    Commits {
        /// The tasks.
        tasks: Vec<u32>,
    },
    /// Read: how many in-edges are missing, beside those from `parent`.
    Missing {
        /// The tasks.
        tasks: Vec<u32>,
        /// The parent whose edges do not count.
        parent: u32,
    },
    /// Read: which of these tasks have no result and are not skipped, and which of those are ready and free.
    Open {
        /// The tasks.
        tasks: Vec<u32>,
    },
    /// Read: is an instance of this planned worker alive?
    WhoIs {
        /// The worker.
        worker: WorkerId,
    },
    /// Read: what is stuck. Tasks whose lease has expired, ready tasks that nobody had for the time of a
    /// lease (their worker may be starting).
    Frontier {
        /// Only what has been so for at least this long, in ms.
        #[serde(deserialize_with = "non_negative")]
        #[schemars(range(min = 0.0))]
        idle_ms_min: f64,
        /// Most tasks.
        limit: u32,
    },
}

/// The result of one operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum OperationResult {
    /// Done, or it had been done before.
    Done,
    /// The instance takes part in the run.
    Joined {
        /// What became of the instances of this planned worker before it.
        before: Before,
    },
    /// Another instance of the same planned worker is alive.
    AlreadyAlive {
        /// That instance.
        instance: InstanceId,
    },
    /// The instance must stay: these tasks of its own are ready.
    Stay {
        /// Ready tasks that nobody has.
        tasks: Vec<u32>,
    },
    /// The failure is noted; the task may be taken again after a pause.
    Again {
        /// How long, in ms from now.
        #[serde(deserialize_with = "non_negative")]
        #[schemars(range(min = 0.0))]
        in_ms: f64,
    },
    /// The task ran out of memory before: it needs a worker of this size, and none smaller.
    NeedsLarger {
        /// The size.
        config: ResourceConfig,
    },
    /// The lease is granted.
    Granted {
        /// Number of the attempt, from 1.
        attempt: u32,
        /// The commits of the task's parents, in the order of the graph; nothing for one that is skipped,
        /// and for one without a result that the asker holds the outputs of.
        parents: Vec<Option<Commit>>,
    },
    /// One of the tasks may be run as well.
    Duplicated {
        /// It.
        task: u32,
        /// The commits of its parents, in the order of the graph; nothing for one that is skipped.
        parents: Vec<Option<Commit>>,
    },
    /// Somebody else holds the lease.
    Held {
        /// Until when at most, in ms from now.
        #[serde(deserialize_with = "non_negative")]
        #[schemars(range(min = 0.0))]
        expires_in_ms: f64,
    },
    /// In-edges are missing.
    NotReady,
    /// The task has a result.
    Committed {
        /// The result.
        commit: Commit,
    },
    /// The task will not run, because of what another decided.
    Skipped,
    /// The plan was replaced; read it again.
    StaleEpoch,
    /// The commit was the first and stands.
    Won {
        /// The tasks that it made ready and that nobody has: its children, and those of tasks that it made
        /// be skipped.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ready: Vec<u32>,
        /// The tasks that will not run, because of what it decided.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        skipped: Vec<u32>,
    },
    /// The commits asked for, in order.
    Commits {
        /// One per task.
        commits: Vec<Option<Commit>>,
    },
    /// In-edges that are missing of the tasks asked for, in order.
    Missing {
        /// One per task; nothing for a task that somebody has, that has a result or that is skipped.
        counts: Vec<Option<u32>>,
    },
    /// What is open of the tasks asked for.
    Open {
        /// Those that are to run and have no result.
        tasks: Vec<u32>,
        /// Those of them that are ready and that nobody has.
        ready: Vec<u32>,
    },
    /// The live instance of a planned worker.
    Instance {
        /// It, if one lives.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<InstanceId>,
    },
    /// What is stuck.
    Frontier {
        /// Tasks that are ready and that nobody has.
        ready: Vec<u32>,
        /// Which of the ready tasks need a larger worker than the plan says.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        larger: Vec<LargerTask>,
        /// Which of the ready tasks nobody has had yet while others work: their worker may wait for a place
        /// that one of those has, or be starting.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        untried: Vec<u32>,
    },
    /// The run has ended; nothing was changed.
    RunOver,
    /// The operation makes no sense in this run.
    Refused {
        /// Why.
        detail: String,
    },
}

/// A result that a worker takes to stand: its own attempt of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Assumption {
    /// The task.
    pub task: u32,
    /// The attempt.
    pub attempt: u32,
}

/// A task that ran out of memory, and the size that it needs since.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LargerTask {
    /// The task.
    pub task: u32,
    /// The size.
    pub config: ResourceConfig,
}

/// What became of the earlier instances of a planned worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Before {
    /// There were none, or all of them have left.
    Left,
    /// One disappeared: a task may have taken it along, so that this one has every attempt counted before it
    /// begins.
    Lost,
}
