//! How well forecasts held: counts of what was measured against what plans had predicted, in sum and per day.
//!
//! Guarantees: the scores depend on what was scored and when it was measured, not on the order or on how it
//! was cut into parts; merging gives the scores of both histories, the days included, because a day is
//! dropped only when [`DAYS_KEPT_MAX`] newer ones are there. All state is integer, so sums do not depend on
//! their order either; a sum beyond the range of its counter stays at the end of it.
//!
//! Units: errors are parts per million of the measured time, days are counted in UTC from 1970.
//! Size: a day takes about 80 bytes and 2 to 3 for every bin of its errors in use.

use std::collections::BTreeMap;

use foresail_schemas::Sla;
use foresail_schemas::metric::Forecast;
use foresail_schemas::score::{Coverage, DayScore, Score};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

/// Days kept, the newest ones with a score.
pub const DAYS_KEPT_MAX: usize = 30;
/// Shorter measured times count as this long in relative errors: it is the resolution of the model's clock,
/// and nothing is divided by 0.
const TIME_MS_MIN: f64 = 0.001;
/// Largest error counted: the forecast was 10,000 times too long. One of them must not decide a mean.
const ERROR_PPM_MAX: u64 = 10_000_000_000;
const PPM_PER_PERCENT: f64 = 10_000.0;
const DAY_US: i64 = 86_400_000_000;

/// The scores of a task, or of many.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scores {
    all: Tally,
    days: BTreeMap<i32, Tally>,
}

impl Scores {
    /// Scores one forecast with the time that was measured at `at_us`.
    pub fn record(&mut self, forecast: &Forecast, exec_ms: f64, at_us: i64) {
        self.all.record(forecast, exec_ms);
        // Within i32: a timestamp ends with the year 9999.
        let day = at_us.div_euclid(DAY_US) as i32;
        self.days.entry(day).or_default().record(forecast, exec_ms);
        self.forget();
    }

    /// Takes in everything that `other` scored.
    pub fn merge(&mut self, other: &Self) {
        self.all.merge(&other.all);
        for (day, tally) in &other.days {
            self.days.entry(*day).or_default().merge(tally);
        }
        self.forget();
    }

    /// Takes in the sum of `other` and leaves its days out, which is much less work.
    pub fn merge_sum(&mut self, other: &Self) {
        self.all.merge(&other.all);
    }

    /// Forecasts scored.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.all.n
    }

    /// Those of them whose measured time was at or below each quantile of [`Forecast::SLAS`].
    #[must_use]
    pub fn within(&self) -> [u64; 4] {
        self.all.within
    }

    /// The whole history as it is shown.
    #[must_use]
    pub fn score(&self) -> Score {
        self.all.score()
    }

    /// The whole history and the days as they are shown.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        let day = |(day, tally): (&i32, &Tally)| {
            let since = jiff::Span::new().try_days(*day).ok()?;
            let day = Date::constant(1970, 1, 1).checked_add(since).ok()?;
            Some(DayScore { day, score: tally.score() })
        };
        Coverage { score: self.score(), days: self.days.iter().filter_map(day).collect() }
    }

    fn forget(&mut self) {
        while self.days.len() > DAYS_KEPT_MAX {
            self.days.pop_first();
        }
    }
}

/// What is counted of some forecasts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Tally {
    n: u64,
    /// Measured at or below the forecast, per service level of [`Forecast::SLAS`].
    within: [u64; 4],
    error_ppm_sum: u64,
    errors: Errors,
}

impl Tally {
    fn record(&mut self, forecast: &Forecast, exec_ms: f64) {
        let off = (exec_ms - forecast.median_ms).abs() / exec_ms.max(TIME_MS_MIN);
        // A cast to an integer ends at the ends of its range, and what is no number becomes 0.
        let error_ppm = ((off * 1e6).round() as u64).min(ERROR_PPM_MAX);
        self.n = self.n.saturating_add(1);
        for (within, forecast_ms) in self.within.iter_mut().zip(forecast.times_ms()) {
            *within = within.saturating_add(u64::from(exec_ms <= forecast_ms));
        }
        self.error_ppm_sum = self.error_ppm_sum.saturating_add(error_ppm);
        self.errors.add(Errors::bin(error_ppm), 1);
    }

    fn merge(&mut self, other: &Self) {
        self.n = self.n.saturating_add(other.n);
        for (within, more) in self.within.iter_mut().zip(other.within) {
            *within = within.saturating_add(more);
        }
        self.error_ppm_sum = self.error_ppm_sum.saturating_add(other.error_ppm_sum);
        other.errors.bins().for_each(|(bin, count)| self.errors.add(bin, count));
    }

