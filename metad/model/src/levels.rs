//! Changes of a whole task: where its configs left their old level together.
//!
//! A config shows a change by its own samples after some fifteen of them. A task that runs on several sizes
//! of workers would be predicted at its old level for so many times as long, so what its configs show is
//! also looked at together: the ranks of each config's residuals among its own, so that neither the shape nor
//! the size model matters.
//!
//! Executions of one run depend on each other: those of a wide one are slow together where its workers are
//! busy. What overlaps, or follows after a pause no longer than a few executions, counts as one observation,
//! and no change lies within it. Times are microseconds.

use crate::config::ByConfig;
use crate::drift::{self, CHANGE_MIN, Leaning};
use crate::series::{Series, point};
use crate::size::Point;
use crate::stats::{Weighted, median};

/// Fewest observations on either side of a change.
const SIDE_MIN: usize = 5;
/// Smallest difference between both sides, in standard deviations, that is taken for a change: chance shows
/// it at any of some hundred places once in a thousand histories. Source: R. Miller and D. Siegmund,
/// "Maximally selected chi square statistics", Biometrics 38, 1982.
const DEVIATIONS_MIN: f64 = 4.4;
/// Fewest configs that moved alike.
const CONFIGS_MIN: usize = 2;
/// How far a config has to move to have moved alike, as a part of how far they all did (logarithmic).
const ALIKE: f64 = 0.5;
/// Executions of which one starts within this many times its length after the other ended belong together.
const PAUSE: f64 = 4.0;
/// Times of which nine of ten steps are at most this many times the shortest were given, not measured: they
/// tell an order only. An imported file without times has steps of a microsecond.
const EVEN: i64 = 3;

/// The samples of one config that are looked at.
#[derive(Clone, Copy)]
struct Seen<'a> {
    series: &'a Series,
    /// Place of the first of them in the ring.
    first: usize,
    leaning: &'a Leaning,
}

/// A change of several configs.
struct Change {
    from_us: i64,
    /// How far they moved, as a log ratio.
    moved: f64,
}

/// One execution.
struct Execution {
    at_us: i64,
    /// What ended since then belongs together with it.
    reach_us: i64,
    /// Place among the residuals of its config, between -1/2 and 1/2.
    lean: f64,
}

/// The configs where those that changed their level together know of it; nothing where none did.
///
/// A config without samples since then stays as it is: nobody knows its new level.
pub fn newest(configs: &ByConfig) -> Option<ByConfig> {
    let all = || configs.iter().map(|(_, series)| &**series);
    // Where some configs show a change by themselves, others may have gone the same way.
    let any_shown = all().any(|series| series.level().shown.is_some());
    let by_shown = if any_shown { change(all().map(Seen::shown)) } else { None };
    let Change { from_us, moved } = by_shown.or_else(|| change(all().map(Seen::newest)))?;
    let moved_so =
        |series: &Series| Seen::newest(series).moved(from_us).is_none_or(|own| is_alike(own.0, moved));
    Some(configs.replaced(|series| series.since(from_us).filter(|_| moved_so(series))))
}

/// The most likely change, if there is one.
fn change<'a>(all: impl Iterator<Item = Seen<'a>>) -> Option<Change> {
    let all: Vec<Seen> = all.filter(|seen| !seen.leaning.ranks.is_empty()).collect();
    // The configs together differ at no time by more than each does where it differs most.
    let squares: f64 = all.iter().map(|seen| seen.leaning.square).sum();
    if all.len() < CONFIGS_MIN || squares < DEVIATIONS_MIN * DEVIATIONS_MIN {
        return None;
    }
    if !all.iter().any(|seen| deviations(&all, seen.leaning.from_us) >= DEVIATIONS_MIN) {
        return None;
    }
    let observations = observations(&all);
    let first = split(&observations)?;
    // The most likely place may lie a little before the right one.
    let place = first + split(&observations[first..]).unwrap_or(0);
    // Levels that come and go, as of inputs that nobody told apart, will come again.
    if split(&observations[..place]).is_some() || split(&observations[place..]).is_some() {
        return None;
    }
    let from_us = observations[place].0;
    let moves: Vec<Weighted> = all.iter().filter_map(|seen| seen.moved(from_us)).collect();
    let moved = median(&mut moves.clone());
    let alike = moves.iter().filter(|own| is_alike(own.0, moved)).count();
    (moved.abs() >= CHANGE_MIN && alike >= CONFIGS_MIN).then_some(Change { from_us, moved })
}

fn is_alike(own: f64, moved: f64) -> bool {
    own * moved.signum() >= moved.abs() * ALIKE
}

