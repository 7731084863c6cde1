//! The writer: the one thread that changes the store and the state of runs.
//!
//! It takes all changes that wait (up to `group_max`), applies them, stores them together with one sync of
//! the journal, and only then answers and shows them: what was answered survives a crash, and nobody has seen
//! what does not. Batches go on to the learner, which answers them when the new model is published, so that a
//! read after the answer sees it.
//!
//! When a commit fails, memory is ahead of the disk and it is not known what the disk has. All changes of the
//! group are answered with `store_failed`, and so is every later one until the daemon is started again.

mod ingest;
mod learn;
mod live_runs;
mod resume;
mod run_changes;
#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use foresail_schemas::metric::{BatchAnswer, Quarantined, Record, Rejected};
use foresail_schemas::run::{
    Operation, OperationAnswer, Replanning, Resume, RunCreated, RunEvent, RunOptions,
};
use foresail_schemas::{BatchId, InstanceId, Plan, Problem, RunId, Workflow, WorkflowName};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

pub use ingest::Catalog;
pub use learn::{Learner, Model};
pub use live_runs::{Runs, recover as recover_run};

use crate::shared::{Shared, store_failed};
use crate::store::{StoreError, StoreWriter, WriteGroup};
use learn::{Lesson, Mailbox, School};

/// Where the answer to a change goes.
pub type Reply<T> = oneshot::Sender<Result<T, Problem>>;

/// A change.
pub enum Command {
    /// Store a batch.
    Ingest(Box<Ingest>, Reply<BatchAnswer>),
    /// Start keeping a run.
    CreateRun(Box<NewRun>, Reply<RunCreated>),
    /// Replace a plan; answers the new epoch.
    Replan(Box<NewPlan>, Reply<u64>),
    /// Apply operations to a run.
    Operate(RunId, Vec<Operation>, Reply<OperationAnswer>),
    /// Store what was decided elsewhere.
    Mirror(Box<Mirrored>, Reply<()>),
    /// Store a blob of a run.
    PutBlob(RunId, String, bytes::Bytes, Reply<()>),
    /// Remove a blob of a run.
    DropBlob(RunId, String, Reply<()>),
    /// Look into the mailbox.
    Wake,
    /// Finish what waits, then end.
    Stop,
}

/// A batch whose records were checked.
#[derive(Debug, Clone)]
pub struct Ingest {
    /// The workflow.
    pub workflow: WorkflowName,
    /// Its id.
    pub batch_id: BatchId,
    /// The run it belongs to.
    pub run: Option<RunId>,
    /// Who measured.
    pub worker: Option<InstanceId>,
    /// When it arrived.
    pub arrival: jiff::Timestamp,
    /// The good records.
    pub records: Vec<Record>,
    /// The bad ones, as they came.
    pub rejected: Vec<(Rejected, serde_json::Value)>,
    /// Its place in the log that several replicas follow; nothing where it comes from a request.
    pub place: Option<u64>,
}

impl Ingest {
    fn quarantined(&self) -> impl Iterator<Item = Quarantined> {
        self.rejected.iter().map(|(rejected, record)| Quarantined {
            batch_id: self.batch_id.clone(),
            at: self.arrival,
            rejected: rejected.clone(),
            record: record.clone(),
        })
    }
}

/// A run to be kept; the plan was checked against the workflow.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Its id, where the client chose one.
    pub run: Option<RunId>,
    /// The workflow.
    pub workflow: Workflow,
    /// The plan.
    pub plan: Plan,
    /// Limits and intervals.
    pub options: RunOptions,
    /// The run whose results it takes over.
    pub resume: Option<Resume>,
    /// The workflow as JSON.
    pub workflow_json: Vec<u8>,
    /// The plan as JSON.
    pub plan_json: Vec<u8>,
}

/// What becomes of a new plan.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// It replaces the one in force, for this reason where one is said.
    InForce(Option<Replanning>),
    /// It is kept beside the one in force.
    Suggested(Replanning),
}

/// A plan to replace the one in force, or to be kept beside it.
#[derive(Debug, Clone)]
pub struct NewPlan {
    /// The run.
    pub run: RunId,
    /// Epoch of the plan that it replaces.
    pub expected_epoch: u64,
    /// The plan.
    pub plan: Plan,
    /// As it is kept: the plan as JSON, of a suggested one the request that would put it in force.
    pub json: Vec<u8>,
    /// What becomes of it.
    pub standing: Standing,
}

/// What came of a run whose state is decided elsewhere.
#[derive(Debug, Clone)]
pub struct Mirrored {
    /// The run.
    pub run: RunId,
    /// Its events, in order; those that are stored already are passed over.
    pub events: Vec<RunEvent>,
    /// The plans that they put in force or suggest.
    pub plans: Vec<NewPlan>,
}

