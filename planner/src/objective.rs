//! Which of two plans is better under an objective.
//!
//! A score is three numbers, compared in order; less is better, and what differs by less than a billionth
//! counts as equal, so that the order of additions decides nothing.

use std::cmp::Ordering;

use foresail_schemas::plan::{Objective, PlanSummary};

/// Relative difference below which two numbers count as equal.
pub(crate) const RELATIVE_EPSILON: f64 = 1e-9;

/// How good a plan is: less is better.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Score([f64; 3]);

impl Score {
    /// Compares; numbers that are equal but for rounding count as equal.
    pub fn compare(&self, other: &Self) -> Ordering {
        for (a, b) in self.0.iter().zip(&other.0) {
            let equal = (a - b).abs() <= RELATIVE_EPSILON * a.abs().max(b.abs());
            if !equal {
                return a.total_cmp(b);
            }
        }
        Ordering::Equal
    }

    pub fn is_better_than(&self, other: &Self) -> bool {
        self.compare(other) == Ordering::Less
    }
}

/// Scores a plan. `bounds` are LB_T in ms and LB_C in USD; only [`Objective::Balance`] looks at them.
pub(crate) fn score(objective: &Objective, summary: &PlanSummary, bounds: (f64, f64)) -> Score {
    let (time, cost) = (summary.makespan_ms, summary.cost_usd);
    Score(match *objective {
        Objective::Fastest => [time, cost, 0.0],
        Objective::Cheapest => [cost, time, 0.0],
        Objective::Deadline { makespan_ms } | Objective::Confidence { makespan_ms, .. } => {
            [(time - makespan_ms).max(0.0), cost, time]
        }
        Objective::Budget { cost_usd } => [(cost - cost_usd).max(0.0), time, cost],
        Objective::Balance { time_weight } => {
            let weight = time_weight.clamp(0.0, 1.0);
            let over = |value: f64, bound: f64| if bound > 0.0 { value / bound } else { value };
            [weight * over(time, bounds.0) + (1.0 - weight) * over(cost, bounds.1), time, cost]
        }
    })
}

/// Which of two plans is better under an objective: `Less` where `a` is, `Equal` but for rounding. `bounds`
/// are LB_T in ms and LB_C in USD.
#[must_use]
pub fn compare(objective: &Objective, a: &PlanSummary, b: &PlanSummary, bounds: (f64, f64)) -> Ordering {
    score(objective, a, bounds).compare(&score(objective, b, bounds))
}

/// Weight of what an objective does not ask for, so that it still decides between near equals.
const ASIDE: f64 = 0.005;
/// How much worse it is to miss a limit by a part than to be worse by that part.
const LIMIT_WEIGHT: f64 = 30.0;

/// The objective as one number for a search that goes through worse plans; less is better. A plan at both
/// bounds has about 1.
pub(crate) fn energy(objective: &Objective, summary: &PlanSummary, bounds: (f64, f64)) -> f64 {
    let over = |value: f64, bound: f64| if bound > 0.0 { value / bound } else { value };
    let (time, cost) = (over(summary.makespan_ms, bounds.0), over(summary.cost_usd, bounds.1));
    match *objective {
        Objective::Fastest => time + ASIDE * cost,
        Objective::Cheapest => cost + ASIDE * time,
        Objective::Deadline { makespan_ms } | Objective::Confidence { makespan_ms, .. } => {
            let late = over(summary.makespan_ms, makespan_ms.max(bounds.0)) - 1.0;
            cost + LIMIT_WEIGHT * late.max(0.0) + ASIDE * ASIDE * time
        }
        Objective::Budget { cost_usd } => {
            let dear = over(summary.cost_usd, cost_usd.max(bounds.1)) - 1.0;
            time + LIMIT_WEIGHT * dear.max(0.0) + ASIDE * ASIDE * cost
        }
        Objective::Balance { time_weight } => {
            let weight = time_weight.clamp(0.0, 1.0);
            weight * time + (1.0 - weight) * cost
        }
    }
}

/// As [`energy`], of a run that was drawn: what the objective does not ask for decides between near equals
/// alone.
pub(crate) fn regret(objective: &Objective, summary: &PlanSummary, bounds: (f64, f64)) -> f64 {
    let over = |value: f64, bound: f64| if bound > 0.0 { value / bound } else { value };
    let (time, cost) = (over(summary.makespan_ms, bounds.0), over(summary.cost_usd, bounds.1));
    match *objective {
        Objective::Fastest => time + ASIDE * ASIDE * cost,
        Objective::Cheapest => cost + ASIDE * ASIDE * time,
        _ => energy(objective, summary, bounds),
    }
}

