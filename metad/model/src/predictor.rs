//! The immutable answerer of one workflow: shared, serialisable, each curve fitted at the first question that
//! needs it.
//!
//! A predictor that went through JSON or another serde format and back answers identically; the stored form
//! has every curve, so that making it fits what no question has asked for yet.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use foresail_schemas::prediction::{Basis, Prediction, Query, Unit};
use foresail_schemas::{Sla, TaskName};
use rpds::HashTrieMapSync;
use serde::ser::{SerializeMap, SerializeStruct};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::answers::{Answers, TaskPredictor};
use crate::config::ConfigKey;
use crate::decision::{DecisionModel, DecisionPredictor};
use crate::pool::SharedPool;
use crate::report::{ConfigReport, TaskReport, report};
use crate::score::Scores;
use crate::shape::Pool;
use crate::startup::{StartupModel, StartupPredictor};
use crate::task::TaskModel;
use crate::transfer::{TransferModel, TransferPredictor};

/// Version of the serialised form, its first field; another version is refused.
pub const PREDICTOR_VERSION: u32 = 8;

/// Tasks by name; a copy shares all but the path to what is changed in it.
pub type TaskMap = HashTrieMapSync<TaskName, Arc<TaskModel>>;

/// Answers questions about one workflow.
#[derive(Debug, Clone, Default)]
pub struct Predictor {
    pub(crate) samples: u64,
    pub(crate) tasks: Tasks,
    /// Empty in a download: scores say how good the answers were and are no part of them.
    pub(crate) scores: Arc<Scores>,
    pub(crate) transfers: Arc<Derived<TransferModel, TransferPredictor>>,
    pub(crate) startups: Arc<Derived<StartupModel, StartupPredictor>>,
    pub(crate) decisions: Arc<Derived<DecisionModel, DecisionPredictor>>,
}

/// An answer that has much to be fitted first, and was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cold;

/// The tasks of a snapshot or of a download.
#[derive(Debug, Clone)]
pub enum Tasks {
    /// Measurements with the curves that were asked for, and what tasks tell each other.
    Measured(TaskMap, Arc<SharedPool>),
    /// Curves.
    Fitted(Arc<BTreeMap<TaskName, TaskPredictor>>),
}

impl Default for Tasks {
    fn default() -> Self {
        Self::Measured(TaskMap::default(), Arc::default())
    }
}

/// Measurements, and what is fitted to all of them at the first question; a download has the fit alone.
#[derive(Debug)]
pub struct Derived<M, F> {
    measured: Arc<M>,
    fit: OnceLock<F>,
}

impl<M, F> Derived<M, F> {
    /// To be fitted later.
    pub fn new(measured: Arc<M>) -> Self {
        Self { measured, fit: OnceLock::new() }
    }

    fn get(&self, fit: impl FnOnce(&M) -> F) -> &F {
        self.fit.get_or_init(|| fit(&self.measured))
    }

    fn is_fitted(&self) -> bool {
        self.fit.get().is_some()
    }
}

impl<M: Default, F> From<F> for Derived<M, F> {
    fn from(fit: F) -> Self {
        Self { measured: Arc::default(), fit: OnceLock::from(fit) }
    }
}

