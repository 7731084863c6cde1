//! `sweep`: list scheduling on elastic workers (see `tracks`) towards a row of deadlines, the best under the
//! objective. A tight deadline buys speed with new and larger workers, a loose one packs tasks on few cheap
//! ones.
//!
//! Source: the deadline sweep of bi-criteria list scheduling, as in MOHEFT (Durillo, Prodan, FGCS 2014) and
//! budget and deadline heuristics after it.

use foresail_schemas::plan::{Objective, Plan, Problem};

use crate::error::PlanFailure;
use crate::planner::Planner;
use crate::search::{Search, plan_by};
use crate::tracks::{Aim, Order, Plane, Tracks};

/// Its name.
pub(crate) const NAME: &str = "sweep";
/// Deadlines over LB_T, the most telling first. 0: each task as early as can be; infinite: as cheap as can
/// be.
const DEADLINES: [f64; 14] =
    [1.02, 0.0, f64::INFINITY, 1.15, 1.5, 1.05, 2.0, 3.0, 1.3, 1.1, 5.0, 1.75, 2.5, 10.0];
/// Deadlines over the one that is asked for: the times are estimates, and a little less often holds.
const ASKED: [f64; 6] = [1.0, 0.97, 0.93, 0.99, 0.87, 0.8];
/// Tasks scheduled in all deadlines together, beyond [`DEADLINES_MIN`].
const TASKS_MAX: usize = 2_500;
/// Deadlines that are tried however large the workflow.
const DEADLINES_MIN: usize = 2;

/// Up to this many workers at the same time are few.
pub(crate) const FEW_WORKERS: u32 = 64;

/// Most tasks for which the same sizes are tried without fixed workers in any case.
const LOOSENED_TASKS_MAX: u32 = 500;
/// Part of all places on the platform that are in use on average in a crowded run.
const CROWDED: f64 = 0.5;

/// The planner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sweep;

impl Planner for Sweep {
    fn name(&self) -> &'static str {
        NAME
    }

    fn plan(&self, problem: &Problem) -> Result<Plan, PlanFailure> {
        plan_by(self.name(), problem, offer)
    }
}

/// Offers as many deadlines as the size of the workflow allows.
pub(crate) fn offer(search: &mut Search) {
    let most = (TASKS_MAX / search.dense.len().max(1) as usize).max(DEADLINES_MIN);
    let deadlines = deadlines(search);
    offer_deadlines(search, deadlines.into_iter().take(most));
}

/// Offers a plan per deadline in ms; where workers are few, one that takes what is urgent first besides.
pub(crate) fn offer_deadlines(search: &mut Search, deadlines_ms: impl IntoIterator<Item = f64>) {
    let plane = Plane::new(search.dense);
    let mut tracks = Tracks::new(&plane);
    let loosens = search.dense.len() <= LOOSENED_TASKS_MAX || is_crowded(search, &plane);
    for deadline_ms in deadlines_ms {
        let label = label(deadline_ms);
        let aim = Aim::by(deadline_ms);
        if search.dense.concurrency_max <= FEW_WORKERS {
            let urgent = tracks.schedule(Aim { order: Order::Urgency, ..aim });
            search.offer(format!("{label}, the urgent first"), urgent);
        }
        let assignment = tracks.schedule(aim);
        if loosens {
            search.offer(format!("{label}, flexible"), assignment.loosened());
        }
        search.offer(label, assignment);
    }
}

/// What a candidate of one deadline is called.
pub(crate) fn label(deadline_ms: f64) -> String {
    match deadline_ms {
        ms if ms == f64::INFINITY => "sweep: as cheap as can be".to_owned(),
        ms if ms <= 0.0 => "sweep: each task as early as can be".to_owned(),
        ms => format!("sweep: each task in time for {ms:.0} ms"),
    }
}

/// Whether places are scarce. A worker that lingers then takes the place of one that would work, which
/// flexible ones never do.
fn is_crowded(search: &Search, plane: &Plane) -> bool {
    let dense = search.dense;
    let shortest_ms = |t: u32| dense.useful.iter().map(|&c| plane.run_ms(t, c)).fold(f64::INFINITY, f64::min);
    let work_ms: f64 = (0..dense.len()).map(shortest_ms).sum();
    let places = f64::from(dense.concurrency_max) * f64::from(dense.lanes);
    work_ms > CROWDED * places * search.bounds.0
}

/// The deadlines in ms, the most telling for the objective first.
fn deadlines(search: &Search) -> Vec<f64> {
    let over_bound = |factor: f64| factor * search.bounds.0;
    let asked = |ms: f64| ASKED.iter().map(move |factor| factor * ms);
    let general = DEADLINES.iter().copied().map(over_bound);
    match search.objective {
        // What is as cheap as can be is the fastest where nothing else is to be had, if anywhere.
        Objective::Fastest => general.clone().filter(|ms| ms.is_finite()).chain([f64::INFINITY]).collect(),
        Objective::Cheapest => std::iter::once(f64::INFINITY)
            .chain([10.0, 5.0, 3.0, 2.0].map(over_bound))
            .chain(general.filter(|ms| ms.is_finite()))
            .collect(),
        Objective::Deadline { makespan_ms } | Objective::Confidence { makespan_ms, .. } => {
            asked(makespan_ms).chain(general).collect()
        }
        Objective::Budget { .. } | Objective::Balance { .. } => {
            [1.15, 2.0].map(over_bound).into_iter().chain(general).collect()
        }
    }
}
