//! An assignment: per task a worker (or none: flexible), a size and a rank, and what is done beside. Planners
//! make it, the timing pass times it.

use std::collections::HashMap;

use foresail_schemas::WorkerId;
use foresail_schemas::plan::Plan;

use crate::dense::{Dense, NONE};
use crate::error::SimulationFailure;
use crate::extras::Extras;
use crate::link::Mixed;

/// Where and in which order tasks run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Assignment {
    /// Worker per task; [`NONE`] for a flexible one.
    pub worker: Vec<u32>,
    /// Size per task; all tasks of a worker have the same.
    pub size: Vec<u32>,
    /// Order among tasks that are ready on the same worker; a permutation.
    pub rank: Vec<u32>,
    /// Number of workers.
    pub workers: u32,
    /// What is done beside running the tasks, where it is more than the workflow forces.
    pub extras: Extras,
}

impl Assignment {
    /// As given, with nothing done beside.
    pub fn new(worker: Vec<u32>, size: Vec<u32>, rank: Vec<u32>, workers: u32) -> Self {
        Self { worker, size, rank, workers, extras: Extras::default() }
    }

    /// Every task flexible, on `size` where that allows it.
    pub fn flexible(dense: &Dense, size: u32, rank: Vec<u32>) -> Self {
        let size = (0..dense.len()).map(|t| dense.size_for(size, t)).collect();
        Self::new(vec![NONE; dense.len() as usize], size, rank, 0)
    }

    /// Tasks on given workers, all of `size`. A task that this size does not allow moves to a worker of the
    /// smallest size that does, which it shares with the others that had to leave the same worker for the
    /// same size.
    pub fn placed(dense: &Dense, worker: Vec<u32>, size: u32, rank: Vec<u32>) -> Self {
        let workers = worker.iter().filter(|&&w| w != NONE).max().map_or(0, |w| w + 1);
        let sizes = vec![size; workers as usize];
        Self::placed_on(dense, worker, &sizes, rank)
    }

    /// As [`Assignment::placed`], with a size per worker.
    pub fn placed_on(dense: &Dense, mut worker: Vec<u32>, sizes: &[u32], rank: Vec<u32>) -> Self {
        let mut workers = sizes.len() as u32;
        let mut moved = std::collections::BTreeMap::new();
        let mut size = Vec::with_capacity(worker.len());
        for t in 0..dense.len() {
            let w = &mut worker[t as usize];
            let wanted = if *w == NONE { dense.default_size() } else { sizes[*w as usize] };
            let given = dense.size_for(wanted, t);
            if given != wanted && *w != NONE {
                *w = *moved.entry((*w, given)).or_insert_with(|| {
                    workers += 1;
                    workers - 1
                });
            }
            size.push(given);
        }
        Self::new(worker, size, rank, workers)
    }

    /// What a checked plan says; its times are left behind.
    pub fn of_plan(dense: &Dense, plan: &Plan) -> Result<Self, SimulationFailure> {
        let listed = plan.workers.iter().enumerate();
        // Whoever made the plan was chosen by the user: no need for a hash that withstands strangers.
        let places: HashMap<&WorkerId, u32, Mixed> = listed.map(|(at, w)| (&w.id, at as u32)).collect();
        let mut size = Vec::with_capacity(plan.tasks.len());
        for task in &plan.tasks {
            size.push(dense.size_of(&task.config).ok_or_else(|| SimulationFailure::UnpredictedConfig {
                task: task.task.clone(),
                config: task.config.to_string(),
            })?);
        }
        let place = |w: &Option<WorkerId>| w.as_ref().and_then(|w| places.get(w).copied()).unwrap_or(NONE);
        Ok(Self {
            worker: plan.tasks.iter().map(|t| place(&t.worker)).collect(),
            size,
            rank: plan.tasks.iter().map(|t| t.rank).collect(),
            workers: plan.workers.len() as u32,
            extras: Extras::of_plan(dense, plan)?,
        })
    }

    /// The worker and the size of a task.
    pub fn place(&self, task: u32) -> (u32, u32) {
        (self.worker[task as usize], self.size[task as usize])
    }

    /// The same sizes and ranks, every task flexible.
    pub fn loosened(&self) -> Self {
        let (size, rank) = (self.size.clone(), self.rank.clone());
        Self::new(vec![NONE; self.worker.len()], size, rank, 0)
    }

    /// Becomes a copy of `other` in the memory that it has.
    pub fn copy_from(&mut self, other: &Self) {
        self.worker.clone_from(&other.worker);
        self.size.clone_from(&other.size);
        self.rank.clone_from(&other.rank);
        self.workers = other.workers;
        self.extras.copy_from(&other.extras);
    }

    /// Numbers the workers anew once many of them have no task left.
    pub fn drop_empty_workers(&mut self) {
        if self.workers as usize <= 2 * self.worker.len() {
            return;
        }
        let mut named = vec![NONE; self.workers as usize];
        self.workers = 0;
        for w in self.worker.iter_mut().filter(|w| **w != NONE) {
            let name = &mut named[*w as usize];
            if *name == NONE {
                *name = self.workers;
                self.workers += 1;
            }
            *w = *name;
        }
    }

    /// The tasks of every worker.
    pub fn tasks_by_worker(&self) -> Vec<Vec<u32>> {
        let mut tasks = vec![Vec::new(); self.workers as usize];
        for (t, &w) in self.worker.iter().enumerate() {
            if w != NONE {
                tasks[w as usize].push(t as u32);
            }
        }
        tasks
    }
}
