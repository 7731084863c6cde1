//! One valid value of everything that crosses a process boundary, for the JSON Schemas, the OpenAPI document
//! and tests.
//!
//! All of them tell of one run: a small word count whose two `count` tasks run on a planned worker and a
//! flexible one.

mod hosts;
mod listing;
mod score;

pub use hosts::{host_message, host_status, invocation, invoked, worker_message};
pub use listing::{quarantine_list, run_list, task_list, workflow_entry, workflow_list};
pub use score::workflow_scores;

use jiff::Timestamp;

use crate::config::{ResourceConfig, Sla};
use crate::decision::Decision;
use crate::error::{ErrorCode, Problem};
use crate::id::{BatchId, InstanceId, NameError, RunId, TaskId, TaskName, WorkerId, WorkflowName};
use crate::metric::{
    Batch, BatchAnswer, DecisionRecord, Direction, Record, Rejected, StartState, StartupRecord, TaskRecord,
    TransferRecord,
};
use crate::plan::{
    self, Bounds, EngineTimes, Objective, Plan, PlanSummary, PlannedTask, PlannedWorker, PredictionTable,
    StartupTimes, TransferTimes,
};
use crate::platform::Platform;
use crate::prediction::{
    Basis, Prediction, PredictionAnswer, PredictionRequest, Query, SinglePrediction, Unit,
};
use crate::run::{
    Change, Commit, ConfigUsage, CurrentPlan, EventPage, Failure, FailureKind, Location, Measured, Operation,
    OperationAnswer, OperationRequest, OperationResult, Promise, ReplanRequest, Replanning, RunCreated,
    RunEvent, RunOptions, RunRequest, RunStatus, RunSummary, StoredObject, WorkerUsage,
};
use crate::workflow::{Hint, Input, Output, Task, Work, Workflow, WorkflowSpec};

const LEGAL: &str = "the names of the examples are legal";

fn name<T>(made: Result<T, NameError>) -> T {
    made.expect(LEGAL)
}

fn workflow_name() -> WorkflowName {
    name(WorkflowName::new("word-count"))
}

fn task_id(text: &str) -> TaskId {
    name(TaskId::new(text))
}

fn task_name(text: &str) -> TaskName {
    name(TaskName::new(text))
}

fn instance() -> InstanceId {
    name(InstanceId::new("i-3"))
}

fn worker_id() -> WorkerId {
    name(WorkerId::new("w-1"))
}

fn run_id() -> RunId {
    name(RunId::new("r-1"))
}

fn config() -> ResourceConfig {
    ResourceConfig { memory_mb: 885, vcpu: None }
}

fn time(text: &str) -> Timestamp {
    text.parse().expect("the times of the examples are RFC 3339")
}

/// The word count: split, two counts, merge.
#[must_use]
pub fn workflow() -> Workflow {
    let from = |task: &str, output: &str| Input::task(task_id(task), output.parse().expect(LEGAL));
    let named = |name: &str, bytes| Output { name: name.parse().expect(LEGAL), bytes };
    let function = |name: &str| Work::Function { function: task_name(name), params: serde_json::Value::Null };
    let split = Task {
        inputs: vec![Input::External { uri: "file:///data/words.txt".to_owned(), bytes: Some(50_000_000) }],
        outputs: vec![named("part-0", Some(25_000_000)), named("part-1", None)],
        memory_mb_min: Some(512),
        hint: Hint { exec_ms: Some(800.0), memory_bytes: Some(60_000_000) },
        ..Task::new(task_id("split"), task_name("split"), function("words.split"))
    };
    let count = |at: u32| Task {
        inputs: vec![
            from("split", &format!("part-{at}")),
            Input::Value { value: serde_json::json!({"lowercase": true}) },
        ],
        ..Task::new(task_id(&format!("count-{at}")), task_name("count"), function("words.count"))
    };
    let merge = Task {
        inputs: vec![from("count-0", "out"), from("count-1", "out")],
        after: vec![task_id("split")],
        timeout_ms: Some(60_000.0),
        attempts_max: Some(2),
        ..Task::new(task_id("merge"), task_name("merge"), Work::Command("sort -m in/* > out/out".to_owned()))
    };
    let tasks = vec![split, count(0), count(1), merge];
    let (description, code) = (Some("Counts the words of a text".to_owned()), Default::default());
    WorkflowSpec { name: workflow_name(), description, tasks, code }.check().expect("the example is a DAG")
}

