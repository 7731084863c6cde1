//! The run whose size is in question: a workflow, and a plan that deals its tasks out over the workers.
//!
//! Every level of the graph is dealt out evenly and in order, so that each of the workers has its share of
//! every level, and what stands beside each other in one level goes on beside each other in the next. No
//! planner would waste so many workers on a small graph; here they are what is asked about.

use foresail_planner::shapes::{Shape, drawn};
use foresail_planner::{DraftFailure, Placement, blind_table, complete};
use foresail_schemas::graph::Graph;
use foresail_schemas::plan::{Objective, Plan, Problem};
use foresail_schemas::{Platform, Sla, TaskName, WorkerId, Workflow};

/// Mean time of a task of the shape `layered` over the time that it is made with.
const LAYERED_MEAN: f64 = 0.55;
/// How far a task takes longer or shorter than planned at most.
const SPREAD: f64 = 0.2;
/// Who the plan says has planned.
const PLANNER: &str = "dealt";

/// Layers of one task for each worker; the tasks take `task_ms` in the mean.
#[must_use]
pub fn layers(workers: u32, tasks_per_worker: u32, task_ms: f64) -> Workflow {
    Shape::Layered(tasks_per_worker as usize, workers as usize).workflow_of(task_ms / LAYERED_MEAN)
}

/// The problem of a run of `workflow` and a plan that deals it out over `workers`.
///
/// # Errors
/// [`DraftFailure`] where a task does not fit the default size of the platform.
pub fn dealt(
    workflow: &Workflow,
    platform: &Platform,
    workers: u32,
    seed: u64,
) -> Result<(Problem, Plan), DraftFailure> {
    let predictions = blind_table(workflow, platform, Sla::MEDIAN);
    let mut problem = crate::client::problem(workflow, platform, predictions, Objective::Fastest, seed);
    // The quota is a limit of its own: how the others behave is seen where it is high enough.
    problem.platform.concurrency_max = platform.concurrency_max.max(workers);
    let owners = owners(workflow.graph(), workers);
    let place = |(task, owner): (usize, &u32)| Placement {
        task: workflow.tasks()[task].id.clone(),
        worker: Some(WorkerId::new(format!("w{owner:06}")).expect("a letter and digits are a legal name")),
        config: platform.default_config,
        rank: task as u32,
        optimizations: Vec::new(),
        why: String::new(),
    };
    let draft: Vec<Placement> = owners.iter().enumerate().map(place).collect();
    let planner = TaskName::new(PLANNER).expect("letters are a legal name");
    let plan = complete(&problem, &planner, &draft, Vec::new())?;
    for row in &mut problem.predictions.exec_ms {
        (0..).zip(row).for_each(|(task, exec_ms)| *exec_ms *= factor(seed, task));
    }
    Ok((problem, plan))
}

/// How much longer a task takes than planned.
fn factor(seed: u64, task: u64) -> f64 {
    let place = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(task);
    1.0 - SPREAD + 2.0 * SPREAD * drawn(place)
}

/// The worker of every task.
fn owners(graph: &Graph, workers: u32) -> Vec<u32> {
    let mut level = vec![0_usize; graph.len()];
    let mut width: Vec<u64> = Vec::new();
    for &task in graph.order() {
        let parents = graph.parents(task).iter();
        level[task as usize] = parents.map(|&parent| level[parent as usize] + 1).max().unwrap_or(0);
        if width.len() <= level[task as usize] {
            width.push(0);
        }
        width[level[task as usize]] += 1;
    }
    let mut dealt = vec![0_u64; width.len()];
    let owner = |level: &usize| {
        let place = dealt[*level];
        dealt[*level] += 1;
        (place * u64::from(workers) / width[*level]) as u32
    };
    level.iter().map(owner).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_is_dealt_out_evenly_and_in_order() {
        let of = |shape: &str, workers| {
            let shape: Shape = shape.parse().expect("it is one");
            owners(shape.workflow().graph(), workers)
        };
        assert_eq!(of("layered:2x4", 2), [0, 0, 1, 1, 0, 0, 1, 1]);
        assert_eq!(of("tree:4", 2), [0, 1, 0], "a sum stands beside its first part");
        assert_eq!(of("layered:3x1", 9), [0; 3], "a chain stays where it is");
    }

    #[test]
    fn times_differ_from_those_planned_by_a_fifth_at_most_and_the_same_seed_gives_the_same() {
        let factors: Vec<f64> = (0..1_000).map(|task| factor(7, task)).collect();
        assert!(factors.iter().all(|x| (0.8..=1.2).contains(x)));
        assert_eq!(factors, (0..1_000).map(|task| factor(7, task)).collect::<Vec<_>>());
        assert_ne!(factors[0], factor(8, 0));
    }
}
