//! What CPU share and input size say together beyond what each says alone: the residuals of the additive
//! curve as a Gaussian process over both logarithmic axes.
//!
//! Near a combination that was measured, its residual counts; far from all of them, nothing is added and the
//! error is larger. Source: C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning,
//! 2006, 2.2 (the process) and 5.4.2 (leaving one out in closed form). Residuals are first joined into at
//! most [`CELLS_MAX`] cells, because the cost grows with the cube of their number.

use serde::{Deserialize, Serialize};

use crate::cells::SAME;
use crate::stats::{MAD, Weighted, median};

/// Most cells.
pub const CELLS_MAX: usize = 40;
/// Fewest cells that are worth it.
const CELLS_MIN: usize = 4;
/// Log distance up to which shares, and sizes, fall into one cell; doubled until there are few enough.
const JOINED: f64 = 0.005;
/// Log distance in shares at which a residual counts half.
const REACH_SHARE: f64 = 0.7;
/// Log distance in sizes at which a residual counts half as much as at the nearest other size.
const REACH_SIZE: f64 = 1.0;
/// How much a residual counts at a size next to its own: sizes are inputs, and two inputs differ by more than
/// their size.
const OTHER_SIZE: f64 = 0.7;
/// Least log error of one sample that is assumed.
const NOISE_MIN: f64 = 0.05;
/// Standard deviation of the residuals that is expected before any is seen, and its weight in cells.
const SPREAD: f64 = 0.03;
const SPREAD_CELLS: f64 = 4.0;
/// Log distance beyond the observed sizes at which residuals count no more: there a line answers.
const BEYOND: f64 = 0.2;

/// The fitted process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Interaction {
    /// Log shares and log sizes of the cells, ascending.
    shares: Vec<f64>,
    sizes: Vec<f64>,
    cells: Vec<Pull>,
    variance: f64,
    /// Part of the variance that residuals of samples which were left out have already.
    known: f64,
}

/// How much a cell pulls at its own place; in single precision, because every task may have 40.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Pull {
    share: u8,
    size: u8,
    log: f32,
}

/// Residuals with their places; slices of one entry per sample unless said otherwise.
pub struct Rests<'a> {
    /// Log residuals.
    pub logs: Vec<f64>,
    /// Log shares.
    pub ln_shares: &'a [f64],
    /// Which of the sizes.
    pub size_of: &'a [u32],
    /// Log sizes, ascending; one entry per size.
    pub ln_sizes: &'a [f64],
    /// Weights.
    pub weights: &'a [f64],
}

/// Samples joined.
struct Cell {
    share: u8,
    size: u8,
    middle: f64,
    deviation: f64,
    count: f64,
}

impl Interaction {
    /// Fits residuals; with what they say of each sample as if it had not been there. Nothing where there are
    /// less than two shares or sizes.
    pub fn fit(rests: &Rests) -> Option<(Self, Vec<f64>)> {
        let Joined { shares, sizes, cells, cell_of } = join(rests)?;
        let n = cells.len();
        let noise = noise(&cells);
        let squares = |c: &Cell, noise: &f64| c.middle.clamp(-1.0, 1.0).powi(2) - noise;
        let beyond_noise: f64 = cells.iter().zip(&noise).map(|(c, noise)| squares(c, noise)).sum();
        let variance = (beyond_noise.max(0.0) + SPREAD * SPREAD * SPREAD_CELLS) / (n as f64 + SPREAD_CELLS);
        let share_near = nearness(&shares, near_share);
        let size_near = nearness(&sizes, near_size);
        let near = |a: &Cell, b: &Cell| {
            share_near[usize::from(a.share)][usize::from(b.share)]
                * size_near[usize::from(a.size)][usize::from(b.size)]
        };
        let mut kernel = Square::new(n);
        for row in 0..n {
            for column in 0..=row {
                let own = if row == column { noise[row] } else { 0.0 };
                kernel.set(row, column, variance * near(&cells[row], &cells[column]) + own);
            }
        }
        let inverse = kernel.inverse_factor()?;
        let middles: Vec<f64> = cells.iter().map(|c| c.middle).collect();
        let (pulls, precisions) = (inverse.solve(&middles), inverse.precisions());
        let without = |place: usize| {
            let error = pulls[place];
            let alone = cells[place].count < 2.0;
            middles[place] - if alone { error / precisions[place] } else { error * noise[place] }
        };
        let at_cells: Vec<f64> = (0..n).map(without).collect();
        let nearest = |place: usize| {
            let others = (0..n).filter(|other| *other != place);
            others.map(|other| near(&cells[place], &cells[other])).fold(0.0, f64::max)
        };
        let unknown = |place: usize| variance * (1.0 - nearest(place).powi(2));
        let known: f64 = (0..n).filter(|place| cells[*place].count < 2.0).map(unknown).sum();
        let pull =
            |(c, pull): (&Cell, &f64)| Pull { share: c.share, size: c.size, log: (pull * variance) as f32 };
        let cells = cells.iter().zip(&pulls).map(pull).collect();
        let known = known / rests.logs.len() as f64;
        let left_out = cell_of.iter().map(|cell| at_cells[*cell]).collect();
        Some((Self { shares, sizes, cells, variance, known }, left_out))
    }