/// A batch with a record of each kind.
#[must_use]
pub fn batch() -> Batch {
    let task = TaskRecord {
        task: task_name("count"),
        memory_mb: 1769,
        vcpu: Some(1.0),
        input_bytes: 50_000_000,
        output_bytes: Some(1200),
        exec_ms: 1523.4,
        peak_memory_mb: Some(312.0),
        attempt: 1,
        at: Some(time("2026-01-05T10:00:00Z")),
        forecast: None,
    };
    let transfer = TransferRecord {
        direction: Direction::Download,
        bytes: 50_000_000,
        time_ms: 812.0,
        memory_mb: 1769,
        vcpu: Some(1.0),
        store: Some(task_name("s3")),
        at: None,
    };
    let startup =
        StartupRecord { state: StartState::Cold, time_ms: 640.2, memory_mb: 1769, vcpu: Some(1.0), at: None };
    let decision = DecisionRecord {
        task: task_name("split"),
        input_bytes: 50_000_000,
        value: Decision::Width(12),
        at: Some(time("2026-01-05T10:00:00Z")),
    };
    Batch {
        batch_id: name(BatchId::new("b-1")),
        run: Some(run_id()),
        worker: Some(instance()),
        records: vec![
            Record::Task(task),
            Record::Transfer(transfer),
            Record::Startup(startup),
            Record::Decision(decision),
        ],
    }
}

/// The answer to a batch with one record that was set aside.
#[must_use]
pub fn batch_answer() -> BatchAnswer {
    let detail = "time_ms `-3` must be finite and at least 0".to_owned();
    let rejected = vec![Rejected { index: 1, code: ErrorCode::InvalidRecord, detail }];
    BatchAnswer { accepted: 2, duplicate: false, rejected, epoch: 412 }
}

/// A question of each kind at two service levels.
#[must_use]
pub fn prediction_request() -> PredictionRequest {
    let (memory_mb, vcpu) = (1769, Some(1.0));
    let (bytes, input_bytes) = (50_000_000, 50_000_000);
    let queries = vec![
        Query::ExecutionTime { task: task_name("count"), input_bytes, memory_mb, vcpu },
        Query::OutputSize { task: task_name("count"), input_bytes },
        Query::TransferTime { direction: Direction::Download, bytes, memory_mb, vcpu: None, store: None },
        Query::StartupTime { state: StartState::Cold, memory_mb, vcpu: None },
        Query::Decision { task: task_name("split"), input_bytes },
    ];
    PredictionRequest { sla: vec![Sla::MEDIAN, Sla::P95], queries }
}

fn prediction() -> Prediction {
    Prediction {
        unit: Unit::Ms,
        values: [(Sla::MEDIAN, Some(1480.1)), (Sla::P95, Some(1623.5))].into(),
        basis: Basis::Exact,
        samples: 214,
        extrapolated: false,
        interval: [(Sla::P95, [1540.2, 1755.0])].into(),
        branches: [].into(),
    }
}

/// Two answers; of the second nothing is known.
#[must_use]
pub fn prediction_answer() -> PredictionAnswer {
    let unknown = Prediction {
        unit: Unit::Bytes,
        values: [(Sla::MEDIAN, None), (Sla::P95, None)].into(),
        basis: Basis::None,
        samples: 0,
        extrapolated: false,
        interval: [].into(),
        branches: [].into(),
    };
    PredictionAnswer { epoch: 412, predictions: vec![prediction(), unknown] }
}

/// The answer to a single question.
#[must_use]
pub fn single_prediction() -> SinglePrediction {
    SinglePrediction { epoch: 412, prediction: prediction() }
}

/// A problem with a limit.
#[must_use]
pub fn problem() -> Problem {
    Problem::new(ErrorCode::TooLarge, "the body has `70000000` bytes").with_limit(67_108_864)
}

/// The platform that runs on one machine.
#[must_use]
pub fn platform() -> Platform {
    Platform::built_in().remove(0)
}

