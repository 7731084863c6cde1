//! Optimisations: what the timing pass says of them is what the event simulator does, passes only make plans
//! better and change nothing when applied again, and what a workflow forces is in every plan.

use std::cmp::Ordering;

use foresail_planner::{Pass, Placement, bounds, compare, complete, find, improve};
use foresail_planner::{passes, plan, retimed, simulate, validate};
use foresail_schemas::Workflow;
use foresail_schemas::optimization::{Optimization, OptimizationKind};
use foresail_schemas::plan::{Objective, Plan, PlanSummary, PlannedTask, Problem};
use foresail_schemas::run::RunOptions;
use foresail_schemas::workflow::WorkflowSpec;

use crate::drawn::{self, planners};
use crate::properties::problems;

/// Under `FORESAIL_PROOF=1`.
const PROBLEMS_PROOF: u64 = 3_000;
/// Planners whose plans get drawn optimisations.
const DRAWN_ON: [&str; 4] = ["uniform", "heft", "random", "sweep"];

fn by(name: &str, problem: &Problem) -> Plan {
    plan(problem, find(name).expect("it exists").as_ref()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn the_timing_pass_says_what_the_event_simulator_does_with_drawn_optimisations() {
    let (mut makespan, mut cost, mut count) = (0.0, 0.0, 0.0);
    let mut worst = (0.0, String::new());
    for seed in problems(PROBLEMS_PROOF) {
        let problem = drawn::problem(seed);
        let (least_ms, least_usd) = bounds(&problem).expect("a drawn problem is valid");
        for name in DRAWN_ON {
            let about = format!("seed {seed}, {name}");
            let asked = drawn::optimized(&problem, &by(name, &problem), seed);
            let plan = retimed(&problem, &asked, Vec::new()).unwrap_or_else(|e| panic!("{about}: {e}"));
            validate(&problem, &plan).unwrap_or_else(|e| panic!("{about}: {e}"));
            assert_eq!(plan.prewarms, asked.prewarms, "{about}");
            let done = simulate(&problem, &plan, &RunOptions::default());
            let done = done.unwrap_or_else(|e| panic!("{about}: {e}")).summary;
            let said = &plan.predicted;
            assert!(done.makespan_ms >= least_ms * (1.0 - 1e-9), "{about}: {done:?} beats {least_ms} ms");
            assert!(done.cost_usd >= least_usd * (1.0 - 1e-9), "{about}: {done:?} beats {least_usd} USD");
            let error = (said.makespan_ms / done.makespan_ms - 1.0).abs();
            let cost_error = (said.cost_usd / done.cost_usd - 1.0).abs();
            if error + cost_error > worst.0 {
                worst = (error + cost_error, format!("{about}: {said:?}\n{done:?}"));
            }
            makespan += error;
            cost += cost_error;
            count += 1.0;
        }
    }
    let (makespan, cost) = (100.0 * makespan / count, 100.0 * cost / count);
    println!("{count} plans with drawn optimisations: makespan {makespan:.3} %, cost {cost:.3} %");
    println!("worst: {}", worst.1);
    assert!(count >= 400.0, "{count} plans are too few");
    assert!(makespan < 1.0 && cost < 1.0, "makespan {makespan:.3} %, cost {cost:.3} %; worst: {}", worst.1);
}

#[test]
fn a_pass_makes_no_plan_worse_and_changes_nothing_when_applied_again() {
    let (mut better, mut all) = ([0_u32; 3], 0);
    for seed in problems(PROBLEMS_PROOF) {
        let problem = drawn::problem(seed);
        for name in ["heft", "random"] {
            all += 1;
            let given = retimed(&problem, &by(name, &problem), Vec::new()).expect("it is a plan");
            for (pass, better) in passes().iter().zip(&mut better) {
                let about = format!("seed {seed}, {name}, {}", pass.name());
                let once = improve(&problem, &given, &[pass.as_ref()]).expect("it is a plan");
                validate(&problem, &once).unwrap_or_else(|e| panic!("{about}: {e}"));
                assert_ne!(order(&problem, &once.predicted, &given.predicted), Ordering::Greater, "{about}");
                *better += u32::from(once.predicted != given.predicted);
                let twice = improve(&problem, &once, &[pass.as_ref()]).expect("it is a plan");
                assert_eq!(once.predicted, twice.predicted, "{about}");
                assert_eq!((&once.tasks, &once.prewarms), (&twice.tasks, &twice.prewarms), "{about}");
            }
        }
    }
    let names: Vec<String> = passes().iter().map(|p| p.name().to_owned()).collect();
    println!("{names:?} make {better:?} of {all} plans better");
    assert!(better.iter().all(|&count| count > 0), "every pass is of use somewhere: {better:?}");
}

#[test]
fn all_passes_together_change_nothing_when_applied_again() {
    let (mut better, mut all) = (0, 0);
    let chain = passes();
    let chain: Vec<&dyn Pass> = chain.iter().map(AsRef::as_ref).collect();
    for seed in problems(PROBLEMS_PROOF) {
        let problem = drawn::problem(seed);
        for name in ["heft", "random"] {
            let about = format!("seed {seed}, {name}");
            let given = retimed(&problem, &by(name, &problem), Vec::new()).expect("it is a plan");
            let once = improve(&problem, &given, &chain).expect("it is a plan");
            validate(&problem, &once).unwrap_or_else(|e| panic!("{about}: {e}"));
            assert_ne!(order(&problem, &once.predicted, &given.predicted), Ordering::Greater, "{about}");
            let twice = improve(&problem, &once, &chain).expect("it is a plan");
            assert_eq!(once.predicted, twice.predicted, "{about}");
            assert_eq!((&once.tasks, &once.prewarms), (&twice.tasks, &twice.prewarms), "{about}");
            better += u32::from(once.predicted != given.predicted);
            all += 1;
        }
    }
    println!("all passes together make {better} of {all} plans better");
    assert!(better > 0);
}

fn order(problem: &Problem, a: &PlanSummary, b: &PlanSummary) -> Ordering {
    compare(&problem.objective, a, b, bounds(problem).expect("a drawn problem is valid"))
}

/// Forces `optimization` on every task.
fn forced(problem: &Problem, optimization: &Optimization) -> Problem {
    let mut spec: WorkflowSpec = problem.workflow.spec().clone();
    spec.tasks.iter_mut().for_each(|task| task.optimizations.push(optimization.clone()));
    Problem { workflow: spec.check().expect("the graph is the same"), ..problem.clone() }
}

#[test]
fn what_a_workflow_forces_is_in_every_plan_whether_it_pays_or_not() {
    let custom = Optimization::Custom { name: drawn::name("mine"), params: serde_json::Value::Null };
    for seed in 0..20 {
        for optimization in
            [Optimization::PreLoad, Optimization::TaskDup, Optimization::PreWarm, custom.clone()]
        {
            let problem = forced(&drawn::problem(seed), &optimization);
            for planner in planners() {
                let about = format!("seed {seed}, {}, {optimization:?}", planner.name());
                let plan = plan(&problem, planner.as_ref()).unwrap_or_else(|e| panic!("{about}: {e}"));
                // Where it can be carried out: the validator knows.
                validate(&problem, &plan).unwrap_or_else(|e| panic!("{about}: {e}"));
                let has = |t: &PlannedTask| t.optimizations.contains(&optimization);
                let served = plan.tasks.iter().filter(|t| has(t)).count();
                match optimization {
                    Optimization::Custom { .. } => assert_eq!(served, plan.tasks.len(), "{about}"),
                    Optimization::PreWarm => {
                        let is_warmed = |t: &PlannedTask| has(t) || t.why.contains(RUNS_ALREADY);
                        assert!(plan.tasks.iter().all(is_warmed), "{about}");
                    }
                    Optimization::PreLoad => {
                        let planned = plan.tasks.iter().filter(|t| t.worker.is_some()).count();
                        assert_eq!(served, planned, "{about}");
                    }
                    Optimization::TaskDup => {}
                }
            }
        }
    }
}

/// What is said of a task whose worker another one has had started beforehand.
const RUNS_ALREADY: &str = "pre-warm is forced and not carried out: its worker runs already";

#[test]
fn a_worker_that_is_to_be_started_beforehand_for_two_tasks_is_started_so_once() {
    let names = |tasks: &[&str]| tasks.iter().map(ToString::to_string).collect::<Vec<_>>();
    let tasks = [("a", &[][..]), ("b", &["a"]), ("c", &["a"]), ("d", &["b", "c"])];
    let tasks = tasks.map(|(id, parents)| drawn::task(id, &names(parents)));
    let mut problem = drawn::measured(drawn::workflow(tasks.into()), drawn::lambda(), Objective::Fastest);
    problem.predictions.exec_ms.iter_mut().for_each(|row| row.fill(2_000.0));
    let problem = forced(&problem, &Optimization::PreWarm);
    let config = problem.predictions.configs[0];
    let placed = (0..).zip(problem.workflow.tasks()).map(|(rank, task)| Placement {
        task: task.id.clone(),
        worker: Some(drawn::name(if ["a", "b"].contains(&task.id.as_str()) { "w1" } else { "w2" })),
        config,
        rank,
        optimizations: Vec::new(),
        why: String::new(),
    });
    let placed: Vec<Placement> = placed.collect();
    let planned =
        |problem| complete(problem, &drawn::name("mine"), &placed, Vec::new()).expect("it is a plan");
    let plan = planned(&problem);
    let served: Vec<&str> = plan.prewarms.iter().map(|warming| warming.serves.as_str()).collect();
    assert_eq!(served, ["a", "c"], "{:?}", plan.prewarms);
    let said = plan.explanation.iter().find(|line| line.starts_with("Forced and not carried out: "));
    let said = said.expect("`b` and `d` come to workers that run");
    assert!(said.contains("pre-warm of `b`") && said.contains("pre-warm of `d`"), "{said}");
    validate(&problem, &plan).expect("it is valid");
    // Where nobody else asks, the worker that runs it is started beforehand for it.
    let later = Problem { workflow: only(&problem, "d"), ..problem.clone() };
    let plan = planned(&later);
    assert_eq!(plan.prewarms.len(), 1, "nobody else has had the worker of `d` started");
    assert!(plan.tasks[3].optimizations.contains(&Optimization::PreWarm));
}

/// The workflow with what is forced forced on one task alone.
fn only(problem: &Problem, id: &str) -> Workflow {
    let mut spec: WorkflowSpec = problem.workflow.spec().clone();
    spec.tasks.iter_mut().filter(|t| t.id.as_str() != id).for_each(|t| t.optimizations.clear());
    spec.check().expect("the graph is the same")
}

#[test]
fn auto_gives_a_task_whose_preload_is_forced_a_worker_that_can_fetch_for_it() {
    let mut free = 0;
    for seed in 0..20 {
        let unforced = drawn::problem(seed);
        let auto = by("auto:0.002", &unforced);
        free += u32::from(auto.tasks.iter().all(|task| task.worker.is_none()));
        let plan = by("auto:0.002", &forced(&unforced, &Optimization::PreLoad));
        for task in plan.tasks.iter().filter(|task| !task.unexpected) {
            assert!(task.optimizations.contains(&Optimization::PreLoad), "seed {seed}, `{}`", task.task);
        }
        assert!(!plan.explanation.iter().any(|line| line.contains("not carried out")), "seed {seed}");
    }
    assert!(free > 0, "no plan was flexible where nothing is forced");
}

#[test]
fn what_is_forced_and_cannot_be_carried_out_is_said_of_the_task_and_of_the_plan() {
    let both = [Optimization::PreLoad, Optimization::TaskDup];
    for (planner, optimization) in
        ["simple", "uniform", "heft"].iter().flat_map(|p| both.iter().map(move |o| (*p, o)))
    {
        let kind = if *optimization == Optimization::PreLoad { "pre-load" } else { "task-dup" };
        for seed in 0..10 {
            let plan = by(planner, &forced(&drawn::problem(seed), optimization));
            let is_left_out = |task: &&PlannedTask| !task.optimizations.contains(optimization);
            let words = format!("{kind} is forced and not carried out");
            for task in plan.tasks.iter().filter(|task| !task.unexpected && task.worker.is_none()) {
                assert!(task.why.contains(&format!("{words}: the task has no planned worker")), "{task:?}");
            }
            for task in plan.tasks.iter().filter(|task| !task.unexpected) {
                assert_eq!(is_left_out(&task), task.why.contains(&words), "seed {seed}, {planner}: {task:?}");
            }
            let said = plan.explanation.iter().find(|line| line.starts_with("Forced and not carried out: "));
            assert_eq!(
                said.is_some(),
                plan.tasks.iter().any(|task| is_left_out(&task)),
                "{planner}: {said:?}"
            );
        }
    }
}

#[test]
fn what_a_problem_goes_without_is_in_no_plan() {
    for seed in 0..40 {
        let problem = Problem { without: OptimizationKind::ALL.to_vec(), ..drawn::problem(seed) };
        for name in ["uniform", "nonuniform", "sweep", "auto:0.002"] {
            let plan = by(name, &problem);
            assert!(plan.prewarms.is_empty(), "seed {seed}, {name}");
            assert!(plan.tasks.iter().all(|t| t.optimizations.is_empty()), "seed {seed}, {name}");
        }
    }
}

/// A pass of one's own: everything on one worker.
struct OneWorker;

impl Pass for OneWorker {
    fn name(&self) -> &str {
        "one-worker"
    }

    fn propose(&self, _: &Problem, plan: &Plan) -> Vec<Plan> {
        let mut plan = plan.clone();
        let config = plan.tasks[0].config;
        for task in &mut plan.tasks {
            (task.worker, task.config) = (Some(drawn::name("only")), config);
        }
        vec![plan]
    }
}

#[test]
fn a_pass_of_ones_own_is_timed_and_kept_only_if_it_pays() {
    let chain = |parents: &[&str], id: &str| {
        drawn::task(id, &parents.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>())
    };
    let tasks = vec![chain(&[], "a"), chain(&["a"], "b"), chain(&["b"], "c")];
    let cheapest = drawn::measured(drawn::workflow(tasks), drawn::lambda(), Objective::Cheapest);
    let mut spread = by("simple", &cheapest);
    for (at, task) in spread.tasks.iter_mut().enumerate() {
        task.worker = Some(drawn::name(&format!("w{at}")));
    }
    let one = improve(&cheapest, &spread, &[&OneWorker]).expect("it is a plan");
    assert_eq!(one.workers.len(), 1, "one start is cheaper than three");
    assert!(one.explanation.iter().any(|s| s.starts_with("Pass one-worker brings")), "{:?}", one.explanation);
    let fan = vec![chain(&[], "a"), chain(&[], "b"), chain(&[], "c")];
    let fastest = drawn::measured(drawn::workflow(fan), drawn::lambda(), Objective::Fastest);
    let three = improve(&fastest, &by("simple", &fastest), &[&OneWorker]).expect("it is a plan");
    assert!(three.workers.is_empty(), "three at once are faster");
}
