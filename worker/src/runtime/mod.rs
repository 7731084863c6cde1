//! The worker process: connects to its host, carries out one invocation after another, ends with its host.
//!
//! A binary becomes a worker when its environment has the socket of a host, so the user's own program is its
//! own worker: call [`run_worker_if_asked`] first thing in `main`. A thread of its own watches the socket:
//! when the host is gone the process ends at once, whatever the tasks are doing, and no command outlives it.

mod attempt;
mod carry;
mod decided;
mod engine;
mod invocation;
mod invoke;
mod lanes;
mod listen;
pub mod settings;
mod telling;

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use foresail_choreography::PlanView;
use foresail_schemas::id::RunId;
use foresail_schemas::invocation::{HostMessage, WorkerMessage};
use foresail_schemas::run::CurrentPlan;
use foresail_schemas::workflow::Workflow;
use tokio::sync::mpsc;

use crate::api::ApiError;
use crate::coordination::Coordination;
use crate::data::cache::ObjectCache;
use crate::data::s3;
use crate::data::store::{BlobStore, FileStore, ObjectStore, StoreError};
use crate::ending::{self, SETTINGS_VARIABLE, SOCKET_VARIABLE};
use crate::executor::Executors;
use crate::executor::command::CommandExecutor;
use crate::executor::function::FunctionExecutor;
use crate::executor::python::{PythonExecutor, PythonSettings};
use crate::host::HttpHost;
use crate::metad::Metad;
use crate::note::Notes;
use crate::registry::Registry;
use settings::{ProcessSettings, StoreSettings};
use tokio::runtime::Handle;

/// Runs whose workflow and plan a warm worker keeps.
const RUNS_KEPT_MAX: usize = 4;
/// Messages of the host that wait for the worker.
const MESSAGES_MAX: usize = 16;
/// How long an abandoned function may take to end before the process is replaced.
const STRAY_GRACE: Duration = Duration::from_millis(200);
/// Threads for tasks, files and requests to the object store.
const BLOCKING_THREADS_MAX: usize = 32;
/// Longest line of the host, in bytes: an invocation with a million task numbers stays below it.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// Why a process could not be a worker.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The process was not started by a host.
    #[error(
        "{SOCKET_VARIABLE} is not set; hint: workers are started by a host, as by `foresail-worker host`"
    )]
    NotAsked,
    /// The settings cannot be read.
    #[error("{SETTINGS_VARIABLE} cannot be read: {0}; hint: host and worker must be of the same version")]
    Settings(String),
    /// The host cannot be reached or spoken with.
    #[error("the host at `{socket}` cannot be spoken with: {cause}")]
    Host {
        /// The socket.
        socket: String,
        /// Why.
        cause: String,
    },
    /// The process could not be set up.
    #[error("the worker cannot run: {0}")]
    Setup(String),
}

/// Becomes a worker and never returns if a host started this process as one; otherwise returns at once.
pub fn run_worker_if_asked(registry: &Registry) {
    if std::env::var_os(SOCKET_VARIABLE).is_some() {
        let code = match worker_main(registry) {
            ExitCode::SUCCESS => 0,
            _ => 1,
        };
        // What the user's functions printed last.
        let _ = std::io::stdout().flush();
        ending::end_at_once(code);
    }
}

/// The whole life of a worker process.
#[must_use]
pub fn worker_main(registry: &Registry) -> ExitCode {
    log_to_stderr();
    match serve(registry) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Logs as `FORESAIL_LOG` says (default: warnings) go to standard error; stdout is data.
pub fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FORESAIL_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    // A program that has its own subscriber keeps it.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init();
}

fn serve(registry: &Registry) -> Result<(), WorkerError> {
    let socket = std::env::var(SOCKET_VARIABLE).map_err(|_| WorkerError::NotAsked)?;
    let settings = std::env::var(SETTINGS_VARIABLE).map_err(|e| WorkerError::Settings(e.to_string()))?;
    let settings: ProcessSettings =
        serde_json::from_str(&settings).map_err(|e| WorkerError::Settings(e.to_string()))?;
    ending::end_with_the_host(settings.groups.clone()).map_err(|e| WorkerError::Setup(e.to_string()))?;
    let host = |e: std::io::Error| WorkerError::Host { socket: socket.clone(), cause: e.to_string() };
    let mut stream = UnixStream::connect(&socket).map_err(host)?;
    let messages = watch(stream.try_clone().map_err(host)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX + settings.lanes as usize)
        .build()
        .map_err(|e| WorkerError::Setup(e.to_string()))?;
    let mut process = Process::new(registry, settings)?;
    say(&mut stream, &WorkerMessage::Hello { pid: std::process::id() }).map_err(host)?;
    runtime.block_on(process.serve(stream, messages)).map_err(host)
}

fn say(stream: &mut UnixStream, message: &WorkerMessage) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Starts the thread that passes on what the host says and ends the process when the host is gone.
fn watch(stream: UnixStream) -> Result<mpsc::Receiver<HostMessage>, WorkerError> {
    let (to_worker, messages) = mpsc::channel(MESSAGES_MAX);
    let read = move || {
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = String::new();
            match std::io::Read::take(&mut reader, LINE_BYTES_MAX).read_line(&mut line) {
                Ok(len) if len > 0 => {}
                _ => ending::end_at_once(0),
            }
            match serde_json::from_str(&line) {
                Ok(message) => drop(to_worker.blocking_send(message)),
                Err(error) => {
                    tracing::error!(%error, "the host said what cannot be read; is it of another version?");
                    ending::end_at_once(1);
                }
            }
        }
    };
    let thread = std::thread::Builder::new().name("host".to_owned()).spawn(read);
    thread.map(|_| messages).map_err(|e| WorkerError::Setup(e.to_string()))
}

