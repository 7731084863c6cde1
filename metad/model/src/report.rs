//! What is known of one task, for people: configs, histograms, fits, and the time against memory.

use std::sync::Arc;

use foresail_schemas::prediction::Basis;
use foresail_schemas::score::Coverage;
use foresail_schemas::{ResourceConfig, Sla, TaskName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::answers::Answers;
use crate::config::ConfigKey;
use crate::curve::OFFSET_MS;
use crate::form::Form;
use crate::formula::CurvePart;
use crate::peak::{PeakMemory, Peaks};
use crate::score::Scores;
use crate::series::Series;
use crate::shape::Pool;

/// Most buckets of a histogram in a report.
const BUCKETS_MAX: usize = 24;
/// Memory sizes of the tuning curve between the smallest and the largest one seen, these included.
const TUNING_STEPS: usize = 12;
/// Most configs whose curve is drawn, those with the most samples.
const CURVES_MAX: usize = 8;
/// Sizes at which a curve is drawn.
const CURVE_STEPS: usize = 25;
/// Service levels of a drawn curve: nine of ten times lie within its band.
const BAND: [Sla; 3] = [Sla::Quantile(500), Sla::MEDIAN, Sla::P95];

/// One task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskReport {
    /// The task.
    pub task: TaskName,
    /// Executions measured.
    pub samples: u64,
    /// The configs it was measured on, in order of their memory.
    pub configs: Vec<ConfigReport>,
    /// Sizes of its inputs.
    pub input: Option<InputRange>,
    /// How its time follows the CPU share.
    pub shape: Option<ShapeReport>,
    /// Median time against memory at the median input size, within the memory sizes seen.
    pub tuning: Vec<TuningPoint>,
    /// Predicted time against input size, per config (at most 8), within the sizes seen on it.
    pub curves: Vec<SizeCurve>,
    /// How well plans predicted it; null where nothing was scored.
    pub coverage: Option<Coverage>,
}

/// The fitted curve of one config.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SizeCurve {
    /// The config.
    pub config: ResourceConfig,
    /// Whether it rests on the samples of this config or on those of all.
    pub basis: Basis,
    /// The size models that it is mixed from: the median is their product, each to the power of its weight.
    pub formula: Vec<CurvePart>,
    /// Points to draw, by rising size.
    pub points: Vec<CurvePoint>,
}

/// One point of a fitted curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CurvePoint {
    /// Size of all inputs in bytes.
    pub input_bytes: u64,
    /// 5th percentile in ms.
    pub p5_ms: f64,
    /// Median in ms.
    pub median_ms: f64,
    /// 95th percentile in ms.
    pub p95_ms: f64,
}

/// One config of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigReport {
    /// The config.
    pub config: ResourceConfig,
    /// Executions measured on it.
    pub samples: u64,
    /// Mean time in ms.
    pub mean_ms: f64,
    /// Quantiles of all times, whatever the input size.
    pub quantiles: Quantiles,
    /// Shortest time in ms.
    pub min_ms: f64,
    /// Longest time in ms.
    pub max_ms: f64,
    /// All times.
    pub histogram: Vec<Bucket>,
    /// Straight line of time against input size, where both vary.
    pub size_fit: Option<SizeFit>,
    /// Peak memory; null where no record had it. A download does not have it.
    pub peak_memory: Option<PeakMemory>,
}

/// Quantiles of times in ms, at most 1 % off.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Quantiles {
    /// The median.
    pub median: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// One bar of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Bucket {
    /// From this time in ms.
    pub from_ms: f64,
    /// To this time in ms.
    pub to_ms: f64,
    /// Executions within.
    pub count: u64,
}

/// A straight line through all samples of a config.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SizeFit {
    /// Time at size 0 in ms.
    pub intercept_ms: f64,
    /// Rise per byte in ms.
    pub ms_per_byte: f64,
    /// Pearson's correlation.
    pub correlation: f64,
}

/// Sizes of inputs in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InputRange {
    /// Smallest.
    pub min_bytes: u64,
    /// Median of the recent ones.
    pub median_bytes: u64,
    /// Largest.
    pub max_bytes: u64,
}

