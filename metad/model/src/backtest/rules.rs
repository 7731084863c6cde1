//! The simple rules that the model is compared with, each taught by the same rows of the task.
//!
//! Their quantiles are those of value / prediction over the rows they learned. No prediction is less than a
//! small part of the least value, or a line through zero would have ratios without bound.

use std::collections::BTreeMap;

use super::score::{Board, mean, median};
use super::split::Trial;
use super::{Case, Method, QUANTILES, Table};

/// Neighbours whose values are averaged.
const NEIGHBOURS: usize = 5;
/// The exponent of time in memory that is in use elsewhere.
const EXPONENT: f64 = 0.3;
/// Rows whose ratios give the quantiles.
const RATIOS_MAX: usize = 64;
/// Part of the least value learned that predictions do not fall below.
const FLOOR_PART: f64 = 0.1;
/// Least value that has a logarithm.
const VALUE_MIN: f64 = 1e-3;

/// Asks a rule about one trial, after `learned`.
pub fn judge_rule(
    table: &Table,
    turn: usize,
    trial: &Trial,
    learned: &[usize],
    method: Method,
    board: &mut Board,
) {
    let mut rows: BTreeMap<usize, Vec<&Case>> = BTreeMap::new();
    for place in learned {
        let case = &table.cases[*place];
        rows.entry(case.task).or_default().push(case);
    }
    let mut fitted: BTreeMap<usize, (Fitted, [f64; QUANTILES.len()])> = BTreeMap::new();
    let mut answers = BTreeMap::new();
    for place in &trial.ask {
        let case = &table.cases[*place];
        let Some(known) = rows.get(&case.task) else { continue };
        let (rule, ratios) = fitted.entry(case.task).or_insert_with(|| {
            let rule = Fitted::new(method, known);
            let ratios = rule.ratios(known);
            (rule, ratios)
        });
        let middle = *answers.entry(case.cell()).or_insert_with(|| rule.at(case));
        let mut values = ratios.map(|ratio| middle * ratio);
        values[0] = middle;
        board.add(&table.tasks[case.task], (turn, case.question()), &values, case.value);
    }
}

/// A rule with the least that it answers.
struct Fitted {
    rule: Rule,
    floor: f64,
}

impl Fitted {
    fn new(method: Method, rows: &[&Case]) -> Self {
        let least = rows.iter().map(|case| case.value).fold(f64::INFINITY, f64::min);
        Self { rule: Rule::new(method, rows), floor: FLOOR_PART * least }
    }

    fn at(&self, case: &Case) -> f64 {
        self.rule.at(case).max(self.floor)
    }

    /// Quantiles of value / prediction.
    fn ratios(&self, rows: &[&Case]) -> [f64; QUANTILES.len()] {
        // A least value of zero would be no floor: the least above it is one.
        let above_zero = rows.iter().map(|case| case.value).filter(|value| *value > 0.0);
        let floor = (FLOOR_PART * above_zero.fold(f64::INFINITY, f64::min)).clamp(VALUE_MIN, f64::MAX);
        let step = rows.len().div_ceil(RATIOS_MAX).max(1);
        let ratio = |case: &&Case| {
            let found = self.at(case);
            if found >= floor || case.value > 0.0 { case.value / found.max(floor) } else { 1.0 }
        };
        let mut ratios: Vec<f64> = rows.iter().step_by(step).map(ratio).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        QUANTILES.map(|sla| {
            let place = sla.quantile().unwrap_or(0.5) * (ratios.len().saturating_sub(1)) as f64;
            ratios.get(place.round() as usize).copied().unwrap_or(1.0)
        })
    }
}

/// What a rule keeps.
enum Rule {
    Constant(f64),
    /// Scales of the axes, and the rows on them.
    Neighbours([f64; 3], Vec<([f64; 3], f64)>),
    Line([f64; 3]),
    LogLine([f64; 3]),
    /// Sizes in order, with the time of a whole share.
    Exponent(Vec<(u64, f64)>),
    PerByte {
        per_byte: f64,
        otherwise: f64,
    },
}

impl Rule {
    fn new(method: Method, rows: &[&Case]) -> Self {
        let mut values: Vec<f64> = rows.iter().map(|case| case.value).collect();
        match method {
            Method::Mean => Self::Constant(mean(&values)),
            Method::Model | Method::Median => Self::Constant(median(&mut values)),
            Method::NearestNeighbours => {
                let scales = scales(rows);
                Self::Neighbours(scales, rows.iter().map(|case| (axes(case), case.value)).collect())
            }
            Method::Linear => Self::Line(plane(rows, |c| [1.0, c.share, c.input_bytes as f64], |c| c.value)),
            Method::LogLinear => Self::LogLine(plane(rows, logs, |c| c.value.max(VALUE_MIN).ln())),
            Method::FixedExponent => {
                let whole = |case: &&Case| (case.input_bytes, case.value * case.share.powf(EXPONENT));
                let mut levels: Vec<(u64, f64)> = rows.iter().map(whole).collect();
                levels.sort_by_key(|level| level.0);
                Self::Exponent(levels)
            }
            Method::ProportionalToBytes => {
                let mut per_byte: Vec<f64> = rows
                    .iter()
                    .filter(|c| c.input_bytes > 0)
                    .map(|c| c.value / c.input_bytes as f64)
                    .collect();
                Self::PerByte { per_byte: median(&mut per_byte), otherwise: median(&mut values) }
            }
        }
    }

