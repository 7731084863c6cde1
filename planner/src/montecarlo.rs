//! Monte-Carlo: the distribution of a plan's makespan and cost over drawn times.
//!
//! Every draw is one pass of the timing model with the times of [`crate::draw`]: cold starts, contention for
//! lanes, links and places, and who waits for whom come out anew each time. A quantile of a workflow is not
//! the sum of the quantiles of its tasks, so there is no shorter way. One draw costs about what a plain pass
//! does; the memory is kept from draw to draw. Where the width of a fan-out is drawn, a draw carries out the
//! plan of all tasks, without those that do not run.
//!
//! Source: Program Evaluation by Monte-Carlo (Van Slyke, Operations Research 1963). Intervals of
//! probabilities: Wilson, J. Am. Stat. Assoc. 1927.

use foresail_schemas::plan::{Objective, Plan, PlanSummary, Problem};
use foresail_schemas::uncertainty::{Outlook, Probability, Range, Uncertainty};

use crate::assignment::Assignment;
use crate::decisions;
use crate::dense::Dense;
use crate::draw::{Draw, Sampler};
use crate::error::{DrawFailure, SimulationFailure};
use crate::expected::Part;
use crate::timing::Timing;

/// Most draws of one call.
pub const DRAWS_MAX: u32 = 1_000_000;
/// Tasks timed by [`draws_for`].
const TASKS_TIMED_MAX: u32 = 4_000_000;
/// Fewest and most draws of [`draws_for`].
const DRAWS: [u32; 2] = [200, 2_000];
/// The normal quantile of a two-sided interval of 95 %.
pub(crate) const Z95: f64 = 1.959_963_984_540_054;

/// Draws between two looks at whether a plan is hopeless.
const BLOCK: u32 = 50;
/// The normal quantile of an interval that even dozens of looks hardly ever break.
const Z_HOPELESS: f64 = 4.0;

/// A deadline and the probability it shall be kept with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probable {
    pub deadline_ms: f64,
    pub probability: f64,
}

/// What a plan takes and costs over many draws.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    seed: u64,
    certain_tasks: u32,
    cold_starts: f64,
    mean_ms: f64,
    mean_usd: f64,
    /// Ascending.
    makespan_ms: Vec<f64>,
    /// Ascending.
    cost_usd: Vec<f64>,
}

impl Distribution {
    /// Number of draws.
    #[must_use]
    pub fn draws(&self) -> u32 {
        self.makespan_ms.len() as u32
    }

    /// The makespan in ms that this part of the draws does not exceed, for `quantile` in [0, 1].
    #[must_use]
    pub fn makespan_ms(&self, quantile: f64) -> f64 {
        at(&self.makespan_ms, quantile)
    }

    /// The cost in USD that this part of the draws does not exceed, for `quantile` in [0, 1].
    #[must_use]
    pub fn cost_usd(&self, quantile: f64) -> f64 {
        at(&self.cost_usd, quantile)
    }

    /// Mean makespan in ms.
    #[must_use]
    pub fn mean_makespan_ms(&self) -> f64 {
        self.mean_ms
    }

    /// Mean cost in USD.
    #[must_use]
    pub fn mean_cost_usd(&self) -> f64 {
        self.mean_usd
    }

    /// Probability that the run ends by a deadline in ms.
    #[must_use]
    pub fn in_time(&self, deadline_ms: f64) -> Probability {
        probability(&self.makespan_ms, deadline_ms)
    }

    /// Probability that the run costs no more than a budget in USD.
    #[must_use]
    pub fn in_budget(&self, budget_usd: f64) -> Probability {
        probability(&self.cost_usd, budget_usd)
    }

    /// The shortest deadline in ms of which the draws say with 95 % confidence that it is kept with
    /// `probability`; nothing where the draws are too few to say so of any.
    #[must_use]
    pub fn feasible_ms(&self, probability: f64) -> Option<f64> {
        let draws = u64::from(self.draws());
        let first = (probability * draws as f64).floor().max(1.0) as u64;
        let enough = (first..=draws).find(|&hits| wilson(hits, draws, Z95)[0] >= probability)?;
        self.makespan_ms.get(enough as usize - 1).copied()
    }

