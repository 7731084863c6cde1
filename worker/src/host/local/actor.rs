//! The thread of the local host: takes requests, follows the pool's decisions, keeps the processes.
//!
//! Everything happens one after another here, so no state is shared. Times in ms since the host began.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::id::{InstanceId, RunId};
use foresail_schemas::invocation::{HostMessage, HostStatus, Invocation, Invoked};
use foresail_schemas::metric::StartState;
use foresail_schemas::run::{FailureKind, Operation, WorkerUsage};
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::cgroup::Caps;
use super::pool::{Limits, Pool, ProcessId, Step};
use super::process::{Birth, Death, Order, Report, Stage, live};
use super::settings::{LocalSettings, WorkerCommand};
use super::{LocalError, Requests};
use crate::host::guard::{RUNS_WAITING_MAX, guard};
use crate::host::naming::Naming;
use crate::host::objects::{self, RunsSeen, Sweeper};
use crate::host::{HostError, HttpHost, again, unknown_config};
use crate::metad::Metad;
use crate::metrics::send_left_over;
use crate::runtime::settings::ProcessSettings;

/// Reports of processes that wait for the host.
const REPORTS_MAX: usize = 1024;
/// Orders that wait for one process.
const ORDERS_MAX: usize = 4;
/// Time between two passes over the spool.
const SPOOL_PAUSE: Duration = Duration::from_secs(5);
/// How long the end of the host waits for metad to take what is left in the spool, and for the last look at
/// objects.
const LAST_PASS_LIMIT: Duration = Duration::from_secs(2);
/// Worker programs of a run that end in a row without becoming workers, after which the run is cancelled.
const UNREGISTERED_MAX: u32 = 3;
/// Runs whose unregistered programs are counted; past it counting begins anew.
const UNREGISTERED_RUNS_MAX: usize = 1024;
/// Name of a socket in the scratch directory of its process.
const SOCKET: &str = "socket";
/// Longest address of a socket. Source: unix(7), 108 bytes with the final zero.
const SOCKET_LEN_MAX: usize = 107;

/// What is asked of a host.
#[derive(Debug)]
pub(crate) enum Request {
    Invoke(Invocation, oneshot::Sender<Result<Invoked, HostError>>),
    Status(oneshot::Sender<HostStatus>),
    Drain(oneshot::Sender<HostStatus>),
    Pids(std::sync::mpsc::SyncSender<Vec<u32>>),
    /// Ends the host; the answer comes when everything has ended.
    Stop(std::sync::mpsc::SyncSender<()>),
}

/// The host.
pub(super) struct Actor {
    settings: LocalSettings,
    worker: WorkerCommand,
    caps: Caps,
    url: String,
    metad: Metad,
    pool: Pool,
    processes: HashMap<ProcessId, Process>,
    tasks: JoinSet<()>,
    obituaries: JoinSet<()>,
    /// Worker programs that ended in a row without becoming workers, by run.
    unregistered: HashMap<RunId, u32>,
    runs_seen: RunsSeen,
    /// Tells of the runs that are invoked here.
    to_guard: mpsc::Sender<RunId>,
    reports: mpsc::Receiver<Report>,
    to_host: mpsc::Sender<Report>,
    /// Sockets lie here where the data directory is too deep for the address of a socket.
    sockets: Option<TempDir>,
    began: Instant,
    naming: Naming,
}

struct Process {
    orders: mpsc::Sender<Order>,
    pid: Arc<AtomicU32>,
    carries: Option<Carried>,
}

/// The invocation that a process carries out.
struct Carried {
    instance: InstanceId,
    invocation: Invocation,
    since: Instant,
}

