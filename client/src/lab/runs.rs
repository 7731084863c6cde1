//! Real runs beside each other: the same workflow under several planners, carried out by workers.
//!
//! Rows are what was measured; [`summaries`] gives means with their 95 % confidence intervals by Student's t
//! (few repetitions, spread unknown). Times in ms, sizes in bytes, money in USD.

use std::collections::BTreeMap;

use foresail_schemas::Workflow;
use foresail_schemas::plan::PlanSummary;
use foresail_worker::Registry;
use serde::Serialize;

use crate::examples::reference::{self, ReferenceError};

/// Quantiles 0.975 of Student's t for 1 to 30 degrees of freedom (NIST/SEMATECH e-Handbook of Statistical
/// Methods, section 1.3.6.7.2); beyond, that of the normal distribution.
const STUDENT_975: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];
const NORMAL_975: f64 = 1.96;

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunRow {
    /// The workflow as it was asked for.
    pub workload: String,
    /// Its tasks.
    pub tasks: u64,
    /// Who planned.
    pub planner: String,
    /// Number of the repetition, from 1.
    pub repeat: u32,
    /// Runs that were measured before, under any planner.
    pub learned_from: u32,
    /// Time of the planning in ms.
    pub planning_ms: f64,
    /// What the plan said.
    pub predicted: PlanSummary,
    /// What it took and cost.
    pub actual: PlanSummary,
    /// Whether the results are those of the reference, or of the first run where there is none.
    pub is_correct: bool,
}

/// A mean and half the width of its 95 % confidence interval; nothing where there is one value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// Half the width of the interval.
    pub margin: Option<f64>,
}

/// One planner on one workflow.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunsSummary {
    /// The workflow as it was asked for.
    pub workload: String,
    /// Who planned.
    pub planner: String,
    /// Runs.
    pub runs: u64,
    /// Makespan in ms.
    pub makespan_ms: Mean,
    /// Mean makespan over that of the first planner.
    pub makespan_to_first: f64,
    /// Cost in USD.
    pub cost_usd: Mean,
    /// Bytes moved, mean.
    pub moved_bytes: f64,
    /// Cold starts, mean.
    pub cold_starts: f64,
    /// Invocations, mean.
    pub invocations: f64,
    /// Median of the error of the predicted makespan, without its sign, in percent.
    pub error_percent: f64,
    /// Median of the distance of the actual makespans from their median, in percent of it: no prediction made
    /// before a run has a smaller error in the median, unless it knows what the run will meet.
    pub scatter_percent: f64,
    /// Runs with other results than the reference.
    pub wrong: u64,
}

/// Hash of the results that every run must give, by task and output name in order of the names.
///
/// # Errors
/// [`ReferenceError`] where the workflow cannot be carried out in this process.
pub fn expected(workflow: &Workflow, registry: &Registry) -> Result<String, ReferenceError> {
    let outputs = reference::all_outputs(workflow, registry)?;
    let graph = workflow.graph();
    let mut results = Vec::new();
    for task in graph.sinks() {
        let task = workflow.task(task);
        for name in task.output_names() {
            // One that is skipped has no result.
            let Some(content) = outputs.get(&(task.id.to_string(), name.to_string())) else { continue };
            let hash = blake3::hash(content);
            results.push((task.id.to_string(), name.to_string(), hash.to_hex().to_string()));
        }
    }
    Ok(digest(results))
}

