//! `horizon`: every open task whose dependencies are done runs at once, on any worker of the default size.
//! Nothing is weighed; the baseline of the pre-warming policies beside it.
//!
//! Source: Fission Workflows, policy "horizon", which looks anew at every event; here that is what flexible
//! workers do by themselves.

use foresail_schemas::plan::{Plan, Problem};

use crate::assignment::Assignment;
use crate::error::PlanFailure;
use crate::extras::Warming;
use crate::passes::{Clock, WARMINGS_MAX};
use crate::planner::Planner;
use crate::rank;
use crate::search::{Search, plan_by};

/// The planner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Horizon;

impl Planner for Horizon {
    fn name(&self) -> &'static str {
        "horizon"
    }

    fn plan(&self, problem: &Problem) -> Result<Plan, PlanFailure> {
        plan_by(self.name(), problem, |search| {
            let assignment = flexible(search);
            search.offer("horizon: flexible workers of the default size".to_owned(), assignment);
        })
    }
}

fn flexible(search: &Search) -> Assignment {
    let (dense, size) = (search.dense, search.dense.default_size());
    Assignment::flexible(dense, size, rank::places(&rank::by_urgency(dense, &rank::upward_ms(dense, size))))
}

/// Offers the same with a worker started beforehand for every task that is not open from the start; `place`
/// says when, by the times without any: it gets the task and the latest moment.
pub(crate) fn offer_warmed(
    search: &mut Search,
    policy: &str,
    place: impl Fn(&Clock, u32, u32, f64) -> Warming,
) {
    let dense = search.dense;
    let mut assignment = flexible(search);
    let summary = search.timing.pass(&assignment);
    let timed = search.timing.timed(summary);
    let clock = Clock { dense, timed: &timed };
    let later = (0..dense.len()).filter(|&t| !dense.graph.parents(t).is_empty());
    let warmings = later.take(WARMINGS_MAX).map(|t| {
        let latest_ms = clock.latest_ms(&assignment, t);
        (latest_ms, place(&clock, assignment.size[t as usize], t, latest_ms))
    });
    let mut warmings: Vec<(f64, Warming)> = warmings.collect();
    warmings.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.serves.cmp(&b.1.serves)));
    let label = format!("{policy}: flexible workers, {} started beforehand", warmings.len());
    assignment.extras.warmings = warmings.into_iter().map(|(_, warming)| warming).collect();
    search.offer(label, assignment);
}
