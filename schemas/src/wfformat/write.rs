//! The writer: a workflow, its run and the run's events become a WfFormat 1.5 document.
//!
//! `specification` is the structure with the sizes that were measured where a task has a result and those
//! that the workflow states otherwise; `execution` has one entry per task with a result and one machine per
//! worker. Values written in the workflow have no place in WfFormat and are left out. Files get the name of
//! the object; where several objects share a name, or a name begins like one that was changed, the task
//! stands before it: `task/name`.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::{RUNTIME_SYSTEM, VERSION};
use crate::config::ResourceConfig;
use crate::id::{InstanceId, WorkerId};
use crate::run::{Change, Commit, RunEvent, RunSummary};
use crate::workflow::{Input, Task, Work, Workflow};

/// Writes a run as WfFormat 1.5. `events` are all events of the run, in order.
///
/// A task's `runtimeInSeconds` is its time in the user's code; its `executedAt` is when the winning attempt
/// began. The makespan is the time until the run ended, or until now where it has not.
#[must_use]
pub fn write(workflow: &Workflow, run: &RunSummary, events: &[RunEvent]) -> Value {
    let record = Record::of(workflow, events);
    let files = FileNames::of(workflow);
    let execution = record.execution(workflow, run);
    json!({
        "name": workflow.name(),
        "description": workflow.spec().description.as_deref().filter(|d| !d.is_empty())
            .unwrap_or("A run of Foresail"),
        "createdAt": run.created_at,
        "schemaVersion": VERSION,
        "runtimeSystem": {
            "name": RUNTIME_SYSTEM,
            "version": env!("CARGO_PKG_VERSION"),
            "url": env!("CARGO_PKG_REPOSITORY"),
        },
        "workflow": {
            "runName": run.run,
            "specification": specification(workflow, &files, &record),
            "execution": execution,
        },
    })
}

/// What the events tell of workers and results.
struct Record<'a> {
    machines: HashMap<&'a InstanceId, (Option<&'a WorkerId>, ResourceConfig)>,
    begun_ms: HashMap<(u32, u32), f64>,
    commits: BTreeMap<u32, &'a Commit>,
    ended_ms: Option<f64>,
}

impl<'a> Record<'a> {
    fn of(workflow: &Workflow, events: &'a [RunEvent]) -> Self {
        let mut record = Self {
            machines: HashMap::new(),
            begun_ms: HashMap::new(),
            commits: BTreeMap::new(),
            ended_ms: None,
        };
        let known = |task: u32| (task as usize) < workflow.tasks().len();
        for event in events {
            match &event.change {
                Change::WorkerJoined { worker, instance, config, .. } => {
                    record.machines.insert(instance, (worker.as_ref(), *config));
                }
                Change::TaskLeased { task, attempt, .. } => {
                    record.begun_ms.insert((*task, *attempt), event.at_ms);
                }
                Change::TaskCommitted { task, commit } if known(*task) => {
                    record.commits.insert(*task, commit);
                }
                Change::RunFinished { .. } => record.ended_ms = Some(event.at_ms),
                _ => {}
            }
        }
        record
    }

    fn execution(&self, workflow: &Workflow, run: &RunSummary) -> Value {
        let tasks: Vec<Value> = self
            .commits
            .iter()
            .map(|(t, commit)| self.executed(workflow.task(*t), *t, commit, run))
            .collect();
        let mut seen = HashSet::new();
        let used = self.commits.values().map(|c| &c.instance).filter(|i| seen.insert(self.node(i)));
        let machines: Vec<Value> = used.map(|instance| self.machine(instance)).collect();
        json!({
            "makespanInSeconds": self.ended_ms.unwrap_or(run.elapsed_ms) / 1000.0,
            "executedAt": run.created_at,
            "tasks": tasks,
            "machines": machines,
        })
    }

    fn executed(&self, task: &Task, index: u32, commit: &Commit, run: &RunSummary) -> Value {
        let measured = &commit.measured;
        let begun_ms = self.begun_ms.get(&(index, commit.attempt)).copied();
        let mut entry = Map::new();
        entry.insert("id".into(), json!(task.id));
        entry.insert("runtimeInSeconds".into(), json!(measured.exec_ms / 1000.0));
        if let Some(at_ms) = begun_ms {
            entry.insert("executedAt".into(), json!(after(run.created_at, at_ms)));
        }
        entry.insert("command".into(), command(task));
        entry.insert("readBytes".into(), json!(measured.input_bytes));
        entry.insert("writtenBytes".into(), json!(measured.output_bytes));
        if measured.peak_memory_mb > 0.0 {
            let bytes = (measured.peak_memory_mb * f64::from(1 << 20)).round() as u64;
            entry.insert("memoryInBytes".into(), json!(bytes));
        }
        entry.insert("machines".into(), json!([self.node(&commit.instance)]));
        Value::Object(entry)
    }

