//! The answers about one task, from its measurements or from curves that were downloaded.
//!
//! A config with enough samples answers from its own curve. Otherwise the curve over all configs answers, by
//! the resource shape.

use std::sync::Arc;

use foresail_schemas::Sla;
use foresail_schemas::prediction::{Basis, Prediction, Unit};
use serde::{Deserialize, Serialize};

use crate::config::ConfigKey;
use crate::curve::{Ask, Curve, OFFSET_BYTES, OFFSET_MS};
use crate::formula::CurvePart;
use crate::predictor::Cold;
use crate::report::ConfigHistory;
use crate::scaled::Scaled;
use crate::series::{Series, are_alike};
use crate::shape::Pool;
use crate::task::{EXACT_SAMPLES_MIN, TaskModel};

/// Log distance from the sizes of a config's own samples up to which they answer (10 %): so near, their curve
/// is better than other configs brought to this one by the shape.
const OWN_REACH: f64 = 0.1;

/// All curves of one task, as they are stored and downloaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskPredictor {
    samples: u64,
    configs: Vec<ConfigPart>,
    scaled: Option<Scaled>,
    output: Option<Curve>,
}

/// One config of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ConfigPart {
    key: ConfigKey,
    curve: Curve,
    sizes: Vec<f64>,
    history: ConfigHistory,
}

/// Where the curves of one task are.
#[derive(Clone, Copy)]
pub enum Answers<'a, P> {
    /// Fitted where a question needs them; the second part gives what other tasks say about the shape.
    Measured(&'a TaskModel, P),
    /// All there.
    Fitted(&'a TaskPredictor),
}

/// The samples that a config's own curve rests on.
struct Own<'a> {
    samples: u64,
    size_min: f64,
    size_max: f64,
    from: From<'a>,
}

/// Where the sizes of [`Own`] are, which not every question needs.
enum From<'a> {
    Measured(&'a Series),
    Fitted(&'a ConfigPart),
}

impl<'a> Own<'a> {
    /// As [`Series::sizes`] has them.
    fn sizes(&self) -> &'a [f64] {
        match self.from {
            From::Measured(series) => series.sizes(),
            From::Fitted(part) => &part.sizes,
        }
    }

    /// Whether a size within the range is one of the sizes.
    fn has(&self, size: f64) -> bool {
        let sizes = self.sizes();
        let above = sizes.partition_point(|own| *own < size);
        let low = above.checked_sub(1).is_some_and(|n| are_alike(sizes[n], size));
        sizes.is_empty() || low || sizes.get(above).is_some_and(|high| are_alike(size, *high))
    }
}

