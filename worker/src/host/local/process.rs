//! One worker process: started in its limits, spoken with over its socket, watched, and cleared away when it
//! ends.
//!
//! The task here owns the child. It must run on the host's own thread from start to end: the kernel ends a
//! worker when the *thread* that started it ends (`PR_SET_PDEATHSIG`).

use std::fs;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::id::InstanceId;
use foresail_schemas::invocation::{HostMessage, WorkerMessage};
use foresail_schemas::run::{FailureKind, WorkerUsage};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixListener;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf, pipe};
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::cgroup::{Caps, Held};
use super::pool::ProcessId;
use super::settings::{CpuShare, WorkerCommand};
use crate::ending::{EXIT_REPLACED, SETTINGS_VARIABLE, SOCKET_VARIABLE, kill_all};
use crate::executor::python::PYTHON_VARIABLE;
use crate::note::{Note, Notes};
use crate::runtime::settings::ProcessSettings;

/// How long a new process may take to say hello: with a small CPU share a start is slow.
const HELLO_LIMIT: Duration = Duration::from_secs(60);
/// How long the host waits for the exit of a process that closed its socket.
const EXIT_LIMIT: Duration = Duration::from_secs(2);
/// Bytes of output kept for the log when a process crashes.
const OUTPUT_TAIL_BYTES: usize = 8 * 1024;
/// How long what is left of the output is waited for.
const OUTPUT_LIMIT: Duration = Duration::from_millis(200);
/// Tries to remove the groups of a process; the kernel needs a moment after the last exit.
const REMOVE_TRIES_MAX: u32 = 50;
/// Pause between two of them.
const REMOVE_PAUSE: Duration = Duration::from_millis(10);

/// What to do about a program that does not become a worker.
const REGISTER_HINT: &str = "call `foresail::worker(registry)` first thing in `main`";

/// What a process is started with.
pub(super) struct Birth {
    pub process: ProcessId,
    pub command: WorkerCommand,
    /// The Python interpreter, where one is named.
    pub python: Option<PathBuf>,
    pub config: ResourceConfig,
    pub caps: Caps,
    pub cpu: CpuShare,
    pub settings: ProcessSettings,
    pub socket: PathBuf,
    /// A delay before the start, part of a simulated cold start.
    pub delay: Duration,
    pub stop_limit: Duration,
    /// Shows the id of the process while it lives, else 0.
    pub pid: Arc<AtomicU32>,
}

/// What the host tells the task of a process.
#[derive(Debug)]
pub(super) enum Order {
    /// Pass an invocation on; the process is killed when `ends` comes before it is done.
    Start { message: Box<HostMessage>, ends: Instant },
    /// End: nothing runs in it.
    End,
    /// End at once, whatever runs in it.
    Terminate,
}

/// What the task of a process tells the host.
#[derive(Debug)]
pub(super) enum Report {
    /// An invocation is done.
    Done { process: ProcessId, instance: InstanceId, usage: WorkerUsage },
    /// The process is gone, with all that it had started.
    Gone { process: ProcessId, death: Death },
}

/// How a process ended.
#[derive(Debug)]
pub(super) struct Death {
    /// In words.
    pub how: String,
    /// What that means for the attempts that ran; nothing when it was asked to end or made way for
    /// another.
    pub kind: Option<FailureKind>,
    /// How far it had come.
    pub stage: Stage,
    /// The attempts that ran.
    pub notes: Vec<Note>,
    /// The end of its output.
    pub output: String,
}

/// How far a process came in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The program ended of itself and had never said that it is a worker.
    NeverRegistered,
    /// Anything else.
    Other,
}

