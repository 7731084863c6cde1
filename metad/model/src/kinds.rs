//! Times of two kinds: measurements that take one of two levels by chance, as those of a cache that hits or
//! misses do, whatever their size and config.
//!
//! A median of such values stands now at the one level and now at the other, and so does every model made of
//! medians. Where two kinds are found, models are fitted to the values brought to the level of the more
//! frequent kind, and the kinds come back with the residuals. Found are kinds that are a factor apart, with
//! nothing between them, each with a tenth of the values at least, and mixed along the sizes and the configs:
//! where the size decides, a size model says it.

use std::cmp::Ordering;
use std::ops::Range;

use crate::cells::Grid;
use crate::size::Point;
use crate::stats::{MAD, plain_median, sum, sums};

/// Fewest values in which kinds are looked for.
const VALUES_MIN: usize = 10;
/// How many more where the sizes vary, and for every further config: whatever explains values also finds two
/// kinds in few of them.
const SIZE_VALUES: usize = 8;
const CONFIG_VALUES: usize = 2;
/// Fewest values of a kind, and the least part of all.
const KIND_MIN: usize = 3;
const PART_MIN: f64 = 0.1;
/// Least log distance of two kinds: a factor of 1.5.
const APART_MIN: f64 = 0.405;
/// The same in standard deviations of one kind. Two halves of normal values are 2.7 apart.
const APART_DEVIATIONS: f64 = 6.0;
/// Most values, as a part of all, in the middle half between the kinds.
const BETWEEN_MAX: f64 = 0.02;
/// Least variance and bimodality of log residuals that are looked at closer. Two narrow kinds, of which one
/// has a tenth, have a bimodality of 1, uniform values 0.56, normal ones a third.
const VARIANCE_MIN: f64 = APART_MIN * APART_MIN * PART_MIN * (1.0 - PART_MIN);
const BIMODALITY_MIN: f64 = 0.4;
/// How many standard deviations fewer runs of one kind, in the order of configs and sizes, than by chance
/// mean that those decide.
const RUNS_DEVIATIONS: f64 = 3.0;
/// Rounds in which values are told apart.
const ROUNDS: usize = 5;

/// Which values are of the less frequent kind.
#[derive(Debug, Clone)]
pub struct Kinds {
    /// Log distance of the less frequent kind from the other, above or below.
    pub apart: f64,
    /// Whether each value is of it.
    pub is_other: Vec<bool>,
}

impl Kinds {
    /// Looks for two kinds in log values; `configs` are the places of each config, all together in order.
    pub fn find<C>(ln_values: &[f64], points: &[Point], grid: &Grid, configs: C) -> Option<Self>
    where
        C: Iterator<Item = Range<usize>> + Clone,
    {
        let vary = if grid.len() > 1 { SIZE_VALUES } else { 0 };
        if ln_values.len() + CONFIG_VALUES < VALUES_MIN + vary + CONFIG_VALUES * configs.clone().count() {
            return None;
        }
        if variance(ln_values, grid, configs.clone()) < VARIANCE_MIN {
            return None;
        }
        let mut rests = Rests::new(ln_values, grid, configs.clone());
        if !rests.may_be_two() {
            return None;
        }
        let is_upper = rests.apart(configs.clone()).or_else(|| {
            // Few values give poor means: the plain values are the other guess.
            rests.logs.copy_from_slice(ln_values);
            rests.apart(configs.clone())
        })?;
        if !is_chance(&is_upper, grid, configs) {
            return None;
        }
        let [upper, all] = sums(points.len(), |n| {
            let weight = points[n].weight;
            [if is_upper[n] { weight } else { 0.0 }, weight]
        });
        if upper * 2.0 <= all {
            return Some(Self { apart: rests.distance, is_other: is_upper });
        }
        Some(Self { apart: -rests.distance, is_other: is_upper.into_iter().map(|upper| !upper).collect() })
    }

    /// How far the value at a place is from where it would be if it were of the more frequent kind.
    pub fn offset(&self, place: usize) -> f64 {
        if self.is_other[place] { self.apart } else { 0.0 }
    }