/// One hash for all results: task, output and hash of each.
#[must_use]
pub fn digest(mut results: Vec<(String, String, String)>) -> String {
    results.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for (task, name, hash) in results {
        hasher.update(format!("{task}\n{name}\n{hash}\n").as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// Rows in short, in the order in which workflows and planners first stand there.
#[must_use]
pub fn summaries(rows: &[RunRow]) -> Vec<RunsSummary> {
    let mut order: Vec<(&str, &str)> = Vec::new();
    let mut groups: BTreeMap<(&str, &str), Vec<&RunRow>> = BTreeMap::new();
    for row in rows {
        let key = (row.workload.as_str(), row.planner.as_str());
        if !order.contains(&key) {
            order.push(key);
        }
        groups.entry(key).or_default().push(row);
    }
    let makespan_ms = |key: &(&str, &str)| mean(groups[key].iter().map(|r| r.actual.makespan_ms)).mean;
    let one = |key: &(&str, &str)| {
        let rows = &groups[key];
        let first = order.iter().find(|other| other.0 == key.0).unwrap_or(key);
        let of = |value: fn(&PlanSummary) -> f64| mean(rows.iter().map(|row| value(&row.actual)));
        RunsSummary {
            workload: key.0.to_owned(),
            planner: key.1.to_owned(),
            runs: rows.len() as u64,
            makespan_ms: of(|s| s.makespan_ms),
            makespan_to_first: makespan_ms(key) / makespan_ms(first),
            cost_usd: of(|s| s.cost_usd),
            moved_bytes: of(|s| (s.download_bytes + s.upload_bytes) as f64).mean,
            cold_starts: of(|s| s.cold_starts as f64).mean,
            invocations: of(|s| s.invocations as f64).mean,
            error_percent: median(rows.iter().map(|row| error_percent(row)).collect()),
            scatter_percent: scatter_percent(rows),
            wrong: rows.iter().filter(|row| !row.is_correct).count() as u64,
        }
    };
    order.iter().map(one).collect()
}

fn error_percent(row: &RunRow) -> f64 {
    let actual_ms = row.actual.makespan_ms.max(f64::MIN_POSITIVE);
    100.0 * (row.predicted.makespan_ms - actual_ms).abs() / actual_ms
}

fn scatter_percent(rows: &[&RunRow]) -> f64 {
    let actual_ms = || rows.iter().map(|row| row.actual.makespan_ms);
    let middle_ms = median(actual_ms().collect()).max(f64::MIN_POSITIVE);
    100.0 * median(actual_ms().map(|ms| (ms - middle_ms).abs()).collect()) / middle_ms
}

/// The mean with its interval.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> Mean {
    let values: Vec<f64> = values.collect();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count.max(1.0);
    if values.len() < 2 {
        return Mean { mean, margin: None };
    }
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let student = STUDENT_975.get(values.len() - 2).copied().unwrap_or(NORMAL_975);
    Mean { mean, margin: Some(student * (variance / count).sqrt()) }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => 0.0,
        len if len % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::Example;
    use crate::functions::registry;

    fn row(workload: &str, planner: &str, repeat: u32, makespan_ms: f64) -> RunRow {
        let summary = |makespan_ms| PlanSummary { makespan_ms, ..PlanSummary::default() };
        RunRow {
            workload: workload.to_owned(),
            tasks: 1,
            planner: planner.to_owned(),
            repeat,
            learned_from: 0,
            planning_ms: 0.0,
            predicted: summary(100.0),
            actual: summary(makespan_ms),
            is_correct: repeat != 2,
        }
    }

    #[test]
    fn means_have_the_interval_of_students_t() {
        let m = mean([10.0, 12.0, 14.0].into_iter());
        assert_eq!(m.mean, 12.0);
        assert!((m.margin.unwrap() - 4.303 * 2.0 / 3.0_f64.sqrt()).abs() < 1e-9);
        assert_eq!(mean([3.0].into_iter()), Mean { mean: 3.0, margin: None });
    }

    #[test]
    fn planners_are_held_against_the_first_of_their_workflow() {
        let rows = [
            row("a", "simple", 1, 100.0),
            row("a", "auto", 1, 80.0),
            row("a", "auto", 2, 120.0),
            row("b", "simple", 1, 10.0),
        ];
        let summaries = summaries(&rows);
        let ratios: Vec<f64> = summaries.iter().map(|s| s.makespan_to_first).collect();
        assert_eq!(ratios, [1.0, 1.0, 1.0]);
        assert_eq!((summaries[1].runs, summaries[1].wrong), (2, 1));
        assert!((summaries[1].error_percent - (25.0 + 100.0 / 6.0) / 2.0).abs() < 1e-9);
        assert_eq!((summaries[0].scatter_percent, summaries[1].scatter_percent), (0.0, 20.0));
    }

    #[test]
    fn the_expected_results_do_not_depend_on_the_load() {
        let folder = std::path::Path::new(".");
        let of = |size| {
            let workflow = Example::find("epigenomics").unwrap().workflow(Some(size), folder).unwrap();
            expected(&workflow, &registry()).unwrap()
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2), "other sizes are other results");
        let hello = Example::find("hello").unwrap().workflow(None, folder).unwrap();
        assert!(expected(&hello, &registry()).is_err(), "command lines have no reference");
    }
}
