//! Predictions: one by GET, many by POST. Both answer from one snapshot of the world.
//!
//! The front and the router answer with the same functions ([`answer_one`], [`answer_many`]); they differ in
//! how they read a single question: the front reads plain ones ([`plain`]), the router all.

use std::convert::Infallible;
use std::str::FromStr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use foresail_schemas::config::ResourceConfig;
use foresail_schemas::metric::{Direction, StartState};
use foresail_schemas::prediction::{PredictionRequest, Query, SLAS_PER_REQUEST_MAX};
use foresail_schemas::{ErrorCode, Sla, TaskName, WorkflowName};
use serde::Deserialize;

use super::flat;
use super::pool::{blocking, by_size, cold};
use super::prediction_json::{Many, single};
use super::reply::{Answer, Failure, JSON, json_text, not_modified, tagged};
use super::take::{App, Content, PathOf, QueryOf, invalid_json, media_type};
use crate::meter::add;
use crate::shared::Shared;
use crate::world::{self, Oracle, World};

/// Most questions that are answered between two other requests. A warm one takes about a microsecond, one
/// whose curves have to be fitted first some hundred: past these it would hold up all others for long.
const INLINE_QUERIES_MAX: usize = 16;

/// The parameters of a single question; which are needed depends on its kind.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
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
    let warm = |world: &World| world.oracle(workflow.as_str()).answer_warm(&query, &slas).ok();
    let known = warm(&app.world.load());
    let answer = match known {
        Some(answer) => answer,
        None => {
            let (workflow, query, slas) = (workflow.clone(), query.clone(), slas.clone());
            let answer = move |world: &World| world.oracle(workflow.as_str()).answer(&query, &slas);
            cold(&app, warm, answer).await?
        }
    };
    Ok(answered(&app, &answer, &headers))
}

/// Answers several questions.
pub async fn post(
    State(app): State<App>,
    PathOf(workflow): PathOf<WorkflowName>,
    headers: HeaderMap,
    content: Content,
) -> Answer {
    if let Some(found) = media_type(&headers)
        && found != JSON
    {
        let detail = format!("`{found}` is not taken here, {JSON} is");
        return Err(Failure::new(ErrorCode::UnsupportedMediaType, detail));
    }
    answer_many(&app, workflow, content).await
}

/// Answers a question that was checked; nothing where it is cold and does not belong here.
pub fn answer_one(
    app: &Shared,
    workflow: &str,
    query: &Query,
    slas: &[Sla],
    headers: &HeaderMap,
) -> Option<Response> {
    let answer = app.world.load().oracle(workflow).answer_warm(query, slas).ok()?;
    Some(answered(app, &answer, headers))
}

fn answered(app: &Shared, answer: &world::Answer, headers: &HeaderMap) -> Response {
    add(&app.meter.predictions, 1);
    match not_modified(answer.epoch, headers) {
        Some(known) => known,
        None => tagged(answer.epoch, json_text(single(answer.epoch, &answer.prediction))),
    }
}

/// Answers the questions of a JSON text, on the blocking pool where they are many or one of them is cold.
pub async fn answer_many(app: &App, workflow: WorkflowName, content: Content) -> Answer {
    let (text, limit) = (content.bytes.clone(), app.settings.queries_max);
    let request = by_size(app, text.len(), move || read(&text, limit)).await??;
    let (count, request) = (request.queries.len(), Arc::new(request));
    let (name, asked) = (workflow.clone(), Arc::clone(&request));
    let warm = |world: &World| answer_all(world, &name, &asked, |o, q, s| o.answer_warm(q, s)).ok();
    let answer = move |world: &World| {
        let Ok(text) = answer_all::<Infallible>(world, &workflow, &request, |o, q, s| Ok(o.answer(q, s)));
        // Here, because the work goes on where the request has run out of its time.
        drop(content);
        text
    };
    let world = app.world.load_full();
    let text = if count > INLINE_QUERIES_MAX {
        blocking(app, move || answer(&world)).await?
    } else {
        match warm(&world) {
            Some(text) => text,
            None => cold(app, warm, answer).await?,
        }
    };
    add(&app.meter.predictions, count as u64);
    Ok(json_text(text))
}

