//! Workflows: a DAG of tasks that exchange named objects.
//!
//! A task reads inputs (an output object of another task, a file outside the workflow, or a value written in
//! the workflow itself) and writes outputs, one named `out` unless it says otherwise. A dependency without
//! data stands in `after`. A [`Workflow`] is acyclic, its ids are unique and every reference leads somewhere.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::code::{CODE_BYTES_MAX, Code, CodeHash, PythonCall};
use crate::decision::Condition;
use crate::graph::{Graph, GraphError};
use crate::id::{ObjectName, TaskId, TaskName, WorkflowName};
use crate::number::{non_negative_opt, positive_opt};
use crate::optimization::Optimization;
use crate::retry::Retry;

/// Most tasks in one workflow.
pub const TASKS_PER_WORKFLOW_MAX: usize = 1_000_000;
/// Longest command line in bytes.
pub const COMMAND_LEN_MAX: usize = 64 * 1024;

/// A checked workflow with its dense graph.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "WorkflowSpec", into = "WorkflowSpec")]
pub struct Workflow {
    spec: Arc<WorkflowSpec>,
    graph: Arc<Graph>,
}

/// A workflow as it is written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Workflow")]
pub struct WorkflowSpec {
    /// Name of the workflow; its metrics are kept under it.
    pub name: WorkflowName,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The tasks, in any order.
    pub tasks: Vec<Task>,
    /// The Python functions that tasks call.
    #[serde(default, skip_serializing_if = "Code::is_empty")]
    pub code: Code,
}

/// One task: a node of the workflow. A field that is not one is refused: a misspelt limit would be no limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Unique within the workflow.
    pub id: TaskId,
    /// The function whose history is kept; several tasks may share it.
    pub name: TaskName,
    /// What is run.
    pub run: Work,
    /// What it reads, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "without_room")]
    pub inputs: Vec<Input>,
    /// What it writes; one object named `out` where absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Output>,
    /// Tasks that must have ended before, without data from them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<TaskId>,
    /// Which of its outputs decides what runs after it: JSON, see [`Decision::read`].
    ///
    /// [`Decision::read`]: crate::decision::Decision::read
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<ObjectName>,
    /// When it runs; always where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Condition>,
    /// Least memory it needs in MB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub memory_mb_min: Option<u32>,
    /// Longest time one attempt may take in ms.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "positive_opt")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub timeout_ms: Option<f64>,
    /// Most attempts, the first included; the run's setting where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub attempts_max: Option<u32>,
    /// What follows a failed attempt; the defaults where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// What its author knows of its cost; used only where nothing was measured.
    #[serde(default, skip_serializing_if = "Hint::is_empty")]
    pub hint: Hint,
    /// Optimisations that every plan shall have here, whether they pay or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub optimizations: Vec<Optimization>,
}

/// What a task runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Work {
    /// A command line, run by `sh -c`.
    Command(String),
    /// A function registered in the worker's binary.
    Function {
        /// Its name in the registry.
        function: TaskName,
        /// Its parameters.
        #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
        params: serde_json::Value,
    },
    /// A Python function that travels with the workflow.
    Python {
        /// The call.
        python: PythonCall,
    },
}

/// One input of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Input {
    /// An output object of another task.
    Task {
        /// The task that writes it.
        task: TaskId,
        /// Which of its outputs.
        #[serde(default)]
        output: ObjectName,
        /// Whether the task runs without it where the other one is skipped.
        #[serde(default, skip_serializing_if = "is_required")]
        optional: bool,
    },
    /// A file outside the workflow.
    External {
        /// Path or `file://` address.
        uri: String,
        /// Size in bytes, where known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
    },
    /// A value written in the workflow; the task reads it as JSON text.
    Value {
        /// The value.
        value: serde_json::Value,
    },
}

/// A list that takes the memory that it needs: read one by one, two inputs would take the room of four, which
/// for a million tasks is more than all of their names.
fn without_room<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    let mut list = Vec::deserialize(from)?;
    list.shrink_to_fit();
    Ok(list)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_required(optional: &bool) -> bool {
    !*optional
}

/// One output object of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Unique within the task.
    pub name: ObjectName,
    /// Size in bytes that its author expects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// What an author knows of a task's cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hint {
    /// Execution time on one vCPU in ms.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "non_negative_opt")]
    #[schemars(range(min = 0.0))]
    pub exec_ms: Option<f64>,
    /// Largest memory in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

