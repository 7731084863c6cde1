//! What planning asks of metad: the model is downloaded once, however large the workflow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use foresail::schemas::config::ResourceConfig;
use foresail::schemas::plan::Objective;
use foresail::schemas::prediction::Basis;
use foresail::schemas::workflow::{Input, Task, Work, WorkflowSpec};
use foresail::schemas::{ObjectName, Platform, Sla, Workflow};
use foresail_metad::{Server, Settings};
use serde_json::{Value, json};

/// Tasks of the workflow: layers of equal width.
const WIDTH: usize = 1_000;
const LAYERS: usize = 64;
/// Functions that the tasks share.
const FUNCTIONS: usize = 8;
/// Sizes that are planned with, in MB.
const MEMORY_MB: [u32; 3] = [512, 1024, 1769];
/// Samples of each function at each size.
const SAMPLES: usize = 20;
/// Most requests from the first to the plan.
const REQUESTS_MAX: u64 = 2;

/// Passes requests on to metad and counts them.
#[derive(Clone)]
struct Counter {
    metad: String,
    http: reqwest::Client,
    requests: Arc<AtomicU64>,
}

impl Counter {
    /// Starts it; its address and the count.
    async fn start(metad: String) -> (String, Arc<AtomicU64>) {
        let counter = Self { metad, http: reqwest::Client::new(), requests: Arc::default() };
        let requests = Arc::clone(&counter.requests);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = axum::Router::new().fallback(Self::pass).with_state(counter);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (url, requests)
    }

    async fn pass(State(counter): State<Self>, request: Request) -> Response {
        counter.requests.fetch_add(1, Ordering::Relaxed);
        let (head, body) = request.into_parts();
        let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        let passed = counter.http.request(head.method, format!("{}{}", counter.metad, head.uri));
        let answer = passed.headers(head.headers).body(body).send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        (status, headers, answer.bytes().await.unwrap()).into_response()
    }
}

fn function(at: usize) -> String {
    format!("f{}", at % FUNCTIONS)
}

/// Layers of tasks that each read two objects of the layer before.
fn workflow() -> Workflow {
    let task = |layer: usize, at: usize| {
        let work = Work::Command("true".to_owned());
        let id = format!("t{layer}-{at}").parse().unwrap();
        let mut task = Task::new(id, function(at).parse().unwrap(), work);
        for parent in [at, (at + 1) % WIDTH].into_iter().filter(|_| layer > 0) {
            let parent = format!("t{}-{parent}", layer - 1).parse().unwrap();
            task.inputs.push(Input::task(parent, ObjectName::default()));
        }
        task
    };
    let tasks = (0..LAYERS).flat_map(|layer| (0..WIDTH).map(move |at| task(layer, at))).collect();
    WorkflowSpec { name: "large".parse().unwrap(), description: None, tasks, code: Default::default() }
        .check()
        .unwrap()
}

fn history() -> Value {
    let keys = (0..FUNCTIONS).flat_map(|at| MEMORY_MB.map(|memory_mb| (at, memory_mb)));
    let records = keys.flat_map(|(at, memory_mb)| {
        (0..SAMPLES).map(move |sample| {
            let exec_ms = (100 * (at + 1) + sample) as f64 * 1769.0 / f64::from(memory_mb);
            json!({
                "kind": "task", "task": function(at), "memory_mb": memory_mb, "exec_ms": exec_ms,
                "input_bytes": 20_000 * (sample % 2), "output_bytes": 10_000,
            })
        })
    });
    json!({"batch_id": "b-1", "records": records.collect::<Vec<Value>>()})
}

#[tokio::test]
async fn a_plan_of_64_000_tasks_in_three_sizes_takes_two_requests() {
    let dir = tempfile::tempdir().unwrap();
    let metad = Server::start(Settings::embedded(dir.path())).unwrap();
    let url = format!("http://{}", metad.address());
    let batches = format!("{url}/v1/workflows/large/batches");
    let stored = reqwest::Client::new().post(batches).json(&history()).send().await.unwrap();
    assert!(stored.status().is_success());
    let mut platform = Platform::built_in().remove(1);
    platform.menu = MEMORY_MB.map(|memory_mb| ResourceConfig::new(memory_mb, None).unwrap()).into();
    let (counted, requests) = Counter::start(url).await;
    let workflow = workflow();

    let client = foresail::Client::connect(&counted, &counted).await.unwrap();
    let table = client.predictions(&workflow, &platform, Sla::P95).await.unwrap();
    assert_eq!(table.exec_ms.iter().map(Vec::len).collect::<Vec<_>>(), [WIDTH * LAYERS; 3]);
    assert!(table.basis.iter().all(|basis| *basis == Basis::Exact), "every task was measured in every size");
    let problem = foresail::problem(&workflow, &platform, table, Objective::Fastest, 1);
    let plan = client.plan("simple", &problem).unwrap();

    assert_eq!(plan.tasks.len(), WIDTH * LAYERS);
    let asked = requests.load(Ordering::Relaxed);
    assert!((1..=REQUESTS_MAX).contains(&asked), "{asked} requests");
}
