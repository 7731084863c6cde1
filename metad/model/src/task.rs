//! One task: its measurements per config, and the curves fitted to them.
//!
//! A config with enough samples answers from its own curve. Otherwise all samples are brought to one level by
//! the fitted resource shape, one size curve is fitted to them, and its answer is brought to the config asked
//! for.

use foresail_schemas::Sla;
use foresail_schemas::metric::TaskRecord;
use foresail_schemas::prediction::{Basis, Prediction, Unit};
use serde::{Deserialize, Serialize};

use crate::config::{ByConfig, ConfigKey};
use crate::curve::{Ask, Curve, OFFSET_BYTES, OFFSET_MS, Setup, recent_points, weigh};
use crate::report::ConfigHistory;
use crate::ring::Sample;
use crate::scaled::Scaled;
use crate::series::Series;
use crate::shape::{Belief, Evidence, Pool};
use crate::size::Point;

/// Samples of the same config from which on they alone answer.
pub const EXACT_SAMPLES_MIN: u64 = 5;
/// Log distance from the sizes of a config's own samples up to which they answer (10 %): so near, their curve
/// is better than other configs brought to this one by the shape.
const OWN_REACH: f64 = 0.1;
/// Most samples that a fit over several configs looks at, newest first.
pub const POOLED_SAMPLES_MAX: usize = 512;
/// Histories from this many samples on give the quantiles beyond the ring.
const TAIL_SAMPLES_MIN: u64 = 512;
/// Standard deviation of log residuals of times and of output sizes expected before anything is seen.
pub const SPREAD_TIME: f64 = 0.1;
const SPREAD_OUTPUT: f64 = 0.02;

/// The measurements of one task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskModel {
    samples: u64,
    configs: ByConfig,
}

impl TaskModel {
    /// Takes in one execution.
    pub fn record(&mut self, record: &TaskRecord, at_us: i64) {
        let sample = Sample::new(at_us, record.input_bytes, record.exec_ms, record.output_bytes);
        self.samples += 1;
        self.configs.record(ConfigKey::new(record.memory_mb, record.vcpu), sample);
    }

    /// Takes in everything of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.samples += other.samples;
        self.configs.merge(&other.configs);
    }

    /// First step of a fit: the samples that count, and what they say about the shape.
    pub fn prepare(&self) -> Prepared {
        let mut points = Vec::new();
        let mut forgotten = Vec::new();
        for (key, series) in self.configs.iter() {
            let (recent, left_out) = recent_points(&series.ring, |s| Some(s.value_ms + OFFSET_MS));
            points.push((key, recent));
            forgotten.push(left_out);
        }
        let each = (POOLED_SAMPLES_MAX / points.len().max(1)).max(1);
        let shared = points.iter().flat_map(|(key, recent)| {
            let share = key.share();
            recent[recent.len().saturating_sub(each)..].iter().map(move |point| (share, *point))
        });
        let shared: Vec<(f64, Point)> = shared.collect();
        let evidence = Evidence::new(&shared);
        Prepared { points, forgotten, shared, evidence }
    }

    /// Second step: the curves, with what the pool says about the shape.
    pub fn fit(&self, prepared: &Prepared, pool: &Pool) -> TaskPredictor {
        let mut configs = Vec::with_capacity(prepared.points.len());
        for (((key, points), forgotten), (_, series)) in
            prepared.points.iter().zip(&prepared.forgotten).zip(self.configs.iter())
        {
            if let Some(curve) = own_curve(points, *forgotten, series) {
                configs.push(ConfigPart { key: *key, curve, history: ConfigHistory::new(series) });
            }
        }
        TaskPredictor {
            samples: self.samples,
            scaled: Scaled::fit(&prepared.shared, &prepared.evidence, pool, self.samples),
            output: self.output_curve(),
            configs,
        }
    }

    /// Output against input size over all configs: memory does not change what a task writes.
    fn output_curve(&self) -> Option<Curve> {
        let mut points: Vec<Point> = Vec::new();
        for (_, series) in self.configs.iter() {
            points
                .extend(recent_points(&series.ring, |s| s.output_bytes().map(|b| b as f64 + OFFSET_BYTES)).0);
        }
        points.sort_by(|a, b| a.at_us.cmp(&b.at_us).then(a.size.total_cmp(&b.size)));
        points.drain(..points.len().saturating_sub(POOLED_SAMPLES_MAX));
        weigh(&mut points);
        let repeats = points.len() > 1 && points.iter().all(|p| p.value == points[0].value);
        let spread = if repeats { 0.0 } else { SPREAD_OUTPUT };
        Curve::fit(&points, &Setup { spread, tail: None, samples: 0 })
    }
}

