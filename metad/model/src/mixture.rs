//! Models of a log value against the size, and their mixture: constant, line, power law, ratio, neighbours.
//!
//! Every model predicts every cell as if the cell had not been there (closed forms, no refit); those errors
//! weigh the models, so that little data gives a cautious average and much data the model that fits. Source
//! of the weighing: D. H. Wolpert, "Stacked generalization", Neural Networks 5, 1992, with weights that fall
//! with a power of the error instead of a second fit.

use serde::{Deserialize, Serialize};

use crate::cells::{Cell, Cells, Grid, SAME};
use crate::formula::CurvePart;
use crate::size::{Line, LineFit, Point, PowerLaw, grows, ln_of_size, spread};
use crate::smooth::{interpolated, smooth};
use crate::stats::{MAD, median, reached, sum, weight};

/// Models in the mixture.
const MODELS: usize = 6;
const CONSTANT: usize = 0;
const LINE: usize = 1;
const POWER: usize = 2;
const RATIO: usize = 3;
const NEIGHBOURS: usize = 4;
const SMOOTH: usize = 5;
/// Which of them compete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Models {
    /// The constant alone: the sizes do not vary enough for more.
    Constant,
    AllButLine,
    All,
}

/// Largest power of the error that weighs.
const SHARPNESS_MAX: f64 = 8.0;
/// Least error that is told apart.
const ERROR_MIN: f64 = 2e-3;
/// Largest error that counts, so that outliers do not decide.
const ERROR_MAX: f64 = 1.0;
/// How far beyond the observed log values a model may predict a cell that was left out: a factor of 7.
const BEYOND_MAX: f64 = 2.0;
/// Models below this weight are left out.
const WEIGHT_MIN: f64 = 0.02;
/// Correlation of value with size from which on a line is trusted outside the observed sizes.
pub const CORRELATION_MIN: f64 = 0.75;
/// Log distance up to which a size is one that was seen: that of a cell's samples from their mean, and what
/// single precision adds to it.
const SEEN: f64 = SAME + 4e-6;
/// Standard deviation within a size that is expected where no size was seen twice.
const WITHIN: f64 = 0.1;
/// Samples from which on a size answers within their range, however far other sizes draw it away: the true
/// median of five lies outside their range with a chance of 1 in 16.
const OWN_SAMPLES_MIN: f64 = 5.0;

/// Least log value that is added at one size: what rounding leaves of a line through two sizes is less.
const OWN_MIN: f32 = 1e-9;
/// Cells below which the first and the last say nothing of the error at a size between others: left out, they
/// lie outside the sizes, and they are too many.
const INNER_CELLS: usize = 5;

/// A fitted mixture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mixture {
    weights: [f64; MODELS],
    constant: f64,
    ratio: f64,
    line: Option<Line>,
    power: PowerLaw,
    outside: Option<Line>,
    below: Option<Line>,
    places: Vec<Place>,
}

/// One observed size; stored as numbers without names, because a snapshot holds many, and in single
/// precision, because a curve has up to 96: what is rounded is a distance from the constant, so that the
/// answer is off by a part of 10 million at most, and by nothing where all values are alike.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f32; 4]", into = "[f32; 4]")]
struct Place {
    ln_size: f32,
    /// Level less the constant.
    level: f32,
    /// Smoothed level less the constant.
    smooth: f32,
    /// Added at this size only.
    own: f32,
}

impl From<[f32; 4]> for Place {
    fn from([ln_size, level, smooth, own]: [f32; 4]) -> Self {
        Self { ln_size, level, smooth, own }
    }
}

impl From<Place> for [f32; 4] {
    fn from(place: Place) -> Self {
        [place.ln_size, place.level, place.smooth, place.own]
    }
}

/// A mixture and what it says of the points it was fitted to.
pub struct Fitted {
    /// The mixture.
    pub mixture: Mixture,
    /// Log value at each cell.
    pub at_cells: Vec<f64>,
    /// Log value at each cell as if it had not been observed.
    left_out: Vec<f64>,
    /// Variance between sizes beyond the mixture, and within one size.
    between: f64,
    within: f64,
    /// Whether all samples of a cell have the same size.
    alike: Vec<bool>,
}

