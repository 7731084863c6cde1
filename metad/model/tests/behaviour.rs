//! Edge cases of a history and what the model makes of them.

#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use std::sync::Arc;

use foresail_model::{PREDICTOR_VERSION, Predictor, WorkflowModel};
use foresail_schemas::metric::{Direction, Record, StartState, StartupRecord, TaskRecord, TransferRecord};
use foresail_schemas::prediction::{Basis, Prediction, Query, Unit};
use foresail_schemas::{Sla, TaskName};
use jiff::Timestamp;

const P90: Sla = Sla::Quantile(9000);

/// Measurements of the task `t`, one per second.
#[derive(Default)]
struct History {
    model: WorkflowModel,
    second: i64,
}

impl History {
    fn task(mut self, memory_mb: u32, input_bytes: u64, exec_ms: f64) -> Self {
        self.add(Record::Task(TaskRecord {
            task: task(),
            memory_mb,
            vcpu: None,
            input_bytes,
            output_bytes: Some(input_bytes * 2 + 10),
            exec_ms,
            peak_memory_mb: None,
            attempt: 1,
            at: None,
            forecast: None,
        }));
        self
    }

    fn tasks(self, memory_mb: u32, samples: impl IntoIterator<Item = (u64, f64)>) -> Self {
        samples.into_iter().fold(self, |history, (bytes, ms)| history.task(memory_mb, bytes, ms))
    }

    fn add(&mut self, record: Record) {
        self.second += 1;
        self.model.update(&record, Timestamp::from_second(self.second).unwrap());
    }

    fn exec(&mut self, memory_mb: u32, input_bytes: u64) -> Prediction {
        let query = Query::ExecutionTime { task: task(), input_bytes, memory_mb, vcpu: None };
        self.model.snapshot().predict(&query, &[Sla::Mean, Sla::MEDIAN, P90, Sla::P95])
    }
}

fn task() -> TaskName {
    TaskName::new("t").unwrap()
}

fn value(prediction: &Prediction, sla: Sla) -> f64 {
    prediction.values[&sla].unwrap()
}

/// `found` within `percent` of `expected`.
fn check(found: f64, expected: f64, percent: f64) {
    assert!(
        (found / expected - 1.0).abs() * 100.0 <= percent,
        "{found} is not within {percent} % of {expected}"
    );
}

/// Repeatable noise between -1 and 1.
fn noise(n: u64) -> f64 {
    ((n.wrapping_mul(2_654_435_761) >> 7) % 2001) as f64 / 1000.0 - 1.0
}

#[test]
fn a_task_never_seen_is_null_and_a_prior_is_marked() {
    let mut nothing = WorkflowModel::new();
    let query = Query::ExecutionTime { task: task(), input_bytes: 5, memory_mb: 512, vcpu: None };
    let answer = nothing.snapshot().predict(&query, &[Sla::MEDIAN]);
    assert_eq!((answer.basis, answer.samples, answer.values[&Sla::MEDIAN]), (Basis::None, 0, None));
    assert_eq!(answer.unit, Unit::Ms);
    let mut other = History::default().tasks(512, (0..6).map(|_| (5, 100.0)));
    let prior = other.model.snapshot();
    let borrowed = nothing.snapshot().predict_with_prior(&query, &[Sla::MEDIAN], Some(&prior));
    assert_eq!(borrowed.basis, Basis::Prior);
    check(value(&borrowed, Sla::MEDIAN), 100.0, 1.0);
}

#[test]
fn one_sample_answers_with_itself_and_a_wide_p95() {
    let mut history = History::default().task(512, 1000, 80.0);
    let answer = history.exec(512, 1000);
    assert_eq!((answer.basis, answer.samples, answer.extrapolated), (Basis::Exact, 1, false));
    check(value(&answer, Sla::MEDIAN), 80.0, 0.01);
    assert!(value(&answer, Sla::P95) > 95.0, "{answer:?}");
}

#[test]
fn identical_samples_answer_with_that_value() {
    let mut history = History::default().tasks(512, (0..100).map(|_| (1000, 80.0)));
    let answer = history.exec(512, 1000);
    for sla in [Sla::Mean, Sla::MEDIAN, P90, Sla::P95] {
        check(value(&answer, sla), 80.0, 0.01);
    }
    assert_eq!((answer.basis, answer.samples), (Basis::Exact, 100));
}

