//! What the tests share: a host over a store, plans written in short, waiting.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use foresail_choreography::{PlanView, first_invocations};
use foresail_schemas::config::ResourceConfig;
use foresail_schemas::invocation::{HostStatus, Invocation};
use foresail_schemas::metric::{Record, StartState};
use foresail_schemas::plan::{Bounds, Objective, Plan, PlanSummary, PlannedTask, PlannedWorker};
use foresail_schemas::run::{RunOptions, RunStatus};
use foresail_schemas::{RunId, Sla, TaskName, WorkerId, Workflow};
use foresail_worker::host::local::{LocalFaas, LocalSettings, WorkerCommand};
use foresail_worker::host::{Host, HostError};
use serde_json::{Value, json};

use crate::store::Store;

/// Longest time any test waits for anything.
const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// A host and the store it works for.
pub struct Bench {
    pub store: Store,
    pub host: LocalFaas,
    pub data: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    pub fn new(adjust: impl FnOnce(&mut LocalSettings)) -> Self {
        let (store, data) = (Store::start(), tempfile::tempdir().unwrap());
        let mut settings = LocalSettings::new(&store.url, data.path());
        settings.worker = Some(WorkerCommand { program: worker_program(), args: Vec::new() });
        settings.concurrency_max = 2;
        adjust(&mut settings);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { store, host: LocalFaas::start(settings).unwrap(), data, runtime }
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub fn status(&self) -> HostStatus {
        self.block_on(self.host.status()).unwrap()
    }

    /// Starts a run and the workers that it begins with.
    pub fn submit(&self, run: &str, workflow: &Workflow, plan: &Plan, options: RunOptions) -> RunId {
        let id = RunId::new(run).unwrap();
        self.store.create(&id, workflow, plan, options);
        for invoke in first_invocations(workflow.graph(), &PlanView::new(1, plan)) {
            let metad = self.store.url.clone();
            let (worker, config, tasks) = (invoke.worker, invoke.config, invoke.tasks);
            self.invoke(Invocation::new(id.clone(), worker, config, tasks, metad)).unwrap();
        }
        id
    }

    pub fn invoke(&self, invocation: Invocation) -> Result<String, HostError> {
        self.block_on(self.host.invoke(invocation)).map(|invoked| invoked.instance.to_string())
    }

    /// A run from its start to its end, the measurements of its workers included.
    pub fn complete(&self, run: &str, workflow: &Workflow, plan: &Plan) -> RunId {
        let id = self.submit(run, workflow, plan, RunOptions::default());
        self.wait_for_end(&id);
        assert_eq!(self.store.status(&id), RunStatus::Completed, "{:?}", self.store.summary(&id).failure);
        id
    }

    pub fn wait_for_end(&self, run: &RunId) {
        wait_until("the run to end", || self.store.status(run) != RunStatus::Running);
        self.wait_until_idle();
    }

    pub fn wait_until_idle(&self) {
        wait_until("the workers to be idle", || {
            let status = self.status();
            status.busy == 0 && status.queued == 0
        });
    }
}

pub fn worker_program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_foresail-worker"))
}

pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let ends = Instant::now() + WAIT_LIMIT;
    while !is_so() {
        assert!(Instant::now() < ends, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

pub fn wait_until_gone(pid: u32) {
    wait_until(&format!("process {pid} to end"), || !is_alive(pid));
}

pub fn workflow(tasks: Value) -> Workflow {
    serde_json::from_value(json!({"name": "w", "tasks": tasks})).unwrap()
}

pub fn burn(id: &str, params: Value) -> Value {
    json!({"id": id, "name": "burn", "run": {"function": "foresail.burn", "params": params}})
}

pub fn config(memory_mb: u32, vcpu: f64) -> ResourceConfig {
    ResourceConfig::new(memory_mb, Some(vcpu)).unwrap()
}

/// A plan with a worker (or none: flexible) and a size per task.
pub fn plan(workflow: &Workflow, placed: &[(Option<&str>, ResourceConfig)]) -> Plan {
    let mut workers: Vec<PlannedWorker> = Vec::new();
    let mut tasks = Vec::new();
    for (task, (worker, config)) in workflow.tasks().iter().zip(placed) {
        let worker = worker.map(|w| WorkerId::new(w).unwrap());
        if let Some(id) = worker.clone().filter(|id| workers.iter().all(|w| w.id != *id)) {
            workers.push(PlannedWorker { id, config: *config, start_ms: 0.0, end_ms: 0.0, cost_usd: 0.0 });
        }
        tasks.push(PlannedTask {
            task: task.id.clone(),
            worker,
            config: *config,
            rank: tasks.len() as u32,
            start_ms: 0.0,
            end_ms: 0.0,
            exec_ms: 1.0,
            output_bytes: None,
            optimizations: Vec::new(),
            unexpected: false,
            why: String::new(),
            forecast: None,
        });
    }
    Plan {
        workflow: workflow.name().clone(),
        planner: TaskName::new("by-hand").unwrap(),
        seed: 0,
        objective: Objective::Fastest,
        sla: Sla::MEDIAN,
        platform: "local".parse().unwrap(),
        model_epoch: 0,
        workers,
        tasks,
        prewarms: Vec::new(),
        flexible: None,
        predicted: PlanSummary::default(),
        usage: Vec::new(),
        outlook: None,
        bounds: Bounds::default(),
        critical_path: Vec::new(),
        explanation: Vec::new(),
    }
}

/// Every task flexible and of this size.
pub fn flexible(workflow: &Workflow, config: ResourceConfig) -> Plan {
    plan(workflow, &vec![(None, config); workflow.tasks().len()])
}

pub fn starts(records: &[Record]) -> Vec<StartState> {
    let state = |r: &Record| match r {
        Record::Startup(startup) => Some(startup.state),
        Record::Task(_) | Record::Transfer(_) | Record::Decision(_) => None,
    };
    records.iter().filter_map(state).collect()
}
