//! What tasks decided: how many follow, or which branch is taken.
//!
//! Per function the [`RING_SAMPLES`] newest decisions are kept, whatever the order in which they came. A
//! width is predicted by the order statistics of what was decided since it last changed its level; where the
//! size of the input explains most of it, by a curve over that size, like the size of an output. How likely a
//! branch is, is its frequency, smoothed, so that one that was not seen yet keeps a share.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use foresail_schemas::decision::Decision;
use foresail_schemas::metric::DecisionRecord;
use foresail_schemas::prediction::{Basis, Prediction, Unit};
use foresail_schemas::{Sla, TaskName};
use serde::{Deserialize, Serialize};

use crate::cells::CELLS_MAX;
use crate::curve::{Ask, Curve, Setup, weigh};
use crate::drift;
use crate::ring::{RING_SAMPLES, scatter};
use crate::size::Point;

/// Most functions per workflow whose decisions are kept; those of further ones are counted as records and
/// otherwise left out.
pub const DECIDERS_MAX: usize = 256;
/// Most decisions that an answer lists with their probability, the most frequent ones.
pub const BRANCHES_MAX: usize = 32;
/// Offset of widths while they are fitted, so that no width at all is one like any other.
const OFFSET_TASKS: f64 = 1.0;
/// Standard deviation of log residuals of widths expected before anything is seen.
const SPREAD_WIDTH: f64 = 0.05;
/// Log distance up to which input sizes are alike for what is decided.
const SAME_SIZE: f64 = 1e-6;
/// Fewest widths of which the size of the input may explain any.
const SIZED_SAMPLES_MIN: usize = 8;
/// Share of the variance of log widths from which on the log size explains them.
const SIZED_SHARE_MIN: f64 = 0.6;

/// What was decided, by function.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DecisionModel {
    tasks: BTreeMap<TaskName, Arc<Decisions>>,
}

/// The newest decisions of one function, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Decisions {
    ring: VecDeque<Decided>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Decided {
    at_us: i64,
    input_bytes: u64,
    value: Value,
}

/// A decision in a form that says what it is: packed forms cannot guess it as JSON does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Value {
    Width(u64),
    Branch(String),
}

impl Decided {
    /// The contents as a number that looks random: decisions of one time stay without regard to their values.
    fn mixed(&self) -> u64 {
        let kept = scatter(0, self.input_bytes);
        match &self.value {
            Value::Width(width) => scatter(kept, *width),
            Value::Branch(text) => text.bytes().fold(!kept, |mixed, byte| scatter(mixed, u64::from(byte))),
        }
    }

    fn order(&self, other: &Self) -> Ordering {
        let contents = |d: &Self| (d.input_bytes, d.value.clone());
        self.at_us
            .cmp(&other.at_us)
            .then_with(|| self.mixed().cmp(&other.mixed()))
            .then_with(|| contents(self).cmp(&contents(other)))
    }
}

impl Decisions {
    fn push(&mut self, decided: Decided) {
        if self.ring.len() == RING_SAMPLES {
            if self.ring[0].order(&decided) != Ordering::Less {
                return;
            }
            self.ring.pop_front();
        }
        let place = self.ring.partition_point(|known| known.order(&decided) != Ordering::Greater);
        self.ring.insert(place, decided);
    }

    fn fit(&self) -> Decider {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        let mut points: Vec<Point> = Vec::new();
        for Decided { at_us, input_bytes, value } in &self.ring {
            let text = match value {
                Value::Width(width) => {
                    let (size, value) = (*input_bytes as f64, *width as f64 + OFFSET_TASKS);
                    points.push(Point { at_us: *at_us, size, value, weight: 1.0 });
                    width.to_string()
                }
                Value::Branch(text) => text.clone(),
            };
            *counts.entry(text).or_default() += 1;
        }
        // One more than there are: what was never decided may be next. Source: P.-S. Laplace, rule of
        // succession.
        let total = (self.ring.len() + counts.len() + 1) as f64;
        let mut counts: Vec<(String, u64)> = counts.into_iter().collect();
        counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        counts.truncate(BRANCHES_MAX);
        let branches = counts.into_iter().map(|(text, count)| (text, (count + 1) as f64 / total)).collect();
        Decider { samples: self.ring.len() as u64, branches, widths: Widths::fit(points) }
    }
}

impl DecisionModel {
    /// Takes in one decision.
    pub fn record(&mut self, record: &DecisionRecord, at_us: i64) {
        let value = match &record.value {
            Decision::Width(width) => Value::Width(*width),
            Decision::Branch(text) => Value::Branch(text.clone()),
        };
        self.push(&record.task, [Decided { at_us, input_bytes: record.input_bytes, value }]);
    }

