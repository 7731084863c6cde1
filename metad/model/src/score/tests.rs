//! Scores against the same figures computed from all samples at hand.

use foresail_schemas::TaskName;
use foresail_schemas::metric::{Record, TaskRecord};
use proptest::prelude::*;

use super::*;
use crate::WorkflowModel;

#[derive(Debug, Clone)]
struct Sample {
    forecast: Forecast,
    exec_ms: f64,
    at_us: i64,
}

fn scores(samples: &[Sample]) -> Scores {
    let mut scores = Scores::default();
    samples.iter().for_each(|s| scores.record(&s.forecast, s.exec_ms, s.at_us));
    scores
}

fn sample(times_ms: [f64; 4], exec_ms: f64, day: i64) -> Sample {
    Sample { forecast: Forecast::new(times_ms), exec_ms, at_us: day * DAY_US + 1 }
}

fn drawn() -> impl Strategy<Value = Sample> {
    let time = || prop_oneof![Just(0.0), 1e-3..1e6f64, 90.0..110.0f64];
    (time(), 0.0..2.0f64, time(), -3i64..60).prop_map(|(median, spread, exec_ms, day)| {
        let up = |z: f64| median * (z * spread).exp();
        sample([median, up(1.28), up(1.64), up(2.33)], exec_ms, day)
    })
}

fn error_percent(s: &Sample) -> f64 {
    ((s.exec_ms - s.forecast.median_ms).abs() / s.exec_ms.max(TIME_MS_MIN)).min(1e4) * 100.0
}

proptest! {
    #[test]
    fn order_and_cuts_do_not_matter(
        (samples, shuffled) in prop::collection::vec(drawn(), 0..120)
            .prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        cut in any::<prop::sample::Index>(),
    ) {
        let whole = scores(&samples);
        prop_assert_eq!(&scores(&shuffled), &whole);
        let (left, right) = shuffled.split_at(cut.index(shuffled.len() + 1));
        let mut merged = scores(left);
        merged.merge(&scores(right));
        prop_assert_eq!(&merged, &whole);
        let mut sum = scores(left);
        sum.merge_sum(&scores(right));
        prop_assert_eq!(sum.score(), whole.score());
        prop_assert!(whole.days.len() <= DAYS_KEPT_MAX);
        let stored = postcard::to_allocvec(&whole).unwrap();
        prop_assert_eq!(&postcard::from_bytes::<Scores>(&stored).unwrap(), &whole);
    }

    #[test]
    fn figures_are_those_of_all_samples(samples in prop::collection::vec(drawn(), 1..80)) {
        let score = scores(&samples).score();
        let mut errors: Vec<f64> = samples.iter().map(error_percent).collect();
        errors.sort_by(f64::total_cmp);
        let n = errors.len();
        let median = (errors[(n - 1) / 2] + errors[n / 2]) / 2.0;
        prop_assert_eq!(score.n, n as u64);
        prop_assert!((score.mdape_percent.unwrap() - median).abs() <= 0.1 * median + 0.01);
        let mean = errors.iter().sum::<f64>() / n as f64;
        prop_assert!((score.mape_percent.unwrap() - mean).abs() <= 1e-6 * mean + 1e-3);
        for (at, sla) in Forecast::SLAS.iter().enumerate() {
            let within = samples.iter().filter(|s| s.exec_ms <= s.forecast.times_ms()[at]).count();
            prop_assert_eq!(score.ratio[sla], within as f64 / n as f64);
        }
    }

    #[test]
    fn damaged_histograms_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
        if let Ok(errors) = Errors::try_from(bytes.clone()) {
            prop_assert_eq!(Vec::from(errors.clone()), bytes);
            let _no_panic = errors.median_ppm();
        }
    }
}

