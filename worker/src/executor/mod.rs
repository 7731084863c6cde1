//! Executors: how the code of a task is run.
//!
//! One executor per kind of work: [`function`] for functions of the registry, [`command`] for command lines,
//! [`python`] for Python functions that travel with their workflow.
//! An executor blocks the calling thread, keeps the time-out of the task and leaves nothing running when it
//! returns. A function that ignores its cancel flag is given up meanwhile (see [`function`]). Times in ms,
//! memory in MB, sizes in bytes.

pub mod command;
pub mod function;
pub mod memory;
pub mod overseer;
pub mod python;
mod spawn;
mod tree;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foresail_schemas::Workflow;
use foresail_schemas::id::{ObjectName, RunId};
use foresail_schemas::run::FailureKind;
use foresail_schemas::workflow::{Input, Output, Task, Work};

use crate::data::kept::{Object, contents};
use crate::registry::{Cancel, TaskError};

/// Runs one kind of work.
pub trait Executor: Send + Sync {
    /// Whether this executor runs `work`.
    fn takes(&self, work: &Work) -> bool;

    /// Runs one attempt to its end.
    ///
    /// # Errors
    /// [`TaskError`] with the kind and the cause, as the user will read it.
    fn execute(&self, call: &Call) -> Result<Ran, TaskError>;

    /// Makes ready what these tasks of a workflow need to be run, as many at a time as there are `lanes`;
    /// gives how long that took in ms. What cannot be made ready is told when its task runs.
    fn prepare(&self, workflow: &Workflow, tasks: &[u32], lanes: u32) -> f64 {
        let _ = (workflow, tasks, lanes);
        0.0
    }
}

/// One attempt to run.
#[derive(Debug, Clone)]
pub struct Call {
    /// The run.
    pub run: RunId,
    /// The workflow.
    pub workflow: Arc<Workflow>,
    /// The task, by index.
    pub task: u32,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The inputs, in the order of the task; nothing for an optional one of a task that is skipped.
    pub inputs: Vec<Option<Object>>,
    /// Set when the attempt is not wanted any more.
    pub cancel: Cancel,
    /// A directory of the file system that large outputs are stored on: written there as a file without a
    /// name, one is stored without a copy. Nothing where there is none.
    pub outputs_dir: Option<PathBuf>,
    /// Most bytes of results that the process of a function may keep in its memory, see
    /// [`kept`](crate::data::kept); 0 where nothing may be.
    pub keep_bytes_max: u64,
    /// Ends the attempt for whoever waits for it, while its thread cannot be stopped.
    pub give_up: GiveUp,
}

/// Tells whoever waits for an attempt that it has failed.
#[derive(Clone)]
pub struct GiveUp(pub Arc<dyn Fn(TaskError) + Send + Sync>);

impl std::fmt::Debug for GiveUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GiveUp")
    }
}

impl Call {
    /// The task.
    #[must_use]
    pub fn spec(&self) -> &Task {
        self.workflow.task(self.task)
    }

    /// What the retry settings of the task say against another attempt after this exit code, in words that
    /// name setting and code; nothing where they do not name it.
    #[must_use]
    pub fn forbidden_exit(&self, code: i32) -> Option<String> {
        let is_named = self.spec().retry.as_ref().is_some_and(|retry| retry.not_on_exit.contains(&code));
        is_named.then(|| format!("and its retry settings name the exit code `{code}` (`not_on_exit`)"))
    }

    /// The bytes of the inputs.
    ///
    /// # Errors
    /// [`FailureKind::InputUnavailable`] when the process that has one has ended.
    pub fn contents(&self) -> Result<Vec<Option<Bytes>>, TaskError> {
        contents(&self.inputs).map_err(|error| {
            TaskError::of(FailureKind::InputUnavailable, format!("an input cannot be read: {error}"))
        })
    }

