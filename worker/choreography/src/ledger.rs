//! The ledger of a run: decides every operation and is the fold of its own events.
//!
//! `apply` is the whole protocol of docs/architecture.md on the side of the store: lease, attempts, commit if
//! absent, in-edge sets, decisions. Operations are atomic and idempotent; a repeated one answers like
//! the first and adds no event. Times are ms since the run was created, by the host's clock; the ledger keeps
//! them from going back. Source of the set-based fan-in and of commit-if-absent: Unum (NSDI'23).

use std::collections::BTreeMap;
use std::sync::Arc;

use foresail_schemas::graph::Graph;
use foresail_schemas::id::{InstanceId, WorkerId};
use foresail_schemas::metric::StartState;
use foresail_schemas::retry::Retry;
use foresail_schemas::run::{
    Change, Commit, ConfigUsage, Failure, FailureKind, Operation, OperationResult, Replanning, RunEvent,
    RunOptions, RunStatus, WorkerUsage,
};
use foresail_schemas::workflow::Workflow;
use foresail_schemas::{ResourceConfig, TaskId};

use crate::ledger_state::State;

mod commits;
mod failing;
mod leases;
mod looks;
mod lost;
mod resume;
mod saved;

pub use saved::{STATE_VERSION, SavedError, SavedLedger};

use looks::unknown_task;

/// The state of a run.
#[derive(Debug, Clone)]
pub struct Ledger {
    graph: Arc<Graph>,
    /// Per task: its id and most attempts, where the workflow states one.
    ids: Vec<(TaskId, Option<u32>)>,
    /// What follows a failed attempt, where the workflow says so.
    retries: Arc<BTreeMap<u32, Retry>>,
    options: RunOptions,
    state: State,
}

/// Where a run stands, in numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerSummary {
    /// Tasks with a result.
    pub committed: u64,
    /// Tasks that will not run, because of what another decided.
    pub skipped: u64,
    /// Tasks under a live lease.
    pub running: u64,
    /// Attempts beyond the first of each task.
    pub retries: u64,
    /// Time since creation or until the end, in ms.
    pub elapsed_ms: f64,
    /// What workers reported, by size.
    pub usage: Vec<ConfigUsage>,
    /// Why the run failed or was cancelled.
    pub failure: Option<Failure>,
}

/// Result of one operation and what must be stored before it is told.
type Decision = (OperationResult, Vec<Change>);

fn read(result: OperationResult) -> Decision {
    (result, Vec::new())
}

fn refused(detail: impl Into<String>) -> Decision {
    read(OperationResult::Refused { detail: detail.into() })
}

impl Ledger {
    /// The ledger of a new run; [`Ledger::begin`] makes its sources ready.
    #[must_use]
    pub fn new(workflow: &Workflow, options: RunOptions) -> Self {
        let ids = workflow.tasks().iter().map(|t| (t.id.clone(), t.attempts_max)).collect();
        let retries = (0..).zip(workflow.tasks()).filter_map(|(at, t)| Some((at, t.retry.clone()?)));
        let retries = Arc::new(retries.collect());
        let graph = Arc::clone(workflow.graph());
        let state = State::new(graph.len());
        Self { graph, ids, retries, options, state }
    }

    /// Makes the tasks ready that wait for nothing.
    pub fn begin(&mut self, now_ms: f64) -> Vec<RunEvent> {
        let sources: Vec<u32> = self.graph.sources().collect();
        self.record(sources.into_iter().map(|task| Change::TaskReady { task }).collect(), now_ms)
    }

    /// Decides an operation. The events are already part of the state; store them before you pass the result
    /// on.
    pub fn apply(&mut self, operation: &Operation, now_ms: f64) -> (OperationResult, Vec<RunEvent>) {
        let now_ms = now_ms.max(self.state.last_ms);
        let (result, changes) = self.decide(operation, now_ms);
        let events = self.record(changes, now_ms);
        (result, events)
    }

