//! What a plan does beside running tasks, in words: optimisations of its tasks, and workers that are started
//! beforehand.

use std::collections::{BTreeMap, HashMap};

use foresail_schemas::TaskId;
use foresail_schemas::optimization::{Optimization, OptimizationKind};
use foresail_schemas::plan::{Plan, PlannedTask};

use crate::units;

/// The optimisations of a task: `pre-load, pre-warm`; nothing where it has none.
#[must_use]
pub fn of_task(task: &PlannedTask) -> String {
    let names: Vec<&str> = task.optimizations.iter().map(name).collect();
    names.join(", ")
}

/// Optimisations with their numbers of tasks, in one sentence; nothing where no task has any.
#[must_use]
pub fn of_plan(plan: &Plan) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for optimization in plan.tasks.iter().flat_map(|task| &task.optimizations) {
        *counts.entry(name(optimization)).or_default() += 1;
    }
    let tasks = |count: &usize| if *count == 1 { "task" } else { "tasks" };
    let told: Vec<String> =
        counts.iter().map(|(name, count)| format!("{name} of {count} {}", tasks(count))).collect();
    (!told.is_empty()).then(|| format!("beside running: {}", told.join(", ")))
}

/// The workers that are started beforehand, each in one line: its size, when, and the task it is for.
pub fn prewarms(plan: &Plan) -> impl ExactSizeIterator<Item = String> + '_ {
    let starts: HashMap<&TaskId, f64> = match plan.prewarms.is_empty() {
        true => HashMap::new(),
        false => plan.tasks.iter().map(|task| (&task.task, task.start_ms)).collect(),
    };
    plan.prewarms.iter().map(move |warming| {
        let delay = units::ms(warming.delay_ms);
        let when = match &warming.after {
            Some(after) => {
                let at_ms = starts.get(after).map_or(0.0, |start_ms| start_ms + warming.delay_ms);
                format!("{delay} after {after} begins, at {}", units::ms(at_ms))
            }
            None => format!("{delay} after the run begins"),
        };
        format!("a worker of {} for {}, {when}", warming.config, warming.serves)
    })
}

fn name(optimization: &Optimization) -> &str {
    match optimization {
        Optimization::PreLoad => OptimizationKind::PreLoad.as_str(),
        Optimization::TaskDup => OptimizationKind::TaskDup.as_str(),
        Optimization::PreWarm => OptimizationKind::PreWarm.as_str(),
        Optimization::Custom { name, .. } => name.as_str(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use foresail_schemas::optimization::PreWarming;
    use foresail_schemas::plan::Objective;
    use foresail_schemas::{Platform, Sla};

    use super::*;
    use crate::lab::shapes::Shape;

    /// A plan whose first two tasks are loaded beforehand, the second copied too, and the second's worker
    /// started 250 ms after the first task begins.
    pub(crate) fn optimised() -> (foresail_schemas::plan::Problem, Plan) {
        let (workflow, platform) = (Shape::Tsqr(4).workflow(), Platform::built_in().remove(1));
        let table = foresail_planner::blind_table(&workflow, &platform, Sla::MEDIAN);
        let problem = crate::problem(&workflow, &platform, table, Objective::Fastest, 0);
        let mut plan = crate::plan("uniform", &problem).unwrap();
        plan.tasks.iter_mut().for_each(|task| task.optimizations.clear());
        plan.tasks[0].optimizations = vec![Optimization::PreLoad];
        plan.tasks[1].optimizations = vec![Optimization::PreLoad, Optimization::TaskDup];
        plan.tasks[0].start_ms = 1_000.0;
        let (config, serves) = (plan.tasks[1].config, plan.tasks[1].task.clone());
        let after = Some(plan.tasks[0].task.clone());
        plan.prewarms = vec![
            PreWarming { config, after, delay_ms: 250.0, serves: serves.clone() },
            PreWarming { config, after: None, delay_ms: 10.0, serves },
        ];
        (problem, plan)
    }

    #[test]
    fn what_is_done_beside_running_is_told_of_each_task_and_of_the_plan() {
        let (_, plan) = optimised();
        let told: Vec<String> = plan.tasks.iter().take(3).map(of_task).collect();
        assert_eq!(told, ["pre-load", "pre-load, task-dup", ""]);
        assert_eq!(of_plan(&plan).unwrap(), "beside running: pre-load of 2 tasks, task-dup of 1 task");
        let (first, second, size) = (&plan.tasks[0].task, &plan.tasks[1].task, plan.tasks[1].config);
        let told: Vec<String> = prewarms(&plan).collect();
        assert_eq!(
            told,
            [
                format!("a worker of {size} for {second}, 250 ms after {first} begins, at 1.25 s"),
                format!("a worker of {size} for {second}, 10.0 ms after the run begins"),
            ]
        );
        let bare = Plan { tasks: vec![plan.tasks[2].clone()], prewarms: Vec::new(), ..plan };
        assert_eq!((of_plan(&bare), prewarms(&bare).len()), (None, 0));
    }
}
