//! Change points: where a series of measurements left its old level, for instance because the code was
//! changed.
//!
//! What lies before a change point is not used for predictions. Only measurements of alike sizes are
//! compared: sizes that come in a certain order would otherwise make every misfit of the size model look like
//! a change. The test looks at ranks only, so that an outlier of a hundred times the usual value is not taken
//! for a change, and splits only between different times, because measurements of the same time have no
//! order.

use std::ops::Range;

use crate::cells::Grid;
use crate::logs::lns;
use crate::size::{Point, PowerLaw, ln_of_size, spread};
use crate::sort::sort;
use crate::stats::{Weighted, median};

/// Fewest samples on either side of a change point.
const SIDE_SAMPLES_MIN: usize = 5;
/// Largest probability of the observed split without any change.
const CHANCE_MAX: f64 = 1e-3;
/// Smallest change of the median that is worth forgetting the past for, as a log ratio (10 %).
pub const CHANGE_MIN: f64 = 0.095;
/// Sizes within this are alike (logarithmic).
const CELL_SIZE: f64 = 0.1;
/// Fewest samples of a cell of alike sizes; a smaller one joins the next, or the one before where the next is
/// farther by a factor of [`FAR`].
const CELL_SAMPLES_MIN: usize = 8;
/// How much farther, so that evenly spread sizes do not all join one cell.
const FAR: f64 = 2.0;
/// Most change points looked for in one series, newest last.
const CHANGES_MAX: usize = 4;

/// What changed in a series.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Index of the first point after the newest change.
    pub newest: usize,
    /// Changes found.
    pub count: usize,
    /// What the points since then say of a further one.
    pub leaning: Leaning,
    /// What the level before, from an index on, and the newest said together, where there was a change.
    pub shown: Option<(usize, Leaning)>,
}

/// What the points of one level say of a change, whether they show one or not.
#[derive(Debug, Clone, Default)]
pub struct Leaning {
    /// Mid ranks of their residuals, in the order of their times, twice and less one, which are whole
    /// numbers; none where all points are of one time.
    pub ranks: Box<[u8]>,
    /// Time from which on they differ most from those before, in standard deviations of their rank sum.
    pub from_us: i64,
    /// The square of how many that are.
    pub square: f64,
}

/// The changes in `points`, which stand in the order of their times.
pub fn changes(points: &[Point]) -> Changes {
    let (mut newest, mut count, mut first) = (0, 0, 0);
    let (mut change, mut leaning) = look(points);
    let mut shown = None;
    while let Some(at) = change.filter(|_| count < CHANGES_MAX) {
        shown = Some((newest, leaning));
        newest += at;
        count += 1;
        first = if count == 1 { at } else { first };
        (change, leaning) = look(&points[newest..]);
    }
    // The largest change is found first; whether there was one before it is asked once.
    count += usize::from(count == 1 && look(&points[..first]).0.is_some());
    Changes { newest, count, leaning, shown }
}

/// The most likely change point, if there is one, and what else the points say of one.
///
/// Source: A. N. Pettitt, "A non-parametric approach to the change-point problem", Applied Statistics 28(2),
/// 1979.
fn look(points: &[Point]) -> (Option<usize>, Leaning) {
    let n = points.len();
    if n < 2 || points[0].at_us == points[n - 1].at_us {
        return (None, Leaning::default());
    }
    let (cells, residuals) = in_cells(points);
    let ranks = mid_ranks(&residuals);
    let mut rank_sum = 0.0;
    let mut best: Option<(usize, f64)> = None;
    let (mut leap, mut leap_square, mut leap_pairs) = (0, 0.0, 1.0);
    for split in 1..n {
        rank_sum += ranks[split - 1];
        if points[split - 1].at_us == points[split].at_us {
            continue;
        }
        let u = (2.0 * rank_sum - split as f64 * (n as f64 + 1.0)).abs();
        let allowed = split >= SIDE_SAMPLES_MIN && n - split >= SIDE_SAMPLES_MIN;
        if allowed && best.is_none_or(|(_, most)| u > most) {
            best = Some((split, u));
        }
        let pairs = (split * (n - split)) as f64;
        if u * u * leap_pairs > leap_square * pairs {
            (leap, leap_square, leap_pairs) = (split, u * u, pairs);
        }
    }
    let count = n as f64;
    let square = 3.0 * leap_square / (leap_pairs * (count + 1.0));
    let ranks = ranks.iter().map(|rank| (2.0 * rank) as u8 - 1).collect();
    let leaning = Leaning { ranks, from_us: points[leap].at_us, square };
    let is_change = |(split, u): &(usize, f64)| {
        let chance = 2.0 * (-6.0 * u * u / (count * count * count + count * count)).exp();
        chance < CHANCE_MAX
            && moved(&residuals, &cells, *split).is_some_and(|moved| moved.abs() >= CHANGE_MIN)
    };
    (best.filter(is_change).map(|(split, _)| split), leaning)
}

