//! What predictions are answered from: one immutable state of all workflows, replaced as a whole.
//!
//! A [`World`] is never changed. The learner builds the next one and swaps it in, so that a reader holds a
//! consistent state for as long as it likes and waits for nobody. Its epoch grows by one with every commit
//! group that had batches; the epoch of a [`View`] is that of the last group with a batch of its workflow.
//!
//! A question about a task that its own workflow does not know costs one look at an index by task name
//! ([`knowers`]) and the few workflows it lists, however many workflows there are.

mod knowers;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, LazyLock};

use foresail_model::{Cold, Predictor};
use foresail_schemas::id::WorkflowName;
use foresail_schemas::prediction::{Basis, Prediction, Query};
use foresail_schemas::{Sla, TaskName};

use crate::store::workflows::WorkflowRow;
use knowers::Knowers;

/// Most other workflows that are asked when a workflow knows nothing itself.
pub const PRIOR_CANDIDATES_MAX: usize = 8;

/// What says that nothing is known.
static BLANK: LazyLock<Arc<Predictor>> = LazyLock::new(Arc::default);

/// All workflows at one epoch.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The epoch.
    pub epoch: u64,
    numbers: Arc<HashMap<WorkflowName, u32>>,
    views: Vec<Arc<View>>,
    /// Numbers of the workflows with the most samples, most first.
    largest: Vec<u32>,
    knowers: Knowers,
}

/// What a workflow has become.
pub struct Update {
    /// Its new state.
    pub view: Arc<View>,
    /// The tasks that its former state did not know.
    pub new_tasks: Vec<TaskName>,
}

/// One workflow at one epoch.
#[derive(Debug, Clone)]
pub struct View {
    /// Its name.
    pub name: WorkflowName,
    /// Its number in the store.
    pub number: u32,
    /// What was counted of it.
    pub row: WorkflowRow,
    /// What it learnt.
    pub predictor: Arc<Predictor>,
}

impl View {
    /// Epoch of its last batch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.row.epoch
    }
}

/// A prediction and the epoch of the youngest model that it rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The epoch.
    pub epoch: u64,
    /// The prediction.
    pub prediction: Prediction,
}

impl World {
    /// The workflows of the store at the start, by number.
    #[must_use]
    pub fn new(workflows: Vec<Update>) -> Self {
        Self::default().with(workflows)
    }

    /// The same with some workflows replaced or added; a new one has the next number.
    #[must_use]
    pub fn with(&self, changed: Vec<Update>) -> Self {
        let (mut next, mut new) = (self.clone(), Vec::new());
        for Update { view, new_tasks } in changed {
            new.extend(new_tasks.into_iter().map(|task| (task, view.number)));
            next.epoch = next.epoch.max(view.epoch());
            let place = view.number as usize;
            if place < next.views.len() {
                next.views[place] = view;
            } else {
                Arc::make_mut(&mut next.numbers).insert(view.name.clone(), view.number);
                next.views.push(view);
            }
        }
        for (task, number) in new {
            next.knowers.note(&task, number, |n| next.views[n as usize].row.accepted);
        }
        next.largest = (0..next.views.len() as u32).collect();
        let samples = |&n: &u32| std::cmp::Reverse(next.views[n as usize].row.accepted);
        let head = PRIOR_CANDIDATES_MAX.min(next.largest.len());
        if head < next.largest.len() {
            next.largest.select_nth_unstable_by_key(head, |n| (samples(n), *n));
        }
        next.largest.truncate(head + 1);
        next.largest.sort_unstable_by_key(|n| (samples(n), *n));
        next
    }

    /// A workflow.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<View>> {
        self.numbers.get(name).map(|&n| &self.views[n as usize])
    }

    /// All workflows, by number.
    #[must_use]
    pub fn views(&self) -> &[Arc<View>] {
        &self.views
    }

    /// Somebody who answers questions about `workflow`, known or not.
    #[must_use]
    pub fn oracle(&self, workflow: &str) -> Oracle<'_> {
        Oracle { world: self, own: self.get(workflow), priors: HashMap::new() }
    }
}

/// Answers the questions of one request; remembers which workflows know a task that its own does not.
pub struct Oracle<'a> {
    world: &'a World,
    own: Option<&'a Arc<View>>,
    priors: HashMap<TaskName, Vec<&'a Arc<View>>>,
}

