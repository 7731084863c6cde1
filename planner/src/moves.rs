//! Moves of the annealing search: small and large changes of an assignment that keep it valid.
//!
//! A move changes where one task, one worker or all tasks of one kind run, their size, or their order. Tasks
//! of one worker have one size throughout, and every task has a size that allows it.

use foresail_schemas::TaskName;
use rand::RngExt;
use rand_pcg::Pcg64;

use crate::assignment::Assignment;
use crate::dense::{Dense, NONE};

/// Draws moves.
#[derive(Debug)]
pub(crate) struct Moves<'a> {
    dense: &'a Dense<'a>,
    rng: Pcg64,
    /// Kind of every task: its name and its depth.
    kind: Vec<u32>,
    kinds: u32,
    /// Tasks worth moving, as long as there are any: half of all moves begin at one of them.
    pub hot: Vec<u32>,
}

impl<'a> Moves<'a> {
    pub fn new(dense: &'a Dense<'a>, rng: Pcg64) -> Self {
        let mut depth = vec![0_u32; dense.len() as usize];
        let mut known: std::collections::HashMap<(&TaskName, u32), u32> = std::collections::HashMap::new();
        let mut kind = vec![0; dense.len() as usize];
        for &t in dense.graph.order() {
            let above = dense.graph.parents(t).iter().map(|&p| depth[p as usize] + 1);
            depth[t as usize] = above.max().unwrap_or(0);
            let next = known.len() as u32;
            let key = (&dense.problem.workflow.task(t).name, depth[t as usize]);
            kind[t as usize] = *known.entry(key).or_insert(next);
        }
        let kinds = known.len() as u32;
        Self { dense, rng, kind, kinds, hot: Vec::new() }
    }

    /// A number in [0, 1).
    pub fn draw(&mut self) -> f64 {
        self.rng.random()
    }

    fn below(&mut self, len: usize) -> usize {
        self.rng.random_range(0..len)
    }

    fn any_task(&mut self) -> u32 {
        if !self.hot.is_empty() && self.rng.random_bool(0.5) {
            let at = self.below(self.hot.len());
            return self.hot[at];
        }
        self.rng.random_range(0..self.dense.len())
    }

    fn pick(&mut self, from: &[u32]) -> Option<u32> {
        if from.is_empty() { None } else { Some(from[self.below(from.len())]) }
    }

    /// Changes `plan` a little; says whether anything changed.
    pub fn change(&mut self, plan: &mut Assignment) -> bool {
        let task = self.any_task();
        // Whole kinds matter the more, the more tasks there are of each.
        let crowd = f64::from(self.dense.len()) / f64::from(self.kinds);
        let of_kinds = if crowd < 1.5 { 0.0 } else { (0.05 * crowd.log2()).min(0.5) };
        if self.draw() < of_kinds {
            return self.change_kind(plan, task);
        }
        match self.below(20) {
            0..9 => self.relocate(plan, task),
            9..12 => self.resize(plan, task),
            12..14 => self.merge(plan, task),
            14..16 => self.split(plan, task),
            16..18 => self.exchange(plan, task),
            _ => self.reorder(plan, task),
        }
    }

    /// A task near `task` in the graph: one that it shares data or a level with, or any.
    fn neighbour(&mut self, task: u32) -> Option<u32> {
        let graph = self.dense.graph;
        match self.below(8) {
            0..3 => self.pick(graph.parents(task)),
            3..5 => self.pick(graph.children(task)),
            5 => {
                let parent = self.pick(graph.parents(task))?;
                self.pick(graph.children(parent))
            }
            6 => {
                let child = self.pick(graph.children(task))?;
                self.pick(graph.parents(child))
            }
            _ => Some(self.rng.random_range(0..self.dense.len())),
        }
    }

    fn other_size(&mut self, size: u32) -> u32 {
        let useful = &self.dense.useful;
        let place = useful.partition_point(|&c| c < size);
        match self.below(3) {
            0 => useful[(place + 1).min(useful.len() - 1)],
            1 => useful[place.saturating_sub(1)],
            _ => useful[self.below(useful.len())],
        }
    }

    fn new_worker(plan: &mut Assignment) -> u32 {
        plan.workers += 1;
        plan.workers - 1
    }

    fn relocate(&mut self, plan: &mut Assignment, task: u32) -> bool {
        let t = task as usize;
        let (worker, size) = match self.below(8) {
            0 => (Self::new_worker(plan), plan.size[t]),
            1 => (NONE, plan.size[t]),
            2 => (Self::new_worker(plan), self.other_size(plan.size[t])),
            _ => {
                let Some(near) = self.neighbour(task) else { return false };
                if plan.worker[near as usize] == NONE && near != task && self.rng.random_bool(0.7) {
                    plan.worker[near as usize] = Self::new_worker(plan);
                }
                (plan.worker[near as usize], plan.size[near as usize])
            }
        };
        let is_same = (worker, size) == (plan.worker[t], plan.size[t]);
        if is_same || !self.dense.allows(size, task) {
            return false;
        }
        (plan.worker[t], plan.size[t]) = (worker, size);
        true
    }

