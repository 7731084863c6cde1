//! The serverful pool: what is refused without one is routed to it, and nothing else is.

use foresail_planner::{
    Violation, alternatives, bounds, complete, draft, plan, planners, simulate, validate,
};
use foresail_schemas::Platform;
use foresail_schemas::plan::{Objective, Problem};
use foresail_schemas::platform::Pool;
use foresail_schemas::run::RunOptions;

use crate::drawn;

const POOL: Pool = Pool { memory_mb: 32_768, vcpu: 8.0, workers_max: 2, worker_hour_usd: 0.384 };

/// a before b, c, d (which take an hour) and e (which needs 20 GB), all before f.
fn problem(pool: Option<Pool>) -> Problem {
    let middle: Vec<String> = ["b", "c", "d", "e"].map(str::to_owned).into();
    let mut tasks = vec![drawn::task("a", &[])];
    tasks.extend(middle.iter().map(|id| drawn::task(id, &["a".to_owned()])));
    tasks[4].memory_mb_min = Some(20_480);
    tasks.push(drawn::task("f", &middle));
    tasks[1..4].iter_mut().for_each(|t| t.hint.exec_ms = Some(3_600_000.0));
    let platform = Platform { pool, ..drawn::lambda() };
    drawn::measured(drawn::workflow(tasks), platform, Objective::Fastest)
}

#[test]
fn without_a_pool_the_refusal_says_why_and_what_to_do() {
    let simple = foresail_planner::find("simple").expect("it exists");
    let error = plan(&problem(None), simple.as_ref()).expect_err("b takes an hour").to_string();
    assert!(error.contains("`b`") && error.contains("3600000 ms") && error.contains("[pool]"), "{error}");
    let mut short = problem(None);
    short.predictions.exec_ms.iter_mut().flatten().for_each(|ms| *ms = 1_000.0);
    let error = plan(&short, simple.as_ref()).expect_err("e needs 20 GB").to_string();
    assert!(error.contains("`e` needs 20480 MB") && error.contains("[pool]"), "{error}");
    let small = Pool { memory_mb: 16_384, ..POOL };
    let error = plan(&problem(Some(small)), simple.as_ref()).expect_err("nor has the pool").to_string();
    assert!(error.contains("`e` needs 20480 MB, the largest size of the platform has 16384 MB"), "{error}");
}

#[test]
fn every_planner_routes_what_does_not_fit_and_nothing_else() {
    let problem = problem(Some(POOL));
    let (least_ms, least_usd) = bounds(&problem).expect("it is a valid problem");
    for planner in planners() {
        let name = planner.name();
        let plan = plan(&problem, planner.as_ref()).unwrap_or_else(|e| panic!("{name}: {e}"));
        validate(&problem, &plan).unwrap_or_else(|e| panic!("{name}: {e}"));
        let in_pool = |at: usize| plan.tasks[at].config == POOL.config();
        assert_eq!([0, 1, 2, 3, 4, 5].map(in_pool), [false, true, true, true, true, false], "{name}");
        let workers = plan.workers.iter().filter(|w| w.config == POOL.config());
        assert!(workers.clone().all(|w| w.id.as_str().starts_with("pool")), "{name}");
        assert!((1..=2).contains(&workers.count()), "{name}: {:?}", plan.workers);
        assert!(plan.tasks[1].why.contains("3600000 ms at best, a worker lives 900000 ms"), "{name}");
        assert!(plan.tasks[4].why.contains("needs 20480 MB"), "{name}: {}", plan.tasks[4].why);
        assert!(plan.explanation.iter().any(|s| s.contains("and 3 more fit into no worker")), "{name}");
        let done =
            simulate(&problem, &plan, &RunOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (said, done) = (&plan.predicted, &done.summary);
        assert!((said.makespan_ms / done.makespan_ms - 1.0).abs() < 1e-3, "{name}: {said:?} {done:?}");
        assert!((said.cost_usd / done.cost_usd - 1.0).abs() < 1e-3, "{name}: {said:?} {done:?}");
        assert!(done.makespan_ms >= least_ms && done.cost_usd >= least_usd, "{name}");
        // Three hours and a second of work on 0.384 USD an hour; the rest is next to nothing.
        assert!((1.15..1.17).contains(&said.cost_usd), "{name}: {said:?}");
    }
}

#[test]
fn a_task_of_the_pool_stays_on_one_of_its_workers() {
    let problem = problem(Some(POOL));
    let simple = foresail_planner::find("simple").expect("it exists");
    let made = plan(&problem, simple.as_ref()).expect("there is a pool");
    // Whoever drafts a plan need not know of seats.
    let mut loose = draft(&made);
    loose.iter_mut().for_each(|p| p.worker = None);
    let again = complete(&problem, &made.planner, &loose, Vec::new()).expect("it is seated");
    validate(&problem, &again).expect("it is valid");
    let ids = [made.tasks[1].task.clone()];
    let found = alternatives(&problem, &made, &ids).expect("it is a plan of this problem");
    assert!(found[0].others.is_empty(), "{:?}", found[0].others);

    let mut broken = made.clone();
    broken.tasks[1].worker = None;
    assert!(matches!(validate(&problem, &broken), Err(Violation::Pool { .. })));
    let few = Problem {
        platform: Platform { pool: Some(Pool { workers_max: 1, ..POOL }), ..problem.platform.clone() },
        ..problem.clone()
    };
    assert!(matches!(validate(&few, &made), Err(Violation::Pool { workers: 2, .. })));
    let mut short = problem.clone();
    short.platform.life_ms_max = 10.0;
    assert!(matches!(validate(&short, &made), Err(Violation::Life { .. })));
}

#[test]
fn drawn_problems_with_a_pool_have_valid_plans_that_run_as_said() {
    let mut routed = 0;
    for seed in 0..40 {
        let mut problem = drawn::problem(seed);
        let pool = Pool { memory_mb: 60_000, vcpu: 4.0, workers_max: 1 + seed as u32 % 3, ..POOL };
        problem.platform.pool = Some(pool);
        let table = &mut problem.predictions;
        table.configs.push(pool.config());
        table.exec_ms.push(table.exec_ms[table.exec_ms.len() - 1].clone());
        table.transfer.push(table.transfer[0]);
        table.startup.push(table.startup[0]);
        table.engine.iter_mut().for_each(|engine| engine.attempt_ms.push(0.5));
        // A third of the tasks is too long for the platform.
        let sizes = table.configs.len() - 1;
        for row in &mut table.exec_ms[..sizes] {
            row.iter_mut().step_by(3).for_each(|ms| *ms = 1e6);
        }
        for planner in drawn::planners() {
            let name = planner.name();
            let plan = plan(&problem, planner.as_ref()).unwrap_or_else(|e| panic!("{seed}, {name}: {e}"));
            validate(&problem, &plan).unwrap_or_else(|e| panic!("{seed}, {name}: {e}"));
            let done = simulate(&problem, &plan, &RunOptions::default());
            let done = done.unwrap_or_else(|e| panic!("{seed}, {name}: {e}")).summary;
            let error = (plan.predicted.makespan_ms / done.makespan_ms - 1.0).abs();
            assert!(error < 0.02, "{seed}, {name}: {error}");
            routed += plan.tasks.iter().filter(|t| t.config == pool.config()).count();
        }
    }
    assert!(routed > 500, "{routed}");
}
