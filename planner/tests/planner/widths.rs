//! A fan-out whose width is not known before: what the draws say of makespan and cost is what comes of widths
//! that were not drawn for it, and `robust` keeps its word.

use foresail_planner::{Distribution, find, monte_carlo, plan, simulate};
use foresail_schemas::decision::{Condition, DecisionForecast, Wanted};
use foresail_schemas::plan::{Objective, Plan, Problem};
use foresail_schemas::run::RunOptions;
use foresail_schemas::uncertainty::{CERTAIN, LEVELS, StartupShapes, Uncertainty};
use foresail_schemas::workflow::{Input, Task};
use foresail_schemas::{ObjectName, Workflow};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use crate::drawn::{lambda, measured, name, task, workflow};

/// Places of the fan-out.
const PLACES: u64 = 40;
/// Workers at a time, so that a wider fan-out takes longer.
const CONCURRENCY: u32 = 4;
/// Runs with other widths than those drawn.
const FRESH: u32 = 400;

/// What comes: eight and some more, now and then many.
fn width(rng: &mut Pcg64) -> u64 {
    let unit: f64 = rng.random_range(1e-9..1.0);
    (5.0 + 3.0 * -unit.ln()).round().min(PLACES as f64) as u64
}

fn fan_out() -> Workflow {
    let pages: Vec<String> = (0..PLACES).map(|at| format!("page{at}")).collect();
    let page = |(at, id): (u64, &String)| Task {
        when: Some(Condition { task: name("split"), wanted: Wanted::Above(at) }),
        name: name("page"),
        ..task(id, &["split".to_owned()])
    };
    let mut gather = task("gather", &pages);
    for input in &mut gather.inputs {
        if let Input::Task { optional, .. } = input {
            *optional = true;
        }
    }
    gather.after.push(name("split"));
    let split = Task { decision: Some(ObjectName::default()), ..task("split", &[]) };
    let pages = (0..).zip(&pages).map(page);
    workflow(std::iter::once(split).chain(pages).chain([gather]).collect())
}

/// All is certain but the width, of which the quantiles are known.
fn problem(objective: Objective) -> Problem {
    let mut problem = measured(fan_out(), lambda(), objective);
    problem.platform.concurrency_max = CONCURRENCY;
    let table = &mut problem.predictions;
    for row in &mut table.exec_ms {
        row.fill(2_000.0);
    }
    let mut rng = Pcg64::seed_from_u64(7);
    let mut widths: Vec<u64> = (0..20_000).map(|_| width(&mut rng)).collect();
    widths.sort_unstable();
    let at = |level: f64| widths[(level * widths.len() as f64) as usize];
    let sizes = table.configs.len();
    table.uncertainty = Some(Uncertainty {
        shapes: vec![CERTAIN],
        exec: vec![vec![Some(0); problem.workflow.tasks().len()]; sizes],
        startup: vec![StartupShapes { cold: CERTAIN, warm: CERTAIN }; sizes],
        transfer: vec![CERTAIN; sizes],
        widths: [(name("split"), LEVELS.map(|level| at(level) as f64))].into(),
        ..Uncertainty::default()
    });
    let median = DecisionForecast { width: Some(at(0.5)), ..DecisionForecast::default() };
    table.decisions.insert(name("split"), median);
    problem
}

fn by(name: &str, problem: &Problem) -> Plan {
    plan(problem, find(name).expect("it exists").as_ref()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The plan carried out by the machines of real runs where so many follow: makespan and cost.
fn carried_out(problem: &Problem, plan: &Plan, width: u64) -> (f64, f64) {
    let mut plan = plan.clone();
    for (task, of) in plan.tasks.iter_mut().zip(problem.workflow.tasks()) {
        let above = of.when.as_ref().map(|when| &when.wanted);
        task.unexpected = matches!(above, Some(Wanted::Above(place)) if *place >= width);
    }
    let done = simulate(problem, &plan, &RunOptions::default()).expect("it ends");
    (done.summary.makespan_ms, done.summary.cost_usd)
}

/// Makespans and costs of runs with fresh widths.
fn fresh(problem: &Problem, plan: &Plan) -> Vec<(f64, f64)> {
    let mut rng = Pcg64::seed_from_u64(1_000);
    let mut known = std::collections::BTreeMap::new();
    let mut one = |width| *known.entry(width).or_insert_with(|| carried_out(problem, plan, width));
    (0..FRESH).map(|_| one(width(&mut rng))).collect()
}

fn share_within(runs: &[(f64, f64)], deadline_ms: f64) -> f64 {
    runs.iter().filter(|(ms, _)| *ms <= deadline_ms).count() as f64 / runs.len() as f64
}

fn drawn(problem: &Problem, plan: &Plan) -> Distribution {
    monte_carlo(problem, plan, 2_000, 3).expect("it has distributions")
}

#[test]
fn what_is_drawn_of_a_width_is_what_comes() {
    let problem = problem(Objective::Fastest);
    for planner in ["simple", "sweep", "uniform", "nonuniform", "random"] {
        let plan = by(planner, &problem);
        let (runs, drawn) = (fresh(&problem, &plan), drawn(&problem, &plan));
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

#[test]
fn robust_keeps_a_deadline_under_fresh_widths_that_it_misses_where_none_is_drawn() {
    let asked = |makespan_ms| Objective::Confidence { makespan_ms, probability: 0.9 };
    let plain = problem(Objective::Fastest);
    for slack in [1.0, 1.1, 1.3] {
        let deadline_ms = slack * drawn(&plain, &by("sweep", &plain)).makespan_ms(0.95);
        let problem = problem(asked(deadline_ms));
        let plan = by("robust", &problem);
        let promised = plan.outlook.as_ref().and_then(|outlook| outlook.in_time).expect("it was asked");
        assert!(promised.measured >= 0.9, "{slack}: {promised:?}");
        let kept = share_within(&fresh(&problem, &plan), deadline_ms);
        assert!(kept >= 0.9, "{slack}: {kept} of fresh runs end by {deadline_ms} ms");
        println!("robust, deadline {deadline_ms:.0} ms: promised {:.3}, kept {kept:.3}", promised.measured);
    }
    let deadline_ms = 1.1 * by("sweep", &plain).predicted.makespan_ms;
    let mut certain = problem(asked(deadline_ms));
    certain.predictions.uncertainty.as_mut().expect("it was set").widths.clear();
    let blind = by("robust", &certain);
    let promised = blind.outlook.as_ref().and_then(|outlook| outlook.in_time).expect("it was asked");
    let kept = share_within(&fresh(&certain, &blind), deadline_ms);
    assert!(promised.measured > kept + 0.2, "without widths {promised:?} was promised, {kept} kept");
    println!(
        "without widths, deadline {deadline_ms:.0} ms: promised {:.3}, kept {kept:.3}",
        promised.measured
    );
}
