//! A store of runs in memory behind HTTP: the real ledger, without disk.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use foresail_choreography::Ledger;
use foresail_schemas::error::{ErrorCode, Problem};
use foresail_schemas::metric::{Batch, BatchAnswer, Record};
use foresail_schemas::plan::Plan;
use foresail_schemas::run::{
    CurrentPlan, EventPage, Operation, OperationAnswer, OperationRequest, RunCreated, RunEvent, RunOptions,
    RunRequest, RunStatus, RunSummary,
};
use foresail_schemas::{RunId, Workflow};
use jiff::Timestamp;
use serde::Deserialize;

/// One run.
pub struct Run {
    pub workflow: Workflow,
    plan: Plan,
    options: RunOptions,
    pub ledger: Ledger,
    pub events: Vec<RunEvent>,
    began: Instant,
}

/// What the store holds.
#[derive(Default)]
pub struct Held {
    pub runs: HashMap<RunId, Run>,
    pub batches: Vec<Batch>,
    pub blobs: HashMap<String, Bytes>,
    /// Every blob written, in order, deleted or not.
    pub blobs_put: Vec<String>,
    /// So many of the next blobs are refused for good.
    pub blobs_refused: u32,
    /// How long each blob takes to come and to go, beside the truth.
    pub blob_delay: Duration,
    /// Answers to batches, where they are refused.
    pub takes_batches: Option<ErrorCode>,
    /// Answers to operations, where they are refused.
    pub takes_operations: Option<ErrorCode>,
    /// Operations refused.
    pub refused: u32,
}

/// A running store.
#[derive(Clone)]
pub struct Store {
    pub url: String,
    held: Arc<Mutex<Held>>,
}

impl Store {
    pub fn start() -> Self {
        let held = Arc::new(Mutex::new(Held::default()));
        let (say, address) = std::sync::mpsc::channel();
        let routes = routes(Arc::clone(&held));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                say.send(listener.local_addr().unwrap()).unwrap();
                axum::serve(listener, routes).await.unwrap();
            });
        });
        Self { url: format!("http://{}", address.recv().unwrap()), held }
    }

    pub fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap()
    }

    pub fn create(&self, run: &RunId, workflow: &Workflow, plan: &Plan, options: RunOptions) {
        plan.check(workflow).unwrap();
        let mut ledger = Ledger::new(workflow, options);
        let events = ledger.begin(0.0);
        let (workflow, plan, began) = (workflow.clone(), plan.clone(), Instant::now());
        self.held().runs.insert(run.clone(), Run { workflow, plan, options, ledger, events, began });
    }

    pub fn status(&self, run: &RunId) -> RunStatus {
        self.held().runs[run].ledger.status()
    }

    pub fn records(&self) -> Vec<Record> {
        self.held().batches.iter().flat_map(|b| b.records.clone()).collect()
    }
}

type Shared = State<Arc<Mutex<Held>>>;

fn routes(held: Arc<Mutex<Held>>) -> Router {
    Router::new()
        .route("/v1/runs", post(create))
        .route("/v1/runs/{run}", get(summary))
        .route("/v1/runs/{run}/cancel", post(cancel))
        .route("/v1/runs/{run}/workflow", get(workflow))
        .route("/v1/runs/{run}/plan", get(plan))
        .route("/v1/runs/{run}/operations", post(operations))
        .route("/v1/runs/{run}/events", get(events))
        .route("/v1/runs/{run}/blobs/{*key}", put(put_blob).get(get_blob).delete(delete_blob))
        .route("/v1/workflows/{workflow}/batches", post(batches))
        .layer(DefaultBodyLimit::disable())
        .with_state(held)
}

fn refusal(code: ErrorCode) -> Response {
    (StatusCode::from_u16(code.status()).unwrap(), Json(Problem::new(code, "not now"))).into_response()
}

fn missing() -> Response {
    let problem = Problem::new(ErrorCode::RunNotFound, "no such run");
    (StatusCode::NOT_FOUND, Json(problem)).into_response()
}

fn with_run(held: &Mutex<Held>, run: &RunId, read: impl FnOnce(&mut Run) -> Response) -> Response {
    held.lock().unwrap().runs.get_mut(run).map_or_else(missing, read)
}

fn summary_of(id: &RunId, run: &Run) -> RunSummary {
    let now_ms = run.began.elapsed().as_secs_f64() * 1000.0;
    let sums = run.ledger.summary(now_ms);
    RunSummary {
        run: id.clone(),
        workflow: run.workflow.name().clone(),
        status: run.ledger.status(),
        failure: sums.failure,
        created_at: Timestamp::now(),
        planner: run.plan.planner.clone(),
        plan_epoch: run.ledger.plan_epoch(),
        tasks: run.workflow.tasks().len() as u64,
        committed: sums.committed,
        skipped: sums.skipped,
        running: sums.running,
        retries: sums.retries,
        elapsed_ms: sums.elapsed_ms,
        predicted: run.plan.predicted,
        usage: sums.usage,
        last_event: run.ledger.last_seq(),
        stalled_ms: None,
    }
}

impl Store {
    pub fn summary(&self, run: &RunId) -> RunSummary {
        summary_of(run, &self.held().runs[run])
    }
}

