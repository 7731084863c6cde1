//! `robust`: the cheapest plan that ends in time with the probability asked for, by Monte-Carlo.
//!
//! 1. Candidates are the points of the front of time and cost, where more may be decided than is expected
//!    also those of what is expected with the rest beside it, then plans annealed towards a tightened
//!    deadline: the one asked for over the ratio between the quantile that was drawn of the last candidate
//!    and its predicted makespan. That ratio hardly changes between neighbours, so few rounds find it.
//! 2. All candidates are judged on the same few draws, fewer where they are hopeless. That flatters whoever
//!    is chosen by them.
//! 3. From the cheapest up, those that may be good enough are tested on fresh draws; the first of which the
//!    lower end of the interval reaches the probability is taken. The interval is widened for the number of
//!    tests (Bonferroni), so that one lucky test among many proves nothing.
//! 4. What the plan says of itself comes from draws that no choice was made by.
//!
//! Where none passes, the plan with the best chance is returned; it says so, and which deadline it would
//! keep.
//! The objective is `confidence`; `deadline` is taken as one of [`PROBABILITY`]. Without distributions, or
//! under another objective, it does what `simple` and `sweep` do.
//!
//! Source: Jolteon (Zhang et al., NSDI 2024), least cost under P(makespan <= D) >= p over sampled times. It
//! sizes whole stages by a convex program; here plans with placement are searched and tested. Chance
//! constraints by samples: Luedtke and Ahmed, SIAM J. Optim. 2008.

use foresail_schemas::plan::{Objective, Plan, PlanSummary, Problem};
use rand::SeedableRng;
use rand_pcg::Pcg64;

use crate::anneal::{self, Descending};
use crate::assignment::Assignment;
use crate::dense::Dense;
use crate::error::PlanFailure;
use crate::expected::Part;
use crate::explain::{self, Candidate, SPREAD_UNKNOWN, Story};
use crate::montecarlo::{Chances, Distribution, Probable, draws_for, wilson};
use crate::moves::Moves;
use crate::objective::nearest_limit;
use crate::pareto;
use crate::planner::Planner;
use crate::search::Search;
use crate::{simple, sweep};

/// Probability where the objective names a deadline alone.
const PROBABILITY: f64 = 0.95;
/// Points of the front that are judged.
const POINTS: usize = 10;
/// Effort of the front in seconds.
const FRONT_EFFORT_S: f64 = 0.06;
/// Rounds of tightened deadlines.
const ROUNDS: u32 = 5;
/// Effort of the annealing of all rounds, in seconds.
const EFFORT_S: f64 = 0.15;
/// Threshold of the annealing, as in `pareto`.
const THRESHOLD: f64 = 0.01;
/// Candidates that are tested on fresh draws.
const TESTS_MAX: usize = 6;
/// The normal quantile of an interval that six tests together break once in twenty: 1 - 0.05 / 6 one-sided.
const Z_TEST: f64 = 2.394;
/// Tasks timed while candidates are judged, and in each test.
const TASKS_JUDGED_MAX: u32 = 3_000_000;
const TASKS_TESTED_MAX: u32 = 4_000_000;
/// Fewest and most draws to judge by, and to test by.
const JUDGED: [u32; 2] = [100, 250];
const TESTED: [u32; 2] = [400, 2_000];
/// Draws for each one that may miss the deadline: fewer could not prove even a plan that never does.
const DRAWS_PER_MISS: f64 = 12.0;
/// Candidates aim at this part of the misses that are allowed, so that most pass the test.
const AIMED_MISSES: f64 = 0.7;

/// The planner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Robust;

impl Planner for Robust {
    fn name(&self) -> &'static str {
        "robust"
    }

    fn plan(&self, problem: &Problem) -> Result<Plan, PlanFailure> {
        let dense = Dense::new(problem)?;
        let asked = match problem.objective {
            Objective::Confidence { makespan_ms, probability } => Some((makespan_ms, probability)),
            Objective::Deadline { makespan_ms } => Some((makespan_ms, PROBABILITY)),
            _ => None,
        };
        match (asked, Chances::new(&dense)) {
            (Some((deadline_ms, probability)), Some(chances)) => {
                Field::new(&dense, chances, deadline_ms, probability).plan()
            }
            (_, chances) => Ok(plain(&dense, chances)),
        }
    }
}

