//! Functions that tasks name, and optimisations: registered by the user's binary, found by name when a task
//! runs.
//!
//! A function takes a [`TaskInput`] and gives a [`TaskOutput`]: one byte string per declared output, in that
//! order. It runs on a thread of its own, may be called by several threads at once and may run more than once
//! for the same task (after a crash, or when two workers race), so effects outside its outputs belong under
//! [`TaskInput::idempotency_key`]. Every registry has the functions of the built-in module. Sizes in bytes.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use foresail_schemas::id::{ObjectName, RunId, TaskId};
use foresail_schemas::run::{FAILURE_TEXT_MAX, FailureKind};
use foresail_schemas::workflow::Output;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::builtin;
use crate::custom::CustomOptimization;
use crate::text::cut;

/// A registered function.
pub type TaskFunction = dyn Fn(TaskInput) -> Result<TaskOutput, TaskError> + Send + Sync;

/// The functions and the optimisations of a worker, by name.
#[derive(Clone)]
pub struct Registry {
    functions: HashMap<String, Arc<TaskFunction>>,
    optimizations: HashMap<String, Arc<dyn CustomOptimization>>,
}

impl Registry {
    /// A registry with the built-in functions.
    #[must_use]
    pub fn new() -> Self {
        Self { functions: HashMap::new(), optimizations: HashMap::new() }
            .register(builtin::BURN, builtin::burn)
            .register(builtin::CONCAT, builtin::concat)
    }

    /// The same registry with `function` under `name`; a function registered before under this name is
    /// replaced.
    #[must_use]
    pub fn register<F>(mut self, name: impl Into<String>, function: F) -> Self
    where
        F: Fn(TaskInput) -> Result<TaskOutput, TaskError> + Send + Sync + 'static,
    {
        self.functions.insert(name.into(), Arc::new(function));
        self
    }

    /// The function of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<TaskFunction>> {
        self.functions.get(name).cloned()
    }

    /// The same registry with the worker half of an optimisation under `name`; one registered before under
    /// this name is replaced.
    #[must_use]
    pub fn register_optimization(
        mut self,
        name: impl Into<String>,
        optimization: impl CustomOptimization + 'static,
    ) -> Self {
        self.optimizations.insert(name.into(), Arc::new(optimization));
        self
    }

    /// The optimisation of this name.
    #[must_use]
    pub fn optimization(&self, name: &str) -> Option<Arc<dyn CustomOptimization>> {
        self.optimizations.get(name).cloned()
    }

    /// The names of the functions, in alphabetical order.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.functions.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry").field(&self.names()).finish()
    }
}

/// What a function is called with.
#[derive(Debug, Clone)]
pub struct TaskInput {
    /// The run.
    pub run: RunId,
    /// The task.
    pub task: TaskId,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The parameters written in the workflow.
    pub params: Value,
    /// The inputs in the order of the task: objects, files that were read in, values as JSON text. Optional
    /// inputs from tasks that were skipped are left out.
    pub inputs: Vec<Bytes>,
    /// What each of them is: `task/output`, the address of a file, or `value`.
    pub input_names: Vec<String>,
    /// Which input of the task each of them is, from 0: not in a row where optional inputs are left out.
    pub input_places: Vec<usize>,
    /// The outputs that are expected, in order.
    pub outputs: Vec<Output>,
    /// Set when the attempt is not wanted any more.
    pub cancel: Cancel,
}

impl TaskInput {
    /// An input with the default output, as a unit test of a function wants it.
    #[must_use]
    pub fn new(params: Value, inputs: Vec<Bytes>) -> Self {
        let input_names = (0..inputs.len()).map(|i| format!("input-{i}")).collect();
        Self {
            run: RunId::new("run").expect("a legal literal"),
            task: TaskId::new("task").expect("a legal literal"),
            attempt: 1,
            params,
            input_places: (0..inputs.len()).collect(),
            inputs,
            input_names,
            outputs: vec![Output { name: ObjectName::default(), bytes: None }],
            cancel: Cancel::default(),
        }
    }

