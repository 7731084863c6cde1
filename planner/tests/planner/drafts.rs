//! Plans from elsewhere and plans with one thing changed.

use foresail_planner::{
    Change, DraftFailure, Planner, alternatives, complete, draft, find, plan, planners, retimed, validate,
};
use foresail_schemas::TaskId;
use foresail_schemas::plan::Objective;

use crate::drawn::{self, lambda, measured, name, task, workflow};

#[path = "../../examples/own_planner.rs"]
mod own_planner;

#[test]
fn the_draft_of_a_plan_is_timed_to_that_plan() {
    let (mut same, mut all) = (0, 0);
    for seed in 0..60 {
        let problem = drawn::problem(seed);
        for planner in planners().iter().filter(|p| p.name() != "anneal" && p.name() != "pareto") {
            let Ok(made) = plan(&problem, planner.as_ref()) else { continue };
            let again = retimed(&problem, &made, Vec::new()).unwrap();
            let about = format!("{} of seed {seed}", planner.name());
            // Workers are numbered by their names in the plan, which decides between those that become ready
            // at the same time; that is all that may differ.
            let is_close = |a: f64, b: f64| (a - b).abs() <= 0.01 * b.abs();
            assert!(is_close(again.predicted.makespan_ms, made.predicted.makespan_ms), "{about}");
            assert!(is_close(again.predicted.cost_usd, made.predicted.cost_usd), "{about}");
            same += u32::from(again.tasks == made.tasks && again.critical_path == made.critical_path);
            all += 1;
            validate(&problem, &again).unwrap();
        }
    }
    assert!(f64::from(same) >= 0.95 * f64::from(all), "{same} of {all} are the same in everything");
}

#[test]
fn a_draft_that_breaks_a_rule_is_refused_with_the_task() {
    let mut tasks = vec![task("a", &[]), task("b", &["a".to_owned()])];
    tasks[1].memory_mb_min = Some(1000);
    let problem = measured(workflow(tasks), lambda(), Objective::Fastest);
    let made = plan(&problem, find("simple").unwrap().as_ref()).unwrap();
    let good = draft(&made);
    let planner = name("mine");
    let refused = |change: &dyn Fn(&mut Vec<foresail_planner::Placement>)| {
        let mut bad = good.clone();
        change(&mut bad);
        complete(&problem, &planner, &bad, Vec::new()).expect_err("wrong on purpose")
    };
    let b: TaskId = name("b");
    assert_eq!(refused(&|d| d.truncate(1)), DraftFailure::Missing(b.clone()));
    assert_eq!(refused(&|d| d[0].task = b.clone()), DraftFailure::Twice(b.clone()));
    assert!(matches!(refused(&|d| d[1].task = name("c")), DraftFailure::Unknown(_)));
    assert!(matches!(refused(&|d| d[1].config.memory_mb = 777), DraftFailure::Config { .. }));
    let small = problem.predictions.configs[0];
    let failure = refused(&|d| d[1].config = small);
    assert!(failure.to_string().contains("`b`") && failure.to_string().contains("1000 MB"), "{failure}");
    let large = problem.predictions.configs[problem.predictions.configs.len() - 1];
    let failure = refused(&|d| {
        d.iter_mut().for_each(|p| p.worker = Some(name("w")));
        d[0].config = small;
        d[1].config = large;
    });
    assert!(matches!(failure, DraftFailure::Sizes { .. }), "{failure}");
    let mut mine = good.clone();
    mine[0].why = "because".to_owned();
    let made = complete(&problem, &planner, &mine, vec!["A reason.".to_owned()]).unwrap();
    assert_eq!((made.planner.as_str(), made.tasks[0].why.as_str()), ("mine", "because"));
    assert!(made.explanation.iter().any(|s| s == "A reason."));
}

#[test]
fn alternatives_are_the_plan_with_one_thing_changed() {
    let problem = own_planner::problem();
    let made = plan(&problem, &own_planner::Chains).unwrap();
    let ids: Vec<TaskId> = made.tasks.iter().map(|t| t.task.clone()).collect();
    let found = alternatives(&problem, &made, &ids).unwrap();
    assert_eq!(found.len(), ids.len());
    let sizes = problem.predictions.configs.len();
    for (task, planned) in found.iter().zip(&made.tasks) {
        assert_eq!(task.chosen, made.predicted);
        let count = |of: fn(&Change) -> bool| task.others.iter().filter(|o| of(&o.change)).count();
        assert_eq!(count(|c| matches!(c, Change::Size(_))), sizes - 1, "{}", task.task);
        assert_eq!(count(|c| *c == Change::AnyWorker), 1, "{}", task.task);
        assert_eq!(count(|c| *c == Change::OwnWorker) == 1, task.shares_with > 0, "{}", task.task);
        for other in &task.others {
            // What an alternative promises is what the plan with that change takes.
            let mut changed = draft(&made);
            let at = changed.iter().position(|p| p.task == task.task).unwrap();
            match &other.change {
                Change::Size(config) => {
                    changed
                        .iter_mut()
                        .filter(|p| p.worker == planned.worker)
                        .for_each(|p| p.config = *config);
                }
                Change::ParentWorker { worker, .. } => changed[at].worker = Some(worker.clone()),
                Change::OwnWorker => changed[at].worker = Some(name("own")),
                Change::AnyWorker => changed[at].worker = None,
            }
            let again = complete(&problem, &made.planner, &changed, Vec::new()).unwrap();
            assert_eq!(again.predicted, other.summary, "{} on {}", task.task, other.change);
        }
    }
    let merge = found.last().unwrap();
    let parents = merge.others.iter().filter(|o| matches!(o.change, Change::ParentWorker { .. })).count();
    assert_eq!(parents, 2, "one of three parents has it");
    assert!(alternatives(&problem, &made, &[name("nobody")]).is_err());
}

#[test]
fn the_example_of_a_planner_of_ones_own_runs() {
    own_planner::main();
    let problem = own_planner::problem();
    let made = plan(&problem, &own_planner::Chains).unwrap();
    validate(&problem, &made).unwrap();
    assert_eq!(made.planner.as_str(), own_planner::Chains.name());
    assert_eq!(made.workers.len(), 3, "the split leads one of three chains");
    assert!(made.tasks[7].why.contains("`map-1`"), "{}", made.tasks[7].why);
}
