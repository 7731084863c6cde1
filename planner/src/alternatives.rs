//! What else could have been done with a task, and what that would have taken and cost.
//!
//! An alternative is the same plan with one thing changed, timed by the timing pass: nothing else moves, so
//! it tells what the decision was worth in this plan, and not what another plan as a whole could reach.

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::plan::{Plan, PlanSummary, Problem};
use foresail_schemas::{TaskId, WorkerId};

use crate::assignment::Assignment;
use crate::dense::{Dense, NONE};
use crate::draft::{self, DraftFailure};
use crate::expected::Part;
use crate::timing::Timing;

/// Most workers of parents that a task is tried on.
const PARENT_WORKERS_MAX: usize = 4;

/// What is changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The task, and whatever shares its planned worker, runs on another size.
    Size(ResourceConfig),
    /// The task runs on the worker of a parent, at that worker's size.
    ParentWorker {
        /// The worker.
        worker: WorkerId,
        /// A parent that runs on it.
        parent: TaskId,
    },
    /// The task has a worker of its own, of the size it has now.
    OwnWorker,
    /// Any worker of the size it has now may take the task.
    AnyWorker,
}

/// The plan with one thing changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Alternative {
    /// What is changed.
    pub change: Change,
    /// What the whole would then take and cost.
    pub summary: PlanSummary,
}

/// The alternatives for one task.
#[derive(Debug, Clone, PartialEq)]
pub struct Alternatives {
    /// The task.
    pub task: TaskId,
    /// Tasks that share its planned worker, itself left out.
    pub shares_with: usize,
    /// What the plan as it is takes and costs.
    pub chosen: PlanSummary,
    /// What else could have been done: sizes ascending, then workers.
    pub others: Vec<Alternative>,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Size(config) => write!(f, "{config}"),
            Self::ParentWorker { worker, parent } => write!(f, "worker {worker} of {parent}"),
            Self::OwnWorker => f.write_str("a worker of its own"),
            Self::AnyWorker => f.write_str("any worker"),
        }
    }
}

/// The alternatives for some tasks of a plan; one that is not expected to run has none.
///
/// # Errors
/// [`DraftFailure`] when the plan is not one of this problem, or a task is not in it.
pub fn alternatives(
    problem: &Problem,
    plan: &Plan,
    tasks: &[TaskId],
) -> Result<Vec<Alternatives>, DraftFailure> {
    let Some(part) = Part::of_plan(problem, plan) else { return of_all(problem, plan, tasks) };
    let (narrow, graph) = (part.narrow(plan), part.problem.workflow.graph());
    let is_left_out = |id: &&TaskId| graph.find(id).is_none() && problem.workflow.graph().find(id).is_some();
    let inside: Vec<TaskId> = tasks.iter().filter(|id| !is_left_out(id)).cloned().collect();
    let mut found = of_all(&part.problem, &narrow, &inside)?.into_iter();
    let of = |id: &TaskId| {
        if !is_left_out(&id) {
            return found.next();
        }
        let (task, chosen, others) = (id.clone(), plan.predicted, Vec::new());
        Some(Alternatives { task, shares_with: 0, chosen, others })
    };
    Ok(tasks.iter().filter_map(of).collect())
}

fn of_all(problem: &Problem, plan: &Plan, tasks: &[TaskId]) -> Result<Vec<Alternatives>, DraftFailure> {
    let dense = Dense::new(problem)?;
    let assignment = draft::assignment(&dense, &draft::draft(plan))?;
    let mut timing = Timing::new(&dense);
    let chosen = timing.pass(&assignment);
    let names = names(plan, &assignment);
    let mut found = Vec::with_capacity(tasks.len());
    for id in tasks {
        let task = dense.graph.find(id).ok_or_else(|| DraftFailure::Unknown(id.clone()))?;
        let changes = changes(&dense, &assignment, &names, task);
        let others = changes.into_iter().map(|(change, changed)| {
            let summary = timing.pass(&changed);
            Alternative { change, summary }
        });
        let others = others.collect();
        let shares_with = sharing(&assignment, task).len() - 1;
        found.push(Alternatives { task: id.clone(), shares_with, chosen, others });
    }
    Ok(found)
}

/// Names of the workers by their number in the assignment.
fn names(plan: &Plan, assignment: &Assignment) -> Vec<Option<WorkerId>> {
    let mut names = vec![None; assignment.workers as usize];
    for (task, &worker) in plan.tasks.iter().zip(&assignment.worker) {
        if worker != NONE {
            names[worker as usize].clone_from(&task.worker);
        }
    }
    names
}

/// The tasks of the worker of `task`; a flexible one is alone.
fn sharing(assignment: &Assignment, task: u32) -> Vec<u32> {
    let worker = assignment.worker[task as usize];
    if worker == NONE {
        return vec![task];
    }
    let tasks = (0..).zip(&assignment.worker);
    tasks.filter(|(_, w)| **w == worker).map(|(t, _)| t).collect()
}

fn changes(
    dense: &Dense,
    plan: &Assignment,
    names: &[Option<WorkerId>],
    task: u32,
) -> Vec<(Change, Assignment)> {
    let at = task as usize;
    let (worker, size) = (plan.worker[at], plan.size[at]);
    let sharing = sharing(plan, task);
    let mut changes = Vec::new();
    for other in (0..dense.size_count()).filter(|&c| c != size) {
        if sharing.iter().all(|&t| dense.allows(other, t)) {
            let mut changed = plan.clone();
            sharing.iter().for_each(|&t| changed.size[t as usize] = other);
            changes.push((Change::Size(dense.size(other).config), changed));
        }
    }
    let mut tried = vec![worker, NONE];
    for &parent in dense.graph.parents(task) {
        let place = plan.worker[parent as usize];
        let given = plan.size[parent as usize];
        if tried.contains(&place) || tried.len() >= 2 + PARENT_WORKERS_MAX || !dense.allows(given, task) {
            continue;
        }
        tried.push(place);
        let Some(name) = names[place as usize].clone() else { continue };
        let mut changed = plan.clone();
        (changed.worker[at], changed.size[at]) = (place, given);
        let parent = dense.problem.workflow.task(parent).id.clone();
        changes.push((Change::ParentWorker { worker: name, parent }, changed));
    }
    if dense.is_pooled(task) {
        // Its worker is one of the few of the pool.
        return changes;
    }
    if worker == NONE || sharing.len() > 1 {
        let mut changed = plan.clone();
        changed.worker[at] = changed.workers;
        changed.workers += 1;
        changes.push((Change::OwnWorker, changed));
    }
    if worker != NONE {
        let mut changed = plan.clone();
        changed.worker[at] = NONE;
        changes.push((Change::AnyWorker, changed));
    }
    changes
}
