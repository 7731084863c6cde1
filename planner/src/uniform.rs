//! `uniform`: one size, fixed workers. Groups by shape as the reference does, with several group sizes, and
//! tasks packed by load on 1, 2, 4, … workers, at most as many as the platform runs at a time; every size,
//! the best under the objective.

use foresail_schemas::plan::{Plan, Problem};

use crate::assignment::Assignment;
use crate::dense::Dense;
use crate::error::PlanFailure;
use crate::planner::Planner;
use crate::search::{Search, plan_by};
use crate::{grouping, packing, rank};

/// Tasks per group, the reference's own first.
const GROUP_LENS: [usize; 4] = [3, 1, 6, 12];
/// Most workers that tasks are packed on.
const PACKED_WORKERS_MAX: u32 = 4096;
/// Layouts carried on to the other sizes where not all can be timed at all sizes.
const LAYOUTS_KEPT: usize = 2;

/// The planner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Uniform;

impl Planner for Uniform {
    fn name(&self) -> &'static str {
        "uniform"
    }

    fn plan(&self, problem: &Problem) -> Result<Plan, PlanFailure> {
        plan_by(self.name(), problem, offer)
    }
}

/// How tasks are given to workers.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Layout {
    Grouped(usize),
    Packed(u32),
}

/// Offers all layouts at all sizes; where that is too much, all at one size and the best of them at the
/// others.
pub(crate) fn offer(search: &mut Search) {
    let dense = search.dense;
    let layouts = layouts(dense);
    let sizes = dense.size_count();
    let all = layouts.len() as u32 * sizes;
    if all <= search.passes() {
        (0..sizes).for_each(|size| layouts.iter().for_each(|&layout| offer_one(search, layout, size)));
        return;
    }
    let first = dense.default_size();
    let mut scored = Vec::new();
    for &layout in &layouts {
        offer_one(search, layout, first);
        if let Some(tried) = search.tried.last() {
            scored.push((search.score(&tried.summary), layout));
        }
    }
    scored.sort_by(|a, b| a.0.compare(&b.0));
    for (_, layout) in scored.into_iter().take(LAYOUTS_KEPT) {
        (0..sizes).filter(|&size| size != first).for_each(|size| offer_one(search, layout, size));
    }
}

/// Groups of every length; packs of doubling numbers of workers up to what can run at once.
fn layouts(dense: &Dense) -> Vec<Layout> {
    let most = dense.concurrency_max.min(dense.len()).min(PACKED_WORKERS_MAX);
    let mut packs: Vec<u32> =
        std::iter::successors(Some(1_u32), |k| k.checked_mul(2)).take_while(|k| *k < most).collect();
    packs.push(most);
    let grouped = GROUP_LENS.iter().map(|&len| Layout::Grouped(len));
    grouped.chain(packs.into_iter().map(Layout::Packed)).collect()
}

fn offer_one(search: &mut Search, layout: Layout, size: u32) {
    let dense = search.dense;
    let order = rank::by_urgency(dense, &rank::upward_ms(dense, size));
    let config = dense.size(size).config;
    let (label, worker) = match layout {
        Layout::Grouped(len) => {
            (format!("uniform: groups of {len} on workers of {config}"), grouping::by_shape(dense, size, len))
        }
        Layout::Packed(workers) => (
            format!("uniform: balanced over at most {workers} of {config}"),
            packing::by_load(dense, size, workers, &order),
        ),
    };
    search.offer(label, Assignment::placed(dense, worker, size, rank::places(&order)));
}
