//! Passes: from a plan to a better one, by what is done beside running the tasks.
//!
//! Each of the crate's own begins from the plan without what it gives, finds where it pays, and counts only
//! if the timing pass says that the whole is better under the objective than the plan it was given; so a
//! pass that is applied to its own plan changes nothing. What the workflow forces is no pass's business: the
//! timing pass and the plan have it always.
//!
//! A pass of one's own implements [`Pass`]: it proposes plans, [`improve`] times them and keeps the best.

use foresail_schemas::optimization::OptimizationKind;
use foresail_schemas::plan::{Objective, Plan, PlanSummary, Problem};

use crate::assignment::Assignment;
use crate::bounds::Floor;
use crate::dense::Dense;
use crate::draft::{self, DraftFailure};
use crate::expected::Part;
use crate::explain::{self, Candidate, Story};
use crate::extras::{Extras, PRE_LOAD, TASK_DUP};
use crate::objective::{Score, score};
use crate::replan;
use crate::timing::{Timed, Timing};

mod force;
mod preload;
mod prewarm;
mod task_dup;

pub(crate) use force::with_forced;
pub(crate) use prewarm::{Clock, WARMINGS_MAX};

/// Tasks timed by all passes of `uniform`, `sweep` or a re-planning together, by those of `nonuniform`, and
/// by those of the others.
const UNIFORM_TASKS_TIMED_MAX: u32 = 8_000;
const SWEEP_TASKS_TIMED_MAX: u32 = 4_000;
const REPLAN_TASKS_TIMED_MAX: u32 = 4_000;
const NONUNIFORM_TASKS_TIMED_MAX: u32 = 60_000;
const TASKS_TIMED_MAX: u32 = 150_000;
/// Times that passes are applied one after the other.
const ROUNDS_MAX: u32 = 8;
/// Fewest candidates per planner, however large the workflow; most per pass, however small.
const CANDIDATES_MIN: u32 = 1;
const CANDIDATES_MAX: u32 = 60;

/// A way to make plans better.
pub trait Pass {
    /// Its name, for the explanation of plans.
    fn name(&self) -> &str;

    /// Plans that may be better than `plan`. Only workers, sizes, ranks, optimisations and pre-warmings of a
    /// proposal count; times and sums are found by the crate.
    fn propose(&self, problem: &Problem, plan: &Plan) -> Vec<Plan>;
}

/// The crate's own passes, in the order in which planners apply them.
#[must_use]
pub fn passes() -> Vec<Box<dyn Pass>> {
    ORDER.map(|kind| Box::new(kind) as Box<dyn Pass>).into()
}

/// Task-dup changes who waits, so it comes before what is fetched; workers are warmed for the times that
/// come out of both.
const ORDER: [OptimizationKind; 3] =
    [OptimizationKind::TaskDup, OptimizationKind::PreLoad, OptimizationKind::PreWarm];

impl Pass for OptimizationKind {
    fn name(&self) -> &str {
        self.as_str()
    }

    fn propose(&self, problem: &Problem, plan: &Plan) -> Vec<Plan> {
        let Ok(dense) = Dense::new(problem) else { return Vec::new() };
        let Ok(assignment) = draft::of_plan(&dense, plan) else { return Vec::new() };
        let floor = Floor::new(&dense);
        let mut timing = Timing::new(&dense);
        let mut bench = Bench::new(&dense, &mut timing, problem.objective, floor.pair(), CANDIDATES_MAX);
        let given = bench.timed(assignment);
        let (better, true) = bench.apply(*self, given) else { return Vec::new() };
        let label = format!("{}, with {}", plan.planner, self.as_str());
        let candidate = Candidate { label, assignment: better.assignment, timed: better.timed };
        let (planner, ids) = (plan.planner.as_str(), draft::worker_ids(plan));
        vec![explain::write_named(&dense, planner, &candidate, &floor, Story::default(), &ids)]
    }
}

/// Applies passes one after the other: each proposal is timed, the best is kept if it is better than what
/// was there under the problem's objective. What a later pass gives may be of use to an earlier one, so they
/// are applied again until none brings anything, or [`ROUNDS_MAX`] times. The explanation says what each pass
/// brought.
///
/// # Errors
/// [`DraftFailure`] when `plan` or a proposal breaks a rule.
pub fn improve(problem: &Problem, plan: &Plan, passes: &[&dyn Pass]) -> Result<Plan, DraftFailure> {
    let Some(part) = Part::of_plan(problem, plan) else { return improve_all(problem, plan, passes) };
    let whole = Dense::new(problem)?;
    Ok(part.widen(&whole, improve_all(&part.problem, &part.narrow(plan), passes)?))
}

