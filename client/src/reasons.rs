//! Which tasks of a plan are explained by their alternatives, and those alternatives in words.

use foresail_planner::{Alternative, Alternatives, Change, compare};
use foresail_schemas::TaskId;
use foresail_schemas::plan::{Plan, PlanSummary, Problem};

use crate::units;

/// Times of tasks that may be computed for explanations nobody asked for: about a second.
const TIMINGS_MAX: usize = 4_000_000;
/// Alternatives of a task besides those of size.
const PLACES: usize = 4;

/// The tasks that are explained without being asked for: all of a small workflow, of a larger one those on
/// the critical path, of a very large one the first of these.
#[must_use]
pub fn worth_explaining(problem: &Problem, plan: &Plan) -> Vec<TaskId> {
    let each = plan.tasks.len().max(1) * (problem.predictions.configs.len() + PLACES);
    let affordable = TIMINGS_MAX / each;
    match plan.tasks.len() <= affordable {
        true => plan.tasks.iter().map(|t| t.task.clone()).collect(),
        false => plan.critical_path.iter().take(affordable).cloned().collect(),
    }
}

/// What an alternative would change: `512 MB: +1.20 s (+4.1 %), -$0.0010 (-2.0 %)`.
#[must_use]
pub fn in_words(other: &Alternative, chosen: &PlanSummary) -> String {
    let (time, cost) = differences(other, chosen);
    format!("{}: {time}, {cost}", other.change)
}

/// What an alternative would change in time and in cost.
#[must_use]
pub fn differences(other: &Alternative, chosen: &PlanSummary) -> (String, String) {
    (
        difference(other.summary.makespan_ms, chosen.makespan_ms, units::ms),
        difference(other.summary.cost_usd, chosen.cost_usd, units::usd),
    )
}

/// The best alternatives under the objective of the plan: another size, another place.
#[must_use]
pub fn best<'a>(plan: &Plan, of: &'a Alternatives) -> [Option<&'a Alternative>; 2] {
    let bounds = (plan.bounds.makespan_ms, plan.bounds.cost_usd);
    let better =
        |a: &&Alternative, b: &&Alternative| compare(&plan.objective, &a.summary, &b.summary, bounds);
    let is_size = |other: &&Alternative| matches!(other.change, Change::Size(_));
    [
        of.others.iter().filter(is_size).min_by(better),
        of.others.iter().filter(|other| !is_size(other)).min_by(better),
    ]
}

fn difference(value: f64, before: f64, in_words: fn(f64) -> String) -> String {
    let change = value - before;
    if change.abs() <= 1e-9 * before.abs() {
        return "±0".to_owned();
    }
    let sign = if change < 0.0 { "-" } else { "+" };
    let percent = if before > 0.0 { format!(" ({:+.1} %)", 100.0 * change / before) } else { String::new() };
    format!("{sign}{}{percent}", in_words(change.abs()))
}

#[cfg(test)]
mod tests {
    use foresail_schemas::plan::Objective;
    use foresail_schemas::{Platform, Sla};

    use super::*;
    use crate::lab::shapes::Shape;

    fn planned(shape: Shape) -> (Problem, Plan) {
        let (workflow, platform) = (shape.workflow(), Platform::built_in().remove(1));
        let table = foresail_planner::blind_table(&workflow, &platform, Sla::MEDIAN);
        let problem = crate::problem(&workflow, &platform, table, Objective::Fastest, 0);
        let plan = crate::plan("simple", &problem).unwrap();
        (problem, plan)
    }

    #[test]
    fn of_a_large_workflow_only_the_critical_path_is_explained() {
        let (problem, plan) = planned(Shape::Tree(64));
        assert_eq!(worth_explaining(&problem, &plan).len(), 63);
        let (problem, plan) = planned(Shape::Tree(2048));
        let explained = worth_explaining(&problem, &plan);
        assert_eq!(explained, plan.critical_path);
        assert!(explained.len() < 20, "{explained:?}");
    }

    #[test]
    fn an_alternative_is_told_with_its_price_in_time_and_money() {
        let chosen = PlanSummary { makespan_ms: 10_000.0, cost_usd: 0.02, ..PlanSummary::default() };
        let summary = PlanSummary { makespan_ms: 12_500.0, cost_usd: 0.01, ..chosen };
        let other = Alternative { change: Change::OwnWorker, summary };
        assert_eq!(in_words(&other, &chosen), "a worker of its own: +2.50 s (+25.0 %), -$0.0100 (-50.0 %)");
        let same = Alternative { change: Change::AnyWorker, summary: chosen };
        assert_eq!(in_words(&same, &chosen), "any worker: ±0, ±0");
    }

    #[test]
    fn the_best_alternative_is_best_under_the_objective() {
        let (problem, plan) = planned(Shape::Tsqr(4));
        let id = plan.tasks[0].task.clone();
        let found = foresail_planner::alternatives(&problem, &plan, &[id]).unwrap();
        let [size, place] = best(&plan, &found[0]);
        let least = |of: &dyn Fn(&&Alternative) -> bool| {
            let times = found[0].others.iter().filter(of).map(|o| o.summary.makespan_ms);
            times.fold(f64::INFINITY, f64::min)
        };
        assert_eq!(size.unwrap().summary.makespan_ms, least(&|o| matches!(o.change, Change::Size(_))));
        assert_eq!(place.unwrap().change, Change::OwnWorker);
    }
}