impl Mixture {
    /// The same log value at all sizes.
    pub fn constant(level: f64) -> Self {
        let mut weights = [0.0; MODELS];
        weights[CONSTANT] = 1.0;
        let (power, places) = (PowerLaw::default(), Vec::new());
        Self { weights, constant: level, ratio: 0.0, line: None, power, outside: None, below: None, places }
    }

    /// The log value at `size`, for sizes within the observed range or below it.
    pub fn at(&self, size: f64) -> f64 {
        let ln_size = ln_of_size(size);
        self.mixed(size, ln_size, || self.near(ln_size))
    }

    /// The models mixed; `near` gives what [`Self::near`] says.
    fn mixed(&self, size: f64, ln_size: f64, near: impl FnOnce() -> (f64, f64, f64)) -> f64 {
        let w = &self.weights;
        let mut value = w[CONSTANT] * self.constant;
        if w[LINE] > 0.0
            && let Some(line) = &self.line
        {
            value += w[LINE] * line.at(size).ln();
        }
        if w[POWER] > 0.0 {
            value += w[POWER] * self.power.at(ln_size);
        }
        if w[RATIO] > 0.0 {
            value += w[RATIO] * (self.ratio + ln_size);
        }
        if self.places.is_empty() {
            return value;
        }
        let (level, smooth, own) = near();
        value + w[NEIGHBOURS] * level + w[SMOOTH] * smooth + own
    }

    /// The line to be used above the observed sizes, where value and size go together.
    pub fn outside(&self) -> Option<&Line> {
        self.outside.as_ref()
    }

    /// The log value below the observed sizes where value and size go together, and how far it was drawn
    /// there from that of the relative line.
    pub fn below(&self, size: f64) -> Option<(f64, f64)> {
        let value = self.below?.at(size).ln();
        Some((value, self.line?.at(size).ln() - value))
    }

    /// Whether the models differ at sizes that were seen, and this one was not.
    pub fn is_new(&self, size: f64) -> bool {
        let ln_size = ln_of_size(size);
        let above = self.places.partition_point(|p| f64::from(p.ln_size) < ln_size);
        let near = |n: Option<usize>| {
            n.and_then(|n| self.places.get(n)).is_some_and(|p| (f64::from(p.ln_size) - ln_size).abs() <= SEEN)
        };
        !self.places.is_empty() && !near(above.checked_sub(1)) && !near(Some(above))
    }

    /// Whether the value does not depend on the size.
    pub fn is_constant(&self) -> bool {
        self.places.is_empty() && self.weights[CONSTANT] >= 1.0
    }

    /// The models that have a weight.
    pub fn formula(&self) -> Vec<CurvePart> {
        let (w, sizes) = (&self.weights, self.places.len() as u64);
        let (intercept_ms, ms_per_byte) = self.line.map_or((0.0, 0.0), |l| (l.intercept, l.per_byte));
        let parts = [
            CurvePart::Constant { weight: w[CONSTANT], time_ms: self.constant.exp() },
            CurvePart::Line { weight: w[LINE], intercept_ms, ms_per_byte },
            CurvePart::PowerLaw {
                weight: w[POWER],
                scale_ms: self.power.ln_scale.exp(),
                exponent: self.power.exponent,
            },
            CurvePart::Ratio { weight: w[RATIO], ms_per_byte: self.ratio.exp() },
            CurvePart::Neighbours { weight: w[NEIGHBOURS], sizes },
            CurvePart::Smooth { weight: w[SMOOTH], sizes },
        ];
        parts.into_iter().filter(|part| part.weight() > 0.0).collect()
    }

    /// Level and smoothed level at a place.
    fn at_place(&self, place: &Place) -> (f64, f64) {
        (self.constant + f64::from(place.level), self.constant + f64::from(place.smooth))
    }

