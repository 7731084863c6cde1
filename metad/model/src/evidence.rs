//! What the measurements of one task say about how its time follows its CPU share: a likelihood of every
//! point of the grid of forms.
//!
//! Log times are compared between shares at alike sizes, so that the size model does not matter. Shares are
//! vCPUs, sizes bytes, times ms; all of them on logarithmic axes.

use std::sync::{Arc, OnceLock};

use crate::form::{FORMS, GRID, POWERS, PRIOR, SERIALS, caps_below, of_forms, parallel, with_caps};
use crate::shape::{BELIEF_UNITS, Belief};
use crate::shared::Shared;
use crate::size::ln_of_size;
use crate::stats::{Weighted, median, plain_median, sorted_deviation, sum, sums};
use crate::steps;

/// Log error of the form itself at one share.
const MISFIT: f64 = 0.05;
/// Weight of the prior on the misfit, in shares.
const MISFIT_SHARES: f64 = 1.0;
/// Log error within one cell where no cell has two samples.
const NOISE_DEFAULT: f64 = 0.05;
/// Two shares are one within this (logarithmic).
const SAME_SHARE: f64 = 0.02;
/// Width of the size cells (logarithmic).
const SIZE_CELL: f64 = 0.1;
/// Distinct sizes from which on the size effect may be curved.
const SIZES_CURVED_MIN: usize = 5;
/// Times of about this length and below do not follow the share: a platform lets a task run unthrottled until
/// the share of a scheduling period is spent, which is milliseconds long. Source: P. Turner, B. Rao, N. Rao,
/// "CPU bandwidth control for CFS", Linux Symposium 2010.
const BRIEF_MS: f64 = 1.0;
/// Distinct shares from which on a task's shape needs no other tasks; below, a changed pool fits the task
/// again.
const OWN_SHARES_MIN: usize = 6;

/// What the measurements of one task say about its shape.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// Distinct shares, ascending, with the weight of the measurements at each; the weights sum to 1.
    pub shares: Vec<Weighted>,
    /// Likelihood of every grid point over that of the likeliest; nothing from a single share.
    likelihood: Option<Vec<f64>>,
    cells: Vec<Cell>,
    /// Log error of a measurement at one share and about one size.
    pub noise: f64,
    /// Odds that the task is too short to be slowed down by a small share.
    pub brief_odds: f64,
    /// The belief under the default prior, for the pool; nothing from a single share, nor from a task so
    /// short that it says nothing of longer ones.
    pub belief: Option<Belief>,
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
    /// Looks at measurements.
    pub fn new(shared: &Shared) -> Self {
        let (shares, mut cells, noise) = cells(shared);
        // A share weighs as much as its misfit allows, however many cells it has.
        let mut weights = vec![0.0; shares.len()];
        cells.iter().for_each(|cell| weights[cell.group] += cell.weight);
        cells.iter_mut().for_each(|cell| cell.weight /= weights[cell.group].max(1.0));
        weights.iter_mut().for_each(|weight| *weight = weight.min(1.0));
        let total: f64 = weights.iter().sum();
        let likelihood = (shares.len() >= 2).then(|| likelihood(&cells, &shares));
        let shares: Vec<Weighted> = shares.into_iter().zip(weights.iter().map(|w| w / total)).collect();
        let middle = plain_median(shared.ln_values.iter().copied()).exp();
        let brief_odds = (BRIEF_MS / middle.max(f64::MIN_POSITIVE)).powi(2);
        let mut evidence = Self { shares, likelihood, cells, noise, brief_odds, belief: None };
        if evidence.likelihood.is_some() && brief_odds < 1.0 {
            // Added to a number it leaves the nearest whole one in the lowest bits.
            const WHOLE: f64 = (1_u64 << 52) as f64;
            let units = |p: f64| (p * BELIEF_UNITS + WHOLE).to_bits() as u16;
            let posterior = evidence.posterior(&PRIOR);
            let mut believed = [0; GRID];
            believed.iter_mut().zip(posterior).for_each(|(told, p)| *told = units(p));
            evidence.belief = Some(Arc::new(believed));
        }
        evidence
    }

    /// What the steps between its shares are taken from, for the pool.
    pub fn levels(&self) -> Vec<steps::Levels> {
        let level = |cells: &[Cell]| {
            let mut sizes: Vec<(u16, f32)> =
                cells.iter().map(|c| (c.bin as u16, c.ln_value as f32)).collect();
            // Shares that are one may have a size twice.
            if !sizes.is_sorted_by(|a, b| a.0 < b.0) {
                sizes.sort_by_key(|size| size.0);
                sizes.dedup_by_key(|size| size.0);
            }
            sizes
        };
        let levels = self.cells.chunk_by(|a, b| a.group == b.group);
        levels.map(|cells| (self.shares[cells[0].group].0, level(cells))).collect()
    }

    /// Whether other tasks help: beyond some shares a task's own measurements say it all.
    pub fn leans_on_pool(&self) -> bool {
        self.shares.len() < OWN_SHARES_MIN
    }

    /// The belief in every grid point after a `prior` one, 1 in sum.
    pub fn posterior(&self, prior: &[f64]) -> Vec<f64> {
        let mass = sum(prior.len(), |place| prior[place]);
        let mut posterior = prior.to_vec();
        // Where the serial part is all, cap and power mean nothing: the first of them stands for them.
        posterior[GRID - GRID / SERIALS.len()] += self.brief_odds * mass;
        if let Some(likelihood) = &self.likelihood {
            posterior.iter_mut().zip(likelihood).for_each(|(p, l)| *p *= l);
        }
        let total = sum(posterior.len(), |place| posterior[place]);
        let part = 1.0 / total;
        posterior.iter_mut().for_each(|p| *p *= part);
        posterior
    }
}

