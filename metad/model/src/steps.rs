//! How much longer other tasks of the workflow take on one CPU share than on another, as they were measured:
//! what a task that was measured on one share alone is told about the others.
//!
//! Where a platform gives its CPU in other parts than the shape assumes, all of its tasks show it alike.
//! Steps are log ratios of times of alike sizes, kept in whole units so that the order of the tasks does not
//! matter.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::stats::{MAD, Weighted, median};

/// Most shares of a task whose steps it tells, smallest first.
const SHARES_MAX: usize = 16;
/// Units of a step of 1: a step is rounded to 0.4 %, so that it changes seldom.
const UNITS: f64 = 128.0;
/// Tasks that the shape counts for against those that were measured on both shares.
const SHAPE_TASKS: f64 = 3.0;

/// Two shares in thousandths of a vCPU, the smaller first.
type Pair = (u32, u32);

/// The steps of one task, in units: the log time on the larger share less that on the smaller.
pub type Told = Vec<(Pair, i32)>;

/// The log times at one share, by cells of sizes, ascending; in single precision, because it is kept for each
/// task and steps are rounded.
pub type Levels = (f64, Vec<(u16, f32)>);

/// The steps that log times at alike sizes show, from shares in ascending order.
pub fn told(levels: &[Levels]) -> Told {
    let levels = &levels[..levels.len().min(SHARES_MAX)];
    let mut steps = Vec::new();
    for (place, (low, below)) in levels.iter().enumerate() {
        for (high, above) in &levels[place + 1..] {
            let (mut rest, mut both): (_, Vec<Weighted>) = (above.iter().peekable(), Vec::new());
            for (size, level) in below {
                while rest.next_if(|a| a.0 < *size).is_some() {}
                both.extend(rest.next_if(|a| a.0 == *size).map(|a| (f64::from(a.1 - level), 1.0)));
            }
            if !both.is_empty() {
                steps.push(((milli(*low), milli(*high)), (median(&mut both) * UNITS).round() as i32));
            }
        }
    }
    steps
}

fn milli(share: f64) -> u32 {
    (share * 1000.0).round() as u32
}

/// The steps of all tasks together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sum {
    steps: BTreeMap<Pair, Vec<i32>>,
}

impl Sum {
    /// Adds the steps of a task.
    pub fn add(&mut self, told: &Told) {
        told.iter().for_each(|(pair, step)| self.steps.entry(*pair).or_default().push(*step));
    }

    /// The same whatever the order of the tasks.
    pub fn settled(mut self) -> Self {
        self.steps.values_mut().for_each(|steps| steps.sort_unstable());
        self
    }

    /// The steps from `share` to others, smallest share first.
    fn from(&self, share: f64) -> BTreeMap<u32, (f64, f64, f64)> {
        let own = milli(share);
        let mut steps = BTreeMap::new();
        for ((low, high), told) in &self.steps {
            let (other, sign) = match (*low == own, *high == own) {
                (true, _) => (*high, 1.0),
                (_, true) => (*low, -1.0),
                _ => continue,
            };
            let mut values: Vec<Weighted> =
                told.iter().map(|s| (sign * f64::from(*s) / UNITS, 1.0)).collect();
            let middle = median(&mut values);
            values.iter_mut().for_each(|v| v.0 = (v.0 - middle).abs());
            steps.insert(other, (middle, MAD * median(&mut values), values.len() as f64));
        }
        steps
    }
}

/// Log corrections of the shape of a task that was measured on one share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Steps {
    /// Log shares, ascending, with the correction, the deviation of the tasks and the trust in them.
    places: Vec<[f64; 4]>,
}

impl Steps {
    /// What `sum` says about a task measured on `share` alone whose shape gives `factor`; nothing where no
    /// task was measured on that share and another.
    pub fn new(sum: &Sum, share: f64, brief_odds: f64, factor: impl Fn(f64) -> f64) -> Option<Self> {
        let steps = sum.from(share);
        let own = factor(share).ln();
        let place = |(other, (step, deviation, count)): (&u32, &(f64, f64, f64))| {
            let other = f64::from(*other) / 1000.0;
            let trust = count / (count + SHAPE_TASKS) / (1.0 + brief_odds);
            [other.ln(), trust * (step - (factor(other).ln() - own)), *deviation, trust]
        };
        let mut places: Vec<[f64; 4]> = steps.iter().map(place).collect();
        if places.is_empty() {
            return None;
        }
        places.push([share.ln(), 0.0, 0.0, 1.0]);
        places.sort_by(|a, b| a[0].total_cmp(&b[0]));
        Some(Self { places })
    }

    /// The log correction at a log share and the variance of its error, where the shape's has the standard
    /// deviation `sigma`.
    pub fn at(&self, ln_share: f64, sigma: f64) -> (f64, f64) {
        let above = self.places.partition_point(|p| p[0] < ln_share);
        let (low, high) = (above.checked_sub(1).map(|n| &self.places[n]), self.places.get(above));
        let (correction, deviation, trust) = match (low, high) {
            (Some(low), Some(high)) => {
                let part = (ln_share - low[0]) / (high[0] - low[0]);
                let between = |n: usize| low[n] + part * (high[n] - low[n]);
                (between(1), between(2), between(3))
            }
            (Some(p), None) | (None, Some(p)) => {
                let apart = (ln_share - p[0]).abs();
                (p[1], p[2], p[3] * (1.0 - apart).max(0.0))
            }
            (None, None) => (0.0, 0.0, 0.0),
        };
        (correction, trust * deviation * deviation + (1.0 - trust) * sigma * sigma)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A task of times `half` and `one` at half a vCPU and one, at one size.
    fn task(half: f64, one: f64) -> Told {
        told(&[(0.5, vec![(100, half.ln() as f32)]), (1.0, vec![(100, one.ln() as f32), (120, 3.0)])])
    }

    #[test]
    fn what_most_tasks_show_is_added_to_the_shape_and_more_so_with_more_tasks() {
        let corrected = |tasks: usize| {
            let mut sum = Sum::default();
            (0..tasks).for_each(|_| sum.add(&task(3.0, 1.0)));
            let steps = Steps::new(&sum.settled(), 1.0, 0.0, |share| 1.0 / share).unwrap();
            assert_eq!(steps.at(0.0, 0.2).0, 0.0);
            let (log, variance) = steps.at(0.5_f64.ln(), 0.2);
            (2.0 * log.exp(), variance)
        };
        let (one, many) = (corrected(1), corrected(30));
        assert!(one.0 > 2.0 && one.0 < many.0 && (2.85..3.0).contains(&many.0), "{one:?} {many:?}");
        assert!(many.1 < one.1 && one.1 < 0.04, "{one:?} {many:?}");
    }

    #[test]
    fn the_order_of_the_tasks_does_not_matter_and_a_share_that_none_has_tells_nothing() {
        let (mut up, mut down) = (Sum::default(), Sum::default());
        let tasks = [task(2.0, 1.0), task(3.0, 1.0), task(2.5, 1.0)];
        tasks.iter().for_each(|t| up.add(t));
        tasks.iter().rev().for_each(|t| down.add(t));
        let (up, down) = (up.settled(), down.settled());
        assert_eq!(up, down);
        assert!(Steps::new(&up, 0.25, 0.0, |share| 1.0 / share).is_none());
    }
}
