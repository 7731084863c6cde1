//! How long a task takes that runs already: what has elapsed says which of the times that were thought
//! possible are left.
//!
//! The times thought possible are a quantile function, linear between the quantiles that a prediction holds.
//! Of it the part above what has elapsed remains; of that part the mean or the quantile of the service level
//! is taken, as of every other prediction. A task that outlives the longest time of all has a tail of its
//! own: how long such tasks go on is in proportion to how long they ran.
//!
//! Source of the tail: lifetimes of processes (Harchol-Balter, Downey, ACM TOCS 1997).

use foresail_schemas::Sla;
use foresail_schemas::uncertainty::{LEVELS, Shape};

/// What a task that has outlived every time thought possible still takes, over what it took.
const OVERDUE: f64 = 0.25;
/// Quantiles of the function: those of a shape and both ends.
const POINTS: usize = LEVELS.len() + 2;

/// The time that an execution takes in all, in ms, that runs since `elapsed_ms`: mean or quantile, by `sla`,
/// of the times above that. `expected_ms` is what was predicted at that level, `shape` its quantiles over
/// `expected_ms`; without one the prediction holds until it has passed.
#[must_use]
pub fn expected_total_ms(expected_ms: f64, shape: Option<&Shape>, sla: Sla, elapsed_ms: f64) -> f64 {
    let certain = [1.0; LEVELS.len()];
    let quantiles = Quantiles::new(shape.unwrap_or(&certain), expected_ms);
    if elapsed_ms <= quantiles.ms[0] {
        return expected_ms.max(elapsed_ms);
    }
    if elapsed_ms >= quantiles.ms[POINTS - 1] {
        return elapsed_ms * (1.0 + OVERDUE);
    }
    let from = quantiles.level_of(elapsed_ms);
    let total_ms = match sla.quantile() {
        Some(level) => quantiles.at(from + level * (1.0 - from)),
        None => quantiles.mean_above(from),
    };
    total_ms.max(elapsed_ms)
}

/// A quantile function by its points.
struct Quantiles {
    levels: [f64; POINTS],
    ms: [f64; POINTS],
}

impl Quantiles {
    fn new(shape: &Shape, expected_ms: f64) -> Self {
        let (mut levels, mut ms) = ([0.0; POINTS], [0.0; POINTS]);
        levels[1..=LEVELS.len()].copy_from_slice(&LEVELS);
        ms[1..=LEVELS.len()].copy_from_slice(&shape.map(|factor| factor * expected_ms));
        let [.., before, last] = *shape;
        // As much longer than p99 as that is than p95.
        let longest = if before > 0.0 { last * (last / before) } else { last };
        (levels[POINTS - 1], ms[0], ms[POINTS - 1]) = (1.0, ms[1], longest * expected_ms);
        Self { levels, ms }
    }

    /// The least part of the times that stays below `ms`, which lies between the ends.
    fn level_of(&self, ms: f64) -> f64 {
        let above = self.ms.partition_point(|&point| point <= ms).clamp(1, POINTS - 1);
        let (low_ms, high_ms) = (self.ms[above - 1], self.ms[above]);
        let (low, high) = (self.levels[above - 1], self.levels[above]);
        low + (high - low) * (ms - low_ms) / (high_ms - low_ms)
    }

    fn at(&self, level: f64) -> f64 {
        let above = self.levels.partition_point(|&point| point <= level).clamp(1, POINTS - 1);
        let (low, high) = (self.levels[above - 1], self.levels[above]);
        let (low_ms, high_ms) = (self.ms[above - 1], self.ms[above]);
        low_ms + (high_ms - low_ms) * (level - low) / (high - low)
    }

    /// Mean of the times from `level`, below 1, on.
    fn mean_above(&self, level: f64) -> f64 {
        let (mut at, mut at_ms, mut area) = (level, self.at(level), 0.0);
        for (&next, &next_ms) in self.levels.iter().zip(&self.ms).filter(|&(&next, _)| next > level) {
            area += (next - at) * (at_ms + next_ms) / 2.0;
            (at, at_ms) = (next, next_ms);
        }
        area / (1.0 - level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = [0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0];

    #[test]
    fn what_has_not_begun_to_tell_anything_takes_what_was_predicted() {
        for sla in [Sla::Mean, Sla::MEDIAN, Sla::P95] {
            assert_eq!(expected_total_ms(1_000.0, Some(&SHAPE), sla, 400.0), 1_000.0);
            assert_eq!(expected_total_ms(1_000.0, None, sla, 999.0), 1_000.0);
        }
    }

    #[test]
    fn half_of_what_is_left_lies_above_the_median_of_what_is_left() {
        // At the median a half is left; the median of that half is p75.
        let total_ms = expected_total_ms(1_000.0, Some(&SHAPE), Sla::MEDIAN, 1_000.0);
        assert!((total_ms - 1_250.0).abs() < 1e-6, "{total_ms}");
        // At p90 a tenth is left; its median is p95.
        let total_ms = expected_total_ms(1_000.0, Some(&SHAPE), Sla::MEDIAN, 1_500.0);
        assert!((total_ms - 2_000.0).abs() < 1e-6, "{total_ms}");
    }

    #[test]
    fn the_mean_is_that_of_the_times_above() {
        // From p99 on times rise linearly from 3 to 4.5.
        let total_ms = expected_total_ms(1_000.0, Some(&SHAPE), Sla::Mean, 3_000.0);
        assert!((total_ms - 3_750.0).abs() < 1e-6, "{total_ms}");
    }

    #[test]
    fn the_longer_it_ran_the_longer_it_takes_and_never_less_than_it_took() {
        for sla in [Sla::Mean, Sla::MEDIAN, Sla::P95, Sla::P99] {
            for shape in [None, Some(&SHAPE), Some(&[1.0; 7]), Some(&[0.0; 7])] {
                let mut before_ms = 0.0;
                for step in 0..600 {
                    let elapsed_ms = f64::from(step) * 10.0;
                    let total_ms = expected_total_ms(1_000.0, shape, sla, elapsed_ms);
                    assert!(total_ms >= elapsed_ms && total_ms.is_finite(), "{sla} at {elapsed_ms} ms");
                    // Before the first quantile has passed the prediction stands.
                    assert!(elapsed_ms <= 500.0 || total_ms >= before_ms - 1e-6, "{sla} at {elapsed_ms} ms");
                    before_ms = if elapsed_ms > 500.0 { total_ms } else { 0.0 };
                }
            }
        }
    }
}
