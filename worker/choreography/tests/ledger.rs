//! The ledger, operation by operation: what is granted, what is refused, what a repeated operation answers.

#![allow(clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use foresail_choreography::Ledger;
use foresail_schemas::ResourceConfig;
use foresail_schemas::metric::StartState;
use foresail_schemas::run::{
    Assumption, Before, Change, Commit, Failure, FailureKind, Location, Measured, Operation, OperationResult,
    RunOptions, RunStatus, StoredObject, WorkerUsage,
};
use foresail_schemas::workflow::{Input, Task, Work, WorkflowSpec};
use foresail_schemas::{ObjectName, Workflow, examples};

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a legal name")
}

/// a and b, then c of both.
fn diamond_tip() -> Workflow {
    let task = |id: &str| {
        let work = Work::Function { function: name("f"), params: serde_json::Value::Null };
        Task::new(name(id), name("f"), work)
    };
    let mut c = task("c");
    c.inputs = ["a", "b"].map(|t| Input::task(name(t), ObjectName::default())).to_vec();
    WorkflowSpec {
        name: name("w"),
        description: None,
        tasks: vec![task("a"), task("b"), c],
        code: Default::default(),
    }
    .check()
    .unwrap()
}

fn ledger() -> Ledger {
    let mut ledger = Ledger::new(&diamond_tip(), RunOptions { attempts_max: 2, ..RunOptions::default() });
    assert_eq!(ledger.begin(0.0).len(), 2, "both sources are ready");
    for instance in ["i1", "i2"] {
        assert_eq!(
            ledger.apply(&join(None, instance), 0.0).0,
            OperationResult::Joined { before: Before::Left }
        );
    }
    ledger
}

fn join(worker: Option<&str>, instance: &str) -> Operation {
    let config = ResourceConfig::new(512, None).unwrap();
    let worker = worker.map(name);
    Operation::Join { worker, instance: name(instance), config, start: StartState::Cold }
}

fn lease(task: u32, instance: &str) -> Operation {
    Operation::Lease { task, instance: name(instance), epoch: 1, assuming: Vec::new() }
}

fn commit(task: u32, attempt: u32, instance: &str) -> Operation {
    let object = StoredObject { bytes: 0, hash: String::new(), location: Location::Inline(String::new()) };
    let commit = Commit {
        attempt,
        instance: name(instance),
        outputs: vec![object],
        measured: Measured::default(),
        decision: None,
        printed: None,
    };
    Operation::Commit { task, commit, assuming: Vec::new() }
}

fn fail(task: u32, attempt: u32, instance: &str, kind: FailureKind) -> Operation {
    let failure =
        Failure { task: None, attempt, kind, message: "boom".to_owned(), exception: None, lost: Vec::new() };
    Operation::Fail { task, attempt, instance: name(instance), failure }
}

fn won(ready: &[u32]) -> OperationResult {
    OperationResult::Won { ready: ready.to_vec(), skipped: Vec::new() }
}

fn granted(result: &OperationResult) -> Option<u32> {
    match result {
        OperationResult::Granted { attempt, .. } => Some(*attempt),
        _ => None,
    }
}

#[test]
fn a_lease_is_granted_once_and_again_to_its_holder() {
    let mut l = ledger();
    let (first, events) = l.apply(&lease(0, "i1"), 1.0);
    assert_eq!((granted(&first), events.len()), (Some(1), 1));
    let (again, events) = l.apply(&lease(0, "i1"), 2.0);
    assert_eq!((granted(&again), events.len()), (Some(1), 0), "a repeated lease is the same attempt");
    assert!(
        matches!(l.apply(&lease(0, "i2"), 3.0).0, OperationResult::Held { expires_in_ms: ms } if ms < 1e4)
    );
    assert!(matches!(l.apply(&lease(0, "stranger"), 3.0).0, OperationResult::Refused { .. }));
}

#[test]
fn an_expired_lease_goes_to_the_next_and_heartbeats_prevent_it() {
    let mut l = ledger();
    l.apply(&lease(0, "i1"), 0.0);
    l.apply(&Operation::Renew { instance: name("i1"), tasks: vec![0] }, 9_000.0);
    assert!(matches!(l.apply(&lease(0, "i2"), 18_000.0).0, OperationResult::Held { .. }));
    assert_eq!(granted(&l.apply(&lease(0, "i2"), 19_001.0).0), Some(2));
    assert!(matches!(l.apply(&lease(0, "i1"), 99_000.0).0, OperationResult::RunOver), "attempts are used up");
    assert_eq!(l.status(), RunStatus::Failed);
    assert_eq!(l.summary(99_000.0).failure.unwrap().kind, FailureKind::WorkerLost);
}