/// What there is to do where no probability is asked for, or none can be told.
fn plain(dense: &Dense, chances: Option<Chances>) -> Plan {
    let mut search = Search::new(dense);
    simple::offer_sizes(&mut search);
    sweep::offer(&mut search);
    let mut plan = search.plan(Robust.name());
    match chances {
        // First: whoever asked for a probability must not take this for one.
        None => {
            plan.explanation.retain(|line| line != SPREAD_UNKNOWN);
            plan.explanation.insert(0, SPREAD_UNKNOWN.to_owned());
        }
        Some(mut chances) => {
            let draws = draws_for(dense.len() as usize);
            let drawn = chances.of(&search.best().assignment, draws, seed(dense, Stage::Statement));
            plan.outlook = Some(Box::new(drawn.outlook(&dense.problem.objective)));
        }
    }
    plan
}

/// What draws are for; each has draws of its own.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Judging = 1,
    Test = 2,
    Statement = 3,
}

fn seed(dense: &Dense, stage: Stage) -> u64 {
    dense.problem.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(stage as u64)
}

/// A candidate and what was drawn of it.
#[derive(Debug)]
struct Judged {
    label: String,
    assignment: Assignment,
    predicted: PlanSummary,
    cost_usd: f64,
    /// Quantile of the makespan that the candidates aim at.
    quantile_ms: f64,
    /// Whether it may be good enough.
    is_promising: bool,
}

impl Judged {
    /// Drawn quantile over predicted makespan.
    fn ratio(&self) -> f64 {
        let ratio = self.quantile_ms / self.predicted.makespan_ms.max(1e-6);
        if ratio.is_finite() && ratio > 0.0 { ratio } else { 1.0 }
    }
}

/// The candidates.
#[derive(Debug)]
struct Field<'a> {
    dense: &'a Dense<'a>,
    search: Search<'a>,
    /// What is expected, where that is not all that may come.
    expected: Option<Part>,
    chances: Chances<'a>,
    deadline_ms: f64,
    probability: f64,
    draws_judged: u32,
    draws_tested: u32,
    judged: Vec<Judged>,
}

impl<'a> Field<'a> {
    fn new(dense: &'a Dense<'a>, chances: Chances<'a>, deadline_ms: f64, probability: f64) -> Self {
        let few = |[least, most]: [u32; 2], tasks: u32| (tasks / dense.len().max(1)).clamp(least, most);
        let needed = (DRAWS_PER_MISS / (1.0 - probability)).ceil() as u32;
        let expected = Part::of_expected(dense.problem);
        let candidates = POINTS as u32 * (1 + u32::from(expected.is_some())) + ROUNDS;
        Self {
            dense,
            search: Search::new(dense),
            expected,
            chances,
            deadline_ms,
            probability,
            draws_judged: few(JUDGED, TASKS_JUDGED_MAX / candidates),
            draws_tested: few(TESTED, TASKS_TESTED_MAX).max(needed),
            judged: Vec::new(),
        }
    }

    fn plan(mut self) -> Result<Plan, PlanFailure> {
        for point in pareto::front(&mut self.search, POINTS, FRONT_EFFORT_S) {
            self.judge(point.label, point.assignment, point.summary);
        }
        if let Some(part) = self.expected.take() {
            self.judge_expected(&part)?;
        }
        self.tighten();
        self.judged.sort_by(|a, b| a.cost_usd.total_cmp(&b.cost_usd));
        let (chosen, stated, tests) = self.choose();
        Ok(self.write(chosen, &stated, tests))
    }

