//! Why every task is where it is, in the terminal and as JSON.

use std::collections::HashMap;

use foresail_planner::{Alternative, Alternatives};
use foresail_schemas::TaskId;
use foresail_schemas::plan::{Plan, PlanSummary};
use serde::Serialize;

use crate::beside;
use crate::cli::render::Table;
use crate::reasons::{best, differences, in_words};
use crate::units;

/// Most tasks, and most workers started beforehand, that are listed in the terminal without being asked for.
const LISTED_MAX: usize = 40;

/// Most candidates of a planner that are listed in the terminal: the best ones.
const CANDIDATES_MAX: usize = 5;
/// How the sentence ends, after its number, that candidates follow one by one.
const CANDIDATES_FOLLOW: &str = " candidates were timed, from best to worst:";

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

/// What the planner says, a line each, with the best of its candidates.
#[must_use]
pub fn sentences(explanation: &[String]) -> String {
    let mut text = String::new();
    let mut rest = explanation.iter();
    while let Some(sentence) = rest.next() {
        text += &format!("- {sentence}\n");
        let Some(count) = sentence.strip_suffix(CANDIDATES_FOLLOW).and_then(|n| n.parse().ok()) else {
            continue;
        };
        let candidates: Vec<&String> = rest.by_ref().take(count).collect();
        text.extend(candidates.iter().take(CANDIDATES_MAX).map(|candidate| format!("- {candidate}\n")));
        if let more @ 1.. = candidates.len().saturating_sub(CANDIDATES_MAX) {
            text += &format!("- and {more} more, which -o json lists\n");
        }
    }
    text
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
    let beside = beside::of_plan(plan);
    let head = ["task", "worker", "memory", "start", "end", "the best other size", "the best other place"];
    // The column is there where it says something.
    let last: &[&str] = if beside.is_some() { &["beside running"] } else { &[] };
    let mut table = Table::new(&[&head[..], last].concat());
    for t in &tasks {
        let task = &plan.tasks[*t];
        let others = of.get(&task.task).map_or([None, None], |of| best(plan, of));
        let [size, place] = others.map(|other| match (other, of.get(&task.task)) {
            (Some(other), Some(of)) => in_words(other, &of.chosen),
            _ => String::new(),
        });
        let row = [
            task.task.to_string(),
            task.worker.as_ref().map_or_else(|| "any".to_owned(), ToString::to_string),
            task.config.to_string(),
            units::ms(task.start_ms),
            units::ms(task.end_ms),
            size,
            place,
        ];
        table.row(row.into_iter().chain(beside.as_ref().map(|_| beside::of_task(task))));
    }
    let which = match (is_short, tasks.len() == plan.critical_path.len()) {
        (true, _) => "tasks".to_owned(),
        (false, true) => "tasks on the critical path".to_owned(),
        (false, false) => format!("the first {} tasks on the critical path", tasks.len()),
    };
    let mut text =
        format!("\n{which}, and what the plan would take and cost with that task elsewhere:\n{table}");
    text.extend(beside.map(|beside| format!("\n{beside}\n")));
    text + &started_beforehand(plan)
}

/// The workers that are started beforehand; nothing where there are none.
fn started_beforehand(plan: &Plan) -> String {
    let prewarms = beside::prewarms(plan);
    let more = match prewarms.len() {
        0 => return String::new(),
        all => all.saturating_sub(LISTED_MAX),
    };
    let mut text = "\nstarted beforehand:\n".to_owned();
    text.extend(prewarms.take(LISTED_MAX).map(|prewarm| format!("- {prewarm}\n")));
    if more > 0 {
        text += &format!("- and {more} more\n");
    }
    text
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
    let beside = match beside::of_task(task) {
        none if none.is_empty() => none,
        some => format!(", {some}"),
    };
    let times = format!("{} to {}{beside}", units::ms(task.start_ms), units::ms(task.end_ms));
    format!("\n{}: {worker}{shares}, {}, {times}\n{}\n{table}", task.task, task.config, task.why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beside::tests::optimised;

    #[test]
    fn the_best_candidates_are_listed_and_every_other_sentence() {
        let (problem, _) = optimised();
        let planner = foresail_planner::find("auto").expect("it is one");
        let plan = foresail_planner::plan(&problem, &*planner).expect("it has a plan");
        let at = plan.explanation.iter().position(|s| s.ends_with(CANDIDATES_FOLLOW)).expect("several");
        let said = &plan.explanation[at];
        let count: usize = said.split_once(' ').expect("it begins with a number").0.parse().expect("one");
        assert!(count > CANDIDATES_MAX, "{said}");
        let text = sentences(&plan.explanation);
        let lines: Vec<&str> = text.lines().map(|line| line.trim_start_matches("- ")).collect();
        let (more, behind) =
            (format!("and {} more, which -o json lists", count - CANDIDATES_MAX), at + 1 + count);
        let expect: Vec<&str> = plan.explanation[..at + 1 + CANDIDATES_MAX]
            .iter()
            .map(String::as_str)
            .chain([more.as_str()])
            .chain(plan.explanation[behind..].iter().map(String::as_str))
            .collect();
        assert_eq!(lines, expect);
        assert!(!plan.explanation[behind..].is_empty(), "the critical path is told after them");
    }

    #[test]
    fn the_table_shows_what_is_done_beside_running_a_task_where_anything_is() {
        let (problem, plan) = optimised();
        let text = listed(&plan, &[]);
        let row = |id: &TaskId| text.lines().find(|line| line.starts_with(id.as_str())).unwrap().to_owned();
        assert!(row(&plan.tasks[0].task).ends_with(" pre-load"), "{text}");
        assert!(row(&plan.tasks[1].task).ends_with(" pre-load, task-dup"), "{text}");
        assert!(text.contains("beside running: pre-load of 2 tasks"), "{text}");
        assert!(
            text.contains("started beforehand:\n- a worker of ") && text.contains("at 1.25 s\n"),
            "{text}"
        );
        let asked = foresail_planner::alternatives(&problem, &plan, &[plan.tasks[1].task.clone()]).unwrap();
        assert!(in_full(&plan, &asked[0]).contains(", pre-load, task-dup\n"), "it is said in full as well");
        let mut bare = plan;
        bare.tasks.iter_mut().for_each(|task| task.optimizations.clear());
        bare.prewarms.clear();
        let text = listed(&bare, &[]);
        assert!(!text.contains("beside") && !text.contains("beforehand"), "{text}");
    }
}
