//! `foresail scores`: how good the predictions were that plans were made with.

use foresail_schemas::Sla;
use foresail_schemas::score::{Score, WorkflowScores};

use super::args::{Global, ScoresArgs};
use super::error::CliError;
use super::known;
use super::render::{self, Table};
use super::session::Session;
use super::terminal::Terminal;

/// Quantiles whose coverage is shown.
const SHOWN: [Sla; 4] = [Sla::MEDIAN, Sla::P90, Sla::P95, Sla::P99];

/// Shows errors and coverage per task and per day.
///
/// # Errors
/// [`CliError`] when there is no stack or nothing is known of the workflow.
pub async fn scores(global: &Global, args: &ScoresArgs, terminal: &Terminal) -> Result<(), CliError> {
    let session = Session::look(global).await?;
    let found = async {
        match session.client.scores(&args.workflow).await? {
            Some(scores) => Ok(scores),
            None => Err(known::unknown_workflow(&session.client, &args.workflow).await),
        }
    };
    let found = found.await;
    session.close().await;
    let scores = found?;
    render::one(global.format, &scores, || text(&scores))?;
    if scores.total.score.n == 0 {
        terminal.say("nothing was scored yet: the first run has nothing to predict with, run it again");
    } else {
        terminal
            .say("coverage: the share of executions that took no longer than predicted; p95 should be 95 %");
    }
    Ok(())
}

fn text(scores: &WorkflowScores) -> String {
    let mut tasks = table("task");
    for task in &scores.tasks {
        tasks.row(row(task.task.to_string(), &task.score));
    }
    tasks.row(row("all".to_owned(), &scores.total.score));
    let mut days = table("day");
    for day in &scores.total.days {
        days.row(row(day.day.to_string(), &day.score));
    }
    format!("{tasks}\n{days}")
}

fn table(what: &str) -> Table {
    let mut header = vec![what, "scored", "median error", "mean error"];
    let names = SHOWN.map(|sla| format!("{sla} coverage"));
    header.extend(names.iter().map(String::as_str));
    Table::new(&header)
}

fn row(what: String, score: &Score) -> Vec<String> {
    let percent = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1} %"));
    let mut cells =
        vec![what, score.n.to_string(), percent(score.mdape_percent), percent(score.mape_percent)];
    cells.extend(SHOWN.map(|sla| percent(score.ratio.get(&sla).map(|ratio| ratio * 100.0))));
    cells
}
