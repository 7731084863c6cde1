//! How far a run is, as the fold of its events: pure, without I/O and without a clock.
//!
//! Times in ms since the run was created, money in USD. The cost of workers that still run is an estimate
//! from their life so far; once all have left it is what they reported. One that is lost never reports: it
//! counts until a task that it had was given to another, which is when that becomes known.

use std::collections::{BTreeMap, BTreeSet};

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::id::InstanceId;
use foresail_schemas::metric::StartState;
use foresail_schemas::plan::PlanSummary;
use foresail_schemas::platform::Rates;
use foresail_schemas::run::{Change, Failure, Replanning, RunEvent, RunStatus, WorkerUsage};

/// How far a run is.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Where the run stands.
    pub status: RunStatus,
    /// Why it failed or was cancelled.
    pub failure: Option<Failure>,
    /// Tasks in all.
    pub tasks: u64,
    /// Tasks with a result.
    pub committed: u64,
    /// Attempts that failed.
    pub failed_attempts: u64,
    /// Tasks that do not run, because of what others decided.
    pub skipped: u64,
    /// Plans that were put in force after the first.
    pub replanned: u64,
    /// Why the plan in force took the place of the one before, where it was said.
    pub replacement: Option<Box<Replanning>>,
    /// Better plans that were found and not put in force.
    pub suggested: u64,
    /// Why there is a better plan than the one in force, while it can be accepted.
    pub suggestion: Option<Box<Replanning>>,
    /// Number of the last event seen.
    pub last_event: u64,
    /// When the run ended, or the last event happened.
    pub at_ms: f64,
    running: BTreeSet<u32>,
    live: BTreeMap<InstanceId, Live>,
    /// Who has each task that runs.
    held: BTreeMap<u32, InstanceId>,
    left: Vec<(ResourceConfig, WorkerUsage)>,
    invocations: u64,
    cold_starts: u64,
}

/// A worker that has joined and not left.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Live {
    config: ResourceConfig,
    joined_ms: f64,
    /// When somebody else was given a task that it had: it has ended by then, or works for nobody.
    lost_ms: Option<f64>,
}

impl Progress {
    /// A run of `tasks` tasks of which nothing is known yet.
    #[must_use]
    pub fn new(tasks: u64) -> Self {
        Self {
            status: RunStatus::Running,
            failure: None,
            tasks,
            committed: 0,
            failed_attempts: 0,
            skipped: 0,
            replanned: 0,
            replacement: None,
            suggested: 0,
            suggestion: None,
            last_event: 0,
            at_ms: 0.0,
            running: BTreeSet::new(),
            live: BTreeMap::new(),
            held: BTreeMap::new(),
            left: Vec::new(),
            invocations: 0,
            cold_starts: 0,
        }
    }

    /// Takes the next event; one that was seen before changes nothing.
    pub fn apply(&mut self, event: &RunEvent) {
        if event.seq <= self.last_event {
            return;
        }
        self.last_event = event.seq;
        if self.status == RunStatus::Running {
            self.at_ms = event.at_ms;
        }
        match &event.change {
            Change::WorkerJoined { instance, config, start, .. } => {
                self.invocations += 1;
                self.cold_starts += u64::from(*start == StartState::Cold);
                let live = Live { config: *config, joined_ms: event.at_ms, lost_ms: None };
                self.live.insert(instance.clone(), live);
            }
            Change::WorkerLeft { instance, usage } => {
                self.left.extend(self.live.remove(instance).map(|live| (live.config, *usage)));
            }
            Change::TaskLeased { task, instance, .. } => {
                self.running.insert(*task);
                self.lease(*task, instance, event.at_ms);
            }
            Change::TaskFailed { task, .. } => {
                self.put_down(*task);
                self.failed_attempts += 1;
            }
            Change::TaskCommitted { task, .. } => {
                self.put_down(*task);
                self.committed += 1;
            }
            // What was taken over from an earlier run does not count as done here, and may be lost as well.
            Change::TasksInvalidated { tasks, .. } => {
                self.committed = self.committed.saturating_sub(tasks.len() as u64);
            }
            Change::TasksSkipped { tasks, .. } => self.skipped += tasks.len() as u64,
            Change::RunFinished { status, failure } => {
                self.status = *status;
                self.failure.clone_from(failure);
                self.running.clear();
                self.suggestion = None;
            }
            Change::TaskReady { .. } | Change::TaskDuplicated { .. } | Change::RunResumed { .. } => {}
            // What was suggested was made from the plan before.
            Change::PlanReplaced { why, .. } => {
                self.replanned += 1;
                self.replacement.clone_from(why);
                self.suggestion = None;
            }
            Change::PlanSuggested { why, .. } => {
                self.suggested += 1;
                self.suggestion = Some(why.clone());
            }
        }
    }