    /// Interpolated level, smoothed level, and what is added at a size that was seen.
    fn near(&self, ln_size: f64) -> (f64, f64, f64) {
        let at = |p: &Place| f64::from(p.ln_size);
        let of = |p: &Place| self.at_place(p);
        let above = self.places.partition_point(|p| at(p) < ln_size);
        let gap = |p: &Place| (at(p) - ln_size).abs();
        let (low, high) = (above.checked_sub(1).map(|n| &self.places[n]), self.places.get(above));
        // The size of a place is the mean of its samples, so the farthest of them is SAME away.
        let nearer = [low, high].into_iter().flatten().min_by(|a, b| gap(a).total_cmp(&gap(b)));
        if let Some(place) = nearer.filter(|p| gap(p) <= SEEN) {
            let (level, smooth) = of(place);
            return (level, smooth, f64::from(place.own));
        }
        let (level, smooth) = match (low, high) {
            (Some(low), Some(high)) => {
                let part = (ln_size - at(low)) / (at(high) - at(low));
                let between = |a: f64, b: f64| a + part * (b - a);
                let (low, high) = (of(low), of(high));
                (between(low.0, high.0), between(low.1, high.1))
            }
            (Some(p), None) | (None, Some(p)) => of(p),
            (None, None) => (0.0, 0.0),
        };
        (level, smooth, 0.0)
    }
}

impl Fitted {
    /// Fits the mixture to cells.
    pub fn new(grid: &Grid, data: &Cells) -> Self {
        let deviations = data.deviations();
        let within = data.within(&deviations, WITHIN);
        let (mut fitted, line) = Self::inside(grid, &data.cells, within.powi(2), Models::All);
        let variances = || data.variances(&deviations, within, WITHIN);
        let line = line.filter(|_| grows(&grid.ln_sizes, &data.cells, &variances()));
        let below = |line: &LineFit| line.below(&grid.sizes, data.variance(within, WITHIN));
        let lines = line.and_then(|line| Some((line.plain(&grid.sizes)?, below(&line))));
        (fitted.mixture.outside, fitted.mixture.below) = lines.unzip();
        fitted
    }

    /// Log value at each cell, by itself, where nothing rests on a single cell: from means, and without the
    /// line, which takes longer than the other models together and says what the power law says at sizes that
    /// were seen.
    pub fn middles(grid: &Grid, ln_values: &[f64], points: &[Point], noise: f64) -> Vec<f64> {
        Self::inside(grid, &grid.means(ln_values, points), noise * noise, Models::AllButLine).0.at_cells
    }

    /// The mixture without the line for other sizes, and what that line is made of.
    fn inside(grid: &Grid, cells: &[Cell], within: f64, models: Models) -> (Self, Option<LineFit>) {
        if cells.len() == 1 {
            return (Self::constant(cells[0].level, within), None);
        }
        let middles = Middles::new(cells, &grid.ln_sizes);
        let power = PowerLaw::fit(&grid.ln_sizes, cells);
        let models = if spread(grid) { models } else { Models::Constant };
        let line = (models == Models::All).then(|| Line::relative(grid, cells, &power)).flatten();
        let models = if models == Models::All && line.is_none() { Models::Constant } else { models };
        let smooth = smooth(&grid.ln_sizes, cells);
        let (low, high) =
            cells.iter().fold((f64::MAX, f64::MIN), |(lo, hi), c| (lo.min(c.level), hi.max(c.level)));
        let mut left_out = vec![[0.0; MODELS]; cells.len()];
        for (place, row) in left_out.iter_mut().enumerate() {
            row[CONSTANT] = middles.constant.without(cells[place].level);
            row[RATIO] =
                middles.ratio.without(cells[place].level - grid.ln_sizes[place]) + grid.ln_sizes[place];
            row[NEIGHBOURS] = interpolated(place, &grid.ln_sizes, cells);
            row[SMOOTH] = smooth.without[place];
            // A fit that stands and falls with the cell says nothing without it; the neighbours do.
            let otherwise = row[NEIGHBOURS];
            row[POWER] = power.without(place, &grid.ln_sizes, cells).unwrap_or(otherwise);
            row[LINE] = line.as_ref().and_then(|line| line.without(place)).unwrap_or(otherwise);
            row.iter_mut().for_each(|value| *value = value.clamp(low - BEYOND_MAX, high + BEYOND_MAX));
        }
        let weights = weigh(cells, &left_out, models);
        let mixed = |row: &[f64; MODELS]| -> f64 { row.iter().zip(&weights).map(|(v, w)| v * w).sum() };
        let left_out: Vec<f64> = left_out.iter().map(mixed).collect();
        let mut mixture = Mixture {
            weights,
            constant: middles.constant.middle,
            ratio: middles.ratio.middle,
            line: line.as_ref().map(|line| line.line),
            power: power.law,
            outside: None,
            below: None,
            places: Vec::new(),
        };
        let place = |(n, cell): (usize, &Cell)| Place {
            ln_size: grid.ln_sizes[n] as f32,
            level: (cell.level - middles.constant.middle) as f32,
            smooth: (smooth.with[n] - middles.constant.middle) as f32,
            own: 0.0,
        };
        mixture.places = cells.iter().enumerate().map(place).collect();
        (Self::correct(mixture, grid, cells, left_out, within), line)
    }

