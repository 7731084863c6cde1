//! What a bill needs of the events of a run: who lived how long, who ran what, and what was in vain.

use std::collections::{BTreeMap, BTreeSet};

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::id::{InstanceId, WorkerId};
use foresail_schemas::metric::StartState;
use foresail_schemas::run::{Change, Commit, ConfigUsage, Measured, RunEvent, RunStatus, WorkerUsage};

use super::Account;

/// An invocation.
#[derive(Debug, Clone)]
pub(super) struct Invoked {
    pub worker: Option<WorkerId>,
    pub config: ResourceConfig,
    start: StartState,
    joined_ms: f64,
    left: Option<WorkerUsage>,
    /// Time of attempts that came to nothing, in ms.
    pub vain_ms: f64,
}

/// An attempt under way.
#[derive(Debug, Clone)]
struct Lease {
    instance: InstanceId,
    since_ms: f64,
}

/// What is known of a task.
#[derive(Debug, Clone, Default)]
pub(super) struct Booked {
    lease: Option<Lease>,
    /// Whether several ran it at the same time, as planned: what is in vain then was paid for on purpose.
    is_copied: bool,
    pub is_skipped: bool,
    /// Who has its result, and what that took.
    pub ran: Option<(InstanceId, Measured)>,
}

/// The events of a run, folded.
#[derive(Debug)]
pub(super) struct Books {
    pub status: RunStatus,
    pub replanned: u64,
    /// Attempts that came to nothing.
    pub vain: u64,
    pub tasks: Vec<Booked>,
    /// In order of joining.
    pub order: Vec<InstanceId>,
    pub invoked: BTreeMap<InstanceId, Invoked>,
    /// When the run ended, or the time of the last event.
    until_ms: f64,
}

impl Books {
    pub fn of(account: &Account<'_>) -> Self {
        let mut books = Self {
            status: RunStatus::Running,
            replanned: 0,
            vain: 0,
            tasks: vec![Booked::default(); account.workflow.tasks().len()],
            order: Vec::new(),
            invoked: BTreeMap::new(),
            until_ms: 0.0,
        };
        account.events.iter().for_each(|event| books.apply(event));
        if books.status == RunStatus::Running {
            books.until_ms = account.now_ms;
        }
        books
    }

    fn apply(&mut self, event: &RunEvent) {
        let at_ms = event.at_ms;
        if self.status == RunStatus::Running {
            self.until_ms = at_ms;
        }
        match &event.change {
            Change::WorkerJoined { worker, instance, config, start } => {
                let (worker, config, start) = (worker.clone(), *config, *start);
                let new = Invoked { worker, config, start, joined_ms: at_ms, left: None, vain_ms: 0.0 };
                if self.invoked.insert(instance.clone(), new).is_none() {
                    self.order.push(instance.clone());
                }
            }
            Change::WorkerLeft { instance, usage } => {
                if let Some(invoked) = self.invoked.get_mut(instance) {
                    invoked.left = Some(*usage);
                }
            }
            Change::TaskLeased { task, instance, .. } => self.lease(*task, instance, at_ms),
            Change::TaskDuplicated { task, .. } => {
                self.of_task(*task, |task| task.is_copied = true);
            }
            Change::TaskFailed { task, .. } => self.end_attempt(*task, at_ms),
            Change::TaskCommitted { task, commit } => self.commit(*task, commit, at_ms),
            Change::TasksInvalidated { tasks, .. } => {
                tasks.iter().for_each(|&task| self.invalidate(task));
            }
            Change::TasksSkipped { tasks, .. } => {
                tasks.iter().for_each(|&task| self.of_task(task, |task| task.is_skipped = true));
            }
            Change::RunFinished { status, .. } => self.status = *status,
            Change::PlanReplaced { .. } => self.replanned += 1,
            Change::TaskReady { .. } | Change::RunResumed { .. } | Change::PlanSuggested { .. } => {}
        }
    }

