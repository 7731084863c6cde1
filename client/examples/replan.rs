//! Runs that do not go as planned, under one pinned plan: as planned (`off`) and re-planned (`auto`).
//!
//! `cargo run --release -p foresail --example replan [REPEATS [SCENARIO]]` learns a history per scenario,
//! makes one plan of it for a deadline, and carries that plan out in turns with both modes. Every run has a
//! stack of its own on a copy of the history, so that none profits from what another has found out. stdout
//! has a table in Markdown, means with their 95 % confidence intervals by Student's t; stderr a line per run,
//! with the reasons of each new plan. Times in ms.

use std::path::Path;
use std::time::Duration;

use foresail::schemas::plan::{Objective, Plan};
use foresail::schemas::run::{Change, ReplanMode};
use foresail::schemas::{Sla, Workflow};
use foresail::{
    Client, LocalStack, Registry, RunHandle, StackSettings, SubmitOptions, TaskError, TaskInput, TaskOutput,
    WorkflowBuilder,
};
use futures_util::TryStreamExt;
use serde_json::json;

/// Runs that a history is made of.
const LEARNING_RUNS: u32 = 4;
/// Runs per scenario and mode by default.
const REPEATS: u32 = 5;
/// Steps of one type.
const STEPS: u32 = 24;
/// What a step takes in the runs that history is made of.
const STEP_MS: u32 = 100;
/// Places of the fan-out, and the width that history knows.
const PLACES: u64 = 32;
const USUAL_WIDTH: u64 = 8;
/// Workers at the same time. Steps sleep, so that more than there are processors are of use.
const WORKERS_MAX: u32 = 8;
/// The deadline over the time that one worker would take: starting more of them costs more than it brings.
const DEADLINE: f64 = 1.4;
/// Quantiles of Student's t at 0.975, by degrees of freedom from 1 on; beyond them the normal one is near.
const STUDENT_975: [f64; 9] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];
const BEYOND_975: f64 = 2.1;

type Failure = Box<dyn std::error::Error>;

/// What goes otherwise than in the runs before.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scenario {
    /// Nothing.
    AsPredicted,
    /// Every step takes three times as long.
    Drift,
    /// One step, of the first to begin, takes twelve times as long.
    SlowTask,
    /// A worker is killed after a third of the steps.
    LostWorker,
    /// Three times as many tasks follow a decision.
    WiderFanOut,
}

impl Scenario {
    const ALL: [Self; 5] =
        [Self::AsPredicted, Self::Drift, Self::SlowTask, Self::LostWorker, Self::WiderFanOut];

    fn name(self) -> &'static str {
        match self {
            Self::AsPredicted => "as predicted",
            Self::Drift => "steps 3x slower",
            Self::SlowTask => "one step 12x slower",
            Self::LostWorker => "a worker killed",
            Self::WiderFanOut => "fan-out 3x wider",
        }
    }

    /// As history knows it.
    fn usual(self) -> Workflow {
        match self {
            Self::WiderFanOut => fan_out(USUAL_WIDTH),
            _ => steps(|_| STEP_MS),
        }
    }

    /// As it is now.
    fn actual(self) -> Workflow {
        match self {
            Self::AsPredicted | Self::LostWorker => self.usual(),
            Self::Drift => steps(|_| 3 * STEP_MS),
            Self::SlowTask => steps(|at| if at == 1 { 12 * STEP_MS } else { STEP_MS }),
            Self::WiderFanOut => fan_out(3 * USUAL_WIDTH),
        }
    }

    /// The time that is asked for.
    fn deadline_ms(self) -> f64 {
        let steps = if self == Self::WiderFanOut { 2 * USUAL_WIDTH as u32 } else { STEPS };
        DEADLINE * f64::from(steps * STEP_MS)
    }
}

