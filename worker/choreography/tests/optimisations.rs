//! What each optimisation makes a worker ask of its host, and that none is asked where a plan has none.
//!
//! One worker plays against a real ledger. Times in ms; a request is answered at the time it is sent.

#[path = "world/problems.rs"]
#[allow(dead_code)]
mod problems;

use std::sync::Arc;

use foresail_choreography::{Action, CommitHints, Event, Executed, Ledger, PlanView, Worker, WorkerSettings};
use foresail_schemas::metric::StartState;
use foresail_schemas::optimization::{Optimization, PreWarming};
use foresail_schemas::run::{
    Change, Commit, Failure, FailureKind, Location, Measured, Operation, OperationAnswer, RunEvent,
    RunOptions, RunStatus, StoredObject, WorkerUsage,
};
use foresail_schemas::workflow::{Input, Task, Work, WorkflowSpec};
use foresail_schemas::{InstanceId, ObjectName, Plan, ResourceConfig, Workflow};

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a legal name")
}

/// A task: its worker, its parents, its optimisations. `!` before a parent is a file outside the workflow.
type Row = (&'static str, &'static [&'static str], &'static [Optimization]);

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

fn size() -> ResourceConfig {
    ResourceConfig::new(512, None).expect("a legal size")
}

/// Worker `a` of a plan, in play with a store.
struct Play {
    ledger: Ledger,
    worker: Worker,
    now_ms: f64,
    /// What was asked, oldest first, since the last look.
    actions: Vec<Action>,
    operations: Vec<Operation>,
    events: Vec<RunEvent>,
}

impl Play {
    fn new(rows: &[Row], first: &[u32]) -> Self {
        Self::with(rows, first, 1, RunOptions::default(), Vec::new())
    }

    fn with(rows: &[Row], first: &[u32], lanes: u32, options: RunOptions, prewarms: Vec<PreWarming>) -> Self {
        let workflow = workflow(rows);
        let mut plan = plan(rows, &workflow);
        plan.prewarms = prewarms;
        let settings = WorkerSettings {
            instance: name("i-a"),
            worker: Some(name("a")),
            config: size(),
            start: StartState::Cold,
            options,
            lanes,
            backlog_ms: 0.0,
            life_ends_ms: 900_000.0,
        };
        let view = Arc::new(PlanView::new(1, &plan));
        let mut ledger = Ledger::new(&workflow, options);
        let events = ledger.begin(0.0);
        let worker = Worker::new(settings, workflow.graph().clone(), view, first);
        let (actions, operations) = (Vec::new(), Vec::new());
        Self { ledger, worker, now_ms: 0.0, actions, operations, events }
    }

    /// Begins; every request is answered at once.
    fn begun(mut self) -> Self {
        let mut out = Vec::new();
        self.worker.start(self.now_ms, &mut out);
        self.settle(out);
        self
    }

    fn hear(&mut self, event: Event) {
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

    fn apply(&mut self, operations: &[Operation]) -> OperationAnswer {
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
    fn elsewhere(&mut self, worker: &str, task: u32) -> Commit {
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

    fn asked(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    fn sent(&mut self) -> Vec<Operation> {
        std::mem::take(&mut self.operations)
    }

    fn executed(&mut self, task: u32, attempt: u32) {
        let outcome =
            Ok(Executed { outputs: outputs(), measured: Measured::default(), decision: None, printed: None });
        self.hear(Event::Executed { task, attempt, outcome });
    }

    fn failed(&mut self, task: u32, attempt: u32) {
        let (kind, message) = (FailureKind::TaskError, "drawn".to_owned());
        let outcome = Err(Failure { task: None, attempt, kind, message, exception: None, lost: Vec::new() });
        self.hear(Event::Executed { task, attempt, outcome });
    }

    fn at(&mut self, now_ms: f64) {
        self.now_ms = now_ms;
        self.hear(Event::Tick);
    }

    fn ready_hint(&mut self, task: u32) {
        self.hear(Event::Hint { ready: vec![task], committed: Vec::new(), skipped: Vec::new() });
    }
}

fn outputs() -> Vec<StoredObject> {
    vec![StoredObject { bytes: 1, hash: String::new(), location: Location::Inline(String::new()) }]
}

fn commit(instance: &str, attempt: u32) -> Commit {
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
fn executions(actions: &[Action]) -> Vec<(u32, u32)> {
    let execution = |action: &Action| match action {
        Action::Execute { task, attempt, .. } => Some((*task, *attempt)),
        _ => None,
    };
    actions.iter().filter_map(execution).collect()
}

/// The tasks fetched for, with the parents fetched from.
fn preloads(actions: &[Action]) -> Vec<(u32, Vec<u32>)> {
    let preload = |action: &Action| match action {
        Action::PreLoad { task, parents } => Some((*task, parents.iter().map(|(p, _)| *p).collect())),
        _ => None,
    };
    actions.iter().filter_map(preload).collect()
}

fn duplicates(operations: &[Operation]) -> Vec<Vec<u32>> {
    let duplicate = |operation: &Operation| match operation {
        Operation::Duplicate { tasks, .. } => Some(tasks.clone()),
        _ => None,
    };
    operations.iter().filter_map(duplicate).collect()
}

fn renewed(operations: &[Operation]) -> Vec<Vec<u32>> {
    let renew = |operation: &Operation| match operation {
        Operation::Renew { tasks, .. } => Some(tasks.clone()),
        _ => None,
    };
    operations.iter().filter_map(renew).collect()
}

#[test]
fn a_plan_without_optimisations_costs_no_request_and_no_operation() {
    let mut play = Play::new(&[("a", &[], &[]), ("b", &["t0"], &[]), ("a", &["t1"], &[])], &[0]).begun();
    let kinds = play.sent();
    assert!(matches!(
        kinds.as_slice(),
        [Operation::Join { .. }, Operation::Open { .. }, Operation::Lease { task: 0, .. }]
    ));
    let asked = play.asked();
    assert!(asked.contains(&Action::Listen { commits: CommitHints::Drop }), "{asked:?}");
    play.executed(0, 1);
    play.sent();
    play.asked();
    play.ready_hint(1);
    let commit = play.elsewhere("b", 1);
    play.hear(Event::Hint { ready: Vec::new(), committed: vec![(1, commit)], skipped: Vec::new() });
    assert!(play.sent().is_empty() && play.asked().is_empty());
}

#[test]
fn the_next_task_begins_when_the_code_of_the_one_before_has_ended() {
    let rows: [Row; 2] = [("a", &[], &[]), ("a", &[], &[])];
    let mut play = Play::new(&rows, &[0, 1]).begun();
    assert_eq!(executions(&play.asked()), [(0, 1)]);
    play.hear(Event::Computed { task: 0, attempt: 1 });
    assert_eq!(executions(&play.asked()), [(1, 0)], "the lane is free while the output is stored");
    play.sent();
    play.executed(0, 1);
    assert!(matches!(play.sent()[0], Operation::Commit { task: 0, .. }));
}

#[test]
fn without_overlap_the_next_task_waits_until_the_outputs_are_stored() {
    let rows: [Row; 2] = [("a", &[], &[]), ("a", &[], &[])];
    let options = RunOptions { overlap_uploads: false, ..RunOptions::default() };
    let mut play = Play::with(&rows, &[0, 1], 1, options, Vec::new()).begun();
    play.asked();
    play.hear(Event::Computed { task: 0, attempt: 1 });
    assert_eq!(executions(&play.asked()), []);
    play.executed(0, 1);
    assert_eq!(executions(&play.asked()), [(1, 0)]);
}

#[test]
fn a_worker_that_does_not_run_ahead_leases_before_it_begins() {
    let rows: [Row; 2] = [("a", &[], &[]), ("a", &["t0"], &[])];
    for run_ahead in [true, false] {
        let options = RunOptions { run_ahead, ..RunOptions::default() };
        let mut play = Play::with(&rows, &[0], 1, options, Vec::new()).begun();
        play.asked();
        play.sent();
        play.executed(0, 1);
        let leased =
            play.sent().iter().any(|operation| matches!(operation, Operation::Lease { task: 1, .. }));
        let attempt = if run_ahead { 0 } else { 1 };
        assert_eq!(executions(&play.asked()), [(1, attempt)], "run_ahead: {run_ahead}");
        assert!(run_ahead || leased);
        play.executed(1, attempt);
        assert_eq!(play.ledger.status(), RunStatus::Completed);
    }
}

#[test]
fn no_more_tasks_store_than_there_are_lanes() {
    let rows: [Row; 3] = [("a", &[], &[]), ("a", &[], &[]), ("a", &[], &[])];
    let mut play = Play::new(&rows, &[0, 1, 2]).begun();
    play.hear(Event::Computed { task: 0, attempt: 1 });
    play.asked();
    play.hear(Event::Computed { task: 1, attempt: 0 });
    assert_eq!(executions(&play.asked()), [], "the up-link is behind by a lane already");
    play.executed(0, 1);
    assert_eq!(executions(&play.asked()), [(2, 0)]);
}

#[test]
fn a_task_that_is_stored_keeps_its_lease_and_its_worker() {
    let rows: [Row; 2] = [("a", &[], &[]), ("b", &["t0"], &[])];
    let mut play = Play::new(&rows, &[0]).begun();
    play.hear(Event::Computed { task: 0, attempt: 1 });
    play.sent();
    play.at(3_000.0);
    assert_eq!(renewed(&play.sent()), [[0]]);
    play.at(5_000.0);
    assert!(!play.asked().contains(&Action::ReadUsage), "it does not leave");
    play.failed(0, 1);
    assert!(matches!(play.sent()[..], [Operation::Fail { task: 0, attempt: 1, .. }]));
}

#[test]
fn what_exists_at_the_join_is_fetched_by_rank_after_what_runs_at_once() {
    let preload: &[Optimization] = &[Optimization::PreLoad];
    let rows: [Row; 5] = [
        ("b", &[], &[]),
        ("c", &[], &[]),
        ("a", &[], &[]),
        ("a", &["!in", "t0", "t1"], preload),
        ("a", &["t1"], &[]),
    ];
    let mut play = Play::new(&rows, &[2]);
    play.elsewhere("b", 0);
    let mut play = play.begun();
    let asked = play.asked();
    assert!(asked.contains(&Action::Listen { commits: CommitHints::Pass }));
    assert_eq!((executions(&asked), preloads(&asked)), (vec![(2, 1)], vec![(3, vec![0])]));
    let execute = asked.iter().position(|a| matches!(a, Action::Execute { .. })).unwrap();
    let fetch = asked.iter().position(|a| matches!(a, Action::PreLoad { .. })).unwrap();
    assert!(execute < fetch, "what runs has the link first");
}

#[test]
fn what_is_made_later_is_fetched_once_and_only_where_it_was_not_made() {
    let preload: &[Optimization] = &[Optimization::PreLoad];
    let rows: [Row; 4] =
        [("b", &[], &[]), ("a", &[], &[]), ("c", &[], &[]), ("a", &["t0", "t1", "t2"], preload)];
    let mut play = Play::new(&rows, &[1]).begun();
    play.asked();
    let commit = play.elsewhere("b", 0);
    let hint = Event::Hint { ready: Vec::new(), committed: vec![(0, commit)], skipped: Vec::new() };
    play.hear(hint.clone());
    play.hear(hint);
    assert_eq!(preloads(&play.asked()), [(3, vec![0])]);
    play.executed(1, 1);
    let own = play.ledger.commit(1).cloned().unwrap();
    play.hear(Event::Hint { ready: Vec::new(), committed: vec![(1, own)], skipped: Vec::new() });
    assert_eq!(preloads(&play.asked()), [], "what was made here is in memory");
}

#[test]
fn a_hint_that_overtakes_the_refusal_of_a_lease_is_not_lost() {
    let rows: [Row; 3] = [("a", &[], &[]), ("b", &[], &[]), ("a", &["t0", "t1"], &[])];
    let mut play = Play::new(&rows, &[0]).begun();
    play.asked();
    let outcome =
        Ok(Executed { outputs: outputs(), measured: Measured::default(), decision: None, printed: None });
    let mut out = Vec::new();
    play.worker.handle(Event::Executed { task: 0, attempt: 1, outcome }, play.now_ms, &mut out);
    let (request, operations) = out
        .into_iter()
        .find_map(|action| match action {
            Action::Operate { request, operations } => Some((request, operations)),
            _ => None,
        })
        .unwrap();
    assert!(
        operations.iter().any(|o| matches!(o, Operation::Lease { task: 2, .. })),
        "asked with the commit"
    );
    let answer = play.apply(&operations);
    play.elsewhere("b", 1);
    play.ready_hint(2);
    assert_eq!(executions(&play.asked()), []);
    play.hear(Event::Answered { request, answer });
    assert_eq!(executions(&play.asked()), [(2, 1)]);
}

#[test]
fn a_worker_that_waits_runs_what_it_waits_for_and_the_first_result_stands() {
    let dup: &[Optimization] = &[Optimization::TaskDup];
    let rows: [Row; 4] = [("a", &[], &[]), ("b", &[], dup), ("b", &[], &[]), ("a", &["t0", "t1", "t2"], &[])];
    let mut play = Play::new(&rows, &[0]).begun();
    play.asked();
    play.sent();
    play.executed(0, 1);
    assert_eq!(duplicates(&play.sent()), [[1]], "only what may be copied");
    assert_eq!(executions(&play.asked()), [(1, 0)]);
    play.at(3_000.0);
    assert_eq!(renewed(&play.sent()), [Vec::<u32>::new()], "a copy has no lease");
    play.executed(1, 0);
    assert!(play.ledger.commit(1).is_some_and(|c| c.attempt == 0 && c.instance.as_str() == "i-a"));
    assert!(!play.asked().iter().any(|a| matches!(a, Action::Discard { .. })));
    let duplicated = play.events.iter().filter(|e| matches!(e.change, Change::TaskDuplicated { .. }));
    assert_eq!(duplicated.count(), 1);
}

#[test]
fn a_copy_that_comes_second_is_thrown_away() {
    let dup: &[Optimization] = &[Optimization::TaskDup];
    let rows: [Row; 3] = [("a", &[], &[]), ("b", &[], dup), ("a", &["t0", "t1"], &[])];
    let mut play = Play::new(&rows, &[0]).begun();
    play.executed(0, 1);
    let stands = play.elsewhere("b", 1);
    play.asked();
    play.executed(1, 0);
    assert!(play.asked().contains(&Action::Discard { task: 1, attempt: 0 }));
    assert_eq!(play.ledger.commit(1), Some(&stands));
}

#[test]
fn a_copy_that_fails_is_nobodys_failure() {
    let dup: &[Optimization] = &[Optimization::TaskDup];
    let rows: [Row; 3] = [("a", &[], &[]), ("b", &[], dup), ("a", &["t0", "t1"], &[])];
    let mut play = Play::new(&rows, &[0]).begun();
    play.executed(0, 1);
    play.sent();
    play.failed(1, 0);
    assert!(play.sent().is_empty(), "it is not told, and not tried again");
    play.at(200.0);
    assert!(play.sent().is_empty());
}

#[test]
fn what_is_not_ready_is_asked_for_again_only_when_it_is_heard_of() {
    let dup: &[Optimization] = &[Optimization::TaskDup];
    let rows: [Row; 4] = [("a", &[], &[]), ("b", &[], &[]), ("b", &["t1"], dup), ("a", &["t0", "t2"], &[])];
    let mut play = Play::new(&rows, &[0]).begun();
    play.sent();
    play.executed(0, 1);
    assert_eq!(duplicates(&play.sent()), [[2]]);
    play.at(100.0);
    assert_eq!(duplicates(&play.sent()), Vec::<Vec<u32>>::new());
    play.elsewhere("b", 1);
    play.ready_hint(2);
    assert_eq!(duplicates(&play.sent()), [[2]]);
    assert_eq!(executions(&play.asked()).last(), Some(&(2, 0)));
}

#[test]
fn a_copy_waits_while_tasks_of_its_own_run() {
    let dup: &[Optimization] = &[Optimization::TaskDup];
    let rows: [Row; 3] = [("a", &[], &[]), ("b", &[], dup), ("a", &["t0", "t1"], &[])];
    let mut play = Play::new(&rows, &[0]).begun();
    assert_eq!(duplicates(&play.sent()), Vec::<Vec<u32>>::new());
    play.hear(Event::Computed { task: 0, attempt: 1 });
    assert_eq!(duplicates(&play.sent()), Vec::<Vec<u32>>::new(), "not while it stores either");
}

#[test]
fn workers_are_started_beforehand_when_their_time_has_come() {
    let rows: [Row; 2] = [("a", &[], &[]), ("a", &["t0"], &[])];
    let prewarm =
        |delay_ms| PreWarming { config: size(), after: Some(name("t0")), delay_ms, serves: name("t1") };
    let prewarms = vec![prewarm(700.0), prewarm(50_000.0)];
    let mut play = Play::with(&rows, &[0], 1, RunOptions::default(), prewarms).begun();
    play.at(699.0);
    assert!(!play.asked().contains(&Action::PreWarm { config: size() }));
    play.at(700.0);
    assert_eq!(play.asked(), [Action::PreWarm { config: size() }]);
    play.failed(0, 1);
    play.at(1_000.0);
    assert_eq!(
        play.asked(),
        [Action::Execute { task: 0, attempt: 2, parents: Vec::new(), hold_bytes_min: None }]
    );
    play.at(1_700.0);
    assert_eq!(play.asked(), [], "a second attempt starts nobody again");
    play.executed(0, 2);
    play.executed(1, 0);
    let asked = play.asked();
    assert!(asked.contains(&Action::Finished), "it does not wait for a start that is not due: {asked:?}");
}