fn improve_all(problem: &Problem, plan: &Plan, passes: &[&dyn Pass]) -> Result<Plan, DraftFailure> {
    let mut best = draft::retimed(problem, plan, Vec::new())?;
    let bounds = (best.bounds.makespan_ms, best.bounds.cost_usd);
    let mut brought = Vec::new();
    for round in 0..ROUNDS_MAX {
        let begun_with = best.predicted;
        for pass in passes {
            let before = best.predicted;
            for proposal in pass.propose(problem, &best) {
                let proposal = draft::retimed(problem, &proposal, Vec::new())?;
                let of = |summary: &PlanSummary| score(&problem.objective, summary, bounds);
                if of(&proposal.predicted).is_better_than(&of(&best.predicted)) {
                    best = proposal;
                }
            }
            if round == 0 || before != best.predicted {
                brought.push(in_words(pass.name(), &before, &best.predicted));
            }
        }
        if begun_with == best.predicted {
            break;
        }
    }
    best.planner = plan.planner.clone();
    best.explanation.extend(brought);
    Ok(best)
}

fn in_words(name: &str, before: &PlanSummary, after: &PlanSummary) -> String {
    if before == after {
        return format!("Pass {name} brings nothing.");
    }
    format!(
        "Pass {name} brings {:.0} ms and {:.8} USD instead of {:.0} ms and {:.8} USD.",
        after.makespan_ms, after.cost_usd, before.makespan_ms, before.cost_usd
    )
}

/// The passes of a planner by name, and how many tasks they may time; what is not named here is planned as
/// its source says.
fn of_planner(planner: &str) -> (&'static [OptimizationKind], u32) {
    match planner {
        "uniform" => (&ORDER[..2], UNIFORM_TASKS_TIMED_MAX),
        "nonuniform" => (&ORDER, NONUNIFORM_TASKS_TIMED_MAX),
        "sweep" => (&ORDER, SWEEP_TASKS_TIMED_MAX),
        replan::NAME => (&ORDER[1..2], REPLAN_TASKS_TIMED_MAX),
        "auto" | "anneal" | "pareto" | "robust" => (&ORDER, TASKS_TIMED_MAX),
        _ => (&[], 0),
    }
}

/// Applies the passes of `planner` that the problem allows; says what each brought.
pub(crate) fn apply<'a>(
    dense: &'a Dense<'a>,
    timing: &mut Timing<'a>,
    objective: Objective,
    bounds: (f64, f64),
    planner: &str,
    given: &mut Candidate,
) -> Vec<String> {
    let (kinds, tasks_timed_max) = of_planner(planner);
    let allowed = kinds.iter().filter(|kind| !dense.problem.without.contains(kind));
    let mut kinds: Vec<OptimizationKind> = allowed.copied().collect();
    let mut left = (tasks_timed_max / dense.len().max(1)).max(CANDIDATES_MIN);
    if (left as usize) < kinds.len() {
        // Pre-load pays most often.
        kinds.retain(|&kind| kind == OptimizationKind::PreLoad);
    }
    let mut brought = Vec::new();
    for (at, &kind) in kinds.iter().enumerate() {
        let share = left / (kinds.len() - at) as u32;
        let mut bench = Bench::new(dense, timing, objective, bounds, share.min(CANDIDATES_MAX));
        let before = given.timed.summary;
        let (assignment, timed) = (std::mem::take(&mut given.assignment), std::mem::take(&mut given.timed));
        let (state, is_better) = bench.apply(kind, State { assignment, timed });
        let is_told = is_better || bench.tried > 0;
        left -= bench.tried;
        (given.assignment, given.timed) = (state.assignment, state.timed);
        if is_told {
            brought.push(in_words(kind.as_str(), &before, &given.timed.summary));
        }
    }
    brought
}

/// An assignment with its times.
#[derive(Debug, Clone)]
struct State {
    assignment: Assignment,
    timed: Timed,
}

/// Where a pass tries things: a number of candidates is timed and no more.
struct Bench<'s, 'a> {
    dense: &'a Dense<'a>,
    timing: &'s mut Timing<'a>,
    objective: Objective,
    bounds: (f64, f64),
    tried: u32,
    tried_max: u32,
}