/// The part of [`regret`] that is for a limit that is missed.
pub(crate) fn limit_regret(objective: &Objective, summary: &PlanSummary, bounds: (f64, f64)) -> f64 {
    let over = |value: f64, limit: f64| if limit > 0.0 { (value / limit - 1.0).max(0.0) } else { 0.0 };
    LIMIT_WEIGHT
        * match *objective {
            Objective::Deadline { makespan_ms } | Objective::Confidence { makespan_ms, .. } => {
                over(summary.makespan_ms, makespan_ms.max(bounds.0))
            }
            Objective::Budget { cost_usd } => over(summary.cost_usd, cost_usd.max(bounds.1)),
            Objective::Fastest | Objective::Cheapest | Objective::Balance { .. } => 0.0,
        }
}

/// The objective in words.
pub(crate) fn in_words(objective: &Objective) -> String {
    match objective {
        Objective::Fastest => "the shortest makespan".to_owned(),
        Objective::Cheapest => "the least cost".to_owned(),
        Objective::Deadline { makespan_ms } => format!("the least cost within {makespan_ms:.0} ms"),
        Objective::Confidence { makespan_ms, probability } => {
            format!("the least cost within {makespan_ms:.0} ms in {:.1} % of all runs", 100.0 * probability)
        }
        Objective::Budget { cost_usd } => format!("the shortest makespan for at most {cost_usd:.8} USD"),
        Objective::Balance { time_weight } => {
            format!("{:.0} % weight on time, the rest on cost", 100.0 * time_weight.clamp(0.0, 1.0))
        }
    }
}

/// What an objective limits of a plan, makespan in ms or cost in USD, and to how much.
fn limited(objective: &Objective, summary: &PlanSummary) -> Option<(f64, f64)> {
    match *objective {
        Objective::Deadline { makespan_ms } | Objective::Confidence { makespan_ms, .. } => {
            Some((summary.makespan_ms, makespan_ms))
        }
        Objective::Budget { cost_usd } => Some((summary.cost_usd, cost_usd)),
        Objective::Fastest | Objective::Cheapest | Objective::Balance { .. } => None,
    }
}

/// Whether a plan keeps the limit that the objective sets, if it sets one.
pub(crate) fn keeps_limit(objective: &Objective, summary: &PlanSummary) -> bool {
    limited(objective, summary).is_none_or(|(value, limit)| value <= limit)
}

/// The one of `found` that is best at what the objective limits; nothing where it limits nothing.
pub(crate) fn nearest_limit<'s>(
    objective: &Objective,
    found: impl Iterator<Item = &'s PlanSummary>,
) -> Option<PlanSummary> {
    let values = found.filter_map(|s| Some((limited(objective, s)?.0, *s)));
    values.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, summary)| summary)
}

