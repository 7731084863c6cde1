//! What a run takes over from an earlier one, and how it begins then.

#![allow(clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use foresail_choreography::Ledger;
use foresail_schemas::metric::StartState;
use foresail_schemas::run::{
    Commit, Failure, FailureKind, Location, Measured, Operation, OperationResult, RunEvent, RunOptions,
    RunStatus, StoredObject,
};
use foresail_schemas::workflow::{Input, Task, Work, WorkflowSpec};
use foresail_schemas::{ObjectName, ResourceConfig, TaskId, Workflow};

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a legal name")
}

/// a, then b and c of it, then d of both. `changed` runs something else.
fn diamond(changed: Option<&str>) -> Workflow {
    let task = |id: &str, reads: &[&str]| {
        let line = if changed == Some(id) { "other" } else { "line" };
        let mut task = Task::new(name(id), name(id), Work::Command(line.to_owned()));
        task.inputs = reads.iter().map(|t| Input::task(name(t), ObjectName::default())).collect();
        task
    };
    let tasks = vec![task("d", &["b", "c"]), task("c", &["a"]), task("b", &["a"]), task("a", &[])];
    WorkflowSpec { name: name("w"), description: None, tasks, code: Default::default() }.check().unwrap()
}

/// A run of the diamond in which these tasks have results.
fn ended(done: &[(&str, Location)]) -> Ledger {
    let workflow = diamond(None);
    let mut ledger = Ledger::new(&workflow, RunOptions::default());
    ledger.begin(0.0);
    join(&mut ledger);
    for (id, location) in done {
        let task = workflow.graph().find(&name(id)).unwrap();
        lease(&mut ledger, task);
        let outputs = vec![StoredObject { bytes: 0, hash: String::new(), location: location.clone() }];
        let commit = Commit {
            attempt: 1,
            instance: name("i"),
            outputs,
            measured: Measured::default(),
            decision: None,
            printed: None,
        };
        let won = ledger.apply(&Operation::Commit { task, commit, assuming: Vec::new() }, 1.0).0;
        assert!(matches!(won, OperationResult::Won { .. }));
    }
    ledger.apply(&Operation::Cancel { reason: "enough".to_owned() }, 2.0);
    ledger
}

fn join(ledger: &mut Ledger) -> Vec<RunEvent> {
    let config = ResourceConfig::new(512, None).unwrap();
    let join = Operation::Join { worker: None, instance: name("i"), config, start: StartState::Cold };
    ledger.apply(&join, 0.0).1
}

fn lease(ledger: &mut Ledger, task: u32) -> OperationResult {
    let lease = Operation::Lease { task, instance: name("i"), epoch: 1, assuming: Vec::new() };
    ledger.apply(&lease, 1.0).0
}

fn kept() -> Location {
    Location::Stored("key".to_owned())
}

fn held() -> Location {
    Location::Unstored("key".to_owned())
}

fn check(done: &[(&str, Location)], changed: Option<&str>, without: &[&str], expect: &[&str]) {
    let without: Vec<TaskId> = without.iter().map(|id| name(id)).collect();
    let new = diamond(changed);
    let taken = ended(done).reusable(&diamond(None), &new, &without);
    let mut ids: Vec<&str> = taken.iter().map(|(task, _)| new.task(*task).id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, expect, "of {done:?}, {changed:?} changed, without {without:?}");
}

#[test]
fn results_are_taken_over_where_nothing_before_them_has_changed() {
    let abc = [("a", kept()), ("b", kept()), ("c", kept())];
    check(&abc, None, &[], &["a", "b", "c"]);
    check(&abc, Some("d"), &[], &["a", "b", "c"]);
    check(&abc, Some("b"), &[], &["a", "c"]);
    check(&abc, Some("a"), &[], &[]);
}

#[test]
fn a_lost_object_costs_its_producer_and_nothing_else() {
    let abc = [("a", kept()), ("b", kept()), ("c", kept())];
    check(&abc, None, &["a"], &["b", "c"]);
    check(&abc, None, &["c"], &["a", "b"]);
}

#[test]
fn what_was_never_stored_is_taken_over_only_when_nobody_needs_it() {
    let unstored_a = [("a", held()), ("b", kept()), ("c", kept())];
    check(&unstored_a, None, &[], &["a", "b", "c"]);
    check(&unstored_a, None, &["b"], &["c"]);
    check(&[("a", kept()), ("b", held()), ("c", kept())], None, &[], &["a", "c"]);
}

