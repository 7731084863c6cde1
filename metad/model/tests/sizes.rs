//! What is predicted at sizes that were observed, whatever the order in which they came.

#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

mod records;

use foresail_model::WorkflowModel;
use foresail_schemas::Sla;
use foresail_schemas::metric::{Direction, Record, TransferRecord};
use foresail_schemas::prediction::{Basis, Prediction, Query};
use jiff::Timestamp;
use records::task;

/// How far beyond the range of its samples a median may lie.
const TOLERANCE: f64 = 1.02;

/// Size in bytes and time in ms.
type Measured = (u64, f64);

/// Repeatable numbers between -1 and 1.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / f64::from(1_u32 << 30) - 1.0
    }
}

fn upload(bytes: u64, time_ms: f64) -> Record {
    let direction = Direction::Upload;
    Record::Transfer(TransferRecord {
        direction,
        bytes,
        time_ms,
        memory_mb: 1769,
        vcpu: None,
        store: None,
        at: None,
    })
}

fn execution(memory_mb: u32, input_bytes: u64, exec_ms: f64) -> Record {
    records::execution((memory_mb, None), input_bytes, None, exec_ms)
}

/// A model of records that came one per second.
fn told(records: impl IntoIterator<Item = Record>) -> WorkflowModel {
    let mut model = WorkflowModel::new();
    for (second, record) in records.into_iter().enumerate() {
        model.update(&record, Timestamp::from_second(second as i64).unwrap());
    }
    model
}

fn exec(model: &mut WorkflowModel, memory_mb: u32, input_bytes: u64) -> Prediction {
    let query = Query::ExecutionTime { task: task(), input_bytes, memory_mb, vcpu: None };
    model.snapshot().predict(&query, &[Sla::MEDIAN])
}

fn median(prediction: &Prediction) -> f64 {
    prediction.values[&Sla::MEDIAN].unwrap()
}

/// Two groups in several orders of arrival.
fn orders(small: &[Measured], large: &[Measured], noise: &mut Noise) -> Vec<Vec<Measured>> {
    let mut alternating = Vec::new();
    for n in 0..small.len().max(large.len()) {
        alternating.extend(small.get(n).into_iter().chain(large.get(n)));
    }
    let mut blocks = Vec::new();
    for (one, other) in small.chunks(small.len().div_ceil(3)).zip(large.chunks(large.len().div_ceil(3))) {
        blocks.extend_from_slice(other);
        blocks.extend_from_slice(one);
    }
    let rest = |group: &[Measured], kept: &[Measured]| -> Vec<Measured> {
        group.iter().filter(|m| !kept.contains(m)).copied().collect()
    };
    let left = [rest(small, &blocks), rest(large, &blocks)].concat();
    blocks.extend(left);
    let mut keyed: Vec<(f64, Measured)> =
        small.iter().chain(large).map(|measured| (noise.next(), *measured)).collect();
    keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
    let shuffled = keyed.into_iter().map(|(_, measured)| measured).collect();
    let mut ascending = [small, large].concat();
    ascending.sort_by_key(|measured| measured.0);
    vec![[small, large].concat(), [large, small].concat(), alternating, blocks, shuffled, ascending]
}

