//! The parts of a plan that choreography looks at, by task index.
//!
//! Made once per plan and shared by every machine of it: what a machine asks for is an index away, and the
//! tasks of a worker stand in a row.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::graph::Graph;
use foresail_schemas::id::{TaskId, WorkerId};
use foresail_schemas::optimization::{FlexibleRules, Optimization, PreWarming};
use foresail_schemas::plan::{Plan, PlannedTask};

use crate::protocol::Invoke;

/// The index of a flexible task's worker.
const NOBODY: u32 = u32::MAX;

/// Placement, order, predicted time and optimisations of every task, under one epoch.
#[derive(Clone)]
pub struct PlanView {
    epoch: u64,
    tasks: Vec<Placement>,
    /// The planned workers by name; their places are their indices.
    workers: Vec<WorkerId>,
    /// The tasks of each worker, end to end.
    of_worker: Vec<u32>,
    of_worker_from: Vec<u32>,
    prewarms: Vec<TimedStart>,
    flexible: Option<FlexibleRules>,
}

#[derive(Debug, Clone)]
struct Placement {
    worker: u32,
    config: ResourceConfig,
    rank: u32,
    exec_ms: f64,
    /// Whether that comes from measurements and is no assumption.
    is_known: bool,
    output_bytes: Option<u64>,
    marks: Marks,
}

/// The optimisations that workers carry out for a task.
#[derive(Debug, Clone, Copy, Default)]
struct Marks {
    pre_load: bool,
    task_dup: bool,
}

/// A worker that is to be started beforehand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TimedStart {
    /// The task whose start begins the clock; absent: the start of the run.
    pub after: Option<u32>,
    /// When it is to be started on that clock, in ms.
    pub delay_ms: f64,
    /// Its size.
    pub config: ResourceConfig,
}

/// In one run a plan is known by its epoch.
impl fmt::Debug for PlanView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlanView").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl PlanView {
    /// The view of `plan`, which is in force under `epoch`.
    #[must_use]
    pub fn new(epoch: u64, plan: &Plan) -> Self {
        let index: BTreeMap<&WorkerId, u32> = {
            let names: BTreeMap<&WorkerId, ()> =
                plan.tasks.iter().filter_map(|t| t.worker.as_ref()).map(|w| (w, ())).collect();
            names.into_keys().zip(0..).collect()
        };
        let index_of = |task: &PlannedTask| task.worker.as_ref().map_or(NOBODY, |w| index[w]);
        let tasks: Vec<Placement> = plan
            .tasks
            .iter()
            .map(|t| Placement {
                worker: index_of(t),
                config: t.config,
                rank: t.rank,
                exec_ms: t.exec_ms,
                is_known: t.forecast.is_some(),
                output_bytes: t.output_bytes,
                marks: Marks {
                    pre_load: t.optimizations.contains(&Optimization::PreLoad),
                    task_dup: t.optimizations.contains(&Optimization::TaskDup),
                },
            })
            .collect();
        let (of_worker, of_worker_from) = rows(&tasks, index.len());
        let workers = index.into_keys().cloned().collect();
        let (prewarms, flexible) = (timed_starts(plan), plan.flexible);
        Self { epoch, tasks, workers, of_worker, of_worker_from, prewarms, flexible }
    }

    /// Epoch of the plan.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The worker that runs the task and no other does; nothing for a flexible task.
    #[must_use]
    pub fn worker(&self, task: u32) -> Option<&WorkerId> {
        self.workers.get(self.tasks[task as usize].worker as usize)
    }

    /// The index of a planned worker; nothing where the plan gives it no task.
    #[must_use]
    pub fn index(&self, worker: &WorkerId) -> Option<u32> {
        self.workers.binary_search(worker).ok().map(|at| at as u32)
    }

    /// The worker of an index.
    pub(crate) fn worker_named(&self, index: u32) -> &WorkerId {
        &self.workers[index as usize]
    }

    /// The index of the worker that runs the task; nothing for a flexible task.
    #[must_use]
    pub fn worker_index(&self, task: u32) -> Option<u32> {
        Some(self.tasks[task as usize].worker).filter(|&worker| worker != NOBODY)
    }

    /// Number of planned workers that have tasks.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        self.workers.len()
    }

    /// The tasks that only the worker of this index runs, ascending.
    #[must_use]
    pub fn tasks_of(&self, worker: u32) -> &[u32] {
        let at = worker as usize;
        &self.of_worker[self.of_worker_from[at] as usize..self.of_worker_from[at + 1] as usize]
    }

    /// Whether the task's worker downloads its inputs as soon as they exist.
    #[must_use]
    pub fn is_preloaded(&self, task: u32) -> bool {
        let placement = &self.tasks[task as usize];
        placement.marks.pre_load && placement.worker != NOBODY
    }

    /// Whether a worker that waits for the task may run it too.
    #[must_use]
    pub fn may_be_copied(&self, task: u32) -> bool {
        let placement = &self.tasks[task as usize];
        placement.marks.task_dup && placement.worker != NOBODY
    }

    /// Workers to start beforehand on the clock of this task, or of the run.
    #[must_use]
    pub fn prewarms(&self, after: Option<u32>) -> &[TimedStart] {
        let from = self.prewarms.partition_point(|p| p.after < after);
        let to = self.prewarms.partition_point(|p| p.after <= after);
        &self.prewarms[from..to]
    }

    /// What flexible workers do with large outputs.
    pub(crate) fn flexible(&self) -> Option<FlexibleRules> {
        self.flexible
    }

    /// Predicted size of all outputs of the task, where the plan says it.
    pub(crate) fn output_bytes(&self, task: u32) -> Option<u64> {
        self.tasks[task as usize].output_bytes
    }

    pub(crate) fn config(&self, task: u32) -> ResourceConfig {
        self.tasks[task as usize].config
    }

    pub(crate) fn rank(&self, task: u32) -> u32 {
        self.tasks[task as usize].rank
    }

    pub(crate) fn exec_ms(&self, task: u32) -> f64 {
        self.tasks[task as usize].exec_ms
    }

    /// Predicted time of the task in the user's code, where it was measured before.
    pub(crate) fn known_ms(&self, task: u32) -> Option<f64> {
        let placement = &self.tasks[task as usize];
        placement.is_known.then_some(placement.exec_ms)
    }

    /// A worker to begin with these tasks, which belong together.
    pub(crate) fn invoke(&self, worker: Option<WorkerId>, tasks: Vec<u32>) -> Option<Invoke> {
        let config = self.config(*tasks.first()?);
        Some(Invoke { worker, config, tasks })
    }
}

