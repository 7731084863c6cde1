//! One attempt of a task from its inputs to its stored outputs, as the thread of a lane runs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use foresail_choreography::{Event, Executed};
use foresail_schemas::decision::Decision;
use foresail_schemas::id::InstanceId;
use foresail_schemas::invocation::Invocation;
use foresail_schemas::run::{Commit, FailureKind, Measured};
use foresail_schemas::workflow::{Task, Work, Workflow};
use tokio::sync::mpsc;

use super::STRAY_GRACE;
use super::lanes::Lane;
use crate::custom::Customs;
use crate::data::Data;
use crate::data::kept::{Object, contents};
use crate::executor::{Call, Executors, GiveUp, given_up};
use crate::note::{Note, Notes};
use crate::registry::{Cancel, TaskError};

/// One attempt, as the thread of a lane runs it.
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
    pub fn run(self, parents: &[Option<Commit>], lane: &Lane, give_up: GiveUp) -> Result<Made, TaskError> {
        if self.cancel.is_set() {
            return Err(given_up());
        }
        let (task, attempt) = (self.task, self.attempt);
        let notes = Arc::clone(&self.notes);
        let _pinned = notes.pin(&self.note());
        let began = Instant::now();
        let inputs = self.data.gather(&self.workflow, task, parents)?;
        // All that it reads, values included, as it was stored: a planner asks for the time at the same size.
        let input_bytes = inputs.iter().flatten().map(Object::len).sum();
        let inputs = self.before(inputs)?;
        let download_ms = ms_since(began);
        let cancel = self.cancel.clone();
        let is_python = matches!(self.workflow.task(task).run, Work::Python { .. });
        let keep_bytes_max = self.keep_bytes_max();
        let outputs_dir = if is_python { self.data.outputs_dir() } else { None };
        let call = Call {
            run: self.invocation.run.clone(),
            workflow: Arc::clone(&self.workflow),
            task,
            attempt,
            inputs,
            cancel: self.cancel,
            give_up,
            outputs_dir,
            keep_bytes_max,
        };
        let ran = self.executors.execute(&call)?;
        drop(call);
        let places = self.workflow.graph().places(task);
        let decision = decision(self.workflow.task(task), places, &ran.outputs)?;
        let began = Instant::now();
        let outputs = after(&self.customs, ran.outputs)?;
        let output_bytes = outputs.iter().map(Object::len).sum();
        let mut measured = Measured {
            // What runs the code is brought like what the code reads.
            download_ms: download_ms + ran.init_ms,
            exec_ms: ran.exec_ms,
            upload_ms: ms_since(began),
            input_bytes,
            output_bytes,
            peak_memory_mb: ran.peak_memory_mb,
        };
        let is_large = self.hold_bytes_min.is_some_and(|bytes_min| output_bytes >= bytes_min);
        if is_large && self.data.can_hold(output_bytes) && !cancel.is_set() {
            let outputs = self.data.hold(&self.workflow, task, attempt, outputs)?;
            return Ok(Made::Held(Executed { outputs, measured, decision, printed: ran.printed }));
        }
        if let Some(events) = self.computed.filter(|_| self.data.stores_any(&outputs)) {
            lane.give_back();
            // Nobody listens any more when the invocation is over.
            let _ = events.blocking_send(Event::Computed { task, attempt });
        }
        let outputs = self.data.store(&self.workflow, task, attempt, outputs)?;
        if cancel.is_set() {
            // Nobody will commit it: another attempt won meanwhile, or the run is over.
            self.data.discard(&self.workflow, task, attempt);
        }
        measured.upload_ms = ms_since(began);
        Ok(Made::Stored(Executed { outputs, measured, decision, printed: ran.printed }))
    }

    /// What the code reads, where optimisations of one's own have their say.
    fn before(&self, inputs: Vec<Option<Object>>) -> Result<Vec<Option<Object>>, TaskError> {
        if self.customs.is_empty() {
            return Ok(inputs);
        }
        let unread = |error| TaskError::of(FailureKind::InputUnavailable, format!("an input: {error}"));
        let read = self.customs.before(contents(&inputs).map_err(unread)?)?;
        Ok(read.into_iter().map(|content| content.map(Object::Here)).collect())
    }

    /// Most bytes of the result that its process may keep: nothing of a task that may not be tried again, as
    /// it would have to be where that process ends with the next call.
    fn keep_bytes_max(&self) -> u64 {
        match self.workflow.task(self.task).attempts_max {
            Some(1) => 0,
            _ => self.data.held_bytes_max(),
        }
    }

    fn note(&self) -> Note {
        let (run, instance) = (self.invocation.run.clone(), self.instance.clone());
        let task_id = self.workflow.task(self.task).id.clone();
        Note { run, instance, task: self.task, task_id, attempt: self.attempt }
    }
}

