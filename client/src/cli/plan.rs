//! `foresail plan`: shows a plan with its workers, its bounds and its reasons.

mod reasons;

use std::collections::{BTreeMap, HashSet};
use std::io::IsTerminal;
use std::time::Duration;

use foresail_planner::Alternatives;
use foresail_schemas::plan::{Objective, Plan, PlanSummary, Problem};
use foresail_schemas::prediction::Basis;
use foresail_schemas::wfformat::Scale;
use foresail_schemas::{Platform, Sla, Workflow};

use super::apart;
use super::args::{Color, Format, Global, HostArgs, PlanArgs};
use super::error::CliError;
use super::interrupt::Interrupt;
use super::render::{self, Table};
use super::session::Session;
use super::source;
use super::terminal::Terminal;
use super::written;
use crate::client::Client;
use crate::page;
use crate::planning::Stop;
use crate::prepare::{PlanRequest, Warmth};
use crate::reasons::worth_explaining;
use crate::settings::ClientSettings;
use crate::units;

/// Plans are read as they were recorded.
const UNSCALED: Scale = Scale { time: 1.0, size: 1.0 };

/// Width of the picture of a plan where stdout is no terminal, in characters.
const GANTT_WIDTH: usize = 100;
/// Longest time that the stack of this command may take to end.
const CLOSE_LIMIT: Duration = Duration::from_millis(400);

