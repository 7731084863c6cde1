//! Tasks on workers of many sizes: an outlier where nothing else was measured, and memory beside vCPUs.

#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

mod records;

use foresail_model::WorkflowModel;
use foresail_schemas::Sla;
use foresail_schemas::prediction::{Prediction, Query};
use jiff::Timestamp;
use records::{execution, task};

const SEEDS: u64 = 25;

/// A history of one task, with repeatable chance.
struct Story {
    model: WorkflowModel,
    state: u64,
    second: i64,
}

impl Story {
    fn new(seed: u64) -> Self {
        Self { model: WorkflowModel::new(), state: seed << 32, second: 0 }
    }

    /// A factor between `1 - by` and `1 + by`.
    fn factor(&mut self, by: f64) -> f64 {
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1.0 + by * ((self.state >> 33) as f64 / (1_u64 << 30) as f64 - 1.0)
    }

    fn add(&mut self, memory_mb: u32, vcpu: Option<f64>, input_bytes: u64, exec_ms: f64) {
        let record = execution((memory_mb, vcpu), input_bytes, None, exec_ms);
        self.second += 10;
        self.model.update(&record, Timestamp::from_second(self.second).unwrap());
    }

    fn ask(&mut self, memory_mb: u32, vcpu: Option<f64>, input_bytes: u64) -> Prediction {
        let query = Query::ExecutionTime { task: task(), input_bytes, memory_mb, vcpu };
        self.model.snapshot().predict(&query, &[Sla::MEDIAN, Sla::P95])
    }

    fn median(&mut self, memory_mb: u32, vcpu: Option<f64>, input_bytes: u64) -> f64 {
        self.ask(memory_mb, vcpu, input_bytes).values[&Sla::MEDIAN].unwrap()
    }
}

fn by_size_ms(memory_mb: u32, bytes: u64) -> f64 {
    (100.0 + bytes as f64 / 1e4) * (1769.0 / f64::from(memory_mb)).max(1.0)
}

#[test]
fn an_outlier_as_the_first_sample_on_a_worker_is_not_the_level_there_nor_beside_it() {
    const MB: u64 = 1_000_000;
    for seed in 0..SEEDS {
        for times in [100.0, 0.01] {
            let mut story = Story::new(seed);
            for n in 0..40 {
                for memory_mb in [512, 2048] {
                    let bytes = [1, 3, 10, 30, 100][n % 5] * MB;
                    let exec_ms = by_size_ms(memory_mb, bytes) * story.factor(0.08);
                    story.add(memory_mb, None, bytes, exec_ms);
                }
            }
            story.add(1024, None, MB, by_size_ms(1024, MB) * times);
            for (memory_mb, bytes) in [(1024, MB), (1024, 50 * MB), (1000, MB)] {
                let ratio = story.median(memory_mb, None, bytes) / by_size_ms(memory_mb, bytes);
                assert!((0.2..5.0).contains(&ratio), "seed {seed}, x{times}: {ratio} at {memory_mb} MB");
            }
            let good_ms = by_size_ms(1024, MB) * story.factor(0.08);
            story.add(1024, None, MB, good_ms);
            let ratio = story.median(1024, None, MB) / by_size_ms(1024, MB);
            assert!((0.8..1.25).contains(&ratio), "seed {seed}, x{times}: {ratio} with one more");
        }
    }
}

#[test]
fn one_outlier_of_ten_workers_with_one_sample_each_moves_none_of_them_far() {
    let memories = [256, 384, 512, 768, 1024, 1280, 1536, 1792, 2048, 3008];
    for seed in 0..SEEDS {
        for outlier in memories {
            let mut story = Story::new(seed);
            for memory_mb in memories {
                let times = if memory_mb == outlier { 100.0 } else { 1.0 };
                let exec_ms = by_size_ms(memory_mb, 0) * times * story.factor(0.08);
                story.add(memory_mb, None, 0, exec_ms);
            }
            for memory_mb in memories {
                let ratio = story.median(memory_mb, None, 0) / by_size_ms(memory_mb, 0);
                assert!((0.7..3.0).contains(&ratio), "seed {seed}: {ratio} at {memory_mb} of {outlier} MB");
            }
        }
    }
}

#[test]
fn two_samples_that_agree_are_believed_however_far_they_are_from_other_workers() {
    let mut story = Story::new(1);
    for _ in 0..20 {
        for memory_mb in [512, 2048, 4096] {
            let exec_ms = 300.0 * story.factor(0.05);
            story.add(memory_mb, None, 0, exec_ms);
        }
    }
    (0..3).for_each(|_| story.add(256, None, 0, 3000.0));
    let found = story.median(256, None, 0);
    assert!((2700.0..3300.0).contains(&found), "{found}");
}

#[test]
fn a_worker_never_used_is_predicted_from_all_that_others_did_and_not_from_their_newest_runs() {
    let memories = [512, 640, 768, 896, 1024, 1152, 1280, 1408, 1536, 1664, 1792, 2048, 2560, 3008];
    let (mut covered, mut asked) = (0, 0);
    for seed in 0..SEEDS {
        let mut story = Story::new(seed);
        // Inputs that nobody tells apart come one after the other, eight times each.
        let inputs: Vec<f64> = (0..10).map(|_| 1.0 + 3.0 * (story.factor(0.5) - 0.5)).collect();
        for memory_mb in memories {
            for (input, n) in inputs.iter().flat_map(|input| (0..8).map(move |n| (input, n))) {
                let bytes = [1_000, 10_000, 100_000][n % 3 * usize::from(seed % 2 == 0)];
                let exec_ms = by_size_ms(memory_mb, 0) * input * story.factor(0.03);
                story.add(memory_mb, None, bytes, exec_ms);
            }
        }
        let answer = story.ask(1440, None, 1_000);
        let p95 = answer.values[&Sla::P95].unwrap() / by_size_ms(1440, 0);
        covered += inputs.iter().filter(|input| **input <= p95 * 1.03).count();
        asked += inputs.len();
    }
    assert!(covered * 100 >= asked * 90, "{covered} of {asked} are below p95");
}

