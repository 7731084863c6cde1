//! A fitted curve: the middle of a value at a size, and how measurements scatter around it.
//!
//! Values carry a small positive offset while they are fitted on the logarithmic scale, so that zero is a
//! value like any other; it is taken off again in the answer.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use foresail_schemas::Sla;
use foresail_schemas::prediction::{Basis, Prediction, Unit};
use serde::{Deserialize, Serialize};

use crate::cells::{Cells, Grid, SAME};
use crate::drift::{self, Changes};
use crate::formula::CurvePart;
use crate::history::History;
use crate::kinds::Kinds;
use crate::logs::lns;
use crate::mixture::{Fitted, Mixture};
use crate::quantile::Table;
use crate::ring::{RING_SAMPLES, Sample};
use crate::size::{FEW_SPREAD_MIN, Point};
use crate::stats::{Weighted, median};

/// Offset of times in ms while they are fitted: the resolution of the histograms.
pub const OFFSET_MS: f64 = 0.001;
/// Offset of sizes in bytes while they are fitted.
pub const OFFSET_BYTES: f64 = 1.0;
/// A sample weighs half as much when this many newer ones are there.
const HALF_LIFE_SAMPLES: f64 = 96.0;
/// Log error per unit of log distance outside the observed sizes.
const BEYOND_SIGMA: f64 = 0.15;
/// Power of the size below the observed ones where these are one and say nothing of others: halfway between
/// times that do not depend on it and times in proportion; and the log error per unit of log distance, by
/// which six of seven lie between the two.
const HALFWAY: f64 = 0.5;
const HALFWAY_SIGMA: f64 = 0.35;
/// Largest log distance that widens further.
const BEYOND_MAX: f64 = 5.0;
/// How many times the largest value observed a quantile may be that lies beyond the samples.
const TIMES_MAX: f64 = 10.0;
/// The same where the samples reach as far.
const REACHED_MAX: f64 = 2.0;
/// How much more any answer may be where the size or the config is unsure, as a factor.
const UNSURE_MAX: f64 = 3.0;
/// Largest log ratio between an answer and the middle of the curve; keeps answers finite.
const LOG_RATIO_MAX: f64 = 200.0;

/// A curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    model: Mixture,
    table: Table,
    /// Log error that a size adds which was not seen.
    unseen: f64,
    /// Smallest size observed.
    pub size_min: f64,
    /// Largest size observed.
    pub size_max: f64,
    /// Median size.
    pub size_median: f64,
    /// Samples it rests on.
    pub samples: u64,
    /// Largest value observed, offset included, by which answers are bounded; see [`Curve::bound`].
    value_max: f64,
}

/// What is expected before anything is seen.
pub struct Setup<'a> {
    /// Standard deviation of log residuals.
    pub spread: f64,
    /// A longer history of the same values, offset included, where the points look drawn from it; it gives
    /// all quantiles where the value does not depend on the size.
    pub history: Option<&'a dyn Fn() -> Option<History>>,
    /// Samples that the curve rests on where they are more than the points.
    pub samples: u64,
    /// Log distance of sizes up to which they are alike.
    pub same: f64,
    /// Most cells of sizes.
    pub cells_max: usize,
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
    /// Largest value to be expected on the config, offset included, where that is not the largest observed
    /// times `scale`.
    pub most: Option<f64>,
}

/// Samples, oldest first, since their newest change point, not weighed, and what changed.
pub fn recent_points<'a>(
    samples: impl Iterator<Item = &'a Sample>,
    value: impl Fn(&Sample) -> Option<f64>,
) -> (Vec<Point>, Changes) {
    let point = |s: &Sample| {
        value(s).map(|value| Point { at_us: s.at_us, size: s.size_bytes as f64, value, weight: 1.0 })
    };
    let mut points: Vec<Point> = samples.filter_map(point).collect();
    let changes = drift::changes(&points);
    points.drain(..changes.newest);
    (points, changes)
}

/// Recency weights by age rank; samples of the same time weigh the same.
pub fn weigh(points: &mut [Point]) {
    let weights = &*WEIGHTS;
    let of = |half_ages: usize| weights.get(half_ages).copied().unwrap_or_else(|| weight(half_ages));
    let ages = points.iter_mut().rev().zip(weights.iter().step_by(2));
    ages.for_each(|(point, weight)| point.weight = *weight);
    let older = points.len().saturating_sub(RING_SAMPLES);
    let beyond = points[..older].iter_mut().rev().enumerate();
    beyond.for_each(|(newer, point)| point.weight = of(2 * (newer + RING_SAMPLES)));
    if !points.windows(2).fold(false, |alike, two| alike | (two[0].at_us == two[1].at_us)) {
        return;
    }
    let mut newer = points.len();
    for group in points.chunk_by_mut(|a, b| a.at_us == b.at_us) {
        newer -= group.len();
        let weight = of(2 * newer + group.len() - 1);
        group.iter_mut().for_each(|p| p.weight = weight);
    }
}

