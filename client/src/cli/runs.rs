//! `foresail runs` and `foresail cancel`: what was run before.

use foresail_schemas::Workflow;
use foresail_schemas::decision::Decision;
use foresail_schemas::id::RunId;
use foresail_schemas::run::{Change, Promise, Replanning, RunEvent, RunStatus, RunSummary, WorkerUsage};

use super::args::{CancelArgs, Format, Global, RunsArgs};
use super::error::CliError;
use super::render::{self, Table};
use super::replan::accept_hint;
use super::run::{comparison, data_line};
use super::session::Session;
use super::terminal::Terminal;
use crate::progress::Progress;
use crate::run::RunHandle;
use crate::units;

/// Lists runs, or shows one.
///
/// # Errors
/// [`CliError`] when there is no stack or no such run.
pub async fn runs(global: &Global, args: &RunsArgs, terminal: &Terminal) -> Result<(), CliError> {
    let session = Session::look(global).await?;
    let done = match &args.run {
        None => list(global, &session, terminal).await,
        Some(run) => detail(global, &session, run).await,
    };
    session.close().await;
    done
}

/// Ends a run.
///
/// # Errors
/// [`CliError`] when there is no stack or no such run, or the run had ended before.
pub async fn cancel(global: &Global, args: &CancelArgs, terminal: &Terminal) -> Result<(), CliError> {
    let session = Session::look(global).await?;
    let done = async {
        let handle = session.client.attach(&args.run).await?;
        let before = handle.summary().await?.status;
        handle.cancel(&args.reason).await?;
        Ok::<_, CliError>((before, handle.summary().await?.status))
    };
    let done = done.await;
    session.close().await;
    match done? {
        // It may end by itself between the look and the order.
        (RunStatus::Running, RunStatus::Cancelled) => {
            terminal.say(&format!("run {} is cancelled", args.run));
            Ok(())
        }
        (_, status) => Err(CliError::Over { run: args.run.clone(), status: status_name(status) }),
    }
}

async fn list(global: &Global, session: &Session, terminal: &Terminal) -> Result<(), CliError> {
    let runs = session.client.runs().await?;
    if runs.is_empty() {
        terminal.say("nothing was run yet; `foresail run hello` does");
    }
    if let Some(stalled) = runs.iter().find(|run| run.stalled_ms.is_some()) {
        terminal.say(&stalled_hint(stalled));
    }
    Ok(render::many(global.format, &runs, || list_table(&runs).to_string())?)
}

async fn detail(global: &Global, session: &Session, run: &RunId) -> Result<(), CliError> {
    let handle = session.client.attach(run).await?;
    let summary = handle.summary().await?;
    let events = handle.events_so_far().await?;
    let suggestion = match summary.status {
        RunStatus::Running => session.client.suggestion(run).await?,
        _ => None,
    };
    match global.format {
        Format::Table | Format::Markdown | Format::Csv | Format::Parquet => {
            let hint = suggestion.map(|_| accept_hint(run, None));
            Ok(render::one(global.format, &(), || detail_table(&handle, &summary, &events, hint))?)
        }
        Format::Json => {
            let (plan, usage) = (handle.plan(), usage_of(&summary));
            let document = serde_json::json!({ "summary": summary, "usage": usage, "plan": plan,
                "suggestion": suggestion, "events": events });
            Ok(render::one(global.format, &document, String::new)?)
        }
        Format::Ndjson => Ok(render::many(global.format, &events, String::new)?),
    }
}

fn list_table(runs: &[RunSummary]) -> Table {
    let mut table = Table::new(&["run", "workflow", "status", "tasks", "planner", "predicted", "took"]);
    for run in runs {
        table.row([
            run.run.to_string(),
            run.workflow.to_string(),
            standing(run).to_owned(),
            format!("{}/{}", run.committed + run.skipped, run.tasks),
            run.planner.to_string(),
            units::ms(run.predicted.makespan_ms),
            units::ms(run.elapsed_ms),
        ]);
    }
    table
}

fn detail_table(
    handle: &RunHandle,
    summary: &RunSummary,
    events: &[RunEvent],
    hint: Option<String>,
) -> String {
    let mut progress = handle.new_progress();
    events.iter().for_each(|event| progress.apply(event));
    let actual = progress.summary(handle.rates(), summary.elapsed_ms);
    let mut text = format!(
        "run {} of {}, created {}: {}, {}/{}{}, {} failed\n",
        summary.run,
        summary.workflow,
        summary.created_at,
        standing(summary),
        summary.committed + summary.skipped,
        units::count(summary.tasks, "task"),
        if summary.skipped > 0 { format!(" ({} skipped)", summary.skipped) } else { String::new() },
        units::count(progress.failed_attempts, "attempt")
    );
    if let Some(failure) = &summary.failure {
        text += &format!("cause: {}\n", failure.message);
    }
    if summary.stalled_ms.is_some() {
        text += &format!("{}\n", stalled_hint(summary));
    }
    text.extend(hint.map(|hint| hint + "\n"));
    text += &format!("workers: {}\n\n", workers(&progress));
    text += &format!("{}\n", comparison(&summary.predicted, &actual, summary.status));
    text += &format!("{}\n\n", data_line(&usage_of(summary)));
    text += &timeline(handle.workflow(), events).to_string();
    text
}

