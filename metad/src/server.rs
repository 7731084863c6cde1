//! The daemon: recovers the store, starts the threads, listens, and stops without losing anything.
//!
//! It has threads of its own, so it runs the same way inside another process as in the binary. Stopping: no
//! new connection is taken, long polls and streams end, requests under way are finished (within
//! `stop_ms_max`), the writer carries out what waits, the models are written, the store is closed.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Sleep;

use crate::batch_log::{self, Address};
use crate::coordination::take_up;
use crate::http::Front;
use crate::meter::add;
use crate::recover::{Recovered, recover};
use crate::settings::{Settings, SettingsError};
use crate::shared::Shared;
use crate::store::{self, StoreError};
use crate::write::Writer;

/// Threads that read the store and parse large bodies.
const BLOCKING_THREADS_MAX: usize = 8;
/// How long the end of the runtime waits for them.
const BLOCKING_STOP_MAX: Duration = Duration::from_secs(5);

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting cannot be.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The address cannot be listened on.
    #[error(
        "metad cannot listen on `{listen}`: {reason}\n\
         hint: another process may have the port; --listen 127.0.0.1:0 takes a free one"
    )]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// Why.
        reason: io::Error,
    },
    /// The data directory does not fit the log of batches.
    #[error("{0}")]
    BatchLog(String),
    /// The system gives no thread.
    #[error("metad cannot start a thread: {0}")]
    Thread(io::Error),
}

/// A daemon that runs. Dropping it stops it like [`Server::stop`].
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stopping: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts the daemon; when this returns it answers requests.
    ///
    /// # Errors
    /// [`StartError`], with what to do about it.
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        settings.check()?;
        let refused = |reason| StartError::Listen { listen: settings.listen, reason };
        let listener = TcpListener::bind(settings.listen).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let (writer, reader) = store::open(&settings.data)?;
        let Recovered { world, boards, catalog, models, runs, damaged_rows } = recover(&reader)?;
        let log = settings.batch_log.as_deref().and_then(|text| Address::read(text).ok());
        batch_log::check(&settings.data, world.epoch, log.as_ref().map(|a| a.stream.as_str()))
            .map_err(StartError::BatchLog)?;
        let (shared, queue) = Shared::new(settings, reader, world, boards);
        add(&shared.meter.damaged_rows, damaged_rows);
        let stopping = shared.stopping.clone();
        let writer = Writer::spawn(Arc::clone(&shared), writer, queue, catalog, models, runs)
            .map_err(StartError::Thread)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .build()
            .map_err(StartError::Thread)?;
        let thread = std::thread::Builder::new()
            .name("metad-http".to_owned())
            .spawn(move || {
                if let Err(error) = runtime.block_on(serve(listener, &shared)) {
                    tracing::error!(%error, "the listener failed");
                }
                runtime.shutdown_timeout(BLOCKING_STOP_MAX);
                shared.stop_writer();
                if writer.join().is_err() {
                    tracing::error!("the writer panicked");
                }
            })
            .map_err(StartError::Thread)?;
        tracing::info!(%address, "metad listens");
        Ok(Self { address, stopping, thread: Some(thread) })
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops: finishes requests under way, stores everything, closes the store.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stopping.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the HTTP thread panicked");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

async fn serve(listener: TcpListener, shared: &Arc<Shared>) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(shared.settings.connections_max as usize));
    let send_max = Duration::from_millis(shared.settings.send_ms_max);
    let mut listener = Counted { inner: tokio::net::TcpListener::from_std(listener)?, places, send_max };
    take_up(shared);
    batch_log::take_up(shared);
    let front = Front::new(Arc::clone(shared));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new());
    http.header_read_timeout(Duration::from_millis(shared.settings.head_ms_max));
    let mut stop = shared.stopping.subscribe();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            (connection, _) = listener.accept() => {
                connections.spawn(converse(http.clone(), connection, front.clone(), stop.clone()));
            }
            // Lets go of what has ended.
            Some(_ended) = connections.join_next() => {}
            () = stopped(&mut stop) => break,
        }
    }
    drop(listener);
    let limit = Duration::from_millis(shared.settings.stop_ms_max);
    let ends = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limit, ends).await.is_err() {
        tracing::warn!(limit_ms = limit.as_millis(), "requests under way are broken off");
    }
    Ok(())
}

/// Answers the requests of one connection, until it ends or, once the daemon stops, the one under way is
/// answered.
async fn converse(
    http: http1::Builder,
    connection: Connection,
    front: Front,
    mut stop: watch::Receiver<bool>,
) {
    let mut conversation = pin!(http.serve_connection(TokioIo::new(connection), front));
    let ended = tokio::select! {
        ended = conversation.as_mut() => Some(ended),
        () = stopped(&mut stop) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            conversation.as_mut().graceful_shutdown();
            conversation.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _sender_gone = stop.wait_for(|&stopping| stopping).await;
}

/// A listener that leaves connections waiting in the system's queue while there are too many.
struct Counted {
    inner: tokio::net::TcpListener,
    places: Arc<Semaphore>,
    send_max: Duration,
}

/// A connection with its place. It breaks when its client takes nothing of what was written for too long:
/// else whoever never reads would keep what was made for it, and its places.
struct Connection {
    stream: TcpStream,
    _place: Option<OwnedSemaphorePermit>,
    send_max: Duration,
    /// Ends when the write that is waiting has waited too long.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    /// What a write came to, or that it waited too long.
    fn in_time(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.send_max)));
        waiting.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Listener for Counted {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // The semaphore is never closed, so there is always a place in the end.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.inner).await;
        // Answers are small and waited for: never hold one back to fill a packet.
        let _slower_without = stream.set_nodelay(true);
        (Connection { stream, _place: place, send_max: self.send_max, waiting: None }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.in_time(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.in_time(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