    /// Gives the worker of `task`, or the task if it is flexible, another size.
    fn resize(&mut self, plan: &mut Assignment, task: u32) -> bool {
        let size = self.other_size(plan.size[task as usize]);
        size != plan.size[task as usize] && self.set_size(plan, task, size)
    }

    fn set_size(&self, plan: &mut Assignment, task: u32, size: u32) -> bool {
        let worker = plan.worker[task as usize];
        if worker == NONE {
            let allowed = self.dense.allows(size, task);
            if allowed {
                plan.size[task as usize] = size;
            }
            return allowed;
        }
        let with_it = |plan: &Assignment, u: u32| plan.worker[u as usize] == worker;
        let all = 0..self.dense.len();
        if all.clone().any(|u| with_it(plan, u) && !self.dense.allows(size, u)) {
            return false;
        }
        for u in all {
            if with_it(plan, u) {
                plan.size[u as usize] = size;
            }
        }
        true
    }

    /// Brings all tasks of the worker of `task` to the worker of another task.
    fn merge(&mut self, plan: &mut Assignment, task: u32) -> bool {
        let Some(near) = self.neighbour(task) else { return false };
        let (from, to) = (plan.worker[task as usize], plan.worker[near as usize]);
        let size = plan.size[near as usize];
        if from == to || from == NONE || to == NONE {
            return false;
        }
        let moved = |plan: &Assignment, u: u32| plan.worker[u as usize] == from;
        if (0..self.dense.len()).any(|u| moved(plan, u) && !self.dense.allows(size, u)) {
            return false;
        }
        for u in 0..self.dense.len() {
            if moved(plan, u) {
                (plan.worker[u as usize], plan.size[u as usize]) = (to, size);
            }
        }
        true
    }

    /// Moves `task` and what comes after it on its worker to a new worker.
    fn split(&mut self, plan: &mut Assignment, task: u32) -> bool {
        let (worker, rank) = (plan.worker[task as usize], plan.rank[task as usize]);
        if worker == NONE {
            return false;
        }
        let flexible = self.rng.random_bool(0.3);
        let to = if flexible { NONE } else { Self::new_worker(plan) };
        for u in 0..plan.worker.len() {
            if plan.worker[u] == worker && plan.rank[u] >= rank {
                plan.worker[u] = to;
            }
        }
        true
    }

    /// Swaps the places of two tasks of one kind.
    fn exchange(&mut self, plan: &mut Assignment, task: u32) -> bool {
        let (t, from) = (task as usize, self.below(plan.worker.len()));
        let all = (from..plan.worker.len()).chain(0..from);
        let is_other = |u: &usize| self.kind[*u] == self.kind[t] && plan.worker[*u] != plan.worker[t];
        let Some(u) = all.into_iter().find(is_other) else { return false };
        if !self.dense.allows(plan.size[u], task) || !self.dense.allows(plan.size[t], u as u32) {
            return false;
        }
        plan.worker.swap(t, u);
        plan.size.swap(t, u);
        true
    }

    /// Swaps the ranks of two tasks, of one worker if there is another on it.
    fn reorder(&mut self, plan: &mut Assignment, task: u32) -> bool {
        let from = self.below(plan.worker.len());
        let worker = plan.worker[task as usize];
        let all = (from..plan.worker.len()).chain(0..from);
        let other = all.into_iter().find(|&u| u != task as usize && plan.worker[u] == worker);
        match other {
            None => false,
            Some(other) => {
                plan.rank.swap(task as usize, other);
                true
            }
        }
    }

    /// The same change for all tasks of the kind of `task`.
    fn change_kind(&mut self, plan: &mut Assignment, task: u32) -> bool {
        let kind = self.kind[task as usize];
        let how = self.below(4);
        let size = self.other_size(plan.size[task as usize]);
        let nth = self.below(4);
        // Sometimes only a part of them.
        let part = if self.rng.random_bool(0.5) { 1.0 } else { self.draw() };
        let mut has_changed = false;
        for u in 0..self.dense.len() {
            let at = u as usize;
            if self.kind[at] != kind || (part < 1.0 && self.draw() > part) {
                continue;
            }
            has_changed |= match how {
                0 => self.set_size(plan, u, size),
                1 => std::mem::replace(&mut plan.worker[at], NONE) != NONE,
                2 => {
                    plan.worker[at] = Self::new_worker(plan);
                    true
                }
                _ => self.join_parent(plan, u, nth),
            };
        }
        has_changed
    }

    /// Puts a task on the worker of one of its parents.
    fn join_parent(&self, plan: &mut Assignment, task: u32, nth: usize) -> bool {
        let parents = self.dense.graph.parents(task);
        if parents.is_empty() {
            return false;
        }
        let parent = parents[nth % parents.len()] as usize;
        if !self.dense.allows(plan.size[parent], task) {
            return false;
        }
        if plan.worker[parent] == NONE {
            plan.worker[parent] = Self::new_worker(plan);
        }
        let is_same = plan.worker[task as usize] == plan.worker[parent];
        (plan.worker[task as usize], plan.size[task as usize]) = (plan.worker[parent], plan.size[parent]);
        !is_same
    }
}
