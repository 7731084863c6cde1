//! Runs: their state, the operations that workers change it by, and the events that tell of every change.
//!
//! The events are the truth: a run's state is the fold of its events, and metad stores nothing else of it.
//! Operations are requests; each is atomic on one key, idempotent and safe to repeat. Tasks are named by
//! their index in the workflow. Times in events are ms since the run was created, by the clock of the store
//! alone.

mod event;
mod operation;
mod options;
mod replan;
mod resume;

pub use event::{Change, EventPage, RunEvent};
pub use operation::{
    Assumption, Before, LargerTask, Operation, OperationAnswer, OperationRequest, OperationResult,
};
pub use options::{OptionsFault, RUN_MS_MAX, RunOptions};
pub use replan::{Promise, ReplanMode, ReplanRequest, Replanning};
pub use resume::Resume;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::ResourceConfig;
use crate::decision::Decision;
use crate::id::{InstanceId, RunId, TaskId, TaskName, WorkflowName};
use crate::number::non_negative;
use crate::plan::{Plan, PlanSummary};
use crate::workflow::Workflow;

/// Most operations in one request by default.
pub const OPERATIONS_PER_REQUEST_MAX: usize = 10_000;
/// Longest failure message kept, in bytes; the rest is cut.
pub const FAILURE_TEXT_MAX: usize = 16 * 1024;
/// Longest exception kept, in bytes of base64; a longer one is left out.
pub const EXCEPTION_TEXT_MAX: usize = 32 * 1024;

/// Asks metad to start keeping a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// Its id; metad chooses one where absent. Repeating the request with the same id and content changes
    /// nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// What is run.
    pub workflow: Workflow,
    /// How it is run.
    pub plan: Plan,
    /// Limits and intervals.
    #[serde(default)]
    pub options: RunOptions,
    /// Takes over results of an earlier run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
}

/// Answer to a new run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunCreated {
    /// Its id.
    pub run: RunId,
    /// True when the run was there already.
    pub duplicate: bool,
    /// Results that were taken over from an earlier run.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reused: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Tasks are left.
    Running,
    /// Every task that was to run has a result.
    Completed,
    /// A task used up its attempts.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

/// A run in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunSummary {
    /// Its id.
    pub run: RunId,
    /// The workflow.
    pub workflow: WorkflowName,
    /// Where it stands.
    pub status: RunStatus,
    /// Why it failed or was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// When it was created.
    pub created_at: Timestamp,
    /// Who planned.
    pub planner: TaskName,
    /// Epoch of the plan in force, from 1.
    pub plan_epoch: u64,
    /// Tasks in all.
    pub tasks: u64,
    /// Tasks with a result.
    pub committed: u64,
    /// Tasks that will not run, because of what another decided.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped: u64,
    /// Tasks with a live lease.
    pub running: u64,
    /// Attempts beyond the first of each task.
    pub retries: u64,
    /// Time since creation, or until the end, in ms.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub elapsed_ms: f64,
    /// What the plan predicts.
    pub predicted: PlanSummary,
    /// What workers used, by what they reported when they left.
    pub usage: Vec<ConfigUsage>,
    /// Number of the last event.
    pub last_event: u64,
    /// Time since anybody worked on the run or watched over it, in ms, where that is long enough to tell that
    /// nobody does: longer than three leases and looks of a watchdog. Only of a run that has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub stalled_ms: Option<f64>,
}

/// What the workers of one size used, or are predicted to use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigUsage {
    /// The size.
    pub config: ResourceConfig,
    /// Invocations.
    pub invocations: u64,
    /// Invocations that needed a new worker.
    pub cold_starts: u64,
    /// The sum of what they used.
    pub usage: WorkerUsage,
}

/// What one invocation of a worker used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerUsage {
    /// From the start of the worker (initialisation included) to its end, in ms.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub billed_ms: f64,
    /// The part of it that a new worker took until it could carry anything out, in ms; 0 where the worker was
    /// there.
    #[serde(default, deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub init_ms: f64,
    /// Objects written.
    pub puts: u64,
    /// Objects read.
    pub gets: u64,
    /// Bytes read from the store.
    pub download_bytes: u64,
    /// Bytes written to the store.
    pub upload_bytes: u64,
    /// Bytes taken from the worker's memory instead of the store.
    pub saved_bytes: u64,
    /// Bytes read in place from memory that the workers of a machine share, instead of being brought.
    #[serde(default)]
    pub shared_bytes: u64,
    /// Bytes of inputs that came inside the commit record of the task that made them.
    #[serde(default)]
    pub inline_bytes: u64,
}

