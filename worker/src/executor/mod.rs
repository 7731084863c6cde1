//! Executors: how the code of a task is run.
//!
//! One executor per kind of work: [`function`] for functions of the registry, [`command`] for command lines.
//! An executor blocks the calling thread, keeps the time-out of the task and leaves nothing running when it
//! returns, except a function that ignores its cancel flag (see [`function`]). Times in ms, memory in MB,
//! sizes in bytes.

pub mod command;
pub mod function;
pub mod memory;
mod threads;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foresail_schemas::Workflow;
use foresail_schemas::id::{ObjectName, RunId};
use foresail_schemas::run::FailureKind;
use foresail_schemas::workflow::{Input, Output, Task, Work};

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
    pub inputs: Vec<Option<Bytes>>,
    /// Set when the attempt is not wanted any more.
    pub cancel: Cancel,
}

impl Call {
    /// The task.
    #[must_use]
    pub fn spec(&self) -> &Task {
        self.workflow.task(self.task)
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

    fn timed_out(&self) -> TaskError {
        let limit_ms = self.spec().timeout_ms.unwrap_or(f64::INFINITY);
        TaskError::of(
            FailureKind::Timeout,
            format!("the attempt took longer than its limit of {limit_ms} ms"),
        )
    }

    fn given_up(&self) -> TaskError {
        TaskError::of(FailureKind::Cancelled, "the attempt was given up")
    }
}

/// What an attempt made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ran {
    /// The outputs, in the order of the task.
    pub outputs: Vec<Bytes>,
    /// Time in the user's code.
    pub exec_ms: f64,
    /// Largest resident memory; 0 where not known.
    pub peak_memory_mb: f64,
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
            inputs: inputs.into_iter().map(Some).collect(),
            cancel: Cancel::default(),
        }
    }
}