/// Carries the process from its start to its end.
pub(super) async fn live(birth: Birth, mut orders: mpsc::Receiver<Order>, reports: mpsc::Sender<Report>) {
    let process = birth.process;
    let death = match Living::start(&birth).await {
        Ok((mut living, listener)) => {
            let end = living.serve(listener, &mut orders, &reports).await;
            living.bury(&birth, end).await
        }
        Err(error) => {
            let program = birth.command.program.display();
            let how = format!("the worker `{program}` could not be started: {error}");
            let (kind, stage) = (Some(FailureKind::WorkerLost), Stage::Other);
            Death { how, kind, stage, notes: Vec::new(), output: String::new() }
        }
    };
    birth.pid.store(0, Ordering::SeqCst);
    let (socket, scratch_dir) = (birth.socket, birth.settings.scratch_dir);
    let sweep = move || {
        let _ = fs::remove_file(socket);
        let _ = fs::remove_dir_all(scratch_dir);
    };
    let _ = tokio::task::spawn_blocking(sweep).await;
    let _ = reports.send(Report::Gone { process, death }).await;
}

/// A process that runs.
struct Living {
    process: ProcessId,
    pid: u32,
    child: Child,
    held: Held,
    output: tokio::task::JoinHandle<String>,
    stop_limit: Duration,
}

/// Why the host gave up on a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It was told to end.
    Asked,
    /// Its invocation lasted too long.
    LifeOver,
    /// It never said hello or said nonsense.
    Silent,
}

/// How it came to an end.
struct End {
    status: io::Result<ExitStatus>,
    verdict: Option<Verdict>,
    stage: Stage,
}

impl Living {
    async fn start(birth: &Birth) -> io::Result<(Self, UnixListener)> {
        tokio::time::sleep(birth.delay).await;
        fs::create_dir_all(&birth.settings.scratch_dir)?;
        let listener = UnixListener::bind(&birth.socket)?;
        let mut held = birth.caps.hold(&birth.config, birth.cpu)?;
        match spawn(birth, &held) {
            Ok((child, output)) => {
                let pid = child.id().unwrap_or(0);
                birth.pid.store(pid, Ordering::SeqCst);
                let output = tokio::spawn(keep_tail(birth.process, output));
                let (process, stop_limit) = (birth.process, birth.stop_limit);
                Ok((Self { process, pid, child, held, output, stop_limit }, listener))
            }
            Err(error) => {
                held.remove();
                Err(error)
            }
        }
    }

    /// Serves orders until the process has ended.
    async fn serve(
        &mut self,
        listener: UnixListener,
        orders: &mut mpsc::Receiver<Order>,
        reports: &mpsc::Sender<Report>,
    ) -> End {
        let mut first: Option<Order> = None;
        let hello = timeout(HELLO_LIMIT, hello(listener));
        tokio::pin!(hello);
        let said = loop {
            tokio::select! {
                said = &mut hello => break said,
                status = self.child.wait() => return ended_unregistered(status),
                // A new process gets one invocation, the one that it was started for.
                order = orders.recv() => match order {
                    Some(start @ Order::Start { .. }) => first = Some(start),
                    Some(Order::End | Order::Terminate) | None => return self.stop(Verdict::Asked).await,
                },
            }
        };
        match said {
            Ok(Ok(connection)) => self.converse(connection, first, orders, reports).await,
            Ok(Err(_)) | Err(_) => self.stop(Verdict::Silent).await,
        }
    }

