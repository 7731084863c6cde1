//! Curves per config with one over all configs beneath them: for what does not follow the CPU share.

use foresail_schemas::Sla;
use foresail_schemas::prediction::{Basis, Prediction, Unit};
use serde::{Deserialize, Serialize};

use crate::config::{ByConfig, ConfigKey};
use crate::curve::{Ask, Curve, OFFSET_MS, Setup, recent_points, weigh};
use crate::ring::Ring;
use crate::size::Point;
use crate::task::EXACT_SAMPLES_MIN;

/// Standard deviation of log residuals expected before anything is seen.
const SPREAD: f64 = 0.15;

/// The curves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pooled {
    configs: Vec<(ConfigKey, Curve)>,
    all: Curve,
}

impl Pooled {
    /// Fits the curves of `parts`; the series of one config may stand in several parts.
    pub fn fit<'a>(parts: impl Iterator<Item = &'a ByConfig>) -> Option<Self> {
        let mut rings: std::collections::BTreeMap<ConfigKey, (Ring, u64)> = std::collections::BTreeMap::new();
        for part in parts {
            for (key, series) in part.iter() {
                let (ring, count) = rings.entry(key).or_default();
                ring.merge(&series.ring);
                *count += series.moments.count;
            }
        }
        let mut configs = Vec::with_capacity(rings.len());
        let mut all: Vec<Point> = Vec::new();
        let mut count_all = 0;
        for (key, (ring, count)) in rings {
            let (points, forgotten) = recent_points(&ring, |s| Some(s.value_ms + OFFSET_MS));
            let samples = if forgotten == 0 { count } else { points.len() as u64 };
            count_all += samples;
            if let Some(curve) = Curve::fit(&points, &Setup { spread: SPREAD, tail: None, samples }) {
                configs.push((key, curve));
            }
            all.extend(points);
        }
        all.sort_by_key(|point| point.at_us);
        all.drain(..all.len().saturating_sub(crate::task::POOLED_SAMPLES_MAX));
        weigh(&mut all);
        let all = Curve::fit(&all, &Setup { spread: SPREAD, tail: None, samples: count_all })?;
        Some(Self { configs, all })
    }

    /// The time at `size` on a config: its own curve where it has enough samples, else the one over all.
    pub fn predict(&self, key: ConfigKey, size: f64, slas: &[Sla]) -> Prediction {
        let own = self.configs.binary_search_by_key(&key, |(key, _)| *key).ok().map(|n| &self.configs[n].1);
        let alone = self.configs.len() == 1;
        let own = own.filter(|curve| curve.samples >= EXACT_SAMPLES_MIN || alone);
        let (basis, curve) = own.map_or((Basis::Pooled, &self.all), |curve| (Basis::Exact, curve));
        let share = key.share();
        let (low, high) = self.shares();
        let extrapolated = own.is_none() && (share < low || share > high);
        let ask =
            Ask { size, scale: 1.0, sigma: 0.0, offset: OFFSET_MS, unit: Unit::Ms, basis, extrapolated };
        curve.answer(&ask, slas)
    }

    fn shares(&self) -> (f64, f64) {
        self.configs
            .iter()
            .fold((f64::MAX, 0.0_f64), |(lo, hi), (key, _)| (lo.min(key.share()), hi.max(key.share())))
    }
}
