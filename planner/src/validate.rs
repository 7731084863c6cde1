//! The independent validator: does a plan keep what every plan must keep?
//!
//! It knows nothing of how plans are made; it reads the plan and the problem alone. Used by `debug_assert!`
//! in [`crate::plan`], by the tests, and by anyone who gets a plan from elsewhere.

use std::collections::{HashMap, HashSet};

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::optimization::Optimization;
use foresail_schemas::plan::{Plan, PlanError, PlannedTask, Problem};
use foresail_schemas::prediction::Basis;
use foresail_schemas::workflow::Input;
use foresail_schemas::{TaskId, WorkerId};

/// Differences of this size, relative to the larger number, are rounding.
const ROUNDING: f64 = 1e-6;

/// What a plan breaks.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Violation {
    /// It is not a plan of this workflow.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A task has a size that nothing is predicted for.
    #[error("task `{task}` runs on {config}, which the problem has no predictions for")]
    Config {
        /// The task.
        task: TaskId,
        /// The size.
        config: String,
    },
    /// A time is not a number, or does not leave room for what it covers.
    #[error("`{field}` of `{owner}` is {value}, expected at least {least}")]
    Time {
        /// Task or worker, or `plan`.
        owner: String,
        /// The field.
        field: &'static str,
        /// Its value.
        value: f64,
        /// The least it may be.
        least: f64,
    },
    /// A task starts before one that it waits for has ended.
    #[error("task `{task}` starts at {start_ms} ms, before `{parent}` ends at {end_ms} ms")]
    Dependency {
        /// The task.
        task: TaskId,
        /// The one it waits for.
        parent: TaskId,
        /// Its start.
        start_ms: f64,
        /// End of the other.
        end_ms: f64,
    },
    /// More tasks run at the same time than there is room for.
    #[error("`{owner}` runs {running} tasks at {at_ms} ms, it has room for {room}")]
    Overlap {
        /// A worker, or `platform`.
        owner: String,
        /// Tasks that run.
        running: u64,
        /// When.
        at_ms: f64,
        /// Tasks that may run.
        room: u64,
    },
    /// A task has an optimisation that cannot be carried out, or lacks one that the workflow forces.
    #[error("task `{task}` {fault}")]
    Optimization {
        /// The task.
        task: TaskId,
        /// What is wrong.
        fault: &'static str,
    },
    /// A worker that is started beforehand serves or follows no task of the workflow, or has no size of the
    /// problem.
    #[error("the worker of {config} that is started beforehand for `{serves}`: {fault}")]
    PreWarm {
        /// The task that it serves.
        serves: TaskId,
        /// Its size.
        config: String,
        /// What is wrong.
        fault: String,
    },
    /// A task of the pool has no worker, or there are more workers of it than the platform has.
    #[error(
        "task `{task}` makes {workers} workers of the pool, which has {workers_max}, or is bound to none"
    )]
    Pool {
        /// The task.
        task: TaskId,
        /// Workers of the pool up to it.
        workers: usize,
        /// Workers that the pool has.
        workers_max: u32,
    },
    /// A task is planned on a size whose workers do not live as long as it takes.
    #[error(
        "task `{task}` takes {needed_ms} ms with a cold start and its transfers, a worker of {config} lives \
         {life_ms_max} ms"
    )]
    Life {
        /// The task.
        task: TaskId,
        /// Its time in an invocation of its own.
        needed_ms: f64,
        /// The size.
        config: String,
        /// The life.
        life_ms_max: f64,
    },
    /// A task is expected to run without what it cannot run without, or expected to be skipped for no reason.
    #[error("task `{task}` {fault}")]
    Expectation {
        /// The task.
        task: TaskId,
        /// What is wrong.
        fault: &'static str,
    },
    /// The critical path is empty or names a task that is not there or out of order.
    #[error("the critical path is broken at `{0}`")]
    CriticalPath(String),
}

/// Checks a plan against its problem.
///
/// # Errors
/// The first [`Violation`] found.
pub fn validate(problem: &Problem, plan: &Plan) -> Result<(), Violation> {
    check(problem, plan, &|_| true)
}

