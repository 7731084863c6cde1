//! The measurements of one task on all its configs, in columns, with what several fits need of them.

use std::ops::Range;

use crate::cells::{Grid, SAME};
use crate::config::ConfigKey;
use crate::kinds::Kinds;
use crate::logs::lns;
use crate::memory::Memory;
use crate::size::Point;
use crate::task::POOLED_SAMPLES_MAX;

/// Most cells of sizes: fewer than for one config alone, because the sizes are fitted twice.
const CELLS_MAX: usize = 24;

/// Measurements; slices of one entry per measurement unless said otherwise.
pub struct Shared {
    /// The measurements; those of a config stand together.
    pub points: Vec<Point>,
    /// Log values; those of two kinds are brought to the level of one.
    pub ln_values: Vec<f64>,
    /// Their kinds.
    pub kinds: Option<Kinds>,
    /// The share of each config, and where its measurements end.
    configs: Vec<(f64, usize)>,
    /// Which measurements are of alike sizes.
    pub grid: Grid,
    /// What memory says beside the share; taken off the values.
    pub memory: Option<Memory>,
}

impl Shared {
    /// The measurements of configs without what memory says beside the share.
    pub fn without_memory(mut configs: Vec<(ConfigKey, Vec<Point>)>) -> Self {
        let memory = Memory::fit(&configs);
        if let Some(memory) = &memory {
            for (key, points) in &mut configs {
                let factor = (-memory.at(key.memory_mb()).0).exp();
                points.iter_mut().for_each(|point| point.value *= factor);
            }
        }
        Self { memory, ..Self::new(configs.into_iter().map(|(key, points)| (key.share(), points))) }
    }

    /// The measurements of configs, given with their shares; configs without any are left out.
    pub fn new(configs: impl Iterator<Item = (f64, Vec<Point>)>) -> Self {
        let (mut points, mut ends) = (Vec::with_capacity(POOLED_SAMPLES_MAX), Vec::new());
        for (share, mut more) in configs.filter(|(_, points)| !points.is_empty()) {
            points.append(&mut more);
            ends.push((share, points.len()));
        }
        let mut ln_values = lns(points.iter().map(|p| p.value));
        let grid = Grid::of(&points, SAME, CELLS_MAX);
        let kinds = Kinds::find(&ln_values, &points, &grid, ranges(&ends).map(|(_, places)| places));
        if let Some(kinds) = &kinds {
            kinds.level(&mut ln_values);
        }
        Self { points, ln_values, kinds, configs: ends, grid, memory: None }
    }

    /// The shares of the configs, one entry each, with the places of their measurements.
    pub fn configs(&self) -> impl Iterator<Item = (f64, Range<usize>)> {
        ranges(&self.configs)
    }

    /// The largest log value of any kind.
    pub fn greatest(&self) -> Option<f64> {
        let value = |(place, value): (usize, &f64)| {
            value + self.kinds.as_ref().map_or(0.0, |kinds| kinds.offset(place))
        };
        self.ln_values.iter().enumerate().map(value).reduce(f64::max)
    }

    /// Smallest and largest share.
    pub fn shares(&self) -> (f64, f64) {
        self.configs.iter().fold((f64::MAX, 0.0), |(lo, hi), (share, _)| (lo.min(*share), hi.max(*share)))
    }
}

fn ranges(ends: &[(f64, usize)]) -> impl Iterator<Item = (f64, Range<usize>)> + Clone {
    let mut start = 0;
    ends.iter().map(move |(share, end)| (*share, std::mem::replace(&mut start, *end)..*end))
}
