//! Times of two kinds that come by chance: quantiles and means are times that were seen, whatever the sizes
//! and the configs, and a size between two far ones is no reason for times that nobody saw.

#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

mod records;

use foresail_model::WorkflowModel;
use foresail_schemas::Sla;
use foresail_schemas::metric::{Direction, Record, StartState, StartupRecord, TransferRecord};
use foresail_schemas::prediction::{Prediction, Query};
use jiff::Timestamp;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use records::task;

const SEEDS: u64 = 30;
const MB: u64 = 1_000_000;

fn execution(memory_mb: u32, input_bytes: u64, exec_ms: f64) -> Record {
    written(memory_mb, input_bytes, exec_ms, None)
}

fn written(memory_mb: u32, input_bytes: u64, exec_ms: f64, output_bytes: Option<u64>) -> Record {
    records::execution((memory_mb, None), input_bytes, output_bytes, exec_ms)
}

/// What a model of records that came one per second answers.
fn answer(records: impl IntoIterator<Item = Record>, query: &Query) -> Prediction {
    let mut model = WorkflowModel::new();
    for (second, record) in records.into_iter().enumerate() {
        model.update(&record, Timestamp::from_second(second as i64).unwrap());
    }
    model.snapshot().predict(query, &[Sla::Mean, P5, Sla::MEDIAN, P90, Sla::P95, P99])
}

const P5: Sla = Sla::Quantile(500);
const P90: Sla = Sla::Quantile(9000);
const P99: Sla = Sla::Quantile(9900);

fn exec(memory_mb: u32, input_bytes: u64) -> Query {
    Query::ExecutionTime { task: task(), input_bytes, memory_mb, vcpu: None }
}

fn value(prediction: &Prediction, sla: Sla) -> f64 {
    prediction.values[&sla].unwrap()
}

/// Values of two kinds with 5 % of noise: half of them each, shuffled.
fn halves(count: usize, kinds: [f64; 2], chance: &mut Pcg64Mcg) -> Vec<f64> {
    let noise = |n: usize, chance: &mut Pcg64Mcg| kinds[n % 2] * chance.random_range(0.95..1.05);
    let mut values: Vec<f64> = (0..count).map(|n| noise(n, chance)).collect();
    values.shuffle(chance);
    values
}

/// Whether quantiles and mean are those of values of which half lie near each of two `kinds`.
fn fault(answer: &Prediction, kinds: [f64; 2]) -> Option<String> {
    let [least, most] = [kinds[0] * 0.95, kinds[1] * 1.05];
    let mean = f64::midpoint(kinds[0], kinds[1]);
    let right = (0.8 * least..1.2 * least).contains(&value(answer, P5))
        && (0.8 * most..1.2 * most).contains(&value(answer, P90))
        && value(answer, Sla::P95) <= 1.3 * most
        && (0.85..1.15).contains(&(value(answer, Sla::Mean) / mean));
    (!right).then(|| format!("{kinds:?}: {:?}", answer.values))
}

/// Asks over many seeds; at most `faults_max` of them may be wrong.
fn check(what: &str, faults_max: usize, ask: impl Fn(&mut Pcg64Mcg) -> (Prediction, [f64; 2])) {
    let found = |seed: u64| {
        let (answer, kinds) = ask(&mut Pcg64Mcg::seed_from_u64(seed));
        fault(&answer, kinds).map(|fault| format!("{what}, seed {seed}, {fault}"))
    };
    let faults: Vec<String> = (0..SEEDS).filter_map(found).collect();
    assert!(faults.len() <= faults_max, "{} faults: {}", faults.len(), faults.join("\n"));
}

#[test]
fn two_kinds_of_times_of_one_size_keep_their_quantiles_and_mean() {
    let kinds = [100.0, 900.0];
    for count in [20, 40, 60, 100, 128] {
        check(&format!("{count} samples"), 0, |chance| {
            let records = halves(count, kinds, chance).into_iter().map(|ms| execution(512, 0, ms));
            (answer(records, &exec(512, 0)), kinds)
        });
    }
}

#[test]
fn two_kinds_of_starts_transfers_and_outputs_keep_their_quantiles_and_mean() {
    let state = StartState::Cold;
    let direction = Direction::Upload;
    for memory_mb in [512, 4000] {
        check(&format!("start at {memory_mb} MB"), 0, |chance| {
            let kinds = [200.0, 3000.0];
            let start = |time_ms: f64| StartupRecord { state, time_ms, memory_mb: 512, vcpu: None, at: None };
            let records = halves(60, kinds, chance).into_iter().map(|ms| Record::Startup(start(ms)));
            (answer(records, &Query::StartupTime { state, memory_mb, vcpu: None }), kinds)
        });
        check(&format!("transfer at {memory_mb} MB"), 1, |chance| {
            let kinds = [20.0, 300.0];
            let moved = |(n, time_ms): (usize, f64)| {
                let (bytes, memory_mb, vcpu) = ([1000, 30_000, MB][n % 3], 512, None);
                TransferRecord { direction, bytes, time_ms, memory_mb, vcpu, store: None, at: None }
            };
            let records = halves(60, kinds, chance).into_iter().enumerate();
            let query = Query::TransferTime { direction, bytes: 30_000, memory_mb, vcpu: None, store: None };
            (answer(records.map(|timed| Record::Transfer(moved(timed))), &query), kinds)
        });
    }
    check("output", 0, |chance| {
        let kinds = [100.0, 1e7];
        let records =
            halves(60, kinds, chance).into_iter().map(|bytes| written(512, 1000, 50.0, Some(bytes as u64)));
        (answer(records, &Query::OutputSize { task: task(), input_bytes: 1000 }), kinds)
    });
}