impl Actor {
    pub(super) fn new(
        settings: LocalSettings,
        caps: Caps,
        url: String,
        host: Requests,
    ) -> Result<Self, LocalError> {
        let setup = |cause: String| LocalError::Setup(cause);
        let naming = Naming::new();
        let metad =
            Metad::new(&settings.metad, settings.token.as_deref()).map_err(|e| setup(e.to_string()))?;
        let deepest = settings.scratch_dir().join(format!("{}-{}", naming.epoch(), u64::MAX)).join(SOCKET);
        let sockets = match deepest.as_os_str().len() > SOCKET_LEN_MAX {
            true => {
                let dir = tempfile::Builder::new().prefix("foresail-").tempdir();
                Some(dir.map_err(|e| setup(e.to_string()))?)
            }
            false => None,
        };
        let worker = match settings.worker.clone() {
            Some(worker) => worker,
            None => {
                let program = std::env::current_exe().map_err(|e| setup(e.to_string()))?;
                WorkerCommand { program, args: Vec::new() }
            }
        };
        let limits = Limits {
            concurrency_max: settings.concurrency_max as usize,
            pool: settings.pool.map(|pool| (pool.config().key(), pool.workers_max as usize)),
            processes_max: settings.processes_max.max(settings.concurrency_max) as usize,
            queue_max: settings.queue_max as usize,
            keep_alive_ms: settings.keep_alive_ms,
        };
        let (to_host, reports) = mpsc::channel(REPORTS_MAX);
        let (to_guard, told) = mpsc::channel(RUNS_WAITING_MAX);
        // Ends with the runtime of the host.
        tokio::spawn(guard(settings.guard_ms, metad.clone(), Arc::new(host), told));
        Ok(Self {
            settings,
            worker,
            caps,
            url,
            metad,
            pool: Pool::new(limits),
            processes: HashMap::new(),
            tasks: JoinSet::new(),
            obituaries: JoinSet::new(),
            unregistered: HashMap::new(),
            runs_seen: RunsSeen::default(),
            to_guard,
            reports,
            to_host,
            sockets,
            began: Instant::now(),
            naming,
        })
    }

    /// Serves until it is told to stop.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let spool = tokio::spawn(tend_spool(self.settings.spool_dir(), self.metad.clone()));
        let sweeper = Sweeper::new(self.settings.sweeping(), self.metad.clone(), self.runs_seen.clone());
        let sweeper = Arc::new(Mutex::new(sweeper));
        let sweeping = tokio::spawn(objects::tend(Arc::clone(&sweeper)));
        let stopped = loop {
            let expiry = self.pool.next_expiry_ms().and_then(|ms| self.instant(ms));
            let expire = async {
                match expiry {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                request = requests.recv() => match request {
                    Some(Request::Stop(reply)) => break Some(reply),
                    Some(request) => self.answer(request),
                    None => break None,
                },
                Some(report) = self.reports.recv() => self.hear(report),
                () = expire => {}
            }
            while self.tasks.try_join_next().is_some() {}
            while self.obituaries.try_join_next().is_some() {}
            let steps = self.pool.dispatch(self.now_ms());
            steps.into_iter().for_each(|step| self.follow(step));
        };
        requests.close();
        spool.abort();
        self.end().await;
        sweeping.abort();
        objects::sweep_last(sweeper).await;
        drop(stopped);
    }

    fn now_ms(&self) -> f64 {
        self.began.elapsed().as_secs_f64() * 1000.0
    }

    fn instant(&self, at_ms: f64) -> Option<Instant> {
        self.began.checked_add(Duration::try_from_secs_f64(at_ms / 1000.0).ok()?)
    }

    fn answer(&mut self, request: Request) {
        // Whoever asked may be gone; then nobody misses the answer.
        match request {
            Request::Invoke(invocation, reply) => drop(reply.send(self.invoke(invocation))),
            Request::Status(reply) => drop(reply.send(self.pool.status())),
            Request::Drain(reply) => {
                let steps = self.pool.drain();
                steps.into_iter().for_each(|step| self.follow(step));
                drop(reply.send(self.pool.status()));
            }
            Request::Pids(reply) => {
                let pids = self.processes.values().map(|p| p.pid.load(Ordering::SeqCst));
                drop(reply.try_send(pids.filter(|pid| *pid > 0).collect()));
            }
            Request::Stop(_) => {}
        }
    }

