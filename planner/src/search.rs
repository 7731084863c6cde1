//! Trying candidates: each is timed once, the best under the objective is kept, all are remembered in a line.
//! One that carries out more of the pre-loads that the workflow forces is better, whatever it takes.
//!
//! Planners bound their work by numbers of tasks. Nothing here looks at a clock, so the same problem tries
//! the same candidates everywhere.

use std::cmp::Ordering;
use std::rc::Rc;

use foresail_schemas::plan::{Objective, Plan, PlanSummary, Problem};

use crate::assignment::Assignment;
use crate::bounds::Floor;
use crate::dense::Dense;
use crate::error::PlanFailure;
use crate::explain::{self, Candidate, Story};
use crate::extras::unloaded;
use crate::objective::{Score, nearest_limit, score};
use crate::passes;
use crate::simple;
use crate::timing::Timing;

/// A candidate that was timed, in short.
#[derive(Debug, Clone)]
pub(crate) struct Tried {
    pub label: String,
    pub summary: PlanSummary,
    /// Whether passes have made it better than it was when it was offered.
    is_refined: bool,
}

/// A search for the best candidate under an objective.
#[derive(Debug)]
pub(crate) struct Search<'a> {
    pub dense: &'a Dense<'a>,
    pub objective: Objective,
    pub floor: Rc<Floor>,
    pub bounds: (f64, f64),
    pub tried: Vec<Tried>,
    pub timing: Timing<'a>,
    /// What else is to be said of the choice.
    reasons: Vec<String>,
    best: Option<(Merit, Candidate)>,
}

/// What a candidate is judged by: less is better.
#[derive(Debug, Clone, Copy)]
struct Merit {
    unloaded: u32,
    score: Score,
}

impl Merit {
    fn is_better_than(&self, other: &Self) -> bool {
        match self.unloaded.cmp(&other.unloaded) {
            Ordering::Equal => self.score.is_better_than(&other.score),
            order => order.is_lt(),
        }
    }
}

impl<'a> Search<'a> {
    pub fn new(dense: &'a Dense<'a>) -> Self {
        Self::under(dense, dense.problem.objective, &Rc::new(Floor::new(dense)))
    }

    /// A search under another objective than the problem's, with bounds that are known.
    pub fn under(dense: &'a Dense<'a>, objective: Objective, floor: &Rc<Floor>) -> Self {
        let (floor, bounds) = (floor.clone(), floor.pair());
        Self {
            dense,
            objective,
            floor,
            bounds,
            tried: Vec::new(),
            timing: Timing::new(dense),
            reasons: Vec::new(),
            best: None,
        }
    }

    pub fn score(&self, summary: &PlanSummary) -> Score {
        score(&self.objective, summary, self.bounds)
    }

    fn merit(&self, assignment: &Assignment, summary: &PlanSummary) -> Merit {
        Merit { unloaded: unloaded(self.dense, &assignment.worker), score: self.score(summary) }
    }

    /// Times a candidate and keeps it if it is the best so far.
    pub fn offer(&mut self, label: String, mut assignment: Assignment) -> PlanSummary {
        assignment.seat(self.dense);
        let summary = self.timing.pass(&assignment);
        let merit = self.merit(&assignment, &summary);
        self.tried.push(Tried { label: label.clone(), summary, is_refined: false });
        if self.best.as_ref().is_none_or(|(best, _)| merit.is_better_than(best)) {
            let timed = self.timing.timed(summary);
            self.best = Some((merit, Candidate { label, assignment, timed }));
        }
        summary
    }

    /// Takes over what another search of the same problem and objective has found.
    pub fn absorb(&mut self, found: Self) {
        self.tried.extend(found.tried);
        if let Some((merit, candidate)) = found.best
            && self.best.as_ref().is_none_or(|(best, _)| merit.is_better_than(best))
        {
            self.best = Some((merit, candidate));
        }
    }

