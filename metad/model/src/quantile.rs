//! Tables of residual quantiles: how far measurements lie from the middle of the model, as log ratios.
//!
//! A table is monotone. Inside the samples it holds order statistics with the (n+1) rank, beyond them Student
//! quantiles, up to ten times the largest.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::history::History;
use crate::logs::exps;
use crate::stats::{
    Weighted, effective_count, median, normal_quantile, sorted_deviation, sorted_median, student_quantile,
    sum, weight,
};

/// Quantiles that a table holds; between them it is interpolated on the normal scale.
const LEVELS: [f64; 27] = [
    0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85,
    0.9, 0.925, 0.95, 0.975, 0.98, 0.99, 0.995, 0.999, 0.9999,
];
/// Place of the median among the levels.
const MIDDLE: usize = 12;
/// Weight of the prior on the spread, in samples.
const PRIOR_SAMPLES: f64 = 2.0;
/// Farthest that a tail goes on beyond the largest residual: ten times as long. The spread of times of two
/// kinds (a thousandth of a second or a second) is no tail that goes on: a dozen of them would promise hours.
const BEYOND_MAX: f64 = std::f64::consts::LN_10;
/// The quantile one standard deviation above the median of a normal distribution.
const ONE_SIGMA: f64 = 0.841_344_746;
/// Half width of a 90 % interval in standard deviations.
const Z_90: f64 = 1.644854;

static NORMAL: LazyLock<[f64; 27]> = LazyLock::new(|| LEVELS.map(normal_quantile));

/// Quantiles of log residuals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    logs: [f64; 27],
    mean_ratio: f64,
    count: f64,
}

impl Table {
    /// A table of `residuals`; `spread` is the standard deviation expected of log residuals before any is
    /// seen.
    pub fn new(residuals: &mut [Weighted], spread: f64) -> Self {
        Self::of_kinds(residuals, spread, 0.0)
    }

    /// The same of residuals of two kinds that are `apart`, if not 0: beyond the residuals each goes on as
    /// those of its own kind do.
    pub fn of_kinds(residuals: &mut [Weighted], spread: f64, apart: f64) -> Self {
        let middle = median(residuals);
        let total = weight(residuals);
        let count = effective_count(residuals);
        let ratios = exps(residuals.iter().map(|r| r.0));
        let weighted = sum(residuals.len(), |place| residuals[place].1 * ratios[place]);
        let mean_ratio = weighted / total.max(f64::MIN_POSITIVE);
        let places = places(residuals, total, count);
        let (below, above) = if apart == 0.0 {
            let all = Student::new(residuals, middle, total, count, spread);
            (all, all)
        } else {
            let first = residuals.partition_point(|r| r.0 < apart / 2.0);
            let (low, high) = residuals.split_at(first);
            (Student::of_part(low, total, count, spread), Student::of_part(high, total, count, spread))
        };
        let mut logs = LEVELS.map(|q| match inside(residuals, &places, q) {
            Inside::At(value) => value,
            Inside::Below(least) => below.at(q / below.part).min(least),
            Inside::Above(most) => above.at(1.0 - (1.0 - q) / above.part).clamp(most, most + BEYOND_MAX),
        });
        for place in 1..logs.len() {
            logs[place] = logs[place].max(logs[place - 1]);
        }
        Self { logs, mean_ratio, count }
    }

    /// The table of a long history around its `middle`.
    pub fn of_history(history: &History, middle: f64) -> Self {
        let logs = LEVELS.map(|q| (history.quantile(q) / middle).ln());
        Self { logs, mean_ratio: history.mean() / middle, count: history.count() }
    }

    /// Takes the wider of both at each level; the median stays.
    pub fn widen(&mut self, other: &Self) {
        for (place, log) in self.logs.iter_mut().enumerate() {
            match place.cmp(&MIDDLE) {
                std::cmp::Ordering::Less => *log = log.min(other.logs[place]),
                std::cmp::Ordering::Equal => {}
                std::cmp::Ordering::Greater => *log = log.max(other.logs[place]),
            }
        }
    }

    /// Log residual at `q`, widened by a further independent error of standard deviation `sigma`.
    ///
    /// Spreads add as variances do: the distance from the median becomes sqrt(d^2 + (sigma z)^2). It stays
    /// monotone, because both parts grow with the distance from the median.
    pub fn at(&self, q: f64, sigma: f64) -> f64 {
        let (log, z) = self.interpolate(q);
        if sigma <= 0.0 {
            return log;
        }
        let middle = self.logs[MIDDLE];
        let distance = (log - middle).hypot(sigma * z);
        if q < LEVELS[MIDDLE] { middle - distance } else { middle + distance }
    }

