//! Tree reduction, WUKONG's measure of an engine's own overhead: numbers are added pairwise until one is
//! left. With a sleep per task it shows how much of the workers' time is put to use.

use foresail_schemas::Workflow;
use serde_json::json;

use crate::builder::{BuildError, TaskHandle, WorkflowBuilder};

/// Without any work beside the addition.
pub(super) fn reduction(numbers: u64) -> Result<Workflow, BuildError> {
    reduce("tree-reduction", numbers, 0)
}

/// Each addition sleeps 50 ms.
pub(super) fn reduction_50_ms(numbers: u64) -> Result<Workflow, BuildError> {
    reduce("tree-reduction-50ms", numbers, 50)
}

/// Each addition sleeps 500 ms.
pub(super) fn reduction_500_ms(numbers: u64) -> Result<Workflow, BuildError> {
    reduce("tree-reduction-500ms", numbers, 500)
}

fn reduce(name: &str, numbers: u64, sleep_ms: u64) -> Result<Workflow, BuildError> {
    let mut flow = WorkflowBuilder::new(name).description("Adds numbers pairwise until one is left");
    let params = if sleep_ms > 0 { json!({ "sleep_ms": sleep_ms }) } else { json!(null) };
    let mut level: Vec<TaskHandle> = Vec::new();
    for i in 0..numbers / 2 {
        // An odd number out joins the last pair.
        let last = numbers % 2 == 1 && i == numbers / 2 - 1;
        let values = 2 * i + 1..=2 * i + 2 + u64::from(last);
        let task = flow.task(format!("add-1-{}", i + 1)).named("add").function("example.add", &params);
        level.push(values.fold(task, |task, value| task.reads_value(value)).handle());
    }
    let mut depth = 1;
    while level.len() > 1 {
        depth += 1;
        let mut next = Vec::with_capacity(level.len().div_ceil(2));
        for (i, pair) in level.chunks(2).enumerate() {
            match pair {
                [left, right] => {
                    let task = flow.task(format!("add-{depth}-{}", i + 1)).named("add");
                    next.push(task.function("example.add", &params).reads(left).reads(right).handle());
                }
                odd => next.extend_from_slice(odd),
            }
        }
        level = next;
    }
    flow.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_of_n_numbers_has_one_task_per_addition() {
        for (numbers, tasks) in [(2, 1), (3, 1), (64, 63), (1024, 1023)] {
            let workflow = reduction(numbers).unwrap();
            assert_eq!(workflow.tasks().len(), tasks);
            assert_eq!(workflow.graph().sinks().count(), 1);
        }
    }
}
