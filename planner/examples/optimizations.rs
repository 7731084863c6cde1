//! What each optimisation brings, per shape of workflow: plans with and without it, carried out in the event
//! simulator.
//!
//! `cargo run --release -p foresail-planner --example optimizations [-- PLANNER...]` prints a table: makespan
//! and cost over those of the plan of the same planner without any. *Uploads* is what runs gain from going on
//! while outputs are stored, which all have.

use foresail_planner::shapes::DEFAULTS;
use foresail_planner::{find, plan, simulate};
use foresail_schemas::optimization::OptimizationKind;
use foresail_schemas::plan::{Objective, Plan, PlanSummary, Problem};
use foresail_schemas::run::RunOptions;

#[path = "../tests/planner/graphs.rs"]
mod graphs;

/// Mean times of the tasks, in ms: where starts and transfers count, and where they hardly do.
const TASKS_MS: [f64; 2] = [300.0, 3_000.0];
/// Planners that are shown where none is named.
const PLANNERS: [&str; 3] = ["uniform", "nonuniform", "sweep"];

fn planned(problem: &Problem, planner: &str, allowed: &[OptimizationKind]) -> Plan {
    let without = OptimizationKind::ALL.into_iter().filter(|kind| !allowed.contains(kind)).collect();
    let planner = find(planner).expect("it is one of the planners");
    plan(&Problem { without, ..problem.clone() }, planner.as_ref()).expect("the problem is valid")
}

fn done(problem: &Problem, plan: &Plan, options: &RunOptions) -> PlanSummary {
    simulate(problem, plan, options).expect("it comes to its end").summary
}

fn over(a: &PlanSummary, b: &PlanSummary) -> String {
    format!("{:.3} : {:.3}", a.makespan_ms / b.makespan_ms, a.cost_usd / b.cost_usd)
}

fn main() {
    let named: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let planners = if named.is_empty() { PLANNERS.map(str::to_owned).to_vec() } else { named };
    println!("| shape | tasks of | planner | uploads | pre-load | task-dup | pre-warm | all three |");
    println!("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |");
    let apart = RunOptions { overlap_uploads: false, ..RunOptions::default() };
    for (shape, task_ms) in DEFAULTS.iter().flat_map(|s| TASKS_MS.map(|ms| (s, ms))) {
        let problem = graphs::problem(&shape.workflow_of(task_ms), Objective::Fastest);
        for planner in &planners {
            let options = RunOptions::default();
            let plain = planned(&problem, planner, &[]);
            let base = done(&problem, &plain, &options);
            let uploads = over(&base, &done(&problem, &plain, &apart));
            let with = |allowed: &[OptimizationKind]| {
                over(&done(&problem, &planned(&problem, planner, allowed), &options), &base)
            };
            let [pre_load, task_dup, pre_warm] = OptimizationKind::ALL.map(|kind| with(&[kind]));
            let all = with(&OptimizationKind::ALL);
            let cells = [uploads, pre_load, task_dup, pre_warm, all].join(" | ");
            println!("| {shape} | {:.1} s | {planner} | {cells} |", task_ms / 1000.0);
        }
    }
}