/// Sends one answer: the prepared one, or the problem that kept the group from the disk.
type Answer = Box<dyn FnOnce(Option<Problem>) + Send>;

/// The changes that share a commit.
struct Group {
    store: Arc<StoreWriter>,
    writes: Option<WriteGroup>,
    answers: Vec<Answer>,
    lesson: Lesson,
}

impl Group {
    /// The transaction; begun at the first write, so that a group of reads and heartbeats costs no fsync.
    fn writes(&mut self) -> Result<&WriteGroup, StoreError> {
        if self.writes.is_none() {
            self.writes = Some(self.store.begin()?);
        }
        Ok(self.writes.as_ref().expect("it was begun in the line before"))
    }

    /// Answers once the group is durable.
    fn answer<T: Send + 'static>(&mut self, reply: Reply<T>, result: Result<T, Problem>) {
        self.answers.push(Box::new(move |failed| {
            // Nobody there any more: the request timed out, the change stands.
            let _gone = reply.send(failed.map_or(result, Err));
        }));
    }
}

/// Time without a change after which the database commits what it has, so that the first reader need not.
const SHOW_AFTER: Duration = Duration::from_millis(2);

/// The writer.
pub struct Writer {
    shared: Arc<Shared>,
    store: Arc<StoreWriter>,
    queue: mpsc::Receiver<Command>,
    catalog: Catalog,
    runs: Runs,
    mailbox: Arc<Mailbox>,
    /// Waits with a limit.
    clock: Runtime,
    /// There until everything is learnt.
    school: Option<School>,
}

/// Without the writer no change is taken, however it ended.
struct ClosesOnExit(Arc<Shared>);

impl Drop for ClosesOnExit {
    fn drop(&mut self) {
        self.0.health.store_failed();
    }
}