/// The most likely resource shape: time = serial + (1 - serial) / min(share, cap)^power.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ShapeReport {
    /// Part that does not get faster with more CPU, 0 to 1.
    pub serial: f64,
    /// vCPUs beyond which nothing gets faster; 1,000,000 where no cap was found.
    pub cap: f64,
    /// Power of the share: more than 1 where a small share slows down by more than its part.
    pub power: f64,
}

/// One point of the tuning curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TuningPoint {
    /// Memory in MB.
    pub memory_mb: u32,
    /// Median time in ms.
    pub median_ms: f64,
}

/// The part of a report that comes from the whole history of a config, kept apart from it in a
/// stored form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigHistory {
    samples: u64,
    mean_ms: f64,
    quantiles: Quantiles,
    min_ms: f64,
    max_ms: f64,
    size_bytes_min: u64,
    size_bytes_max: u64,
    histogram: Vec<Bucket>,
    size_fit: Option<SizeFit>,
}

impl ConfigHistory {
    /// Reads a series.
    pub fn new(series: &Series) -> Self {
        let hdr = series.histogram.decode();
        let at = |q: f64| hdr.value_at_quantile(q) as f64 / 1000.0;
        let moments = &series.moments;
        let line = |l: crate::moments::Line| SizeFit {
            intercept_ms: l.intercept_ms,
            ms_per_byte: l.ms_per_byte,
            correlation: l.correlation,
        };
        Self {
            samples: moments.count,
            mean_ms: moments.mean_ms().unwrap_or(0.0),
            quantiles: Quantiles { median: at(0.5), p90: at(0.9), p95: at(0.95), p99: at(0.99) },
            min_ms: moments.value_us_min as f64 / 1000.0,
            max_ms: moments.value_us_max as f64 / 1000.0,
            size_bytes_min: moments.size_bytes_min,
            size_bytes_max: moments.size_bytes_max,
            histogram: buckets(&hdr),
            size_fit: moments.line().map(line),
        }
    }

    /// What it says, in words of the report.
    pub fn report(&self, key: ConfigKey, peaks: Option<&Peaks>) -> ConfigReport {
        ConfigReport {
            config: key.config(),
            samples: self.samples,
            mean_ms: self.mean_ms,
            quantiles: self.quantiles,
            min_ms: self.min_ms,
            max_ms: self.max_ms,
            histogram: self.histogram.clone(),
            size_fit: self.size_fit,
            peak_memory: peaks.and_then(|peaks| peaks.report(key)),
        }
    }
}

/// Neighbouring HDR counters joined into at most [`BUCKETS_MAX`] bars of equal ratio; bars without counts are
/// left out.
fn buckets(hdr: &hdrhistogram::Histogram<u64>) -> Vec<Bucket> {
    let (low, high) = ((hdr.min().max(1)) as f64, (hdr.max().max(1)) as f64);
    let ratio = ((high / low).ln() / BUCKETS_MAX as f64).max(0.02);
    let mut buckets: Vec<(i64, Bucket)> = Vec::new();
    for step in hdr.iter_recorded() {
        let value = step.value_iterated_to();
        let bar = ((value.max(1) as f64 / low).ln() / ratio).floor() as i64;
        let (from, to) = (hdr.lowest_equivalent(value) as f64 / 1000.0, (value as f64 + 1.0) / 1000.0);
        let count = step.count_since_last_iteration();
        match buckets.last_mut() {
            Some((last, bucket)) if *last == bar => {
                bucket.to_ms = to;
                bucket.count += count;
            }
            _ => buckets.push((bar, Bucket { from_ms: from, to_ms: to, count })),
        }
    }
    buckets.into_iter().map(|(_, bucket)| bucket).collect()
}

