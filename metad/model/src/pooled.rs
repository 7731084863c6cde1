//! Curves per config with one over all configs beneath them: for what does not follow the CPU share.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use foresail_schemas::Sla;
use foresail_schemas::prediction::{Basis, Prediction, Unit};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::cells::{CELLS_MAX, SAME};
use crate::config::{ByConfig, ConfigKey};
use crate::curve::{Ask, Curve, OFFSET_MS, Setup, weigh};
use crate::series::Series;
use crate::size::Point;
use crate::task::EXACT_SAMPLES_MIN;

/// Standard deviation of log residuals expected before anything is seen.
const SPREAD: f64 = 0.15;

/// Which samples of a ring curves are fitted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Those since the newest change of level.
    NewestLevel,
    /// All of them. Neighbours depend on each other where many come from one stretch of one run, as transfers
    /// do: a busy tenth of a second looks like a change, and would be all that the next run is predicted by.
    WholeRing,
}

impl Reach {
    fn points(self, series: &Series) -> Vec<Point> {
        match self {
            Self::NewestLevel => series.recent(),
            Self::WholeRing => series.whole_ring(),
        }
    }

    /// Samples that curves rest on.
    fn samples(self, series: &Series) -> u64 {
        match self {
            Self::NewestLevel => series.level().samples,
            Self::WholeRing => series.moments.count,
        }
    }
}

/// The curves, each fitted at the first question that needs it; a stored form has them all.
#[derive(Debug, Clone)]
pub struct Pooled {
    configs: Vec<(ConfigKey, Own)>,
    all: OnceLock<Option<Box<Curve>>>,
    /// Read by fits only: a stored form, which has them all, needs none.
    reach: Reach,
}

/// The curve of one config.
#[derive(Debug, Clone)]
enum Own {
    Measured(Arc<Series>),
    Fitted(Box<Curve>),
}

impl Own {
    fn curve(&self, reach: Reach) -> Option<&Curve> {
        match self {
            Self::Measured(series) => series.curve_of(|| fit(&reach.points(series), reach.samples(series))),
            Self::Fitted(curve) => Some(curve),
        }
    }
}

fn fit(points: &[Point], samples: u64) -> Option<Curve> {
    let setup = Setup { spread: SPREAD, history: None, samples, same: SAME, cells_max: CELLS_MAX };
    Curve::fit(points, &[], &setup)
}

impl Pooled {
    /// The curves of `parts`; the series of one config may stand in several parts. Nothing where there is
    /// no series.
    pub fn fit<'a>(parts: impl Iterator<Item = &'a ByConfig>, reach: Reach) -> Option<Self> {
        let mut configs: BTreeMap<ConfigKey, Arc<Series>> = BTreeMap::new();
        for part in parts {
            for (key, series) in part.iter() {
                match configs.get_mut(&key) {
                    Some(known) => Arc::make_mut(known).join(series),
                    None => drop(configs.insert(key, Arc::clone(series))),
                }
            }
        }
        let configs: Vec<_> = configs.into_iter().map(|(key, series)| (key, Own::Measured(series))).collect();
        (!configs.is_empty()).then(|| Self { configs, all: OnceLock::new(), reach })
    }

    fn all(&self) -> Option<&Curve> {
        let fit_all = || {
            let (mut points, mut samples): (Vec<Point>, u64) = (Vec::new(), 0);
            for (_, own) in &self.configs {
                if let Own::Measured(series) = own {
                    points.extend(self.reach.points(series));
                    samples += self.reach.samples(series);
                }
            }
            points.sort_by_key(|point| point.at_us);
            points.drain(..points.len().saturating_sub(crate::task::POOLED_SAMPLES_MAX));
            weigh(&mut points);
            fit(&points, samples).map(Box::new)
        };
        self.all.get_or_init(fit_all).as_deref()
    }

    /// The time at `size` on a config: its own curve where it has enough samples, else the one over all.
    pub fn predict(&self, key: ConfigKey, size: f64, slas: &[Sla]) -> Option<Prediction> {
        let own = self.configs.binary_search_by_key(&key, |(key, _)| *key).ok();
        let alone = self.configs.len() == 1;
        let enough = |own: &Own| match own {
            Own::Measured(series) => self.reach.samples(series) >= EXACT_SAMPLES_MIN,
            Own::Fitted(curve) => curve.samples >= EXACT_SAMPLES_MIN,
        };
        let own = own.map(|place| &self.configs[place].1).filter(|own| alone || enough(own));
        let (basis, curve) = match own {
            Some(own) => (Basis::Exact, own.curve(self.reach)?),
            None => (Basis::Pooled, self.all()?),
        };
        let share = key.share();
        let (low, high) = self.shares();
        let extrapolated = own.is_none() && (share < low || share > high);
        let ask = Ask {
            size,
            scale: 1.0,
            sigma: 0.0,
            offset: OFFSET_MS,
            unit: Unit::Ms,
            basis,
            extrapolated,
            most: None,
        };
        Some(curve.answer(&ask, slas))
    }

    fn shares(&self) -> (f64, f64) {
        self.configs
            .iter()
            .fold((f64::MAX, 0.0_f64), |(lo, hi), (key, _)| (lo.min(key.share()), hi.max(key.share())))
    }
}

#[derive(Serialize)]
struct Form<'a> {
    configs: Vec<(ConfigKey, &'a Curve)>,
    all: Option<&'a Curve>,
}

#[derive(Deserialize)]
struct Stored {
    configs: Vec<(ConfigKey, Box<Curve>)>,
    all: Option<Box<Curve>>,
}

impl Serialize for Pooled {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let configs =
            self.configs.iter().filter_map(|(key, own)| Some((*key, own.curve(self.reach)?))).collect();
        Form { configs, all: self.all() }.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Pooled {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Stored { configs, all } = Stored::deserialize(from)?;
        let configs = configs.into_iter().map(|(key, curve)| (key, Own::Fitted(curve))).collect();
        Ok(Self { configs, all: OnceLock::from(all), reach: Reach::WholeRing })
    }
}

impl PartialEq for Pooled {
    fn eq(&self, other: &Self) -> bool {
        let own = |pooled: &'_ Self| -> Vec<(ConfigKey, Option<Curve>)> {
            pooled.configs.iter().map(|(key, own)| (*key, own.curve(pooled.reach).cloned())).collect()
        };
        own(self) == own(other) && self.all() == other.all()
    }
}