    /// The largest quantile that the residuals reach themselves.
    pub fn reach(&self) -> f64 {
        self.count / (self.count + 1.0)
    }

    /// Mean of the residual ratios, so that mean = middle times this.
    ///
    /// Source: N. Duan, "Smearing estimate", JASA 78, 1983.
    pub fn mean_ratio(&self) -> f64 {
        self.mean_ratio
    }

    /// Log residuals between which the true quantile `q` lies with 90 % confidence; `sigma` as in
    /// [`Self::at`].
    ///
    /// Two errors add as variances do: that of a quantile of few samples and that of a level that was
    /// carried over from other sizes or configs. Source of the first: order statistics with binomial ranks,
    /// W. J. Conover, Practical Nonparametric Statistics, 3.2; where the samples do not reach as far, the
    /// error of a normal quantile, A. Stuart and K. Ord, Kendall's Advanced Theory of Statistics, 10.
    pub fn interval(&self, q: f64, sigma: f64) -> (f64, f64) {
        let (n, plain) = (self.count.max(1.0), self.at(q, 0.0));
        let half = Z_90 * (n * q * (1.0 - q)).sqrt();
        let (low, high) = ((n * q - half).floor() / (n + 1.0), (n * q + half).ceil() / (n + 1.0));
        let reached = low >= 1.0 / (n + 1.0) && high <= n.floor() / (n + 1.0) && low <= q && q <= high;
        let (below, above) = if reached {
            ((plain - self.at(low, 0.0)).max(0.0), (self.at(high, 0.0) - plain).max(0.0))
        } else {
            let deviation = (self.at(ONE_SIGMA, 0.0) - self.at(1.0 - ONE_SIGMA, 0.0)) / 2.0;
            let z = normal_quantile(q);
            let error = Z_90 * deviation * ((1.0 + z * z / 2.0) / n).sqrt();
            (error, error)
        };
        let at = self.at(q, sigma);
        (at - below.hypot(Z_90 * sigma), at + above.hypot(Z_90 * sigma))
    }

    fn interpolate(&self, q: f64) -> (f64, f64) {
        let normal = &*NORMAL;
        let q = q.clamp(LEVELS[0], LEVELS[LEVELS.len() - 1]);
        let above = LEVELS.partition_point(|level| *level < q - 1e-12).min(LEVELS.len() - 1);
        if above == 0 || (LEVELS[above] - q).abs() < 1e-12 {
            return (self.logs[above], normal[above]);
        }
        let z = normal_quantile(q);
        let part = ((z - normal[above - 1]) / (normal[above] - normal[above - 1])).clamp(0.0, 1.0);
        (self.logs[above - 1] + part * (self.logs[above] - self.logs[above - 1]), z)
    }
}

enum Inside {
    At(f64),
    Below(f64),
    Above(f64),
}

/// Which quantile each of the sorted residuals is.
///
/// Without weights i / (n + 1). Source: R. J. Hyndman and Y. Fan, "Sample quantiles in statistical packages",
/// type 6; weighted with Kish's effective count.
fn places(sorted: &[Weighted], total: f64, count: f64) -> Vec<f64> {
    let (mut below, per_weight, half) = (0.0, count / total / (count + 1.0), 0.5 / (count + 1.0));
    let place = |(_, weight): &Weighted| {
        below += weight;
        (below - weight / 2.0) * per_weight + half
    };
    sorted.iter().map(place).collect()
}

fn inside(sorted: &[Weighted], places: &[f64], q: f64) -> Inside {
    let Some(last) = places.len().checked_sub(1) else { return Inside::At(0.0) };
    if q < places[0] - 1e-9 {
        return Inside::Below(sorted[0].0);
    }
    if q > places[last] + 1e-9 {
        return Inside::Above(sorted[last].0);
    }
    let above = places.partition_point(|place| *place < q).min(last);
    if above == 0 {
        return Inside::At(sorted[0].0);
    }
    let part = ((q - places[above - 1]) / (places[above] - places[above - 1])).clamp(0.0, 1.0);
    Inside::At(sorted[above - 1].0 + part * (sorted[above].0 - sorted[above - 1].0))
}

/// Predictive distribution of one more residual: Student's with the spread drawn towards a prior.
///
/// Source: Gelman et al., Bayesian Data Analysis, 3rd ed., 3.3 (normal data with a conjugate prior).
/// Residuals beyond four robust deviations count as four, so that one outlier does not widen everything.
#[derive(Clone, Copy)]
struct Student {
    middle: f64,
    scale: f64,
    freedom: f64,
    /// How much of all residuals it stands for.
    part: f64,
}

