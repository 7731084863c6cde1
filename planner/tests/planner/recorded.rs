//! Real workflows: the WfFormat instances, where they are. Prints how far each planner is from the bounds.

use std::path::PathBuf;
use std::time::Instant;

use foresail_planner::{blind_table, plan, simulate, validate};
use foresail_schemas::plan::{Objective, Problem};
use foresail_schemas::prediction::Basis;
use foresail_schemas::run::RunOptions;
use foresail_schemas::wfformat::{self, Scale};
use foresail_schemas::workflow::Input;
use foresail_schemas::{Sla, Workflow};

use crate::drawn::{lambda, name, planners, task, workflow};

/// Longest task after scaling, in ms, as in the prototype that the figures are compared with.
const TASK_MS_MAX: f64 = 60_000.0;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/wfformat")
}

/// The instances, the longest task scaled down to [`TASK_MS_MAX`].
fn instances() -> Vec<(String, Workflow)> {
    let Ok(entries) = std::fs::read_dir(folder()) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "json"));
    paths.sort();
    paths
        .into_iter()
        .map(|path| (path.file_stem().expect("a file").display().to_string(), read(&path)))
        .collect()
}

fn read(path: &std::path::Path) -> Workflow {
    let text = std::fs::read_to_string(path).expect("it was listed");
    let workflow = wfformat::read(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let longest_ms = workflow.tasks().iter().filter_map(|t| t.hint.exec_ms).fold(0.0, f64::max);
    let time = if longest_ms > TASK_MS_MAX { TASK_MS_MAX / longest_ms } else { 1.0 };
    let has_external =
        |w: &Workflow| w.tasks().iter().any(|t| t.inputs.iter().any(|i| matches!(i, Input::External { .. })));
    // Scaling drops external inputs; times alone are scaled here, so that their downloads stay in the
    // problem.
    let mut spec = workflow.spec().clone();
    spec.tasks.iter_mut().for_each(|t| t.hint.exec_ms = t.hint.exec_ms.map(|ms| ms * time));
    let scaled = spec.check().expect("only times were changed");
    assert!(!has_external(&workflow) || has_external(&scaled));
    assert!(wfformat::scaled(&workflow, Scale { time, size: 1.0 }).is_ok(), "{}", path.display());
    scaled
}

fn problem(workflow: &Workflow) -> Problem {
    let platform = lambda();
    let mut predictions = blind_table(workflow, &platform, Sla::MEDIAN);
    predictions.basis.fill(Basis::Exact);
    Problem { workflow: workflow.clone(), platform, predictions, objective: Objective::Fastest, seed: 1 }
}

#[test]
fn recorded_workflows_are_planned_within_the_bounds() {
    let instances = instances();
    if instances.is_empty() {
        println!("skipped: there are no WfFormat instances in `{}`", folder().display());
        return;
    }
    let mut sums: Vec<(&str, f64, f64, f64, f64, f64)> =
        planners().iter().map(|p| (p.name(), 0.0, 0.0, 0.0, 0.0, 0.0)).collect();
    for (file, workflow) in &instances {
        let problem = problem(workflow);
        let mut line = format!("{file:42} {:5} tasks", workflow.tasks().len());
        for (planner, sum) in planners().iter().zip(&mut sums) {
            let begun = Instant::now();
            let plan = plan(&problem, planner.as_ref()).unwrap_or_else(|e| panic!("{file}: {e}"));
            let planning_ms = begun.elapsed().as_secs_f64() * 1000.0;
            validate(&problem, &plan).unwrap_or_else(|e| panic!("{file}, {}: {e}", planner.name()));
            let simulated = simulate(&problem, &plan, &RunOptions::default())
                .unwrap_or_else(|e| panic!("{file}, {}: {e}", planner.name()));
            line += &format!(
                "  {} {:.2}:{:.2} ({planning_ms:.0} ms)",
                planner.name(),
                plan.bounds.makespan_ratio,
                plan.bounds.cost_ratio
            );
            sum.1 += plan.bounds.makespan_ratio.ln();
            sum.2 += plan.bounds.cost_ratio.ln();
            sum.3 += (plan.predicted.makespan_ms / simulated.summary.makespan_ms - 1.0).abs();
            sum.4 += (plan.predicted.cost_usd / simulated.summary.cost_usd - 1.0).abs();
            sum.5 += planning_ms;
        }
        println!("{line}");
    }
    let count = instances.len() as f64;
    println!(
        "geometric means over {count} instances, makespan/LB_T : cost/LB_C, error against the event simulator"
    );
    for (name, time, cost, time_error, cost_error, planning_ms) in sums {
        let (time, cost) = ((time / count).exp(), (cost / count).exp());
        let (time_error, cost_error) = (100.0 * time_error / count, 100.0 * cost_error / count);
        println!(
            "{name:12} {time:.3} : {cost:.3}   {time_error:.2} % {cost_error:.2} %   {planning_ms:.0} ms"
        );
        assert!(
            time_error < 5.0 && cost_error < 5.0,
            "{name}: the timing pass is off by {time_error} and {cost_error} %"
        );
    }
}

#[test]
fn a_layered_graph_is_planned_in_the_order_of_its_size() {
    let (layers, width) = if cfg!(debug_assertions) { (10, 50) } else { (100, 100) };
    let mut tasks = Vec::new();
    for layer in 0..layers {
        for at in 0..width {
            let parents = (0..3).map(|k| format!("l{}.{}", layer - 1, (at * 7 + k * 13) % width));
            let parents: Vec<String> = if layer == 0 { Vec::new() } else { parents.collect() };
            let mut task = task(&format!("l{layer}.{at}"), &parents);
            task.hint.exec_ms = Some(100.0 + f64::from((layer * 31 + at * 17) % 900));
            task.outputs.push(foresail_schemas::workflow::Output { name: name("out"), bytes: Some(100_000) });
            tasks.push(task);
        }
    }
    let problem = problem(&workflow(tasks));
    for planner in planners() {
        let begun = Instant::now();
        let plan = plan(&problem, planner.as_ref()).expect("it is a valid problem");
        println!(
            "{:12} {} tasks in {:.0} ms: {:.2} : {:.2}",
            planner.name(),
            plan.tasks.len(),
            begun.elapsed().as_secs_f64() * 1000.0,
            plan.bounds.makespan_ratio,
            plan.bounds.cost_ratio
        );
    }
}
