//! Builds workflows in Rust, checked when they are finished.
//!
//! ```
//! use foresail::WorkflowBuilder;
//! use serde_json::json;
//!
//! let mut flow = WorkflowBuilder::new("word-count");
//! let split = flow.task("split").command("printf 'b\\na\\n'").handle();
//! let sorted = flow.task("sort").command("sort").reads(&split).memory_mb_min(128).handle();
//! flow.task("report").function("report.text", json!({"top": 3})).reads(&sorted);
//! let workflow = flow.build()?;
//! assert_eq!(workflow.tasks().len(), 3);
//! # Ok::<(), foresail::BuildError>(())
//! ```
//!
//! A mistake in one task does not stop the builder; [`WorkflowBuilder::build`] returns the first one, with
//! the task.

use std::path::{Path, PathBuf};
use std::time::Duration;

use foresail_schemas::decision::{Condition, Wanted};
use foresail_schemas::id::NameError;
use foresail_schemas::optimization::Optimization;
use foresail_schemas::retry::Retry;
use foresail_schemas::workflow::{Hint, Input, Output, Task, Work, WorkflowError, WorkflowSpec};
use foresail_schemas::{ObjectName, TaskId, TaskName, Workflow, WorkflowName};
use serde::Serialize;

mod branches;

/// Why a workflow could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The workflow's name is not one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A name given for a task, an output or a function is not one.
    #[error("task `{task}`: {source}")]
    TaskName {
        /// The task as it was given.
        task: String,
        /// What is wrong with the name.
        source: NameError,
    },
    /// The task does not say what it runs.
    #[error("task `{0}` runs nothing: call `.function(..)` or `.command(..)` on it")]
    NothingToRun(String),
    /// The parameters of a function cannot be written as JSON.
    #[error("the parameters of task `{task}` cannot be written as JSON: {source}")]
    Params {
        /// The task.
        task: String,
        /// Why.
        source: serde_json::Error,
    },
    /// An input file cannot be read.
    #[error("task `{task}` reads the file `{}`, which cannot be opened: {source}", path.display())]
    File {
        /// The task.
        task: String,
        /// The path as given.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The whole breaks a rule: a cycle, a double id, a reference to nothing.
    #[error(transparent)]
    Workflow(#[from] WorkflowError),
}

impl BuildError {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Name(_) | Self::TaskName { .. } => {
                "use 1 to 255 letters, digits and _ . : @ + ~ -, starting with a letter, digit or _"
            }
            Self::NothingToRun(_) => "every task runs a registered function or a command line",
            Self::Params { .. } => {
                "give parameters that serde_json can write: no maps with keys that are not text"
            }
            Self::File { .. } => "relative paths are looked up from the directory the program runs in",
            Self::Workflow(_) => "correct the task and the reference that the message names",
        }
    }
}

/// Collects tasks and checks them as a whole.
#[derive(Debug)]
pub struct WorkflowBuilder {
    name: String,
    description: Option<String>,
    drafts: Vec<Draft>,
    first_error: Option<BuildError>,
}

/// A task of a builder, to be named as a dependency of others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TaskHandle {
    id: String,
}

#[derive(Debug)]
struct Draft {
    id: String,
    name: Option<String>,
    run: Option<Work>,
    inputs: Vec<DraftInput>,
    outputs: Vec<(String, Option<u64>)>,
    after: Vec<String>,
    decision: Option<String>,
    when: Option<(String, Wanted)>,
    memory_mb_min: Option<u32>,
    timeout_ms: Option<f64>,
    attempts_max: Option<u32>,
    retry: Option<Retry>,
    hint: Hint,
    optimizations: Vec<Optimization>,
}

#[derive(Debug)]
enum DraftInput {
    Output { task: String, output: Option<String>, optional: bool },
    Ready(Input),
}

/// One task while it is being described. Every method returns it again, so calls can be chained.
#[derive(Debug)]
pub struct TaskBuilder<'a> {
    flow: &'a mut WorkflowBuilder,
    at: usize,
}

