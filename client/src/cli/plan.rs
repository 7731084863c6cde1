//! `foresail plan`: shows a plan with its workers, its bounds and its reasons.

use std::collections::BTreeMap;

use foresail_schemas::plan::{Objective, Plan, PredictionTable};
use foresail_schemas::prediction::Basis;
use foresail_schemas::wfformat::Scale;
use foresail_schemas::{Platform, Workflow};

use super::args::{Global, HostArgs, PlanArgs, PlanningArgs};
use super::error::CliError;
use super::render::{self, Table};
use super::session::Session;
use super::source;
use super::terminal::Terminal;
use crate::client::{self, Client};
use crate::settings::ClientSettings;
use crate::units;

/// Plans are read as they were recorded.
const UNSCALED: Scale = Scale { time: 1.0, size: 1.0 };

/// Width of the picture of a plan, in characters.
const GANTT_WIDTH: usize = 100;

/// Plans a workflow and shows the plan.
///
/// # Errors
/// [`CliError`] when the workflow or the platform cannot be read, or there is no plan.
pub async fn plan(global: &Global, args: &PlanArgs, terminal: &Terminal) -> Result<(), CliError> {
    let mut platform = source::platform(&args.platform)?;
    let workflow = source::workflow(&args.planning, UNSCALED)?;
    let workers = HostArgs { concurrency: None, cold_start_ms: None };
    let session = Session::open(global, &workers, ClientSettings::default()).await?;
    if platform.name == session.platform.name {
        platform = session.platform.clone();
    }
    let planned = make(&session.client, &workflow, &platform, &args.planning).await;
    session.close().await;
    let (plan, predictions) = planned?;
    terminal.say(&basis_line(&predictions));
    render::one(global.format, &plan, || table(&plan))?;
    Ok(())
}

/// Predicts and plans.
///
/// # Errors
/// [`CliError`] when metad does not answer or there is no plan.
pub async fn make(
    client: &Client,
    workflow: &Workflow,
    platform: &Platform,
    args: &PlanningArgs,
) -> Result<(Plan, PredictionTable), CliError> {
    let predictions = client.predictions(workflow, platform, args.sla).await?;
    let problem = client::problem(workflow, platform, predictions, args.objective, args.seed);
    let plan = client::plan(&args.planner, &problem)?;
    Ok((plan, problem.predictions))
}

/// On what the predictions rest, in one line.
#[must_use]
pub fn basis_line(predictions: &PredictionTable) -> String {
    let mut counts: BTreeMap<Basis, usize> = BTreeMap::new();
    for basis in &predictions.basis {
        *counts.entry(*basis).or_default() += 1;
    }
    let parts: Vec<String> = counts.iter().map(|(b, n)| format!("{n} {}", basis_name(*b))).collect();
    format!("predictions at {}, by task: {}", predictions.sla, parts.join(", "))
}

/// A basis in words.
#[must_use]
pub fn basis_name(basis: Basis) -> &'static str {
    match basis {
        Basis::Exact => "measured at this memory",
        Basis::MemoryNormalised => "measured at other memory",
        Basis::Pooled => "measured, memory ignored",
        Basis::Prior => "measured in other workflows",
        Basis::None => "assumed",
    }
}

/// An objective in words.
#[must_use]
pub fn objective_name(objective: &Objective) -> String {
    match objective {
        Objective::Fastest => "fastest".to_owned(),
        Objective::Cheapest => "cheapest".to_owned(),
        Objective::Deadline { makespan_ms } => format!("cheapest within {}", units::ms(*makespan_ms)),
        Objective::Budget { cost_usd } => format!("fastest for {}", units::usd(*cost_usd)),
        Objective::Balance { time_weight } => format!("balance, time weighs {time_weight}"),
    }
}

/// Sizes of the plan, each with its number of tasks: `885 MB x 12, 1769 MB x 19`.
#[must_use]
pub fn sizes(plan: &Plan) -> String {
    let mut sizes: BTreeMap<(u32, u32), (String, usize)> = BTreeMap::new();
    for task in &plan.tasks {
        sizes.entry(task.config.key()).or_insert_with(|| (task.config.to_string(), 0)).1 += 1;
    }
    let parts: Vec<String> = sizes.values().map(|(size, tasks)| format!("{size} x {tasks}")).collect();
    parts.join(", ")
}

fn table(plan: &Plan) -> String {
    let p = &plan.predicted;
    let b = &plan.bounds;
    let mut head = Table::new(&["", "planned", "no plan is below", "ratio"]);
    let ratio = |r: f64| format!("{r:.2}");
    head.row([
        "makespan".to_owned(),
        units::ms(p.makespan_ms),
        units::ms(b.makespan_ms),
        ratio(b.makespan_ratio),
    ]);
    head.row(["cost".to_owned(), units::usd(p.cost_usd), units::usd(b.cost_usd), ratio(b.cost_ratio)]);
    let mut text = format!(
        "{}: {} tasks, planner {}, {}, {}\n\n{head}\n",
        plan.workflow,
        plan.tasks.len(),
        plan.planner,
        objective_name(&plan.objective),
        plan.platform,
    );
    text += &format!(
        "{} invocations ({} cold), {:.2} GB s, {} down, {} up; memory: {}\n\n",
        p.invocations,
        p.cold_starts,
        p.gb_seconds,
        units::bytes(p.download_bytes),
        units::bytes(p.upload_bytes),
        sizes(plan),
    );
    text += &foresail_planner::gantt(plan, GANTT_WIDTH);
    text += "# a task, * on the critical path, | the next begins, . the worker waits\n";
    let path: Vec<&str> = plan.critical_path.iter().map(foresail_schemas::TaskId::as_str).collect();
    text += &format!("\ncritical path: {}\n", path.join(" -> "));
    for sentence in &plan.explanation {
        text += &format!("- {sentence}\n");
    }
    text
}