    fn constant(level: f64, within: f64) -> Self {
        Self {
            mixture: Mixture::constant(level),
            at_cells: vec![level],
            left_out: vec![level],
            between: f64::INFINITY,
            within,
            alike: vec![true],
        }
    }

    /// Adds at each observed size what its samples say beyond the mixture, drawn towards zero.
    ///
    /// How far is estimated from the data (variance between sizes against variance within one size divided
    /// by its samples). Source: B. Efron and C. Morris, "Stein's estimation rule and its competitors", JASA
    /// 68, 1973.
    fn correct(mut mixture: Mixture, grid: &Grid, cells: &[Cell], left_out: Vec<f64>, within: f64) -> Self {
        let squares: f64 = cells
            .iter()
            .zip(&left_out)
            .map(|(c, l)| (c.level - l).clamp(-ERROR_MAX, ERROR_MAX).powi(2) - within / c.count)
            .sum();
        let between = (squares / cells.len() as f64).max(0.0);
        let mut at_cells = Vec::with_capacity(cells.len());
        for (place, cell) in cells.iter().enumerate() {
            let near = mixture.at_place(&mixture.places[place]);
            let near = (near.0, near.1, 0.0);
            let plain = mixture.mixed(grid.sizes[place], grid.ln_sizes[place], || near);
            let rest = cell.level - plain;
            let drawn = rest * trust(between, within, cell.count);
            let own = if !grid.alike[place] {
                0.0
            } else if cell.count >= OWN_SAMPLES_MIN {
                drawn.max(cell.least - plain).min(cell.most - plain)
            } else {
                drawn
            };
            mixture.places[place].own = own as f32;
            at_cells.push(plain + own);
        }
        let silent = mixture.weights[NEIGHBOURS] == 0.0 && mixture.weights[SMOOTH] == 0.0;
        if silent && mixture.places.iter().all(|p| p.own.abs() < OWN_MIN) {
            mixture.places = Vec::new();
        }
        Self { mixture, at_cells, left_out, between, within, alike: grid.alike.clone() }
    }

    /// Standard deviation that a size which was not seen adds to residuals of members that were left out: the
    /// error at cells that were left out, as far as the residuals do not have it already, because most of
    /// them are of sizes that others of the residuals share.
    pub fn unseen(&self, data: &Cells) -> f64 {
        if self.between.is_infinite() || self.mixture.places.is_empty() {
            return 0.0;
        }
        let cells = data.cells.len();
        if cells < 3 {
            // A line through two sizes has no error that they show.
            return 0.0;
        }
        let errors = data.cells.iter().zip(&self.left_out).map(|(c, l)| ((c.level - l).abs(), 1.0));
        let mut errors: Vec<(f64, f64)> =
            if cells < INNER_CELLS { errors.take(cells - 1).skip(1).collect() } else { errors.collect() };
        let error = MAD * median(&mut errors);
        let (mut alone, mut total) = (0.0, 0.0);
        for (cell, alike) in data.cells.iter().zip(&self.alike) {
            total += cell.count;
            alone += if cell.count < 2.0 || !alike { cell.count } else { 0.0 };
        }
        (error * error * (1.0 - alone / total)).sqrt()
    }