/// What a worker process keeps between invocations.
struct Process {
    settings: ProcessSettings,
    executors: Executors,
    notes: Arc<Notes>,
    registry: Arc<Registry>,
    strays: Arc<AtomicUsize>,
    threads: lanes::Threads,
    cache: Arc<Mutex<ObjectCache>>,
    runs: VecDeque<Arc<KnownRun>>,
    metad: Option<Metad>,
    /// Where the state of the runs of that metad is kept.
    state: Option<Arc<dyn Coordination>>,
    /// The bucket, whose connections stay open between invocations.
    bucket: Option<Arc<dyn ObjectStore>>,
    host: HttpHost,
}

/// Workflow and plan of a run.
#[derive(Debug)]
struct KnownRun {
    run: RunId,
    workflow: Arc<Workflow>,
    plan: CurrentPlan,
    /// The plan as the machines of all its invocations see it.
    view: Arc<PlanView>,
}

impl KnownRun {
    fn new(run: RunId, workflow: Arc<Workflow>, plan: CurrentPlan) -> Self {
        let view = Arc::new(PlanView::new(plan.epoch, &plan.plan));
        Self { run, workflow, plan, view }
    }
}

impl Process {
    fn new(registry: &Registry, settings: ProcessSettings) -> Result<Self, WorkerError> {
        let functions = FunctionExecutor::new(registry.clone());
        let strays = functions.strays();
        let scratch = Some(settings.scratch_dir.clone());
        let commands = CommandExecutor { scratch, oom_counter: settings.oom_counter.clone() };
        let oom_counter = settings.oom_counter.clone();
        let python = PythonExecutor::new(PythonSettings { oom_counter, ..PythonSettings::default() });
        let host = HttpHost::with_token(&settings.host, settings.token.as_deref());
        let host = host.map_err(|e| WorkerError::Setup(e.to_string()))?;
        Ok(Self {
            cache: Arc::new(Mutex::new(ObjectCache::new(settings.cache_bytes_max))),
            notes: Arc::new(Notes::in_dir(&settings.scratch_dir)),
            settings,
            executors: Executors::new(vec![Arc::new(functions), Arc::new(commands), Arc::new(python)]),
            registry: Arc::new(registry.clone()),
            strays,
            threads: lanes::Threads::default(),
            runs: VecDeque::new(),
            metad: None,
            state: None,
            bucket: None,
            host,
        })
    }

    async fn serve(
        &mut self,
        mut stream: UnixStream,
        mut messages: mpsc::Receiver<HostMessage>,
    ) -> std::io::Result<()> {
        while let Some(message) = messages.recv().await {
            let HostMessage::Start { instance, invocation, start, invoked_at } = message else { break };
            let started = carry::Started { instance: instance.clone(), invocation, start, invoked_at };
            let usage = carry::carry_out(self, started).await;
            if self.has_strays().await {
                // A function that cannot be stopped would slow the next invocation down: a new process takes
                // that one.
                tracing::warn!("a function did not end when it was given up: the worker process is replaced");
                let _ = std::io::stdout().flush();
                ending::end_at_once(ending::EXIT_REPLACED);
            }
            say(&mut stream, &WorkerMessage::Done { instance, usage })?;
        }
        Ok(())
    }

    async fn has_strays(&self) -> bool {
        if self.strays.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(STRAY_GRACE).await;
        }
        self.strays.load(Ordering::SeqCst) > 0
    }

    /// The client of the metad at `base`; its connections stay open between invocations.
    fn metad(&mut self, base: &str) -> Result<Metad, ApiError> {
        if let Some(metad) = self.metad.as_ref().filter(|m| m.base() == base.trim_end_matches('/')) {
            return Ok(metad.clone());
        }
        let metad = Metad::new(base, self.settings.token.as_deref())?;
        self.metad = Some(metad.clone());
        self.state = None;
        Ok(metad)
    }

    /// The state of the runs of `metad`, which is the last one that was asked for.
    fn state(&mut self, metad: &Metad) -> Result<Arc<dyn Coordination>, ApiError> {
        Ok(match &self.state {
            Some(state) => Arc::clone(state),
            None => Arc::clone(self.state.insert(self.settings.coordination.open(metad)?)),
        })
    }

    /// Where the large objects of `run` lie.
    fn store(&mut self, run: &RunId, metad: &Metad) -> Result<Arc<dyn ObjectStore>, ApiError> {
        Ok(match (&self.settings.store, &self.bucket) {
            (StoreSettings::Files(root), _) => Arc::new(FileStore::new(root)),
            (StoreSettings::Metad, _) => {
                Arc::new(BlobStore::new(metad.clone(), run.clone(), Handle::current()))
            }
            (StoreSettings::S3(_), Some(bucket)) => Arc::clone(bucket),
            (StoreSettings::S3(settings), None) => {
                let unusable =
                    |e: StoreError| ApiError::Settings { base: settings.to_string(), cause: e.to_string() };
                Arc::clone(self.bucket.insert(s3::open(settings).map_err(unusable)?))
            }
        })
    }

    fn known(&self, run: &RunId) -> Option<Arc<KnownRun>> {
        self.runs.iter().find(|known| known.run == *run).cloned()
    }

    fn keep(&mut self, known: Arc<KnownRun>) {
        self.runs.retain(|other| other.run != known.run);
        self.runs.truncate(RUNS_KEPT_MAX - 1);
        self.runs.push_front(known);
    }
}
