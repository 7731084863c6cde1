//! Real workflows, where they are, and shapes of known form: plans are valid, keep the bounds, and take and
//! cost in the event simulator what the timing pass says.

use foresail_planner::shapes::Shape;
use foresail_planner::{bounds, compare, plan, simulate, validate};
use foresail_schemas::plan::{Objective, Plan, Problem};
use foresail_schemas::run::RunOptions;
use foresail_schemas::{Platform, Sla, Workflow};

use crate::drawn::{lambda, planners};
use crate::{graphs, instances};

/// Longest task after scaling, in ms.
const TASK_MS_MAX: [f64; 2] = [60_000.0, 5_000.0];
/// Larger workflows are left to release builds: the state machines are slow without optimisation.
const TASKS_MAX: usize = if cfg!(debug_assertions) { 150 } else { usize::MAX };
/// Mean difference of time and of cost between timing pass and event simulator, in percent.
const ERROR_PERCENT_MAX: f64 = 1.0;

/// Sums over the plans of one planner.
#[derive(Default)]
struct Sums {
    plans: f64,
    time: f64,
    cost: f64,
    time_error: f64,
    cost_error: f64,
}

impl Sums {
    fn add(&mut self, plan: &Plan, problem: &Problem) {
        let done = simulate(problem, plan, &RunOptions::default()).expect("it comes to its end").summary;
        self.plans += 1.0;
        self.time += plan.bounds.makespan_ratio.ln();
        self.cost += plan.bounds.cost_ratio.ln();
        self.time_error += 100.0 * (plan.predicted.makespan_ms / done.makespan_ms - 1.0).abs();
        self.cost_error += 100.0 * (plan.predicted.cost_usd / done.cost_usd - 1.0).abs();
    }
}

#[test]
fn plans_of_real_workflows_and_shapes_do_in_the_simulator_what_they_say() {
    let mut workflows = instances::recorded();
    if workflows.is_empty() {
        println!("there are no WfFormat instances in `{}`: shapes only", instances::folder().display());
    }
    workflows.extend(instances::shapes());
    workflows.retain(|(_, w)| w.tasks().len() <= TASKS_MAX);
    let planners = planners();
    let mut sums: Vec<Sums> = planners.iter().map(|_| Sums::default()).collect();
    for (name, workflow) in &workflows {
        for task_ms_max in TASK_MS_MAX {
            let problem = graphs::problem(&instances::scaled(workflow, task_ms_max), Objective::Fastest);
            for (planner, sums) in planners.iter().zip(&mut sums) {
                let planner_name = planner.name();
                let plan = plan(&problem, planner.as_ref())
                    .unwrap_or_else(|e| panic!("{name}, {planner_name}: {e}"));
                validate(&problem, &plan).unwrap_or_else(|e| panic!("{name}, {planner_name}: {e}"));
                sums.add(&plan, &problem);
            }
        }
    }
    println!("planner: plans, makespan/LB_T : cost/LB_C, error of time and cost in the event simulator");
    for (planner, s) in planners.iter().zip(&sums) {
        let (time, cost) = ((s.time / s.plans).exp(), (s.cost / s.plans).exp());
        let (time_error, cost_error) = (s.time_error / s.plans, s.cost_error / s.plans);
        println!(
            "{:12} {:4} {time:.3} : {cost:.3}   {time_error:.3} % {cost_error:.3} %",
            planner.name(),
            s.plans
        );
    }
    let all = |f: fn(&Sums) -> f64| sums.iter().map(f).sum::<f64>();
    let plans = all(|s| s.plans);
    let (time, cost) = (all(|s| s.time_error) / plans, all(|s| s.cost_error) / plans);
    println!("{plans} plans: {time:.3} % in time, {cost:.3} % in cost");
    assert!(time < ERROR_PERCENT_MAX && cost < ERROR_PERCENT_MAX, "{time} % and {cost} % over {plans} plans");
}