    /// Replaces the epoch of the plan if it is still `expected_epoch`; `why` is told with it.
    ///
    /// # Errors
    /// The epoch in force, when it is another or the run is over.
    pub fn replan(
        &mut self,
        expected_epoch: u64,
        why: Option<Replanning>,
        now_ms: f64,
    ) -> Result<Vec<RunEvent>, u64> {
        if self.state.plan_epoch != expected_epoch || self.is_over() {
            return Err(self.state.plan_epoch);
        }
        let (epoch, why) = (expected_epoch + 1, why.map(Box::new));
        Ok(self.record(vec![Change::PlanReplaced { epoch, why }], now_ms.max(self.state.last_ms)))
    }

    /// Records that a plan was found that is better than the one of `epoch`, which stays in force. Repeated,
    /// it is recorded again.
    ///
    /// # Errors
    /// The epoch in force, when it is another or the run is over.
    pub fn suggest(&mut self, epoch: u64, why: Replanning, now_ms: f64) -> Result<Vec<RunEvent>, u64> {
        if self.state.plan_epoch != epoch || self.is_over() {
            return Err(self.state.plan_epoch);
        }
        let suggested = Change::PlanSuggested { epoch, why: Box::new(why) };
        Ok(self.record(vec![suggested], now_ms.max(self.state.last_ms)))
    }

    /// Takes an event of an earlier life of the host.
    pub fn replay(&mut self, event: &RunEvent) {
        self.state.evolve(&self.graph, event);
    }

    /// After a restart of the host: heartbeats of the meantime are not known, so that everybody alive gets a
    /// new lease.
    pub fn recovered(&mut self, now_ms: f64) {
        let now_ms = now_ms.max(self.state.last_ms);
        let expires_ms = now_ms + self.options.lease_ms;
        self.state.prolong_all(expires_ms);
        for instance in self.state.instances.values_mut().filter(|i| !i.left) {
            instance.seen_ms = now_ms;
        }
    }

    /// Where the run stands.
    #[must_use]
    pub fn status(&self) -> RunStatus {
        self.state.status
    }

    /// Results that were taken over from an earlier run.
    #[must_use]
    pub fn reused(&self) -> u64 {
        self.state.reused
    }

    /// Epoch of the plan in force.
    #[must_use]
    pub fn plan_epoch(&self) -> u64 {
        self.state.plan_epoch
    }

