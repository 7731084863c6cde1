//! One worker that plays against a real ledger, for tests of what it asks. Times in ms; a request is answered
//! at the time it is sent.

#[path = "../world/problems.rs"]
#[allow(dead_code)]
mod problems;

use std::sync::Arc;

use foresail_choreography::{Action, Event, Executed, Ledger, PlanView, Worker, WorkerSettings};
use foresail_schemas::metric::StartState;
use foresail_schemas::optimization::{Optimization, PreWarming};
use foresail_schemas::run::{
    Commit, Failure, FailureKind, Location, Measured, Operation, OperationAnswer, RunEvent, RunOptions,
    StoredObject, WorkerUsage,
};
use foresail_schemas::workflow::{Input, Task, Work, WorkflowSpec};
use foresail_schemas::{InstanceId, ObjectName, Plan, ResourceConfig, Workflow};

pub fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a legal name")
}

/// A task: its worker, its parents, its optimisations. `!` before a parent is a file outside the workflow.
pub type Row = (&'static str, &'static [&'static str], &'static [Optimization]);

fn workflow(rows: &[Row]) -> Workflow {
    let task = |(t, (_, inputs, _)): (usize, &Row)| {
        let work = Work::Function { function: name("f"), params: serde_json::Value::Null };
        let mut task = Task::new(name(&format!("t{t}")), name("f"), work);
        for input in *inputs {
            task.inputs.push(match input.strip_prefix('!') {
                Some(file) => Input::External { uri: format!("file:///{file}"), bytes: None },
                None => Input::task(name(input), ObjectName::default()),
            });
        }
        task
    };
    let tasks = rows.iter().enumerate().map(task).collect();
    WorkflowSpec { name: name("w"), description: None, tasks, code: Default::default() }
        .check()
        .expect("edges go forward")
}

fn plan(rows: &[Row], workflow: &Workflow) -> Plan {
    let mut plan = problems::plan(&mut rand::SeedableRng::seed_from_u64(1), workflow);
    plan.workers.iter_mut().for_each(|worker| worker.config = size());
    plan.prewarms.clear();
    for (task, (worker, _, optimizations)) in plan.tasks.iter_mut().zip(rows) {
        task.worker = (!worker.is_empty()).then(|| name(worker));
        task.config = size();
        task.optimizations = optimizations.to_vec();
    }
    plan
}

pub fn size() -> ResourceConfig {
    ResourceConfig::new(512, None).expect("a legal size")
}

/// A worker `a` with one lane that keeps nothing.
pub fn settings() -> WorkerSettings {
    WorkerSettings {
        instance: name("i-a"),
        worker: Some(name("a")),
        config: size(),
        start: StartState::Cold,
        options: RunOptions::default(),
        lanes: 1,
        backlog_ms: 0.0,
        keep_bytes_min: None,
        life_ends_ms: 900_000.0,
    }
}

/// Worker `a` of a plan, in play with a store.
pub struct Play {
    pub ledger: Ledger,
    pub worker: Worker,
    pub now_ms: f64,
    /// What was asked, oldest first, since the last look.
    actions: Vec<Action>,
    operations: Vec<Operation>,
    pub events: Vec<RunEvent>,
}

impl Play {
    pub fn new(rows: &[Row], first: &[u32]) -> Self {
        Self::with(rows, first, 1, RunOptions::default(), Vec::new())
    }

    pub fn with(
        rows: &[Row],
        first: &[u32],
        lanes: u32,
        options: RunOptions,
        prewarms: Vec<PreWarming>,
    ) -> Self {
        let settings = WorkerSettings { lanes, options, ..settings() };
        Self::of(rows, first, settings, prewarms)
    }

    pub fn of(rows: &[Row], first: &[u32], settings: WorkerSettings, prewarms: Vec<PreWarming>) -> Self {
        Self::planned(rows, first, settings, |plan| plan.prewarms = prewarms)
    }

    pub fn planned(
        rows: &[Row],
        first: &[u32],
        settings: WorkerSettings,
        change: impl FnOnce(&mut Plan),
    ) -> Self {
        let options = settings.options;
        let workflow = workflow(rows);
        let mut plan = plan(rows, &workflow);
        change(&mut plan);
        let view = Arc::new(PlanView::new(1, &plan));
        let mut ledger = Ledger::new(&workflow, options);
        let events = ledger.begin(0.0);
        let worker = Worker::new(settings, workflow.graph().clone(), view, first);
        let (actions, operations) = (Vec::new(), Vec::new());
        Self { ledger, worker, now_ms: 0.0, actions, operations, events }
    }

    /// Begins; every request is answered at once.
    pub fn begun(mut self) -> Self {
        let mut out = Vec::new();
        self.worker.start(self.now_ms, &mut out);
        self.settle(out);
        self
    }

    pub fn hear(&mut self, event: Event) {
        let mut out = Vec::new();
        self.worker.handle(event, self.now_ms, &mut out);
        self.settle(out);
    }

    /// Answers requests until there is none; keeps what else is asked.
    fn settle(&mut self, out: Vec<Action>) {
        for action in out {
            match action {
                Action::Operate { request, operations } => {
                    let answer = self.apply(&operations);
                    self.hear(Event::Answered { request, answer });
                }
                Action::WakeAt { .. } => {}
                Action::ReadUsage => {
                    self.actions.push(Action::ReadUsage);
                    self.hear(Event::UsageRead { usage: WorkerUsage::default() });
                }
                other => self.actions.push(other),
            }
        }
    }

    pub fn apply(&mut self, operations: &[Operation]) -> OperationAnswer {
        let mut results = Vec::new();
        for operation in operations {
            let (result, events) = self.ledger.apply(operation, self.now_ms);
            self.events.extend(events);
            results.push(result);
        }
        self.operations.extend_from_slice(operations);
        OperationAnswer { status: self.ledger.status(), plan_epoch: self.ledger.plan_epoch(), results }
    }

    /// Another worker takes the task and brings it to its end.
    pub fn elsewhere(&mut self, worker: &str, task: u32) -> Commit {
        let instance: InstanceId = name(&format!("i-{worker}"));
        let (config, start) = (size(), StartState::Cold);
        let commit = commit(instance.as_str(), 1);
        let operations = [
            Operation::Join { worker: Some(name(worker)), instance: instance.clone(), config, start },
            Operation::Lease { task, instance, epoch: 1, assuming: Vec::new() },
            Operation::Commit { task, commit: commit.clone(), assuming: Vec::new() },
        ];
        let asked = self.operations.len();
        self.apply(&operations);
        self.operations.truncate(asked);
        commit
    }

    pub fn asked(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    pub fn sent(&mut self) -> Vec<Operation> {
        std::mem::take(&mut self.operations)
    }

    pub fn executed(&mut self, task: u32, attempt: u32) {
        let outcome =
            Ok(Executed { outputs: outputs(), measured: Measured::default(), decision: None, printed: None });
        self.hear(Event::Executed { task, attempt, outcome });
    }

    pub fn failed(&mut self, task: u32, attempt: u32) {
        let (kind, message) = (FailureKind::TaskError, "drawn".to_owned());
        let outcome = Err(Failure { task: None, attempt, kind, message, exception: None, lost: Vec::new() });
        self.hear(Event::Executed { task, attempt, outcome });
    }

    pub fn at(&mut self, now_ms: f64) {
        self.now_ms = now_ms;
        self.hear(Event::Tick);
    }

    pub fn ready_hint(&mut self, task: u32) {
        self.hear(Event::Hint { ready: vec![task], committed: Vec::new(), skipped: Vec::new() });
    }
}

pub fn outputs() -> Vec<StoredObject> {
    vec![StoredObject { bytes: 1, hash: String::new(), location: Location::Inline(String::new()) }]
}

pub fn commit(instance: &str, attempt: u32) -> Commit {
    Commit {
        attempt,
        instance: name(instance),
        outputs: outputs(),
        measured: Measured::default(),
        decision: None,
        printed: None,
    }
}

/// The tasks executed, with their attempts.
pub fn executions(actions: &[Action]) -> Vec<(u32, u32)> {
    let execution = |action: &Action| match action {
        Action::Execute { task, attempt, .. } => Some((*task, *attempt)),
        _ => None,
    };
    actions.iter().filter_map(execution).collect()
}