    /// Adds plans that are made for what is expected: a plan for all that may come takes time and money from
    /// the many runs for the sake of the few, which may be late.
    fn judge_expected(&mut self, part: &Part) -> Result<(), PlanFailure> {
        for (nth, plan) in (1..).zip(pareto::of_part(&part.problem, POINTS, FRONT_EFFORT_S)?) {
            let plan = part.widen(self.dense, plan);
            // It is one: the whole has all sizes that the part has.
            let Ok(assignment) = Assignment::of_plan(self.dense, &plan) else { continue };
            let predicted = self.search.timing.pass(&assignment);
            self.judge(format!("plan {nth} of the front of what is expected"), assignment, predicted);
        }
        Ok(())
    }

    fn judge(&mut self, label: String, assignment: Assignment, predicted: PlanSummary) {
        let seed = seed(self.dense, Stage::Judging);
        let drawn = self.chances.unless_hopeless(&assignment, self.draws_judged, seed, self.asked());
        let aimed = 1.0 - AIMED_MISSES * (1.0 - self.probability);
        self.judged.push(Judged {
            label,
            assignment,
            predicted,
            cost_usd: drawn.mean_cost_usd(),
            quantile_ms: drawn.makespan_ms(aimed),
            is_promising: drawn.in_time(self.deadline_ms).high >= self.probability,
        });
    }

    /// Adds candidates for deadlines that leave room for what may come.
    fn tighten(&mut self) {
        let dense = self.dense;
        let passes = anneal::passes(dense, EFFORT_S) / ROUNDS;
        let mut moves = Moves::new(dense, Pcg64::seed_from_u64(dense.problem.seed));
        let mut ratio = self.nearest().map_or(1.0, Judged::ratio);
        for _ in 0..ROUNDS {
            let target_ms = self.deadline_ms / ratio;
            let mut towards =
                Search::under(dense, Objective::Deadline { makespan_ms: target_ms }, &self.search.floor);
            sweep::offer_deadlines(&mut towards, [target_ms, 0.95 * target_ms]);
            if let Some(start) = self.start(target_ms) {
                towards.offer(start.label.clone(), start.assignment.clone());
            }
            if passes > 0 {
                let start = towards.best().assignment.clone();
                let found = anneal::anneal(
                    &mut towards,
                    &mut moves,
                    &start,
                    Descending { passes, threshold: THRESHOLD },
                );
                towards.offer(format!("anneal: {passes} moves towards {target_ms:.0} ms"), found);
            }
            let best = towards.best();
            if self.judged.iter().any(|j| j.assignment == best.assignment) {
                // Another deadline may still lead to another plan.
                ratio *= 1.03;
                continue;
            }
            self.judge(best.label.clone(), best.assignment.clone(), best.timed.summary);
            ratio = self.judged.last().map_or(ratio, Judged::ratio);
        }
    }