#[test]
fn zero_bytes_and_zero_time_are_values_like_any_other() {
    let mut history = History::default().tasks(512, (0..20).map(|_| (0, 0.0)));
    let answer = history.exec(512, 0);
    assert_eq!(value(&answer, Sla::P95), 0.0);
    assert!(!answer.extrapolated);
    let mut mixed =
        History::default().tasks(512, (0..40).map(|n| (n % 2 * 1_000_000, 10.0 + (n % 2) as f64 * 20.0)));
    check(value(&mixed.exec(512, 0), Sla::MEDIAN), 10.0, 2.0);
    check(value(&mixed.exec(512, 1_000_000), Sla::MEDIAN), 30.0, 2.0);
    check(value(&mixed.exec(512, 500_000), Sla::MEDIAN), 20.0, 10.0);
}

#[test]
fn sizes_over_nine_decades_are_right_at_every_decade() {
    let truth = |bytes: u64| 5.0 + bytes as f64 * 2e-6;
    let sizes = (0..100_u64).map(|n| 10_u64.pow((n % 10) as u32));
    let mut history = History::default()
        .tasks(512, sizes.enumerate().map(|(n, b)| (b, truth(b) * (1.0 + 0.03 * noise(n as u64)))));
    for decade in 0..10 {
        let bytes = 10_u64.pow(decade);
        check(value(&history.exec(512, bytes), Sla::MEDIAN), truth(bytes), 5.0);
    }
    let beyond = history.exec(512, 4_000_000_000);
    assert!(beyond.extrapolated);
    check(value(&beyond, Sla::MEDIAN), truth(4_000_000_000), 10.0);
}

#[test]
fn extrapolation_widens() {
    let mut history = History::default()
        .tasks(512, (1..60).map(|n| (n * 1_000_000, n as f64 * 10.0 * (1.0 + 0.02 * noise(n)))));
    let ratio = |p: &Prediction| value(p, Sla::P95) / value(p, Sla::MEDIAN);
    let (inside, outside) = (history.exec(512, 30_000_000), history.exec(512, 500_000_000));
    assert!(outside.extrapolated && !inside.extrapolated);
    assert!(ratio(&outside) > ratio(&inside) * 1.1, "{} {}", ratio(&outside), ratio(&inside));
    check(value(&outside, Sla::MEDIAN), 5000.0, 10.0);
}

#[test]
fn bimodal_times_keep_both_modes() {
    let times = (0..120_u64).map(|n| (0, if n % 4 == 1 { 500.0 } else { 100.0 } + noise(n)));
    let answer = History::default().tasks(512, times).exec(512, 0);
    check(value(&answer, Sla::MEDIAN), 100.0, 3.0);
    check(value(&answer, P90), 500.0, 3.0);
    check(value(&answer, Sla::Mean), 200.0, 10.0);
}

#[test]
fn sizes_that_tell_nothing_of_times_of_three_kinds_promise_no_times_that_nobody_saw() {
    for pattern in 0..300_u64 {
        let chance = |n: u64| pattern.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(5 * n as u32 % 64) % 97;
        let sample = |n: u64| {
            let time_ms = [0.06, 0.06, 0.07, 0.08, 50.1, 200.2][chance(n) as usize % 6];
            (550 + chance(n + 31) % 60, time_ms)
        };
        // At two sizes of workers their factor is unsure as well.
        for (counts, mean_ms_max) in [([12, 0], 601.0), ([3, 0], 601.0), ([9, 6], 10_000.0)] {
            let history = History::default().tasks(512, (0..counts[0]).map(sample));
            let mut history = history.tasks(1024, (20..20 + counts[1]).map(sample));
            for size in [550, 580, 610] {
                let answer = history.exec(512, size);
                let [mean, median, p95] = [Sla::Mean, Sla::MEDIAN, Sla::P95].map(|sla| value(&answer, sla));
                let is_sane = mean < mean_ms_max && median < 1_000.0 && p95 < 20.0 * mean_ms_max;
                assert!(is_sane, "pattern {pattern}, {counts:?}, {size} bytes: {mean}, {median}, {p95}");
            }
        }
    }
}

