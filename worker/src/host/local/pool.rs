//! Which worker process takes which invocation: the decisions of the local host, without processes or clocks.
//!
//! At most `concurrency_max` processes are busy and `processes_max` exist; those of the serverful pool have
//! places of their own. Invocations wait in order, each for a place of its kind; one
//! that already waits is not added twice (a planned worker by its id, a flexible one by its tasks). An idle
//! process of the same size is used again, the one used last first, so that the others get old; one idle for
//! `keep_alive_ms` ends. Where many flexible workers of a run wait for few places, one that begins takes some
//! of the others' tasks along: a worker each would take longer to begin than brief tasks take. Times are ms
//! on the host's own clock.

use std::collections::{BTreeMap, VecDeque};

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::id::InstanceId;
use foresail_schemas::invocation::{HostStatus, Invocation, Purpose, WarmWorkers};

/// Names a process for the life of the host.
pub(super) type ProcessId = u64;

/// Limits of a pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub concurrency_max: usize,
    /// Size of the workers of the serverful pool, and how many may be busy.
    pub pool: Option<((u32, u32), usize)>,
    pub processes_max: usize,
    pub queue_max: usize,
    pub keep_alive_ms: f64,
}

/// Part of the waiting flexible tasks that a worker begins with, over the number of places: what is left
/// gets smaller with each, so that the last ones end together. Source: C. Polychronopoulos and D. Kuck,
/// "Guided self-scheduling", IEEE Transactions on Computers C-36(12), 1987, which takes one; four leave room
/// for tasks that take longer than others.
const SHARES_PER_PLACE: usize = 4;
/// Most tasks that a flexible worker begins with.
const TOGETHER_MAX: usize = 256;

/// What a pool asks of its host.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Start a process for this invocation.
    Spawn { process: ProcessId, instance: InstanceId, invocation: Invocation },
    /// Give this invocation to an idle process.
    Give { process: ProcessId, instance: InstanceId, invocation: Invocation },
    /// End an idle process.
    End { process: ProcessId },
}

/// An invocation that waits.
#[derive(Debug, Clone)]
struct Waiting {
    instance: InstanceId,
    invocation: Invocation,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    /// Starts for an invocation, or carries one out.
    Busy,
    Idle {
        since_ms: f64,
    },
    /// Told to end.
    Ending,
}

#[derive(Debug)]
struct Process {
    config: ResourceConfig,
    state: State,
}

/// The processes and the queue of a host.
#[derive(Debug)]
pub(super) struct Pool {
    limits: Limits,
    processes: BTreeMap<ProcessId, Process>,
    queue: VecDeque<Waiting>,
    last_process: ProcessId,
    cold_starts: u64,
    warm_starts: u64,
}

impl Pool {
    pub(super) fn new(limits: Limits) -> Self {
        let (processes, queue) = (BTreeMap::new(), VecDeque::new());
        Self { limits, processes, queue, last_process: 0, cold_starts: 0, warm_starts: 0 }
    }

    /// Queues an invocation; gives its id, or that of the same invocation that waits already.
    ///
    /// # Errors
    /// The number of those that wait, when the queue is full.
    pub(super) fn invoke(
        &mut self,
        invocation: Invocation,
        name: impl FnOnce() -> InstanceId,
    ) -> Result<InstanceId, u64> {
        if let Some(same) = self.queue.iter_mut().find(|w| is_same(&w.invocation, &invocation)) {
            let news = invocation.tasks.iter().filter(|task| !same.invocation.tasks.contains(task));
            let news: Vec<u32> = news.copied().collect();
            same.invocation.tasks.extend(news);
            return Ok(same.instance.clone());
        }
        // An invocation for which there is a place does not wait: it only passes through the queue.
        let is_full = || !self.has_place(invocation.config.key());
        if self.queue.len() >= self.limits.queue_max.max(1) || (self.limits.queue_max == 0 && is_full()) {
            return Err(self.queue.len() as u64);
        }
        let instance = name();
        self.queue.push_back(Waiting { instance: instance.clone(), invocation });
        Ok(instance)
    }

    /// What can be begun now.
    pub(super) fn dispatch(&mut self, now_ms: f64) -> Vec<Step> {
        let mut steps = Vec::new();
        while let Some(Waiting { instance, mut invocation }) = self.next() {
            self.take_along(&mut invocation);
            let config = invocation.config;
            if let Some(process) = self.warmest(config.key()) {
                self.set(process, State::Busy);
                self.warm_starts += 1;
                steps.push(Step::Give { process, instance, invocation });
                continue;
            }
            if self.processes.len() >= self.limits.processes_max {
                steps.extend(self.longest_idle().map(|process| self.end(process)));
            }
            self.last_process += 1;
            let process = self.last_process;
            self.processes.insert(process, Process { config, state: State::Busy });
            self.cold_starts += 1;
            steps.push(Step::Spawn { process, instance, invocation });
        }
        steps.extend(self.expire(now_ms));
        steps
    }

    /// The first that waits and has a place.
    fn next(&mut self) -> Option<Waiting> {
        // One pool, so two kinds of places: looking further than the first of each kind is of no use.
        let mut refused = None;
        let at = self.queue.iter().position(|waiting| {
            let key = waiting.invocation.config.key();
            let kind = self.is_pool(key);
            refused != Some(kind)
                && (self.has_place(key) || {
                    refused = Some(kind);
                    false
                })
        });
        self.queue.remove(at?)
    }