/// Likelihood of every grid point over that of the likeliest, the size effect and the noise level integrated
/// out.
///
/// With y = ln time and F = ln f per share the residual sum of squares is y'My - 2 F'Z'My + F'Z'MZF, where M
/// projects out a polynomial of ln size and Z assigns shares (A. Frisch and F. Waugh, Econometrica 1, 1933);
/// a conjugate prior on the noise gives -(nu + n) / 2 ln(nu m^2 + RSS) (Gelman et al., Bayesian Data
/// Analysis, 3.2).
fn likelihood(cells: &[Cell], shares: &[f64]) -> Vec<f64> {
    let Squares { constant, linear, square, weight } = squares(cells, shares.len());
    let most = shares.iter().fold(0.0_f64, |most, share| most.max(*share));
    let known = weight.min(shares.len() as f64) - 1.0;
    let twice_power = MISFIT_SHARES + known.max(0.0);
    // Column by column: neither a sum nor a logarithm waits for the one before.
    let places = SERIALS.len() * caps_below(most) * POWERS.len();
    let columns: Vec<Vec<f64>> =
        shares.iter().map(|share| Slowdowns::of(*share).column(caps_below(most))).collect();
    let mut scatters = vec![constant; places];
    for (row, (f, linear)) in columns.iter().zip(&linear).enumerate() {
        scatters.iter_mut().zip(f).for_each(|(scatter, f)| *scatter -= 2.0 * linear * f);
        for (other, g) in columns.iter().enumerate().take(row + 1) {
            let twice = if other == row { 1.0 } else { 2.0 };
            let z = twice * square[row * shares.len() + other];
            scatters.iter_mut().zip(f.iter().zip(g)).for_each(|(scatter, (f, g))| *scatter += z * f * g);
        }
    }
    scatters.iter_mut().for_each(|scatter| *scatter = MISFIT_SHARES * MISFIT * MISFIT + scatter.max(0.0));
    let least = scatters.iter().fold(f64::MAX, |least, scatter| least.min(*scatter));
    scatters.iter_mut().for_each(|scatter| *scatter = least / *scatter);
    to_half_power(&mut scatters, twice_power);
    of_forms(most, &scatters)
}

/// Takes values to a power that is given twice. Most powers are whole or half ones: roots and products take
/// less time than logarithms.
fn to_half_power(values: &mut [f64], twice_power: f64) {
    let whole = twice_power.round();
    if (twice_power - whole).abs() >= 1e-9 {
        return values.iter_mut().for_each(|value| *value = value.powf(twice_power / 2.0));
    }
    let mut squares: Vec<f64> = values.iter().map(|value| value.sqrt()).collect();
    values.fill(1.0);
    let mut rest = whole as u32;
    while rest > 0 {
        if rest % 2 == 1 {
            values.iter_mut().zip(&squares).for_each(|(value, square)| *value *= square);
        }
        squares.iter_mut().for_each(|square| *square *= *square);
        rest /= 2;
    }
}

/// What a share tells apart; a function of the share alone.
struct Slowdowns {
    /// Caps that it tells apart.
    caps: usize,
    /// ln f for every serial part with those and every power.
    lns: Vec<f64>,
}

