//! Which tasks of a workflow are expected to run, where others decide that at run time.
//!
//! A plan is made for the tasks that are expected: all after a width at the service level of the plan, and
//! every branch that is likely enough not to surprise. Of a task whose decisions nobody has seen all that may
//! follow is expected. [`planned`] hides the rest from a planner, whichever it is, and places it afterwards
//! ([`Part`]).

mod part;

use std::collections::BTreeMap;

use foresail_schemas::decision::{Condition, DecisionForecast, Wanted};
use foresail_schemas::plan::{Plan, Problem};
use foresail_schemas::workflow::{Input, Task};
use foresail_schemas::{TaskId, Workflow};

use crate::dense::Dense;
use crate::error::PlanFailure;
pub(crate) use part::Part;

/// Probability from which on a branch is expected, beside the most probable one.
pub const LIKELY_MIN: f64 = 0.25;

/// Which tasks are expected to run, in the order of the workflow.
#[must_use]
pub fn expected(workflow: &Workflow, decisions: &BTreeMap<TaskId, DecisionForecast>) -> Vec<bool> {
    called(workflow, |_, when| is_likely(when, decisions))
}

/// Which tasks run if these conditions of theirs hold: those of which that is true and that have what they
/// cannot run without.
pub(crate) fn called(workflow: &Workflow, holds: impl Fn(u32, &Condition) -> bool) -> Vec<bool> {
    let mut called = vec![true; workflow.tasks().len()];
    if has_conditions(workflow) {
        for &t in workflow.graph().order() {
            let task = workflow.task(t);
            called[t as usize] = has_needs(workflow, task, |parent| called[parent as usize])
                && task.when.as_ref().is_none_or(|when| holds(t, when));
        }
    }
    called
}

/// Whether a task is expected to run, where that is known of all that it waits for.
#[must_use]
pub fn is_expected(
    workflow: &Workflow,
    decisions: &BTreeMap<TaskId, DecisionForecast>,
    task: u32,
    expected: &[bool],
) -> bool {
    let spec = workflow.task(task);
    has_needs(workflow, spec, |parent| expected[parent as usize])
        && spec.when.as_ref().is_none_or(|when| is_likely(when, decisions))
}

/// Plans what is expected with `plan`, and places the rest beside it.
///
/// # Errors
/// What `plan` says, or [`PlanFailure`] where a task that is not expected fits nowhere.
pub fn planned<E: From<PlanFailure>>(
    problem: &Problem,
    plan: impl FnOnce(&Problem) -> Result<Plan, E>,
) -> Result<Plan, E> {
    match Part::of_decisions(problem) {
        None => plan(problem),
        Some(part) => {
            let whole = Dense::new(problem)?;
            Ok(part.widen(&whole, plan(&part.problem)?))
        }
    }
}

/// Whether the workflow has tasks that may be skipped.
pub(crate) fn has_conditions(workflow: &Workflow) -> bool {
    workflow.tasks().iter().any(|task| task.when.is_some())
}

/// Whether all that a task cannot run without is there; inputs that it can run without do not count.
pub(crate) fn has_needs(workflow: &Workflow, task: &Task, is_there: impl Fn(u32) -> bool) -> bool {
    needs(workflow, task).all(is_there)
}

/// What a task cannot run without.
pub(crate) fn needs<'w>(workflow: &'w Workflow, task: &'w Task) -> impl Iterator<Item = u32> + 'w {
    let needed = |input: &Input| match input {
        Input::Task { task, optional: false, .. } => workflow.graph().find(task),
        _ => None,
    };
    let inputs = task.inputs.iter().filter_map(needed);
    let others = task.after.iter().chain(task.when.as_ref().map(|when| &when.task));
    inputs.chain(others.filter_map(|parent| workflow.graph().find(parent)))
}

pub(crate) fn is_likely(when: &Condition, decisions: &BTreeMap<TaskId, DecisionForecast>) -> bool {
    let Some(DecisionForecast { width, branches }) = decisions.get(&when.task) else { return true };
    match (&when.wanted, width) {
        (_, None) if branches.is_empty() => true,
        (Wanted::Above(place), width) => width.is_some_and(|width| width > *place),
        (Wanted::Is(text), Some(width)) if branches.is_empty() => *text == width.to_string(),
        (Wanted::Is(text), _) => {
            let most = branches.values().fold(0.0_f64, |most, share| most.max(*share));
            branches.get(text).is_some_and(|share| *share >= LIKELY_MIN || *share >= most)
        }
    }
}
