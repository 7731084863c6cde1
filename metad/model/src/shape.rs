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

use serde::{Deserialize, Serialize};

use crate::form::{Form, GRID, SERIALS, default_prior, followers, grid, parallel};
use crate::size::Point;
use crate::stats::{Weighted, median, plain_median, robust_deviation};
use crate::steps;

/// Log error of the form itself at one share.
const MISFIT: f64 = 0.05;
/// Weight of the prior on the misfit, in shares.
const MISFIT_SHARES: f64 = 1.0;
/// Log error within one cell where no cell has two samples.
const NOISE_DEFAULT: f64 = 0.05;
/// Pseudo-tasks that the default prior stands for when other tasks are pooled with it.
const DEFAULT_TASKS: f64 = 1.0;
/// Times that the tasks of a pool look at each other.
const SETTLING_ROUNDS: usize = 3;
/// Steps of a pool's size in which beliefs are told to other tasks.
const COARSE_STEPS: u64 = 128;
/// Grid points that a prediction averages over.
const COMPONENTS_MAX: usize = 12;
/// Two shares are one within this (logarithmic).
const SAME_SHARE: f64 = 0.02;
/// Width of the size cells (logarithmic).
const SIZE_CELL: f64 = 0.1;
/// Resolution of pooled beliefs.
const BELIEF_UNITS: f64 = 32_768.0;

/// Times of about this length and below do not follow the share: a platform lets a task run unthrottled until
/// the share of a scheduling period is spent, which is milliseconds long. Source: P. Turner, B. Rao, N. Rao,
/// "CPU bandwidth control for CFS", Linux Symposium 2010.
const BRIEF_MS: f64 = 1.0;
/// Distinct shares from which on a task's shape needs no other tasks; below, a changed pool fits the task
/// again.
const OWN_SHARES_MIN: usize = 6;

/// Beliefs about the form summed over tasks, in whole units so that the order of the tasks does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pool {
    units: Vec<u64>,
    /// What the units are the sum of, until they are settled.
    told: Vec<Belief>,
    /// What the tasks show of steps between shares.
    pub steps: steps::Sum,
}

/// The belief of one task under the default prior, in units.
pub type Belief = Vec<u16>;

impl Pool {
    /// Adds the belief of a task.
    pub fn add(&mut self, belief: &Belief) {
        self.units.resize(GRID, 0);
        self.units.iter_mut().zip(belief).for_each(|(unit, more)| *unit += u64::from(*more));
        self.told.push(belief.clone());
    }

    /// The sum once every task has looked at the others: two shares of one task say little, but what twenty
    /// such tasks have in common is certain.
    ///
    /// Source: N. Laird, "Nonparametric maximum likelihood estimation of a mixing distribution", JASA 73,
    /// 1978; its iteration from the default prior, stopped early, so that few tasks do not agree too well.
    fn settled(&self) -> Vec<u64> {
        let (default, mut units) = (default_prior(), self.units.clone());
        for _ in 0..SETTLING_ROUNDS {
            let told = trust(&default, &units);
            let mut sum = vec![0.0; units.len()];
            for belief in &self.told {
                let total = agreement(belief, &told);
                sum.iter_mut()
                    .zip(belief)
                    .zip(&told)
                    .for_each(|((sum, b), t)| *sum += f64::from(*b) * t / total);
            }
            units = sum.iter().map(|part| (part * BELIEF_UNITS).round() as u64).collect();
        }
        units
    }

    /// The pool in coarse steps of its own size: it changes seldom, and only then must other tasks be fitted
    /// again.
    pub fn coarse(&self) -> Self {
        let units = self.settled();
        let step = (units.iter().sum::<u64>() / COARSE_STEPS).next_power_of_two();
        let units = units.iter().map(|unit| (unit + step / 2) / step * step).collect();
        Self { units, told: Vec::new(), steps: self.steps.clone().settled() }
    }

