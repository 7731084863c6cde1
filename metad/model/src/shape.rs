//! How a task's time follows its CPU share: f(share) = s + (1 - s) / min(share, cap)^power, fitted, never a
//! fixed exponent.
//!
//! The serial part s does not get faster with a larger share, the rest does up to cap vCPUs. Source of the
//! form: G. M. Amdahl, "Validity of the single processor approach", AFIPS 1967, with a cap for the threads
//! that a task has.
//!
//! (s, cap, power) is not one value but a distribution on a grid: a prior times the likelihood of the task's
//! own measurements at different shares. Predictions average over it, so that little evidence gives a
//! cautious answer with an honest error.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::evidence::Evidence;
use crate::form::{FORMS, Form, GRID, PRIOR};
use crate::steps;

/// Pseudo-tasks that the default prior stands for when other tasks are pooled with it.
const DEFAULT_TASKS: f64 = 1.0;
/// Times that the tasks of a pool look at each other.
const SETTLING_ROUNDS: usize = 3;
/// Steps of a pool's size in which beliefs are told to other tasks.
const COARSE_STEPS: u32 = 128;
/// Grid points that a prediction averages over.
const COMPONENTS_MAX: usize = 12;
/// Resolution of pooled beliefs.
pub const BELIEF_UNITS: f64 = 32_768.0;

/// Beliefs about the form summed over tasks, at most 64 thousand, in whole units so that the order of the
/// tasks does not matter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pool {
    units: Vec<u32>,
    /// What the units are the sum of, until they are settled.
    told: Vec<Belief>,
    /// The units as tasks, and how much more that believes in each grid point than the default prior does,
    /// once it is settled.
    tasks: Vec<f64>,
    trust: Vec<f32>,
    /// What the tasks show of steps between shares.
    pub steps: steps::Sum,
}

/// The belief of one task under the default prior, in units for each form. Few measurements leave some in
/// nearly all of them, so that a list of those with any would be longer and slower.
pub type Belief = Arc<[u16; GRID]>;

impl Pool {
    /// Adds the belief of a task.
    pub fn add(&mut self, belief: &Belief) {
        self.units.resize(GRID, 0);
        self.units.iter_mut().zip(belief.iter()).for_each(|(units, more)| *units += u32::from(*more));
        self.told.push(Arc::clone(belief));
    }

    /// The sum once every task has looked at the others: two shares of one task say little, but what twenty
    /// such tasks have in common is certain.
    ///
    /// Source: N. Laird, "Nonparametric maximum likelihood estimation of a mixing distribution", JASA 73,
    /// 1978; its iteration from the default prior, stopped early, so that few tasks do not agree too well.
    fn settled(&self) -> Vec<u32> {
        let mut units = self.units.clone();
        let mut agreed = [0.0; GRID];
        for _ in 0..SETTLING_ROUNDS {
            let told = trust(&units);
            let mut sum = vec![0.0_f32; units.len()];
            for belief in &self.told {
                let part = 1.0 / agreement(belief, &told, &mut agreed);
                sum.iter_mut().zip(&agreed).for_each(|(sum, agreed)| *sum += agreed * part);
            }
            units = sum.iter().map(|part| (part * BELIEF_UNITS as f32 + 0.5) as u32).collect();
        }
        units
    }

    /// The pool in coarse steps of its own size: it changes seldom, and only then must other tasks be fitted
    /// again.
    pub fn coarse(self) -> Self {
        let units = self.settled();
        let step = (units.iter().sum::<u32>() / COARSE_STEPS).next_power_of_two();
        let units: Vec<u32> = units.iter().map(|unit| (unit + step / 2) & !(step - 1)).collect();
        let tasks = units.iter().map(|unit| f64::from(*unit) / BELIEF_UNITS).collect();
        let trust = trust(&units);
        Self { units, told: Vec::new(), tasks, trust, steps: self.steps.settled() }
    }

    /// Default prior plus the beliefs of the tasks other than the one of `own`.
    fn prior(&self, own: Option<&Belief>) -> Vec<f64> {
        let default = PRIOR.iter().map(|p| p * DEFAULT_TASKS);
        if self.tasks.is_empty() {
            return default.collect();
        }
        let Some(own) = own else { return default.zip(&self.tasks).map(|(p, tasks)| p + tasks).collect() };
        let mut agreed = [0.0; GRID];
        let part = 1.0 / f64::from(agreement(own, &self.trust, &mut agreed));
        let others =
            self.tasks.iter().zip(agreed).map(|(tasks, own)| (tasks - f64::from(own) * part).max(0.0));
        default.zip(others).map(|(prior, more)| prior + more).collect()
    }
}

/// How much more the pool believes in each grid point than the default prior does. In single precision: it
/// is a weight of beliefs that are known to a part of 30,000.
fn trust(units: &[u32]) -> Vec<f32> {
    let more =
        |(prior, unit): (&f64, &u32)| (DEFAULT_TASKS + f64::from(*unit) / (BELIEF_UNITS * prior)) as f32;
    PRIOR.iter().zip(units).map(more).collect()
}

/// How well a belief agrees with that of a pool, in all and at each grid point.
fn agreement(belief: &Belief, told: &[f32], agreed: &mut [f32; GRID]) -> f32 {
    const LANES: usize = 16;
    const { assert!(GRID.is_multiple_of(LANES), "nothing is left over") };
    // Sums that do not wait for each other.
    let mut sums = [0.0; LANES];
    let beliefs = belief.chunks_exact(LANES).zip(told.chunks_exact(LANES));
    for (agreed, (units, told)) in agreed.chunks_exact_mut(LANES).zip(beliefs) {
        for lane in 0..LANES {
            agreed[lane] = f32::from(units[lane]) * told[lane];
            sums[lane] += agreed[lane];
        }
    }
    sums.iter().sum::<f32>().max(f32::MIN_POSITIVE)
}