    /// Brings log values to the level of the more frequent kind.
    pub fn level(&self, ln_values: &mut [f64]) {
        ln_values.iter_mut().enumerate().for_each(|(place, value)| *value -= self.offset(place));
    }

    /// The same kinds of values in another order.
    pub fn in_order(&self, places: impl Iterator<Item = u32>) -> Self {
        Self { apart: self.apart, is_other: places.map(|place| self.is_other[place as usize]).collect() }
    }
}

/// Log values less the mean of their config and what a power of the size explains.
struct Rests {
    /// Log values and log sizes less their means in each config.
    values: Vec<f64>,
    sizes: Vec<f64>,
    logs: Vec<f64>,
    /// Log distance of the kinds.
    distance: f64,
}

impl Rests {
    fn new(ln_values: &[f64], grid: &Grid, configs: impl Iterator<Item = Range<usize>>) -> Self {
        let (mut values, mut sizes) = (ln_values.to_vec(), vec![0.0; ln_values.len()]);
        let vary = grid.len() > 1;
        if vary {
            sizes.iter_mut().zip(&grid.of).for_each(|(size, cell)| *size = grid.ln_sizes[*cell as usize]);
        }
        for places in configs {
            centre(&mut values[places.clone()]);
            if vary {
                centre(&mut sizes[places]);
            }
        }
        let mut rests = Self { logs: values.clone(), values, sizes, distance: 0.0 };
        if vary {
            let [square, across] = rests.sums_of(|n| [rests.sizes[n], rests.values[n]], |n| rests.sizes[n]);
            let slope = if square > 0.0 { across / square } else { 0.0 };
            rests.logs.iter_mut().zip(&rests.sizes).for_each(|(log, size)| *log -= slope * size);
        }
        rests
    }

    fn sums_of<const N: usize>(
        &self,
        each: impl Fn(usize) -> [f64; N],
        times: impl Fn(usize) -> f64,
    ) -> [f64; N] {
        sums(self.values.len(), |n| each(n).map(|value| value * times(n)))
    }

    /// Whether their moments allow two kinds: the bimodality of two points is 1.
    ///
    /// Source: SAS/STAT User's Guide, the CLUSTER procedure, "bimodality coefficient" (W. S. Sarle, 1990).
    fn may_be_two(&self) -> bool {
        let count = self.logs.len();
        let of = |log: f64| {
            let square = log * log;
            [square, square * log, square * square]
        };
        let [m2, m3, m4] = sums(count, |n| of(self.logs[n])).map(|sum| sum / count as f64);
        (m3 * m3 / (m2 * m2 * m2) + 1.0) * m2 * m2 >= BIMODALITY_MIN * m4
    }

    /// Which of them are of the upper kind, from a first guess of what size and config leave; nothing where
    /// there are no two.
    fn apart(&mut self, configs: impl Iterator<Item = Range<usize>> + Clone) -> Option<Vec<bool>> {
        let mut is_upper = self.split()?;
        for _ in 0..ROUNDS {
            self.explain(&is_upper, configs.clone());
            let next = self.split()?;
            if next == is_upper {
                return self.are_two(&is_upper).then_some(is_upper);
            }
            is_upper = next;
        }
        None
    }

    /// Which of them are above the widest gap that leaves enough on either side.
    fn split(&self) -> Option<Vec<bool>> {
        let mut sorted = self.logs.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let least = KIND_MIN.max((PART_MIN * sorted.len() as f64) as usize);
        let gap = |n: &usize| sorted[*n] - sorted[*n - 1];
        let wider = |a: &usize, b: &usize| gap(a).total_cmp(&gap(b)).then(Ordering::Greater);
        let first = (least..=sorted.len() - least).max_by(wider)?;
        let bound = sorted[first];
        Some(self.logs.iter().map(|log| *log >= bound).collect())
    }