#[test]
fn the_median_at_an_observed_size_lies_within_its_samples_in_any_order_of_arrival() {
    let mut noise = Noise(7);
    let mut checked = 0;
    for (small, large) in [(150_000_u64, 3_007_900_u64), (0, 1_000_000), (1000, 2000), (10, 1_000_000_000)] {
        for (count_small, count_large) in [(31, 16), (5, 40), (60, 60), (16, 16), (100, 6)] {
            for ratio in [0.1, 1.0, 3.0, 10.0, 100.0] {
                for (scatter_small, scatter_large) in [(0.03, 0.03), (0.3, 0.02), (0.02, 0.3)] {
                    for jitter_bytes in [0_u64, small / 1000] {
                        let mut group = |size: u64, count: usize, level: f64, scatter: f64| {
                            let jitter =
                                |noise: &mut Noise| ((noise.next() + 1.0) / 2.0 * jitter_bytes as f64) as u64;
                            (0..count)
                                .map(|_| (size + jitter(&mut noise), level * (1.0 + scatter * noise.next())))
                                .collect::<Vec<Measured>>()
                        };
                        let groups = [
                            group(small, count_small, 0.6, scatter_small),
                            group(large, count_large, 0.6 * ratio, scatter_large),
                        ];
                        for (order, arrivals) in
                            orders(&groups[0], &groups[1], &mut noise).into_iter().enumerate()
                        {
                            let case = format!(
                                "{small}+{large} x{ratio}, {count_small}+{count_large}, order {order}, \
                                 scatter {scatter_small} {scatter_large}, jitter {jitter_bytes}"
                            );
                            checked += check_groups(&arrivals, &groups, &case);
                        }
                    }
                }
            }
        }
    }
    assert!(checked > 5000, "{checked}");
}

/// Checks uploads and executions; gives how many medians were looked at.
fn check_groups(arrivals: &[Measured], groups: &[Vec<Measured>; 2], case: &str) -> usize {
    let uploads = told(arrivals.iter().map(|(bytes, ms)| upload(*bytes, *ms))).snapshot();
    let mut executions = told(arrivals.iter().map(|(bytes, ms)| execution(512, *bytes, *ms)));
    for group in groups {
        let (least, most) =
            group.iter().fold((f64::MAX, 0.0_f64), |(lo, hi), (_, ms)| (lo.min(*ms), hi.max(*ms)));
        let bytes = group[group.len() / 2].0;
        let direction = Direction::Upload;
        let query = Query::TransferTime { direction, bytes, memory_mb: 1769, vcpu: None, store: None };
        for answer in [uploads.predict(&query, &[Sla::MEDIAN]), exec(&mut executions, 512, bytes)] {
            let found = median(&answer);
            assert!(
                found >= least / TOLERANCE && found <= most * TOLERANCE,
                "{found} ms at {bytes} B, samples from {least} to {most}; {case}; {answer:?}"
            );
        }
    }
    2 * groups.len()
}

#[test]
fn uploads_that_get_smaller_with_time_are_not_taken_for_a_change() {
    // Sixteen parts of 3 MB, then results of 143 to 813 kB that grow: two stages of one workflow.
    let mut noise = Noise(3);
    let parts = (0..16).map(|n| (3_007_831 + n * 8, 5.5));
    let results = (0..31_i32).map(|n| ((143_000.0 * 1.059_f64.powi(n)) as u64, 0.6 + 0.005 * f64::from(n)));
    let records: Vec<Record> =
        parts.chain(results).map(|(bytes, ms)| upload(bytes, ms * (1.0 + 0.05 * noise.next()))).collect();
    for rounds in 1..=3 {
        let predictor = told(records.iter().cloned().cycle().take(records.len() * rounds)).snapshot();
        for (bytes, expected_ms) in [(3_007_917, 5.5), (143_000, 0.6), (340_000, 0.67)] {
            let direction = Direction::Upload;
            let query = Query::TransferTime { direction, bytes, memory_mb: 1769, vcpu: None, store: None };
            let answer = predictor.predict(&query, &[Sla::MEDIAN]);
            let ratio = median(&answer) / expected_ms;
            assert!((0.85..1.15).contains(&ratio), "{rounds} rounds, {bytes} B: {answer:?}");
            assert_eq!(answer.samples, (records.len() * rounds) as u64, "nothing is forgotten");
        }
    }
}