fn steps(sleep_ms: impl Fn(u32) -> u32) -> Workflow {
    let mut flow = WorkflowBuilder::new("steps");
    let step = |at| {
        let params = json!({ "sleep_ms": sleep_ms(at), "output_bytes": 10 });
        flow.task(format!("s{at}")).named("step").function("foresail.burn", params).handle()
    };
    let steps: Vec<_> = (0..STEPS).map(step).collect();
    let all = flow.task("all").function("foresail.concat", ());
    steps.iter().fold(all, foresail::TaskBuilder::reads);
    flow.build().expect("it is a DAG")
}

fn fan_out(width: u64) -> Workflow {
    let mut flow = WorkflowBuilder::new("pages");
    let list = flow.task("list").function("list", width).decides("out").handle();
    let params = json!({ "sleep_ms": STEP_MS, "output_bytes": 10 });
    let pages = flow.fan_out("page", &list, PLACES, |task, _| {
        task.function("foresail.burn", params.clone()).reads(&list)
    });
    flow.task("all").function("foresail.concat", ()).gathers(&pages);
    flow.build().expect("it is a DAG")
}

/// Decides for the width that it is given.
fn list(input: TaskInput) -> Result<TaskOutput, TaskError> {
    TaskOutput::json(&input.params)
}

fn main() -> Result<(), Failure> {
    foresail::worker(Registry::new().register("list", list));
    // Why a plan is kept, and what could not be planned.
    let level = std::env::var("FORESAIL_LOG").unwrap_or_else(|_| "foresail::replan=warn".to_owned());
    tracing_subscriber::fmt().with_env_filter(level).with_writer(std::io::stderr).init();
    tokio::runtime::Runtime::new()?.block_on(compare())
}

async fn compare() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let repeats = args.next().map_or(Ok(REPEATS), |n| n.parse())?;
    let only = args.next();
    println!("| | | plan | makespan | cost, $ | in time | new plans |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: |");
    for scenario in Scenario::ALL {
        if only.as_ref().is_none_or(|only| scenario.name().contains(only.as_str())) {
            of_scenario(scenario, repeats).await?;
        }
    }
    Ok(())
}

/// What one run came to.
struct Ended {
    makespan_ms: f64,
    cost_usd: f64,
    replanned: u64,
}

async fn of_scenario(scenario: Scenario, repeats: u32) -> Result<(), Failure> {
    let history = tempfile::tempdir()?;
    let plan = learn(scenario, history.path()).await?;
    let modes = [ReplanMode::Off, ReplanMode::Auto];
    let mut ended = [Vec::new(), Vec::new()];
    for repeat in 0..repeats {
        // In turns, and in turns who is first.
        for turn in 0..modes.len() {
            let at = (repeat as usize + turn) % modes.len();
            ended[at].push(once(scenario, modes[at], &plan, history.path()).await?);
        }
    }
    for (mode, ended) in modes.iter().zip(&ended) {
        let values = |of: fn(&Ended) -> f64| ended.iter().map(of).collect::<Vec<_>>();
        let in_time = ended.iter().filter(|run| run.makespan_ms <= scenario.deadline_ms()).count();
        let plans: f64 = ended.iter().map(|run| run.replanned as f64).sum();
        println!(
            "| {} | `{}` | {:.0} ms | {} ms | {} | {in_time} of {repeats} | {:.1} |",
            scenario.name(),
            format!("{mode:?}").to_lowercase(),
            plan.predicted.makespan_ms,
            mean(&values(|run| run.makespan_ms), 0),
            mean(&values(|run| run.cost_usd), 7),
            plans / f64::from(repeats),
        );
    }
    Ok(())
}

/// The mean and half the width of its interval.
fn mean(values: &[f64], digits: usize) -> String {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let Some(freedom) = values.len().checked_sub(2) else { return format!("{mean:.digits$}") };
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let margin = STUDENT_975.get(freedom).unwrap_or(&BEYOND_975) * (variance / count).sqrt();
    format!("{mean:.digits$} ± {margin:.digits$}")
}

