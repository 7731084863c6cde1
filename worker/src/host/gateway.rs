//! Any host at an address: clients and workers ask it as they ask the local host, and it watches over the
//! runs that were invoked through it.
//!
//! For platforms whose workers cannot be invoked by their callers alone: an invocation over HTTP lasts as
//! long as its worker, longer than the one who asked for it may live. It works for one metad, whose token it
//! wants. Objects of runs that have ended go from here too, where they lie in metad or in a bucket.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use foresail_schemas::id::RunId;
use foresail_schemas::invocation::{Documents, HostStatus, Invocation, Invoked};
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use super::guard::{RUNS_WAITING_MAX, guard};
use super::local::ObjectPlace;
use super::local::settings::{GUARD_MS, OBJECT_RUNS_KEPT_MAX, SWEEP_MS};
use super::objects::{self, Learning, RunsSeen, Sweeper, Sweeping};
use super::{Host, HostError, front};
use crate::api::ApiError;
use crate::documents;
use crate::metad::Metad;

/// How long the end of a gateway waits for requests under way.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// How long an invocation waits for the documents that it is to bring: a metad that does not answer must not
/// keep a worker from being asked for, which reads them itself.
const DOCUMENTS_LIMIT: Duration = Duration::from_secs(2);
/// Runs whose documents are kept.
const RUNS_KEPT_MAX: usize = 16;

/// Settings of a gateway.
#[derive(Debug, Clone)]
pub struct GatewaySettings {
    /// Address to listen on; port 0 chooses a free one.
    pub listen: SocketAddr,
    /// Address of metad, as its workers reach it.
    pub metad: String,
    /// Token of metad, where it wants one; the gateway then wants the same.
    pub token: Option<String>,
    /// Time between two looks for tasks of a run that are stuck and that no client starts again, in ms.
    pub guard_ms: f64,
    /// Where its workers put large objects, which are deleted here when nobody needs them any more; files of
    /// other machines are not.
    pub objects: ObjectPlace,
    /// Runs that have ended whose objects are kept; those of older runs are deleted, results too.
    pub object_runs_kept_max: usize,
    /// Time between two looks for objects that nobody needs any more, in ms.
    pub sweep_ms: f64,
}

impl GatewaySettings {
    /// The defaults: a free port of this machine, no token, objects that are not its business.
    #[must_use]
    pub fn new(metad: impl Into<String>) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            metad: metad.into(),
            token: None,
            guard_ms: GUARD_MS,
            objects: ObjectPlace::Files,
            object_runs_kept_max: OBJECT_RUNS_KEPT_MAX,
            sweep_ms: SWEEP_MS,
        }
    }

    /// What looks for objects that nobody needs any more, where that can be done from here.
    fn sweeper(&self, metad: &Metad, seen: &RunsSeen) -> Option<Arc<Mutex<Sweeper>>> {
        let place = Some(self.objects.clone()).filter(|place| *place != ObjectPlace::Files)?;
        let sweeping = Sweeping {
            place,
            objects: PathBuf::new(),
            shared: None,
            runs_kept_max: self.object_runs_kept_max,
            sweep_ms: self.sweep_ms,
            // Its workers may ask the platform for others without it.
            learning: Learning::Listed,
        };
        Some(Arc::new(Mutex::new(Sweeper::new(sweeping, metad.clone(), seen.clone()))))
    }
}

/// Why a gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Whoever may invoke runs code, so that others than this machine have to show a token.
    #[error("`{0}` can be reached from elsewhere and there is no token; hint: set FORESAIL_METAD_TOKEN")]
    TokenNeeded(SocketAddr),
    /// The address is taken or not allowed.
    #[error("the host cannot listen on `{listen}`: {cause}; hint: port 0 chooses a free one")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// Why.
        cause: String,
    },
    /// The address of metad or the token cannot be used.
    #[error(transparent)]
    Metad(#[from] ApiError),
    /// No thread could be started.
    #[error("the host cannot start: {0}")]
    Setup(String),
}

