//! `foresail plan`: shows a plan with its workers, its bounds and its reasons.

use std::collections::BTreeMap;

use foresail_schemas::plan::{Objective, Plan, PlanSummary};
use foresail_schemas::prediction::Basis;
use foresail_schemas::wfformat::Scale;
use foresail_schemas::{Platform, Sla, Workflow};

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
    let Planned { plan, basis } = planned?;
    terminal.say(&basis_line(args.planning.sla, &basis));
    render::one(global.format, &plan, || table(&plan))?;
    Ok(())
}

/// A plan and what it rests on.
#[derive(Debug)]
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// What the time of every task rests on, at the size that was chosen for it.
    pub basis: Vec<Basis>,
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
) -> Result<Planned, CliError> {
    let mut predictions = client.predictions(workflow, platform, args.sla).await?;
    if args.planner == "robust" || matches!(args.objective, Objective::Confidence { .. }) {
        client.add_distributions(workflow, platform, &mut predictions);
    }
    let problem = client::problem(workflow, platform, predictions, args.objective, args.seed);
    let plan = client.plan(&args.planner, &problem)?;
    Ok(Planned { basis: client.basis(&problem, &plan), plan })
}

/// On what the predictions rest, in one line.
#[must_use]
pub fn basis_line(sla: Sla, basis: &[Basis]) -> String {
    let mut counts: BTreeMap<Basis, usize> = BTreeMap::new();
    for basis in basis {
        *counts.entry(*basis).or_default() += 1;
    }
    let parts: Vec<String> = counts.iter().map(|(b, n)| format!("{n} {}", basis_name(*b))).collect();
    format!("predictions at {sla}, by task: {}", parts.join(", "))
}

/// The limit of the objective that is missed, in words; nothing where it is kept or there is none.
#[must_use]
pub fn missed(objective: &Objective, summary: &PlanSummary) -> Option<String> {
    match *objective {
        Objective::Deadline { makespan_ms } | Objective::Confidence { makespan_ms, .. }
            if summary.makespan_ms > makespan_ms =>
        {
            let (took, limit) = (units::ms(summary.makespan_ms), units::ms(makespan_ms));
            Some(format!("{took}, over the deadline of {limit}"))
        }
        Objective::Budget { cost_usd } if summary.cost_usd > cost_usd => {
            let (cost, limit) = (units::usd(summary.cost_usd), units::usd(cost_usd));
            Some(format!("{cost}, over the budget of {limit}"))
        }
        _ => None,
    }
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
        Objective::Confidence { makespan_ms, probability } => {
            format!("cheapest within {} in {:.1} % of all runs", units::ms(*makespan_ms), 100.0 * probability)
        }
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
    text += &crate::outlook::in_words(plan);
    text += &foresail_planner::gantt(plan, GANTT_WIDTH);
    text += "# a task, * on the critical path, | the next begins, . the worker waits\n";
    let path: Vec<&str> = plan.critical_path.iter().map(foresail_schemas::TaskId::as_str).collect();
    text += &format!("\ncritical path: {}\n", path.join(" -> "));
    for sentence in &plan.explanation {
        text += &format!("- {sentence}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_told_where_it_is_missed() {
        let summary = PlanSummary { makespan_ms: 12_000.0, cost_usd: 0.02, ..PlanSummary::default() };
        let told = |objective| missed(&objective, &summary);
        let deadline = |makespan_ms| Objective::Deadline { makespan_ms };
        assert_eq!(told(deadline(10_000.0)).unwrap(), "12.0 s, over the deadline of 10.0 s");
        let budget = Objective::Budget { cost_usd: 0.01 };
        assert_eq!(told(budget).unwrap(), "$0.0200, over the budget of $0.0100");
        assert_eq!([told(deadline(12_000.0)), told(Objective::Fastest)], [None, None]);
    }
}
