//! Prints how many draws Monte-Carlo makes in a second on a core by size of the graph, beside plain passes of
//! the event simulator, and how long `robust` takes.
//!
//! `cargo bench -p foresail-planner --bench draws`

use foresail_planner::shapes::Shape;
use foresail_planner::{draws_for, find, monte_carlo, plan, simulate};
use foresail_schemas::plan::{Objective, Problem};
use foresail_schemas::run::RunOptions;
use foresail_schemas::uncertainty::{StartupShapes, Uncertainty};

#[path = "clock/on_core.rs"]
mod clock;
#[path = "../tests/planner/graphs.rs"]
mod graphs;

use clock::on_core;

/// Width of the layered graphs.
const WIDTH: usize = 100;

fn uncertain(mut problem: Problem) -> Problem {
    let shape = [0.85, 0.95, 1.0, 1.1, 1.3, 1.5, 2.2];
    let (sizes, tasks) = (problem.predictions.configs.len(), problem.workflow.tasks().len());
    problem.predictions.uncertainty = Some(Uncertainty {
        shapes: vec![shape],
        exec: vec![vec![Some(0); tasks]; sizes],
        startup: vec![StartupShapes { cold: shape, warm: shape }; sizes],
        transfer: vec![shape; sizes],
        ..Uncertainty::default()
    });
    problem
}

fn main() {
    println!(
        "{:>8} {:>12} {:>12} {:>14} {:>12} {:>10}",
        "tasks", "draws/s", "ns/task", "simulations/s", "robust ms", "P"
    );
    for depth in [1, 10, 100] {
        let mut problem = uncertain(graphs::problem(
            &Shape::Layered(depth, WIDTH).workflow_of(1_000.0),
            Objective::Fastest,
        ));
        let planner = |name| find(name).expect("it exists");
        let sweep = plan(&problem, planner("sweep").as_ref()).expect("it is a valid problem");
        let tasks = sweep.tasks.len();
        let draws = 4 * draws_for(tasks);
        let start = on_core();
        let drawn = monte_carlo(&problem, &sweep, draws, 1).expect("it has distributions");
        let per_second = f64::from(draws) / (on_core() - start).as_secs_f64();
        let start = on_core();
        simulate(&problem, &sweep, &RunOptions::default()).expect("it ends");
        let simulations = 1.0 / (on_core() - start).as_secs_f64();
        let makespan_ms = 1.2 * drawn.makespan_ms(0.95);
        problem.objective = Objective::Confidence { makespan_ms, probability: 0.95 };
        let start = on_core();
        let robust = plan(&problem, planner("robust").as_ref()).expect("it is a valid problem");
        let took_ms = (on_core() - start).as_secs_f64() * 1000.0;
        let kept = robust.outlook.and_then(|o| o.in_time).map_or(f64::NAN, |p| p.measured);
        println!(
            "{tasks:>8} {per_second:>12.0} {:>12.0} {simulations:>14.0} {took_ms:>12.0} {kept:>10.4}",
            1e9 / per_second / tasks as f64
        );
    }
}