    /// Default prior plus the beliefs of the tasks other than the one of `own`.
    fn prior(&self, own: Option<&Belief>) -> Vec<f64> {
        let default = default_prior();
        let mut prior: Vec<f64> = default.iter().map(|p| p * DEFAULT_TASKS).collect();
        let told = trust(&default, &self.units);
        let own_total = own.map_or(1.0, |belief| agreement(belief, &told));
        for (place, unit) in self.units.iter().enumerate() {
            let own = own.map_or(0.0, |belief| f64::from(belief[place]) * told[place] / own_total);
            prior[place] += (*unit as f64 / BELIEF_UNITS - own).max(0.0);
        }
        prior
    }
}

/// How much more the pool believes in each grid point than the default prior does.
fn trust(default: &[f64], units: &[u64]) -> Vec<f64> {
    default
        .iter()
        .zip(units)
        .map(|(prior, unit)| DEFAULT_TASKS + *unit as f64 / BELIEF_UNITS / prior)
        .collect()
}

/// How well a belief agrees with that of a pool.
fn agreement(belief: &Belief, told: &[f64]) -> f64 {
    belief.iter().zip(told).map(|(b, t)| f64::from(*b) * t).sum::<f64>().max(f64::MIN_POSITIVE)
}

/// What the measurements of one task say about its shape.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// Distinct shares, ascending, with the weight of the measurements at each; the weights sum to 1.
    pub shares: Vec<Weighted>,
    ln_likelihood: Vec<f64>,
    cells: Vec<Cell>,
    /// Odds that the task is too short to be slowed down by a small share.
    pub brief_odds: f64,
}

/// Median log time of the measurements at one share and about one size.
#[derive(Debug, Clone)]
struct Cell {
    group: usize,
    /// Which of the sizes, in units of [`SIZE_CELL`].
    bin: i64,
    ln_size: f64,
    ln_value: f64,
    weight: f64,
}

impl Evidence {
    /// Looks at measurements, given with their shares.
    pub fn new(points: &[(f64, Point)]) -> Self {
        let (shares, mut cells) = cells(points);
        // A share weighs as much as its misfit allows, however many cells it has.
        let mut weights = vec![0.0; shares.len()];
        cells.iter().for_each(|cell| weights[cell.group] += cell.weight);
        cells.iter_mut().for_each(|cell| cell.weight /= weights[cell.group].max(1.0));
        weights.iter_mut().for_each(|weight| *weight = weight.min(1.0));
        let total: f64 = weights.iter().sum();
        let ln_likelihood = if shares.len() < 2 { vec![0.0; GRID] } else { ln_likelihood(&cells, &shares) };
        let shares = shares.into_iter().zip(weights.iter().map(|w| w / total)).collect();
        let mut values: Vec<f64> = points.iter().map(|(_, p)| p.value).collect();
        let brief_odds = (BRIEF_MS / plain_median(&mut values).max(f64::MIN_POSITIVE)).powi(2);
        Self { shares, ln_likelihood, cells, brief_odds }
    }

    /// The belief under the default prior, for the pool; nothing from a single share, nor from a task so
    /// short that it says nothing of longer ones.
    pub fn belief(&self) -> Option<Belief> {
        (self.shares.len() >= 2 && self.brief_odds < 1.0).then(|| {
            let posterior = self.posterior(&default_prior());
            posterior.iter().map(|p| (p * BELIEF_UNITS).round() as u16).collect()
        })
    }

    /// The steps between its shares, for the pool; nothing where there is no belief.
    pub fn steps(&self) -> steps::Told {
        // Shares that are one may have a size twice.
        let level = |cells: &[Cell]| {
            let mut sizes: Vec<(i64, f64)> = cells.iter().map(|c| (c.bin, c.ln_value)).collect();
            sizes.sort_by_key(|size| size.0);
            sizes.dedup_by_key(|size| size.0);
            sizes
        };
        let levels = self.cells.chunk_by(|a, b| a.group == b.group);
        let levels: Vec<(f64, Vec<(i64, f64)>)> =
            levels.map(|cells| (self.shares[cells[0].group].0, level(cells))).collect();
        steps::told(&levels)
    }

    /// Whether other tasks help: beyond some shares a task's own measurements say it all.
    pub fn leans_on_pool(&self) -> bool {
        self.shares.len() < OWN_SHARES_MIN
    }

