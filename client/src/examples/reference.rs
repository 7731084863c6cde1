//! A workflow carried out in this process, one task after the other: what every run of it must give.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use foresail_schemas::Workflow;
use foresail_schemas::decision::Decision;
use foresail_schemas::wfformat::BURN;
use foresail_schemas::workflow::{Input, Output, Task, Work};
use foresail_worker::{Registry, TaskInput};
use serde_json::Value;

/// Outputs by task and name.
pub type Outputs = BTreeMap<(String, String), Bytes>;

/// Why a workflow has no reference.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// A task runs a command line.
    #[error("task `{0}` runs a command line; hint: only workflows of functions are carried out in process")]
    Command(String),
    /// A task names a function that is not registered.
    #[error("task `{task}` names the function `{function}`, which is not registered")]
    Unknown {
        /// The task.
        task: String,
        /// The function.
        function: String,
    },
    /// A file cannot be read.
    #[error("`{uri}` cannot be read: {source}")]
    File {
        /// The file.
        uri: String,
        /// Why.
        source: std::io::Error,
    },
    /// A function failed.
    #[error("task `{task}` failed: {message}")]
    Failed {
        /// The task.
        task: String,
        /// Why.
        message: String,
    },
}

/// All outputs of all tasks that run, as they decide. Synthetic loads write what they would write and burn nothing.
///
/// # Errors
/// [`ReferenceError`] with the first task that cannot be carried out.
pub fn all_outputs(workflow: &Workflow, registry: &Registry) -> Result<Outputs, ReferenceError> {
    let graph = workflow.graph();
    let mut missing: Vec<usize> = (0..graph.len() as u32).map(|t| graph.parents(t).len()).collect();
    let mut ready: Vec<u32> = graph.sources().collect();
    let mut outputs = Outputs::new();
    let mut skipped = HashSet::new();
    while let Some(task) = ready.pop() {
        if runs(workflow, task, &outputs, &skipped)? {
            run(workflow.task(task), registry, &mut outputs)?;
        } else {
            skipped.insert(task);
        }
        for &child in graph.children(task) {
            missing[child as usize] -= 1;
            if missing[child as usize] == 0 {
                ready.push(child);
            }
        }
    }
    Ok(outputs)
}

/// Whether what it needs is there, and what was decided calls for it.
fn runs(
    workflow: &Workflow,
    task: u32,
    outputs: &Outputs,
    skipped: &HashSet<u32>,
) -> Result<bool, ReferenceError> {
    let graph = workflow.graph();
    if graph.parents(task).iter().any(|&p| skipped.contains(&p) && !graph.is_optional(p, task)) {
        return Ok(false);
    }
    let Some((decider, wanted)) = graph.condition(task) else { return Ok(true) };
    let decider = workflow.task(decider);
    let output = decider.decision.as_ref().map(ToString::to_string).unwrap_or_default();
    let json = outputs.get(&(decider.id.to_string(), output)).cloned().unwrap_or_default();
    let failed = |message| ReferenceError::Failed { task: decider.id.to_string(), message };
    Ok(wanted.holds(&Decision::read(&json).map_err(|error| failed(error.to_string()))?))
}

fn run(task: &Task, registry: &Registry, outputs: &mut Outputs) -> Result<(), ReferenceError> {
    let id = task.id.to_string();
    let Work::Function { function, params } = &task.run else { return Err(ReferenceError::Command(id)) };
    let unknown = || ReferenceError::Unknown { task: id.clone(), function: function.to_string() };
    let work = registry.get(function.as_str()).ok_or_else(unknown)?;
    let params = if function.as_str() == BURN { without_load(params) } else { params.clone() };
    let inputs = task.inputs.iter().filter_map(|input| read(input, outputs).transpose());
    let inputs = inputs.collect::<Result<_, _>>()?;
    let mut input = TaskInput::new(params, inputs);
    input.task = task.id.clone();
    input.outputs = match task.outputs.is_empty() {
        true => vec![Output { name: Default::default(), bytes: None }],
        false => task.outputs.clone(),
    };
    let made = work(input).map_err(|e| ReferenceError::Failed { task: id.clone(), message: e.message })?;
    for (name, bytes) in task.output_names().into_iter().zip(made.0) {
        outputs.insert((id.clone(), name.to_string()), bytes);
    }
    Ok(())
}

/// The parameters of a burn without its times: what it writes does not depend on them.
fn without_load(params: &Value) -> Value {
    let mut params = params.clone();
    if let Some(fields) = params.as_object_mut() {
        fields.remove("cpu_ms");
        fields.remove("sleep_ms");
    }
    params
}

/// Nothing for an optional input of a task that is skipped.
fn read(input: &Input, outputs: &Outputs) -> Result<Option<Bytes>, ReferenceError> {
    match input {
        Input::Task { task, output, optional } => {
            let found = outputs.get(&(task.to_string(), output.to_string())).cloned();
            Ok(if *optional { found } else { Some(found.unwrap_or_default()) })
        }
        Input::External { uri, .. } => {
            let path = uri.strip_prefix("file://").unwrap_or(uri);
            let read = std::fs::read(path).map(|content| Some(Bytes::from(content)));
            read.map_err(|source| ReferenceError::File { uri: uri.clone(), source })
        }
        Input::Value { value } => Ok(Some(value.to_string().into())),
    }
}
