//! Straight lines and power laws of a value (a time or a size) against a size in bytes.
//!
//! Fits are relative (an error of 10 % counts alike at every size) and robust against outliers. Above the
//! observed sizes plain least squares are better, solved by `linfa`: the largest sizes, which are nearest,
//! count most there.

use linfa::dataset::Dataset;
use linfa::traits::Fit;
use linfa_linear::LinearRegression;
use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

use crate::cells::{Cell, Grid};
use crate::logs::{exps, lns};
use crate::mixture::CORRELATION_MIN;
use crate::stats::{MAD, plain_median, sum, sums};

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
/// Sizes must differ by this factor before a line is put through them, and by the other where there are fewer
/// than four.
const SPREAD_MIN: f64 = 1.2;
pub const FEW_SPREAD_MIN: f64 = 1.5;
/// Values grow with the size where the slope of their logarithms is so many times its standard error: by
/// chance once in 160 times.
const SIGNIFICANT: f64 = 2.5;
/// A value at size 0 is one where it is more than so many standard errors: by chance once in 40 times.
const INTERCEPT_DEVIATIONS: f64 = 2.0;
/// Cells that the expected scatter around such a slope counts for.
const EXPECTED_CELLS: f64 = 2.0;
/// Largest power of the size that a power law may have.
const EXPONENT_MAX: f64 = 3.0;
/// Least part of a fit that a cell left out must leave to the others.
const REST_MIN: f64 = 1e-9;
/// A line never falls below this part of the least value.
const FLOOR: f64 = 1e-2;

/// ln(1 + size), for sizes that are whole numbers or means of such: a plain logarithm takes a third of the
/// time of one that is exact near 1.
pub fn ln_of_size(size: f64) -> f64 {
    (1.0 + size).ln()
}

/// Whether sizes vary enough for a slope.
pub fn spread(grid: &Grid) -> bool {
    let (low, high) = (grid.sizes[0], grid.sizes[grid.len() - 1]);
    grid.len() >= 2 && (1.0 + high) >= (1.0 + low) * if grid.len() < 4 { FEW_SPREAD_MIN } else { SPREAD_MIN }
}

/// ln value = ln_scale + exponent x ln(1 + size).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PowerLaw {
    /// Log value at size 0.
    pub ln_scale: f64,
    /// Power of 1 + size.
    pub exponent: f64,
}

impl PowerLaw {
    /// The log value at ln(1 + size).
    pub fn at(&self, ln_size: f64) -> f64 {
        self.ln_scale + self.exponent * ln_size
    }

    /// Least squares on logarithms with Huber weights.
    pub fn fit(ln_sizes: &[f64], cells: &[Cell]) -> PowerFit {
        let mut weights: Vec<f64> = cells.iter().map(|c| c.weight).collect();
        let mut law = Self::default();
        let mut moments = Moments::default();
        let mut residuals = vec![0.0; cells.len()];
        for round in 0..ROUNDS {
            let at = |n: usize| (ln_sizes[n], cells[n].level, weights[n]);
            moments = Moments::new(cells.len(), at);
            let slope = moments.slope().clamp(-EXPONENT_MAX, EXPONENT_MAX);
            law = Self { ln_scale: moments.y - slope * moments.x, exponent: slope };
            if round + 1 < ROUNDS && cells.len() > 2 {
                residuals.iter_mut().enumerate().for_each(|(n, r)| *r = cells[n].level - law.at(ln_sizes[n]));
                huber(cells, &residuals, &mut weights);
            }
        }
        PowerFit { law, weights, moments }
    }
}

/// A power law and what is needed to leave cells out of it.
pub struct PowerFit {
    /// The law.
    pub law: PowerLaw,
    weights: Vec<f64>,
    moments: Moments,
}

impl PowerFit {
    /// The log value at a cell had it not been there; nothing where the fit stands and falls with it.
    ///
    /// Source: D. M. Allen, "The relationship between variable selection and data augmentation and a method
    /// for prediction", Technometrics 16, 1974 (PRESS).
    pub fn without(&self, place: usize, ln_sizes: &[f64], cells: &[Cell]) -> Option<f64> {
        let residual = cells[place].level - self.law.at(ln_sizes[place]);
        let rest = self.moments.rest(ln_sizes[place], self.weights[place])?;
        Some(cells[place].level - residual / rest)
    }
}

/// intercept + size x per_byte.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Value at size 0, below 0 where it is proportional up to the smallest size observed.
    pub intercept: f64,
    /// Rise per byte.
    pub per_byte: f64,
    /// Below this size (the smallest one observed) the value is proportional where the intercept is negative.
    size_min: f64,
    floor: f64,
}

