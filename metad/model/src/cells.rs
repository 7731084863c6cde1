//! Points of alike sizes taken together: the cells that the size models are fitted to.
//!
//! A cell's level is the median of its log values, so that an outlier does not move it, and models cost as
//! much as there are sizes, not as there are samples. Where there are too many, neighbours join.

use crate::kinds::Kinds;
use crate::logs::lns;
use crate::size::Point;
use crate::sort::sort_whole;
use crate::stats::{Weighted, median, sorted_deviation, weight};

/// Most cells, unless a fit says otherwise.
pub const CELLS_MAX: usize = 48;
/// Sizes within this are alike (logarithmic, 0.1 %).
pub const SAME: f64 = 0.001;
/// Samples that an expected deviation counts for.
const EXPECTED_SAMPLES: f64 = 2.0;
/// Variance of a median over that of a mean of as many normal samples.
const MEDIAN_VARIANCE: f64 = std::f64::consts::FRAC_PI_2;
/// A cell weighs at most as much as this many single samples: its size model does not get better with more
/// samples of the same size.
const WEIGHT_SAMPLES: f64 = 4.0;

/// Which points belong together; the values do not matter, so it serves several fits of the same points.
pub struct Grid {
    /// Places of the points, in the order of their sizes.
    pub order: Vec<u32>,
    /// Where the cells start in `order`, and its length.
    bounds: Vec<u32>,
    /// Cell of each point.
    pub of: Vec<u32>,
    /// ln(1 + size) per cell.
    pub ln_sizes: Vec<f64>,
    /// Mean size per cell.
    pub sizes: Vec<f64>,
    /// Whether all sizes of a cell are alike, or it was joined from several.
    pub alike: Vec<bool>,
}

/// The samples of one cell.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    /// Median of the log values.
    pub level: f64,
    /// Weight in a size model.
    pub weight: f64,
    /// Samples.
    pub count: f64,
    /// Least log value.
    pub least: f64,
    /// Greatest log value.
    pub most: f64,
}

impl Grid {
    /// The cells of points.
    pub fn new(points: &[Point]) -> Self {
        Self::of(points, SAME, CELLS_MAX)
    }

    /// The same where sizes are alike within `same` (logarithmic) only, with at most `cells_max` cells.
    pub fn of(points: &[Point], same: f64, cells_max: usize) -> Self {
        let order = order(points);
        let mut bounds = alike(points, &order, same);
        if bounds.len() - 1 > cells_max {
            let groups = bounds.len() - 1;
            bounds = (0..=cells_max).map(|n| bounds[n * groups / cells_max]).collect();
        }
        let cells = bounds.len() - 1;
        let (mut sizes, mut alike) = (Vec::with_capacity(cells), Vec::with_capacity(cells));
        let mut of = vec![0; points.len()];
        for (cell, bounds) in (0..).zip(bounds.windows(2)) {
            let members = &order[bounds[0] as usize..bounds[1] as usize];
            let (mut total, mut last) = (0.0, 0.0);
            let first = points[members[0] as usize].size;
            for place in members {
                of[*place as usize] = cell;
                last = points[*place as usize].size;
                total += last;
            }
            let size = total / members.len() as f64;
            alike.push((1.0 + last) <= (1.0 + first) * (1.0 + SAME));
            sizes.push(size);
        }
        let ln_sizes = lns(sizes.iter().map(|size| 1.0 + size));
        Self { order, bounds, of, ln_sizes, sizes, alike }
    }

    /// Number of cells, at least one where there are points.
    pub fn len(&self) -> usize {
        self.sizes.len()
    }

    /// The cells of log values that stand in the order of the points, with means for levels: outliers move
    /// them, but nothing has to be sorted.
    pub fn means(&self, ln_values: &[f64], points: &[Point]) -> Vec<Cell> {
        let cell = |bounds: &[u32]| {
            let members = &self.order[bounds[0] as usize..bounds[1] as usize];
            let (mut level, mut weight, mut least, mut most) = (0.0, 0.0, f64::MAX, f64::MIN);
            for place in members {
                let (value, own) = (ln_values[*place as usize], points[*place as usize].weight);
                level += value * own;
                weight += own;
                (least, most) = (least.min(value), most.max(value));
            }
            let count = members.len() as f64;
            Cell { level: level / weight, weight: shrunk(weight), count, least, most }
        };
        self.bounds.windows(2).map(cell).collect()
    }

    /// The cells of log values that stand in the order of the points.
    pub fn cells(&self, ln_values: &[f64], points: &[Point]) -> Cells {
        let mut sorted: Vec<Weighted> = self
            .order
            .iter()
            .map(|place| (ln_values[*place as usize], points[*place as usize].weight))
            .collect();
        let mut cells = Vec::with_capacity(self.len());
        for bounds in self.bounds.windows(2) {
            let members = &mut sorted[bounds[0] as usize..bounds[1] as usize];
            cells.push(cell(members));
        }
        Cells { cells, sorted, bounds: self.bounds.clone(), kinds: None }
    }