impl<M: Default, F> Default for Derived<M, F> {
    fn default() -> Self {
        Self::new(Arc::default())
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

    /// What it knows about `query`, where it knows something.
    #[must_use]
    pub fn known(&self, query: &Query, slas: &[Sla]) -> Option<Prediction> {
        self.answer(query, slas)
    }

    /// The same, where at most one curve of one config has to be fitted first, which takes some hundred
    /// microseconds at most.
    ///
    /// # Errors
    /// [`Cold`] where it takes longer: the curve over all configs of a task, which may ask up to 24 other
    /// tasks about the shape, its output sizes, or all transfers, starts or decisions.
    pub fn known_warm(&self, query: &Query, slas: &[Sla]) -> Result<Option<Prediction>, Cold> {
        let is_cold = match (query, &self.tasks) {
            (Query::ExecutionTime { task, input_bytes, memory_mb, vcpu }, tasks) => {
                let Some(answers) = self.task(task) else { return Ok(None) };
                let pool = if let Tasks::Measured(_, pool) = tasks { pool.known() } else { None };
                return answers.exec_warm(ConfigKey::new(*memory_mb, *vcpu), *input_bytes, slas, pool);
            }
            (Query::OutputSize { task, .. }, Tasks::Measured(tasks, _)) => {
                tasks.get(task).is_some_and(|task| !task.is_output_fitted())
            }
            (Query::OutputSize { .. }, Tasks::Fitted(_)) => false,
            (Query::TransferTime { .. }, _) => !self.transfers.is_fitted(),
            (Query::StartupTime { .. }, _) => !self.startups.is_fitted(),
            (Query::Decision { .. }, _) => !self.decisions.is_fitted(),
        };
        if is_cold { Err(Cold) } else { Ok(self.answer(query, slas)) }
    }

    /// The tasks it knows, in the order of their names.
    pub fn tasks(&self) -> impl Iterator<Item = &TaskName> {
        let mut names: Vec<&TaskName> = match &self.tasks {
            Tasks::Measured(tasks, _) => tasks.keys().collect(),
            Tasks::Fitted(tasks) => tasks.keys().collect(),
        };
        names.sort_unstable();
        names.into_iter()
    }

    /// Up to `limit` of the tasks it knows behind a name, in the order of their names.
    #[must_use]
    pub fn tasks_after(&self, after: Option<&TaskName>, limit: usize) -> Vec<&TaskName> {
        let is_behind = |name: &&TaskName| after.is_none_or(|after| *name > after);
        let mut names: Vec<&TaskName> = match &self.tasks {
            Tasks::Measured(tasks, _) => tasks.keys().filter(is_behind).collect(),
            Tasks::Fitted(tasks) => tasks.keys().filter(is_behind).take(limit).collect(),
        };
        if limit < names.len() {
            // A page sorts itself, not all that is behind it.
            names.select_nth_unstable(limit);
            names.truncate(limit);
        }
        names.sort_unstable();
        names
    }

    /// How many tasks it knows.
    #[must_use]
    pub fn task_count(&self) -> usize {
        match &self.tasks {
            Tasks::Measured(tasks, _) => tasks.size(),
            Tasks::Fitted(tasks) => tasks.len(),
        }
    }

    /// Whether it knows a task.
    #[must_use]
    pub fn has_task(&self, task: &TaskName) -> bool {
        match &self.tasks {
            Tasks::Measured(tasks, _) => tasks.contains_key(task),
            Tasks::Fitted(tasks) => tasks.contains_key(task),
        }
    }

    /// Records behind it.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Executions of a task behind it.
    #[must_use]
    pub fn task_samples(&self, task: &TaskName) -> u64 {
        self.task(task).map_or(0, |answers| answers.samples())
    }

    /// How well plans predicted all tasks together; a download has no scores.
    #[must_use]
    pub fn scores(&self) -> &Scores {
        &self.scores
    }

    /// How well plans predicted a task, where one did; a download has no scores.
    #[must_use]
    pub fn task_scores(&self, task: &TaskName) -> Option<&Scores> {
        match &self.tasks {
            Tasks::Measured(tasks, _) => tasks.get(task).and_then(|task| task.scores()),
            Tasks::Fitted(_) => None,
        }
    }

    /// What is known of a task.
    #[must_use]
    pub fn report(&self, task: &TaskName) -> Option<TaskReport> {
        let measured = if let Tasks::Measured(tasks, _) = &self.tasks { tasks.get(task) } else { None };
        let peaks = measured.and_then(|task| task.peaks());
        self.task(task).map(|answers| report(task, &answers, self.task_scores(task), peaks))
    }

    /// The part of [`Self::report`] that needs no curve, without peak memory, in the order of the configs;
    /// empty where the task is not known.
    #[must_use]
    pub fn configs(&self, task: &TaskName) -> Vec<ConfigReport> {
        let histories = self.task(task).map_or_else(Vec::new, |answers| answers.histories());
        histories.iter().map(|(key, history)| history.report(*key, None)).collect()
    }

    fn answer(&self, query: &Query, slas: &[Sla]) -> Option<Prediction> {
        match query {
            Query::ExecutionTime { task, input_bytes, memory_mb, vcpu } => {
                self.task(task)?.exec(ConfigKey::new(*memory_mb, *vcpu), *input_bytes, slas)
            }
            Query::OutputSize { task, input_bytes } => self.task(task)?.output(*input_bytes, slas),
            Query::TransferTime { direction, bytes, memory_mb, vcpu, store } => {
                let key = ConfigKey::new(*memory_mb, *vcpu);
                self.transfers().predict(*direction, store.as_ref(), key, *bytes, slas)
            }
            Query::StartupTime { state, memory_mb, vcpu } => {
                self.startups().predict(*state, ConfigKey::new(*memory_mb, *vcpu), slas)
            }
            Query::Decision { task, input_bytes } => self.decisions().predict(task, *input_bytes, slas),
        }
    }

    fn task<'a>(&'a self, name: &TaskName) -> Option<Answers<'a, impl Fn() -> &'a Arc<Pool>>> {
        match &self.tasks {
            Tasks::Measured(tasks, pool) => {
                let tell = |name: &TaskName, sum: &mut Pool| {
                    if let Some(told) = tasks.get(name).map(|task| task.told())
                        && let Some(belief) = &told.belief
                    {
                        sum.add(belief);
                        sum.steps.add(told.steps());
                    }
                };
                tasks.get(name).map(|task| Answers::Measured(task, move || pool.get(tell)))
            }
            Tasks::Fitted(tasks) => tasks.get(name).map(Answers::Fitted),
        }
    }