#[test]
fn an_outlier_of_a_hundred_times_moves_neither_median_nor_p95() {
    let times = (0..100_u64).map(|n| (n * 1000, if n == 50 { 100.0 } else { 1.0 } * (50.0 + n as f64)));
    let answer = History::default().tasks(512, times).exec(512, 50_000);
    check(value(&answer, Sla::MEDIAN), 100.0, 3.0);
    check(value(&answer, Sla::P95), 100.0, 20.0);
}

#[test]
fn twenty_samples_after_a_change_are_enough() {
    for sizes_vary in [0_u64, 1] {
        let sample = |n: u64| {
            let bytes = sizes_vary * (n % 17) * 100_000;
            let factor = if n < 400 { 1.0 } else { 2.0 };
            (bytes, factor * (100.0 + bytes as f64 * 1e-4) * (1.0 + 0.05 * noise(n)))
        };
        let answer = History::default().tasks(512, (0..420).map(sample)).exec(512, 0);
        check(value(&answer, Sla::MEDIAN), 200.0, 15.0);
        assert!(answer.samples <= 30, "{answer:?}");
    }
}

#[test]
fn a_batch_without_times_is_no_change() {
    let mut model = WorkflowModel::new();
    let mut history = History::default();
    for n in 0..100 {
        history.model = std::mem::take(&mut model);
        history.second = 6;
        history = history.task(512, 0, 100.0 + n as f64);
        model = std::mem::take(&mut history.model);
    }
    history.model = model;
    check(value(&history.exec(512, 0), Sla::MEDIAN), 149.5, 1.0);
}

#[test]
fn another_memory_size_is_normalised_by_the_fitted_shape() {
    let times =
        |memory_mb: u32| (0..10).map(move |n| (0, 1e6 / f64::from(memory_mb) * (1.0 + 0.01 * noise(n))));
    let mut history =
        History::default().tasks(256, times(256)).tasks(512, times(512)).tasks(1024, times(1024));
    let answer = history.exec(724, 0);
    assert_eq!((answer.basis, answer.extrapolated), (Basis::MemoryNormalised, false));
    check(value(&answer, Sla::MEDIAN), 1e6 / 724.0, 4.0);
    assert_eq!(history.exec(512, 0).basis, Basis::Exact);
    assert!(history.exec(128, 0).extrapolated);
    let mut flat = History::default()
        .tasks(256, (0..10).map(|n| (0, 500.0 + noise(n))))
        .tasks(1024, (0..10).map(|n| (0, 500.0 + noise(n))));
    check(value(&flat.exec(512, 0), Sla::MEDIAN), 500.0, 4.0);
}

#[test]
fn output_sizes_follow_input_sizes_exactly_where_they_do() {
    let mut history = History::default().tasks(512, (0..30).map(|n| (n * 1000, 5.0)));
    let predictor = history.model.snapshot();
    for (input_bytes, expected) in [(7_000, 14_010.0), (0, 10.0), (60_000, 120_010.0)] {
        let answer = predictor.predict(&Query::OutputSize { task: task(), input_bytes }, &[Sla::MEDIAN]);
        assert_eq!(answer.unit, Unit::Bytes);
        check(value(&answer, Sla::MEDIAN), expected, 1.0);
    }
    let mut constant = History::default().tasks(512, (0..3).map(|_| (100, 5.0)));
    let query = Query::OutputSize { task: task(), input_bytes: 100 };
    let answer = constant.model.snapshot().predict(&query, &[Sla::MEDIAN, Sla::P95]);
    assert_eq!((value(&answer, Sla::MEDIAN), value(&answer, Sla::P95)), (210.0, 210.0));
}

#[test]
fn transfers_are_latency_plus_bytes_over_bandwidth() {
    let mut history = History::default();
    for n in 0..40_u64 {
        let bytes = 1000 * 4_u64.pow((n % 8) as u32);
        history.add(Record::Transfer(TransferRecord {
            direction: Direction::Download,
            bytes,
            time_ms: (20.0 + bytes as f64 / 50_000.0) * (1.0 + 0.05 * noise(n)),
            memory_mb: 512,
            vcpu: None,
            store: Some(TaskName::new("s3").unwrap()),
            at: None,
        }));
    }
    let predictor = history.model.snapshot();
    let ask = |direction, memory_mb, store: Option<&str>| {
        let store = store.map(|s| TaskName::new(s).unwrap());
        let query = Query::TransferTime { direction, bytes: 3_000_000, memory_mb, vcpu: None, store };
        predictor.predict(&query, &[Sla::MEDIAN])
    };
    let same = ask(Direction::Download, 512, Some("s3"));
    assert_eq!(same.basis, Basis::Exact);
    check(value(&same, Sla::MEDIAN), 80.0, 8.0);
    assert_eq!(ask(Direction::Download, 512, None).basis, Basis::Exact);
    assert_eq!(ask(Direction::Download, 512, Some("file")).basis, Basis::Pooled);
    assert_eq!(ask(Direction::Upload, 512, None).basis, Basis::None);
}

