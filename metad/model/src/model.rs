//! The mutable model of one workflow: takes records in, keeps a bounded amount, and gives immutable
//! predictors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foresail_schemas::TaskName;
use foresail_schemas::metric::Record;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::predictor::Predictor;
use crate::shape::{Belief, Pool};
use crate::startup::StartupModel;
use crate::task::{Prepared, TaskModel};
use crate::transfer::TransferModel;

/// Version of the stored form, its first field; another version is refused.
pub const MODEL_VERSION: u32 = 2;
/// Most task names kept per workflow; records of further names are counted in [`WorkflowModel::samples`] and
/// otherwise left out, so that a flood of names cannot displace what is known.
pub const TASKS_PER_WORKFLOW_MAX: usize = 65_536;

/// The model of one workflow.
///
/// Its serde form is positional (postcard) or named (JSON) and holds what was measured, not what was fitted.
#[derive(Debug, Clone, Default)]
pub struct WorkflowModel {
    measured: Measured,
    dirty: BTreeSet<TaskName>,
    dirty_transfers: Dirty,
    dirty_startups: Dirty,
    beliefs: BTreeMap<TaskName, Belief>,
    pool: Pool,
    /// Tasks whose fit depends on the pool, and the pool they were fitted with.
    leaning: BTreeSet<TaskName>,
    pool_used: Pool,
    built: Arc<Predictor>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Dirty {
    #[default]
    No,
    Yes,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Measured {
    #[serde(deserialize_with = "version")]
    version: u32,
    samples: u64,
    tasks: BTreeMap<TaskName, TaskModel>,
    transfers: TransferModel,
    startups: StartupModel,
}

impl Default for Measured {
    fn default() -> Self {
        Self {
            version: MODEL_VERSION,
            samples: 0,
            tasks: BTreeMap::new(),
            transfers: TransferModel::default(),
            startups: StartupModel::default(),
        }
    }
}

impl WorkflowModel {
    /// A model that knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in one record in constant time; `arrival` stands in where the record has no time of its own.
    ///
    /// No time is later than the arrival: else one worker with a fast clock would be newer than everybody.
    pub fn update(&mut self, record: &Record, arrival: Timestamp) {
        let at_us = record.at().unwrap_or(arrival).min(arrival).as_microsecond();
        self.measured.samples += 1;
        match record {
            Record::Task(r) => {
                if let Some(task) = self.measured.tasks.get_mut(&r.task) {
                    task.record(r, at_us);
                } else if self.measured.tasks.len() < TASKS_PER_WORKFLOW_MAX {
                    self.measured.tasks.entry(r.task.clone()).or_default().record(r, at_us);
                } else {
                    return;
                }
                if !self.dirty.contains(&r.task) {
                    self.dirty.insert(r.task.clone());
                }
            }
            Record::Transfer(r) => {
                self.measured.transfers.record(r, at_us);
                self.dirty_transfers = Dirty::Yes;
            }
            Record::Startup(r) => {
                self.measured.startups.record(r, at_us);
                self.dirty_startups = Dirty::Yes;
            }
        }
    }

    /// Takes in everything that `other` was told.
    pub fn merge(&mut self, other: &Self) {
        self.measured.samples += other.measured.samples;
        for (name, task) in &other.measured.tasks {
            if self.measured.tasks.len() >= TASKS_PER_WORKFLOW_MAX && !self.measured.tasks.contains_key(name)
            {
                continue;
            }
            self.measured.tasks.entry(name.clone()).or_default().merge(task);
            self.dirty.insert(name.clone());
        }
        self.measured.transfers.merge(&other.measured.transfers);
        self.measured.startups.merge(&other.measured.startups);
        (self.dirty_transfers, self.dirty_startups) = (Dirty::Yes, Dirty::Yes);
    }

    /// Records taken in.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.measured.samples
    }

    /// The predictor of what was taken in so far.
    ///
    /// Fits the tasks that changed since the last call, and those that lean on the pooled shape when it
    /// moved; all other parts are shared with the former predictor.
    pub fn snapshot(&mut self) -> Arc<Predictor> {
        if self.built.samples == self.measured.samples
            && self.dirty.is_empty()
            && self.dirty_transfers == Dirty::No
            && self.dirty_startups == Dirty::No
        {
            return Arc::clone(&self.built);
        }
        let mut next = (*self.built).clone();
        next.samples = self.measured.samples;
        self.fit_tasks(&mut next);
        if self.dirty_transfers == Dirty::Yes {
            next.transfers = Arc::new(self.measured.transfers.fit());
        }
        if self.dirty_startups == Dirty::Yes {
            next.startups = Arc::new(self.measured.startups.fit());
        }
        (self.dirty_transfers, self.dirty_startups) = (Dirty::No, Dirty::No);
        self.built = Arc::new(next);
        Arc::clone(&self.built)
    }

    fn fit_tasks(&mut self, next: &mut Predictor) {
        let dirty = std::mem::take(&mut self.dirty);
        if dirty.is_empty() {
            return;
        }
        let mut prepared: BTreeMap<TaskName, Prepared> = BTreeMap::new();
        for name in dirty {
            let Some(task) = self.measured.tasks.get(&name) else { continue };
            let ready = task.prepare();
            self.believe(&name, &ready);
            prepared.insert(name, ready);
        }
        let pool = self.pool.coarse();
        if pool != self.pool_used {
            for name in &self.leaning {
                if let Some(task) = self.measured.tasks.get(name) {
                    prepared.entry(name.clone()).or_insert_with(|| task.prepare());
                }
            }
            self.pool_used = pool;
        }
        let tasks = Arc::make_mut(&mut next.tasks);
        for (name, ready) in prepared {
            if let Some(task) = self.measured.tasks.get(&name) {
                tasks.insert(name, Arc::new(task.fit(&ready, &self.pool_used)));
            }
        }
    }

    /// Replaces what a task tells the pool.
    fn believe(&mut self, name: &TaskName, ready: &Prepared) {
        if let Some(former) = self.beliefs.remove(name) {
            self.pool.remove(&former);
        }
        if let Some(belief) = ready.belief() {
            self.pool.add(&belief);
            self.beliefs.insert(name.clone(), belief);
        }
        if ready.leans_on_pool() {
            self.leaning.insert(name.clone());
        } else {
            self.leaning.remove(name);
        }
    }
}

/// Two models are equal when they were told the same.
impl PartialEq for WorkflowModel {
    fn eq(&self, other: &Self) -> bool {
        self.measured == other.measured
    }
}

impl Serialize for WorkflowModel {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.measured.serialize(to)
    }
}

impl<'de> Deserialize<'de> for WorkflowModel {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let measured = Measured::deserialize(from)?;
        let dirty = measured.tasks.keys().cloned().collect();
        let (dirty_transfers, dirty_startups) = (Dirty::Yes, Dirty::Yes);
        Ok(Self { measured, dirty, dirty_transfers, dirty_startups, ..Self::default() })
    }
}

fn version<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let version = u32::deserialize(from)?;
    if version != MODEL_VERSION {
        return Err(serde::de::Error::custom(format!(
            "the stored model has version `{version}`, this program reads {MODEL_VERSION}\n\
             hint: rebuild it from the raw batches"
        )));
    }
    Ok(version)
}
