//! Health, metrics, the OpenAPI document and the two pages, which need no other server.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use foresail_model::Scores;
use foresail_schemas::run::RunStatus;

use super::pool::blocking;
use super::reply::{Answer, Failure, json_text, typed};
use super::take::App;
use crate::batch_log::BatchLog;
use crate::meter::Gauges;
use crate::shared::{Shared, stopping};
use crate::world::World;

/// The process is alive.
pub async fn livez() -> Response {
    typed("text/plain; charset=utf-8", "alive\n")
}

/// Changes are taken, and what other replicas knew at the start is known here too.
pub async fn readyz(State(app): State<App>) -> Answer {
    match app.health.problem() {
        Some(problem) => Err(Failure(problem)),
        None if *app.stopping.borrow() => Err(Failure(stopping())),
        None => match app.batch_log.as_ref().and_then(BatchLog::unready) {
            Some(problem) => Err(Failure(problem)),
            None => Ok(typed("text/plain; charset=utf-8", "ready\n")),
        },
    }
}

/// What metad counts of itself.
pub async fn metrics(State(app): State<App>) -> Answer {
    // Thousands of workflows take longer than other requests shall wait.
    let shared = Arc::clone(&app);
    let text = blocking(&app, move || shared.meter.text(&gauges(&shared))).await?;
    Ok(typed("application/openmetrics-text; version=1.0.0; charset=utf-8", text))
}

fn gauges(app: &Shared) -> Gauges {
    let world = app.world.load();
    let mut runs = BTreeMap::from([("running", 0), ("completed", 0), ("failed", 0), ("cancelled", 0)]);
    for board in app.boards.load().values() {
        let status = match board.status() {
            RunStatus::Running => "running",
            RunStatus::Completed => "completed",
            RunStatus::Failed => "failed",
            RunStatus::Cancelled => "cancelled",
        };
        *runs.entry(status).or_default() += 1;
    }
    Gauges {
        epoch: world.epoch,
        queue: app.queue_depth(),
        workflows: world.views().len() as u64,
        tasks: world.views().iter().map(|v| v.predictor.task_count() as u64).sum(),
        runs,
        ready: u64::from(app.health.problem().is_none()),
        scores: scores(&world),
        log: app.batch_log.as_ref().map(BatchLog::place),
    }
}

/// The scores of all workflows together: one series per quantile, however many workflows there are.
fn scores(world: &World) -> Scores {
    world.views().iter().fold(Scores::default(), |mut sum, view| {
        sum.merge_sum(view.predictor.scores());
        sum
    })
}

/// The OpenAPI document of this version.
pub async fn openapi() -> Response {
    static DOCUMENT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let document = DOCUMENT.get_or_init(|| foresail_schemas::openapi::document().to_string());
    json_text(document.as_str())
}

/// The OpenAPI document as a page.
pub async fn docs() -> Response {
    typed("text/html; charset=utf-8", include_str!("pages/docs.html"))
}

/// The dashboard.
pub async fn dashboard() -> Response {
    typed("text/html; charset=utf-8", include_str!("pages/dashboard.html"))
}