    /// All curves of a task.
    pub(crate) fn fitted(&self, task: &TaskName) -> Option<TaskPredictor> {
        self.task(task).map(|answers| answers.fitted())
    }

    pub(crate) fn transfers(&self) -> &TransferPredictor {
        self.transfers.get(TransferModel::fit)
    }

    pub(crate) fn startups(&self) -> &StartupPredictor {
        self.startups.get(StartupModel::fit)
    }

    pub(crate) fn decisions(&self) -> &DecisionPredictor {
        self.decisions.get(DecisionModel::fit)
    }
}

fn unknown(query: &Query, slas: &[Sla]) -> Prediction {
    Prediction {
        unit: match query {
            Query::OutputSize { .. } => Unit::Bytes,
            Query::Decision { .. } => Unit::Tasks,
            Query::ExecutionTime { .. } | Query::TransferTime { .. } | Query::StartupTime { .. } => Unit::Ms,
        },
        values: slas.iter().map(|sla| (*sla, None)).collect(),
        basis: Basis::None,
        samples: 0,
        extrapolated: false,
        interval: BTreeMap::new(),
        branches: BTreeMap::new(),
    }
}

/// Equal when they answer alike: all curves are the same.
impl PartialEq for Predictor {
    fn eq(&self, other: &Self) -> bool {
        self.samples == other.samples
            && self.tasks().eq(other.tasks())
            && self.tasks().all(|name| self.fitted(name) == other.fitted(name))
            && self.transfers() == other.transfers()
            && self.startups() == other.startups()
            && self.decisions() == other.decisions()
    }
}

/// The tasks with all their curves, one at a time.
struct AllFitted<'a>(&'a Predictor);

impl Serialize for AllFitted<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.task_count()))?;
        for name in self.0.tasks() {
            if let Some(task) = self.0.fitted(name) {
                map.serialize_entry(name, &task)?;
            }
        }
        map.end()
    }
}

impl Serialize for Predictor {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut form = to.serialize_struct("Predictor", 6)?;
        form.serialize_field("version", &PREDICTOR_VERSION)?;
        form.serialize_field("samples", &self.samples)?;
        form.serialize_field("tasks", &AllFitted(self))?;
        form.serialize_field("transfers", self.transfers())?;
        form.serialize_field("startups", self.startups())?;
        form.serialize_field("decisions", self.decisions())?;
        form.end()
    }
}

#[derive(Deserialize)]
#[serde(rename = "Predictor")]
struct Stored {
    #[serde(rename = "version", deserialize_with = "version")]
    _version: u32,
    samples: u64,
    tasks: BTreeMap<TaskName, TaskPredictor>,
    transfers: TransferPredictor,
    startups: StartupPredictor,
    decisions: DecisionPredictor,
}

impl<'de> Deserialize<'de> for Predictor {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Stored { samples, tasks, transfers, startups, decisions, .. } = Stored::deserialize(from)?;
        let tasks = Tasks::Fitted(Arc::new(tasks));
        let (transfers, startups) = (Arc::new(transfers.into()), Arc::new(startups.into()));
        let decisions = Arc::new(decisions.into());
        Ok(Self { samples, tasks, transfers, startups, decisions, scores: Arc::default() })
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
