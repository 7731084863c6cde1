//! Several metad over one log: real nats-server, real HTTP, a store on disk for each.
//!
//! What is compared is the snapshot that clients download (`GET …/model`), byte by byte.

#![cfg(feature = "nats")]
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected shall panic")]

mod away;
#[path = "../../../client/tests/stores/ports.rs"]
mod ports;
mod server;
mod together;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use foresail_metad::{Server, Settings};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use server::Nats;
use tempfile::TempDir;

/// Longest wait for what has to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A replica with its store, in this process.
struct Replica {
    server: Option<Server>,
    settings: Settings,
    data: TempDir,
    client: Client,
}

impl Replica {
    fn start(nats: &Nats) -> Self {
        Self::with(nats, |_| {})
    }

    fn with(nats: &Nats, change: impl FnOnce(&mut Settings)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut settings = Settings::embedded(data.path());
        settings.batch_log = Some(nats.log());
        change(&mut settings);
        let mut replica = Self { server: None, settings, data, client: Client::new() };
        replica.up();
        replica
    }

    fn up(&mut self) {
        self.server = Some(Server::start(self.settings.clone()).unwrap());
        self.client = Client::new();
    }

    fn stop(&mut self) {
        self.server.take().unwrap().stop();
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.as_ref().unwrap().address())
    }

    async fn get(&self, path: &str) -> (StatusCode, Vec<u8>) {
        ask(&self.client, &self.url(path)).await
    }

    /// Posts a batch of a workflow.
    async fn try_post(&self, workflow: &str, batch_id: &str, records: &[Value]) -> (StatusCode, Value) {
        post(&self.client, &self.url(""), workflow, batch_id, records).await
    }

    /// Posts a batch that must be taken.
    async fn post(&self, workflow: &str, batch_id: &str, records: &[Value]) -> Value {
        let (status, answer) = self.try_post(workflow, batch_id, records).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// The model of a workflow at this epoch or a later one.
    async fn model(&self, workflow: &str, epoch: u64) -> Model {
        model(&self.client, &self.url(""), workflow, epoch).await
    }

    /// Waits until it is ready, which it is once it has caught up.
    async fn ready(&self) {
        eventually(async || self.get("/readyz").await.0 == 200).await;
    }

    /// A figure of `/metrics`.
    async fn figure(&self, name: &str) -> u64 {
        let text = String::from_utf8(self.get("/metrics").await.1).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} "))).unwrap();
        line.parse().unwrap()
    }
}

async fn ask(client: &Client, url: &str) -> (StatusCode, Vec<u8>) {
    let answer = client.get(url).send().await.unwrap();
    (answer.status(), answer.bytes().await.unwrap().to_vec())
}

async fn post(
    client: &Client,
    base: &str,
    workflow: &str,
    batch_id: &str,
    records: &[Value],
) -> (StatusCode, Value) {
    let body = json!({"batch_id": batch_id, "run": "r-1", "records": records});
    let request = client.post(format!("{base}/v1/workflows/{workflow}/batches")).json(&body);
    match request.send().await {
        Ok(answer) => (answer.status(), answer.json().await.unwrap_or(Value::Null)),
        // The replica was killed meanwhile.
        Err(error) => (StatusCode::IM_A_TEAPOT, json!(error.to_string())),
    }
}

/// A model as clients download it: its epoch, its bytes.
type Model = (u64, Vec<u8>);

async fn model(client: &Client, base: &str, workflow: &str, epoch: u64) -> Model {
    let mut found = None;
    eventually(async || {
        found = model_now(client, base, workflow).await.filter(|model| model.0 >= epoch);
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// The model at this moment, where there is one.
async fn model_now(client: &Client, base: &str, workflow: &str) -> Option<Model> {
    let answer = client.get(format!("{base}/v1/workflows/{workflow}/model")).send().await.unwrap();
    let tag = answer.headers().get("etag")?.to_str().unwrap().trim_matches('"').to_owned();
    let epoch = tag.split(|c: char| !c.is_ascii_digit()).next()?.parse().unwrap();
    Some((epoch, answer.bytes().await.unwrap().to_vec()))
}

/// Asks again until it is so.
async fn eventually(mut is_so: impl AsyncFnMut() -> bool) {
    let ends = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < ends, "it does not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A measurement of a task without a time of its own: the time of arrival counts.
fn task(name: &str, exec_ms: f64) -> Value {
    json!({"kind": "task", "task": name, "memory_mb": 1769, "input_bytes": (exec_ms * 10.0) as u64,
        "output_bytes": 10, "exec_ms": exec_ms})
}

/// Records of several kinds, which differ from batch to batch; one of them is wrong.
fn records(number: u32) -> Vec<Value> {
    let ms = f64::from(number % 97) + 1.5;
    vec![
        task("count", ms),
        task(&format!("part-{}", number % 5), ms * 3.7),
        json!({"kind": "transfer", "direction": "upload", "bytes": number + 7, "time_ms": ms / 3.0,
            "memory_mb": 1769, "store": "s3"}),
        json!({"kind": "startup", "state": "cold", "time_ms": ms * 11.0, "memory_mb": 1769}),
        json!({"kind": "task", "task": "count", "memory_mb": 0, "exec_ms": 1}),
    ]
}

/// A replica as the program that users start, so that it can be killed.
struct Process {
    child: Child,
    base: String,
}

impl Process {
    fn start(nats: &Nats, data: &TempDir) -> Self {
        use std::io::BufRead;
        let mut child = Command::new(env!("CARGO_BIN_EXE_metad"))
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--log",
                "error",
                "--batch-log",
                &nats.log(),
                "--data",
            ])
            .arg(data.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let base = line.trim().rsplit(' ').next().unwrap().to_owned();
        Self { child, base }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
