//! Re-planning: from a plan in force and the state of the run to plan e+1, or to the reason why there is
//! none.
//!
//! Only open tasks move; what runs or has a result stays where it is, and tasks of a lost worker go
//! elsewhere. The plan in force is timed from now on with fresh predictions. Where it goes as it promised it
//! is kept. Otherwise it is compared with what list scheduling towards a few deadlines (see `tracks`) makes
//! of the rest, and gives way only to a plan that makes what is left better by a part that is a setting, so
//! that a run does not waver between plans. Where no plan found keeps the deadline, it is given up for the
//! cheapest within a few percent of the best makespan that was found.
//!
//! Where tasks decide what runs after them, only what is expected is looked at: what was decided is a fact,
//! and what was not is predicted.
//!
//! Pure: state, time and predictions are arguments. An objective with a probability is taken as its deadline
//! by the times predicted.
//!
//! Source: rolling-horizon rescheduling with hysteresis, as surveyed by Vieira, Herrmann, Lin (J. Scheduling
//! 2003).

use std::borrow::Cow;

use foresail_schemas::TaskId;
use foresail_schemas::plan::{Objective, Plan, Problem};

use crate::assignment::Assignment;
use crate::bounds::residual;
use crate::dense::Dense;
use crate::error::ReplanFailure;
use crate::expected::Part;
use crate::explain::Candidate;
use crate::extras::PRE_LOAD;
use crate::objective::{Score, score};
use crate::passes;
use crate::progress::{Progress, TaskProgress};
use crate::standing::Standing;
use crate::sweep::label;
use crate::timing::Timing;
use crate::tracks::{Aim, Order, Plane, Tracks};

mod judge;
mod write;

use judge::Judge;
pub use judge::Rest;

/// What the passes know it by.
pub(crate) const NAME: &str = "replan";
/// Tasks scheduled towards all deadlines together, beyond [`AIMS_MIN`].
const TASKS_MAX: usize = 3_000;
/// Deadlines that are tried however much is left.
const AIMS_MIN: usize = 2;
/// Most open tasks for which it is tried whether to fetch more inputs ahead than the plan in force does.
const REFINED_TASKS_MAX: usize = 2_000;
/// Most open tasks for which the same sizes are tried without fixed workers.
const LOOSENED_TASKS_MAX: usize = 500;
/// Deadlines over the least time that is left, the most telling first; 0: each task as early as can be.
const FAST: [f64; 4] = [0.0, 1.02, 1.15, 1.05];
const CHEAP: [f64; 5] = [f64::INFINITY, 3.0, 1.5, 5.0, 2.0];
const BOTH: [f64; 8] = [1.02, 2.0, 1.15, f64::INFINITY, 1.5, 3.0, 0.0, 5.0];
/// Deadlines over the time until the one that is asked for: the times are estimates.
const ASKED: [f64; 4] = [1.0, 0.95, 0.87, 0.98];

/// When a plan gives way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReplanOptions {
    /// Part of what is left (of time or money, as the objective says) that a new plan must save.
    pub gain_min: f64,
    /// Part of what is left by which the plan in force may differ from its promise and be kept unlooked at.
    pub drift_min: f64,
    /// Part of the best makespan by which a cheaper plan may end later once the deadline is lost.
    pub lost_slack: f64,
}

