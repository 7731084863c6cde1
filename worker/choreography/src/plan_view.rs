//! The parts of a plan that choreography looks at, by task index.

use std::collections::BTreeMap;

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::graph::Graph;
use foresail_schemas::id::WorkerId;
use foresail_schemas::plan::Plan;

use crate::protocol::Invoke;

/// Placement, order and predicted time of every task, under one epoch.
#[derive(Debug, Clone)]
pub(crate) struct PlanView {
    pub epoch: u64,
    tasks: Vec<Placement>,
}

#[derive(Debug, Clone)]
struct Placement {
    worker: Option<WorkerId>,
    config: ResourceConfig,
    rank: u32,
    exec_ms: f64,
}

impl PlanView {
    pub fn new(epoch: u64, plan: &Plan) -> Self {
        let tasks = plan
            .tasks
            .iter()
            .map(|t| Placement {
                worker: t.worker.clone(),
                config: t.config,
                rank: t.rank,
                exec_ms: t.exec_ms,
            })
            .collect();
        Self { epoch, tasks }
    }

    pub fn worker(&self, task: u32) -> Option<&WorkerId> {
        self.tasks[task as usize].worker.as_ref()
    }

    pub fn config(&self, task: u32) -> ResourceConfig {
        self.tasks[task as usize].config
    }

    pub fn rank(&self, task: u32) -> u32 {
        self.tasks[task as usize].rank
    }

    pub fn exec_ms(&self, task: u32) -> f64 {
        self.tasks[task as usize].exec_ms
    }

    /// The tasks that only this worker runs.
    pub fn tasks_of<'a>(&'a self, worker: &'a WorkerId) -> impl Iterator<Item = u32> + 'a {
        let of = move |(t, p): (usize, &Placement)| (p.worker.as_ref() == Some(worker)).then_some(t as u32);
        self.tasks.iter().enumerate().filter_map(of)
    }

    /// A worker to begin with these tasks, which belong together.
    pub fn invoke(&self, worker: Option<WorkerId>, tasks: Vec<u32>) -> Option<Invoke> {
        let config = self.config(*tasks.first()?);
        Some(Invoke { worker, config, tasks })
    }
}

/// The workers that a run starts with: one per planned worker that has sources, one per flexible source.
#[must_use]
pub fn first_invocations(graph: &Graph, plan: &Plan) -> Vec<Invoke> {
    let view = PlanView::new(1, plan);
    let mut planned: BTreeMap<&WorkerId, Vec<u32>> = BTreeMap::new();
    let mut order: Vec<(u32, Option<&WorkerId>, u32)> = Vec::new();
    for task in graph.sources() {
        match view.worker(task) {
            Some(worker) => planned.entry(worker).or_default().push(task),
            None => order.push((view.rank(task), None, task)),
        }
    }
    // Whose first task goes first is started first: places may be scarce.
    for (&worker, tasks) in &planned {
        if let Some((rank, task)) = tasks.iter().map(|&task| (view.rank(task), task)).min() {
            order.push((rank, Some(worker), task));
        }
    }
    order.sort_unstable();
    order
        .into_iter()
        .filter_map(|(_, worker, task)| match worker {
            Some(worker) => view.invoke(Some(worker.clone()), planned.remove(worker)?),
            None => view.invoke(None, vec![task]),
        })
        .collect()
}
