//! What breaks first with so many workers: a run in virtual time, by the state machines that carry out real
//! runs, with everything counted that it asks of its surroundings.
//!
//! Each number of workers is simulated twice: once where nothing has to wait, which gives what would be asked
//! at most, and once where whatever is busy lets wait: processor and link of the keeper of the run's state,
//! the platform's growth, the store. Quotas and settings are taken to be high enough then; where they are not
//! by default is one of the limits. Simulated are requests, times and order; counted are bytes as the real
//! programs write them; calculated are news ([`around`]) and limits ([`limits`]); what a keeper can do is
//! measured ([`service`]), and what a platform can is what it says of itself. Times in ms, sizes in bytes.

use foresail_planner::{DraftFailure, Simulated, SimulationFailure, simulate_in};
use foresail_schemas::plan::{Plan, Problem};
use foresail_schemas::run::RunOptions;
use foresail_schemas::{Platform, Workflow};
use serde::Serialize;

pub mod around;
pub mod dealt;
pub mod limits;
pub mod measure;
pub mod meter;
pub mod service;
mod wire;

use around::{Around, Documents, Ends, Waits};
use limits::{Judged, Limit, limits};
use meter::{Meter, Usage};
use service::{Keeper, Service};

/// Most workers of all runs together.
pub const WORKERS_MAX: u32 = 1_000_000;
/// So many times as long as without limits, and [`PATIENCE_MS`], a run with limits may take.
const PATIENCE: f64 = 20.0;
/// See [`PATIENCE`].
const PATIENCE_MS: f64 = 600_000.0;
/// So many times as many events as without limits, and [`STEPS`], are handled with them.
const STEPS_RATIO: u64 = 3;
/// See [`STEPS_RATIO`].
const STEPS: u64 = 100_000;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// Workers of all runs together.
    pub workers: u32,
    /// Equal runs at the same time that they are divided over.
    pub runs: u32,
    /// What is run; layers of tasks where absent.
    pub workflow: Option<Workflow>,
    /// Layers, where no workflow is given.
    pub tasks_per_worker: u32,
    /// Mean time of their tasks in ms.
    pub task_ms: f64,
    /// Prices, sizes and limits.
    pub platform: Platform,
    /// Who keeps the state of the runs.
    pub keeper: Keeper,
    /// What it can do.
    pub service: Service,
    /// Seed of what is drawn.
    pub seed: u64,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ScaleError {
    /// There are fewer workers than runs.
    #[error("`{workers}` workers cannot be divided over `{runs}` runs")]
    Runs {
        /// Workers.
        workers: u32,
        /// Runs.
        runs: u32,
    },
    /// There would be too many tasks.
    #[error("`{workers}` workers with `{tasks}` tasks each are more than {most} tasks")]
    Tasks {
        /// Workers of a run.
        workers: u32,
        /// Tasks of each.
        tasks: u32,
        /// Most tasks.
        most: usize,
    },
    /// A task fits no worker.
    #[error(transparent)]
    Draft(#[from] DraftFailure),
    /// The run without limits does not end.
    #[error(transparent)]
    Simulation(#[from] SimulationFailure),
}

/// What one number of workers comes to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scale {
    /// Workers asked for, over all runs.
    pub workers: u32,
    /// Runs at the same time.
    pub runs: u32,
    /// Most that were at work at the same time.
    pub workers_at_once: f64,
    /// The workflow of each run.
    pub workflow: String,
    /// Tasks of all runs.
    pub tasks: u64,
    /// Who keeps their state.
    pub keeper: Keeper,
    /// The platform.
    pub platform: String,
    /// What a run takes where nothing has to wait, in ms.
    pub makespan_ms: f64,
    /// What it takes where what is busy lets wait.
    pub limited: Limited,
    /// What is asked for each task.
    pub per_task: PerTask,
    /// What is asked in a second, where nothing has to wait.
    pub per_second: PerSecond,
    /// What each worker reads before it begins, in bytes.
    pub documents_bytes: u64,
    /// Largest answer to a request, in bytes.
    pub answer_bytes_max: f64,
    /// Log of one run, where there is one, in bytes.
    pub log_bytes: f64,
    /// Name of the limit that is exceeded most; nothing where all are kept.
    pub breaks_first: Option<&'static str>,
    /// All limits, the one that is exceeded most first.
    pub limits: Vec<Limit>,
}

/// A run whose surroundings let it wait.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Limited {
    /// How it ended.
    pub end: End,
    /// What it took in ms, until it failed or was given up.
    pub makespan_ms: f64,
    /// Over the time without limits.
    pub slowdown: f64,
    /// When the platform began to start the last new worker, in ms.
    pub last_start_ms: f64,
    /// Longest wait for an answer of the run's state, in ms.
    pub wait_ms_max: f64,
    /// Requests whose answer came too late.
    pub given_up: f64,
    /// Attempts beyond the first of each task.
    pub retries: u64,
}

