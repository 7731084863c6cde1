//! Plans from elsewhere: whoever decides only where tasks run gets the rest from here.
//!
//! A draft says per task its worker, size and order. [`complete`] checks it, times it with the timing pass
//! that every plan of this crate is timed with, and writes the plan: what a draft promises about itself
//! counts for nothing. This is how a planner outside this crate, or in another process, becomes one.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::optimization::Optimization;
use foresail_schemas::plan::{Plan, PlanSummary, Problem};
use foresail_schemas::{TaskId, TaskName, WorkerId};

use crate::assignment::Assignment;
use crate::bounds::Floor;
use crate::dense::{Dense, NONE};
use crate::error::PlanFailure;
use crate::expected::Part;
use crate::explain::{self, Candidate, Story};
use crate::timing::Timing;
use crate::wukong;

/// Where one task shall run.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// The task.
    pub task: TaskId,
    /// The worker that runs it and no other does; nothing: any worker of the size may.
    pub worker: Option<WorkerId>,
    /// Size of that worker.
    pub config: ResourceConfig,
    /// Order among tasks that are ready on the same worker: lower goes first, equal ranks in the order of the
    /// workflow.
    pub rank: u32,
    /// What is done beside running it; pre-warmings stand in a plan, see [`retimed`].
    pub optimizations: Vec<Optimization>,
    /// Why, in words; the plan finds its own where this is empty.
    pub why: String,
}

/// Why a draft is no plan.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DraftFailure {
    /// The problem is not one.
    #[error(transparent)]
    Problem(#[from] PlanFailure),
    /// A task of the workflow is not placed.
    #[error("task `{0}` is not placed")]
    Missing(TaskId),
    /// The workflow has no such task.
    #[error("the workflow has no task `{0}`")]
    Unknown(TaskId),
    /// A task is placed twice.
    #[error("task `{0}` is placed twice")]
    Twice(TaskId),
    /// Nothing is predicted for a size.
    #[error("task `{task}` is placed on {config}, which is none of `predictions.configs`")]
    Config {
        /// The task.
        task: TaskId,
        /// The size.
        config: String,
    },
    /// Two tasks of one worker have different sizes.
    #[error("worker `{worker}` has {first} for one of its tasks and {other} for task `{task}`")]
    Sizes {
        /// The worker.
        worker: WorkerId,
        /// The size it had first.
        first: String,
        /// The other.
        other: String,
        /// The task with the other.
        task: TaskId,
    },
    /// A worker that is started beforehand is of no use.
    #[error("a worker of {config} is started beforehand for `{serves}`: {fault}")]
    PreWarm {
        /// The task that it serves.
        serves: TaskId,
        /// Its size.
        config: String,
        /// What is wrong.
        fault: String,
    },
    /// A size has too little memory for a task, or the task outlives a worker of it.
    #[error("task `{task}` cannot run on {config}: it needs {needed_mb} MB and takes {exec_ms:.0} ms")]
    TooSmall {
        /// The task.
        task: TaskId,
        /// The size.
        config: String,
        /// MB needed.
        needed_mb: u32,
        /// Its time on this size.
        exec_ms: f64,
    },
}

impl From<DraftFailure> for PlanFailure {
    fn from(failure: DraftFailure) -> Self {
        match failure {
            DraftFailure::Problem(failure) => failure,
            other => Self::Draft(Box::new(other)),
        }
    }
}

/// The plan that a draft stands for, with our own times, cost, bounds and critical path. `reasons` go into
/// its explanation.
///
/// # Errors
/// [`DraftFailure`] with the task that breaks a rule.
pub fn complete(
    problem: &Problem,
    planner: &TaskName,
    draft: &[Placement],
    reasons: Vec<String>,
) -> Result<Plan, DraftFailure> {
    let dense = Dense::new(problem)?;
    let assignment = assignment(&dense, draft)?;
    let mut plan = write(&dense, planner, assignment, reasons);
    for placement in draft.iter().filter(|p| !p.why.is_empty()) {
        if let Some(t) = dense.graph.find(&placement.task) {
            plan.tasks[t as usize].why.clone_from(&placement.why);
        }
    }
    Ok(plan)
}

/// As [`complete`], of a plan: of what it says, workers, sizes, ranks, optimisations and pre-warmings count,
/// and the names of its workers and its reasons per task are kept. What it does not expect is placed anew.
///
/// # Errors
/// [`DraftFailure`] with what breaks a rule.
pub fn retimed(problem: &Problem, plan: &Plan, reasons: Vec<String>) -> Result<Plan, DraftFailure> {
    let Some(part) = Part::of_plan(problem, plan) else { return retimed_all(problem, plan, reasons) };
    let whole = Dense::new(problem)?;
    Ok(part.widen(&whole, retimed_all(&part.problem, &part.narrow(plan), reasons)?))
}

fn retimed_all(problem: &Problem, plan: &Plan, reasons: Vec<String>) -> Result<Plan, DraftFailure> {
    let dense = Dense::new(problem)?;
    let assignment = of_plan(&dense, plan)?;
    let mut timing = Timing::new(&dense);
    let summary = timing.pass(&assignment);
    let label = format!("{}: {} workers", plan.planner, assignment.workers);
    let candidate = Candidate { label, assignment, timed: timing.timed(summary) };
    let (ids, floor) = (worker_ids(plan), Floor::new(&dense));
    let mut new = explain::write_named(
        &dense,
        plan.planner.as_str(),
        &candidate,
        &floor,
        Story { reasons, nearest: None },
        &ids,
    );
    new.tasks.iter_mut().zip(&plan.tasks).for_each(|(new, old)| new.why.clone_from(&old.why));
    match plan.flexible {
        Some(rules) => Ok(wukong::simulated(&dense, new, rules)?),
        None => Ok(new),
    }
}