    fn posterior(&self, prior: &[f64]) -> Vec<f64> {
        let most = self.ln_likelihood.iter().fold(f64::MIN, |most, l| most.max(*l));
        let mass: f64 = prior.iter().sum();
        // Where the serial part is all, cap and power mean nothing: the first of them stands for them.
        let flat = GRID - GRID / SERIALS.len();
        let raw = self.ln_likelihood.iter().zip(prior).enumerate().map(|(place, (l, p))| {
            (l - most).exp() * (p + if place == flat { self.brief_odds * mass } else { 0.0 })
        });
        let raw: Vec<f64> = raw.collect();
        let total: f64 = raw.iter().sum();
        raw.iter().map(|p| p / total).collect()
    }
}

/// ln likelihood of every grid point, the size effect and the noise level integrated out.
///
/// With y = ln time and F = ln f per share the residual sum of squares is y'My - 2 F'Z'My + F'Z'MZF, where M
/// projects out a polynomial of ln size and Z assigns shares (A. Frisch and F. Waugh, Econometrica 1, 1933);
/// a conjugate prior on the noise gives -(nu + n) / 2 ln(nu m^2 + RSS) (Gelman et al., Bayesian Data
/// Analysis, 3.2).
fn ln_likelihood(cells: &[Cell], shares: &[f64]) -> Vec<f64> {
    let weights: Vec<f64> = cells.iter().map(|c| c.weight).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).zip(&weights).map(|((a, b), w)| a * b * w).sum::<f64>();
    let basis = size_basis(cells, &weights);
    let project = |mut column: Vec<f64>| {
        for direction in &basis {
            let part = dot(&column, direction);
            column.iter_mut().zip(direction).for_each(|(c, d)| *c -= part * d);
        }
        column
    };
    let y = project(cells.iter().map(|c| c.ln_value).collect());
    let columns: Vec<Vec<f64>> = (0..shares.len())
        .map(|group| project(cells.iter().map(|c| if c.group == group { 1.0 } else { 0.0 }).collect()))
        .collect();
    let linear: Vec<f64> = columns.iter().map(|z| dot(z, &y)).collect();
    let square: Vec<Vec<f64>> = columns.iter().map(|a| columns.iter().map(|b| dot(a, b)).collect()).collect();
    let constant = dot(&y, &y);
    let known = weights.iter().sum::<f64>().min(shares.len() as f64) - 1.0;
    let parallels: Vec<f64> = followers()
        .flat_map(|((cap, power), _)| shares.iter().map(move |share| parallel(cap, power, *share)))
        .collect();
    let mut f = vec![0.0; shares.len()];
    let mut ln_likelihood = Vec::with_capacity(GRID);
    for serial in SERIALS {
        for parallel in parallels.chunks_exact(shares.len()) {
            f.iter_mut().zip(parallel).for_each(|(f, p)| *f = (serial + (1.0 - serial) * p).ln());
            let mut rss = constant;
            for (i, fi) in f.iter().enumerate() {
                rss -= 2.0 * fi * linear[i];
                rss += fi * square[i].iter().zip(&f).map(|(z, fj)| z * fj).sum::<f64>();
            }
            let scatter = (MISFIT_SHARES * MISFIT * MISFIT + rss.max(0.0)).ln();
            ln_likelihood.push(-(MISFIT_SHARES + known.max(0.0)) / 2.0 * scatter);
        }
    }
    ln_likelihood
}

/// Orthonormal directions of 1, ln size and its square, as far as the sizes vary.
fn size_basis(cells: &[Cell], weights: &[f64]) -> Vec<Vec<f64>> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).zip(weights).map(|((a, b), w)| a * b * w).sum::<f64>();
    let mut sizes: Vec<f64> = cells.iter().map(|c| c.ln_size).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup_by(|a, b| (*a - *b).abs() < SIZE_CELL / 2.0);
    let degree = match sizes.len() {
        1 => 0,
        2..=4 => 1,
        _ => 2,
    };
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(3);
    for power in 0..=degree {
        let mut column: Vec<f64> = cells.iter().map(|c| (c.ln_size - sizes[0]).powi(power)).collect();
        let before = dot(&column, &column);
        for direction in &basis {
            let part = dot(&column, direction);
            column.iter_mut().zip(direction).for_each(|(c, d)| *c -= part * d);
        }
        let norm = dot(&column, &column);
        if norm > before * 1e-9 {
            column.iter_mut().for_each(|c| *c /= norm.sqrt());
            basis.push(column);
        }
    }
    basis
}