#[test]
fn starts_do_not_scale_with_memory_and_cold_is_not_warm() {
    let mut history = History::default();
    for n in 0..10 {
        for (state, time_ms) in [(StartState::Cold, 600.0), (StartState::Warm, 8.0)] {
            history.add(Record::Startup(StartupRecord {
                state,
                time_ms: time_ms + noise(n),
                memory_mb: if n < 5 { 512 } else { 1769 },
                vcpu: None,
                at: None,
            }));
        }
    }
    let predictor = history.model.snapshot();
    for (state, memory_mb, basis, expected) in [
        (StartState::Cold, 512, Basis::Exact, 600.0),
        (StartState::Cold, 1024, Basis::Pooled, 600.0),
        (StartState::Warm, 1024, Basis::Pooled, 8.0),
    ] {
        let answer = predictor.predict(&Query::StartupTime { state, memory_mb, vcpu: None }, &[Sla::MEDIAN]);
        assert_eq!(answer.basis, basis);
        check(value(&answer, Sla::MEDIAN), expected, 10.0);
    }
}

#[test]
fn unchanged_models_give_the_same_predictor_and_changed_ones_a_new_one() {
    let mut history = History::default().task(512, 0, 5.0);
    let first = history.model.snapshot();
    assert!(Arc::ptr_eq(&first, &history.model.snapshot()));
    history = history.task(512, 0, 6.0);
    assert!(!Arc::ptr_eq(&first, &history.model.snapshot()));
    assert_eq!(history.model.samples(), 2);
}

#[test]
fn a_report_shows_configs_histogram_fit_and_tuning() {
    let mut history = History::default()
        .tasks(512, (0..50).map(|n| (n * 1000, 200.0 + n as f64)))
        .tasks(1024, (0..50).map(|n| (n * 1000, 100.0 + n as f64 / 2.0)));
    let predictor: Arc<Predictor> = history.model.snapshot();
    let report = predictor.report(&task()).unwrap();
    assert_eq!((report.samples, report.configs.len()), (100, 2));
    let small = &report.configs[0];
    assert_eq!(small.histogram.iter().map(|b| b.count).sum::<u64>(), 50);
    assert_eq!((small.min_ms, small.max_ms), (200.0, 249.0));
    check(small.size_fit.unwrap().ms_per_byte, 0.001, 1.0);
    check(small.mean_ms, 224.5, 0.1);
    let input = report.input.unwrap();
    assert_eq!((input.min_bytes, input.max_bytes), (0, 49_000));
    assert!(report.tuning.len() >= 10, "{:?}", report.tuning);
    assert!(report.tuning.windows(2).all(|w| w[0].median_ms >= w[1].median_ms * 0.98), "{:?}", report.tuning);
    assert!(predictor.has_task(&task()) && predictor.report(&TaskName::new("u").unwrap()).is_none());
}

#[test]
fn quantiles_of_a_report_are_at_most_one_percent_off() {
    for (count, step) in [(1_u64, 0.0), (40, 7.5), (1000, 13.7)] {
        let ms = |n: u64| 1523.4 + step * n as f64;
        let mut history = History::default().tasks(512, (0..count).map(|n| (0, ms(n))));
        let report = history.model.snapshot().report(&task()).unwrap();
        let config = &report.configs[0];
        let quantiles = config.quantiles;
        for (q, found) in
            [(0.5, quantiles.median), (0.9, quantiles.p90), (0.95, quantiles.p95), (0.99, quantiles.p99)]
        {
            check(found, ms((q * count as f64).ceil() as u64 - 1), 1.0);
        }
        let (first, last) = (config.histogram[0], config.histogram[config.histogram.len() - 1]);
        assert!(first.from_ms <= ms(0) && last.to_ms >= ms(count - 1), "{first:?} {last:?}");
        assert_eq!(config.histogram.iter().map(|b| b.count).sum::<u64>(), count);
    }
}