/// Times what a plan says once per call of what `look` is given: makespan, cost and the rest as its problem
/// predicts them, without a plan written anew. The problem is brought into dense form and the memory is made
/// once, so that a second call costs what timing costs. What workers of `wukong` decide while they run is not
/// in it.
///
/// # Errors
/// [`DraftFailure`] with what breaks a rule.
pub fn summarised<R>(
    problem: &Problem,
    plan: &Plan,
    look: impl FnOnce(&mut dyn FnMut() -> PlanSummary) -> R,
) -> Result<R, DraftFailure> {
    let part = Part::of_plan(problem, plan);
    let (problem, plan) = match &part {
        None => (problem, Cow::Borrowed(plan)),
        Some(part) => (&part.problem, Cow::Owned(part.narrow(plan))),
    };
    let dense = Dense::new(problem)?;
    let assignment = of_plan(&dense, &plan)?;
    let mut timing = Timing::new(&dense);
    Ok(look(&mut || timing.pass(&assignment)))
}

/// A plan in dense form, checked; its workers are numbered in the order of their names.
pub(crate) fn of_plan(dense: &Dense, plan: &Plan) -> Result<Assignment, DraftFailure> {
    let mut assignment = assignment(dense, &draft(plan))?;
    assignment.extras.set_warmings(dense, &plan.prewarms)?;
    Ok(assignment)
}

/// The names of the workers of a plan by their numbers.
pub(crate) fn worker_ids(plan: &Plan) -> Vec<Option<WorkerId>> {
    let ids: BTreeSet<&WorkerId> = plan.tasks.iter().filter_map(|t| t.worker.as_ref()).collect();
    ids.into_iter().cloned().map(Some).collect()
}

/// The draft that a plan contains.
#[must_use]
pub fn draft(plan: &Plan) -> Vec<Placement> {
    let placement = |task: &foresail_schemas::plan::PlannedTask| Placement {
        task: task.task.clone(),
        worker: task.worker.clone(),
        config: task.config,
        rank: task.rank,
        optimizations: task.optimizations.clone(),
        why: task.why.clone(),
    };
    plan.tasks.iter().map(placement).collect()
}

fn write(dense: &Dense, planner: &TaskName, assignment: Assignment, reasons: Vec<String>) -> Plan {
    let mut timing = Timing::new(dense);
    let summary = timing.pass(&assignment);
    let label = format!("{planner}: {} workers", assignment.workers);
    let candidate = Candidate { label, assignment, timed: timing.timed(summary) };
    explain::write(dense, planner.as_str(), &candidate, &Floor::new(dense), Story { reasons, nearest: None })
}

/// The draft in dense form, checked.
pub(crate) fn assignment(dense: &Dense, draft: &[Placement]) -> Result<Assignment, DraftFailure> {
    let tasks = dense.len() as usize;
    let mut placed: Vec<Option<&Placement>> = vec![None; tasks];
    for placement in draft {
        let at = dense.graph.find(&placement.task);
        let at = at.ok_or_else(|| DraftFailure::Unknown(placement.task.clone()))? as usize;
        if placed[at].replace(placement).is_some() {
            return Err(DraftFailure::Twice(placement.task.clone()));
        }
    }
    // Numbered by their ids: among workers that become ready at the same time, that order decides.
    let ids: BTreeSet<&WorkerId> = draft.iter().filter_map(|p| p.worker.as_ref()).collect();
    let numbers: HashMap<&WorkerId, u32> = ids.into_iter().zip(0..).collect();
    let mut sizes = vec![NONE; numbers.len()];
    let (mut worker, mut size) = (Vec::with_capacity(tasks), Vec::with_capacity(tasks));
    let mut order = Vec::with_capacity(tasks);
    for t in 0..dense.len() {
        let missing = || DraftFailure::Missing(dense.problem.workflow.task(t).id.clone());
        let placement = placed[t as usize].ok_or_else(missing)?;
        let given = size_of(dense, t, placement)?;
        let number = placement.worker.as_ref().map(|id| (id, numbers[id]));
        if let Some((id, number)) = number {
            let first = &mut sizes[number as usize];
            if *first == NONE {
                *first = given;
            } else if *first != given {
                return Err(DraftFailure::Sizes {
                    worker: id.clone(),
                    first: dense.size(*first).config.to_string(),
                    other: placement.config.to_string(),
                    task: placement.task.clone(),
                });
            }
        }
        worker.push(number.map_or(NONE, |(_, number)| number));
        size.push(given);
        order.push((placement.rank, t));
    }
    order.sort_unstable();
    let mut rank = vec![0; tasks];
    (0..).zip(&order).for_each(|(place, (_, t))| rank[*t as usize] = place);
    let mut assignment = Assignment::new(worker, size, rank, numbers.len() as u32);
    for (t, placement) in (0..).zip(placed.iter().flatten()) {
        placement.optimizations.iter().for_each(|o| assignment.extras.note(t, o, dense.len()));
    }
    assignment.seat(dense);
    Ok(assignment)
}

fn size_of(dense: &Dense, task: u32, placement: &Placement) -> Result<u32, DraftFailure> {
    let (id, config) = (placement.task.clone(), placement.config.to_string());
    let Some(size) = dense.size_of(&placement.config) else {
        return Err(DraftFailure::Config { task: id, config });
    };
    if dense.allows(size, task) {
        return Ok(size);
    }
    let needed_mb = dense.memory_mb_min[task as usize];
    Err(DraftFailure::TooSmall { task: id, config, needed_mb, exec_ms: dense.exec_ms(size, task) })
}