impl Writer {
    /// Starts the learner and the writer, each on a thread of its own.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn spawn(
        shared: Arc<Shared>,
        store: StoreWriter,
        queue: mpsc::Receiver<Command>,
        catalog: Catalog,
        models: Vec<Model>,
        runs: Runs,
    ) -> std::io::Result<JoinHandle<()>> {
        let mailbox = Arc::new(Mailbox::default());
        let school = School::open(Learner::new(Arc::clone(&shared), models, Arc::clone(&mailbox)))?;
        let (store, school) = (Arc::new(store), Some(school));
        let clock = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let mut writer = Self { shared, store, queue, catalog, runs, mailbox, clock, school };
        std::thread::Builder::new().name("metad-writer".to_owned()).spawn(move || {
            let _closes = ClosesOnExit(Arc::clone(&writer.shared));
            writer.run();
        })
    }

    fn run(&mut self) {
        let mut waiting = Vec::new();
        while let Some(first) = self.next() {
            waiting.push(first);
            while waiting.len() < self.shared.settings.group_max as usize
                && let Ok(next) = self.queue.try_recv()
            {
                waiting.push(next);
            }
            let stop = waiting.iter().any(|c| matches!(c, Command::Stop));
            self.group(std::mem::take(&mut waiting));
            if stop {
                break;
            }
            self.settle_what_is_due();
        }
        self.finish();
    }

    /// The next change; waits for it, and lets the database catch up with the journal when it is time.
    fn next(&mut self) -> Option<Command> {
        loop {
            if let Ok(next) = self.queue.try_recv() {
                return Some(next);
            }
            // One client that sends a change after the other waits for neither: its next one comes sooner
            // than the database could commit.
            self.unless_failed(StoreWriter::apply);
            match self.clock.block_on(async { timeout(SHOW_AFTER, self.queue.recv()).await }) {
                Ok(next) => return next,
                Err(_elapsed) => self.unless_failed(StoreWriter::show),
            }
            // After a failure there is nothing to catch up with until the next start.
            let unsettled = self.store.unsettled_since().filter(|_| self.shared.health.problem().is_none());
            let Some(since) = unsettled else { return self.queue.blocking_recv() };
            let left = self.settle_after().saturating_sub(since.elapsed());
            match self.clock.block_on(async { timeout(left, self.queue.recv()).await }) {
                Ok(next) => return next,
                Err(_elapsed) => self.settle_what_is_due(),
            }
        }
    }

    fn settle_after(&self) -> Duration {
        Duration::from_millis(self.shared.settings.journal_ms_max)
    }

    /// Answers have gone before this, so that no change waits for the database but the next.
    fn settle_what_is_due(&self) {
        if self.store.unsettled_since().is_some_and(|since| since.elapsed() >= self.settle_after()) {
            self.settle();
        }
    }

    fn settle(&self) {
        self.unless_failed(StoreWriter::settle);
    }

    fn unless_failed(&self, work: fn(&StoreWriter) -> Result<(), StoreError>) {
        if self.shared.health.problem().is_none()
            && let Err(error) = work(&self.store)
        {
            tracing::error!(%error, "the store failed; no change is taken until a restart");
            self.shared.health.store_failed();
        }
    }

    /// Carries out what still waits, lets the learner end, and stores the last checkpoints.
    fn finish(&mut self) {
        self.queue.close();
        while let Ok(command) = self.queue.try_recv() {
            self.group(vec![command]);
        }
        match self.school.take().map(School::close) {
            Some(Some(learner)) => {
                // What the learner still had on its way comes first, then what no checkpoint contains.
                self.group(vec![Command::Wake]);
                let save_next = || learner.lock().unwrap_or_else(PoisonError::into_inner).save_next();
                while save_next() && self.shared.health.problem().is_none() {
                    self.group(vec![Command::Wake]);
                }
            }
            Some(None) => tracing::error!(
                "the learner panicked; models are rebuilt from the raw batches at the next start"
            ),
            None => {}
        }
        self.settle();
        tracing::info!("everything is stored");
    }

    fn group(&mut self, commands: Vec<Command>) {
        if self.shared.health.problem().is_some() {
            refuse_all(commands);
            return;
        }
        let store = Arc::clone(&self.store);
        let mut group = Group { store, writes: None, answers: Vec::new(), lesson: Lesson::default() };
        let stored = self.apply_all(commands, &mut group).and_then(|()| self.commit(&mut group));
        let Group { answers, lesson, .. } = group;
        match stored {
            Ok(()) => {
                self.runs.publish(&self.shared);
                answers.into_iter().for_each(|answer| answer(None));
                self.teach(lesson);
            }
            Err(error) => {
                tracing::error!(%error, "the store failed; no change is taken until a restart");
                self.shared.health.store_failed();
                answers.into_iter().for_each(|answer| answer(Some(store_failed())));
                lesson.refuse(&store_failed());
            }
        }
    }

    fn apply_all(&mut self, commands: Vec<Command>, group: &mut Group) -> Result<(), StoreError> {
        let mut commands = commands.into_iter();
        while let Some(command) = commands.next() {
            if let Err(error) = self.apply(command, group) {
                refuse_all(commands.collect());
                return Err(error);
            }
        }
        self.catalog.write(group, &self.shared.settings)?;
        self.catalog.write_piece(self.mailbox.take(), group, &self.shared.meter)?;
        self.runs.write(group, &self.shared)
    }

    fn apply(&mut self, command: Command, group: &mut Group) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        match command {
            Command::Ingest(batch, reply) => self.catalog.ingest(*batch, reply, group, &shared),
            Command::CreateRun(new, reply) => self.runs.create(*new, reply, group, &shared),
            Command::Replan(new, reply) => self.runs.replan(*new, reply, group, &shared),
            Command::Operate(run, operations, reply) => {
                self.runs.operate(&run, &operations, reply, group, &shared)
            }
            Command::Mirror(mirrored, reply) => self.runs.mirror(*mirrored, reply, group, &shared),
            Command::PutBlob(run, key, content, reply) => {
                self.runs.put_blob(&run, &key, &content, reply, group, &shared)
            }
            Command::DropBlob(run, key, reply) => self.runs.drop_blob(&run, &key, reply, group, &shared),
            Command::Wake | Command::Stop => Ok(()),
        }
    }

    fn commit(&self, group: &mut Group) -> Result<(), StoreError> {
        let Some(writes) = group.writes.take() else { return Ok(()) };
        let began = Instant::now();
        writes.commit()?;
        self.shared.meter.commit(began.elapsed());
        Ok(())
    }

    fn teach(&mut self, lesson: Lesson) {
        if lesson.is_empty() {
            return;
        }
        if let Some(Err(unsent)) = self.school.as_ref().map(|school| school.teach(lesson)) {
            tracing::error!("the learner is gone; no change is taken until a restart");
            self.shared.health.store_failed();
            unsent.refuse(&store_failed());
        }
    }
}

fn refuse_all(commands: Vec<Command>) {
    let failed = store_failed;
    for command in commands {
        let _gone = match command {
            Command::Ingest(_, reply) => reply.send(Err(failed())).is_ok(),
            Command::CreateRun(_, reply) => reply.send(Err(failed())).is_ok(),
            Command::Replan(_, reply) => reply.send(Err(failed())).is_ok(),
            Command::Operate(_, _, reply) => reply.send(Err(failed())).is_ok(),
            Command::PutBlob(_, _, _, reply) | Command::DropBlob(_, _, reply) | Command::Mirror(_, reply) => {
                reply.send(Err(failed())).is_ok()
            }
            Command::Wake | Command::Stop => true,
        };
    }
}
