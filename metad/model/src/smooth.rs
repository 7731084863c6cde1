//! What the cells near a cell say of its level: the two next to it, or all within a width, with and without
//! the cell itself. Levels and sizes are logarithms.

use crate::cells::Cell;

/// Width of the smoothing as a part of the range of log sizes.
const SMOOTHING: f64 = 0.12;

/// Level of a cell from its neighbours on both sides, linear in the log size.
pub fn interpolated(place: usize, ln_sizes: &[f64], cells: &[Cell]) -> f64 {
    let last = cells.len() - 1;
    match place {
        0 => cells[1].level,
        n if n == last => cells[last - 1].level,
        n => {
            let part = (ln_sizes[n] - ln_sizes[n - 1]) / (ln_sizes[n + 1] - ln_sizes[n - 1]);
            cells[n - 1].level + part * (cells[n + 1].level - cells[n - 1].level)
        }
    }
}

/// Levels averaged over near sizes, with and without the cell itself.
pub struct Smooth {
    /// With the cell.
    pub with: Vec<f64>,
    /// Without it.
    pub without: Vec<f64>,
}

/// Source: E. A. Nadaraya, "On estimating regression", Theory of Probability and its Applications 9, 1964,
/// with a kernel that falls linearly.
pub fn smooth(ln_sizes: &[f64], cells: &[Cell]) -> Smooth {
    let per_width = 1.0 / (SMOOTHING * (ln_sizes[ln_sizes.len() - 1] - ln_sizes[0]));
    // What the others say of each cell: both cells of a pair are told at once.
    let mut others = vec![(0.0, 0.0); cells.len()];
    for (place, own) in cells.iter().enumerate() {
        for (n, other) in cells.iter().enumerate().skip(place + 1) {
            let near = 1.0 - (ln_sizes[n] - ln_sizes[place]) * per_width;
            // Not a number where all sizes are one.
            if near.is_nan() || near <= 0.0 {
                break;
            }
            let (to_own, to_other) = (near * other.weight, near * own.weight);
            others[place].0 += to_own * other.level;
            others[place].1 += to_own;
            others[n].0 += to_other * own.level;
            others[n].1 += to_other;
        }
    }
    let (mut with, mut without) = (Vec::with_capacity(cells.len()), Vec::with_capacity(cells.len()));
    for (place, (own, (sum, total))) in cells.iter().zip(others).enumerate() {
        without.push(if total > 0.0 { sum / total } else { interpolated(place, ln_sizes, cells) });
        with.push((sum + own.weight * own.level) / (total + own.weight));
    }
    Smooth { with, without }
}
