//! Choosing among the best plans by draws, where times are not certain.
//!
//! Who is best by the times predicted is best partly because their errors favour it, the more so the more
//! candidates there were, and an average over draws around the same predictions does not take that back. So
//! the last few are timed on common draws, and the flexible plan, which adapts to whatever times come, gives
//! way only to one that is better in nearly all draws. What a plan gains by its structure (a transfer or a
//! start that it saves) it gains in every draw; what it gains by a guess it gains in half of them. Draws are
//! counted and not their spread: where starts take long now and then, the flexible plan, which has the most
//! of them, varies so much that no gain over it exceeds the deviation, however certain it is.
//!
//! Where there is a limit, missing it in other draws than the flexible plan does makes the difference vary
//! most. So a plan is also taken that misses it by no more on the average and is better within it in nearly
//! all draws.
//!
//! Source: the optimiser's curse (Smith, Winkler, Management Science 2006).

use foresail_schemas::plan::PlanSummary;

use crate::assignment::Assignment;
use crate::montecarlo::Chances;
use crate::objective::{RELATIVE_EPSILON, keeps_limit, limit_regret, regret};
use crate::search::Search;
use crate::{draw, extras};

/// Tasks timed in the draws of all candidates together.
const TASKS_TIMED_MAX: u32 = 1_500_000;
/// Fewest and most draws.
const DRAWS: [u32; 2] = [10, 100];
/// Part of the draws in which a plan must be better: a gain of one standard deviation is, if it is normal.
const BETTER_MIN: f64 = 5.0 / 6.0;

/// A plan that may be chosen.
#[derive(Debug)]
pub(crate) struct Finalist {
    pub label: String,
    pub assignment: Assignment,
}

/// Makes the best of `finalists` by the draws that of the search; the first is what others must beat. Leaves
/// the search as it is where all times are certain, or the workflow is too large for draws that time no more
/// than `passes_max` whole plans.
pub(crate) fn choose(search: &mut Search, mut finalists: Vec<Finalist>, passes_max: u32) {
    let dense = search.dense;
    // What is forced is no matter of chance.
    let unloaded = |finalist: &Finalist| extras::unloaded(dense, &finalist.assignment.worker);
    let least = finalists.iter().map(unloaded).min();
    finalists.retain(|finalist| Some(unloaded(finalist)) == least);
    let affordable = TASKS_TIMED_MAX.min(dense.len().saturating_mul(passes_max));
    let most = affordable / (dense.len() * finalists.len() as u32).max(1);
    if most < DRAWS[0] && !dense.is_blind() {
        return;
    }
    let Some(uncertainty) = draw::assumed(dense) else { return };
    let summaries = keep_those_no_worse(search, &mut finalists);
    let draws = if most < DRAWS[0] { 0 } else { most.min(DRAWS[1]) };
    let (standard, regrets) = match draws {
        0 => (0, summaries.iter().map(|summary| vec![Regret::new(search, summary)]).collect()),
        _ => {
            let drawn = regrets(search, &finalists, Chances::by(dense, &uncertainty), draws);
            if is_certain(&drawn) {
                return;
            }
            (steadiest(&drawn), drawn)
        }
    };
    let keeps: Vec<bool> = summaries.iter().map(|summary| keeps_limit(&search.objective, summary)).collect();
    let chosen = within_limit(standard, &keeps, &regrets);
    let spread = match dense.problem.predictions.uncertainty {
        Some(_) => "",
        None => " Nothing is known of how they spread: a factor of 3 either way is taken for usual.",
    };
    let limit = match keeps[chosen] {
        true if chosen == standard => "",
        true => " The steadiest would miss the limit; this one is predicted to keep it, in no fewer draws.",
        false if keeps.contains(&true) => {
            " Others are predicted to keep the limit, but do so in fewer draws."
        }
        false => "",
    };
    let candidates = finalists.len();
    let by = match draws {
        0 => format!(
            "There are too many tasks for draws, so of {candidates} candidates a flexible one is preferred."
        ),
        _ => format!(
            "Of {candidates} candidates that are best by the times predicted, it was chosen by {draws} draws \
             of what times may come. Another than a flexible plan must be better in five of six."
        ),
    };
    let reason = format!("Times are uncertain.{spread} {by}{limit}");
    let Finalist { label, assignment } = finalists.swap_remove(chosen);
    search.choose(label, assignment, reason);
}

/// How bad one draw of a plan is under the objective: in all, and by what it misses a limit.
#[derive(Debug, Clone, Copy)]
struct Regret {
    total: f64,
    of_limit: f64,
}

impl Regret {
    fn new(search: &Search, summary: &PlanSummary) -> Self {
        Self {
            total: regret(&search.objective, summary, search.bounds),
            of_limit: limit_regret(&search.objective, summary, search.bounds),
        }
    }
}

/// Per finalist and draw: how bad that is.
fn regrets(search: &Search, finalists: &[Finalist], mut chances: Chances, draws: u32) -> Vec<Vec<Regret>> {
    let seed = search.dense.problem.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let of = |finalist: &Finalist| {
        let drawn = chances.summaries(&finalist.assignment, draws, seed);
        drawn.iter().map(|summary| Regret::new(search, summary)).collect()
    };
    finalists.iter().map(of).collect()
}

/// Leaves the first and what is not worse than it by the times predicted, each once; what they take and cost
/// by these.
fn keep_those_no_worse(search: &mut Search, finalists: &mut Vec<Finalist>) -> Vec<PlanSummary> {
    let mut kept: Vec<Finalist> = Vec::with_capacity(finalists.len());
    let mut summaries = Vec::with_capacity(finalists.len());
    let mut standard = None;
    for mut finalist in finalists.drain(..) {
        finalist.assignment.seat(search.dense);
        if kept.iter().any(|k| k.assignment == finalist.assignment) {
            continue;
        }
        let summary = search.timing.pass(&finalist.assignment);
        let score = search.score(&summary);
        if !standard.get_or_insert(score).is_better_than(&score) {
            kept.push(finalist);
            summaries.push(summary);
        }
    }
    *finalists = kept;
    summaries
}

