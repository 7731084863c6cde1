//! The answer of a re-planning in full: the plan with names, times and reasons.

use std::collections::HashSet;

use foresail_schemas::WorkerId;
use foresail_schemas::plan::Plan;

use crate::assignment::Assignment;
use crate::dense::{Dense, NONE};
use crate::explain::{self, Candidate};
use crate::progress::Progress;
use crate::replan::judge::Judge;
use crate::replan::{Replanned, Verdict};
use crate::standing::{Stage, Standing};

/// Writes the answer: `candidate` is what is to go on.
pub(super) fn answer(
    dense: &Dense,
    standing: &Standing,
    (old, progress, base): (&Plan, &Progress, &Assignment),
    candidate: &Candidate,
    bounds: (f64, f64),
    judge: &Judge,
) -> Replanned {
    let ids = ids(dense, old, progress, &candidate.assignment);
    let same = |t: usize| {
        let at = (candidate.assignment.worker[t], candidate.assignment.size[t]);
        at == (base.worker[t], base.size[t])
    };
    let reason = |t: u32| same(t as usize).then(|| old.tasks[t as usize].why.clone());
    let verb = match judge.verdict {
        Verdict::Keep => "The plan is kept",
        Verdict::Replace => "Re-planned",
    };
    let explanation =
        vec![format!("{verb} at {:.0} ms: {}.", standing.now_ms, judge.reason), way_on(candidate)];
    let mut plan = explain::assemble(dense, &old.planner, candidate, bounds, explanation, &ids, reason);
    // What was spent before is known as a sum alone.
    plan.usage.clear();
    let mut moved = Vec::new();
    for (t, (new, old)) in plan.tasks.iter_mut().zip(&old.tasks).enumerate() {
        new.output_bytes = old.output_bytes;
        if standing.has_begun(t as u32) {
            new.optimizations.clone_from(&old.optimizations);
            (new.exec_ms, new.forecast) = (old.exec_ms, old.forecast);
        } else if !same(t) {
            moved.push(new.task.clone());
        }
    }
    span_workers(&mut plan, standing, (&ids, &candidate.assignment));
    let kept = judge.kept;
    Replanned {
        verdict: judge.verdict,
        reason: judge.reason.clone(),
        kept: judge.rest(&kept),
        new: judge.rest(&judge.best.unwrap_or(kept)),
        moved,
        plan,
    }
}

fn way_on(candidate: &Candidate) -> String {
    let summary = &candidate.timed.summary;
    format!(
        "The run goes on by `{}`: {:.0} ms and {:.8} USD in all.",
        candidate.label, summary.makespan_ms, summary.cost_usd
    )
}

/// The names of the plan in force, and new ones that the run has not used for workers that come new.
fn ids(dense: &Dense, old: &Plan, progress: &Progress, assignment: &Assignment) -> Vec<Option<WorkerId>> {
    let mut ids: Vec<Option<WorkerId>> = old.workers.iter().map(|w| Some(w.id.clone())).collect();
    ids.resize(assignment.workers as usize, None);
    let others = progress.workers.iter().map(|w| &w.id).chain(&progress.used);
    let used: HashSet<&WorkerId> = old.workers.iter().map(|w| &w.id).chain(others).collect();
    let mut next = old.workers.len();
    for (t, &worker) in (0..).zip(&assignment.worker) {
        if worker == NONE || ids[worker as usize].is_some() {
            continue;
        }
        let kind = if dense.is_pooled(t) { "pool" } else { "w" };
        ids[worker as usize] = loop {
            next += 1;
            let id = WorkerId::new(format!("{kind}{next}")).expect("letters and digits are a legal name");
            if !used.contains(&id) {
                break Some(id);
            }
        };
    }
    ids
}

/// A worker spans what it ran before, and one that has left is listed with that alone: what it cost is in
/// the sums.
fn span_workers(plan: &mut Plan, standing: &Standing, (ids, assignment): (&[Option<WorkerId>], &Assignment)) {
    // The workers of the plan are sorted by id.
    let place = |id: &WorkerId| plan.workers.binary_search_by(|w| w.id.cmp(id)).ok();
    let places: Vec<Option<usize>> = ids.iter().map(|id| id.as_ref().and_then(place)).collect();
    let mut begun = vec![(f64::INFINITY, 0.0_f64, true); plan.workers.len()];
    for (t, task) in (0..).zip(&plan.tasks) {
        let worker = assignment.worker[t as usize];
        if let Some(&Some(at)) = places.get(worker as usize) {
            let (start_ms, end_ms, is_over) = &mut begun[at];
            let stage = standing.tasks[t as usize];
            *is_over &= matches!(stage, Stage::Done { .. });
            // What runs may do so in a second invocation of the worker, which is not the one that is timed.
            if stage != Stage::Open {
                (*start_ms, *end_ms) = (start_ms.min(task.start_ms), end_ms.max(task.end_ms));
            }
        }
    }
    for (worker, (start_ms, end_ms, is_over)) in plan.workers.iter_mut().zip(begun) {
        if is_over && worker.cost_usd == 0.0 {
            (worker.start_ms, worker.end_ms) = (start_ms, end_ms);
        } else {
            worker.start_ms = worker.start_ms.min(start_ms);
            worker.end_ms = worker.end_ms.max(end_ms);
        }
    }
}
