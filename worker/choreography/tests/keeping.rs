//! Results of a planned worker that stay in its memory for the one task that reads them: when, until when,
//! and in which order the store hears of both.

#[allow(dead_code, reason = "other tests need more of it")]
mod play;

use foresail_choreography::{Action, Event, Executed, WorkerSettings};
use foresail_schemas::run::{Failure, FailureKind, Location, Measured, Operation, StoredObject};

use play::{Play, Row, executions, settings};

/// `t0` and `t1` in a row on the same worker.
const CHAIN: [Row; 2] = [("a", &[], &[]), ("a", &["t0"], &[])];

fn play(rows: &[Row]) -> Play {
    Play::of(rows, &[0], WorkerSettings { keep_bytes_min: Some(9), ..settings() }, Vec::new()).begun()
}

fn at(location: Location) -> Executed {
    let outputs = vec![StoredObject { bytes: 9, hash: String::new(), location }];
    Executed { outputs, measured: Measured::default(), decision: None, printed: None }
}

fn kept() -> Location {
    Location::Unstored("key".to_owned())
}

fn stored() -> Location {
    Location::Stored("key".to_owned())
}

/// A chain whose first result is kept, and whose second task has begun.
fn chain() -> Play {
    let mut play = play(&CHAIN);
    play.hear(Event::Held { task: 0, attempt: 1, executed: at(kept()) });
    play.sent();
    play
}

fn fails(play: &mut Play, task: u32, attempt: u32, kind: FailureKind) {
    let failure =
        Failure { task: None, attempt, kind, message: "drawn".to_owned(), exception: None, lost: Vec::new() };
    play.hear(Event::Executed { task, attempt, outcome: Err(failure) });
}

/// What the store was told, as the letters of the operations and their tasks.
fn told(play: &mut Play) -> Vec<String> {
    let told = |operation: &Operation| match operation {
        Operation::Commit { task, commit, .. } => {
            let place = if commit.outputs.iter().any(|o| o.location == kept()) { " kept" } else { "" };
            Some(format!("commit {task}{place}"))
        }
        Operation::Fail { task, .. } => Some(format!("fail {task}")),
        Operation::Lease { task, .. } => Some(format!("lease {task}")),
        _ => None,
    };
    play.sent().iter().filter_map(told).collect()
}

#[test]
fn a_result_is_asked_to_be_kept_where_one_task_of_the_worker_reads_it() {
    let asked = |rows: &[Row]| {
        let asked = play(rows).asked();
        asked.iter().find_map(|action| match action {
            Action::Execute { task: 0, hold_bytes_min, .. } => Some(*hold_bytes_min),
            _ => None,
        })
    };
    let two: [Row; 3] = [("a", &[], &[]), ("a", &["t0"], &[]), ("a", &["t0"], &[])];
    for (rows, expect) in [
        (&CHAIN[..], Some(9)),
        (&[("a", &[][..], &[][..]), ("b", &["t0"], &[])], None),
        (&[("a", &[], &[]), ("", &["t0"], &[])], None),
        (&[("a", &[], &[])], None),
        (&two, None),
    ] {
        assert_eq!(asked(rows), Some(expect), "{rows:?}");
    }
}

#[test]
fn the_next_task_begins_on_a_kept_result_and_both_are_committed_together() {
    let mut play = chain();
    let asked = play.asked();
    assert_eq!(executions(&asked), [(0, 1), (1, 0)]);
    let parents = asked.iter().find_map(|action| match action {
        Action::Execute { task: 1, parents, .. } => parents[0].as_ref(),
        _ => None,
    });
    assert_eq!(parents.unwrap().outputs[0].location, kept());
    play.at(1_000.0);
    assert!(
        told(&mut play).is_empty(),
        "the store would not grant what reads a result that it does not have"
    );
    play.executed(1, 0);
    assert_eq!(told(&mut play), ["commit 0 kept", "commit 1"]);
    assert!(play.asked().contains(&Action::Discard { task: 0, attempt: 1 }));
}

#[test]
fn what_a_task_made_of_a_kept_result_is_stored() {
    let mut play = play(&[("a", &[], &[]), ("a", &["t0"], &[]), ("a", &["t1"], &[])]);
    play.hear(Event::Held { task: 0, attempt: 1, executed: at(kept()) });
    let second = play.asked().into_iter().find_map(|action| match action {
        Action::Execute { task: 1, hold_bytes_min, .. } => Some(hold_bytes_min),
        _ => None,
    });
    assert_eq!(second, Some(None), "nothing waits for a chain of others");
}