    fn lease(&mut self, task: u32, instance: &InstanceId, at_ms: f64) {
        if let Some(before) = self.held.insert(task, instance.clone()).filter(|before| before != instance)
            && let Some(live) = self.live.get_mut(&before)
        {
            live.lost_ms.get_or_insert(at_ms);
        }
    }

    fn put_down(&mut self, task: u32) {
        self.running.remove(&task);
        self.held.remove(&task);
    }

    /// Tasks that need nothing any more: they have a result or are skipped.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.committed + self.skipped
    }

    /// Tasks that run now.
    #[must_use]
    pub fn running(&self) -> u64 {
        self.running.len() as u64
    }

    /// Workers that have joined, have not left, and are not known to be lost.
    #[must_use]
    pub fn workers(&self) -> u64 {
        self.live.values().filter(|live| live.lost_ms.is_none()).count() as u64
    }

    /// Sizes of the workers that took part, ascending, each with its number of invocations.
    #[must_use]
    pub fn sizes(&self) -> Vec<(ResourceConfig, u64)> {
        let mut sizes: BTreeMap<(u32, u32), (ResourceConfig, u64)> = BTreeMap::new();
        for config in self.left.iter().map(|(c, _)| c).chain(self.live.values().map(|live| &live.config)) {
            sizes.entry(config.key()).or_insert((*config, 0)).1 += 1;
        }
        sizes.into_values().collect()
    }

    /// The sum of what the workers that have left used.
    #[must_use]
    pub fn usage(&self) -> WorkerUsage {
        let mut sum = WorkerUsage::default();
        self.left.iter().for_each(|(_, usage)| sum.add(usage));
        sum
    }

    /// What the run took and cost by `now_ms`. What a worker read in place in shared memory counts as
    /// downloaded, as the plan counts it, which knows no machines; [`Self::usage`] tells them apart.
    #[must_use]
    pub fn summary(&self, rates: &Rates, now_ms: f64) -> PlanSummary {
        let mut sum = PlanSummary {
            makespan_ms: if self.status == RunStatus::Running { now_ms } else { self.at_ms },
            invocations: self.invocations,
            cold_starts: self.cold_starts,
            ..PlanSummary::default()
        };
        let estimated = self.live.values().map(|live| {
            let end_ms = live.lost_ms.unwrap_or(now_ms).min(now_ms);
            let billed_ms = (end_ms - live.joined_ms).max(0.0);
            (live.config, WorkerUsage { billed_ms, ..WorkerUsage::default() })
        });
        for (config, usage) in self.left.iter().copied().chain(estimated) {
            sum.cost_usd += rates.worker_usd(&config, &usage);
            sum.gb_seconds += config.gb() * usage.billed_ms / 1000.0;
            sum.download_bytes += usage.download_bytes + usage.shared_bytes;
            sum.upload_bytes += usage.upload_bytes;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use foresail_schemas::platform::Prices;

    use super::*;

    fn rates() -> Rates {
        Rates::from(Prices {
            gb_second_usd: 1.0,
            request_usd: 0.5,
            put_usd: 0.25,
            get_usd: 0.125,
            transfer_gb_usd: 0.0,
        })
    }

    fn progress(changes: Vec<(f64, Change)>) -> Progress {
        let mut progress = Progress::new(2);
        for (i, (at_ms, change)) in changes.into_iter().enumerate() {
            let event = RunEvent { seq: i as u64 + 1, at_ms, change };
            progress.apply(&event);
            progress.apply(&event);
        }
        progress
    }

    fn joined(name: &str) -> Change {
        Change::WorkerJoined {
            worker: None,
            instance: name.parse().unwrap(),
            config: ResourceConfig::new(1024, None).unwrap(),
            start: StartState::Cold,
        }
    }

    fn left(name: &str, billed_ms: f64) -> Change {
        let (download_bytes, shared_bytes) = (10, 5);
        let usage = WorkerUsage {
            billed_ms,
            puts: 2,
            gets: 4,
            download_bytes,
            shared_bytes,
            ..WorkerUsage::default()
        };
        Change::WorkerLeft { instance: name.parse().unwrap(), usage }
    }

    #[test]
    fn the_cost_of_live_workers_is_estimated_and_then_what_they_report() {
        let alive = progress(vec![(0.0, joined("a"))]);
        assert_eq!(alive.workers(), 1);
        assert!((alive.summary(&rates(), 2_000.0).cost_usd - 2.5).abs() < 1e-9);
        let gone = progress(vec![(0.0, joined("a")), (1_500.0, left("a", 3_000.0))]);
        let sum = gone.summary(&rates(), 9_000.0);
        assert!((sum.cost_usd - (3.0 + 0.5 + 0.5 + 0.5)).abs() < 1e-9);
        assert_eq!((sum.invocations, sum.cold_starts, sum.download_bytes), (1, 1, 15));
        assert_eq!((gone.usage().download_bytes, gone.usage().shared_bytes), (10, 5));
    }

    #[test]
    fn a_lost_worker_counts_until_its_task_is_given_to_another_or_it_reports_after_all() {
        let leased = |name: &str, attempt| Change::TaskLeased {
            task: 0,
            attempt,
            instance: name.parse().unwrap(),
            epoch: 1,
            expires_ms: 0.0,
            assuming: Vec::new(),
        };
        let mut changes = vec![(0.0, joined("a")), (0.0, leased("a", 1))];
        changes.extend([(1_000.0, joined("b")), (1_000.0, leased("b", 2))]);
        let lost = progress(changes.clone());
        assert_eq!((lost.workers(), lost.running()), (1, 1));
        let cost_usd = lost.summary(&rates(), 3_000.0).cost_usd;
        assert!((cost_usd - (1.0 + 2.0 + 2.0 * 0.5)).abs() < 1e-9, "{cost_usd}");
        changes.push((3_000.0, left("a", 2_500.0)));
        let reported = progress(changes).summary(&rates(), 3_000.0).cost_usd;
        assert!((reported - (2.5 + 0.5 + 0.5 + 2.0 + 2.0 * 0.5)).abs() < 1e-9, "{reported}");
    }

    #[test]
    fn the_makespan_ends_with_the_run_and_not_with_its_workers() {
        let finished = Change::RunFinished { status: RunStatus::Completed, failure: None };
        let done = progress(vec![(0.0, joined("a")), (700.0, finished), (900.0, left("a", 900.0))]);
        assert!((done.summary(&rates(), 5_000.0).makespan_ms - 700.0).abs() < 1e-9);
        assert_eq!(done.workers(), 0);
        assert_eq!(done.sizes()[0].1, 1);
    }

    #[test]
    fn skipped_tasks_count_as_settled() {
        let skipped = progress(vec![(0.0, Change::TasksSkipped { by: 0, tasks: vec![1, 2] })]);
        assert_eq!((skipped.committed, skipped.skipped, skipped.settled()), (0, 2, 2));
    }
}
