//! How long it takes to move an object: latency + bytes / bandwidth per direction, store and config.
//!
//! The fits and quantiles are of time, never of speed. A config without enough samples uses all configs of
//! the store, a store that was never measured uses all stores.

use std::collections::BTreeMap;

use foresail_schemas::metric::{Direction, STORE_NAME_DEFAULT, TransferRecord};
use foresail_schemas::prediction::Prediction;
use foresail_schemas::{Sla, TaskName};
use serde::{Deserialize, Serialize};

use crate::config::{ByConfig, ConfigKey};
use crate::pooled::Pooled;
use crate::ring::Sample;

/// Most stores kept per workflow and direction; transfers with further stores are only counted.
pub const STORES_MAX: usize = 16;

/// Measured transfers of one workflow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TransferModel {
    downloads: BTreeMap<String, ByConfig>,
    uploads: BTreeMap<String, ByConfig>,
}

impl TransferModel {
    /// Takes in one transfer.
    pub fn record(&mut self, record: &TransferRecord, at_us: i64) {
        let sample = Sample::new(at_us, record.bytes, record.time_ms, None);
        let store = record.store.as_ref().map_or(STORE_NAME_DEFAULT, TaskName::as_str);
        if let Some(part) = place(self.part_mut(record.direction), store) {
            part.record(ConfigKey::new(record.memory_mb, record.vcpu), sample);
        }
    }

    /// Takes in everything of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (direction, stores) in
            [(Direction::Download, &other.downloads), (Direction::Upload, &other.uploads)]
        {
            for (store, configs) in stores {
                if let Some(part) = place(self.part_mut(direction), store) {
                    part.merge(configs);
                }
            }
        }
    }

    /// Fits what was measured.
    pub fn fit(&self) -> TransferPredictor {
        TransferPredictor { downloads: Stores::fit(&self.downloads), uploads: Stores::fit(&self.uploads) }
    }

    fn part_mut(&mut self, direction: Direction) -> &mut BTreeMap<String, ByConfig> {
        match direction {
            Direction::Download => &mut self.downloads,
            Direction::Upload => &mut self.uploads,
        }
    }
}

fn place<'a>(stores: &'a mut BTreeMap<String, ByConfig>, store: &str) -> Option<&'a mut ByConfig> {
    if !stores.contains_key(store) {
        if stores.len() >= STORES_MAX {
            return None;
        }
        stores.insert(store.to_owned(), ByConfig::default());
    }
    stores.get_mut(store)
}

/// Fitted transfer times.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TransferPredictor {
    downloads: Stores,
    uploads: Stores,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Stores {
    by_store: BTreeMap<String, Pooled>,
    all: Option<Pooled>,
}

impl Stores {
    fn fit(stores: &BTreeMap<String, ByConfig>) -> Self {
        let fitted = |(store, part): (&String, &ByConfig)| {
            Pooled::fit(std::iter::once(part)).map(|pooled| (store.clone(), pooled))
        };
        Self { by_store: stores.iter().filter_map(fitted).collect(), all: Pooled::fit(stores.values()) }
    }
}

impl TransferPredictor {
    /// The time to move `bytes`, where any transfer in this direction was measured.
    pub fn predict(
        &self,
        direction: Direction,
        store: Option<&TaskName>,
        key: ConfigKey,
        bytes: u64,
        slas: &[Sla],
    ) -> Option<Prediction> {
        let stores = match direction {
            Direction::Download => &self.downloads,
            Direction::Upload => &self.uploads,
        };
        let known = store.and_then(|store| stores.by_store.get(store.as_str()));
        if let Some(pooled) = known {
            return pooled.predict(key, bytes as f64, slas);
        }
        let mut prediction = stores.all.as_ref()?.predict(key, bytes as f64, slas)?;
        if store.is_some() {
            // Another store's speed is a guess, whatever its config.
            prediction.basis = foresail_schemas::prediction::Basis::Pooled;
            prediction.extrapolated = true;
        }
        Some(prediction)
    }
}