/// Checks the plan of a run that is under way: `is_open` says of which tasks, by their places in the
/// workflow, nobody has begun. What has begun took what it took, by whatever plan it did.
///
/// # Errors
/// The first [`Violation`] found.
pub fn validate_rest(problem: &Problem, plan: &Plan, is_open: impl Fn(u32) -> bool) -> Result<(), Violation> {
    check(problem, plan, &is_open)
}

fn check(problem: &Problem, plan: &Plan, is_open: &dyn Fn(u32) -> bool) -> Result<(), Violation> {
    plan.check(&problem.workflow)?;
    check_expectations(problem, plan)?;
    check_tasks(problem, plan, is_open)?;
    check_optimizations(problem, plan, is_open)?;
    check_prewarms(problem, plan)?;
    check_dependencies(problem, plan)?;
    check_pool(problem, plan, is_open)?;
    check_room(problem, plan, is_open)?;
    check_workers(plan)?;
    check_sums(plan)?;
    check_path(problem, plan, is_open)
}

fn at_least(owner: &str, field: &'static str, value: f64, least: f64) -> Result<(), Violation> {
    // Not a number is not at least anything.
    if value.is_finite() && value >= least - ROUNDING * least.abs().max(1e-9) {
        return Ok(());
    }
    Err(Violation::Time { owner: owner.to_owned(), field, value, least })
}

/// What is expected has what it cannot run without; what is not has a reason, and counts for nothing.
fn check_expectations(problem: &Problem, plan: &Plan) -> Result<(), Violation> {
    let (workflow, graph) = (&problem.workflow, problem.workflow.graph());
    for (task, spec) in plan.tasks.iter().zip(workflow.tasks()) {
        let needed = spec.inputs.iter().filter_map(|input| match input {
            Input::Task { task, optional: false, .. } => Some(task),
            _ => None,
        });
        let needed = needed.chain(&spec.after).chain(spec.when.as_ref().map(|when| &when.task));
        let lacks = needed.filter_map(|id| graph.find(id)).any(|p| plan.tasks[p as usize].unexpected);
        let broken = |fault| Err(Violation::Expectation { task: task.task.clone(), fault });
        if lacks && !task.unexpected {
            return broken("is expected to run, and something that it needs is not");
        }
        if task.unexpected && !lacks && spec.when.is_none() {
            return broken("is not expected to run, and nothing can keep it from running");
        }
        if task.unexpected && (task.exec_ms != 0.0 || task.end_ms != task.start_ms) {
            return broken("is not expected to run and takes time");
        }
    }
    Ok(())
}

fn check_tasks(problem: &Problem, plan: &Plan, is_open: &dyn Fn(u32) -> bool) -> Result<(), Violation> {
    let table = &problem.predictions;
    for (t, task) in plan.tasks.iter().enumerate() {
        let Some(size) = table.configs.iter().position(|c| c.key() == task.config.key()) else {
            return Err(Violation::Config { task: task.task.clone(), config: task.config.to_string() });
        };
        let owner = task.task.as_str();
        at_least(owner, "start_ms", task.start_ms, 0.0)?;
        if task.unexpected || !is_open(t as u32) {
            at_least(owner, "end_ms", task.end_ms, task.start_ms)?;
            continue;
        }
        at_least(owner, "exec_ms", task.exec_ms, table.exec_ms[size][t])?;
        at_least(owner, "end_ms", task.end_ms, computed_ms(task))?;
    }
    Ok(())
}

