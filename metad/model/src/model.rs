//! The mutable model of one workflow: takes records in, keeps a bounded amount, and gives immutable
//! predictors that share it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use foresail_schemas::TaskName;
use foresail_schemas::metric::{Record, TaskRecord};
use jiff::Timestamp;
use serde::ser::{SerializeMap, SerializeStruct};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::decision::DecisionModel;
use crate::pool::{Effect, Members, SharedPool};
use crate::predictor::{Derived, Predictor, TaskMap, Tasks};
use crate::score::Scores;
use crate::startup::StartupModel;
use crate::task::TaskModel;
use crate::transfer::TransferModel;

/// Version of the stored form, its first field; another version is refused.
pub const MODEL_VERSION: u32 = 5;
/// The version before decisions were kept, whose rest is read with an empty last field.
const VERSION_WITHOUT_DECISIONS: u32 = 4;
/// Most task names kept per workflow; records of further names are counted in [`WorkflowModel::samples`] and
/// otherwise left out, so that a flood of names cannot displace what is known.
pub const TASKS_PER_WORKFLOW_MAX: usize = 65_536;
/// Groups of records of one task among which that of a further record is looked for.
const GROUPS_SEARCHED_MAX: usize = 16;

/// The model of one workflow.
///
/// Its serde form is positional (postcard) or named (JSON) and holds what was measured, not what was fitted.
#[derive(Debug, Clone, Default)]
pub struct WorkflowModel {
    samples: u64,
    tasks: TaskMap,
    /// The scores of all tasks together.
    scores: Arc<Scores>,
    transfers: Arc<TransferModel>,
    startups: Arc<StartupModel>,
    decisions: Arc<DecisionModel>,
    members: Members,
    /// What changed since the last snapshot.
    changed: Changed,
    /// Tasks that changed since the last [`Self::take_changed`].
    unsaved: HashSet<TaskName>,
    /// Tasks that came since the last [`Self::take_new`].
    new: Vec<TaskName>,
    built: Arc<Predictor>,
}

/// One task of a model as it was at one moment, to be stored apart from the others.
///
/// It shares the measurements with the model and has their serde form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SavedTask(Arc<TaskModel>);

