//! Where a run stands, as the fold of its events, in the form that re-planning asks for. Pure.
//!
//! A worker counts as lost when its host says so, or when another instance takes its place or a task that it
//! had leased: until then nobody but the store knows. Not known are workers that were invoked and have not
//! joined; they are left out. Of a time in which the store was silent nothing is known either: that no result
//! came then does not say that a task still ran. Times in ms since the run was created.

use std::collections::BTreeMap;

use foresail_planner::{Progress, TaskProgress, WorkerCondition, WorkerProgress, flexible_id};
use foresail_schemas::config::ResourceConfig;
use foresail_schemas::decision::{Decision, DecisionForecast};
use foresail_schemas::id::{InstanceId, WorkerId};
use foresail_schemas::metric::StartState;
use foresail_schemas::plan::{Plan, PlanSummary};
use foresail_schemas::platform::Rates;
use foresail_schemas::run::{Change, FailureKind, RunEvent, WorkerUsage};
use foresail_schemas::{TaskId, TaskName, Workflow};

/// How far a task is.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nobody has it.
    Open,
    /// A worker has it.
    Leased {
        /// Which.
        instance: InstanceId,
        /// When a lane of that worker was free for it; nothing while it waits for one there.
        begun_ms: Option<f64>,
    },
    /// It has a result.
    Done {
        /// Who made it.
        instance: InstanceId,
        /// When it was begun.
        start_ms: f64,
        /// When the result was there.
        end_ms: f64,
        /// Size of all its outputs.
        output_bytes: u64,
    },
    /// It will not run, because of what another decided.
    Skipped,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Alive,
    Lost { at_ms: f64 },
    Left { usage: WorkerUsage },
}

#[derive(Debug, Clone)]
struct Instance {
    worker: Option<WorkerId>,
    config: ResourceConfig,
    start: StartState,
    joined_ms: f64,
    /// Whether its process disappeared; whoever noticed that says that it has left as well.
    is_dead: bool,
    state: State,
}

/// A task that runs, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Running {
    /// Which.
    pub task: u32,
    /// Since when.
    pub since_ms: f64,
    /// Until when it is known that it had not ended.
    pub known_ms: f64,
    /// The size of its worker, where that is known.
    pub config: Option<ResourceConfig>,
}

/// An execution that a commit tells of.
#[derive(Debug, Clone, PartialEq)]
pub struct Execution {
    /// The function.
    pub name: TaskName,
    /// The task.
    pub task: u32,
    /// Size of the worker.
    pub config: ResourceConfig,
    /// Time in the user's code.
    pub exec_ms: f64,
}

/// The state of a run.
#[derive(Debug)]
pub struct Course {
    workflow: Workflow,
    /// Tasks that a worker runs at the same time.
    lanes: usize,
    steps: Vec<Step>,
    /// What each instance has leased, in that order: it runs the first ones.
    leased: BTreeMap<InstanceId, Vec<u32>>,
    instances: BTreeMap<InstanceId, Instance>,
    /// What tasks with a result decided.
    decided: BTreeMap<u32, Decision>,
    /// Who has not been heard of since the store was silent, and when that began.
    unheard: BTreeMap<InstanceId, f64>,
    /// When the store spoke again, and by when whoever lives has spoken to it.
    spoke_ms: f64,
    heard_by_ms: f64,
    epoch: u64,
    last_event: u64,
    at_ms: f64,
    is_over: bool,
}

impl Course {
    /// A run of which nothing is known yet, whose workers have so many lanes.
    #[must_use]
    pub fn new(workflow: &Workflow, lanes: u32) -> Self {
        Self {
            lanes: lanes as usize,
            leased: BTreeMap::new(),
            steps: vec![Step::Open; workflow.tasks().len()],
            workflow: workflow.clone(),
            instances: BTreeMap::new(),
            decided: BTreeMap::new(),
            unheard: BTreeMap::new(),
            spoke_ms: 0.0,
            heard_by_ms: 0.0,
            epoch: 1,
            last_event: 0,
            at_ms: 0.0,
            is_over: false,
        }
    }

    /// Epoch of the plan in force.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether the run has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// When the last event happened.
    #[must_use]
    pub fn at_ms(&self) -> f64 {
        self.at_ms
    }

