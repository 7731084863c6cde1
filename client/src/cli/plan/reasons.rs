//! Why every task is where it is, in the terminal and as JSON.

use std::collections::HashMap;

use foresail_planner::{Alternative, Alternatives};
use foresail_schemas::TaskId;
use foresail_schemas::plan::{Plan, PlanSummary};
use serde::Serialize;

use crate::cli::render::Table;
use crate::reasons::{best, differences, in_words};
use crate::units;

/// Most tasks that are listed in the terminal without being asked for.
const LISTED_MAX: usize = 40;

/// A plan as JSON, with the alternatives of the tasks that were asked for.
#[derive(Debug, Serialize)]
pub struct Document<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    alternatives: Vec<TaskDocument<'a>>,
}

#[derive(Debug, Serialize)]
struct TaskDocument<'a> {
    task: &'a TaskId,
    others: Vec<OtherDocument<'a>>,
}

#[derive(Debug, Serialize)]
struct OtherDocument<'a> {
    change: String,
    predicted: &'a PlanSummary,
}

/// The plan with alternatives.
#[must_use]
pub fn document<'a>(plan: &'a Plan, explained: &'a [Alternatives]) -> Document<'a> {
    let other = |o: &'a Alternative| OtherDocument { change: o.change.to_string(), predicted: &o.summary };
    let task =
        |of: &'a Alternatives| TaskDocument { task: &of.task, others: of.others.iter().map(other).collect() };
    Document { plan, alternatives: explained.iter().map(task).collect() }
}

/// The tasks with the best other size and the best other place: all of a small plan, else those on the
/// critical path.
#[must_use]
pub fn listed(plan: &Plan, explained: &[Alternatives]) -> String {
    let of: HashMap<&TaskId, &Alternatives> = explained.iter().map(|a| (&a.task, a)).collect();
    let at: HashMap<&TaskId, usize> = plan.tasks.iter().enumerate().map(|(t, p)| (&p.task, t)).collect();
    let is_short = plan.tasks.len() <= LISTED_MAX;
    let tasks: Vec<usize> = match is_short {
        true => (0..plan.tasks.len()).collect(),
        false => plan.critical_path.iter().filter_map(|id| at.get(id)).copied().take(LISTED_MAX).collect(),
    };
    let mut table = Table::new(&[
        "task",
        "worker",
        "memory",
        "start",
        "end",
        "the best other size",
        "the best other place",
    ]);
    for t in &tasks {
        let task = &plan.tasks[*t];
        let others = of.get(&task.task).map_or([None, None], |of| best(plan, of));
        let [size, place] = others.map(|other| match (other, of.get(&task.task)) {
            (Some(other), Some(of)) => in_words(other, &of.chosen),
            _ => String::new(),
        });
        table.row([
            task.task.to_string(),
            task.worker.as_ref().map_or_else(|| "any".to_owned(), ToString::to_string),
            task.config.to_string(),
            units::ms(task.start_ms),
            units::ms(task.end_ms),
            size,
            place,
        ]);
    }
    let which = match (is_short, tasks.len() == plan.critical_path.len()) {
        (true, _) => "tasks".to_owned(),
        (false, true) => "tasks on the critical path".to_owned(),
        (false, false) => format!("the first {} tasks on the critical path", tasks.len()),
    };
    format!("\n{which}, and what the plan would take and cost with that task elsewhere:\n{table}")
}

/// One task with all its alternatives.
#[must_use]
pub fn in_full(plan: &Plan, of: &Alternatives) -> String {
    let Some(task) = plan.tasks.iter().find(|t| t.task == of.task) else { return String::new() };
    let worker = task.worker.as_ref().map_or_else(|| "any worker".to_owned(), |w| format!("worker {w}"));
    let shares = match (task.worker.is_some(), of.shares_with) {
        (false, _) => String::new(),
        (true, 0) => ", alone".to_owned(),
        (true, n) => format!(", with {n} other tasks"),
    };
    let mut table = Table::new(&["instead", "makespan", "", "cost", ""]);
    let summary = |s: &PlanSummary| (units::ms(s.makespan_ms), units::usd(s.cost_usd));
    let (makespan, cost) = summary(&of.chosen);
    table.row(["(as planned)".to_owned(), makespan, String::new(), cost]);
    for other in &of.others {
        let ((makespan, cost), (time, money)) = (summary(&other.summary), differences(other, &of.chosen));
        table.row([other.change.to_string(), makespan, time, cost, money]);
    }
    let times = format!("{} to {}", units::ms(task.start_ms), units::ms(task.end_ms));
    format!("\n{}: {worker}{shares}, {}, {times}\n{}\n{table}", task.task, task.config, task.why)
}