/// Reads and checks a request.
fn read(text: &[u8], limit: u64) -> Result<PredictionRequest, Failure> {
    let request = match serde_json::from_slice::<flat::Request>(text) {
        Ok(flat::Request { sla, queries }) => {
            PredictionRequest { sla: sla.unwrap_or_else(|| vec![Sla::MEDIAN]), queries: queries.0 }
        }
        Err(_) => serde_json::from_slice(text).map_err(|e| invalid_json(&e))?,
    };
    let count = request.queries.len();
    if count as u64 > limit {
        let detail = format!("the request has `{count}` questions, at most {limit} are taken");
        return Err(Failure::limit(ErrorCode::TooMany, detail, limit));
    }
    check_slas(request.sla.len()).map_err(|detail| Failure::new(ErrorCode::InvalidBody, detail))?;
    for (place, query) in request.queries.iter().enumerate() {
        check(query).map_err(|e| Failure::new(ErrorCode::InvalidBody, format!("queries[{place}]: {e}")))?;
    }
    Ok(request)
}

fn answer_all<E>(
    world: &World,
    workflow: &WorkflowName,
    request: &PredictionRequest,
    ask: impl Fn(&mut Oracle<'_>, &Query, &[Sla]) -> Result<world::Answer, E>,
) -> Result<Bytes, E> {
    let mut oracle = world.oracle(workflow.as_str());
    let mut epoch = oracle.epoch();
    let mut text = Many::with_capacity(request.queries.len());
    for query in &request.queries {
        let answer = ask(&mut oracle, query, &request.sla)?;
        epoch = epoch.max(answer.epoch);
        text.push(&answer.prediction);
    }
    Ok(text.finish(epoch))
}

/// Reads a single question whose parameters are plain: nothing encoded, nothing twice, nothing wrong. What is
/// not plain is nothing here, and left to the router.
pub fn plain(kind: &str, parameters: &str) -> Option<(Query, Vec<Sla>)> {
    let (mut question, mut service_levels) = (Question::default(), None);
    for parameter in parameters.split('&') {
        let (name, value) = parameter.split_once('=')?;
        if value.bytes().any(|b| matches!(b, b'%' | b'+')) || name.bytes().any(|b| matches!(b, b'%' | b'+')) {
            return None;
        }
        match name {
            "task" => set(&mut question.task, TaskName::new(value).ok()?)?,
            "input_bytes" => set(&mut question.input_bytes, number(value)?)?,
            "memory_mb" => set(&mut question.memory_mb, number(value)?)?,
            "vcpu" => set(&mut question.vcpu, number(value)?)?,
            "direction" => {
                let upload = Some(Direction::Upload).filter(|_| value == "upload");
                let direction = upload.or(Some(Direction::Download).filter(|_| value == "download"));
                set(&mut question.direction, direction?)?;
            }
            "bytes" => set(&mut question.bytes, number(value)?)?,
            "store" => set(&mut question.store, TaskName::new(value).ok()?)?,
            "state" => {
                let cold = Some(StartState::Cold).filter(|_| value == "cold");
                let state = cold.or(Some(StartState::Warm).filter(|_| value == "warm"));
                set(&mut question.state, state?)?;
            }
            "sla" => set(&mut service_levels, slas(Some(value)).ok()?)?,
            _ => return None,
        }
    }
    let query = question.query(kind).ok()?;
    check(&query).ok()?;
    Some((query, service_levels.unwrap_or_else(|| vec![Sla::MEDIAN])))
}

/// Fills a place that must be empty.
fn set<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
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
        Query::OutputSize { .. } | Query::Decision { .. } => Ok(()),
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
            "decision" => Ok(Query::Decision { task: task?, input_bytes }),
            other => {
                let detail = format!(
                    "`{other}` cannot be predicted; \
                     execution-time, output-size, transfer-time, startup-time and decision can"
                );
                Err(Failure::new(ErrorCode::NotFound, detail))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use foresail_model::WorkflowModel;
    use futures_util::FutureExt;

    use super::super::take;
    use super::*;
    use crate::board::Boards;
    use crate::settings::Settings;
    use crate::store::testing;
    use crate::store::workflows::WorkflowRow;
    use crate::world::{Update, View};

    /// Whether `answer` is made while every thread of the pool is busy.
    fn is_answered_here<T>(world: World, answer: impl AsyncFnOnce(App) -> T) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let (free, busy) = std::sync::mpsc::channel::<()>();
        let holder = runtime.spawn_blocking(move || busy.recv());
        let is_answered = runtime.block_on(async {
            let (_, store) = testing::in_memory();
            let (app, _queue) = Shared::new(Settings::default(), store, world, Boards::default());
            answer(app).now_or_never().is_some()
        });
        free.send(()).unwrap();
        runtime.block_on(holder).unwrap().unwrap();
        is_answered
    }

    async fn many(app: App, questions: Vec<serde_json::Value>) {
        let text = serde_json::json!({ "queries": questions }).to_string();
        let content = take::content(&app, Body::from(text), 1 << 20).await.unwrap();
        answer_many(&app, WorkflowName::new("w").unwrap(), content).await.unwrap();
    }

    async fn one(app: App, question: &str) {
        let question: Question = serde_json::from_str(question).unwrap();
        let path = (WorkflowName::new("w").unwrap(), "execution-time".to_owned());
        get(State(app), PathOf(path), QueryOf(question), HeaderMap::new()).await.unwrap();
    }

    /// A workflow `w` with a task `t` that was measured at two sizes.
    fn measured() -> World {
        let mut model = WorkflowModel::new();
        for n in 0..20 {
            let record = serde_json::json!({
                "kind": "task", "task": "t", "memory_mb": 512 << (n % 2), "exec_ms": 100.0 + f64::from(n),
            });
            let record = serde_json::from_value(record).unwrap();
            model.update(&record, jiff::Timestamp::from_second(i64::from(n)).unwrap());
        }
        let (name, row) = (WorkflowName::new("w").unwrap(), WorkflowRow::new("w"));
        let (new_tasks, predictor) = (model.take_new(), model.snapshot());
        World::new(vec![Update { view: Arc::new(View { name, number: 0, row, predictor }), new_tasks }])
    }

    #[test]
    fn a_cold_question_does_not_hold_up_the_event_loop() {
        let (own, other) = (r#"{"task":"t","memory_mb":512}"#, r#"{"task":"t","memory_mb":3000}"#);
        let asked = |memory_mb: u32| {
            vec![serde_json::json!({"kind": "execution_time", "task": "t", "memory_mb": memory_mb})]
        };
        assert!(is_answered_here(measured(), async |app| one(app, own).await));
        assert!(is_answered_here(measured(), async |app| many(app, asked(512)).await));
        assert!(!is_answered_here(measured(), async |app| one(app, other).await));
        assert!(!is_answered_here(measured(), async |app| many(app, asked(3000)).await));
        let warm = measured();
        let query = serde_json::from_value(asked(3000).remove(0)).unwrap();
        let fitted = warm.oracle("w").answer(&query, &[Sla::MEDIAN]);
        assert_eq!(warm.oracle("w").answer_warm(&query, &[Sla::MEDIAN]), Ok(fitted));
        assert!(is_answered_here(warm.clone(), async |app| one(app, other).await));
        assert!(is_answered_here(warm, async |app| many(app, asked(3000)).await));
    }

    #[test]
    fn many_questions_do_not_hold_up_the_event_loop() {
        let questions = |count| vec![serde_json::json!({"kind": "output_size", "task": "t"}); count];
        let is_here =
            |count| is_answered_here(World::default(), async |app| many(app, questions(count)).await);
        assert!(is_here(INLINE_QUERIES_MAX));
        assert!(!is_here(INLINE_QUERIES_MAX + 1));
    }
}
