//! Peak memory of a task's executions per config, for reports: what size would do.
//!
//! Kept in thousandths of a MB; quantiles are at most 1 % off, the maximum is exact. The configs are those
//! that the task keeps.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{ByConfig, ConfigKey};
use crate::histogram::Histogram;

const UNITS_PER_MB: f64 = 1000.0;

/// Peak memory on one config, whatever the input.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PeakMemory {
    /// Executions whose peak is known.
    pub samples: u64,
    /// The memory that 95 of 100 executions stay within, in MB.
    pub p95_mb: f64,
    /// The largest one in MB.
    pub max_mb: f64,
}

/// Peak memory by config, in the order of the configs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Peaks(Vec<(ConfigKey, Peak)>);

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Peak {
    max_mb: f64,
    histogram: Histogram,
}

impl Peaks {
    /// Takes in one execution.
    pub fn record(&mut self, key: ConfigKey, peak_mb: f64) {
        let peak = self.of(key);
        peak.max_mb = peak.max_mb.max(peak_mb);
        peak.histogram.record((peak_mb * UNITS_PER_MB).round() as u64);
    }

    /// Takes in everything of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (key, theirs) in &other.0 {
            let peak = self.of(*key);
            peak.max_mb = peak.max_mb.max(theirs.max_mb);
            peak.histogram.merge(&theirs.histogram);
        }
    }

    /// Lets go of configs that the task no longer keeps.
    pub fn keep(&mut self, configs: &ByConfig) {
        self.0.retain(|(key, _)| configs.get(*key).is_some());
    }

    /// What is known on a config.
    pub fn report(&self, key: ConfigKey) -> Option<PeakMemory> {
        let place = self.0.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        let peak = &self.0[place].1;
        let hdr = peak.histogram.decode();
        let p95_mb = (hdr.value_at_quantile(0.95) as f64 / UNITS_PER_MB).min(peak.max_mb);
        Some(PeakMemory { samples: hdr.len(), p95_mb, max_mb: peak.max_mb })
    }

    fn of(&mut self, key: ConfigKey) -> &mut Peak {
        let place = match self.0.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(place) => place,
            Err(place) => {
                self.0.insert(place, (key, Peak::default()));
                place
            }
        };
        &mut self.0[place].1
    }
}