/// A relative line, and its log values at cells had they not been there.
pub struct LineFit {
    /// The line.
    pub line: Line,
    values: Vec<f64>,
    robust: Vec<f64>,
    without: Vec<Option<f64>>,
    /// Variance of the intercept where a relative residual has the variance 1.
    intercept_variance: f64,
}

impl Line {
    /// The value at `size`, always positive.
    pub fn at(&self, size: f64) -> f64 {
        let Self { intercept, per_byte, size_min, floor } = *self;
        if intercept < 0.0 && size < size_min {
            return ((intercept + per_byte * size_min) * size / size_min).max(floor);
        }
        (intercept + per_byte * size).max(floor)
    }

    /// A line with relative errors and Huber weights; the power law is the first guess.
    pub fn relative(grid: &Grid, cells: &[Cell], start: &PowerFit) -> Option<LineFit> {
        let sizes = &grid.sizes;
        let values = exps(cells.iter().map(|c| c.level));
        let least = values.iter().fold(f64::MAX, |least, v| least.min(*v));
        let line = |moments: &Moments| {
            let per_byte = moments.slope();
            let intercept = moments.y - per_byte * moments.x;
            let (size_min, floor) = (sizes[0], least * FLOOR);
            (per_byte.is_finite() && intercept.is_finite()).then_some(Self {
                intercept,
                per_byte,
                size_min,
                floor,
            })
        };
        let mut middles = exps(grid.ln_sizes.iter().map(|u| start.law.at(*u)));
        let mut robust: Vec<f64> = cells.iter().map(|c| c.weight).collect();
        let mut residuals = vec![0.0; cells.len()];
        let mut fitted = None;
        for round in 1..=ROUNDS {
            residuals.iter_mut().enumerate().for_each(|(n, r)| *r = values[n] / middles[n] - 1.0);
            huber(cells, &residuals, &mut robust);
            let relative = |n: usize| robust[n] / (middles[n] * middles[n]);
            let moments = Moments::new(cells.len(), |n| (sizes[n], values[n], relative(n)));
            let found = line(&moments)?;
            if round < ROUNDS {
                middles.iter_mut().zip(sizes).for_each(|(middle, size)| *middle = found.at(*size));
                continue;
            }
            let rests = || (0..cells.len()).map(|n| moments.rest(sizes[n], relative(n)));
            let without = |(n, rest): (usize, Option<f64>)| {
                let rest = rest.unwrap_or(f64::INFINITY);
                (values[n] - (values[n] - found.at(sizes[n])) / rest).max(found.floor)
            };
            let without = lns(rests().enumerate().map(without));
            let kept = without.into_iter().zip(rests()).map(|(ln, rest)| rest.map(|_| ln)).collect();
            fitted = Some((found, kept, moments.intercept_variance()));
        }
        fitted.map(|(line, without, intercept_variance)| LineFit {
            line,
            values,
            robust,
            without,
            intercept_variance,
        })
    }
}

impl LineFit {
    /// The log value at a cell had it not been there.
    pub fn without(&self, place: usize) -> Option<f64> {
        self.without[place]
    }

    /// The line for sizes below the observed ones: what it says of size 0 is drawn towards nothing by how
    /// little is known of it, where relative errors are expected to have a `variance`. Large sizes alone
    /// leave the rest of a subtraction there, which is many times a value in proportion.
    ///
    /// Source: W. James and C. Stein, "Estimation with quadratic loss", Proceedings of the Fourth Berkeley
    /// Symposium 1, 1961 (its positive part).
    pub fn below(&self, sizes: &[f64], variance: f64) -> Line {
        let Line { intercept, size_min, .. } = self.line;
        if intercept <= 0.0 || size_min <= 0.0 {
            return self.line;
        }
        let rest = |n: usize| (self.values[n] / self.line.at(sizes[n]) - 1.0).clamp(-1.0, 1.0);
        let squares = sum(sizes.len(), |n| self.robust[n] * rest(n) * rest(n));
        let square = (squares + EXPECTED_CELLS * variance) / self.values.len() as f64;
        let unsure = INTERCEPT_DEVIATIONS.powi(2) * square * self.intercept_variance;
        let drawn = intercept * (1.0 - unsure / (intercept * intercept)).max(0.0);
        let per_byte = (self.line.at(size_min) - drawn) / size_min;
        Line { intercept: drawn, per_byte, ..self.line }
    }

