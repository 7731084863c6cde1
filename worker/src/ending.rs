//! The end of a worker process: no process that it started outlives it.
//!
//! A worker leads a session of its own, and its commands are in groups and sessions below it. When the
//! host's socket closes, when SIGTERM comes (also from the kernel, when the host dies: `PR_SET_PDEATHSIG`)
//! and when it is done, it ends every process of its session and of its control groups, then itself. Nothing
//! is started any more from the moment on when that begins.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Address of the host's socket; a process that has it is a worker.
pub const SOCKET_VARIABLE: &str = "FORESAIL_WORKER_SOCKET";
/// What the host tells the worker about itself, as JSON.
pub const SETTINGS_VARIABLE: &str = "FORESAIL_WORKER_SETTINGS";
/// The token of metad, for programs of Foresail only.
pub const TOKEN_VARIABLE: &str = "FORESAIL_METAD_TOKEN";
/// Addresses that may have a password in them: of the state of runs, of the log of batches.
const ADDRESS_VARIABLES: [&str; 2] = ["FORESAIL_COORDINATION", "FORESAIL_METAD_BATCH_LOG"];
/// Variables that a command must not inherit.
pub(crate) const WORKER_VARIABLES: [&str; 5] =
    [SOCKET_VARIABLE, SETTINGS_VARIABLE, TOKEN_VARIABLE, ADDRESS_VARIABLES[0], ADDRESS_VARIABLES[1]];

/// Status of a worker that has carried out its invocation and asks for a new process in its place. Success
/// would look like a function that ends the process.
pub(crate) const EXIT_REPLACED: i32 = 86;
/// What a shell would report of a process ended by SIGTERM.
const EXIT_TERMINATED: i32 = 128 + libc::SIGTERM;
/// How long the end waits for a command that is just being started.
const STARTING_LIMIT: Duration = Duration::from_secs(1);
/// Most rounds of killing: a round misses what is forked while it looks.
const ROUNDS_MAX: u32 = 100;
/// Pause between two rounds.
const ROUND_PAUSE: Duration = Duration::from_millis(1);

/// Read by whoever starts a process, several at a time; written by the end of the worker.
static STARTING: RwLock<()> = RwLock::new(());
static IS_ENDING: AtomicBool = AtomicBool::new(false);
static GROUPS: OnceLock<Vec<PathBuf>> = OnceLock::new();

/// Starts a process while the end of the worker waits: it is found then, or not started at all.
pub(crate) fn start_guarded<T>(start: impl FnOnce() -> T) -> T {
    while IS_ENDING.load(Ordering::SeqCst) {
        std::thread::park();
    }
    let _starting = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    start()
}

/// Ends whatever the worker has started, then the worker.
pub(crate) fn end_at_once(code: i32) -> ! {
    let ends = Instant::now() + STARTING_LIMIT;
    IS_ENDING.store(true, Ordering::SeqCst);
    // Kept until the process is no more: nothing starts after this.
    let starting = loop {
        match STARTING.try_write() {
            Ok(guard) => break Some(guard),
            Err(_) if Instant::now() > ends => break None,
            Err(_) => std::thread::sleep(ROUND_PAUSE),
        }
    };
    // SAFETY: two plain system calls.
    let (own, session) = unsafe { (libc::getpid(), libc::getsid(0)) };
    // A worker started by hand shares the session of a terminal, which is none of its business.
    let session = (session == own).then_some(session as u32);
    kill_all(session, GROUPS.get().map_or(&[], Vec::as_slice));
    std::mem::forget(starting);
    // SAFETY: ends the process; destructors are not wanted, files of the spool are complete lines already.
    unsafe { libc::_exit(code) }
}

/// From now on SIGTERM, also sent by the kernel when the host dies, ends the worker and all that it started.
///
/// Call it before other threads start: they inherit that SIGTERM waits for the thread that is made here.
pub(crate) fn end_with_the_host(groups: Vec<PathBuf>) -> io::Result<()> {
    let _ = GROUPS.set(groups);
    // SAFETY: a plain system call.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
    end_on_sigterm()
}

/// From now on SIGTERM ends the worker and all that it started, in a session of its own where that can be.
///
/// Call it before other threads start: they inherit that SIGTERM waits for the thread that is made here.
pub(crate) fn end_on_sigterm() -> io::Result<()> {
    // SAFETY: the set is initialised by sigemptyset; the rest are plain system calls.
    let signals = unsafe {
        let mut signals = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        libc::sigaddset(&raw mut signals, libc::SIGTERM);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut());
        // A process that leads its group already, as one of a terminal does, stays in its session.
        libc::setsid();
        signals
    };
    let wait = move || {
        let mut signal = 0;
        // SAFETY: both are valid; the call returns when the signal has come.
        while unsafe { libc::sigwait(&raw const signals, &raw mut signal) } != 0 {}
        end_at_once(EXIT_TERMINATED)
    };
    std::thread::Builder::new().name("sigterm".to_owned()).spawn(wait).map(drop)
}

/// Ends every process of the session and of the control groups, except the caller; looks again until none is
/// left.
pub(crate) fn kill_all(session: Option<u32>, groups: &[PathBuf]) {
    for _ in 0..ROUNDS_MAX {
        let mut pids = session.map(of_session).unwrap_or_default();
        pids.extend(groups.iter().flat_map(|dir| of_group(dir)));
        pids.retain(|&pid| pid > 1 && pid != std::process::id());
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            // SAFETY: a plain system call; the id was just read from our own session or group.
            unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
        }
        std::thread::sleep(ROUND_PAUSE);
    }
    tracing::warn!("processes that a worker started do not end");
}

fn of_group(dir: &std::path::Path) -> Vec<u32> {
    let pids = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    pids.lines().filter_map(|line| line.parse().ok()).collect()
}

fn of_session(session: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| session > 1 && live_session_of(*pid) == Some(session)).collect()
}

/// The session of a process that is not a zombie. Source: proc(5); the name, second field, may hold blanks.
fn live_session_of(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let is_alive = !matches!(fields.next()?, "Z" | "X");
    fields.nth(2).filter(|_| is_alive)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    #[test]
    fn the_session_of_this_process_is_read() {
        // SAFETY: a plain system call.
        let expect = unsafe { libc::getsid(0) };
        assert_eq!(live_session_of(std::process::id()), Some(expect as u32));
        assert_eq!(live_session_of(0), None);
    }

    #[test]
    fn every_process_of_a_session_ends() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & sleep 600 & wait"]).stdout(Stdio::null());
        // SAFETY: a plain system call between fork and exec.
        unsafe {
            command.pre_exec(|| if libc::setsid() > 0 { Ok(()) } else { Err(io::Error::last_os_error()) })
        };
        let mut leader = command.spawn().unwrap();
        let ends = Instant::now() + Duration::from_secs(10);
        while of_session(leader.id()).len() < 3 {
            assert!(Instant::now() < ends, "the session never had its three processes");
            std::thread::sleep(ROUND_PAUSE);
        }
        kill_all(Some(leader.id()), &[]);
        assert!(of_session(leader.id()).is_empty());
        leader.wait().unwrap();
    }
}
