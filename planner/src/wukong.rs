//! `wukong`: flexible workers that keep large outputs where they are: task clustering on fan-outs and
//! fan-ins, and delayed I/O, each with its switch, above a threshold of bytes.
//!
//! Source: WUKONG (Carver et al., SoCC'20). Its static part is what flexible workers do by themselves: of the
//! children that a task makes ready the first is run where it ran (become), workers are started for the
//! others (invoke). What workers decide at run time is not in the timing pass, so plans are timed by the
//! event simulator, one per useful size.

use foresail_schemas::optimization::FlexibleRules;
use foresail_schemas::plan::{Plan, Problem};
use foresail_schemas::run::RunOptions;

use crate::bounds;
use crate::dense::{Dense, NONE};
use crate::error::PlanFailure;
use crate::explain;
use crate::objective::score;
use crate::planner::Planner;
use crate::search::Search;
use crate::simple;
use crate::simulate::{Simulated, simulate};

/// Name of the switch that turns all off.
const NONE_OF_THEM: &str = "none";

/// The planner.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wukong {
    pub rules: FlexibleRules,
}

impl Planner for Wukong {
    fn name(&self) -> &'static str {
        "wukong"
    }

    fn plan(&self, problem: &Problem) -> Result<Plan, PlanFailure> {
        let dense = Dense::new(problem)?;
        let sizes = if dense.is_blind() { vec![dense.default_size()] } else { dense.useful.clone() };
        let mut plans = Vec::with_capacity(sizes.len());
        for size in sizes {
            plans.push(self.of_size(&dense, size)?);
        }
        let floor = bounds::Floor::new(&dense).pair();
        let best = plans.into_iter().reduce(|best, next| {
            let (new, old) = (&next.predicted, &best.predicted);
            let is_better =
                score(&problem.objective, new, floor).is_better_than(&score(&problem.objective, old, floor));
            if is_better { next } else { best }
        });
        Ok(best.expect("there is a useful size, or planning has failed before"))
    }
}

impl Wukong {
    /// The planner of these words after the colon: switches joined by `+`, or `none`, and the threshold in
    /// bytes after `@`.
    pub fn parse(words: &str) -> Option<Self> {
        let (switches, bytes) = match words.split_once('@') {
            Some((switches, bytes)) => (switches, Some(bytes.parse().ok()?)),
            None => (words, None),
        };
        let default = FlexibleRules::default();
        let mut rules = FlexibleRules {
            cluster_fan_out: false,
            cluster_fan_in: false,
            delayed_io: false,
            large_output_bytes: bytes.unwrap_or(default.large_output_bytes),
        };
        if switches.is_empty() {
            rules = FlexibleRules { large_output_bytes: rules.large_output_bytes, ..default };
        } else if switches != NONE_OF_THEM {
            for switch in switches.split('+') {
                match switch {
                    "fan-out" => rules.cluster_fan_out = true,
                    "fan-in" => rules.cluster_fan_in = true,
                    "delayed-io" => rules.delayed_io = true,
                    _ => return None,
                }
            }
        }
        Some(Self { rules })
    }

    fn of_size(&self, dense: &Dense, size: u32) -> Result<Plan, PlanFailure> {
        let mut search = Search::new(dense);
        simple::offer_size(&mut search, size);
        simulated(dense, search.plan(self.name()), self.rules)
    }
}

