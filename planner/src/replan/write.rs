//! The answer of a re-planning in full: the plan with names, times and reasons.

use std::collections::HashSet;

use foresail_schemas::WorkerId;
use foresail_schemas::plan::{Plan, PlannedTask};

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
    (old, progress): (&Plan, &Progress),
    candidate: &Candidate,
    bounds: (f64, f64),
    judge: &Judge,
) -> Replanned {
    let ids = ids(dense, old, progress, &candidate.assignment);
    let known = |t: u32| as_it_was(standing, &old.tasks[t as usize], t);
    let verb = match judge.verdict {
        Verdict::Keep => "The plan is kept",
        Verdict::Replace => "Re-planned",
    };
    let explanation =
        vec![format!("{verb} at {:.0} ms: {}.", standing.now_ms, judge.reason), way_on(candidate)];
    let mut plan = explain::assemble(dense, &old.planner, candidate, bounds, explanation, &ids, known);
    let mut moved = Vec::new();
    for (new, old) in plan.tasks.iter_mut().zip(&old.tasks) {
        if (&new.worker, new.config.key()) != (&old.worker, old.config.key()) {
            moved.push(new.task.clone());
        } else {
            new.why.clone_from(&old.why);
            new.output_bytes = old.output_bytes;
        }
    }
    span_workers(&mut plan, standing);
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

/// What has begun, as the plan in force had it, with the times that it had in fact.
fn as_it_was(standing: &Standing, old: &PlannedTask, task: u32) -> Option<PlannedTask> {
    match standing.tasks[task as usize] {
        Stage::Open => None,
        // When it ends the timing pass has said.
        Stage::Running { .. } => None,
        Stage::Done { start_ms, end_ms } => Some(PlannedTask { start_ms, end_ms, ..old.clone() }),
    }
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
fn span_workers(plan: &mut Plan, standing: &Standing) {
    let places: std::collections::HashMap<WorkerId, usize> =
        plan.workers.iter().enumerate().map(|(at, w)| (w.id.clone(), at)).collect();
    let mut begun = vec![(f64::INFINITY, 0.0_f64, true); plan.workers.len()];
    for (t, task) in (0..).zip(&plan.tasks) {
        if let Some(&at) = task.worker.as_ref().and_then(|w| places.get(w)) {
            let (start_ms, end_ms, is_over) = &mut begun[at];
            match standing.tasks[t as usize] {
                Stage::Done { .. } => {
                    (*start_ms, *end_ms) = (start_ms.min(task.start_ms), end_ms.max(task.end_ms));
                }
                _ => *is_over = false,
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
