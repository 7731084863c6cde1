//! Results whose objects are lost, operation by operation: what is taken back, what is made again, what ends.

#![allow(clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use foresail_choreography::Ledger;
use foresail_schemas::metric::StartState;
use foresail_schemas::run::{
    Change, Commit, Failure, FailureKind, LargerTask, Location, Measured, Operation, OperationResult,
    RunOptions, RunStatus, StoredObject,
};
use foresail_schemas::{ResourceConfig, Workflow};
use serde_json::json;

/// `a`, then `b` of it, then `c` of both; `d` of `a`, which keeps the run from its end.
fn workflow() -> Workflow {
    let task = |id: &str, parents: &[&str]| {
        let inputs: Vec<_> = parents.iter().map(|parent| json!({ "task": parent })).collect();
        json!({"id": id, "name": id, "run": "true", "inputs": inputs, "attempts_max": 2})
    };
    let tasks = [task("a", &[]), task("b", &["a"]), task("c", &["a", "b"]), task("d", &["a"])];
    serde_json::from_value(json!({"name": "w", "tasks": tasks})).unwrap()
}

struct Rig {
    ledger: Ledger,
    events: Vec<foresail_schemas::run::RunEvent>,
    now_ms: f64,
}

impl Rig {
    /// `a` and `b` have results, `c` is being run.
    fn new() -> Self {
        let mut ledger = Ledger::new(&workflow(), RunOptions::default());
        let events = ledger.begin(0.0);
        let mut rig = Self { ledger, events, now_ms: 0.0 };
        let config = ResourceConfig::new(512, None).unwrap();
        rig.apply(Operation::Join {
            worker: None,
            instance: "i".parse().unwrap(),
            config,
            start: StartState::Cold,
        });
        rig.make(0);
        rig.make(1);
        rig
    }

    fn apply(&mut self, operation: Operation) -> OperationResult {
        self.now_ms += 1.0;
        let (result, events) = self.ledger.apply(&operation, self.now_ms);
        self.events.extend(events);
        result
    }

    fn lease(&mut self, task: u32) -> Option<u32> {
        let lease = Operation::Lease { task, instance: "i".parse().unwrap(), epoch: 1, assuming: Vec::new() };
        match self.apply(lease) {
            OperationResult::Granted { attempt, .. } => Some(attempt),
            _ => None,
        }
    }

    fn commit(&mut self, task: u32, attempt: u32) -> OperationResult {
        let location = Location::Stored(key(task, attempt));
        let commit = Commit {
            printed: None,
            attempt,
            instance: "i".parse().unwrap(),
            outputs: vec![StoredObject { bytes: 1, hash: String::new(), location }],
            measured: Measured::default(),
            decision: None,
        };
        self.apply(Operation::Commit { task, commit, assuming: Vec::new() })
    }

    fn make(&mut self, task: u32) -> u32 {
        let attempt = self.lease(task).unwrap();
        assert!(matches!(self.commit(task, attempt), OperationResult::Won { .. }));
        attempt
    }

    /// An attempt fails for want of objects.
    fn fail(&mut self, task: u32, lost: &[(u32, u32)]) -> OperationResult {
        let attempt = self.lease(task).unwrap();
        self.report(task, attempt, lost)
    }

    fn report(&mut self, task: u32, attempt: u32, lost: &[(u32, u32)]) -> OperationResult {
        let lost = lost.iter().map(|&(task, attempt)| key(task, attempt)).collect();
        let (kind, message) = (FailureKind::InputUnavailable, "gone".to_owned());
        let failure = Failure { task: None, attempt, kind, message, lost, exception: None };
        self.apply(Operation::Fail { task, attempt, instance: "i".parse().unwrap(), failure })
    }
}

/// What is to be started now, on the size that it ran on.
fn made_next(tasks: &[u32]) -> OperationResult {
    let config = ResourceConfig::new(512, None).unwrap();
    let larger = tasks.iter().map(|&task| LargerTask { task, config }).collect();
    OperationResult::Frontier { ready: tasks.to_vec(), larger, untried: Vec::new() }
}

fn key(task: u32, attempt: u32) -> String {
    format!("{task}/{attempt}")
}

#[test]
fn a_lost_result_is_made_again_before_what_reads_it() {
    let mut rig = Rig::new();
    assert_eq!(rig.fail(2, &[(0, 1)]), made_next(&[0]));
    assert_eq!(rig.report(2, 1, &[(0, 1)]), made_next(&[0]), "a repeated report is answered like the first");
    assert_eq!(rig.ledger.summary(9.0).committed, 1, "that of b stays");
    assert_eq!(rig.lease(2), None);
    assert_eq!(rig.lease(3), None, "d waits for it too");
    assert!(
        matches!(rig.commit(0, 1), OperationResult::Refused { .. }),
        "an old request does not bring it back"
    );
    assert_eq!(rig.make(0), 2);
    for task in [2, 3] {
        rig.make(task);
    }
    assert_eq!(rig.ledger.status(), RunStatus::Completed);
    let ready =
        rig.events.iter().filter(|event| matches!(event.change, Change::TaskReady { task: 0 })).count();
    assert_eq!(ready, 2);
    let mut replayed = Ledger::new(&workflow(), RunOptions::default());
    rig.events.iter().for_each(|event| replayed.replay(event));
    assert_eq!(replayed.summary(99.0), rig.ledger.summary(99.0));
}

#[test]
fn what_a_lost_result_was_made_of_may_be_lost_too() {
    let mut rig = Rig::new();
    assert_eq!(rig.fail(2, &[(1, 1)]), made_next(&[1]));
    assert_eq!(rig.fail(1, &[(0, 1)]), made_next(&[0]));
    assert_eq!(rig.report(2, 1, &[(1, 1)]), made_next(&[0]), "what it waits for waits for another");
    assert_eq!((rig.lease(1), rig.lease(2)), (None, None));
    for task in 0..4 {
        rig.make(task);
    }
    assert_eq!(rig.ledger.status(), RunStatus::Completed);
}

#[test]
fn both_of_a_parent_and_its_child_are_taken_back_and_made_in_order() {
    let mut rig = Rig::new();
    assert_eq!(rig.fail(2, &[(0, 1), (1, 1)]), made_next(&[0]));
    assert_eq!(rig.lease(1), None);
    for task in 0..4 {
        rig.make(task);
    }
    assert_eq!(rig.ledger.status(), RunStatus::Completed);
}

#[test]
fn what_is_lost_a_third_time_ends_the_run_and_the_attempts_that_missed_it_did_not_count() {
    let mut rig = Rig::new();
    for attempt in [1, 2] {
        assert_eq!(rig.fail(2, &[(0, attempt)]), made_next(&[0]));
        assert_eq!(rig.make(0), attempt + 1);
    }
    assert_eq!(rig.fail(2, &[(0, 3)]), OperationResult::Done);
    assert_eq!(rig.ledger.status(), RunStatus::Failed);
    let failure = rig.ledger.summary(99.0).failure.unwrap();
    assert_eq!(failure.kind, FailureKind::InputUnavailable);
    assert!(failure.message.contains("gone") && failure.message.contains("task `a` is lost"), "{failure:?}");
}

#[test]
fn an_object_that_is_no_result_any_more_takes_nothing_back() {
    let mut rig = Rig::new();
    assert!(matches!(rig.fail(2, &[(0, 7), (3, 1)]), OperationResult::Again { .. }));
    assert_eq!(rig.ledger.summary(99.0).committed, 2);
}
