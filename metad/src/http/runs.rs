//! Runs: create, list, read, re-plan, operate, cancel.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use foresail_schemas::listing::RunList;
use foresail_schemas::plan::Plan;
use foresail_schemas::run::{
    FAILURE_TEXT_MAX, Location, Operation, OperationAnswer, OperationRequest, ReplanRequest, Replanning,
    Resume, RunOptions, RunStatus,
};
use foresail_schemas::workflow::WorkflowSpec;
use foresail_schemas::{ErrorCode, RunId, WorkflowName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::pool::{blocking, by_size};
use super::reply::{Answer, Failure, json, json_text};
use super::take::{App, Content, JsonOf, PathOf, QueryOf};
use crate::board::Board;
use crate::coordination;
use crate::store::documents::SUGGESTED;
use crate::write::{Command, NewPlan, NewRun, Standing};

/// Bytes of answer that one operation stands for when it is decided where to write it.
const RESULT_BYTES: usize = 256;
/// Longest content of one output inside a commit, in bytes of base64; larger ones belong in the object store.
const COMMIT_INLINE_BYTES_MAX: usize = 256 << 10;

/// The run as others see it.
pub fn find(app: &App, run: &RunId) -> Result<Arc<Board>, Failure> {
    let board = app.boards.load().get(run).cloned();
    board.ok_or_else(|| Failure::new(ErrorCode::RunNotFound, format!("there is no run `{run}`")))
}

/// A run request before the workflow was checked, so that its faults have a code of their own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    run: Option<RunId>,
    workflow: WorkflowSpec,
    plan: Plan,
    #[serde(default)]
    options: RunOptions,
    resume: Option<Resume>,
}

