//! One series of measurements: the recent samples, the histogram and the sums of the whole history, and the
//! curve fitted to them at the first question.

use serde::{Deserialize, Serialize};

use crate::cells::SAME;
use crate::curve::{Curve, OFFSET_MS, recent_points, weigh};
use crate::drift::{Changes, Leaning};
use crate::histogram::Histogram;
use crate::memo::Memo;
use crate::moments::Moments;
use crate::ring::{RING_SAMPLES, Ring, Sample};
use crate::size::Point;
use crate::sort::sort_whole;

/// Changes of level in the ring from which on more of them are expected.
const CHANGES_MIN: usize = 2;

/// Everything kept of one (task, config) or of its like.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// The recent samples.
    pub ring: Ring,
    /// Times of the whole history.
    pub histogram: Histogram,
    /// Sums of the whole history.
    pub moments: Moments,
    /// Samples of the ring before the newest change of the whole task, and such changes; see [`Self::since`].
    #[serde(skip)]
    cut: (usize, usize),
    #[serde(skip)]
    level: Memo<Level>,
    /// Apart from the level, which every fit over several configs needs.
    #[serde(skip)]
    sizes: Memo<Vec<f64>>,
    #[serde(skip)]
    curve: Memo<Option<Box<Curve>>>,
}

/// The samples since the newest change point.
#[derive(Debug, Clone)]
pub struct Level {
    /// Samples of the ring before it.
    pub left_out: usize,
    /// Changes found in the ring.
    pub changes: usize,
    /// Samples that predictions rest on: the whole history where there was no change.
    pub samples: u64,
    /// Smallest size.
    pub size_min: f64,
    /// Largest size.
    pub size_max: f64,
    /// What they say of a further change.
    pub leaning: Leaning,
    /// What they say together with the level before, from a place of the ring on, where there was a change.
    pub shown: Option<(usize, Leaning)>,
}

/// So many of the newest samples are of several stretches of a run, or of several runs.
const STRETCHES_SAMPLES: usize = 64;
/// Most sizes of a series that are told apart; more are dense.
const SIZES_MAX: usize = 48;

impl Series {
    /// Takes in one sample in constant time.
    pub fn record(&mut self, sample: Sample) {
        self.forget_fits();
        self.ring.push(sample);
        self.histogram.record(sample.value_us());
        self.moments.record(&sample);
    }