impl<'a> Seen<'a> {
    /// The newest level.
    fn newest(series: &'a Series) -> Self {
        let level = series.level();
        Self { series, first: level.left_out, leaning: &level.leaning }
    }

    /// The same with the level before, where there was one.
    fn shown(series: &'a Series) -> Self {
        match &series.level().shown {
            Some((first, leaning)) => Self { series, first: *first, leaning },
            None => Self::newest(series),
        }
    }

    /// Its samples before a time.
    fn before(&self, from_us: i64) -> usize {
        self.series.ring.before(from_us).saturating_sub(self.first)
    }

    /// How far its level moved at a time, weighed by the samples that say so.
    fn moved(&self, from_us: i64) -> Option<Weighted> {
        let points: Vec<Point> = self.series.ring.iter().skip(self.first).map(point).collect();
        let before = self.before(from_us);
        let fewer = before.min(points.len() - before);
        let moved = if fewer > 0 { drift::moved_at(&points, before) } else { None };
        moved.map(|moved| (moved, fewer as f64))
    }

    fn executions(self) -> impl Iterator<Item = Execution> + 'a {
        let ranks = &self.leaning.ranks;
        let all = ranks.len() as f64;
        self.series.ring.iter().skip(self.first).zip(ranks).map(move |(sample, rank)| {
            let reach_us = sample.at_us.saturating_sub((sample.value_ms * 1e3 * (1.0 + PAUSE)) as i64);
            let lean = (f64::from(*rank) - all) / (2.0 * (all + 1.0));
            Execution { at_us: sample.at_us, reach_us, lean }
        })
    }
}

/// By how many standard deviations the rank sums from a time on differ from what chance would have.
///
/// Source: P. van Elteren, "On the combination of independent two sample tests of Wilcoxon", Bulletin of the
/// International Statistical Institute 37, 1960.
fn deviations(all: &[Seen], from_us: i64) -> f64 {
    let (mut lean, mut variance) = (0.0, 0.0);
    for seen in all {
        let (ranks, before) = (&seen.leaning.ranks, seen.before(from_us));
        let (count, after) = (ranks.len() as f64, (ranks.len() - before) as f64);
        let twice: u32 = ranks[before..].iter().map(|rank| u32::from(*rank)).sum();
        lean += (f64::from(twice) - after * count) / (2.0 * (count + 1.0));
        variance += after * (count - after) / (12.0 * (count + 1.0));
    }
    lean.abs() / variance.max(f64::MIN_POSITIVE).sqrt()
}

/// What was observed independently, in the order of time: the first time and the mean lean of executions that
/// belong together.
fn observations(all: &[Seen]) -> Vec<(i64, f64)> {
    let mut executions: Vec<Execution> = all.iter().flat_map(|seen| seen.executions()).collect();
    executions.sort_by(|a, b| a.at_us.cmp(&b.at_us).then(a.lean.total_cmp(&b.lean)));
    let mut steps: Vec<i64> = executions.windows(2).map(|two| two[1].at_us - two[0].at_us).collect();
    steps.sort_unstable();
    let even = steps
        .first()
        .is_some_and(|least| *least > 0 && steps[steps.len() * 9 / 10] <= least.saturating_mul(EVEN));
    let follows = |a: &Execution, b: &Execution| !even && (b.reach_us < a.at_us || b.at_us == a.at_us);
    let observation = |group: &[Execution]| {
        let sum: f64 = group.iter().map(|execution| execution.lean).sum();
        (group[0].at_us, sum / group.len() as f64)
    };
    executions.chunk_by(follows).map(observation).collect()
}

/// Where observations differ most from those before, if by more than chance.
fn split(observations: &[(i64, f64)]) -> Option<usize> {
    let count = observations.len();
    if count < 2 * SIDE_MIN {
        return None;
    }
    let n = count as f64;
    let mean = observations.iter().map(|(_, lean)| lean).sum::<f64>() / n;
    let squares: f64 = observations.iter().map(|(_, lean)| (lean - mean).powi(2)).sum();
    let (mut sum, mut best) = (0.0, (0.0, 0));
    for (before, (_, lean)) in (1..=count - SIDE_MIN).zip(observations) {
        sum += lean - mean;
        let square = sum * sum / (before as f64 * (n - before as f64));
        if before >= SIDE_MIN && square > best.0 {
            best = (square, before);
        }
    }
    let deviations = (best.0 * n * (n - 1.0) / squares.max(f64::MIN_POSITIVE)).sqrt();
    (deviations >= DEVIATIONS_MIN).then_some(best.1)
}
