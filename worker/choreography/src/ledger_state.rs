//! The state that a ledger keeps: per task a lease, marks and a commit; per invocation when it was last seen.

use std::collections::{BTreeMap, BTreeSet};

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::graph::Graph;
use foresail_schemas::id::{InstanceId, WorkerId};
use foresail_schemas::metric::StartState;
use foresail_schemas::run::{Change, Commit, ConfigUsage, Failure, RunEvent, RunStatus, WorkerUsage};

/// Who has a task, until when.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lease {
    pub attempt: u32,
    pub instance: InstanceId,
    pub expires_ms: f64,
}

/// One task.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct TaskState {
    pub attempts: u32,
    pub lease: Option<Lease>,
    /// In-edges that are marked, a bit per parent.
    marks: Vec<u64>,
    pub marked: u32,
    /// Since when nobody had the ready task: since it became ready, or since an attempt failed.
    pub idle_since_ms: Option<f64>,
    /// By attempt: parents whose outputs it took from the memory of its worker, before they had a result.
    pub assumed: Vec<(u32, u32)>,
    /// Who runs it beside the lease.
    pub copiers: Vec<InstanceId>,
    pub commit: Option<Commit>,
    pub committed_ms: f64,
    pub propagated: bool,
}

impl TaskState {
    pub fn is_marked(&self, bit: u32) -> bool {
        self.marks.get(bit as usize / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    fn mark(&mut self, bit: u32) {
        let word = bit as usize / 64;
        if self.marks.len() <= word {
            self.marks.resize(word + 1, 0);
        }
        if !self.is_marked(bit) {
            self.marks[word] |= 1 << (bit % 64);
            self.marked += 1;
        }
    }

    pub fn live_lease(&self, now_ms: f64) -> Option<&Lease> {
        self.lease.as_ref().filter(|lease| lease.expires_ms > now_ms)
    }

    /// Since when the task has been ready without anybody having it.
    pub fn free_since(&self, now_ms: f64) -> Option<f64> {
        let ready_ms = self.idle_since_ms?;
        match &self.lease {
            _ if self.commit.is_some() => None,
            None => Some(ready_ms),
            Some(lease) if lease.expires_ms > now_ms => None,
            Some(lease) => Some(lease.expires_ms),
        }
    }
}

impl TaskState {
    /// Since when the task has been stuck. One that nobody has had yet is on its way to a worker that may be
    /// starting or waiting for a place, so that it gets as long as a lease before it counts as stuck.
    pub fn stuck_since(&self, now_ms: f64, lease_ms: f64) -> Option<f64> {
        let free_ms = self.free_since(now_ms)?;
        Some(if self.lease.is_some() { free_ms } else { free_ms + lease_ms })
    }
}

/// One invocation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct InstanceState {
    pub worker: Option<WorkerId>,
    pub config: ResourceConfig,
    pub start: StartState,
    pub seen_ms: f64,
    pub left: bool,
}

/// All of a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State {
    pub tasks: Vec<TaskState>,
    pub instances: BTreeMap<InstanceId, InstanceState>,
    /// The last instance of each planned worker.
    pub holders: BTreeMap<WorkerId, InstanceId>,
    /// Ready tasks without a commit.
    pub open: BTreeSet<u32>,
    /// Tasks with a commit whose consequences may be missing.
    pub unpropagated: BTreeSet<u32>,
    pub usage: BTreeMap<(u32, u32), ConfigUsage>,
    pub status: RunStatus,
    pub failure: Option<Failure>,
    pub plan_epoch: u64,
    pub committed: u64,
    pub leases_granted: u64,
    pub last_seq: u64,
    pub last_ms: f64,
    pub ended_ms: Option<f64>,
}

impl State {
    pub fn new(tasks: usize) -> Self {
        Self {
            tasks: vec![TaskState::default(); tasks],
            instances: BTreeMap::new(),
            holders: BTreeMap::new(),
            open: BTreeSet::new(),
            unpropagated: BTreeSet::new(),
            usage: BTreeMap::new(),
            status: RunStatus::Running,
            failure: None,
            plan_epoch: 1,
            committed: 0,
            leases_granted: 0,
            last_seq: 0,
            last_ms: 0.0,
            ended_ms: None,
        }
    }

    pub fn task(&self, task: u32) -> &TaskState {
        &self.tasks[task as usize]
    }

    fn task_mut(&mut self, task: u32) -> &mut TaskState {
        &mut self.tasks[task as usize]
    }

