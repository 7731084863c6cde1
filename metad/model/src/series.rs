//! One series of measurements: the recent samples, the histogram and the sums of the whole history.

use serde::{Deserialize, Serialize};

use crate::histogram::Histogram;
use crate::moments::Moments;
use crate::ring::{Ring, Sample};

/// Everything kept of one (task, config) or of its like.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// The recent samples.
    pub ring: Ring,
    /// Times of the whole history.
    pub histogram: Histogram,
    /// Sums of the whole history.
    pub moments: Moments,
}

impl Series {
    /// Takes in one sample in constant time.
    pub fn record(&mut self, sample: Sample) {
        self.ring.push(sample);
        self.histogram.record(sample.value_us());
        self.moments.record(&sample);
    }

    /// Takes in everything of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.ring.merge(&other.ring);
        self.histogram.merge(&other.histogram);
        self.moments.merge(&other.moments);
    }
}
