//! What CPU share and input size say together beyond what each says alone: the residuals of the additive
//! curve as a Gaussian process over both logarithmic axes.
//!
//! Near a combination that was measured, its residual counts; far from all of them, nothing is added and the
//! error is larger. Source: C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning,
//! 2006, 2.2 (the process) and 5.4.2 (leaving one out in closed form). Residuals are first joined into at
//! most [`CELLS_MAX`] cells, because the cost grows with the cube of their number.

use std::cell::LazyCell;

use serde::{Deserialize, Serialize};

use crate::cells::SAME;
use crate::local;
use crate::size::Point;
use crate::stats::{Weighted, median, sorted_deviation};

/// Most cells.
pub const CELLS_MAX: usize = 24;
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

/// How much a cell pulls at its own place; in single precision, because every task may have 24.
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
    /// The samples, for their weights.
    pub points: &'a [Point],
}

/// Samples joined.
struct Cell {
    share: u8,
    size: u8,
    middle: f64,
    deviation: f64,
    count: f64,
    /// Least and greatest residual.
    range: (f64, f64),
}

impl Interaction {
    /// Fits residuals; with what they say of each sample as if it had not been there. Nothing where there are
    /// less than two shares or sizes.
    pub fn fit(rests: &Rests) -> Option<(Self, Vec<f64>)> {
        let Joined { shares, sizes, mut cells, cell_of } = join(rests)?;
        let n = cells.len();
        let bounds = local::bounds(cells.iter().map(|c| (c.middle, c.deviation, c.count)));
        cells.iter_mut().for_each(|c| c.middle = local::limited(c.middle, c.count, c.range, bounds));
        let noise = noise(&cells);
        let squares = |c: &Cell, noise: &f64| c.middle.clamp(-1.0, 1.0).powi(2) - noise;
        let beyond_noise: f64 = cells.iter().zip(&noise).map(|(c, noise)| squares(c, noise)).sum();
        let variance = (beyond_noise.max(0.0) + SPREAD * SPREAD * SPREAD_CELLS) / (n as f64 + SPREAD_CELLS);
        let share_near = nearness(&shares, near_share);
        let size_near = nearness(&sizes, near_size);
        let near = |a: &Cell, b: &Cell| {
            share_near[usize::from(a.share) * shares.len() + usize::from(b.share)]
                * size_near[usize::from(a.size) * sizes.len() + usize::from(b.size)]
        };
        let mut kernel = Square::new(n);
        for row in 0..n {
            let values = kernel.row_mut(row);
            for column in row..n {
                values[column] = variance * near(&cells[row], &cells[column]);
            }
            values[row] += noise[row];
        }
        let factor = kernel.factor()?;
        let middles: Vec<f64> = cells.iter().map(|c| c.middle).collect();
        let pulls = factor.solve(&middles);
        // Only samples that stand alone need them, which take as long as all the rest.
        let precisions = LazyCell::new(|| factor.inverse().precisions());
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
        let left_out = cell_of.iter().map(|cell| at_cells[usize::from(*cell)]).collect();
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

/// How near each place is to each, by rows.
fn nearness(places: &[f64], near: fn(f64) -> f64) -> Vec<f64> {
    let mut all = Vec::with_capacity(places.len() * places.len());
    places.iter().for_each(|a| all.extend(places.iter().map(|b| near(a - b))));
    all
}

/// Variance of the error of each cell's middle.
fn noise(cells: &[Cell]) -> Vec<f64> {
    let repeated = cells.iter().filter(|c| c.count >= 2.0);
    let mut deviations: Vec<Weighted> = Vec::with_capacity(cells.len());
    deviations.extend(repeated.map(|c| (c.deviation, c.count)));
    let within = median(&mut deviations).max(NOISE_MIN);
    cells.iter().map(|c| within * within / c.count).collect()
}

struct Joined {
    shares: Vec<f64>,
    sizes: Vec<f64>,
    cells: Vec<Cell>,
    /// Cell of each sample.
    cell_of: Vec<u8>,
}

/// Joins samples into few enough cells.
fn join(rests: &Rests) -> Option<Joined> {
    let mut distinct = rests.ln_shares.to_vec();
    distinct.dedup();
    distinct.sort_unstable_by(f64::total_cmp);
    distinct.dedup();
    if distinct.len() < 2 || rests.ln_sizes.len() < 2 {
        return None;
    }
    let seen = seen(rests, &distinct);
    let mut step = JOINED;
    let (shares, sizes) = loop {
        // No bin is empty: there are at least as many cells as bins.
        if let (Some(shares), Some(sizes)) = (Bins::new(&distinct, step), Bins::new(rests.ln_sizes, step)) {
            if shares.count < 2 || sizes.count < 2 {
                return None;
            }
            if occupied(&seen, &shares, &sizes).count() <= CELLS_MAX {
                break (shares, sizes);
            }
        }
        step *= 2.0;
    };
    let mut cell_of_key = vec![0; shares.count * sizes.count];
    let mut places = Vec::with_capacity(CELLS_MAX);
    for (cell, (share, size)) in (0_u8..).zip(occupied(&seen, &shares, &sizes)) {
        cell_of_key[share * sizes.count + size] = cell;
        places.push((share as u8, size as u8));
    }
    if places.len() < CELLS_MIN {
        return None;
    }
    let (share_of, size_of) = (shares.of_places(distinct.len()), sizes.of_places(rests.ln_sizes.len()));
    let mut cell_of: Vec<u8> = Vec::with_capacity(rests.logs.len());
    for run in rests.ln_shares.chunk_by(|a, b| a == b) {
        let first = share_of[distinct.partition_point(|s| *s < run[0])] * sizes.count;
        let of = &rests.size_of[cell_of.len()..cell_of.len() + run.len()];
        cell_of.extend(of.iter().map(|size| cell_of_key[first + size_of[*size as usize]]));
    }
    let (mut members, starts) = members(rests, &cell_of, places.len());
    let cell = |(place, start): (&(u8, u8), &[usize])| Cell::new(*place, &mut members[start[0]..start[1]]);
    let cells = places.iter().zip(starts.windows(2)).map(cell).collect();
    Some(Joined { shares: shares.middles(&distinct), sizes: sizes.middles(rests.ln_sizes), cells, cell_of })
}

/// Places as the bits of a number.
type Places = u64;

/// The sizes that were measured at each of the shares.
fn seen(rests: &Rests, distinct: &[f64]) -> Vec<Places> {
    debug_assert!(rests.ln_sizes.len() <= Places::BITS as usize, "sizes are the bits of a number");
    let (mut seen, mut start) = (vec![0; distinct.len()], 0);
    for run in rests.ln_shares.chunk_by(|a, b| a == b) {
        let sizes = &rests.size_of[start..start + run.len()];
        start += run.len();
        let share = distinct.partition_point(|s| *s < run[0]);
        seen[share] |= sizes.iter().fold(0, |sizes, size| sizes | 1 << size);
    }
    seen
}

/// The pairs of bins, of shares and of sizes, that anything was measured in.
fn occupied(seen: &[Places], shares: &Bins, sizes: &Bins) -> impl Iterator<Item = (usize, usize)> {
    let seen = |share: usize| seen[shares.range(share)].iter().fold(0, |all, sizes| all | sizes);
    let masks = &sizes.masks[..sizes.count];
    (0..shares.count).map(move |share| (share, seen(share))).flat_map(move |(share, seen)| {
        let any = move |(_, mask): &(usize, &Places)| seen & **mask != 0;
        masks.iter().enumerate().filter(any).map(move |(size, _)| (share, size))
    })
}

/// The residuals by cells, and where each cell starts and the last one ends.
fn members(rests: &Rests, cell_of: &[u8], cells: usize) -> (Vec<Weighted>, Vec<usize>) {
    let mut starts = vec![0; cells + 1];
    cell_of.iter().for_each(|cell| starts[usize::from(*cell) + 1] += 1);
    (0..cells).for_each(|cell| starts[cell + 1] += starts[cell]);
    let (mut next, mut members) = (starts.clone(), vec![(0.0, 0.0); cell_of.len()]);
    for ((cell, log), point) in cell_of.iter().zip(&rests.logs).zip(rests.points) {
        members[next[usize::from(*cell)]] = (*log, point.weight);
        next[usize::from(*cell)] += 1;
    }
    (members, starts)
}

impl Cell {
    fn new((share, size): (u8, u8), members: &mut [Weighted]) -> Self {
        let (middle, count) = (median(members), members.len() as f64);
        let range = (members[0].0, members[members.len() - 1].0);
        Self { share, size, middle, deviation: sorted_deviation(members, middle), count, range }
    }
}

/// Neighbouring places joined.
struct Bins {
    count: usize,
    /// The places of each bin, in the order of the places.
    masks: [Places; CELLS_MAX],
}

impl Bins {
    /// Joins ascending places, at least one, that are no more than `step` above the first of their bin;
    /// nothing where there are more than [`CELLS_MAX`] bins.
    fn new(places: &[f64], step: f64) -> Option<Self> {
        let (mut first, mut count, mut masks) = (places[0], 1, [0; CELLS_MAX]);
        for (place, at) in places.iter().enumerate() {
            if at - first > step {
                (first, count) = (*at, count + 1);
            }
            *masks.get_mut(count - 1)? |= 1 << place;
        }
        Some(Self { count, masks })
    }

    /// The places of a bin.
    fn range(&self, bin: usize) -> std::ops::Range<usize> {
        let mask = self.masks[bin];
        mask.trailing_zeros() as usize..(Places::BITS - mask.leading_zeros()) as usize
    }

    /// The bin of each of `count` places.
    fn of_places(&self, count: usize) -> Vec<usize> {
        let mut of = vec![0; count];
        (0..self.count).for_each(|bin| of[self.range(bin)].fill(bin));
        of
    }

    /// Mean of the places of each bin.
    fn middles(&self, places: &[f64]) -> Vec<f64> {
        let mean = |places: &[f64]| places.iter().sum::<f64>() / places.len() as f64;
        (0..self.count).map(|bin| mean(&places[self.range(bin)])).collect()
    }
}

/// Columns that are worked on at once: a loop over them has a known length.
const LANES: usize = 4;

/// A square matrix of which one triangle is used; what stands in the other one means nothing.
struct Square {
    n: usize,
    /// Rows of whole lanes: columns beyond the last one mean nothing either.
    values: Vec<[f64; LANES]>,
}

impl Square {
    fn new(n: usize) -> Self {
        Self { n, values: vec![[0.0; LANES]; n * n.div_ceil(LANES)] }
    }

    fn row(&self, row: usize) -> &[f64] {
        let width = self.n.div_ceil(LANES);
        self.values[row * width..(row + 1) * width].as_flattened()
    }

    fn row_mut(&mut self, row: usize) -> &mut [f64] {
        let width = self.n.div_ceil(LANES);
        self.values[row * width..(row + 1) * width].as_flattened_mut()
    }

    /// Takes `factor` times the row `from` off the row `to`, between two columns at least; `from` stands
    /// above.
    fn take_off(&mut self, factor: f64, from: usize, to: usize, columns: std::ops::Range<usize>) {
        let (width, lanes) = (self.n.div_ceil(LANES), columns.start / LANES..columns.end.div_ceil(LANES));
        let (above, below) = self.values.split_at_mut(to * width);
        let from = &above[from * width..][lanes.clone()];
        for (to, from) in below[lanes].iter_mut().zip(from) {
            (0..LANES).for_each(|lane| to[lane] -= factor * from[lane]);
        }
    }

    /// The Cholesky factor of a matrix given by its upper triangle; nothing where that is not positive
    /// definite. Rows are taken off rows: no sum waits for the one before.
    fn factor(mut self) -> Option<Self> {
        let n = self.n;
        for pivot in 0..n {
            let square = self.row(pivot)[pivot];
            if square.is_nan() || square <= 0.0 {
                return None;
            }
            let scale = 1.0 / square.sqrt();
            self.row_mut(pivot).iter_mut().for_each(|value| *value *= scale);
            for row in pivot + 1..n {
                self.take_off(self.row(pivot)[row], pivot, row, row..n);
            }
        }
        Some(self)
    }

    /// The inverse of the matrix times `values`; `self` is its factor.
    fn solve(&self, values: &[f64]) -> Vec<f64> {
        let mut solved = values.to_vec();
        for row in 0..self.n {
            let (own, below) = solved[row..].split_at_mut(1);
            own[0] /= self.row(row)[row];
            below.iter_mut().zip(&self.row(row)[row + 1..]).for_each(|(rest, w)| *rest -= own[0] * w);
        }
        for row in (0..self.n).rev() {
            let (own, below) = solved[row..].split_at_mut(1);
            let known: f64 = below.iter().zip(&self.row(row)[row + 1..]).map(|(x, w)| x * w).sum();
            own[0] = (own[0] - known) / self.row(row)[row];
        }
        solved
    }

    /// The inverse of a factor.
    fn inverse(&self) -> Self {
        let n = self.n;
        let mut inverse = Self::new(n);
        for row in 0..n {
            inverse.row_mut(row)[row] = 1.0;
            for former in 0..row {
                inverse.take_off(self.row(former)[row], former, row, 0..former + 1);
            }
            let scale = 1.0 / self.row(row)[row];
            inverse.row_mut(row).iter_mut().for_each(|value| *value *= scale);
        }
        inverse
    }

    /// Diagonal of the inverse of the matrix; `self` is the inverse factor.
    fn precisions(&self) -> Vec<f64> {
        let mut precisions = vec![0.0; self.n];
        for row in 0..self.n {
            precisions.iter_mut().zip(self.row(row)).for_each(|(precision, w)| *precision += w * w);
        }
        precisions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(count: usize) -> Vec<Point> {
        vec![Point { at_us: 0, size: 0.0, value: 1.0, weight: 1.0 }; count]
    }

    /// Residuals on every combination of three shares and three sizes, `repeats` of each.
    fn fit(repeats: usize, rest: fn(usize, usize) -> f64) -> (Interaction, Vec<f64>) {
        let places = || (0..3).flat_map(|share| (0..3).map(move |size| (share, size)));
        let all: Vec<(usize, usize)> = places().flat_map(|p| std::iter::repeat_n(p, repeats)).collect();
        let ln_shares: Vec<f64> = all.iter().map(|p| p.0 as f64).collect();
        let size_of: Vec<u32> = all.iter().map(|p| p.1 as u32).collect();
        let logs = all.iter().map(|(share, size)| rest(*share, *size)).collect();
        let (ln_sizes, points) = (&[10.0, 12.0, 14.0], &points(all.len()));
        let rests = Rests { logs, ln_shares: &ln_shares, size_of: &size_of, ln_sizes, points };
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
        let points = &points(400);
        let rests = Rests { logs, ln_shares: &shares, size_of: &size_of, ln_sizes: &ln_sizes, points };
        let (found, left_out) = Interaction::fit(&rests).unwrap();
        assert!(found.cells.len() <= CELLS_MAX && left_out.len() == 400);
    }
}