/// The rest of a model as it was at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedRest {
    #[serde(deserialize_with = "version_of_rest")]
    version: u32,
    samples: u64,
    scores: Arc<Scores>,
    transfers: Arc<TransferModel>,
    startups: Arc<StartupModel>,
    /// The last field: stored forms without it are read as such.
    decisions: Arc<DecisionModel>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Changed {
    tasks: Change,
    pool: Change,
    transfers: Change,
    startups: Change,
    decisions: Change,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Change {
    #[default]
    No,
    Yes,
}

impl WorkflowModel {
    /// A model that knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in one record in constant time; `arrival` stands in where the record has no time of its own.
    ///
    /// What a snapshot shares is copied before it is changed, per task and config. No time is later than the
    /// arrival: else one worker with a fast clock would be newer than everybody.
    pub fn update(&mut self, record: &Record, arrival: Timestamp) {
        let at_us = self.count(record, arrival);
        match record {
            Record::Task(r) => self.update_task(&r.task, |task| task.record(r, at_us)),
            Record::Transfer(r) => {
                Arc::make_mut(&mut self.transfers).record(r, at_us);
                self.changed.transfers = Change::Yes;
            }
            Record::Startup(r) => {
                Arc::make_mut(&mut self.startups).record(r, at_us);
                self.changed.startups = Change::Yes;
            }
            Record::Decision(r) => {
                Arc::make_mut(&mut self.decisions).record(r, at_us);
                self.changed.decisions = Change::Yes;
            }
        }
    }

    /// Takes in the records of a batch, like [`Self::update`] one after the other: those of a task together,
    /// so that it is looked for once.
    pub fn update_all(&mut self, records: &[Record], arrival: Timestamp) {
        let mut groups: Vec<(&TaskName, Vec<(&TaskRecord, i64)>)> = Vec::new();
        for record in records {
            let Record::Task(r) = record else {
                self.update(record, arrival);
                continue;
            };
            let at_us = self.count(record, arrival);
            // A name that came long ago begins another group: to look through all of many would take longer.
            let known = groups.iter_mut().rev().take(GROUPS_SEARCHED_MAX).find(|group| *group.0 == r.task);
            match known {
                Some((_, group)) => group.push((r, at_us)),
                None => groups.push((&r.task, vec![(r, at_us)])),
            }
        }
        for (name, group) in groups {
            self.update_task(name, |task| group.iter().for_each(|(r, at_us)| task.record(r, *at_us)));
        }
    }

    fn update_task(&mut self, name: &TaskName, change: impl FnOnce(&mut TaskModel)) {
        let has_two_shares = if let Some(task) = self.tasks.get_mut(name) {
            let task = Arc::make_mut(task);
            change(task);
            task.has_two_shares()
        } else if self.tasks.size() < TASKS_PER_WORKFLOW_MAX {
            let mut task = TaskModel::default();
            change(&mut task);
            let has_two_shares = task.has_two_shares();
            self.insert(name, Arc::new(task));
            has_two_shares
        } else {
            return;
        };
        if !self.unsaved.contains(name) {
            self.unsaved.insert(name.clone());
        }
        self.changed.tasks = Change::Yes;
        if has_two_shares && self.members.note(name) == Effect::Changed {
            self.changed.pool = Change::Yes;
        }
    }

    /// Takes in what a record tells the workflow as a whole, and gives its time; by itself for a record of a
    /// task that already contains it, because the task was stored later than the rest.
    pub fn count(&mut self, record: &Record, arrival: Timestamp) -> i64 {
        let at_us = time_us(record, arrival);
        self.samples += 1;
        if let Record::Task(TaskRecord { forecast: Some(forecast), exec_ms, .. }) = record {
            Arc::make_mut(&mut self.scores).record(forecast, *exec_ms, at_us);
        }
        at_us
    }

    /// Takes in what a record tells its task, and nothing else: for a task whose stored form was lost, while
    /// the rest contains the record.
    pub fn relearn(&mut self, record: &Record, arrival: Timestamp) {
        if let Record::Task(r) = record {
            self.update_task(&r.task, |task| task.record(r, time_us(record, arrival)));
        }
    }

    /// The tasks that changed since the last call, as they are now, in the order of their names. It copies
    /// nothing but pointers.
    pub fn take_changed(&mut self) -> Vec<(TaskName, SavedTask)> {
        let mut names: Vec<TaskName> = std::mem::take(&mut self.unsaved).into_iter().collect();
        names.sort_unstable();
        let saved = |name: TaskName| self.tasks.get(&name).map(|task| (name, SavedTask(Arc::clone(task))));
        names.into_iter().filter_map(saved).collect()
    }

    /// The tasks that came since the last call, in the order in which they came.
    pub fn take_new(&mut self) -> Vec<TaskName> {
        std::mem::take(&mut self.new)
    }

    /// Everything but the tasks, as it is now.
    #[must_use]
    pub fn rest(&self) -> SavedRest {
        SavedRest {
            version: MODEL_VERSION,
            samples: self.samples,
            scores: Arc::clone(&self.scores),
            transfers: Arc::clone(&self.transfers),
            startups: Arc::clone(&self.startups),
            decisions: Arc::clone(&self.decisions),
        }
    }

    /// The model of stored parts; none of its tasks counts as changed.
    #[must_use]
    pub fn from_saved(rest: SavedRest, tasks: impl Iterator<Item = (TaskName, SavedTask)>) -> Self {
        let SavedRest { samples, scores, transfers, startups, decisions, .. } = rest;
        let (yes, no) = (Change::Yes, Change::No);
        let changed = Changed { tasks: no, pool: no, transfers: yes, startups: yes, decisions: yes };
        let mut model = Self { samples, scores, transfers, startups, decisions, changed, ..Self::default() };
        for (name, SavedTask(task)) in tasks {
            model.place(&name, task);
        }
        model
    }

    fn place(&mut self, name: &TaskName, task: Arc<TaskModel>) {
        if task.has_two_shares() && self.members.note(name) == Effect::Changed {
            self.changed.pool = Change::Yes;
        }
        self.changed.tasks = Change::Yes;
        self.insert(name, task);
    }

    fn insert(&mut self, name: &TaskName, task: Arc<TaskModel>) {
        self.tasks.insert_mut(name.clone(), task);
        self.new.push(name.clone());
    }

    /// Takes in everything that `other` was told.
    pub fn merge(&mut self, other: &Self) {
        self.samples += other.samples;
        Arc::make_mut(&mut self.scores).merge(&other.scores);
        let mut names: Vec<(&TaskName, &Arc<TaskModel>)> = other.tasks.iter().collect();
        names.sort_unstable_by_key(|(name, _)| *name);
        for (name, theirs) in names {
            self.update_task(name, |task| task.merge(theirs));
        }
        Arc::make_mut(&mut self.transfers).merge(&other.transfers);
        Arc::make_mut(&mut self.startups).merge(&other.startups);
        Arc::make_mut(&mut self.decisions).merge(&other.decisions);
        (self.changed.transfers, self.changed.startups) = (Change::Yes, Change::Yes);
        self.changed.decisions = Change::Yes;
    }

    /// Records taken in.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// The predictor of what was taken in so far.
    ///
    /// It fits nothing and copies nothing but pointers. Curves that former predictors fitted to measurements
    /// that did not change are shared.
    pub fn snapshot(&mut self) -> Arc<Predictor> {
        if self.built.samples == self.samples && self.changed == Changed::default() {
            return Arc::clone(&self.built);
        }
        let changed = std::mem::take(&mut self.changed);
        let mut next = (*self.built).clone();
        next.samples = self.samples;
        next.scores = Arc::clone(&self.scores);
        if changed.tasks == Change::Yes {
            let pool = match &next.tasks {
                Tasks::Measured(_, pool) if changed.pool == Change::No => Arc::clone(pool),
                Tasks::Measured(_, pool) => Arc::new(pool.after(&self.members)),
                Tasks::Fitted(_) => Arc::new(SharedPool::default().after(&self.members)),
            };
            next.tasks = Tasks::Measured(self.tasks.clone(), pool);
        }
        if changed.transfers == Change::Yes {
            next.transfers = Arc::new(Derived::new(Arc::clone(&self.transfers)));
        }
        if changed.startups == Change::Yes {
            next.startups = Arc::new(Derived::new(Arc::clone(&self.startups)));
        }
        if changed.decisions == Change::Yes {
            next.decisions = Arc::new(Derived::new(Arc::clone(&self.decisions)));
        }
        self.built = Arc::new(next);
        Arc::clone(&self.built)
    }
}

fn time_us(record: &Record, arrival: Timestamp) -> i64 {
    record.at().unwrap_or(arrival).min(arrival).as_microsecond()
}

/// Two models are equal when they were told the same.
impl PartialEq for WorkflowModel {
    fn eq(&self, other: &Self) -> bool {
        self.samples == other.samples
            && self.tasks == other.tasks
            && self.scores == other.scores
            && self.transfers == other.transfers
            && self.startups == other.startups
            && self.decisions == other.decisions
    }
}

/// The tasks in the order of their names, so that equal models have equal forms.
struct InOrder<'a>(&'a TaskMap);