#[test]
fn own_samples_answer_slightly_outside_their_sizes() {
    let sizes = |count: u64| (0..count).map(|n| 1_000_000 + n * 100_000);
    let mut model = told(
        sizes(11)
            .map(|bytes| execution(1769, bytes, 100.0 + bytes as f64 * 1e-5))
            .chain(sizes(30).map(|bytes| execution(885, bytes, 200.0 + bytes as f64 * 2e-5))),
    );
    for (bytes, basis) in
        [(2_000_000, Basis::Exact), (2_100_000, Basis::Exact), (3_000_000, Basis::MemoryNormalised)]
    {
        let answer = exec(&mut model, 1769, bytes);
        assert_eq!(answer.basis, basis, "{bytes}: {answer:?}");
        let ratio = median(&answer) / (100.0 + bytes as f64 * 1e-5);
        assert!((0.95..1.05).contains(&ratio), "{bytes}: {answer:?}");
    }
}

/// What is asked of `model`, with all quantiles of interest.
fn ask(model: &mut WorkflowModel, memory_mb: u32, input_bytes: u64) -> Prediction {
    let query = Query::ExecutionTime { task: task(), input_bytes, memory_mb, vcpu: None };
    model.snapshot().predict(&query, &[Sla::Quantile(1000), Sla::MEDIAN, Sla::Quantile(9000)])
}

fn at(prediction: &Prediction, sla: Sla) -> f64 {
    prediction.values[&sla].unwrap()
}

#[test]
fn a_size_that_other_configs_alone_were_measured_at_is_predicted_from_them() {
    // The input of 4 MB is easy: its time lies far from a line between 2 and 8 MB.
    let times = [(1_000_000, 100.0), (2_000_000, 200.0), (4_000_000, 40.0), (8_000_000, 800.0)];
    let mut model = told((0..80).filter_map(|n| {
        let ((size, time), memory_mb) = (times[n % 4], [512, 1024, 2048][n / 4 % 3]);
        let exec_ms = time * 1024.0 / f64::from(memory_mb) * (1.0 + 0.01 * (n % 5) as f64);
        (memory_mb != 1024 || size != 4_000_000).then(|| execution(memory_mb, size, exec_ms))
    }));
    let (unseen, seen) = (ask(&mut model, 1024, 4_000_000), ask(&mut model, 1024, 2_000_000));
    assert_eq!((unseen.basis, seen.basis), (Basis::MemoryNormalised, Basis::Exact));
    let median = at(&unseen, Sla::MEDIAN);
    assert!((34.0..48.0).contains(&median), "{median}");
}

#[test]
fn a_size_never_seen_between_sizes_of_their_own_times_widens() {
    let mut noise = Noise(7);
    let sizes: Vec<(u64, f64)> = (0..12).map(|n| (1_000_000 + n * 500_000, noise.next().exp())).collect();
    let mut model = told((0..96).map(|n| {
        let (size, level) = sizes[n % 12];
        execution(1769, size, 100.0 * level * (1.0 + 0.01 * noise.next()))
    }));
    let width = |p: &Prediction| at(p, Sla::Quantile(9000)) / at(p, Sla::MEDIAN);
    let (seen, unseen) = (ask(&mut model, 1769, 3_000_000), ask(&mut model, 1769, 3_250_000));
    assert!(width(&seen) < 1.1, "{seen:?}");
    assert!(width(&unseen) > 1.3, "{unseen:?}");
}

#[test]
fn a_level_that_moves_again_and_again_keeps_its_width_and_one_that_moved_once_does_not() {
    let mut noise = Noise(3);
    let mut levels = |levels: &[f64]| {
        let time = |n: usize| levels[n / 30] * (1.0 + 0.01 * noise.next());
        let times: Vec<f64> = (0..30 * levels.len()).map(time).collect();
        told(times.into_iter().map(|time| execution(1769, 0, time)))
    };
    let once = ask(&mut levels(&[100.0, 200.0]), 1769, 0);
    assert!((196.0..204.0).contains(&at(&once, Sla::MEDIAN)), "{once:?}");
    assert!(at(&once, Sla::Quantile(1000)) > 190.0, "{once:?}");
    let often = ask(&mut levels(&[100.0, 400.0, 200.0]), 1769, 0);
    assert!((196.0..204.0).contains(&at(&often, Sla::MEDIAN)), "{often:?}");
    assert!(at(&often, Sla::Quantile(1000)) < 110.0, "{often:?}");
    assert!(at(&often, Sla::Quantile(9000)) > 380.0, "{often:?}");
}