#[test]
fn sizes_that_were_measured_one_after_the_other_are_known_on_a_worker_never_used() {
    const MB: u64 = 1_000_000;
    let memories = [512, 640, 768, 896, 1024, 1152, 1280, 1408, 1536, 1664, 1792, 2048, 2560, 3008];
    for seed in 0..SEEDS {
        let mut story = Story::new(seed);
        // The smallest, which came first, is an easy one: no line tells of it.
        let times = |bytes: u64| if bytes == 3 * MB { 0.3 } else { 1.0 };
        for memory_mb in memories {
            for (bytes, _) in [3, 4, 5, 6, 7].iter().flat_map(|size| (0..20).map(move |n| (size * MB, n))) {
                let exec_ms = by_size_ms(memory_mb, bytes) * times(bytes) * story.factor(0.05);
                story.add(memory_mb, None, bytes, exec_ms);
            }
        }
        for bytes in [3, 4, 7].map(|size| size * MB) {
            let ratio = story.median(1440, None, bytes) / (by_size_ms(1440, bytes) * times(bytes));
            assert!((0.85..1.15).contains(&ratio), "seed {seed}, {bytes} B: {ratio}");
        }
    }
}

const MENU: [(u32, f64); 16] = [
    (512, 0.5),
    (512, 1.0),
    (512, 2.0),
    (512, 4.0),
    (1024, 0.5),
    (1024, 1.0),
    (1024, 2.0),
    (1024, 4.0),
    (2048, 0.5),
    (2048, 1.0),
    (2048, 2.0),
    (2048, 4.0),
    (4096, 0.5),
    (4096, 1.0),
    (4096, 2.0),
    (4096, 4.0),
];

/// Every worker of the menu left out in turn and asked about, within `percent`.
fn check_menu(truth: fn(u32, f64) -> f64, percent: f64) {
    for seed in 0..8 {
        for asked in MENU {
            let mut story = Story::new(seed);
            for _ in 0..3 {
                for (memory_mb, vcpu) in MENU.into_iter().filter(|other| *other != asked) {
                    let exec_ms = truth(memory_mb, vcpu) * story.factor(0.05);
                    story.add(memory_mb, Some(vcpu), 0, exec_ms);
                }
            }
            let found = story.median(asked.0, Some(asked.1), 0) / truth(asked.0, asked.1);
            assert!(
                (found - 1.0).abs() * 100.0 < percent,
                "seed {seed}: {found} of what is right at {asked:?}"
            );
        }
    }
}

#[test]
fn memory_beside_vcpus_counts_where_it_matters_and_not_where_it_does_not() {
    check_menu(|memory_mb, vcpu| 300.0 / vcpu * if memory_mb < 700 { 10.0 } else { 1.0 }, 10.0);
    check_menu(|memory_mb, vcpu| (50.0 + 500.0 / vcpu) * (1.0 + 1024.0 / f64::from(memory_mb)), 10.0);
    check_menu(|_, vcpu| 50.0 + 500.0 / vcpu, 6.0);
}

#[test]
fn a_worker_of_little_memory_is_slow_at_a_vcpu_that_it_was_not_measured_with() {
    for seed in 0..SEEDS {
        let truth = |memory_mb: u32, vcpu: f64| 300.0 / vcpu * if memory_mb < 700 { 10.0 } else { 1.0 };
        let mut story = Story::new(seed);
        for _ in 0..9 {
            for place in [0, 1, 3, 4, 5, 6, 9, 10, 15] {
                let (memory_mb, vcpu) = MENU[place];
                let exec_ms = truth(memory_mb, vcpu) * story.factor(0.04);
                story.add(memory_mb, Some(vcpu), 0, exec_ms);
            }
        }
        let found = story.median(512, Some(2.0), 0);
        assert!((found / truth(512, 2.0) - 1.0).abs() < 0.15, "seed {seed}: {found}");
        assert!(story.ask(256, Some(2.0), 0).extrapolated, "256 MB is less than was ever measured");
        assert!(!story.ask(512, Some(2.0), 0).extrapolated);
    }
}

#[test]
fn inputs_of_unknown_kinds_on_many_workers_are_not_taken_for_memory() {
    for seed in 0..SEEDS {
        let mut story = Story::new(seed);
        for place in 0..MENU.len() {
            // Seven inputs of quite different times, none of which is named.
            let (memory_mb, vcpu) = MENU[place * 5 % MENU.len()];
            let kind = [1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 6.0][(story.factor(1.0) * 3.5) as usize % 7];
            story.add(memory_mb, Some(vcpu), 0, 200.0 / vcpu * kind);
        }
        let answers: Vec<f64> = [512, 1024, 2048, 4096].map(|mb| story.median(mb, Some(3.0), 0)).to_vec();
        let (low, high) = answers.iter().fold((f64::MAX, 0.0_f64), |(l, h), a| (l.min(*a), h.max(*a)));
        assert!(high / low < 3.0, "seed {seed}: {answers:?}");
    }
}