    async fn converse(
        &mut self,
        (mut lines, mut writer): Connection,
        first: Option<Order>,
        orders: &mut mpsc::Receiver<Order>,
        reports: &mpsc::Sender<Report>,
    ) -> End {
        let mut next = first;
        let mut life_ends: Option<Instant> = None;
        loop {
            match next.take() {
                Some(Order::Start { message, ends }) => {
                    // A process that cannot be spoken with any more closes its socket, which is noticed
                    // below.
                    let _ = say(&mut writer, &message).await;
                    life_ends = Some(ends);
                }
                Some(Order::End) => {
                    let _ = say(&mut writer, &HostMessage::Stop).await;
                    return self.wait_until_stopped(Verdict::Asked).await;
                }
                Some(Order::Terminate) => return self.stop(Verdict::Asked).await,
                None => {}
            }
            let life = async {
                match life_ends {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                line = lines.next_line() => match line.ok().flatten().map(|l| serde_json::from_str(&l)) {
                    Some(Ok(WorkerMessage::Done { instance, usage })) => {
                        life_ends = None;
                        let _ = reports.send(Report::Done { process: self.process, instance, usage }).await;
                    }
                    Some(Ok(WorkerMessage::Hello { .. })) => {}
                    Some(Err(_)) => return self.stop(Verdict::Silent).await,
                    None => return self.wait_for_exit().await,
                },
                status = self.child.wait() => {
                    return End { status, verdict: None, stage: Stage::Other };
                }
                order = orders.recv() => next = Some(order.unwrap_or(Order::Terminate)),
                () = life => return self.kill(Verdict::LifeOver).await,
            }
        }
    }

    /// The socket is closed: the process ends now or is made to.
    async fn wait_for_exit(&mut self) -> End {
        match timeout(EXIT_LIMIT, self.child.wait()).await {
            Ok(status) => End { status, verdict: None, stage: Stage::Other },
            Err(_) => self.kill(Verdict::Silent).await,
        }
    }

    async fn stop(&mut self, verdict: Verdict) -> End {
        // SAFETY: a plain system call; the child was not reaped yet, so the id is still its own.
        unsafe { libc::kill(self.pid as libc::pid_t, libc::SIGTERM) };
        self.wait_until_stopped(verdict).await
    }

    async fn wait_until_stopped(&mut self, verdict: Verdict) -> End {
        match timeout(self.stop_limit, self.child.wait()).await {
            Ok(status) => End { status, verdict: Some(verdict), stage: Stage::Other },
            Err(_) => self.kill(verdict).await,
        }
    }

    async fn kill(&mut self, verdict: Verdict) -> End {
        let _ = self.child.start_kill();
        End { status: self.child.wait().await, verdict: Some(verdict), stage: Stage::Other }
    }

    /// Ends what the process left behind and says how it ended.
    async fn bury(mut self, birth: &Birth, end: End) -> Death {
        let (pid, mut held) = (self.pid, self.held);
        let buried = tokio::task::spawn_blocking(move || {
            kill_all(Some(pid), held.dirs());
            let ooms = held.ooms();
            for _ in 0..REMOVE_TRIES_MAX {
                if held.remove() {
                    break;
                }
                std::thread::sleep(REMOVE_PAUSE);
            }
            ooms
        });
        let ooms = buried.await.unwrap_or(0);
        let output = match timeout(OUTPUT_LIMIT, &mut self.output).await {
            Ok(output) => output.unwrap_or_default(),
            Err(_) => {
                self.output.abort();
                String::new()
            }
        };
        let (how, kind) = cause(&end, ooms, birth);
        Death { how, kind, stage: end.stage, notes: Notes::read_all(&birth.settings.scratch_dir), output }
    }
}

/// A program that was ended by a signal is not to blame; one that ended of itself is not a worker.
fn ended_unregistered(status: io::Result<ExitStatus>) -> End {
    let stage = match &status {
        Ok(status) if status.code().is_some() => Stage::NeverRegistered,
        _ => Stage::Other,
    };
    End { status, verdict: None, stage }
}

/// Starts the program in its limits; what it prints comes out of the pipe.
fn spawn(birth: &Birth, held: &Held) -> io::Result<(Child, pipe::Receiver)> {
    let (oom_counter, groups) = (held.oom_counter(), held.dirs().to_vec());
    let settings = ProcessSettings { oom_counter, groups, ..birth.settings.clone() };
    let (reader, writer) = io::pipe()?;
    let mut command = std::process::Command::new(&birth.command.program);
    command
        .args(&birth.command.args)
        .env(SOCKET_VARIABLE, &birth.socket)
        .env(SETTINGS_VARIABLE, serde_json::to_string(&settings)?)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .envs(birth.python.as_ref().map(|program| (PYTHON_VARIABLE, program)));
    held.enter(&mut command)?;
    // SAFETY: two plain system calls between fork and exec.
    unsafe { command.pre_exec(lead_a_session_and_die_with_the_host) };
    // The command goes at the end of this function, and with it this side's copies of the pipe's other end.
    let child = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
    Ok((child, pipe::Receiver::from_owned_fd(reader.into())?))
}

fn lead_a_session_and_die_with_the_host() -> io::Result<()> {
    // SAFETY: plain system calls. Everything the worker starts stays in its session and is found by it.
    unsafe {
        libc::setsid();
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
    }
    Ok(())
}

type Connection = (Lines<BufReader<OwnedReadHalf>>, OwnedWriteHalf);

async fn hello(listener: UnixListener) -> io::Result<Connection> {
    let (stream, _) = listener.accept().await?;
    let (reader, writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    let line = lines.next_line().await?.unwrap_or_default();
    match serde_json::from_str(&line)? {
        WorkerMessage::Hello { .. } => Ok((lines, writer)),
        WorkerMessage::Done { .. } => Err(io::Error::other("the worker did not say hello first")),
    }
}

async fn say(writer: &mut OwnedWriteHalf, message: &HostMessage) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

/// Logs the output of a worker and keeps its end.
async fn keep_tail(process: ProcessId, mut output: pipe::Receiver) -> String {
    let mut tail: Vec<u8> = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(len @ 1..) = output.read(&mut buffer).await {
        let text = String::from_utf8_lossy(&buffer[..len]);
        tracing::info!(target: "foresail_worker::output", process, "{}", text.trim_end());
        tail.extend_from_slice(&buffer[..len]);
        let surplus = tail.len().saturating_sub(OUTPUT_TAIL_BYTES);
        tail.drain(..surplus);
    }
    String::from_utf8_lossy(&tail).trim().to_owned()
}

fn cause(end: &End, ooms: u64, birth: &Birth) -> (String, Option<FailureKind>) {
    let config = &birth.config;
    match (end.verdict, &end.status) {
        (Some(Verdict::Asked), _) => ("it was told to end".to_owned(), None),
        (Some(Verdict::LifeOver), _) => {
            let limit_ms = birth.settings.life_ms_max;
            let how = format!(
                "its invocation lasted longer than {limit_ms} ms, the life of a worker; hint: split the \
                 task, or let workers live longer (`--life-ms-max`, `life_ms_max` of the platform)"
            );
            (how, Some(FailureKind::Timeout))
        }
        (Some(Verdict::Silent), _) => {
            ("it did not speak as a worker does".to_owned(), Some(FailureKind::WorkerLost))
        }
        (None, Ok(status)) if status.code() == Some(EXIT_REPLACED) => {
            ("it made way for a new process".to_owned(), None)
        }
        (None, Ok(status)) if end.stage == Stage::NeverRegistered => {
            let how =
                format!("the worker program ended without registering ({status}); hint: {REGISTER_HINT}");
            (how, Some(FailureKind::TaskCrash))
        }
        (None, Ok(status)) if status.success() => {
            let how = "it ended of itself with status 0; hint: a function must return, not end the process";
            (how.to_owned(), Some(FailureKind::TaskCrash))
        }
        (None, Ok(status)) if ooms > 0 && status.signal() == Some(libc::SIGKILL) => {
            let how = format!("it used more memory than its size of {config}");
            (how, Some(FailureKind::OutOfMemory))
        }
        (None, Ok(status)) => match status.signal() {
            Some(signal @ (libc::SIGKILL | libc::SIGTERM)) => {
                (format!("somebody ended it by signal {signal}"), Some(FailureKind::WorkerLost))
            }
            _ => (format!("it crashed: {status}"), Some(FailureKind::TaskCrash)),
        },
        (None, Err(error)) => (format!("its end cannot be read: {error}"), Some(FailureKind::WorkerLost)),
    }
}
