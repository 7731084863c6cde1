//! One attempt of a task from its inputs to its stored outputs, as a blocking thread runs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use foresail_choreography::{Event, Executed};
use foresail_schemas::decision::Decision;
use foresail_schemas::id::InstanceId;
use foresail_schemas::invocation::Invocation;
use foresail_schemas::run::{Commit, FailureKind, Measured};
use foresail_schemas::workflow::{Task, Workflow};
use tokio::sync::mpsc;

use super::STRAY_GRACE;
use crate::custom::Customs;
use crate::data::Data;
use crate::executor::{Call, Executors};
use crate::note::{Note, Notes};
use crate::registry::{Cancel, TaskError};

/// One attempt, as a blocking thread runs it.
pub(super) struct Attempt {
    pub workflow: Arc<Workflow>,
    pub data: Data,
    pub executors: Executors,
    pub notes: Arc<Notes>,
    pub invocation: Invocation,
    pub instance: InstanceId,
    pub task: u32,
    pub attempt: u32,
    pub cancel: Cancel,
    pub customs: Customs,
    /// Where to say that the code has ended before the outputs are stored; nothing where that is of no use.
    pub computed: Option<mpsc::Sender<Event>>,
    /// Outputs of so many bytes in all stay in memory.
    pub hold_bytes_min: Option<u64>,
}

/// How an attempt ended well.
#[derive(Debug)]
pub(super) enum Made {
    /// Its outputs are stored.
    Stored(Executed),
    /// They are in memory.
    Held(Executed),
}

impl Attempt {
    pub fn run(self, parents: &[Option<Commit>]) -> Result<Made, TaskError> {
        let (task, attempt) = (self.task, self.attempt);
        let notes = Arc::clone(&self.notes);
        let _pinned = notes.pin(&self.note());
        let began = Instant::now();
        let inputs = self.data.gather(&self.workflow, task, parents)?;
        // All that it reads, values included, as it was stored: a planner asks for the time at the same size.
        let input_bytes = inputs.iter().flatten().map(|input| input.len() as u64).sum();
        let inputs = self.customs.before(inputs)?;
        let download_ms = ms_since(began);
        let cancel = self.cancel.clone();
        let call = Call {
            run: self.invocation.run.clone(),
            workflow: Arc::clone(&self.workflow),
            task,
            attempt,
            inputs,
            cancel: self.cancel,
        };
        let ran = self.executors.execute(&call)?;
        drop(call);
        let decision = decision(self.workflow.task(task), &ran.outputs)?;
        let began = Instant::now();
        let outputs = self.customs.after(ran.outputs)?;
        let output_bytes = outputs.iter().map(|o| o.len() as u64).sum();
        let mut measured = Measured {
            download_ms,
            exec_ms: ran.exec_ms,
            upload_ms: ms_since(began),
            input_bytes,
            output_bytes,
            peak_memory_mb: ran.peak_memory_mb,
        };
        if self.hold_bytes_min.is_some_and(|bytes_min| output_bytes >= bytes_min) && !cancel.is_set() {
            let outputs = self.data.hold(&self.workflow, task, attempt, outputs);
            return Ok(Made::Held(Executed { outputs, measured, decision }));
        }
        if let Some(events) = self.computed.filter(|_| self.data.stores_any(&outputs)) {
            // Nobody listens any more when the invocation is over.
            let _ = events.blocking_send(Event::Computed { task, attempt });
        }
        let outputs = self.data.store(&self.workflow, task, attempt, outputs)?;
        if cancel.is_set() {
            // Nobody will commit it: another attempt won meanwhile, or the run is over.
            self.data.discard(&self.workflow, task, attempt);
        }
        measured.upload_ms = ms_since(began);
        Ok(Made::Stored(Executed { outputs, measured, decision }))
    }

    fn note(&self) -> Note {
        let (run, instance) = (self.invocation.run.clone(), self.instance.clone());
        let task_id = self.workflow.task(self.task).id.clone();
        Note { run, instance, task: self.task, task_id, attempt: self.attempt }
    }
}

/// A function that goes on although its attempt has ended makes its process unfit for others.
pub(super) async fn tell_of_strays(strays: &AtomicUsize, events: &mpsc::Sender<Event>) {
    if strays.load(Ordering::SeqCst) == 0 {
        return;
    }
    tokio::time::sleep(STRAY_GRACE).await;
    if strays.load(Ordering::SeqCst) > 0 {
        let _ = events.send(Event::Retire).await;
    }
}

/// What the task decided, as it stands in the output that decides, where it has one. What is none would
/// be none the next time either.
fn decision(spec: &Task, outputs: &[Bytes]) -> Result<Option<Decision>, TaskError> {
    let Some(output) = &spec.decision else { return Ok(None) };
    let at = spec.output_names().iter().position(|name| name == output);
    let json = at.and_then(|at| outputs.get(at)).map(Bytes::as_ref).unwrap_or_default();
    Decision::read(json).map(Some).map_err(|error| {
        let detail = format!(
            "the output `{output}` of task `{}` decides which tasks follow, and it cannot be read: \
             {error}; hint: write JSON, for instance `3`, `[\"a\", \"b\"]` or `\"left\"`",
            spec.id
        );
        TaskError::of(FailureKind::TaskRefused, detail)
    })
}

fn ms_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}