    fn of_task(&mut self, task: u32, change: impl FnOnce(&mut Booked)) {
        if let Some(task) = self.tasks.get_mut(task as usize) {
            change(task);
        }
    }

    fn lease(&mut self, task: u32, instance: &InstanceId, since_ms: f64) {
        // A lease that ended by itself: nobody heard of its worker again.
        let is_other = |lease: &Lease| lease.instance != *instance;
        if self.tasks.get(task as usize).and_then(|task| task.lease.as_ref()).is_some_and(is_other) {
            self.end_attempt(task, since_ms);
        }
        let instance = instance.clone();
        self.of_task(task, |task| task.lease = Some(Lease { instance, since_ms }));
    }

    /// An attempt came to nothing.
    fn end_attempt(&mut self, task: u32, at_ms: f64) {
        let Some(lease) = self.tasks.get_mut(task as usize).and_then(|task| task.lease.take()) else {
            return;
        };
        self.vain += 1;
        self.waste(&lease.instance, at_ms - lease.since_ms);
    }

    fn waste(&mut self, instance: &InstanceId, ms: f64) {
        if let Some(invoked) = self.invoked.get_mut(instance) {
            invoked.vain_ms += ms.max(0.0);
        }
    }

    fn commit(&mut self, task: u32, commit: &Commit, at_ms: f64) {
        let Some(booked) = self.tasks.get_mut(task as usize) else { return };
        booked.ran = Some((commit.instance.clone(), commit.measured));
        let is_copied = booked.is_copied;
        match &booked.lease {
            Some(lease) if lease.instance != commit.instance && !is_copied => self.end_attempt(task, at_ms),
            _ => booked.lease = None,
        }
    }

    fn invalidate(&mut self, task: u32) {
        let Some((instance, measured)) = self.tasks.get_mut(task as usize).and_then(|task| task.ran.take())
        else {
            return;
        };
        self.vain += 1;
        self.waste(&instance, measured.download_ms + measured.exec_ms + measured.upload_ms);
    }

    /// What an invocation used; one that has not said so is taken to live until now.
    pub fn used(&self, invoked: &Invoked) -> WorkerUsage {
        invoked.left.unwrap_or_else(|| {
            let billed_ms = (self.until_ms - invoked.joined_ms).max(0.0);
            WorkerUsage { billed_ms, ..WorkerUsage::default() }
        })
    }

    /// What all used, by size, ascending.
    pub fn usage(&self) -> Vec<ConfigUsage> {
        let mut sizes: BTreeMap<(u32, u32), ConfigUsage> = BTreeMap::new();
        for invoked in self.invoked.values() {
            let config = invoked.config;
            let none = ConfigUsage { config, invocations: 0, cold_starts: 0, usage: WorkerUsage::default() };
            let sum = sizes.entry(config.key()).or_insert(none);
            sum.invocations += 1;
            sum.cold_starts += u64::from(invoked.start == StartState::Cold);
            sum.usage.add(&self.used(invoked));
        }
        sizes.into_values().collect()
    }

    /// Invocations that have not said what they used.
    pub fn estimated(&self) -> u64 {
        self.invoked.values().filter(|invoked| invoked.left.is_none()).count() as u64
    }

    /// Invocations of a planned worker after its first, and those of workers that are not in `planned`.
    pub fn beyond<'a>(&'a self, planned: &BTreeSet<&WorkerId>) -> (Vec<&'a InstanceId>, Vec<&'a InstanceId>) {
        let (mut seen, mut again, mut new) = (BTreeSet::new(), Vec::new(), Vec::new());
        for instance in &self.order {
            let Some(worker) = self.invoked.get(instance).and_then(|invoked| invoked.worker.as_ref()) else {
                continue;
            };
            if !planned.contains(worker) {
                new.push(instance);
            } else if !seen.insert(worker) {
                again.push(instance);
            }
        }
        (again, new)
    }
}