/// Whether no plan differs from draw to draw.
fn is_certain(regrets: &[Vec<Regret>]) -> bool {
    let is_same = |a: &Regret, b: &Regret| (a.total - b.total).abs() <= RELATIVE_EPSILON * b.total.abs();
    regrets.iter().all(|of| of.iter().all(|x| is_same(x, &of[0])))
}

/// The one that gains most over the first, of those that gain in nearly all draws; else the first.
fn steadiest(regrets: &[Vec<Regret>]) -> usize {
    let by = |of: fn(&Regret) -> f64| -> Vec<(f64, f64)> {
        let column = |regrets: &Vec<Regret>| regrets.iter().map(of).collect::<Vec<f64>>();
        let standard = column(&regrets[0]);
        regrets.iter().map(|regrets| gain(&standard, &column(regrets))).collect()
    };
    let (total, of_limit) = (by(|r| r.total), by(|r| r.of_limit));
    let within = by(|r| r.total - r.of_limit);
    let is_sure = |(mean, part): (f64, f64)| mean > 0.0 && part >= BETTER_MIN;
    let is_steady = |at: &usize| is_sure(total[*at]) || (of_limit[*at].0 >= 0.0 && is_sure(within[*at]));
    let most = (1..regrets.len()).filter(is_steady).max_by(|&a, &b| total[a].0.total_cmp(&total[b].0));
    most.unwrap_or(0)
}

/// `chosen`, unless that is predicted to miss the limit and others are not, and keep it in no fewer draws:
/// then the best of these.
fn within_limit(chosen: usize, keeps: &[bool], regrets: &[Vec<Regret>]) -> usize {
    let kept = |at: usize| regrets[at].iter().filter(|regret| regret.of_limit <= 0.0).count();
    let total = |at: usize| regrets[at].iter().map(|regret| regret.total).sum::<f64>();
    let may = |at: &usize| !keeps[chosen] && keeps[*at] && kept(*at) >= kept(chosen);
    let best = (0..keeps.len()).filter(may).min_by(|&a, &b| total(a).total_cmp(&total(b)));
    best.unwrap_or(chosen)
}

/// Mean by which `of` stays below `standard` draw by draw, and the part of the draws in which it does.
fn gain(standard: &[f64], of: &[f64]) -> (f64, f64) {
    let count = of.len() as f64;
    let by = || standard.iter().zip(of).map(|(a, b)| a - b);
    (by().sum::<f64>() / count, by().filter(|gain| *gain > 0.0).count() as f64 / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_limit(totals: [f64; 4]) -> Vec<Regret> {
        totals.iter().map(|&total| Regret { total, of_limit: 0.0 }).collect()
    }

    #[test]
    fn only_a_gain_in_nearly_all_draws_is_taken() {
        let standard = without_limit([10.0, 12.0, 14.0, 16.0]);
        let steady = without_limit([9.0, 11.0, 13.0, 15.5]);
        let lucky = without_limit([2.0, 13.0, 15.0, 17.0]);
        assert_eq!(steadiest(&[standard.clone(), lucky.clone()]), 0, "it gains more, once");
        assert_eq!(steadiest(&[standard.clone(), lucky, steady]), 2);
        assert_eq!(steadiest(&[standard.clone(), standard.clone()]), 0, "of equals the first");
        // One start that takes long makes the gain vary more than it is.
        let with_a_long_start = without_limit([10.0, 12.0, 14.0, 900.0]);
        assert_eq!(steadiest(&[with_a_long_start, without_limit([9.0, 11.0, 13.0, 15.5])]), 1);
    }

    #[test]
    fn what_is_cheaper_and_misses_a_limit_no_more_is_taken_though_it_misses_it_elsewhere() {
        let drawn = |within: f64, of_limit: [f64; 4]| -> Vec<Regret> {
            of_limit.iter().map(|&of_limit| Regret { total: within + of_limit, of_limit }).collect()
        };
        let standard = drawn(5.0, [4.0, 0.0, 4.0, 0.0]);
        let elsewhere = drawn(4.0, [0.0, 4.0, 0.0, 4.0]);
        let later = drawn(4.0, [0.0, 4.0, 1.0, 4.0]);
        assert_eq!(steadiest(&[standard.clone(), elsewhere]), 1);
        assert_eq!(steadiest(&[standard, later]), 0);
    }

    #[test]
    fn who_is_predicted_to_keep_the_limit_is_taken_unless_that_is_less_often_so() {
        let drawn = |of_limit: [f64; 4]| -> Vec<Regret> {
            of_limit.iter().map(|&of_limit| Regret { total: 1.0 + of_limit, of_limit }).collect()
        };
        let late = drawn([1.0, 0.0, 2.0, 0.0]);
        let as_often = drawn([0.0, 3.0, 0.0, 9.0]);
        let more_seldom = drawn([0.0, 3.0, 1.0, 1.0]);
        let nearer = drawn([0.0, 1.0, 0.0, 1.0]);
        let all = [late.clone(), more_seldom.clone(), as_often.clone(), nearer];
        assert_eq!(within_limit(0, &[false, true, true, true], &all), 3, "the best of those that do");
        assert_eq!(within_limit(0, &[false, true, true, false], &all), 2);
        assert_eq!(within_limit(0, &[false, true], &[late.clone(), more_seldom]), 0);
        assert_eq!(within_limit(0, &[true, true], &[late, as_often]), 0, "it keeps the limit itself");
    }
}
