//! Sufficient statistics of time against size over the whole history: counts and sums, in whole numbers.
//!
//! Whole numbers make the sums independent of the order of the samples and of how they were cut into batches;
//! floating point sums are not. Units: bytes and microseconds. Sizes above [`SIZE_BYTES_MAX`] count as that.

use serde::{Deserialize, Serialize};

use crate::ring::Sample;

/// Largest size told apart in the sums (256 TiB): its square times 2^32 samples still fits into 128 bits.
const SIZE_BYTES_MAX: u64 = 1 << 48;

/// Count, extremes and sums.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// Samples.
    pub count: u64,
    /// Smallest size in bytes.
    pub size_bytes_min: u64,
    /// Largest size in bytes.
    pub size_bytes_max: u64,
    /// Shortest time in microseconds.
    pub value_us_min: u64,
    /// Longest time in microseconds.
    pub value_us_max: u64,
    sum_x: u128,
    sum_y: u128,
    sum_xx: u128,
    sum_xy: u128,
    sum_yy: u128,
}

impl Default for Moments {
    fn default() -> Self {
        Self {
            count: 0,
            size_bytes_min: u64::MAX,
            size_bytes_max: 0,
            value_us_min: u64::MAX,
            value_us_max: 0,
            sum_x: 0,
            sum_y: 0,
            sum_xx: 0,
            sum_xy: 0,
            sum_yy: 0,
        }
    }
}

/// A straight line through the whole history.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// Time at size 0 in ms.
    pub intercept_ms: f64,
    /// Rise per byte in ms.
    pub ms_per_byte: f64,
    /// Pearson's correlation of time with size.
    pub correlation: f64,
}

impl Moments {
    /// Counts one sample.
    pub fn record(&mut self, sample: &Sample) {
        let (x, y) = (sample.size_bytes.min(SIZE_BYTES_MAX), sample.value_us());
        self.count += 1;
        self.size_bytes_min = self.size_bytes_min.min(sample.size_bytes);
        self.size_bytes_max = self.size_bytes_max.max(sample.size_bytes);
        self.value_us_min = self.value_us_min.min(y);
        self.value_us_max = self.value_us_max.max(y);
        let (x, y) = (u128::from(x), u128::from(y));
        self.sum_x += x;
        self.sum_y += y;
        self.sum_xx = self.sum_xx.saturating_add(x * x);
        self.sum_xy = self.sum_xy.saturating_add(x * y);
        self.sum_yy = self.sum_yy.saturating_add(y * y);
    }

    /// Counts everything that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.size_bytes_min = self.size_bytes_min.min(other.size_bytes_min);
        self.size_bytes_max = self.size_bytes_max.max(other.size_bytes_max);
        self.value_us_min = self.value_us_min.min(other.value_us_min);
        self.value_us_max = self.value_us_max.max(other.value_us_max);
        self.sum_x += other.sum_x;
        self.sum_y += other.sum_y;
        self.sum_xx = self.sum_xx.saturating_add(other.sum_xx);
        self.sum_xy = self.sum_xy.saturating_add(other.sum_xy);
        self.sum_yy = self.sum_yy.saturating_add(other.sum_yy);
    }

    /// Mean time in ms.
    pub fn mean_ms(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum_y as f64 / self.count as f64 / 1000.0)
    }

    /// The least-squares line, where sizes and times both vary.
    ///
    /// Source: least squares from sums (Draper and Smith, Applied Regression Analysis, 1.2); the sums are
    /// centred at a whole number near the mean before they become floating point, so that no digits are lost.
    pub fn line(&self) -> Option<Line> {
        if self.size_bytes_min >= self.size_bytes_max || self.value_us_min >= self.value_us_max {
            return None;
        }
        let n = self.count as f64;
        let (x0, y0) = (self.sum_x / u128::from(self.count), self.sum_y / u128::from(self.count));
        let (dx, dy) = (
            (self.sum_x - x0 * u128::from(self.count)) as f64 / n,
            (self.sum_y - y0 * u128::from(self.count)) as f64 / n,
        );
        let xx = centred(self.sum_xx, self.sum_x, x0, self.sum_x, x0, self.count) - n * dx * dx;
        let yy = centred(self.sum_yy, self.sum_y, y0, self.sum_y, y0, self.count) - n * dy * dy;
        let xy = centred(self.sum_xy, self.sum_x, x0, self.sum_y, y0, self.count) - n * dx * dy;
        if !(xx > 0.0 && yy > 0.0) {
            return None;
        }
        let slope = xy / xx;
        let intercept = (y0 as f64 + dy) - slope * (x0 as f64 + dx);
        Some(Line {
            intercept_ms: intercept / 1000.0,
            ms_per_byte: slope / 1000.0,
            correlation: (xy / (xx * yy).sqrt()).clamp(-1.0, 1.0),
        })
    }
}

/// Sum of (a - a0)(b - b0) from the sums of ab, a and b.
fn centred(sum_ab: u128, sum_a: u128, a0: u128, sum_b: u128, b0: u128, count: u64) -> f64 {
    let plus = sum_ab.saturating_add(a0.saturating_mul(b0).saturating_mul(u128::from(count)));
    let minus = a0.saturating_mul(sum_b).saturating_add(b0.saturating_mul(sum_a));
    if plus >= minus { (plus - minus) as f64 } else { -((minus - plus) as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_far_from_the_origin() {
        let mut moments = Moments::default();
        for n in 0..1000_u64 {
            moments.record(&Sample::new(0, 1_000_000_000_000 + n, 5000.0 + 2.0 * n as f64, None));
        }
        let line = moments.line().unwrap();
        assert!((line.ms_per_byte - 2.0).abs() < 1e-9, "{line:?}");
        assert!((line.correlation - 1.0).abs() < 1e-12);
        assert!((moments.mean_ms().unwrap() - 5999.0).abs() < 1e-9);
    }

    #[test]
    fn no_line_goes_through_one_size() {
        let mut moments = Moments::default();
        moments.record(&Sample::new(0, 7, 1.0, None));
        moments.record(&Sample::new(0, 7, 2.0, None));
        assert_eq!(moments.line(), None);
    }
}