/// Plans a workflow and shows the plan.
///
/// # Errors
/// [`CliError`] when the workflow or the platform cannot be read, or there is no plan.
pub async fn plan(
    global: &Global,
    args: &PlanArgs,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<(), CliError> {
    if let Some(file) = &args.html {
        written::may_be_written(file, "--html")?;
    }
    let mut platform = source::platform(&args.platform)?;
    let workflow = source::workflow(&args.planning, UNSCALED)?;
    let session = Session::open(global, &HostArgs::default(), ClientSettings::default()).await?;
    let mut request = args.planning.request();
    if platform.name == session.platform.name {
        platform = session.platform.clone();
    } else {
        request.warmth = Warmth::Cold;
    }
    let explained = async {
        for task in &args.explain {
            let hint = "the table and `-o json` without --explain list the tasks";
            let unknown = || CliError::input(format!("the workflow has no task `{task}`"), hint);
            workflow.graph().find(task).ok_or_else(unknown)?;
        }
        let planned = make(&session.client, &workflow, &platform, &request, terminal, interrupt).await?;
        explain(planned, global.format, args, terminal, interrupt).await
    };
    let explained = explained.await;
    if tokio::time::timeout(CLOSE_LIMIT, session.close()).await.is_err() {
        tracing::warn!("the stack of this command took too long to end in good order");
    }
    let (Planned { plan, basis, problem }, alternatives) = explained?;
    terminal.say(&basis_line(args.planning.sla, &basis));
    if let Some(file) = &args.html {
        let page = page::page(&problem, &plan, &alternatives);
        std::fs::write(file, page).map_err(|e| written::failed(file, &e))?;
        terminal.say(&format!("wrote {}", file.display()));
    }
    let asked: Vec<Alternatives> =
        alternatives.iter().filter(|a| args.explain.contains(&a.task)).cloned().collect();
    let document = reasons::document(&plan, &asked);
    render::one(global.format, &document, || table(&plan, &alternatives, &asked, global.color))?;
    Ok(())
}

/// Finds the alternatives of the tasks that were asked for, and of those that are shown unasked.
async fn explain(
    planned: Planned,
    format: Format,
    args: &PlanArgs,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<(Planned, Vec<Alternatives>), CliError> {
    let mut tasks = args.explain.clone();
    if args.html.is_some() || format == Format::Table {
        let unasked = worth_explaining(&planned.problem, &planned.plan);
        let asked: HashSet<_> = args.explain.iter().collect();
        tasks.extend(unasked.into_iter().filter(|task| !asked.contains(task)));
    }
    if tasks.is_empty() {
        return Ok((planned, Vec::new()));
    }
    let work = move || {
        let found = foresail_planner::alternatives(&planned.problem, &planned.plan, &tasks);
        (planned, found)
    };
    let (planned, found) =
        apart::until_interrupted(work, "looking at alternatives", &Stop::never(), terminal, interrupt)
            .await?;
    let wrong =
        |e: foresail_planner::DraftFailure| CliError::input(e.to_string(), "name tasks of the workflow");
    Ok((planned, found.map_err(wrong)?))
}

/// A plan and what it rests on.
#[derive(Debug)]
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// What the time of every task rests on, at the size that was chosen for it.
    pub basis: Vec<Basis>,
    /// What was planned.
    pub problem: Problem,
}

/// Predicts and plans, until the user interrupts.
///
/// # Errors
/// [`CliError`] when metad does not answer, there is no plan, or the user interrupted.
pub async fn make(
    client: &Client,
    workflow: &Workflow,
    platform: &Platform,
    request: &PlanRequest,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<Planned, CliError> {
    let problem = tokio::select! {
        problem = client.prepare(workflow, platform, request) => problem?,
        () = interrupt.asked() => return Err(CliError::Stopped { hint: "" }),
    };
    let (stop, planner, with) = (Stop::never(), request.planner.clone(), client.clone());
    let asked = stop.clone();
    let what = format!("planning {} tasks with {planner}", workflow.tasks().len());
    let work = move || {
        let plan = with.plan_until(&planner, &problem, &asked)?;
        Ok(Planned { basis: with.basis(&problem, &plan), plan, problem })
    };
    apart::until_interrupted(work, &what, &stop, terminal, interrupt).await?
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
        Basis::MemoryNormalised => "measured, fitted over memory",
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
    for task in plan.tasks.iter().filter(|task| !task.unexpected) {
        sizes.entry(task.config.key()).or_insert_with(|| (task.config.to_string(), 0)).1 += 1;
    }
    let parts: Vec<String> = sizes.values().map(|(size, tasks)| format!("{size} x {tasks}")).collect();
    parts.join(", ")
}

fn table(plan: &Plan, alternatives: &[Alternatives], asked: &[Alternatives], color: Color) -> String {
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
    text += &picture(plan, color);
    text += "# a task, * on the critical path, | the next begins, . the worker waits\n";
    let path: Vec<&str> = plan.critical_path.iter().map(foresail_schemas::TaskId::as_str).collect();
    text += &format!("\ncritical path: {}\n", path.join(" -> "));
    text += &reasons::sentences(&plan.explanation);
    text += &reasons::listed(plan, alternatives);
    asked.iter().for_each(|of| text += &reasons::in_full(plan, of));
    text
}

/// The workers over time: as wide as the terminal and with the critical path in red, or plain in a pipe.
fn picture(plan: &Plan, color: Color) -> String {
    let is_terminal = std::io::stdout().is_terminal();
    let width = terminal_size::terminal_size_of(std::io::stdout()).filter(|_| is_terminal);
    let width = width.map_or(GANTT_WIDTH, |(width, _)| usize::from(width.0));
    let picture = foresail_planner::gantt(plan, width);
    let is_plain = color == Color::Never || std::env::var_os("NO_COLOR").is_some() || !is_terminal;
    if is_plain { picture } else { painted(&picture) }
}

/// The picture with its `*` in red.
fn painted(picture: &str) -> String {
    let mut text = String::with_capacity(2 * picture.len());
    let mut is_red = false;
    for c in picture.chars() {
        if (c == '*') != is_red {
            is_red = !is_red;
            text.push_str(if is_red { "\x1b[31m" } else { "\x1b[0m" });
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_critical_path_is_red_and_nothing_else() {
        assert_eq!(painted("w [#**|.]\n"), "w [#\x1b[31m**\x1b[0m|.]\n");
        assert_eq!(painted("plain"), "plain");
    }

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
