//! What a worker that leaves starts again, and what it leaves to those that go on.

#[allow(dead_code, reason = "other tests need more of it")]
mod play;

use foresail_choreography::{Action, Invoke};
use foresail_schemas::metric::StartState;
use foresail_schemas::run::Operation;

use play::{Play, Row, name, size};

/// A task for each of three workers; `a` ran the first, and leaves 20 s after the others became ready.
const APART: [Row; 3] = [("a", &[], &[]), ("b", &[], &[]), ("c", &[], &[])];

/// Whom `a` starts as it leaves, where `c` began its task at this time, if it did.
fn started(c_began_ms: Option<f64>) -> Vec<String> {
    let mut play = Play::new(&APART, &[0]).begun();
    for now_ms in (1..=20).map(|at| f64::from(at) * 1_000.0) {
        play.at(now_ms);
        if c_began_ms == Some(now_ms) {
            let (worker, instance) = (Some(name("c")), name("i-c"));
            let join = Operation::Join { worker, instance, config: size(), start: StartState::Cold };
            let lease = Operation::Lease { task: 2, instance: name("i-c"), epoch: 1, assuming: Vec::new() };
            play.apply(&[join, lease]);
        }
    }
    play.executed(0, 1);
    let started = |action: Action| match action {
        Action::Invoke(Invoke { worker, tasks, .. }) => Some(format!("{} {tasks:?}", worker?)),
        _ => None,
    };
    play.asked().into_iter().filter_map(started).collect()
}

#[test]
fn a_task_that_nobody_has_had_may_wait_for_the_place_of_who_leaves() {
    assert_eq!(started(Some(15_000.0)), [""; 0], "`b` waits for a place, or is starting");
}

#[test]
fn what_nobody_has_had_is_started_by_the_last_to_leave() {
    assert_eq!(started(None), ["b [1]", "c [2]"]);
}

#[test]
fn what_a_dead_worker_had_is_started_by_whoever_leaves() {
    assert_eq!(started(Some(1_000.0)), ["b [1]", "c [2]"]);
}
