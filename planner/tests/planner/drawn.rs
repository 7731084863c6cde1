//! Drawn problems: random DAGs, tables of predictions and platforms. Each user takes what it needs.

#![allow(dead_code)]

use foresail_planner::{Planner, blind_table, find};
use foresail_schemas::optimization::{Optimization, PreWarming};
use foresail_schemas::plan::{
    EngineTimes, Objective, Plan, PredictionTable, Problem, StartupTimes, TransferTimes,
};
use foresail_schemas::platform::Platform;
use foresail_schemas::prediction::Basis;
use foresail_schemas::workflow::{Input, Output, Task, Work, WorkflowSpec};
use foresail_schemas::{ObjectName, Sla, TaskId, Workflow};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

/// All planners, those with an effort with a small one.
pub fn planners() -> Vec<Box<dyn Planner>> {
    let quick = |p: Box<dyn Planner>| match p.name() {
        name @ ("anneal" | "pareto" | "auto") => find(&format!("{name}:0.002")).expect("a small effort"),
        _ => p,
    };
    foresail_planner::planners().into_iter().map(quick).collect()
}

pub fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a legal name")
}

pub fn local() -> Platform {
    Platform::built_in().remove(0)
}

pub fn lambda() -> Platform {
    Platform::built_in().remove(1)
}

pub fn task(id: &str, parents: &[String]) -> Task {
    let work = Work::Function { function: name("f"), params: serde_json::Value::Null };
    let mut task = Task::new(name(id), name("f"), work);
    for parent in parents {
        let parent: TaskId = name(parent);
        task.inputs.push(Input::task(parent, ObjectName::default()));
    }
    task
}

pub fn workflow(tasks: Vec<Task>) -> Workflow {
    WorkflowSpec { name: name("w"), description: None, tasks, code: Default::default() }
        .check()
        .expect("edges go forward")
}

/// A problem of `workflow` with the times that `exec_ms` says, measured.
pub fn measured(workflow: Workflow, platform: Platform, objective: Objective) -> Problem {
    let mut predictions = blind_table(&workflow, &platform, Sla::MEDIAN);
    predictions.basis.fill(Basis::Exact);
    predictions.epoch = 1;
    Problem { workflow, platform, predictions, objective, seed: 7, without: Vec::new() }
}

/// The problem of a seed.
pub fn problem(seed: u64) -> Problem {
    problem_of(seed, 1..40)
}

/// The problem of a seed, with so many tasks.
pub fn problem_of(seed: u64, tasks: std::ops::Range<usize>) -> Problem {
    let mut rng = Pcg64::seed_from_u64(seed);
    let mut platform = if rng.random_bool(0.5) { local() } else { lambda() };
    platform.concurrency_max = [1, 2, 3, 8, 1000][rng.random_range(0..5)];
    platform.lanes = if rng.random_bool(0.2) { 2 } else { 1 };
    platform.keep_alive_ms = [0.0, 2_000.0, 300_000.0][rng.random_range(0..3)];
    let workflow = draw_workflow(&mut rng, &platform, tasks);
    let mut predictions = draw_table(&mut rng, &workflow, &platform);
    draw_engine(seed, &mut predictions);
    let objective = draw_objective(&mut rng);
    let seed = rng.random_range(0..1000);
    Problem { workflow, platform, predictions, objective, seed, without: Vec::new() }
}

/// What the engine takes is measured in a third of the problems; drawn apart, so that the rest stays as it
/// was.
fn draw_engine(seed: u64, table: &mut PredictionTable) {
    let mut rng = Pcg64::seed_from_u64(seed ^ 0x0e61);
    if rng.random_bool(0.3) && table.basis.iter().all(|basis| *basis == Basis::Exact) {
        let attempt_ms = table.configs.iter().map(|_| rng.random_range(0.0..2.0)).collect();
        table.engine = Some(EngineTimes { dispatch_ms: rng.random_range(0.0..5.0), attempt_ms });
    }
}

fn draw_objective(rng: &mut Pcg64) -> Objective {
    match rng.random_range(0..7) {
        0..3 => Objective::Fastest,
        3 => Objective::Cheapest,
        4 => Objective::Deadline { makespan_ms: rng.random_range(100.0..60_000.0) },
        5 => Objective::Budget { cost_usd: rng.random_range(1e-6..1e-3) },
        _ => Objective::Balance { time_weight: rng.random_range(0.0..1.0) },
    }
}

