//! Predictions: one by GET, many by POST. Both answer from one snapshot of the world.

use axum::extract::State;
use axum::http::HeaderMap;
use foresail_schemas::config::ResourceConfig;
use foresail_schemas::metric::{Direction, StartState};
use foresail_schemas::prediction::{
    PredictionAnswer, PredictionRequest, Query, SLAS_PER_REQUEST_MAX, SinglePrediction,
};
use foresail_schemas::{ErrorCode, Sla, TaskName, WorkflowName};
use serde::Deserialize;

use super::reply::{Answer, Failure, json, not_modified, tagged};
use super::take::{App, JsonOf, PathOf, QueryOf, by_size};
use crate::meter::add;
use crate::world::World;

/// Bytes of work that one question stands for when it is decided where to answer.
const QUERY_BYTES: usize = 128;

/// The parameters of a single question; which are needed depends on its kind.
#[derive(Debug, Deserialize)]
pub struct Question {
    task: Option<TaskName>,
    input_bytes: Option<u64>,
    memory_mb: Option<u32>,
    vcpu: Option<f64>,
    direction: Option<Direction>,
    bytes: Option<u64>,
    store: Option<TaskName>,
    state: Option<StartState>,
    sla: Option<String>,
}

/// Answers one question.
pub async fn get(
    State(app): State<App>,
    PathOf((workflow, kind)): PathOf<(WorkflowName, String)>,
    QueryOf(question): QueryOf<Question>,
    headers: HeaderMap,
) -> Answer {
    let slas = slas(question.sla.as_deref())?;
    let query = question.query(&kind)?;
    check(&query).map_err(|detail| Failure::new(ErrorCode::InvalidParameter, detail))?;
    let world = app.world.load();
    let answer = world.oracle(workflow.as_str()).answer(&query, &slas);
    add(&app.meter.predictions, 1);
    if let Some(known) = not_modified(answer.epoch, &headers) {
        return Ok(known);
    }
    let single = SinglePrediction { epoch: answer.epoch, prediction: answer.prediction };
    Ok(tagged(answer.epoch, json(&single)))
}

/// Answers several questions.
pub async fn post(
    State(app): State<App>,
    PathOf(workflow): PathOf<WorkflowName>,
    JsonOf(request, content): JsonOf<PredictionRequest>,
) -> Answer {
    let (limit, count) = (app.settings.queries_max, request.queries.len());
    if count as u64 > limit {
        let detail = format!("the request has `{count}` questions, at most {limit} are taken");
        return Err(Failure::limit(ErrorCode::TooMany, detail, limit));
    }
    check_slas(request.sla.len()).map_err(|detail| Failure::new(ErrorCode::InvalidBody, detail))?;
    for (place, query) in request.queries.iter().enumerate() {
        check(query).map_err(|e| Failure::new(ErrorCode::InvalidBody, format!("queries[{place}]: {e}")))?;
    }
    let world = app.world.load_full();
    let work = count * request.sla.len() * QUERY_BYTES;
    let response = by_size(work, move || json(&answer_all(&world, &workflow, &request))).await?;
    drop(content);
    add(&app.meter.predictions, count as u64);
    Ok(response)
}

fn answer_all(world: &World, workflow: &WorkflowName, request: &PredictionRequest) -> PredictionAnswer {
    let mut oracle = world.oracle(workflow.as_str());
    let mut epoch = oracle.epoch();
    let mut predictions = Vec::with_capacity(request.queries.len());
    for query in &request.queries {
        let answer = oracle.answer(query, &request.sla);
        epoch = epoch.max(answer.epoch);
        predictions.push(answer.prediction);
    }
    PredictionAnswer { epoch, predictions }
}

/// Reads `median,p95`.
fn slas(text: Option<&str>) -> Result<Vec<Sla>, Failure> {
    let Some(text) = text else { return Ok(vec![Sla::MEDIAN]) };
    let refuse = |detail: String| Failure::new(ErrorCode::InvalidParameter, format!("`sla`: {detail}"));
    let slas: Result<Vec<Sla>, _> = text.split(',').map(|t| t.trim().parse::<Sla>()).collect();
    let slas = slas.map_err(|e| refuse(e.to_string()))?;
    check_slas(slas.len()).map_err(refuse)?;
    Ok(slas)
}

fn check_slas(count: usize) -> Result<(), String> {
    match count {
        0 => Err("at least one service level is needed".to_owned()),
        n if n > SLAS_PER_REQUEST_MAX => {
            Err(format!("`{n}` service levels are asked, at most {SLAS_PER_REQUEST_MAX} are answered"))
        }
        _ => Ok(()),
    }
}

/// Checks the size of the worker that is asked about.
fn check(query: &Query) -> Result<(), String> {
    match query {
        Query::OutputSize { .. } => Ok(()),
        Query::ExecutionTime { memory_mb, vcpu, .. }
        | Query::TransferTime { memory_mb, vcpu, .. }
        | Query::StartupTime { memory_mb, vcpu, .. } => {
            ResourceConfig::new(*memory_mb, *vcpu).map(drop).map_err(|e| e.to_string())
        }
    }
}

impl Question {
    fn query(self, kind: &str) -> Result<Query, Failure> {
        let missing = |name: &str| {
            Failure::new(
                ErrorCode::InvalidParameter,
                format!("the parameter `{name}` is missing; {kind} needs it"),
            )
        };
        let task = self.task.ok_or_else(|| missing("task"));
        let memory_mb = self.memory_mb.ok_or_else(|| missing("memory_mb"));
        let (vcpu, input_bytes) = (self.vcpu, self.input_bytes.unwrap_or(0));
        match kind {
            "execution-time" => {
                Ok(Query::ExecutionTime { task: task?, input_bytes, memory_mb: memory_mb?, vcpu })
            }
            "output-size" => Ok(Query::OutputSize { task: task?, input_bytes }),
            "transfer-time" => Ok(Query::TransferTime {
                direction: self.direction.ok_or_else(|| missing("direction"))?,
                bytes: self.bytes.unwrap_or(0),
                memory_mb: memory_mb?,
                vcpu,
                store: self.store,
            }),
            "startup-time" => {
                let state = self.state.ok_or_else(|| missing("state"))?;
                Ok(Query::StartupTime { state, memory_mb: memory_mb?, vcpu })
            }
            other => {
                let detail = format!(
                    "`{other}` cannot be predicted; \
                     execution-time, output-size, transfer-time and startup-time can"
                );
                Err(Failure::new(ErrorCode::NotFound, detail))
            }
        }
    }
}
