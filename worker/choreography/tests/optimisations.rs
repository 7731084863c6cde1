//! What each optimisation makes a worker ask of its host, and that none is asked where a plan has none.

#[allow(dead_code, reason = "other tests need more of it")]
mod play;

use foresail_choreography::{Action, CommitHints, Event, Executed, WorkerSettings};
use foresail_schemas::metric::Forecast;
use foresail_schemas::optimization::{Optimization, PreWarming};
use foresail_schemas::run::{Change, Measured, Operation, RunOptions, RunStatus};

use play::{Play, Row, executions, name, outputs, size};

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
fn what_waits_for_a_lane_after_a_brief_task_is_not_known_to_take_long() {
    let rows: [Row; 5] =
        [("a", &[], &[]), ("a", &["t0"], &[]), ("a", &["t0"], &[]), ("a", &["t0"], &[]), ("a", &["t0"], &[])];
    for (known_ms, begun) in [(None, 4), (Some(0.1), 4), (Some(60.0), 2), (Some(900.0), 1)] {
        let forecast = known_ms.map(|ms| Forecast::new([ms; 4]));
        let settings = WorkerSettings { backlog_ms: 2.0, ..play::settings() };
        let mut play = Play::planned(&rows, &[0], settings, |plan| {
            for task in &mut plan.tasks[1..] {
                (task.exec_ms, task.forecast) = (known_ms.unwrap_or(900.0), forecast);
            }
        })
        .begun();
        play.asked();
        play.executed(0, 1);
        assert_eq!(executions(&play.asked()).len(), begun, "{known_ms:?}");
    }
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
