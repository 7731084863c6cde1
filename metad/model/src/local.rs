//! Corrections near what was observed: the residuals of single CPU shares, drawn towards zero and
//! interpolated, constant beyond.
//!
//! How far they are drawn is estimated from the data (variance between places against variance within one
//! place divided by its samples). Source: B. Efron and C. Morris, "Stein's estimation rule and its
//! competitors", JASA 68, 1973.

use serde::{Deserialize, Serialize};

use crate::stats::{Weighted, median, sorted_deviation};

/// Most places that are corrected.
const PLACES_MAX: usize = 32;
/// Places within this are one (on the logarithmic axis, 1 %).
pub const SAME: f64 = 0.01;
/// Samples from which on a place answers within their range, however far other places draw it away: the true
/// median of five lies outside their range with a chance of 1 in 16.
const OWN_SAMPLES_MIN: f64 = 5.0;

/// How far a residual may lie out where fewer than [`MAJORITY`] samples stand together, in times of what the
/// others show, and at least (logarithmic): one of them alone may be an outlier, which three outvote.
///
/// Source: P. J. Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 35,
/// 1964.
const BOUND: f64 = 4.0;
const BOUND_MIN: f64 = 0.7;
const MAJORITY: usize = 3;

/// Log corrections along a logarithmic axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Local {
    /// Places, ascending, with their corrections.
    places: Vec<(f64, f64)>,
    /// Standard deviation of the error between places, from places that were left out.
    pub misfit: f64,
}

/// Log error between places that is expected before any is seen, and its weight in places.
const MISFIT: f64 = 0.05;
const MISFIT_PLACES: f64 = 2.0;

/// What was observed at one place.
struct Cell {
    place: f64,
    middle: f64,
    deviation: f64,
    count: f64,
    least: f64,
    most: f64,
}

impl Local {
    /// Corrections from log residuals `(place, residual, weight)`; `misfit` is the standard deviation between
    /// places that is expected before any is seen. Nothing where no place has two samples.
    pub fn fit(residuals: &mut [(f64, f64, f64)], misfit: f64) -> Option<Self> {
        // The order within a place does not matter, and callers often bring the places in order.
        residuals.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut cells = cells(residuals);
        if cells.iter().any(|c| c.count < MAJORITY as f64) {
            let bounds = bounds(cells.iter().map(|c| (c.middle, c.deviation, c.count)));
            cells.iter_mut().for_each(|c| c.middle = limited(c.middle, c.count, (c.least, c.most), bounds));
        }
        if misfit <= 0.0 && cells.iter().all(|c| c.count < 2.0) {
            return None;
        }
        let mut repeated: Vec<Weighted> =
            cells.iter().filter(|c| c.count >= 2.0).map(|c| (c.deviation, c.count)).collect();
        let within = if repeated.is_empty() { misfit } else { median(&mut repeated) };
        let squares: f64 = cells.iter().map(|c| c.middle * c.middle - within * within / c.count).sum();
        let between = (squares / cells.len() as f64).max(misfit * misfit);
        let offset = |c: &Cell| {
            let noise = within * within / c.count;
            let drawn = if between > 0.0 { c.middle * between / (between + noise) } else { 0.0 };
            if c.count >= OWN_SAMPLES_MIN { drawn.max(c.least).min(c.most) } else { drawn }
        };
        let misfit = between_places(&cells, within);
        if cells.len() > PLACES_MAX {
            cells.sort_by(|a, b| b.count.total_cmp(&a.count).then(a.place.total_cmp(&b.place)));
            cells.truncate(PLACES_MAX);
            cells.sort_by(|a, b| a.place.total_cmp(&b.place));
        }
        let places: Vec<(f64, f64)> = cells.iter().map(|c| (c.place, offset(c))).collect();
        (between > 0.0 || places.iter().any(|p| p.1 != 0.0)).then_some(Self { places, misfit })
    }

    /// The correction at `place`, as a logarithm, and the distance to the nearest observed place.
    pub fn at(&self, place: f64) -> (f64, f64) {
        let above = self.places.partition_point(|(p, _)| *p < place - SAME / 2.0);
        match self.places.get(above) {
            Some((p, offset)) if (p - place).abs() <= SAME / 2.0 => (*offset, 0.0),
            high => between(place, self.below(above), high),
        }
    }

    /// What [`Self::at`] says at an observed place as if it had not been observed.
    pub fn without(&self, place: f64) -> (f64, f64) {
        let own = self.places.partition_point(|(p, _)| *p < place - SAME / 2.0);
        between(place, self.below(own), self.places.get(own + 1))
    }

    fn below(&self, place: usize) -> Option<&(f64, f64)> {
        place.checked_sub(1).map(|n| &self.places[n])
    }
}