    /// Takes in everything of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (task, theirs) in &other.tasks {
            self.push(task, theirs.ring.iter().cloned());
        }
    }

    fn push(&mut self, task: &TaskName, decided: impl IntoIterator<Item = Decided>) {
        if !self.tasks.contains_key(task) {
            if self.tasks.len() == DECIDERS_MAX {
                return;
            }
            self.tasks.insert(task.clone(), Arc::default());
        }
        if let Some(known) = self.tasks.get_mut(task) {
            let known = Arc::make_mut(known);
            decided.into_iter().for_each(|one| known.push(one));
        }
    }

    /// Fits what was decided.
    pub fn fit(&self) -> DecisionPredictor {
        let fit = |(task, decisions): (&TaskName, &Arc<Decisions>)| (task.clone(), decisions.fit());
        DecisionPredictor { tasks: self.tasks.iter().map(fit).collect() }
    }
}

/// What functions are predicted to decide.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DecisionPredictor {
    tasks: BTreeMap<TaskName, Decider>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Decider {
    samples: u64,
    branches: BTreeMap<String, f64>,
    widths: Option<Widths>,
}

/// Widths of one function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Widths {
    curve: Curve,
    /// Ascending; nothing where the size of the input tells more.
    sorted: Option<Vec<u64>>,
}

impl DecisionPredictor {
    /// What a function decides at an input size, where it was seen to decide.
    pub fn predict(&self, task: &TaskName, input_bytes: u64, slas: &[Sla]) -> Option<Prediction> {
        let decider = self.tasks.get(task)?;
        let plain = Prediction {
            unit: Unit::Tasks,
            values: slas.iter().map(|sla| (*sla, None)).collect(),
            basis: Basis::Exact,
            samples: decider.samples,
            extrapolated: false,
            interval: BTreeMap::new(),
            branches: BTreeMap::new(),
        };
        let answer = decider.widths.as_ref().map_or(plain, |widths| widths.answer(input_bytes, slas));
        Some(Prediction { branches: decider.branches.clone(), ..answer })
    }
}

impl Widths {
    fn fit(mut points: Vec<Point>) -> Option<Self> {
        points.drain(..drift::changes(&points).newest);
        weigh(&mut points);
        let setup =
            Setup { spread: SPREAD_WIDTH, history: None, samples: 0, same: SAME_SIZE, cells_max: CELLS_MAX };
        let curve = Curve::fit(&points, &[], &setup)?;
        let mut sorted: Vec<u64> = points.iter().map(|p| (p.value - OFFSET_TASKS) as u64).collect();
        sorted.sort_unstable();
        let sorted = (share_of_size(&points) < SIZED_SHARE_MIN).then_some(sorted);
        Some(Self { curve, sorted })
    }

    fn answer(&self, input_bytes: u64, slas: &[Sla]) -> Prediction {
        let ask = Ask {
            size: input_bytes as f64,
            scale: 1.0,
            sigma: 0.0,
            offset: OFFSET_TASKS,
            unit: Unit::Tasks,
            basis: Basis::Exact,
            extrapolated: false,
            most: None,
        };
        let Some(sorted) = &self.sorted else { return self.curve.answer(&ask, slas) };
        // The size tells nothing, so neither does one that was not seen.
        let mut answer = self.curve.answer(&Ask { size: self.curve.size_median, ..ask }, slas);
        answer.extrapolated = false;
        for (sla, value) in &mut answer.values {
            let plain = match sla.quantile() {
                None => sorted.iter().map(|width| *width as f64).sum::<f64>() / sorted.len() as f64,
                Some(q) => ranked(sorted, q, value.unwrap_or(0.0)),
            };
            *value = Some(plain);
            if let Some([low, high]) = answer.interval.get_mut(sla) {
                (*low, *high) = (low.min(plain), high.max(plain));
            }
        }
        answer
    }
}

/// The width of rank q (n + 1), so that a further one stays below it with probability q; `beyond` is what is
/// thought where the samples do not reach as far. Source: the rank of a prediction limit, G. J. Hahn and W.
/// Q. Meeker, Statistical Intervals, 5.3.
fn ranked(sorted: &[u64], q: f64, beyond: f64) -> f64 {
    let last = sorted[sorted.len() - 1];
    if sorted[0] == last && sorted.len() > 1 {
        return last as f64;
    }
    let rank = (q * (sorted.len() + 1) as f64 - 1e-9).ceil().max(1.0) as usize;
    sorted.get(rank - 1).map_or_else(|| beyond.max(last as f64), |width| *width as f64)
}

/// Share of the variance of log widths that a line over the log size explains: the square of the correlation.
fn share_of_size(points: &[Point]) -> f64 {
    if points.len() < SIZED_SAMPLES_MIN {
        return 0.0;
    }
    let logs: Vec<(f64, f64)> = points.iter().map(|p| ((1.0 + p.size).ln(), p.value.ln())).collect();
    let count = logs.len() as f64;
    let (x, y) = logs.iter().fold((0.0, 0.0), |(x, y), (a, b)| (x + a / count, y + b / count));
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    for (a, b) in logs {
        (xx, xy, yy) = (xx + (a - x) * (a - x), xy + (a - x) * (b - y), yy + (b - y) * (b - y));
    }
    if xx * yy > 1e-12 { xy * xy / (xx * yy) } else { 0.0 }
}