impl Serialize for InOrder<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut tasks: Vec<_> = self.0.iter().collect();
        tasks.sort_unstable_by_key(|(name, _)| *name);
        let mut map = to.serialize_map(Some(tasks.len()))?;
        for (name, task) in tasks {
            map.serialize_entry(name, task)?;
        }
        map.end()
    }
}

impl Serialize for WorkflowModel {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut form = to.serialize_struct("WorkflowModel", 7)?;
        form.serialize_field("version", &MODEL_VERSION)?;
        form.serialize_field("samples", &self.samples)?;
        form.serialize_field("tasks", &InOrder(&self.tasks))?;
        form.serialize_field("scores", &self.scores)?;
        form.serialize_field("transfers", &self.transfers)?;
        form.serialize_field("startups", &self.startups)?;
        form.serialize_field("decisions", &self.decisions)?;
        form.end()
    }
}

#[derive(Deserialize)]
#[serde(rename = "WorkflowModel")]
struct Stored {
    #[serde(deserialize_with = "version")]
    version: u32,
    samples: u64,
    tasks: BTreeMap<TaskName, SavedTask>,
    scores: Arc<Scores>,
    transfers: Arc<TransferModel>,
    startups: Arc<StartupModel>,
    decisions: Arc<DecisionModel>,
}

impl<'de> Deserialize<'de> for WorkflowModel {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Stored { version, samples, tasks, scores, transfers, startups, decisions } =
            Stored::deserialize(from)?;
        let rest = SavedRest { version, samples, scores, transfers, startups, decisions };
        let mut model = Self::from_saved(rest, tasks.into_iter());
        model.unsaved = model.tasks.keys().cloned().collect();
        Ok(model)
    }
}

fn version_of_rest<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    match u32::deserialize(from)? {
        VERSION_WITHOUT_DECISIONS => Ok(MODEL_VERSION),
        version => checked(version),
    }
}

fn version<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    checked(u32::deserialize(from)?)
}

fn checked<E: serde::de::Error>(version: u32) -> Result<u32, E> {
    if version != MODEL_VERSION {
        return Err(E::custom(format!(
            "the stored model has version `{version}`, this program reads {MODEL_VERSION}\n\
             hint: rebuild it from the raw batches"
        )));
    }
    Ok(version)
}
