//! Whether a plan that `auto` chose is carried out as it was timed. Of the many that it times it takes the
//! best, so where the pass and the state machines of real runs disagree it is drawn to what the pass has
//! wrong.

use foresail_planner::{find, plan, simulate};
use foresail_schemas::plan::{Objective, Plan, Problem};
use foresail_schemas::run::RunOptions;

use crate::{graphs, instances};

/// By how much makespan and cost may differ.
const ERROR_MAX: f64 = 0.01;
/// Each is planned with so many seeds.
const SEEDS: u64 = 2;

fn by(planner: &str, problem: &Problem) -> Plan {
    plan(problem, find(planner).expect("it exists").as_ref()).expect("a valid problem")
}

/// Plans a shape whose tasks take `task_ms_max` at most and holds the plan to its simulation.
fn check(shape: &str, platform: &str, task_ms_max: f64, is_even: bool, objective: Option<Objective>) {
    let workflow = shape.parse::<foresail_planner::shapes::Shape>().expect("it is one").workflow();
    let (workflow, platform) = (instances::scaled(&workflow, task_ms_max), graphs::platform(platform));
    let pose = if is_even { graphs::even } else { graphs::problem_on };
    for seed in 0..SEEDS {
        let problem = Problem { seed, ..pose(&workflow, platform.clone(), Objective::Fastest) };
        let makespan_ms = by("simple", &problem).predicted.makespan_ms;
        let objective = objective.unwrap_or(Objective::Deadline { makespan_ms });
        let problem = Problem { objective, ..problem };
        let plan = by("auto", &problem);
        let done = simulate(&problem, &plan, &RunOptions::default()).expect("it ends").summary;
        let said = plan.predicted;
        let errors = [done.makespan_ms / said.makespan_ms - 1.0, done.cost_usd / said.cost_usd - 1.0];
        let is_right = errors.iter().all(|error| error.abs() <= ERROR_MAX);
        assert!(is_right, "{shape} on {}, seed {seed}: {said:?}, but {done:?}", platform.name);
    }
}

#[test]
fn tasks_that_end_at_the_same_time_are_told_in_the_same_order() {
    let balance = |time_weight| Some(Objective::Balance { time_weight });
    check("tree:104", "knative", 5_000.0, false, balance(0.83));
    check("tree:107", "knative", 100.0, false, Some(Objective::Budget { cost_usd: 0.0005 }));
    check("tree:28", "local", 1_000.0, true, Some(Objective::Fastest));
    check("tsqr:25", "aws-lambda-arm64", 100.0, true, None);
}

#[test]
fn who_takes_over_begins_in_another_container() {
    check("layered:3x6", "knative", 600_000.0, true, Some(Objective::Balance { time_weight: 0.0 }));
}