impl<'a> Oracle<'a> {
    /// Epoch of the workflow asked for; 0 where it is not known.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.own.map_or(0, |v| v.epoch())
    }

    /// Answers one question: from the workflow itself, or, where it knows nothing, from the workflow with the
    /// most samples that knows something, of those that the index lists.
    pub fn answer(&mut self, query: &Query, slas: &[Sla]) -> Answer {
        let known: Result<_, Infallible> = self.ask(query, |predictor| Ok(predictor.known(query, slas)));
        let Ok(known) = known;
        known.unwrap_or_else(|| self.nothing(query, slas))
    }

    /// The same, where not much has to be fitted first.
    ///
    /// # Errors
    /// [`Cold`] where it has: the answer does not belong on the event loop.
    pub fn answer_warm(&mut self, query: &Query, slas: &[Sla]) -> Result<Answer, Cold> {
        let known = self.ask(query, |predictor| predictor.known_warm(query, slas))?;
        Ok(known.unwrap_or_else(|| self.nothing(query, slas)))
    }

    fn ask<E>(
        &mut self,
        query: &Query,
        ask: impl Fn(&Predictor) -> Result<Option<Prediction>, E>,
    ) -> Result<Option<Answer>, E> {
        let epoch = self.epoch();
        if let Some(own) = self.own
            && let Some(prediction) = ask(&own.predictor)?
        {
            return Ok(Some(Answer { epoch, prediction }));
        }
        for prior in self.candidates(query) {
            if let Some(borrowed) = ask(&prior.predictor)? {
                let prediction = Prediction { basis: Basis::Prior, ..borrowed };
                return Ok(Some(Answer { epoch: epoch.max(prior.epoch()), prediction }));
            }
        }
        Ok(None)
    }

    fn nothing(&self, query: &Query, slas: &[Sla]) -> Answer {
        Answer { epoch: self.epoch(), prediction: BLANK.predict(query, slas) }
    }

    fn candidates(&mut self, query: &Query) -> Vec<&'a Arc<View>> {
        match query {
            Query::ExecutionTime { task, .. }
            | Query::OutputSize { task, .. }
            | Query::Decision { task, .. } => {
                if let Some(known) = self.priors.get(task) {
                    return known.clone();
                }
                let found = self.knowing(task);
                self.priors.insert(task.clone(), found.clone());
                found
            }
            Query::TransferTime { .. } | Query::StartupTime { .. } => {
                let own = self.own.map(|v| v.number);
                let others = self.world.largest.iter().filter(|n| Some(**n) != own);
                others.map(|&n| &self.world.views[n as usize]).take(PRIOR_CANDIDATES_MAX).collect()
            }
        }
    }

    /// Other workflows that know `task`, those with the most samples first.
    fn knowing(&self, task: &TaskName) -> Vec<&'a Arc<View>> {
        let own = self.own.map(|v| v.number);
        let others = self.world.knowers.of(task).iter().filter(|n| Some(**n) != own);
        let mut found: Vec<_> = others.map(|&n| &self.world.views[n as usize]).collect();
        found.sort_by_key(|v| (std::cmp::Reverse(v.row.accepted), v.number));
        found.truncate(PRIOR_CANDIDATES_MAX);
        found
    }
}

#[cfg(test)]
mod tests {
    use foresail_model::WorkflowModel;
    use foresail_schemas::metric::{Record, TaskRecord};

    use super::*;

    fn update(name: &str, number: u32, epoch: u64, task: &str, samples: u64, exec_ms: f64) -> Update {
        let mut model = WorkflowModel::new();
        let record = TaskRecord {
            task: TaskName::new(task).unwrap(),
            memory_mb: 1769,
            vcpu: None,
            input_bytes: 100,
            output_bytes: None,
            exec_ms,
            peak_memory_mb: None,
            attempt: 1,
            at: None,
            forecast: None,
        };
        for second in 0..samples {
            let arrival = jiff::Timestamp::from_second(second as i64).unwrap();
            model.update(&Record::Task(record.clone()), arrival);
        }
        let row = WorkflowRow { epoch, accepted: samples, ..WorkflowRow::new(name) };
        let (name, new_tasks) = (WorkflowName::new(name).unwrap(), model.take_new());
        Update { view: Arc::new(View { name, number, row, predictor: model.snapshot() }), new_tasks }
    }

    fn question(task: &str) -> Query {
        let task = TaskName::new(task).unwrap();
        Query::ExecutionTime { task, input_bytes: 100, memory_mb: 1769, vcpu: None }
    }

    #[test]
    fn a_task_never_seen_borrows_from_the_workflow_with_the_most_samples() {
        let world = World::new(vec![
            update("few", 0, 1, "count", 12, 10.0),
            update("many", 1, 2, "count", 40, 500.0),
            update("own", 2, 3, "other", 5, 1.0),
        ]);
        let mut oracle = world.oracle("own");
        let answer = oracle.answer(&question("count"), &[Sla::MEDIAN]);
        assert_eq!(answer.prediction.basis, Basis::Prior);
        assert!(answer.prediction.values[&Sla::MEDIAN].unwrap() > 100.0);
        assert_eq!(answer.epoch, 3, "its own is the youngest");
        let mut unknown = world.oracle("never-seen");
        let answer = unknown.answer(&question("count"), &[Sla::MEDIAN]);
        assert_eq!((answer.prediction.basis, answer.epoch), (Basis::Prior, 2));
        let answer = unknown.answer(&question("nobody"), &[Sla::MEDIAN]);
        assert_eq!((answer.prediction.basis, answer.epoch), (Basis::None, 0));
        assert_eq!(answer.prediction.values[&Sla::MEDIAN], None);
    }

    #[test]
    fn a_changed_workflow_replaces_its_former_state_and_the_old_world_stays() {
        let old = World::new(vec![update("a", 0, 1, "count", 3, 10.0)]);
        let new = old.with(vec![update("b", 1, 2, "count", 1, 1.0), update("a", 0, 2, "count", 4, 10.0)]);
        assert_eq!((old.epoch, new.epoch), (1, 2));
        assert_eq!(old.get("a").unwrap().row.accepted, 3);
        assert_eq!(new.get("a").unwrap().row.accepted, 4);
        assert!(old.get("b").is_none() && new.get("b").is_some());
    }

    #[test]
    fn a_name_that_nobody_or_everybody_has_costs_no_look_at_every_workflow() {
        let all: Vec<_> = (0..500).map(|n| update(&format!("w{n}"), n, 1, "count", 1, 10.0)).collect();
        let world = World::new(all);
        let oracle = world.oracle("never-seen");
        let looks = |task: &str| oracle.knowing(&TaskName::new(task).unwrap()).len();
        assert_eq!((looks("nobody"), looks("count")), (0, PRIOR_CANDIDATES_MAX));
        assert_eq!(world.knowers.of(&TaskName::new("count").unwrap()).len(), knowers::KNOWERS_MAX);
        let mut own = world.oracle("w3");
        assert_eq!(own.answer(&question("nobody"), &[Sla::MEDIAN]).prediction.basis, Basis::None);
    }
}
