//! Prints what the event simulator takes per task and per event, on one core, by plan and size of the graph.
//!
//! `cargo bench -p foresail-planner --bench simulation [-- TASKS...]`

use std::time::Instant;

use foresail_planner::shapes::Shape;
use foresail_planner::{find, plan, simulate};
use foresail_schemas::plan::Objective;
use foresail_schemas::run::RunOptions;

#[path = "../tests/planner/graphs.rs"]
mod graphs;

/// Runs of each measurement; the least counts, since everything else only adds.
const RUNS: usize = 3;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    println!(
        "{:<10} {:>8} {:<8} {:>10} {:>10} {:>10} {:>12} {:>10}",
        "shape", "tasks", "planner", "ms", "ns/task", "ns/event", "events/task", "workers"
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
            let mut least = f64::INFINITY;
            let mut steps = 0;
            for _ in 0..RUNS {
                let start = Instant::now();
                steps = simulate(&problem, &plan, &RunOptions::default()).expect("it ends").steps;
                least = least.min(start.elapsed().as_secs_f64());
            }
            println!(
                "{shape:<10} {tasks:>8} {planner:<8} {:>10.2} {:>10.0} {:>10.0} {:>12.1} {:>10}",
                least * 1e3,
                least * 1e9 / tasks as f64,
                least * 1e9 / steps as f64,
                steps as f64 / tasks as f64,
                plan.workers.len()
            );
        }
    }
}
