//! `anneal`: moves on the best simple and sweep plans, each timed in full, worse ones taken now and then.
//!
//! A plan that is worse by less than a threshold is taken; the threshold is drawn below a limit that falls
//! to nothing. The effort is given in seconds and turned into a number of passes by
//! [`TASKS_TIMED_PER_SECOND`], so that no clock decides and the same problem and seed give the same plan.
//!
//! Source: threshold accepting (Dueck, Scheuer, J. Comput. Phys. 1990), which needs no exponential and is
//! thus the same on every machine.

use foresail_schemas::optimization::OptimizationKind;
use foresail_schemas::plan::{Plan, PlanSummary, Problem};
use rand::SeedableRng;
use rand_pcg::Pcg64;

use crate::assignment::Assignment;
use crate::dense::{Dense, NONE};
use crate::error::PlanFailure;
use crate::extras::PRE_LOAD;
use crate::moves::Moves;
use crate::objective::energy;
use crate::planner::Planner;
use crate::search::{Search, plan_by};
use crate::timing::Timing;
use crate::{simple, sweep};

/// Tasks that one second of effort times on one core: 90 to 200 ns each, as measured by the bench
/// `planning_speed` on a common server core.
pub(crate) const TASKS_TIMED_PER_SECOND: f64 = 5_000_000.0;
/// What a pass costs beside its tasks, in tasks.
const TASKS_PER_PASS: f64 = 10.0;
/// Effort of the planner by name, in seconds.
pub(crate) const EFFORT_S: f64 = 1.0;
/// Largest effort in seconds.
pub(crate) const EFFORT_S_MAX: f64 = 86_400.0;
/// Largest threshold of the descent from each starting point, the best first, as a part of the energy there:
/// one goes nearly straight down, another wanders. Each gets its share of the passes.
const THRESHOLDS: [f64; 3] = [0.005, 0.02, 0.01];
/// Fewest passes from one starting point.
const PASSES_MIN: u32 = 200;

/// The planner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Anneal {
    /// Seconds to spend.
    pub effort_s: f64,
}

impl Planner for Anneal {
    fn name(&self) -> &'static str {
        "anneal"
    }

    fn plan(&self, problem: &Problem) -> Result<Plan, PlanFailure> {
        let effort_s = self.effort_s;
        plan_by(self.name(), problem, |search| offer(search, effort_s))
    }
}

/// Offers what simple and sweep do and the best found from there.
pub(crate) fn offer(search: &mut Search, effort_s: f64) {
    let mut starts = Starts::default();
    simple::offer(search);
    starts.note(search);
    let lost = search.stage(sweep::NAME, sweep::offer);
    starts.note_both(search, lost);
    let passes = passes(search.dense, effort_s);
    improve(search, &starts.assignments, passes);
}

/// Passes of an effort.
pub(crate) fn passes(dense: &Dense, effort_s: f64) -> u32 {
    (effort_s * TASKS_TIMED_PER_SECOND / (f64::from(dense.len()) + TASKS_PER_PASS)) as u32
}

/// Starting points: what was best after each of several planners.
#[derive(Debug, Default)]
pub(crate) struct Starts {
    pub labels: Vec<String>,
    pub assignments: Vec<Assignment>,
}

impl Starts {
    /// Notes the best so far, if it is new.
    pub fn note(&mut self, search: &Search) {
        let best = search.best();
        if self.assignments.last() != Some(&best.assignment) {
            self.labels.push(best.label.clone());
            self.assignments.push(best.assignment.clone());
        }
    }

    /// Notes the best so far, and before it what it has won over.
    pub fn note_both(&mut self, search: &Search, lost: Option<(String, Assignment)>) {
        self.note(search);
        if let Some((label, assignment)) = lost
            && !self.assignments.contains(&assignment)
        {
            let before_last = self.labels.len() - 1;
            self.labels.insert(before_last, label);
            self.assignments.insert(before_last, assignment);
        }
    }
}

/// Anneals from the last starting points, which are the best, and offers the best plan found. There inputs
/// are fetched ahead: where a task pays best depends on whether what it reads can come beforehand, and a
/// pass at the end finds no other place for it.
pub(crate) fn improve(search: &mut Search, starts: &[Assignment], passes: u32) {
    let rng = Pcg64::seed_from_u64(search.dense.problem.seed);
    let mut moves = Moves::new(search.dense, rng);
    let enough = (passes / PASSES_MIN).clamp(1, THRESHOLDS.len() as u32) as usize;
    // Where there are fewer starting points, the best serves again.
    let best_first = starts.iter().rev().cycle().take(enough);
    let each = passes / enough as u32;
    let may_load = !search.dense.problem.without.contains(&OptimizationKind::PreLoad);
    for (start, threshold) in best_first.zip(THRESHOLDS) {
        let mut start = start.clone();
        if may_load {
            let tasks = search.dense.len();
            (0..tasks).for_each(|task| start.extras.give(task, PRE_LOAD, tasks));
        }
        let found = anneal(search, &mut moves, &start, Descending { passes: each, threshold });
        search.offer(format!("anneal: best of {each} moves"), found);
    }
}

/// How long and how boldly to search.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Descending {
    pub passes: u32,
    pub threshold: f64,
}

/// The state of one descent.
struct Descent {
    current: Assignment,
    energy: f64,
    best: Assignment,
    best_summary: PlanSummary,
}

/// The best that moves from `start` find under the objective of the search.
pub(crate) fn anneal(
    search: &mut Search,
    moves: &mut Moves,
    start: &Assignment,
    Descending { passes, threshold }: Descending,
) -> Assignment {
    let (objective, bounds) = (search.objective, search.bounds);
    let summary = search.timing.pass(start);
    let energy_of = |summary: &PlanSummary| energy(&objective, summary, bounds);
    let from = energy_of(&summary);
    let mut descent =
        Descent { current: start.clone(), energy: from, best: start.clone(), best_summary: summary };
    note_hot(&search.timing, &mut moves.hot);
    let mut trial = start.clone();
    for pass in 0..passes {
        trial.copy_from(&descent.current);
        if !moves.change(&mut trial) {
            continue;
        }
        trial.seat(search.dense);
        let left = 1.0 - f64::from(pass) / f64::from(passes);
        // The last quarter takes nothing worse.
        let limit = from * threshold * (left - 0.25).max(0.0).powi(2);
        let summary = search.timing.pass(&trial);
        let reached = energy_of(&summary);
        if reached > descent.energy + limit * moves.draw() {
            continue;
        }
        std::mem::swap(&mut trial, &mut descent.current);
        descent.energy = reached;
        note_hot(&search.timing, &mut moves.hot);
        if search.score(&summary).is_better_than(&search.score(&descent.best_summary)) {
            descent.best.copy_from(&descent.current);
            descent.best_summary = summary;
        }
        descent.current.drop_empty_workers();
    }
    descent.best
}

/// The tasks that decide the makespan of the last pass.
fn note_hot(timing: &Timing, hot: &mut Vec<u32>) {
    hot.clear();
    let tasks = timing.ran();
    let last = (0..tasks.len()).max_by(|&a, &b| tasks[a].end_ms.total_cmp(&tasks[b].end_ms));
    let mut at = last.map_or(NONE, |t| t as u32);
    while at != NONE && hot.len() < tasks.len() {
        hot.push(at);
        at = tasks[at as usize].cause;
    }
}
