//! What an optimisation brings in real runs: the same workload with and without it, in turns.
//!
//! Each repetition is a pair. The effect is the geometric mean of the ratio *with* over *without* over the
//! pairs, with its 95 % confidence interval by Student's t on the logarithms, so that what slows a machine
//! down for a while slows both sides. Below 1 it brings something, where the whole interval lies below 1.

use serde::Serialize;

use super::runs::{RunRow, mean};

/// One repetition.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pair {
    /// The workflow as it was asked for.
    pub workload: String,
    /// The optimisation.
    pub optimisation: String,
    /// How often the plan has it; nothing where that is no matter of the plan.
    pub planned: Option<u64>,
    /// The run with it.
    pub with: RunRow,
    /// The run without it.
    pub without: RunRow,
}

/// A ratio and its 95 % confidence interval; nothing where there is one pair.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratio {
    /// Geometric mean.
    pub mean: f64,
    /// From and to.
    pub interval: Option<[f64; 2]>,
}

/// One optimisation on one workload.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Effect {
    /// The workflow as it was asked for.
    pub workload: String,
    /// The optimisation.
    pub optimisation: String,
    /// Who planned.
    pub planner: String,
    /// Repetitions.
    pub pairs: u64,
    /// Repetitions whose plan has it; all of them where that is no matter of the plan.
    pub planned: u64,
    /// Mean makespan with it, in ms.
    pub with_ms: f64,
    /// Mean makespan without it, in ms.
    pub without_ms: f64,
    /// Makespan with over without.
    pub makespan: Ratio,
    /// Cost with over without.
    pub cost: Ratio,
    /// Bytes moved, with over without; 1 where nothing is moved.
    pub moved: f64,
    /// Runs with other results than the reference.
    pub wrong: u64,
}

impl Effect {
    /// What the interval of the makespan says.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match self.makespan.interval {
            _ if self.planned == 0 => "not planned",
            Some([_, to]) if to < 1.0 => "faster",
            Some([from, _]) if from > 1.0 => "slower",
            _ => "no difference seen",
        }
    }
}

/// Pairs in short, in the order in which workflows and optimisations first stand there.
#[must_use]
pub fn effects(pairs: &[Pair]) -> Vec<Effect> {
    let mut order: Vec<(&str, &str)> = Vec::new();
    for pair in pairs {
        let key = (pair.workload.as_str(), pair.optimisation.as_str());
        if !order.contains(&key) {
            order.push(key);
        }
    }
    order.into_iter().map(|key| effect(key, pairs)).collect()
}

fn effect((workload, optimisation): (&str, &str), pairs: &[Pair]) -> Effect {
    let of: Vec<&Pair> =
        pairs.iter().filter(|p| p.workload == workload && p.optimisation == optimisation).collect();
    let makespan_ms = |row: &RunRow| row.actual.makespan_ms;
    let moved = |row: &RunRow| (row.actual.download_bytes + row.actual.upload_bytes) as f64;
    let sum = |side: fn(&Pair) -> &RunRow| of.iter().map(|pair| moved(side(pair))).sum::<f64>();
    let wrong = of.iter().flat_map(|pair| [&pair.with, &pair.without]).filter(|row| !row.is_correct);
    let without_bytes = sum(|pair| &pair.without);
    Effect {
        workload: workload.to_owned(),
        optimisation: optimisation.to_owned(),
        planner: of.first().map(|pair| pair.with.planner.clone()).unwrap_or_default(),
        pairs: of.len() as u64,
        planned: of.iter().filter(|pair| pair.planned.is_none_or(|count| count > 0)).count() as u64,
        with_ms: mean(of.iter().map(|pair| makespan_ms(&pair.with))).mean,
        without_ms: mean(of.iter().map(|pair| makespan_ms(&pair.without))).mean,
        makespan: ratio(of.iter().map(|p| (makespan_ms(&p.with), makespan_ms(&p.without)))),
        cost: ratio(of.iter().map(|p| (p.with.actual.cost_usd, p.without.actual.cost_usd))),
        moved: if without_bytes > 0.0 { sum(|pair| &pair.with) / without_bytes } else { 1.0 },
        wrong: wrong.count() as u64,
    }
}

fn ratio(pairs: impl Iterator<Item = (f64, f64)>) -> Ratio {
    let known = pairs.filter(|(with, without)| *with > 0.0 && *without > 0.0);
    let logarithm = mean(known.map(|(with, without)| (with / without).ln()));
    let interval =
        logarithm.margin.map(|margin| [(logarithm.mean - margin).exp(), (logarithm.mean + margin).exp()]);
    Ratio { mean: logarithm.mean.exp(), interval }
}

#[cfg(test)]
mod tests {
    use foresail_schemas::plan::PlanSummary;

    use super::*;

    fn pair(repeat: u32, with_ms: f64, without_ms: f64, planned: Option<u64>) -> Pair {
        let row = |makespan_ms| RunRow {
            workload: "w".to_owned(),
            tasks: 1,
            planner: "nonuniform".to_owned(),
            repeat,
            learned_from: 0,
            planning_ms: 0.0,
            predicted: PlanSummary::default(),
            actual: PlanSummary { makespan_ms, cost_usd: 1.0, ..PlanSummary::default() },
            is_correct: true,
        };
        let (workload, optimisation) = ("w".to_owned(), "pre-load".to_owned());
        Pair { workload, optimisation, planned, with: row(with_ms), without: row(without_ms) }
    }

    #[test]
    fn what_slows_both_sides_of_a_pair_down_is_no_effect() {
        // The machine is ten times slower in the second repetition; with is a tenth faster in each.
        let pairs: Vec<Pair> = [(90.0, 100.0), (905.0, 1_000.0), (9.0, 10.0)]
            .iter()
            .enumerate()
            .map(|(at, &(with, without))| pair(at as u32 + 1, with, without, Some(1)))
            .collect();
        let effects = effects(&pairs);
        let effect = &effects[0];
        assert_eq!((effects.len(), effect.pairs, effect.planned), (1, 3, 3));
        assert!((effect.makespan.mean - 0.9).abs() < 0.01, "{effect:?}");
        assert_eq!(effect.verdict(), "faster");
        assert_eq!(effect.cost.interval, Some([1.0, 1.0]));
    }

    #[test]
    fn noise_is_no_difference_and_what_no_plan_has_is_said_so() {
        let noisy = [pair(1, 90.0, 100.0, None), pair(2, 110.0, 100.0, None), pair(3, 100.0, 100.0, None)];
        assert_eq!(effects(&noisy)[0].verdict(), "no difference seen");
        let absent = [pair(1, 50.0, 100.0, Some(0)), pair(2, 50.0, 100.0, Some(0))];
        assert_eq!(effects(&absent)[0].verdict(), "not planned");
        let slower = [pair(1, 120.0, 100.0, None), pair(2, 121.0, 100.0, None)];
        assert_eq!(effects(&slower)[0].verdict(), "slower");
        assert_eq!(effects(&slower[..1])[0].verdict(), "no difference seen", "one pair says nothing");
    }
}
