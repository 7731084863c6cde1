//! Lambda for the length of a test: cargo-lambda's server, functions as processes, and before it what that
//! server leaves out.
//!
//! cargo-lambda answers every invocation when it is done, an asynchronous one too. So a small server stands
//! before it that does what the front of Lambda does: takes an event with 202 and passes it on when it can,
//! answers a dry run, and refuses as it is told to. Where cargo-lambda is not installed the test is skipped,
//! or fails, as `servers` says.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_lambda::config::Credentials;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as At, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use foresail_aws::{LambdaHost, LambdaSettings};

use crate::servers::{Server, free_address, in_venv, program};

/// What it is reached with.
pub const KEYS: [(&str, &str); 3] =
    [("AWS_ACCESS_KEY_ID", "testing"), ("AWS_SECRET_ACCESS_KEY", "testing"), ("AWS_REGION", "us-east-1")];

/// A refusal: status, error type.
pub type Refusal = (u16, &'static str);

/// What the front was told and has seen.
#[derive(Default)]
pub struct Told {
    /// So many of the next events are refused like this.
    pub refuse: Mutex<Option<(u64, Refusal)>>,
    /// Events that were asked for, refused ones too.
    pub asked: AtomicU64,
    /// Those that were refused.
    pub refused: AtomicU64,
    /// Those that brought workflow and plan.
    pub with_documents: AtomicU64,
}

/// An emulated Lambda with its functions; everything ends when dropped.
pub struct Emulator {
    pub url: String,
    pub told: Arc<Told>,
    /// What the functions wrote to their logs.
    pub log: Arc<Mutex<Vec<String>>>,
    processes: Vec<Child>,
    runtime: Option<tokio::runtime::Runtime>,
    _server: Server,
    _dir: tempfile::TempDir,
}

impl Emulator {
    /// Starts it with so many sandboxes of `function` per size; nothing where cargo-lambda is not installed.
    pub fn start(function: &str, memory_mb: &[u32], sandboxes: usize) -> Option<Self> {
        Self::start_with(function, memory_mb, sandboxes, &[])
    }

    /// The same with functions that are told more by their environment.
    pub fn start_with(
        function: &str,
        memory_mb: &[u32],
        sandboxes: usize,
        told_to_functions: &[(&str, &str)],
    ) -> Option<Self> {
        let hint = "`make test` installs it into .venv: pip install cargo-lambda";
        let program = program("FORESAIL_CARGO_LAMBDA", &[in_venv("cargo-lambda")], hint)?;
        let dir = tempfile::tempdir().unwrap();
        project(dir.path(), memory_mb);
        let address = free_address();
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let mut server = Command::new(program);
        server.args(["lambda", "watch", "--only-lambda-apis", "--ignore-changes", "--concurrency", "8"]);
        server.args(["-A", &ip, "-P", &port]).current_dir(dir.path()).env("NO_COLOR", "1");
        let server = Server::start(&mut server, address);
        let mut processes = Vec::new();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let told = Arc::new(Told::default());
        let url = runtime.block_on(front(Arc::clone(&told), address));
        let log = Arc::default();
        let sizes: Vec<String> = memory_mb.iter().map(u32::to_string).collect();
        for size in &sizes {
            for sandbox in 0..sandboxes {
                let data = dir.path().join(format!("{size}-{sandbox}"));
                let mut command = Command::new(function);
                command.envs(KEYS).env("AWS_ENDPOINT_URL", &url).env("FORESAIL_WORKER_DATA", data);
                command.env("AWS_LAMBDA_RUNTIME_API", format!("http://{address}/.rt/foresail-{size}"));
                command.env("AWS_LAMBDA_FUNCTION_NAME", format!("foresail-{size}"));
                command.env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", size).env("AWS_LAMBDA_FUNCTION_VERSION", "1");
                command
                    .env("FORESAIL_LAMBDA_PREFIX", "foresail")
                    .env("FORESAIL_LAMBDA_MEMORY", sizes.join(","))
                    .envs(told_to_functions.iter().copied());
                processes.push(sandbox_of(command, &log));
            }
        }
        Some(Self { url, told, log, processes, runtime: Some(runtime), _server: server, _dir: dir })
    }

    /// The next events are refused.
    pub fn refuse(&self, events: u64, refusal: Refusal) {
        *self.told.refuse.lock().unwrap() = Some((events, refusal));
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// How an endpoint is reached, with the limits of the program.
async fn config(url: &str) -> SdkConfig {
    let keys = Credentials::new("testing", "testing", None, None, "test");
    let loader = aws_config::defaults(BehaviorVersion::latest()).endpoint_url(url).credentials_provider(keys);
    foresail_aws::limited(loader.region(Region::new("us-east-1"))).load().await
}

/// The host that a Lambda at this address is.
pub async fn host(url: &str) -> LambdaHost {
    let settings = LambdaSettings { prefix: "foresail".to_owned(), memory_mb: vec![256] };
    LambdaHost::new(&config(url).await, settings)
}

/// Runs a future to its end.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// cargo-lambda knows functions as the binaries of a project; these are never built.
fn project(dir: &Path, memory_mb: &[u32]) {
    let manifest = "[package]\nname = \"functions\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    std::fs::write(dir.join("Cargo.toml"), manifest).unwrap();
    std::fs::create_dir_all(dir.join("src/bin")).unwrap();
    for size in memory_mb {
        std::fs::write(dir.join(format!("src/bin/foresail-{size}.rs")), "fn main() {}\n").unwrap();
    }
}

fn sandbox_of(mut command: Command, log: &Arc<Mutex<Vec<String>>>) -> Child {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let (said, log) = (BufReader::new(child.stdout.take().unwrap()), Arc::clone(log));
    std::thread::spawn(move || said.lines().map_while(Result::ok).for_each(|l| log.lock().unwrap().push(l)));
    child
}

/// The front of Lambda.
#[derive(Clone)]
struct Front {
    told: Arc<Told>,
    client: reqwest::Client,
    behind: SocketAddr,
}

async fn front(told: Arc<Told>, behind: SocketAddr) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let front = Front { told, client: reqwest::Client::builder().no_proxy().build().unwrap(), behind };
    let route = "/2015-03-31/functions/{name}/invocations";
    let router = Router::new().route(route, post(invoke)).with_state(front);
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

async fn invoke(
    State(front): State<Front>,
    At(name): At<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let number = front.told.asked.fetch_add(1, Ordering::SeqCst);
    if let Some((left, (status, kind))) =
        front.told.refuse.lock().unwrap().as_mut().filter(|(left, _)| *left > 0)
    {
        *left -= 1;
        front.told.refused.fetch_add(1, Ordering::SeqCst);
        let text = format!("{{\"message\": \"{kind} of the test\", \"Type\": \"User\"}}");
        return (StatusCode::from_u16(*status).unwrap(), [("x-amzn-errortype", *kind)], text).into_response();
    }
    let request_id = format!("00000000-0000-4000-8000-{number:012}");
    let kind = headers.get("x-amz-invocation-type").and_then(|kind| kind.to_str().ok());
    let status = if kind == Some("DryRun") { StatusCode::NO_CONTENT } else { StatusCode::ACCEPTED };
    if kind == Some("Event") {
        let event: serde_json::Value = serde_json::from_slice(&body).unwrap();
        front.told.with_documents.fetch_add(u64::from(event["documents"].is_object()), Ordering::SeqCst);
        let Front { client, behind, .. } = front;
        let url = format!("http://{behind}/2015-03-31/functions/{name}/invocations");
        tokio::spawn(async move { client.post(url).body(body).send().await });
    }
    (status, [("x-amzn-requestid", request_id)]).into_response()
}
