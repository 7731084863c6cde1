//! The reader: a WfFormat document becomes a workflow of tasks that burn CPU.
//!
//! Optional fields may be missing; a task without a recorded time burns none and has no hint. Edges are the
//! union of `parents` and `children`. A task that lists no output file writes one empty object named `out`.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::{RUNTIME_SYSTEM, VERSION, WfFormatError, burn_task};
use crate::id::{NAME_LEN_MAX, NameError, ObjectName, TaskId, TaskName, WorkflowName};
use crate::workflow::{Hint, Input, Output, Task, Workflow, WorkflowSpec};

/// Programs that say nothing of the task: they run what their arguments say.
const INTERPRETERS: &[&str] =
    &["sh", "bash", "zsh", "env", "python", "python3", "perl", "java", "R", "Rscript", "node", "wfbench.py"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    name: String,
    description: Option<String>,
    schema_version: Option<String>,
    runtime_system: Option<RuntimeSystem>,
    workflow: WorkflowPart,
}

#[derive(Deserialize)]
struct RuntimeSystem {
    name: Option<String>,
}

#[derive(Deserialize)]
struct WorkflowPart {
    specification: Specification,
    #[serde(default)]
    execution: Execution,
}

#[derive(Deserialize)]
struct Specification {
    tasks: Vec<SpecTask>,
    #[serde(default)]
    files: Vec<SpecFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecTask {
    id: String,
    name: Option<String>,
    #[serde(default)]
    parents: Vec<String>,
    #[serde(default)]
    children: Vec<String>,
    #[serde(default)]
    input_files: Vec<String>,
    #[serde(default)]
    output_files: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecFile {
    id: String,
    size_in_bytes: Option<serde_json::Number>,
}

#[derive(Default, Deserialize)]
struct Execution {
    #[serde(default)]
    tasks: Vec<ExecTask>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExecTask {
    id: String,
    runtime_in_seconds: Option<f64>,
    memory_in_bytes: Option<f64>,
    command: Option<Command>,
}

#[derive(Deserialize)]
struct Command {
    program: Option<String>,
}

/// Reads a WfFormat 1.5 document; the workflow has the tasks in the order of the document.
///
/// # Errors
/// [`WfFormatError`] with the task or file that broke a rule.
pub fn read(text: &str) -> Result<Workflow, WfFormatError> {
    let document: Document = serde_json::from_str(text).map_err(|e| WfFormatError::Json(e.to_string()))?;
    match document.schema_version.as_deref() {
        None | Some(VERSION) => {}
        Some(other) => return Err(WfFormatError::Version(other.to_owned())),
    }
    let name = WorkflowName::new(sanitised(&document.name))
        .map_err(|source| WfFormatError::Name { owner: "the document".to_owned(), source })?;
    let tasks = Reader::new(&document)?.tasks()?;
    Ok(WorkflowSpec { name, description: document.description, tasks, code: Default::default() }.check()?)
}

/// What is looked up while the tasks are read.
struct Reader<'a> {
    specs: &'a [SpecTask],
    ids: Vec<TaskId>,
    parents: Vec<Vec<usize>>,
    executed: HashMap<&'a str, &'a ExecTask>,
    bytes: HashMap<&'a str, u64>,
    writers: HashMap<&'a str, Vec<usize>>,
    own: bool,
}

impl<'a> Reader<'a> {
    fn new(document: &'a Document) -> Result<Self, WfFormatError> {
        let part = &document.workflow;
        let specs = &part.specification.tasks;
        let ids = task_ids(specs)?;
        let parents = parents(specs)?;
        let mut writers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (t, spec) in specs.iter().enumerate() {
            for file in distinct(&spec.output_files) {
                writers.entry(file).or_default().push(t);
            }
        }
        let system = document.runtime_system.as_ref().and_then(|s| s.name.as_deref());
        Ok(Self {
            specs,
            ids,
            parents,
            executed: part.execution.tasks.iter().map(|t| (t.id.as_str(), t)).collect(),
            bytes: file_sizes(&part.specification.files)?,
            writers,
            own: system == Some(RUNTIME_SYSTEM),
        })
    }

    fn tasks(&self) -> Result<Vec<Task>, WfFormatError> {
        (0..self.specs.len()).map(|t| self.task(t)).collect()
    }

    fn task(&self, t: usize) -> Result<Task, WfFormatError> {
        let spec = &self.specs[t];
        let executed = self.executed.get(spec.id.as_str()).copied();
        let name = TaskName::new(self.function_name(spec, executed)).map_err(|e| in_task(spec, e))?;
        let mut task = burn_task(self.ids[t].clone(), name, hint(spec, executed)?, self.outputs(t)?);
        let mut shared = HashSet::new();
        for file in distinct(&spec.input_files) {
            match self.writer(t, file)? {
                None => {
                    let uri = file.to_owned();
                    task.inputs.push(Input::External { uri, bytes: self.bytes.get(file).copied() });
                }
                Some(writer) => {
                    shared.insert(writer);
                    let output = self.object_name(writer, file)?;
                    task.inputs.push(Input::task(self.ids[writer].clone(), output));
                }
            }
        }
        let after = self.parents[t].iter().filter(|&p| !shared.contains(p));
        task.after = after.map(|&p| self.ids[p].clone()).collect();
        Ok(task)
    }

    fn outputs(&self, t: usize) -> Result<Vec<Output>, WfFormatError> {
        let files = distinct(&self.specs[t].output_files);
        if files.is_empty() {
            return Ok(vec![Output { name: ObjectName::default(), bytes: Some(0) }]);
        }
        files
            .into_iter()
            .map(|file| Ok(Output { name: self.object_name(t, file)?, bytes: self.bytes.get(file).copied() }))
            .collect()
    }

    /// Whose `file` task `t` reads; nothing for a file outside the workflow.
    fn writer(&self, t: usize, file: &str) -> Result<Option<usize>, WfFormatError> {
        let all = self.writers.get(file).map_or(&[][..], Vec::as_slice);
        let others: Vec<usize> = all.iter().copied().filter(|&w| w != t).collect();
        let among_parents = || others.iter().copied().filter(|w| self.parents[t].contains(w));
        match others[..] {
            [] => Ok(None),
            [only] => Ok(Some(only)),
            [first, second, ..] => match among_parents().collect::<Vec<_>>()[..] {
                [only] => Ok(Some(only)),
                _ => Err(WfFormatError::Writers {
                    task: self.specs[t].id.clone(),
                    file: file.to_owned(),
                    first: self.specs[first].id.clone(),
                    second: self.specs[second].id.clone(),
                }),
            },
        }
    }

    /// The object that `file` is: in documents of Foresail's own without the task that the writer put before
    /// it.
    fn object_name(&self, writer: usize, file: &str) -> Result<ObjectName, WfFormatError> {
        let prefix = self.ids[writer].as_str();
        let bare = match file.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/')) {
            Some(bare) if self.own => bare,
            _ => file,
        };
        ObjectName::new(bare).map_err(|source| WfFormatError::Name {
            owner: format!("file `{file}` of task `{}`", self.specs[writer].id),
            source,
        })
    }

    fn function_name(&self, spec: &SpecTask, executed: Option<&ExecTask>) -> String {
        let name = spec.name.as_deref().unwrap_or(&spec.id);
        if self.own {
            return name.to_owned();
        }
        let program = executed.and_then(|e| e.command.as_ref()).and_then(|c| c.program.as_deref());
        match program.and_then(meaningful) {
            Some(program) => sanitised(program),
            None => sanitised(without_counter(name, &spec.id)),
        }
    }
}

fn task_ids(specs: &[SpecTask]) -> Result<Vec<TaskId>, WfFormatError> {
    let mut seen: HashMap<TaskId, usize> = HashMap::with_capacity(specs.len());
    let mut ids = Vec::with_capacity(specs.len());
    for (t, spec) in specs.iter().enumerate() {
        let id = TaskId::new(sanitised(&spec.id)).map_err(|e| in_task(spec, e))?;
        if let Some(earlier) = seen.insert(id.clone(), t) {
            let (first, second) = (specs[earlier].id.clone(), spec.id.clone());
            return Err(WfFormatError::SameId { first, second, id });
        }
        ids.push(id);
    }
    Ok(ids)
}

/// The distinct parents of every task: those it names, then those that name it as a child.
fn parents(specs: &[SpecTask]) -> Result<Vec<Vec<usize>>, WfFormatError> {
    let index: HashMap<&str, usize> = specs.iter().enumerate().map(|(t, s)| (s.id.as_str(), t)).collect();
    let find = |spec: &SpecTask, other: &str| {
        let dangling = || WfFormatError::Dangling { task: spec.id.clone(), other: other.to_owned() };
        index.get(other).copied().ok_or_else(dangling)
    };
    let mut rows = vec![Vec::new(); specs.len()];
    let mut seen = HashSet::new();
    for (t, spec) in specs.iter().enumerate() {
        for parent in &spec.parents {
            let parent = find(spec, parent)?;
            if seen.insert((parent, t)) {
                rows[t].push(parent);
            }
        }
    }
    for (t, spec) in specs.iter().enumerate() {
        for child in &spec.children {
            let child = find(spec, child)?;
            if seen.insert((t, child)) {
                rows[child].push(t);
            }
        }
    }
    Ok(rows)
}

fn file_sizes(files: &[SpecFile]) -> Result<HashMap<&str, u64>, WfFormatError> {
    let mut sizes = HashMap::with_capacity(files.len());
    for file in files {
        let Some(number) = &file.size_in_bytes else { continue };
        let whole = number.as_u64().or_else(|| number.as_f64().filter(|x| *x >= 0.0).map(|x| x as u64));
        let bytes = whole.ok_or_else(|| WfFormatError::Number {
            owner: format!("file `{}`", file.id),
            field: "sizeInBytes",
            value: number.to_string(),
        })?;
        sizes.insert(file.id.as_str(), bytes);
    }
    Ok(sizes)
}

fn hint(spec: &SpecTask, executed: Option<&ExecTask>) -> Result<Hint, WfFormatError> {
    let check = |field, value: Option<f64>| match value {
        Some(x) if !(x.is_finite() && x >= 0.0) => {
            let owner = format!("task `{}`", spec.id);
            Err(WfFormatError::Number { owner, field, value: x.to_string() })
        }
        other => Ok(other),
    };
    let seconds = check("runtimeInSeconds", executed.and_then(|e| e.runtime_in_seconds))?;
    let memory = check("memoryInBytes", executed.and_then(|e| e.memory_in_bytes))?;
    Ok(Hint { exec_ms: seconds.map(|s| s * 1000.0), memory_bytes: memory.map(|b| b as u64) })
}

fn in_task(spec: &SpecTask, source: NameError) -> WfFormatError {
    WfFormatError::Name { owner: format!("task `{}`", spec.id), source }
}

/// The last part of a program's path, where that is one word that says what is done.
fn meaningful(program: &str) -> Option<&str> {
    let word = program.rsplit('/').next().unwrap_or(program);
    let says_something = word.chars().any(|c| c.is_ascii_alphanumeric());
    let legal = TaskName::new(word).is_ok() && !program.contains(char::is_whitespace);
    (says_something && legal && !INTERPRETERS.contains(&word)).then_some(word)
}

/// `name` without the counter behind it.
///
/// `_ID` and digits, or `_` and at least five digits, are counters wherever they stand last. Fewer digits are
/// one only where the name is the task's id: otherwise they may belong to the name.
fn without_counter<'a>(name: &'a str, id: &str) -> &'a str {
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = name.len() - bare.len();
    let counter = match (bare.strip_suffix("_ID"), bare.strip_suffix('_')) {
        (Some(stem), _) if digits > 0 => stem,
        (None, Some(stem)) if digits >= 5 || (digits > 0 && name == id) => stem,
        _ => name,
    };
    if counter.is_empty() { name } else { counter }
}

