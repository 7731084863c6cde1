//! A run that takes over the results of an earlier one.
//!
//! What is taken over is decided by [`Ledger::reusable`] once, when the new run is created; from then on it
//! is events of the new run like any others, and nothing here looks at the earlier one again. That a task
//! which is the same gives the same result is what retries rest on as well.

use foresail_schemas::Workflow;
use foresail_schemas::id::{RunId, TaskId};
use foresail_schemas::run::{Change, Commit, Location, RunEvent, RunStatus};
use foresail_schemas::workflow::Task;

use super::Ledger;
use crate::skips::{decided_by, skipped_by};

impl Ledger {
    /// The results of this run, which ran `old`, that stand for tasks of `new`; by index in `new`, parents
    /// before children.
    #[must_use]
    pub fn reusable(&self, old: &Workflow, new: &Workflow, without: &[TaskId]) -> Vec<(u32, Commit)> {
        let (before, graph) = (old.graph(), new.graph());
        let mut order: Vec<u32> = graph.sources().collect();
        let mut waits: Vec<usize> = (0..graph.len() as u32).map(|t| graph.parents(t).len()).collect();
        let mut is_same = vec![false; graph.len()];
        let mut at = 0;
        while let Some(&task) = order.get(at) {
            at += 1;
            let spec = new.task(task);
            let same = before.find(&spec.id).is_some_and(|t| is_same_work(old.task(t), spec));
            is_same[task as usize] = same && graph.parents(task).iter().all(|&p| is_same[p as usize]);
            for &child in graph.children(task) {
                waits[child as usize] -= 1;
                if waits[child as usize] == 0 {
                    order.push(child);
                }
            }
        }
        let known = |task: u32| {
            let id = &new.task(task).id;
            let commit = || before.find(id).and_then(|t| self.commit(t));
            (is_same[task as usize] && !without.contains(id)).then(commit).flatten()
        };
        // What is decided anew may be decided otherwise: nothing that it is about is taken over.
        let mut is_open = vec![false; graph.len()];
        for &task in order.iter().filter(|&&task| graph.decides(task)) {
            if is_open[task as usize] || known(task).is_none() {
                decided_by(graph, task).into_iter().for_each(|task| is_open[task as usize] = true);
            }
        }
        let mut taken: Vec<Option<Commit>> = vec![None; graph.len()];
        for &task in order.iter().rev().filter(|&&task| !is_open[task as usize]) {
            // Of what was never stored only tasks that are not run again may have a need.
            let is_there = |commit: &&Commit| {
                let unstored =
                    |o: &foresail_schemas::run::StoredObject| matches!(o.location, Location::Unstored(_));
                !commit.outputs.iter().any(unstored)
                    || graph.children(task).iter().all(|&c| taken[c as usize].is_some())
            };
            taken[task as usize] = known(task).filter(is_there).cloned();
        }
        order.into_iter().filter_map(|task| Some((task, taken[task as usize].take()?))).collect()
    }

    /// In place of [`Ledger::begin`]: begins with results of the run `of`, as [`Ledger::reusable`] gave them.
    pub fn resume(&mut self, of: &RunId, results: Vec<(u32, Commit)>, now_ms: f64) -> Vec<RunEvent> {
        let mut is_taken = vec![false; self.graph.len()];
        results.iter().for_each(|(task, _)| is_taken[*task as usize] = true);
        let mut changes = vec![Change::RunResumed { of: of.clone(), reused: results.len() as u64 }];
        // What was decided is decided again.
        let mut is_skipped = vec![false; self.graph.len()];
        let mut skips = Vec::new();
        for (by, commit) in &results {
            let Some(decision) = &commit.decision else { continue };
            let mut tasks = skipped_by(&self.graph, *by, decision);
            tasks.retain(|&task| !std::mem::replace(&mut is_skipped[task as usize], true));
            if !tasks.is_empty() {
                skips.push(Change::TasksSkipped { by: *by, tasks });
            }
        }
        changes.extend(results.into_iter().map(|(task, commit)| Change::TaskCommitted { task, commit }));
        changes.extend(skips);
        let is_settled = |task: u32| is_taken[task as usize] || is_skipped[task as usize];
        let tasks = 0..self.graph.len() as u32;
        let is_ready = |&task: &u32| {
            !is_settled(task) && self.graph.parents(task).iter().all(|&parent| is_settled(parent))
        };
        changes.extend(tasks.clone().filter(is_ready).map(|task| Change::TaskReady { task }));
        if tasks.clone().all(is_settled) {
            changes.push(Change::RunFinished { status: RunStatus::Completed, failure: None });
        }
        self.record(changes, now_ms)
    }
}

/// Whether both do the same with the same; names, limits and hints do not matter.
fn is_same_work(old: &Task, new: &Task) -> bool {
    let waits_for = |task: &Task| {
        let mut after = task.after.clone();
        after.sort_unstable();
        after
    };
    old.run == new.run
        && old.inputs == new.inputs
        && old.output_names() == new.output_names()
        && waits_for(old) == waits_for(new)
        && (&old.decision, &old.when) == (&new.decision, &new.when)
}
