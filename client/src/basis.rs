//! What a plan's execution times rest on, at the sizes that the plan chose.
//!
//! The table of a problem says it over the whole menu, which is weaker: a task may have been measured at the
//! chosen size and at no other.

use std::collections::HashMap;

use foresail_model::Predictor;
use foresail_planner::expected;
use foresail_schemas::plan::{Plan, PredictionTable};
use foresail_schemas::prediction::{Basis, Query};
use foresail_schemas::{TaskName, Workflow};

use crate::predict::input_bytes;

/// The basis per task, in the order of the tasks. What `table` assumed stays assumed: its entry was not
/// predicted.
pub(crate) fn of_plan(
    workflow: &Workflow,
    table: &PredictionTable,
    plan: &Plan,
    model: &Predictor,
) -> Vec<Basis> {
    // Tasks of one name with equal inputs and configs share an answer; workflows have thousands of those.
    let mut known: HashMap<(TaskName, u64, (u32, u32)), Basis> = HashMap::new();
    let expected = expected(workflow, &table.decisions);
    let tasks = (0..).zip(&plan.tasks).zip(&table.basis);
    let basis = tasks.map(|((at, planned), weakest)| {
        if matches!(weakest, Basis::Exact | Basis::None) {
            return *weakest;
        }
        let task = workflow.task(at).name.clone();
        let (input_bytes, config) =
            (input_bytes(workflow, &table.object_bytes, &expected, at), planned.config);
        let key = (task, input_bytes, config.key());
        *known.entry(key).or_insert_with_key(|(task, ..)| {
            let (memory_mb, vcpu) = (config.memory_mb, config.vcpu);
            let query = Query::ExecutionTime { task: task.clone(), input_bytes, memory_mb, vcpu };
            model.predict(&query, &[table.sla]).basis
        })
    });
    basis.collect()
}