/// How far the level of points, at least one, moved at `split`; nothing where their sizes do not let it be
/// said.
pub fn moved_at(points: &[Point], split: usize) -> Option<f64> {
    let (cells, residuals) = in_cells(points);
    moved(&residuals, &cells, split)
}

/// The points by cells of alike sizes, and their residuals, those of a cell together.
fn in_cells(points: &[Point]) -> (Vec<Range<usize>>, Vec<(f64, u32)>) {
    let grid = Grid::new(points);
    let ln_sizes = ln_sizes(points, &grid.order);
    let cells = cells(&ln_sizes);
    let residuals = residuals(points, &grid, &ln_sizes, &cells);
    (cells, residuals)
}

/// Log sizes of the points in the `order` of their sizes.
fn ln_sizes(points: &[Point], order: &[u32]) -> Vec<f64> {
    let mut former = (f64::NAN, 0.0);
    let at = |place: &u32| {
        let size = points[*place as usize].size;
        if former.0 != size {
            former = (size, ln_of_size(size));
        }
        former.1
    };
    order.iter().map(at).collect()
}

/// The points by cells of alike sizes: ranges of the order of their sizes, in which their log sizes stand.
fn cells(ln_sizes: &[f64]) -> Vec<Range<usize>> {
    let mut cells: Vec<Range<usize>> = Vec::with_capacity(ln_sizes.len());
    for (at, ln_size) in ln_sizes.iter().enumerate() {
        match cells.last_mut() {
            Some(cell) if ln_size - ln_sizes[cell.start] <= CELL_SIZE => cell.end = at + 1,
            _ => cells.push(at..at + 1),
        }
    }
    // A cell begins where the one before ends.
    let gap = |above: &Range<usize>| ln_sizes[above.start] - ln_sizes[above.start - 1];
    let mut joined: Vec<Range<usize>> = Vec::with_capacity(cells.len());
    for cell in cells {
        let Some(last) = joined.pop() else {
            joined.push(cell);
            continue;
        };
        if last.len() >= CELL_SAMPLES_MIN {
            joined.extend([last, cell]);
            continue;
        }
        match joined.last_mut() {
            Some(below) if gap(&last) * FAR < gap(&cell) => {
                below.end = last.end;
                joined.push(cell);
            }
            _ => joined.push(last.start..cell.end),
        }
    }
    if let [.., below, last] = &mut joined[..]
        && last.len() < CELL_SAMPLES_MIN
    {
        below.end = last.end;
        joined.pop();
    }
    joined
}

/// Log residuals of the size model, less their median in the same cell: where the model is wrong at a size,
/// it is wrong alike before and after. Those of a cell stand together, ascending; with the places of their
/// points.
fn residuals(points: &[Point], grid: &Grid, ln_sizes: &[f64], cells: &[Range<usize>]) -> Vec<(f64, u32)> {
    let logs = lns(points.iter().map(|p| p.value));
    let mut residuals: Vec<(f64, u32)> =
        grid.order.iter().map(|place| (logs[*place as usize], *place)).collect();
    if spread(grid) {
        let law = PowerLaw::fit(&grid.ln_sizes, &grid.means(&logs, points)).law;
        // Where cells of the grid were joined, their points differ in size.
        residuals.iter_mut().zip(ln_sizes).for_each(|((residual, _), size)| *residual -= law.at(*size));
    }
    for cell in cells {
        let members = &mut residuals[cell.clone()];
        sort(members);
        let middle = middle(members);
        members.iter_mut().for_each(|member| member.0 -= middle);
    }
    residuals
}