    /// What is added at a place, as a logarithm, and the variance of its error beyond that of samples which
    /// were left out.
    pub fn at(&self, ln_share: f64, ln_size: f64) -> (f64, f64) {
        let (mut shares, mut sizes) = ([0.0; CELLS_MAX], [0.0; CELLS_MAX]);
        shares.iter_mut().zip(&self.shares).for_each(|(near, s)| *near = near_share(s - ln_share));
        sizes.iter_mut().zip(&self.sizes).for_each(|(near, s)| *near = near_size(s - ln_size));
        let (mut log, mut nearest) = (0.0, 0.0_f64);
        for cell in &self.cells {
            let near = shares[usize::from(cell.share)] * sizes[usize::from(cell.size)];
            log += f64::from(cell.log) * near;
            nearest = nearest.max(near);
        }
        let inside = ln_size.clamp(self.sizes[0], self.sizes[self.sizes.len() - 1]);
        let fade = (1.0 - (ln_size - inside).abs() / BEYOND).max(0.0);
        (log * fade, (self.variance * (1.0 - nearest * nearest) - self.known).max(0.0))
    }
}

/// How much a residual counts at a log distance in shares. It falls with 1 / (1 + d), a mixture of
/// exponentials of all lengths, so that no length has to be fitted.
fn near_share(distance: f64) -> f64 {
    1.0 / (1.0 + distance.abs() / REACH_SHARE)
}

/// The same in sizes.
fn near_size(distance: f64) -> f64 {
    if distance.abs() <= 2.0 * SAME { 1.0 } else { OTHER_SIZE / (1.0 + distance.abs() / REACH_SIZE) }
}

fn nearness(places: &[f64], near: fn(f64) -> f64) -> Vec<Vec<f64>> {
    places.iter().map(|a| places.iter().map(|b| near(a - b)).collect()).collect()
}

/// Variance of the error of each cell's middle.
fn noise(cells: &[Cell]) -> Vec<f64> {
    let repeated = cells.iter().filter(|c| c.count >= 2.0);
    let mut deviations: Vec<Weighted> = repeated.map(|c| (c.deviation, c.count)).collect();
    let within = median(&mut deviations).max(NOISE_MIN);
    cells.iter().map(|c| within * within / c.count).collect()
}

struct Joined {
    shares: Vec<f64>,
    sizes: Vec<f64>,
    cells: Vec<Cell>,
    /// Cell of each sample.
    cell_of: Vec<usize>,
}