/// `text` as a legal name: see the rule in the module above.
fn sanitised(text: &str) -> String {
    let legal = |c: char| c.is_ascii_alphanumeric() || "_.:@+~-".contains(c);
    let mut name: String = text.chars().map(|c| if legal(c) { c } else { '_' }).collect();
    if name.starts_with(['.', ':', '@', '+', '~', '-']) {
        name.insert(0, '_');
    }
    name.truncate(NAME_LEN_MAX);
    name
}

fn distinct(files: &[String]) -> Vec<&str> {
    let mut seen = HashSet::new();
    files.iter().map(String::as_str).filter(|f| seen.insert(*f)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_behind_names_are_dropped_and_parts_of_names_are_kept() {
        for (name, id, expect) in [
            ("mProject_ID0000001", "mProject_ID0000001", "mProject"),
            ("cpuhog_chain_00000003", "cpuhog_chain_00000003", "cpuhog_chain"),
            ("FASTQC_12", "FASTQC_12", "FASTQC"),
            ("STAGE_2", "STAGE_2_17", "STAGE_2"),
            ("blastall_00000002", "00000002", "blastall"),
            ("_12", "_12", "_12"),
            ("gatk4", "gatk4", "gatk4"),
            ("x_ID", "x_ID", "x_ID"),
        ] {
            assert_eq!(without_counter(name, id), expect, "{name}");
        }
    }

    #[test]
    fn only_programs_that_say_something_are_names() {
        for (program, expect) in [
            ("mProject", Some("mProject")),
            ("/opt/bin/blastall", Some("blastall")),
            ("unicycler \\\n --threads 1", None),
            ("/usr/bin/python3", None),
            ("-", None),
            ("", None),
        ] {
            assert_eq!(meaningful(program), expect, "{program:?}");
        }
    }

    #[test]
    fn names_become_legal_by_the_documented_rule() {
        for (text, expect) in [("a b/c", "a_b_c"), ("-x", "_-x"), ("é", "_"), ("ok", "ok")] {
            assert_eq!(sanitised(text), expect);
        }
        assert_eq!(sanitised(&"x".repeat(300)).len(), NAME_LEN_MAX);
    }
}
