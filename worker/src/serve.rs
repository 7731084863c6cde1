//! A worker behind an HTTP endpoint, as a container of Knative or OpenFaaS runs it.
//!
//! `POST` of an invocation to any path carries it out and answers when it is done, with a [`Served`]: such
//! platforms give a container its share only while a request is open, and count on that to start and end
//! containers. One invocation at a time; another is refused with 429 meanwhile, so that the platform or the
//! host turns to the next. `GET` answers whether the worker is there. What it needs comes from arguments or
//! the environment, so that any program that calls [`run_worker_if_asked`](crate::run_worker_if_asked) is its
//! own worker there: setting [`LISTEN_VARIABLE`] is enough.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use clap::{Args, Parser};
use foresail_schemas::error::{ErrorCode, Problem};
use foresail_schemas::id::InstanceId;
use foresail_schemas::metric::StartState;
use foresail_schemas::run::WorkerUsage;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::coordination::CoordinationArgs;
use crate::ending;
use crate::host::local::ObjectPlace;
use crate::host::local::settings::{CACHE_BYTES_MAX, INLINE_BYTES_MAX};
use crate::host::naming::Naming;
use crate::host::{HttpHost, front};
use crate::registry::Registry;
use crate::runtime::settings::ProcessSettings;
use crate::runtime::{Alone, BLOCKING_THREADS_MAX, Carried, Fitness, Started, WorkerError, log_to_stderr};

/// Where a worker listens for invocations; a process that has it is a worker behind an endpoint.
pub const LISTEN_VARIABLE: &str = "FORESAIL_WORKER_LISTEN";
/// Header of an invocation with the id that its host gave it.
pub const INSTANCE_HEADER: &str = "foresail-instance";
/// Header of an invocation with the time at which it was asked for (RFC 3339). Host and worker may be
/// different machines, so that it is as good as their clocks agree.
pub const INVOKED_AT_HEADER: &str = "foresail-invoked-at";

/// Longest life of an invocation by default: a little less than Knative gives a request
/// (`max-revision-timeout-seconds`, 600 s).
const LIFE_MS_DEFAULT: f64 = 590_000.0;
/// Time for the last answer of a worker that ends.
const ANSWER_GRACE: Duration = Duration::from_millis(100);

/// Settings of a worker behind an endpoint.
#[derive(Debug, Clone, Args)]
pub struct ServeSettings {
    /// Address to listen on; port 0 chooses a free one.
    #[arg(long, env = LISTEN_VARIABLE, default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Address of the host, which this worker asks for others.
    #[arg(long, env = "FORESAIL_HOST", value_name = "URL")]
    pub host: String,
    /// Token of metad; the worker wants the same with every invocation.
    #[arg(long, env = ending::TOKEN_VARIABLE, hide_env_values = true)]
    pub token: Option<String>,
    /// Directory for objects, measurements that wait and scratch files.
    #[arg(long, env = "FORESAIL_WORKER_DATA", default_value = "/tmp/foresail")]
    pub data: PathBuf,
    /// Where objects too large for a commit record lie: `metad`, `s3://BUCKET/PREFIX`, or `files` (below the
    /// data directory, where all workers share it).
    #[arg(long, env = "FORESAIL_STORE", default_value_t = ObjectPlace::Metad, value_name = "STORE")]
    pub objects: ObjectPlace,
    /// Where the state of runs is kept.
    #[command(flatten)]
    pub state: CoordinationArgs,
    /// Longest life of one invocation in ms; a little less than the platform gives a request.
    #[arg(long, env = "FORESAIL_WORKER_LIFE_MS_MAX", default_value_t = LIFE_MS_DEFAULT)]
    pub life_ms_max: f64,
}

#[derive(Debug, Parser)]
struct OfEnvironment {
    #[command(flatten)]
    settings: ServeSettings,
}

/// The answer to an invocation that was carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Served {
    /// Its id.
    pub instance: InstanceId,
    /// Whether the process was started for it.
    pub start: StartState,
    /// What it used.
    pub usage: WorkerUsage,
    /// Most resident memory of the worker or of a command of it so far, in MB.
    pub peak_memory_mb: f64,
}

/// An invocation that waits for the worker, and who waits for its end.
type Asked = (Started, oneshot::Sender<Served>);