    /// The same of values of two kinds that were brought to the level of one; see [`Kinds`].
    pub fn cells_of_kinds(&self, ln_values: &[f64], points: &[Point], kinds: Option<&Kinds>) -> Cells {
        let in_order = |kinds: &Kinds| {
            let mut places = self.order.clone();
            let value = |place: &u32| ln_values[*place as usize];
            for bounds in self.bounds.windows(2) {
                let members = &mut places[bounds[0] as usize..bounds[1] as usize];
                members.sort_by(|a, b| value(a).total_cmp(&value(b)));
            }
            kinds.in_order(places.into_iter())
        };
        Cells { kinds: kinds.map(in_order), ..self.cells(ln_values, points) }
    }
}

/// Places of the points in the order of their sizes, those of one size in the order of the points.
fn order(points: &[Point]) -> Vec<u32> {
    let places = 0..points.len() as u32;
    if points.iter().all(|p| p.size == points[0].size) {
        return places.collect();
    }
    // Sizes are not negative, so that their bits have their order; whole numbers sort fastest. The last bits,
    // a part of 10^11 of the size, give way to the place.
    debug_assert!(points.len() <= 1 << 16, "places have 16 bits");
    let key = |place: u32| points[place as usize].size.to_bits() & !0xffff | u64::from(place);
    let mut keys: Vec<u64> = places.map(key).collect();
    sort_whole(&mut keys);
    keys.into_iter().map(|key| (key & 0xffff) as u32).collect()
}

/// Where groups of alike sizes start.
fn alike(points: &[Point], order: &[u32], same: f64) -> Vec<u32> {
    let Some(least) = order.first() else { return vec![0] };
    let (mut bounds, mut count, mut first) = (vec![0; order.len() + 1], 1, points[*least as usize].size);
    for (at, place) in order.iter().enumerate() {
        let size = points[*place as usize].size;
        let is_larger = (1.0 + size) > (1.0 + first) * (1.0 + same);
        // Written at every place and kept where a group starts, which cannot be foretold.
        bounds[count] = at as u32;
        count += usize::from(is_larger);
        first = if is_larger { size } else { first };
    }
    bounds[count] = order.len() as u32;
    bounds.truncate(count + 1);
    bounds
}

fn cell(members: &mut [Weighted]) -> Cell {
    if let [(level, weight)] = *members {
        let (least, most) = (level, level);
        return Cell { level, weight: shrunk(weight), count: 1.0, least, most };
    }
    let level = median(members);
    Cell {
        level,
        weight: shrunk(weight(members)),
        count: members.len() as f64,
        least: members[0].0,
        most: members[members.len() - 1].0,
    }
}

fn shrunk(weight: f64) -> f64 {
    weight / (1.0 + weight / WEIGHT_SAMPLES)
}

/// The cells of a grid with their values.
pub struct Cells {
    /// The cells, in the order of their sizes.
    pub cells: Vec<Cell>,
    sorted: Vec<Weighted>,
    bounds: Vec<u32>,
    /// Kinds of the values, where they were brought to the level of one.
    pub kinds: Option<Kinds>,
}

impl Cells {
    /// The largest log value of any kind; nothing where there are none.
    pub fn greatest(&self) -> Option<f64> {
        match &self.kinds {
            None => self.sorted.iter().map(|(value, _)| *value).reduce(f64::max),
            Some(kinds) => (0..self.len()).map(|n| self.sorted[n].0 + kinds.offset(n)).reduce(f64::max),
        }
    }

    /// Number of log values.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// The log values of a cell, ascending, with their weights.
    pub fn members(&self, cell: usize) -> &[Weighted] {
        &self.sorted[self.bounds[cell] as usize..self.bounds[cell + 1] as usize]
    }

    /// Robust standard deviation of the log values of each cell.
    pub fn deviations(&self) -> Vec<f64> {
        let deviation = |(n, cell): (usize, &Cell)| sorted_deviation(self.members(n), cell.level);
        self.cells.iter().enumerate().map(deviation).collect()
    }

    /// Robust standard deviation of log values within a cell; `otherwise` where no cell has two samples.
    pub fn within(&self, deviations: &[f64], otherwise: f64) -> f64 {
        let mut all: Vec<Weighted> = Vec::with_capacity(self.cells.len());
        let of_each = deviations.iter().zip(&self.cells).filter(|(_, cell)| cell.count >= 2.0);
        all.extend(of_each.map(|(deviation, cell)| (*deviation, cell.count)));
        match all[..] {
            [] => otherwise,
            [(deviation, _)] => deviation,
            _ => median(&mut all),
        }
    }

    /// Variance of log values within a cell, where they deviate by `within` and were expected to by
    /// `expected`.
    pub fn variance(&self, within: f64, expected: f64) -> f64 {
        let repeats = (self.len() - self.cells.len()) as f64;
        let squares = repeats * within * within + EXPECTED_SAMPLES * expected * expected;
        squares / (repeats + EXPECTED_SAMPLES)
    }

    /// Variance of the level of each cell, where log values within a cell deviate by `within` and were
    /// expected to by `expected`; a cell that scatters more than the others is as unsure as it is seen to be.
    pub fn variances(&self, deviations: &[f64], within: f64, expected: f64) -> Vec<f64> {
        let square = self.variance(within, expected);
        let variance = |(own, cell): (&f64, &Cell)| MEDIAN_VARIANCE * square.max(own * own) / cell.count;
        deviations.iter().zip(&self.cells).map(variance).collect()
    }
}