/// The plan under these rules, with the times that the event simulator gives it. Its bounds are those of
/// plans that store nothing but results: what is held is not stored.
pub(crate) fn simulated(dense: &Dense, mut plan: Plan, rules: FlexibleRules) -> Result<Plan, PlanFailure> {
    plan.flexible = Some(rules);
    for (task, planned) in plan.tasks.iter_mut().enumerate() {
        let writes = dense.graph.writes(task as u32);
        planned.output_bytes = Some(writes.iter().map(|&object| dense.object_bytes(object)).sum());
    }
    let simulated = simulate(dense.problem, &plan, &RunOptions::default())
        .map_err(|failure| PlanFailure::Simulation(failure.to_string()))?;
    for (at, planned) in plan.tasks.iter_mut().enumerate() {
        (planned.start_ms, planned.end_ms) = (simulated.start_ms[at], simulated.end_ms[at]);
    }
    for worker in &mut plan.workers {
        for task in plan.tasks.iter().filter(|task| task.worker.as_ref() == Some(&worker.id)) {
            worker.start_ms = worker.start_ms.min(task.start_ms);
            worker.end_ms = worker.end_ms.max(task.end_ms);
        }
    }
    let floor = bounds::Floor::new(&Dense::storing_results_only(dense.problem)?).pair();
    (plan.predicted, plan.usage) = (simulated.summary, simulated.usage.clone());
    plan.bounds = bounds::gap(floor, &plan.predicted);
    let path = path(dense, &simulated);
    plan.critical_path = path.iter().map(|&t| plan.tasks[t as usize].task.clone()).collect();
    plan.explanation = explained(dense, &plan, rules, &path);
    Ok(plan)
}

/// The sentences of the plan without the rules, those about its times put right.
fn explained(dense: &Dense, plan: &Plan, rules: FlexibleRules, path: &[u32]) -> Vec<String> {
    let FlexibleRules { cluster_fan_out, cluster_fan_in, delayed_io, large_output_bytes } = rules;
    let switch = |name: &str, is_on: bool| format!("{name} {}", if is_on { "on" } else { "off" });
    let large = plan.tasks.iter().filter(|t| t.output_bytes >= Some(large_output_bytes)).count();
    let mut sentences = vec![
        format!(
            "`{}` took flexible workers of {}: {:.0} ms, {:.8} USD by the event simulator.",
            plan.planner, plan.tasks[0].config, plan.predicted.makespan_ms, plan.predicted.cost_usd
        ),
        format!(
            "{}, {}, {}, above {large_output_bytes} bytes: {large} of {} tasks write as much.",
            switch("Clustering of fan-outs", cluster_fan_out),
            switch("of fan-ins", cluster_fan_in),
            switch("delayed I/O", delayed_io),
            plan.tasks.len()
        ),
    ];
    let is_of_times = |s: &str| s.starts_with("No plan takes") || s.starts_with("The makespan is decided");
    sentences.extend(plan.explanation.iter().skip(1).filter(|s| !is_of_times(s)).cloned());
    sentences.push(explain::bounds_in_words(&plan.bounds));
    sentences.push(explain::path_in_words(dense, path));
    sentences
}

/// From the task that ends last back over the parents that ended last, first to last.
fn path(dense: &Dense, simulated: &Simulated) -> Vec<u32> {
    let latest = |tasks: &mut dyn Iterator<Item = u32>| {
        let end_ms = |t: &u32| simulated.end_ms[*t as usize];
        tasks.max_by(|a, b| end_ms(a).total_cmp(&end_ms(b)).then(b.cmp(a))).unwrap_or(NONE)
    };
    let mut path = Vec::new();
    let mut at = latest(&mut (0..dense.len()));
    while at != NONE {
        path.push(at);
        at = latest(&mut dense.graph.parents(at).iter().copied());
    }
    path.reverse();
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::find;

    #[test]
    fn switches_and_threshold_are_read() {
        let rules = |text: &str| Wukong::parse(text).map(|w| w.rules);
        assert_eq!(rules("@7"), Some(FlexibleRules { large_output_bytes: 7, ..FlexibleRules::default() }));
        let none = rules("none").unwrap();
        assert!(!none.cluster_fan_in && !none.cluster_fan_out && !none.delayed_io);
        let two = rules("fan-out+delayed-io@9").unwrap();
        assert!(two.cluster_fan_out && two.delayed_io && !two.cluster_fan_in && two.large_output_bytes == 9);
        for wrong in ["", "fan", "none+fan-in", "@x", "fan-out@"] {
            assert!(wrong.is_empty() || rules(wrong).is_none(), "{wrong}");
        }
        assert!(find("wukong").is_ok() && find("wukong:none").is_ok() && find("wukong:all").is_err());
    }
}