/// Never worse than `simple`, and than what is drawn, on anything that is given.
#[test]
fn auto_is_never_worse_than_simple_or_random_on_real_workflows_and_shapes() {
    let planned = |problem: &Problem, name: &str| {
        let planner = foresail_planner::find(name).expect("it exists");
        plan(problem, planner.as_ref()).unwrap_or_else(|e| panic!("{name}: {e}")).predicted
    };
    let mut workflows = instances::recorded();
    workflows.extend(instances::shapes());
    workflows.retain(|(_, w)| w.tasks().len() <= TASKS_MAX);
    for (name, workflow) in &workflows {
        let problem = graphs::problem(&instances::scaled(workflow, TASK_MS_MAX[1]), Objective::Fastest);
        let (auto, simple) = (planned(&problem, "auto"), planned(&problem, "simple"));
        let least_ms = simple.makespan_ms.min(planned(&problem, "random").makespan_ms);
        assert!(auto.makespan_ms <= least_ms * (1.0 + 1e-9), "{name}: {} > {least_ms} ms", auto.makespan_ms);
        let at_simple = Objective::Deadline { makespan_ms: simple.makespan_ms };
        let at_simple = planned(&Problem { objective: at_simple, ..problem }, "auto");
        assert!(at_simple.makespan_ms <= simple.makespan_ms * (1.0 + 1e-9), "{name}");
        assert!(at_simple.cost_usd <= simple.cost_usd * (1.0 + 1e-9), "{name}");
    }
}

/// What `sweep` and `random` find, measured, on two other platforms, under every kind of objective.
#[test]
fn auto_and_anneal_are_never_worse_than_sweep_or_random_on_shapes() {
    let is_other = |p: &Platform| ["knative", "aws-lambda-arm64"].contains(&p.name.as_str());
    let platforms: Vec<Platform> = Platform::built_in().into_iter().filter(is_other).collect();
    assert_eq!(platforms.len(), 2);
    let by = |problem: &Problem, name: &str| {
        let planner = foresail_planner::find(name).expect("it exists");
        plan(problem, planner.as_ref()).unwrap_or_else(|e| panic!("{name}: {e}")).predicted
    };
    let shapes = [Shape::Gemm(3), Shape::ForkJoin(2, 9), Shape::Tsqr(8)];
    for (shape, platform) in shapes.iter().flat_map(|shape| platforms.iter().map(move |p| (shape, p))) {
        let workflow = instances::scaled(&shape.workflow(), TASK_MS_MAX[1]);
        let problem = graphs::problem_on(&workflow, platform.clone(), Objective::Fastest);
        let (simple, bounds) = (by(&problem, "simple"), bounds(&problem).expect("it is a problem"));
        for objective in [
            Objective::Fastest,
            Objective::Deadline { makespan_ms: simple.makespan_ms },
            Objective::Deadline { makespan_ms: 1.0 },
            Objective::Budget { cost_usd: 1.5 * bounds.1 },
            Objective::Balance { time_weight: 0.5 },
        ] {
            let problem = Problem { objective, ..problem.clone() };
            let [sweep, random, auto, anneal] =
                ["sweep", "random", "auto:0.02", "anneal:0.02"].map(|name| by(&problem, name));
            for (one, other) in [(auto, sweep), (auto, random), (anneal, sweep)] {
                let order = compare(&objective, &one, &other, bounds);
                assert!(order.is_le(), "{shape}, {}, {objective:?}: {other:?} beats {one:?}", platform.name);
            }
        }
    }
}

#[test]
fn a_workflow_without_hints_is_planned_blind() {
    let mut spec = Shape::ForkJoin(2, 8).workflow_of(100.0).spec().clone();
    spec.tasks.iter_mut().for_each(|t| t.hint.exec_ms = None);
    let workflow: Workflow = spec.check().expect("only hints were dropped");
    let predictions = foresail_planner::blind_table(&workflow, &lambda(), Sla::MEDIAN);
    let (platform, objective) = (lambda(), Objective::Fastest);
    let problem = Problem { workflow, platform, predictions, objective, seed: 1, without: Vec::new() };
    for planner in planners() {
        let plan = plan(&problem, planner.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", planner.name()));
        assert!(plan.explanation.iter().any(|s| s.contains("Nothing of this workflow was measured")));
    }
}
