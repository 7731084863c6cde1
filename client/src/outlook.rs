//! The outlook of a plan in words: how its makespan and cost spread, and how likely its limits are kept.

use foresail_schemas::Plan;
use foresail_schemas::uncertainty::{Probability, Range};

use crate::units;

/// The outlook as lines of text; empty where the plan has none.
#[must_use]
pub fn in_words(plan: &Plan) -> String {
    let Some(outlook) = &plan.outlook else { return String::new() };
    let of = |range: &Range, show: fn(f64) -> String| {
        format!(
            "{} to {}, median {}, p95 {}, p99 {}",
            show(range.p5),
            show(range.p90),
            show(range.median),
            show(range.p95),
            show(range.p99)
        )
    };
    let mut text = format!(
        "outlook over {} draws (p5 to p90)\n  makespan  {}\n  cost      {}\n  \
         {:.1} cold starts on the average\n",
        outlook.draws,
        of(&outlook.makespan_ms, units::ms),
        of(&outlook.cost_usd, units::usd),
        outlook.cold_starts
    );
    let percent = |p: &Probability| {
        format!(
            "in {:.1} % of the draws (95 % interval {:.1} to {:.1} %)",
            100.0 * p.measured,
            100.0 * p.low,
            100.0 * p.high
        )
    };
    if let Some(kept) = &outlook.in_time {
        text += &format!("  ends within {} {}", units::ms(kept.limit), percent(kept));
        text += &match (outlook.asked, outlook.keeps(), outlook.feasible_ms) {
            (Some(asked), Some(false), Some(ms)) => {
                format!("; asked were {:.1} %, which {} would have\n", 100.0 * asked, units::ms(ms))
            }
            (Some(asked), ..) => format!("; asked were {:.1} %\n", 100.0 * asked),
            _ => "\n".to_owned(),
        };
    }
    if let Some(kept) = &outlook.in_budget {
        text += &format!("  costs at most {} {}\n", units::usd(kept.limit), percent(kept));
    }
    match outlook.certain_tasks {
        0 => {}
        1 => text += "  1 task was never measured: its time is taken as certain\n",
        tasks => text += &format!("  {tasks} tasks were never measured: their times are taken as certain\n"),
    }
    text
}