/// Joins samples into few enough cells.
fn join(rests: &Rests) -> Option<Joined> {
    let mut distinct = rests.ln_shares.to_vec();
    distinct.dedup();
    distinct.sort_by(f64::total_cmp);
    distinct.dedup();
    if distinct.len() < 2 || rests.ln_sizes.len() < 2 {
        return None;
    }
    let place = |n: usize| (distinct.partition_point(|s| *s < rests.ln_shares[n]), rests.size_of[n] as usize);
    let places: Vec<(usize, usize)> = (0..rests.logs.len()).map(place).collect();
    let mut seen = vec![false; distinct.len() * rests.ln_sizes.len()];
    places.iter().for_each(|(share, size)| seen[share * rests.ln_sizes.len() + size] = true);
    let occupied: Vec<(usize, usize)> = (0..seen.len())
        .filter(|n| seen[*n])
        .map(|n| (n / rests.ln_sizes.len(), n % rests.ln_sizes.len()))
        .collect();
    let mut step = JOINED;
    let (shares, sizes, keys) = loop {
        let (shares, sizes) = (Bins::new(&distinct, step), Bins::new(rests.ln_sizes, step));
        if shares.middles.len() < 2 || sizes.middles.len() < 2 {
            return None;
        }
        let mut keys: Vec<(u8, u8)> = occupied.iter().map(|p| (shares.of[p.0], sizes.of[p.1])).collect();
        keys.sort_unstable();
        keys.dedup();
        if keys.len() <= CELLS_MAX {
            break (shares, sizes, keys);
        }
        step *= 2.0;
    };
    if keys.len() < CELLS_MIN {
        return None;
    }
    let cell = |(share, size): &(usize, usize)| {
        keys.binary_search(&(shares.of[*share], sizes.of[*size])).unwrap_or_default()
    };
    let cell_of: Vec<usize> = places.iter().map(cell).collect();
    let mut members: Vec<Vec<Weighted>> = vec![Vec::new(); keys.len()];
    for (n, cell) in cell_of.iter().enumerate() {
        members[*cell].push((rests.logs[n], rests.weights[n]));
    }
    let cells = keys.iter().zip(&mut members).map(|(key, members)| Cell::new(*key, members)).collect();
    Some(Joined { shares: shares.middles, sizes: sizes.middles, cells, cell_of })
}

impl Cell {
    fn new((share, size): (u8, u8), members: &mut [Weighted]) -> Self {
        let (middle, count) = (median(members), members.len() as f64);
        members.iter_mut().for_each(|m| m.0 = (m.0 - middle).abs());
        Self { share, size, middle, deviation: MAD * median(members), count }
    }
}

/// Neighbouring places joined.
struct Bins {
    /// Bin of each place.
    of: Vec<u8>,
    /// Mean of the places of each bin.
    middles: Vec<f64>,
}

impl Bins {
    /// Joins ascending places that are no more than `step` above the first of their bin.
    fn new(places: &[f64], step: f64) -> Self {
        let (mut of, mut middles) = (Vec::with_capacity(places.len()), Vec::new());
        let mut rest = places;
        while let Some(first) = rest.first() {
            let (bin, others) = rest.split_at(rest.partition_point(|place| place - first <= step).max(1));
            of.extend(bin.iter().map(|_| middles.len() as u8));
            middles.push(bin.iter().sum::<f64>() / bin.len() as f64);
            rest = others;
        }
        Self { of, middles }
    }
}

/// The lower triangle of a square matrix.
struct Square {
    n: usize,
    values: Vec<f64>,
}

impl Square {
    fn new(n: usize) -> Self {
        Self { n, values: vec![0.0; n * n] }
    }

    fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.n..(row + 1) * self.n]
    }

    fn set(&mut self, row: usize, column: usize, value: f64) {
        self.values[row * self.n + column] = value;
    }

    /// The inverse of the Cholesky factor, by rows; nothing where the matrix is not positive definite.
    fn inverse_factor(mut self) -> Option<Self> {
        let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        for row in 0..self.n {
            for column in 0..=row {
                let rest = self.row(row)[column] - dot(&self.row(row)[..column], &self.row(column)[..column]);
                if row > column {
                    self.set(row, column, rest / self.row(column)[column]);
                } else if rest > 0.0 {
                    self.set(row, row, rest.sqrt());
                } else {
                    return None;
                }
            }
        }
        // Columns of the inverse stand in rows here, so that both factors of a product stand together.
        let mut columns = Self::new(self.n);
        for column in 0..self.n {
            columns.set(column, column, 1.0 / self.row(column)[column]);
            for row in column + 1..self.n {
                let sum = dot(&self.row(row)[column..row], &columns.row(column)[column..row]);
                columns.set(column, row, -sum / self.row(row)[row]);
            }
        }
        Some(columns)
    }

    /// The inverse of the matrix times `values`; `self` is the inverse factor, by columns.
    fn solve(&self, values: &[f64]) -> Vec<f64> {
        let mut half = vec![0.0; self.n];
        for (column, value) in values.iter().enumerate() {
            half.iter_mut().zip(self.row(column)).skip(column).for_each(|(h, w)| *h += w * value);
        }
        (0..self.n).map(|n| self.row(n).iter().zip(&half).map(|(w, h)| w * h).sum()).collect()
    }

    /// Diagonal of the inverse of the matrix.
    fn precisions(&self) -> Vec<f64> {
        (0..self.n).map(|n| self.row(n).iter().map(|w| w * w).sum()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Residuals on every combination of three shares and three sizes, `repeats` of each.
    fn fit(repeats: usize, rest: fn(usize, usize) -> f64) -> (Interaction, Vec<f64>) {
        let places = || (0..3).flat_map(|share| (0..3).map(move |size| (share, size)));
        let all: Vec<(usize, usize)> = places().flat_map(|p| std::iter::repeat_n(p, repeats)).collect();
        let ln_shares: Vec<f64> = all.iter().map(|p| p.0 as f64).collect();
        let size_of: Vec<u32> = all.iter().map(|p| p.1 as u32).collect();
        let logs = all.iter().map(|(share, size)| rest(*share, *size)).collect();
        let (ln_sizes, weights) = (&[10.0, 12.0, 14.0], &vec![1.0; all.len()]);
        let rests = Rests { logs, ln_shares: &ln_shares, size_of: &size_of, ln_sizes, weights };
        Interaction::fit(&rests).unwrap()
    }

    #[test]
    fn a_residual_counts_where_it_was_measured_and_fades_with_the_distance() {
        let (found, _) = fit(20, |share, size| if (share, size) == (1, 1) { 0.5 } else { 0.0 });
        let (own, error) = found.at(1.0, 12.0);
        assert!((0.4..0.5).contains(&own) && error < 1e-9, "{own} {error}");
        let (beside, further) = (found.at(1.3, 12.0), found.at(1.5, 12.7));
        assert!(beside.0 < own && further.0 < beside.0, "{own} {beside:?} {further:?}");
        assert!(further.1 > beside.1 && beside.1 > error, "{error} {beside:?} {further:?}");
        assert_eq!(found.at(1.0, 20.0).0, 0.0);
    }

    #[test]
    fn a_single_sample_says_nothing_about_itself() {
        let (_, left_out) = fit(1, |share, size| if (share, size) == (1, 1) { 0.5 } else { 0.0 });
        assert!(left_out[4].abs() < 0.05, "{left_out:?}");
    }

    #[test]
    fn many_combinations_fall_into_few_cells() {
        let shares: Vec<f64> = (0..400).map(|n| f64::from(n / 20) * 0.1).collect();
        let size_of: Vec<u32> = (0..400).map(|n| n % 20).collect();
        let ln_sizes: Vec<f64> = (0..20).map(f64::from).collect();
        let logs = (0..400).map(|n| f64::from(n % 7) * 0.01).collect();
        let weights = vec![1.0; 400];
        let rests =
            Rests { logs, ln_shares: &shares, size_of: &size_of, ln_sizes: &ln_sizes, weights: &weights };
        let (found, left_out) = Interaction::fit(&rests).unwrap();
        assert!(found.cells.len() <= CELLS_MAX && left_out.len() == 400);
    }
}
