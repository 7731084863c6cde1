//! What memory does to a time beside the CPU share, where both were chosen apart.
//!
//! Where memory brings its CPU share with it, the resource shape says it all. Where vCPUs are given beside,
//! one share is measured on several memory sizes, and what they differ by is memory: a task that swaps below
//! some size, or that caches more above. Log times are taken apart into what the share (with an input size)
//! and what the memory says, by medians in turn. Source: J. W. Tukey, Exploratory Data Analysis, 1977 (median
//! polish). What memory says is drawn towards nothing by how little the shares agree on it.

use serde::{Deserialize, Serialize};

use crate::config::ConfigKey;
use crate::local::Local;
use crate::logs::lns;
use crate::size::{Point, ln_of_size};
use crate::stats::{Weighted, median};

/// Most rounds of medians, and the change of an effect below which there is none after it.
const ROUNDS_MAX: usize = 24;
const SETTLED: f64 = 1e-3;
/// Width of the cells of sizes that are alike (logarithmic).
const SIZE_CELL: f64 = 0.1;
/// The memories have to explain more, each, than is left to each degree of freedom by a factor that chance
/// exceeds once in a hundred times: about this one, times e to the power of the other over the degrees of
/// freedom (the quantile of F; 4.0 at infinitely many, 8 at 8, 31 at 3).
const RATIO_MIN: f64 = 4.0;
const RATIO_FEW: f64 = 6.2;
/// Least log error that is assumed to be left.
const NOISE: f64 = 0.02;
/// Log distance to the nearest observed memory size at which the error between sizes is complete.
const REACH: f64 = 0.7;

/// Log factors on times by memory size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    local: Local,
    /// Standard deviation of the error at an observed size.
    error: f64,
    least_mb: u32,
    most_mb: u32,
}

/// Measurements of one config at about one input size.
struct Cell {
    /// Which share and size.
    group: (u32, i64),
    memory_mb: u32,
    ln_memory: f64,
    ln_value: f64,
    /// Without what the memory says.
    level: f64,
}

impl Memory {
    /// What the memory sizes of configs, in the order of their keys, say; nothing where no share has several,
    /// or where they do not differ by more than by chance.
    pub fn fit(configs: &[(ConfigKey, Vec<Point>)]) -> Option<Self> {
        let mut shares: Vec<u32> = configs.iter().map(|(key, _)| key.milli()).collect();
        shares.sort_unstable();
        if shares.windows(2).all(|two| two[0] != two[1]) {
            return None;
        }
        let mut cells: Vec<Cell> = configs.iter().flat_map(|(key, points)| of_config(*key, points)).collect();
        cells.sort_by_key(|cell| cell.group);
        // A share at a size that one memory was measured at says nothing of memory.
        cells = compared(cells);
        let mut effects: Vec<(u32, f64)> = cells.iter().map(|cell| (cell.memory_mb, 0.0)).collect();
        effects.sort_unstable_by_key(|effect| effect.0);
        effects.dedup_by_key(|effect| effect.0);
        let (least_mb, most_mb) = (effects.first()?.0, effects.last()?.0);
        level(&mut cells, &effects);
        let alone = squares(&cells, |_| 0.0);
        for _ in 0..ROUNDS_MAX {
            let former: Vec<f64> = effects.iter().map(|effect| effect.1).collect();
            for (memory_mb, effect) in &mut effects {
                let own = cells.iter().filter(|cell| cell.memory_mb == *memory_mb);
                *effect = median(&mut own.map(|cell| (cell.ln_value - cell.level, 1.0)).collect::<Vec<_>>());
            }
            let usual = median(&mut effects.iter().map(|effect| (effect.1, 1.0)).collect::<Vec<Weighted>>());
            effects.iter_mut().for_each(|effect| effect.1 -= usual);
            level(&mut cells, &effects);
            if effects.iter().zip(former).all(|(effect, former)| (effect.1 - former).abs() < SETTLED) {
                break;
            }
        }
        let groups = cells.chunk_by(|a, b| a.group == b.group).count();
        let free = (cells.len() + 1).checked_sub(groups + effects.len()).filter(|free| *free > 0)? as f64;
        let rest = squares(&cells, |cell| effect(&effects, cell)) + NOISE * NOISE;
        let ratio = (alone - rest) * free / (rest * (effects.len() - 1) as f64);
        if ratio < RATIO_MIN * (RATIO_FEW / free).exp() {
            return None;
        }
        let mut residuals: Vec<(f64, f64, f64)> =
            cells.iter().map(|cell| (cell.ln_memory, cell.ln_value - cell.level, 1.0)).collect();
        let local = Local::fit(&mut residuals, 0.0)?;
        let error = (rest / free * effects.len() as f64 / cells.len() as f64).sqrt();
        Some(Self { local, error, least_mb, most_mb })
    }