#[test]
fn what_others_make_after_a_failure_is_kept_for_who_resumes_and_nothing_follows_from_it() {
    let commit = |attempt| {
        let outputs = vec![StoredObject { bytes: 0, hash: String::new(), location: kept() }];
        let (instance, measured) = (name("i"), Measured::default());
        Commit { attempt, instance, outputs, measured, decision: None, printed: None }
    };
    let end = |ends: Operation| {
        let workflow = diamond(None);
        let task = |id: &str| workflow.graph().find(&name(id)).unwrap();
        let mut ledger = Ledger::new(&workflow, RunOptions::default());
        let mut events = ledger.begin(0.0);
        events.extend(join(&mut ledger));
        let mut apply = |operation: Operation| {
            let (result, told) = ledger.apply(&operation, 1.0);
            events.extend(told);
            result
        };
        let lease = |task| Operation::Lease { task, instance: name("i"), epoch: 1, assuming: Vec::new() };
        let make = |task, attempt| Operation::Commit { task, commit: commit(attempt), assuming: Vec::new() };
        apply(lease(task("a")));
        apply(make(task("a"), 1));
        apply(lease(task("b")));
        apply(lease(task("c")));
        apply(ends);
        let results = [apply(make(task("b"), 1)), apply(make(task("b"), 1)), apply(make(task("c"), 7))];
        assert!(matches!(apply(lease(task("d"))), OperationResult::RunOver));
        let mut replayed = Ledger::new(&workflow, RunOptions::default());
        events.iter().for_each(|event| replayed.replay(event));
        assert_eq!(replayed.summary(9.0), ledger.summary(9.0));
        let taken = ledger.reusable(&workflow, &workflow, &[]).len();
        (ledger.status(), results, taken)
    };
    let (kind, message) = (FailureKind::TaskRefused, "never".to_owned());
    let failure = Failure { task: None, attempt: 1, kind, message, exception: None, lost: Vec::new() };
    let c = diamond(None).graph().find(&name("c")).unwrap();
    let (status, [first, again, never_granted], taken) =
        end(Operation::Fail { task: c, attempt: 1, instance: name("i"), failure });
    assert_eq!((status, taken), (RunStatus::Failed, 2));
    let won = OperationResult::Won { ready: Vec::new(), skipped: Vec::new() };
    assert_eq!((first, again), (won.clone(), won));
    assert!(matches!(never_granted, OperationResult::Refused { .. }), "{never_granted:?}");
    let (status, results, taken) = end(Operation::Cancel { reason: "enough".to_owned() });
    assert_eq!((status, taken), (RunStatus::Cancelled, 1));
    assert_eq!(results, [const { OperationResult::RunOver }; 3]);
}

#[test]
fn a_resumed_run_begins_with_what_is_ready_and_is_rebuilt_from_its_events() {
    let new = diamond(None);
    let taken = ended(&[("a", kept()), ("b", kept())]).reusable(&diamond(None), &new, &[]);
    let mut ledger = Ledger::new(&new, RunOptions::default());
    let events = ledger.resume(&name("r-old"), taken, 0.0);
    let mut rebuilt = Ledger::new(&new, RunOptions::default());
    events.iter().for_each(|event| rebuilt.replay(event));
    for l in [&mut ledger, &mut rebuilt] {
        assert_eq!((l.reused(), l.summary(0.0).committed), (2, 2));
        join(l);
        let task = |id: &str| new.graph().find(&name(id)).unwrap();
        let open = l.apply(&Operation::Open { tasks: vec![0, 1, 2, 3] }, 0.0).0;
        let expect = OperationResult::Open { tasks: vec![task("d"), task("c")], ready: vec![task("c")] };
        assert_eq!(open, expect);
        assert_eq!(lease(l, task("d")), OperationResult::NotReady);
        let granted = lease(l, task("c"));
        let has_parent =
            matches!(&granted, OperationResult::Granted { parents, .. } if matches!(parents[..], [Some(_)]));
        assert!(has_parent, "{granted:?}");
    }
}

#[test]
fn a_resumed_run_of_which_nothing_is_missing_has_ended() {
    let all = [("a", kept()), ("b", kept()), ("c", kept()), ("d", kept())];
    let new = diamond(None);
    let taken = ended(&all).reusable(&diamond(None), &new, &[]);
    let mut ledger = Ledger::new(&new, RunOptions::default());
    ledger.resume(&name("r-old"), taken, 0.0);
    assert_eq!(ledger.status(), RunStatus::Completed);
}
