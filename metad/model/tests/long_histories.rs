//! Quantiles of one config with a long history: as good as the whole of it allows, and free of levels that
//! are over.

#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use foresail_model::WorkflowModel;
use foresail_schemas::metric::{Record, TaskRecord};
use foresail_schemas::prediction::Query;
use foresail_schemas::{Sla, TaskName};
use jiff::Timestamp;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

const P99: Sla = Sla::Quantile(9900);
/// Repetitions with other seeds; errors are their means.
const TURNS: u64 = 40;

/// Normal quantile of a uniform number, by the sum of twelve.
fn normal(rng: &mut Pcg64) -> f64 {
    (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0
}

fn lognormal(rng: &mut Pcg64, _: usize) -> f64 {
    80.0 * (0.35 * normal(rng)).exp()
}

fn bimodal(rng: &mut Pcg64, _: usize) -> f64 {
    let slow = rng.random::<f64>() < 0.2;
    (if slow { 400.0 } else { 100.0 }) * (0.1 * normal(rng)).exp()
}

/// Median, p95 and p99 predicted after `count` measurements.
fn predicted(count: usize, seed: u64, time: impl Fn(&mut Pcg64, usize) -> f64) -> [f64; 3] {
    let (task, mut model, mut rng) =
        (TaskName::new("t").unwrap(), WorkflowModel::new(), Pcg64::seed_from_u64(seed));
    for n in 0..count {
        let record = Record::Task(TaskRecord {
            task: task.clone(),
            memory_mb: 1024,
            vcpu: None,
            input_bytes: 0,
            output_bytes: None,
            exec_ms: time(&mut rng, n),
            peak_memory_mb: None,
            attempt: 1,
            at: None,
            forecast: None,
        });
        model.update(&record, Timestamp::from_second(n as i64).unwrap());
    }
    let query = Query::ExecutionTime { task, input_bytes: 0, memory_mb: 1024, vcpu: None };
    let slas = [Sla::MEDIAN, Sla::P95, P99];
    let answer = model.snapshot().predict(&query, &slas);
    slas.map(|sla| answer.values[&sla].unwrap())
}

/// True quantiles, from many more values than a history holds.
fn truth(time: impl Fn(&mut Pcg64, usize) -> f64) -> [f64; 3] {
    let mut rng = Pcg64::seed_from_u64(99);
    let mut values: Vec<f64> = (0..400_000).map(|n| time(&mut rng, n)).collect();
    values.sort_by(f64::total_cmp);
    [0.5, 0.95, 0.99].map(|q| values[(q * values.len() as f64) as usize])
}

/// Mean error in percent of each of the three over histories of `count`.
fn errors(count: usize, truth: [f64; 3], time: impl Fn(&mut Pcg64, usize) -> f64 + Copy) -> [f64; 3] {
    let mut sums = [0.0; 3];
    for seed in 0..TURNS {
        let found = predicted(count, seed, time);
        (0..3).for_each(|n| sums[n] += 100.0 * (found[n] / truth[n] - 1.0).abs() / TURNS as f64);
    }
    sums
}

#[test]
fn a_steady_history_gives_quantiles_that_a_ring_of_128_could_not() {
    for (name, time, most) in [
        ("lognormal", lognormal as fn(&mut Pcg64, usize) -> f64, [1.1, 2.2, 3.2]),
        ("bimodal", bimodal, [0.9, 1.5, 2.0]),
    ] {
        let found = errors(5000, truth(time), time);
        eprintln!("{name}: errors of median, p95, p99 {found:.2?} %");
        (0..3).for_each(|n| assert!(found[n] <= most[n], "{name}: {found:?} instead of {most:?}"));
    }
}

#[test]
fn a_level_that_ended_ten_thousand_samples_ago_leaks_into_no_quantile() {
    for factor in [0.5, 1.25, 2.0] {
        let time = move |rng: &mut Pcg64, n: usize| lognormal(rng, n) * if n < 10_000 { 1.0 } else { factor };
        let truth = truth(lognormal).map(|value| value * factor);
        let found = errors(20_000, truth, time);
        eprintln!("factor {factor}: errors of median, p95, p99 {found:.2?} %");
        // What leaks with a factor so small is what 128 samples cannot tell from chance.
        let most = [5.0, 8.0, 14.0];
        (0..3).for_each(|n| assert!(found[n] <= most[n], "{factor}: {found:?} instead of {most:?}"));
    }
}

#[test]
fn a_slow_drift_to_twice_the_time_is_followed() {
    let time = |rng: &mut Pcg64, n: usize| lognormal(rng, n) * (1.0 + n.min(5000) as f64 / 5000.0);
    let found = errors(5000, truth(lognormal).map(|value| value * 2.0), time);
    eprintln!("drift: errors of median, p95, p99 {found:.2?} %");
    let most = [5.0, 8.0, 14.0];
    (0..3).for_each(|n| assert!(found[n] <= most[n], "{found:?} instead of {most:?}"));
}
