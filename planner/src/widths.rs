//! Widths that are drawn: which tasks of a fan-out do not run in one draw, and which of the others do not
//! with them.
//!
//! A width is the quantile, in its shape, of a standard normal error, as the factor of a time is, rounded to
//! whole tasks. What else is decided stays as the plan expects it.

use std::collections::BTreeMap;

use foresail_schemas::decision::{Condition, DecisionForecast, Wanted};
use foresail_schemas::plan::{Objective, PredictionTable, Problem};
use foresail_schemas::uncertainty::{Shape, Uncertainty};
use foresail_schemas::{TaskId, Workflow};

use crate::draw::{Normals, factor, factor_at};
use crate::expected::needs;

/// A plan that shall keep a deadline with a probability is made for widths that all but this part of the
/// runs allowed to miss it stay below.
const WIDER_SHARE: f64 = 0.05;

/// By what a task runs, where all that it needs does.
#[derive(Debug, Clone, Copy)]
enum Rule {
    Always,
    Never,
    /// Where the width of this decider is above the number.
    Above(usize, u64),
}

/// What is drawn of the decisions in one workflow.
#[derive(Debug)]
pub(crate) struct Widths {
    /// Of every decider whose width is drawn: its shape, in tasks.
    shapes: Vec<Shape>,
    rules: Vec<Rule>,
    /// What each task cannot run without, end to end.
    needs: Vec<u32>,
    needs_from: Vec<u32>,
    /// The tasks, parents first.
    order: Vec<u32>,
    /// In the draw that is made.
    drawn: Vec<u64>,
}

impl Widths {
    /// Nothing where no width is drawn. `is_expected` says whether tasks after other decisions run.
    pub fn of(
        workflow: &Workflow,
        uncertainty: &Uncertainty,
        is_expected: impl Fn(u32) -> bool,
    ) -> Option<Self> {
        if uncertainty.widths.is_empty() {
            return None;
        }
        let (mut places, mut shapes) = (BTreeMap::<&TaskId, usize>::new(), Vec::new());
        let mut rules = Vec::with_capacity(workflow.tasks().len());
        let (mut all_needs, mut needs_from) = (Vec::new(), vec![0]);
        for (t, task) in (0..).zip(workflow.tasks()) {
            rules.push(match task.when.as_ref() {
                None => Rule::Always,
                Some(Condition { task: decider, wanted: Wanted::Above(place) })
                    if uncertainty.widths.contains_key(decider) =>
                {
                    let at = *places.entry(decider).or_insert_with(|| {
                        shapes.push(uncertainty.widths[decider]);
                        shapes.len() - 1
                    });
                    Rule::Above(at, *place)
                }
                Some(_) if is_expected(t) => Rule::Always,
                Some(_) => Rule::Never,
            });
            all_needs.extend(needs(workflow, task));
            needs_from.push(all_needs.len() as u32);
        }
        let order = workflow.graph().order().to_vec();
        let widths = Self { shapes, rules, needs: all_needs, needs_from, order, drawn: Vec::new() };
        (!widths.shapes.is_empty()).then_some(widths)
    }

    /// Draws which tasks do not run.
    pub fn draw(&mut self, normals: &mut Normals, absent: &mut Vec<bool>) {
        self.drawn.clear();
        self.drawn.extend(self.shapes.iter().map(|shape| factor(shape, normals.next()).round() as u64));
        absent.clear();
        absent.resize(self.rules.len(), false);
        for &t in &self.order {
            let at = t as usize;
            let needs = &self.needs[self.needs_from[at] as usize..self.needs_from[at + 1] as usize];
            let is_called = match self.rules[at] {
                Rule::Always => true,
                Rule::Never => false,
                Rule::Above(decider, place) => self.drawn[decider] > place,
            };
            absent[at] = !is_called || needs.iter().any(|&need| absent[need as usize]);
        }
    }
}

/// Whether the width that a condition is on is drawn.
pub(crate) fn is_drawn(table: &PredictionTable, condition: &Condition) -> bool {
    let is_known = |u: &Uncertainty| u.widths.contains_key(&condition.task);
    matches!(condition.wanted, Wanted::Above(_)) && table.uncertainty.as_ref().is_some_and(is_known)
}

/// Whether any width of this problem is drawn.
pub(crate) fn has_drawn(problem: &Problem) -> bool {
    let conditions = problem.workflow.tasks().iter().filter_map(|task| task.when.as_ref());
    let mut conditions = conditions.filter(|condition| is_drawn(&problem.predictions, condition));
    conditions.next().is_some()
}

/// What is predicted to be decided, for the plan of this problem: where a probability is asked for, as wide
/// as it may come.
pub(crate) fn forecasts(problem: &Problem) -> BTreeMap<TaskId, DecisionForecast> {
    let mut forecasts = problem.predictions.decisions.clone();
    if let Objective::Confidence { probability, .. } = problem.objective
        && let Some(uncertainty) = &problem.predictions.uncertainty
    {
        for (decider, shape) in &uncertainty.widths {
            let width = factor_at(shape, 1.0 - WIDER_SHARE * (1.0 - probability)).round() as u64;
            let forecast = forecasts.entry(decider.clone()).or_default();
            forecast.width = Some(forecast.width.map_or(width, |expected| expected.max(width)));
        }
    }
    forecasts
}
