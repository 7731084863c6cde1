//! `pareto`: the front of time and cost in one call, from the fastest to the cheapest plan, each with its gap
//! to the bounds.
//!
//! Candidates are the flexible plans of every size and a sweep over deadlines between LB_T and the time of
//! the cheapest plan; what is left of a bounded number of passes anneals towards each point of the front.
//!
//! Source: the front as in MOHEFT (Durillo, Prodan, FGCS 2014).

use foresail_schemas::plan::{Objective, Plan, PlanSummary, Problem};
use rand::SeedableRng;
use rand_pcg::Pcg64;

use crate::anneal::{self, Descending};
use crate::assignment::Assignment;
use crate::dense::Dense;
use crate::error::PlanFailure;
use crate::expected::Part;
use crate::explain::{self, Candidate, Story};
use crate::moves::Moves;
use crate::planner::Planner;
use crate::search::Search;
use crate::tracks::{Aim, Plane, Tracks};
use crate::{rank, simple, sweep};

/// Points of the front where none are asked for.
const POINTS: usize = 10;
/// Effort of all points of the planner by name together, in seconds.
pub(crate) const EFFORT_S: f64 = 0.1;
/// Largest threshold towards one point.
const THRESHOLD: f64 = 0.01;
/// Fewest moves towards one point that are worth while.
const MOVES_MIN: u32 = 50;

/// The planner: the point of the front that suits the objective, with the others in its explanation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pareto {
    /// Seconds to spend on annealing.
    pub effort_s: f64,
}

impl Planner for Pareto {
    fn name(&self) -> &'static str {
        "pareto"
    }

    fn plan(&self, problem: &Problem) -> Result<Plan, PlanFailure> {
        let dense = Dense::new(problem)?;
        let mut search = Search::new(&dense);
        for point in front(&mut search, POINTS, self.effort_s) {
            search.offer(point.label, point.assignment);
        }
        Ok(search.plan(self.name()))
    }
}

/// Up to `points` plans of which none is better than another in both time and cost, the fastest first.
///
/// # Errors
/// [`PlanFailure`] when the problem is not one, or when no size of the platform suits a task.
pub fn pareto(problem: &Problem, points: usize) -> Result<Vec<Plan>, PlanFailure> {
    let Some(part) = Part::of_decisions(problem) else { return of_part(problem, points, EFFORT_S) };
    let whole = Dense::new(problem)?;
    let plans = of_part(&part.problem, points, EFFORT_S)?.into_iter();
    Ok(plans.map(|plan| part.widen(&whole, plan)).collect())
}

/// The plans of a front where nothing is decided.
pub(crate) fn of_part(problem: &Problem, points: usize, effort_s: f64) -> Result<Vec<Plan>, PlanFailure> {
    let dense = Dense::new(problem)?;
    let mut search = Search::new(&dense);
    let front = front(&mut search, points.max(1), effort_s);
    let write = |point: &Point| {
        let summary = search.timing.pass(&point.assignment);
        let (label, assignment) = (point.label.clone(), point.assignment.clone());
        let candidate = Candidate { label, assignment, timed: search.timing.timed(summary) };
        explain::write(&dense, "pareto", &candidate, &search.floor, Story::default())
    };
    Ok(front.iter().map(write).collect())
}

/// A plan of the front.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    pub label: String,
    pub assignment: Assignment,
    pub summary: PlanSummary,
}

/// The plans that no other beats in both, by time.
#[derive(Debug, Default)]
struct Front {
    points: Vec<Point>,
}

impl Front {
    fn offer(&mut self, label: impl FnOnce() -> String, assignment: &Assignment, summary: PlanSummary) {
        let covers =
            |a: &PlanSummary, b: &PlanSummary| a.makespan_ms <= b.makespan_ms && a.cost_usd <= b.cost_usd;
        if self.points.iter().any(|p| covers(&p.summary, &summary)) {
            return;
        }
        self.points.retain(|p| !covers(&summary, &p.summary));
        let place = self.points.partition_point(|p| p.summary.makespan_ms < summary.makespan_ms);
        self.points.insert(place, Point { label: label(), assignment: assignment.clone(), summary });
    }

    /// Leaves `count`, the fastest and the cheapest among them, the others even in the logarithm of time.
    fn thin(&mut self, count: usize) {
        while self.points.len() > count.max(1) {
            let ms = |at: usize| self.points[at].summary.makespan_ms.max(1e-9).ln();
            let crowding = |at: &usize| ms(at + 1) - ms(at - 1);
            let inner = (1..self.points.len() - 1).min_by(|a, b| crowding(a).total_cmp(&crowding(b)));
            self.points.remove(inner.unwrap_or(self.points.len() - 1));
        }
    }
}

/// The front as assignments, the fastest first.
pub(crate) fn front(search: &mut Search, points: usize, effort_s: f64) -> Vec<Point> {
    let dense = search.dense;
    let mut front = Front::default();
    for &size in &dense.useful {
        let rank = rank::places(&rank::by_urgency(dense, &rank::upward_ms(dense, size)));
        let mut assignment = Assignment::flexible(dense, size, rank);
        assignment.seat(dense);
        let summary = search.timing.pass(&assignment);
        front.offer(|| simple::label(dense, size), &assignment, summary);
    }
    let plane = Plane::new(dense);
    let mut tracks = Tracks::new(&plane);
    let mut try_deadline = |deadline_ms: f64, search: &mut Search| {
        let mut assignment = tracks.schedule(Aim::by(deadline_ms));
        assignment.seat(dense);
        let summary = search.timing.pass(&assignment);
        front.offer(|| sweep::label(deadline_ms), &assignment, summary);
        summary
    };
    try_deadline(0.0, search);
    let cheapest = try_deadline(f64::INFINITY, search);
    let from_ms = search.bounds.0.max(1e-3);
    let steps = points.saturating_sub(2).max(1);
    let factor = (cheapest.makespan_ms.max(from_ms) / from_ms).max(1.01).powf(1.0 / steps as f64);
    let mut deadline_ms = 1.02 * from_ms;
    for _ in 0..steps {
        try_deadline(deadline_ms, search);
        deadline_ms *= factor;
    }
    front.thin(points);
    refine(search, &mut front, effort_s);
    front.thin(points);
    front.points
}

/// Anneals towards the time of every point, where the effort is enough for that.
fn refine(search: &mut Search, front: &mut Front, effort_s: f64) {
    let dense = search.dense;
    let starts = front.points.clone();
    let moves_each = anneal::passes(dense, effort_s) / starts.len().max(1) as u32;
    if moves_each < MOVES_MIN {
        return;
    }
    let descending = Descending { passes: moves_each, threshold: THRESHOLD };
    let mut moves = Moves::new(dense, Pcg64::seed_from_u64(dense.problem.seed));
    for (at, start) in starts.iter().enumerate() {
        let makespan_ms = start.summary.makespan_ms;
        let objective = if at == 0 { Objective::Fastest } else { Objective::Deadline { makespan_ms } };
        let mut towards = Search::under(dense, objective, &search.floor);
        let found = anneal::anneal(&mut towards, &mut moves, &start.assignment, descending);
        let summary = search.timing.pass(&found);
        front.offer(|| format!("anneal: {moves_each} moves on `{}`", start.label), &found, summary);
    }
}