/// The report of a task.
pub fn report<'a, P: Fn() -> &'a Arc<Pool>>(
    task: &TaskName,
    answers: &Answers<'a, P>,
    scores: Option<&Scores>,
    peaks: Option<&Peaks>,
) -> TaskReport {
    let histories = answers.histories();
    let sizes = |(_, h): &(ConfigKey, ConfigHistory)| (h.size_bytes_min, h.size_bytes_max);
    let range = histories.iter().map(sizes).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
    let scaled = answers.with_scaled(|scaled| {
        let Form { serial, cap, power } = scaled.shape.likeliest;
        let shape = ShapeReport { serial, cap, power };
        (shape, scaled.curve.size_median)
    });
    let median = scaled.map_or(0.0, |(_, median)| median);
    let seen: Vec<ConfigKey> = histories.iter().map(|(key, _)| *key).collect();
    TaskReport {
        task: task.clone(),
        samples: answers.samples(),
        configs: histories.iter().map(|(key, history)| history.report(*key, peaks)).collect(),
        input: range.map(|(min_bytes, max_bytes)| InputRange {
            min_bytes,
            median_bytes: median as u64,
            max_bytes,
        }),
        shape: scaled.map(|(shape, _)| shape),
        tuning: tuning(answers, seen, median),
        curves: curves(answers, &histories),
        coverage: scores.map(Scores::coverage),
    }
}

/// The curves of the configs with the most samples, in order of the configs.
fn curves<'a, P: Fn() -> &'a Arc<Pool>>(
    answers: &Answers<'a, P>,
    histories: &[(ConfigKey, ConfigHistory)],
) -> Vec<SizeCurve> {
    let mut most: Vec<&(ConfigKey, ConfigHistory)> = histories.iter().collect();
    most.sort_by_key(|(key, history)| (std::cmp::Reverse(history.samples), *key));
    most.truncate(CURVES_MAX);
    most.sort_by_key(|(key, _)| *key);
    let point = |key: ConfigKey, input_bytes: u64| {
        let answer = answers.exec(key, input_bytes, &BAND)?;
        let time = |sla| answer.values.get(&sla).copied().flatten();
        let [Some(p5_ms), Some(median_ms), Some(p95_ms)] = BAND.map(time) else { return None };
        Some(CurvePoint { input_bytes, p5_ms, median_ms, p95_ms })
    };
    let curve = |(key, history): &(ConfigKey, ConfigHistory)| {
        let sizes = drawn_sizes(history.size_bytes_min, history.size_bytes_max);
        let points = sizes.into_iter().filter_map(|size| point(*key, size)).collect();
        let (basis, formula) = answers.formula(*key)?;
        Some(SizeCurve { config: key.config(), basis, formula, points })
    };
    most.into_iter().filter_map(curve).collect()
}

/// Sizes from `low` to `high`, these included, evenly spaced in their logarithm, as the fits see them.
fn drawn_sizes(low: u64, high: u64) -> Vec<u64> {
    let (from, to) = ((1.0 + low as f64).ln(), (1.0 + high as f64).ln());
    let size = |step: usize| (from + (to - from) * step as f64 / (CURVE_STEPS - 1) as f64).exp() - 1.0;
    let mut sizes: Vec<u64> =
        (1..CURVE_STEPS - 1).map(|step| (size(step).round() as u64).clamp(low, high)).collect();
    sizes.extend([low, high]);
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// Where vCPUs are given apart from memory, memory alone does not say the share, so only sizes seen are
/// listed.
fn tuning<'a, P: Fn() -> &'a Arc<Pool>>(
    answers: &Answers<'a, P>,
    seen: Vec<ConfigKey>,
    size: f64,
) -> Vec<TuningPoint> {
    let (Some(first), Some(last)) = (seen.first(), seen.last()) else { return Vec::new() };
    let (low, high) = (first.config().memory_mb, last.config().memory_mb);
    let mut keys = seen.clone();
    if seen.iter().all(|key| key.config().vcpu.is_none()) {
        let ratio = f64::from(high) / f64::from(low);
        for step in 1..TUNING_STEPS - 1 {
            let memory_mb = f64::from(low) * ratio.powf(step as f64 / (TUNING_STEPS - 1) as f64);
            keys.push(ConfigKey::new(memory_mb.round() as u32, None));
        }
    }
    keys.sort_unstable();
    keys.dedup();
    let point = |key: &ConfigKey| {
        let exact = answers.exec(*key, size as u64, &[Sla::MEDIAN])?;
        let median_ms = exact.values.values().next().copied().flatten()?;
        Some(TuningPoint { memory_mb: key.config().memory_mb, median_ms: median_ms.max(OFFSET_MS) })
    };
    keys.iter().filter_map(point).collect()
}