/// Pre-load needs a worker that knows its tasks beforehand, task-dup one that waits elsewhere; what the
/// workflow forces stands in the plan wherever it can be carried out.
fn check_optimizations(
    problem: &Problem,
    plan: &Plan,
    is_open: &dyn Fn(u32) -> bool,
) -> Result<(), Violation> {
    let graph = problem.workflow.graph();
    let all = (0..).zip(plan.tasks.iter().zip(problem.workflow.tasks()));
    for (t, (task, asked)) in all.filter(|&(t, _)| is_open(t)) {
        let own = task.worker.as_ref();
        let waits = |&&c: &&u32| {
            let worker = plan.tasks[c as usize].worker.as_ref();
            own.is_some() && worker.is_some() && worker != own
        };
        let needed_mb = asked.memory_mb_min.unwrap_or(0);
        let outlives = |config: &ResourceConfig| needed_ms(problem, config, t) > problem.platform.life_ms_max;
        let can_be = |o: &Optimization| match o {
            Optimization::PreLoad => own.is_some(),
            Optimization::TaskDup => {
                let mut sizes =
                    graph.children(t).iter().filter(waits).map(|&c| plan.tasks[c as usize].config);
                let first = sizes.next();
                let fits = |c: ResourceConfig| c.memory_mb >= needed_mb && !outlives(&c);
                first.is_some_and(fits) && sizes.all(fits)
            }
            Optimization::PreWarm => plan.prewarms.iter().any(|w| w.serves == task.task),
            Optimization::Custom { .. } => true,
        };
        let broken = |fault| Err(Violation::Optimization { task: task.task.clone(), fault });
        match task.optimizations.iter().find(|o| !can_be(o)) {
            None => {}
            Some(Optimization::PreLoad) => return broken("has pre-load and no worker of its own"),
            Some(Optimization::TaskDup) => {
                return broken("has task-dup and no worker waits for it elsewhere");
            }
            Some(_) => return broken("has pre-warm and no worker is started beforehand for it"),
        }
        // Whether a copy lives long enough by its p99 is the planner's to say.
        let is_sure = |o: &Optimization| {
            !task.unexpected && (*o != Optimization::TaskDup || problem.predictions.uncertainty.is_none())
        };
        let lacks = |o: &Optimization| is_sure(o) && can_be(o) && !task.optimizations.contains(o);
        if asked.optimizations.iter().any(lacks) {
            return broken("lacks an optimisation that the workflow forces");
        }
    }
    Ok(())
}

fn check_prewarms(problem: &Problem, plan: &Plan) -> Result<(), Violation> {
    let (graph, configs) = (problem.workflow.graph(), &problem.predictions.configs);
    for warming in &plan.prewarms {
        let broken = |fault: String| {
            let (serves, config) = (warming.serves.clone(), warming.config.to_string());
            Err(Violation::PreWarm { serves, config, fault })
        };
        let named = std::iter::once(&warming.serves).chain(&warming.after);
        if let Some(unknown) = named.into_iter().find(|id| graph.find(id).is_none()) {
            return broken(format!("the workflow has no task `{unknown}`"));
        }
        if !configs.iter().any(|c| c.key() == warming.config.key()) {
            return broken("the problem has no predictions for this size".to_owned());
        }
        at_least(warming.serves.as_str(), "delay_ms", warming.delay_ms, 0.0)?;
    }
    Ok(())
}

fn check_dependencies(problem: &Problem, plan: &Plan) -> Result<(), Violation> {
    let graph = problem.workflow.graph();
    for t in 0..graph.len() as u32 {
        let task = &plan.tasks[t as usize];
        for &p in graph.parents(t) {
            let parent = &plan.tasks[p as usize];
            // What is not expected waits for nothing, and nobody waits for it.
            if !task.unexpected && !parent.unexpected && task.start_ms < parent.end_ms * (1.0 - ROUNDING) {
                return Err(Violation::Dependency {
                    task: task.task.clone(),
                    parent: parent.task.clone(),
                    start_ms: task.start_ms,
                    end_ms: parent.end_ms,
                });
            }
        }
    }
    Ok(())
}

fn is_pooled(problem: &Problem, task: &PlannedTask) -> bool {
    problem.platform.pool.is_some_and(|pool| pool.config().key() == task.config.key())
}

