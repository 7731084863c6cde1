//! The daemon as a whole: an in-process server on a free port, real HTTP, a store on disk.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected shall panic")]

mod batches;
mod columns;
mod decisions;
mod document;
mod events;
mod limits;
mod predictions;
mod restart;
mod runs;
mod scores;
mod service;
mod ways;

use foresail_metad::{Server, Settings};
use foresail_schemas::run::{RunCreated, RunRequest};
use foresail_schemas::{ErrorCode, Plan, Problem, examples};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A daemon with its store.
struct Daemon {
    server: Option<Server>,
    settings: Settings,
    _data: TempDir,
    client: Client,
}

impl Daemon {
    fn start() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut settings = Settings::embedded(data.path());
        change(&mut settings);
        let server = Some(Server::start(settings.clone()).unwrap());
        Self { server, settings, _data: data, client: Client::new() }
    }

    /// Stops gracefully and starts again over the same store.
    fn restart(mut self) -> Self {
        self.server.take().unwrap().stop();
        self.server = Some(Server::start(self.settings.clone()).unwrap());
        self.client = Client::new();
        self
    }

    fn stop(&mut self) {
        self.server.take().unwrap().stop();
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.as_ref().unwrap().address())
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.client.post(self.url(path)).json(body)
    }

    /// The JSON that is at `path`.
    async fn read(&self, path: &str) -> Value {
        good(self.get(path)).await
    }

    /// Stores a batch of the workflow `w`.
    async fn batch(&self, batch_id: &str, records: Value) -> Value {
        good(self.post("/v1/workflows/w/batches", &json!({"batch_id": batch_id, "records": records}))).await
    }

    /// Creates the example run under `run`.
    async fn run(&self, run: &str) -> RunRequest {
        let request = RunRequest { run: Some(run.parse().unwrap()), ..examples::run_request() };
        let answer = self.post("/v1/runs", &json!(request)).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let created: RunCreated = answer.json().await.unwrap();
        assert_eq!((created.run.as_str(), created.duplicate), (run, false));
        request
    }

    /// Suggests a plan for a run that has its first one.
    async fn suggest(&self, run: &str, plan: &Plan, why: &Value) -> Value {
        let body = json!({"expected_epoch": 1, "plan": plan, "why": why});
        good(self.client.put(self.url(&format!("/v1/runs/{run}/plans/suggested"))).json(&body)).await
    }

    /// Applies operations to a run; answers their results.
    async fn operate(&self, run: &str, operations: Value) -> Vec<Value> {
        let path = format!("/v1/runs/{run}/operations");
        let answer = good(self.post(&path, &json!({"operations": operations}))).await;
        answer["results"].as_array().unwrap().clone()
    }
}

/// The body of a good answer.
async fn good(request: RequestBuilder) -> Value {
    let answer = request.send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap()
}

/// The problem in an answer, whose form is checked.
async fn problem(answer: Response) -> Problem {
    let status = answer.status().as_u16();
    assert_eq!(answer.headers()[CONTENT_TYPE], "application/problem+json");
    let problem: Problem = answer.json().await.unwrap();
    assert_eq!(problem.status, status);
    assert_eq!(problem.code.status(), status);
    assert!(!problem.detail.is_empty() && !problem.hint.is_empty());
    problem
}

/// Sends a request that must fail with `code`.
async fn fails(request: RequestBuilder, code: ErrorCode) -> Problem {
    let problem = problem(request.send().await.unwrap()).await;
    assert_eq!(problem.code, code, "{}", problem.detail);
    problem
}

/// A measurement of the task `count`.
fn task(exec_ms: f64) -> Value {
    json!({
        "kind": "task", "task": "count", "memory_mb": 1769, "input_bytes": 1000, "output_bytes": 10,
        "exec_ms": exec_ms
    })
}

/// Why a plan is suggested.
fn why() -> Value {
    json!({"cause": "it is slow", "reason": "it is faster", "moved": 2,
        "kept": {"makespan_ms": 9.0, "cost_usd": 1.0}, "new": {"makespan_ms": 8.0, "cost_usd": 1.0}})
}
