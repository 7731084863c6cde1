//! `prewarm-horizon`: as `horizon`, and workers are started beforehand for the tasks that become roots once
//! the horizon is taken away: those whose parents all run.
//!
//! Source: Fission Workflows, policy "prewarm-horizon". Fission assumed a cold start of 1 s and tapped at
//! once; here each tap hangs on the parent that begins last and waits for the predicted start of the task
//! less the predicted start of its worker.

use foresail_schemas::plan::{Plan, Problem};

use crate::dense::NONE;
use crate::error::PlanFailure;
use crate::extras::Warming;
use crate::horizon;
use crate::planner::Planner;
use crate::search::plan_by;

/// The planner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PrewarmHorizon;

impl Planner for PrewarmHorizon {
    fn name(&self) -> &'static str {
        "prewarm-horizon"
    }

    fn plan(&self, problem: &Problem) -> Result<Plan, PlanFailure> {
        plan_by(self.name(), problem, |search| {
            horizon::offer_warmed(search, self.name(), |clock, size, task, latest_ms| {
                let start_ms = |p: u32| clock.timed.start_ms[p as usize];
                let parents = clock.dense.graph.parents(task).iter().copied();
                let last = parents.max_by(|&a, &b| start_ms(a).total_cmp(&start_ms(b)).then(b.cmp(&a)));
                let after = last.unwrap_or(NONE);
                let delay_ms = last.map_or(latest_ms, |p| (latest_ms - start_ms(p)).max(0.0));
                Warming { size, after, delay_ms, serves: task }
            });
        })
    }
}
