//! The local host: a function platform on this machine, with real worker processes.
//!
//! One invocation at a time per process; a pool of processes per size; a cold start is the start of a
//! process; idle processes stay for a while; the number of busy ones and of waiting invocations is limited.
//! CPU share and memory of a size are held by control groups where the system allows it (see
//! [`LocalFaas::holds_cpu_share`]). When the host ends, however it ends, no worker outlives it.

mod actor;
mod cgroup;
mod pool;
mod process;
pub mod settings;

use std::fs::{DirBuilder, File};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use foresail_schemas::invocation::{HostStatus, Invocation, Invoked};
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use super::{Host, HostError, front};
use crate::data::s3;
use actor::{Actor, Request};
use cgroup::Caps;
pub use settings::{CpuShare, LocalSettings, ObjectPlace, WorkerCommand};

/// Requests that wait for the host's attention.
const REQUESTS_MAX: usize = 1024;
/// How long a caller of [`LocalFaas::pids`] waits.
const PIDS_LIMIT: Duration = Duration::from_secs(5);

/// Why a local host could not start.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Workers run any code: the host is for this machine only.
    #[error("`{0}` is not an address of this machine alone; hint: listen on 127.0.0.1")]
    NotLoopback(SocketAddr),
    /// The address is taken or not allowed.
    #[error("the host cannot listen on `{listen}`: {cause}; hint: port 0 chooses a free one")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// Why.
        cause: String,
    },
    /// A directory could not be made.
    #[error("directory `{}` cannot be made: {cause}", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// Objects cannot be stored there.
    #[error("the store of objects cannot be used: {0}")]
    Store(String),
    /// Another host works in the data directory.
    #[error("data directory `{}` is used by another host; hint: give this one its own", .0.display())]
    InUse(PathBuf),
    /// The program of a worker is not there.
    #[error("the program of a worker `{}` does not exist", .0.display())]
    NoProgram(PathBuf),
    /// This process is itself a worker: it would start workers without end.
    #[error("a worker cannot be a host; hint: call `run_worker_if_asked` first thing in `main`")]
    InsideWorker,
    /// A setting makes no sense.
    #[error("`{name}` is `{value}`; it must be {rule}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        rule: &'static str,
    },
    /// Something else.
    #[error("the host cannot start: {0}")]
    Setup(String),
}

/// A running local host; stops when dropped.
#[derive(Debug)]
pub struct LocalFaas {
    url: String,
    requests: Requests,
    holds_cpu_share: bool,
    thread: Option<JoinHandle<()>>,
}

impl LocalFaas {
    /// Starts a host on a thread of its own.
    ///
    /// # Errors
    /// [`LocalError`] with the setting, directory or address that does not do.
    pub fn start(mut settings: LocalSettings) -> Result<Self, LocalError> {
        check(&settings)?;
        // Commands run in directories of their own, so every path that they are told must be absolute.
        settings.data = std::path::absolute(&settings.data)
            .map_err(|e| LocalError::Directory { path: settings.data.clone(), cause: e.to_string() })?;
        for dir in
            [settings.objects_dir(), settings.spool_dir(), settings.scratch_dir(), settings.shared_dir()]
        {
            // For their owner alone, where they are made here.
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir)
                .map_err(|e| LocalError::Directory { path: dir, cause: e.to_string() })?;
        }
        let lock = lock(&settings)?;
        if let ObjectPlace::S3(bucket) = &settings.objects {
            let checked = s3::open(bucket).and_then(|store| store.check());
            checked.map_err(|e| LocalError::Store(e.to_string()))?;
        }
        // What lies there is of a host that was killed: this one has the directory for itself.
        for dir in [settings.scratch_dir(), settings.shared_dir()] {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let caps = Caps::detect();
        let holds_cpu_share = caps.hold_cpu() && settings.cpu_share == CpuShare::Enforced;
        let (to_host, requests) = mpsc::channel(REQUESTS_MAX);
        let to_host = Requests(to_host);
        let (say_started, started) = std::sync::mpsc::sync_channel(1);
        let for_http = to_host.clone();
        let body = move || {
            run(settings, caps, requests, for_http, &say_started);
            drop(lock);
        };
        let thread = std::thread::Builder::new()
            .name("foresail-host".to_owned())
            .spawn(body)
            .map_err(|e| LocalError::Setup(e.to_string()))?;
        match started.recv() {
            Ok(Ok(url)) => Ok(Self { url, requests: to_host, holds_cpu_share, thread: Some(thread) }),
            Ok(Err(error)) => {
                let _ = thread.join();
                Err(error)
            }
            Err(_) => Err(LocalError::Setup("the thread of the host ended before it began".to_owned())),
        }
    }

    /// Address of the host.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether workers are held to the CPU share of their size.
    #[must_use]
    pub fn holds_cpu_share(&self) -> bool {
        self.holds_cpu_share
    }