/// Weights of the ages that a ring has.
static WEIGHTS: LazyLock<[f64; 2 * RING_SAMPLES]> = LazyLock::new(|| std::array::from_fn(weight));

/// Weight of a sample by twice its age.
fn weight(half_ages: usize) -> f64 {
    0.5_f64.powf(half_ages as f64 / 2.0 / HALF_LIFE_SAMPLES)
}

impl Curve {
    /// Fits a curve to points in any order; nothing where there are none. `former` are points of the levels
    /// before, of values that changed their level again and again.
    pub fn fit(points: &[Point], former: &[Point], setup: &Setup) -> Option<Self> {
        if points.is_empty() {
            return None;
        }
        let grid = Grid::of(points, setup.same, setup.cells_max);
        let mut ln_values = lns(points.iter().map(|p| p.value));
        let kinds = Kinds::find(&ln_values, points, &grid, std::iter::once(0..points.len()));
        if let Some(kinds) = &kinds {
            kinds.level(&mut ln_values);
        }
        let data = grid.cells_of_kinds(&ln_values, points, kinds.as_ref());
        let fitted = Fitted::new(&grid, &data);
        let residuals = if former.is_empty() { Vec::new() } else { left_out(&data, &fitted) };
        let mut curve = Self::of(points, &grid, &data, fitted, setup);
        let against = |p: &Point| ((p.value / curve.middle(p.size).0).ln(), p.weight);
        let former: Vec<Weighted> = former.iter().map(against).collect();
        curve.recall(residuals, &former, setup.spread);
        Some(curve)
    }

    /// The curve of a mixture that was fitted before.
    pub fn of(points: &[Point], grid: &Grid, data: &Cells, fitted: Fitted, setup: &Setup) -> Self {
        let (size_min, size_max) =
            points.iter().fold((f64::MAX, 0.0_f64), |(lo, hi), p| (lo.min(p.size), hi.max(p.size)));
        let unseen = fitted.unseen(data);
        let steady = fitted.mixture.is_constant();
        let asked = setup.history.filter(|_| steady);
        let mut value_max = data.greatest().map_or(f64::MAX, f64::exp);
        let (model, table, samples) = match asked.and_then(|history| history()) {
            Some(history) => {
                value_max = value_max.max(history.quantile(1.0));
                let middle = history.quantile(0.5);
                (Mixture::constant(middle.ln()), Table::of_history(&history, middle), setup.samples)
            }
            None => {
                let apart = data.kinds.as_ref().map_or(0.0, |kinds| kinds.apart);
                let table = Table::of_kinds(&mut left_out(data, &fitted), setup.spread, apart);
                // A history that the points do not look drawn from is nothing that the answer rests on.
                (fitted.mixture, table, if asked.is_some() { 0 } else { setup.samples })
            }
        };
        let size_median = points[grid.order[points.len() / 2] as usize].size;
        let samples = samples.max(points.len() as u64);
        Self { model, table, unseen, size_min, size_max, size_median, samples, value_max }
    }

    /// Widens the quantiles by log residuals of former levels, if there are any: a value that changed its
    /// level again and again will do so again. The median stays that of the newest level.
    pub fn recall(&mut self, mut newest: Vec<Weighted>, former: &[Weighted], spread: f64) {
        if !former.is_empty() {
            newest.extend(former);
            self.table.widen(&Table::new(&mut newest, spread));
            // Former levels may have been higher than anything since.
            self.value_max = f64::MAX;
        }
    }

    /// The middle at `size`, offset included, and the log error that a size adds which was not observed.
    pub fn middle(&self, size: f64) -> (f64, f64) {
        let nearest = size.clamp(self.size_min, self.size_max);
        if nearest == size {
            let new = self.unseen > 0.0 && self.model.is_new(size);
            return (self.model.at(size).exp(), if new { self.unseen } else { 0.0 });
        }
        let distance = self.distance(size).min(BEYOND_MAX);
        let beyond = BEYOND_SIGMA * distance;
        // At a size that is all but the last one observed the samples there say more than the line.
        if distance <= SAME {
            return (self.model.at(nearest).exp(), beyond);
        }
        if size > nearest {
            let line = self.model.outside().map(|line| line.at(size));
            return (line.unwrap_or_else(|| self.model.at(nearest).exp()), beyond);
        }
        match self.model.below(size) {
            Some((value, drawn)) => (value.exp(), beyond.hypot(drawn)),
            None => (self.model.at(nearest).exp(), beyond),
        }
    }