impl Default for ReplanOptions {
    fn default() -> Self {
        Self { gain_min: 0.05, drift_min: 0.02, lost_slack: 0.05 }
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The plan in force goes on.
    Keep,
    /// The new plan takes its place.
    Replace,
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Replanned {
    /// What is to be done.
    pub verdict: Verdict,
    /// Why, in a sentence.
    pub reason: String,
    /// What the plan in force takes and costs now; where a worker of it is lost, with another in its place.
    pub kept: Rest,
    /// What the best other plan found takes and costs; as `kept` where none was looked for.
    pub new: Rest,
    /// Tasks with another worker or size than in the plan in force.
    pub moved: Vec<TaskId>,
    /// The plan that is to be in force from now on, of all tasks: what has begun as it was, the rest with
    /// fresh times. With [`Verdict::Keep`] it differs from the plan in force in times and sums only.
    pub plan: Plan,
}

/// Makes plan e+1 of `plan`, which is in force, or says why it is kept. `problem` has fresh predictions; of
/// what is warm the state knows.
///
/// # Errors
/// [`ReplanFailure`] when problem, plan or state are none; the plan in force then stays.
pub fn replan(
    problem: &Problem,
    plan: &Plan,
    progress: &Progress,
    options: &ReplanOptions,
) -> Result<Replanned, ReplanFailure> {
    let Some(part) = Part::of_progress(problem, progress) else {
        return replan_all(problem, &all_expected(plan), progress, options);
    };
    plan.check(&problem.workflow).map_err(|e| ReplanFailure::Plan(e.into()))?;
    let (narrow, within) = (part.narrow(plan), part.narrow_progress(progress));
    let answer = replan_all(&part.problem, &narrow, &within, options)?;
    let whole = Dense::in_part(problem, |t| is_open(progress, t))?;
    Ok(Replanned { plan: part.widen(&whole, answer.plan), ..answer })
}

/// Whether nothing is known of how a task ended.
fn is_open(progress: &Progress, task: u32) -> bool {
    !matches!(progress.tasks.get(task as usize), Some(TaskProgress::Done { .. }))
}

fn all_expected(plan: &Plan) -> Cow<'_, Plan> {
    let mut plan = Cow::Borrowed(plan);
    if plan.tasks.iter().any(|task| task.unexpected) {
        plan.to_mut().tasks.iter_mut().for_each(|task| task.unexpected = false);
    }
    plan
}

fn replan_all(
    problem: &Problem,
    plan: &Plan,
    progress: &Progress,
    options: &ReplanOptions,
) -> Result<Replanned, ReplanFailure> {
    plan.check(&problem.workflow).map_err(|e| ReplanFailure::Plan(e.into()))?;
    if plan.flexible.is_some() {
        return Err(ReplanFailure::Flexible);
    }
    let measured = with_measured(problem, progress);
    let problem = measured.as_ref().unwrap_or(problem);
    let mut dense = Dense::in_part(problem, |t| is_open(progress, t))?;
    dense.set_warm(&progress.idle);
    let (standing, base) = Standing::new(&dense, plan, progress)?;
    let mut round = Round::new(&dense, &standing, &base);
    let stranded = (0..dense.len()).filter(|&t| standing.is_stranded(&base, t)).count();
    let both = [plan.predicted, round.tried[0].timed.summary];
    let mut judge = Judge::new(&standing, (&problem.objective, options), both, stranded);
    let mut chosen = 0;
    if !judge.is_as_promised() {
        round.search(&judge);
        let found = round.choose(options.lost_slack, &mut judge);
        chosen = if judge.takes(&round.tried[found].timed.summary) { found } else { 0 };
    }
    let candidate = &round.tried[chosen];
    Ok(write::answer(&dense, &standing, (plan, progress, &base), candidate, round.bounds, &judge))
}

/// The problem with the sizes of outputs that were measured; nothing where none was.
fn with_measured(problem: &Problem, progress: &Progress) -> Option<Problem> {
    let graph = problem.workflow.graph();
    let mut measured: Option<Problem> = None;
    for (t, task) in (0..graph.len() as u32).zip(&progress.tasks) {
        let TaskProgress::Done { output_bytes: Some(bytes), .. } = *task else { continue };
        let known = &measured.as_ref().unwrap_or(problem).predictions.object_bytes;
        let predicted: Option<Vec<u64>> =
            graph.writes(t).iter().map(|&o| known.get(o as usize).copied()).collect();
        let Some(predicted) = predicted else { continue };
        let sum: u64 = predicted.iter().sum();
        if predicted.is_empty() || sum == bytes {
            continue;
        }
        let table = &mut measured.get_or_insert_with(|| problem.clone()).predictions;
        for (&object, &one) in graph.writes(t).iter().zip(&predicted) {
            // Several outputs share what was measured as they were predicted to.
            let share = if sum > 0 { one as f64 / sum as f64 } else { 1.0 / predicted.len() as f64 };
            table.object_bytes[object as usize] = (share * bytes as f64).round() as u64;
        }
    }
    measured
}

/// All ways to go on that are tried; the first is that of the plan in force.
struct Round<'a> {
    dense: &'a Dense<'a>,
    standing: &'a Standing,
    /// The plan in force, with successors of lost workers.
    base: Assignment,
    timing: Timing<'a>,
    bounds: (f64, f64),
    open: usize,
    /// Whether the workflow forces a pre-load, for which a task needs a planned worker.
    loads: bool,
    tried: Vec<Candidate>,
}

impl<'a> Round<'a> {
    fn new(dense: &'a Dense<'a>, standing: &'a Standing, base: &Assignment) -> Self {
        let mut timing = Timing::new(dense);
        timing.standing = Some(standing);
        let open = (0..dense.len()).filter(|&t| !standing.has_begun(t)).count();
        let bounds = residual(dense, standing);
        let base = standing.repaired(base);
        let loads = (0..dense.len()).any(|t| dense.forced_flags(t) & PRE_LOAD != 0);
        let tried = Vec::new();
        let mut round = Self { dense, standing, base: base.clone(), timing, bounds, open, loads, tried };
        round.offer("the plan in force".to_owned(), base);
        round
    }