    /// The ids of the worker processes that live.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let (reply, answer) = std::sync::mpsc::sync_channel(1);
        match self.requests.0.try_send(Request::Pids(reply)) {
            Ok(()) => answer.recv_timeout(PIDS_LIMIT).unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// Ends every worker and the host, and waits for it. A second call does nothing.
    pub fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let (reply, stopped) = std::sync::mpsc::sync_channel(1);
            while let Err(mpsc::error::TrySendError::Full(_)) =
                self.requests.0.try_send(Request::Stop(reply.clone()))
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            drop(reply);
            let _ = stopped.recv();
            let _ = thread.join();
        }
    }
}

impl Drop for LocalFaas {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Host for LocalFaas {
    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Result<Invoked, HostError>> {
        Box::pin(self.requests.invoke(invocation))
    }

    fn status(&self) -> BoxFuture<'_, Result<HostStatus, HostError>> {
        Box::pin(self.requests.status())
    }

    fn drain(&self) -> BoxFuture<'_, Result<HostStatus, HostError>> {
        Box::pin(self.requests.drain())
    }
}

/// The way to the thread of a host.
#[derive(Debug, Clone)]
pub(crate) struct Requests(mpsc::Sender<Request>);

impl Host for Requests {
    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Result<Invoked, HostError>> {
        Box::pin(async move { self.ask(|reply| Request::Invoke(invocation, reply)).await? })
    }

    fn status(&self) -> BoxFuture<'_, Result<HostStatus, HostError>> {
        Box::pin(self.ask(Request::Status))
    }

    fn drain(&self) -> BoxFuture<'_, Result<HostStatus, HostError>> {
        Box::pin(self.ask(Request::Drain))
    }
}

impl Requests {
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, HostError> {
        let (reply, answer) = oneshot::channel();
        self.0.send(request(reply)).await.map_err(|_| HostError::Stopped)?;
        answer.await.map_err(|_| HostError::Stopped)
    }
}

/// Makes sure that no other host works in the data directory; the kernel frees the lock of a dead one.
fn lock(settings: &LocalSettings) -> Result<File, LocalError> {
    let path = settings.data.join("host.lock");
    let file = File::create(&path).map_err(|e| LocalError::Directory { path, cause: e.to_string() })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => Err(LocalError::InUse(settings.data.clone())),
    }
}

fn check(settings: &LocalSettings) -> Result<(), LocalError> {
    if !settings.listen.ip().is_loopback() {
        return Err(LocalError::NotLoopback(settings.listen));
    }
    if std::env::var_os(crate::ending::SOCKET_VARIABLE).is_some() {
        return Err(LocalError::InsideWorker);
    }
    // A name without a directory is looked up in PATH when it is started.
    if let Some(WorkerCommand { program, .. }) = &settings.worker
        && program.components().count() > 1
        && !program.is_file()
    {
        return Err(LocalError::NoProgram(program.clone()));
    }
    let refuse = |name, value: String, rule| Err(LocalError::Setting { name, value, rule });
    for (name, value) in [
        ("concurrency_max", settings.concurrency_max),
        ("processes_max", settings.processes_max),
        ("lanes", settings.lanes),
    ] {
        if value == 0 {
            return refuse(name, value.to_string(), "at least 1");
        }
    }
    for (name, ms) in [
        ("keep_alive_ms", settings.keep_alive_ms),
        ("cold_start_ms", settings.cold_start_ms),
        ("life_ms_max", settings.life_ms_max),
        ("stop_ms_max", settings.stop_ms_max),
        ("sweep_ms", settings.sweep_ms),
        ("guard_ms", settings.guard_ms),
    ] {
        if Duration::try_from_secs_f64(ms / 1000.0).is_err() {
            return refuse(name, ms.to_string(), "a number of ms, at least 0");
        }
    }
    Ok(())
}

type Started = std::sync::mpsc::SyncSender<Result<String, LocalError>>;

fn run(
    settings: LocalSettings,
    caps: Caps,
    requests: mpsc::Receiver<Request>,
    for_http: Requests,
    started: &Started,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = started.send(Err(LocalError::Setup(error.to_string())));
            return;
        }
    };
    runtime.block_on(async {
        let (listen, token) = (settings.listen, settings.token.clone());
        let cannot = |e: std::io::Error| LocalError::Listen { listen, cause: e.to_string() };
        let bound = TcpListener::bind(listen).await.and_then(|l| Ok((l.local_addr()?, l))).map_err(cannot);
        let for_guard = for_http.clone();
        let ready = bound.and_then(|(address, listener)| {
            let url = format!("http://{address}");
            Ok((Actor::new(settings, caps, url.clone(), for_guard)?, listener, url))
        });
        let (actor, listener, url) = match ready {
            Ok(ready) => ready,
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        let server = tokio::spawn(async move {
            if let Err(error) =
                axum::serve(listener, front::router(Arc::new(for_http), token.as_deref())).await
            {
                tracing::error!(%error, "the host answers no more requests over HTTP");
            }
        });
        let _ = started.send(Ok(url));
        actor.run(requests).await;
        server.abort();
    });
}