    /// How far a task is.
    #[must_use]
    pub fn step(&self, task: u32) -> &Step {
        &self.steps[task as usize]
    }

    /// The tasks that run at `now_ms`, as far as is known.
    pub fn running(&self, now_ms: f64) -> impl Iterator<Item = Running> + '_ {
        (0..).zip(&self.steps).filter_map(move |(task, step)| match step {
            Step::Leased { begun_ms: Some(since_ms), instance } => {
                let unheard_ms = self.unheard.get(instance).filter(|_| now_ms < self.heard_by_ms);
                let known_ms = unheard_ms.map_or(now_ms, |unheard_ms| unheard_ms.max(*since_ms));
                let config = self.instances.get(instance).map(|i| i.config);
                Some(Running { task, since_ms: *since_ms, known_ms, config })
            }
            _ => None,
        })
    }

    /// Nothing was heard of the run from `from_ms` to `until_ms`, and a worker that lives reports within
    /// `report_ms` after that. Until it has, it is not known whether what it ran has ended meanwhile.
    pub fn silence(&mut self, from_ms: f64, until_ms: f64, report_ms: f64) {
        if self.heard_by_ms <= from_ms {
            self.unheard.clear();
        }
        (self.spoke_ms, self.heard_by_ms) = (until_ms, until_ms + report_ms);
        for step in &self.steps {
            if let Step::Leased { instance, .. } = step {
                self.unheard.entry(instance.clone()).or_insert(from_ms);
            }
        }
    }

    /// The tasks that will not run.
    pub fn skipped(&self) -> impl Iterator<Item = u32> + '_ {
        (0..).zip(&self.steps).filter(|(_, step)| **step == Step::Skipped).map(|(task, _)| task)
    }

    /// Whether a planned worker has joined and lives, as far as is known.
    #[must_use]
    pub fn is_alive(&self, worker: &WorkerId) -> bool {
        self.instances.values().any(|i| i.worker.as_ref() == Some(worker) && i.state == State::Alive)
    }

    /// Workers that were lost so far.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.instances.values().filter(|i| i.is_dead || matches!(i.state, State::Lost { .. })).count()
    }

    /// What tasks decided so far, by their places.
    pub fn decided(&self) -> impl Iterator<Item = (u32, &Decision)> {
        self.decided.iter().map(|(task, decision)| (*task, decision))
    }

    /// The same as predictions that are sure.
    #[must_use]
    pub fn facts(&self) -> BTreeMap<TaskId, DecisionForecast> {
        let fact = |(task, decision): (u32, &Decision)| {
            let width = if let Decision::Width(width) = decision { Some(*width) } else { None };
            let branches = BTreeMap::from([(decision.to_string(), 1.0)]);
            (self.workflow.task(task).id.clone(), DecisionForecast { width, branches })
        };
        self.decided().map(fact).collect()
    }

    /// Takes the next event; tells what was measured, where it says that. One that was seen before changes
    /// nothing.
    pub fn apply(&mut self, event: &RunEvent) -> Option<Execution> {
        if event.seq <= self.last_event {
            return None;
        }
        (self.last_event, self.at_ms) = (event.seq, event.at_ms);
        let at_ms = event.at_ms;
        self.hear(&event.change, at_ms);
        match &event.change {
            Change::WorkerJoined { worker, instance, config, start } => {
                let before: Vec<InstanceId> = self
                    .instances
                    .iter()
                    .filter(|(_, i)| worker.is_some() && i.worker == *worker && i.state == State::Alive)
                    .map(|(id, _)| id.clone())
                    .collect();
                before.iter().for_each(|id| self.lose(id, at_ms));
                let (worker, config, start) = (worker.clone(), *config, *start);
                let (state, is_dead) = (State::Alive, false);
                let joined = Instance { worker, config, start, joined_ms: at_ms, is_dead, state };
                self.instances.insert(instance.clone(), joined);
            }
            Change::WorkerLeft { instance, usage } => {
                if let Some(found) = self.instances.get_mut(instance) {
                    found.state = State::Left { usage: *usage };
                }
                self.free(instance);
            }
            Change::TaskLeased { task, instance, .. } => {
                if let Some(Step::Leased { instance: before, .. }) = self.steps.get(*task as usize)
                    && before != instance
                {
                    self.lose(&before.clone(), at_ms);
                }
                self.lease(*task, instance);
            }
            Change::TaskFailed { task, instance, failure, .. } => {
                if let Some(found) = self.instances.get_mut(instance) {
                    found.is_dead |= failure.kind == FailureKind::WorkerLost;
                }
                // An attempt that began beside the one that made the result takes nothing away.
                if matches!(self.steps.get(*task as usize), Some(Step::Leased { .. })) {
                    self.set(*task, Step::Open);
                }
            }
            Change::TaskCommitted { task, commit } => {
                let m = &commit.measured;
                let took_ms = m.download_ms + m.exec_ms + m.upload_ms;
                let start_ms = match self.steps.get(*task as usize) {
                    Some(Step::Leased { instance, begun_ms: Some(ms) }) if *instance == commit.instance => {
                        *ms
                    }
                    _ => (at_ms - took_ms).max(0.0),
                };
                let (instance, output_bytes) = (commit.instance.clone(), m.output_bytes);
                self.set(*task, Step::Done { instance, start_ms, end_ms: at_ms, output_bytes });
                if let Some(decision) = commit.decision.clone()
                    && (*task as usize) < self.steps.len()
                {
                    self.decided.insert(*task, decision);
                }
                let config = self.instances.get(&commit.instance)?.config;
                let name = self.workflow.tasks().get(*task as usize)?.name.clone();
                return Some(Execution { name, task: *task, config, exec_ms: m.exec_ms });
            }
            Change::TasksSkipped { tasks, .. } => {
                tasks.iter().for_each(|&task| self.set(task, Step::Skipped));
            }
            Change::TasksInvalidated { tasks, .. } => {
                tasks.iter().for_each(|&task| self.set(task, Step::Open));
            }
            Change::PlanReplaced { epoch, .. } => self.epoch = *epoch,
            Change::RunFinished { .. } => self.is_over = true,
            Change::TaskReady { .. }
            | Change::TaskDuplicated { .. }
            | Change::PlanSuggested { .. }
            | Change::RunResumed { .. } => {}
        }
        None
    }

    /// Who reports after a silence is heard of again.
    fn hear(&mut self, change: &Change, at_ms: f64) {
        let speaker = match change {
            Change::TaskLeased { instance, .. } => instance,
            Change::TaskCommitted { commit, .. } => &commit.instance,
            _ => return,
        };
        if at_ms >= self.spoke_ms {
            self.unheard.remove(speaker);
        }
    }

    fn set(&mut self, task: u32, step: Step) {
        let Some(place) = self.steps.get_mut(task as usize) else { return };
        let Step::Leased { instance, .. } = std::mem::replace(place, step) else { return };
        // A lane is free for the next.
        let leased = self.leased.entry(instance).or_default();
        leased.retain(|&other| other != task);
        for &next in leased.iter().take(self.lanes) {
            if let Step::Leased { begun_ms: begun_ms @ None, .. } = &mut self.steps[next as usize] {
                *begun_ms = Some(self.at_ms);
            }
        }
    }

    /// A worker asks for brief tasks before it has a lane for them.
    fn lease(&mut self, task: u32, instance: &InstanceId) {
        self.set(task, Step::Open);
        let leased = self.leased.entry(instance.clone()).or_default();
        let begun_ms = (leased.len() < self.lanes).then_some(self.at_ms);
        if (task as usize) < self.steps.len() {
            leased.push(task);
            self.steps[task as usize] = Step::Leased { instance: instance.clone(), begun_ms };
        }
    }

    fn lose(&mut self, instance: &InstanceId, at_ms: f64) {
        if let Some(found) = self.instances.get_mut(instance).filter(|i| i.state == State::Alive) {
            found.state = State::Lost { at_ms };
            self.free(instance);
        }
    }

    /// Nobody has what this instance had.
    fn free(&mut self, instance: &InstanceId) {
        for task in self.leased.remove(instance).unwrap_or_default() {
            self.steps[task as usize] = Step::Open;
        }
    }

    /// The state at `now_ms` for re-planning `plan`.
    #[must_use]
    pub fn progress(&self, plan: &Plan, rates: &Rates, now_ms: f64) -> Progress {
        let names = self.names(plan);
        let graph = self.workflow.graph();
        let is_settled = |&t: &u32| matches!(self.steps[t as usize], Step::Done { .. } | Step::Skipped);
        let mut objects: BTreeMap<&InstanceId, Vec<u32>> = BTreeMap::new();
        let mut tasks = Vec::with_capacity(self.steps.len());
        for (t, step) in (0..).zip(&self.steps) {
            tasks.push(match step {
                Step::Done { instance, start_ms, end_ms, output_bytes } => {
                    let held = objects.entry(instance).or_default();
                    held.extend(graph.reads(t));
                    held.extend(graph.writes(t));
                    let (start_ms, end_ms) = (*start_ms, *end_ms);
                    TaskProgress::Done { start_ms, end_ms, output_bytes: Some(*output_bytes) }
                }
                // A worker may hold the lease of a task whose last input it is about to commit.
                Step::Leased { instance, begun_ms } if graph.parents(t).iter().all(is_settled) => {
                    let since_ms = begun_ms.unwrap_or(now_ms);
                    TaskProgress::Leased { worker: names.get(instance).cloned(), since_ms }
                }
                Step::Skipped => TaskProgress::Skipped,
                Step::Leased { .. } | Step::Open => TaskProgress::Open,
            });
        }
        let mut workers = Vec::new();
        for (id, instance) in &self.instances {
            let condition = match instance.state {
                State::Alive => WorkerCondition::Alive,
                State::Lost { .. } => WorkerCondition::Lost,
                State::Left { .. } => continue,
            };
            let mut objects = objects.remove(id).unwrap_or_default();
            objects.sort_unstable();
            objects.dedup();
            let (config, since_ms) = (instance.config, instance.joined_ms);
            let id = names[id].clone();
            workers.push(WorkerProgress { id, config, condition, since_ms, objects });
        }
        let used = self.instances.values().filter_map(|i| i.worker.clone()).collect();
        Progress { now_ms, tasks, workers, idle: self.idle(), used, spent: self.spent(rates) }
    }

    /// What each instance is called: a flexible one by a name that no planned worker has.
    fn names(&self, plan: &Plan) -> BTreeMap<InstanceId, WorkerId> {
        let name = |(at, (id, instance)): (usize, (&InstanceId, &Instance))| {
            let name = instance.worker.clone().unwrap_or_else(|| flexible_id(plan, at));
            (id.clone(), name)
        };
        self.instances.iter().enumerate().map(name).collect()
    }

    /// Containers that were left and not taken again, by size.
    fn idle(&self) -> Vec<(ResourceConfig, u32)> {
        let mut idle: BTreeMap<(u32, u32), (ResourceConfig, i64)> = BTreeMap::new();
        for instance in self.instances.values() {
            let count = &mut idle.entry(instance.config.key()).or_insert((instance.config, 0)).1;
            *count += i64::from(matches!(instance.state, State::Left { .. }) && !instance.is_dead);
            *count -= i64::from(instance.start == StartState::Warm);
        }
        let some = |(config, count): (ResourceConfig, i64)| {
            u32::try_from(count).ok().filter(|&count| count > 0).map(|count| (config, count))
        };
        idle.into_values().filter_map(some).collect()
    }

    /// What those that have left or are lost took. What the living paid for objects they tell at their end.
    fn spent(&self, rates: &Rates) -> PlanSummary {
        let mut sum = PlanSummary::default();
        for instance in self.instances.values() {
            sum.cold_starts += u64::from(instance.start == StartState::Cold);
            let usage = match instance.state {
                State::Alive => continue,
                State::Left { usage } => usage,
                State::Lost { at_ms } => {
                    WorkerUsage { billed_ms: at_ms - instance.joined_ms, ..WorkerUsage::default() }
                }
            };
            sum.invocations += 1;
            sum.cost_usd += rates.worker_usd(&instance.config, &usage);
            sum.gb_seconds += instance.config.gb() * usage.billed_ms / 1000.0;
            sum.download_bytes += usage.download_bytes + usage.shared_bytes;
            sum.upload_bytes += usage.upload_bytes;
        }
        sum
    }
}
