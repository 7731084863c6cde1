//! How long it takes to move an object: latency + bytes / bandwidth per direction, store and config.
//!
//! The fits and quantiles are of time, never of speed. A config without enough samples uses all configs of
//! the store, a store that was never measured uses all stores. Ways inside the engine are measured like
//! stores and are none: they are answered for by name, and no other store learns from them.

use std::collections::BTreeMap;

use foresail_schemas::metric::{Direction, ENGINE_STORE_PREFIX, STORE_NAME_DEFAULT, TransferRecord};
use foresail_schemas::prediction::Prediction;
use foresail_schemas::{Sla, TaskName};
use serde::{Deserialize, Serialize};

use crate::config::{ByConfig, ConfigKey};
use crate::pooled::{Pooled, Reach};
use crate::ring::Sample;

/// Most stores kept per workflow and direction.
///
/// A transfer with one more store displaces the store whose newest sample is the oldest; a transfer older
/// than all of them is only counted.
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
        let stores = self.part_mut(record.direction);
        let key = ConfigKey::new(record.memory_mb, record.vcpu);
        match stores.get_mut(store) {
            Some(part) => part.record(key, sample),
            None => {
                let mut part = ByConfig::default();
                part.record(key, sample);
                stores.insert(store.to_owned(), part);
                shrink(stores);
            }
        }
    }

    /// Takes in everything of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (direction, stores) in
            [(Direction::Download, &other.downloads), (Direction::Upload, &other.uploads)]
        {
            let own = self.part_mut(direction);
            for (store, configs) in stores {
                own.entry(store.clone()).or_default().merge(configs);
            }
            shrink(own);
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

/// Equally old stores go in the order of their names, so that the same samples leave the same stores.
fn shrink(stores: &mut BTreeMap<String, ByConfig>) {
    let newest_us = |part: &ByConfig| part.iter().map(|(_, series)| series.ring.newest_us()).max();
    while stores.len() > STORES_MAX {
        let oldest = stores.iter().min_by_key(|(_, part)| newest_us(part)).map(|(store, _)| store.clone());
        let Some(oldest) = oldest else { return };
        stores.remove(&oldest);
    }
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
            Pooled::fit(std::iter::once(part), Reach::WholeRing).map(|pooled| (store.clone(), pooled))
        };
        let moved = stores.iter().filter(|(store, _)| !store.starts_with(ENGINE_STORE_PREFIX));
        let all = Pooled::fit(moved.map(|(_, part)| part), Reach::WholeRing);
        Self { by_store: stores.iter().filter_map(fitted).collect(), all }
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
        if store.is_some_and(|store| store.as_str().starts_with(ENGINE_STORE_PREFIX)) {
            return None;
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

#[cfg(test)]
mod tests {
    use foresail_schemas::metric::{STORE_OF_LANES, STORE_OF_STATE};

    use super::*;

    fn moved(model: &mut TransferModel, store: usize, at_us: i64) {
        moved_in(model, store, at_us, 5.0);
    }

    fn moved_in(model: &mut TransferModel, store: usize, at_us: i64, time_ms: f64) {
        let record = TransferRecord {
            direction: Direction::Upload,
            bytes: 1000,
            time_ms,
            memory_mb: 1769,
            vcpu: None,
            store: Some(TaskName::new(format!("s{store:02}")).unwrap()),
            at: None,
        };
        model.record(&record, at_us);
    }

    #[test]
    fn one_store_too_many_displaces_the_one_unused_for_longest_in_any_order() {
        let times: Vec<(usize, i64)> = (0..STORES_MAX + 4).map(|n| (n, (n as i64 * 7) % 20)).collect();
        let (mut forth, mut back) = (TransferModel::default(), TransferModel::default());
        times.iter().for_each(|(store, at_us)| moved(&mut forth, *store, *at_us));
        times.iter().rev().for_each(|(store, at_us)| moved(&mut back, *store, *at_us));
        assert_eq!(forth, back);
        let kept: Vec<&String> = forth.uploads.keys().collect();
        let mut expected: Vec<(i64, String)> =
            times.iter().map(|(n, at)| (*at, format!("s{n:02}"))).collect();
        expected.sort();
        let mut expected: Vec<String> = expected.split_off(4).into_iter().map(|(_, store)| store).collect();
        expected.sort();
        assert_eq!(kept, expected.iter().collect::<Vec<_>>());

        let (mut one, mut other) = (TransferModel::default(), TransferModel::default());
        for (store, at_us) in &times {
            moved(if store % 2 == 0 { &mut one } else { &mut other }, *store, *at_us);
        }
        one.merge(&other);
        assert_eq!(one, forth);
    }

    #[test]
    fn ways_inside_the_engine_are_known_by_name_and_tell_nothing_of_stores() {
        let mut model = TransferModel::default();
        let state = TaskName::new(STORE_OF_STATE).unwrap();
        for at_us in 0..20 {
            moved(&mut model, 1, at_us);
            let record = TransferRecord {
                direction: Direction::Upload,
                bytes: 0,
                time_ms: 500.0,
                memory_mb: 1769,
                vcpu: None,
                store: Some(state.clone()),
                at: None,
            };
            model.record(&record, at_us);
        }
        let fitted = model.fit();
        let key = ConfigKey::new(1769, None);
        let median_ms = |store: Option<&TaskName>, bytes| {
            let answer = fitted.predict(Direction::Upload, store, key, bytes, &[Sla::MEDIAN]);
            answer.and_then(|answer| answer.values[&Sla::MEDIAN])
        };
        assert!(median_ms(Some(&state), 0).is_some_and(|ms| (ms - 500.0).abs() < 25.0));
        assert!(median_ms(None, 1000).is_some_and(|ms| ms < 10.0), "no store is that slow");
        let lanes = TaskName::new(STORE_OF_LANES).unwrap();
        assert_eq!(median_ms(Some(&lanes), 0), None, "never measured, and no store stands in");
    }

    #[test]
    fn a_busy_end_of_a_run_is_not_all_that_the_next_is_predicted_by_and_a_slower_store_is_followed() {
        let mean_ms = |model: &TransferModel| {
            let (store, key) = (TaskName::new("s01").unwrap(), ConfigKey::new(1769, None));
            let answer = model.fit().predict(Direction::Upload, Some(&store), key, 1000, &[Sla::Mean]);
            answer.and_then(|answer| answer.values[&Sla::Mean]).unwrap()
        };
        let mut model = TransferModel::default();
        (0..100).for_each(|at_us| moved_in(&mut model, 1, at_us, 1.0));
        (100..130).for_each(|at_us| moved_in(&mut model, 1, at_us, 8.0));
        let after_a_busy_end_ms = mean_ms(&model);
        assert!((2.0..4.0).contains(&after_a_busy_end_ms), "{after_a_busy_end_ms}");
        (130..300).for_each(|at_us| moved_in(&mut model, 1, at_us, 8.0));
        assert!((mean_ms(&model) - 8.0).abs() < 0.1, "{}", mean_ms(&model));
    }
}
