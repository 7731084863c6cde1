//! Quantiles of the normal and of Student's distribution, and weighted order statistics.

use crate::sort::{select, sort};

/// A value with its weight.
pub type Weighted = (f64, f64);

/// Quantile of the standard normal distribution, for q in (0, 1); relative error below 1.2e-9.
///
/// Source: P. J. Acklam, "An algorithm for computing the inverse normal cumulative distribution function",
/// 2003.
pub fn normal_quantile(q: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969683028665376e1,
        2.209460984245205e2,
        -2.759285104469687e2,
        1.38357751867269e2,
        -3.066479806614716e1,
        2.506628277459239,
    ];
    const B: [f64; 5] = [
        -5.447609879822406e1,
        1.615858368580409e2,
        -1.556989798598866e2,
        6.680131188771972e1,
        -1.328068155288572e1,
    ];
    const C: [f64; 6] = [
        -7.784894002430293e-3,
        -3.223964580411365e-1,
        -2.400758277161838,
        -2.549732539343734,
        4.374664141464968,
        2.938163982698783,
    ];
    const D: [f64; 4] = [7.784695709041462e-3, 3.224671290700398e-1, 2.445134137142996, 3.754408661907416];
    const LOW: f64 = 0.02425;
    let q = q.clamp(1e-12, 1.0 - 1e-12);
    let horner = |c: &[f64], x: f64| c.iter().fold(0.0, |sum, c| sum * x + c);
    if q > 1.0 - LOW {
        return -normal_quantile(1.0 - q);
    }
    if q < LOW {
        let r = (-2.0 * q.ln()).sqrt();
        return horner(&C, r) / (horner(&D, r) * r + 1.0);
    }
    let (d, r) = (q - 0.5, (q - 0.5) * (q - 0.5));
    horner(&A, r) * d / (horner(&B, r) * r + 1.0)
}

/// Quantile of Student's distribution with `freedom` >= 1 degrees of freedom.
///
/// Source: G. W. Hill, "Algorithm 396: Student's t-quantiles", Communications of the ACM 13(10), 1970; exact
/// for 1 and 2.
pub fn student_quantile(q: f64, freedom: f64) -> f64 {
    if q < 0.5 {
        return -student_quantile(1.0 - q, freedom);
    }
    let tail = (2.0 * (1.0 - q)).clamp(1e-12, 1.0);
    if freedom < 1.5 {
        return 1.0 / (std::f64::consts::FRAC_PI_2 * tail).tan();
    }
    if freedom < 2.5 {
        return (2.0 / (tail * (2.0 - tail)) - 2.0).max(0.0).sqrt();
    }
    let a = 1.0 / (freedom - 0.5);
    let b = 48.0 / (a * a);
    let mut c = ((20_700.0 * a / b - 98.0) * a - 16.0) * a + 96.36;
    let d = ((94.5 / (b + c) - 3.0) / b + 1.0) * (a * std::f64::consts::FRAC_PI_2).sqrt() * freedom;
    let mut y = (d * tail).powf(2.0 / freedom);
    if y > 0.05 + a {
        let x = normal_quantile(tail / 2.0);
        y = x * x;
        if freedom < 5.0 {
            c += 0.3 * (freedom - 4.5) * (x + 0.6);
        }
        c += (((0.05 * d * x - 5.0) * x - 7.0) * x - 2.0) * x + b;
        y = (((((0.4 * y + 6.3) * y + 36.0) * y + 94.5) / c - y - 3.0) / b + 1.0) * x;
        y = (a * y * y).exp_m1();
    } else {
        let e = 1.0 / (((freedom + 6.0) / (freedom * y) - 0.089 * d - 0.822) * (freedom + 2.0) * 3.0);
        y = ((e + 0.5 / (freedom + 4.0)) * y - 1.0) * (freedom + 1.0) / (freedom + 2.0) + 1.0 / y;
    }
    (freedom * y).sqrt()
}

/// Weighted median: the middle of the values at which half of the weight lies on either side. Afterwards they
/// are in ascending order.
pub fn median(values: &mut [Weighted]) -> f64 {
    match values {
        [(value, _)] => *value,
        [low, high] => {
            (*low, *high) = in_order(*low, *high);
            median_of_two(*low, *high)
        }
        _ => {
            sort(values);
            sorted_median(values)
        }
    }
}