    /// The log factor at a memory size, and the standard deviation of its error.
    pub fn at(&self, memory_mb: u32) -> (f64, f64) {
        let (effect, distance) = self.local.at(f64::from(memory_mb).ln());
        (effect, self.error.hypot(self.local.misfit * (distance / REACH).min(1.0)))
    }

    /// Whether a memory size is smaller or larger than any that was measured.
    pub fn is_beyond(&self, memory_mb: u32) -> bool {
        memory_mb < self.least_mb || memory_mb > self.most_mb
    }
}

fn of_config(key: ConfigKey, points: &[Point]) -> Vec<Cell> {
    let ln_values = lns(points.iter().map(|point| point.value));
    let bin = |point: &Point| (ln_of_size(point.size) / SIZE_CELL + 0.5) as i64;
    let mut by_size: Vec<(i64, Weighted)> =
        points.iter().zip(ln_values).map(|(point, ln)| (bin(point), (ln, point.weight))).collect();
    by_size.sort_by_key(|sample| sample.0);
    let cell = |group: &[(i64, Weighted)]| {
        let ln_value = median(&mut group.iter().map(|sample| sample.1).collect::<Vec<Weighted>>());
        let (memory_mb, group) = (key.memory_mb(), (key.milli(), group[0].0));
        Cell { group, memory_mb, ln_memory: f64::from(memory_mb).ln(), ln_value, level: 0.0 }
    };
    by_size.chunk_by(|a, b| a.0 == b.0).map(cell).collect()
}

/// The cells of groups that have several; cells of a group stand together.
fn compared(cells: Vec<Cell>) -> Vec<Cell> {
    let several: Vec<bool> = cells
        .chunk_by(|a, b| a.group == b.group)
        .flat_map(|group| std::iter::repeat_n(group.len() > 1, group.len()))
        .collect();
    cells.into_iter().zip(several).filter(|(_, several)| *several).map(|(cell, _)| cell).collect()
}

/// What the memory of a cell says by `effects`, ascending by memory.
fn effect(effects: &[(u32, f64)], cell: &Cell) -> f64 {
    effects[effects.partition_point(|effect| effect.0 < cell.memory_mb)].1
}

/// The sum of squares that is left, of each cell at most 1.
fn squares(cells: &[Cell], effect: impl Fn(&Cell) -> f64) -> f64 {
    cells.iter().map(|cell| (cell.ln_value - cell.level - effect(cell)).powi(2).min(1.0)).sum()
}

/// Sets the level of each group to what its cells say without `effects`, ascending by memory.
fn level(cells: &mut [Cell], effects: &[(u32, f64)]) {
    for group in cells.chunk_by_mut(|a, b| a.group == b.group) {
        let mut rests: Vec<Weighted> =
            group.iter().map(|cell| (cell.ln_value - effect(effects, cell), 1.0)).collect();
        let middle = median(&mut rests);
        group.iter_mut().for_each(|cell| cell.level = middle);
    }
}
