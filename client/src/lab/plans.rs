//! Planners beside each other on workflows whose truth is known, without a stack.
//!
//! Every plan is made from what the planner is told and carried out in virtual time, by the state machines
//! that carry out real runs ([`foresail_planner::simulate`]), with what is true. The bounds are those of the
//! truth. See [`truth`] for what is true and what is told. Times in ms, money in USD.

use std::time::Instant;

use foresail_planner::{bounds, simulate};
use foresail_schemas::optimization::OptimizationKind;
use foresail_schemas::plan::{Objective, Plan, PlanSummary, PredictionTable, Problem};
use foresail_schemas::run::RunOptions;
use foresail_schemas::{Platform, Sla, Workflow};
use serde::Serialize;

use crate::client;
use crate::error::ClientError;
use crate::planning::{self, Stop};

pub mod columns;
pub mod summary;
pub mod truth;

pub use summary::{Summary, summaries};
pub use truth::Curve;

use truth::History;

/// Who is compared with everybody.
pub const REFERENCE: &str = "simple";

/// What the plans shall be best at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// This.
    Given(Objective),
    /// The least cost within the time that the fastest plan of [`REFERENCE`] is predicted to take.
    AtReference,
}

/// What is compared and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Planners by name; one in another process as `exec:PROGRAM ARGS`.
    pub planners: Vec<String>,
    /// What the plans shall be best at.
    pub goal: Goal,
    /// What they shall not do beside running tasks.
    pub without: Vec<OptimizationKind>,
    /// Statistic that is planned with, where something was learned.
    pub sla: Sla,
    /// Prices, sizes and limits.
    pub platform: Platform,
    /// Seeds, from 0.
    pub seeds: u64,
    /// Lengths of the history that the predictor learns from; empty: planners are told the truth.
    pub history: Vec<u32>,
    /// Standard deviation of the logarithm of times in the history.
    pub noise: f64,
    /// How time depends on the size of the worker.
    pub curve: Curve,
    /// Longest task after scaling, in ms, one after the other; empty: as recorded.
    pub task_ms_max: Vec<f64>,
}

/// Where a workflow comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A recorded run.
    Recorded,
    /// A synthetic shape.
    Shape,
}

/// A workflow to compare on.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its name in the tables.
    pub name: String,
    /// Where it comes from.
    pub origin: Origin,
    /// The workflow; its hints are the times on one vCPU.
    pub workflow: Workflow,
}

/// One plan of one planner.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The workflow.
    pub workflow: String,
    /// Where it comes from.
    pub origin: Origin,
    /// Its tasks.
    pub tasks: u64,
    /// Its edges.
    pub edges: u64,
    /// Longest task after scaling, in ms; nothing: as recorded.
    pub task_ms_max: Option<f64>,
    /// Earlier runs that the predictor learned from; nothing: the planner was told the truth.
    pub history: Option<u32>,
    /// The seed.
    pub seed: u64,
    /// Who planned.
    pub planner: String,
    /// Lower bound of the makespan under the truth, in ms.
    pub makespan_bound_ms: f64,
    /// Lower bound of the cost under the truth, in USD.
    pub cost_bound_usd: f64,
    /// Wall-clock time of the planning in ms.
    pub planning_ms: f64,
    /// What the plan promised.
    pub planned: Option<PlanSummary>,
    /// What it took and cost.
    pub carried_out: Option<PlanSummary>,
    /// What the fastest plan of [`REFERENCE`] took and cost, told the same.
    pub reference: Option<PlanSummary>,
    /// Whether no planner did better under the objective; several may have won.
    pub won: bool,
    /// Why there is no plan.
    pub failure: Option<String>,
}

impl Row {
    /// Makespan over its bound.
    #[must_use]
    pub fn makespan_ratio(&self) -> Option<f64> {
        Some(over(self.carried_out?.makespan_ms, self.makespan_bound_ms))
    }

    /// Cost over its bound.
    #[must_use]
    pub fn cost_ratio(&self) -> Option<f64> {
        Some(over(self.carried_out?.cost_usd, self.cost_bound_usd))
    }

    /// Makespan over that of the reference.
    #[must_use]
    pub fn makespan_to_reference(&self) -> Option<f64> {
        Some(over(self.carried_out?.makespan_ms, self.reference?.makespan_ms))
    }

    /// Cost over that of the reference.
    #[must_use]
    pub fn cost_to_reference(&self) -> Option<f64> {
        Some(over(self.carried_out?.cost_usd, self.reference?.cost_usd))
    }
}

