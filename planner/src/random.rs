//! `random`: a valid assignment drawn with the problem's seed. The yardstick: what no planning at all comes
//! to.

use foresail_schemas::plan::{Plan, Problem};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use crate::assignment::Assignment;
use crate::dense::NONE;
use crate::error::PlanFailure;
use crate::planner::Planner;
use crate::rank;
use crate::search::{Search, plan_by};

/// Most workers drawn.
const WORKERS_MAX: u32 = 64;

/// The planner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Random;

impl Planner for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn plan(&self, problem: &Problem) -> Result<Plan, PlanFailure> {
        plan_by(self.name(), problem, offer)
    }
}

/// Offers one drawn assignment.
pub(crate) fn offer(search: &mut Search) {
    let dense = search.dense;
    let mut rng = Pcg64::seed_from_u64(dense.problem.seed);
    let workers = rng.random_range(1..=dense.len().min(WORKERS_MAX));
    let sizes: Vec<u32> = (0..workers).map(|_| rng.random_range(0..dense.size_count())).collect();
    let flexible = [0.0, 0.3, 1.0][rng.random_range(0..3)];
    let draw = |_| if rng.random_bool(flexible) { NONE } else { rng.random_range(0..workers) };
    let worker: Vec<u32> = (0..dense.len()).map(draw).collect();
    let order = rank::by_urgency(dense, &rank::upward_ms(dense, 0));
    let label = format!("random: tasks drawn for {workers} workers, {:.0} % flexible", 100.0 * flexible);
    let assignment = Assignment::placed_on(dense, worker, &sizes, rank::places(&order));
    search.offer(label, assignment);
}