#[test]
fn the_first_commit_stands_even_against_a_later_attempt() {
    let mut l = ledger();
    l.apply(&lease(0, "i1"), 0.0);
    l.apply(&lease(0, "i2"), 20_000.0);
    assert_eq!(l.apply(&commit(0, 1, "i1"), 20_001.0).0, won(&[]), "a zombie may commit");
    assert!(
        matches!(l.apply(&commit(0, 2, "i2"), 3e4), (OperationResult::Committed { .. }, e) if e.is_empty())
    );
    let (repeated, events) = l.apply(&commit(0, 1, "i1"), 30_001.0);
    assert_eq!((repeated, events.len()), (won(&[]), 0));
    assert!(
        matches!(l.apply(&commit(1, 1, "i1"), 30_002.0).0, OperationResult::Refused { .. }),
        "never granted"
    );
    l.apply(&lease(1, "i1"), 30_003.0);
    let stranger = l.apply(&commit(1, 1, "stranger"), 30_004.0).0;
    assert!(matches!(stranger, OperationResult::Refused { .. }), "never joined");
}

#[test]
fn a_set_is_full_only_when_every_parent_has_a_result() {
    let mut l = ledger();
    for (task, instance, ready) in [(0, "i1", vec![]), (1, "i2", vec![2])] {
        assert_eq!(l.apply(&lease(2, instance), 0.0).0, OperationResult::NotReady);
        assert!(matches!(l.apply(&commit(2, 0, instance), 0.0).0, OperationResult::Refused { .. }));
        l.apply(&lease(task, instance), 0.0);
        let (result, events) = l.apply(&commit(task, 1, instance), 1.0);
        assert_eq!(result, won(&ready));
        assert_eq!(events.len(), 1 + ready.len());
        let again = l.apply(&commit(task, 1, instance), 1.0);
        assert_eq!(again, (won(&ready), vec![]), "a set, not a counter");
    }
    let (result, _) = l.apply(&lease(2, "i1"), 2.0);
    assert!(matches!(result, OperationResult::Granted { attempt: 1, parents } if parents.len() == 2
            && parents.iter().all(Option::is_some)));
    let repeated = l.apply(&commit(1, 1, "i2"), 2.0).0;
    assert_eq!(repeated, won(&[]), "somebody has it now");
    let (_, events) = l.apply(&commit(2, 1, "i1"), 3.0);
    assert!(matches!(events[1].change, Change::RunFinished { status: RunStatus::Completed, .. }));
    assert_eq!(l.apply(&lease(2, "i2"), 4.0).0, OperationResult::RunOver);
}

#[test]
fn a_commit_ahead_of_its_lease_stands_on_results_of_its_own_worker() {
    let ahead = |task, instance: &str, assuming: &[u32]| match commit(task, 0, instance) {
        Operation::Commit { task, commit, .. } => {
            let assuming = assuming.iter().map(|&task| Assumption { task, attempt: 0 }).collect();
            Operation::Commit { task, commit, assuming }
        }
        other => other,
    };
    let mut l = ledger();
    assert_eq!(l.apply(&ahead(0, "i1", &[]), 0.0).0, won(&[]));
    l.apply(&lease(1, "i2"), 0.0);
    assert_eq!(l.apply(&ahead(1, "i1", &[]), 1.0).0, won(&[2]), "beside the lease of another");
    assert!(matches!(l.apply(&commit(1, 1, "i2"), 2.0).0, OperationResult::Committed { .. }));
    let (result, events) = l.apply(&ahead(2, "i2", &[1]), 3.0);
    assert!(matches!(result, OperationResult::Refused { .. }), "the result of task 1 is by i1");
    assert!(events.is_empty());
    let Operation::Commit { task, commit, .. } = ahead(2, "i1", &[]) else { unreachable!() };
    let assuming = vec![Assumption { task: 0, attempt: 1 }];
    let result = l.apply(&Operation::Commit { task, commit, assuming }, 3.0).0;
    assert!(matches!(result, OperationResult::Refused { .. }), "the result of task 0 is by attempt 0");
    assert_eq!(l.apply(&ahead(2, "i1", &[0, 1]), 4.0).0, won(&[]));
    assert_eq!(l.status(), RunStatus::Completed);
    assert_eq!(l.summary(5.0).retries, 0);
}

#[test]
fn who_follows_a_worker_that_disappeared_is_told() {
    let mut l = ledger();
    let joined = |before| OperationResult::Joined { before };
    assert_eq!(l.apply(&join(Some("w"), "p1"), 0.0).0, joined(Before::Left));
    assert_eq!(l.apply(&join(Some("w"), "p2"), 20_000.0).0, joined(Before::Lost));
    let leave = Operation::Leave { instance: name("p2"), tasks: vec![], usage: WorkerUsage::default() };
    l.apply(&leave, 20_001.0);
    assert_eq!(l.apply(&join(Some("w"), "p3"), 20_002.0).0, joined(Before::Lost), "the cause may be there");
    assert_eq!(l.apply(&join(Some("v"), "p4"), 20_002.0).0, joined(Before::Left));
}

