//! Quantiles of the normal and of Student's distribution, and weighted order statistics.

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

/// Most values that are sorted by insertion.
const FEW: usize = 16;

/// Brings values into ascending order.
pub fn sort(values: &mut [Weighted]) {
    if values.len() > FEW {
        return sort_many(values);
    }
    // Most cells have a handful of values: comparing plainly takes half as long as the standard sort.
    for next in 1..values.len() {
        let (value, mut place) = (values[next], next);
        while place > 0 && values[place - 1].0 > value.0 {
            values[place] = values[place - 1];
            place -= 1;
        }
        values[place] = value;
    }
}

fn sort_many(values: &mut [Weighted]) {
    if values.is_sorted_by(|a, b| a.0 <= b.0) {
        return;
    }
    if values.len() > PLACES {
        return values.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    }
    let sorted: Vec<Weighted> = order(values.iter().map(|v| v.0)).map(|place| values[place]).collect();
    values.copy_from_slice(&sorted);
}

/// Places that a key has room for.
const PLACES: usize = (1 << 16) - 1;

/// The places of at most [`PLACES`] values in ascending order, but for differences of a part of 10^11.
///
/// Sorts whole numbers, which takes half as long: the order of the bits is brought to that of the values, and
/// their last ones give way to the place.
fn order(values: impl Iterator<Item = f64>) -> impl Iterator<Item = usize> {
    let key = |(place, value): (u64, f64)| {
        let bits = value.to_bits();
        let ascending = if bits >> 63 == 0 { bits | 1 << 63 } else { !bits };
        ascending & !(PLACES as u64) | place
    };
    let mut keys: Vec<u64> = (0..).zip(values).map(key).collect();
    keys.sort_unstable();
    keys.into_iter().map(|key| key as usize & PLACES)
}

/// Values with something each, in ascending order to the last bit.
pub fn sorted_exactly<T: Copy>(values: &[(f64, T)]) -> Vec<(f64, T)> {
    if values.len() > PLACES {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        return sorted;
    }
    let mut sorted: Vec<(f64, T)> = order(values.iter().map(|v| v.0)).map(|place| values[place]).collect();
    // All but the last bits are in order: hardly anything moves.
    for next in 1..sorted.len() {
        let (value, mut place) = (sorted[next], next);
        while place > 0 && sorted[place - 1].0 > value.0 {
            sorted[place] = sorted[place - 1];
            place -= 1;
        }
        sorted[place] = value;
    }
    sorted
}

/// Weighted median: the middle of the values at which half of the weight lies on either side.
pub fn median(values: &mut [Weighted]) -> f64 {
    if let [(value, _)] = values {
        return *value;
    }
    sort(values);
    sorted_median(values)
}

/// [`median`] of values in ascending order.
pub fn sorted_median(values: &[Weighted]) -> f64 {
    let half = values.iter().map(|v| v.1).sum::<f64>() / 2.0;
    let mut below = 0.0;
    for (place, (value, weight)) in values.iter().enumerate() {
        below += weight;
        if below > half * (1.0 + 1e-12) {
            return *value;
        }
        if below >= half * (1.0 - 1e-12) {
            return values.get(place + 1).map_or(*value, |next| f64::midpoint(*value, next.0));
        }
    }
    0.0
}

/// Median of unweighted values in linear time; the upper one of two middles.
pub fn plain_median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    if values.is_empty() { 0.0 } else { *values.select_nth_unstable_by(middle, f64::total_cmp).1 }
}

/// Standard deviation of normal values over their median absolute deviation.
pub const MAD: f64 = 1.4826;

/// Robust standard deviation of values in ascending order around `centre`: [`MAD`] times the median absolute
/// deviation. The distances ascend on both sides of the centre, so that nothing has to be sorted.
///
/// Source: F. R. Hampel, "The influence curve and its role in robust estimation", JASA 69, 1974.
pub fn sorted_deviation(sorted: &[Weighted], centre: f64) -> f64 {
    if let [(value, _)] = sorted {
        return MAD * (value - centre).abs();
    }
    let half = sorted.iter().map(|v| v.1).sum::<f64>() / 2.0;
    let (enough, exact) = (half * (1.0 + 1e-12), half * (1.0 - 1e-12));
    let mut above = sorted.partition_point(|v| v.0 < centre);
    let mut below = above;
    let distances = |below: usize, above: usize| {
        let low = if below > 0 { centre - sorted[below - 1].0 } else { f64::INFINITY };
        let high = if above < sorted.len() { sorted[above].0 - centre } else { f64::INFINITY };
        (low, high)
    };
    let mut weight = 0.0;
    while below > 0 || above < sorted.len() {
        let (low, high) = distances(below, above);
        if low < high {
            below -= 1;
            weight += sorted[below].1;
        } else {
            weight += sorted[above].1;
            above += 1;
        }
        let distance = low.min(high);
        if weight > enough {
            return MAD * distance;
        }
        if weight >= exact {
            let (low, high) = distances(below, above);
            let next = low.min(high);
            return MAD * if next.is_finite() { f64::midpoint(distance, next) } else { distance };
        }
    }
    0.0
}

/// Kish's effective number of samples of weighted ones: (sum w)^2 / sum w^2.
///
/// Source: L. Kish, Survey Sampling, 1965.
pub fn effective_count(weights: impl Iterator<Item = f64>) -> f64 {
    let (sum, squares) = weights.fold((0.0, 0.0), |(s, q), w| (s + w, q + w * w));
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
    fn few_and_many_values_are_sorted_and_equal_ones_keep_their_order() {
        for count in [0, 1, 2, 5, FEW, FEW + 1, 200] {
            let value = |n: usize| (((n * 7919) % 13) as f64 - 6.0, n as f64);
            let mut values: Vec<Weighted> = (0..count).map(value).collect();
            let mut expected = values.clone();
            expected.sort_by(|a, b| a.0.total_cmp(&b.0));
            sort(&mut values);
            assert_eq!(values, expected);
        }
    }

    #[test]
    fn exact_sorting_tells_the_last_bits_apart() {
        let values: Vec<(f64, u32)> = (0..100).map(|n| (1.0 - f64::from(n) * f64::EPSILON, n)).collect();
        let sorted = sorted_exactly(&values);
        assert!(sorted.iter().map(|v| v.1).eq((0..100).rev()), "{sorted:?}");
    }

    #[test]
    fn a_weighted_median_halves_the_weight() {
        assert_eq!(median(&mut [(3.0, 1.0), (1.0, 1.0), (2.0, 1.0)]), 2.0);
        assert_eq!(median(&mut [(1.0, 1.0), (2.0, 1.0)]), 1.5);
        assert_eq!(median(&mut [(1.0, 1.0), (2.0, 1.0), (9.0, 5.0)]), 9.0);
        assert_eq!(median(&mut [(4.0, 0.3)]), 4.0);
    }
}
