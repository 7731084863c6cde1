//! Scores: absolute percentage errors of the median, pinball loss and coverage of the quantiles.

use std::collections::BTreeMap;

use foresail_schemas::Sla;
use serde::Serialize;

use super::{Method, QUANTILES};

/// Least truth that an error is a percentage of: the resolution of times (and less than one byte), so that a
/// truth of zero has an error, which is larger than any other. A mean leaves those out: one of them, where a
/// clock counts seconds, is more than all others together.
const TRUTH_MIN: f64 = 1e-3;

/// Config and size that were asked about.
pub type Question = ((u32, u64), u64);

/// The score of one method.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Score {
    /// The method.
    pub method: Method,
    /// Predictions scored.
    pub n: u64,
    /// Median absolute percentage error of the predicted median.
    pub mdape_percent: f64,
    /// Mean absolute percentage error of the predicted median where the truth is not 0.
    pub mape_percent: f64,
    /// Median absolute percentage error against the measured median of each (config, size): the error
    /// without the scatter of single measurements, which no prediction can follow.
    pub mdape_of_medians_percent: f64,
    /// Mean pinball loss per quantile, in ms (in bytes for output sizes).
    ///
    /// Source: R. Koenker and G. Bassett, "Regression quantiles", Econometrica 46, 1978.
    pub pinball_ms: BTreeMap<Sla, f64>,
    /// Part of the truths at or below each predicted quantile.
    pub coverage: BTreeMap<Sla, f64>,
    /// The same per task, named `workflow/task`.
    pub by_task: BTreeMap<String, TaskScore>,
}

/// The score of one method on one task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskScore {
    /// Predictions scored.
    pub n: u64,
    /// Median absolute percentage error of the predicted median.
    pub mdape_percent: f64,
    /// Mean absolute percentage error of the predicted median where the truth is not 0.
    pub mape_percent: f64,
    /// Part of the truths at or below each predicted quantile.
    pub coverage: BTreeMap<Sla, f64>,
}

/// Predictions scored so far, by task.
pub struct Board {
    tasks: BTreeMap<String, Tally>,
}

#[derive(Default)]
struct Tally {
    /// Predicted median and truths per fit and question.
    questions: BTreeMap<(usize, Question), (f64, Vec<f64>)>,
    errors_percent: Vec<f64>,
    /// Sum and count of those of truths that are not 0.
    percents: (f64, u64),
    pinball: [f64; QUANTILES.len()],
    covered: [u64; QUANTILES.len()],
}

impl Board {
    /// An empty one.
    pub fn new() -> Self {
        Self { tasks: BTreeMap::new() }
    }

    /// Takes in the values predicted at [`QUANTILES`] and what was measured, with the trial and the question.
    pub fn add(
        &mut self,
        task: &str,
        asked: (usize, Question),
        predicted: &[f64; QUANTILES.len()],
        truth: f64,
    ) {
        if !self.tasks.contains_key(task) {
            self.tasks.insert(task.to_owned(), Tally::default());
        }
        let Some(tally) = self.tasks.get_mut(task) else { return };
        let error = error_percent(predicted[0], truth);
        tally.errors_percent.push(error);
        if truth >= TRUTH_MIN {
            tally.percents = (tally.percents.0 + error, tally.percents.1 + 1);
        }
        tally.questions.entry(asked).or_insert_with(|| (predicted[0], Vec::new())).1.push(truth);
        for (place, (sla, value)) in QUANTILES.iter().zip(predicted).enumerate() {
            let q = sla.quantile().unwrap_or(0.5);
            let above = truth - value;
            tally.pinball[place] += if above >= 0.0 { q * above } else { (q - 1.0) * above };
            tally.covered[place] += u64::from(above <= 0.0);
        }
    }

    /// The score.
    pub fn score(self, method: Method) -> Score {
        let mut all = Tally::default();
        let mut by_task = BTreeMap::new();
        let mut of_medians = Vec::new();
        for (task, mut tally) in self.tasks {
            of_medians.extend(
                tally.questions.values_mut().map(|(found, truths)| error_percent(*found, median(truths))),
            );
            all.errors_percent.extend(&tally.errors_percent);
            all.percents = (all.percents.0 + tally.percents.0, all.percents.1 + tally.percents.1);
            for place in 0..QUANTILES.len() {
                all.pinball[place] += tally.pinball[place];
                all.covered[place] += tally.covered[place];
            }
            let score = TaskScore {
                n: tally.errors_percent.len() as u64,
                mdape_percent: median(&mut tally.errors_percent),
                mape_percent: tally.mape_percent(),
                coverage: tally.coverage(),
            };
            by_task.insert(task, score);
        }
        let n = all.errors_percent.len().max(1) as f64;
        Score {
            method,
            n: all.errors_percent.len() as u64,
            mdape_percent: median(&mut all.errors_percent),
            mape_percent: all.mape_percent(),
            mdape_of_medians_percent: median(&mut of_medians),
            pinball_ms: QUANTILES.into_iter().zip(all.pinball.map(|loss| loss / n)).collect(),
            coverage: all.coverage(),
            by_task,
        }
    }
}

impl Tally {
    fn mape_percent(&self) -> f64 {
        self.percents.0 / self.percents.1.max(1) as f64
    }

    fn coverage(&self) -> BTreeMap<Sla, f64> {
        let n = self.errors_percent.len().max(1) as f64;
        QUANTILES.into_iter().zip(self.covered.map(|count| count as f64 / n)).collect()
    }
}

fn error_percent(predicted: f64, truth: f64) -> f64 {
    100.0 * (predicted - truth).abs() / truth.max(TRUTH_MIN)
}

/// Median; the mean of both middles.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}

/// Mean.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