    /// Longest time the attempt may take.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.spec().timeout_ms.and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok())
    }

    /// What each input is, in words.
    #[must_use]
    pub fn input_names(&self) -> Vec<String> {
        let name = |input: &Input| match input {
            Input::Task { task, output, .. } => format!("{task}/{output}"),
            Input::External { uri, .. } => uri.clone(),
            Input::Value { .. } => "value".to_owned(),
        };
        self.spec().inputs.iter().map(name).collect()
    }

    /// The outputs that are expected; the default one where the task declares none.
    #[must_use]
    pub fn outputs(&self) -> Vec<Output> {
        match self.spec().outputs.as_slice() {
            [] => vec![Output { name: ObjectName::default(), bytes: None }],
            outputs => outputs.to_vec(),
        }
    }

    /// That limit in ms.
    fn timeout_ms(&self) -> f64 {
        self.spec().timeout_ms.unwrap_or(f64::INFINITY)
    }

    fn timed_out(&self) -> TaskError {
        timed_out(self.timeout_ms())
    }
}

/// The error of an attempt that took too long.
fn timed_out(limit_ms: f64) -> TaskError {
    let detail = format!("the attempt took longer than its limit of {limit_ms} ms");
    TaskError::of(FailureKind::Timeout, detail)
}

/// The error of an attempt that nobody wants any more.
pub(crate) fn given_up() -> TaskError {
    TaskError::of(FailureKind::Cancelled, "the attempt was given up")
}

/// What an attempt made.
#[derive(Debug, Clone, Default)]
pub struct Ran {
    /// The outputs, in the order of the task.
    pub outputs: Vec<Object>,
    /// Time in the user's code.
    pub exec_ms: f64,
    /// Largest resident memory; 0 where not known.
    pub peak_memory_mb: f64,
    /// Time to make ready what runs the code, where that was not done beforehand; not part of `exec_ms`.
    pub init_ms: f64,
    /// The end of what the code printed.
    pub printed: Option<String>,
}

/// The executors of a worker.
#[derive(Clone)]
pub struct Executors(Vec<Arc<dyn Executor>>);

impl Executors {
    /// These executors; the first that takes a task's work runs it.
    #[must_use]
    pub fn new(executors: Vec<Arc<dyn Executor>>) -> Self {
        Self(executors)
    }

    /// Runs one attempt with the executor that takes its work.
    ///
    /// # Errors
    /// [`TaskError`] of the executor, or that none takes the work.
    pub fn execute(&self, call: &Call) -> Result<Ran, TaskError> {
        let work = &call.spec().run;
        match self.0.iter().find(|executor| executor.takes(work)) {
            Some(executor) => executor.execute(call),
            None => {
                let detail = format!("this worker has no executor for the work of task `{}`", call.spec().id);
                Err(TaskError::of(FailureKind::UnknownFunction, detail))
            }
        }
    }
}

impl Executors {
    /// Makes ready what these tasks need, see [`Executor::prepare`].
    #[must_use]
    pub fn prepare(&self, workflow: &Workflow, tasks: &[u32], lanes: u32) -> f64 {
        self.0.iter().map(|executor| executor.prepare(workflow, tasks, lanes)).sum()
    }
}

impl std::fmt::Debug for Executors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Executors({})", self.0.len())
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Calls for the tests of executors.

    use super::*;

    /// A call of the only task of a workflow written as JSON.
    pub(crate) fn call(task: serde_json::Value, inputs: Vec<Bytes>) -> Call {
        let workflow = serde_json::json!({"name": "w", "tasks": [task]});
        Call {
            run: RunId::new("r").unwrap(),
            workflow: Arc::new(serde_json::from_value(workflow).unwrap()),
            task: 0,
            attempt: 1,
            inputs: inputs.into_iter().map(|content| Some(content.into())).collect(),
            cancel: Cancel::default(),
            give_up: GiveUp(Arc::new(|_| ())),
            outputs_dir: None,
            keep_bytes_max: 0,
        }
    }
}