#[test]
fn small_inputs_are_known_though_every_recent_one_was_large() {
    // A reduction runs its leaves first: 500 of them are older than what a ring has.
    let mut noise = Noise(5);
    let mut time = |ms: f64| ms * (1.0 + 0.01 * noise.next());
    let leaves: Vec<Record> = (0..500).map(|_| execution(1769, 0, time(10.0))).collect();
    let inner: Vec<Record> = (0..500).map(|_| execution(1769, 64, time(20.0))).collect();
    let mut model = told(leaves.into_iter().chain(inner));
    for (input_bytes, ms) in [(0, 10.0), (64, 20.0)] {
        let found = ask(&mut model, 1769, input_bytes);
        assert!((0.97 * ms..1.03 * ms).contains(&at(&found, Sla::MEDIAN)), "{input_bytes} B: {found:?}");
        assert!(at(&found, Sla::Quantile(9000)) < 1.1 * ms, "{input_bytes} B: {found:?}");
        assert!(!found.extrapolated, "{input_bytes} B: {found:?}");
    }
}

const MB: u64 = 1_000_000;

#[test]
fn a_config_that_knows_small_inputs_alone_does_not_answer_for_large_ones() {
    // Twice as long on half a vCPU, three times as long on a third.
    let time_ms =
        |memory_mb: u32, bytes: u64| (100.0 + bytes as f64 / 1e4) * 1769.0 / f64::from(memory_mb.min(1769));
    for (far, other) in [([1, 3, 10, 30, 100], 1), ([1, 3, 10, 30, 100], 100)] {
        let mut noise = Noise(8);
        let mut measured = |memory_mb: u32, bytes: u64| {
            execution(memory_mb, bytes, time_ms(memory_mb, bytes) * (1.0 + 0.05 * noise.next()))
        };
        let mut records = Vec::new();
        for _ in 0..8 {
            for memory_mb in [512, 2048] {
                records.extend(far.map(|mb| measured(memory_mb, mb * MB)));
            }
            records.push(measured(1024, other * MB));
        }
        let mut model = told(records);
        let beyond =
            if other == 1 { [90 * MB, 101 * MB, 1_000 * MB] } else { [1_200_000, MB * 9 / 10, MB / 2] };
        for bytes in beyond {
            let (found, truth) = (median(&exec(&mut model, 1024, bytes)), time_ms(1024, bytes));
            assert!(
                (0.85..1.15).contains(&(found / truth)),
                "{other} MB known, {bytes} B: {found}, not {truth}"
            );
        }
        let own = exec(&mut model, 1024, other * MB);
        assert_eq!(own.basis, Basis::Exact);
    }
}

#[test]
fn sizes_that_differ_by_twice_or_less_tell_of_larger_ones() {
    for sizes in [&[10, 20][..], &[1, 2], &[100, 200], &[2, 3, 4]] {
        let mut noise = Noise(4);
        let time_ms = |bytes: u64| 20.0 + bytes as f64 / 1e4;
        let mut model = told((0..20).map(|n| {
            let bytes = sizes[n % sizes.len()] * MB;
            execution(1769, bytes, time_ms(bytes) * (1.0 + 0.02 * noise.next()))
        }));
        for bytes in [300 * MB, 3_000 * MB] {
            let (found, truth) = (median(&exec(&mut model, 1769, bytes)), time_ms(bytes));
            assert!((0.8..1.25).contains(&(found / truth)), "{sizes:?} MB, {bytes} B: {found}, not {truth}");
        }
    }
}