impl<'s, 'a> Bench<'s, 'a> {
    fn new(
        dense: &'a Dense<'a>,
        timing: &'s mut Timing<'a>,
        objective: Objective,
        bounds: (f64, f64),
        tried_max: u32,
    ) -> Self {
        Self { dense, timing, objective, bounds, tried: 0, tried_max }
    }

    fn timed(&mut self, assignment: Assignment) -> State {
        let summary = self.timing.pass(&assignment);
        State { assignment, timed: self.timing.timed(summary) }
    }

    fn score(&self, summary: &PlanSummary) -> Score {
        score(&self.objective, summary, self.bounds)
    }

    /// The result of one pass, where it is better than what was given; else that. Says which.
    fn apply(&mut self, kind: OptimizationKind, given: State) -> (State, bool) {
        let old = self.score(&given.timed.summary);
        let extras = &given.assignment.extras;
        let is_bare = match kind {
            OptimizationKind::TaskDup => !extras.have(TASK_DUP),
            OptimizationKind::PreLoad => !extras.have(PRE_LOAD),
            OptimizationKind::PreWarm => extras.warmings.is_empty(),
        };
        // What is bare is not copied: of a pass that finds nothing better it comes back as it was.
        let (base, kept) = match is_bare {
            true => (given, None),
            false => (self.without(kind, given.assignment.clone()), Some(given)),
        };
        let found = match kind {
            OptimizationKind::TaskDup => task_dup::derive(self, base),
            OptimizationKind::PreLoad => preload::derive(self, base),
            OptimizationKind::PreWarm => prewarm::derive(self, base),
        };
        match self.score(&found.timed.summary).is_better_than(&old) {
            true => (found, true),
            false => (kept.unwrap_or(found), false),
        }
    }

    /// An assignment without what a pass gives, timed.
    fn without(&mut self, kind: OptimizationKind, mut assignment: Assignment) -> State {
        match kind {
            OptimizationKind::TaskDup => assignment.extras.take_all(TASK_DUP),
            OptimizationKind::PreLoad => assignment.extras.take_all(PRE_LOAD),
            OptimizationKind::PreWarm => assignment.extras.warmings.clear(),
        }
        self.timed(assignment)
    }

    fn has_tries(&self) -> bool {
        self.tried < self.tried_max
    }

    /// Times `state` with a change; keeps it there if that is better.
    fn try_change(&mut self, state: &mut State, change: impl FnOnce(&mut Extras)) -> bool {
        if !self.has_tries() {
            return false;
        }
        self.tried += 1;
        let extras = state.assignment.extras.clone();
        change(&mut state.assignment.extras);
        let summary = self.timing.pass(&state.assignment);
        let is_better = self.score(&summary).is_better_than(&self.score(&state.timed.summary));
        if is_better {
            state.timed = self.timing.timed(summary);
        } else {
            state.assignment.extras = extras;
        }
        is_better
    }

    /// Gives `flag` to all of `tasks`; where that makes the plan no better, to halves of them.
    fn try_flags(&mut self, state: &mut State, flag: u8, tasks: &[u32]) -> bool {
        let all = self.dense.len();
        let give = |extras: &mut Extras| tasks.iter().for_each(|&t| extras.give(t, flag, all));
        if tasks.is_empty() {
            return false;
        }
        if self.try_change(state, give) {
            return true;
        }
        if tasks.len() < 2 || !self.has_tries() {
            return false;
        }
        let (first, second) = tasks.split_at(tasks.len() / 2);
        let is_better = self.try_flags(state, flag, first);
        self.try_flags(state, flag, second) || is_better
    }

    /// Gives `flag` to those of the critical path that `may_have` it, times the plan anew, and goes on with
    /// the path that decides then; stops where nothing on it gets better. Source: the source paper's
    /// pre-load, iterated on the critical path.
    fn along_path(&mut self, state: &mut State, flag: u8, may_have: impl Fn(&State, u32) -> bool) {
        while self.has_tries() {
            let free = |&t: &u32| state.assignment.extras.flags(t) & flag == 0 && may_have(state, t);
            let path: Vec<u32> = explain::critical_path(&state.timed).into_iter().filter(free).collect();
            if !self.try_flags(state, flag, &path) {
                return;
            }
        }
    }
}