fn draw_workflow(rng: &mut Pcg64, platform: &Platform, tasks: std::ops::Range<usize>) -> Workflow {
    let len = rng.random_range(tasks);
    let degree = rng.random_range(0.5..4.0);
    let largest_mb = platform.menu.iter().map(|c| c.memory_mb).max().unwrap_or(1);
    let mut tasks = Vec::new();
    for t in 0..len {
        let mut parents = Vec::new();
        for parent in 0..t {
            if rng.random_bool(f64::min(1.0, degree / t as f64)) {
                parents.push(format!("t{parent}"));
            }
        }
        let mut task = task(&format!("t{t}"), &parents);
        if rng.random_bool(0.2) {
            let uri = format!("file:///in{}", rng.random_range(0..3));
            task.inputs.push(Input::External { uri, bytes: None });
        }
        if rng.random_bool(0.1) {
            task.memory_mb_min = Some(rng.random_range(1..=largest_mb));
        }
        if rng.random_bool(0.1) {
            task.outputs.push(Output { name: ObjectName::default(), bytes: None });
            task.outputs.push(Output { name: name("more"), bytes: None });
        }
        if t > 0 && rng.random_bool(0.1) {
            task.after.push(name(&format!("t{}", rng.random_range(0..t))));
        }
        tasks.push(task);
    }
    workflow(tasks)
}

fn draw_table(rng: &mut Pcg64, workflow: &Workflow, platform: &Platform) -> PredictionTable {
    let mut table = blind_table(workflow, platform, Sla::MEDIAN);
    if rng.random_bool(0.1) {
        return table;
    }
    table.basis.fill(Basis::Exact);
    let scale = [10.0, 300.0, 5_000.0][rng.random_range(0..3)];
    let own: Vec<(f64, f64)> =
        workflow.tasks().iter().map(|_| (rng.random_range(0.0..scale), rng.random_range(0.0..1.0))).collect();
    for (c, row) in table.exec_ms.iter_mut().enumerate() {
        let share = table.configs[c].cpu_share();
        for (exec_ms, (one_ms, serial)) in row.iter_mut().zip(&own) {
            *exec_ms = one_ms * (serial + (1.0 - serial) / share.min(2.0));
        }
    }
    let large = [10_000, 1_000_000, 200_000_000][rng.random_range(0..3)];
    for bytes in &mut table.object_bytes {
        *bytes = rng.random_range(0..large);
    }
    for (c, transfer) in table.transfer.iter_mut().enumerate() {
        let factor = 1.0 / (1.0 + c as f64);
        *transfer = TransferTimes {
            download_latency_ms: rng.random_range(0.0..20.0),
            download_ms_per_byte: factor * rng.random_range(1e-6..1e-4),
            upload_latency_ms: rng.random_range(0.0..20.0),
            upload_ms_per_byte: factor * rng.random_range(1e-6..1e-4),
        };
        table.startup[c] =
            StartupTimes { cold_ms: rng.random_range(10.0..1_000.0), warm_ms: rng.random_range(0.0..50.0) };
    }
    table
}

/// What a planner could do beside running tasks, drawn: none of it, some, or much of it.
pub fn optimized(problem: &Problem, plan: &Plan, seed: u64) -> Plan {
    let mut rng = Pcg64::seed_from_u64(seed ^ 0x0b71);
    let mut plan = plan.clone();
    let graph = problem.workflow.graph();
    let (pre_load, task_dup, pre_warm) =
        (rng.random_range(0.0..1.0), rng.random_range(0.0..1.0), rng.random_range(0.0..0.5));
    for t in 0..plan.tasks.len() {
        let own = plan.tasks[t].worker.clone();
        let waits = |&c: &u32| {
            let worker = &plan.tasks[c as usize].worker;
            worker.is_some() && *worker != own
        };
        let mut drawn = Vec::new();
        if own.is_some() && rng.random_bool(pre_load) {
            drawn.push(Optimization::PreLoad);
        }
        if own.is_some() && rng.random_bool(task_dup) && graph.children(t as u32).iter().any(waits) {
            drawn.push(Optimization::TaskDup);
        }
        plan.tasks[t].optimizations = drawn;
    }
    plan.prewarms.clear();
    for serves in 0..plan.tasks.len() {
        if !rng.random_bool(pre_warm) {
            continue;
        }
        let after = rng.random_bool(0.7).then(|| rng.random_range(0..plan.tasks.len()));
        let delay_ms = rng.random_range(0.0..plan.predicted.makespan_ms);
        plan.prewarms.push(PreWarming {
            config: plan.tasks[serves].config,
            after: after.map(|t| plan.tasks[t].task.clone()),
            delay_ms,
            serves: plan.tasks[serves].task.clone(),
        });
    }
    plan
}
