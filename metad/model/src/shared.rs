//! The measurements of one task on all its configs, in columns, with what several fits need of them.

use crate::cells::{Grid, SAME};
use crate::config::ConfigKey;
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
    /// Log values.
    pub ln_values: Vec<f64>,
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
        let ln_values = lns(points.iter().map(|p| p.value));
        let grid = Grid::of(&points, SAME, CELLS_MAX);
        Self { points, ln_values, configs: ends, grid, memory: None }
    }

    /// The shares of the configs, one entry each, with the places of their measurements.
    pub fn configs(&self) -> impl Iterator<Item = (f64, std::ops::Range<usize>)> {
        let mut start = 0;
        self.configs.iter().map(move |(share, end)| (*share, std::mem::replace(&mut start, *end)..*end))
    }

    /// Smallest and largest share.
    pub fn shares(&self) -> (f64, f64) {
        self.configs.iter().fold((f64::MAX, 0.0), |(lo, hi), (share, _)| (lo.min(*share), hi.max(*share)))
    }
}
