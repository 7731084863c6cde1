//! Runs in which other things are decided than were drawn for their plan, carried out by the machines of real
//! runs; workflows in which nothing is uncertain but what is decided.

use std::collections::BTreeMap;

use foresail_planner::{Distribution, find, monte_carlo, plan, simulate};
use foresail_schemas::decision::{Condition, Decision, Wanted};
use foresail_schemas::plan::{Objective, Plan, Problem};
use foresail_schemas::run::RunOptions;
use foresail_schemas::uncertainty::{CERTAIN, Probability, StartupShapes, Uncertainty};
use foresail_schemas::workflow::{Input, Task};
use foresail_schemas::{ObjectName, TaskId, Workflow};
use rand::SeedableRng;
use rand_pcg::Pcg64;

use crate::drawn::{lambda, measured, name, task};

/// Workers at a time, so that what is wider takes longer.
const CONCURRENCY: u32 = 4;
/// Runs in which other things are decided than were drawn.
const FRESH: u32 = 2_000;

/// What the tasks of a run decide.
pub type Decided = BTreeMap<TaskId, Decision>;

/// A task that decides.
pub fn decides(task: Task) -> Task {
    Task { decision: Some(ObjectName::default()), ..task }
}

/// A task that runs where `decider` decides so.
pub fn when(decider: &str, wanted: Wanted, task: Task) -> Task {
    Task { when: Some(Condition { task: name(decider), wanted }), ..task }
}

/// A task behind `first` that takes what there is of `parents`.
pub fn gather(first: &str, parents: &[String]) -> Task {
    let mut gather = task("gather", parents);
    for input in &mut gather.inputs {
        if let Input::Task { optional, .. } = input {
            *optional = true;
        }
    }
    gather.after.push(name(first));
    gather
}

/// Tasks of two seconds; all is certain.
pub fn certain(flow: Workflow, objective: Objective) -> Problem {
    let mut problem = measured(flow, lambda(), objective);
    problem.platform.concurrency_max = CONCURRENCY;
    let table = &mut problem.predictions;
    for row in &mut table.exec_ms {
        row.fill(2_000.0);
    }
    let sizes = table.configs.len();
    table.uncertainty = Some(Uncertainty {
        shapes: vec![CERTAIN],
        exec: vec![vec![Some(0); problem.workflow.tasks().len()]; sizes],
        startup: vec![StartupShapes { cold: CERTAIN, warm: CERTAIN }; sizes],
        transfer: vec![CERTAIN; sizes],
        ..Uncertainty::default()
    });
    problem
}

/// What is uncertain in this problem.
pub fn uncertainty(problem: &mut Problem) -> &mut Uncertainty {
    problem.predictions.uncertainty.as_mut().expect("it was set")
}

pub fn by(name: &str, problem: &Problem) -> Plan {
    plan(problem, find(name).expect("it exists").as_ref()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

pub fn drawn(problem: &Problem, plan: &Plan) -> Distribution {
    monte_carlo(problem, plan, 2_000, 3).expect("it has distributions")
}

/// What a plan promises about the deadline that was asked for.
pub fn promised(plan: &Plan) -> Probability {
    plan.outlook.as_ref().and_then(|outlook| outlook.in_time).expect("it was asked")
}

/// The plan carried out where this is decided: makespan and cost.
fn carried_out(problem: &Problem, plan: &Plan, decided: &Decided) -> (f64, f64) {
    let mut plan = plan.clone();
    for (task, of) in plan.tasks.iter_mut().zip(problem.workflow.tasks()) {
        let holds = |when: &Condition| decided.get(&when.task).is_some_and(|d| when.wanted.holds(d));
        task.unexpected = !of.when.as_ref().is_none_or(holds);
    }
    // A warm container is there whether what it is for comes or not, and narrowing a plan leaves it out.
    let gather = problem.workflow.tasks().last().map(|task| &task.id);
    plan.prewarms.iter_mut().zip(gather).for_each(|(warming, gather)| warming.serves = gather.clone());
    let done = simulate(problem, &plan, &RunOptions::default()).expect("it ends");
    (done.summary.makespan_ms, done.summary.cost_usd)
}

/// Makespans and costs of runs in which `decide` says what is decided.
pub fn fresh(problem: &Problem, plan: &Plan, decide: fn(&mut Pcg64) -> Decided) -> Vec<(f64, f64)> {
    let mut rng = Pcg64::seed_from_u64(1_000);
    let mut known = BTreeMap::new();
    let mut one = |decided: Decided| match known.get(&decided) {
        Some(done) => *done,
        None => {
            let done = carried_out(problem, plan, &decided);
            known.insert(decided, done);
            done
        }
    };
    (0..FRESH).map(|_| one(decide(&mut rng))).collect()
}

/// The part of the runs that end by a deadline.
pub fn share_within(runs: &[(f64, f64)], deadline_ms: f64) -> f64 {
    runs.iter().filter(|(ms, _)| *ms <= deadline_ms).count() as f64 / runs.len() as f64
}

/// What is drawn of plans for this problem is what comes.
pub fn check_draws(problem: &Problem, decide: fn(&mut Pcg64) -> Decided) {
    for planner in ["simple", "sweep", "uniform", "nonuniform", "random"] {
        let plan = by(planner, problem);
        let (runs, drawn) = (fresh(problem, &plan, decide), drawn(problem, &plan));
        let mean = |of: fn(&(f64, f64)) -> f64| runs.iter().map(of).sum::<f64>() / runs.len() as f64;
        for (what, drawn, came) in
            [("ms", drawn.mean_makespan_ms(), mean(|r| r.0)), ("USD", drawn.mean_cost_usd(), mean(|r| r.1))]
        {
            assert!((drawn / came - 1.0).abs() < 0.05, "{planner}: {drawn} {what} drawn, {came} came");
        }
        for quantile in [0.5, 0.8, 0.95] {
            let deadline_ms = drawn.makespan_ms(quantile);
            let (said, came) =
                (drawn.in_time(deadline_ms).measured, share_within(&runs, 1.002 * deadline_ms));
            assert!((said - came).abs() < 0.06, "{planner}: {said} said of {deadline_ms} ms, {came} came");
        }
    }
}

/// `robust` promises what was asked for and keeps it; `named` says which problem this is.
pub fn check_promise(named: &str, problem: &Problem, decide: fn(&mut Pcg64) -> Decided) {
    let Objective::Confidence { makespan_ms, probability } = problem.objective else {
        panic!("{named} asks for no probability")
    };
    let plan = by("robust", problem);
    let promised = promised(&plan);
    assert!(promised.measured >= probability, "{named}: {promised:?}");
    let kept = share_within(&fresh(problem, &plan, decide), makespan_ms);
    assert!(kept >= probability, "{named}: {kept} of fresh runs end by {makespan_ms} ms");
    println!("{named}, deadline {makespan_ms:.0} ms: promised {:.3}, kept {kept:.3}", promised.measured);
}

/// Without draws of what is decided `robust` promises much more than it keeps.
pub fn check_blind(named: &str, problem: &Problem, decide: fn(&mut Pcg64) -> Decided) {
    let mut blind = problem.clone();
    uncertainty(&mut blind).widths.clear();
    uncertainty(&mut blind).branches.clear();
    let plan = by("robust", &blind);
    let promised = promised(&plan);
    let kept = share_within(&fresh(&blind, &plan, decide), promised.limit);
    assert!(promised.measured > kept + 0.15, "{named}: {promised:?} was promised, {kept} kept");
    println!(
        "{named}, not drawn, {:.0} ms: promised {:.3}, kept {kept:.3}",
        promised.limit, promised.measured
    );
}
