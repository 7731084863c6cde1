//! Resource configs as keys, and series kept per config within a bound.

use std::sync::Arc;

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

    /// Its memory in MB.
    pub fn memory_mb(self) -> u32 {
        self.0
    }

    /// Its CPU share in thousandths.
    pub fn milli(self) -> u32 {
        self.1
    }

    /// Its CPU share in whole thousandths, always positive.
    pub fn share(self) -> f64 {
        (f64::from(self.1) / 1000.0).max(1e-6)
    }
}

/// Series by config, at most [`CONFIGS_PER_TASK_MAX`], in the order of the configs; copies share them until
/// one of the copies changes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Shared", into = "Shared")]
pub struct ByConfig {
    series: Shared,
}

type Shared = Vec<(ConfigKey, Arc<Series>)>;

impl TryFrom<Shared> for ByConfig {
    type Error = String;

    fn try_from(series: Shared) -> Result<Self, String> {
        match series.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            Some(pair) => Err(format!("stored configs are out of order at `{:?}`", pair[1].0)),
            None => Ok(Self { series }),
        }
    }
}

impl From<ByConfig> for Shared {
    fn from(configs: ByConfig) -> Self {
        configs.series
    }
}

impl ByConfig {
    /// Takes in a sample.
    pub fn record(&mut self, key: ConfigKey, sample: Sample) {
        match self.place(key) {
            Ok(place) => Arc::make_mut(&mut self.series[place].1).record(sample),
            Err(place) => {
                let mut series = Series::default();
                series.record(sample);
                self.series.insert(place, (key, Arc::new(series)));
                self.shrink();
            }
        }
    }

    /// Takes in everything of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (key, series) in &other.series {
            match self.place(*key) {
                Ok(place) => Arc::make_mut(&mut self.series[place].1).merge(series),
                Err(place) => self.series.insert(place, (*key, Arc::clone(series))),
            }
        }
        self.shrink();
    }

    /// How many configs there are.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// The series of a config.
    pub fn get(&self, key: ConfigKey) -> Option<&Series> {
        self.place(key).ok().map(|place| &*self.series[place].1)
    }

    /// The series in the order of their configs.
    pub fn iter(&self) -> impl Iterator<Item = (ConfigKey, &Arc<Series>)> {
        self.series.iter().map(|(key, series)| (*key, series))
    }

    /// The same where `replace` gives another series for some of them.
    pub fn replaced(&self, replace: impl Fn(&Series) -> Option<Series>) -> Self {
        let each = |(key, series): &(ConfigKey, Arc<Series>)| {
            (*key, replace(series).map_or_else(|| Arc::clone(series), Arc::new))
        };
        Self { series: self.series.iter().map(each).collect() }
    }

    fn place(&self, key: ConfigKey) -> Result<usize, usize> {
        self.series.binary_search_by_key(&key, |(key, _)| *key)
    }

    fn shrink(&mut self) {
        while self.series.len() > CONFIGS_PER_TASK_MAX {
            let age =
                |(_, (key, series)): &(usize, &(ConfigKey, Arc<Series>))| (series.ring.newest_us(), *key);
            let Some((place, _)) = self.series.iter().enumerate().min_by_key(age) else { return };
            self.series.remove(place);
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