fn over(value: f64, bound: f64) -> f64 {
    if bound > 0.0 { value / bound } else { 1.0 }
}

/// Plans that will be made.
#[must_use]
pub fn rows_expected(cases: &[Case], settings: &Settings) -> u64 {
    let groups = cases.len() * settings.task_ms_max.len().max(1) * settings.history.len().max(1);
    groups as u64 * settings.seeds * settings.planners.len() as u64
}

/// Makes and carries out all plans; each row is told as it is known. Ends early once `stop` is asked for.
pub fn compare(cases: &[Case], settings: &Settings, stop: &Stop, mut tell: impl FnMut(Row)) {
    let scales: Vec<Option<f64>> = all_or_none(&settings.task_ms_max);
    let histories: Vec<Option<u32>> = all_or_none(&settings.history);
    for task_ms_max in &scales {
        for case in cases {
            let workflow = match task_ms_max {
                Some(most) => truth::scaled(&case.workflow, *most),
                None => case.workflow.clone(),
            };
            let table = truth::table(&workflow, &settings.platform, settings.curve);
            for history in &histories {
                for seed in 0..settings.seeds {
                    let group = Group { case, settings, workflow: &workflow, truth: &table, seed };
                    if !group.rows(*task_ms_max, *history, stop, &mut tell) {
                        return;
                    }
                }
            }
        }
    }
}

fn all_or_none<T: Copy>(values: &[T]) -> Vec<Option<T>> {
    if values.is_empty() { vec![None] } else { values.iter().copied().map(Some).collect() }
}

/// All planners on one problem.
struct Group<'a> {
    case: &'a Case,
    settings: &'a Settings,
    workflow: &'a Workflow,
    truth: &'a PredictionTable,
    seed: u64,
}

impl Group<'_> {
    /// Tells a row per planner; `false` once it was stopped.
    fn rows(
        &self,
        task_ms_max: Option<f64>,
        history: Option<u32>,
        stop: &Stop,
        tell: &mut impl FnMut(Row),
    ) -> bool {
        let Settings { platform, sla, noise, .. } = self.settings;
        let real = self.problem(self.workflow, self.truth.clone());
        let told = history.map(|runs| {
            let history = History { runs, noise: *noise, seed: self.seed };
            let table = truth::learned(self.workflow, platform, self.truth, &history, *sla);
            self.problem(&truth::forgotten(self.workflow), table)
        });
        let told = told.unwrap_or_else(|| real.clone());
        let reference = planning::plan_alone_until(REFERENCE, &told, stop).map_err(why);
        let objective = match (&self.settings.goal, &reference) {
            (Goal::Given(objective), _) => *objective,
            (Goal::AtReference, Ok(plan)) => Objective::Deadline { makespan_ms: plan.predicted.makespan_ms },
            (Goal::AtReference, Err(_)) => Objective::Cheapest,
        };
        let reference = reference.and_then(|plan| carry_out(&real, &plan)).ok();
        // Without bounds every plan fails, and says why itself.
        let (makespan_bound_ms, cost_bound_usd) = bounds(&real).unwrap_or((0.0, 0.0));
        let told = Problem { objective, ..told };
        for planner in &self.settings.planners {
            if stop.is_asked() {
                return false;
            }
            let began = Instant::now();
            let made = planning::plan_alone_until(planner, &told, stop).map_err(why);
            let planning_ms = began.elapsed().as_secs_f64() * 1000.0;
            if stop.is_asked() {
                return false;
            }
            let planned = made.as_ref().ok().map(|plan| plan.predicted);
            let done = made.and_then(|plan| carry_out(&real, &plan));
            tell(Row {
                workflow: self.case.name.clone(),
                origin: self.case.origin,
                tasks: self.workflow.tasks().len() as u64,
                edges: edges(self.workflow),
                task_ms_max,
                history,
                seed: self.seed,
                planner: planner.clone(),
                makespan_bound_ms,
                cost_bound_usd,
                planning_ms,
                planned,
                carried_out: done.as_ref().ok().copied(),
                reference,
                won: false,
                failure: done.err(),
            });
        }
        true
    }

    fn problem(&self, workflow: &Workflow, table: PredictionTable) -> Problem {
        let Settings { platform, without, .. } = self.settings;
        let problem = client::problem(workflow, platform, table, Objective::Fastest, self.seed);
        Problem { without: without.clone(), ..problem }
    }
}