/// A plan with one worker for all tasks but one, which any worker may take.
#[must_use]
pub fn plan() -> Plan {
    let planned = |id: &str, rank: u32, start_ms: f64, exec_ms: f64| PlannedTask {
        task: task_id(id),
        worker: (rank != 2).then(worker_id),
        config: config(),
        rank,
        start_ms,
        end_ms: start_ms + exec_ms + 20.0,
        exec_ms,
        output_bytes: None,
        optimizations: Vec::new(),
        unexpected: false,
        why: if rank == 2 { String::new() } else { "its input is in the memory of `w-1`".to_owned() },
        forecast: None,
    };
    let worker = PlannedWorker {
        id: worker_id(),
        config: config(),
        start_ms: 0.0,
        end_ms: 2640.0,
        cost_usd: 0.000_038_2,
    };
    Plan {
        workflow: workflow_name(),
        planner: task_name("uniform"),
        seed: 7,
        objective: Objective::Fastest,
        sla: Sla::MEDIAN,
        platform: platform().name,
        model_epoch: 412,
        workers: vec![worker],
        tasks: vec![
            planned("split", 0, 105.0, 800.0),
            planned("count-0", 1, 925.0, 1480.1),
            planned("count-1", 2, 1030.0, 1480.1),
            planned("merge", 3, 2530.1, 90.0),
        ],
        prewarms: Vec::new(),
        flexible: None,
        predicted: plan_summary(),
        usage: vec![planned_usage()],
        outlook: None,
        bounds: Bounds { makespan_ms: 2475.1, cost_usd: 0.000_049, makespan_ratio: 1.067, cost_ratio: 1.21 },
        critical_path: vec![task_id("split"), task_id("count-1"), task_id("merge")],
        explanation: vec!["`count-0` stays with `split`, which made its input.".to_owned()],
    }
}

fn planned_usage() -> ConfigUsage {
    let usage = WorkerUsage { billed_ms: 4060.0, ..usage() };
    ConfigUsage { config: config(), invocations: 2, cold_starts: 2, usage }
}

fn plan_summary() -> PlanSummary {
    PlanSummary {
        makespan_ms: 2640.1,
        cost_usd: 0.000_059_3,
        gb_seconds: 3.56,
        invocations: 2,
        cold_starts: 2,
        download_bytes: 75_001_200,
        upload_bytes: 50_002_400,
    }
}

/// All that a planner is given.
#[must_use]
pub fn planning_problem() -> plan::Problem {
    let platform = platform();
    let (configs, tasks) = (platform.menu.clone(), workflow().tasks().len());
    let transfer = TransferTimes {
        download_latency_ms: 1.0,
        download_ms_per_byte: 0.000_002,
        upload_latency_ms: 1.0,
        upload_ms_per_byte: 0.000_002,
    };
    let predictions = PredictionTable {
        sla: Sla::MEDIAN,
        epoch: 412,
        exec_ms: configs.iter().map(|c| vec![800.0 / c.cpu_share(); tasks]).collect(),
        object_bytes: vec![25_000_000, 25_000_000, 1200, 1200, 2000, 50_000_000],
        transfer: vec![transfer; configs.len()],
        startup: vec![StartupTimes { cold_ms: 100.0, warm_ms: 5.0 }; configs.len()],
        engine: Some(EngineTimes { dispatch_ms: 1.5, attempt_ms: vec![0.2; configs.len()] }),
        basis: vec![Basis::Exact; tasks],
        warm: Vec::new(),
        decisions: [].into(),
        uncertainty: None,
        configs,
    };
    plan::Problem {
        workflow: workflow(),
        platform,
        predictions,
        objective: Objective::Deadline { makespan_ms: 5000.0 },
        seed: 7,
        without: Vec::new(),
    }
}

/// A new run.
#[must_use]
pub fn run_request() -> RunRequest {
    RunRequest {
        run: Some(run_id()),
        workflow: workflow(),
        plan: plan(),
        options: RunOptions::default(),
        resume: None,
    }
}

/// The answer to a new run.
#[must_use]
pub fn run_created() -> RunCreated {
    RunCreated { run: run_id(), duplicate: false, reused: 0 }
}

