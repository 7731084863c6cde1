//! What is planned from hints alone: what `auto` says where it keeps to a plan that others beat by the times
//! predicted.

use foresail_planner::shapes::Shape;
use foresail_planner::{blind_table, bounds, find, plan};
use foresail_schemas::plan::{Objective, Plan, PlanSummary, Problem};
use foresail_schemas::{Platform, Sla};

use crate::instances;

fn by(name: &str, problem: &Problem) -> Plan {
    plan(problem, find(name).expect("it exists").as_ref()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn problem(shape: Shape, platform: &Platform, task_ms_max: f64, objective: Objective) -> Problem {
    let workflow = instances::scaled(&shape.workflow(), task_ms_max);
    let (platform, seed, without) = (platform.clone(), 1, Vec::new());
    let predictions = blind_table(&workflow, &platform, Sla::MEDIAN);
    Problem { workflow, platform, predictions, objective, seed, without }
}

/// What the candidates take in ms and cost in USD, as the explanation lists them.
fn candidates(plan: &Plan) -> Vec<(f64, f64)> {
    let lines = plan.explanation.iter().skip_while(|line| !line.contains("candidates were timed")).skip(1);
    let numbers = |line: &String| {
        let (_, numbers) = line.rsplit_once(": ")?;
        let (ms, usd) = numbers.split_once(" ms, ")?;
        Some((ms.parse().ok()?, usd.strip_suffix(" USD")?.parse().ok()?))
    };
    lines.map_while(numbers).collect()
}

fn says(plan: &Plan, words: &str) -> bool {
    plan.explanation.iter().any(|line| line.contains(words))
}

#[test]
fn no_plan_is_called_the_fastest_or_cheapest_found_that_is_not() {
    let (mut missed, mut kept) = (0, 0);
    for shape in [Shape::Gemm(3), Shape::Svd(6), Shape::Layered(3, 6), Shape::ForkJoin(2, 9)] {
        for platform in Platform::built_in() {
            let [least_ms, least_usd] = <[f64; 2]>::from(
                bounds(&problem(shape, &platform, 5_000.0, Objective::Fastest)).expect("it is a problem"),
            );
            for factor in [0.0, 1.05, 1.2, 1.6] {
                let (makespan_ms, cost_usd) = (factor * least_ms, factor * least_usd);
                let keeps_in_time = move |ms: f64, _: f64| ms <= makespan_ms;
                let keeps_in_budget = move |_: f64, usd: f64| usd <= cost_usd;
                type Keeps = Box<dyn Fn(f64, f64) -> bool>;
                let limits: [(Objective, Keeps); 2] = [
                    (Objective::Deadline { makespan_ms }, Box::new(keeps_in_time)),
                    (Objective::Budget { cost_usd }, Box::new(keeps_in_budget)),
                ];
                for (objective, keeps) in limits {
                    let plan = by("auto:0.02", &problem(shape, &platform, 5_000.0, objective));
                    let PlanSummary { makespan_ms: ms, cost_usd: usd, .. } = plan.predicted;
                    let case = format!("{shape}, {}, {objective:?}: {:#?}", platform.name, plan.explanation);
                    let found = candidates(&plan);
                    assert!(!found.is_empty(), "{case}");
                    if keeps(ms, usd) {
                        kept += 1;
                        continue;
                    }
                    missed += 1;
                    // The numbers in the list are rounded.
                    let is_least = match objective {
                        Objective::Budget { .. } => found.iter().all(|(_, other)| usd <= other + 1e-8),
                        _ => found.iter().all(|(other, _)| ms <= other + 1.0),
                    };
                    assert_eq!(says(&plan, "est plan found"), is_least, "{case}");
                    // Whoever is predicted to keep the limit is taken, unless that is less often so.
                    if found.iter().any(|&(ms, usd)| keeps(ms + 1.0, usd + 1e-8)) {
                        assert!(says(&plan, "do so in fewer draws"), "{case}");
                    }
                }
            }
        }
    }
    println!("{kept} limits are kept, {missed} are not");
    assert!(kept > 20 && missed > 20, "{kept} kept, {missed} missed");
}

#[test]
fn a_probability_that_nothing_can_be_told_of_is_said_to_be_none_by_whoever_plans() {
    let objective = Objective::Confidence { makespan_ms: 20_000.0, probability: 0.95 };
    let problem = problem(Shape::ForkJoin(2, 4), &Platform::built_in()[1], 5_000.0, objective);
    let unknown = "Nothing is known of how times spread, so nothing is said about any probability.";
    for name in ["auto:0.02", "simple", "sweep", "robust"] {
        let plan = by(name, &problem);
        assert!(plan.outlook.is_none(), "{name}");
        let said = plan.explanation.iter().filter(|line| line.contains(unknown)).count();
        assert_eq!(said, 1, "{name}: {:#?}", plan.explanation);
        let told = Problem { objective: Objective::Deadline { makespan_ms: 20_000.0 }, ..problem.clone() };
        assert_eq!(says(&by(name, &told), unknown), name == "robust", "{name}");
    }
    assert!(says(&by("auto:0.02", &problem), "a factor of 3 either way is taken for usual"));
}
