//! Decisions in the ledger: what they skip, at once, and what is said of a skipped task.

#![allow(clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use foresail_choreography::Ledger;
use foresail_schemas::decision::Decision;
use foresail_schemas::metric::StartState;
use foresail_schemas::run::{
    Change, Commit, Failure, FailureKind, Location, Measured, Operation, OperationResult, RunEvent,
    RunOptions, RunStatus, StoredObject,
};
use foresail_schemas::{InstanceId, ResourceConfig, RunId, Workflow};
use serde_json::json;

const LIST: u32 = 0;
const PARTS: [u32; 3] = [1, 2, 3];
const SUM: u32 = 4;
const CHECK: u32 = 5;

/// `list` decides how many of three parts run, `sum` reads what there is, `check` needs the second part.
fn workflow() -> Workflow {
    let part = |at: u32| {
        json!({"id": format!("p{at}"), "name": "p", "run": "true", "inputs": [{"task": "list"}],
            "when": {"task": "list", "above": at}})
    };
    let all = [0, 1, 2].map(|at| json!({"task": format!("p{at}"), "optional": true}));
    serde_json::from_value(json!({"name": "w", "tasks": [
        {"id": "list", "name": "l", "run": "true", "decision": "out"},
        part(0), part(1), part(2),
        {"id": "sum", "name": "s", "run": "true", "inputs": all},
        {"id": "check", "name": "c", "run": "true", "after": ["p1"]},
    ]}))
    .unwrap()
}

fn instance() -> InstanceId {
    "i1".parse().unwrap()
}

fn result(width: Option<u64>) -> Commit {
    let object = StoredObject { bytes: 0, hash: String::new(), location: Location::Inline(String::new()) };
    Commit {
        printed: None,
        attempt: 0,
        instance: instance(),
        outputs: vec![object],
        measured: Measured::default(),
        decision: width.map(Decision::Width),
    }
}

fn commit(task: u32, width: Option<u64>) -> Operation {
    Operation::Commit { task, commit: result(width), assuming: Vec::new() }
}

fn lease(task: u32) -> Operation {
    Operation::Lease { task, instance: instance(), epoch: 1, assuming: Vec::new() }
}

fn fail(task: u32) -> Operation {
    let kind = FailureKind::TaskError;
    let failure = Failure {
        task: None,
        attempt: 0,
        kind,
        message: "boom".to_owned(),
        exception: None,
        lost: Vec::new(),
    };
    Operation::Fail { task, attempt: 0, instance: instance(), failure }
}

fn joined(mut ledger: Ledger) -> Ledger {
    let config = ResourceConfig::new(512, None).unwrap();
    let join = Operation::Join { worker: None, instance: instance(), config, start: StartState::Cold };
    ledger.apply(&join, 0.0);
    ledger
}

fn begun() -> Ledger {
    let mut ledger = Ledger::new(&workflow(), RunOptions::default());
    ledger.begin(0.0);
    joined(ledger)
}

fn changes(events: Vec<RunEvent>) -> Vec<Change> {
    events.into_iter().map(|event| event.change).collect()
}

#[test]
fn a_decision_skips_what_it_does_not_call_for_in_the_operation_that_takes_it() {
    let mut ledger = begun();
    let (told, events) = ledger.apply(&commit(LIST, Some(1)), 1.0);
    let expected = OperationResult::Won { ready: vec![1], skipped: vec![2, 3, CHECK] };
    assert_eq!(told, expected);
    assert_eq!(
        changes(events),
        [
            Change::TaskCommitted { task: LIST, commit: result(Some(1)) },
            Change::TasksSkipped { by: LIST, tasks: vec![2, 3, CHECK] },
            Change::TaskReady { task: 1 },
        ]
    );
    assert_eq!(ledger.apply(&commit(LIST, Some(1)), 2.0), (expected, vec![]), "repeated");
    let summary = ledger.summary(2.0);
    assert_eq!((summary.committed, summary.skipped), (1, 3));
}

#[test]
fn a_reduction_over_an_empty_fan_out_runs_without_inputs_and_ends_the_run() {
    let mut ledger = begun();
    let (told, events) = ledger.apply(&commit(LIST, Some(0)), 1.0);
    assert_eq!(told, OperationResult::Won { ready: vec![SUM], skipped: vec![1, 2, 3, CHECK] });
    assert!(changes(events).contains(&Change::TaskReady { task: SUM }));
    let granted = ledger.apply(&lease(SUM), 1.0).0;
    assert_eq!(granted, OperationResult::Granted { attempt: 1, parents: vec![None; 3] });
    let (_, events) = ledger.apply(&commit(SUM, None), 2.0);
    let finished = Change::RunFinished { status: RunStatus::Completed, failure: None };
    assert_eq!(changes(events).last(), Some(&finished), "two results and four skipped tasks are all");
}

#[test]
fn a_run_may_end_with_a_decision() {
    let workflow: Workflow = serde_json::from_value(json!({"name": "w", "tasks": [
        {"id": "ask", "name": "a", "run": "true", "decision": "out"},
        {"id": "then", "name": "t", "run": "true", "when": {"task": "ask", "is": "yes"}},
    ]}))
    .unwrap();
    let mut ledger = Ledger::new(&workflow, RunOptions::default());
    ledger.begin(0.0);
    let mut ledger = joined(ledger);
    ledger.apply(&commit(0, Some(7)), 1.0);
    assert_eq!(ledger.status(), RunStatus::Completed);
}