    /// Fits means of configs, a power of the size and the distance of the kinds together, and takes off the
    /// first two.
    fn explain(&mut self, is_upper: &[bool], configs: impl Iterator<Item = Range<usize>> + Clone) {
        let mut kinds: Vec<f64> = is_upper.iter().map(|upper| f64::from(u8::from(*upper))).collect();
        configs.clone().for_each(|places| centre(&mut kinds[places]));
        let [sizes, mixed, size_values] =
            self.sums_of(|n| [self.sizes[n], kinds[n], self.values[n]], |n| self.sizes[n]);
        let [squares, values] = self.sums_of(|n| [kinds[n], self.values[n]], |n| kinds[n]);
        let determinant = sizes * squares - mixed * mixed;
        let (slope, apart) = if determinant > 1e-9 * sizes * squares {
            let slope = (size_values * squares - values * mixed) / determinant;
            (slope, (values * sizes - size_values * mixed) / determinant)
        } else {
            (0.0, if squares > 0.0 { values / squares } else { 0.0 })
        };
        self.distance = apart;
        for places in configs {
            let upper = places.clone().filter(|n| is_upper[*n]).count() as f64;
            let mean = apart * upper / places.len().max(1) as f64;
            places.for_each(|n| self.logs[n] = self.values[n] - slope * self.sizes[n] + mean);
        }
    }

    /// Whether they are of two kinds, and not of one that scatters; they lie around 0 and [`Self::distance`].
    fn are_two(&self, is_upper: &[bool]) -> bool {
        let (count, apart) = (self.logs.len(), self.distance);
        let own = |n: usize| (self.logs[n] - if is_upper[n] { apart } else { 0.0 }).abs();
        let deviation = MAD * plain_median((0..count).map(own));
        let is_between = |log: &&f64| (apart / 4.0..apart * 0.75).contains(*log);
        let between = self.logs.iter().filter(is_between).count();
        apart >= APART_MIN.max(APART_DEVIATIONS * deviation) && between as f64 <= BETWEEN_MAX * count as f64
    }
}

/// Variance of what the means of configs and a power of the size leave of log values, in one pass: most
/// values scatter too little for two kinds.
fn variance(ln_values: &[f64], grid: &Grid, configs: impl Iterator<Item = Range<usize>>) -> f64 {
    let mut squares = [0.0; 3];
    for places in configs {
        let (values, cells) = (&ln_values[places.clone()], &grid.of[places]);
        let [y, yy, u, uu, uy] = sums(values.len(), |n| {
            let (y, u) = (values[n], grid.ln_sizes[cells[n] as usize]);
            [y, y * y, u, u * u, u * y]
        });
        let count = values.len().max(1) as f64;
        let own = [yy - y * y / count, uu - u * u / count, uy - u * y / count];
        squares.iter_mut().zip(own).for_each(|(all, own)| *all += own);
    }
    let [yy, uu, uy] = squares;
    let explained = if grid.len() > 1 && uu > 0.0 { uy * uy / uu } else { 0.0 };
    (yy - explained) / ln_values.len() as f64
}

/// Takes their mean off values.
fn centre(values: &mut [f64]) {
    let mean = sum(values.len(), |n| values[n]) / values.len() as f64;
    values.iter_mut().for_each(|value| *value -= mean);
}

/// Whether the kinds follow each other by chance in the order of configs and sizes.
///
/// Source: A. Wald and J. Wolfowitz, "On a test whether two samples are from the same population", Annals of
/// Mathematical Statistics 11, 1940.
fn is_chance(is_upper: &[bool], grid: &Grid, configs: impl Iterator<Item = Range<usize>>) -> bool {
    let mut rank = vec![0; is_upper.len()];
    (0..).zip(&grid.order).for_each(|(n, place)| rank[*place as usize] = n);
    let (mut former, mut runs, mut count) = (None, 0.0, 0);
    for places in configs {
        let mut places: Vec<usize> = places.collect();
        places.sort_unstable_by_key(|place| rank[*place]);
        count += 1;
        for upper in places.into_iter().map(|place| is_upper[place]) {
            runs += f64::from(u8::from(former != Some(upper)));
            former = Some(upper);
        }
    }
    let n = is_upper.len() as f64;
    let upper = is_upper.iter().filter(|upper| **upper).count() as f64;
    let twice = 2.0 * upper * (n - upper);
    let deviation = (twice * (twice - n) / (n * n * (n - 1.0))).max(0.0).sqrt();
    let alone = grid.len() == 1 && count == 1;
    alone || runs >= twice / n + 1.0 - RUNS_DEVIATIONS * deviation
}
