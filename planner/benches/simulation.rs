//! Prints what it takes to carry out a plan in virtual time, per task and on one core, by plan and size of
//! the graph: in the pass that plans are timed with, and by the state machines of real runs, with their
//! events.
//!
//! `cargo bench -p foresail-planner --bench simulation [-- TASKS...]`

use std::time::Instant;

use foresail_planner::shapes::Shape;
use foresail_planner::{find, plan, simulate, summarised};
use foresail_schemas::plan::{Objective, Plan, Problem};
use foresail_schemas::run::RunOptions;

#[path = "../tests/planner/graphs.rs"]
mod graphs;

/// Runs of each measurement; the least counts, since everything else only adds.
const RUNS: usize = 3;
/// Passes of each measurement: they take a small part of the time of a run.
const PASSES: usize = 20;

/// The least time in s of as many runs, and what the last gave.
fn least_s<T>(runs: usize, mut run: impl FnMut() -> T) -> (f64, Option<T>) {
    let (mut least_s, mut last) = (f64::INFINITY, None);
    for _ in 0..runs {
        let start = Instant::now();
        last = Some(run());
        least_s = least_s.min(start.elapsed().as_secs_f64());
    }
    (least_s, last)
}

/// The time of one pass in s, once its memory is there.
fn pass_s(problem: &Problem, plan: &Plan) -> f64 {
    let least_s = |pass: &mut dyn FnMut() -> _| {
        pass();
        least_s(PASSES, pass).0
    };
    summarised(problem, plan, least_s).expect("it is a plan of the problem")
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    println!(
        "{:<10} {:>8} {:<8} {:>12} {:>10} {:>10} {:>10} {:>12} {:>10}",
        "shape", "tasks", "planner", "pass ns/task", "ms", "ns/task", "ns/event", "events/task", "workers"
    );
    let shapes = [
        ("tree", Shape::Tree(1024)),
        ("forkjoin", Shape::ForkJoin(1, 10_000)),
        ("layered", Shape::Layered(20, 50)),
        ("layered", Shape::Layered(100, 100)),
        ("layered", Shape::Layered(200, 500)),
    ];
    for (shape, of) in shapes {
        let workflow = of.workflow_of(1000.0);
        let tasks = workflow.tasks().len();
        if !wanted.is_empty() && !wanted.contains(&tasks.to_string()) {
            continue;
        }
        let problem = graphs::problem(&workflow, Objective::Fastest);
        for planner in ["simple", "sweep"] {
            let plan = plan(&problem, find(planner).expect("it exists").as_ref()).expect("a valid problem");
            let run = || simulate(&problem, &plan, &RunOptions::default()).expect("it ends").steps;
            let (least, steps) = least_s(RUNS, run);
            let steps = steps.unwrap_or(0);
            println!(
                "{shape:<10} {tasks:>8} {planner:<8} {:>12.0} {:>10.2} {:>10.0} {:>10.0} {:>12.1} {:>10}",
                pass_s(&problem, &plan) * 1e9 / tasks as f64,
                least * 1e3,
                least * 1e9 / tasks as f64,
                least * 1e9 / steps as f64,
                steps as f64 / tasks as f64,
                plan.workers.len()
            );
        }
    }
}