/// The fitted shape of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    components: Vec<Component>,
    /// The most likely form.
    pub likeliest: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Component {
    belief: f64,
    gain: f64,
    form: Form,
}

impl Shape {
    /// The shape that `evidence` and the other tasks of the `pool` suggest.
    pub fn new(evidence: &Evidence, pool: &Pool) -> Self {
        let posterior = evidence.posterior(&pool.prior(evidence.belief.as_ref()));
        // One share says nothing about the form: then every grid point speaks, however faintly.
        let most = if evidence.shares.len() < 2 { COMPONENTS_MAX * 2 } else { COMPONENTS_MAX };
        let ranked = best(&posterior, most);
        let likeliest = FORMS[ranked[0].1];
        let total: f64 = ranked.iter().map(|r| r.0).sum();
        let component = |&(belief, place): &(f64, usize)| {
            let form = FORMS[place];
            let level: f64 = evidence.shares.iter().map(|(share, w)| w * form.slowdown(*share).ln()).sum();
            Component { belief: belief / total, gain: (-level).exp(), form }
        };
        Self { components: ranked.iter().map(component).collect(), likeliest }
    }

    /// The factor on the time at `share` and its relative standard deviation.
    pub fn factor(&self, share: f64) -> (f64, f64) {
        let (mut mean, mut square) = (0.0, 0.0);
        for c in &self.components {
            let f = c.gain * c.form.slowdown(share);
            mean += c.belief * f;
            square += c.belief * f * f;
        }
        let mean = mean.max(f64::MIN_POSITIVE);
        let sigma = ((square / (mean * mean)) - 1.0).max(0.0).sqrt();
        let one_share = self.components.len() > COMPONENTS_MAX;
        (if one_share { self.midmean(share) } else { mean }, sigma)
    }

    /// The geometric mean of the middle half of the beliefs: after one share they are of several kinds of
    /// tasks, and a mean of all lies between the kinds.
    ///
    /// Source: J. W. Tukey, Exploratory Data Analysis, 1977 (the midmean).
    fn midmean(&self, share: f64) -> f64 {
        let mut factors = [(0.0, 0.0); COMPONENTS_MAX * 2];
        for (place, c) in factors.iter_mut().zip(&self.components) {
            *place = (c.gain * c.form.slowdown(share), c.belief);
        }
        factors.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let (mut below, mut sum, mut total) = (0.0_f64, 0.0, 0.0);
        for (factor, belief) in factors {
            let part = (below + belief).min(0.75) - below.max(0.25);
            below += belief;
            if part > 0.0 {
                sum += part * factor.ln();
                total += part;
            }
        }
        (sum / total).exp()
    }
}

/// The `most` largest of values, largest first, with their places; of equal ones the first.
fn best(values: &[f64], most: usize) -> Vec<(f64, usize)> {
    let mut best: Vec<(f64, usize)> = Vec::with_capacity(most + 1);
    let mut least = f64::NEG_INFINITY;
    for (place, value) in values.iter().enumerate() {
        // Most values end here.
        if *value <= least {
            continue;
        }
        let rank = best.iter().rposition(|better| better.0 >= *value).map_or(0, |rank| rank + 1);
        best.insert(rank, (*value, place));
        best.truncate(most);
        least = if best.len() == most { best[most - 1].0 } else { least };
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::Shared;
    use crate::size::Point;

    fn form(serial: f64, cap: f64) -> Form {
        Form { serial, cap, power: 1.0 }
    }

    fn measured(serial: f64, cap: f64, shares: &[f64]) -> Shared {
        let point = |share: f64, n: i32| Point {
            at_us: 0,
            size: 0.0,
            value: 1000.0 * form(serial, cap).slowdown(share) * (1.0 + 0.01 * f64::from(n - 2)),
            weight: 1.0,
        };
        Shared::new(shares.iter().map(|share| (*share, (0..5).map(|n| point(*share, n)).collect())))
    }

    #[test]
    fn an_unseen_share_is_predicted_from_the_others() {
        for (serial, cap) in [(0.0, 1.0), (0.2, 2.0), (1.0, 1.0), (0.05, 1e6), (0.5, 1.0)] {
            let points = measured(serial, cap, &[0.25, 0.5, 1.0, 4.0]);
            let shape = Shape::new(&Evidence::new(&points), &Pool::default());
            let expected = form(serial, cap).slowdown(2.0) / form(serial, cap).slowdown(1.0);
            let found = shape.factor(2.0).0 / shape.factor(1.0).0;
            assert!((found / expected - 1.0).abs() < 0.12, "s {serial} cap {cap}: {found} of {expected}");
        }
    }

    #[test]
    fn other_tasks_of_the_workflow_inform_a_task_with_one_share() {
        let alone = Evidence::new(&measured(0.0, 1.0, &[1.0]));
        let mut pool = Pool::default();
        for _ in 0..20 {
            let flat = Evidence::new(&measured(1.0, 1.0, &[0.25, 0.5, 1.0, 2.0]));
            pool.add(&flat.belief.unwrap());
        }
        let pool = pool.coarse();
        let ratio = |pool: &Pool| {
            let shape = Shape::new(&alone, pool);
            shape.factor(0.5).0 / shape.factor(1.0).0
        };
        assert!(ratio(&Pool::default()) > 1.7, "{}", ratio(&Pool::default()));
        assert!(ratio(&pool) < 1.3, "{}", ratio(&pool));
    }
}