    fn offer(&mut self, label: String, assignment: Assignment) {
        let summary = self.timing.pass(&assignment);
        self.tried.push(Candidate { label, assignment, timed: self.timing.timed(summary) });
    }

    /// Tries the deadlines that suit the objective, as many as what is left allows; where that is few, the
    /// first that pays is enough.
    fn search(&mut self, judge: &Judge) {
        let Some(most) = TASKS_MAX.checked_div(self.open) else { return };
        let deadlines = self.deadlines();
        let (first, rest) = deadlines.split_at(1);
        self.schedule(first);
        if most == 0 && judge.pays(&self.tried[self.tried.len() - 1].timed.summary) {
            return;
        }
        self.schedule(&rest[..most.max(AIMS_MIN).min(deadlines.len()) - 1]);
    }

    fn schedule(&mut self, deadlines_ms: &[f64]) {
        let plane = Plane::of(self.dense, |t| !self.standing.has_begun(t));
        let mut tracks = Tracks::from(&plane, Some(self.standing));
        let few = self.dense.concurrency_max <= crate::sweep::FEW_WORKERS;
        for &deadline_ms in deadlines_ms {
            let aim = Aim::by(deadline_ms);
            let aim = if few { Aim { order: Order::Urgency, ..aim } } else { aim };
            let mut assignment = tracks.schedule(aim);
            self.standing.rebase(self.dense, &self.base, &mut assignment);
            let label = label(deadline_ms);
            if self.open <= LOOSENED_TASKS_MAX && !self.loads {
                let mut loosened = assignment.loosened();
                self.standing.rebase(self.dense, &self.base, &mut loosened);
                self.offer(format!("{label}, flexible"), loosened);
            }
            self.offer(label, assignment);
        }
    }

    /// The deadlines in ms, the most telling for the objective first.
    fn deadlines(&self) -> Vec<f64> {
        let now_ms = self.standing.now_ms;
        let left = |until_ms: f64, factor: f64| match factor {
            0.0 => 0.0,
            factor => now_ms + factor * (until_ms - now_ms).max(0.0),
        };
        let over_bound = |factors: &[f64]| -> Vec<f64> {
            factors.iter().map(|&factor| left(self.bounds.0, factor)).collect()
        };
        match self.dense.problem.objective {
            Objective::Fastest => over_bound(&FAST),
            Objective::Cheapest => over_bound(&CHEAP),
            Objective::Budget { .. } | Objective::Balance { .. } => over_bound(&BOTH),
            Objective::Deadline { makespan_ms } | Objective::Confidence { makespan_ms, .. } => {
                let asked = ASKED.map(|factor| left(makespan_ms, factor));
                // The fast ones come second, so that it is known whether the deadline is lost.
                let fast = over_bound(&FAST);
                let (first, rest) = asked.split_at(1);
                [first, &fast[..1], rest, &fast[1..]].concat()
            }
        }
    }

    /// The best under the objective, which gives way where the deadline is lost, with inputs fetched ahead
    /// where that makes it better.
    fn choose(&mut self, lost_slack: f64, judge: &mut Judge) -> usize {
        let best_ms = self.tried.iter().map(|t| t.timed.summary.makespan_ms).fold(f64::INFINITY, f64::min);
        if judge.gives_up(best_ms) {
            let deadline_ms = best_ms * (1.0 + lost_slack);
            self.schedule(&[deadline_ms]);
        }
        let best = self.best(&judge.objective);
        if best == 0 || self.open > REFINED_TASKS_MAX {
            return best;
        }
        let mut candidate = self.tried[best].clone();
        let (dense, bounds, before) = (self.dense, self.bounds, candidate.timed.summary);
        passes::apply(dense, &mut self.timing, judge.objective, bounds, NAME, &mut candidate);
        if candidate.timed.summary == before {
            return best;
        }
        self.tried.push(candidate);
        self.tried.len() - 1
    }

    fn score(&self, objective: &Objective, at: usize) -> Score {
        score(objective, &self.tried[at].timed.summary, self.bounds)
    }

    fn best(&self, objective: &Objective) -> usize {
        let all = 0..self.tried.len();
        all.min_by(|&a, &b| self.score(objective, a).compare(&self.score(objective, b))).unwrap_or(0)
    }
}