/// How a run whose surroundings let it wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Every task has a result.
    Completed,
    /// Nothing happened any more before its time was over, as where a task has no attempts left.
    Failed,
    /// It took too long, or too many events.
    GivenUp,
}

/// What is asked for each task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PerTask {
    /// Requests to the run's state with operations.
    pub requests: f64,
    /// Operations in them.
    pub operations: f64,
    /// Bytes of the requests.
    pub request_bytes: f64,
    /// Bytes of the answers.
    pub answer_bytes: f64,
    /// Answers to those who listen for news.
    pub news: f64,
    /// Bytes of those.
    pub news_bytes: f64,
    /// Bytes of the events that metad stores.
    pub stored_bytes: f64,
    /// Objects stored and read.
    pub objects: f64,
}

/// Mean over the run, and most in one second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rate {
    /// Mean over the run.
    pub mean: f64,
    /// Most in one second.
    pub peak: f64,
}

/// What is asked in a second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PerSecond {
    /// Requests of all kinds to whoever keeps the state.
    pub requests: Rate,
    /// Bytes that it sends.
    pub bytes: Rate,
    /// Records of measurements to metad.
    pub records: Rate,
    /// Workers asked for.
    pub invocations: Rate,
    /// Objects stored.
    pub puts: Rate,
    /// Objects read.
    pub gets: Rate,
}

/// Simulates a number of workers.
///
/// # Errors
/// [`ScaleError`] where there is no run to simulate.
pub fn scale(request: &Request) -> Result<Scale, ScaleError> {
    let (workers, runs) = (request.workers / request.runs.max(1), request.runs);
    if workers == 0 || runs == 0 {
        return Err(ScaleError::Runs { workers: request.workers, runs });
    }
    let workflow = workflow(request, workers)?;
    let (problem, plan) = dealt::dealt(&workflow, &request.platform, workers, request.seed)?;
    let documents = Documents {
        workflow_bytes: wire::json_bytes(workflow.spec()) as u64,
        plan_bytes: wire::json_bytes(&plan) as u64,
    };
    let free = Ends { end_ms: f64::INFINITY, steps_max: u64::MAX };
    let (done, usage) = carry_out(request, (&problem, &plan), documents, (Waits::No, free));
    let done = done?;
    let makespan_ms = done.summary.makespan_ms;
    let ends =
        Ends { end_ms: PATIENCE * makespan_ms + PATIENCE_MS, steps_max: STEPS_RATIO * done.steps + STEPS };
    let (with_limits, waited) = carry_out(request, (&problem, &plan), documents, (Waits::Yes, ends));
    let limited = limited(with_limits, &waited, makespan_ms, ends)?;
    let (platform, service, keeper) = (&request.platform, &request.service, request.keeper);
    let limits = limits(&Judged { usage: &usage, platform, service, keeper, documents, runs });
    let tasks = workflow.tasks().len() as u64 * u64::from(runs);
    Ok(Scale {
        workers: request.workers,
        runs,
        workers_at_once: usage.workers_max,
        workflow: workflow.name().to_string(),
        tasks,
        keeper,
        platform: platform.name.to_string(),
        makespan_ms,
        limited,
        per_task: per_task(&usage, tasks as f64),
        per_second: per_second(&usage, makespan_ms),
        documents_bytes: documents.workflow_bytes + documents.plan_bytes,
        answer_bytes_max: usage.answer_bytes_max,
        log_bytes: usage.log_bytes,
        breaks_first: limits.first().filter(|limit| limit.ratio > 1.0).map(|limit| limit.name),
        limits,
    })
}