fn usage() -> WorkerUsage {
    WorkerUsage {
        billed_ms: 2655.0,
        init_ms: 105.0,
        puts: 2,
        gets: 1,
        download_bytes: 50_000_000,
        upload_bytes: 25_000_000,
        saved_bytes: 25_000_000,
        shared_bytes: 10_000_000,
        inline_bytes: 1_200,
    }
}

/// A run that failed.
#[must_use]
pub fn run_summary() -> RunSummary {
    RunSummary {
        run: run_id(),
        workflow: workflow_name(),
        status: RunStatus::Failed,
        failure: Some(failure()),
        created_at: time("2026-01-05T10:00:00Z"),
        planner: task_name("uniform"),
        plan_epoch: 1,
        tasks: 4,
        committed: 3,
        skipped: 0,
        running: 0,
        retries: 1,
        elapsed_ms: 3010.5,
        predicted: plan_summary(),
        usage: vec![ConfigUsage { config: config(), invocations: 2, cold_starts: 2, usage: usage() }],
        last_event: 31,
        stalled_ms: None,
    }
}

/// The same run just after it began.
#[must_use]
pub fn run_begun() -> RunSummary {
    RunSummary {
        status: RunStatus::Running,
        failure: None,
        committed: 0,
        retries: 0,
        elapsed_ms: 0.0,
        usage: Vec::new(),
        last_event: 0,
        ..run_summary()
    }
}

fn failure() -> Failure {
    Failure {
        task: Some(task_id("merge")),
        attempt: 2,
        kind: FailureKind::TaskCrash,
        message: "the command ended with exit code 2: sort: cannot read: in/0".to_owned(),
        exception: None,
        lost: Vec::new(),
    }
}

/// The result of a task.
#[must_use]
pub fn commit() -> Commit {
    let hash = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262".to_owned();
    let location = Location::Stored("r-1/count-0/1/out".to_owned());
    Commit {
        attempt: 1,
        instance: instance(),
        outputs: vec![StoredObject { bytes: 1200, hash, location }],
        decision: None,
        printed: None,
        measured: Measured {
            download_ms: 51.2,
            exec_ms: 1523.4,
            upload_ms: 1.4,
            input_bytes: 25_000_000,
            output_bytes: 1200,
            peak_memory_mb: 312.0,
        },
    }
}

/// A worker stores a result and takes the child.
#[must_use]
pub fn operation_request() -> OperationRequest {
    OperationRequest {
        operations: vec![
            Operation::Commit { task: 1, commit: commit(), assuming: Vec::new() },
            Operation::Lease { task: 3, instance: instance(), epoch: 1, assuming: Vec::new() },
        ],
    }
}

/// The answer: the result stands, the child waits for another parent.
#[must_use]
pub fn operation_answer() -> OperationAnswer {
    OperationAnswer {
        status: RunStatus::Running,
        plan_epoch: 1,
        results: vec![
            OperationResult::Won { ready: Vec::new(), skipped: Vec::new() },
            OperationResult::NotReady,
        ],
    }
}

/// A result was stored.
#[must_use]
pub fn run_event() -> RunEvent {
    RunEvent { seq: 12, at_ms: 2504.5, change: Change::TaskCommitted { task: 1, commit: commit() } }
}

/// Two events.
#[must_use]
pub fn event_page() -> EventPage {
    let ready = RunEvent { seq: 13, at_ms: 2504.5, change: Change::TaskReady { task: 3 } };
    EventPage { status: RunStatus::Running, events: vec![run_event(), ready], next_after: 13 }
}

/// A new plan for a run under way.
#[must_use]
pub fn replan_request() -> ReplanRequest {
    let why = Replanning {
        cause: "3 executions of `square` took 3.0 times what was predicted".to_owned(),
        reason: "the rest takes 2.10 s instead of 3.90 s".to_owned(),
        kept: Promise { makespan_ms: 6_400.0, cost_usd: 0.000_12 },
        new: Promise { makespan_ms: 4_600.0, cost_usd: 0.000_13 },
        moved: 2,
    };
    ReplanRequest { expected_epoch: 1, plan: plan(), why: Some(why) }
}

/// The plan in force.
#[must_use]
pub fn current_plan() -> CurrentPlan {
    CurrentPlan { epoch: 1, plan: plan(), options: RunOptions::default() }
}
