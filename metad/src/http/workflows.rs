//! What is known of workflows: lists, reports, scores, the model as a download, the quarantine.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use foresail_schemas::listing::{QuarantineList, TaskEntry, TaskList, WorkflowEntry, WorkflowList};
use foresail_schemas::score::{TaskScore, WorkflowScores};
use foresail_schemas::{ErrorCode, TaskName, WorkflowName};

use super::reply::{Answer, Failure, json, not_modified, tagged, typed};
use super::take::{App, PathOf, blocking};
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

/// Lists the workflows.
pub async fn list(State(app): State<App>) -> Answer {
    let world = app.world.load_full();
    let workflows = world.views().iter().map(|v| entry(v)).collect();
    Ok(json(&WorkflowList { epoch: world.epoch, workflows }))
}

/// One workflow.
pub async fn get(State(app): State<App>, PathOf(workflow): PathOf<WorkflowName>) -> Answer {
    Ok(json(&entry(&*find(&app, &workflow)?)))
}

/// The tasks of a workflow.
pub async fn tasks(
    State(app): State<App>,
    PathOf(workflow): PathOf<WorkflowName>,
    headers: HeaderMap,
) -> Answer {
    let view = find(&app, &workflow)?;
    let epoch = view.epoch();
    if let Some(known) = not_modified(epoch, &headers) {
        return Ok(known);
    }
    let response = blocking(move || {
        let tasks = view.predictor.tasks().map(|task| task_entry(&view, task)).collect();
        json(&TaskList { epoch, tasks })
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
    let report = view.predictor.report(&task).ok_or_else(|| {
        Failure::new(ErrorCode::TaskNotFound, format!("workflow `{workflow}` has no measured task `{task}`"))
    })?;
    Ok(not_modified(view.epoch(), &headers).unwrap_or_else(|| tagged(view.epoch(), json(&report))))
}

/// How well plans predicted the tasks of a workflow.
pub async fn scores(
    State(app): State<App>,
    PathOf(workflow): PathOf<WorkflowName>,
    headers: HeaderMap,
) -> Answer {
    let view = find(&app, &workflow)?;
    let epoch = view.epoch();
    if let Some(known) = not_modified(epoch, &headers) {
        return Ok(known);
    }
    let response = blocking(move || {
        let score = |task: &TaskName| {
            let score = view.predictor.task_scores(task)?.score();
            Some(TaskScore { task: task.clone(), score })
        };
        let total = view.predictor.scores().coverage();
        let tasks = view.predictor.tasks().filter_map(score).collect();
        json(&WorkflowScores { epoch, total, tasks })
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
    let predictor = Arc::clone(&view.predictor);
    let response = blocking(move || match wants_json {
        true => Ok(json(&*predictor)),
        false => postcard::to_allocvec(&*predictor).map(|bytes| typed("application/octet-stream", bytes)),
    });
    let response = response.await?.map_err(|e| Failure::new(ErrorCode::Internal, e.to_string()))?;
    Ok(by_accept(tagged(version, response)))
}

/// Whether `Accept` names a media type.
pub fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    accept.is_some_and(|accept| accept.contains(media_type))
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
    let records = blocking(move || store.view()?.quarantined(number, limit)).await??;
    let (rejected, kept) = (view.row.rejected, view.row.quarantined_kept);
    Ok(json(&QuarantineList { rejected, kept, records }))
}
