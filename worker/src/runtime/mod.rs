//! The worker process: connects to its host, carries out one invocation after another, ends with its host.
//!
//! A binary becomes a worker when its environment has the socket of a host, so the user's own program is its
//! own worker: call [`run_worker_if_asked`] first thing in `main`. A thread of its own watches the socket:
//! when the host is gone the process ends at once, whatever the tasks are doing, and no command outlives it.

mod alone;
mod attempt;
mod carrier;
mod carry;
mod decided;
mod engine;
mod invocation;
mod invoke;
mod lanes;
mod listen;
pub mod settings;
mod telling;

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use foresail_schemas::invocation::{HostMessage, WorkerMessage};
use tokio::sync::mpsc;

use crate::ending::{self, SETTINGS_VARIABLE, SOCKET_VARIABLE};
use crate::host::HttpHost;
use crate::registry::Registry;
use crate::serve;
pub use alone::{Alone, Carried, Fitness};
use carrier::Carrier;
pub use carry::Started;
use settings::ProcessSettings;

/// Messages of the host that wait for the worker.
const MESSAGES_MAX: usize = 16;
/// How long an abandoned function may take to end before the process is replaced.
const STRAY_GRACE: Duration = Duration::from_millis(200);
/// Threads for tasks, files and requests to the object store.
pub const BLOCKING_THREADS_MAX: usize = 32;
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

/// Becomes a worker and never returns if a host started this process as one, or if its environment says where
/// it is to listen for invocations ([`serve`]); otherwise returns at once.
pub fn run_worker_if_asked(registry: &Registry) {
    let main = match std::env::var_os(SOCKET_VARIABLE) {
        Some(_) => worker_main,
        None if std::env::var_os(serve::LISTEN_VARIABLE).is_some() => serve::main_of_environment,
        None => return,
    };
    let code = match main(registry) {
        ExitCode::SUCCESS => 0,
        _ => 1,
    };
    // What the user's functions printed last.
    let _ = std::io::stdout().flush();
    ending::end_at_once(code);
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

/// Ends the process with everything that it started, without waiting for anything.
pub fn end_at_once(code: i32) -> ! {
    ending::end_at_once(code)
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
    let of_settings = HttpHost::with_token(&settings.host, settings.token.as_deref());
    let of_settings = of_settings.map_err(|e| WorkerError::Setup(e.to_string()))?;
    let carrier = Carrier::new(registry, settings, Arc::new(of_settings));
    say(&mut stream, &WorkerMessage::Hello { pid: std::process::id() }).map_err(host)?;
    runtime.block_on(obey(carrier, stream, messages)).map_err(host)
}

/// Carries out what the host says, one invocation after another.
async fn obey(
    mut carrier: Carrier,
    mut stream: UnixStream,
    mut messages: mpsc::Receiver<HostMessage>,
) -> std::io::Result<()> {
    while let Some(message) = messages.recv().await {
        let HostMessage::Start { instance, invocation, start, invoked_at } = message else { break };
        let instance_of = instance.clone();
        let (init_ms, queued_ms) = (None, 0.0);
        let started = Started { instance: instance_of, invocation, start, invoked_at, init_ms, queued_ms };
        let usage = carrier.carry_out(started, carrier.life_ms_max()).await;
        if carrier.has_strays().await {
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
