//! Corrections near what was observed: the residuals of single sizes or CPU shares, drawn towards zero and
//! interpolated.
//!
//! How far they are drawn is estimated from the data (variance between places against variance within one
//! place divided by its samples). Source: B. Efron and C. Morris, "Stein's estimation rule and its
//! competitors", JASA 68, 1973.

use serde::{Deserialize, Serialize};

use crate::stats::{Weighted, median, robust_deviation};

/// Most places that are corrected.
const PLACES_MAX: usize = 32;
/// Two places are the same within this (on the logarithmic axis).
const SAME: f64 = 1e-6;

/// How a correction applies between the places.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Reach {
    /// At the observed places only.
    Exact,
    /// Linearly between them, constant beyond.
    Between,
}

/// Log corrections along a logarithmic axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Local {
    /// Places, ascending, with their corrections.
    places: Vec<(f64, f64)>,
    reach: Reach,
}

/// What was observed at one place.
struct Cell {
    place: f64,
    middle: f64,
    deviation: f64,
    count: f64,
}

impl Local {
    /// Corrections from log residuals `(place, residual, weight)`; `misfit` is the standard deviation between
    /// places that is expected before any is seen. Nothing where no place has two samples.
    pub fn fit(residuals: &mut [(f64, f64, f64)], misfit: f64, reach: Reach) -> Option<Self> {
        residuals
            .sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.total_cmp(&b.2)));
        if misfit <= 0.0 && residuals.windows(2).all(|pair| pair[1].0 - pair[0].0 > SAME) {
            return None;
        }
        let mut cells = cells(residuals);
        let repeated: Vec<Weighted> =
            cells.iter().filter(|c| c.count >= 2.0).map(|c| (c.deviation, c.count)).collect();
        let within = if repeated.is_empty() { misfit } else { median(&mut repeated.clone()) };
        let squares: f64 = cells.iter().map(|c| c.middle * c.middle - within * within / c.count).sum();
        let between = (squares / cells.len() as f64).max(misfit * misfit);
        if between <= 0.0 {
            return None;
        }
        if cells.len() > PLACES_MAX {
            cells.sort_by(|a, b| b.count.total_cmp(&a.count).then(a.place.total_cmp(&b.place)));
            cells.truncate(PLACES_MAX);
            cells.sort_by(|a, b| a.place.total_cmp(&b.place));
        }
        let offset = |c: &Cell| c.middle * between / (between + within * within / c.count);
        Some(Self { places: cells.iter().map(|c| (c.place, offset(c))).collect(), reach })
    }

    /// The correction at `place`, as a logarithm, and the distance to the nearest observed place.
    pub fn at(&self, place: f64) -> (f64, f64) {
        let above = self.places.partition_point(|(p, _)| *p < place - SAME);
        let (below, above) = (above.checked_sub(1).map(|n| self.places[n]), self.places.get(above).copied());
        let (offset, nearest) = match (below, above) {
            (_, Some((p, offset))) if (p - place).abs() <= SAME => return (offset, 0.0),
            (Some((low, from)), Some((high, to))) => {
                let part = (place - low) / (high - low);
                (from + part * (to - from), (place - low).min(high - place))
            }
            (Some((p, offset)), None) | (None, Some((p, offset))) => (offset, (place - p).abs()),
            (None, None) => (0.0, 0.0),
        };
        (if self.reach == Reach::Between { offset } else { 0.0 }, nearest)
    }
}

fn cells(sorted: &[(f64, f64, f64)]) -> Vec<Cell> {
    sorted
        .chunk_by(|a, b| b.0 - a.0 <= SAME)
        .map(|group| {
            let mut values: Vec<Weighted> = group.iter().map(|(_, r, w)| (*r, *w)).collect();
            let middle = median(&mut values);
            let deviation = robust_deviation(&values, middle);
            Cell { place: group[0].0, middle, deviation, count: group.len() as f64 }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certain_places_are_corrected_and_noise_is_not() {
        let mut certain: Vec<_> =
            (0..20).map(|n| (f64::from(n % 2), if n % 2 == 0 { 0.5 } else { -0.5 }, 1.0)).collect();
        let local = Local::fit(&mut certain, 0.0, Reach::Between).unwrap();
        assert!((local.at(0.0).0 - 0.5).abs() < 1e-9 && local.at(0.5).0.abs() < 1e-9);
        let mut noise: Vec<_> =
            (0..40).map(|n| (f64::from(n % 4), f64::from(n * 7 % 11) - 5.0, 1.0)).collect();
        let most = Local::fit(&mut noise, 0.0, Reach::Between).map_or(0.0, |l| l.at(1.0).0.abs());
        assert!(most < 0.5, "{most}");
    }

    #[test]
    fn an_exact_correction_stays_where_it_was_observed() {
        let mut data: Vec<_> = (0..20).map(|n| (f64::from(n % 2), f64::from(n % 2) - 0.5, 1.0)).collect();
        let local = Local::fit(&mut data, 0.0, Reach::Exact).unwrap();
        assert!((local.at(1.0).0 - 0.5).abs() < 1e-9);
        assert_eq!(local.at(0.4).0, 0.0);
    }
}