    /// What would be predicted for each member of a cell without it: the mixture without the cell, drawn
    /// towards the median of the other members.
    pub fn without<'a>(&self, data: &'a Cells, cell: usize) -> impl Fn(usize) -> f64 + use<'a> {
        let (members, left_out) = (data.members(cell), self.left_out[cell]);
        // Without one of two sizes nothing is known of it: a line goes through both.
        let left_out = if data.cells.len() == 2 && members.len() == 1 { members[0].0 } else { left_out };
        let alone = members.len() == 1 || !self.alike[cell];
        let part = if alone {
            0.0
        } else if self.between.is_infinite() {
            1.0
        } else {
            trust(self.between, self.within, (members.len() - 1) as f64)
        };
        let bounded = part < 1.0 && members.len() as f64 > OWN_SAMPLES_MIN;
        let (least, most) = (members[0].0, members[members.len() - 1].0);
        move |member| {
            if alone {
                return left_out;
            }
            let others = median_without(members, member);
            let predicted = if part < 1.0 { left_out + part * (others - left_out) } else { others };
            if bounded { predicted.max(least).min(most) } else { predicted }
        }
    }
}

fn trust(between: f64, within: f64, count: f64) -> f64 {
    if between > 0.0 { between / (between + within / count) } else { 0.0 }
}

/// Median of sorted values without the one at `left_out`.
fn median_without(sorted: &[(f64, f64)], left_out: usize) -> f64 {
    let rest = sorted.len() - 1;
    let at = |n: usize| sorted[if n < left_out { n } else { n + 1 }].0;
    if rest % 2 == 1 { at(rest / 2) } else { f64::midpoint(at(rest / 2 - 1), at(rest / 2)) }
}

/// Weights of the models from their errors at cells that were left out.
fn weigh(cells: &[Cell], left_out: &[[f64; MODELS]], models: Models) -> [f64; MODELS] {
    let mut weights = [0.0; MODELS];
    if models == Models::Constant {
        weights[CONSTANT] = 1.0;
        return weights;
    }
    if cells.len() == 2 {
        // Nothing can be left out of two sizes; a line is what is between them.
        weights[if models == Models::All { LINE } else { POWER }] = 1.0;
        return weights;
    }
    let total = sum(cells.len(), |place| cells[place].weight);
    let sharpness = (cells.len() as f64).min(SHARPNESS_MAX);
    let mut errors = [0.0; MODELS];
    for (cell, row) in cells.iter().zip(left_out) {
        let error = |value: &f64| cell.weight * (value - cell.level).abs().min(ERROR_MAX);
        errors.iter_mut().zip(row).for_each(|(sum, value)| *sum += error(value));
    }
    for (model, weight) in weights.iter_mut().enumerate() {
        if model == LINE && models == Models::AllButLine {
            continue;
        }
        *weight = (errors[model] / total + ERROR_MIN).powf(-sharpness);
    }
    let normalise = |weights: &mut [f64; MODELS]| {
        let total: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w /= total);
    };
    normalise(&mut weights);
    weights.iter_mut().filter(|w| **w < WEIGHT_MIN).for_each(|w| *w = 0.0);
    normalise(&mut weights);
    weights
}

/// Weighted medians of the level and of the level per byte.
struct Middles {
    constant: Middle,
    ratio: Middle,
}

impl Middles {
    fn new(cells: &[Cell], ln_sizes: &[f64]) -> Self {
        let constant = cells.iter().map(|c| (c.level, c.weight)).collect();
        let ratio = cells.iter().zip(ln_sizes).map(|(c, u)| (c.level - u, c.weight)).collect();
        Self { constant: Middle::new(constant), ratio: Middle::new(ratio) }
    }
}

/// A median, and what it would be with one value of average weight less on either side.
struct Middle {
    middle: f64,
    less_below: f64,
    less_above: f64,
}

impl Middle {
    fn new(mut values: Vec<(f64, f64)>) -> Self {
        let middle = median(&mut values);
        let total = weight(&values);
        let mean = total / values.len() as f64;
        let at = |target: f64| reached(&values, target).map_or(middle, |(place, _)| values[place].0);
        let (less_below, less_above) = (at((total + mean) / 2.0 + 1e-9), at((total - mean) / 2.0 - 1e-9));
        Self { middle, less_below, less_above }
    }

    fn without(&self, value: f64) -> f64 {
        match value.total_cmp(&self.middle) {
            std::cmp::Ordering::Less => self.less_below,
            std::cmp::Ordering::Greater => self.less_above,
            std::cmp::Ordering::Equal => f64::midpoint(self.less_below, self.less_above),
        }
    }
}