    /// Number of the last event.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.state.last_seq
    }

    /// Time of the last event in ms.
    #[must_use]
    pub fn last_ms(&self) -> f64 {
        self.state.last_ms
    }

    /// Whether a task will not run, because of what another decided.
    #[must_use]
    pub fn is_skipped(&self, task: u32) -> bool {
        self.state.tasks.get(task as usize).is_some_and(|state| state.skipped)
    }

    /// The result of a task.
    #[must_use]
    pub fn commit(&self, task: u32) -> Option<&Commit> {
        self.state.tasks.get(task as usize)?.commit.as_ref()
    }

    /// The run in numbers.
    #[must_use]
    pub fn summary(&self, now_ms: f64) -> LedgerSummary {
        let now_ms = now_ms.max(self.state.last_ms);
        let first_leases = self.state.tasks.iter().filter(|t| t.attempts > 0).count() as u64;
        LedgerSummary {
            committed: self.state.committed,
            skipped: self.state.skipped,
            running: self.state.leased.count_after(now_ms) as u64,
            retries: self.state.leases_granted - first_leases,
            elapsed_ms: self.state.ended_ms.unwrap_or(now_ms),
            usage: self.state.usage.values().cloned().collect(),
            failure: self.state.failure.clone(),
        }
    }

    fn is_over(&self) -> bool {
        self.state.status != RunStatus::Running
    }

    /// Numbers the changes and makes them part of the state.
    fn record(&mut self, changes: Vec<Change>, now_ms: f64) -> Vec<RunEvent> {
        changes
            .into_iter()
            .map(|change| {
                let event = RunEvent { seq: self.state.last_seq + 1, at_ms: now_ms, change };
                self.state.evolve(&self.graph, &event);
                event
            })
            .collect()
    }

    fn decide(&mut self, operation: &Operation, now_ms: f64) -> Decision {
        if let Some(task) = unknown_task(operation, self.graph.len()) {
            return refused(format!(
                "task {task} is not in the workflow, which has {} tasks",
                self.graph.len()
            ));
        }
        match operation {
            Operation::Join { worker, instance, config, start } => {
                self.join(worker.as_ref(), instance, *config, *start, now_ms)
            }
            Operation::Leave { instance, tasks, usage } => self.leave(instance, tasks, usage, now_ms),
            Operation::Lease { task, instance, epoch, assuming } => {
                self.lease(*task, instance, *epoch, assuming, now_ms)
            }
            Operation::Duplicate { tasks, instance } => self.duplicate(tasks, instance),
            Operation::Renew { instance, tasks } => self.renew(instance, tasks, now_ms),
            Operation::Commit { task, commit, assuming } => self.commit_task(*task, commit, assuming, now_ms),
            Operation::Fail { task, attempt, instance, failure } => {
                self.fail(*task, *attempt, instance, failure, now_ms)
            }
            Operation::Cancel { reason } => self.cancel(reason),
            Operation::Commits { tasks } => {
                let commits = tasks.iter().map(|&t| self.state.task(t).commit.clone()).collect();
                read(OperationResult::Commits { commits })
            }
            Operation::Missing { tasks, parent } => self.missing(tasks, *parent, now_ms),
            Operation::Open { tasks } => self.open(tasks, now_ms),
            Operation::WhoIs { worker } => {
                read(OperationResult::Instance { instance: self.holder(worker, now_ms) })
            }
            Operation::Frontier { idle_ms_min, limit } => self.frontier(*idle_ms_min, *limit, now_ms),
        }
    }

    /// The live instance of a planned worker.
    fn holder(&self, worker: &WorkerId, now_ms: f64) -> Option<InstanceId> {
        let instance = self.state.holders.get(worker)?;
        self.state.is_alive(instance, now_ms, self.options.lease_ms).then(|| instance.clone())
    }

    fn join(
        &mut self,
        worker: Option<&WorkerId>,
        instance: &InstanceId,
        config: ResourceConfig,
        start: StartState,
        now_ms: f64,
    ) -> Decision {
        if let Some(before) = self.state.instances.get(instance).map(|i| i.before) {
            self.state.seen(instance, now_ms);
            return read(OperationResult::Joined { before });
        }
        if self.is_over() {
            return read(OperationResult::RunOver);
        }
        if let Some(alive) = worker.and_then(|w| self.holder(w, now_ms)) {
            return read(OperationResult::AlreadyAlive { instance: alive });
        }
        let before = self.state.before(worker);
        let (worker, instance) = (worker.cloned(), instance.clone());
        (OperationResult::Joined { before }, vec![Change::WorkerJoined { worker, instance, config, start }])
    }

    fn leave(&mut self, instance: &InstanceId, tasks: &[u32], usage: &WorkerUsage, now_ms: f64) -> Decision {
        match self.state.instances.get(instance) {
            None => return refused(format!("instance `{instance}` never joined")),
            Some(state) if state.left => return read(OperationResult::Done),
            Some(_) => {}
        }
        let ready: Vec<u32> =
            tasks.iter().copied().filter(|&t| self.state.task(t).is_free_for_its_worker(now_ms)).collect();
        if !ready.is_empty() && !self.is_over() {
            self.state.seen(instance, now_ms);
            return read(OperationResult::Stay { tasks: ready });
        }
        (OperationResult::Done, vec![Change::WorkerLeft { instance: instance.clone(), usage: *usage }])
    }

    /// Heartbeats are not stored: after a restart everybody gets a new lease anyway.
    fn renew(&mut self, instance: &InstanceId, tasks: &[u32], now_ms: f64) -> Decision {
        if self.is_over() {
            return read(OperationResult::RunOver);
        }
        self.state.seen(instance, now_ms);
        for &task in tasks {
            self.state.prolong(task, instance, now_ms + self.options.lease_ms);
        }
        read(OperationResult::Done)
    }

    fn cancel(&mut self, reason: &str) -> Decision {
        if self.is_over() {
            return read(OperationResult::RunOver);
        }
        let failure = Failure {
            task: None,
            attempt: 0,
            kind: FailureKind::Cancelled,
            message: reason.to_owned(),
            exception: None,
            lost: Vec::new(),
        };
        let failure = Some(failure);
        (OperationResult::Done, vec![Change::RunFinished { status: RunStatus::Cancelled, failure }])
    }
}
