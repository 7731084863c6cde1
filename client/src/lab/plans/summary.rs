//! Rows in short: who won, how far from the bounds, at what price.
//!
//! Ratios are averaged by their geometric mean: twice as long and half as long cancel out.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use foresail_planner::compare;
use foresail_schemas::plan::{Objective, PlanSummary};
use serde::Serialize;

use super::{Goal, Origin, REFERENCE, Row};

/// How much longer or dearer counts as worse: the timing pass that plans are made with and the simulation
/// that carries them out differ by less.
const WORSE: f64 = 1.01;
/// A makespan up to this multiple of its bound is close to it.
const CLOSE: f64 = 1.05;
/// Who draws plans instead of making them.
const RANDOM: &str = "random";

/// One planner on all workflows of one scale and one length of history.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Longest task after scaling, in ms; nothing: as recorded.
    pub task_ms_max: Option<f64>,
    /// Earlier runs that the predictor learned from; nothing: planners were told the truth.
    pub history: Option<u32>,
    /// Who planned.
    pub planner: String,
    /// Plans that were carried out.
    pub plans: u64,
    /// Problems without a plan.
    pub failed: u64,
    /// Geometric mean of makespan over its bound.
    pub makespan_ratio: f64,
    /// Geometric mean of cost over its bound.
    pub cost_ratio: f64,
    /// Plans for recorded workflows with a makespan of at most 1.05 times its bound.
    pub close: u64,
    /// Plans for recorded workflows.
    pub recorded: u64,
    /// Geometric mean of makespan over that of the fastest plan of `simple`.
    pub makespan_to_simple: f64,
    /// Median of cost over that of the fastest plan of `simple`.
    pub cost_to_simple: f64,
    /// Largest cost over that of the fastest plan of `simple`.
    pub cost_to_simple_max: f64,
    /// Problems on which nobody did better under the objective.
    pub wins: u64,
    /// Problems on which `simple` or `random` did better by more than 1 %, of those that they were asked.
    pub worse_than_plain: u64,
    /// GB s of all plans together.
    pub gb_seconds: f64,
    /// Median time of the planning in ms.
    pub planning_ms: f64,
    /// Longest time of the planning in ms.
    pub planning_ms_max: f64,
}

/// What two rows share that can be compared.
type Problem = (String, Option<u64>, Option<u32>, u64);

fn problem(row: &Row) -> Problem {
    (row.workflow.clone(), row.task_ms_max.map(f64::to_bits), row.history, row.seed)
}

/// Marks the winners of every problem that all of `planners` have had, then sums up by scale, history and
/// planner, in the order of the rows.
pub fn summaries(rows: &mut [Row], goal: Goal, planners: usize) -> Vec<Summary> {
    let mut groups: BTreeMap<Problem, Vec<usize>> = BTreeMap::new();
    for (at, row) in rows.iter().enumerate() {
        groups.entry(problem(row)).or_default().push(at);
    }
    let mut worse = vec![false; rows.len()];
    for group in groups.values().filter(|group| group.len() >= planners) {
        for &at in group {
            let beaten = group.iter().any(|&other| beats(&rows[other], &rows[at], goal, 1.0));
            rows[at].won = rows[at].carried_out.is_some() && !beaten;
            let plain = |&&o: &&usize| [REFERENCE, RANDOM].contains(&rows[o].planner.as_str());
            worse[at] = group.iter().filter(plain).any(|&other| beats(&rows[other], &rows[at], goal, WORSE));
        }
    }
    let mut order: Vec<(Option<u64>, Option<u32>, &str)> = Vec::new();
    for row in rows.iter() {
        let key = (row.task_ms_max.map(f64::to_bits), row.history, row.planner.as_str());
        if !order.contains(&key) {
            order.push(key);
        }
    }
    order.sort_by_key(|(scale, history, _)| (*scale, *history));
    let of = |key: &(Option<u64>, Option<u32>, &str)| {
        let is_of =
            |row: &Row| (row.task_ms_max.map(f64::to_bits), row.history, row.planner.as_str()) == *key;
        rows.iter().zip(&worse).filter(|(row, _)| is_of(row)).collect::<Vec<_>>()
    };
    order.iter().map(|key| summary(&of(key))).collect()
}