/// The residuals that a few samples may say, from the middle, the deviation and the count of all groups.
pub fn bounds(groups: impl Iterator<Item = (f64, f64, f64)> + Clone) -> (f64, f64) {
    let mut middles: Vec<Weighted> = groups.clone().map(|(middle, _, count)| (middle, count)).collect();
    let centre = median(&mut middles);
    let far = |(middle, deviation, count): (f64, f64, f64)| ((middle - centre).abs().max(deviation), count);
    let bound = (BOUND * median(&mut groups.map(far).collect::<Vec<Weighted>>())).max(BOUND_MIN);
    (centre - bound, centre + bound)
}

/// The middle of `count` residuals between `least` and `most` where a few of them are kept within bounds: of
/// two the one that lies farther out says the less, so that one good sample is believed beside an outlier.
pub fn limited(middle: f64, count: f64, (least, most): (f64, f64), (low, high): (f64, f64)) -> f64 {
    if count as usize >= MAJORITY || (least >= low && most <= high) {
        return middle;
    }
    let (centre, bound) = (f64::midpoint(low, high), (high - low) / 2.0);
    let weight = |value: f64| bound / (value - centre).abs().max(bound);
    let (one, other) = (weight(least), weight(most));
    (one * least.clamp(low, high) + other * most.clamp(low, high)) / (one + other)
}

/// Offset between two places, and the distance to the nearer one.
fn between(place: f64, low: Option<&(f64, f64)>, high: Option<&(f64, f64)>) -> (f64, f64) {
    match (low, high) {
        (Some((low, from)), Some((high, to))) => {
            let part = (place - low) / (high - low);
            (from + part * (to - from), (place - low).min(high - place))
        }
        (Some((p, offset)), None) | (None, Some((p, offset))) => (*offset, (place - p).abs()),
        (None, None) => (0.0, 0.0),
    }
}

/// Error at a place of what its neighbours say of it, drawn towards what is expected before any is seen.
fn between_places(cells: &[Cell], within: f64) -> f64 {
    let last = cells.len() - 1;
    let mut squares = MISFIT_PLACES * MISFIT * MISFIT;
    for (n, cell) in cells.iter().enumerate().filter(|_| last > 0) {
        let (low, high) = (&cells[n.saturating_sub(1)], &cells[(n + 1).min(last)]);
        let part = if n == 0 {
            1.0
        } else if n == last {
            0.0
        } else {
            (cell.place - low.place) / (high.place - low.place)
        };
        let error = cell.middle - low.middle - part * (high.middle - low.middle);
        squares += (error * error - within * within / cell.count).clamp(0.0, 1.0);
    }
    let count = if last > 0 { cells.len() as f64 } else { 0.0 };
    (squares / (MISFIT_PLACES + count)).sqrt()
}

fn cells(sorted: &[(f64, f64, f64)]) -> Vec<Cell> {
    let (mut cells, mut values) = (Vec::new(), Vec::<Weighted>::new());
    let mut rest = sorted;
    while let Some((first, ..)) = rest.first() {
        let (group, others) = rest.split_at(rest.partition_point(|r| r.0 - first <= SAME * (1.0 - 1e-9)));
        rest = others;
        if let [(place, residual, _)] = *group {
            let (least, most) = (residual, residual);
            cells.push(Cell { place, middle: residual, deviation: 0.0, count: 1.0, least, most });
            continue;
        }
        values.clear();
        values.extend(group.iter().map(|(_, r, w)| (*r, *w)));
        let middle = median(&mut values);
        let (least, most) = (values[0].0, values[values.len() - 1].0);
        let deviation = sorted_deviation(&values, middle);
        let place = f64::midpoint(*first, group[group.len() - 1].0);
        cells.push(Cell { place, middle, deviation, count: group.len() as f64, least, most });
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certain_places_are_corrected_and_noise_is_not() {
        let mut certain: Vec<_> =
            (0..20).map(|n| (f64::from(n % 2), if n % 2 == 0 { 0.5 } else { -0.5 }, 1.0)).collect();
        let local = Local::fit(&mut certain, 0.0).unwrap();
        assert!((local.at(0.0).0 - 0.5).abs() < 1e-9 && local.at(0.5).0.abs() < 1e-9);
        let mut noise: Vec<_> =
            (0..40).map(|n| (f64::from(n % 4), f64::from(n * 7 % 11) - 5.0, 1.0)).collect();
        let most = Local::fit(&mut noise, 0.0).map_or(0.0, |l| l.at(1.0).0.abs());
        assert!(most < 0.5, "{most}");
    }

    #[test]
    fn a_place_with_five_samples_is_not_drawn_out_of_their_range_by_a_noisy_one() {
        let noisy = (0..30).map(|n| (0.0, 0.06 * f64::from(n * 7 % 31 - 15), 1.0));
        let quiet = (0..5).map(|n| (1.0, 0.3 + 0.01 * f64::from(n - 2), 1.0));
        let mut data: Vec<_> = noisy.chain(quiet).collect();
        let offset = Local::fit(&mut data, 0.0).unwrap().at(1.0).0;
        assert!((0.28 - 1e-9..0.32 + 1e-9).contains(&offset), "{offset}");
    }
}
