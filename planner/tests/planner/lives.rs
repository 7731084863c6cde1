//! The life of an invocation: what one task needs of it beside its execution, and what happens at its end.

use foresail_planner::{Violation, blind_table, find, plan, planners, simulate, validate};
use foresail_schemas::Sla;
use foresail_schemas::plan::{Objective, Problem};
use foresail_schemas::run::RunOptions;
use foresail_schemas::workflow::Input;

use crate::drawn;

/// a before b, with so many bytes between them; both take so long on every size.
fn pair(between_bytes: u64, exec_ms: [f64; 2]) -> Problem {
    let tasks = vec![drawn::task("a", &[]), drawn::task("b", &["a".to_owned()])];
    let mut problem = drawn::measured(drawn::workflow(tasks), drawn::lambda(), Objective::Fastest);
    problem.predictions.exec_ms.iter_mut().for_each(|row| row.copy_from_slice(&exec_ms));
    let graph = problem.workflow.graph();
    for &object in graph.writes(0) {
        problem.predictions.object_bytes[object as usize] = between_bytes;
    }
    problem
}

#[test]
fn a_task_needs_time_for_its_start_and_transfers_in_one_life() {
    let fits = pair(0, [1_000.0, 890_000.0]);
    let large = pair(2_000_000_000, [1_000.0, 890_000.0]);
    for planner in planners() {
        let made = plan(&fits, planner.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", planner.name()));
        assert!(matches!(validate(&large, &made), Err(Violation::Life { .. })), "{}", planner.name());
        let error = plan(&large, planner.as_ref()).expect_err(planner.name()).to_string();
        assert!(error.contains("`b`") && error.contains("with a cold start and its transfers"), "{error}");
    }
}

#[test]
fn a_size_that_was_only_guessed_keeps_nobody_from_a_plan() {
    // Blind, what a task makes is taken to be as large as what it reads.
    let mut first = drawn::task("a", &[]);
    first.inputs.push(Input::External { uri: "file:///in".to_owned(), bytes: Some(60_000_000_000) });
    let tasks = vec![first, drawn::task("b", &["a".to_owned()]), drawn::task("c", &["b".to_owned()])];
    let (workflow, platform) = (drawn::workflow(tasks), drawn::lambda());
    let predictions = blind_table(&workflow, &platform, Sla::Mean);
    let (objective, seed, without) = (Objective::Fastest, 1, Vec::new());
    let problem = Problem { workflow, platform, predictions, objective, seed, without };
    for planner in planners() {
        let made = plan(&problem, planner.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", planner.name()));
        validate(&problem, &made).unwrap_or_else(|e| panic!("{}: {e}", planner.name()));
    }
}

#[test]
fn what_takes_longer_than_any_life_is_not_carried_out() {
    let simple = find("simple").expect("it exists");
    let made = plan(&pair(0, [1_000.0, 1_000.0]), simple.as_ref()).expect("all is short");
    let mut truth = pair(0, [1_000.0, 950_000.0]);
    // A larger size would do, but the plan has none.
    truth.predictions.exec_ms.last_mut().expect("there are sizes").fill(1_000.0);
    let smaller = made.tasks[1].config.key() != truth.predictions.configs.last().expect("one").key();
    assert!(smaller, "sizes that gain nothing are not used");
    let error = simulate(&truth, &made, &RunOptions::default()).expect_err("b outlives its worker");
    assert!(error.to_string().starts_with("task `b` takes 95"), "{error}");
}

#[test]
fn what_runs_at_the_end_of_a_life_is_ended_and_tried_again() {
    let simple = find("simple").expect("it exists");
    let made = plan(&pair(0, [100_000.0, 100_000.0]), simple.as_ref()).expect("all is short");
    let truth = pair(0, [600_000.0, 600_000.0]);
    let done = simulate(&truth, &made, &RunOptions::default()).expect("the second attempt has a whole life");
    assert_eq!(done.retries, 1);
    assert!(done.start_ms[1] >= truth.platform.life_ms_max, "{:?}", done.start_ms);
    assert!(done.summary.makespan_ms >= truth.platform.life_ms_max + 600_000.0, "{:?}", done.summary);
}
