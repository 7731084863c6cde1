//! Strategies that draw legal values of the wire types.

use foresail_schemas::decision::Decision;
use foresail_schemas::metric::{
    Batch, DecisionRecord, Direction, Record, StartState, StartupRecord, TaskRecord, TransferRecord,
};
use foresail_schemas::run::{
    Assumption, Before, Change, Commit, Failure, FailureKind, LargerTask, Location, Measured, Operation,
    OperationResult, Promise, Replanning, RunEvent, RunStatus, StoredObject, WorkerUsage,
};
use foresail_schemas::workflow::{Hint, Input, Output, Task, Work, WorkflowSpec};
use foresail_schemas::{Plan, ResourceConfig, Workflow, examples};
use proptest::prelude::*;

/// Text of the charset of names.
pub fn name_text() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_][A-Za-z0-9_.:@+~-]{0,40}"
}

/// Times and other numbers that are finite and not negative, however large or small.
pub fn amount() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), 0.0..1e9f64, any::<f64>().prop_map(|x| if x.is_finite() { x.abs() } else { 1.0 })]
}

pub fn config() -> impl Strategy<Value = ResourceConfig> {
    (1u32..=1 << 20, proptest::option::of(0.01..64.0f64))
        .prop_map(|(memory_mb, vcpu)| ResourceConfig::new(memory_mb, vcpu).unwrap())
}

/// Tasks `t0`, `t1`, … in which every task reads from or waits for earlier ones only.
pub fn workflow_spec() -> impl Strategy<Value = WorkflowSpec> {
    let task =
        (proptest::collection::vec((any::<prop::sample::Index>(), 0u8..4), 0..4), amount(), any::<bool>());
    proptest::collection::vec(task, 1..30).prop_map(|drawn| {
        let tasks = drawn
            .into_iter()
            .enumerate()
            .map(|(t, (links, exec_ms, two_outputs))| {
                let mut task = Task::new(id(t), "f".parse().unwrap(), Work::Command(format!("echo {t}")));
                task.hint = Hint { exec_ms: Some(exec_ms), memory_bytes: None };
                if two_outputs {
                    let output = |name: &str, bytes| Output { name: name.parse().unwrap(), bytes };
                    task.outputs = vec![output("out", None), output("log", Some(t as u64))];
                }
                for (at, kind) in links {
                    link(&mut task, t, &at, kind);
                }
                task
            })
            .collect();
        WorkflowSpec { name: "drawn".parse().unwrap(), description: None, tasks, code: Default::default() }
    })
}

fn link(task: &mut Task, t: usize, at: &prop::sample::Index, kind: u8) {
    match kind {
        0 if t > 0 => task.after.push(id(at.index(t))),
        1 if t > 0 => task.inputs.push(Input::task(id(at.index(t)), Default::default())),
        2 => task.inputs.push(Input::External { uri: format!("file:///in/{}", at.index(5)), bytes: Some(3) }),
        _ => task.inputs.push(Input::Value { value: serde_json::json!([kind, null, "x"]) }),
    }
}

fn id(t: usize) -> foresail_schemas::TaskId {
    format!("t{t}").parse().unwrap()
}

pub fn workflow() -> impl Strategy<Value = Workflow> {
    workflow_spec().prop_map(|spec| spec.check().unwrap())
}

fn start() -> impl Strategy<Value = StartState> {
    prop_oneof![Just(StartState::Cold), Just(StartState::Warm)]
}

fn record() -> impl Strategy<Value = Record> {
    let task = (name_text(), config(), any::<(u64, Option<u64>)>(), amount(), 1u32..9).prop_map(
        |(task, config, (input_bytes, output_bytes), exec_ms, attempt)| {
            Record::Task(TaskRecord {
                task: task.parse().unwrap(),
                memory_mb: config.memory_mb,
                vcpu: config.vcpu,
                input_bytes,
                output_bytes,
                exec_ms,
                peak_memory_mb: None,
                attempt,
                at: "2026-01-05T10:00:00.123456789Z".parse().ok(),
                forecast: None,
            })
        },
    );
    let transfer = (config(), any::<(bool, u64)>(), amount()).prop_map(|(config, (up, bytes), time_ms)| {
        Record::Transfer(TransferRecord {
            direction: if up { Direction::Upload } else { Direction::Download },
            bytes,
            time_ms,
            memory_mb: config.memory_mb,
            vcpu: config.vcpu,
            store: "s3".parse().ok(),
            at: None,
        })
    });
    let startup = (config(), start(), amount()).prop_map(|(config, state, time_ms)| {
        Record::Startup(StartupRecord {
            state,
            time_ms,
            memory_mb: config.memory_mb,
            vcpu: config.vcpu,
            at: None,
        })
    });
    let decision = (name_text(), any::<(u64, u64)>(), proptest::option::of("[ -~]{0,40}")).prop_map(
        |(task, (input_bytes, width), branch)| {
            let value = branch.map_or(Decision::Width(width), Decision::Branch);
            Record::Decision(DecisionRecord { task: task.parse().unwrap(), input_bytes, value, at: None })
        },
    );
    prop_oneof![task, transfer, startup, decision]
}