async fn stack(data: &Path) -> Result<LocalStack, Failure> {
    let mut settings = StackSettings { data: Some(data.to_owned()), ..StackSettings::default() };
    settings.platform.concurrency_max = WORKERS_MAX;
    // Steps sleep as long at any size, which a model of other sizes does not expect.
    settings.platform.menu = vec![settings.platform.default_config];
    Ok(LocalStack::start(settings).await?)
}

/// Makes the history, and the plan that all runs have.
async fn learn(scenario: Scenario, data: &Path) -> Result<Plan, Failure> {
    let stack = stack(data).await?;
    let client = stack.client().await?;
    for _ in 0..LEARNING_RUNS {
        let plan = planned(scenario, &stack, &client, Objective::Fastest).await?;
        let run = client.submit(&scenario.usual(), plan, SubmitOptions::on(stack.platform())).await?;
        run.wait().await?.completed()?;
        quiet(&client).await?;
    }
    let makespan_ms = scenario.deadline_ms();
    let plan = planned(scenario, &stack, &client, Objective::Deadline { makespan_ms }).await?;
    stack.stop().await;
    Ok(plan)
}

async fn planned(
    scenario: Scenario,
    stack: &LocalStack,
    client: &Client,
    objective: Objective,
) -> Result<Plan, Failure> {
    let (workflow, platform) = (scenario.usual(), stack.platform());
    let mut predictions = client.predictions(&workflow, platform, Sla::MEDIAN).await?;
    client.add_distributions(&workflow, platform, &mut predictions);
    Ok(client.plan("auto", &foresail::problem(&workflow, platform, predictions, objective, 1))?)
}

/// One run on a copy of the history.
async fn once(scenario: Scenario, mode: ReplanMode, plan: &Plan, history: &Path) -> Result<Ended, Failure> {
    let data = tempfile::tempdir()?;
    copy(history, data.path())?;
    let stack = stack(data.path()).await?;
    let client = stack.client().await?;
    let mut options = SubmitOptions::on(stack.platform());
    options.limits.replan = mode;
    let run = client.submit(&scenario.actual(), plan.clone(), options).await?;
    if scenario == Scenario::LostWorker {
        kill_a_worker(&run).await?;
    }
    let outcome = run.wait().await?.completed()?;
    let (makespan_ms, cost_usd) = (outcome.actual.makespan_ms, outcome.actual.cost_usd);
    let replanned = outcome.progress.replanned;
    eprintln!("{}, {mode:?}: {makespan_ms:.0} ms, ${cost_usd:.8}, {replanned} new plans", scenario.name());
    let events: Vec<_> = run.events().try_collect().await?;
    for event in &events {
        if let Change::PlanReplaced { epoch, why: Some(why) } = &event.change {
            eprintln!("  plan {epoch} at {:.0} ms: {}; {}", event.at_ms, why.cause, why.reason);
        }
    }
    stack.stop().await;
    Ok(Ended { makespan_ms, cost_usd, replanned })
}

/// Kills one of the workers once a third of the steps is done.
async fn kill_a_worker(run: &RunHandle) -> Result<(), Failure> {
    while run.progress().await?.committed < u64::from(STEPS / 3) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let worker = children()?.into_iter().next().ok_or("there is no worker")?;
    let status = std::process::Command::new("kill").args(["-KILL", &worker.to_string()]).status()?;
    if status.success() { Ok(()) } else { Err(format!("process {worker} was gone").into()) }
}

/// The processes that this one started: the workers of its stack.
fn children() -> std::io::Result<Vec<u32>> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc")?.flatten() {
        let pid = process.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid else { continue };
        // `pid (name) state parent …`; the name may hold anything.
        let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        let mut behind = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let is_alive = behind.next().is_some_and(|state| state != "Z");
        if is_alive && behind.next() == Some(&own) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let place = to.join(entry.file_name());
        if kind.is_dir() {
            copy(&entry.path(), &place)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), place)?;
        }
    }
    Ok(())
}

/// Waits until all workers have sent what they measured.
async fn quiet(client: &Client) -> Result<(), Failure> {
    loop {
        let status = client.host_status().await?;
        if status.busy == 0 && status.queued == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
