//! The state that a ledger keeps: per task a lease, marks and a commit; per invocation when it was last seen.

use std::collections::BTreeMap;

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::graph::Graph;
use foresail_schemas::id::{InstanceId, WorkerId};
use foresail_schemas::metric::StartState;
use foresail_schemas::packed;
use foresail_schemas::run::{
    Before, Change, Commit, ConfigUsage, Failure, FailureKind, RunEvent, RunStatus, WorkerUsage,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::sorted::{ByName, ByTime};

/// Who has a task, until when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub attempt: u32,
    pub instance: InstanceId,
    pub expires_ms: f64,
}

/// An attempt failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FailedAttempt {
    pub attempt: u32,
    pub instance: InstanceId,
    pub kind: FailureKind,
}

/// An attempt took the output of a parent's attempt that had no commit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Assumed {
    pub attempt: u32,
    pub parent: u32,
    pub parent_attempt: u32,
}

/// One task.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct TaskState {
    pub attempts: u32,
    pub lease: Option<Lease>,
    /// In-edges that are marked, a bit per parent.
    marks: Vec<u64>,
    pub marked: u32,
    /// Since when nobody had the ready task: since it became ready, or since the end of the pause after a
    /// failed attempt, which may still be to come.
    pub idle_since_ms: Option<f64>,
    /// The attempts that failed, and how.
    pub failed: Vec<FailedAttempt>,
    /// The size of a flexible worker that the task needs since it ran out of memory or its result was lost.
    #[serde(with = "packed::config_opt")]
    pub larger: Option<ResourceConfig>,
    /// Attempts that are not counted: they ran out of memory, failed for want of a lost input, or made what
    /// was lost.
    pub raises: u32,
    /// Results that were lost and taken back: who made them, and in which attempt.
    pub lost: Vec<(InstanceId, u32)>,
    /// What attempts took from the memory of their worker, before it was a result.
    pub assumed: Vec<Assumed>,
    /// Who runs it beside the lease.
    pub copiers: Vec<InstanceId>,
    #[serde(with = "packed::commit")]
    pub commit: Option<Commit>,
    /// Whether it will not run, because of what another task decided.
    pub skipped: bool,
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

    fn unmark(&mut self, bit: u32) {
        if self.is_marked(bit) {
            self.marks[bit as usize / 64] &= !(1 << (bit % 64));
            self.marked -= 1;
        }
    }

    pub fn live_lease(&self, now_ms: f64) -> Option<&Lease> {
        self.lease.as_ref().filter(|lease| lease.expires_ms > now_ms)
    }

    /// Whether the worker that the plan gives the task to may take it.
    pub fn is_free_for_its_worker(&self, now_ms: f64) -> bool {
        self.larger.is_none() && self.free_since(now_ms).is_some_and(|since_ms| since_ms <= now_ms)
    }

    /// Whether a ready task without a result has a lease, and when that ends or since when nobody has had it.
    fn place(&self) -> Option<(bool, f64)> {
        let ready_ms = self.idle_since_ms.filter(|_| self.commit.is_none() && !self.skipped)?;
        Some(self.lease.as_ref().map_or((false, ready_ms), |lease| (true, lease.expires_ms)))
    }

    /// Since when the task has been ready without anybody having it.
    fn free_since(&self, now_ms: f64) -> Option<f64> {
        let ready_ms = self.idle_since_ms?;
        match &self.lease {
            _ if self.commit.is_some() || self.skipped => None,
            None => Some(ready_ms),
            Some(lease) if lease.expires_ms > now_ms => None,
            Some(lease) => Some(lease.expires_ms),
        }
    }
}

/// One invocation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct InstanceState {
    pub worker: Option<WorkerId>,
    #[serde(with = "packed::config")]
    pub config: ResourceConfig,
    pub start: StartState,
    pub seen_ms: f64,
    pub left: bool,
    /// What became of the instances of the same planned worker before it.
    pub before: Before,
    /// Tasks that it took, whether it still has them or not.
    took: Vec<u32>,
}

