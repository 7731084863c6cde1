//! Resource configs as keys, and series kept per config within a bound.

use std::collections::BTreeMap;

use foresail_schemas::ResourceConfig;
use serde::{Deserialize, Serialize};

use crate::ring::Sample;
use crate::series::Series;

/// Most configs kept per task (and per store and direction, and per kind of start).
///
/// A record of one more config displaces the config whose newest sample is the oldest; a record older than
/// all of them is only counted.
pub const CONFIGS_PER_TASK_MAX: usize = 64;

/// A config as [`ResourceConfig::key`] gives it: memory in MB and thousandths of a vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ConfigKey(u32, u32);

impl ConfigKey {
    /// The key of a size as it stands in records and questions, checked or not.
    pub fn new(memory_mb: u32, vcpu: Option<f64>) -> Self {
        let (memory_mb, milli) = ResourceConfig { memory_mb, vcpu }.key();
        Self(memory_mb, milli)
    }

    /// The config; without vCPUs where they are what the memory brings anyway.
    pub fn config(self) -> ResourceConfig {
        let bare = ResourceConfig { memory_mb: self.0, vcpu: None };
        if bare.key() == (self.0, self.1) {
            return bare;
        }
        ResourceConfig { vcpu: Some(f64::from(self.1) / 1000.0), ..bare }
    }

    /// Its CPU share in whole thousandths, always positive.
    pub fn share(self) -> f64 {
        (f64::from(self.1) / 1000.0).max(1e-6)
    }
}

/// Series by config, at most [`CONFIGS_PER_TASK_MAX`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ByConfig {
    series: BTreeMap<ConfigKey, Series>,
}

impl ByConfig {
    /// Takes in a sample.
    pub fn record(&mut self, key: ConfigKey, sample: Sample) {
        self.series.entry(key).or_default().record(sample);
        self.shrink();
    }

    /// Takes in everything of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (key, series) in &other.series {
            self.series.entry(*key).or_default().merge(series);
        }
        self.shrink();
    }

    /// The series in the order of their configs.
    pub fn iter(&self) -> impl Iterator<Item = (ConfigKey, &Series)> {
        self.series.iter().map(|(key, series)| (*key, series))
    }

    fn shrink(&mut self) {
        while self.series.len() > CONFIGS_PER_TASK_MAX {
            let oldest = self.series.iter().min_by_key(|(key, series)| (series.ring.newest_us(), **key));
            let Some(key) = oldest.map(|(key, _)| *key) else { return };
            self.series.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_without_vcpus_comes_back_without() {
        for (memory_mb, vcpu) in [(512, None), (1769, None), (512, Some(2.0))] {
            assert_eq!(ConfigKey::new(memory_mb, vcpu).config(), ResourceConfig { memory_mb, vcpu });
        }
    }

    #[test]
    fn one_config_too_many_displaces_the_one_unused_for_longest() {
        let mut configs = ByConfig::default();
        for n in 0..=CONFIGS_PER_TASK_MAX as u32 {
            configs.record(ConfigKey::new(128 + n, None), Sample::new(i64::from(n), 0, 1.0, None));
        }
        let kept: Vec<ConfigKey> = configs.iter().map(|(key, _)| key).collect();
        assert_eq!(kept.len(), CONFIGS_PER_TASK_MAX);
        assert_eq!(kept[0], ConfigKey::new(129, None));
    }
}