#[test]
fn nobody_gets_a_skipped_task_and_everybody_hears_that_it_is_one() {
    let mut ledger = begun();
    ledger.apply(&commit(LIST, Some(2)), 1.0);
    for operation in [lease(3), commit(3, None), fail(3)] {
        assert_eq!(ledger.apply(&operation, 2.0), (OperationResult::Skipped, vec![]), "{operation:?}");
    }
    let mut ask = |operation| ledger.apply(&operation, 90_000.0).0;
    let duplicate = Operation::Duplicate { tasks: vec![3, 2], instance: instance() };
    let parents = vec![Some(result(Some(2)))];
    assert_eq!(ask(duplicate), OperationResult::Duplicated { task: 2, parents });
    let open = Operation::Open { tasks: PARTS.to_vec() };
    assert_eq!(ask(open), OperationResult::Open { tasks: vec![1, 2], ready: vec![1, 2] });
    let missing = Operation::Missing { tasks: vec![3, SUM], parent: 1 };
    assert_eq!(
        ask(missing),
        OperationResult::Missing { counts: vec![None, Some(1)] },
        "a skipped one is not"
    );
    let frontier = Operation::Frontier { idle_ms_min: 0.0, limit: 9 };
    assert_eq!(
        ask(frontier),
        OperationResult::Frontier { ready: vec![1, 2], larger: vec![], untried: vec![] }
    );
    let commits = Operation::Commits { tasks: vec![3] };
    assert_eq!(ask(commits), OperationResult::Commits { commits: vec![None] });
}

#[test]
fn who_decides_has_to_and_nobody_else_may() {
    let mut ledger = begun();
    let refused = |ledger: &mut Ledger, operation| match ledger.apply(&operation, 1.0) {
        (OperationResult::Refused { detail }, events) if events.is_empty() => detail,
        other => panic!("{other:?}"),
    };
    let silent = refused(&mut ledger, commit(LIST, None));
    assert!(silent.contains("task 0 decides"), "{silent}");
    ledger.apply(&commit(LIST, Some(3)), 1.0);
    let bold = refused(&mut ledger, commit(1, Some(3)));
    assert!(bold.contains("task 1 decides nothing"), "{bold}");
}

#[test]
fn the_first_result_decides_and_a_later_one_changes_nothing() {
    let mut ledger = begun();
    ledger.apply(&commit(LIST, Some(1)), 1.0);
    let other = Commit { instance: "i2".parse().unwrap(), ..result(Some(3)) };
    let later = Operation::Commit { task: LIST, commit: other, assuming: Vec::new() };
    let expected = OperationResult::Committed { commit: result(Some(1)) };
    assert_eq!(ledger.apply(&later, 2.0), (expected, vec![]));
    assert!(ledger.is_skipped(2) && !ledger.is_skipped(1));
}

#[test]
fn a_ledger_that_is_replayed_skips_the_same() {
    let mut replayed = Ledger::new(&workflow(), RunOptions::default());
    let mut ledger = Ledger::new(&workflow(), RunOptions::default());
    let mut events = ledger.begin(0.0);
    let config = ResourceConfig::new(512, None).unwrap();
    let join = Operation::Join { worker: None, instance: instance(), config, start: StartState::Cold };
    for operation in [join, commit(LIST, Some(1)), commit(1, None), commit(SUM, None)] {
        events.extend(ledger.apply(&operation, 1.0).1);
    }
    events.iter().for_each(|event| replayed.replay(event));
    assert_eq!(replayed.summary(1.0), ledger.summary(1.0));
    assert!((0..6).all(|task| replayed.is_skipped(task) == ledger.is_skipped(task)));
    assert_eq!(replayed.status(), RunStatus::Completed);
}

/// A ledger of a run that decided two and got as far as the first part.
fn stopped() -> Ledger {
    let mut ledger = begun();
    for operation in [commit(LIST, Some(2)), commit(1, None)] {
        ledger.apply(&operation, 1.0);
    }
    ledger
}

#[test]
fn a_resumed_run_decides_again_what_was_decided() {
    let (workflow, of) = (workflow(), RunId::new("r-1").unwrap());
    let results = stopped().reusable(&workflow, &workflow, &[]);
    let mut ledger = Ledger::new(&workflow, RunOptions::default());
    let events = changes(ledger.resume(&of, results, 0.0));
    let skipped = Change::TasksSkipped { by: LIST, tasks: vec![3] };
    assert_eq!(events[3..], [skipped, Change::TaskReady { task: 2 }]);
    let mut ledger = joined(ledger);
    for operation in [commit(2, None), commit(SUM, None), commit(CHECK, None)] {
        ledger.apply(&operation, 1.0);
    }
    assert_eq!(ledger.status(), RunStatus::Completed);
}

#[test]
fn nothing_is_taken_over_that_a_decision_to_be_made_anew_is_about() {
    let workflow = workflow();
    let without = [workflow.task(LIST).id.clone()];
    assert_eq!(stopped().reusable(&workflow, &workflow, &without), []);
}

#[test]
fn another_condition_is_another_task() {
    let old = workflow();
    let mut spec = old.spec().clone();
    spec.tasks[1].when = None;
    let new = spec.check().unwrap();
    let taken: Vec<u32> = stopped().reusable(&old, &new, &[]).into_iter().map(|(task, _)| task).collect();
    assert_eq!(taken, [LIST]);
}
