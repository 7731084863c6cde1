//! Prints how good the plans are: makespan over LB_T and cost over LB_C per planner and workflow, and what
//! the same makespan as that of `simple` costs.
//!
//! Workflows: the WfFormat instances where they are, and shapes of known form. The longest task of each is
//! scaled down to 60 s and to 5 s.
//!
//! `cargo run --release -p foresail-planner --example quality [-- PLANNER...]`

use std::path::{Path, PathBuf};

use foresail_planner::{Planner, find, plan};
use foresail_schemas::Workflow;
use foresail_schemas::plan::{Objective, Plan, Problem};
use foresail_schemas::wfformat;

#[path = "../tests/planner/graphs.rs"]
mod graphs;

/// Planners shown where none is named.
const SHOWN: [&str; 6] = ["simple", "uniform", "nonuniform", "sweep", "anneal", "auto"];
/// Who is compared with `simple` at its own makespan.
const RIVAL: &str = "auto";
/// Longest task after scaling in ms.
const TASK_MS_MAX: [f64; 2] = [60_000.0, 5_000.0];

fn folder() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let near = own.join("../../shared/data/wfformat");
    if near.is_dir() { near } else { own.join("../../../shared/data/wfformat") }
}

fn workflows() -> Vec<(String, Workflow)> {
    let mut all = Vec::new();
    match std::fs::read_dir(folder()) {
        Err(_) => println!("There are no WfFormat instances in `{}`: shapes only.", folder().display()),
        Ok(entries) => {
            let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
            paths.retain(|p| p.extension().is_some_and(|e| e == "json"));
            paths.sort();
            for path in paths {
                let text = std::fs::read_to_string(&path).expect("it was listed");
                let workflow = wfformat::read(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                all.push((path.file_stem().expect("a file").display().to_string(), workflow));
            }
        }
    }
    let shapes = [
        ("shape: tree reduction 1,024", graphs::tree_reduction(1024, 1000.0)),
        ("shape: gemm 5", graphs::gemm(5, 10_000.0)),
        ("shape: svd 20", graphs::svd(20, 20_000.0)),
        ("shape: tsqr 64", graphs::tsqr(64, 10_000.0)),
        ("shape: fork-join 3 x 40", graphs::fork_join(3, 40, 30_000.0)),
        ("shape: layered 10 x 50", graphs::layered(10, 50, 60_000.0)),
    ];
    all.extend(shapes.map(|(name, workflow)| (name.to_owned(), workflow)));
    all
}

/// The workflow with its longest task scaled down.
fn scaled(workflow: &Workflow, task_ms_max: f64) -> Workflow {
    let longest_ms = workflow.tasks().iter().filter_map(|t| t.hint.exec_ms).fold(0.0, f64::max);
    let factor = if longest_ms > task_ms_max { task_ms_max / longest_ms } else { 1.0 };
    let mut spec = workflow.spec().clone();
    spec.tasks.iter_mut().for_each(|t| t.hint.exec_ms = t.hint.exec_ms.map(|ms| ms * factor));
    spec.check().expect("only times were changed")
}

fn planned(problem: &Problem, planner: &dyn Planner) -> Plan {
    plan(problem, planner).unwrap_or_else(|e| panic!("{}: {e}", planner.name()))
}

fn mean(logs: &[f64]) -> f64 {
    (logs.iter().sum::<f64>() / logs.len().max(1) as f64).exp()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn report(workflows: &[(String, Workflow)], planners: &[Box<dyn Planner>], task_ms_max: f64) {
    println!("\nTasks of at most {} s; fastest: makespan/LB_T : cost/LB_C", task_ms_max / 1000.0);
    let titles: String = planners.iter().map(|p| format!("{:>13}", p.name())).collect();
    println!("{:34}{:>6}{titles}   {RIVAL} at simple's makespan", "", "tasks");
    let mut logs = vec![(Vec::new(), Vec::new()); planners.len()];
    let (mut close, mut at_simple, mut real) = (vec![0; planners.len()], Vec::new(), 0);
    for (name, workflow) in workflows {
        let problem = graphs::problem(&scaled(workflow, task_ms_max), Objective::Fastest);
        let mut line = format!("{name:34}{:>6}", workflow.tasks().len());
        let is_real = !name.starts_with("shape");
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
    let workflows = workflows();
    TASK_MS_MAX.into_iter().for_each(|ms| report(&workflows, &planners, ms));
}