/// Workers on the platform live long enough for their tasks; those of the pool are planned, and few enough.
fn check_pool(problem: &Problem, plan: &Plan, is_open: &dyn Fn(u32) -> bool) -> Result<(), Violation> {
    let workers_max = problem.platform.pool.map_or(0, |pool| pool.workers_max);
    let mut workers = HashSet::new();
    for (t, task) in (0..).zip(&plan.tasks).filter(|&(t, _)| is_open(t)) {
        let life_ms_max = problem.platform.life_ms_max;
        if !is_pooled(problem, task) {
            let needed_ms = needed_ms(problem, &task.config, t);
            if needed_ms <= life_ms_max * (1.0 + ROUNDING) {
                continue;
            }
            let config = task.config.to_string();
            return Err(Violation::Life { task: task.task.clone(), needed_ms, config, life_ms_max });
        }
        workers.extend(&task.worker);
        if task.worker.is_none() || workers.len() > workers_max as usize {
            return Err(Violation::Pool { task: task.task.clone(), workers: workers.len(), workers_max });
        }
    }
    Ok(())
}

/// What a task takes of the life of an invocation that runs nothing else: its start, one round trip, what it
/// reads, its execution, what it stores. Sizes that nobody stated or measured do not count.
fn needed_ms(problem: &Problem, config: &ResourceConfig, task: u32) -> f64 {
    let (table, graph) = (&problem.predictions, problem.workflow.graph());
    let Some(size) = table.configs.iter().position(|c| c.key() == config.key()) else { return 0.0 };
    let (start, transfer) = (&table.startup[size], &table.transfer[size]);
    let dispatch_ms = table.engine.as_ref().map_or(problem.platform.assumed.dispatch_ms, |e| e.dispatch_ms);
    let attempt_ms = table.engine.as_ref().map_or(0.0, |e| e.attempt_ms[size]);
    let is_stored = |&&o: &&u32| {
        let is_made = graph.objects()[o as usize].producer.is_some();
        !is_made || table.object_bytes[o as usize] > problem.platform.inline_bytes_max
    };
    let is_guessed = |o: u32| {
        let object = &graph.objects()[o as usize];
        object.bytes_hint.is_none() && object.producer.is_some_and(|t| table.basis[t as usize] == Basis::None)
    };
    let bytes = |o: u32| if is_guessed(o) { 0 } else { table.object_bytes[o as usize] };
    let moved_ms = |objects: &[u32], latency_ms: f64, ms_per_byte: f64| -> f64 {
        let each_ms = |&o: &u32| latency_ms + bytes(o) as f64 * ms_per_byte;
        objects.iter().filter(is_stored).map(each_ms).sum()
    };
    let is_sure = !graph.writes(task).iter().any(|&o| is_guessed(o));
    let uploads = if is_sure { graph.writes(task) } else { &[] };
    start.cold_ms.max(start.warm_ms)
        + dispatch_ms
        + attempt_ms
        + moved_ms(graph.reads(task), transfer.download_latency_ms, transfer.download_ms_per_byte)
        + table.exec_ms[size][task as usize]
        + moved_ms(uploads, transfer.upload_latency_ms, transfer.upload_ms_per_byte)
}

/// A task holds its lane until its code has ended; that many more may store at the same time. One that may
/// run twice is listed with the times of the attempt that counts, wherever that ran.
fn check_room(problem: &Problem, plan: &Plan, is_open: &dyn Fn(u32) -> bool) -> Result<(), Violation> {
    let lanes = u64::from(problem.platform.lanes);
    let mut by_worker: HashMap<&WorkerId, Vec<(f64, f64)>> = HashMap::new();
    let mut all = Vec::with_capacity(plan.tasks.len());
    let counts = |(t, task): &(u32, &PlannedTask)| is_open(*t) && !may_run_twice(task);
    for (_, task) in (0..).zip(&plan.tasks).filter(counts) {
        let span = (task.start_ms, computed_ms(task));
        if !is_pooled(problem, task) {
            all.push(span);
        }
        if let Some(worker) = &task.worker {
            by_worker.entry(worker).or_default().push(span);
        }
    }
    check_overlap("platform", &all, lanes * u64::from(problem.platform.concurrency_max))?;
    plan.workers
        .iter()
        .filter_map(|w| by_worker.get(&w.id).map(|spans| (w, spans)))
        .try_for_each(|(w, spans)| check_overlap(w.id.as_str(), spans, lanes))
}

