//! `uniform`: one size, fixed workers. Groups by shape as the reference does, with several group lengths,
//! and tasks packed on 1, 2, 4, … workers, at most as many as the platform runs at a time, each where it
//! ends first.
//!
//! All layouts at all sizes are timed where the workflow is small. Where that is too much, all that fit are
//! timed at the size that suits the objective, and the best of them at the others.
//!
//! Source: the uniform planner of the source paper; packing is list scheduling by urgency on a bounded
//! number of workers (Graham 1969; see `tracks`).

use foresail_schemas::plan::{Objective, Plan, Problem};

use crate::assignment::Assignment;
use crate::dense::Dense;
use crate::error::PlanFailure;
use crate::objective::Score;
use crate::planner::Planner;
use crate::search::{Search, plan_by};
use crate::tracks::{Aim, Order, Plane, Tracks};
use crate::{grouping, rank};

/// Tasks per group, the reference's own first.
const GROUP_LENS: [usize; 4] = [3, 1, 6, 12];
/// Most workers that tasks are packed on.
const PACKED_WORKERS_MAX: u32 = 4096;
/// Tasks timed in all candidates together.
const TASKS_TIMED_MAX: usize = 8_000;
/// Fewest candidates, however large the workflow.
const CANDIDATES_MIN: usize = 2;

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

/// Offers layouts at sizes, as many as the workflow allows.
pub(crate) fn offer(search: &mut Search) {
    let dense = search.dense;
    let plane = Plane::new(dense);
    let mut tracks = Tracks::new(&plane);
    let layouts = layouts(dense);
    let most = (TASKS_TIMED_MAX / dense.len().max(1) as usize).max(CANDIDATES_MIN);
    if layouts.len() * dense.useful.len() <= most {
        for &size in &dense.useful {
            for &layout in &layouts {
                offer_one(search, &mut tracks, layout, size);
            }
        }
        return;
    }
    let first = suiting(search);
    let others: Vec<u32> = dense.useful.iter().copied().filter(|&size| size != first).collect();
    let at_first = most.saturating_sub(others.len()).max(CANDIDATES_MIN);
    let mut best = None;
    for &layout in layouts.iter().take(at_first) {
        let score = offer_one(search, &mut tracks, layout, first);
        if best.is_none_or(|(b, _)| score.is_better_than(&b)) {
            best = Some((score, layout));
        }
    }
    let Some((_, layout)) = best else { return };
    others.into_iter().take(most.saturating_sub(at_first)).for_each(|size| {
        offer_one(search, &mut tracks, layout, size);
    });
}

/// The size that suits the objective: the one with the least work in time or in money.
fn suiting(search: &Search) -> u32 {
    let dense = search.dense;
    let work = |size: u32| {
        let exec_ms = (0..dense.len()).map(|t| dense.exec_ms(dense.size_for(size, t), t));
        let ms: f64 = exec_ms.sum();
        match search.objective {
            Objective::Fastest | Objective::Deadline { .. } | Objective::Confidence { .. } => ms,
            Objective::Cheapest | Objective::Budget { .. } => ms * dense.size(size).usd_per_ms,
            Objective::Balance { .. } => ms * dense.size(size).usd_per_ms.sqrt(),
        }
    };
    let by_work = |a: &u32, b: &u32| work(*a).total_cmp(&work(*b)).then(a.cmp(b));
    dense.useful.iter().copied().min_by(by_work).unwrap_or_else(|| dense.default_size())
}

/// The most telling first: packed on all workers, the reference's groups, then by halves and lengths.
fn layouts(dense: &Dense) -> Vec<Layout> {
    let most = dense.concurrency_max.min(dense.len()).min(PACKED_WORKERS_MAX);
    let packs = std::iter::successors(Some(most), |k| (*k > 1).then_some(k / 2)).map(Layout::Packed);
    let mut layouts: Vec<Layout> = packs.collect();
    for (at, &len) in GROUP_LENS.iter().enumerate() {
        layouts.insert((2 * at + 1).min(layouts.len()), Layout::Grouped(len));
    }
    layouts
}

fn offer_one(search: &mut Search, tracks: &mut Tracks, layout: Layout, size: u32) -> Score {
    let dense = search.dense;
    let config = dense.size(size).config;
    let (label, assignment) = match layout {
        Layout::Grouped(len) => {
            let order = rank::by_urgency(dense, &rank::upward_ms(dense, size));
            let worker = grouping::by_shape(dense, size, len);
            let assignment = Assignment::placed(dense, worker, size, rank::places(&order));
            (format!("uniform: groups of {len} on workers of {config}"), assignment)
        }
        Layout::Packed(workers) => {
            let aim = Aim { deadline_ms: 0.0, order: Order::Urgency, size: Some(size), tracks_max: workers };
            (format!("uniform: balanced over at most {workers} of {config}"), tracks.schedule(aim))
        }
    };
    let summary = search.offer(label, assignment);
    search.score(&summary)
}
