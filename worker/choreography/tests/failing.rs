//! What the ledger makes of failures: pauses, what is not retried, larger workers, the words at the end.

#![allow(clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

#[allow(dead_code, reason = "other tests need more of it")]
mod play;

use std::sync::Arc;

use foresail_choreography::{Action, Event, Executed, Ledger, PlanView, Worker, WorkerSettings};
use foresail_schemas::metric::StartState;
use foresail_schemas::plan::{Bounds, Objective, PlanSummary, PlannedTask, PlannedWorker};
use foresail_schemas::retry::{Retry, SizeMenu};
use foresail_schemas::run::{
    Change, Failure, FailureKind, LargerTask, Location, Measured, Operation, OperationAnswer,
    OperationResult, RunOptions, RunStatus, StoredObject, WorkerUsage,
};
use foresail_schemas::workflow::{Task, Work, WorkflowSpec};
use foresail_schemas::{Plan, ResourceConfig, Sla, Workflow};

use play::name;

fn size(memory_mb: u32) -> ResourceConfig {
    ResourceConfig::new(memory_mb, None).unwrap()
}

fn workflow(retry: Retry) -> Workflow {
    let work = Work::Function { function: name("f"), params: serde_json::Value::Null };
    let mut task = Task::new(name("t"), name("f"), work);
    task.retry = Some(retry);
    WorkflowSpec { name: name("w"), description: None, tasks: vec![task], code: Default::default() }
        .check()
        .unwrap()
}

fn ledger(retry: Retry) -> Ledger {
    ledger_with(RunOptions { sizes: SizeMenu::of(&[size(512), size(1024)]), ..RunOptions::default() }, retry)
}

fn ledger_with(options: RunOptions, retry: Retry) -> Ledger {
    let mut ledger = Ledger::new(&workflow(retry), options);
    ledger.begin(0.0);
    for (instance, memory_mb) in [("small", 512), ("large", 1024)] {
        let (worker, start) = (Some(name(instance)), StartState::Cold);
        let join = Operation::Join { worker, instance: name(instance), config: size(memory_mb), start };
        assert!(matches!(ledger.apply(&join, 0.0).0, OperationResult::Joined { .. }));
    }
    ledger
}

fn lease(ledger: &mut Ledger, instance: &str, now_ms: f64) -> OperationResult {
    let lease = Operation::Lease { task: 0, instance: name(instance), epoch: 1, assuming: Vec::new() };
    ledger.apply(&lease, now_ms).0
}

fn fail(
    ledger: &mut Ledger,
    attempt: u32,
    instance: &str,
    kind: FailureKind,
    now_ms: f64,
) -> OperationResult {
    fail_of(ledger, attempt, instance, (kind, "user 7: no such user"), now_ms)
}

fn fail_of(
    ledger: &mut Ledger,
    attempt: u32,
    instance: &str,
    (kind, message): (FailureKind, &str),
    now_ms: f64,
) -> OperationResult {
    let (task, message) = (Some(name("t")), message.to_owned());
    let failure = Failure { task, attempt, kind, message, exception: None, lost: Vec::new() };
    let fail = Operation::Fail { task: 0, attempt, instance: name(instance), failure };
    ledger.apply(&fail, now_ms).0
}

fn pause_ms(result: &OperationResult) -> f64 {
    match result {
        OperationResult::Again { in_ms } => *in_ms,
        other => panic!("no pause but {other:?}"),
    }
}

#[test]
fn an_attempt_that_began_without_a_lease_is_counted_when_it_fails_and_once() {
    let mut l = ledger(Retry::default());
    let crashes = |l: &mut Ledger, instance, now_ms| fail(l, 0, instance, FailureKind::TaskCrash, now_ms);
    let first = pause_ms(&crashes(&mut l, "small", 1.0));
    assert!(pause_ms(&crashes(&mut l, "small", 2.0)) < first, "the same report again, a ms later");
    assert_eq!(fail(&mut l, 0, "stranger", FailureKind::TaskCrash, 2.0), OperationResult::Done);
    assert_eq!(l.summary(2.0).retries, 0);
    assert!(matches!(lease(&mut l, "large", 50_000.0), OperationResult::Granted { attempt: 2, .. }));
    assert_eq!(l.summary(50_000.0).retries, 1);
    assert_eq!(crashes(&mut l, "small", 50_001.0), OperationResult::Done, "another has it");
    pause_ms(&crashes(&mut l, "large", 50_002.0));
    assert!(matches!(lease(&mut l, "small", 99_000.0), OperationResult::Granted { attempt: 3, .. }));
}