fn may_run_twice(task: &PlannedTask) -> bool {
    task.optimizations.contains(&Optimization::TaskDup)
}

/// When the code of a task has ended at the earliest; a copy may have run on another size.
fn computed_ms(task: &PlannedTask) -> f64 {
    if may_run_twice(task) { task.start_ms } else { task.start_ms + task.exec_ms }
}

/// Sweeps over starts and ends; ends come first where both fall together.
fn check_overlap(owner: &str, spans: &[(f64, f64)], room: u64) -> Result<(), Violation> {
    let mut turns: Vec<(f64, i64)> = Vec::with_capacity(2 * spans.len());
    for &(start, end) in spans.iter().filter(|(start, end)| end > start) {
        turns.extend([(start, 1), (end * (1.0 - ROUNDING * 1e-3), -1)]);
    }
    turns.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut running = 0_i64;
    for (at_ms, change) in turns {
        running += change;
        if running > 0 && running.unsigned_abs() > room {
            let running = running.unsigned_abs();
            return Err(Violation::Overlap { owner: owner.to_owned(), running, at_ms, room });
        }
    }
    Ok(())
}

fn check_workers(plan: &Plan) -> Result<(), Violation> {
    let spans: HashMap<&WorkerId, (f64, f64)> =
        plan.workers.iter().map(|w| (&w.id, (w.start_ms, w.end_ms))).collect();
    for worker in &plan.workers {
        at_least(worker.id.as_str(), "end_ms", worker.end_ms, worker.start_ms)?;
        at_least(worker.id.as_str(), "cost_usd", worker.cost_usd, 0.0)?;
    }
    for task in plan.tasks.iter().filter(|t| !may_run_twice(t)) {
        let Some((start_ms, end_ms)) = task.worker.as_ref().and_then(|w| spans.get(w)) else { continue };
        at_least(task.task.as_str(), "start_ms", task.start_ms, *start_ms)?;
        at_least("worker", "end_ms", *end_ms, task.end_ms)?;
    }
    Ok(())
}

fn check_sums(plan: &Plan) -> Result<(), Violation> {
    let (predicted, bounds) = (&plan.predicted, &plan.bounds);
    let last_ms = plan.tasks.iter().map(|t| t.end_ms).fold(0.0, f64::max);
    at_least("plan", "makespan_ms", predicted.makespan_ms, last_ms)?;
    at_least("plan", "bounds.makespan_ms", bounds.makespan_ms, 0.0)?;
    at_least("plan", "bounds.cost_usd", bounds.cost_usd, 0.0)?;
    at_least("plan", "makespan_ms", predicted.makespan_ms, bounds.makespan_ms)?;
    at_least("plan", "cost_usd", predicted.cost_usd, bounds.cost_usd)?;
    let workers_usd: f64 = plan.workers.iter().map(|w| w.cost_usd).sum();
    at_least("plan", "cost_usd", predicted.cost_usd, workers_usd)?;
    at_least("plan", "invocations", predicted.invocations as f64, predicted.cold_starts as f64)
}

fn check_path(problem: &Problem, plan: &Plan, is_open: &dyn Fn(u32) -> bool) -> Result<(), Violation> {
    let graph = problem.workflow.graph();
    let broken = |at: &str| Err(Violation::CriticalPath(at.to_owned()));
    let (mut before_ms, mut end_ms) = (0.0, 0.0);
    for id in &plan.critical_path {
        let Some(t) = graph.find(id) else { return broken(id.as_str()) };
        let task = &plan.tasks[t as usize];
        if task.start_ms < before_ms * (1.0 - ROUNDING) {
            return broken(id.as_str());
        }
        // What follows on the same lane begins while the outputs are stored.
        before_ms = if is_open(t) { computed_ms(task) } else { task.start_ms };
        end_ms = task.end_ms;
    }
    let last_ms = plan.tasks.iter().map(|t| t.end_ms).fold(0.0, f64::max);
    if end_ms < last_ms * (1.0 - ROUNDING) { broken("its end") } else { Ok(()) }
}
