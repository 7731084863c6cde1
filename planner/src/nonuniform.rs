//! `nonuniform`: the best size everywhere first; then every worker off the critical path goes down to the
//! cheapest size that its slack allows, as long as the plan gets better under the objective. A flexible task
//! counts as a worker of its own.
//!
//! Slack is read from the timed schedule, so contention on workers and links is in it. Downgrades are tried
//! together; a batch that makes the plan worse is halved. What is left of the work is spent on single
//! workers, dearest first, in both directions. Source: the non-uniform planner of the source paper, with
//! contention-aware timing.

use foresail_schemas::plan::{Objective, Plan, Problem};

use crate::assignment::Assignment;
use crate::dense::NONE;
use crate::error::PlanFailure;
use crate::explain::Candidate;
use crate::planner::Planner;
use crate::search::{Search, plan_by};
use crate::slack::slack_ms;
use crate::uniform;

/// Tasks timed in all candidates of one refinement together.
const TASKS_TIMED_MAX: u32 = 50_000;
/// Fewest candidates, however large the workflow.
const PASSES_MIN: u32 = 8;
/// Most candidates, however small the workflow.
const PASSES_MAX: u32 = 400;
/// Rounds of batched downgrades.
const ROUNDS_MAX: u32 = 4;

/// The planner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NonUniform;

impl Planner for NonUniform {
    fn name(&self) -> &'static str {
        "nonuniform"
    }

    fn plan(&self, problem: &Problem) -> Result<Plan, PlanFailure> {
        plan_by(self.name(), problem, offer)
    }
}

/// Offers the refined form of the best uniform plan under the objective, and of the fastest where that is
/// another.
pub(crate) fn offer(search: &mut Search) {
    let mut found = Search::under(search.dense, search.objective, &search.floor);
    uniform::offer(&mut found);
    offer_from(search, &found);
}

/// As [`offer`], with the uniform plans that were found already.
pub(crate) fn offer_from(search: &mut Search, found: &Search) {
    offer_refined(search, found.best().clone());
    if search.objective != Objective::Fastest {
        let mut fastest = Search::under(search.dense, Objective::Fastest, &search.floor);
        uniform::offer(&mut fastest);
        offer_refined(search, fastest.best().clone());
    }
}

/// Offers the refined form of a candidate.
pub(crate) fn offer_refined(search: &mut Search, start: Candidate) {
    let mut refinement = Refinement::new(search, start);
    let from = refinement.current.label.clone();
    let before = refinement.sizes();
    refinement.downgrade_in_batches();
    refinement.change_one_by_one();
    let after = refinement.sizes();
    let changed = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    let Candidate { assignment, .. } = refinement.current;
    let label = format!("nonuniform: {changed} of {} workers resized in `{from}`", after.len());
    search.offer(label, assignment);
}

struct Refinement<'s, 'a> {
    search: &'s mut Search<'a>,
    passes: u32,
    current: Candidate,
    trial: Assignment,
    /// What is resized as one: the tasks of a planned worker, or one flexible task.
    units: Vec<Vec<u32>>,
}

impl<'s, 'a> Refinement<'s, 'a> {
    fn new(search: &'s mut Search<'a>, current: Candidate) -> Self {
        let assignment = &current.assignment;
        let flexible = (0..search.dense.len()).filter(|&t| assignment.worker[t as usize] == NONE);
        let planned = assignment.tasks_by_worker().into_iter().filter(|tasks| !tasks.is_empty());
        let units = planned.chain(flexible.map(|t| vec![t])).collect();
        let trial = assignment.clone();
        Self { search, passes: 0, current, trial, units }
    }

    fn size_of(&self, unit: u32) -> u32 {
        self.current.assignment.size[self.units[unit as usize][0] as usize]
    }

    fn sizes(&self) -> Vec<u32> {
        (0..self.units.len() as u32).map(|unit| self.size_of(unit)).collect()
    }

    fn has_passes(&self) -> bool {
        let most = TASKS_TIMED_MAX / self.search.dense.len().max(1);
        self.passes < most.clamp(PASSES_MIN, PASSES_MAX)
    }