    /// A planned worker is one machine however often it was invoked; a flexible one is a machine per
    /// invocation.
    fn node<'b>(&self, instance: &'b InstanceId) -> &'b str
    where
        'a: 'b,
    {
        match self.machines.get(instance) {
            Some((Some(worker), _)) => worker.as_str(),
            _ => instance.as_str(),
        }
    }

    fn machine(&self, instance: &InstanceId) -> Value {
        let node = self.node(instance);
        match self.machines.get(instance) {
            None => json!({"nodeName": node}),
            Some((_, config)) => json!({
                "nodeName": node,
                "memoryInBytes": u64::from(config.memory_mb) << 20,
                "cpu": {"coreCount": (config.cpu_share().round() as u64).max(1)},
            }),
        }
    }
}

/// The file id of every output, by task and place, and of nothing else: external inputs keep their address.
struct FileNames(Vec<Vec<String>>);

impl FileNames {
    fn of(workflow: &Workflow) -> Self {
        let mut uses: HashMap<String, u32> = HashMap::new();
        for task in workflow.tasks() {
            for name in task.output_names() {
                *uses.entry(name.into()).or_default() += 1;
            }
        }
        for input in workflow.tasks().iter().flat_map(|t| &t.inputs) {
            if let Input::External { uri, .. } = input {
                *uses.entry(uri.clone()).or_default() += 2;
            }
        }
        let name = |task: &Task, name: String| {
            let own_prefix = name.strip_prefix(task.id.as_str()).is_some_and(|rest| rest.starts_with('/'));
            match uses.get(&name) {
                Some(1) if !own_prefix => name,
                _ => format!("{}/{name}", task.id),
            }
        };
        let row = |task: &Task| task.output_names().into_iter().map(|n| name(task, n.into())).collect();
        Self(workflow.tasks().iter().map(row).collect())
    }
}

fn specification(workflow: &Workflow, files: &FileNames, record: &Record<'_>) -> Value {
    let graph = workflow.graph();
    let ids = |row: &[u32]| row.iter().map(|&t| &workflow.task(t).id).collect::<Vec<_>>();
    let mut sizes: BTreeMap<&str, u64> = BTreeMap::new();
    let mut tasks = Vec::with_capacity(workflow.tasks().len());
    for (t, task) in workflow.tasks().iter().enumerate() {
        let outputs = &files.0[t];
        let commit = record.commits.get(&(t as u32));
        for (place, file) in outputs.iter().enumerate() {
            let measured = commit.and_then(|c| c.outputs.get(place)).map(|o| o.bytes);
            let stated = task.outputs.get(place).and_then(|o| o.bytes);
            if let Some(bytes) = measured.or(stated) {
                sizes.insert(file, bytes);
            }
        }
        for input in &task.inputs {
            if let Input::External { uri, bytes: Some(bytes) } = input {
                sizes.insert(uri, *bytes);
            }
        }
        tasks.push(json!({
            "name": task.name,
            "id": task.id,
            "parents": ids(graph.parents(t as u32)),
            "children": ids(graph.children(t as u32)),
            "inputFiles": input_files(workflow, task, files),
            "outputFiles": outputs,
        }));
    }
    let files: Vec<Value> = sizes.iter().map(|(id, bytes)| json!({"id": id, "sizeInBytes": bytes})).collect();
    json!({"tasks": tasks, "files": files})
}

fn input_files<'a>(workflow: &Workflow, task: &'a Task, files: &'a FileNames) -> Vec<&'a str> {
    let mut seen = HashSet::new();
    let file = |input: &'a Input| match input {
        Input::External { uri, .. } => Some(uri.as_str()),
        Input::Value { .. } => None,
        Input::Task { task, output, .. } => {
            let producer = workflow.graph().find(task)?;
            let place = workflow.task(producer).output_names().iter().position(|n| n == output)?;
            Some(files.0[producer as usize][place].as_str())
        }
    };
    task.inputs.iter().filter_map(file).filter(|f| seen.insert(*f)).collect()
}

fn command(task: &Task) -> Value {
    match &task.run {
        Work::Command(line) => json!({"program": "sh", "arguments": ["-c", line]}),
        Work::Function { function, params } if params.is_null() => json!({"program": function}),
        Work::Function { function, params } => {
            json!({"program": function, "arguments": [params.to_string()]})
        }
        Work::Python { python } => json!({"program": "python", "arguments": [python.code]}),
    }
}

/// `at_ms` after `start`; `start` itself where that time cannot be written down.
fn after(start: Timestamp, at_ms: f64) -> Timestamp {
    SignedDuration::try_from_secs_f64(at_ms / 1000.0)
        .ok()
        .and_then(|passed| start.checked_add(passed).ok())
        .unwrap_or(start)
}
