//! The learner: the one thread that has the mutable models.
//!
//! It gets batches only after they are durable, so a model never contains what the disk does not have. It
//! takes all lessons that wait, updates, swaps the new world in, and then answers the batches, so that
//! whoever reads after the answer sees an epoch at least as young. It fits nothing: a snapshot shares the
//! measurements with the model, and the first question that needs a curve fits it, so that a batch over a
//! thousand tasks costs its updates and no more. It has a thread of its own so that neither the operations
//! of runs, which share the writer, nor any read waits for it. Only a short lesson that comes while nothing
//! else is learnt is learnt by the writer itself ([`School`]): waking a thread takes longer than that.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use foresail_model::{SavedRest, SavedTask, WorkflowModel};
use foresail_schemas::TaskName;
use foresail_schemas::id::WorkflowName;
use foresail_schemas::metric::{BatchAnswer, Record};
use foresail_schemas::{ErrorCode, Problem};

use super::Reply;
use crate::shared::Shared;
use crate::store::models::{Former, Piece, Saved};
use crate::store::workflows::WorkflowRow;
use crate::world::{Update, View};

/// Lessons that may wait for the learner; the writer waits when there are more.
const LESSONS_MAX: usize = 4;
/// Bytes of stored tasks from which on a piece of a checkpoint is full: some milliseconds of encoding.
const PIECE_BYTES: usize = 1 << 20;
/// Longest wait for the writer to take a piece before the learner looks again.
const PIECE_LOOK: Duration = Duration::from_millis(2);

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

/// The piece of a checkpoint that is on its way to the writer; at most one.
#[derive(Debug, Default)]
pub struct Mailbox(Mutex<Option<Piece>>);

impl Mailbox {
    fn put(&self, piece: Piece) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(piece);
    }

    /// What has come.
    #[must_use]
    pub fn take(&self) -> Option<Piece> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
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
    /// What its next checkpoint does with the stored tasks.
    former: Former,
}

impl Model {
    /// A model up to batch `sequence`, `unsaved` records of which no checkpoint contains.
    #[must_use]
    pub fn new(model: WorkflowModel, sequence: u64, unsaved: u64, former: Former) -> Self {
        Self { model, sequence, unsaved, unsaved_since: (unsaved > 0).then(Instant::now), former }
    }

    fn learn(&mut self, batch: &Learnt) {
        self.model.update_all(&batch.records, batch.arrival);
        self.sequence = batch.sequence;
        self.unsaved += batch.records.len() as u64;
        self.unsaved_since.get_or_insert_with(Instant::now);
    }

    /// Begins a checkpoint of what is known now; later batches do not touch it.
    fn checkpoint(&mut self, workflow: u32) -> Checkpoint {
        (self.unsaved, self.unsaved_since) = (0, None);
        Checkpoint {
            workflow,
            sequence: self.sequence,
            former: std::mem::replace(&mut self.former, Former::Kept),
            tasks: self.model.take_changed().into_iter(),
            rest: self.model.rest(),
        }
    }
}

/// A checkpoint that is stored piece by piece, so that neither the learner nor the writer stops for it: a
/// large workflow takes a second to encode.
struct Checkpoint {
    workflow: u32,
    sequence: u64,
    former: Former,
    tasks: std::vec::IntoIter<(TaskName, SavedTask)>,
    rest: SavedRest,
}

impl Checkpoint {
    /// The next piece; the last one has the rest.
    fn next_piece(&mut self) -> Result<Piece, postcard::Error> {
        let (sequence, mut bytes, mut tasks) = (self.sequence, 0, Vec::new());
        while bytes < PIECE_BYTES
            && let Some((name, task)) = self.tasks.next()
        {
            let part = postcard::to_allocvec(&task)?;
            bytes += part.len();
            tasks.push((name, Saved { sequence, part }));
        }
        let rest = if self.tasks.len() == 0 {
            Some(Saved { sequence, part: postcard::to_allocvec(&self.rest)? })
        } else {
            None
        };
        let former = std::mem::replace(&mut self.former, Former::Kept);
        Ok(Piece { workflow: self.workflow, former, tasks, rest })
    }
}

/// Most records of a lesson that the writer learns itself: as many as take less time than a thread takes to
/// wake up.
const SHORT_RECORDS_MAX: usize = 64;