#[test]
fn pauses_grow_are_kept_by_the_store_and_are_the_same_every_time() {
    let retry = Retry { backoff_ms: 1_000.0, backoff_factor: 3.0, ..Retry::default() };
    let play = || {
        let mut l = ledger(retry.clone());
        lease(&mut l, "small", 0.0);
        let first = pause_ms(&fail(&mut l, 1, "small", FailureKind::TaskError, 10.0));
        let repeated = pause_ms(&fail(&mut l, 1, "small", FailureKind::TaskError, 20.0));
        assert!((first - repeated - 10.0).abs() < 1e-6, "a repeated report is answered like the first");
        let early = lease(&mut l, "large", 9.0 + first);
        assert!(
            matches!(early, OperationResult::Held { expires_in_ms } if expires_in_ms <= 1.5),
            "{early:?}"
        );
        let taken = lease(&mut l, "large", 10.5 + first);
        assert!(matches!(taken, OperationResult::Granted { attempt: 2, .. }), "{taken:?}");
        let second = pause_ms(&fail(&mut l, 2, "large", FailureKind::TaskError, 20_000.0));
        assert!((500.0..=1_000.0).contains(&first) && (1_500.0..=3_000.0).contains(&second));
        (first, second)
    };
    assert_eq!(play(), play());
    let mut l = ledger(retry.clone());
    lease(&mut l, "large", 0.0);
    let other = pause_ms(&fail(&mut l, 1, "large", FailureKind::TaskError, 10.0));
    assert!((other - play().0).abs() > 1e-6, "two workers that fail together do not come back together");
}

#[test]
fn what_is_not_retried_ends_the_run_at_its_first_failure_and_says_why() {
    let by_kind = Retry { not_on: vec![FailureKind::Timeout], ..Retry::default() };
    let by_text = Retry { not_on_text: vec!["no such user".to_owned()], ..Retry::default() };
    for (retry, kind, reason) in [
        (by_kind, FailureKind::Timeout, "the failure `timeout`"),
        (by_text, FailureKind::TaskError, "the text `no such user`"),
        (Retry::default(), FailureKind::TaskRefused, "a failure `task_refused` is not retried"),
    ] {
        let mut l = ledger(retry);
        lease(&mut l, "small", 0.0);
        assert_eq!(fail(&mut l, 1, "small", kind, 1.0), OperationResult::Done);
        assert_eq!(l.status(), RunStatus::Failed);
        let message = l.summary(2.0).failure.unwrap().message;
        assert!(message.starts_with("user 7") && message.contains(reason), "{message}");
    }
}

#[test]
fn a_failure_gives_one_hint_and_that_of_its_own_cause() {
    let once = || ledger_with(RunOptions { attempts_max: 1, ..RunOptions::default() }, Retry::default());
    let on_menu = || ledger(Retry::default());
    let lived_too_long = "its invocation lasted longer than 4000 ms; hint: split the task";
    for (mut ledger, instance, kind, message, hint) in [
        (once(), "small", FailureKind::TaskError, "why", "`attempts_max`"),
        (once(), "small", FailureKind::Timeout, lived_too_long, "split the task"),
        (once(), "small", FailureKind::OutOfMemory, "too much", "`memory_mb_min`"),
        (on_menu(), "large", FailureKind::OutOfMemory, "too much", "`foresail run --memory"),
    ] {
        lease(&mut ledger, instance, 0.0);
        fail_of(&mut ledger, 1, instance, (kind, message), 1.0);
        let told = ledger.summary(2.0).failure.unwrap().message;
        assert!(told.contains(hint) && told.matches("hint:").count() == 1, "{told}");
    }
}

#[test]
fn the_last_failure_tells_of_those_before() {
    let mut l = ledger(Retry::default());
    for (attempt, kind) in
        [(1, FailureKind::Timeout), (2, FailureKind::TaskCrash), (3, FailureKind::TaskError)]
    {
        let granted = lease(&mut l, "small", f64::from(attempt) * 20_000.0);
        assert!(matches!(granted, OperationResult::Granted { .. }), "{granted:?}");
        fail(&mut l, attempt, "small", kind, f64::from(attempt) * 20_000.0 + 1.0);
    }
    let message = l.summary(1e6).failure.unwrap().message;
    let told =
        "attempt 3 of task `t`, after attempt 1 `timeout`, attempt 2 `task_crash`: it was the last of 3";
    assert!(message.contains(told), "{message}");
}

