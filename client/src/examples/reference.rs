//! A workflow carried out in this process, one task after the other: what every run of it must give.

use std::collections::BTreeMap;

use bytes::Bytes;
use foresail_schemas::Workflow;
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

/// All outputs of all tasks. Synthetic loads write what they would write and burn nothing.
///
/// # Errors
/// [`ReferenceError`] with the first task that cannot be carried out.
pub fn all_outputs(workflow: &Workflow, registry: &Registry) -> Result<Outputs, ReferenceError> {
    let graph = workflow.graph();
    let mut missing: Vec<usize> = (0..graph.len() as u32).map(|t| graph.parents(t).len()).collect();
    let mut ready: Vec<u32> = graph.sources().collect();
    let mut outputs = Outputs::new();
    while let Some(task) = ready.pop() {
        run(workflow.task(task), registry, &mut outputs)?;
        for &child in graph.children(task) {
            missing[child as usize] -= 1;
            if missing[child as usize] == 0 {
                ready.push(child);
            }
        }
    }
    Ok(outputs)
}

fn run(task: &Task, registry: &Registry, outputs: &mut Outputs) -> Result<(), ReferenceError> {
    let id = task.id.to_string();
    let Work::Function { function, params } = &task.run else { return Err(ReferenceError::Command(id)) };
    let unknown = || ReferenceError::Unknown { task: id.clone(), function: function.to_string() };
    let work = registry.get(function.as_str()).ok_or_else(unknown)?;
    let params = if function.as_str() == BURN { without_load(params) } else { params.clone() };
    let inputs = task.inputs.iter().map(|input| read(input, outputs)).collect::<Result<_, _>>()?;
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

fn read(input: &Input, outputs: &Outputs) -> Result<Bytes, ReferenceError> {
    match input {
        Input::Task { task, output, .. } => {
            Ok(outputs.get(&(task.to_string(), output.to_string())).cloned().unwrap_or_default())
        }
        Input::External { uri, .. } => {
            let path = uri.strip_prefix("file://").unwrap_or(uri);
            let read = std::fs::read(path).map(Bytes::from);
            read.map_err(|source| ReferenceError::File { uri: uri.clone(), source })
        }
        Input::Value { value } => Ok(value.to_string().into()),
    }
}