pub fn batch() -> impl Strategy<Value = Batch> {
    (name_text(), proptest::option::of(name_text()), proptest::collection::vec(record(), 0..20)).prop_map(
        |(batch_id, run, records)| Batch {
            batch_id: batch_id.parse().unwrap(),
            run: run.map(|r| r.parse().unwrap()),
            worker: None,
            records,
        },
    )
}

/// The example plan with other numbers, names and workers.
pub fn plan() -> impl Strategy<Value = Plan> {
    (amount(), amount(), config(), name_text(), any::<u64>(), any::<bool>()).prop_map(
        |(start_ms, cost_usd, config, worker, seed, flexible)| {
            let mut plan = examples::plan();
            plan.seed = seed;
            plan.predicted.cost_usd = cost_usd;
            for planned in &mut plan.workers {
                (planned.config, planned.start_ms, planned.cost_usd) = (config, start_ms, cost_usd);
            }
            for task in &mut plan.tasks {
                task.config = config;
                task.worker = if flexible { None } else { worker.parse().ok() };
                (task.start_ms, task.end_ms) = (start_ms, start_ms);
            }
            plan
        },
    )
}

fn usage() -> impl Strategy<Value = WorkerUsage> {
    (amount(), amount(), any::<[u64; 7]>()).prop_map(|(billed_ms, init_ms, n)| WorkerUsage {
        billed_ms,
        init_ms,
        puts: n[0],
        gets: n[1],
        download_bytes: n[2],
        upload_bytes: n[3],
        saved_bytes: n[4],
        shared_bytes: n[5],
        inline_bytes: n[6],
    })
}

pub fn commit() -> impl Strategy<Value = Commit> {
    let object = (any::<u64>(), "[0-9a-f]{64}", any::<bool>(), "\\PC{0,20}").prop_map(
        |(bytes, hash, inline, text)| {
            let location = if inline { Location::Inline(text) } else { Location::Stored(text) };
            StoredObject { bytes, hash, location }
        },
    );
    let outputs = proptest::collection::vec(object, 0..4);
    (any::<u32>(), name_text(), outputs, amount()).prop_map(|(attempt, instance, outputs, exec_ms)| Commit {
        decision: None,
        printed: None,
        attempt,
        instance: instance.parse().unwrap(),
        outputs,
        measured: Measured { exec_ms, download_ms: exec_ms, ..Measured::default() },
    })
}

fn failure() -> impl Strategy<Value = Failure> {
    (proptest::option::of(name_text()), any::<u32>(), "(?s).{0,60}").prop_map(|(task, attempt, message)| {
        Failure {
            task: task.map(|t| t.parse().unwrap()),
            attempt,
            kind: FailureKind::OutOfMemory,
            message,
            exception: None,
            lost: Vec::new(),
        }
    })
}

pub fn operation() -> impl Strategy<Value = Operation> {
    let tasks = || proptest::collection::vec(any::<u32>(), 0..5);
    let instance = || name_text().prop_map(|n| n.parse().unwrap());
    let worker = || name_text().prop_map(|n| n.parse().unwrap());
    prop_oneof![
        (proptest::option::of(worker()), instance(), config(), start()).prop_map(
            |(worker, instance, config, start)| Operation::Join { worker, instance, config, start }
        ),
        (instance(), tasks(), usage()).prop_map(|(instance, tasks, usage)| Operation::Leave {
            instance,
            tasks,
            usage
        }),
        (any::<(u32, u64)>(), instance(), tasks()).prop_map(|((task, epoch), instance, assuming)| {
            Operation::Lease { task, instance, epoch, assuming }
        }),
        (instance(), tasks()).prop_map(|(instance, tasks)| Operation::Renew { instance, tasks }),
        (any::<(u32, u32)>(), commit()).prop_map(|((task, attempt), commit)| Operation::Commit {
            task,
            commit,
            assuming: vec![Assumption { task, attempt }]
        }),
        (tasks(), any::<u32>()).prop_map(|(tasks, parent)| Operation::Missing { tasks, parent }),
        (tasks(), instance()).prop_map(|(tasks, instance)| Operation::Duplicate { tasks, instance }),
        (any::<(u32, u32)>(), instance(), failure()).prop_map(|((task, attempt), instance, failure)| {
            Operation::Fail { task, attempt, instance, failure }
        }),
        "\\PC{0,20}".prop_map(|reason| Operation::Cancel { reason }),
        tasks().prop_map(|tasks| Operation::Commits { tasks }),
        worker().prop_map(|worker| Operation::WhoIs { worker }),
        (amount(), any::<u32>()).prop_map(|(idle_ms_min, limit)| Operation::Frontier { idle_ms_min, limit }),
    ]
}

