//! The immutable answerer: fitted curves of one workflow, shared, serialisable, without any fitting of its
//! own.
//!
//! A predictor that went through JSON or another serde format and back answers identically.

use std::collections::BTreeMap;
use std::sync::Arc;

use foresail_schemas::prediction::{Basis, Prediction, Query, Unit};
use foresail_schemas::{Sla, TaskName};
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::ConfigKey;
use crate::report::{TaskReport, report};
use crate::startup::StartupPredictor;
use crate::task::TaskPredictor;
use crate::transfer::TransferPredictor;

/// Version of the serialised form, its first field; another version is refused.
pub const PREDICTOR_VERSION: u32 = 1;

/// Answers questions about one workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Predictor {
    #[serde(deserialize_with = "version")]
    version: u32,
    pub(crate) samples: u64,
    pub(crate) tasks: Arc<BTreeMap<TaskName, Arc<TaskPredictor>>>,
    pub(crate) transfers: Arc<TransferPredictor>,
    pub(crate) startups: Arc<StartupPredictor>,
}

impl Default for Predictor {
    fn default() -> Self {
        Self {
            version: PREDICTOR_VERSION,
            samples: 0,
            tasks: Arc::default(),
            transfers: Arc::default(),
            startups: Arc::default(),
        }
    }
}

impl Predictor {
    /// A predictor that knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers `query` at every one of `slas`.
    ///
    /// Where nothing is known every value is `null` and the basis is `none`.
    #[must_use]
    pub fn predict(&self, query: &Query, slas: &[Sla]) -> Prediction {
        self.predict_with_prior(query, slas, None)
    }

    /// Answers like [`Self::predict`]; where this workflow has nothing, `prior` answers with basis `prior`.
    #[must_use]
    pub fn predict_with_prior(&self, query: &Query, slas: &[Sla], prior: Option<&Self>) -> Prediction {
        if let Some(own) = self.answer(query, slas) {
            return own;
        }
        match prior.and_then(|prior| prior.answer(query, slas)) {
            Some(borrowed) => Prediction { basis: Basis::Prior, ..borrowed },
            None => unknown(query, slas),
        }
    }

    /// The tasks it knows, in the order of their names.
    pub fn tasks(&self) -> impl Iterator<Item = &TaskName> {
        self.tasks.keys()
    }

    /// Whether it knows a task.
    #[must_use]
    pub fn has_task(&self, task: &TaskName) -> bool {
        self.tasks.contains_key(task)
    }

    /// Records behind it.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// What is known of a task.
    #[must_use]
    pub fn report(&self, task: &TaskName) -> Option<TaskReport> {
        self.tasks.get(task).map(|fitted| report(task, fitted))
    }

    fn answer(&self, query: &Query, slas: &[Sla]) -> Option<Prediction> {
        match query {
            Query::ExecutionTime { task, input_bytes, memory_mb, vcpu } => {
                self.tasks.get(task)?.exec(ConfigKey::new(*memory_mb, *vcpu), *input_bytes, slas)
            }
            Query::OutputSize { task, input_bytes } => self.tasks.get(task)?.output(*input_bytes, slas),
            Query::TransferTime { direction, bytes, memory_mb, vcpu, store } => {
                let key = ConfigKey::new(*memory_mb, *vcpu);
                self.transfers.predict(*direction, store.as_ref(), key, *bytes, slas)
            }
            Query::StartupTime { state, memory_mb, vcpu } => {
                self.startups.predict(*state, ConfigKey::new(*memory_mb, *vcpu), slas)
            }
        }
    }
}

fn unknown(query: &Query, slas: &[Sla]) -> Prediction {
    Prediction {
        unit: if matches!(query, Query::OutputSize { .. }) { Unit::Bytes } else { Unit::Ms },
        values: slas.iter().map(|sla| (*sla, None)).collect(),
        basis: Basis::None,
        samples: 0,
        extrapolated: false,
        interval: BTreeMap::new(),
    }
}

fn version<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let version = u32::deserialize(from)?;
    if version != PREDICTOR_VERSION {
        return Err(serde::de::Error::custom(format!(
            "the predictor has version `{version}`, this program reads {PREDICTOR_VERSION}\n\
             hint: download the snapshot from a metad of the same version"
        )));
    }
    Ok(version)
}