fn own_curve(points: &[Point], forgotten: usize, series: &Series) -> Option<Curve> {
    let steady = forgotten == 0;
    let samples = if steady { series.moments.count } else { points.len() as u64 };
    if steady && series.moments.count >= TAIL_SAMPLES_MIN {
        let hdr = series.histogram.decode();
        let tail = |q: f64| hdr.value_at_quantile(q) as f64 / 1000.0 + OFFSET_MS;
        return Curve::fit(points, &Setup { spread: SPREAD_TIME, tail: Some(&tail), samples });
    }
    Curve::fit(points, &Setup { spread: SPREAD_TIME, tail: None, samples })
}

/// What a fit of one task starts from.
pub struct Prepared {
    points: Vec<(ConfigKey, Vec<Point>)>,
    forgotten: Vec<usize>,
    shared: Vec<(f64, Point)>,
    evidence: Evidence,
}

impl Prepared {
    /// What this task tells the pool.
    pub fn belief(&self) -> Option<Belief> {
        self.evidence.belief()
    }

    /// Whether the fit depends on the pool.
    pub fn leans_on_pool(&self) -> bool {
        self.evidence.leans_on_pool()
    }
}

/// The fitted curves of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskPredictor {
    /// Samples over all configs.
    pub samples: u64,
    /// Configs in order.
    pub configs: Vec<ConfigPart>,
    /// The curve over all configs.
    pub scaled: Option<Scaled>,
    /// Output size against input size.
    pub output: Option<Curve>,
}

/// One config of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigPart {
    /// The config.
    pub key: ConfigKey,
    /// Its own curve.
    pub curve: Curve,
    /// What the report says about its history.
    pub history: ConfigHistory,
}

impl TaskPredictor {
    /// The execution time at a size on a config.
    pub fn exec(&self, key: ConfigKey, input_bytes: u64, slas: &[Sla]) -> Option<Prediction> {
        let size = input_bytes as f64;
        let own = self.configs.binary_search_by_key(&key, |c| c.key).ok().map(|n| &self.configs[n].curve);
        if let Some(curve) = own.filter(|curve| self.is_exact(curve, size)) {
            let (unit, basis) = (Unit::Ms, Basis::Exact);
            let ask =
                Ask { size, scale: 1.0, sigma: 0.0, offset: OFFSET_MS, unit, basis, extrapolated: false };
            return Some(curve.answer(&ask, slas));
        }
        self.scaled.as_ref().map(|scaled| scaled.predict(key.share(), size, slas))
    }

    /// The output size at an input size.
    pub fn output(&self, input_bytes: u64, slas: &[Sla]) -> Option<Prediction> {
        let basis = if self.configs.len() > 1 { Basis::Pooled } else { Basis::Exact };
        let (unit, offset) = (Unit::Bytes, OFFSET_BYTES);
        let ask = Ask {
            size: input_bytes as f64,
            scale: 1.0,
            sigma: 0.0,
            offset,
            unit,
            basis,
            extrapolated: false,
        };
        self.output.as_ref().map(|curve| curve.answer(&ask, slas))
    }

    /// Own samples answer where there are enough of them and their sizes reach as far as those of other
    /// configs, or almost to the size asked for.
    fn is_exact(&self, curve: &Curve, size: f64) -> bool {
        if self.configs.len() == 1 {
            return true;
        }
        let others_reach = || self.scaled.as_ref().is_some_and(|s| s.curve.distance(size) <= 0.0);
        curve.samples >= EXACT_SAMPLES_MIN && (curve.distance(size) <= OWN_REACH || !others_reach())
    }
}
