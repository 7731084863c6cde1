//! What holds for every planner on every drawn problem. `FORESAIL_PROOF=1` draws many more.

use std::cmp::Ordering;
use std::sync::atomic::{self, AtomicU64};

use foresail_planner::{Planner, bounds, plan, simulate, validate};
use foresail_schemas::plan::{Objective, Plan, PlanSummary, Problem};
use foresail_schemas::prediction::Basis;
use foresail_schemas::run::{ConfigUsage, RunOptions};

use crate::drawn::{self, planners};

/// Problems drawn in the normal test.
const PROBLEMS: u64 = 300;
/// Two numbers closer than this, relative to the larger, count as equal.
const ROUNDING: f64 = 1e-9;

/// The same under `FORESAIL_PROOF=1`, where a plan is only validated, and where it is carried out as well.
const PROBLEMS_PROOF: u64 = 100_000;
const SIMULATED_PROOF: u64 = 10_000;
/// Problems between two lines that tell how far a proof is.
const PROGRESS_EVERY: u64 = 10_000;

pub fn problems(proof: u64) -> std::ops::Range<u64> {
    let is_proof = std::env::var("FORESAIL_PROOF").is_ok_and(|v| v == "1");
    0..if is_proof { proof } else { PROBLEMS }
}

fn planned(seed: u64, problem: &Problem, planner: &dyn Planner) -> Plan {
    plan(problem, planner).unwrap_or_else(|e| panic!("seed {seed}, {}: {e}", planner.name()))
}

#[test]
fn every_plan_is_valid_and_keeps_the_bounds() {
    let next = AtomicU64::new(0);
    let seeds = problems(PROBLEMS_PROOF);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let check = || loop {
        let seed = next.fetch_add(1, atomic::Ordering::Relaxed);
        if !seeds.contains(&seed) {
            return;
        }
        if seed > 0 && seed.is_multiple_of(PROGRESS_EVERY) {
            println!("{seed} problems are planned and valid");
        }
        let problem = drawn::problem(seed);
        for planner in planners() {
            let plan = planned(seed, &problem, planner.as_ref());
            plan.check(&problem.workflow).unwrap_or_else(|e| panic!("seed {seed}, {}: {e}", planner.name()));
            validate(&problem, &plan).unwrap_or_else(|e| panic!("seed {seed}, {}: {e}", planner.name()));
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(check))));
}

#[test]
fn what_workers_are_predicted_to_use_is_what_the_plan_is_predicted_to_cost() {
    for seed in 0..60 {
        let mut problem = drawn::problem(seed);
        problem.platform.prices.transfer_gb_usd = 0.01;
        let rates = problem.platform.rates();
        for planner in planners() {
            let Plan { usage, predicted, .. } = planned(seed, &problem, planner.as_ref());
            let usd = |used: &ConfigUsage| {
                // A request is part of the price of one worker.
                let more = used.invocations as f64 - 1.0;
                rates.worker_usd(&used.config, &used.usage) + more * rates.request_usd(&used.config)
            };
            let sum: f64 = usage.iter().map(usd).sum();
            let case = format!("seed {seed}, {}", planner.name());
            assert!((sum - predicted.cost_usd).abs() <= ROUNDING * sum, "{case}: {sum} {predicted:?}");
            assert_eq!(
                usage.iter().map(|used| used.invocations).sum::<u64>(),
                predicted.invocations,
                "{case}"
            );
            assert_eq!(
                usage.iter().map(|used| used.cold_starts).sum::<u64>(),
                predicted.cold_starts,
                "{case}"
            );
        }
    }
}

#[test]
fn the_same_problem_gives_the_same_bytes() {
    for seed in 0..60 {
        let problem = drawn::problem(seed);
        for planner in planners() {
            let bytes =
                || serde_json::to_string(&planned(seed, &problem, planner.as_ref())).expect("a plan is JSON");
            assert_eq!(bytes(), bytes(), "seed {seed}, {}", planner.name());
        }
    }
}

#[test]
fn a_plan_survives_json() {
    let problem = drawn::problem(3);
    for planner in planners() {
        let plan = planned(3, &problem, planner.as_ref());
        let text = serde_json::to_string(&plan).expect("a plan is JSON");
        assert_eq!(serde_json::from_str::<Plan>(&text).expect("what was written can be read"), plan);
    }
}