impl<'a, P: Fn() -> &'a Arc<Pool>> Answers<'a, P> {
    /// The execution time at a size on a config.
    pub fn exec(&self, key: ConfigKey, input_bytes: u64, slas: &[Sla]) -> Option<Prediction> {
        let size = input_bytes as f64;
        if self.is_exact(key, size) {
            return self.exec_exact(key, size, slas);
        }
        self.with_scaled(|scaled| scaled.predict(key, size, slas))
    }

    /// The same where the curve over all configs is fitted or not needed; `pool` is what other tasks say,
    /// where that was summed.
    pub fn exec_warm(
        &self,
        key: ConfigKey,
        input_bytes: u64,
        slas: &[Sla],
        pool: Option<&Arc<Pool>>,
    ) -> Result<Option<Prediction>, Cold> {
        let size = input_bytes as f64;
        if self.is_exact(key, size) {
            return Ok(self.exec_exact(key, size, slas));
        }
        match self {
            Self::Measured(task, _) if !task.is_scaled(pool) => Err(Cold),
            _ => Ok(self.with_scaled(|scaled| scaled.predict(key, size, slas))),
        }
    }

    fn exec_exact(&self, key: ConfigKey, size: f64, slas: &[Sla]) -> Option<Prediction> {
        let (unit, basis) = (Unit::Ms, Basis::Exact);
        let ask = Ask {
            size,
            scale: 1.0,
            sigma: 0.0,
            offset: OFFSET_MS,
            unit,
            basis,
            extrapolated: false,
            most: None,
        };
        self.own_curve(key).map(|curve| curve.answer(&ask, slas))
    }

    /// What answers for a config at its own sizes, and the size models that it is mixed from.
    pub fn formula(&self, key: ConfigKey) -> Option<(Basis, Vec<CurvePart>)> {
        if self.is_exact(key, self.own(key)?.size_max) {
            return self.own_curve(key).map(|curve| (Basis::Exact, curve.formula()));
        }
        self.with_scaled(|scaled| {
            let (factor, _) = scaled.factor_of(key, scaled.curve.size_median);
            let parts = scaled.curve.formula().into_iter().map(|part| part.scaled(factor));
            (Basis::MemoryNormalised, parts.collect())
        })
    }

    /// The output size at an input size.
    pub fn output(&self, input_bytes: u64, slas: &[Sla]) -> Option<Prediction> {
        let basis = if self.configs() > 1 { Basis::Pooled } else { Basis::Exact };
        let (unit, offset) = (Unit::Bytes, OFFSET_BYTES);
        let ask = Ask {
            size: input_bytes as f64,
            scale: 1.0,
            sigma: 0.0,
            offset,
            unit,
            basis,
            extrapolated: false,
            most: None,
        };
        self.output_curve().map(|curve| curve.answer(&ask, slas))
    }

    /// Executions over all configs.
    pub fn samples(&self) -> u64 {
        match self {
            Self::Measured(task, _) => task.samples(),
            Self::Fitted(task) => task.samples,
        }
    }

    /// What the report says about the history of each config.
    pub fn histories(&self) -> Vec<(ConfigKey, ConfigHistory)> {
        match self {
            Self::Measured(task, _) => {
                task.configs().iter().map(|(key, series)| (key, ConfigHistory::new(series))).collect()
            }
            Self::Fitted(task) => task.configs.iter().map(|part| (part.key, part.history.clone())).collect(),
        }
    }

    /// Asks the curve over all configs.
    pub fn with_scaled<R>(&self, ask: impl FnOnce(&Scaled) -> R) -> Option<R> {
        match self {
            Self::Measured(task, pool) => task.with_scaled(pool, ask),
            Self::Fitted(task) => task.scaled.as_ref().map(ask),
        }
    }

    /// All curves.
    pub fn fitted(&self) -> TaskPredictor {
        let part = |(key, history): (ConfigKey, ConfigHistory)| {
            let (curve, sizes) = (self.own_curve(key)?.clone(), self.own(key)?.sizes().to_vec());
            Some(ConfigPart { key, curve, sizes, history })
        };
        TaskPredictor {
            samples: self.samples(),
            configs: self.histories().into_iter().filter_map(part).collect(),
            scaled: self.with_scaled(Scaled::clone),
            output: self.output_curve().cloned(),
        }
    }

    fn configs(&self) -> usize {
        match self {
            Self::Measured(task, _) => task.configs().len(),
            Self::Fitted(task) => task.configs.len(),
        }
    }

    /// Own samples answer where there are enough of them and the size is one of theirs, or little beyond
    /// them, or beyond those of other configs too if these reach hardly farther. At a size between theirs,
    /// other configs that were measured there say more than theirs on both sides.
    fn is_exact(&self, key: ConfigKey, size: f64) -> bool {
        let Some(own) = self.own(key) else { return false };
        if self.configs() == 1 {
            return true;
        }
        if own.samples < EXACT_SAMPLES_MIN {
            return false;
        }
        let beyond = distance(size, own.size_min, own.size_max);
        if beyond <= 0.0 {
            return own.has(size);
        }
        // Of all sizes of the task the one nearest to the size in question.
        let nearest = || self.sizes().map_or(size, |(low, high)| size.clamp(low, high));
        beyond <= OWN_REACH || distance(nearest(), own.size_min, own.size_max) <= OWN_REACH
    }

    fn own(&self, key: ConfigKey) -> Option<Own<'a>> {
        match self {
            Self::Measured(task, _) => task.newest().get(key).map(|series| {
                let level = series.level();
                let (samples, from) = (level.samples, From::Measured(series));
                Own { samples, size_min: level.size_min, size_max: level.size_max, from }
            }),
            Self::Fitted(task) => task.part(key).map(|part| Own {
                samples: part.curve.samples,
                size_min: part.curve.size_min,
                size_max: part.curve.size_max,
                from: From::Fitted(part),
            }),
        }
    }

    fn sizes(&self) -> Option<(f64, f64)> {
        match self {
            Self::Measured(task, _) => Some(task.sizes()),
            Self::Fitted(task) => task.scaled.as_ref().map(|s| (s.curve.size_min, s.curve.size_max)),
        }
    }

    fn own_curve(&self, key: ConfigKey) -> Option<&Curve> {
        match self {
            Self::Measured(task, _) => task.own_curve(key),
            Self::Fitted(task) => task.part(key).map(|part| &part.curve),
        }
    }

    fn output_curve(&self) -> Option<&Curve> {
        match self {
            Self::Measured(task, _) => task.output_curve(),
            Self::Fitted(task) => task.output.as_ref(),
        }
    }
}

impl TaskPredictor {
    fn part(&self, key: ConfigKey) -> Option<&ConfigPart> {
        self.configs.binary_search_by_key(&key, |part| part.key).ok().map(|place| &self.configs[place])
    }
}

/// Log distance of `size` from the sizes between `low` and `high`, 0 within them.
fn distance(size: f64, low: f64, high: f64) -> f64 {
    ((1.0 + size) / (1.0 + size.clamp(low, high))).ln().abs()
}
