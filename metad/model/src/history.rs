//! The whole history of a series as a distribution, for as long as the recent samples look drawn from it.
//!
//! Many thousand values know a quantile three times as well as the ring's 128 do, but they also remember
//! levels that are over. Whether they do is tested: the statistic compares how many recent samples lie below
//! each value with how many of the history do, and weighs the tails as heavily as the middle. Source:
//! R. H. Berk and D. H. Jones, "Goodness-of-fit test statistics that dominate the Kolmogorov statistics",
//! Z. Wahrscheinlichkeitstheorie verw. Gebiete 47, 1979. Units: ms.

use hdrhistogram::Histogram as Hdr;

/// Largest statistic of a history that the recent samples are drawn from: exceeded with a probability of
/// 10 % at 128 samples (simulated; 4 % where they are a quarter of the history). A history refused in vain
/// costs the gain once in ten; one taken in vain costs a bias, so the level is not a stricter one.
const DISTANCE_MAX: f64 = 4.2;
/// Microseconds in a millisecond.
const US: f64 = 1000.0;

/// A distribution of times.
#[derive(Debug, Clone)]
pub struct History {
    buckets: Vec<Bucket>,
    count: f64,
    offset: f64,
}

/// Values that are not told apart, and how many values there are up to its end.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    low_us: f64,
    high_us: f64,
    below: f64,
    up_to: f64,
}

impl History {
    /// The distribution of a histogram in microseconds, `offset` ms added to each time.
    pub fn new(hdr: &Hdr<u64>, offset: f64) -> Self {
        let mut below = 0.0;
        let mut buckets = Vec::new();
        for entry in hdr.iter_recorded() {
            let value = entry.value_iterated_to();
            let low_us = (hdr.lowest_equivalent(value) as f64 - 0.5).max(0.0);
            let high_us = hdr.highest_equivalent(value) as f64 + 0.5;
            let up_to = below + entry.count_at_value() as f64;
            buckets.push(Bucket { low_us, high_us, below, up_to });
            below = up_to;
        }
        Self { buckets, count: below, offset }
    }

    /// Whether `recent_ms`, offset included, may well be drawn from it.
    pub fn agrees_with(&self, recent_ms: &mut [f64]) -> bool {
        recent_ms.sort_unstable_by(f64::total_cmp);
        let n = recent_ms.len() as f64;
        let mut below = 0;
        let mut most: f64 = 0.0;
        for bucket in &self.buckets {
            let end = bucket.high_us / US + self.offset;
            while recent_ms.get(below).is_some_and(|value| *value <= end) {
                below += 1;
            }
            most = most.max(n * divergence(below as f64 / n, bucket.up_to / self.count));
        }
        most <= DISTANCE_MAX
    }

    /// Whether it tells values apart at all.
    pub fn varies(&self) -> bool {
        self.buckets.len() > 1
    }

    /// The quantile `q`, with the (n+1) rank, linear within a bucket; at least the least value and at most
    /// the greatest.
    pub fn quantile(&self, q: f64) -> f64 {
        let rank = (q * (self.count + 1.0) - 0.5).clamp(0.0, self.count);
        let place = self.buckets.partition_point(|b| b.up_to < rank).min(self.buckets.len() - 1);
        let bucket = &self.buckets[place];
        let part = ((rank - bucket.below) / (bucket.up_to - bucket.below)).clamp(0.0, 1.0);
        (bucket.low_us + part * (bucket.high_us - bucket.low_us)) / US + self.offset
    }

    /// The mean.
    pub fn mean(&self) -> f64 {
        let sum: f64 =
            self.buckets.iter().map(|b| (b.up_to - b.below) * f64::midpoint(b.low_us, b.high_us)).sum();
        sum / self.count / US + self.offset
    }

    /// Values in it.
    pub fn count(&self) -> f64 {
        self.count
    }
}

/// Kullback-Leibler divergence of two events of probability `found` and `expected`.
fn divergence(found: f64, expected: f64) -> f64 {
    let part = |p: f64, q: f64| if p > 0.0 { p * (p / q).ln() } else { 0.0 };
    // Sums of probabilities that end at 1 leave no second event.
    part(found, expected) + part(1.0 - found, (1.0 - expected).max(f64::MIN_POSITIVE))
}