/// A host that is served; ends when dropped.
#[derive(Debug)]
pub struct Gateway {
    url: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Gateway {
    /// Serves the host that `make` makes, on a thread of its own: what the host starts lives there too.
    ///
    /// # Errors
    /// [`GatewayError`] with the setting that does not do; the text of `make` where that fails.
    pub fn start<M, F>(settings: GatewaySettings, make: M) -> Result<Self, GatewayError>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<Arc<dyn Host>, String>>,
    {
        if !settings.listen.ip().is_loopback() && settings.token.is_none() {
            return Err(GatewayError::TokenNeeded(settings.listen));
        }
        let metad = Metad::new(&settings.metad, settings.token.as_deref())?;
        let setup = |cause: std::io::Error| GatewayError::Setup(cause.to_string());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(setup)?;
        let (say, started) = std::sync::mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel();
        let body = move || {
            runtime.block_on(async move {
                let seen = RunsSeen::default();
                let sweeper = settings.sweeper(&metad, &seen);
                let bound = match make().await {
                    Ok(host) => bind(&settings, metad, seen, host).await,
                    Err(cause) => Err(GatewayError::Setup(cause)),
                };
                match bound {
                    Ok((listener, router, url)) => {
                        let _ = say.send(Ok(url));
                        serve(listener, router, sweeper, stopped).await;
                    }
                    Err(error) => drop(say.send(Err(error))),
                }
            });
            runtime.shutdown_timeout(STOP_LIMIT);
        };
        let thread = std::thread::Builder::new().name("foresail-gateway".to_owned()).spawn(body);
        let thread = thread.map_err(setup)?;
        match started.recv() {
            Ok(Ok(url)) => Ok(Self { url, stop: Some(stop), thread: Some(thread) }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(GatewayError::Setup("its thread ended before it began".to_owned())),
        }
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn bind(
    settings: &GatewaySettings,
    metad: Metad,
    seen: RunsSeen,
    host: Arc<dyn Host>,
) -> Result<(TcpListener, axum::Router, String), GatewayError> {
    let listen = settings.listen;
    let cannot = |e: std::io::Error| GatewayError::Listen { listen, cause: e.to_string() };
    let listener = TcpListener::bind(listen).await.map_err(cannot)?;
    let url = format!("http://{}", listener.local_addr().map_err(cannot)?);
    let (to_guard, told) = mpsc::channel(RUNS_WAITING_MAX);
    // Ends with the runtime of the gateway.
    tokio::spawn(guard(settings.guard_ms, metad.clone(), Arc::clone(&host), told));
    let shelf = Shelf { metad, token: settings.token.clone(), kept: Mutex::default() };
    let metad = settings.metad.clone();
    let served: Arc<dyn Host> = Arc::new(Served { host, metad, shelf, to_guard, seen });
    Ok((listener, front::router(served, settings.token.as_deref()), url))
}

async fn serve(
    listener: TcpListener,
    router: axum::Router,
    sweeper: Option<Arc<Mutex<Sweeper>>>,
    stopped: oneshot::Receiver<()>,
) {
    let sweeping = sweeper.clone().map(|sweeper| tokio::spawn(objects::tend(sweeper)));
    let serving = async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the host answers no more requests over HTTP");
        }
    };
    tokio::select! {
        () = serving => {}
        _ = stopped => {}
    }
    sweeping.into_iter().for_each(|sweeping| sweeping.abort());
    if let Some(sweeper) = sweeper {
        objects::sweep_last(sweeper).await;
    }
}

/// Documents of the runs that were asked for last, read once for all their workers.
struct Shelf {
    metad: Metad,
    token: Option<String>,
    /// The newest first; nothing where a run has documents too large to travel.
    kept: Mutex<VecDeque<(RunId, Option<Documents>)>>,
}

impl Shelf {
    /// Those of a run; nothing where they are too large or cannot be read: the worker reads them then. They
    /// may be of a plan that was replaced meanwhile, which the worker finds out as it begins.
    async fn documents(&self, run: &RunId, bytes_max: usize) -> Option<Documents> {
        // Whoever asks meanwhile waits for the one read, whose requests have limits.
        let mut kept = self.kept.lock().await;
        if let Some((_, documents)) = kept.iter().find(|(other, _)| other == run) {
            return documents.clone();
        }
        let (workflow, plan) = (self.metad.workflow(run).await.ok()?, self.metad.plan(run).await.ok()?);
        let (token, asked) = (self.token.clone(), run.clone());
        let pack = move || documents::pack(&asked, &workflow, &plan, token.as_deref(), bytes_max);
        let documents = tokio::task::spawn_blocking(pack).await.ok()?;
        kept.truncate(RUNS_KEPT_MAX - 1);
        kept.push_front((run.clone(), documents.clone()));
        documents
    }
}

/// A host for one metad, whose runs are watched.
struct Served {
    host: Arc<dyn Host>,
    metad: String,
    shelf: Shelf,
    /// Tells of the runs that are invoked here.
    to_guard: mpsc::Sender<RunId>,
    /// Tells of them whose objects will have to go.
    seen: RunsSeen,
}

impl Host for Served {
    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Result<Invoked, HostError>> {
        // Workers send the token there and take code from there.
        let [asked, served] =
            [&invocation.metad, &self.metad].map(|url| url.trim_end_matches('/').to_owned());
        if asked != served {
            return Box::pin(async { Err(HostError::OtherMetad { asked, served }) });
        }
        self.seen.note(&invocation.run);
        let _told_by_a_later_one_if_full = self.to_guard.try_send(invocation.run.clone());
        let bytes_max = self.host.documents_bytes_max();
        if bytes_max == 0 || invocation.documents.is_some() {
            return self.host.invoke(invocation);
        }
        Box::pin(async move {
            let documents = timeout(DOCUMENTS_LIMIT, self.shelf.documents(&invocation.run, bytes_max)).await;
            let documents = documents.ok().flatten().map(Box::new);
            self.host.invoke(Invocation { documents, ..invocation }).await
        })
    }

    fn status(&self) -> BoxFuture<'_, Result<HostStatus, HostError>> {
        self.host.status()
    }

    fn drain(&self) -> BoxFuture<'_, Result<HostStatus, HostError>> {
        self.host.drain()
    }
}