#[test]
fn out_of_memory_moves_a_task_to_the_next_size_for_good() {
    let mut l = ledger(Retry::default());
    lease(&mut l, "small", 0.0);
    let (mut events, needs) = (Vec::new(), OperationResult::NeedsLarger { config: size(1024) });
    let failure = Failure {
        task: None,
        attempt: 1,
        kind: FailureKind::OutOfMemory,
        message: "too much".to_owned(),
        exception: None,
        lost: Vec::new(),
    };
    let report = Operation::Fail { task: 0, attempt: 1, instance: name("small"), failure };
    let (result, told) = l.apply(&report, 1.0);
    assert_eq!(result, needs);
    assert!(matches!(&told[0].change, Change::TaskFailed { config: Some(c), .. } if *c == size(1024)));
    events.extend(told);
    assert_eq!(lease(&mut l, "small", 2.0), needs, "no smaller worker gets it");
    let leave = Operation::Leave { instance: name("small"), tasks: vec![0], usage: WorkerUsage::default() };
    assert_eq!(l.apply(&leave, 3.0).0, OperationResult::Done, "its planned worker need not stay for it");
    let look = Operation::Frontier { idle_ms_min: 100.0, limit: 9 };
    let larger = vec![LargerTask { task: 0, config: size(1024) }];
    let stuck = OperationResult::Frontier { ready: vec![0], larger, untried: vec![] };
    assert_eq!(l.apply(&look, 5_000.0).0, stuck, "who looks for what is stuck is told the size");
    assert!(matches!(lease(&mut l, "large", 6_000.0), OperationResult::Granted { attempt: 2, .. }));
    assert_eq!(fail(&mut l, 2, "large", FailureKind::OutOfMemory, 7_000.0), OperationResult::Done);
    let failure = l.summary(8_000.0).failure.unwrap();
    assert!(failure.message.contains("ran on 1024 MB") && failure.message.contains("hint"), "{failure:?}");
    let mut replayed = Ledger::new(&workflow(Retry::default()), RunOptions::default());
    replayed.begin(0.0);
    events.iter().for_each(|event| replayed.replay(event));
    replayed.apply(
        &Operation::Join { worker: None, instance: name("i"), config: size(512), start: StartState::Cold },
        9.0,
    );
    assert_eq!(lease(&mut replayed, "i", 10.0), needs, "a restart of the store keeps the size");
}

#[test]
fn attempts_on_larger_workers_do_not_count_among_the_limited_ones() {
    let mut l = ledger(Retry::default());
    lease(&mut l, "small", 0.0);
    fail(&mut l, 1, "small", FailureKind::OutOfMemory, 1.0);
    for attempt in 2..=4 {
        let now_ms = f64::from(attempt) * 20_000.0;
        assert!(matches!(lease(&mut l, "large", now_ms), OperationResult::Granted { .. }));
        fail(&mut l, attempt, "large", FailureKind::TaskError, now_ms + 1.0);
        assert_eq!(l.status() == RunStatus::Failed, attempt == 4, "three attempts beside the first");
    }
}