/// What the workers of all sizes used.
fn usage_of(summary: &RunSummary) -> WorkerUsage {
    let mut sum = WorkerUsage::default();
    summary.usage.iter().for_each(|of_size| sum.add(&of_size.usage));
    sum
}

fn workers(progress: &Progress) -> String {
    let sizes: Vec<String> = progress.sizes().iter().map(|(size, n)| format!("{n} of {size}")).collect();
    sizes.join(", ")
}

/// What a person wants to see of the events; edges and marks are the engine's own business.
fn timeline(workflow: &Workflow, events: &[RunEvent]) -> Table {
    let mut table = Table::new(&["at", "event", "who", "what"]);
    let id = |task: u32| {
        workflow.tasks().get(task as usize).map_or_else(|| task.to_string(), |t| t.id.to_string())
    };
    for event in events {
        let (who, what) = match &event.change {
            Change::WorkerJoined { worker, instance, config, start } => {
                let planned = worker.as_ref().map_or_else(|| "flexible".to_owned(), ToString::to_string);
                let start = format!("{start:?}").to_lowercase();
                (instance.to_string(), format!("{planned}, {config}, {start} start"))
            }
            Change::WorkerLeft { instance, usage } => {
                (instance.to_string(), format!("billed {}", units::ms(usage.billed_ms)))
            }
            Change::TaskLeased { task, attempt, instance, .. } => {
                (instance.to_string(), format!("{} attempt {attempt}", id(*task)))
            }
            Change::TaskDuplicated { task, instance } => {
                (instance.to_string(), format!("{} beside its worker", id(*task)))
            }
            Change::TaskFailed { task, instance, failure, .. } => {
                let cause = failure.message.lines().next().unwrap_or_default();
                (instance.to_string(), format!("{}: {cause}", id(*task)))
            }
            Change::TaskCommitted { task, commit } => {
                let m = &commit.measured;
                let moved = units::ms(m.download_ms + m.upload_ms);
                let told = |decision: &Decision| decision.told(workflow.graph().places(*task));
                let decided = commit.decision.as_ref().map_or_else(String::new, told);
                let what = format!("{} ran {}, moved data {moved}{decided}", id(*task), units::ms(m.exec_ms));
                (commit.instance.to_string(), what)
            }
            Change::RunResumed { of, reused } => (String::new(), format!("{reused} results of run {of}")),
            Change::PlanReplaced { epoch, why } => {
                let why = why.as_ref().map_or_else(String::new, |why| format!(": {}", reasons_of(why)));
                (String::new(), format!("plan {epoch} is in force{why}"))
            }
            Change::PlanSuggested { epoch, why } => {
                (String::new(), format!("instead of plan {epoch}: {}", reasons_of(why)))
            }
            Change::RunFinished { status, .. } => (String::new(), status_name(*status).to_owned()),
            Change::TasksSkipped { by, tasks } => {
                (String::new(), format!("{}, as {} decided", named(tasks, id), id(*by)))
            }
            Change::TasksInvalidated { by, tasks } => {
                let lost: Vec<String> = tasks.iter().map(|&task| id(task)).collect();
                (String::new(), format!("{} found their objects lost: {}", id(*by), lost.join(", ")))
            }
            Change::TaskReady { .. } => continue,
        };
        table.row([units::ms(event.at_ms), event.change.kind().replace('_', " "), who, what]);
    }
    table
}

/// Tasks of one event that are named.
const NAMED_MAX: usize = 4;

/// The tasks by their ids, or how many they are where that would fill the line.
fn named(tasks: &[u32], id: impl Fn(u32) -> String) -> String {
    let shown: Vec<String> = tasks.iter().take(NAMED_MAX).map(|&task| id(task)).collect();
    match tasks.len().saturating_sub(NAMED_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Why a plan gives way, and what both are predicted to take and to cost.
fn reasons_of(why: &Replanning) -> String {
    let Replanning { cause, reason, kept, new, moved } = why;
    let told = |p: &Promise| format!("{} for {}", units::ms(p.makespan_ms), units::usd(p.cost_usd));
    format!("{cause}; {reason}; {moved} tasks move, {} becomes {}", told(kept), told(new))
}

/// Where a run stands; one that nobody works on does not run, whatever metad waits for.
fn standing(run: &RunSummary) -> &'static str {
    if run.stalled_ms.is_some() { "stalled" } else { status_name(run.status) }
}

fn stalled_hint(run: &RunSummary) -> String {
    let since = units::ms(run.stalled_ms.unwrap_or_default());
    let run = &run.run;
    format!("nobody has worked on run {run} for {since}; `foresail resume {run}` goes on with it")
}

fn status_name(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Running => "running",
        RunStatus::Completed => "completed",
        RunStatus::Failed => "failed",
        RunStatus::Cancelled => "cancelled",
    }
}