#[test]
fn two_kinds_of_times_are_told_from_sizes_that_say_nothing_and_from_those_that_do() {
    for (count, grows) in [(60, false), (60, true), (200, false), (200, true)] {
        check(&format!("{count} samples, growing {grows}"), 1, |chance| {
            let factor = |bytes: u64| if grows { bytes as f64 / 4e6 } else { 1.0 };
            let times = halves(count, [40.0, 1500.0], chance);
            let records: Vec<Record> = times
                .into_iter()
                .map(|ms| {
                    let bytes = chance.random_range(MB..10 * MB);
                    execution(512, bytes, ms * factor(bytes))
                })
                .collect();
            (answer(records, &exec(512, 4 * MB)), [40.0, 1500.0])
        });
    }
}

#[test]
fn two_kinds_of_times_at_three_sizes_of_workers_are_known_at_a_fourth() {
    for (count, scales) in [(60, false), (60, true), (180, false), (180, true)] {
        check(&format!("{count} samples, scaling {scales}"), 1, |chance| {
            let factor = |memory_mb: u32| if scales { 1024.0 / f64::from(memory_mb) } else { 1.0 };
            let times = halves(count, [40.0, 1500.0], chance);
            let records = times.into_iter().enumerate().map(|(n, ms)| {
                let memory_mb = [512, 1024, 2048][n % 3];
                execution(memory_mb, MB, ms * factor(memory_mb))
            });
            (answer(records, &exec(1400, MB)), [40.0, 1500.0].map(|ms| ms * factor(1400)))
        });
    }
}

#[test]
fn sizes_and_configs_that_decide_are_no_chance() {
    // Above 5 MB and below 700 MB of memory a task takes other times: none of them is a kind.
    let mut chance = Pcg64Mcg::seed_from_u64(1);
    let mut timed = |memory_mb: u32, bytes: u64, ms: f64| {
        execution(memory_mb, bytes, ms * chance.random_range(0.95..1.05))
    };
    let by_size: Vec<Record> = (0..80_u64)
        .map(|n| timed(512, (1 + n * 7 % 10) * MB, if n * 7 % 10 < 5 { 100.0 } else { 900.0 }))
        .collect();
    for (bytes, ms) in [(2 * MB, 100.0), (9 * MB, 900.0)] {
        let found = answer(by_size.clone(), &exec(512, bytes));
        let median = value(&found, Sla::MEDIAN) / ms;
        assert!((0.9..1.1).contains(&median) && value(&found, P90) < 1.2 * ms, "{bytes} B: {found:?}");
    }
    let by_config: Vec<Record> = (0..80_usize)
        .map(|n| timed([512, 1024][n % 2], MB * (1 + n as u64 % 3), [900.0, 100.0][n % 2]))
        .collect();
    for (memory_mb, ms) in [(512, 900.0), (1024, 100.0)] {
        let found = answer(by_config.clone(), &exec(memory_mb, 2 * MB));
        let median = value(&found, Sla::MEDIAN) / ms;
        assert!((0.9..1.1).contains(&median) && value(&found, P90) < 1.2 * ms, "{memory_mb}: {found:?}");
    }
}

#[test]
fn a_size_between_two_far_ones_and_two_samples_promise_no_times_that_nobody_saw() {
    for (low, high) in [(10_000, 100 * MB), (1000, 1000 * MB)] {
        for count in [2, 3, 4, 8, 16, 60_usize] {
            for seed in 0..SEEDS {
                let mut chance = Pcg64Mcg::seed_from_u64(seed);
                let truth = |bytes: u64| bytes as f64 * 1e-4;
                let records: Vec<Record> = (0..count)
                    .map(|n| {
                        let bytes = [low, high][n % 2];
                        execution(512, bytes, truth(bytes) * chance.random_range(0.97..1.03))
                    })
                    .collect();
                for bytes in [low, MB, high] {
                    let found = answer(records.clone(), &exec(512, bytes));
                    let part = |sla| value(&found, sla) / truth(bytes);
                    let right = (0.9..1.1).contains(&part(Sla::Mean))
                        && (0.9..1.1).contains(&part(Sla::MEDIAN))
                        && part(P99) < 2.0;
                    assert!(right, "{count} samples, seed {seed}, {bytes} B: {:?}", found.values);
                }
            }
        }
    }
}
