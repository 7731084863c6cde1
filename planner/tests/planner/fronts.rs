//! Fronts of time and cost, bounds for deadlines, and workers that are warm when the run begins.

use foresail_planner::shapes::Shape;
use foresail_planner::{bounds, cost_bound, find, pareto, plan, simulate, validate};
use foresail_schemas::plan::{Objective, Plan, Problem};
use foresail_schemas::run::RunOptions;

use crate::drawn::planners;
use crate::{drawn, graphs};

fn planned(problem: &Problem, planner: &str) -> Plan {
    plan(problem, find(planner).expect("it exists").as_ref()).unwrap_or_else(|e| panic!("{planner}: {e}"))
}

#[test]
fn a_front_goes_from_fast_to_cheap_and_nothing_on_it_beats_another() {
    for workflow in [
        Shape::ForkJoin(2, 30).workflow_of(3000.0),
        Shape::Gemm(3).workflow_of(4000.0),
        Shape::Tree(64).workflow_of(500.0),
    ] {
        let problem = graphs::problem(&workflow, Objective::Fastest);
        let front = pareto(&problem, 6).expect("a valid problem");
        assert!((2..=6).contains(&front.len()), "{} points", front.len());
        for plan in &front {
            validate(&problem, plan).unwrap_or_else(|e| panic!("{e}"));
            assert!(plan.bounds.makespan_ratio.min(plan.bounds.cost_ratio) >= 1.0 - 1e-9);
        }
        for pair in front.windows(2) {
            let (fast, cheap) = (&pair[0].predicted, &pair[1].predicted);
            assert!(fast.makespan_ms < cheap.makespan_ms && fast.cost_usd > cheap.cost_usd);
        }
        let simple = planned(&problem, "simple").predicted;
        let as_fast = front.iter().find(|p| p.predicted.makespan_ms <= simple.makespan_ms * (1.0 + 1e-9));
        assert!(as_fast.is_some(), "the front begins no later than the flexible plan");
    }
}

#[test]
fn no_plan_beats_the_bound_of_its_own_deadline() {
    for seed in 0..150 {
        let problem = drawn::problem(seed);
        let (least_ms, least_usd) = bounds(&problem).expect("a drawn problem is valid");
        assert_eq!(cost_bound(&problem, least_ms * 0.99), Ok(f64::INFINITY), "seed {seed}");
        let unhurried = cost_bound(&problem, f64::INFINITY).expect("a drawn problem is valid");
        assert_eq!(unhurried, least_usd, "seed {seed}");
        for planner in planners() {
            let done = planned(&problem, planner.name()).predicted;
            let usd = cost_bound(&problem, done.makespan_ms).expect("a drawn problem is valid");
            assert!(usd >= least_usd, "seed {seed}: a deadline does not make plans cheaper");
            assert!(done.cost_usd >= usd * (1.0 - 1e-9), "seed {seed}, {}: {done:?} {usd}", planner.name());
            if planner.name() == "simple" {
                break;
            }
        }
    }
}

#[test]
fn a_tight_deadline_costs_more_at_least() {
    let problem = graphs::problem(&Shape::ForkJoin(1, 50).workflow_of(5000.0), Objective::Cheapest);
    let (least_ms, least_usd) = bounds(&problem).expect("a valid problem");
    let tight_usd = cost_bound(&problem, 1.01 * least_ms).expect("a valid problem");
    assert!(tight_usd > 1.2 * least_usd, "fifty tasks at a time need many starts: {tight_usd} {least_usd}");
}

#[test]
fn warm_workers_make_a_run_faster_than_cold_ones_allow_and_no_bound_is_broken() {
    let cold = graphs::problem(&Shape::ForkJoin(1, 4).workflow_of(200.0), Objective::Fastest);
    let mut warm = cold.clone();
    warm.predictions.warm = vec![8; warm.predictions.configs.len()];
    let (cold_ms, warm_ms) = (planned(&cold, "auto").predicted, planned(&warm, "auto").predicted);
    assert!(warm_ms.makespan_ms < bounds(&cold).expect("a valid problem").0, "{warm_ms:?} {cold_ms:?}");
    assert_eq!(warm_ms.cold_starts, 0);
    for planner in planners() {
        let plan = plan(&warm, planner.as_ref()).expect("a valid problem");
        validate(&warm, &plan).unwrap_or_else(|e| panic!("{}: {e}", planner.name()));
        let done = simulate(&warm, &plan, &RunOptions::default()).expect("it comes to its end").summary;
        assert!((plan.predicted.makespan_ms / done.makespan_ms - 1.0).abs() < 0.02, "{}", planner.name());
        assert_eq!(plan.predicted.cold_starts, done.cold_starts, "{}", planner.name());
    }
    warm.predictions.warm.pop();
    assert!(plan(&warm, find("simple").expect("it exists").as_ref()).is_err(), "a size is left out");
}