/// Shares whose slowdowns are kept, and how many places each may have: a platform has few sizes of workers,
/// and the logarithms of one take a microsecond.
const SHARES_KEPT_MAX: usize = 64;
const PLACES_EACH: usize = 4;

static KEPT: [OnceLock<(u64, Arc<Slowdowns>)>; SHARES_KEPT_MAX] =
    [const { OnceLock::new() }; SHARES_KEPT_MAX];

impl Slowdowns {
    /// Those of a share, kept where there is a place left for it.
    fn of(share: f64) -> Arc<Self> {
        let bits = share.to_bits();
        let first = (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
        for place in first..first + PLACES_EACH {
            let kept = KEPT[place % SHARES_KEPT_MAX].get_or_init(|| (bits, Arc::new(Self::new(share))));
            if kept.0 == bits {
                return Arc::clone(&kept.1);
            }
        }
        Arc::new(Self::new(share))
    }

    fn new(share: f64) -> Self {
        let caps = caps_below(share);
        let parallels: Vec<f64> =
            FORMS[..caps * POWERS.len()].iter().map(|form| parallel(form.cap, form.power, share)).collect();
        let mut lns = Vec::with_capacity(SERIALS.len() * parallels.len());
        for serial in SERIALS {
            lns.extend(parallels.iter().map(|p| (serial + (1.0 - serial) * p).ln()));
        }
        Self { caps, lns }
    }

    /// ln f for every serial part with the first `caps` caps, at least as many as it tells apart, and every
    /// power.
    fn column(&self, caps: usize) -> Vec<f64> {
        with_caps(&self.lns, self.caps, caps)
    }
}

/// The sums that a residual sum of squares is made of.
struct Squares {
    constant: f64,
    linear: Vec<f64>,
    square: Vec<f64>,
    weight: f64,
}

/// y'My, Z'My and Z'MZ. What M takes out are the parts along each direction of the basis.
fn squares(cells: &[Cell], shares: usize) -> Squares {
    let of = |cell: &Cell| [cell.weight, cell.weight * cell.ln_value];
    let [weight, across] = sums(cells.len(), |place| of(&cells[place]));
    let mean = across / weight;
    let (mut constant, mut linear, mut square) = (0.0, vec![0.0; shares], vec![0.0; shares * shares]);
    // The cells of a share stand together.
    let groups = || cells.chunk_by(|a, b| a.group == b.group);
    for group in groups() {
        let of = |cell: &Cell| {
            let y = cell.ln_value - mean;
            [cell.weight * y * y, cell.weight * y, cell.weight]
        };
        let [squares, values, weights] = sums(group.len(), |place| of(&group[place]));
        constant += squares;
        linear[group[0].group] = values;
        square[group[0].group * (shares + 1)] = weights;
    }
    let mut parts = vec![0.0; shares];
    for direction in size_basis(cells) {
        let (mut along, mut rest) = (0.0, &direction[..]);
        for group in groups() {
            let (own, others) = rest.split_at(group.len());
            rest = others;
            let of = |cell: &Cell, d: f64| [cell.weight * d, cell.weight * d * (cell.ln_value - mean)];
            let [part, more] = sums(own.len(), |place| of(&group[place], own[place]));
            parts[group[0].group] = part;
            along += more;
        }
        constant -= along * along;
        for row in 0..shares {
            linear[row] -= along * parts[row];
            (0..shares).for_each(|column| square[row * shares + column] -= parts[row] * parts[column]);
        }
    }
    Squares { constant, linear, square, weight }
}

/// Orthonormal directions of 1, ln size and its square, as far as the sizes vary.
fn size_basis(cells: &[Cell]) -> Vec<Vec<f64>> {
    let dot = |a: &[f64], b: &[f64]| sum(cells.len(), |place| a[place] * b[place] * cells[place].weight);
    // The next size that is told apart, until there are enough of them: comparisons whose outcome is not
    // waited for.
    let ln_sizes: Vec<f64> = cells.iter().map(|c| c.ln_size).collect();
    let above = |low: f64| {
        let from = |u: &f64| if *u >= low { *u } else { f64::MAX };
        ln_sizes.iter().map(from).fold(f64::MAX, |least, u| if u < least { u } else { least })
    };
    let least = above(0.0);
    let (mut distinct, mut next) = (1, above(least + SIZE_CELL / 2.0));
    while next < f64::MAX && distinct < SIZES_CURVED_MIN {
        (distinct, next) = (distinct + 1, above(next + SIZE_CELL / 2.0));
    }
    let degree = match distinct {
        1 => 0,
        SIZES_CURVED_MIN => 2,
        _ => 1,
    };
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(3);
    let mut powers = vec![1.0; cells.len()];
    for _ in 0..=degree {
        let mut column = powers.clone();
        powers.iter_mut().zip(cells).for_each(|(power, c)| *power *= c.ln_size - least);
        let before = dot(&column, &column);
        for direction in &basis {
            let part = dot(&column, direction);
            column.iter_mut().zip(direction).for_each(|(c, d)| *c -= part * d);
        }
        let norm = dot(&column, &column);
        if norm > before * 1e-9 {
            let scale = 1.0 / norm.sqrt();
            column.iter_mut().for_each(|c| *c *= scale);
            basis.push(column);
        }
    }
    basis
}

/// Measurements at one share and about one size, before their weight is known.
struct Raw {
    group: usize,
    ln_size: f64,
    ln_value: f64,
    deviation: f64,
    count: f64,
}

/// The distinct shares, ascending, the cells by share and size, and the log error within a cell.
fn cells(shared: &Shared) -> (Vec<f64>, Vec<Cell>, f64) {
    let (mut shares, mut raw): (Vec<f64>, Vec<Raw>) = (Vec::new(), Vec::with_capacity(shared.points.len()));
    let mut values: Vec<Weighted> = Vec::with_capacity(shared.points.len());
    for (share, places) in by_share(shared) {
        if shares.last().is_none_or(|last| (share / last).ln() > SAME_SHARE) {
            shares.push(share);
        }
        for group in places.chunk_by(|a, b| a.bin == b.bin) {
            if let [one] = group {
                let (group, ln_size) = (shares.len() - 1, one.ln_size);
                let ln_value = shared.ln_values[one.place];
                raw.push(Raw { group, ln_size, ln_value, deviation: 0.0, count: 1.0 });
                continue;
            }
            values.clear();
            values.extend(group.iter().map(|p| (shared.ln_values[p.place], shared.points[p.place].weight)));
            let ln_value = median(&mut values);
            let ln_size = group.iter().map(|p| p.ln_size).sum::<f64>() / group.len() as f64;
            let (deviation, count) = (sorted_deviation(&values, ln_value), group.len() as f64);
            raw.push(Raw { group: shares.len() - 1, ln_size, ln_value, deviation, count });
        }
    }
    let mut noise: Vec<Weighted> = Vec::with_capacity(raw.len());
    noise.extend(raw.iter().filter(|c| c.count >= 2.0).map(|c| (c.deviation, c.count)));
    let noise = if noise.is_empty() { NOISE_DEFAULT } else { median(&mut noise) };
    let cell = |&Raw { group, ln_size, ln_value, count, .. }: &Raw| {
        let weight = MISFIT * MISFIT / (MISFIT * MISFIT + noise * noise / count);
        Cell { group, bin: bin(ln_size), ln_size, ln_value, weight }
    };
    (shares, raw.iter().map(cell).collect(), noise)
}

/// Which cell a log size falls into.
fn bin(ln_size: f64) -> i64 {
    // Log sizes are not negative.
    (ln_size / SIZE_CELL + 0.5) as i64
}

/// A measurement by its size.
#[derive(Clone, Copy)]
struct Placed {
    place: usize,
    ln_size: f64,
    bin: i64,
}

/// The measurements on each share, ascending, in the order of their sizes.
fn by_share(shared: &Shared) -> Vec<(f64, Vec<Placed>)> {
    let mut shares: Vec<f64> = shared.configs().map(|(share, _)| share).collect();
    shares.sort_unstable_by(f64::total_cmp);
    shares.dedup();
    let mut of = vec![0; shared.points.len()];
    let mut counts = vec![0; shares.len()];
    for (share, places) in shared.configs() {
        let rank = shares.partition_point(|other| *other < share);
        counts[rank] += places.len();
        of[places].fill(rank);
    }
    let mut all: Vec<(f64, Vec<Placed>)> =
        shares.into_iter().zip(&counts).map(|(share, count)| (share, Vec::with_capacity(*count))).collect();
    let (mut former, mut ln_size, mut size_bin) = (f64::NAN, 0.0, 0);
    for place in shared.grid.order.iter().map(|place| *place as usize) {
        let size = shared.points[place].size;
        if former != size {
            (former, ln_size) = (size, ln_of_size(size));
            size_bin = bin(ln_size);
        }
        all[of[place]].1.push(Placed { place, ln_size, bin: size_bin });
    }
    all
}
