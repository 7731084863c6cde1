//! What is known of workflows: lists, reports, scores, the model as a download, the quarantine.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use foresail_model::{Download, Form};
use foresail_schemas::listing::{QuarantineList, TaskEntry, TaskList, WorkflowEntry, WorkflowList};
use foresail_schemas::score::{TaskScore, WorkflowScores};
use foresail_schemas::{ErrorCode, TaskName, WorkflowName};
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use super::pool::blocking;
use super::reply::{Answer, Failure, JSON, json, not_modified, tagged, typed};
use super::take::{App, PathOf, QueryOf, accepts};
use crate::world::View;

fn entry(view: &View) -> WorkflowEntry {
    WorkflowEntry {
        workflow: view.name.clone(),
        epoch: view.epoch(),
        tasks: view.predictor.task_count() as u64,
        batches: view.row.batches,
        records_accepted: view.row.accepted,
        records_rejected: view.row.rejected,
        records_kept: view.row.records_kept,
        quarantined_kept: view.row.quarantined_kept,
    }
}

/// The workflow, if something is known of it.
pub fn find(app: &App, workflow: &WorkflowName) -> Result<Arc<View>, Failure> {
    app.world.load().get(workflow.as_str()).cloned().ok_or_else(|| {
        Failure::new(ErrorCode::WorkflowNotFound, format!("nothing is known of a workflow `{workflow}`"))
    })
}

/// Which page of a list is asked for.
#[derive(Debug, Deserialize)]
pub struct PageOf<N> {
    limit: Option<u64>,
    after: Option<N>,
}

impl<N> PageOf<N> {
    fn limit(&self, app: &App) -> usize {
        self.limit.unwrap_or(u64::MAX).clamp(1, app.settings.list_max) as usize
    }
}

/// Lists the workflows.
pub async fn list(State(app): State<App>, QueryOf(page): QueryOf<PageOf<WorkflowName>>) -> Answer {
    let (world, limit) = (app.world.load(), page.limit(&app));
    let unknown = |name: &WorkflowName| {
        Failure::new(ErrorCode::InvalidParameter, format!("`after` is `{name}`, of which nothing is known"))
    };
    let place = |name: WorkflowName| world.get(name.as_str()).map(|v| v.number + 1).ok_or(unknown(&name));
    let from = page.after.map(place).transpose()?.unwrap_or(0) as usize;
    let rest = &world.views()[from..];
    let views = &rest[..limit.min(rest.len())];
    let next_after = views.last().filter(|_| views.len() < rest.len()).map(|last| last.name.clone());
    let workflows = views.iter().map(|v| entry(v)).collect();
    Ok(json(&WorkflowList { epoch: world.epoch, workflows, next_after }))
}

/// One workflow.
pub async fn get(State(app): State<App>, PathOf(workflow): PathOf<WorkflowName>) -> Answer {
    Ok(json(&entry(&*find(&app, &workflow)?)))
}

/// The tasks of a workflow.
pub async fn tasks(
    State(app): State<App>,
    PathOf(workflow): PathOf<WorkflowName>,
    QueryOf(page): QueryOf<PageOf<TaskName>>,
    headers: HeaderMap,
) -> Answer {
    let view = find(&app, &workflow)?;
    let epoch = view.epoch();
    if let Some(known) = not_modified(epoch, &headers) {
        return Ok(known);
    }
    let limit = page.limit(&app);
    let response = blocking(&app, move || {
        // One more tells whether there is a next page.
        let names = view.predictor.tasks_after(page.after.as_ref(), limit + 1);
        let shown = &names[..limit.min(names.len())];
        let next_after = shown.last().filter(|_| shown.len() < names.len()).map(|&last| last.clone());
        let tasks = shown.iter().map(|task| task_entry(&view, task)).collect();
        json(&TaskList { epoch, tasks, next_after })
    });
    Ok(tagged(epoch, response.await?))
}

fn task_entry(view: &View, task: &TaskName) -> TaskEntry {
    let configs = view.predictor.configs(task);
    let most = configs.iter().max_by_key(|c| c.samples);
    TaskEntry {
        task: task.clone(),
        samples: view.predictor.task_samples(task),
        configs: configs.len() as u64,
        memory_mb: most.map(|c| c.config.memory_mb),
        vcpu: most.and_then(|c| c.config.vcpu),
        median_ms: most.map(|c| c.quantiles.median),
        p95_ms: most.map(|c| c.quantiles.p95),
    }
}

