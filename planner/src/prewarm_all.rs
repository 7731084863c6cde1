//! `prewarm-all`: as `horizon`, and a worker is started beforehand for every other open task.
//!
//! Source: Fission Workflows, policy "prewarm-all". Fission assumed a cold start of 1 s and tapped at once;
//! here each tap is timed by the predicted start of the task and the predicted start of its worker.

use foresail_schemas::plan::{Plan, Problem};

use crate::error::PlanFailure;
use crate::horizon;
use crate::planner::Planner;
use crate::search::plan_by;

/// The planner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PrewarmAll;

impl Planner for PrewarmAll {
    fn name(&self) -> &'static str {
        "prewarm-all"
    }

    fn plan(&self, problem: &Problem) -> Result<Plan, PlanFailure> {
        plan_by(self.name(), problem, |search| {
            horizon::offer_warmed(search, self.name(), |clock, size, task, latest_ms| {
                clock.at(size, task, latest_ms)
            });
        })
    }
}
