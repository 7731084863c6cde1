//! A fitted curve: the middle of a value at a size, and how measurements scatter around it.
//!
//! Values carry a small positive offset while they are fitted on the logarithmic scale, so that zero is a
//! value like any other; it is taken off again in the answer.

use std::collections::BTreeMap;

use foresail_schemas::Sla;
use foresail_schemas::prediction::{Basis, Prediction, Unit};
use serde::{Deserialize, Serialize};

use crate::drift;
use crate::local::{Local, Reach, SAME};
use crate::quantile::Table;
use crate::ring::{Ring, Sample};
use crate::size::{Point, SizeModel, spread};
use crate::stats::{Weighted, plain_median};

/// Offset of times in ms while they are fitted: the resolution of the histograms.
pub const OFFSET_MS: f64 = 0.001;
/// Offset of sizes in bytes while they are fitted.
pub const OFFSET_BYTES: f64 = 1.0;
/// Correlation of value with size from which on the line is trusted outside the observed sizes.
pub const CORRELATION_MIN: f64 = 0.75;
/// A sample weighs half as much when this many newer ones are there.
const HALF_LIFE_SAMPLES: f64 = 96.0;
/// Most points that the cross-validation looks at.
const VALIDATION_POINTS_MAX: usize = 64;
/// Parts of the cross-validation.
const FOLDS: usize = 5;
/// A more flexible model must have at most this part of the simpler one's error.
const PARSIMONY: f64 = 0.95;
/// Log error per unit of log distance outside the observed sizes.
const BEYOND_SIGMA: f64 = 0.15;
/// Largest log distance that widens further.
const BEYOND_MAX: f64 = 5.0;
/// Largest log ratio between an answer and the middle of the curve; keeps answers finite.
const LOG_RATIO_MAX: f64 = 200.0;

/// A curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    inside: SizeModel,
    outside: Option<SizeModel>,
    local: Option<Local>,
    table: Table,
    /// Smallest size observed.
    pub size_min: f64,
    /// Largest size observed.
    pub size_max: f64,
    /// Median size.
    pub size_median: f64,
    /// Samples it rests on.
    pub samples: u64,
}

/// What is expected before anything is seen.
pub struct Setup<'a> {
    /// Standard deviation of log residuals.
    pub spread: f64,
    /// Quantiles of a longer history of the same values, offset included, used beyond the samples where the
    /// value does not depend on the size.
    pub tail: Option<&'a dyn Fn(f64) -> f64>,
    /// Samples that the curve rests on where they are more than the points.
    pub samples: u64,
}

/// One question to a curve.
pub struct Ask {
    /// Size in bytes.
    pub size: f64,
    /// Factor on the curve.
    pub scale: f64,
    /// Standard deviation of the factor's logarithm.
    pub sigma: f64,
    /// Offset taken off the answer.
    pub offset: f64,
    /// Unit of the answer.
    pub unit: Unit,
    /// What it rests on.
    pub basis: Basis,
    /// Whether the config lies outside what was seen.
    pub extrapolated: bool,
}

/// The samples of a ring since its newest change point, with recency weights, and how many were left out.
pub fn recent_points(ring: &Ring, value: impl Fn(&Sample) -> Option<f64>) -> (Vec<Point>, usize) {
    let point = |s: &Sample| {
        value(s).map(|value| Point { at_us: s.at_us, size: s.size_bytes as f64, value, weight: 1.0 })
    };
    let mut points: Vec<Point> = ring.iter().filter_map(point).collect();
    let start = drift::newest_level(&points);
    points.drain(..start);
    weigh(&mut points);
    (points, start)
}

/// Recency weights by age rank; samples of the same time weigh the same.
pub fn weigh(points: &mut [Point]) {
    let mut newer = points.len();
    for group in points.chunk_by_mut(|a, b| a.at_us == b.at_us) {
        newer -= group.len();
        let age = newer as f64 + (group.len() as f64 - 1.0) / 2.0;
        group.iter_mut().for_each(|p| p.weight = 0.5_f64.powf(age / HALF_LIFE_SAMPLES));
    }
}

impl Curve {
    /// Fits a curve to points in any order; nothing where there are none.
    pub fn fit(points: &[Point], setup: &Setup) -> Option<Self> {
        (!points.is_empty()).then(|| Self::with_choice(points, &choose(points), setup))
    }