async fn summary(State(held): Shared, Path(id): Path<RunId>) -> Response {
    with_run(&held, &id, |run| Json(summary_of(&id, run)).into_response())
}

async fn create(State(held): Shared, Json(request): Json<RunRequest>) -> Response {
    let RunRequest { workflow, plan, options, .. } = request;
    let run = RunId::new(format!("r-{}", held.lock().unwrap().runs.len())).unwrap();
    Store { url: String::new(), held }.create(&run, &workflow, &plan, options);
    (StatusCode::CREATED, Json(RunCreated { run, duplicate: false, reused: 0 })).into_response()
}

async fn cancel(State(held): Shared, Path(id): Path<RunId>) -> Response {
    with_run(&held, &id, |run| {
        let now_ms = run.began.elapsed().as_secs_f64() * 1000.0;
        let (_, events) = run.ledger.apply(&Operation::Cancel { reason: "asked".to_owned() }, now_ms);
        run.events.extend(events);
        Json(summary_of(&id, run)).into_response()
    })
}

async fn workflow(State(held): Shared, Path(id): Path<RunId>) -> Response {
    with_run(&held, &id, |run| Json(&run.workflow).into_response())
}

async fn plan(State(held): Shared, Path(id): Path<RunId>) -> Response {
    with_run(&held, &id, |run| {
        let (epoch, plan, options) = (run.ledger.plan_epoch(), run.plan.clone(), run.options);
        Json(CurrentPlan { epoch, plan, options }).into_response()
    })
}

async fn operations(State(held): Shared, Path(id): Path<RunId>, body: Json<OperationRequest>) -> Response {
    let taken = held.lock().unwrap().takes_operations;
    if let Some(code) = taken {
        held.lock().unwrap().refused += 1;
        return refusal(code);
    }
    with_run(&held, &id, |run| {
        let now_ms = run.began.elapsed().as_secs_f64() * 1000.0;
        let mut results = Vec::new();
        for operation in &body.operations {
            let (result, events) = run.ledger.apply(operation, now_ms);
            results.push(result);
            run.events.extend(events);
        }
        let (status, plan_epoch) = (run.ledger.status(), run.ledger.plan_epoch());
        Json(OperationAnswer { status, plan_epoch, results }).into_response()
    })
}

#[derive(Deserialize)]
struct Following {
    after: u64,
    #[serde(default)]
    wait_ms: u64,
    /// All where absent.
    kinds: Option<String>,
}

async fn events(State(held): Shared, Path(id): Path<RunId>, Query(asked): Query<Following>) -> Response {
    let ends = Instant::now() + Duration::from_millis(asked.wait_ms);
    loop {
        let page = held.lock().unwrap().runs.get(&id).map(|run| {
            let wanted = |e: &&RunEvent| {
                let is_asked = |kinds: &str| kinds.split(',').any(|kind| kind == e.change.kind());
                e.seq > asked.after && asked.kinds.as_deref().is_none_or(is_asked)
            };
            let events: Vec<RunEvent> = run.events.iter().filter(wanted).cloned().collect();
            EventPage { status: run.ledger.status(), events, next_after: run.ledger.last_seq() }
        });
        let Some(page) = page else { return missing() };
        let is_news = !page.events.is_empty() || page.status != RunStatus::Running;
        if is_news || Instant::now() >= ends {
            return Json(page).into_response();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn put_blob(State(held): Shared, Path((run, key)): Path<(String, String)>, body: Bytes) -> StatusCode {
    blob_delay(&held).await;
    let (mut held, key) = (held.lock().unwrap(), format!("{run}/{key}"));
    if held.blobs_refused > 0 {
        held.blobs_refused -= 1;
        return StatusCode::PAYLOAD_TOO_LARGE;
    }
    held.blobs_put.push(key.clone());
    held.blobs.insert(key, body);
    StatusCode::NO_CONTENT
}

async fn blob_delay(held: &Mutex<Held>) {
    let delay = held.lock().unwrap().blob_delay;
    tokio::time::sleep(delay).await;
}

async fn get_blob(State(held): Shared, Path((run, key)): Path<(String, String)>) -> Response {
    blob_delay(&held).await;
    match held.lock().unwrap().blobs.get(&format!("{run}/{key}")) {
        Some(blob) => blob.clone().into_response(),
        None => (StatusCode::NOT_FOUND, Json(Problem::new(ErrorCode::BlobNotFound, "no such blob")))
            .into_response(),
    }
}

async fn delete_blob(State(held): Shared, Path((run, key)): Path<(String, String)>) -> StatusCode {
    held.lock().unwrap().blobs.remove(&format!("{run}/{key}"));
    StatusCode::NO_CONTENT
}

async fn batches(State(held): Shared, Json(batch): Json<Batch>) -> Response {
    let mut held = held.lock().unwrap();
    if let Some(code) = held.takes_batches {
        return refusal(code);
    }
    let duplicate = held.batches.iter().any(|b| b.batch_id == batch.batch_id);
    let accepted = batch.records.len() as u64;
    if !duplicate {
        held.batches.push(batch);
    }
    Json(BatchAnswer { accepted, duplicate, rejected: Vec::new(), epoch: 1 }).into_response()
}