#[test]
fn a_planned_worker_lives_once_and_may_not_leave_ready_tasks() {
    let mut l = ledger();
    assert_eq!(l.apply(&join(Some("w"), "p1"), 0.0).0, OperationResult::Joined { before: Before::Left });
    assert!(matches!(l.apply(&join(Some("w"), "p2"), 1.0).0, OperationResult::AlreadyAlive { .. }));
    let leave = Operation::Leave { instance: name("p1"), tasks: vec![0], usage: WorkerUsage::default() };
    assert_eq!(l.apply(&leave, 2.0).0, OperationResult::Stay { tasks: vec![0] });
    l.apply(&lease(0, "i1"), 3.0);
    assert_eq!(l.apply(&leave, 4.0).0, OperationResult::Done, "somebody has it now");
    assert_eq!(l.apply(&join(Some("w"), "p2"), 5.0).0, OperationResult::Joined { before: Before::Left });
}

#[test]
fn attempts_end_a_run_and_so_does_a_failure_that_cannot_be_repeated() {
    for (kind, status) in
        [(FailureKind::TaskError, RunStatus::Running), (FailureKind::UnknownFunction, RunStatus::Failed)]
    {
        let mut l = ledger();
        l.apply(&lease(0, "i1"), 0.0);
        assert_eq!(l.apply(&fail(0, 1, "i2", kind), 1.0), (OperationResult::Done, vec![]), "not the holder");
        l.apply(&fail(0, 1, "i1", kind), 1.0);
        assert_eq!(l.status(), status);
        if status == RunStatus::Running {
            assert_eq!(granted(&l.apply(&lease(0, "i1"), 200.0).0), Some(2));
            l.apply(&fail(0, 2, "i1", kind), 201.0);
        }
        let message = l.summary(202.0).failure.unwrap().message;
        assert!(message.starts_with("boom\nattempt "), "{message}");
    }
}

#[test]
fn a_replaced_plan_makes_leases_of_the_old_one_stale() {
    let mut l = ledger();
    assert_eq!(l.replan(1, None, 1.0).unwrap().len(), 1);
    assert_eq!(l.replan(1, None, 1.0), Err(2), "compare and set");
    assert_eq!(l.apply(&lease(0, "i1"), 2.0).0, OperationResult::StaleEpoch);
}

#[test]
fn a_suggested_plan_is_recorded_and_changes_nothing() {
    let mut l = ledger();
    let why = examples::replan_request().why.unwrap();
    let events = l.suggest(1, why.clone(), 1.0).unwrap();
    assert!(matches!(&events[0].change, Change::PlanSuggested { epoch: 1, why: told } if **told == why));
    assert_eq!(l.plan_epoch(), 1);
    assert_eq!(l.suggest(2, why, 2.0), Err(1));
}

#[test]
fn the_frontier_shows_what_is_stuck_and_nothing_else() {
    let mut l = ledger();
    l.apply(&lease(0, "i1"), 0.0);
    l.apply(&lease(1, "i2"), 0.0);
    l.apply(&commit(1, 1, "i2"), 1.0);
    let look =
        |l: &mut Ledger, now_ms| l.apply(&Operation::Frontier { idle_ms_min: 100.0, limit: 9 }, now_ms).0;
    let frontier = |ready: &[u32]| OperationResult::Frontier {
        ready: ready.to_vec(),
        larger: Vec::new(),
        untried: Vec::new(),
    };
    assert_eq!(look(&mut l, 500.0), frontier(&[]));
    assert_eq!(look(&mut l, 10_101.0), frontier(&[0]), "the lease of task 0 has expired");
    let open = l.apply(&Operation::Open { tasks: vec![0, 1, 2] }, 10_101.0).0;
    assert_eq!(open, OperationResult::Open { tasks: vec![0, 2], ready: vec![0] });
}

#[test]
fn a_ready_task_that_nobody_has_had_gets_the_time_of_a_lease() {
    let mut l = ledger();
    let mut look = |now_ms| l.apply(&Operation::Frontier { idle_ms_min: 100.0, limit: 9 }, now_ms).0;
    let frontier = |ready: &[u32]| OperationResult::Frontier {
        ready: ready.to_vec(),
        larger: Vec::new(),
        untried: Vec::new(),
    };
    assert_eq!(look(10_099.0), frontier(&[]));
    assert_eq!(look(10_100.0), frontier(&[0, 1]));
}

#[test]
fn what_nobody_has_had_is_told_apart_while_somebody_works() {
    let mut l = ledger();
    l.apply(&lease(0, "i1"), 5_000.0);
    let mut look = |now_ms| l.apply(&Operation::Frontier { idle_ms_min: 100.0, limit: 9 }, now_ms).0;
    let frontier = |ready: &[u32], untried: &[u32]| {
        let (ready, larger, untried) = (ready.to_vec(), Vec::new(), untried.to_vec());
        OperationResult::Frontier { ready, larger, untried }
    };
    assert_eq!(look(10_100.0), frontier(&[1], &[1]), "it may wait for the place of whoever has task 0");
    assert_eq!(look(15_101.0), frontier(&[0, 1], &[]), "nobody has any");
}

#[test]
fn a_task_that_does_not_exist_is_refused() {
    let mut l = ledger();
    for operation in [lease(3, "i1"), commit(9, 1, "i1")] {
        assert!(matches!(l.apply(&operation, 0.0).0, OperationResult::Refused { .. }));
    }
}