    /// Fits the curve of a size model that was chosen before.
    pub fn with_choice(points: &[Point], choice: &Choice, setup: &Setup) -> Self {
        let (size_min, size_max) =
            points.iter().fold((f64::MAX, 0.0_f64), |(lo, hi), p| (lo.min(p.size), hi.max(p.size)));
        let reach = if choice.interpolate { Reach::Between } else { Reach::Exact };
        let residuals = log_residuals(points, &choice.model);
        let ln_sizes = ln_sizes(points);
        let local = local(&ln_sizes, points, &residuals, reach);
        let steady = matches!(choice.model, SizeModel::Constant { .. }) && local.is_none();
        let middle = choice.model.at(0.0);
        let tail = setup.tail.filter(|_| steady).map(|t| move |q: f64| (t(q) / middle).ln());
        let mut residuals = left_out(points, &ln_sizes, &residuals, choice, local.as_ref());
        let table = Table::new(&mut residuals, setup.spread, tail.as_ref().map(|t| t as &dyn Fn(f64) -> f64));
        let mut sizes: Vec<f64> = points.iter().map(|p| p.size).collect();
        Self {
            inside: choice.model,
            outside: choice.outside,
            local,
            table,
            size_min,
            size_max,
            size_median: plain_median(&mut sizes),
            samples: setup.samples.max(points.len() as u64),
        }
    }

    /// The middle at `size`, offset included, and the log error that its distance from the observed sizes
    /// adds.
    pub fn middle(&self, size: f64) -> (f64, f64) {
        let nearest = size.clamp(self.size_min, self.size_max);
        let distance = if nearest == size { 0.0 } else { self.distance(size).min(BEYOND_MAX) };
        let beyond = BEYOND_SIGMA * distance;
        // At a size that is all but the last one observed the samples there say more than the line.
        if let Some(line) = self.outside.filter(|_| distance > SAME) {
            return (line.at(size), beyond);
        }
        let correction = self.local.as_ref().map_or(0.0, |local| local.at(nearest.ln_1p()).0);
        let middle = self.inside.at(nearest);
        (if correction == 0.0 { middle } else { middle * correction.exp() }, beyond)
    }

    /// Log distance of `size` from the observed sizes, 0 within them.
    pub fn distance(&self, size: f64) -> f64 {
        let nearest = size.clamp(self.size_min, self.size_max);
        ((1.0 + size) / (1.0 + nearest)).ln().abs()
    }

    /// Answers a question.
    pub fn answer(&self, ask: &Ask, slas: &[Sla]) -> Prediction {
        let (middle, beyond) = self.middle(ask.size);
        let sigma = if beyond > 0.0 { ask.sigma.hypot(beyond) } else { ask.sigma };
        let middle = middle * ask.scale;
        let value = |ratio: f64| (middle * ratio - ask.offset).clamp(0.0, f64::MAX);
        let at = |q: f64| value(self.table.at(q, sigma).clamp(-LOG_RATIO_MAX, LOG_RATIO_MAX).exp());
        let (mut values, mut interval) = (BTreeMap::new(), BTreeMap::new());
        for sla in slas {
            let Some(q) = sla.quantile() else {
                let spread = (sigma * sigma / 2.0).exp();
                values.insert(*sla, Some(value(self.table.mean_ratio() * spread)));
                continue;
            };
            values.insert(*sla, Some(at(q)));
            if let Some((low, high)) = self.table.interval(q) {
                interval.insert(*sla, [at(low), at(high)]);
            }
        }
        Prediction {
            unit: ask.unit,
            values,
            basis: ask.basis,
            samples: self.samples,
            extrapolated: ask.extrapolated || ask.size < self.size_min || ask.size > self.size_max,
            interval,
        }
    }
}

/// The size model that was chosen.
pub struct Choice {
    /// Inside the observed sizes.
    pub model: SizeModel,
    outside: Option<SizeModel>,
    interpolate: bool,
}

impl Choice {
    /// The same kind of model, fitted to points that were corrected since the choice.
    pub fn again(&self, points: &[Point]) -> Self {
        let line = || SizeModel::affine_by_linfa(points).map(|(line, _)| line);
        let model = match self.model {
            SizeModel::Constant { .. } => SizeModel::constant(points),
            SizeModel::Affine { .. } => line().unwrap_or(self.model),
            SizeModel::Power { .. } => SizeModel::power(points).unwrap_or(self.model),
        };
        Self { model, outside: self.outside.and_then(|_| line()), interpolate: self.interpolate }
    }
}

/// The size models in question, simplest first, each without and then with interpolated corrections.
const CANDIDATES: usize = 6;

/// Constant, affine, power law.
fn candidates(points: &[Point]) -> Option<[SizeModel; CANDIDATES / 2]> {
    let power = SizeModel::power(points)?;
    Some([SizeModel::constant(points), SizeModel::affine(points, power)?, power])
}