#[test]
fn a_result_whose_reader_waits_for_another_is_stored() {
    let mut play = play(&[("a", &[], &[]), ("b", &[], &[]), ("a", &["t0", "t1"], &[])]);
    play.hear(Event::Held { task: 0, attempt: 1, executed: at(kept()) });
    assert!(play.asked().contains(&Action::Store { task: 0, attempt: 1 }));
    play.sent();
    play.hear(Event::Executed { task: 0, attempt: 1, outcome: Ok(at(stored())) });
    assert_eq!(told(&mut play)[0], "commit 0");
}

#[test]
fn a_result_that_is_kept_for_long_is_stored_and_committed_while_its_reader_runs() {
    let mut play = chain();
    play.asked();
    play.at(1_999.0);
    assert!(play.asked().is_empty());
    play.at(2_000.0);
    assert_eq!(play.asked(), [Action::Store { task: 0, attempt: 1 }]);
    play.at(2_500.0);
    assert!(play.asked().is_empty() && told(&mut play).is_empty());
    play.hear(Event::Executed { task: 0, attempt: 1, outcome: Ok(at(stored())) });
    assert_eq!(told(&mut play), ["commit 0", "lease 1"]);
    play.executed(1, 0);
    assert_eq!(told(&mut play), ["commit 1"]);
}

#[test]
fn a_reader_that_ends_while_its_input_is_stored_does_not_wait_for_that() {
    let mut play = chain();
    play.at(2_000.0);
    play.executed(1, 0);
    assert_eq!(told(&mut play), ["commit 0 kept", "commit 1"]);
    play.hear(Event::Executed { task: 0, attempt: 1, outcome: Ok(at(stored())) });
    assert!(told(&mut play).is_empty());
}

#[test]
fn the_failure_of_a_reader_is_told_behind_the_result_that_it_read() {
    let mut play = chain();
    play.asked();
    fails(&mut play, 1, 0, FailureKind::TaskError);
    assert_eq!(play.asked(), [Action::Store { task: 0, attempt: 1 }]);
    assert!(told(&mut play).is_empty());
    play.hear(Event::Executed { task: 0, attempt: 1, outcome: Ok(at(stored())) });
    assert_eq!(told(&mut play)[..2], ["commit 0", "fail 1"]);
}

#[test]
fn what_was_lost_with_a_reader_that_failed_is_made_again_and_counts_for_the_reader_alone() {
    let mut play = chain();
    play.asked();
    fails(&mut play, 1, 0, FailureKind::TaskCrash);
    fails(&mut play, 0, 1, FailureKind::OutputNotStored);
    assert_eq!(told(&mut play), ["fail 1", "lease 0"]);
    let again = play.asked().into_iter().find_map(|action| match action {
        Action::Execute { task: 0, attempt, hold_bytes_min, .. } => Some((attempt, hold_bytes_min)),
        _ => None,
    });
    assert_eq!(again, Some((1, None)), "and stored this time");
}

#[test]
fn a_store_that_takes_no_kept_result_fails_its_task_and_its_reader_begins_anew() {
    let mut play = chain();
    play.at(2_000.0);
    play.asked();
    fails(&mut play, 0, 1, FailureKind::OutputNotStored);
    assert!(play.asked().contains(&Action::Abort { task: 1 }));
    assert_eq!(told(&mut play)[0], "fail 0");
}

#[test]
fn a_brief_reader_goes_before_tasks_that_nobody_elsewhere_waits_for() {
    let order = |rows: &[Row], backlog_ms: f64| {
        let settings = WorkerSettings { keep_bytes_min: Some(9), backlog_ms, ..settings() };
        let ranked = |plan: &mut foresail_schemas::Plan| {
            (0..).zip(&mut plan.tasks).for_each(|(rank, task)| task.rank = rank);
        };
        let mut play = Play::planned(rows, &[0, 1, 2], settings, ranked).begun();
        play.hear(Event::Held { task: 0, attempt: 1, executed: at(kept()) });
        executions(&play.asked()).into_iter().map(|(task, _)| task).collect::<Vec<_>>()
    };
    let chains = |reader: &'static str| -> [Row; 5] {
        let second: Row = (reader, &["t1"], &[]);
        [("a", &[], &[]), ("a", &[], &[]), ("a", &[], &[]), ("a", &["t0"], &[]), second]
    };
    assert_eq!(order(&chains("a"), 2.0), [0, 3, 1, 2], "its input need not be stored");
    assert_eq!(order(&chains("b"), 2.0), [0, 1, 2, 3], "`b` waits for the one that is next");
    assert_eq!(order(&chains("a"), 0.0)[..2], [0, 1], "it may take long");
}