impl WorkflowBuilder {
    /// An empty workflow. The name decides under which history its measurements are kept.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), description: None, drafts: Vec::new(), first_error: None }
    }

    /// Says what the workflow is for.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
        self
    }

    /// Adds a task. Until [`TaskBuilder::named`] says otherwise its id is the name its history is kept under.
    pub fn task(&mut self, id: impl Into<String>) -> TaskBuilder<'_> {
        self.drafts.push(Draft {
            id: id.into(),
            name: None,
            run: None,
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
        });
        let at = self.drafts.len() - 1;
        TaskBuilder { flow: self, at }
    }

    /// Checks the whole.
    ///
    /// # Errors
    /// [`BuildError`] with the first mistake.
    pub fn build(self) -> Result<Workflow, BuildError> {
        if let Some(error) = self.first_error {
            return Err(error);
        }
        let name = WorkflowName::new(&self.name)?;
        let tasks = self.drafts.into_iter().map(Draft::finish).collect::<Result<_, _>>()?;
        Ok(WorkflowSpec { name, description: self.description, tasks, code: Default::default() }.check()?)
    }

    fn remember(&mut self, error: BuildError) {
        self.first_error.get_or_insert(error);
    }
}

impl TaskBuilder<'_> {
    /// Keeps the task's history under `name`: give all tasks that run the same code the same name.
    pub fn named(self, name: impl Into<String>) -> Self {
        self.change(|task| task.name = Some(name.into()))
    }

    /// Runs a function that is registered in the worker's binary.
    pub fn function(self, function: impl AsRef<str>, params: impl Serialize) -> Self {
        let task = self.draft_id();
        let params =
            serde_json::to_value(params).map_err(|source| BuildError::Params { task: task.clone(), source });
        let function = TaskName::new(function).map_err(|source| BuildError::TaskName { task, source });
        match (function, params) {
            (Ok(function), Ok(params)) => {
                self.change(|task| task.run = Some(Work::Function { function, params }))
            }
            (Err(error), _) | (_, Err(error)) => self.fail(error),
        }
    }

    /// Runs a command line with `sh -c`.
    pub fn command(self, line: impl Into<String>) -> Self {
        self.change(|task| task.run = Some(Work::Command(line.into())))
    }

    /// Reads the only output of `other`.
    pub fn reads(self, other: &TaskHandle) -> Self {
        let task = other.id.clone();
        self.change(|draft| draft.inputs.push(DraftInput::Output { task, output: None, optional: false }))
    }

    /// Reads one named output of `other`.
    pub fn reads_output(self, other: &TaskHandle, output: impl Into<String>) -> Self {
        let (task, output) = (other.id.clone(), Some(output.into()));
        let input = DraftInput::Output { task, output, optional: false };
        self.change(|draft| draft.inputs.push(input))
    }

    /// Reads a file of this machine. A relative path is completed now, because workers run elsewhere.
    pub fn reads_file(self, path: impl AsRef<Path>) -> Self {
        match file_input(path.as_ref()) {
            Ok(input) => self.change(|draft| draft.inputs.push(DraftInput::Ready(input))),
            Err(source) => {
                let (task, path) = (self.draft_id(), path.as_ref().to_owned());
                self.fail(BuildError::File { task, path, source })
            }
        }
    }

    /// Reads a value that is written in the workflow itself.
    pub fn reads_value(self, value: impl Serialize) -> Self {
        match serde_json::to_value(value) {
            Ok(value) => self.change(|draft| draft.inputs.push(DraftInput::Ready(Input::Value { value }))),
            Err(source) => {
                let task = self.draft_id();
                self.fail(BuildError::Params { task, source })
            }
        }
    }

    /// Waits for `other` without reading from it.
    pub fn after(self, other: &TaskHandle) -> Self {
        let id = other.id.clone();
        self.change(|draft| draft.after.push(id))
    }

    /// Names the outputs, in the order the task writes them; without this there is one, `out`.
    pub fn outputs<N: Into<String>>(self, names: impl IntoIterator<Item = N>) -> Self {
        self.change(|draft| draft.outputs.extend(names.into_iter().map(|name| (name.into(), None))))
    }

    /// Names one more output and says how many bytes it is expected to have; used only where nothing was
    /// measured.
    pub fn output_of(self, name: impl Into<String>, bytes: u64) -> Self {
        self.change(|draft| draft.outputs.push((name.into(), Some(bytes))))
    }

    /// Never runs on a worker with less memory.
    pub fn memory_mb_min(self, memory_mb: u32) -> Self {
        self.change(|draft| draft.memory_mb_min = Some(memory_mb))
    }

    /// Has every plan optimise this task so, whether it pays or not.
    pub fn optimized(self, optimization: Optimization) -> Self {
        self.change(|draft| draft.optimizations.push(optimization))
    }

    /// Ends an attempt that takes longer.
    pub fn timeout(self, limit: Duration) -> Self {
        self.change(|draft| draft.timeout_ms = Some(limit.as_secs_f64() * 1000.0))
    }

    /// Most attempts, the first included.
    pub fn attempts(self, attempts_max: u32) -> Self {
        self.change(|draft| draft.attempts_max = Some(attempts_max))
    }

    /// Says what follows a failed attempt: the pauses, and what is not retried.
    ///
    /// ```
    /// use foresail::{Retry, WorkflowBuilder};
    ///
    /// let mut flow = WorkflowBuilder::new("fetch");
    /// flow.task("download").command("curl --fail https://example.org").attempts(5).retry(Retry {
    ///     backoff_ms: 500.0,
    ///     not_on_exit: vec![22], // curl: the server refused, and will again
    ///     ..Retry::default()
    /// });
    /// flow.build().unwrap();
    /// ```
    pub fn retry(self, retry: Retry) -> Self {
        self.change(|draft| draft.retry = Some(retry))
    }

    /// Says how long it takes on one vCPU; used only where nothing was measured.
    pub fn expects_exec_ms(self, exec_ms: f64) -> Self {
        self.change(|draft| draft.hint.exec_ms = Some(exec_ms))
    }

    /// The task, for others to depend on.
    #[must_use]
    pub fn handle(self) -> TaskHandle {
        TaskHandle { id: self.draft_id() }
    }

    fn change(self, apply: impl FnOnce(&mut Draft)) -> Self {
        apply(&mut self.flow.drafts[self.at]);
        self
    }

    fn fail(self, error: BuildError) -> Self {
        self.flow.remember(error);
        self
    }

    fn draft_id(&self) -> String {
        self.flow.drafts[self.at].id.clone()
    }
}