/// Two values, the smaller first.
fn in_order(one: Weighted, other: Weighted) -> (Weighted, Weighted) {
    let swapped = one.0 > other.0;
    (if swapped { other } else { one }, if swapped { one } else { other })
}

/// [`sorted_median`] of two values.
fn median_of_two(low: Weighted, high: Weighted) -> f64 {
    let half = (low.1 + high.1) / 2.0;
    let below = if low.1 > half * (1.0 + 1e-12) { low.0 } else { f64::midpoint(low.0, high.0) };
    if low.1 < half * (1.0 - 1e-12) { high.0 } else { below }
}

/// Sums of what `each` gives for the places below `count`, several of them at once.
///
/// An addition takes as long as four that do not wait for its result, so every sum is made of four.
#[inline(always)]
pub fn sums<const N: usize>(count: usize, each: impl Fn(usize) -> [f64; N]) -> [f64; N] {
    const LANES: usize = 4;
    let (mut lanes, mut place) = ([[0.0; N]; LANES], 0);
    while place + LANES <= count {
        for (lane, sums) in lanes.iter_mut().enumerate() {
            let more = each(place + lane);
            (0..N).for_each(|n| sums[n] += more[n]);
        }
        place += LANES;
    }
    for place in place..count {
        let more = each(place);
        (0..N).for_each(|n| lanes[0][n] += more[n]);
    }
    std::array::from_fn(|n| (lanes[0][n] + lanes[1][n]) + (lanes[2][n] + lanes[3][n]))
}

/// One such sum.
#[inline(always)]
pub fn sum(count: usize, each: impl Fn(usize) -> f64) -> f64 {
    sums(count, |place| [each(place)])[0]
}

/// The weight of all.
pub fn weight(values: &[Weighted]) -> f64 {
    sum(values.len(), |place| values[place].1)
}

/// The first place up to which the weight of values in ascending order is at least `target`, and that weight;
/// nothing where all are less.
pub fn reached(values: &[Weighted], target: f64) -> Option<(usize, f64)> {
    // Most targets are near the middle: the first values are summed at once where they are not enough.
    let first = values.len() * 3 / 8;
    let known = weight(&values[..first]);
    let (start, mut below) = if known < target { (first, known) } else { (0, 0.0) };
    for (place, value) in values.iter().enumerate().skip(start) {
        below += value.1;
        if below >= target {
            return Some((place, below));
        }
    }
    None
}

/// [`median`] of values in ascending order.
pub fn sorted_median(values: &[Weighted]) -> f64 {
    let half = weight(values) / 2.0;
    let Some((place, below)) = reached(values, half * (1.0 - 1e-12)) else { return 0.0 };
    let value = values[place].0;
    if below > half * (1.0 + 1e-12) {
        return value;
    }
    values.get(place + 1).map_or(value, |next| f64::midpoint(value, next.0))
}

/// Median of unweighted values in linear time; the upper one of two middles.
pub fn plain_median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    let middle = values.len() / 2;
    if values.is_empty() { 0.0 } else { select(&mut values, middle) }
}

/// Standard deviation of normal values over their median absolute deviation.
pub const MAD: f64 = 1.4826;