    fn invoke(&mut self, invocation: Invocation) -> Result<Invoked, HostError> {
        // Workers send the token there and take code from there.
        let [asked, served] = [&invocation.metad, &self.settings.metad].map(|url| url.trim_end_matches('/'));
        if asked != served {
            return Err(HostError::OtherMetad { asked: asked.to_owned(), served: served.to_owned() });
        }
        let menu = &self.settings.menu;
        let config = invocation.config;
        let is_offered = |offered: &ResourceConfig| offered.key() == config.key();
        if !menu.is_empty() && !menu.iter().any(is_offered) && !self.settings.is_pool(&config) {
            let pool = self.settings.pool.map(|pool| pool.config());
            return Err(unknown_config(&config, menu.iter().copied().chain(pool)));
        }
        let worker = invocation.worker.clone();
        let naming = &self.naming;
        let name = || naming.name(worker.as_ref());
        self.runs_seen.note(&invocation.run);
        let _told_by_a_later_one_if_full = self.to_guard.try_send(invocation.run.clone());
        let invoked = self.pool.invoke(invocation, name);
        let queue_max = u64::from(self.settings.queue_max);
        invoked
            .map(|instance| Invoked { instance })
            .map_err(|queued| HostError::CapacityExceeded { queued, queue_max })
    }

    fn follow(&mut self, step: Step) {
        match step {
            Step::Spawn { process, instance, invocation } => {
                self.spawn(process, &invocation);
                self.give(process, instance, invocation, StartState::Cold);
            }
            Step::Give { process, instance, invocation } => {
                self.give(process, instance, invocation, StartState::Warm);
            }
            Step::End { process } => self.order(process, Order::End),
        }
    }

    fn spawn(&mut self, process: ProcessId, invocation: &Invocation) {
        let (orders, receive_orders) = mpsc::channel(ORDERS_MAX);
        let pid = Arc::new(AtomicU32::new(0));
        let settings = &self.settings;
        let scratch_dir = settings.scratch_dir().join(format!("{}-{process}", self.naming.epoch()));
        let socket = match &self.sockets {
            Some(dir) => dir.path().join(process.to_string()),
            None => scratch_dir.join(SOCKET),
        };
        let birth = Birth {
            process,
            command: self.worker.clone(),
            python: settings.python.clone(),
            config: invocation.config,
            caps: self.caps.clone(),
            cpu: settings.cpu_share,
            settings: ProcessSettings {
                host: self.url.clone(),
                store: settings.store(),
                coordination: settings.coordination.clone(),
                shared: settings.shared(),
                spool_dir: settings.spool_dir(),
                scratch_dir,
                inline_bytes_max: settings.inline_bytes_max,
                cache_bytes_max: settings.cache_bytes_max,
                lanes: settings.lanes,
                life_ms_max: settings.life_ms(&invocation.config),
                oom_counter: None,
                groups: Vec::new(),
                token: settings.token.clone(),
            },
            socket,
            delay: duration(if settings.is_pool(&invocation.config) { 0.0 } else { settings.cold_start_ms }),
            stop_limit: duration(settings.stop_ms_max),
            pid: Arc::clone(&pid),
        };
        self.tasks.spawn(live(birth, receive_orders, self.to_host.clone()));
        self.processes.insert(process, Process { orders, pid, carries: None });
    }

    fn give(&mut self, process: ProcessId, instance: InstanceId, invocation: Invocation, start: StartState) {
        let since = Instant::now();
        let message = HostMessage::Start {
            instance: instance.clone(),
            invocation: invocation.clone(),
            start,
            invoked_at: Timestamp::now(),
        };
        let ends = since + duration(self.settings.life_ms(&invocation.config));
        if let Some(entry) = self.processes.get_mut(&process) {
            entry.carries = Some(Carried { instance, invocation, since });
        }
        self.order(process, Order::Start { message: Box::new(message), ends });
    }

    fn order(&mut self, process: ProcessId, order: Order) {
        let Some(entry) = self.processes.get(&process) else { return };
        if let Err(error) = entry.orders.try_send(order) {
            // Only a process that has just ended takes no orders: its report is on its way and frees the
            // place.
            tracing::debug!(process, %error, "the process takes no orders");
        }
    }

    fn hear(&mut self, report: Report) {
        match report {
            Report::Done { process, instance, usage } => {
                tracing::debug!(process, %instance, billed_ms = usage.billed_ms, "done");
                let carried = self.processes.get_mut(&process).and_then(|entry| entry.carries.take());
                if let Some(carried) = carried {
                    self.unregistered.remove(&carried.invocation.run);
                }
                self.pool.done(process, self.now_ms());
            }
            Report::Gone { process, death } => {
                self.pool.gone(process);
                let carried = self.processes.remove(&process).and_then(|p| p.carries);
                self.mourn(process, carried, death);
            }
        }
    }