    /// The distribution in short, with the probabilities that `objective` asks about.
    #[must_use]
    pub fn outlook(&self, objective: &Objective) -> Outlook {
        let (mut in_time, mut in_budget, mut asked, mut feasible_ms) = (None, None, None, None);
        match *objective {
            Objective::Deadline { makespan_ms } => in_time = Some(self.in_time(makespan_ms)),
            Objective::Confidence { makespan_ms, probability } => {
                in_time = Some(self.in_time(makespan_ms));
                asked = Some(probability);
                feasible_ms = self.feasible_ms(probability);
            }
            Objective::Budget { cost_usd } => in_budget = Some(self.in_budget(cost_usd)),
            Objective::Fastest | Objective::Cheapest | Objective::Balance { .. } => {}
        }
        Outlook {
            draws: self.draws(),
            seed: self.seed,
            certain_tasks: self.certain_tasks,
            makespan_ms: range(&self.makespan_ms, self.mean_ms),
            cost_usd: range(&self.cost_usd, self.mean_usd),
            cold_starts: self.cold_starts,
            in_time,
            in_budget,
            asked,
            feasible_ms,
        }
    }
}

fn at(sorted: &[f64], quantile: f64) -> f64 {
    let rank = (quantile.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

fn range(sorted: &[f64], mean: f64) -> Range {
    let [p5, median, p90, p95, p99] = [0.05, 0.5, 0.9, 0.95, 0.99].map(|q| at(sorted, q));
    Range { mean, p5, median, p90, p95, p99 }
}

fn probability(sorted: &[f64], limit: f64) -> Probability {
    let (hits, draws) = (sorted.partition_point(|&x| x <= limit) as u64, sorted.len() as u64);
    let [low, high] = wilson(hits, draws, Z95);
    Probability { limit, measured: hits as f64 / draws as f64, low, high }
}

/// Wilson's interval of a probability of which `hits` of `draws` were seen, `z` standard deviations wide.
#[must_use]
pub fn wilson(hits: u64, draws: u64, z: f64) -> [f64; 2] {
    let n = draws.max(1) as f64;
    let (seen, square) = (hits as f64 / n, z * z);
    let centre = seen + square / (2.0 * n);
    let half = z * (seen * (1.0 - seen) / n + square / (4.0 * n * n)).sqrt();
    let [low, high] = [centre - half, centre + half].map(|x| (x / (1.0 + square / n)).clamp(0.0, 1.0));
    // Exact where rounding would leave a trace.
    [if hits == 0 { 0.0 } else { low }, if hits == draws { 1.0 } else { high }]
}

/// As many draws as take about half a second for a workflow of so many tasks.
#[must_use]
pub fn draws_for(tasks: usize) -> u32 {
    let tasks = u32::try_from(tasks).unwrap_or(u32::MAX).max(1);
    (TASKS_TIMED_MAX / tasks).clamp(DRAWS[0], DRAWS[1])
}

/// Draws what `plan` takes and costs, `draws` times. The same seed gives the same draws, whatever the plan.
///
/// # Errors
/// [`DrawFailure`] when problem or plan are not valid, the predictions carry no distributions, or `draws` is
/// 0 or more than [`DRAWS_MAX`].
pub fn monte_carlo(
    problem: &Problem,
    plan: &Plan,
    draws: u32,
    seed: u64,
) -> Result<Distribution, DrawFailure> {
    if draws == 0 || draws > DRAWS_MAX {
        return Err(DrawFailure::Draws { draws, draws_max: DRAWS_MAX });
    }
    if plan.flexible.is_some() {
        return Err(DrawFailure::Flexible);
    }
    plan.check(&problem.workflow).map_err(SimulationFailure::from)?;
    if decisions::has_drawn(problem) {
        // What is not expected is placed too, and runs in some of the draws.
        let dense = Dense::new(problem).map_err(SimulationFailure::from)?;
        let chances = Chances::new(&dense).ok_or(DrawFailure::NoDistributions)?;
        let assignment = Assignment::of_plan(&dense, plan)?;
        return Ok(chances.expecting(plan).of(&assignment, draws, seed));
    }
    let part = Part::of_plan(problem, plan);
    let narrow = part.as_ref().map(|part| part.narrow(plan));
    let problem = part.as_ref().map_or(problem, |part| &part.problem);
    let plan = narrow.as_ref().unwrap_or(plan);
    let dense = Dense::new(problem).map_err(SimulationFailure::from)?;
    let mut chances = Chances::new(&dense).ok_or(DrawFailure::NoDistributions)?;
    let assignment = Assignment::of_plan(&dense, plan)?;
    Ok(chances.of(&assignment, draws, seed))
}

/// Draws for any number of assignments of one problem.
#[derive(Debug)]
pub(crate) struct Chances<'a> {
    timing: Timing<'a>,
    sampler: Sampler<'a>,
}

impl<'a> Chances<'a> {
    /// Nothing where the problem has no distributions.
    pub fn new(dense: &'a Dense<'a>) -> Option<Self> {
        let uncertainty = dense.problem.predictions.uncertainty.as_ref()?;
        Some(Self::by(dense, uncertainty))
    }

    /// With distributions from elsewhere.
    pub fn by(dense: &'a Dense<'a>, uncertainty: &'a Uncertainty) -> Self {
        Self { timing: Timing::new(dense), sampler: Sampler::new(dense, uncertainty) }
    }

    /// The same for a plan that does not expect all tasks.
    fn expecting(self, plan: &Plan) -> Self {
        let sampler = self.sampler.expecting(|t| !plan.tasks[t as usize].unexpected);
        Self { sampler, ..self }
    }

    /// What each draw gives for one assignment.
    pub fn summaries(&mut self, assignment: &Assignment, draws: u32, seed: u64) -> Vec<PlanSummary> {
        self.sampler.seed(seed);
        (0..draws).map(|_| self.one(assignment)).collect()
    }

    fn one(&mut self, assignment: &Assignment) -> PlanSummary {
        let draw = self.timing.draw.get_or_insert_with(Draw::default);
        self.sampler.draw(&assignment.size, draw);
        self.timing.pass(assignment)
    }

    /// Draws for one assignment.
    pub fn of(&mut self, assignment: &Assignment, draws: u32, seed: u64) -> Distribution {
        let drawn = self.summaries(assignment, draws, seed);
        self.distribution(assignment, &drawn, seed)
    }

    /// As [`Self::of`], but ends after any block of [`BLOCK`] draws by which it is as good as certain that
    /// the deadline is not kept with the probability.
    pub fn unless_hopeless(
        &mut self,
        assignment: &Assignment,
        draws: u32,
        seed: u64,
        asked: Probable,
    ) -> Distribution {
        self.sampler.seed(seed);
        let (mut drawn, mut hits) = (Vec::with_capacity(draws as usize), 0);
        while drawn.len() < draws as usize {
            let one = self.one(assignment);
            hits += u64::from(one.makespan_ms <= asked.deadline_ms);
            drawn.push(one);
            let is_look = (drawn.len() as u32).is_multiple_of(BLOCK);
            if is_look && wilson(hits, drawn.len() as u64, Z_HOPELESS)[1] < asked.probability {
                break;
            }
        }
        self.distribution(assignment, &drawn, seed)
    }

    fn distribution(&self, assignment: &Assignment, drawn: &[PlanSummary], seed: u64) -> Distribution {
        let mut makespan_ms: Vec<f64> = drawn.iter().map(|d| d.makespan_ms).collect();
        let mut cost_usd: Vec<f64> = drawn.iter().map(|d| d.cost_usd).collect();
        let cold_starts: u64 = drawn.iter().map(|d| d.cold_starts).sum();
        let draws = drawn.len() as f64;
        let mean = |of: &[f64]| of.iter().sum::<f64>() / draws;
        let (mean_ms, mean_usd) = (mean(&makespan_ms), mean(&cost_usd));
        makespan_ms.sort_by(f64::total_cmp);
        cost_usd.sort_by(f64::total_cmp);
        Distribution {
            seed,
            certain_tasks: self.sampler.certain(&assignment.size),
            cold_starts: cold_starts as f64 / draws,
            mean_ms,
            mean_usd,
            makespan_ms,
            cost_usd,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilsons_interval_is_that_of_the_tables() {
        // 81 of 263: Newcombe, Statistics in Medicine 1998, table I.
        let [low, high] = wilson(81, 263, Z95);
        assert!((low - 0.2553).abs() < 5e-5 && (high - 0.3662).abs() < 5e-5, "{low} {high}");
        assert_eq!(wilson(0, 10, Z95)[0], 0.0);
        assert_eq!(wilson(10, 10, Z95)[1], 1.0);
    }

    #[test]
    fn quantiles_are_values_that_were_drawn() {
        let drawn = [1.0, 2.0, 3.0, 4.0];
        assert_eq!([0.0, 0.25, 0.26, 0.5, 1.0].map(|q| at(&drawn, q)), [1.0, 1.0, 2.0, 2.0, 4.0]);
        let kept = probability(&drawn, 3.0);
        assert!((kept.measured - 0.75).abs() < 1e-12 && kept.low < 0.75 && kept.high > 0.75);
    }
}
