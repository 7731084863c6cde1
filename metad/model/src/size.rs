//! Models of a value (a time or a size) against a size in bytes: constant, affine, power law.
//!
//! Fits are relative (an error of 10 % counts alike at every size) and robust against outliers; the affine
//! one, which is also the one trusted outside the observed sizes, is solved by `linfa`.

use linfa::dataset::Dataset;
use linfa::traits::Fit;
use linfa_linear::LinearRegression;
use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

use crate::stats::{Weighted, median, plain_median};

/// One measurement as the fits see it; values are positive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// When it was measured, in microseconds since the Unix epoch.
    pub at_us: i64,
    /// Size in bytes.
    pub size: f64,
    /// The value.
    pub value: f64,
    /// Weight, at most 1.
    pub weight: f64,
}

/// Rounds of reweighting; the fits settle within two.
const ROUNDS: usize = 2;
/// Huber's constant: 95 % efficiency on normal errors. Source: P. J. Huber, Robust Statistics, 1981.
const HUBER: f64 = 1.345;
/// Least deviation of residuals that the robust weights assume.
const DEVIATION_MIN: f64 = 1e-3;
/// Two sizes must differ by this factor before a line is put through few samples.
const SPREAD_MIN: f64 = 1.2;
/// Largest power of the size that a power law may have.
const EXPONENT_MAX: f64 = 3.0;

/// The value at a size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum SizeModel {
    /// The same at every size.
    Constant {
        /// The value.
        value: f64,
    },
    /// intercept + size x per_byte.
    Affine {
        /// Value at size 0.
        intercept: f64,
        /// Rise per byte.
        per_byte: f64,
        /// Below this size (the smallest one observed) the value is taken as proportional where the intercept
        /// is negative.
        size_min: f64,
        /// Least value that the line may take.
        floor: f64,
    },
    /// exp(ln_scale) x (1 + size)^exponent.
    Power {
        /// Logarithm of the value at size 0.
        ln_scale: f64,
        /// The power.
        exponent: f64,
    },
}

impl SizeModel {
    /// The value at `size`, always positive.
    pub fn at(&self, size: f64) -> f64 {
        match *self {
            Self::Constant { value } => value,
            Self::Affine { intercept, per_byte, size_min, floor } => {
                if intercept < 0.0 && size < size_min {
                    ((intercept + per_byte * size_min) * size / size_min).max(floor)
                } else {
                    (intercept + per_byte * size).max(floor)
                }
            }
            Self::Power { ln_scale, exponent } => (ln_scale + exponent * size.ln_1p()).exp(),
        }
    }

    /// The weighted median of all values.
    pub fn constant(points: &[Point]) -> Self {
        let mut values: Vec<Weighted> = points.iter().map(|p| (p.value, p.weight)).collect();
        Self::Constant { value: median(&mut values) }
    }

    /// A power law where sizes vary enough, else the median: good enough to look at residuals.
    pub fn robust(points: &[Point]) -> Self {
        Self::power(points).unwrap_or_else(|| Self::constant(points))
    }

    /// Least squares on logarithms with Huber weights.
    pub fn power(points: &[Point]) -> Option<Self> {
        if !spread(points) {
            return None;
        }
        let logs: Vec<(f64, f64)> = points.iter().map(|p| (p.size.ln_1p(), p.value.ln())).collect();
        let mut weights: Vec<f64> = points.iter().map(|p| p.weight).collect();
        let mut fit = None;
        for _ in 0..ROUNDS {
            let (ln_scale, exponent) = weighted_line(logs.iter().copied().zip(weights.iter().copied()))?;
            fit = Some(Self::Power { ln_scale, exponent: exponent.clamp(-EXPONENT_MAX, EXPONENT_MAX) });
            let residuals: Vec<f64> = logs.iter().map(|(u, v)| v - ln_scale - exponent * u).collect();
            huber(points, &residuals, &mut weights);
        }
        fit
    }

