//! The vocabulary of the machines: what happens to them and what they ask of their host.

use std::sync::Arc;

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::decision::Decision;
use foresail_schemas::id::{InstanceId, WorkerId};
use foresail_schemas::metric::StartState;
use foresail_schemas::plan::Plan;
use foresail_schemas::run::{
    Commit, Failure, Measured, Operation, OperationAnswer, RunOptions, RunStatus, StoredObject, WorkerUsage,
};

/// What an invocation is.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerSettings {
    /// Its id, unique in the run.
    pub instance: InstanceId,
    /// The planned worker it is; nothing for a flexible one.
    pub worker: Option<WorkerId>,
    /// Its size.
    pub config: ResourceConfig,
    /// How it was started.
    pub start: StartState,
    /// Limits and intervals of the run.
    pub options: RunOptions,
    /// Tasks it runs at the same time.
    pub lanes: u32,
    /// How much work may wait for a lane, in ms: as many tasks as take so long by what the last ones took. It
    /// hides the time between the end of a task and the begin of the next where tasks are brief; 0 for none.
    pub backlog_ms: f64,
    /// Outputs of so many bytes in all are kept in memory where the one task that reads them can begin at
    /// once here; nothing for a host that stores all of them.
    pub keep_bytes_min: Option<u64>,
    /// When the platform ends it, on the clock of `now_ms`.
    pub life_ends_ms: f64,
}

/// What happens to a machine.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The store answered the request.
    Answered {
        /// Number of the request.
        request: u64,
        /// The answer.
        answer: OperationAnswer,
    },
    /// The store did not answer; whether it did what was asked is not known.
    Unanswered {
        /// Number of the request.
        request: u64,
    },
    /// The user's code of an attempt has ended well and its outputs are on their way to the store; only sent
    /// where there is something to store.
    Computed {
        /// The task.
        task: u32,
        /// The attempt.
        attempt: u32,
    },
    /// An attempt ended well, and its outputs are in the memory of the worker, as asked for by
    /// [`Action::Execute`].
    Held {
        /// The task.
        task: u32,
        /// The attempt.
        attempt: u32,
        /// What it made; nothing of it is stored.
        executed: Executed,
    },
    /// An attempt ended.
    Executed {
        /// The task.
        task: u32,
        /// The attempt.
        attempt: u32,
        /// What it made, or why it failed.
        outcome: Result<Executed, Failure>,
    },
    /// What became ready, what was committed and what is skipped; a hint that nothing relies on.
    Hint {
        /// Tasks that became ready.
        ready: Vec<u32>,
        /// Tasks that got a result, where [`CommitHints::Pass`] was asked for.
        committed: Vec<(u32, Commit)>,
        /// Tasks that will not run, because of what another decided.
        skipped: Vec<u32>,
    },
    /// The run ended.
    RunEnded {
        /// How.
        status: RunStatus,
    },
    /// The plan in force, as asked for.
    PlanRead {
        /// Its epoch.
        epoch: u64,
        /// The plan.
        plan: Box<Plan>,
    },
    /// What this invocation used so far, as asked for.
    UsageRead {
        /// The sum.
        usage: WorkerUsage,
    },
    /// The process of the invocation should be replaced soon: what has not begun goes to a successor.
    Retire,
    /// The time asked for has come.
    Tick,
}

/// A successful attempt: its outputs are stored and wait for the commit.
#[derive(Debug, Clone, PartialEq)]
pub struct Executed {
    /// The outputs, in the order of the task.
    pub outputs: Vec<StoredObject>,
    /// What it took.
    pub measured: Measured,
    /// The end of what its code printed.
    pub printed: Option<String>,
    /// What it decided, where it is a task that decides.
    pub decision: Option<Decision>,
}

/// What a machine asks of its host.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Send operations to the store; answer [`Event::Answered`] or [`Event::Unanswered`]. At most one is
    /// outstanding.
    Operate {
        /// Number of the request; a repeated request has the same number.
        request: u64,
        /// The operations.
        operations: Arc<[Operation]>,
    },
    /// Gather the inputs, run the task, store the outputs; answer [`Event::Computed`] where the run overlaps
    /// uploads and there are any, and [`Event::Executed`].
    Execute {
        /// The task.
        task: u32,
        /// The attempt; 0 for a copy of what another worker runs.
        attempt: u32,
        /// Commits of the parents, in the order of the graph; nothing for one that is skipped.
        parents: Vec<Option<Commit>>,
        /// Where the outputs have at least so many bytes in all: keep them in memory, store nothing, and
        /// answer [`Event::Held`] instead.
        hold_bytes_min: Option<u64>,
    },
    /// Store the outputs that were held back; answer [`Event::Executed`].
    Store {
        /// The task.
        task: u32,
        /// The attempt.
        attempt: u32,
    },
    /// Stop an attempt; no answer is expected.
    Abort {
        /// The task.
        task: u32,
    },
    /// Delete what an attempt stored or holds: another attempt won, or nobody needs it any more.
    Discard {
        /// The task.
        task: u32,
        /// The attempt.
        attempt: u32,
    },
    /// Start a worker; no answer is expected, the watchdog repairs what is lost.
    Invoke(Invoke),
    /// Fetch into memory what `task`, which has not begun, reads from outside the workflow and of these
    /// parents: after what was asked for before, and nothing that is there or on its way. No answer is
    /// expected.
    PreLoad {
        /// The task that will read it.
        task: u32,
        /// Parents that have a result.
        parents: Vec<(u32, Commit)>,
    },
    /// Start a worker that does nothing and stays warm; no answer is expected.
    PreWarm {
        /// Its size.
        config: ResourceConfig,
    },
    /// From now on, pass on what becomes ready as [`Event::Hint`] and the end of the run as
    /// [`Event::RunEnded`]; in place of what was asked for before.
    Listen {
        /// What to do with results.
        commits: CommitHints,
    },
    /// Read the plan in force; answer [`Event::PlanRead`].
    ReadPlan,
    /// Say what this invocation used so far; answer [`Event::UsageRead`].
    ReadUsage,
    /// Answer [`Event::Tick`] at this time; replaces the time asked for before.
    WakeAt {
        /// The time, on the clock of `now_ms`.
        at_ms: f64,
    },
    /// Nothing more will be asked; the invocation is over.
    Finished,
}

/// Whether a machine wants to hear of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CommitHints {
    /// It does not.
    #[default]
    Drop,
    /// Pass them on: inputs are fetched as soon as they exist.
    Pass,
}

/// Asks for a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Invoke {
    /// The planned worker; nothing for a flexible one.
    pub worker: Option<WorkerId>,
    /// Its size.
    pub config: ResourceConfig,
    /// The tasks to begin with.
    pub tasks: Vec<u32>,
}
