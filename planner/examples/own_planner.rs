//! A planner of one's own, in Rust: what it decides, and how it stands beside those that come with Foresail.
//!
//! It follows chains: a task goes to the worker of the first parent that has no other task to follow it yet,
//! and to a new worker where every parent has one. All workers have the platform's default size. The crate
//! checks what was decided, times it and writes the plan; see [`foresail_planner::complete`].
//!
//! `cargo run -p foresail-planner --example own_planner`

use foresail_planner::{Placement, PlanFailure, Planner, blind_table, complete, find, plan};
use foresail_schemas::plan::{Objective, Plan, Problem};
use foresail_schemas::platform::Platform;
use foresail_schemas::workflow::{Input, Task, Work, WorkflowSpec};
use foresail_schemas::{ObjectName, Sla, WorkerId, Workflow};

/// The planner.
pub struct Chains;

impl Planner for Chains {
    fn name(&self) -> &'static str {
        "chains"
    }

    fn plan(&self, problem: &Problem) -> Result<Plan, PlanFailure> {
        let graph = problem.workflow.graph();
        let mut worker = vec![0; graph.len()];
        let mut is_followed = vec![false; graph.len()];
        let mut draft = Vec::with_capacity(graph.len());
        for (rank, &task) in (0..).zip(graph.order()) {
            let free = graph.parents(task).iter().copied().find(|&p| !is_followed[p as usize]);
            worker[task as usize] = free.map_or(task, |parent| worker[parent as usize]);
            if let Some(parent) = free {
                is_followed[parent as usize] = true;
            }
            let id = WorkerId::new(format!("chain-{}", worker[task as usize])).expect("letters and digits");
            draft.push(Placement {
                task: problem.workflow.task(task).id.clone(),
                worker: Some(id),
                config: problem.platform.default_config,
                rank,
                optimizations: Vec::new(),
                why: free.map_or_else(String::new, |p| {
                    format!("follows `{}` on its worker", problem.workflow.task(p).id)
                }),
            });
        }
        let name = self.name().parse().expect("letters are a legal name");
        // The default size is on every menu; a task that it does not suit is the planner's to think of.
        Ok(complete(problem, &name, &draft, Vec::new())?)
    }
}

/// A split, three chains of two tasks, and a merge.
pub fn workflow() -> Workflow {
    let task = |id: &str, parents: &[&str]| {
        let name: foresail_schemas::TaskName =
            id.split('-').next().expect("one part").parse().expect("letters");
        let work = Work::Function { function: name.clone(), params: serde_json::Value::Null };
        let mut task = Task::new(id.parse().expect("letters and digits"), name, work);
        task.hint.exec_ms = Some(2_000.0);
        let input = |p: &&str| Input::task(p.parse().expect("an id"), ObjectName::default());
        task.inputs = parents.iter().map(input).collect();
        task
    };
    let tasks = vec![
        task("split", &[]),
        task("filter-1", &["split"]),
        task("filter-2", &["split"]),
        task("filter-3", &["split"]),
        task("map-1", &["filter-1"]),
        task("map-2", &["filter-2"]),
        task("map-3", &["filter-3"]),
        task("merge", &["map-1", "map-2", "map-3"]),
    ];
    let name = "chains".parse().expect("letters");
    WorkflowSpec { name, description: None, tasks, code: Default::default() }
        .check()
        .expect("edges go forward")
}

/// The problem that the example plans.
pub fn problem() -> Problem {
    let (workflow, platform) = (workflow(), Platform::built_in().remove(1));
    let predictions = blind_table(&workflow, &platform, Sla::MEDIAN);
    Problem { workflow, platform, predictions, objective: Objective::Fastest, seed: 0, without: Vec::new() }
}

/// Plans with the planner above and with two of the crate's.
pub fn main() {
    let problem = problem();
    let others = ["simple", "auto"].map(|name| find(name).expect("it exists"));
    for planner in std::iter::once(&Chains as &dyn Planner).chain(others.iter().map(|p| &**p)) {
        let plan = plan(&problem, planner).expect("every task fits the default size");
        println!(
            "{:8} {:6.0} ms {:.6} USD on {} workers",
            planner.name(),
            plan.predicted.makespan_ms,
            plan.predicted.cost_usd,
            plan.predicted.invocations
        );
    }
}