    fn at(&self, case: &Case) -> f64 {
        let value = match self {
            Self::Constant(value) => *value,
            Self::Neighbours(scales, points) => nearest(points, case, scales),
            Self::Line([a, b, c]) => a + b * case.share + c * case.input_bytes as f64,
            Self::LogLine(weights) => {
                logs(case).iter().zip(weights).map(|(x, w)| x * w).sum::<f64>().min(60.0).exp()
            }
            Self::Exponent(levels) => fixed_exponent(levels, case),
            Self::PerByte { per_byte, .. } if case.input_bytes > 0 && *per_byte > 0.0 => {
                per_byte * case.input_bytes as f64
            }
            Self::PerByte { otherwise, .. } => *otherwise,
        };
        value.max(0.0)
    }
}

fn logs(case: &Case) -> [f64; 3] {
    [1.0, case.share.ln(), (case.input_bytes as f64).ln_1p()]
}

fn axes(case: &Case) -> [f64; 3] {
    [f64::from(case.memory_mb).ln(), case.share.ln(), (case.input_bytes as f64).ln_1p()]
}

/// Standard deviation of each axis; where it does not vary, 1.
fn scales(rows: &[&Case]) -> [f64; 3] {
    let mut scales = [1.0; 3];
    for (axis, scale) in scales.iter_mut().enumerate() {
        let values: Vec<f64> = rows.iter().map(|case| axes(case)[axis]).collect();
        let middle = mean(&values);
        let squares: Vec<f64> = values.iter().map(|v| (v - middle).powi(2)).collect();
        let deviation = mean(&squares).sqrt();
        if deviation > 1e-9 {
            *scale = deviation;
        }
    }
    scales
}

fn nearest(points: &[([f64; 3], f64)], case: &Case, scales: &[f64; 3]) -> f64 {
    let here = axes(case);
    let distance = |there: &[f64; 3]| -> f64 {
        (0..3).map(|axis| ((here[axis] - there[axis]) / scales[axis]).powi(2)).sum()
    };
    let mut near: Vec<(f64, f64)> = points.iter().map(|(there, value)| (distance(there), *value)).collect();
    let count = NEIGHBOURS.min(near.len());
    if count < near.len() {
        near.select_nth_unstable_by(count, |a, b| a.0.total_cmp(&b.0));
    }
    near.truncate(count);
    mean(&near.iter().map(|n| n.1).collect::<Vec<_>>())
}

fn fixed_exponent(levels: &[(u64, f64)], case: &Case) -> f64 {
    let of_size = |size: Option<u64>| {
        let from = levels.partition_point(|level| Some(level.0) < size);
        let to = levels.partition_point(|level| Some(level.0) <= size);
        &levels[from..to]
    };
    let place = levels.partition_point(|level| level.0 < case.input_bytes);
    let below = place.checked_sub(1).map(|last| levels[last].0);
    let above = levels.get(place).map(|level| level.0);
    let gap = |size: Option<u64>| size.map_or(u64::MAX, |size| size.abs_diff(case.input_bytes));
    let least = gap(below).min(gap(above));
    let near = [below, above].into_iter().filter(|size| size.is_some() && gap(*size) == least);
    let mut times: Vec<f64> = near.flat_map(of_size).map(|level| level.1).collect();
    median(&mut times) / case.share.powf(EXPONENT)
}

/// Least squares on three columns; a column that does not vary gets no weight.
fn plane(rows: &[&Case], columns: fn(&Case) -> [f64; 3], value: fn(&Case) -> f64) -> [f64; 3] {
    let points: Vec<([f64; 3], f64)> = rows.iter().map(|case| (columns(case), value(case))).collect();
    let n = points.len().max(1) as f64;
    let middle = [1, 2].map(|axis| points.iter().map(|p| p.0[axis]).sum::<f64>() / n);
    let level = points.iter().map(|p| p.1).sum::<f64>() / n;
    let (mut square, mut linear) = ([[0.0; 2]; 2], [0.0; 2]);
    for (x, y) in &points {
        let d = [x[1] - middle[0], x[2] - middle[1]];
        for i in 0..2 {
            linear[i] += d[i] * (y - level);
            (0..2).for_each(|j| square[i][j] += d[i] * d[j]);
        }
    }
    let det = square[0][0] * square[1][1] - square[0][1] * square[1][0];
    let alone = |axis: usize| if square[axis][axis] > 0.0 { linear[axis] / square[axis][axis] } else { 0.0 };
    let slopes = if det > 1e-9 * square[0][0] * square[1][1] {
        [
            (linear[0] * square[1][1] - linear[1] * square[0][1]) / det,
            (linear[1] * square[0][0] - linear[0] * square[1][0]) / det,
        ]
    } else if square[0][0] > 0.0 {
        [alone(0), 0.0]
    } else {
        [0.0, alone(1)]
    };
    [level - slopes[0] * middle[0] - slopes[1] * middle[1], slopes[0], slopes[1]]
}