/// The reason alone: who planned is a column of its own.
fn why(error: ClientError) -> String {
    match error {
        ClientError::NoPlan { reason, .. } => reason,
        other => other.to_string(),
    }
}

fn edges(workflow: &Workflow) -> u64 {
    let graph = workflow.graph();
    (0..graph.len() as u32).map(|t| graph.parents(t).len() as u64).sum()
}

fn carry_out(real: &Problem, plan: &Plan) -> Result<PlanSummary, String> {
    simulate(real, plan, &RunOptions::default()).map(|done| done.summary).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::shapes::Shape;

    pub(super) fn settings(planners: &[&str]) -> Settings {
        Settings {
            planners: planners.iter().map(|&p| p.to_owned()).collect(),
            goal: Goal::Given(Objective::Fastest),
            without: Vec::new(),
            sla: Sla::MEDIAN,
            platform: Platform::built_in().remove(1),
            seeds: 1,
            history: Vec::new(),
            noise: 0.1,
            curve: Curve::Drawn,
            task_ms_max: Vec::new(),
        }
    }

    pub(super) fn case(shape: Shape) -> Case {
        Case { name: shape.to_string(), origin: Origin::Shape, workflow: shape.workflow() }
    }

    fn rows(cases: &[Case], settings: &Settings) -> Vec<Row> {
        let mut rows = Vec::new();
        compare(cases, settings, &Stop::never(), |row| rows.push(row));
        assert_eq!(rows.len() as u64, rows_expected(cases, settings));
        rows
    }

    #[test]
    fn with_the_truth_plans_keep_what_they_promise_and_no_bound_is_beaten() {
        let cases = [case(Shape::ForkJoin(1, 6)), case(Shape::Tsqr(4))];
        let settings = Settings { task_ms_max: vec![60_000.0, 5_000.0], ..settings(&["simple", "auto"]) };
        let rows = rows(&cases, &settings);
        for row in &rows {
            let (planned, done) = (row.planned.unwrap(), row.carried_out.unwrap());
            assert!((planned.makespan_ms / done.makespan_ms - 1.0).abs() < 0.02, "{row:?}");
            assert!(row.makespan_ratio().unwrap() > 0.99 && row.cost_ratio().unwrap() > 0.99, "{row:?}");
        }
        assert!(rows[0].carried_out.unwrap().makespan_ms > 5.0 * rows[4].carried_out.unwrap().makespan_ms);
        assert_eq!(rows[0].makespan_to_reference(), Some(1.0), "simple beside itself");
        let auto = rows.iter().filter(|r| r.planner == "auto");
        assert!(auto.clone().all(|r| r.makespan_to_reference().unwrap() < 1.01));
    }

    #[test]
    fn at_the_time_of_the_reference_a_plan_is_as_fast_and_no_dearer() {
        let settings = Settings { goal: Goal::AtReference, ..settings(&["auto"]) };
        let rows = rows(&[case(Shape::Layered(3, 8))], &settings);
        assert!(rows[0].makespan_to_reference().unwrap() < 1.01, "{rows:?}");
        assert!(rows[0].cost_to_reference().unwrap() < 1.001, "{rows:?}");
    }

    #[test]
    fn what_is_known_makes_plans_better() {
        let settings = Settings { history: vec![0, 10], seeds: 2, ..settings(&["auto"]) };
        let rows = rows(&[case(Shape::ForkJoin(2, 10))], &settings);
        let mean = |history| {
            let of = rows.iter().filter(|r| r.history == Some(history));
            of.filter_map(Row::makespan_ratio).map(f64::ln).sum::<f64>() / 2.0
        };
        assert!(mean(10) < mean(0), "{} {}", mean(10), mean(0));
    }

    #[test]
    fn a_planner_that_fails_is_a_row_with_the_reason_and_a_stop_ends_all() {
        let cases = [case(Shape::Tree(4))];
        let rows = rows(&cases, &settings(&["oracle", "simple"]));
        assert!(rows[0].failure.as_ref().unwrap().contains("oracle") && rows[0].carried_out.is_none());
        assert!(rows[1].failure.is_none());
        let stop = Stop::never();
        let mut told = 0;
        compare(&cases, &settings(&["simple", "random", "auto"]), &stop, |_| {
            told += 1;
            stop.ask();
        });
        assert_eq!(told, 1, "nothing is planned after it");
    }
}