#[test]
fn the_newest_days_are_kept_and_the_sum_keeps_all() {
    let samples: Vec<Sample> = (0..40).rev().map(|day| sample([100.0; 4], 90.0, day)).collect();
    let coverage = scores(&samples).coverage();
    assert_eq!((coverage.score.n, coverage.days.len()), (40, DAYS_KEPT_MAX));
    assert_eq!(coverage.days[0].day, jiff::civil::date(1970, 1, 11));
    assert_eq!(coverage.days[29].day, jiff::civil::date(1970, 2, 9));
    assert!(coverage.days.iter().all(|day| day.score.n == 1));
}

#[test]
fn a_time_of_zero_is_scored_and_counts_as_a_microsecond() {
    let right = scores(&[sample([0.0; 4], 0.0, 0)]).score();
    assert_eq!((right.mdape_percent, right.mape_percent), (Some(0.0), Some(0.0)));
    assert_eq!(right.ratio.values().copied().collect::<Vec<_>>(), [1.0; 4]);
    let wrong = scores(&[sample([0.002; 4], 0.0, 0)]).score();
    assert_eq!(wrong.mape_percent, Some(200.0));
    let far = scores(&[sample([1e300; 4], 0.0, 0)]).score();
    assert_eq!(far.mape_percent, Some(1_000_000.0));
    assert!(far.mdape_percent.is_some_and(|percent| (percent - 1e6).abs() < 1e5), "{far:?}");
}

#[test]
fn a_time_on_a_quantile_lies_within_it() {
    let score = scores(&[sample([10.0, 20.0, 30.0, 40.0], 20.0, 0)]).score();
    assert_eq!(score.ratio.values().copied().collect::<Vec<_>>(), [0.0, 1.0, 1.0, 1.0]);
    assert_eq!(score.mape_percent, Some(50.0));
}

#[test]
fn nothing_scored_says_nothing() {
    assert_eq!(Scores::default().coverage(), Coverage::default());
    assert_eq!(Scores::default().score().mdape_percent, None);
}

#[test]
fn a_model_scores_what_it_learns_and_merges_and_stores_it() {
    let name = TaskName::new("count").unwrap();
    let record = |exec_ms: f64, forecast: Option<Forecast>| {
        Record::Task(TaskRecord {
            task: name.clone(),
            memory_mb: 1769,
            vcpu: None,
            input_bytes: 1,
            output_bytes: None,
            exec_ms,
            peak_memory_mb: None,
            attempt: 1,
            at: None,
            forecast,
        })
    };
    let forecast = Forecast::new([100.0, 110.0, 120.0, 130.0]);
    let (mut whole, mut left, mut right) = (WorkflowModel::new(), WorkflowModel::new(), WorkflowModel::new());
    for n in 0..9u32 {
        let record = record(90.0 + 5.0 * f64::from(n), (n != 4).then_some(forecast));
        let arrival = jiff::Timestamp::from_second(86_400 * i64::from(n)).unwrap();
        whole.update(&record, arrival);
        if n % 2 == 0 { &mut left } else { &mut right }.update(&record, arrival);
    }
    left.merge(&right);
    let stored = postcard::to_allocvec(&left).unwrap();
    let mut read: WorkflowModel = postcard::from_bytes(&stored).unwrap();
    let expected = whole.snapshot();
    assert_eq!((expected.scores().n(), expected.scores().within()), (8, [3, 4, 6, 8]));
    assert_eq!(expected.task_scores(&name), Some(expected.scores()));
    for built in [left.snapshot(), read.snapshot()] {
        assert_eq!(built.scores(), expected.scores());
        assert_eq!(built.task_scores(&name), expected.task_scores(&name));
    }
    let days = expected.report(&name).and_then(|report| report.coverage).map(|c| c.days.len());
    assert_eq!(days, Some(8), "the one without a forecast is no score");
}

#[test]
fn a_day_of_many_scores_stays_small() {
    let mut scores = Scores::default();
    for n in 0..100_000u32 {
        let exec_ms = 100.0 * (1.0 + f64::from(n % 997) / 3000.0);
        scores.record(&Forecast::new([110.0, 120.0, 130.0, 140.0]), exec_ms, 0);
    }
    let bytes = postcard::to_allocvec(&scores).unwrap().len();
    assert!(bytes < 700, "{bytes} for the sum and one day");
}