    /// Logs the end of a process; when it took an invocation along, metad is told what failed and that it has
    /// left.
    fn mourn(&mut self, process: ProcessId, carried: Option<Carried>, death: Death) {
        let Some(kind) = death.kind else {
            tracing::debug!(process, how = death.how, "a worker process ended");
            return;
        };
        tracing::warn!(process, how = death.how, output = death.output, "a worker process was lost");
        let Some(carried) = carried else { return };
        let mut operations = obituary(&carried, kind, &death);
        if self.is_hopeless(&carried.invocation.run, death.stage) {
            let reason = format!("{UNREGISTERED_MAX} times in a row {}", death.how);
            operations.push(Operation::Cancel { reason });
        }
        let token = self.settings.token.as_deref();
        match (Metad::new(&carried.invocation.metad, token), HttpHost::with_token(&self.url, token)) {
            (Ok(metad), Ok(host)) => {
                self.obituaries.spawn(again::tell(metad, Arc::new(host), carried.invocation, operations));
            }
            (Err(error), _) => tracing::warn!(%error, "metad cannot be told of the dead worker"),
            (_, Err(error)) => tracing::warn!(%error, "metad is not told of the dead worker"),
        }
    }

    /// Counts programs of a run that do not become workers; true when there is no point in starting more.
    fn is_hopeless(&mut self, run: &RunId, stage: Stage) -> bool {
        if stage == Stage::Other {
            self.unregistered.remove(run);
            return false;
        }
        if self.unregistered.len() >= UNREGISTERED_RUNS_MAX {
            self.unregistered.clear();
        }
        let count = self.unregistered.entry(run.clone()).or_insert(0);
        *count += 1;
        *count >= UNREGISTERED_MAX
    }

    /// Ends all processes, then sends what they left in the spool.
    async fn end(&mut self) {
        let dropped = self.pool.clear_queue();
        if dropped > 0 {
            tracing::warn!(dropped, "invocations that waited are dropped with the host");
        }
        for (_, process) in self.processes.drain() {
            // Dropping the way to a process ends it too, where this order finds no room.
            let _ = process.orders.try_send(Order::Terminate);
        }
        let limit = 2 * duration(self.settings.stop_ms_max) + Duration::from_secs(5);
        let ended = async {
            loop {
                tokio::select! {
                    done = self.tasks.join_next() => if done.is_none() { break },
                    Some(_) = self.reports.recv() => {}
                }
            }
        };
        if timeout(limit, ended).await.is_err() {
            tracing::error!("a worker process does not end; the kernel ends it with this thread");
        }
        let spool_dir = self.settings.spool_dir();
        let _ = timeout(LAST_PASS_LIMIT, send_left_over(&spool_dir, &self.metad)).await;
    }
}

async fn tend_spool(dir: std::path::PathBuf, metad: Metad) {
    loop {
        let pass = send_left_over(&dir, &metad).await;
        if pass.cleared > 0 {
            tracing::info!(?pass, "measurements that had been left over were sent");
        }
        tokio::time::sleep(SPOOL_PAUSE).await;
    }
}

/// What metad is told of the dead worker.
fn obituary(carried: &Carried, kind: FailureKind, death: &Death) -> Vec<Operation> {
    let mut message = format!("the worker process was lost: {}", death.how);
    if !death.output.is_empty() {
        message = format!("{message}\nits last output:\n{}", death.output);
    }
    let billed_ms = carried.since.elapsed().as_secs_f64() * 1000.0;
    // What it had moved by then nobody knows.
    let usage = WorkerUsage { billed_ms: billed_ms.ceil(), ..WorkerUsage::default() };
    again::obituary(&carried.instance, &death.notes, kind, message, usage)
}

/// Milliseconds as a duration; the settings were checked when the host started.
fn duration(ms: f64) -> Duration {
    Duration::try_from_secs_f64(ms / 1000.0).unwrap_or(Duration::MAX)
}