/// The whole life of a worker whose settings are in the environment.
pub(crate) fn main_of_environment(registry: &Registry) -> ExitCode {
    log_to_stderr();
    match OfEnvironment::try_parse_from(["worker"]) {
        Ok(OfEnvironment { settings }) => main(registry, settings),
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until the process is told to end.
#[must_use]
pub fn main(registry: &Registry, settings: ServeSettings) -> ExitCode {
    match serve(registry, settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(registry: &Registry, settings: ServeSettings) -> Result<(), WorkerError> {
    let setup = |cause: String| WorkerError::Setup(cause);
    let began = Instant::now();
    let ServeSettings { listen, host, token, data, objects, state, life_ms_max } = settings;
    if !listen.ip().is_loopback() && token.is_none() {
        return Err(setup(format!(
            "`{listen}` can be reached from elsewhere, whoever may invoke runs code, and there is no token; \
             hint: set {}",
            ending::TOKEN_VARIABLE
        )));
    }
    let life = Duration::try_from_secs_f64(life_ms_max / 1000.0)
        .map_err(|_| setup(format!("life_ms_max `{life_ms_max}` must be a number of ms, at least 0")))?;
    ending::end_on_sigterm().map_err(|e| setup(e.to_string()))?;
    let data = std::path::absolute(&data).map_err(|e| setup(format!("`{}`: {e}", data.display())))?;
    let naming = Naming::new();
    let of_process = ProcessSettings {
        host: host.clone(),
        store: objects.store(data.join("objects")),
        coordination: state.coordination,
        shared: None,
        // Where several workers share the directory, each has its own.
        spool_dir: data.join("spool").join(naming.epoch()),
        scratch_dir: data.join("scratch").join(naming.epoch()),
        inline_bytes_max: INLINE_BYTES_MAX,
        cache_bytes_max: CACHE_BYTES_MAX,
        lanes: 1,
        life_ms_max,
        oom_counter: None,
        groups: Vec::new(),
        token: token.clone(),
    };
    let asks = HttpHost::with_token(&host, token.as_deref()).map_err(|e| setup(e.to_string()))?;
    let mut worker = Alone::new(registry, of_process, Arc::new(asks))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
        .map_err(|e| setup(e.to_string()))?;
    runtime.block_on(async move {
        let cannot = |e: std::io::Error| setup(format!("cannot listen on `{listen}`: {e}"));
        let listener = TcpListener::bind(listen).await.map_err(cannot)?;
        println!("worker listening on http://{}", listener.local_addr().map_err(cannot)?);
        let (ask, mut asked) = mpsc::channel(1);
        let init_ms = began.elapsed().as_secs_f64() * 1000.0;
        let shared = Arc::new(Shared { places: tokio::sync::Semaphore::new(1), ask, naming });
        let router = front::guarded(routes(shared), token.as_deref());
        tokio::select! {
            served = axum::serve(listener, router) => served.map_err(|e| setup(e.to_string())),
            () = work(&mut worker, &mut asked, life, init_ms) => Ok(()),
        }
    })
}

/// Carries out one invocation after another.
async fn work(worker: &mut Alone, asked: &mut mpsc::Receiver<Asked>, life: Duration, init_ms: f64) {
    let mut start = StartState::Cold;
    while let Some((started, tell)) = asked.recv().await {
        let init_ms = (start == StartState::Cold).then_some(init_ms);
        let instance = started.instance.clone();
        let ends = Instant::now() + life;
        let Carried { usage, peak_memory_mb, fitness } =
            worker.carry_out(Started { start, init_ms, ..started }, ends).await;
        // Whoever asked may be gone; the run knows all the same.
        let _ = tell.send(Served { instance, start, usage, peak_memory_mb });
        start = StartState::Warm;
        if fitness == Fitness::Unfit {
            tracing::warn!("something of the last invocation goes on: the platform shall start a new worker");
            // The answer is on its way.
            tokio::time::sleep(ANSWER_GRACE).await;
            ending::end_at_once(ending::EXIT_REPLACED);
        }
    }
}

/// What the requests share.
struct Shared {
    /// One invocation at a time.
    places: tokio::sync::Semaphore,
    ask: mpsc::Sender<Asked>,
    naming: Naming,
}

fn routes(shared: Arc<Shared>) -> Router {
    let methods = axum::routing::post(invoke).get(|| async { StatusCode::NO_CONTENT });
    Router::new()
        .fallback_service(methods.with_state(shared))
        .layer(DefaultBodyLimit::max(front::BODY_BYTES_MAX))
}

async fn invoke(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let invocation = match front::read(&headers, &body) {
        Ok(invocation) => invocation,
        Err(refusal) => return front::problem(refusal),
    };
    let Ok(_place) = shared.places.try_acquire() else {
        let detail = "this worker carries out another invocation; hint: invoke again, or start more workers";
        return front::problem(Problem::new(ErrorCode::CapacityExceeded, detail));
    };
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let instance = text(INSTANCE_HEADER).and_then(|text| text.parse().ok());
    let instance = instance.unwrap_or_else(|| shared.naming.name(invocation.worker.as_ref()));
    let invoked_at = text(INVOKED_AT_HEADER).and_then(|text| text.parse().ok());
    let invoked_at = invoked_at.unwrap_or_else(Timestamp::now);
    // The loop that takes it knows whether it is the first.
    let (start, init_ms, queued_ms) = (StartState::Warm, None, 0.0);
    let started = Started { instance, invocation, start, invoked_at, init_ms, queued_ms };
    let (tell, told) = oneshot::channel();
    let ended = || front::problem(Problem::new(ErrorCode::Unavailable, "the worker is ending"));
    if shared.ask.send((started, tell)).await.is_err() {
        return ended();
    }
    match told.await {
        Ok(served) => axum::Json(served).into_response(),
        Err(_) => ended(),
    }
}