fn cells(points: &[(f64, Point)]) -> (Vec<f64>, Vec<Cell>) {
    // (share, cell of the size, ln size, ln value, weight)
    let mut sorted: Vec<(f64, f64, f64, f64, f64)> = points
        .iter()
        .map(|(share, p)| {
            let ln_size = p.size.ln_1p();
            (*share, (ln_size / SIZE_CELL).round(), ln_size, p.value.ln(), p.weight)
        })
        .collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut shares: Vec<f64> = Vec::new();
    let mut raw: Vec<(usize, f64, f64, f64, f64)> = Vec::new();
    for group in sorted.chunk_by(|a, b| a.0 == b.0 && a.1 == b.1) {
        let share = group[0].0;
        if shares.last().is_none_or(|last| (share / last).ln() > SAME_SHARE) {
            shares.push(share);
        }
        let mut values: Vec<Weighted> = group.iter().map(|p| (p.3, p.4)).collect();
        let middle = median(&mut values);
        let size = group.iter().map(|p| p.2).sum::<f64>() / group.len() as f64;
        raw.push((shares.len() - 1, size, middle, robust_deviation(&values, middle), group.len() as f64));
    }
    let mut noise: Vec<Weighted> = raw.iter().filter(|c| c.4 >= 2.0).map(|c| (c.3, c.4)).collect();
    let noise = if noise.is_empty() { NOISE_DEFAULT } else { median(&mut noise) };
    let cell = |&(group, ln_size, ln_value, _, count): &(usize, f64, f64, f64, f64)| {
        let weight = MISFIT * MISFIT / (MISFIT * MISFIT + noise * noise / count);
        Cell { group, bin: (ln_size / SIZE_CELL).round() as i64, ln_size, ln_value, weight }
    };
    (shares, raw.iter().map(cell).collect())
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
        let posterior = evidence.posterior(&pool.prior(evidence.belief().as_ref()));
        let mut ranked: Vec<(f64, usize)> = posterior.into_iter().zip(0..).collect();
        // One share says nothing about the form: then every grid point speaks, however faintly.
        let most = if evidence.shares.len() < 2 { COMPONENTS_MAX * 2 } else { COMPONENTS_MAX };
        let best = |a: &(f64, usize), b: &(f64, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        ranked.select_nth_unstable_by(most, best);
        ranked.truncate(most);
        ranked.sort_unstable_by(best);
        let forms: Vec<Form> = grid().collect();
        let likeliest = forms[ranked[0].1];
        let total: f64 = ranked.iter().map(|r| r.0).sum();
        let component = |&(belief, place): &(f64, usize)| {
            let form = forms[place];
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

#[cfg(test)]
mod tests {
    use super::*;

    fn form(serial: f64, cap: f64) -> Form {
        Form { serial, cap, power: 1.0 }
    }

    fn measured(serial: f64, cap: f64, shares: &[f64]) -> Vec<(f64, Point)> {
        let point = |share: f64, n: i32| Point {
            at_us: 0,
            size: 0.0,
            value: 1000.0 * form(serial, cap).slowdown(share) * (1.0 + 0.01 * f64::from(n - 2)),
            weight: 1.0,
        };
        shares.iter().flat_map(|share| (0..5).map(move |n| (*share, point(*share, n)))).collect()
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
            pool.add(&flat.belief().unwrap());
        }
        let ratio = |pool: &Pool| {
            let shape = Shape::new(&alone, pool);
            shape.factor(0.5).0 / shape.factor(1.0).0
        };
        assert!(ratio(&Pool::default()) > 1.7, "{}", ratio(&Pool::default()));
        assert!(ratio(&pool) < 1.3, "{}", ratio(&pool));
    }
}
