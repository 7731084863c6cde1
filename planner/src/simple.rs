//! `simple`: one size, every worker flexible. The baseline of the source paper, and what runs while nothing
//! is known.

use foresail_schemas::plan::{Plan, Problem};

use crate::assignment::Assignment;
use crate::dense::Dense;
use crate::error::PlanFailure;
use crate::planner::Planner;
use crate::rank;
use crate::search::{Search, plan_by};

/// What the labels of flexible candidates begin with.
pub(crate) const LABEL: &str = "simple:";

/// The planner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Simple;

impl Planner for Simple {
    fn name(&self) -> &'static str {
        "simple"
    }

    fn plan(&self, problem: &Problem) -> Result<Plan, PlanFailure> {
        plan_by(self.name(), problem, offer)
    }
}

/// Offers the default size where nothing was measured, every useful size otherwise.
pub(crate) fn offer(search: &mut Search) {
    match search.dense.is_blind() {
        true => offer_size(search, search.dense.default_size()),
        false => offer_sizes(search),
    }
}

/// Offers every useful size.
pub(crate) fn offer_sizes(search: &mut Search) {
    let dense = search.dense;
    dense.useful.iter().for_each(|&size| offer_size(search, size));
}

/// Offers one size.
pub(crate) fn offer_size(search: &mut Search, size: u32) {
    let dense = search.dense;
    let rank = rank::places(&rank::by_urgency(dense, &rank::upward_ms(dense, size)));
    search.offer(label(dense, size), Assignment::flexible(dense, size, rank));
}

/// What a candidate of one size is called.
pub(crate) fn label(dense: &Dense, size: u32) -> String {
    format!("{LABEL} flexible workers of {}", dense.size(size).config)
}