    /// Times the current placement with other sizes; keeps it if it is better.
    fn try_sizes(&mut self, changes: &[(u32, u32)]) -> bool {
        if !self.has_passes() {
            return false;
        }
        self.passes += 1;
        self.trial.copy_from(&self.current.assignment);
        for &(unit, size) in changes {
            self.units[unit as usize].iter().for_each(|&t| self.trial.size[t as usize] = size);
        }
        let summary = self.search.timing.pass(&self.trial);
        let (new, old) = (self.search.score(&summary), self.search.score(&self.current.timed.summary));
        let is_better = new.is_better_than(&old);
        if is_better {
            std::mem::swap(&mut self.current.assignment, &mut self.trial);
            self.current.timed = self.search.timing.timed(summary);
        }
        is_better
    }

    fn downgrade_in_batches(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let batch = self.downgrades();
            if batch.is_empty() || !self.try_batch(&batch) {
                return;
            }
        }
    }

    /// Tries a batch; where it makes the plan worse, its halves. True if anything was kept.
    fn try_batch(&mut self, batch: &[(u32, u32)]) -> bool {
        if self.try_sizes(batch) {
            return true;
        }
        if batch.len() < 2 || !self.has_passes() {
            return false;
        }
        let (first, second) = batch.split_at(batch.len() / 2);
        let kept = self.try_batch(first);
        self.try_batch(second) || kept
    }

    /// Units whose slack allows a cheaper size, the largest saving first, each with its cheapest such size.
    fn downgrades(&self) -> Vec<(u32, u32)> {
        let (dense, assignment) = (self.search.dense, &self.current.assignment);
        let slack_ms = slack_ms(dense, assignment, &self.current.timed, self.limit_ms());
        let mut found = Vec::new();
        for (unit, tasks) in self.units.iter().enumerate() {
            let now = self.size_of(unit as u32);
            let room_ms = tasks.iter().map(|&t| slack_ms[t as usize]).fold(f64::INFINITY, f64::min);
            let exec_ms = |c: u32| tasks.iter().map(|&t| dense.exec_ms(c, t)).sum::<f64>();
            let usd = |c: u32| exec_ms(c) * dense.size(c).usd_per_ms;
            let fits = |&c: &u32| {
                c != now && tasks.iter().all(|&t| dense.allows(c, t)) && exec_ms(c) - exec_ms(now) <= room_ms
            };
            let useful = dense.useful.iter().copied();
            let cheapest = useful.filter(fits).min_by(|&a, &b| usd(a).total_cmp(&usd(b)));
            if let Some(size) = cheapest
                && usd(size) < usd(now)
            {
                found.push((usd(now) - usd(size), unit as u32, size));
            }
        }
        found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        found.into_iter().map(|(_, unit, size)| (unit, size)).collect()
    }

    /// How long the plan may take.
    fn limit_ms(&self) -> f64 {
        let makespan_ms = self.current.timed.summary.makespan_ms;
        match self.search.objective {
            Objective::Cheapest => f64::INFINITY,
            Objective::Deadline { makespan_ms: deadline_ms }
            | Objective::Confidence { makespan_ms: deadline_ms, .. } => makespan_ms.max(deadline_ms),
            Objective::Fastest | Objective::Budget { .. } | Objective::Balance { .. } => makespan_ms,
        }
    }

    /// Every size for one unit after the other, the dearest first.
    fn change_one_by_one(&mut self) {
        let dense = self.search.dense;
        let usd: Vec<f64> = (0..self.units.len() as u32)
            .map(|unit| {
                let size = self.size_of(unit);
                let exec_ms = self.units[unit as usize].iter().map(|&t| dense.exec_ms(size, t));
                exec_ms.sum::<f64>() * dense.size(size).usd_per_ms
            })
            .collect();
        let mut order: Vec<u32> = (0..usd.len() as u32).collect();
        order.sort_by(|&a, &b| usd[b as usize].total_cmp(&usd[a as usize]).then(a.cmp(&b)));
        for unit in order {
            for &size in &dense.useful {
                if !self.has_passes() {
                    return;
                }
                let allows = |&t: &u32| dense.allows(size, t);
                if self.size_of(unit) != size && self.units[unit as usize].iter().all(allows) {
                    self.try_sizes(&[(unit, size)]);
                }
            }
        }
    }
}