/// The tasks of each worker, end to end, and where each row begins.
fn rows(tasks: &[Placement], workers: usize) -> (Vec<u32>, Vec<u32>) {
    let planned = || tasks.iter().zip(0_u32..).filter(|(placement, _)| placement.worker != NOBODY);
    let mut from = vec![0_u32; workers + 1];
    planned().for_each(|(placement, _)| from[placement.worker as usize + 1] += 1);
    for at in 0..workers {
        from[at + 1] += from[at];
    }
    let mut next = from.clone();
    let mut items = vec![0; from[workers] as usize];
    for (placement, task) in planned() {
        let at = &mut next[placement.worker as usize];
        items[*at as usize] = task;
        *at += 1;
    }
    (items, from)
}

/// By the task that begins the clock, then as in the plan. One that names a task that is not there is left
/// out: nothing would ever start it.
fn timed_starts(plan: &Plan) -> Vec<TimedStart> {
    if plan.prewarms.is_empty() {
        return Vec::new();
    }
    let index: HashMap<&TaskId, u32> = plan.tasks.iter().map(|t| &t.task).zip(0..).collect();
    let timed = |p: &PreWarming| {
        let after = p.after.as_ref().map(|task| index.get(task).copied());
        match after {
            Some(None) => None,
            known => Some(TimedStart { after: known.flatten(), delay_ms: p.delay_ms, config: p.config }),
        }
    };
    let mut all: Vec<TimedStart> = plan.prewarms.iter().filter_map(timed).collect();
    all.sort_by_key(|p| p.after);
    all
}

/// The workers that a run starts with: one per planned worker that has sources, one per flexible source.
#[must_use]
pub fn first_invocations(graph: &Graph, plan: &PlanView) -> Vec<Invoke> {
    invocations_for(graph.sources(), plan)
}

/// The workers that begin with these tasks: one per planned worker that has some, one per flexible task.
#[must_use]
pub fn invocations_for(tasks: impl IntoIterator<Item = u32>, plan: &PlanView) -> Vec<Invoke> {
    let mut planned: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut order: Vec<(u32, Option<u32>, u32)> = Vec::new();
    for task in tasks {
        match plan.worker_index(task) {
            Some(worker) => planned.entry(worker).or_default().push(task),
            None => order.push((plan.rank(task), None, task)),
        }
    }
    // Whose first task goes first is started first: places may be scarce.
    for (&worker, tasks) in &planned {
        if let Some((rank, task)) = tasks.iter().map(|&task| (plan.rank(task), task)).min() {
            order.push((rank, Some(worker), task));
        }
    }
    order.sort_unstable();
    order
        .into_iter()
        .filter_map(|(_, worker, task)| match worker {
            Some(worker) => plan.invoke(plan.worker(task).cloned(), planned.remove(&worker)?),
            None => plan.invoke(None, vec![task]),
        })
        .collect()
}