    /// Plain least squares, outliers of the relative fit weighed down, where value and size correlate.
    pub fn plain(&self, sizes: &[f64]) -> Option<Line> {
        let at = |n: usize| (sizes[n], self.values[n], self.robust[n]);
        let moments = Moments::new(sizes.len(), at);
        if moments.correlation() < CORRELATION_MIN {
            return None;
        }
        let (intercept, per_byte) = solve(sizes, &self.values, &self.robust)?;
        Some(Line { intercept, per_byte, ..self.line })
    }
}

/// Weighted sums of pairs, centred.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    weight: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
    yy: f64,
}

impl Moments {
    /// Of `count` pairs, given by their places with their weights.
    fn new(count: usize, point: impl Fn(usize) -> (f64, f64, f64)) -> Self {
        let [weight, x, y] = sums(count, |place| {
            let (x, y, weight) = point(place);
            [weight, weight * x, weight * y]
        });
        let (x, y) = (x / weight, y / weight);
        let [xx, xy, yy] = sums(count, |place| {
            let (px, py, weight) = point(place);
            let (dx, dy) = (px - x, py - y);
            [weight * dx * dx, weight * dx * dy, weight * dy * dy]
        });
        Self { weight, x, y, xx, xy, yy }
    }

    fn slope(&self) -> f64 {
        if self.xx > 0.0 { self.xy / self.xx } else { 0.0 }
    }

    fn intercept_variance(&self) -> f64 {
        1.0 / self.weight + self.x * self.x / self.xx.max(f64::MIN_POSITIVE)
    }

    fn correlation(&self) -> f64 {
        let r = self.xy / (self.xx * self.yy).sqrt();
        if r.is_finite() { r.clamp(-1.0, 1.0) } else { 0.0 }
    }

    /// 1 - leverage of a point; nothing where the fit stands and falls with it.
    fn rest(&self, x: f64, weight: f64) -> Option<f64> {
        let across = if self.xx > 0.0 { (x - self.x).powi(2) / self.xx } else { 0.0 };
        let rest = 1.0 - weight * (1.0 / self.weight + across);
        (rest > REST_MIN).then_some(rest)
    }
}

/// Whether log levels, with these variances, grow with log sizes by more than chance. What they scatter
/// around a straight line beyond their variances makes them less sure.
pub fn grows(ln_sizes: &[f64], cells: &[Cell], variances: &[f64]) -> bool {
    let at = |n: usize| (ln_sizes[n], cells[n].level, 1.0 / variances[n]);
    let moments = Moments::new(cells.len(), at);
    let rest = moments.yy - moments.slope() * moments.xy;
    let freedom = cells.len() as f64 - 2.0;
    let scatter = ((rest + EXPECTED_CELLS) / (freedom + EXPECTED_CELLS)).max(1.0);
    moments.xy > SIGNIFICANT * (scatter * moments.xx).sqrt()
}

/// Weights of the cells times Huber's, from residuals of the fit (logarithmic or relative).
fn huber(cells: &[Cell], residuals: &[f64], weights: &mut [f64]) {
    let centre = plain_median(residuals.iter().copied());
    let deviation = MAD * plain_median(residuals.iter().map(|r| (r - centre).abs()));
    let bound = HUBER * deviation.max(DEVIATION_MIN);
    for ((weight, cell), residual) in weights.iter_mut().zip(cells).zip(residuals) {
        let distance = (residual - centre).abs();
        *weight = cell.weight * if distance > bound { bound / distance } else { 1.0 };
    }
}

/// Weighted least squares by `linfa`: rows are scaled with the root of their weight, sizes to at most 1.
fn solve(sizes: &[f64], values: &[f64], weights: &[f64]) -> Option<(f64, f64)> {
    let largest = sizes[sizes.len() - 1];
    if largest <= 0.0 {
        return None;
    }
    let roots: Vec<f64> = weights.iter().map(|w| w.sqrt()).collect();
    let records = Array2::from_shape_fn((sizes.len(), 2), |(row, column)| {
        roots[row] * if column == 0 { 1.0 } else { sizes[row] / largest }
    });
    let targets = Array1::from_shape_fn(sizes.len(), |row| roots[row] * values[row]);
    let fitted = LinearRegression::new().with_intercept(false).fit(&Dataset::new(records, targets)).ok()?;
    let (intercept, per_byte) = (fitted.params()[0], fitted.params()[1] / largest);
    (intercept.is_finite() && per_byte.is_finite()).then_some((intercept, per_byte))
}
