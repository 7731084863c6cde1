//! WfFormat 1.5, the exchange format of WfCommons: real workflow runs in, measured runs out.
//!
//! [`read`] makes a [`Workflow`] of an instance: every task burns CPU for the time that was recorded and
//! writes objects of the sizes that were recorded. [`scaled`] makes that workflow small enough to run.
//! [`write()`] puts a run of Foresail into the same format; reading that back gives the same structure with
//! the measured times and sizes.
//!
//! Source: the WfFormat schema 1.5, <https://github.com/wfcommons/WfFormat>. WfFormat counts time in seconds,
//! everything here in ms; sizes are bytes in both.
//!
//! # Names
//! A character that Foresail does not allow in a name becomes `_`, a first character that may not stand first
//! gets a `_` before it, and a name longer than 255 bytes is cut. Two task ids that become the same are
//! refused. The task name, the function whose history is kept, is the program of the recorded command where
//! that is one word and no interpreter; otherwise it is the name of the task without the counter that Pegasus
//! (`_ID0000001`), WfCommons (`_00000001`) and others (`_12`) put behind it.

mod read;
mod write;

pub use read::read;
pub use write::write;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::id::{NameError, TaskId, TaskName};
use crate::workflow::{Hint, Input, Output, Task, Work, Workflow, WorkflowError};

/// The function that burns CPU and writes objects of given sizes; every worker of Foresail has it.
pub const BURN: &str = "foresail.burn";
/// The version of the format that is read and written.
pub const VERSION: &str = "1.5";
/// Name under which Foresail writes itself into `runtimeSystem`.
pub(crate) const RUNTIME_SYSTEM: &str = "Foresail";

/// Parameters of [`BURN`]; the sizes it writes are those that the outputs of the task state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct BurnParams {
    /// CPU time to burn, in ms.
    pub cpu_ms: f64,
}

/// Factors that make a workflow small enough to run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// Factor on every CPU time.
    pub time: f64,
    /// Factor on every size; what had at least one byte keeps at least one.
    pub size: f64,
}

/// Why an instance was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WfFormatError {
    /// The text is not JSON, or not a document of this form.
    #[error("this is not a WfFormat {VERSION} document: {0}")]
    Json(String),
    /// Another version of the format.
    #[error(
        "the document is WfFormat `{0}`, only {VERSION} is understood; \
         hint: wfcommons-migrate-instance converts it"
    )]
    Version(String),
    /// A name cannot be used even after its characters were replaced.
    #[error("{owner}: {source}")]
    Name {
        /// What carries the name.
        owner: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// Two tasks have the same id, or ids that become the same.
    #[error("the tasks `{first}` and `{second}` would both have the id `{id}`")]
    SameId {
        /// Id of one in the document.
        first: String,
        /// Id of the other.
        second: String,
        /// The id here.
        id: TaskId,
    },
    /// A number is negative or no number of its kind.
    #[error("`{field}` of {owner} is `{value}`, it must be finite and at least 0")]
    Number {
        /// The task or file.
        owner: String,
        /// The field.
        field: &'static str,
        /// The value.
        value: String,
    },
    /// A task names a parent or child that is not there.
    #[error("task `{task}` names `{other}` as a parent or child, which is not in the document")]
    Dangling {
        /// The task.
        task: String,
        /// What it names.
        other: String,
    },
    /// A file has several writers, and the parents of its reader do not say whose is meant.
    #[error(
        "task `{task}` reads file `{file}`, which `{first}` and `{second}` write; \
         its parents do not say whose is meant"
    )]
    Writers {
        /// The reader.
        task: String,
        /// The file.
        file: String,
        /// One writer.
        first: String,
        /// Another.
        second: String,
    },
    /// The whole is not a workflow.
    #[error(transparent)]
    Workflow(#[from] WorkflowError),
    /// A factor is not a positive number.
    #[error("the {field} factor `{value}` must be finite and greater than 0")]
    Scale {
        /// Which factor.
        field: &'static str,
        /// Its value.
        value: f64,
    },
    /// Only workflows of [`BURN`] tasks can be scaled.
    #[error("task `{0}` does not run {BURN}; only workflows read from WfFormat can be scaled")]
    NotBurn(TaskId),
}

/// The same workflow with scaled times and sizes, ready to run.
///
/// The files outside the workflow that the original read exist nowhere, so a worker could not open them. Each
/// of them becomes a value in the workflow that says which file it was and how many bytes it had, scaled:
/// `{"file": "region.hdr", "bytes": 304}`. Plan the workflow that is returned, not the one that was read, and
/// plan and run speak of the same transfers.
///
/// # Errors
/// [`WfFormatError::Scale`] for a factor that is not positive, [`WfFormatError::NotBurn`] for a task of
/// another kind.
pub fn scaled(workflow: &Workflow, scale: Scale) -> Result<Workflow, WfFormatError> {
    for (field, value) in [("time", scale.time), ("size", scale.size)] {
        if !(value.is_finite() && value > 0.0) {
            return Err(WfFormatError::Scale { field, value });
        }
    }
    let mut spec = workflow.spec().clone();
    for task in &mut spec.tasks {
        scale_task(task, scale)?;
    }
    Ok(spec.check()?)
}

fn scale_task(task: &mut Task, scale: Scale) -> Result<(), WfFormatError> {
    let bytes = |bytes: u64| match bytes {
        0 => 0,
        some => ((some as f64 * scale.size).round() as u64).max(1),
    };
    let mut burn = burn_params(task).ok_or_else(|| WfFormatError::NotBurn(task.id.clone()))?;
    burn.cpu_ms *= scale.time;
    for input in &mut task.inputs {
        if let Input::External { uri, bytes: size } = input {
            *input = Input::Value { value: json!({"file": uri, "bytes": size.map(bytes)}) };
        }
    }
    for output in &mut task.outputs {
        output.bytes = output.bytes.map(bytes);
    }
    task.hint.exec_ms = task.hint.exec_ms.map(|ms| ms * scale.time);
    task.hint.memory_bytes = task.hint.memory_bytes.map(bytes);
    task.run = burn_work(burn);
    Ok(())
}

/// The parameters of a [`BURN`] task.
fn burn_params(task: &Task) -> Option<BurnParams> {
    match &task.run {
        Work::Function { function, params } if function.as_str() == BURN => {
            BurnParams::deserialize(params).ok()
        }
        Work::Function { .. } | Work::Python { .. } | Work::Command(_) => None,
    }
}

fn burn_work(params: BurnParams) -> Work {
    Work::Function {
        function: TaskName::new(BURN).expect("the constant is a legal name"),
        params: serde_json::to_value(params).expect("numbers alone always become JSON"),
    }
}

/// A task that burns `exec_ms` (nothing where it is not known) and writes `outputs`.
fn burn_task(id: TaskId, name: TaskName, hint: Hint, outputs: Vec<Output>) -> Task {
    let run = burn_work(BurnParams { cpu_ms: hint.exec_ms.unwrap_or(0.0) });
    Task { outputs, hint, ..Task::new(id, name, run) }
}