    /// Adds tasks of flexible workers of the same run and size that wait, in their order.
    fn take_along(&mut self, invocation: &mut Invocation) {
        if !is_flexible(invocation) {
            return;
        }
        let is_alike = |waiting: &Waiting| {
            let other = &waiting.invocation;
            is_flexible(other) && other.run == invocation.run && other.config.key() == invocation.config.key()
        };
        let waiting = self.queue.iter().filter(|waiting| is_alike(waiting)).count();
        let shares = (SHARES_PER_PLACE * self.places(invocation.config.key())).max(1);
        let share = (waiting / shares).min(TOGETHER_MAX);
        let (mut kept, mut taken) = (VecDeque::with_capacity(self.queue.len()), Vec::new());
        for waiting in std::mem::take(&mut self.queue) {
            if taken.len() < share && is_alike(&waiting) {
                taken.extend(waiting.invocation.tasks);
            } else {
                kept.push_back(waiting);
            }
        }
        self.queue = kept;
        invocation.tasks.extend(taken);
    }

    /// The process has carried out its invocation.
    pub(super) fn done(&mut self, process: ProcessId, now_ms: f64) {
        if self.state(process) == Some(&State::Busy) {
            self.set(process, State::Idle { since_ms: now_ms });
        }
    }

    /// The process does not exist any more.
    pub(super) fn gone(&mut self, process: ProcessId) {
        self.processes.remove(&process);
    }

    /// Ends all idle processes.
    pub(super) fn drain(&mut self) -> Vec<Step> {
        let idle: Vec<_> = self.idle().map(|(process, _)| process).collect();
        idle.into_iter().map(|process| self.end(process)).collect()
    }

    /// Forgets what waits.
    pub(super) fn clear_queue(&mut self) -> usize {
        std::mem::take(&mut self.queue).len()
    }

    /// When the next idle process has been idle for long enough.
    pub(super) fn next_expiry_ms(&self) -> Option<f64> {
        let ends = self.idle().map(|(_, since_ms)| since_ms + self.limits.keep_alive_ms);
        ends.min_by(f64::total_cmp)
    }

    pub(super) fn status(&self) -> HostStatus {
        HostStatus {
            busy: self.busy() as u64,
            idle: self.idle().count() as u64,
            queued: self.queue.len() as u64,
            concurrency_max: self.limits.concurrency_max as u64,
            cold_starts: self.cold_starts,
            warm_starts: self.warm_starts,
            warm: self.warm(),
        }
    }

    /// The idle processes by size.
    fn warm(&self) -> Vec<WarmWorkers> {
        let mut sizes: BTreeMap<(u32, u32), WarmWorkers> = BTreeMap::new();
        for (id, _) in self.idle() {
            let config = self.processes[&id].config;
            sizes.entry(config.key()).or_insert(WarmWorkers { config, count: 0 }).count += 1;
        }
        sizes.into_values().collect()
    }

    fn busy(&self) -> usize {
        self.processes.values().filter(|p| p.state == State::Busy).count()
    }

    fn is_pool(&self, config: (u32, u32)) -> bool {
        self.limits.pool.is_some_and(|(of_pool, _)| of_pool == config)
    }

    fn has_place(&self, config: (u32, u32)) -> bool {
        let is_pool = self.is_pool(config);
        let alike = |p: &&Process| p.state == State::Busy && self.is_pool(p.config.key()) == is_pool;
        self.processes.values().filter(alike).count() < self.places(config)
    }

    /// How many workers of the kind of this size may be busy.
    fn places(&self, config: (u32, u32)) -> usize {
        match self.limits.pool.filter(|_| self.is_pool(config)) {
            Some((_, workers_max)) => workers_max,
            None => self.limits.concurrency_max,
        }
    }

    fn idle(&self) -> impl Iterator<Item = (ProcessId, f64)> + '_ {
        self.processes.iter().filter_map(|(id, p)| match p.state {
            State::Idle { since_ms } => Some((*id, since_ms)),
            State::Busy | State::Ending => None,
        })
    }

    fn warmest(&self, config: (u32, u32)) -> Option<ProcessId> {
        let of_config = self.idle().filter(|(id, _)| self.processes[id].config.key() == config);
        of_config.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(id, _)| id)
    }

    fn longest_idle(&self) -> Option<ProcessId> {
        self.idle().min_by(|a, b| a.1.total_cmp(&b.1)).map(|(id, _)| id)
    }

    fn expire(&mut self, now_ms: f64) -> Vec<Step> {
        let keep_alive_ms = self.limits.keep_alive_ms;
        let old: Vec<_> = self.idle().filter(|(_, since_ms)| now_ms >= since_ms + keep_alive_ms).collect();
        old.into_iter().map(|(process, _)| self.end(process)).collect()
    }

    fn end(&mut self, process: ProcessId) -> Step {
        self.set(process, State::Ending);
        Step::End { process }
    }

    fn state(&self, process: ProcessId) -> Option<&State> {
        self.processes.get(&process).map(|p| &p.state)
    }

    fn set(&mut self, process: ProcessId, state: State) {
        if let Some(entry) = self.processes.get_mut(&process) {
            entry.state = state;
        }
    }
}

/// Whether it asks for a worker of no name, to run tasks.
fn is_flexible(invocation: &Invocation) -> bool {
    invocation.purpose == Purpose::Work && invocation.worker.is_none()
}

/// Whether both ask for the same worker of the same run. Workers to be there are wanted as often as they are
/// asked for.
fn is_same(a: &Invocation, b: &Invocation) -> bool {
    let work = [a, b].iter().all(|invocation| invocation.purpose == Purpose::Work);
    work && a.run == b.run && a.worker == b.worker && (a.worker.is_some() || a.tasks == b.tasks)
}

#[cfg(test)]
mod tests;