/// One task: configs, samples, fitted curve, histogram, memory tuning curve.
pub async fn task(
    State(app): State<App>,
    PathOf((workflow, task)): PathOf<(WorkflowName, TaskName)>,
    headers: HeaderMap,
) -> Answer {
    let view = find(&app, &workflow)?;
    if !view.predictor.has_task(&task) {
        let detail = format!("workflow `{workflow}` has no measured task `{task}`");
        return Err(Failure::new(ErrorCode::TaskNotFound, detail));
    }
    let epoch = view.epoch();
    if let Some(known) = not_modified(epoch, &headers) {
        return Ok(known);
    }
    // It asks every curve of the task, most of which may not be fitted yet.
    let response = blocking(&app, move || json(&view.predictor.report(&task)));
    Ok(tagged(epoch, response.await?))
}

/// How well plans predicted the tasks of a workflow: all together, and a page of them by name.
pub async fn scores(
    State(app): State<App>,
    PathOf(workflow): PathOf<WorkflowName>,
    QueryOf(page): QueryOf<PageOf<TaskName>>,
    headers: HeaderMap,
) -> Answer {
    let view = find(&app, &workflow)?;
    let epoch = view.epoch();
    if let Some(known) = not_modified(epoch, &headers) {
        return Ok(known);
    }
    let limit = page.limit(&app);
    let response = blocking(&app, move || {
        let is_behind = |task: &&TaskName| page.after.as_ref().is_none_or(|after| *task > after);
        let score = |task: &TaskName| {
            let score = view.predictor.task_scores(task)?.score();
            Some(TaskScore { task: task.clone(), score })
        };
        let total = view.predictor.scores().coverage();
        // One more tells whether there is a next page.
        let scored = view.predictor.tasks().filter(is_behind).filter_map(score);
        let mut tasks: Vec<TaskScore> = scored.take(limit + 1).collect();
        let is_last = tasks.len() <= limit;
        tasks.truncate(limit);
        let next_after = tasks.last().filter(|_| !is_last).map(|last| last.task.clone());
        json(&WorkflowScores { epoch, total, tasks, next_after })
    });
    Ok(tagged(epoch, response.await?))
}

/// The whole model as one snapshot: JSON where `Accept` asks for it, else postcard of
/// `foresail_model::Predictor`.
pub async fn model(
    State(app): State<App>,
    PathOf(workflow): PathOf<WorkflowName>,
    headers: HeaderMap,
) -> Answer {
    let view = find(&app, &workflow)?;
    let wants_json = accepts(&headers, "application/json");
    // Two forms of one epoch are two versions, or a cache would hand out one for the other.
    let version = if wants_json { format!("{}-json", view.epoch()) } else { view.epoch().to_string() };
    if let Some(known) = not_modified(&version, &headers) {
        return Ok(by_accept(known));
    }
    let (form, media_type) =
        if wants_json { (Form::Json, JSON) } else { (Form::Packed, "application/octet-stream") };
    let place = app.export_place()?;
    let (first, rest) = piece_of(&app, Download::new(Arc::clone(&view.predictor), form)).await?;
    // A model of one piece has a length; of a larger one no more is made than its reader takes.
    let body = if rest.is_done() {
        Body::from(first)
    } else {
        Body::from_stream(
            stream::once(async { Ok(first) }).chain(stream::try_unfold((rest, app, place), remaining)),
        )
    };
    Ok(by_accept(tagged(version, typed(media_type, body))))
}

/// The next piece of a download, fitted and written on the blocking pool.
async fn piece_of(app: &App, mut download: Download) -> Result<(Bytes, Download), Failure> {
    let (piece, download) = blocking(app, move || (download.next_piece(), download)).await?;
    let piece = piece.map_err(|e| Failure::new(ErrorCode::Internal, e.to_string()))?;
    Ok((piece.unwrap_or_default().into(), download))
}

/// A download, what it needs, and its place among the exports, which it keeps until it ends.
type Placed = (Download, App, OwnedSemaphorePermit);

/// The same once the answer has begun: what fails now can only break it off.
async fn remaining((download, app, place): Placed) -> Result<Option<(Bytes, Placed)>, axum::BoxError> {
    if download.is_done() {
        return Ok(None);
    }
    let next = piece_of(&app, download).await.map(|(piece, rest)| Some((piece, (rest, app, place))));
    next.map_err(|failure| {
        tracing::error!(detail = failure.0.detail, "a download of a model breaks off");
        axum::BoxError::from(failure.0.detail)
    })
}

/// The answer, marked as one whose form `Accept` decides.
pub fn by_accept(mut response: Response) -> Response {
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
    response
}

/// The quarantine of a workflow.
pub async fn quarantine(State(app): State<App>, PathOf(workflow): PathOf<WorkflowName>) -> Answer {
    let view = find(&app, &workflow)?;
    let (store, number, limit) = (app.store.clone(), view.number, app.settings.list_max as usize);
    let records = blocking(&app, move || store.view()?.quarantined(number, limit)).await??;
    let (rejected, kept) = (view.row.rejected, view.row.quarantined_kept);
    Ok(json(&QuarantineList { rejected, kept, records }))
}