    /// Takes in everything of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.join(other);
        self.histogram.merge(&other.histogram);
    }

    /// Takes in everything of `other` but its histogram, which curves without a tail do not need.
    pub fn join(&mut self, other: &Self) {
        self.forget_fits();
        self.ring.merge(&other.ring);
        self.moments.merge(&other.moments);
    }

    fn forget_fits(&mut self) {
        (self.level, self.sizes, self.curve) = (Memo::default(), Memo::default(), Memo::default());
    }

    /// Where the newest level begins.
    pub fn level(&self) -> &Level {
        self.level.get(|| {
            let (cut, changes_before) = self.cut;
            let (points, changes) =
                recent_points(self.ring.iter().skip(cut), |s| Some(s.value_ms + OFFSET_MS));
            let (size_min, size_max) =
                points.iter().fold((f64::MAX, 0.0_f64), |(lo, hi), p| (lo.min(p.size), hi.max(p.size)));
            let Changes { newest, count, leaning, shown } = changes;
            let shown = shown.map(|(first, leaning)| (cut + first, leaning));
            let (left_out, changes) = (cut + newest, changes_before + count);
            let samples = if left_out == 0 { self.moments.count } else { points.len() as u64 };
            Level { left_out, changes, samples, size_min, size_max, leaning, shown }
        })
    }

    /// The same series where its whole task changed its level at a time; nothing where the newest level has
    /// no samples on both sides of it.
    pub fn since(&self, from_us: i64) -> Option<Self> {
        let (level, cut) = (self.level(), self.ring.before(from_us));
        let splits = level.left_out < cut && cut < self.ring.len();
        splits.then(|| Self { cut: (cut, level.changes + 1), ..self.clone() })
    }

    /// The sizes of the newest level, ascending; empty where there is one, or more than [`SIZES_MAX`].
    pub fn sizes(&self) -> &[f64] {
        self.sizes.get(|| {
            let level = self.level();
            let newest = self.ring.iter().skip(level.left_out).map(|sample| sample.size_bytes as f64);
            if level.size_min == level.size_max { Vec::new() } else { distinct(newest) }
        })
    }

    /// The times since the newest change point, offset included, with recency weights.
    pub fn recent(&self) -> Vec<Point> {
        self.newest(RING_SAMPLES)
    }

    /// `count` of them at most: the newest, or where these would be few, as many evenly over all of them. Few
    /// of the newest are of one stretch of one run, which has one level, and where inputs are measured one
    /// after the other they are of one input.
    pub fn some(&self, count: usize) -> Vec<Point> {
        if count >= STRETCHES_SAMPLES {
            return self.newest(count);
        }
        let points = self.recent();
        self.places(count).map(|place| points[place]).collect()
    }

    /// The places of those that [`Self::some`] has among the samples of the newest level, ascending.
    pub fn places(&self, count: usize) -> impl Iterator<Item = usize> + use<> {
        let all = self.ring.len() - self.level().left_out;
        let count = count.min(all);
        let newest = count >= STRETCHES_SAMPLES;
        (1..=count).map(move |n| if newest { all - count + n } else { n * all / count } - 1)
    }

    /// The newest `count` of them at most.
    fn newest(&self, count: usize) -> Vec<Point> {
        // Samples of one time weigh alike, so that their weight needs all of them, but none before.
        let first = self.level().left_out.max(self.ring.newest(count));
        let mut points: Vec<Point> = self.ring.iter().skip(first).map(point).collect();
        weigh(&mut points);
        points.drain(..points.len().saturating_sub(count));
        points
    }

    /// All times of the ring, offset included, with recency weights.
    pub fn whole_ring(&self) -> Vec<Point> {
        let mut points: Vec<Point> = self.ring.iter().map(point).collect();
        weigh(&mut points);
        points
    }

    /// The times before the newest change point, offset included, weighed by their age in the ring, where
    /// there were changes before; nothing where the level changed once or never.
    pub fn former(&self) -> Vec<Point> {
        let level = self.level();
        if level.changes < CHANGES_MIN {
            return Vec::new();
        }
        let mut points = self.whole_ring();
        points.truncate(level.left_out);
        points
    }

    /// The curve of times, fitted by `fit` at the first question; `fit` is the same at every one.
    pub fn curve(&self, fit: impl FnOnce(&[Point]) -> Option<Curve>) -> Option<&Curve> {
        self.curve_of(|| fit(&self.recent()))
    }

    /// As [`Self::curve`], of points that `fit` chooses.
    pub fn curve_of(&self, fit: impl FnOnce() -> Option<Curve>) -> Option<&Curve> {
        self.curve.get(|| fit().map(Box::new)).as_deref()
    }
}

/// A sample without its weight.
pub fn point(sample: &Sample) -> Point {
    let (at_us, size) = (sample.at_us, sample.size_bytes as f64);
    Point { at_us, size, value: sample.value_ms + OFFSET_MS, weight: 1.0 }
}

/// Sizes as [`Series::sizes`] has them.
fn distinct(sizes: impl Iterator<Item = f64>) -> Vec<f64> {
    // Sizes are not negative, so that their bits have their order.
    let mut bits: Vec<u64> = sizes.map(f64::to_bits).collect();
    sort_whole(&mut bits);
    let mut sizes: Vec<f64> = bits.into_iter().map(f64::from_bits).collect();
    sizes.dedup_by(|size, former| are_alike(*former, *size));
    if sizes.len() > SIZES_MAX { Vec::new() } else { sizes }
}

/// Whether two sizes, the smaller first, are one.
pub fn are_alike(low: f64, high: f64) -> bool {
    (1.0 + high) <= (1.0 + low) * (1.0 + SAME)
}
