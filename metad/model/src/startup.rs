//! How long a worker takes to start: cold and warm apart. Initialisation does not scale with memory, so
//! configs without samples of their own use all of them.

use foresail_schemas::Sla;
use foresail_schemas::metric::{StartState, StartupRecord};
use foresail_schemas::prediction::Prediction;
use serde::{Deserialize, Serialize};

use crate::config::{ByConfig, ConfigKey};
use crate::pooled::{Pooled, Reach};
use crate::ring::Sample;

/// Measured starts of one workflow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StartupModel {
    cold: ByConfig,
    warm: ByConfig,
}

impl StartupModel {
    /// Takes in one start.
    pub fn record(&mut self, record: &StartupRecord, at_us: i64) {
        let sample = Sample::new(at_us, 0, record.time_ms, None);
        let part = match record.state {
            StartState::Cold => &mut self.cold,
            StartState::Warm => &mut self.warm,
        };
        part.record(ConfigKey::new(record.memory_mb, record.vcpu), sample);
    }

    /// Takes in everything of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.cold.merge(&other.cold);
        self.warm.merge(&other.warm);
    }

    /// Fits what was measured.
    pub fn fit(&self) -> StartupPredictor {
        let fit = |part: &ByConfig| Pooled::fit(std::iter::once(part), Reach::NewestLevel);
        StartupPredictor { cold: fit(&self.cold), warm: fit(&self.warm) }
    }
}

/// Fitted start times.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StartupPredictor {
    cold: Option<Pooled>,
    warm: Option<Pooled>,
}

impl StartupPredictor {
    /// The start time of a config, where any start of this kind was measured.
    pub fn predict(&self, state: StartState, key: ConfigKey, slas: &[Sla]) -> Option<Prediction> {
        let part = match state {
            StartState::Cold => self.cold.as_ref(),
            StartState::Warm => self.warm.as_ref(),
        };
        part.and_then(|pooled| pooled.predict(key, 0.0, slas))
    }
}