    /// Applies an event that was decided before. The only place where state changes for good.
    pub fn evolve(&mut self, graph: &Graph, event: &RunEvent) {
        let at_ms = event.at_ms;
        self.last_seq = event.seq;
        self.last_ms = self.last_ms.max(at_ms);
        match &event.change {
            Change::WorkerJoined { worker, instance, config, start } => {
                let joined = InstanceState {
                    worker: worker.clone(),
                    config: *config,
                    start: *start,
                    seen_ms: at_ms,
                    left: false,
                };
                self.instances.insert(instance.clone(), joined);
                if let Some(worker) = worker {
                    self.holders.insert(worker.clone(), instance.clone());
                }
                self.count_start(*config, *start);
            }
            Change::WorkerLeft { instance, usage } => self.leave(instance, usage),
            Change::TaskLeased { task, attempt, instance, expires_ms, assuming, .. } => {
                self.leases_granted += 1;
                // One that is not ready is open as well: its lease is looked for there.
                self.open.insert(*task);
                let state = self.task_mut(*task);
                state.attempts = *attempt;
                state.assumed.extend(assuming.iter().map(|parent| (*attempt, *parent)));
                state.lease =
                    Some(Lease { attempt: *attempt, instance: instance.clone(), expires_ms: *expires_ms });
                self.seen(instance, at_ms);
            }
            Change::TaskDuplicated { task, instance } => {
                self.task_mut(*task).copiers.push(instance.clone());
                self.seen(instance, at_ms);
            }
            Change::TaskFailed { task, instance, .. } => {
                let state = self.task_mut(*task);
                state.lease = None;
                // One that only its assumptions made ready waits again.
                state.idle_since_ms = state.idle_since_ms.map(|_| at_ms);
                self.seen(instance, at_ms);
            }
            Change::TaskCommitted { task, commit } => {
                let state = self.task_mut(*task);
                state.commit = Some(commit.clone());
                state.committed_ms = at_ms;
                state.lease = None;
                state.copiers = Vec::new();
                state.assumed = Vec::new();
                self.open.remove(task);
                self.unpropagated.insert(*task);
                self.committed += 1;
            }
            Change::EdgeMarked { task, parent } => {
                if let Some(bit) = graph.edge_bit(*parent, *task) {
                    self.task_mut(*task).mark(bit);
                }
            }
            Change::TaskReady { task } => {
                self.task_mut(*task).idle_since_ms = Some(at_ms);
                self.open.insert(*task);
            }
            Change::TaskPropagated { task } => {
                self.task_mut(*task).propagated = true;
                self.unpropagated.remove(task);
            }
            Change::PlanReplaced { epoch } => self.plan_epoch = *epoch,
            Change::RunFinished { status, failure } => {
                self.status = *status;
                self.failure.clone_from(failure);
                self.ended_ms = Some(at_ms);
            }
        }
    }

    fn count_start(&mut self, config: ResourceConfig, start: StartState) {
        let entry = self.usage_of(config);
        entry.invocations += 1;
        entry.cold_starts += u64::from(start == StartState::Cold);
    }

    fn usage_of(&mut self, config: ResourceConfig) -> &mut ConfigUsage {
        self.usage.entry(config.key()).or_insert_with(|| ConfigUsage {
            config,
            invocations: 0,
            cold_starts: 0,
            usage: WorkerUsage::default(),
        })
    }

    fn leave(&mut self, instance: &InstanceId, usage: &WorkerUsage) {
        let Some(state) = self.instances.get_mut(instance) else { return };
        state.left = true;
        let config = state.config;
        self.usage_of(config).usage.add(usage);
        let holds = |task: &u32| self.task(*task).lease.as_ref().is_some_and(|l| l.instance == *instance);
        let held: Vec<u32> = self.open.iter().copied().filter(holds).collect();
        held.into_iter().for_each(|task| self.task_mut(task).lease = None);
    }

    pub fn seen(&mut self, instance: &InstanceId, now_ms: f64) {
        if let Some(state) = self.instances.get_mut(instance) {
            state.seen_ms = state.seen_ms.max(now_ms);
        }
    }

    pub fn is_alive(&self, instance: &InstanceId, now_ms: f64, lease_ms: f64) -> bool {
        self.instances.get(instance).is_some_and(|i| !i.left && i.seen_ms + lease_ms > now_ms)
    }
}
