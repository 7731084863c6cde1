//! Planners by size of the graph, beside the lower bounds of time and cost.

use std::time::Instant;

use foresail_schemas::plan::{Objective, Problem};
use foresail_schemas::workflow::{Input, Task, Work, WorkflowSpec};
use foresail_schemas::{ObjectName, Platform, Sla, Workflow};

/// Layers of tasks that each read three objects of the layer before.
fn layered(width: usize, depth: usize) -> Workflow {
    let name = |text: String| text.parse().expect("letters and digits");
    let mut tasks = Vec::with_capacity(width * depth);
    for layer in 0..depth {
        for at in 0..width {
            let work =
                Work::Function { function: "f".parse().expect("a letter"), params: serde_json::Value::Null };
            let id = format!("t{layer}-{at}").parse().expect("letters and digits");
            let mut task = Task::new(id, format!("f{}", at % 7).parse().expect("letters and digits"), work);
            task.hint.exec_ms = Some(50.0 + ((at * 31 + layer * 17) % 400) as f64);
            for parent in [at, (at + 1) % width, (at * 7 + 3) % width].into_iter().filter(|_| layer > 0) {
                let parent = name(format!("t{}-{parent}", layer - 1));
                task.inputs.push(Input::task(parent, ObjectName::default()));
            }
            tasks.push(task);
        }
    }
    let name = "layered".parse().expect("letters");
    WorkflowSpec { name, description: None, tasks, code: Default::default() }
        .check()
        .expect("edges go from layer to layer")
}

/// Prints a line for each planner and size of graph.
pub fn run() {
    println!(
        "{:<24} {:>10} {:>12} {:>14} {:>14}",
        "planner", "tasks", "plan ms", "makespan/LB_T", "cost/LB_C"
    );
    let platform = Platform::built_in().into_iter().find(|p| p.name.as_str() == "aws-lambda-x86");
    let platform = platform.expect("it is built in");
    for (width, depth) in [(50, 20), (200, 50)] {
        let workflow = layered(width, depth);
        let predictions = foresail_planner::blind_table(&workflow, &platform, Sla::MEDIAN);
        let (objective, platform) = (Objective::Fastest, platform.clone());
        let problem = Problem { workflow, platform, predictions, objective, seed: 1, without: Vec::new() };
        for planner in foresail_planner::planners() {
            let mut times: Vec<(f64, _)> = (0..3)
                .map(|_| {
                    let began = Instant::now();
                    let plan = planner.plan(&problem).expect("a plan");
                    (began.elapsed().as_secs_f64() * 1000.0, plan.bounds)
                })
                .collect();
            times.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (plan_ms, bounds) = times[1];
            let (name, tasks) = (planner.name(), width * depth);
            let (time, cost) = (bounds.makespan_ratio, bounds.cost_ratio);
            println!("{name:<24} {tasks:>10} {plan_ms:>12.1} {time:>14.2} {cost:>14.2}");
        }
    }
}