/// All of a run. What is stored of it is a format: [`STATE_VERSION`](crate::ledger::STATE_VERSION).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub tasks: Vec<TaskState>,
    pub instances: ByName<InstanceId, InstanceState>,
    /// The last instance of each planned worker.
    pub holders: ByName<WorkerId, InstanceId>,
    /// Ready tasks without a commit that have no lease, by the time since when nobody had them.
    #[serde(skip)]
    pub free: ByTime,
    /// Ready tasks without a commit that have a lease, by its end.
    #[serde(skip)]
    pub leased: ByTime,
    #[serde(with = "usage_by_size")]
    pub usage: BTreeMap<(u32, u32), ConfigUsage>,
    pub status: RunStatus,
    #[serde(with = "packed::json")]
    pub failure: Option<Failure>,
    pub plan_epoch: u64,
    pub committed: u64,
    pub skipped: u64,
    /// Results taken over from an earlier run.
    pub reused: u64,
    pub leases_granted: u64,
    pub last_seq: u64,
    pub last_ms: f64,
    pub ended_ms: Option<f64>,
}

impl State {
    pub fn new(tasks: usize) -> Self {
        Self {
            tasks: vec![TaskState::default(); tasks],
            instances: ByName::default(),
            holders: ByName::default(),
            free: ByTime::default(),
            leased: ByTime::default(),
            usage: BTreeMap::new(),
            status: RunStatus::Running,
            failure: None,
            plan_epoch: 1,
            committed: 0,
            skipped: 0,
            reused: 0,
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

    /// Changes who has a task, or whether anybody needs to.
    fn change(&mut self, task: u32, change: impl FnOnce(&mut TaskState)) {
        let state = &mut self.tasks[task as usize];
        let before = state.place();
        change(state);
        let after = state.place();
        if before == after {
            return;
        }
        match before {
            Some((true, at_ms)) => self.leased.remove(at_ms, task),
            Some((false, at_ms)) => self.free.remove(at_ms, task),
            None => {}
        }
        self.put(task, after);
    }

    fn put(&mut self, task: u32, place: Option<(bool, f64)>) {
        match place {
            Some((true, at_ms)) => self.leased.insert(at_ms, task),
            Some((false, at_ms)) => self.free.insert(at_ms, task),
            None => {}
        }
    }

    /// Sorts the tasks by time again: that is not stored.
    pub fn sort(&mut self) {
        for task in 0..self.tasks.len() as u32 {
            self.put(task, self.task(task).place());
        }
    }

    /// Prolongs the lease of a task, if the instance has it.
    pub fn prolong(&mut self, task: u32, instance: &InstanceId, expires_ms: f64) {
        if self.task(task).lease.as_ref().is_some_and(|lease| lease.instance == *instance) {
            self.expire_at(task, expires_ms);
        }
    }

    /// Gives everybody who has a task at least until then.
    pub fn prolong_all(&mut self, expires_ms: f64) {
        for task in 0..self.tasks.len() as u32 {
            if self.task(task).lease.as_ref().is_some_and(|lease| lease.expires_ms < expires_ms) {
                self.expire_at(task, expires_ms);
            }
        }
    }

    fn expire_at(&mut self, task: u32, expires_ms: f64) {
        self.change(task, |state| {
            if let Some(lease) = &mut state.lease {
                lease.expires_ms = expires_ms;
            }
        });
    }

    /// Applies an event that was decided before. The only place where state changes for good.
    pub fn evolve(&mut self, graph: &Graph, event: &RunEvent) {
        let at_ms = event.at_ms;
        self.last_seq = event.seq;
        self.last_ms = self.last_ms.max(at_ms);
        match &event.change {
            Change::WorkerJoined { worker, instance, config, start } => {
                let before = self.before(worker.as_ref());
                let joined = InstanceState {
                    worker: worker.clone(),
                    config: *config,
                    start: *start,
                    seen_ms: at_ms,
                    left: false,
                    before,
                    took: Vec::new(),
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
                let lease = Lease { attempt: *attempt, instance: instance.clone(), expires_ms: *expires_ms };
                self.change(*task, |state| (state.attempts, state.lease) = (*attempt, Some(lease)));
                let assumed = |&parent: &u32| {
                    let parent_attempt = self.task(parent).attempts;
                    Assumed { attempt: *attempt, parent, parent_attempt }
                };
                let assumed: Vec<Assumed> = assuming.iter().map(assumed).collect();
                self.task_mut(*task).assumed.extend(assumed);
                self.seen(instance, at_ms);
                if let Some(taker) = self.instances.get_mut(instance) {
                    taker.took.push(*task);
                }
            }
            Change::TaskDuplicated { task, instance } => {
                self.task_mut(*task).copiers.push(instance.clone());
                self.seen(instance, at_ms);
            }
            Change::TaskFailed { task, attempt, instance, failure, again_ms, config } => {
                self.leases_granted += u64::from(*attempt > self.task(*task).attempts);
                // One that only its assumptions made ready waits again.
                self.change(*task, |state| {
                    let again_ms = again_ms.unwrap_or(at_ms);
                    (state.lease, state.idle_since_ms) = (None, state.idle_since_ms.map(|_| again_ms));
                    // One that began ahead of a lease is counted when it fails.
                    state.attempts = state.attempts.max(*attempt);
                    let (instance, kind) = (instance.clone(), failure.kind);
                    state.failed.push(FailedAttempt { attempt: *attempt, instance, kind });
                    state.larger = config.or(state.larger);
                    state.raises += u32::from(config.is_some());
                });
                self.seen(instance, at_ms);
            }
            Change::TaskCommitted { task, commit } => {
                self.change(*task, |state| {
                    state.commit = Some(commit.clone());
                    state.lease = None;
                    state.copiers = Vec::new();
                    state.assumed = Vec::new();
                });
                self.committed += 1;
                self.mark_children(graph, *task);
            }
            Change::TasksSkipped { tasks, .. } => {
                for &task in tasks {
                    self.change(task, |state| (state.skipped, state.lease) = (true, None));
                    self.mark_children(graph, task);
                }
                self.skipped += tasks.len() as u64;
            }
            Change::TasksInvalidated { tasks, by } => {
                self.task_mut(*by).raises += 1;
                tasks.iter().for_each(|&task| self.take_back(graph, task));
            }
            Change::TaskReady { task } => {
                self.change(*task, |state| state.idle_since_ms = Some(at_ms));
            }
            Change::PlanReplaced { epoch, .. } => self.plan_epoch = *epoch,
            Change::PlanSuggested { .. } => {}
            Change::RunResumed { reused, .. } => self.reused = *reused,
            Change::RunFinished { status, failure } => {
                self.status = *status;
                self.failure.clone_from(failure);
                self.ended_ms = Some(at_ms);
            }
        }
    }

    fn mark_children(&mut self, graph: &Graph, task: u32) {
        for &child in graph.children(task) {
            if let Some(bit) = graph.edge_bit(task, child) {
                self.task_mut(child).mark(bit);
            }
        }
    }

    /// A result is none any more, and what reads it waits for it again.
    fn take_back(&mut self, graph: &Graph, task: u32) {
        let Some(commit) = self.task(task).commit.clone() else { return };
        let ran_on = self.instances.get(&commit.instance).map(|instance| instance.config);
        self.change(task, |state| {
            (state.commit, state.lease, state.idle_since_ms) = (None, None, None);
            state.larger = state.larger.or(ran_on);
            // One that was taken over from an earlier run, or ran ahead, never counted.
            state.raises += u32::from(commit.attempt > 0 && state.attempts > state.raises);
            state.lost.push((commit.instance, commit.attempt));
        });
        self.committed -= 1;
        for &child in graph.children(task) {
            let Some(bit) = graph.edge_bit(task, child) else { continue };
            self.change(child, |state| {
                state.unmark(bit);
                state.idle_since_ms = state.idle_since_ms.filter(|_| state.commit.is_some());
            });
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
        let took = std::mem::take(&mut state.took);
        let config = state.config;
        self.usage_of(config).usage.add(usage);
        for task in took {
            if self.task(task).lease.as_ref().is_some_and(|lease| lease.instance == *instance) {
                self.change(task, |state| state.lease = None);
            }
        }
    }

    /// What became of the instances of a planned worker so far.
    pub fn before(&self, worker: Option<&WorkerId>) -> Before {
        match worker.and_then(|worker| self.instances.get(self.holders.get(worker)?)) {
            Some(last) if !last.left => Before::Lost,
            last => last.map_or(Before::Left, |last| last.before),
        }
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

/// What was used, as a list: its keys follow from the sizes.
mod usage_by_size {
    use super::{BTreeMap, ConfigUsage, Deserializer, Serializer, packed};

    pub fn serialize<S: Serializer>(
        usage: &BTreeMap<(u32, u32), ConfigUsage>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        packed::json::serialize(&usage.values().collect::<Vec<_>>(), to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<BTreeMap<(u32, u32), ConfigUsage>, D::Error> {
        let usage: Vec<ConfigUsage> = packed::json::deserialize(from)?;
        Ok(usage.into_iter().map(|of_size| (of_size.config.key(), of_size)).collect())
    }
}