impl TaskHandle {
    /// Id of the task.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl Draft {
    fn finish(self) -> Result<Task, BuildError> {
        let wrong = |source| BuildError::TaskName { task: self.id.clone(), source };
        let id = TaskId::new(&self.id).map_err(wrong)?;
        let name = TaskName::new(self.name.as_ref().unwrap_or(&self.id)).map_err(wrong)?;
        let Some(run) = self.run else { return Err(BuildError::NothingToRun(self.id)) };
        let inputs = self.inputs.into_iter().map(DraftInput::finish).collect::<Result<_, _>>();
        let outputs = self
            .outputs
            .iter()
            .map(|(name, bytes)| ObjectName::new(name).map(|name| Output { name, bytes: *bytes }))
            .collect::<Result<_, _>>();
        let after = self.after.iter().map(TaskId::new).collect::<Result<_, _>>();
        let decision = self.decision.as_ref().map(ObjectName::new).transpose();
        let condition = |(task, wanted)| TaskId::new(task).map(|task| Condition { task, wanted });
        let when = self.when.map(condition).transpose();
        let wrong = |source| BuildError::TaskName { task: self.id.clone(), source };
        let mut task = Task::new(id, name, run);
        task.inputs = inputs.map_err(wrong)?;
        task.outputs = outputs.map_err(wrong)?;
        task.after = after.map_err(wrong)?;
        task.decision = decision.map_err(wrong)?;
        task.when = when.map_err(wrong)?;
        task.memory_mb_min = self.memory_mb_min;
        task.timeout_ms = self.timeout_ms;
        task.attempts_max = self.attempts_max;
        task.retry = self.retry;
        task.hint = self.hint;
        task.optimizations = self.optimizations;
        Ok(task)
    }
}

