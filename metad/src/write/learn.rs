//! The learner: the one thread that has the mutable models.
//!
//! It gets batches only after they are durable, so a model never contains what the disk does not have. It
//! takes all lessons that wait, updates, swaps the new world in, and then answers the batches, so that whoever
//! reads after the answer sees an epoch at least as young. It fits nothing: a snapshot shares the
//! measurements with the model, and the first question that needs a curve fits it, so that a batch over a
//! thousand tasks costs its updates and no more. It has a thread of its own so that neither the operations
//! of runs, which share the writer, nor any read waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use foresail_model::WorkflowModel;
use foresail_schemas::id::WorkflowName;
use foresail_schemas::metric::{BatchAnswer, Record};
use foresail_schemas::{ErrorCode, Problem};

use super::Reply;
use crate::shared::Shared;
use crate::store::models::Checkpoint;
use crate::store::workflows::WorkflowRow;
use crate::world::View;

/// Batches of one commit group, on their way to the models.
#[derive(Default)]
pub struct Lesson {
    /// The batches, in the order of their sequences.
    pub batches: Vec<Learnt>,
    /// The workflows they changed, as they are after the group.
    pub rows: BTreeMap<u32, WorkflowRow>,
    /// The answers that wait for the new epoch, with the number of their workflow.
    pub answers: Vec<(Reply<BatchAnswer>, BatchAnswer, u32)>,
}

/// A batch that is durable.
pub struct Learnt {
    /// Number of its workflow.
    pub workflow: u32,
    /// Its sequence in the workflow.
    pub sequence: u64,
    /// When it arrived.
    pub arrival: jiff::Timestamp,
    /// Its records.
    pub records: Vec<Record>,
}

impl Lesson {
    /// Whether there is nothing to learn and nobody to answer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.answers.is_empty()
    }

    /// Answers everybody with a problem.
    pub fn refuse(self, problem: &Problem) {
        for (reply, ..) in self.answers {
            let _gone = reply.send(Err(problem.clone()));
        }
    }
}

/// Checkpoints on their way to the writer; at most one per workflow.
#[derive(Debug, Default)]
pub struct Mailbox(Mutex<BTreeMap<u32, Checkpoint>>);

impl Mailbox {
    fn put(&self, workflow: u32, checkpoint: Checkpoint) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(workflow, checkpoint);
    }

    /// What has come.
    #[must_use]
    pub fn take(&self) -> BTreeMap<u32, Checkpoint> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The model of one workflow.
pub struct Model {
    /// What was learnt.
    pub model: WorkflowModel,
    /// Sequence of the last batch in it.
    pub sequence: u64,
    /// Records that no checkpoint contains.
    pub unsaved: u64,
    /// Since when there are some.
    pub unsaved_since: Option<Instant>,
}

impl Model {
    /// A model up to batch `sequence`, `unsaved` records of which no checkpoint contains.
    #[must_use]
    pub fn new(model: WorkflowModel, sequence: u64, unsaved: u64) -> Self {
        Self { model, sequence, unsaved, unsaved_since: (unsaved > 0).then(Instant::now) }
    }

    fn learn(&mut self, batch: &Learnt) {
        for record in &batch.records {
            self.model.update(record, batch.arrival);
        }
        self.sequence = batch.sequence;
        self.unsaved += batch.records.len() as u64;
        self.unsaved_since.get_or_insert_with(Instant::now);
    }

    fn checkpoint(&mut self) -> Option<Checkpoint> {
        (self.unsaved, self.unsaved_since) = (0, None);
        match postcard::to_allocvec(&self.model) {
            Ok(model) => Some(Checkpoint { sequence: self.sequence, model }),
            Err(error) => {
                tracing::error!(%error, "a model has no stored form; it is rebuilt at the start");
                None
            }
        }
    }
}

/// The learner.
pub struct Learner {
    shared: Arc<Shared>,
    models: Vec<Model>,
    mailbox: Arc<Mailbox>,
    /// Workflows with records that no checkpoint contains.
    unsaved: BTreeSet<u32>,
}

impl Learner {
    /// A learner that goes on from `models`, by number of the workflow.
    #[must_use]
    pub fn new(shared: Arc<Shared>, models: Vec<Model>, mailbox: Arc<Mailbox>) -> Self {
        let unsaved = (0u32..).zip(&models).filter(|(_, m)| m.unsaved > 0).map(|(n, _)| n).collect();
        Self { shared, models, mailbox, unsaved }
    }

    /// Learns until the writer lets go of the queue, then puts the last checkpoints into the mailbox.
    pub fn run(mut self, lessons: &Receiver<Lesson>) {
        let look = Duration::from_millis(self.shared.settings.checkpoint_ms.clamp(1, 1000));
        loop {
            match lessons.recv_timeout(look) {
                Ok(first) => {
                    let mut taken = vec![first];
                    taken.extend(lessons.try_iter());
                    self.learn(taken);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.save_what_is_due();
        }
        for workflow in std::mem::take(&mut self.unsaved) {
            self.save(workflow);
        }
    }

    fn learn(&mut self, lessons: Vec<Lesson>) {
        let began = Instant::now();
        let (mut rows, mut answers) = (BTreeMap::new(), Vec::new());
        for lesson in lessons {
            for batch in &lesson.batches {
                let place = batch.workflow as usize;
                // Numbers are given without gaps, and a workflow's first batch comes with its number.
                self.models
                    .resize_with(self.models.len().max(place + 1), || Model::new(WorkflowModel::new(), 0, 0));
                self.models[place].learn(batch);
                if !batch.records.is_empty() {
                    self.unsaved.insert(batch.workflow);
                }
            }
            rows.extend(lesson.rows);
            answers.extend(lesson.answers);
        }
        self.publish(rows);
        self.shared.meter.fit(began.elapsed());
        self.answer(answers);
    }

    fn publish(&mut self, rows: BTreeMap<u32, WorkflowRow>) {
        let world = self.shared.world.load();
        let views = rows.into_iter().filter_map(|(number, row)| {
            let name = WorkflowName::new(&row.name).ok()?;
            let predictor = self.models.get_mut(number as usize)?.model.snapshot();
            Some(Arc::new(View { name, number, row, predictor }))
        });
        let next = world.with(views.collect());
        self.shared.world.store(Arc::new(next));
    }

    fn answer(&self, answers: Vec<(Reply<BatchAnswer>, BatchAnswer, u32)>) {
        let world = self.shared.world.load();
        for (reply, answer, workflow) in answers {
            let result = match world.views().get(workflow as usize) {
                Some(view) => Ok(BatchAnswer { epoch: view.epoch(), ..answer }),
                None => Err(Problem::new(ErrorCode::Internal, format!("workflow {workflow} has no model"))),
            };
            let _gone = reply.send(result);
        }
    }

    fn save_what_is_due(&mut self) {
        let settings = &self.shared.settings;
        let (records, age) = (settings.checkpoint_records, Duration::from_millis(settings.checkpoint_ms));
        let due =
            |m: &Model| m.unsaved >= records || m.unsaved_since.is_some_and(|since| since.elapsed() >= age);
        let due: Vec<u32> = self.unsaved.iter().copied().filter(|&n| due(&self.models[n as usize])).collect();
        for workflow in &due {
            self.unsaved.remove(workflow);
            self.save(*workflow);
        }
        if !due.is_empty() {
            self.shared.wake_writer();
        }
    }

    fn save(&mut self, workflow: u32) {
        if let Some(checkpoint) = self.models[workflow as usize].checkpoint() {
            self.mailbox.put(workflow, checkpoint);
        }
    }
}