fn workflow(request: &Request, workers: u32) -> Result<Workflow, ScaleError> {
    if let Some(workflow) = &request.workflow {
        return Ok(workflow.clone());
    }
    let (tasks, most) = (request.tasks_per_worker, foresail_planner::shapes::TASKS_MAX);
    if tasks == 0 || workers as usize * tasks as usize > most {
        return Err(ScaleError::Tasks { workers, tasks, most });
    }
    Ok(dealt::layers(workers, tasks, request.task_ms))
}

fn carry_out(
    request: &Request,
    (problem, plan): (&Problem, &Plan),
    documents: Documents,
    how: (Waits, Ends),
) -> (Result<Simulated, SimulationFailure>, Usage) {
    let round_trip_ms = request.platform.assumed.dispatch_ms;
    let kept = (request.keeper, &request.service);
    let runs = (request.runs, round_trip_ms);
    let mut around = Around::new(kept, request.platform.pace, documents, runs, how);
    let done = simulate_in(problem, plan, &RunOptions::default(), &mut around);
    (done, around.usage)
}

/// A run that was given up is one that the limits broke.
fn limited(
    done: Result<Simulated, SimulationFailure>,
    usage: &Usage,
    free_ms: f64,
    ends: Ends,
) -> Result<Limited, ScaleError> {
    let (end, makespan_ms, retries) = match done {
        Ok(done) => (End::Completed, done.summary.makespan_ms, done.retries),
        Err(SimulationFailure::Stuck { at_ms, steps, .. }) => {
            let has_time = at_ms <= ends.end_ms && steps < ends.steps_max;
            (if has_time { End::Failed } else { End::GivenUp }, at_ms.min(ends.end_ms), 0)
        }
        Err(other) => return Err(other.into()),
    };
    Ok(Limited {
        end,
        makespan_ms,
        slowdown: makespan_ms / free_ms,
        last_start_ms: usage.last_start_ms,
        wait_ms_max: usage.waits_ms,
        given_up: usage.given_up,
        retries,
    })
}

fn per_task(usage: &Usage, tasks: f64) -> PerTask {
    PerTask {
        requests: usage.requests.total / tasks,
        operations: usage.operations / tasks,
        request_bytes: usage.request_bytes.total / tasks,
        answer_bytes: usage.answers_bytes.total / tasks,
        news: usage.pages.total / tasks,
        news_bytes: usage.news_bytes.total / tasks,
        stored_bytes: usage.stored_bytes / tasks,
        objects: (usage.puts.total + usage.gets.total) / tasks,
    }
}

fn per_second(usage: &Usage, makespan_ms: f64) -> PerSecond {
    let rate = |meters: &[&Meter]| {
        let total: f64 = meters.iter().map(|meter| meter.total).sum();
        Rate { mean: total * 1_000.0 / makespan_ms.max(1.0), peak: Meter::peak_of(meters).0 }
    };
    PerSecond {
        requests: rate(&[&usage.requests, &usage.documents, &usage.pages]),
        bytes: rate(&[&usage.answers_bytes, &usage.documents_bytes, &usage.news_bytes]),
        records: rate(&[&usage.records]),
        invocations: rate(&[&usage.invocations]),
        puts: rate(&[&usage.puts]),
        gets: rate(&[&usage.gets]),
    }
}

#[cfg(test)]
mod tests;