impl Student {
    /// From ascending residuals.
    fn new(residuals: &[Weighted], middle: f64, total: f64, count: f64, spread: f64) -> Self {
        let bound = 4.0 * sorted_deviation(residuals, middle).max(spread);
        let square = |(r, w): Weighted| w * (r - middle).clamp(-bound, bound).powi(2);
        let squares = sum(residuals.len(), |place| square(residuals[place])) / total * count;
        let freedom = (PRIOR_SAMPLES + count - 1.0).max(1.0);
        let variance = (PRIOR_SAMPLES * spread * spread + squares) / freedom;
        Self { middle, scale: (variance * (1.0 + 1.0 / count.max(1.0))).sqrt(), freedom, part: 1.0 }
    }

    /// From those ascending residuals that are of one kind; `total` and `count` are those of all.
    fn of_part(residuals: &[Weighted], total: f64, count: f64, spread: f64) -> Self {
        let own = weight(residuals);
        let part = own / total;
        Self { part, ..Self::new(residuals, sorted_median(residuals), own, count * part, spread) }
    }

    fn at(&self, q: f64) -> f64 {
        self.middle + self.scale * student_quantile(q, self.freedom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(values: &[f64]) -> Table {
        Table::new(&mut values.iter().map(|v| (*v, 1.0)).collect::<Vec<_>>(), 0.1)
    }

    #[test]
    fn order_statistics_have_the_rank_of_n_plus_one() {
        let values: Vec<f64> = (1..=19).map(f64::from).collect();
        let table = table(&values);
        for (q, value) in [(0.05, 1.0), (0.5, 10.0), (0.9, 18.0), (0.95, 19.0)] {
            assert!((table.at(q, 0.0) - value).abs() < 1e-9, "{q}: {}", table.at(q, 0.0));
        }
        assert!(table.at(0.99, 0.0) > 19.0 && table.at(0.01, 0.0) < 1.0);
    }

    #[test]
    fn times_of_two_kinds_promise_no_tail_of_hours() {
        let ms = [0.06, 0.06, 0.06, 0.06, 0.06, 0.07, 0.07, 0.07, 50.0, 50.0, 200.0, 200.0_f64];
        let table = table(&ms.map(f64::ln));
        for q in [0.99, 0.999, 0.9999] {
            let ms = table.at(q, 0.0).exp();
            assert!((199.9..2_000.1).contains(&ms), "{q}: {ms}");
        }
    }

    #[test]
    fn the_wider_of_two_tables_keeps_the_median_of_the_first() {
        let mut narrow = table(&[-0.2, -0.1, 0.0, 0.1, 0.5]);
        let median = narrow.at(0.5, 0.0);
        narrow.widen(&table(&[-2.0, 0.5, 1.0, 1.5, 2.0]));
        assert_eq!(narrow.at(0.5, 0.0), median);
        assert!(narrow.at(0.9, 0.0) >= 2.0 && narrow.at(0.1, 0.0) <= -2.0);
        assert!(narrow.at(0.6, 0.0) >= median && narrow.at(0.4, 0.0) <= median);
    }

    #[test]
    fn widening_keeps_the_median_and_the_order() {
        let table = table(&[-0.2, -0.1, 0.0, 0.1, 0.5]);
        assert_eq!(table.at(0.5, 0.3), table.at(0.5, 0.0));
        let mut last = f64::MIN;
        for hundredths in 1..10_000_u16 {
            let value = table.at(f64::from(hundredths) / 10_000.0, 0.3);
            assert!(value >= last, "{hundredths}");
            last = value;
        }
    }

    #[test]
    fn an_interval_contains_its_value_and_narrows_with_samples() {
        let values = |n: u32| (0..n).map(|k| f64::from(k) / f64::from(n)).collect::<Vec<_>>();
        let mut last = f64::INFINITY;
        for n in [2, 5, 10, 30, 128, 600] {
            let table = table(&values(n));
            for q in [0.01, 0.5, 0.9, 0.95, 0.99, 0.9999] {
                for sigma in [0.0, 0.2] {
                    let (low, high) = table.interval(q, sigma);
                    let at = table.at(q, sigma);
                    assert!(low <= at && at <= high, "{n} samples, {q}, {sigma}: {at} in {low} to {high}");
                }
            }
            let (low, high) = table.interval(0.95, 0.0);
            assert!(high - low < last, "{n} samples: {low} to {high}");
            last = high - low;
        }
        let (low, high) = table(&values(600)).interval(0.5, 0.2);
        assert!(high - low > 0.6, "a level carried over from elsewhere is unsure: {low} to {high}");
    }
}