    /// A line with relative errors and Huber weights; `start` is a first guess.
    pub fn affine(points: &[Point], start: Self) -> Option<Self> {
        Some(Self::affine_with_weights(points, start)?.0)
    }

    /// The line of [`Self::affine`], its last round solved by `linfa`, and the correlation of value with
    /// size.
    pub fn affine_by_linfa(points: &[Point]) -> Option<(Self, f64)> {
        let (own, weights) = Self::affine_with_weights(points, Self::power(points)?)?;
        let model = solve(points, &weights).map_or(own, |(a, b)| Self::line(points, a, b));
        let robust: Vec<f64> = points.iter().zip(&weights).map(|(p, w)| w * own.at(p.size).powi(2)).collect();
        Some((model, correlation(points, &robust)))
    }

    fn affine_with_weights(points: &[Point], start: Self) -> Option<(Self, Vec<f64>)> {
        let mut model = start;
        let mut weights: Vec<f64> = vec![0.0; points.len()];
        for _ in 0..ROUNDS {
            let middles: Vec<f64> = points.iter().map(|p| model.at(p.size)).collect();
            let residuals: Vec<f64> = points.iter().zip(&middles).map(|(p, m)| p.value / m - 1.0).collect();
            huber(points, &residuals, &mut weights);
            weights.iter_mut().zip(&middles).for_each(|(weight, middle)| *weight /= middle * middle);
            let pairs = points.iter().map(|p| (p.size, p.value)).zip(weights.iter().copied());
            let (intercept, per_byte) = weighted_line(pairs)?;
            model = Self::line(points, intercept, per_byte);
        }
        Some((model, weights))
    }

    fn line(points: &[Point], intercept: f64, per_byte: f64) -> Self {
        let size_min = points.iter().fold(f64::MAX, |least, p| least.min(p.size));
        let least = points.iter().fold(f64::MAX, |least, p| least.min(p.value));
        Self::Affine { intercept, per_byte, size_min, floor: least * 1e-2 }
    }
}

/// Whether sizes vary enough for a slope.
pub fn spread(points: &[Point]) -> bool {
    let (low, high) = points.iter().fold((f64::MAX, 0.0_f64), |(lo, hi), p| (lo.min(p.size), hi.max(p.size)));
    points.len() >= 2 && (1.0 + high) >= (1.0 + low) * if points.len() < 4 { 2.0 } else { SPREAD_MIN }
}

/// Weights of the points times Huber's, from residuals of the fit (logarithmic or relative).
fn huber(points: &[Point], residuals: &[f64], weights: &mut [f64]) {
    let mut scratch = residuals.to_vec();
    let centre = plain_median(&mut scratch);
    scratch.iter_mut().for_each(|r| *r = (*r - centre).abs());
    let bound = HUBER * (1.4826 * plain_median(&mut scratch)).max(DEVIATION_MIN);
    for ((weight, point), residual) in weights.iter_mut().zip(points).zip(residuals) {
        let distance = (residual - centre).abs();
        *weight = point.weight * if distance > bound { bound / distance } else { 1.0 };
    }
}

/// Weighted least squares, centred: (intercept, slope).
fn weighted_line(pairs: impl Iterator<Item = ((f64, f64), f64)> + Clone) -> Option<(f64, f64)> {
    let (w, x, y) = pairs.clone().fold((0.0, 0.0, 0.0), |(w, sx, sy), ((x, y), weight)| {
        (w + weight, sx + weight * x, sy + weight * y)
    });
    let (x, y) = (x / w, y / w);
    let (xx, xy) = pairs.fold((0.0, 0.0), |(xx, xy), ((px, py), weight)| {
        (xx + weight * (px - x) * (px - x), xy + weight * (px - x) * (py - y))
    });
    let slope = xy / xx;
    let intercept = y - slope * x;
    (slope.is_finite() && intercept.is_finite()).then_some((intercept, slope))
}