#[test]
fn a_time_that_does_not_depend_on_the_size_is_the_same_far_beyond_the_sizes() {
    const SEEDS: u64 = 100;
    for (samples, sizes) in [(8, &[0, MB][..]), (24, &[0, MB]), (24, &[0, MB / 2, MB]), (100, &[MB, 2 * MB])]
    {
        let right = (0..SEEDS).filter(|seed| {
            let mut noise = Noise(seed * 7 + 1);
            // Twelve even ones in sum are normal.
            let mut normal = || (0..12).map(|_| noise.next()).sum::<f64>() / 2.0;
            let mut model = told((0..samples).map(|n| {
                let bytes = sizes[n % sizes.len()];
                execution(1769, bytes, 500.0 * (0.04 * normal()).exp())
            }));
            (435.0..575.0).contains(&median(&exec(&mut model, 1769, 1_000 * MB)))
        });
        let right = right.count() as u64;
        assert!(right >= SEEDS - 3, "{samples} samples of {sizes:?} B: {right} of {SEEDS} are right");
    }
}

#[test]
fn one_size_leaves_open_whether_smaller_ones_take_as_long_or_in_proportion() {
    for seed in 0..25 {
        let mut noise = Noise(seed);
        let mut model = told((0..20).map(|n| {
            let bytes = 800 * MB + n * MB;
            execution(1769, bytes, 260_000.0 * (1.0 + 0.03 * noise.next()))
        }));
        for (bytes, times) in [(8 * MB, 0.01), (80 * MB, 0.1_f64)] {
            let answer = ask(&mut model, 1769, bytes);
            let of = |sla| at(&answer, sla) / 260_000.0;
            let (halfway, found) = (times.sqrt(), of(Sla::MEDIAN));
            assert!((halfway / 1.2..halfway * 1.2).contains(&found), "seed {seed}, {bytes} B: {answer:?}");
            let (low, high) = (of(Sla::Quantile(1000)), of(Sla::Quantile(9000)));
            assert!(low < times * 2.0 && high > 0.5, "seed {seed}, {bytes} B: {answer:?}");
        }
        // No size at all is not a small one, and a larger one takes as long at least.
        for bytes in [0, 80_000 * MB] {
            let found = median(&ask(&mut model, 1769, bytes));
            assert!((250_000.0..270_000.0).contains(&found), "seed {seed}, {bytes} B: {found}");
        }
    }
}

#[test]
fn large_sizes_alone_do_not_make_up_a_time_at_size_0() {
    const SEEDS: u64 = 100;
    for (samples, noise_by) in [(2, 0.1), (6, 0.1), (6, 0.2)] {
        let is_right = |seed: &u64| {
            let mut noise = Noise(seed * 11 + 5);
            let mut model = told((0..samples).map(|n| {
                let bytes = [434 * MB, 1260 * MB][n % 2];
                execution(1769, bytes, bytes as f64 * 1.1e-5 * (1.0 + noise_by * noise.next()))
            }));
            let found = median(&exec(&mut model, 1769, MB));
            (11.0 / 8.0..11.0 * 8.0).contains(&found)
        };
        let right = (0..SEEDS).filter(is_right).count();
        assert!(right >= 90, "{samples} samples, noise {noise_by}: {right} of {SEEDS} are right");
    }
    // What starting takes is kept where it is known.
    for seed in 0..25 {
        let mut noise = Noise(seed);
        let mut model = told((0..40).map(|n| {
            let bytes = [434 * MB, 700 * MB, 900 * MB, 1260 * MB][n % 4];
            let time_ms = 5000.0 + bytes as f64 * 1.1e-5;
            execution(1769, bytes, time_ms * (1.0 + 0.05 * noise.next()))
        }));
        let found = median(&exec(&mut model, 1769, MB));
        assert!((4000.0..6000.0).contains(&found), "seed {seed}: {found}");
    }
}
