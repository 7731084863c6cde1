//! A plan from elsewhere, timed and explained here: what a user's own planner, a pass over plans or a
//! changed table of predictions needs.

use foresail_schemas::plan::{Plan, Problem};

use crate::assignment::Assignment;
use crate::dense::Dense;
use crate::error::SimulationFailure;
use crate::search::Search;

/// Takes worker, size and rank of every task from `plan` and predicts the rest anew: times, cost, critical
/// path, distance to the bounds, reasons. Workers are renamed in order of their first start.
///
/// # Errors
/// [`SimulationFailure`] when the problem is not one, the plan is not one of its workflow, or a size is not
/// predicted for.
pub fn retime(problem: &Problem, plan: &Plan) -> Result<Plan, SimulationFailure> {
    let dense = Dense::new(problem)?;
    plan.check(&problem.workflow)?;
    let assignment = Assignment::of_plan(&dense, plan)?;
    let mut search = Search::new(&dense);
    let label = format!("the plan of `{}`", plan.planner);
    search.offer(label, assignment);
    Ok(search.plan(plan.planner.as_str()))
}