/// Chooses by cross-validation over sizes. Source: M. Stone, "Cross-validatory choice", JRSS B 36, 1974.
pub fn choose(points: &[Point]) -> Choice {
    let constant = Choice { model: SizeModel::constant(points), outside: None, interpolate: false };
    if !spread(points) {
        return constant;
    }
    let Some((line, correlation)) = SizeModel::affine_by_linfa(points) else { return constant };
    let outside = (correlation >= CORRELATION_MIN).then_some(line);
    let folds = folds(points);
    if folds.len() < 3 {
        return Choice { model: outside.unwrap_or(constant.model), outside, interpolate: false };
    }
    let errors = errors(&folds);
    let mut best = 0;
    for place in 1..CANDIDATES {
        if errors[place] < errors[best] * PARSIMONY {
            best = place;
        }
    }
    let model = match best % (CANDIDATES / 2) {
        0 => constant.model,
        // The line of the answer is the one `linfa` solved; it differs from the closed form by rounding only.
        1 => line,
        _ => SizeModel::power(points).unwrap_or(line),
    };
    Choice { model, outside, interpolate: best >= CANDIDATES / 2 }
}

/// Points in parts of whole sizes, so that a part's sizes are new to the others.
fn folds(points: &[Point]) -> Vec<Vec<Point>> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a.size.total_cmp(&b.size).then(a.value.total_cmp(&b.value)));
    // Evenly over sizes and, within a size, over values.
    let step = sorted.len().div_ceil(VALIDATION_POINTS_MAX);
    let thinned: Vec<Point> = sorted.into_iter().skip(step / 2).step_by(step).collect();
    let groups: Vec<&[Point]> = thinned.chunk_by(|a, b| a.size == b.size).collect();
    let mut folds = vec![Vec::new(); FOLDS.min(groups.len())];
    let count = folds.len();
    groups.iter().enumerate().for_each(|(n, group)| folds[n % count].extend_from_slice(group));
    folds
}

/// Sum of absolute log errors per candidate, each at most 1 so that outliers do not decide.
fn errors(folds: &[Vec<Point>]) -> [f64; CANDIDATES] {
    let mut errors = [0.0; CANDIDATES];
    for (left_out, fold) in folds.iter().enumerate() {
        let others = folds.iter().enumerate().filter(|(n, _)| *n != left_out);
        let mut rest: Vec<Point> = others.flat_map(|(_, f)| f.iter().copied()).collect();
        rest.sort_by(|a, b| a.size.total_cmp(&b.size));
        let Some(models) = candidates(&rest) else {
            errors[1..].fill(f64::INFINITY);
            return errors;
        };
        let (rest_sizes, fold_sizes) = (ln_sizes(&rest), ln_sizes(fold));
        for (place, model) in models.iter().enumerate() {
            let local = local(&rest_sizes, &rest, &log_residuals(&rest, model), Reach::Between);
            let interpolated = place + CANDIDATES / 2;
            if local.is_none() {
                errors[interpolated] = f64::INFINITY;
            }
            for ((point, residual), ln_size) in fold.iter().zip(log_residuals(fold, model)).zip(&fold_sizes) {
                errors[place] += point.weight * residual.abs().min(1.0);
                if let Some(local) = &local {
                    errors[interpolated] += point.weight * (residual - local.at(*ln_size).0).abs().min(1.0);
                }
            }
        }
    }
    errors
}

fn ln_sizes(points: &[Point]) -> Vec<f64> {
    points.iter().map(|p| p.size.ln_1p()).collect()
}

fn log_residuals(points: &[Point], model: &SizeModel) -> Vec<f64> {
    points.iter().map(|p| (p.value / model.at(p.size)).ln()).collect()
}

/// Corrections at sizes that were seen more than once.
fn local(ln_sizes: &[f64], points: &[Point], residuals: &[f64], reach: Reach) -> Option<Local> {
    if points.iter().all(|p| p.size == points[0].size) {
        return None;
    }
    let residual = |((size, r), p): ((&f64, &f64), &Point)| (*size, *r, p.weight);
    let mut placed: Vec<_> = ln_sizes.iter().zip(residuals).zip(points).map(residual).collect();
    Local::fit(&mut placed, 0.0, reach)
}

/// Log residuals, as if each point had not been in the fit.
///
/// In-sample residuals are divided by 1 - leverage. Source: D. M. Allen, "The relationship between variable
/// selection and data augmentation and a method for prediction", Technometrics 16, 1974 (PRESS).
fn left_out(
    points: &[Point],
    logs: &[f64],
    residuals: &[f64],
    choice: &Choice,
    local: Option<&Local>,
) -> Vec<Weighted> {
    let slope = !matches!(choice.model, SizeModel::Constant { .. });
    let n = points.len() as f64;
    let mean = logs.iter().sum::<f64>() / n;
    let spread: f64 = logs.iter().map(|u| (u - mean).powi(2)).sum();
    let residual = |((p, r), u): ((&Point, &f64), &f64)| {
        let correction = local.map_or(0.0, |l| l.at(*u).0);
        let leverage =
            if slope && spread > 0.0 { (1.0 / n + (u - mean).powi(2) / spread).min(0.5) } else { 0.0 };
        ((r - correction) / (1.0 - leverage), p.weight)
    };
    points.iter().zip(residuals).zip(logs).map(residual).collect()
}
