//! Prints how good the plans are: makespan over LB_T and cost over LB_C per planner and workflow, and what
//! the same makespan as that of `simple` costs.
//!
//! Workflows: the WfFormat instances where they are, and shapes of known form. The longest task of each is
//! scaled down to 60 s and to 5 s.
//!
//! `cargo run --release -p foresail-planner --example quality [-- PLANNER...]`

use foresail_planner::{Planner, find, plan};
use foresail_schemas::Workflow;
use foresail_schemas::plan::{Objective, Plan, Problem};

#[path = "../tests/planner/graphs.rs"]
mod graphs;
#[path = "../tests/planner/instances.rs"]
mod instances;

/// Planners shown where none is named.
const SHOWN: [&str; 6] = ["simple", "uniform", "nonuniform", "heft", "sweep", "auto"];
/// Who is compared with `simple` at its own makespan.
const RIVAL: &str = "auto";
/// Longest task after scaling in ms.
const TASK_MS_MAX: [f64; 2] = [60_000.0, 5_000.0];

fn planned(problem: &Problem, planner: &dyn Planner) -> Plan {
    plan(problem, planner).unwrap_or_else(|e| panic!("{}: {e}", planner.name()))
}

fn mean(logs: &[f64]) -> f64 {
    (logs.iter().sum::<f64>() / logs.len().max(1) as f64).exp()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (below, above) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    (values[below] + values[above]) / 2.0
}

fn report(workflows: &[(String, Workflow)], planners: &[Box<dyn Planner>], task_ms_max: f64) {
    println!("\nTasks of at most {} s; fastest: makespan/LB_T : cost/LB_C", task_ms_max / 1000.0);
    let titles: String = planners.iter().map(|p| format!("{:>13}", p.name())).collect();
    println!("{:34}{:>6}{titles}   {RIVAL} at simple's makespan", "", "tasks");
    let mut logs = vec![(Vec::new(), Vec::new()); planners.len()];
    let (mut close, mut at_simple, mut real) = (vec![0; planners.len()], Vec::new(), 0);
    for (name, workflow) in workflows {
        let problem = graphs::problem(&instances::scaled(workflow, task_ms_max), Objective::Fastest);
        let mut line = format!("{name:34}{:>6}", workflow.tasks().len());
        let is_real = !name.starts_with(instances::SHAPE);
        real += usize::from(is_real);
        for ((planner, log), close) in planners.iter().zip(&mut logs).zip(&mut close) {
            let bounds = planned(&problem, planner.as_ref()).bounds;
            line += &format!("{:>7.3}:{:<5.2}", bounds.makespan_ratio, bounds.cost_ratio);
            log.0.push(bounds.makespan_ratio.ln());
            log.1.push(bounds.cost_ratio.ln());
            *close += usize::from(is_real && bounds.makespan_ratio <= 1.05);
        }
        let simple = planned(&problem, find("simple").expect("it exists").as_ref()).predicted;
        let objective = Objective::Deadline { makespan_ms: simple.makespan_ms };
        let rival = find(RIVAL).expect("it exists");
        let plan = planned(&Problem { objective, ..problem }, rival.as_ref());
        at_simple.push(plan.predicted.cost_usd / simple.cost_usd);
        println!("{line}   cost x {:.3}", plan.predicted.cost_usd / simple.cost_usd);
    }
    println!("geometric means:");
    for ((planner, (time, cost)), close) in planners.iter().zip(&logs).zip(&close) {
        println!(
            "  {:12} {:.3} : {:.3}   within 5 % of LB_T on {close} of {real} real workflows",
            planner.name(),
            mean(time),
            mean(cost)
        );
    }
    let worst = at_simple.iter().copied().fold(0.0, f64::max);
    println!(
        "{RIVAL} at simple's makespan: cost x {:.3} in the median, at most x {worst:.3}",
        median(at_simple)
    );
}

fn main() {
    let named: Vec<String> = std::env::args().skip(1).collect();
    let names: Vec<&str> =
        if named.is_empty() { SHOWN.to_vec() } else { named.iter().map(String::as_str).collect() };
    let planners: Vec<Box<dyn Planner>> =
        names.into_iter().map(|n| find(n).unwrap_or_else(|e| panic!("{e}"))).collect();
    let mut workflows = instances::recorded();
    if workflows.is_empty() {
        println!("There are no WfFormat instances in `{}`: shapes only.", instances::folder().display());
    }
    workflows.extend(instances::shapes());
    TASK_MS_MAX.into_iter().for_each(|ms| report(&workflows, &planners, ms));
}
