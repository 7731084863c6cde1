//! Prints how long each planner takes by size of the graph, on one core, beside the gap to the bounds, and
//! how long it takes to re-plan a run that is half done and of which every other task turned out slower.
//! Times are those that the thread had a core, where the system tells them, so that other programs disturb
//! less.
//!
//! `cargo bench -p foresail-planner --bench planning_speed [-- PLANNER... TASKS...]`

use std::sync::atomic::Ordering;
use std::time::Duration;

use foresail_planner::shapes::Shape;
use foresail_planner::{Planner, Progress, ReplanOptions, planners, replan};
use foresail_schemas::Workflow;
use foresail_schemas::plan::{Objective, Problem};

#[path = "clock/on_core.rs"]
mod clock;
#[path = "../../schemas/tests/counting/mod.rs"]
mod counting;
#[path = "../tests/planner/graphs.rs"]
mod graphs;

use clock::on_core;
use counting::{IN_USE, PEAK};

/// Batches of each measurement; the least counts, since everything else only adds.
const BATCHES: usize = 3;
/// A batch has as many runs as fill this time, since the system counts in steps.
const BATCH: Duration = Duration::from_millis(100);
/// Who made the plan that is in force half-way, and how much slower every other task is than it says.
const IN_FORCE: &str = "sweep";
const SLOWER: f64 = 1.5;
/// Planners are left out above the size at which they would take minutes.
const SECONDS_MAX: f64 = 20.0;

/// The time of one run in ms, by the least of a few batches, with what the last run gave.
fn least_ms<T>(mut run: impl FnMut() -> T) -> (f64, T) {
    let mut least = f64::INFINITY;
    let mut answer = run();
    for _ in 0..BATCHES {
        let (start, mut runs) = (on_core(), 0);
        while on_core() - start < BATCH {
            answer = run();
            runs += 1;
        }
        least = least.min((on_core() - start).as_secs_f64() * 1000.0 / f64::from(runs));
        if least > 10.0 * BATCH.as_secs_f64() * 1000.0 {
            break;
        }
    }
    (least, answer)
}

fn line(shape: &str, planner: &dyn Planner, problem: &Problem) -> f64 {
    let tasks = problem.workflow.tasks().len();
    let before = IN_USE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let (ms, plan) = least_ms(|| planner.plan(problem).expect("it is a valid problem"));
    let peak_mb = (PEAK.load(Ordering::Relaxed) - before) as f64 / 1e6;
    println!(
        "{shape:<10} {tasks:>9} {:<16} {ms:>10.2} {:>8.0} {:>8.3} {:>8.3} {peak_mb:>8.0}",
        planner.name(),
        ms * 1e6 / tasks as f64,
        plan.bounds.makespan_ratio,
        plan.bounds.cost_ratio
    );
    ms
}

/// The time to re-plan, and to say that all goes as planned.
fn replan_line(shape: &str, planner: &dyn Planner, problem: &Problem) {
    let plan = planner.plan(problem).expect("it is a valid problem");
    let (tasks, half_ms) = (plan.tasks.len(), 0.5 * plan.predicted.makespan_ms);
    let progress = Progress::as_planned(problem, &plan, half_ms).expect("the plan is one of the problem");
    let mut slower = problem.clone();
    for row in &mut slower.predictions.exec_ms {
        row.iter_mut().step_by(2).for_each(|ms| *ms *= SLOWER);
    }
    for (name, problem) in [("re-plan", &slower), ("as promised", problem)] {
        let answer = || replan(problem, &plan, &progress, &ReplanOptions::default()).expect("a valid state");
        let (ms, answer) = least_ms(answer);
        println!(
            "{shape:<10} {tasks:>9} {name:<16} {ms:>10.2} {:>8.0}   {:?}: {}",
            ms * 1e6 / tasks as f64,
            answer.verdict,
            answer.reason
        );
    }
}

type Build = fn() -> Workflow;

fn main() {
    let arguments = std::env::args().skip(1).filter(|a| !a.starts_with('-'));
    let (sizes, wanted): (Vec<String>, Vec<String>) = arguments.partition(|a| a.parse::<usize>().is_ok());
    let mut known = planners();
    known.retain(|p| wanted.is_empty() || wanted.iter().any(|w| w == p.name()));
    println!(
        "{:<10} {:>9} {:<16} {:>10} {:>8} {:>8} {:>8} {:>8}",
        "shape", "tasks", "planner", "ms", "ns/task", "T/LB_T", "C/LB_C", "peak MB"
    );
    let mut per_task_ms = vec![0.0_f64; known.len()];
    let shapes: [(&str, usize, Build); 6] = [
        ("tree", 1023, || Shape::Tree(1024).workflow_of(250.0)),
        ("layered", 4_900, || Shape::Layered(49, 100).workflow_of(1000.0)),
        ("layered", 1_000, || Shape::Layered(20, 50).workflow_of(1000.0)),
        ("layered", 10_000, || Shape::Layered(100, 100).workflow_of(1000.0)),
        ("layered", 100_000, || Shape::Layered(200, 500).workflow_of(1000.0)),
        ("layered", 1_000_000, || Shape::Layered(1000, 1000).workflow_of(1000.0)),
    ];
    for (shape, tasks, build) in shapes {
        if !sizes.is_empty() && !sizes.contains(&tasks.to_string()) {
            continue;
        }
        let workflow = build();
        let problem = graphs::problem(&workflow, Objective::Fastest);
        for (planner, per_task_ms) in known.iter().zip(&mut per_task_ms) {
            let tasks = tasks as f64;
            if *per_task_ms * tasks < SECONDS_MAX * 1000.0 {
                *per_task_ms = line(shape, planner.as_ref(), &problem) / tasks;
                if planner.name() == IN_FORCE {
                    replan_line(shape, planner.as_ref(), &problem);
                }
            }
        }
    }
}