/// The same least squares by `linfa`: rows are scaled with the root of their weight, sizes to at most 1.
fn solve(points: &[Point], weights: &[f64]) -> Option<(f64, f64)> {
    let largest = points.iter().fold(0.0_f64, |most, p| most.max(p.size));
    if largest <= 0.0 {
        return None;
    }
    let roots: Vec<f64> = weights.iter().map(|w| w.sqrt()).collect();
    let records = Array2::from_shape_fn((points.len(), 2), |(row, column)| {
        roots[row] * if column == 0 { 1.0 } else { points[row].size / largest }
    });
    let targets = Array1::from_shape_fn(points.len(), |row| roots[row] * points[row].value);
    let fitted = LinearRegression::new().with_intercept(false).fit(&Dataset::new(records, targets)).ok()?;
    let (intercept, per_byte) = (fitted.params()[0], fitted.params()[1] / largest);
    (intercept.is_finite() && per_byte.is_finite()).then_some((intercept, per_byte))
}

/// Pearson's correlation of value with size under `weights`.
fn correlation(points: &[Point], weights: &[f64]) -> f64 {
    let total: f64 = weights.iter().sum();
    let mean = |f: fn(&Point) -> f64| points.iter().zip(weights).map(|(p, w)| w * f(p)).sum::<f64>() / total;
    let (x, y) = (mean(|p| p.size), mean(|p| p.value));
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (point, weight) in points.iter().zip(weights) {
        let (dx, dy) = (point.size - x, point.value - y);
        xx += weight * dx * dx;
        yy += weight * dy * dy;
        xy += weight * dx * dy;
    }
    let r = xy / (xx * yy).sqrt();
    if r.is_finite() { r.clamp(-1.0, 1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(pairs: impl IntoIterator<Item = (f64, f64)>) -> Vec<Point> {
        pairs.into_iter().map(|(size, value)| Point { at_us: 0, size, value, weight: 1.0 }).collect()
    }

    #[test]
    fn linfa_and_the_closed_form_give_the_same_line() {
        let data = points((1..40).map(|n| {
            let size = f64::from(n) * 1e7;
            (size, (300.0 + 2e-5 * size) * (1.0 + 0.05 * f64::from(n * 13 % 7 - 3)))
        }));
        let (
            Some((SizeModel::Affine { intercept, per_byte, .. }, r)),
            Some(SizeModel::Affine { intercept: a, per_byte: b, .. }),
        ) = (SizeModel::affine_by_linfa(&data), SizeModel::affine(&data, SizeModel::power(&data).unwrap()))
        else {
            panic!("no line")
        };
        assert!((intercept / a - 1.0).abs() < 1e-6 && (per_byte / b - 1.0).abs() < 1e-6);
        assert!(r > 0.9);
    }

    #[test]
    fn an_outlier_of_a_hundred_times_does_not_bend_the_line() {
        let mut data = points((1..30).map(|n| (f64::from(n) * 1e6, 100.0 + f64::from(n))));
        data[20].value *= 100.0;
        let model = SizeModel::affine(&data, SizeModel::power(&data).unwrap()).unwrap();
        assert!((model.at(25e6) / 125.0 - 1.0).abs() < 0.02, "{model:?}");
    }

    #[test]
    fn relative_errors_keep_small_sizes_right_over_nine_decades() {
        let data = points((0..=9).map(|n| 10_f64.powi(n)).map(|size| (size, 5.0 + size * 1e-6)));
        let model = SizeModel::affine(&data, SizeModel::power(&data).unwrap()).unwrap();
        for point in &data {
            assert!((model.at(point.size) / point.value - 1.0).abs() < 0.01, "{model:?} at {point:?}");
        }
    }

    #[test]
    fn two_alike_sizes_give_no_slope() {
        assert_eq!(SizeModel::affine_by_linfa(&points([(1000.0, 10.0), (1010.0, 12.0)])), None);
    }
}
