//! A run of which nothing has ended yet, in virtual time: that it is late is seen, and acted on, by what
//! runs.

use foresail_planner::{self as planner, Replanned, Verdict};
use foresail_schemas::metric::{Forecast, StartState};
use foresail_schemas::plan::{Objective, Plan, Problem};
use foresail_schemas::platform::Platform;
use foresail_schemas::run::{Change, RunEvent};
use foresail_schemas::{InstanceId, Sla, TaskId, Workflow};

use super::course::Course;
use super::drift::{Cause, Drift};
use super::fresh::Fresh;
use crate::builder::WorkflowBuilder;
use crate::client::{plan, problem};

/// Steps of one type.
const STEPS: usize = 24;
/// What a step is predicted to take; its p95 is a fifth longer.
const STEP_MS: f64 = 1_000.0;

/// Steps beside each other and a plan that uses few workers, as the deadline allows.
fn planned() -> (Problem, Plan) {
    let mut flow = WorkflowBuilder::new("w");
    for at in 0..STEPS {
        flow.task(format!("s{at}")).named("step").command("true");
    }
    let workflow = flow.build().unwrap();
    let mut platform = Platform::built_in().swap_remove(0);
    platform.concurrency_max = 8;
    let mut table = planner::blind_table(&workflow, &platform, Sla::MEDIAN);
    table.exec_ms.iter_mut().for_each(|row| row.fill(STEP_MS));
    let deadline = Objective::Deadline { makespan_ms: 14.0 * STEP_MS };
    let problem = problem(&workflow, &platform, table, deadline, 1);
    let mut plan = plan("sweep", &problem).unwrap();
    let forecast = Forecast::new([1.0, 1.1, 1.2, 1.5].map(|factor| factor * STEP_MS));
    plan.tasks.iter_mut().for_each(|task| task.forecast = Some(forecast));
    (problem, plan)
}

/// The first steps have begun as planned; when they did.
fn begun(workflow: &Workflow, plan: &Plan) -> (Course, f64) {
    let mut course = Course::new(workflow, 1);
    let first_ms = plan.tasks.iter().map(|task| task.start_ms).fold(f64::INFINITY, f64::min);
    let first = (0_u32..).zip(&plan.tasks).filter(|(_, task)| task.start_ms <= first_ms + 1.0);
    let mut seq = 0;
    let mut tell = |at_ms, change| {
        seq += 1;
        course.apply(&RunEvent { seq, at_ms, change });
    };
    let (mut joined, mut leased) = (Vec::new(), Vec::new());
    for (task, planned) in first {
        let instance: InstanceId = format!("i-{task}").parse().unwrap();
        let worker = plan.workers.iter().find(|worker| Some(&worker.id) == planned.worker.as_ref());
        let (config, start) = (planned.config, StartState::Cold);
        let (attempt, epoch, expires_ms, assuming) = (1, 1, 1e9, Vec::new());
        let since_ms = worker.map_or(0.0, |worker| worker.start_ms);
        let worker = planned.worker.clone();
        joined.push((since_ms, Change::WorkerJoined { worker, instance: instance.clone(), config, start }));
        leased.push(Change::TaskLeased { task, attempt, instance, epoch, expires_ms, assuming });
    }
    joined.into_iter().for_each(|(at_ms, change)| tell(at_ms, change));
    leased.into_iter().for_each(|change| tell(first_ms, change));
    (course, first_ms)
}

/// What is decided at `now_ms`, with the factors that are expected of the types.
fn replanned(problem: &Problem, plan: &Plan, course: &Course, drift: &Drift, now_ms: f64) -> Replanned {
    let mut fresh = Fresh::new(problem.predictions.clone(), None);
    fresh.slow_down(&problem.workflow, drift.slowdowns(&problem.workflow, course, now_ms));
    let problem = Problem { predictions: fresh.table, ..problem.clone() };
    let progress = course.progress(plan, &problem.platform.rates(), now_ms);
    planner::replan(&problem, plan, &progress, &planner::ReplanOptions::default()).unwrap()
}

#[test]
fn a_run_is_suspected_the_moment_its_first_steps_pass_their_p95() {
    let (problem, plan) = planned();
    let (course, _) = begun(&problem.workflow, &plan);
    let drift = Drift::new(&problem.workflow, &plan);
    let causes_at = |now_ms| drift.causes(&problem.workflow, &course, now_ms);
    let first = (0..60_000).map(f64::from).find(|&now_ms| !causes_at(now_ms).is_empty()).unwrap();
    let slow = causes_at(first);
    let Cause::Slow { elapsed_ms, p95_ms, .. } = &slow[0] else { panic!("{slow:?}") };
    assert!((0.0..=1.0).contains(&(elapsed_ms - p95_ms)), "{slow:?}");
    let factors = drift.slowdowns(&problem.workflow, &course, first);
    let (name, factor) = factors.first().expect("the steps that have not begun are suspected too");
    assert!(name.as_str() == "step" && (1.1..3.0).contains(factor), "{factors:?}");
}

#[test]
fn steps_that_run_on_move_those_that_have_not_begun_before_any_has_ended() {
    let (problem, plan) = planned();
    let (course, began_ms) = begun(&problem.workflow, &plan);
    let drift = Drift::new(&problem.workflow, &plan);
    let running: Vec<TaskId> =
        course.running(began_ms).map(|of| problem.workflow.task(of.task).id.clone()).collect();
    let as_predicted = replanned(&problem, &plan, &course, &drift, began_ms + 0.5 * STEP_MS);
    assert_eq!(as_predicted.verdict, Verdict::Keep, "{}", as_predicted.reason);
    let late = replanned(&problem, &plan, &course, &drift, began_ms + 1.6 * STEP_MS);
    assert_eq!(late.verdict, Verdict::Replace, "{}", late.reason);
    assert!(late.kept.makespan_ms > 14.0 * STEP_MS, "the old plan misses the deadline: {late:?}");
    assert!(late.new.makespan_ms < late.kept.makespan_ms);
    assert!(!late.moved.is_empty() && late.moved.iter().all(|task| !running.contains(task)));
    // Only what runs was thought late before: one step of 24 by itself moves nothing.
    let blind = Drift::new(&problem.workflow, &as_if_unknown(&plan));
    let unsuspected = replanned(&problem, &plan, &course, &blind, began_ms + 1.6 * STEP_MS);
    assert!(unsuspected.kept.makespan_ms < late.kept.makespan_ms);
}

/// A plan by which nothing is too long.
fn as_if_unknown(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    plan.tasks.iter_mut().for_each(|task| {
        (task.forecast, task.exec_ms) = (None, 1e6);
    });
    plan
}
