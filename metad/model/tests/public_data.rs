//! Back-tests on public measurements: memory sizes left out, quantile coverage on samples to come.
//!
//! The files are not part of a checkout; where they are absent the tests say so and pass. Each test prints
//! what it measured (`cargo test -p foresail-model --test public_data -- --nocapture`). Errors are absolute
//! percentage errors.

#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use std::collections::BTreeMap;

use foresail_model::WorkflowModel;
use foresail_schemas::metric::{Record, TaskRecord};
use foresail_schemas::prediction::Query;
use foresail_schemas::{Sla, TaskName};
use jiff::Timestamp;

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/samples");

/// Rows of one file by workflow, in measured order.
fn load(file: &str) -> Option<BTreeMap<String, Vec<TaskRecord>>> {
    let path = format!("{SAMPLES}/{file}");
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!(
            "skipped: `{file}` is not there; the public samples are kept beside the project, not in it"
        );
        return None;
    };
    let mut workflows: BTreeMap<String, Vec<TaskRecord>> = BTreeMap::new();
    for (row, line) in text.lines().skip(1).enumerate() {
        let fields: Vec<&str> = line.split(',').collect();
        let number = |n: usize| fields[n].parse::<f64>().ok();
        let Some(exec_ms) = number(7) else { continue };
        let task: String = fields[1]
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "_.:@+~-".contains(c) { c } else { '_' })
            .collect();
        let record = TaskRecord {
            task: TaskName::new(task).unwrap(),
            memory_mb: number(3).unwrap_or(1769.0) as u32,
            vcpu: number(4),
            input_bytes: number(5).unwrap_or(0.0) as u64,
            output_bytes: number(6).map(|b| b as u64),
            exec_ms,
            peak_memory_mb: None,
            attempt: 1,
            at: Some(Timestamp::from_second(row as i64).unwrap()),
            forecast: None,
        };
        workflows.entry(fields[0].to_owned()).or_default().push(record);
    }
    Some(workflows)
}

fn train<'a>(records: impl Iterator<Item = &'a TaskRecord>) -> WorkflowModel {
    let mut model = WorkflowModel::new();
    records.for_each(|r| model.update(&Record::Task(r.clone()), Timestamp::UNIX_EPOCH));
    model
}

fn query(record: &TaskRecord) -> Query {
    Query::ExecutionTime {
        task: record.task.clone(),
        input_bytes: record.input_bytes,
        memory_mb: record.memory_mb,
        vcpu: record.vcpu,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The share that the shape and the rule of the fixed exponent look at.
fn share(record: &TaskRecord) -> f64 {
    record.vcpu.unwrap_or(f64::from(record.memory_mb) / 1769.0)
}

/// Every size of every task is predicted from the task's other sizes: (MdAPE, MdAPE of time x share^-0.3), in
/// percent.
fn leave_one_size_out(workflows: &BTreeMap<String, Vec<TaskRecord>>) -> (f64, f64) {
    let (mut errors, mut rule_errors) = (Vec::new(), Vec::new());
    for records in workflows.values() {
        let mut targets: Vec<(TaskName, u32)> =
            records.iter().map(|r| (r.task.clone(), r.memory_mb)).collect();
        targets.sort();
        targets.dedup();
        for (task, memory_mb) in targets {
            let left_out = |r: &&TaskRecord| r.task == task && r.memory_mb == memory_mb;
            let known: Vec<&TaskRecord> = records.iter().filter(|r| r.task == task && !left_out(r)).collect();
            if known.is_empty() {
                continue;
            }
            let predictor = train(records.iter().filter(|r| !left_out(r))).snapshot();
            for truth in records.iter().filter(left_out) {
                // The rule may look at samples of the same input size only, where there are any.
                let alike = known.iter().filter(|r| r.input_bytes == truth.input_bytes);
                let levels: Vec<f64> = alike.map(|r| r.exec_ms * share(r).powf(0.3)).collect();
                if levels.is_empty() {
                    continue;
                }
                let level = median(levels);
                let found = predictor.predict(&query(truth), &[Sla::MEDIAN]).values[&Sla::MEDIAN].unwrap();
                errors.push(100.0 * (found / truth.exec_ms - 1.0).abs());
                rule_errors.push(100.0 * (level * share(truth).powf(-0.3) / truth.exec_ms - 1.0).abs());
            }
        }
    }
    (median(errors), median(rule_errors))
}

#[test]
fn a_memory_size_never_seen_is_predicted_better_than_by_a_fixed_exponent() {
    for (file, most_percent) in [
        ("sebs.csv", 15.0),
        ("jolteon.csv", 12.0),
        ("lambda_memory.csv", 12.0),
        ("lambda_memory_agg.csv", 12.0),
    ] {
        let Some(workflows) = load(file) else { continue };
        let (error, rule) = leave_one_size_out(&workflows);
        eprintln!("{file}: MdAPE {error:.2} % (fixed exponent 0.3: {rule:.2} %)");
        assert!(error < rule && error < most_percent, "{file}: {error} against {rule}");
    }
}

#[test]
fn quantiles_cover_as_many_coming_samples_as_they_say() {
    let Some(workflows) = load("scope_warm.csv") else { return };
    let slas = [Sla::MEDIAN, Sla::Quantile(9000), Sla::P95];
    for first in [10_usize, 30, 100] {
        let (mut covered, mut asked) = ([0_u32; 3], 0_u32);
        for records in workflows.values() {
            let mut by_task: BTreeMap<&TaskName, Vec<&TaskRecord>> = BTreeMap::new();
            records.iter().for_each(|r| by_task.entry(&r.task).or_default().push(r));
            for rows in by_task.values() {
                // Several starting points per task, each judged on the twenty samples that follow.
                for start in (0..rows.len().saturating_sub(first + 20)).step_by(60) {
                    let predictor = train(rows[start..start + first].iter().copied()).snapshot();
                    let values = predictor.predict(&query(rows[0]), &slas).values;
                    for truth in &rows[start + first..start + first + 20] {
                        asked += 1;
                        for (n, sla) in slas.iter().enumerate() {
                            covered[n] += u32::from(truth.exec_ms <= values[sla].unwrap());
                        }
                    }
                }
            }
        }
        let part = covered.map(|c| f64::from(c) / f64::from(asked));
        eprintln!(
            "scope_warm.csv, {first} samples: p50 covers {:.3}, p90 {:.3}, p95 {:.3}",
            part[0], part[1], part[2]
        );
        assert!((0.42..0.58).contains(&part[0]), "{part:?}");
        assert!((0.85..0.95).contains(&part[1]) && (0.91..0.985).contains(&part[2]), "{part:?}");
    }
}