impl Hint {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Why a workflow was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkflowError {
    /// The graph is not one.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The workflow has no tasks.
    #[error("workflow `{0}` has no tasks")]
    NoTasks(WorkflowName),
    /// The workflow has more tasks than the limit.
    #[error("workflow has {0} tasks, at most {TASKS_PER_WORKFLOW_MAX} are allowed")]
    TooManyTasks(usize),
    /// A command line is empty or too long.
    #[error("the command of task `{task}` has {len} bytes, it must have 1 to {COMMAND_LEN_MAX}")]
    Command {
        /// The task.
        task: TaskId,
        /// Bytes given.
        len: usize,
    },
    /// A limit of the task is 0.
    #[error("`{field}` of task `{task}` must be at least 1")]
    Zero {
        /// The task.
        task: TaskId,
        /// The field.
        field: &'static str,
    },
    /// The output that decides is not one of the task's.
    #[error("`decision` of task `{task}` names `{output}`, which is not one of its outputs")]
    DecisionOutput {
        /// The task.
        task: TaskId,
        /// What it names.
        output: ObjectName,
    },
    /// A condition rests on a task that decides nothing.
    #[error("`when` of task `{task}` names `{decider}`, which has no `decision`")]
    DecidesNothing {
        /// The task.
        task: TaskId,
        /// What it names.
        decider: TaskId,
    },
    /// A task calls a function that did not travel with the workflow.
    #[error("task `{task}` calls `{code}`, which is not in the `code` of the workflow")]
    NoCode {
        /// The task.
        task: TaskId,
        /// The function.
        code: CodeHash,
    },
    /// The functions are too large.
    #[error("the `code` of the workflow has {0} bytes, at most {CODE_BYTES_MAX} are allowed")]
    TooMuchCode(usize),
    /// Retry settings make no sense.
    #[error("`retry` of task `{task}`: {fault}")]
    Retry {
        /// The task.
        task: TaskId,
        /// What is wrong.
        fault: String,
    },
}

impl WorkflowSpec {
    /// Checks the whole and builds the graph.
    ///
    /// # Errors
    /// [`WorkflowError`], with the task and the reference that broke a rule.
    pub fn check(self) -> Result<Workflow, WorkflowError> {
        if self.tasks.is_empty() {
            return Err(WorkflowError::NoTasks(self.name));
        }
        if self.tasks.len() > TASKS_PER_WORKFLOW_MAX {
            return Err(WorkflowError::TooManyTasks(self.tasks.len()));
        }
        self.tasks.iter().try_for_each(Task::check)?;
        let code_bytes = self.code.values().map(String::len).sum();
        if code_bytes > CODE_BYTES_MAX {
            return Err(WorkflowError::TooMuchCode(code_bytes));
        }
        let graph = Graph::build(&self.tasks)?;
        self.tasks.iter().try_for_each(|task| self.check_links(task, &graph))?;
        Ok(Workflow { spec: Arc::new(self), graph: Arc::new(graph) })
    }

    fn check_links(&self, task: &Task, graph: &Graph) -> Result<(), WorkflowError> {
        if let Some(when) = &task.when {
            let decider = graph.find(&when.task).map(|at| &self.tasks[at as usize]);
            if decider.is_none_or(|decider| decider.decision.is_none()) {
                let (task, decider) = (task.id.clone(), when.task.clone());
                return Err(WorkflowError::DecidesNothing { task, decider });
            }
        }
        if let Work::Python { python } = &task.run
            && !self.code.contains_key(&python.code)
        {
            return Err(WorkflowError::NoCode { task: task.id.clone(), code: python.code.clone() });
        }
        Ok(())
    }
}

impl Task {
    /// A task that runs `run` under its own name, with the default output.
    #[must_use]
    pub fn new(id: TaskId, name: TaskName, run: Work) -> Self {
        Self {
            id,
            name,
            run,
            inputs: Vec::new(),
            outputs: Vec::new(),
            after: Vec::new(),
            decision: None,
            when: None,
            memory_mb_min: None,
            timeout_ms: None,
            attempts_max: None,
            retry: None,
            hint: Hint::default(),
            optimizations: Vec::new(),
        }
    }

    fn check(&self) -> Result<(), WorkflowError> {
        if let Work::Command(line) = &self.run
            && (line.is_empty() || line.len() > COMMAND_LEN_MAX)
        {
            return Err(WorkflowError::Command { task: self.id.clone(), len: line.len() });
        }
        if let Some(fault) = self.retry.as_ref().and_then(Retry::fault) {
            return Err(WorkflowError::Retry { task: self.id.clone(), fault });
        }
        if let Some(output) = self.decision.as_ref().filter(|output| !self.output_names().contains(output)) {
            return Err(WorkflowError::DecisionOutput { task: self.id.clone(), output: output.clone() });
        }
        let zero = |field| Err(WorkflowError::Zero { task: self.id.clone(), field });
        match (self.memory_mb_min, self.attempts_max) {
            (Some(0), _) => zero("memory_mb_min"),
            (_, Some(0)) => zero("attempts_max"),
            _ => Ok(()),
        }
    }

    /// Names of the outputs: those written down, or `out`.
    #[must_use]
    pub fn output_names(&self) -> Vec<ObjectName> {
        if self.outputs.is_empty() {
            return vec![ObjectName::default()];
        }
        self.outputs.iter().map(|o| o.name.clone()).collect()
    }
}

impl Input {
    /// This output of another task, which must exist.
    #[must_use]
    pub fn task(task: TaskId, output: ObjectName) -> Self {
        Self::Task { task, output, optional: false }
    }
}

impl Workflow {
    /// Name of the workflow.
    #[must_use]
    pub fn name(&self) -> &WorkflowName {
        &self.spec.name
    }

    /// The tasks; a task's index here is its index in the [`Graph`], in plans and in operations.
    #[must_use]
    pub fn tasks(&self) -> &[Task] {
        &self.spec.tasks
    }

    /// The task at `index`.
    #[must_use]
    pub fn task(&self, index: u32) -> &Task {
        &self.spec.tasks[index as usize]
    }

    /// The dense graph.
    #[must_use]
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// The workflow as written down.
    #[must_use]
    pub fn spec(&self) -> &WorkflowSpec {
        &self.spec
    }
}

impl PartialEq for Workflow {
    fn eq(&self, other: &Self) -> bool {
        self.spec == other.spec
    }
}

impl TryFrom<WorkflowSpec> for Workflow {
    type Error = WorkflowError;
    fn try_from(spec: WorkflowSpec) -> Result<Self, WorkflowError> {
        spec.check()
    }
}

impl From<Workflow> for WorkflowSpec {
    fn from(workflow: Workflow) -> Self {
        Arc::unwrap_or_clone(workflow.spec)
    }
}

impl JsonSchema for Workflow {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Workflow".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        WorkflowSpec::json_schema(generator)
    }
}