    /// The candidate whose quantile is nearest to the deadline.
    fn nearest(&self) -> Option<&Judged> {
        let distance = |j: &Judged| (j.quantile_ms.max(1e-6) / self.deadline_ms.max(1e-6)).ln().abs();
        self.judged.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)))
    }

    /// Where the way to a deadline begins: the cheapest candidate predicted to keep it, else the fastest.
    fn start(&self, target_ms: f64) -> Option<&Judged> {
        let keeps = self.judged.iter().filter(|j| j.predicted.makespan_ms <= target_ms);
        keeps.min_by(|a, b| a.cost_usd.total_cmp(&b.cost_usd)).or_else(|| {
            self.judged.iter().min_by(|a, b| a.predicted.makespan_ms.total_cmp(&b.predicted.makespan_ms))
        })
    }

    /// The cheapest candidate that passes on fresh draws and keeps its word on others, with those; else the
    /// one whose quantile is least. And how many were tested.
    fn choose(&mut self) -> (usize, Distribution, usize) {
        let of = |at: usize| self.judged[at].quantile_ms;
        let safest = (0..self.judged.len()).min_by(|&a, &b| of(a).total_cmp(&of(b))).unwrap_or(0);
        let (mut tests, mut failed_ms) = (0, f64::INFINITY);
        for at in 0..self.judged.len() {
            let Judged { quantile_ms, is_promising, .. } = self.judged[at];
            // On the same draws what is later than one that failed would fail as well.
            let is_worth = is_promising && quantile_ms < failed_ms && tests + 1 < TESTS_MAX;
            if !is_worth && at != safest {
                continue;
            }
            tests += 1;
            let (assignment, seed) = (&self.judged[at].assignment, seed(self.dense, Stage::Test));
            let asked = self.asked();
            let drawn = self.chances.unless_hopeless(assignment, self.draws_tested, seed, asked);
            let hits = (drawn.in_time(self.deadline_ms).measured * f64::from(drawn.draws())).round();
            if wilson(hits as u64, u64::from(drawn.draws()), Z_TEST)[0] >= self.probability {
                let stated = self.state(at);
                if stated.in_time(self.deadline_ms).measured >= self.probability {
                    return (at, stated, tests);
                }
            }
            failed_ms = failed_ms.min(quantile_ms);
        }
        (safest, self.state(safest), tests)
    }

    fn state(&mut self, at: usize) -> Distribution {
        let assignment = &self.judged[at].assignment;
        self.chances.of(assignment, self.draws_tested, seed(self.dense, Stage::Statement))
    }

    fn asked(&self) -> Probable {
        Probable { deadline_ms: self.deadline_ms, probability: self.probability }
    }

    fn write(mut self, chosen: usize, stated: &Distribution, tests: usize) -> Plan {
        let (deadline_ms, probability) = (self.deadline_ms, self.probability);
        let outlook = stated.outlook(&Objective::Confidence { makespan_ms: deadline_ms, probability });
        let mut reasons = vec![self.statement(stated, tests)];
        reasons.push(format!(
            "{} candidates were judged on {} draws each, from cheap to dear by mean cost:",
            self.judged.len(),
            self.draws_judged
        ));
        reasons.extend(
            self.judged
                .iter()
                .map(|j| format!("{}: {:.0} ms aimed at, {:.8} USD", j.label, j.quantile_ms, j.cost_usd)),
        );
        let timed =
            self.judged.iter().map(|j| &j.predicted).chain(self.search.tried.iter().map(|t| &t.summary));
        let nearest = nearest_limit(&self.dense.problem.objective, timed);
        let Judged { label, assignment, .. } = self.judged.swap_remove(chosen);
        let summary = self.search.timing.pass(&assignment);
        let candidate = Candidate { label, assignment, timed: self.search.timing.timed(summary) };
        let mut plan = explain::write(
            self.dense,
            Robust.name(),
            &candidate,
            &self.search.floor,
            Story { reasons, nearest },
        );
        plan.outlook = Some(Box::new(outlook));
        plan
    }

    /// What the draws say about the deadline, in words.
    fn statement(&self, stated: &Distribution, tests: usize) -> String {
        let percent = |p: f64| 100.0 * p;
        let kept = stated.in_time(self.deadline_ms);
        let measured = format!(
            "it ends within {:.0} ms in {:.1} % of {} fresh draws (95 % interval {:.1} to {:.1} %)",
            self.deadline_ms,
            percent(kept.measured),
            stated.draws(),
            percent(kept.low),
            percent(kept.high),
        );
        if kept.measured >= self.probability {
            return format!(
                "Asked for {:.1} %, {measured}; {tests} candidates were tested for that, the cheapest first.",
                percent(self.probability)
            );
        }
        let feasible = match stated.feasible_ms(self.probability) {
            Some(ms) => format!("{:.0} ms is feasible with that probability", ms.ceil()),
            None => "the draws are too few to tell a deadline that is feasible".to_owned(),
        };
        format!(
            "No plan was found that keeps the deadline with {:.1} %: of this one, with the best chance, \
             {measured}; \
             {feasible}.",
            percent(self.probability)
        )
    }
}