    /// A key that is the same for every attempt of this task in this run and differs from all others.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}", self.run, self.task)
    }

    /// Whether the attempt was given up: its time is over or the run has ended. A long function that looks
    /// now and then ends early; one that does not keeps its worker busy for nothing.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_set()
    }

    /// The parameters as a type of one's own.
    ///
    /// # Errors
    /// [`TaskError`] that names the field that does not fit.
    pub fn params_as<T: DeserializeOwned>(&self) -> Result<T, TaskError> {
        serde_json::from_value(self.params.clone())
            .map_err(|e| TaskError::new(format!("the parameters `{}` do not fit: {e}", self.params)))
    }
}

/// Tells an attempt that it is not wanted any more.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Says so.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was said.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a function made: one byte string per declared output, in that order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskOutput(pub Vec<Bytes>);

impl TaskOutput {
    /// One output: `value` as JSON text.
    ///
    /// # Errors
    /// [`TaskError`] when the value has no JSON form.
    pub fn json(value: &impl Serialize) -> Result<Self, TaskError> {
        Ok(serde_json::to_vec(value)?.into())
    }
}

impl From<Vec<Bytes>> for TaskOutput {
    fn from(outputs: Vec<Bytes>) -> Self {
        Self(outputs)
    }
}

impl From<Bytes> for TaskOutput {
    fn from(only: Bytes) -> Self {
        Self(vec![only])
    }
}

impl From<Vec<u8>> for TaskOutput {
    fn from(only: Vec<u8>) -> Self {
        Self(vec![only.into()])
    }
}

impl From<String> for TaskOutput {
    fn from(only: String) -> Self {
        Self(vec![only.into()])
    }
}

/// Why an attempt failed, as the user will read it.
///
/// Any error converts into it with `?`, its sources included. It is not an error type itself: otherwise that
/// conversion would overlap with the standard library's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskError {
    /// The kind of cause.
    pub kind: FailureKind,
    /// The cause in words, at most [`FAILURE_TEXT_MAX`] bytes.
    pub message: String,
    /// The exception of a Python function, see [`Failure::exception`].
    ///
    /// [`Failure::exception`]: foresail_schemas::run::Failure::exception
    pub exception: Option<String>,
    /// Keys of inputs that are lost.
    pub(crate) lost: Vec<String>,
}

impl TaskError {
    /// The user's code says that it failed.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self::of(FailureKind::TaskError, message)
    }

    /// The user's code says that no other attempt can succeed: the run fails at once.
    #[must_use]
    pub fn fatal(message: impl Into<String>) -> Self {
        Self::of(FailureKind::TaskRefused, message)
    }

    /// The same failure, not to be retried; for any error of one's own, as in
    /// `parse(x).map_err(|e| TaskError::from(e).not_retried())?`.
    #[must_use]
    pub fn not_retried(self) -> Self {
        Self { kind: FailureKind::TaskRefused, ..self }
    }

    /// A failure of another kind.
    #[must_use]
    pub fn of(kind: FailureKind, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > FAILURE_TEXT_MAX {
            cut(&mut message, FAILURE_TEXT_MAX - 16);
            message.push_str(" … (cut)");
        }
        Self { kind, message, exception: None, lost: Vec::new() }
    }
}

impl<E: std::error::Error> From<E> for TaskError {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        Self::new(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_registration_replaces_an_earlier_one() {
        let registry = Registry::new()
            .register("f", |_| Ok(String::from("old").into()))
            .register("f", |_| Ok(String::from("new").into()));
        let function = registry.get("f").unwrap();
        assert_eq!(function(TaskInput::new(Value::Null, vec![])).unwrap().0[0], "new");
        assert_eq!(registry.names(), ["f", "foresail.burn", "foresail.concat"]);
    }

    #[test]
    fn any_error_becomes_a_task_error_with_its_sources() {
        fn read() -> Result<(), TaskError> {
            std::fs::read("/no/such/file")?;
            Ok(())
        }
        let error = read().unwrap_err();
        assert_eq!(error.kind, FailureKind::TaskError);
        assert!(error.message.contains("No such file"), "{error:?}");
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let error = TaskError::new("ä".repeat(FAILURE_TEXT_MAX));
        assert!(error.message.len() <= FAILURE_TEXT_MAX && error.message.ends_with("(cut)"));
    }

    #[test]
    fn the_idempotency_key_does_not_depend_on_the_attempt() {
        let mut input = TaskInput::new(Value::Null, vec![]);
        let first = input.idempotency_key();
        input.attempt = 2;
        assert_eq!(input.idempotency_key(), first);
    }
}