/// The objective as the reader of a plan understands it; written apart from the planner's own.
fn better(objective: &Objective, a: &PlanSummary, b: &PlanSummary, bounds: (f64, f64)) -> Ordering {
    let keys = |s: &PlanSummary| match *objective {
        Objective::Fastest => [s.makespan_ms, s.cost_usd],
        Objective::Cheapest => [s.cost_usd, s.makespan_ms],
        Objective::Deadline { makespan_ms } | Objective::Confidence { makespan_ms, .. } => {
            [f64::max(0.0, s.makespan_ms - makespan_ms), s.cost_usd]
        }
        Objective::Budget { cost_usd } => [f64::max(0.0, s.cost_usd - cost_usd), s.makespan_ms],
        Objective::Balance { time_weight: w } => {
            [w * s.makespan_ms / bounds.0 + (1.0 - w) * s.cost_usd / bounds.1, s.makespan_ms]
        }
    };
    for (x, y) in keys(a).into_iter().zip(keys(b)) {
        if (x - y).abs() > ROUNDING * x.abs().max(y.abs()) {
            return x.total_cmp(&y);
        }
    }
    Ordering::Equal
}

/// Where nothing was measured they do not take what the others gain by guesses.
const AT_MOST_BLIND: [&str; 1] = ["simple"];
const AT_MOST: [&str; 4] = ["simple", "uniform", "nonuniform", "sweep"];

#[test]
fn auto_is_never_worse_than_any_other_planner_but_the_drawn() {
    for seed in problems(SIMULATED_PROOF) {
        let problem = drawn::problem(seed);
        let is_blind = problem.predictions.basis.iter().all(|b| *b == Basis::None);
        assert_never_worse(seed, &problem, "auto:0.005", if is_blind { &AT_MOST_BLIND } else { &AT_MOST });
    }
}

#[test]
fn anneal_is_never_worse_than_what_it_starts_from() {
    for seed in problems(SIMULATED_PROOF) {
        assert_never_worse(seed, &drawn::problem(seed), "anneal:0.005", &["simple", "sweep"]);
    }
}

fn assert_never_worse(seed: u64, problem: &Problem, name: &str, others: &[&str]) {
    let by = |name| planned(seed, problem, foresail_planner::find(name).expect("it exists").as_ref());
    let (bounds, one) = (bounds(problem).expect("a drawn problem is valid"), by(name));
    for other in others {
        let order = better(&problem.objective, &one.predicted, &by(other).predicted, bounds);
        assert_ne!(order, Ordering::Greater, "seed {seed}: {other} beats {name} at {:?}", problem.objective);
    }
}

#[test]
fn the_timing_pass_says_what_the_event_simulator_does() {
    let (mut makespan, mut cost, mut count) = (0.0, 0.0, 0.0);
    let mut worst = (0.0, String::new());
    for seed in problems(SIMULATED_PROOF) {
        let problem = drawn::problem(seed);
        let (least_ms, least_usd) = bounds(&problem).expect("a drawn problem is valid");
        // The event simulator itself times WUKONG's plans, and their bounds are others.
        for planner in planners().iter().filter(|p| p.name() != "wukong") {
            let plan = planned(seed, &problem, planner.as_ref());
            let simulated = simulate(&problem, &plan, &RunOptions::default())
                .unwrap_or_else(|e| panic!("seed {seed}, {}: {e}", planner.name()));
            let (said, done) = (&plan.predicted, &simulated.summary);
            assert!(done.makespan_ms >= least_ms * (1.0 - ROUNDING), "seed {seed}, {}", planner.name());
            assert!(done.cost_usd >= least_usd * (1.0 - ROUNDING), "seed {seed}, {}", planner.name());
            assert_eq!(simulated.retries, 0, "seed {seed}: nothing fails, so nothing is tried twice");
            let error = (said.makespan_ms / done.makespan_ms - 1.0).abs();
            let cost_error = (said.cost_usd / done.cost_usd - 1.0).abs();
            if error + cost_error > worst.0 {
                worst = (error + cost_error, format!("seed {seed}, {}: {said:?}\n{done:?}", planner.name()));
            }
            makespan += error;
            cost += cost_error;
            count += 1.0;
        }
    }
    let (makespan, cost) = (100.0 * makespan / count, 100.0 * cost / count);
    println!(
        "timing pass against event simulator over {count} plans: makespan {makespan:.3} %, cost {cost:.3} %"
    );
    println!("worst: {}", worst.1);
    assert!(makespan < 1.0 && cost < 1.0, "makespan {makespan:.3} %, cost {cost:.3} %; worst: {}", worst.1);
}