    fn score(&self) -> Score {
        if self.n == 0 {
            return Score::default();
        }
        let share = |(sla, within): (Sla, u64)| (sla, within as f64 / self.n as f64);
        Score {
            n: self.n,
            mdape_percent: self.errors.median_ppm().map(|ppm| ppm / PPM_PER_PERCENT),
            mape_percent: Some(self.error_ppm_sum as f64 / self.n as f64 / PPM_PER_PERCENT),
            ratio: Forecast::SLAS.into_iter().zip(self.within).map(share).collect(),
        }
    }
}

/// A histogram of errors on a fixed grid: a bin is 10 % wide, the first one is everything below 0.01 %.
///
/// Kept as it is written: per bin in use its number (one byte) and its count (LEB128), by rising number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
struct Errors(Vec<u8>);

/// Bins of [`Errors`].
const BINS: usize = 196;
/// Where each bin but the first begins, in ppm; the last one has no end, but no error reaches beyond.
const BEGINS_PPM: [u64; BINS - 1] = begins();

const fn begins() -> [u64; BINS - 1] {
    let mut begins = [100; BINS - 1];
    let mut at = 1;
    while at < begins.len() {
        begins[at] = begins[at - 1] + begins[at - 1] / 10;
        at += 1;
    }
    assert!(begins[begins.len() - 1] >= ERROR_PPM_MAX && begins[begins.len() - 2] < ERROR_PPM_MAX);
    begins
}

impl Errors {
    fn bin(error_ppm: u64) -> u8 {
        BEGINS_PPM.partition_point(|begin| *begin <= error_ppm) as u8
    }

    fn add(&mut self, bin: u8, more: u64) {
        let mut at = 0;
        while let Some(&here) = self.0.get(at).filter(|&&here| here <= bin) {
            let Some((count, end)) = read(&self.0, at + 1) else { return };
            if here == bin {
                self.0.splice(at + 1..end, written(count.saturating_add(more)));
                return;
            }
            at = end;
        }
        self.0.splice(at..at, std::iter::once(bin).chain(written(more)));
    }

    fn bins(&self) -> impl Iterator<Item = (u8, u64)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let bin = *self.0.get(at)?;
            let (count, end) = read(&self.0, at + 1)?;
            at = end;
            Some((bin, count))
        })
    }

    /// The mean of the two errors in the middle, each as its place among those of its bin says.
    fn median_ppm(&self) -> Option<f64> {
        let all: u64 = self.bins().fold(0, |sum, (_, count)| sum.saturating_add(count));
        if all == 0 {
            return None;
        }
        Some((self.at_rank((all - 1) / 2) + self.at_rank(all / 2)) / 2.0)
    }

    /// The error with `rank` smaller ones, as if those of a bin were spread evenly over its logarithm.
    fn at_rank(&self, rank: u64) -> f64 {
        let mut before = 0;
        for (bin, count) in self.bins() {
            if rank < before + count {
                let Some(place) = usize::from(bin).checked_sub(1) else { return 0.0 };
                let begin = BEGINS_PPM[place] as f64;
                let end = BEGINS_PPM.get(place + 1).map_or(begin, |end| *end as f64);
                let part = ((rank - before) as f64 + 0.5) / count as f64;
                return begin * (end / begin).powf(part);
            }
            before = before.saturating_add(count);
        }
        0.0
    }
}

/// The LEB128 number at `at`, and where it ends.
fn read(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0;
    for (shift, (place, &byte)) in (0..u64::BITS).step_by(7).zip(bytes.iter().enumerate().skip(at)) {
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some((value, place + 1));
        }
    }
    None
}

fn written(mut value: u64) -> impl Iterator<Item = u8> {
    let mut more = true;
    std::iter::from_fn(move || {
        let low = (value & 0x7f) as u8;
        if !std::mem::replace(&mut more, value > 0x7f) {
            return None;
        }
        value >>= 7;
        Some(if more { low | 0x80 } else { low })
    })
}

/// Only what adding writes: rising bins that exist, counts above 0, and nothing behind them.
impl TryFrom<Vec<u8>> for Errors {
    type Error = &'static str;
    fn try_from(bytes: Vec<u8>) -> Result<Self, Self::Error> {
        let mut checked = Self::default();
        for (bin, count) in Self(bytes.clone()).bins() {
            if usize::from(bin) >= BINS || count == 0 {
                return Err("a histogram of errors has a bin or a count that cannot be");
            }
            checked.add(bin, count);
        }
        if checked.0 == bytes { Ok(checked) } else { Err("a histogram of errors is damaged") }
    }
}

impl From<Errors> for Vec<u8> {
    fn from(errors: Errors) -> Self {
        errors.0
    }
}

#[cfg(test)]
mod tests;