/// Whether `a` did better than `b` even if it had taken or cost `margin` times as much.
fn beats(a: &Row, b: &Row, goal: Goal, margin: f64) -> bool {
    let (Some(mut one), Some(other)) = (a.carried_out, b.carried_out) else { return false };
    let bounds = (a.makespan_bound_ms, a.cost_bound_usd);
    let deadline_ms = b.reference.map_or(0.0, |r| r.makespan_ms) * WORSE;
    let objective = match goal {
        Goal::Given(objective) => objective,
        // What was promised and what is carried out differ a little, and the limit is no knife's edge.
        Goal::AtReference => Objective::Deadline { makespan_ms: deadline_ms },
    };
    if margin > 1.0 {
        one = PlanSummary { makespan_ms: one.makespan_ms * margin, cost_usd: one.cost_usd * margin, ..one };
        // Within the margin the first aim decides alone: the second has no margin of its own.
        return primary(&objective, &one, bounds) < primary(&objective, &other, bounds);
    }
    compare(&objective, &one, &other, bounds) == Ordering::Less
}

/// What an objective looks at first: whether its limit is missed, by more than the margin, then its aim.
fn primary(objective: &Objective, summary: &PlanSummary, bounds: (f64, f64)) -> (bool, f64) {
    let (time, cost) = (summary.makespan_ms, summary.cost_usd);
    match *objective {
        Objective::Fastest => (false, time),
        Objective::Cheapest => (false, cost),
        Objective::Deadline { makespan_ms } | Objective::Confidence { makespan_ms, .. } => {
            (time > makespan_ms * WORSE * WORSE, cost)
        }
        Objective::Budget { cost_usd } => (cost > cost_usd * WORSE * WORSE, time),
        Objective::Balance { time_weight } => {
            let over = |value: f64, bound: f64| if bound > 0.0 { value / bound } else { value };
            (false, time_weight * over(time, bounds.0) + (1.0 - time_weight) * over(cost, bounds.1))
        }
    }
}

fn summary(rows: &[(&Row, &bool)]) -> Summary {
    let (first, _) = rows[0];
    let all = |of: fn(&Row) -> Option<f64>| -> Vec<f64> { rows.iter().filter_map(|(r, _)| of(r)).collect() };
    let count = |is: &dyn Fn(&Row) -> bool| rows.iter().filter(|(row, _)| is(row)).count() as u64;
    let planning: Vec<f64> = rows.iter().map(|(r, _)| r.planning_ms).collect();
    let cost_to_simple = all(Row::cost_to_reference);
    let is_close = |r: &Row| r.origin == Origin::Recorded && r.makespan_ratio().is_some_and(|x| x <= CLOSE);
    Summary {
        task_ms_max: first.task_ms_max,
        history: first.history,
        planner: first.planner.clone(),
        plans: count(&|r| r.carried_out.is_some()),
        failed: count(&|r| r.carried_out.is_none()),
        makespan_ratio: geometric_mean(&all(Row::makespan_ratio)),
        cost_ratio: geometric_mean(&all(Row::cost_ratio)),
        close: count(&is_close),
        recorded: count(&|r| r.origin == Origin::Recorded),
        makespan_to_simple: geometric_mean(&all(Row::makespan_to_reference)),
        cost_to_simple_max: cost_to_simple.iter().copied().fold(f64::NAN, f64::max),
        cost_to_simple: median(cost_to_simple),
        wins: count(&|r| r.won),
        worse_than_plain: rows.iter().filter(|(_, worse)| **worse).count() as u64,
        // The sum of none is -0.
        gb_seconds: 0.0 + rows.iter().filter_map(|(r, _)| r.carried_out).map(|s| s.gb_seconds).sum::<f64>(),
        planning_ms_max: planning.iter().copied().fold(0.0, f64::max),
        planning_ms: median(planning),
    }
}