/// What is stored, where optimisations of one's own have their say.
fn after(customs: &Customs, outputs: Vec<Object>) -> Result<Vec<Object>, TaskError> {
    if customs.is_empty() {
        return Ok(outputs);
    }
    let unread = |error| TaskError::of(FailureKind::OutputNotStored, format!("an output: {error}"));
    let contents: Vec<_> = outputs.iter().map(Object::bytes).collect::<Result<_, _>>().map_err(unread)?;
    Ok(customs.after(contents)?.into_iter().map(Object::Here).collect())
}

/// A function that goes on although its attempt has ended makes its process unfit for others.
pub(super) async fn tell_of_strays(strays: Arc<AtomicUsize>, events: mpsc::Sender<Event>) {
    tokio::time::sleep(STRAY_GRACE).await;
    if strays.load(Ordering::SeqCst) > 0 {
        let _ = events.send(Event::Retire).await;
    }
}

/// What the task decided, as it stands in the output that decides, where it has one. What is none would
/// be none the next time either, nor a text where all that follow stand for places of a number.
fn decision(spec: &Task, places: Option<u64>, outputs: &[Object]) -> Result<Option<Decision>, TaskError> {
    let Some(output) = &spec.decision else { return Ok(None) };
    let at = spec.output_names().iter().position(|name| name == output);
    let json = at.and_then(|at| outputs.get(at)).and_then(|output| output.bytes().ok()).unwrap_or_default();
    let decision = Decision::read(&json).map_err(|error| {
        let detail = format!(
            "the output `{output}` of task `{}` decides which tasks follow, and it cannot be read: \
             {error}; hint: write JSON, for instance `3`, `[\"a\", \"b\"]` or `\"left\"`",
            spec.id
        );
        TaskError::of(FailureKind::TaskRefused, detail)
    })?;
    match (&decision, places) {
        (Decision::Branch(text), Some(places)) => Err(TaskError::of(
            FailureKind::TaskRefused,
            format!(
                "task `{}` decided `{text}` in its output `{output}` where a number is wanted: every task \
                 that waits for its decision has `above`, for `{places}` places; hint: write a whole \
                 number or a list, or let the tasks after it have `is`",
                spec.id
            ),
        )),
        _ => Ok(Some(decision)),
    }
}

fn ms_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_where_only_places_of_a_number_follow_is_refused_and_says_what_is_wanted() {
        let decided = |when: serde_json::Value, json: &'static str| {
            let workflow: Workflow = serde_json::from_value(json!({"name": "w", "tasks": [
                {"id": "list", "name": "list", "run": "x", "decision": "out"},
                {"id": "a", "name": "a", "run": "x", "when": {"task": "list", "above": 0}},
                {"id": "b", "name": "b", "run": "x", "when": when},
            ]}))
            .unwrap();
            let output = bytes::Bytes::from_static(json.as_bytes()).into();
            decision(workflow.task(0), workflow.graph().places(0), &[output])
        };
        let (places, branch) = (json!({"task": "list", "above": 3}), json!({"task": "list", "is": "left"}));
        assert_eq!(decided(places.clone(), "7").unwrap(), Some(Decision::Width(7)));
        let left = Some(Decision::Branch("left".to_owned()));
        assert_eq!(decided(branch, "\"left\"").unwrap(), left, "one follower wants a text");
        let refused = decided(places, "\"left\"").unwrap_err();
        assert_eq!(refused.kind, FailureKind::TaskRefused);
        for told in ["`list`", "`left`", "a number is wanted", "`4` places"] {
            assert!(refused.message.contains(told), "`{told}` in {refused:?}");
        }
    }
}