impl DraftInput {
    fn finish(self) -> Result<Input, NameError> {
        Ok(match self {
            Self::Ready(input) => input,
            Self::Output { task, output, optional } => {
                let output = output.map_or_else(|| Ok(ObjectName::default()), ObjectName::new)?;
                Input::Task { task: TaskId::new(task)?, output, optional }
            }
        })
    }
}

fn file_input(path: &Path) -> std::io::Result<Input> {
    let bytes = std::fs::metadata(path)?.len();
    let uri = std::path::absolute(path)?.to_string_lossy().into_owned();
    Ok(Input::External { uri, bytes: Some(bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(build: impl FnOnce(&mut WorkflowBuilder)) -> String {
        let mut flow = WorkflowBuilder::new("w");
        build(&mut flow);
        flow.build().expect_err("the workflow is wrong on purpose").to_string()
    }

    #[test]
    fn tasks_that_share_a_name_share_a_history_and_keep_their_ids() {
        let mut flow = WorkflowBuilder::new("w").description("two of a kind");
        let split = flow.task("split").command("split").outputs(["part-1", "part-2"]).handle();
        for part in ["part-1", "part-2"] {
            flow.task(format!("count-{part}")).named("count").command("wc -w").reads_output(&split, part);
        }
        let workflow = flow.build().unwrap();
        let graph = workflow.graph();
        assert_eq!(workflow.task(1).name, workflow.task(2).name);
        assert_ne!(workflow.task(1).id, workflow.task(2).id);
        assert_eq!(graph.children(0), [1, 2]);
        assert_eq!(graph.reads(1), &graph.writes(0)[..1]);
    }

    #[test]
    fn mistakes_name_the_task_and_the_value() {
        let nothing = message(|f| {
            f.task("lazy");
        });
        assert!(nothing.contains("`lazy`"), "{nothing}");
        let charset = message(|f| {
            f.task("a b").command("true");
        });
        assert!(charset.contains("`a b`"), "{charset}");
        let file = message(|f| {
            f.task("reader").command("cat").reads_file("no/such/file.txt");
        });
        assert!(file.contains("no/such/file.txt") && file.contains("`reader`"), "{file}");
        let output = message(|f| {
            let a = f.task("a").command("true").handle();
            f.task("b").command("true").reads_output(&a, "missing");
        });
        assert!(output.contains("`missing`"), "{output}");
        let twice = message(|f| {
            f.task("a").command("true");
            f.task("a").command("true");
        });
        assert!(twice.contains("twice"), "{twice}");
    }

    #[test]
    fn the_first_of_several_mistakes_is_reported() {
        let first = message(|f| {
            f.task("x").function("not a name", ());
            f.task("y").command("cat").reads_file("no/such/file.txt");
        });
        assert!(first.contains("not a name"), "{first}");
    }

    #[test]
    fn a_relative_file_becomes_absolute() {
        let mut flow = WorkflowBuilder::new("w");
        flow.task("a").command("cat").reads_file("Cargo.toml");
        let workflow = flow.build().unwrap();
        let Input::External { uri, bytes } = &workflow.task(0).inputs[0] else { panic!("not a file") };
        assert!(Path::new(uri).is_absolute());
        assert!(bytes.unwrap() > 0);
    }
}