/// What to say where the plan misses its limit; nothing where it does not. `nearest` is the plan that is best
/// at what is limited, of those that it was chosen from, where it was chosen from any.
pub(crate) fn missed(
    objective: &Objective,
    summary: &PlanSummary,
    bounds: (f64, f64),
    nearest: Option<&PlanSummary>,
) -> Option<String> {
    if keeps_limit(objective, summary) {
        return None;
    }
    let by = nearest.map(|nearest| {
        let value = |s| limited(objective, s).map_or(0.0, |(value, _)| value);
        value(summary) <= value(nearest) * (1.0 + RELATIVE_EPSILON)
    });
    Some(match (*objective, by, nearest) {
        (Objective::Deadline { makespan_ms }, Some(true), _) => format!(
            "The deadline of {makespan_ms:.0} ms is not met: this is the fastest plan found. {:.0} ms is \
             feasible; below {:.0} ms none is.",
            summary.makespan_ms.ceil(),
            bounds.0
        ),
        (Objective::Deadline { makespan_ms }, _, nearest) => format!(
            "The deadline of {makespan_ms:.0} ms is not met: this plan takes {:.0} ms{}. Below {:.0} ms none \
             is feasible.",
            summary.makespan_ms.ceil(),
            nearest
                .map_or_else(String::new, |s| format!(", the fastest timed {:.0} ms", s.makespan_ms.ceil())),
            bounds.0
        ),
        (Objective::Budget { cost_usd }, Some(true), _) => format!(
            "The budget of {cost_usd:.8} USD is not kept: this is the cheapest plan found. {:.8} USD is \
             feasible; below {:.8} USD none is.",
            summary.cost_usd, bounds.1
        ),
        (Objective::Budget { cost_usd }, _, nearest) => format!(
            "The budget of {cost_usd:.8} USD is not kept: this plan costs {:.8} USD{}. Below {:.8} USD none \
             is feasible.",
            summary.cost_usd,
            nearest.map_or_else(String::new, |s| format!(", the cheapest timed {:.8} USD", s.cost_usd)),
            bounds.1
        ),
        (Objective::Confidence { makespan_ms, .. }, ..) => format!(
            "By the times predicted the deadline of {makespan_ms:.0} ms is missed; below {:.0} ms none is \
             feasible.",
            bounds.0
        ),
        (Objective::Fastest | Objective::Cheapest | Objective::Balance { .. }, ..) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(makespan_ms: f64, cost_usd: f64) -> PlanSummary {
        PlanSummary { makespan_ms, cost_usd, ..PlanSummary::default() }
    }

    #[test]
    fn every_objective_prefers_what_it_says() {
        let (fast, cheap) = (summary(10.0, 8.0), summary(20.0, 2.0));
        for (objective, prefers_fast) in [
            (Objective::Fastest, true),
            (Objective::Cheapest, false),
            (Objective::Deadline { makespan_ms: 15.0 }, true),
            (Objective::Deadline { makespan_ms: 25.0 }, false),
            (Objective::Deadline { makespan_ms: 5.0 }, true),
            (Objective::Budget { cost_usd: 9.0 }, true),
            (Objective::Budget { cost_usd: 3.0 }, false),
            (Objective::Budget { cost_usd: 1.0 }, false),
            (Objective::Balance { time_weight: 1.0 }, true),
            (Objective::Balance { time_weight: 0.0 }, false),
        ] {
            let [fast, cheap] = [fast, cheap].map(|s| score(&objective, &s, (1.0, 1.0)));
            assert_eq!(fast.is_better_than(&cheap), prefers_fast, "{objective:?}");
            assert!(!fast.is_better_than(&fast));
        }
    }

    #[test]
    fn a_missed_limit_is_said_with_what_would_be_feasible() {
        let (late, bounds) = (summary(9.5, 1.0), (4.0, 0.5));
        let said = |objective: Objective, nearest: Option<PlanSummary>| {
            missed(&objective, &late, bounds, nearest.as_ref()).expect("it misses the limit")
        };
        let (deadline, budget) =
            (Objective::Deadline { makespan_ms: 5.0 }, Objective::Budget { cost_usd: 0.7 });
        for (objective, nearest, expected) in [
            (deadline, Some(late), "fastest plan found. 10 ms is feasible; below 4 ms none is."),
            (
                deadline,
                Some(summary(4.5, 9.0)),
                "this plan takes 10 ms, the fastest timed 5 ms. Below 4 ms none",
            ),
            (deadline, None, "this plan takes 10 ms. Below 4 ms none is feasible."),
            (
                budget,
                Some(late),
                "cheapest plan found. 1.00000000 USD is feasible; below 0.50000000 USD none",
            ),
            (
                budget,
                Some(summary(99.0, 0.6)),
                "costs 1.00000000 USD, the cheapest timed 0.60000000 USD. Below",
            ),
            (budget, None, "this plan costs 1.00000000 USD. Below 0.50000000 USD none is feasible."),
        ] {
            let text = said(objective, nearest);
            assert!(text.contains(expected), "{text}");
        }
        assert_eq!(missed(&Objective::Fastest, &late, bounds, None), None);
    }

    #[test]
    fn the_nearest_to_a_limit_is_found_by_what_is_limited() {
        let found = [summary(10.0, 8.0), summary(20.0, 2.0)];
        let of = |objective| nearest_limit(&objective, found.iter()).map(|s| s.makespan_ms);
        assert_eq!(of(Objective::Deadline { makespan_ms: 5.0 }), Some(10.0));
        assert_eq!(of(Objective::Budget { cost_usd: 1.0 }), Some(20.0));
        assert_eq!(of(Objective::Fastest), None);
    }
}