/// Not a number where there are no values.
#[must_use]
pub fn geometric_mean(values: &[f64]) -> f64 {
    (values.iter().map(|x| x.ln()).sum::<f64>() / values.len() as f64).exp()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (lower, upper) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    match (values.get(lower), values.get(upper)) {
        (Some(a), Some(b)) => f64::midpoint(*a, *b),
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(workflow: &str, planner: &str, makespan_ms: f64, cost_usd: f64) -> Row {
        let of = |makespan_ms, cost_usd| PlanSummary { makespan_ms, cost_usd, ..PlanSummary::default() };
        Row {
            workflow: workflow.to_owned(),
            origin: Origin::Recorded,
            tasks: 1,
            edges: 0,
            task_ms_max: None,
            history: None,
            seed: 0,
            planner: planner.to_owned(),
            makespan_bound_ms: 100.0,
            cost_bound_usd: 1.0,
            planning_ms: 1.0,
            planned: None,
            carried_out: Some(of(makespan_ms, cost_usd)),
            reference: Some(of(200.0, 2.0)),
            won: false,
            failure: None,
        }
    }

    #[test]
    fn winners_ratios_and_who_is_worse_are_counted() {
        let mut rows = vec![
            row("a", "simple", 200.0, 2.0),
            row("a", "auto", 104.0, 1.0),
            row("a", "odd", 201.0, 1.0),
            row("b", "simple", 200.0, 2.0),
            row("b", "auto", 200.0, 2.0),
            row("b", "odd", 400.0, 8.0),
            row("c", "auto", 1.0, 1.0),
        ];
        let found = summaries(&mut rows, Goal::Given(Objective::Fastest), 3);
        let wins: Vec<u64> = found.iter().map(|s| s.wins).collect();
        assert_eq!(found.iter().map(|s| s.planner.as_str()).collect::<Vec<_>>(), ["simple", "auto", "odd"]);
        assert_eq!(wins, [1, 2, 0], "a tie has two winners, and c was not finished");
        assert_eq!(found[2].worse_than_plain, 1, "half a percent is none");
        assert_eq!((found[1].close, found[1].recorded), (2, 3));
        assert!((found[2].makespan_ratio - (2.01_f64 * 4.0).sqrt()).abs() < 1e-9);
        assert!((found[2].cost_to_simple - 2.25).abs() < 1e-9 && found[2].cost_to_simple_max == 4.0);
    }

    #[test]
    fn at_the_time_of_the_reference_the_cheaper_wins_only_if_it_is_in_time() {
        let mut rows =
            vec![row("a", "simple", 200.0, 2.0), row("a", "late", 300.0, 1.0), row("a", "auto", 200.5, 1.5)];
        let found = summaries(&mut rows, Goal::AtReference, 3);
        assert_eq!(found.iter().map(|s| s.wins).collect::<Vec<_>>(), [0, 0, 1]);
        let worse: Vec<u64> = found.iter().map(|s| s.worse_than_plain).collect();
        assert_eq!(worse, [0, 1, 0], "whoever is late is worse than simple, however cheap");
    }

    #[test]
    fn a_problem_without_a_plan_is_counted_apart() {
        let mut rows = vec![Row { carried_out: None, failure: Some("no".into()), ..row("a", "x", 0.0, 0.0) }];
        let found = summaries(&mut rows, Goal::Given(Objective::Fastest), 1);
        assert_eq!((found[0].plans, found[0].failed, found[0].wins), (0, 1, 0));
        assert_eq!(format!("{:.0}", found[0].gb_seconds), "0");
        assert!(found[0].makespan_ratio.is_nan() && found[0].cost_to_simple.is_nan());
    }
}