    /// Lets what `offer` offers compete by itself first, and the best of that be made better by the passes of
    /// `planner`; then it competes with the best so far. What a candidate is worth before its passes says
    /// little of what it is worth after them. Returns the one that loses.
    pub fn stage(&mut self, planner: &str, offer: impl FnOnce(&mut Self)) -> Option<(String, Assignment)> {
        let before = self.best.take();
        offer(self);
        self.refine(planner);
        let found = self.best.take();
        let (won, lost) = match (before, found) {
            // Of equals the first.
            (Some(before), Some(found)) if found.0.is_better_than(&before.0) => (Some(found), Some(before)),
            (Some(before), found) => (Some(before), found),
            (None, found) => (found, None),
        };
        self.best = won;
        lost.map(|(_, Candidate { label, assignment, .. })| (label, assignment))
    }

    /// The best so far.
    pub fn best(&self) -> &Candidate {
        let (_, candidate) =
            self.best.as_ref().expect("every planner offers a candidate before it asks for the best");
        candidate
    }

    /// Applies the passes of a planner to the best; says what each brought.
    pub fn refine(&mut self, planner: &str) -> Vec<String> {
        let Some((_, mut best)) = self.best.take() else { return Vec::new() };
        let (dense, bounds, before) = (self.dense, self.bounds, best.timed.summary);
        let brought = passes::apply(dense, &mut self.timing, self.objective, bounds, planner, &mut best);
        let summary = best.timed.summary;
        if summary != before {
            self.tried.push(Tried { label: best.label.clone(), summary, is_refined: true });
        }
        self.best = Some((self.merit(&best.assignment, &best.timed.summary), best));
        brought
    }

    /// Makes a candidate that was timed the best, whatever its score, and says why in the plan.
    pub fn choose(&mut self, label: String, assignment: Assignment, reason: String) {
        let summary = self.timing.pass(&assignment);
        let timed = self.timing.timed(summary);
        let merit = self.merit(&assignment, &summary);
        self.best = Some((merit, Candidate { label, assignment, timed }));
        self.reasons.push(reason);
    }

    /// The plan of the best, made better by the passes of the planner, with what else was tried, the best
    /// first.
    pub fn plan(&mut self, planner: &str) -> Plan {
        let brought = self.refine(planner);
        // What the plan needs is copied out: it is written where the columns of the pass were, and a large
        // one takes that much less memory.
        self.timing.release();
        let best = self.best();
        let mut reasons: Vec<String> =
            self.against_simple().into_iter().chain(self.reasons.clone()).collect();
        reasons.extend(brought);
        if self.tried.len() > 1 {
            reasons.push(format!("{} candidates were timed, from best to worst:", self.tried.len()));
            let mut tried: Vec<&Tried> = self.tried.iter().collect();
            tried.sort_by(|a, b| self.score(&a.summary).compare(&self.score(&b.summary)));
            reasons.extend(tried.into_iter().map(in_line));
        }
        let nearest = nearest_limit(&self.objective, self.tried.iter().map(|t| &t.summary));
        explain::write(self.dense, planner, best, &self.floor, Story { reasons, nearest })
    }

    /// What the best gains over the best flexible plan, where that is another and was tried.
    fn against_simple(&self) -> Option<String> {
        let flexible = self.tried.iter().filter(|t| t.label.starts_with(simple::LABEL) && !t.is_refined);
        let simple = flexible.min_by(|a, b| self.score(&a.summary).compare(&self.score(&b.summary)))?;
        let best = self.best();
        if best.label == simple.label {
            return None;
        }
        let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { 1.0 };
        Some(format!(
            "It takes {:.2} times the time and {:.2} times the money of the best flexible plan.",
            ratio(best.timed.summary.makespan_ms, simple.summary.makespan_ms),
            ratio(best.timed.summary.cost_usd, simple.summary.cost_usd)
        ))
    }
}

fn in_line(Tried { label, summary, is_refined }: &Tried) -> String {
    let refined = if *is_refined { ", optimised" } else { "" };
    format!("{label}{refined}: {:.0} ms, {:.8} USD", summary.makespan_ms, summary.cost_usd)
}

/// The plan of a planner that is nothing but what it offers to the search.
pub(crate) fn plan_by(
    name: &str,
    problem: &Problem,
    offer: impl FnOnce(&mut Search),
) -> Result<Plan, PlanFailure> {
    let dense = Dense::new(problem)?;
    let mut search = Search::new(&dense);
    offer(&mut search);
    Ok(search.plan(name))
}