#[test]
fn a_worker_that_makes_way_begins_nothing_more_and_names_a_successor() {
    let work = Work::Function { function: name("f"), params: serde_json::Value::Null };
    let tasks = ["a", "b"].map(|id| Task::new(name(id), name("f"), work.clone())).to_vec();
    let workflow =
        WorkflowSpec { name: name("w"), description: None, tasks, code: Default::default() }.check().unwrap();
    let mut ledger = Ledger::new(&workflow, RunOptions::default());
    ledger.begin(0.0);
    let view = Arc::new(PlanView::new(1, &on_one_worker(&workflow)));
    let settings = WorkerSettings { worker: Some(name("p")), ..play::settings() };
    let mut worker = Worker::new(settings, workflow.graph().clone(), view, &[0, 1]);
    let mut out = Vec::new();
    worker.start(0.0, &mut out);
    let (mut executed, mut successors, mut now_ms) = (0, Vec::new(), 0.0);
    while let Some(action) = (!out.is_empty()).then(|| out.remove(0)) {
        now_ms += 1.0;
        match action {
            Action::Operate { request, operations } => {
                let results = operations.iter().map(|o| ledger.apply(o, now_ms).0).collect();
                let answer = OperationAnswer { status: ledger.status(), plan_epoch: 1, results };
                worker.handle(Event::Answered { request, answer }, now_ms, &mut out);
            }
            Action::Execute { task, attempt, .. } => {
                executed += 1;
                worker.handle(Event::Retire, now_ms, &mut out);
                let object =
                    StoredObject { bytes: 0, hash: String::new(), location: Location::Inline(String::new()) };
                let outcome = Ok(Executed {
                    outputs: vec![object],
                    measured: Measured::default(),
                    decision: None,
                    printed: None,
                });
                worker.handle(Event::Executed { task, attempt, outcome }, now_ms, &mut out);
            }
            Action::ReadUsage => {
                worker.handle(Event::UsageRead { usage: WorkerUsage::default() }, now_ms, &mut out);
            }
            Action::Invoke(invoke) => successors.push((invoke.worker, invoke.tasks)),
            _ => {}
        }
    }
    assert_eq!(executed, 1, "the second task is not begun");
    assert_eq!(successors, [(Some(name("p")), vec![1])]);
}

#[test]
fn a_worker_that_hears_of_a_failed_run_still_tells_what_it_has_made() {
    for (status, is_kept) in [(RunStatus::Failed, true), (RunStatus::Cancelled, false)] {
        let flow = workflow(Retry::default());
        let view = Arc::new(PlanView::new(1, &on_one_worker(&flow)));
        let settings = WorkerSettings { worker: Some(name("p")), ..play::settings() };
        let mut worker = Worker::new(settings, flow.graph().clone(), view, &[0]);
        let mut ledger = Ledger::new(&flow, RunOptions::default());
        ledger.begin(0.0);
        let mut out = Vec::new();
        worker.start(0.0, &mut out);
        let sent = |out: &mut Vec<Action>| {
            let sent = out.drain(..).find_map(|action| match action {
                Action::Operate { request, operations } => Some((request, operations)),
                _ => None,
            });
            sent.expect("it asks")
        };
        let (request, operations) = sent(&mut out);
        let results = operations.iter().map(|o| ledger.apply(o, 1.0).0).collect();
        let answer = OperationAnswer { status: RunStatus::Running, plan_epoch: 1, results };
        worker.handle(Event::Answered { request, answer }, 1.0, &mut out);
        out.clear();
        // Its heartbeat is on the way while the task ends.
        worker.handle(Event::Tick, 3_500.0, &mut out);
        let (request, operations) = sent(&mut out);
        let executed =
            Executed { outputs: Vec::new(), measured: Measured::default(), decision: None, printed: None };
        worker.handle(Event::Executed { task: 0, attempt: 1, outcome: Ok(executed) }, 3_501.0, &mut out);
        let results = operations.iter().map(|_| OperationResult::RunOver).collect();
        let answer = OperationAnswer { status, plan_epoch: 1, results };
        worker.handle(Event::Answered { request, answer }, 3_502.0, &mut out);
        let commits = |action: &Action| match action {
            Action::Operate { operations, .. } => {
                operations.iter().any(|operation| matches!(operation, Operation::Commit { task: 0, .. }))
            }
            _ => false,
        };
        assert_eq!(out.iter().any(commits), is_kept, "{status:?}: {out:?}");
    }
}

fn on_one_worker(workflow: &Workflow) -> Plan {
    let task = |task: &Task| PlannedTask {
        task: task.id.clone(),
        worker: Some(name("p")),
        config: size(512),
        rank: 0,
        start_ms: 0.0,
        end_ms: 0.0,
        exec_ms: 1.0,
        output_bytes: None,
        optimizations: Vec::new(),
        unexpected: false,
        why: String::new(),
        forecast: None,
    };
    let worker =
        PlannedWorker { id: name("p"), config: size(512), start_ms: 0.0, end_ms: 0.0, cost_usd: 0.0 };
    Plan {
        workflow: workflow.name().clone(),
        planner: name("by-hand"),
        seed: 0,
        objective: Objective::Fastest,
        sla: Sla::MEDIAN,
        platform: name("local"),
        model_epoch: 0,
        tasks: workflow.tasks().iter().map(task).collect(),
        workers: vec![worker],
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