    /// How far below the observed sizes a time is looked for halfway, where these are too alike to say what a
    /// smaller one does; nothing where it is so small that its input was rather not measured, as those of
    /// size 0.
    fn below_one_size(&self, size: f64) -> f64 {
        let is_one = self.size_min > 0.0 && (1.0 + self.size_max) < (1.0 + self.size_min) * FEW_SPREAD_MIN;
        if !is_one || size >= self.size_min || self.model.outside().is_some() {
            return 0.0;
        }
        let distance = self.distance(size);
        distance.min(2.0 * BEYOND_MAX - distance).max(0.0)
    }

    /// Log distance of `size` from the observed sizes, 0 within them.
    pub fn distance(&self, size: f64) -> f64 {
        let nearest = size.clamp(self.size_min, self.size_max);
        ((1.0 + size) / (1.0 + nearest)).ln().abs()
    }

    /// The size models that the middle is mixed from.
    pub fn formula(&self) -> Vec<CurvePart> {
        self.model.formula()
    }

    /// What no answer should be above, given the middle at its size: the largest value observed, and as
    /// much more as the curve grows beyond the observed sizes. Times of two kinds whose sizes tell nothing
    /// (0.1 ms or 200 ms) leave residuals of many orders of magnitude, whose mean and tail are no times.
    fn bound(&self, ask: &Ask, middle: f64) -> f64 {
        let nearest = ask.size.clamp(self.size_min, self.size_max);
        let growth = if nearest == ask.size { 1.0 } else { (middle / self.model.at(nearest).exp()).max(1.0) };
        ask.most.unwrap_or(self.value_max * ask.scale) * growth
    }

    /// Answers a question.
    pub fn answer(&self, ask: &Ask, slas: &[Sla]) -> Prediction {
        let (mut middle, mut beyond) = self.middle(ask.size);
        let below = if ask.unit == Unit::Ms { self.below_one_size(ask.size) } else { 0.0 };
        if below > 0.0 {
            middle *= (-HALFWAY * below).exp();
            beyond = beyond.max(HALFWAY_SIGMA * below);
        }
        let sigma = if beyond > 0.0 { ask.sigma.hypot(beyond) } else { ask.sigma };
        let unsure = if sigma > 0.0 || ask.extrapolated { UNSURE_MAX } else { 1.0 };
        let most = self.bound(ask, middle) * unsure;
        let middle = middle * ask.scale;
        let value = |ratio: f64, most: f64| {
            tidy(((middle * ratio).min(most) - ask.offset).clamp(0.0, f64::MAX), ask.unit)
        };
        let ratio = |log: f64| log.clamp(-LOG_RATIO_MAX, LOG_RATIO_MAX).exp();
        let reach = self.table.reach();
        let (mut values, mut interval) = (BTreeMap::new(), BTreeMap::new());
        for sla in slas {
            let Some(q) = sla.quantile() else {
                let spread = (sigma * sigma / 2.0).exp();
                values.insert(*sla, Some(value(self.table.mean_ratio() * spread, most)));
                continue;
            };
            let times = if q > reach { TIMES_MAX } else { REACHED_MAX };
            let most = if q > 0.5 { most * times } else { most };
            values.insert(*sla, Some(value(ratio(self.table.at(q, sigma)), most)));
            let (low, high) = self.table.interval(q, sigma);
            interval.insert(*sla, [value(ratio(low), most), value(ratio(high), most * TIMES_MAX)]);
        }
        Prediction {
            unit: ask.unit,
            values,
            basis: ask.basis,
            samples: self.samples,
            extrapolated: ask.extrapolated || ask.size < self.size_min || ask.size > self.size_max,
            interval,
            branches: BTreeMap::new(),
        }
    }
}

/// Whole bytes and tasks, and times without the last digits, which are rounding errors of logarithms: where
/// all measurements are alike, their value is the answer.
fn tidy(value: f64, unit: Unit) -> f64 {
    match unit {
        Unit::Bytes | Unit::Tasks => value.round(),
        Unit::Ms if value < 1e3 => (value * 1e6).round() / 1e6,
        Unit::Ms if value < 1e9 => (value * 1e3).round() / 1e3,
        Unit::Ms => value.round(),
    }
}

/// Log residuals of the points of `data`, ascending, as if each point had not been in the fit.
pub fn left_out(data: &Cells, fitted: &Fitted) -> Vec<Weighted> {
    let mut residuals = Vec::with_capacity(data.len());
    for cell in 0..data.cells.len() {
        let without = fitted.without(data, cell);
        let residual = |(place, (value, weight)): (usize, &Weighted)| (value - without(place), *weight);
        residuals.extend(data.members(cell).iter().enumerate().map(residual));
    }
    // Medians are the model's; what it misses in the middle of one size is no reason to move another.
    let Some(kinds) = &data.kinds else {
        let middle = median(&mut residuals);
        residuals.iter_mut().for_each(|r| r.0 -= middle);
        return residuals;
    };
    let middle = median(&mut residuals.clone());
    residuals.iter_mut().enumerate().for_each(|(n, r)| r.0 += kinds.offset(n) - middle);
    residuals
}