/// How far the level moved at `split`, judged by the cells that have samples on either side; nothing where
/// they hold less than half of both sides.
fn moved(residuals: &[(f64, u32)], cells: &[Range<usize>], split: usize) -> Option<f64> {
    let (mut shared_before, mut shared_after) = (0, 0);
    let mut moves: Vec<Weighted> = Vec::with_capacity(cells.len());
    for cell in cells {
        let (before, after): (Vec<_>, Vec<_>) = residuals[cell.clone()]
            .iter()
            .copied()
            .partition(|(_, place): &(f64, u32)| (*place as usize) < split);
        if before.is_empty() || after.is_empty() {
            continue;
        }
        shared_before += before.len();
        shared_after += after.len();
        moves.push((middle(&after) - middle(&before), before.len().min(after.len()) as f64));
    }
    let alike = shared_before * 2 >= split || shared_after * 2 >= residuals.len() - split;
    (alike && !moves.is_empty()).then(|| median(&mut moves))
}

/// Median of ascending residuals.
fn middle(ascending: &[(f64, u32)]) -> f64 {
    f64::midpoint(ascending[(ascending.len() - 1) / 2].0, ascending[ascending.len() / 2].0)
}

/// Mid ranks of values that are given with their places, in the order of the places.
fn mid_ranks(values: &[(f64, u32)]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sort(&mut sorted);
    let mut ranks = vec![0.0; sorted.len()];
    let mut below = 0;
    for alike in sorted.chunk_by(|a, b| a.0 == b.0) {
        let rank = below as f64 + (alike.len() as f64 + 1.0) / 2.0;
        alike.iter().for_each(|(_, place)| ranks[*place as usize] = rank);
        below += alike.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(points: &[Point]) -> usize {
        changes(points).newest
    }

    fn series(values: impl Iterator<Item = f64>) -> Vec<Point> {
        values
            .enumerate()
            .map(|(n, value)| Point { at_us: n as i64, size: 0.0, value, weight: 1.0 })
            .collect()
    }

    #[test]
    fn a_lasting_change_is_found_and_an_outlier_is_not() {
        let jitter = |n: usize| 1.0 + 0.02 * ((n * 7919 % 13) as f64 / 13.0 - 0.5);
        let doubled = series((0..100).map(|n| if n < 80 { 100.0 } else { 200.0 } * jitter(n)));
        assert_eq!(start(&doubled), 80);
        let outlier = series((0..100).map(|n| if n == 90 { 10_000.0 } else { 100.0 } * jitter(n)));
        assert_eq!(start(&outlier), 0);
    }

    #[test]
    fn changes_are_counted_from_either_side_of_the_largest() {
        let jitter = |n: usize| 1.0 + 0.02 * ((n * 7919 % 13) as f64 / 13.0 - 0.5);
        for (levels, count) in [(&[1.0, 1.0, 1.0][..], 0), (&[1.0, 1.0, 2.0], 1), (&[1.0, 1.3, 9.0], 2)] {
            let points = series((0..90).map(|n| 100.0 * levels[n / 30] * jitter(n)));
            let found = changes(&points);
            assert_eq!(found.count, count, "{levels:?}");
            assert!(if count == 0 { found.newest == 0 } else { (55..=60).contains(&found.newest) });
        }
    }

    #[test]
    fn sizes_that_come_in_an_order_are_no_change_and_a_change_of_all_is_one() {
        // Flat up to 800 kB and ten times as long at 3 MB: no simple size model fits, and sizes follow time.
        let jitter = |n: usize| 1.0 + 0.02 * ((n * 7919 % 13) as f64 / 13.0 - 0.5);
        let phases = |factor: f64| {
            let large = (0..16).map(|n| (3e6 + n as f64, 5.5));
            let small = (0..32).map(|n| (143e3 * 1.06_f64.powi(n), 0.6));
            large.chain(small).map(move |(size, value)| (size, value * factor)).collect::<Vec<_>>()
        };
        let points = |pairs: Vec<(f64, f64)>| -> Vec<Point> {
            let point = |(n, (size, value)): (usize, (f64, f64))| Point {
                at_us: n as i64,
                size,
                value: value * jitter(n),
                weight: 1.0,
            };
            pairs.into_iter().enumerate().map(point).collect()
        };
        for rounds in 1..=3 {
            assert_eq!(start(&points(phases(1.0).repeat(rounds))), 0, "{rounds} rounds");
        }
        assert_eq!(start(&points([phases(1.0), phases(2.0)].concat())), 48);
    }

    #[test]
    fn measurements_of_one_time_have_no_change_point() {
        let mut sorted = series((0..100).map(|n| f64::from(n) + 1.0));
        sorted.iter_mut().for_each(|p| p.at_us = 7);
        assert_eq!(start(&sorted), 0);
    }
}