/// Starts keeping a run.
pub async fn create(State(app): State<App>, JsonOf(request, content): JsonOf<Request>) -> Answer {
    let new = by_size(&app, content.bytes.len(), move || checked(request)).await??;
    let documents = app.coordination.is_some().then(|| (new.workflow_json.clone(), new.plan_json.clone()));
    let created = app.change(|reply| Command::CreateRun(Box::new(new), reply)).await?;
    if let Some((workflow, plan)) = documents {
        let (shared, run) = (Arc::clone(&app), created.run.clone());
        let events = blocking(&app, move || coordination::stored_events(&shared, &run)).await??;
        coordination::begin(&app, &created.run, &workflow, &plan, events).await?;
    }
    let status = if created.duplicate { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = (status, json(&created)).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/runs/{}", created.run)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

fn checked(request: Request) -> Result<NewRun, Failure> {
    let Request { run, workflow, plan, options, resume } = request;
    options.check().map_err(|e| Failure::new(ErrorCode::InvalidBody, e.to_string()))?;
    let workflow = workflow.check().map_err(|e| Failure::new(ErrorCode::InvalidWorkflow, e.to_string()))?;
    plan.check(&workflow).map_err(|e| Failure::new(ErrorCode::InvalidPlan, e.to_string()))?;
    let (workflow_json, plan_json) = (text(workflow.spec()), text(&plan));
    Ok(NewRun { run, workflow, plan, options, resume, workflow_json, plan_json })
}

fn text<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("wire types always have a JSON form")
}

/// Which runs to list.
#[derive(Debug, Deserialize)]
pub struct Selection {
    workflow: Option<WorkflowName>,
    status: Option<RunStatus>,
    limit: Option<u64>,
}

/// Lists runs, youngest first.
pub async fn list(State(app): State<App>, QueryOf(selection): QueryOf<Selection>) -> Answer {
    let boards = app.boards.load_full();
    let limit = selection.limit.unwrap_or(u64::MAX).min(app.settings.list_max) as usize;
    let response = blocking(&app, move || {
        let mut boards: Vec<_> = boards.values().collect();
        boards.sort_by_key(|b| std::cmp::Reverse(b.number));
        let all = boards.into_iter().map(|b| b.summary());
        let wanted = all.filter(|s| {
            selection.workflow.as_ref().is_none_or(|w| *w == s.workflow)
                && selection.status.is_none_or(|status| status == s.status)
        });
        json(&RunList { runs: wanted.take(limit).collect() })
    });
    response.await
}

/// A run in short.
pub async fn get(State(app): State<App>, PathOf(run): PathOf<RunId>) -> Answer {
    let mut summary = find(&app, &run)?.summary();
    if let Some(running) = coordination::running(&app, &run).await {
        summary.running = running;
    }
    Ok(json(&summary))
}

/// The workflow of a run.
pub async fn workflow(State(app): State<App>, PathOf(run): PathOf<RunId>) -> Answer {
    let (store, number) = (app.store.clone(), find(&app, &run)?.number);
    let document = blocking(&app, move || store.view()?.workflow_document(number)).await??;
    document.map(json_text).ok_or_else(|| gone(&run))
}

fn gone(run: &RunId) -> Failure {
    Failure::new(ErrorCode::RunNotFound, format!("run `{run}` was dropped in this moment"))
}

/// The plan in force.
pub async fn plan(State(app): State<App>, PathOf(run): PathOf<RunId>) -> Answer {
    let board = find(&app, &run)?;
    let epoch = board.plan_epoch();
    stored_plan(&app, &board, epoch).await?.ok_or_else(|| gone(&run))
}

/// The plan of an epoch.
pub async fn plan_of(State(app): State<App>, PathOf((run, epoch)): PathOf<(RunId, u64)>) -> Answer {
    let board = find(&app, &run)?;
    let plan = if epoch == SUGGESTED { None } else { stored_plan(&app, &board, epoch).await? };
    plan.ok_or_else(|| {
        let last = board.plan_epoch();
        Failure::new(ErrorCode::NotFound, format!("run `{run}` has no plan `{epoch}`, it has 1 to {last}"))
    })
}

/// The plan that was suggested last, while the one that it would replace is in force.
pub async fn suggestion(State(app): State<App>, PathOf(run): PathOf<RunId>) -> Answer {
    #[derive(Deserialize)]
    struct Made {
        expected_epoch: u64,
    }
    let board = find(&app, &run)?;
    let (store, number) = (app.store.clone(), board.number);
    let document = blocking(&app, move || store.view()?.plan_document(number, SUGGESTED)).await??;
    let in_force = board.plan_epoch();
    let is_current = |text: &Vec<u8>| {
        serde_json::from_slice::<Made>(text).is_ok_and(|made| made.expected_epoch == in_force)
    };
    document.filter(is_current).map(json_text).ok_or_else(|| {
        let detail = format!("for run `{run}` no plan is suggested in place of plan `{in_force}`");
        Failure::new(ErrorCode::NotFound, detail)
    })
}

async fn stored_plan(app: &App, board: &Board, epoch: u64) -> Result<Option<Response>, Failure> {
    let (store, number, options) = (app.store.clone(), board.number, board.options);
    let document = blocking(app, move || store.view()?.plan_document(number, epoch)).await??;
    document.map(|plan| plan_answer(epoch, plan, options)).transpose()
}

/// A `CurrentPlan` around the text of the plan.
fn plan_answer(epoch: u64, plan: Vec<u8>, options: RunOptions) -> Result<Response, Failure> {
    #[derive(Serialize)]
    struct Current {
        epoch: u64,
        plan: Box<RawValue>,
        options: RunOptions,
    }
    let damaged = |reason: String| Failure::new(ErrorCode::StoreFailed, format!("the stored plan: {reason}"));
    let plan = String::from_utf8(plan).map_err(|e| damaged(e.to_string()))?;
    let plan = RawValue::from_string(plan).map_err(|e| damaged(e.to_string()))?;
    Ok(json(&Current { epoch, plan, options }))
}

/// Replaces the plan.
pub async fn replan(
    State(app): State<App>,
    PathOf(run): PathOf<RunId>,
    JsonOf(request, content): JsonOf<ReplanRequest>,
) -> Answer {
    let board = find(&app, &run)?;
    let ReplanRequest { expected_epoch, plan, mut why } = request;
    why.iter_mut().for_each(bounded_reasons);
    let (plan, plan_json) = by_size(&app, content.bytes.len(), move || {
        let json = text(&plan);
        (plan, json)
    })
    .await?;
    let new =
        NewPlan { run, expected_epoch, plan, json: plan_json.clone(), standing: Standing::InForce(why) };
    let epoch = match coordination::replan(&app, &new).await {
        Some(decided) => decided?,
        None => app.change(|reply| Command::Replan(Box::new(new), reply)).await?,
    };
    plan_answer(epoch, plan_json, board.options)
}

/// Keeps a plan beside the one in force, and tells that it was found.
pub async fn suggest(
    State(app): State<App>,
    PathOf(run): PathOf<RunId>,
    JsonOf(mut request, content): JsonOf<ReplanRequest>,
) -> Answer {
    find(&app, &run)?;
    request.why.iter_mut().for_each(bounded_reasons);
    let Some(why) = request.why.clone() else {
        let detail = "a plan that is suggested needs `why`: what it brings".to_owned();
        return Err(Failure::new(ErrorCode::InvalidBody, detail));
    };
    let expected_epoch = request.expected_epoch;
    let (plan, json) = by_size(&app, content.bytes.len(), move || {
        let json = text(&request);
        (request.plan, json)
    })
    .await?;
    let new = NewPlan { run, expected_epoch, plan, json: json.clone(), standing: Standing::Suggested(why) };
    match coordination::replan(&app, &new).await {
        Some(decided) => decided?,
        None => app.change(|reply| Command::Replan(Box::new(new), reply)).await?,
    };
    Ok(json_text(json))
}

/// Applies operations.
pub async fn operate(
    State(app): State<App>,
    PathOf(run): PathOf<RunId>,
    JsonOf(request, content): JsonOf<OperationRequest>,
) -> Answer {
    carry_out(&app, run, request, content).await
}

/// Applies the operations of a request; `content` is its text, which is let go of once they are stored.
pub async fn carry_out(app: &App, run: RunId, mut request: OperationRequest, content: Content) -> Answer {
    let (limit, count) = (app.settings.operations_max, request.operations.len());
    if count as u64 > limit {
        let detail = format!("the request has `{count}` operations, at most {limit} are taken");
        return Err(Failure::limit(ErrorCode::TooMany, detail, limit));
    }
    find(app, &run)?;
    request.operations.iter_mut().try_for_each(bounded)?;
    let answer = decide(app, run, request.operations).await?;
    drop(content);
    by_size(app, answer.results.len() * RESULT_BYTES, move || json(&answer)).await
}

/// Applies operations where the state of the run is.
async fn decide(app: &App, run: RunId, operations: Vec<Operation>) -> Result<OperationAnswer, Failure> {
    match coordination::operate(app, &run, &operations).await {
        Some(decided) => Ok(decided?),
        None => Ok(app.change(|reply| Command::Operate(run, operations, reply)).await?),
    }
}

/// Cuts texts that are too long and refuses contents that are: a run keeps them for as long as it is kept.
fn bounded(operation: &mut Operation) -> Result<(), Failure> {
    match operation {
        Operation::Cancel { reason } => cut(reason),
        Operation::Fail { failure, .. } => cut(&mut failure.message),
        Operation::Commit { task, commit, .. } => {
            for output in &commit.outputs {
                if let Location::Inline(content) = &output.location
                    && content.len() > COMMIT_INLINE_BYTES_MAX
                {
                    let detail = format!(
                        "the commit of task `{task}` has an output of `{}` bytes inside it, at most \
                         {COMMIT_INLINE_BYTES_MAX} are taken; larger ones belong in the object store",
                        content.len()
                    );
                    return Err(Failure::limit(ErrorCode::TooLarge, detail, COMMIT_INLINE_BYTES_MAX as u64));
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn bounded_reasons(why: &mut Replanning) {
    cut(&mut why.cause);
    cut(&mut why.reason);
}

fn cut(text: &mut String) {
    if text.len() > FAILURE_TEXT_MAX {
        let end = (0..=FAILURE_TEXT_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
    }
}

/// Why a run is cancelled.
#[derive(Debug, Deserialize)]
pub struct Reason {
    reason: String,
}

/// Cancels a run; one that has ended stays as it is.
pub async fn cancel(
    State(app): State<App>,
    PathOf(run): PathOf<RunId>,
    JsonOf(Reason { mut reason }, _content): JsonOf<Reason>,
) -> Answer {
    let board = find(&app, &run)?;
    cut(&mut reason);
    decide(&app, run, vec![Operation::Cancel { reason }]).await?;
    Ok(json(&board.summary()))
}
