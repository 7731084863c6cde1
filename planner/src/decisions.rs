//! Decisions that are drawn: which branch is taken and how wide a fan-out comes in one draw, which tasks do
//! not run because of that, and which of the others do not with them.
//!
//! A width is the quantile, in its shape, of a standard normal error, as the factor of a time is, rounded to
//! whole tasks. A branch is taken as often as its share says; what the shares leave to 1 is a decision that
//! no task waits for. Tasks decide independently of each other, and what is not drawn stays as the plan
//! expects it.

use std::collections::BTreeMap;

use foresail_schemas::decision::{Condition, Wanted};
use foresail_schemas::plan::{Objective, PredictionTable, Problem};
use foresail_schemas::uncertainty::{Shape, Uncertainty};
use foresail_schemas::{TaskId, Workflow};

use crate::draw::{Normals, factor, factor_at};
use crate::expected::{called, is_likely, needs};

/// A plan that shall keep a deadline with a probability is made for all that may be decided but by this part
/// of the runs allowed to miss it.
const RARER_SHARE: f64 = 0.05;
/// How far the shares of the branches of one task may sum up above 1, for rounding.
const SHARES_ROUNDING: f64 = 1e-9;

/// What is known of a decision that is drawn.
#[derive(Debug, Clone, Copy)]
enum Known<'a> {
    Width(&'a Shape),
    Branches(&'a BTreeMap<String, f64>),
}

impl<'a> Known<'a> {
    /// Shares tell more than quantiles: of two widths one is decided, never something between.
    fn of(uncertainty: &'a Uncertainty, decider: &TaskId) -> Option<Self> {
        let branches = uncertainty.branches.get(decider).map(Self::Branches);
        branches.or_else(|| uncertainty.widths.get(decider).map(Self::Width))
    }

    /// When a task runs that waits for the decider of this place.
    fn rule(self, at: usize, wanted: &Wanted) -> Rule {
        let value = match (self, wanted) {
            (_, Wanted::Above(place)) => return Rule::Above(at, *place),
            (Self::Width(_), Wanted::Is(text)) => whole(text),
            (Self::Branches(shares), Wanted::Is(text)) => {
                shares.keys().position(|branch| branch == text).map(|place| place as u64)
            }
        };
        value.map_or(Rule::Never, |value| Rule::Is(at, value))
    }

    /// Whether more than this part of the runs decides so, or in a way that is as rare.
    fn comes(self, wanted: &Wanted, rare: f64) -> bool {
        let shares = match self {
            Self::Width(shape) => {
                let widest = factor_at(shape, 1.0 - rare).round() as u64;
                return match wanted {
                    Wanted::Above(place) => widest > *place,
                    Wanted::Is(text) => whole(text).is_some_and(|width| width <= widest),
                };
            }
            Self::Branches(shares) => shares,
        };
        let sum: f64 = match wanted {
            Wanted::Above(place) => {
                let wide = shares.iter().filter(|(text, _)| whole(text).is_some_and(|width| width > *place));
                wide.map(|(_, share)| share).sum()
            }
            Wanted::Is(text) => {
                let own = shares.get(text).copied().unwrap_or(0.0);
                shares.values().filter(|share| **share <= own).sum()
            }
        };
        sum > rare
    }
}

/// A width that is written as decisions are.
fn whole(text: &str) -> Option<u64> {
    text.parse().ok().filter(|width: &u64| width.to_string() == text)
}

/// By what a task runs, where all that it needs does.
#[derive(Debug, Clone, Copy)]
enum Rule {
    Always,
    Never,
    /// Where the width of this decider is above the number.
    Above(usize, u64),
    /// Where this decider decides for the width or the branch of this number.
    Is(usize, u64),
}

/// What a task may decide.
#[derive(Debug)]
enum Choice {
    Width(Shape),
    /// Per branch the sum of the shares up to it, and its width where it is one.
    Branches(Vec<(f64, u64)>),
}

impl Choice {
    fn of(known: Known) -> Self {
        match known {
            Known::Width(shape) => Self::Width(*shape),
            Known::Branches(shares) => {
                let mut sum = 0.0;
                let up_to = |(text, share): (&String, &f64)| {
                    sum += share;
                    (sum, whole(text).unwrap_or(0))
                };
                Self::Branches(shares.iter().map(up_to).collect())
            }
        }
    }

    fn draw(&self, normals: &mut Normals) -> Drawn {
        match self {
            Self::Width(shape) => {
                let width = factor(shape, normals.next()).round() as u64;
                Drawn { value: width, width }
            }
            Self::Branches(up_to) => {
                let part = normals.part();
                let place = up_to.partition_point(|(sum, _)| *sum <= part);
                Drawn { value: place as u64, width: up_to.get(place).map_or(0, |(_, width)| *width) }
            }
        }
    }
}

/// What one task decided in one draw.
#[derive(Debug, Clone, Copy)]
struct Drawn {
    /// The width, or the place of the branch; behind the last: one that no task waits for.
    value: u64,
    width: u64,
}

/// What is drawn of the decisions in one workflow.
#[derive(Debug)]
pub(crate) struct Decisions {
    /// Of every decider that is drawn.
    choices: Vec<Choice>,
    rules: Vec<Rule>,
    /// What each task cannot run without, end to end.
    needs: Vec<u32>,
    needs_from: Vec<u32>,
    /// The tasks, parents first.
    order: Vec<u32>,
    /// In the draw that is made.
    drawn: Vec<Drawn>,
}

impl Decisions {
    /// Nothing where none is drawn. `is_expected` says whether tasks after other decisions run.
    pub fn of(
        workflow: &Workflow,
        uncertainty: &Uncertainty,
        is_expected: impl Fn(u32) -> bool,
    ) -> Option<Self> {
        if uncertainty.widths.is_empty() && uncertainty.branches.is_empty() {
            return None;
        }
        let (mut places, mut choices) = (BTreeMap::<&TaskId, usize>::new(), Vec::new());
        let mut rules = Vec::with_capacity(workflow.tasks().len());
        let (mut all_needs, mut needs_from) = (Vec::new(), vec![0]);
        for (t, task) in (0..).zip(workflow.tasks()) {
            let known = task.when.as_ref().map(|when| (when, Known::of(uncertainty, &when.task)));
            rules.push(match known {
                None => Rule::Always,
                Some((when, Some(known))) => {
                    let at = *places.entry(&when.task).or_insert_with(|| {
                        choices.push(Choice::of(known));
                        choices.len() - 1
                    });
                    known.rule(at, &when.wanted)
                }
                Some(_) if is_expected(t) => Rule::Always,
                Some(_) => Rule::Never,
            });
            all_needs.extend(needs(workflow, task));
            needs_from.push(all_needs.len() as u32);
        }
        let order = workflow.graph().order().to_vec();
        let decisions = Self { choices, rules, needs: all_needs, needs_from, order, drawn: Vec::new() };
        (!decisions.choices.is_empty()).then_some(decisions)
    }

    /// Draws which tasks do not run.
    pub fn draw(&mut self, normals: &mut Normals, absent: &mut Vec<bool>) {
        self.drawn.clear();
        self.drawn.extend(self.choices.iter().map(|choice| choice.draw(normals)));
        absent.clear();
        absent.resize(self.rules.len(), false);
        for &t in &self.order {
            let at = t as usize;
            let needs = &self.needs[self.needs_from[at] as usize..self.needs_from[at + 1] as usize];
            let is_called = match self.rules[at] {
                Rule::Always => true,
                Rule::Never => false,
                Rule::Above(decider, place) => self.drawn[decider].width > place,
                Rule::Is(decider, value) => self.drawn[decider].value == value,
            };
            absent[at] = !is_called || needs.iter().any(|&need| absent[need as usize]);
        }
    }
}

/// Whether the shares of the branches of one task are probabilities.
pub(crate) fn are_shares(branches: &BTreeMap<String, f64>) -> bool {
    let sum: f64 = branches.values().sum();
    branches.values().all(|share| *share >= 0.0) && sum <= 1.0 + SHARES_ROUNDING
}

/// Whether what a condition is on is drawn.
pub(crate) fn is_drawn(table: &PredictionTable, condition: &Condition) -> bool {
    let uncertainty = table.uncertainty.as_ref();
    uncertainty.is_some_and(|known| Known::of(known, &condition.task).is_some())
}

/// Whether any decision of this problem is drawn.
pub(crate) fn has_drawn(problem: &Problem) -> bool {
    let conditions = problem.workflow.tasks().iter().filter_map(|task| task.when.as_ref());
    let mut conditions = conditions.filter(|condition| is_drawn(&problem.predictions, condition));
    conditions.next().is_some()
}

/// Which tasks a plan for this problem is made for: those that are expected, and where a probability is asked
/// for, what may come all the same.
pub(crate) fn planned_for(problem: &Problem) -> Vec<bool> {
    let table = &problem.predictions;
    let rare = match problem.objective {
        Objective::Confidence { probability, .. } => Some(RARER_SHARE * (1.0 - probability)),
        _ => None,
    };
    called(&problem.workflow, |_, when| {
        let known = table.uncertainty.as_ref().and_then(|known| Known::of(known, &when.task));
        match (known, rare) {
            (Some(known), Some(rare)) if known.comes(&when.wanted, rare) => true,
            // All is likely of what nothing is predicted of; here something is.
            (Some(_), Some(_)) if !table.decisions.contains_key(&when.task) => false,
            _ => is_likely(when, &table.decisions),
        }
    })
}