/// Robust standard deviation of values in ascending order around `centre`: [`MAD`] times the median absolute
/// deviation. The distances ascend on both sides of the centre, so that nothing has to be sorted.
///
/// Source: F. R. Hampel, "The influence curve and its role in robust estimation", JASA 69, 1974.
pub fn sorted_deviation(sorted: &[Weighted], centre: f64) -> f64 {
    let away = |value: &Weighted| ((value.0 - centre).abs(), value.1);
    if let [one] = sorted {
        return MAD * away(one).0;
    }
    if let [one, other] = sorted {
        let (near, far) = in_order(away(one), away(other));
        return MAD * median_of_two(near, far);
    }
    let half = weight(sorted) / 2.0;
    let (enough, exact) = (half * (1.0 + 1e-12), half * (1.0 - 1e-12));
    let middle = sorted.partition_point(|v| v.0 < centre);
    let (mut below, mut above) = nearest(sorted, centre, middle, sorted.len() * 3 / 8);
    let mut known = weight(&sorted[below..above]);
    if known >= exact {
        (below, above, known) = (middle, middle, 0.0);
    }
    let distances = |below: usize, above: usize| {
        let low = if below > 0 { centre - sorted[below - 1].0 } else { f64::INFINITY };
        let high = if above < sorted.len() { sorted[above].0 - centre } else { f64::INFINITY };
        (low, high)
    };
    while below > 0 || above < sorted.len() {
        let (low, high) = distances(below, above);
        if low < high {
            below -= 1;
            known += sorted[below].1;
        } else {
            known += sorted[above].1;
            above += 1;
        }
        let distance = low.min(high);
        if known > enough {
            return MAD * distance;
        }
        if known >= exact {
            let (low, high) = distances(below, above);
            let next = low.min(high);
            return MAD * if next.is_finite() { f64::midpoint(distance, next) } else { distance };
        }
    }
    0.0
}

/// The range of the `count` values that are nearest to `centre`, which is before the place `middle` of
/// ascending values.
fn nearest(sorted: &[Weighted], centre: f64, middle: usize, count: usize) -> (usize, usize) {
    // As many from below as are nearer than what would be taken from above in their place.
    let (mut least, mut most) = (count.saturating_sub(sorted.len() - middle), count.min(middle));
    while least < most {
        let taken = usize::midpoint(least, most);
        let (low, high) = (sorted[middle - taken - 1].0, sorted[middle + count - taken - 1].0);
        if centre - low < high - centre { least = taken + 1 } else { most = taken }
    }
    (middle - least, middle + count - least)
}

/// Kish's effective number of samples of weighted ones: (sum w)^2 / sum w^2.
///
/// Source: L. Kish, Survey Sampling, 1965.
pub fn effective_count(values: &[Weighted]) -> f64 {
    let [sum, squares] = sums(values.len(), |place| [values[place].1, values[place].1.powi(2)]);
    if squares > 0.0 { sum * sum / squares } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(found: f64, expected: f64, tolerance: f64) {
        assert!(
            (found - expected).abs() <= tolerance * expected.abs().max(1.0),
            "{found} instead of {expected}"
        );
    }

    #[test]
    fn quantiles_agree_with_published_tables() {
        for (q, z) in [(0.5, 0.0), (0.9, 1.281552), (0.95, 1.644854), (0.99, 2.326348), (0.001, -3.090232)] {
            check(normal_quantile(q), z, 1e-6);
        }
        for (q, freedom, t) in [
            (0.95, 1.0, 6.313752),
            (0.95, 2.0, 2.919986),
            (0.95, 3.0, 2.353363),
            (0.99, 3.0, 4.540703),
            (0.95, 9.0, 1.833113),
            (0.999, 4.0, 7.173182),
            (0.025, 30.0, -2.042272),
            (0.9999, 3.0, 22.203742),
        ] {
            check(student_quantile(q, freedom), t, 1e-3);
        }
    }

    #[test]
    fn a_deviation_is_the_median_distance_from_the_centre() {
        let mut values: Vec<Weighted> =
            (0..41).map(|n| (f64::from(n * 17 % 41), 1.0 + f64::from(n % 5))).collect();
        sort(&mut values);
        for centre in [-3.0, 0.0, 7.5, 20.0, 50.0] {
            for part in [&values[..], &values[..8], &values[..1], &[]] {
                let mut distances: Vec<Weighted> =
                    part.iter().map(|(v, w)| (f64::abs(v - centre), *w)).collect();
                assert_eq!(sorted_deviation(part, centre), MAD * median(&mut distances), "{centre}");
            }
        }
    }

    #[test]
    fn a_weighted_median_halves_the_weight() {
        assert_eq!(median(&mut [(3.0, 1.0), (1.0, 1.0), (2.0, 1.0)]), 2.0);
        assert_eq!(median(&mut [(1.0, 1.0), (2.0, 1.0)]), 1.5);
        assert_eq!(median(&mut [(1.0, 1.0), (2.0, 1.0), (9.0, 5.0)]), 9.0);
        assert_eq!(median(&mut [(4.0, 0.3)]), 4.0);
    }
}