/// The learner, its thread, and the lessons on their way to it. The writer has it.
pub struct School {
    learner: Arc<Mutex<Learner>>,
    lessons: SyncSender<Lesson>,
    /// Lessons that were sent and are not learnt yet.
    under_way: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl School {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn open(learner: Learner) -> io::Result<Self> {
        let (lessons, received) = sync_channel(LESSONS_MAX);
        let (learner, under_way) = (Arc::new(Mutex::new(learner)), Arc::new(AtomicUsize::new(0)));
        let (pupil, left) = (Arc::clone(&learner), Arc::clone(&under_way));
        let thread = std::thread::Builder::new()
            .name("metad-learner".to_owned())
            .spawn(move || run(&pupil, &received, &left))?;
        Ok(Self { learner, lessons, under_way, thread })
    }

    /// Has a lesson learnt and answered, in the order in which they come.
    ///
    /// # Errors
    /// The lesson, when the learner is gone.
    pub fn teach(&self, lesson: Lesson) -> Result<(), Box<Lesson>> {
        let records: usize = lesson.batches.iter().map(|batch| batch.records.len()).sum();
        // Only this thread sends: none under way now means none before this one.
        if records <= SHORT_RECORDS_MAX
            && self.under_way.load(Ordering::Acquire) == 0
            && let Ok(mut learner) = self.learner.try_lock()
        {
            let workflows: Vec<u32> = lesson.rows.keys().copied().collect();
            learner.learn(vec![lesson]);
            if learner.has_many_unsaved(&workflows) {
                self.wake();
            }
            return Ok(());
        }
        self.under_way.fetch_add(1, Ordering::Release);
        self.lessons.send(lesson).map_err(|unsent| Box::new(unsent.0))
    }

    /// Has the thread look what is to be saved; with lessons on their way it does anyway.
    fn wake(&self) {
        self.under_way.fetch_add(1, Ordering::Release);
        if self.lessons.try_send(Lesson::default()).is_err() {
            self.under_way.fetch_sub(1, Ordering::Release);
        }
    }

    /// Ends the thread when it has learnt what was sent; nothing where it panicked.
    #[must_use]
    pub fn close(self) -> Option<Arc<Mutex<Learner>>> {
        drop(self.lessons);
        self.thread.join().ok().map(|()| self.learner)
    }
}

/// Learns until the writer lets go of the queue; what no checkpoint contains then waits for
/// [`Learner::save_next`].
fn run(learner: &Mutex<Learner>, lessons: &Receiver<Lesson>, under_way: &AtomicUsize) {
    let learner = || learner.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let look = learner().look();
        match lessons.recv_timeout(look) {
            Ok(first) => {
                let mut taken = vec![first];
                taken.extend(lessons.try_iter());
                let count = taken.len();
                taken.retain(|lesson| !lesson.is_empty());
                let mut learner = learner();
                if !taken.is_empty() {
                    learner.learn(taken);
                }
                under_way.fetch_sub(count, Ordering::Release);
                learner.save_what_is_due();
            }
            Err(RecvTimeoutError::Timeout) => learner().save_what_is_due(),
            Err(RecvTimeoutError::Disconnected) => return,
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
    /// The checkpoint that is being stored.
    saving: Option<Checkpoint>,
}

impl Learner {
    /// A learner that goes on from `models`, by number of the workflow.
    #[must_use]
    pub fn new(shared: Arc<Shared>, models: Vec<Model>, mailbox: Arc<Mailbox>) -> Self {
        let unsaved = (0u32..).zip(&models).filter(|(_, m)| m.unsaved > 0).map(|(n, _)| n).collect();
        Self { shared, models, mailbox, unsaved, saving: None }
    }

    /// How long to wait for a lesson before looking what is to be saved.
    fn look(&self) -> Duration {
        let idle = Duration::from_millis(self.shared.settings.checkpoint_ms.clamp(1, 1000));
        if self.saving.is_some() { PIECE_LOOK } else { idle }
    }

    fn learn(&mut self, lessons: Vec<Lesson>) {
        let began = Instant::now();
        let (mut rows, mut answers) = (BTreeMap::new(), Vec::new());
        for lesson in lessons {
            for batch in &lesson.batches {
                let place = batch.workflow as usize;
                // Numbers are given without gaps, and a workflow's first batch comes with its number.
                self.models.resize_with(self.models.len().max(place + 1), || {
                    Model::new(WorkflowModel::new(), 0, 0, Former::Kept)
                });
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
            let model = &mut self.models.get_mut(number as usize)?.model;
            let (new_tasks, predictor) = (model.take_new(), model.snapshot());
            Some(Update { view: Arc::new(View { name, number, row, predictor }), new_tasks })
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

    /// Whether one of `workflows` has as many records that no checkpoint contains as one is made for.
    fn has_many_unsaved(&self, workflows: &[u32]) -> bool {
        let records = self.shared.settings.checkpoint_records;
        let model = |number: &u32| self.models.get(*number as usize);
        self.saving.is_none()
            && workflows.iter().filter_map(model).any(|model| model.unsaved > 0 && model.unsaved >= records)
    }

    fn save_what_is_due(&mut self) {
        if self.saving.is_none() {
            let settings = &self.shared.settings;
            let (records, age) = (settings.checkpoint_records, Duration::from_millis(settings.checkpoint_ms));
            let due = |&n: &u32| {
                let model = &self.models[n as usize];
                model.unsaved >= records || model.unsaved_since.is_some_and(|since| since.elapsed() >= age)
            };
            let Some(workflow) = self.unsaved.iter().copied().find(due) else { return };
            self.begin(workflow);
        }
        if self.mailbox.is_empty() {
            self.put_piece();
            self.shared.wake_writer();
        }
    }

    /// Puts the next piece of what no checkpoint contains into the mailbox, which is empty; false where there
    /// is none left.
    pub fn save_next(&mut self) -> bool {
        if self.saving.is_none() {
            let Some(workflow) = self.unsaved.first().copied() else { return false };
            self.begin(workflow);
        }
        self.put_piece();
        true
    }

    fn begin(&mut self, workflow: u32) {
        self.unsaved.remove(&workflow);
        self.saving = Some(self.models[workflow as usize].checkpoint(workflow));
    }

    fn put_piece(&mut self) {
        let Some(checkpoint) = &mut self.saving else { return };
        match checkpoint.next_piece() {
            Ok(piece) => {
                if piece.rest.is_some() {
                    self.saving = None;
                }
                self.mailbox.put(piece);
            }
            Err(error) => {
                tracing::error!(%error, "a model has no stored form; it is rebuilt at the start");
                self.saving = None;
            }
        }
    }
}