impl WorkerUsage {
    /// Adds what another invocation used.
    pub fn add(&mut self, other: &Self) {
        self.billed_ms += other.billed_ms;
        self.init_ms += other.init_ms;
        self.puts += other.puts;
        self.gets += other.gets;
        self.download_bytes += other.download_bytes;
        self.upload_bytes += other.upload_bytes;
        self.saved_bytes += other.saved_bytes;
        self.shared_bytes += other.shared_bytes;
        self.inline_bytes += other.inline_bytes;
    }
}

/// A stored output of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoredObject {
    /// Size in bytes.
    pub bytes: u64,
    /// BLAKE3 of the content, in hexadecimal; empty where it was never stored.
    pub hash: String,
    /// Where it is.
    pub location: Location,
}

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Location {
    /// In the commit record itself, as base64.
    Inline(String),
    /// In the object store, under this key.
    Stored(String),
    /// In the memory of the worker that made it and nowhere else, under this key: every task that reads it
    /// ran there.
    Unstored(String),
}

/// The result of a task: the first that arrives is the only one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Commit {
    /// The attempt that won; 0 for one that ran beside a lease or ahead of it.
    pub attempt: u32,
    /// Who ran it.
    pub instance: InstanceId,
    /// The outputs, in the order of the task.
    pub outputs: Vec<StoredObject>,
    /// What it took.
    pub measured: Measured,
    /// What it decided, where it is a task that decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// The end of what its code printed, at most 8 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub printed: Option<String>,
}

/// What one attempt took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Measured {
    /// Time to bring the inputs, in ms.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub download_ms: f64,
    /// Time in the user's code, in ms.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub exec_ms: f64,
    /// Time to store the outputs, in ms.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub upload_ms: f64,
    /// Size of all inputs in bytes.
    pub input_bytes: u64,
    /// Size of all outputs in bytes.
    pub output_bytes: u64,
    /// Largest resident memory in MB; 0 where not known.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub peak_memory_mb: f64,
}

/// Why an attempt or a run failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// The task, where one was the cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// Its attempt, from 1; 0 where no task was the cause.
    pub attempt: u32,
    /// The kind of cause.
    pub kind: FailureKind,
    /// The cause in words: the user's error, the last lines of its output.
    pub message: String,
    /// The exception of a Python function: its pickle as base64, at most [`EXCEPTION_TEXT_MAX`] bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exception: Option<String>,
    /// Keys of inputs that are lost: under each is nothing any more, or not what was committed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<String>,
}

/// The kind of cause of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The user's code returned an error.
    TaskError,
    /// The user's code, or its exit code, says that no other attempt can succeed.
    TaskRefused,
    /// The user's code crashed: a panic, a signal, an exit code.
    TaskCrash,
    /// The attempt took longer than its limit.
    Timeout,
    /// The attempt used more memory than the worker has.
    OutOfMemory,
    /// An input could not be read, or its content did not match its hash.
    InputUnavailable,
    /// An output could not be stored.
    OutputNotStored,
    /// The task names a function that the worker does not have.
    UnknownFunction,
    /// The worker disappeared.
    WorkerLost,
    /// Somebody cancelled the run.
    Cancelled,
}

impl FailureKind {
    /// Whether another attempt can end differently.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        match self {
            Self::TaskRefused | Self::UnknownFunction | Self::Cancelled => false,
            Self::TaskError
            | Self::TaskCrash
            | Self::Timeout
            | Self::OutOfMemory
            | Self::InputUnavailable
            | Self::OutputNotStored
            | Self::WorkerLost => true,
        }
    }
}

impl std::fmt::Display for FailureKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

/// The plan in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CurrentPlan {
    /// Its epoch, from 1.
    pub epoch: u64,
    /// The plan.
    pub plan: Plan,
    /// Limits and intervals of the run.
    pub options: RunOptions,
}