#[test]
fn another_version_is_refused_with_a_hint() {
    let mut bytes = postcard::to_stdvec(&WorkflowModel::new()).unwrap();
    bytes[0] = 99;
    assert!(postcard::from_bytes::<WorkflowModel>(&bytes).is_err());
    let text = serde_json::to_string(&Predictor::new()).unwrap().replacen(
        &format!("\"version\":{PREDICTOR_VERSION}"),
        "\"version\":99",
        1,
    );
    let error = serde_json::from_str::<Predictor>(&text).unwrap_err().to_string();
    assert!(error.contains("`99`"), "{error}");
}

#[test]
fn a_larger_input_is_never_faster_on_a_config_far_outside() {
    let mut noise_at = 0;
    let mut history = History::default();
    for memory_mb in [256, 512, 1024, 2048] {
        for mb in [2_u64, 10, 50, 100] {
            for _ in 0..4 {
                noise_at += 1;
                let cpu_ms = 20.0 * mb as f64 * 1769.0 / f64::from(memory_mb);
                history = history.task(
                    memory_mb,
                    mb * 1_000_000,
                    (300.0 + cpu_ms) * (1.0 + 0.03 * noise(noise_at)),
                );
            }
        }
    }
    for memory_mb in [64, 100, 700, 5000, 10_240, 100_000] {
        let mut last = 0.0;
        for mb in [0_u64, 1, 2, 5, 20, 75, 100, 500, 5000] {
            let found = value(&history.exec(memory_mb, mb * 1_000_000), Sla::MEDIAN);
            assert!(found > last * 0.97, "{mb} MB on {memory_mb} MB: {found} ms after {last} ms");
            last = found;
        }
    }
    let (small, large) = (history.exec(100_000, 2_000_000), history.exec(100_000, 500_000_000));
    assert!(value(&large, Sla::MEDIAN) > value(&small, Sla::MEDIAN) * 2.0);
}

#[test]
fn a_config_measured_again_after_a_change_is_new_while_the_others_are_old() {
    let times = |memory_mb: u32, factor: f64, count: u64| {
        (0..count)
            .map(move |n| (0, factor * 1e6 / f64::from(memory_mb) * (1.0 + 0.05 * noise(n + count))))
            .collect::<Vec<_>>()
    };
    let mut history = History::default()
        .tasks(512, times(512, 1.0, 60))
        .tasks(1024, times(1024, 1.0, 60))
        .tasks(512, times(512, 2.0, 20));
    check(value(&history.exec(512, 0), Sla::MEDIAN), 2e6 / 512.0, 15.0);
    check(value(&history.exec(1024, 0), Sla::MEDIAN), 1e6 / 1024.0, 15.0);
}

#[test]
fn sizes_with_times_of_their_own_keep_them_and_a_line_stays_a_line() {
    // Sizes drawn from a table of a few, each with its own time: no line, no power law.
    let table = [(1_000_000, 40.0), (3_000_000, 15.0), (9_000_000, 90.0), (27_000_000, 33.0)];
    let mut history = History::default().tasks(
        512,
        (0..40_u64).map(|n| {
            let (bytes, ms) = table[(n % 4) as usize];
            (bytes, ms * (1.0 + 0.02 * noise(n)))
        }),
    );
    for (bytes, ms) in table {
        check(value(&history.exec(512, bytes), Sla::MEDIAN), ms, 3.0);
    }
    let line: Vec<(u64, f64)> = (1..=12).map(|n| (n * 1_000_000, n as f64 * 7.0)).collect();
    check(value(&History::default().tasks(512, line).exec(512, 6_500_000), Sla::MEDIAN), 45.5, 3.0);
}

#[test]
fn a_task_too_short_to_be_throttled_does_not_follow_memory() {
    let mut brief = History::default().tasks(1024, (0..20).map(|n| (0, 0.07 + 0.002 * noise(n))));
    for memory_mb in [512, 2048] {
        check(value(&brief.exec(memory_mb, 0), Sla::MEDIAN), 0.07, 5.0);
    }
    let mut long = History::default().tasks(1024, (0..20).map(|n| (0, 700.0 + 20.0 * noise(n))));
    assert!(value(&long.exec(512, 0), Sla::MEDIAN) > 1000.0);
}
