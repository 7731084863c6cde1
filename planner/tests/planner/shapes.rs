//! Small workflows whose best plan is known.

use foresail_planner::{blind_table, find, gantt, plan, simulate, validate};
use foresail_schemas::plan::{Objective, Plan, Problem};
use foresail_schemas::prediction::Basis;
use foresail_schemas::run::RunOptions;
use foresail_schemas::{Sla, Workflow};

use crate::drawn::{lambda, local, measured, name, task, workflow};

fn planned(problem: &Problem, planner: &str) -> Plan {
    let planner = find(planner).expect("it exists");
    plan(problem, planner.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", planner.name()))
}

fn chain(len: usize) -> Workflow {
    let parents = |t: usize| if t == 0 { vec![] } else { vec![format!("t{}", t - 1)] };
    workflow((0..len).map(|t| task(&format!("t{t}"), &parents(t))).collect())
}

/// One split, `width` tasks of uneven length, one merge.
fn fork_join(width: usize) -> (Workflow, Vec<f64>) {
    let mut tasks = vec![task("split", &[])];
    let middle: Vec<String> = (0..width).map(|t| format!("m{t}")).collect();
    tasks.extend(middle.iter().map(|id| task(id, &["split".to_owned()])));
    tasks.push(task("merge", &middle));
    let mut exec_ms = vec![50.0];
    exec_ms.extend((0..width).map(|t| if t + 1 == width { 4_000.0 } else { 500.0 }));
    exec_ms.push(50.0);
    (workflow(tasks), exec_ms)
}

#[test]
fn a_chain_runs_on_one_worker() {
    for planner in ["simple", "uniform", "nonuniform", "auto"] {
        let problem = measured(chain(6), local(), Objective::Fastest);
        let plan = planned(&problem, planner);
        assert_eq!(plan.predicted.invocations, 1, "{planner}");
        assert!(plan.bounds.makespan_ratio < 1.01, "{planner}: {:?}", plan.bounds);
        assert_eq!(plan.critical_path.len(), 6, "{planner}");
    }
}

#[test]
fn known_times_make_a_run_on_two_slots_faster() {
    let (workflow, exec_ms) = fork_join(9);
    let mut problem = measured(workflow.clone(), local(), Objective::Fastest);
    for (c, row) in problem.predictions.exec_ms.iter_mut().enumerate() {
        let share = problem.predictions.configs[c].cpu_share().min(1.0);
        row.iter_mut().zip(&exec_ms).for_each(|(ms, one)| *ms = one / share);
    }
    let mut blind = problem.clone();
    blind.predictions = blind_table(&workflow, &local(), Sla::MEDIAN);
    let options = RunOptions::default();
    let simulated =
        |plan: &Plan| simulate(&problem, plan, &options).expect("it completes").summary.makespan_ms;
    let (before_ms, after_ms) =
        (simulated(&planned(&blind, "simple")), simulated(&planned(&problem, "auto")));
    assert!(after_ms < 0.8 * before_ms, "{after_ms} against {before_ms}");
    let plan = planned(&problem, "auto");
    assert!(plan.predicted.cold_starts <= 2, "two slots need no more than two starts: {:?}", plan.predicted);
    assert!(plan.explanation.iter().any(|s| s.starts_with("simple:")), "{:?}", plan.explanation);
}

#[test]
fn memory_needed_is_memory_given() {
    let mut tasks = vec![task("a", &[]), task("b", &["a".to_owned()])];
    tasks[1].memory_mb_min = Some(1000);
    let problem = measured(workflow(tasks), local(), Objective::Cheapest);
    for planner in ["simple", "uniform", "nonuniform", "random", "auto"] {
        let plan = planned(&problem, planner);
        assert!(plan.tasks[1].config.memory_mb >= 1000, "{planner}");
        assert!(plan.tasks[1].why.contains("1000 MB"), "{planner}: {}", plan.tasks[1].why);
    }
}

#[test]
fn a_task_that_no_size_can_hold_is_refused_with_the_reason() {
    let mut tasks = vec![task("a", &[])];
    tasks[0].memory_mb_min = Some(100_000);
    let problem = measured(workflow(tasks), local(), Objective::Fastest);
    let error = plan(&problem, find("auto").expect("it exists").as_ref()).expect_err("there is no such size");
    assert_eq!(
        error.to_string(),
        "task `a` needs 100000 MB, the largest size of the platform has 1769 MB; hint: split the task, or \
         give the platform a larger size or a `[pool]`"
    );

    let mut problem = measured(chain(1), local(), Objective::Fastest);
    problem.predictions.exec_ms.iter_mut().for_each(|row| row[0] = 1e9);
    let error =
        plan(&problem, find("auto").expect("it exists").as_ref()).expect_err("it outlives its worker");
    assert!(error.to_string().contains("hint: split the task"), "{error}");
}

#[test]
fn a_table_of_another_workflow_is_refused() {
    let mut problem = measured(chain(3), local(), Objective::Fastest);
    problem.predictions = blind_table(&chain(4), &local(), Sla::MEDIAN);
    let error =
        plan(&problem, find("simple").expect("it exists").as_ref()).expect_err("it has a column too many");
    assert!(error.to_string().contains("has 4 entries, 3 are needed"), "{error}");

    let mut problem = measured(chain(3), local(), Objective::Fastest);
    problem.predictions.exec_ms[0][1] = f64::NAN;
    assert!(plan(&problem, find("simple").expect("it exists").as_ref()).is_err());

    let mut problem = measured(chain(3), local(), Objective::Fastest);
    problem.platform = lambda();
    let error = plan(&problem, find("simple").expect("it exists").as_ref()).expect_err("other sizes");
    assert!(error.to_string().contains("does not offer"), "{error}");
}

#[test]
fn a_lost_deadline_is_said_with_one_that_is_feasible() {
    let problem = measured(chain(4), local(), Objective::Deadline { makespan_ms: 10.0 });
    let plan = planned(&problem, "auto");
    assert!(plan.explanation.iter().any(|s| s.contains("is feasible")), "{:?}", plan.explanation);
    let makespan_ms = plan.predicted.makespan_ms;
    let problem = measured(chain(4), local(), Objective::Deadline { makespan_ms: makespan_ms + 1.0 });
    assert!(planned(&problem, "auto").predicted.makespan_ms <= makespan_ms + 1.0);
}

#[test]
fn blind_tables_take_hints_and_say_that_nothing_was_measured() {
    let mut tasks = vec![task("a", &[]), task("b", &["a".to_owned()])];
    tasks[0].hint.exec_ms = Some(100.0);
    tasks[0].outputs.push(foresail_schemas::workflow::Output { name: name("out"), bytes: Some(1000) });
    let workflow = workflow(tasks);
    let table = blind_table(&workflow, &local(), Sla::MEDIAN);
    assert_eq!(table.object_bytes, [1000, 500], "half of the input, as the platform assumes");
    assert!(table.basis.iter().all(|b| *b == Basis::None));
    let last = table.configs.len() - 1;
    assert_eq!(table.exec_ms[last], [100.0, 1000.0], "1769 MB bring one vCPU");
    assert!((table.exec_ms[0][0] - 100.0 * 1769.0 / 442.0).abs() < 1e-9);
}

#[test]
fn a_gantt_has_a_row_per_worker_and_fits_its_width() {
    let (workflow, _) = fork_join(5);
    let problem = measured(workflow, local(), Objective::Fastest);
    for planner in ["simple", "uniform"] {
        let plan = planned(&problem, planner);
        let text = gantt(&plan, 80);
        assert!(text.is_ascii() && text.lines().all(|l| l.len() <= 80), "{text}");
        assert!(text.lines().count() > plan.workers.len(), "{text}");
        assert!(text.contains('*'), "{text}");
    }
}

#[test]
fn the_validator_sees_broken_plans() {
    let (workflow, _) = fork_join(4);
    let problem = measured(workflow, local(), Objective::Fastest);
    let good = planned(&problem, "uniform");
    assert_eq!(validate(&problem, &good), Ok(()));
    type Break = (&'static str, fn(&mut Plan));
    let breaks: [Break; 7] = [
        ("starts before its parent ends", |p| p.tasks[5].start_ms = 0.0),
        ("ends before it can", |p| p.tasks[1].end_ms = p.tasks[1].start_ms),
        ("claims a shorter time than predicted", |p| p.tasks[1].exec_ms /= 2.0),
        ("beats the bound", |p| p.bounds.makespan_ms = p.predicted.makespan_ms * 1.1),
        ("is not a number", |p| p.predicted.cost_usd = f64::NAN),
        ("names no last task", |p| p.critical_path.clear()),
        ("runs all at once on one worker", |p| {
            let (start_ms, end_ms) = (p.tasks[1].start_ms, p.tasks[4].end_ms);
            for task in &mut p.tasks[1..5] {
                (task.start_ms, task.end_ms) = (start_ms, end_ms.max(start_ms + task.exec_ms));
            }
        }),
    ];
    for (what, change) in breaks {
        let mut bad = good.clone();
        change(&mut bad);
        assert!(validate(&problem, &bad).is_err(), "a plan that {what} is not valid");
    }
}

#[test]
fn the_critical_path_goes_through_what_occupies_the_worker() {
    let mut platform = local();
    platform.concurrency_max = 1;
    let independent = workflow((0..3).map(|t| task(&format!("t{t}"), &[])).collect());
    for planner in ["simple", "uniform", "auto"] {
        let problem = measured(independent.clone(), platform.clone(), Objective::Fastest);
        let plan = planned(&problem, planner);
        assert_eq!(plan.critical_path.len(), 3, "{planner}: one slot runs them one after another");
    }
}
