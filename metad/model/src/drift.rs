//! Change points: where a series of measurements left its old level, for instance because the code was
//! changed.
//!
//! What lies before a change point is not used for predictions. The test looks at ranks only, so that an
//! outlier of a hundred times the usual value is not taken for a change, and splits only between different
//! times, because measurements of the same time have no order.

use crate::size::{Point, SizeModel};

/// Fewest samples on either side of a change point.
const SIDE_SAMPLES_MIN: usize = 5;
/// Largest probability of the observed split without any change.
const CHANCE_MAX: f64 = 1e-3;
/// Smallest change of the median that is worth forgetting the past for, as a log ratio (10 %).
const CHANGE_MIN: f64 = 0.095;
/// Most change points looked for in one series, newest last.
const CHANGES_MAX: usize = 4;

/// Index of the first point after the newest change; `points` stand in the order of their times.
pub fn newest_level(points: &[Point]) -> usize {
    let mut start = 0;
    for _ in 0..CHANGES_MAX {
        match change(&points[start..]) {
            Some(at) => start += at,
            None => break,
        }
    }
    start
}

/// The most likely change point, if there is one.
///
/// Source: A. N. Pettitt, "A non-parametric approach to the change-point problem", Applied Statistics 28(2),
/// 1979.
fn change(points: &[Point]) -> Option<usize> {
    let n = points.len();
    if n < 2 * SIDE_SAMPLES_MIN || points[0].at_us == points[n - 1].at_us {
        return None;
    }
    let model = SizeModel::robust(points);
    let residuals: Vec<f64> = points.iter().map(|p| (p.value / model.at(p.size)).ln()).collect();
    let ranks = mid_ranks(&residuals);
    let mut rank_sum = 0.0;
    let mut best: Option<(usize, f64)> = None;
    for split in 1..n {
        rank_sum += ranks[split - 1];
        let u = (2.0 * rank_sum - split as f64 * (n as f64 + 1.0)).abs();
        let allowed = split >= SIDE_SAMPLES_MIN
            && n - split >= SIDE_SAMPLES_MIN
            && points[split - 1].at_us < points[split].at_us;
        if allowed && best.is_none_or(|(_, most)| u > most) {
            best = Some((split, u));
        }
    }
    let (split, u) = best?;
    let n = n as f64;
    let chance = 2.0 * (-6.0 * u * u / (n * n * n + n * n)).exp();
    let level = |part: &[f64]| {
        let mut weighted: Vec<_> = part.iter().map(|r| (*r, 1.0)).collect();
        crate::stats::median(&mut weighted)
    };
    let moved = (level(&residuals[split..]) - level(&residuals[..split])).abs();
    (chance < CHANCE_MAX && moved >= CHANGE_MIN && sizes_overlap(&points[..split], &points[split..]))
        .then_some(split)
}

/// Whether both parts saw alike sizes; otherwise a bad size model would look like a change.
fn sizes_overlap(before: &[Point], after: &[Point]) -> bool {
    let range = |part: &[Point]| {
        part.iter().fold((f64::MAX, 0.0_f64), |(lo, hi), p| (lo.min(p.size), hi.max(p.size)))
    };
    let ((lo_before, hi_before), (lo_after, hi_after)) = (range(before), range(after));
    let inside = |part: &[Point], lo: f64, hi: f64| {
        part.iter().filter(|p| p.size >= lo && p.size <= hi).count() * 2 >= part.len()
    };
    inside(before, lo_after, hi_after) || inside(after, lo_before, hi_before)
}

fn mid_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    while first < order.len() {
        let mut last = first;
        while last + 1 < order.len() && values[order[last + 1]] == values[order[first]] {
            last += 1;
        }
        let rank = (first + last) as f64 / 2.0 + 1.0;
        order[first..=last].iter().for_each(|place| ranks[*place] = rank);
        first = last + 1;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(newest_level(&doubled), 80);
        let outlier = series((0..100).map(|n| if n == 90 { 10_000.0 } else { 100.0 } * jitter(n)));
        assert_eq!(newest_level(&outlier), 0);
    }

    #[test]
    fn measurements_of_one_time_have_no_change_point() {
        let mut sorted = series((0..100).map(|n| f64::from(n) + 1.0));
        sorted.iter_mut().for_each(|p| p.at_us = 7);
        assert_eq!(newest_level(&sorted), 0);
    }
}
