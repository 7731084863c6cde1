//! What each optimisation brings in the event simulator, on workflows small enough to reckon by hand.
//!
//! A start takes 500 ms cold and nothing warm, a megabyte 100 ms either way.

use foresail_planner::{find, plan, simulate};
use foresail_schemas::optimization::{Optimization, PreWarming};
use foresail_schemas::plan::{Objective, Plan, PlanSummary, PlannedWorker, Problem};
use foresail_schemas::plan::{StartupTimes, TransferTimes};
use foresail_schemas::run::RunOptions;

use crate::drawn::{local, measured, name, task, workflow};

const MEGABYTE: u64 = 1_000_000;

/// A task: its worker, its parents, its time in ms, the size of its output.
type Row = (&'static str, &'static [&'static str], f64, u64);

fn problem(rows: &[Row]) -> Problem {
    let id = |t: usize| format!("t{t}");
    let parents = |row: &Row| row.1.iter().map(ToString::to_string).collect::<Vec<_>>();
    let tasks = rows.iter().enumerate().map(|(t, row)| task(&id(t), &parents(row))).collect();
    let mut platform = local();
    platform.concurrency_max = 8;
    let mut problem = measured(workflow(tasks), platform, Objective::Fastest);
    let table = &mut problem.predictions;
    for row in &mut table.exec_ms {
        row.iter_mut().zip(rows).for_each(|(exec_ms, row)| *exec_ms = row.2);
    }
    table.object_bytes.iter_mut().zip(rows).for_each(|(bytes, row)| *bytes = row.3);
    table.startup.fill(StartupTimes { cold_ms: 500.0, warm_ms: 0.0 });
    table.transfer.fill(TransferTimes {
        download_latency_ms: 0.0,
        download_ms_per_byte: 1e-4,
        upload_latency_ms: 0.0,
        upload_ms_per_byte: 1e-4,
    });
    problem
}

/// Every task on the worker that its row says, in the order of the rows.
fn placed(problem: &Problem, rows: &[Row]) -> Plan {
    let mut plan = plan(problem, find("simple").expect("it exists").as_ref()).expect("a valid problem");
    let config = plan.tasks[0].config;
    plan.workers.clear();
    for (rank, (task, row)) in plan.tasks.iter_mut().zip(rows).enumerate() {
        (task.worker, task.config, task.rank) = (Some(name(row.0)), config, rank as u32);
        if plan.workers.iter().all(|w| w.id.as_str() != row.0) {
            let id = name(row.0);
            plan.workers.push(PlannedWorker { id, config, start_ms: 0.0, end_ms: 0.0, cost_usd: 0.0 });
        }
    }
    plan
}

fn run(problem: &Problem, plan: &Plan) -> PlanSummary {
    let options = RunOptions { overlap_uploads: false, ..RunOptions::default() };
    simulate(problem, plan, &options).expect("it completes").summary
}

fn close(a_ms: f64, b_ms: f64) -> bool {
    (a_ms - b_ms).abs() < 1e-6
}

#[test]
fn an_overlapped_upload_saves_its_time() {
    let rows: [Row; 2] = [("a", &[], 200.0, MEGABYTE), ("a", &[], 200.0, MEGABYTE)];
    let problem = problem(&rows);
    let plan = placed(&problem, &rows);
    let off = run(&problem, &plan);
    let on = simulate(&problem, &plan, &RunOptions::default()).expect("it completes").summary;
    assert!(close(off.makespan_ms - on.makespan_ms, 100.0), "{off:?} {on:?}");
    assert_eq!((on.invocations, on.upload_bytes), (off.invocations, off.upload_bytes));
}

#[test]
fn preload_saves_the_download_and_moves_nothing_twice() {
    let rows: [Row; 4] = [
        ("b", &[], 100.0, MEGABYTE),
        ("a", &[], 700.0, 10),
        ("a", &["t0", "t1"], 100.0, 10),
        ("a", &["t0", "t2"], 100.0, 10),
    ];
    let problem = problem(&rows);
    let mut plan = placed(&problem, &rows);
    let off = run(&problem, &plan);
    for preloading in [vec![2], vec![2, 3]] {
        plan.tasks.iter_mut().for_each(|task| task.optimizations.clear());
        preloading.iter().for_each(|&t: &usize| plan.tasks[t].optimizations.push(Optimization::PreLoad));
        let on = run(&problem, &plan);
        assert!(close(off.makespan_ms - on.makespan_ms, 100.0), "{preloading:?}: {off:?} {on:?}");
        assert_eq!((on.download_bytes, on.invocations), (MEGABYTE, 2));
    }
}

#[test]
fn a_preload_that_is_late_is_waited_for() {
    // The download begins a round trip before the lease is asked for, and takes longer than that.
    let rows: [Row; 3] =
        [("b", &[], 300.0, MEGABYTE), ("a", &[], 100.0, 10), ("a", &["t0", "t1"], 100.0, 10)];
    let problem = problem(&rows);
    let mut plan = placed(&problem, &rows);
    let off = run(&problem, &plan);
    plan.tasks[2].optimizations.push(Optimization::PreLoad);
    let on = run(&problem, &plan);
    let dispatch_ms = problem.platform.assumed.dispatch_ms;
    assert!(close(off.makespan_ms - on.makespan_ms, dispatch_ms), "{off:?} {on:?}");
    assert_eq!(on.download_bytes, off.download_bytes);
}

#[test]
fn a_copy_of_a_short_task_spares_the_wait_for_its_worker() {
    let rows: [Row; 4] = [
        ("a", &[], 10.0, 10),
        ("b", &[], 800.0, 10),
        ("b", &[], 50.0, 10),
        ("a", &["t0", "t2"], 1_000.0, 10),
    ];
    let problem = problem(&rows);
    let mut plan = placed(&problem, &rows);
    let off = run(&problem, &plan);
    plan.tasks[2].optimizations.push(Optimization::TaskDup);
    let on = run(&problem, &plan);
    let saved_ms = off.makespan_ms - on.makespan_ms;
    assert!(saved_ms > 700.0, "{saved_ms}: {off:?} {on:?}");
}

#[test]
fn a_copy_costs_nothing_where_the_owner_is_first() {
    let rows: [Row; 3] = [("a", &[], 10.0, 10), ("b", &[], 50.0, 10), ("a", &["t0", "t1"], 100.0, 10)];
    let problem = problem(&rows);
    let mut plan = placed(&problem, &rows);
    let off = run(&problem, &plan);
    plan.tasks[1].optimizations.push(Optimization::TaskDup);
    let on = run(&problem, &plan);
    assert!(on.makespan_ms <= off.makespan_ms + 50.0, "at most the copy is in the way: {off:?} {on:?}");
    assert_eq!(on.invocations, off.invocations);
}

#[test]
fn a_worker_started_beforehand_is_warm_when_its_task_comes() {
    let rows: [Row; 2] = [("a", &[], 2_000.0, 10), ("b", &["t0"], 100.0, 10)];
    let problem = problem(&rows);
    let mut plan = placed(&problem, &rows);
    let off = run(&problem, &plan);
    assert_eq!((off.invocations, off.cold_starts), (2, 2));
    let config = plan.tasks[1].config;
    for (after, delay_ms) in [(Some(name("t0")), 1_000.0), (None, 1_000.0), (None, 0.0)] {
        plan.prewarms = vec![PreWarming { config, after, delay_ms, serves: name("t1") }];
        let on = run(&problem, &plan);
        assert!(close(off.makespan_ms - on.makespan_ms, 500.0), "{:?}: {on:?}", plan.prewarms);
        assert_eq!((on.invocations, on.cold_starts), (3, 2));
        // The start is billed all the same, only in another invocation; a request is added.
        let request_usd = problem.platform.rates().request_usd(&config);
        assert!((on.cost_usd - off.cost_usd - request_usd).abs() < 1e-12, "{off:?} {on:?}");
    }
    plan.prewarms = vec![PreWarming { config, after: Some(name("t0")), delay_ms: 1e6, serves: name("t1") }];
    assert_eq!(run(&problem, &plan), off, "nothing waits for a start that is not due");
    plan.prewarms = vec![PreWarming { config, after: None, delay_ms: 1e6, serves: name("t1") }];
    assert_eq!(run(&problem, &plan), off, "the client starts nothing for a run that is over");
}