pub fn result() -> impl Strategy<Value = OperationResult> {
    let tasks = || proptest::collection::vec(any::<u32>(), 0..5);
    let instance = || name_text().prop_map(|n| n.parse().unwrap());
    prop_oneof![
        Just(OperationResult::Done),
        prop_oneof![Just(Before::Left), Just(Before::Lost)]
            .prop_map(|before| OperationResult::Joined { before }),
        Just(OperationResult::NotReady),
        Just(OperationResult::StaleEpoch),
        (tasks(), tasks()).prop_map(|(ready, skipped)| OperationResult::Won { ready, skipped }),
        Just(OperationResult::Skipped),
        Just(OperationResult::RunOver),
        instance().prop_map(|instance| OperationResult::AlreadyAlive { instance }),
        tasks().prop_map(|tasks| OperationResult::Stay { tasks }),
        (any::<u32>(), proptest::collection::vec(proptest::option::of(commit()), 0..3))
            .prop_map(|(attempt, parents)| OperationResult::Granted { attempt, parents }),
        (any::<u32>(), proptest::collection::vec(proptest::option::of(commit()), 0..3))
            .prop_map(|(task, parents)| OperationResult::Duplicated { task, parents }),
        amount().prop_map(|expires_in_ms| OperationResult::Held { expires_in_ms }),
        commit().prop_map(|commit| OperationResult::Committed { commit }),
        proptest::collection::vec(proptest::option::of(any::<u32>()), 0..4)
            .prop_map(|counts| OperationResult::Missing { counts }),
        proptest::collection::vec(proptest::option::of(commit()), 0..3)
            .prop_map(|commits| OperationResult::Commits { commits }),
        proptest::option::of(instance()).prop_map(|instance| OperationResult::Instance { instance }),
        amount().prop_map(|in_ms| OperationResult::Again { in_ms }),
        config().prop_map(|config| OperationResult::NeedsLarger { config }),
        (tasks(), config()).prop_map(|(ready, config)| {
            let larger = ready.iter().map(|&task| LargerTask { task, config }).collect();
            OperationResult::Frontier { untried: ready.clone(), ready, larger }
        }),
        "\\PC{0,20}".prop_map(|detail| OperationResult::Refused { detail }),
    ]
}

fn replanning() -> impl Strategy<Value = Replanning> {
    let promise =
        || (amount(), amount()).prop_map(|(makespan_ms, cost_usd)| Promise { makespan_ms, cost_usd });
    ("\\PC{0,20}", "\\PC{0,20}", promise(), promise(), any::<u64>())
        .prop_map(|(cause, reason, kept, new, moved)| Replanning { cause, reason, kept, new, moved })
}

pub fn event() -> impl Strategy<Value = RunEvent> {
    let instance = || name_text().prop_map(|n| n.parse().unwrap());
    let worker = name_text().prop_map(|n| n.parse().unwrap());
    let change = prop_oneof![
        (proptest::option::of(worker), instance(), config(), start()).prop_map(
            |(worker, instance, config, start)| Change::WorkerJoined { worker, instance, config, start }
        ),
        (instance(), usage()).prop_map(|(instance, usage)| Change::WorkerLeft { instance, usage }),
        (any::<(u32, u32, u64)>(), instance(), amount()).prop_map(
            |((task, attempt, epoch), instance, expires_ms)| Change::TaskLeased {
                task,
                attempt,
                instance,
                epoch,
                expires_ms,
                assuming: vec![task]
            }
        ),
        (any::<u32>(), instance()).prop_map(|(task, instance)| Change::TaskDuplicated { task, instance }),
        (any::<(u32, u32)>(), instance(), failure(), proptest::option::of((amount(), config()))).prop_map(
            |((task, attempt), instance, failure, next)| {
                let (again_ms, config) = next.unzip();
                Change::TaskFailed { task, attempt, instance, failure, again_ms, config }
            }
        ),
        (any::<u32>(), commit()).prop_map(|(task, commit)| Change::TaskCommitted { task, commit }),
        any::<u32>().prop_map(|task| Change::TaskReady { task }),
        (any::<u32>(), proptest::collection::vec(any::<u32>(), 0..5))
            .prop_map(|(by, tasks)| Change::TasksSkipped { by, tasks }),
        (any::<u32>(), proptest::collection::vec(any::<u32>(), 0..5))
            .prop_map(|(by, tasks)| Change::TasksInvalidated { by, tasks }),
        (any::<u64>(), proptest::option::of(replanning()))
            .prop_map(|(epoch, why)| Change::PlanReplaced { epoch, why: why.map(Box::new) }),
        (any::<u64>(), replanning())
            .prop_map(|(epoch, why)| Change::PlanSuggested { epoch, why: Box::new(why) }),
        proptest::option::of(failure())
            .prop_map(|failure| Change::RunFinished { status: RunStatus::Failed, failure }),
    ];
    (any::<u64>(), amount(), change).prop_map(|(seq, at_ms, change)| RunEvent { seq, at_ms, change })
}
