//! Command lines, run by `sh -c` in a fresh directory and a process group of their own.
//!
//! Inputs are the files `$FORESAIL_INPUTS/0`, `1`, …; the first is standard input too. An optional input of
//! a task that was skipped has no file. Outputs are the files
//! `$FORESAIL_OUTPUTS/<name>`; where the only output is `out` and no such file was written, standard output
//! is it. The end of standard error becomes the failure message. Whatever of the group still runs when the
//! command ends or its time is over is killed; directory and output files of the attempt are deleted when it
//! returns. When it is ended for its time, or given up, what left the group (`setsid`) is ended too.
//! Peak memory is that of the largest process of the command, known only where it exceeds the
//! worker's own: a process inherits the peak of the one that it was forked from.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Component, Path, PathBuf};
use std::process::ExitStatus;
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use foresail_schemas::id::ObjectName;
use foresail_schemas::run::FailureKind;
use foresail_schemas::workflow::Work;
use tempfile::TempDir;

use super::spawn::{self, Program};
use super::{Call, Executor, Ran, memory, tree};
use crate::ending;
use crate::registry::TaskError;

/// Bytes of standard error kept for the failure message.
const STDERR_TAIL_BYTES: u64 = 8 * 1024;
/// Most directories that wait for their deletion in the background.
const SWEEPS_MAX: usize = 64;
/// Time between two looks at the cancel flag.
const CANCEL_LOOK: Duration = Duration::from_millis(25);

/// Runs command lines.
#[derive(Debug, Clone, Default)]
pub struct CommandExecutor {
    /// Where the directories of attempts are made; the system's temporary directory where absent.
    pub scratch: Option<PathBuf>,
    /// File in which the kernel counts the processes it ended because memory ran out, as a line `oom_kill N`.
    pub oom_counter: Option<PathBuf>,
}

/// How a command ended, and its resources.
struct Ended {
    status: ExitStatus,
    exec_ms: f64,
    peak_memory_mb: f64,
}

impl Executor for CommandExecutor {
    fn takes(&self, work: &Work) -> bool {
        matches!(work, Work::Command(_))
    }

    fn execute(&self, call: &Call) -> Result<Ran, TaskError> {
        let Work::Command(line) = &call.spec().run else {
            return Err(TaskError::of(FailureKind::UnknownFunction, "not a command"));
        };
        let place = Place::prepare(call, self.scratch.as_deref())?;
        let ooms_before = self.ooms();
        let ended = run(call, line, &place)?;
        // A pipeline hides that one of its commands was ended for memory; its output would be wrong without a
        // word.
        if self.ooms() > ooms_before {
            return Err(out_of_memory(&place, ended.peak_memory_mb));
        }
        if !ended.status.success() {
            return Err(failure(ended.status, &place, call));
        }
        let outputs = place.outputs(call)?.into_iter().map(Into::into).collect();
        let (exec_ms, peak_memory_mb) = (ended.exec_ms, ended.peak_memory_mb);
        Ok(Ran { outputs, exec_ms, peak_memory_mb, ..Ran::default() })
    }
}

impl CommandExecutor {
    fn ooms(&self) -> u64 {
        self.oom_counter.as_deref().map_or(0, oom_kills)
    }
}

/// The count in a line `oom_kill N` of a cgroup's `memory.oom_control` (v1) or `memory.events` (v2).
pub(crate) fn oom_kills(file: &Path) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

/// The directory of one attempt; deleted in the background, because some file systems take their time.
struct Place {
    dir: Option<TempDir>,
    /// What it prints, in files without a name.
    stdout: File,
    stderr: File,
}

impl Drop for Place {
    fn drop(&mut self) {
        static SWEEPER: OnceLock<SyncSender<TempDir>> = OnceLock::new();
        let sweeper = SWEEPER.get_or_init(|| {
            let (to_sweeper, dirs) = sync_channel::<TempDir>(SWEEPS_MAX);
            // Without the thread the channel is closed, and directories are deleted right here.
            let _ = std::thread::Builder::new()
                .name("sweeper".to_owned())
                .spawn(move || dirs.iter().for_each(drop));
            to_sweeper
        });
        if let Some(dir) = self.dir.take() {
            // What does not get through comes back and is deleted by being dropped.
            drop(sweeper.try_send(dir));
        }
    }
}

impl Place {
    fn prepare(call: &Call, scratch: Option<&Path>) -> Result<Self, TaskError> {
        let no_place = |e: std::io::Error| {
            let detail = format!("no directory for the command could be made: {e}; is the disk full?");
            TaskError::of(FailureKind::InputUnavailable, detail)
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix("task-");
        let dir = match scratch {
            Some(parent) => builder.tempdir_in(parent),
            None => builder.tempdir(),
        };
        let dir = dir.map_err(no_place)?;
        let unnamed = || tempfile::tempfile_in(dir.path()).map_err(no_place);
        let (stdout, stderr) = (unnamed()?, unnamed()?);
        let place = Self { dir: Some(dir), stdout, stderr };
        let inputs = call.contents()?;
        // Each directory takes as long as a good part of starting a process.
        let subs = if inputs.is_empty() { &["outputs", "work"][..] } else { &["outputs", "work", "inputs"] };
        for sub in subs {
            fs::create_dir(place.path(sub)).map_err(no_place)?;
        }
        let there = inputs.iter().enumerate().filter_map(|(at, input)| Some((at, input.as_ref()?)));
        for (at, bytes) in there {
            fs::write(place.path("inputs").join(at.to_string()), bytes).map_err(no_place)?;
        }
        for output in call.outputs() {
            let parent = place.output(&output.name)?.parent().map(Path::to_owned);
            parent.map_or(Ok(()), fs::create_dir_all).map_err(no_place)?;
        }
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.as_ref().expect("the directory goes only when the place does").path().join(name)
    }

    /// The file of an output. Names of foreign formats may be paths: a leading `/` is dropped, `..` is
    /// refused.
    fn output(&self, name: &ObjectName) -> Result<PathBuf, TaskError> {
        let mut path = self.path("outputs");
        let mut parts = 0;
        for part in Path::new(name.as_str()).components() {
            match part {
                Component::Normal(text) => {
                    path.push(text);
                    parts += 1;
                }
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir | Component::Prefix(_) => parts = usize::MAX / 2,
            }
        }
        if (1..usize::MAX / 2).contains(&parts) {
            return Ok(path);
        }
        Err(TaskError::new(format!("output `{name}` cannot be a file name; hint: leave out `..`")))
    }

    fn outputs(&self, call: &Call) -> Result<Vec<Bytes>, TaskError> {
        let outputs = call.outputs();
        let only_default = outputs.len() == 1 && outputs[0].name == ObjectName::default();
        let read = |name: &ObjectName| {
            let path = self.output(name)?;
            let read = match fs::read(&path) {
                Err(e) if only_default && e.kind() == ErrorKind::NotFound => from_start(&self.stdout),
                read => read,
            };
            read.map(Bytes::from).map_err(|e| {
                let detail = format!(
                    "the command ended well but did not write output `{name}`: {e}; hint: write it to \
                     \"$FORESAIL_OUTPUTS/{name}\""
                );
                TaskError::of(FailureKind::OutputNotStored, detail)
            })
        };
        outputs.iter().map(|output| read(&output.name)).collect()
    }

    /// The end of standard error.
    fn said(&self) -> String {
        let tail = || -> std::io::Result<Vec<u8>> {
            let mut file = &self.stderr;
            let len = file.metadata()?.len();
            file.seek(SeekFrom::Start(len.saturating_sub(STDERR_TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.take(STDERR_TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        match String::from_utf8_lossy(&tail().unwrap_or_default()).trim() {
            "" => "standard error is empty".to_owned(),
            text => format!("stderr:\n{text}"),
        }
    }
}

/// All that was written to a file.
fn from_start(mut file: &File) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::with_capacity(file.metadata()?.len() as usize);
    file.rewind()?;
    file.read_to_end(&mut content)?;
    Ok(content)
}

/// The shell that runs the line.
fn shell(call: &Call, line: &str, place: &Place) -> std::io::Result<Program> {
    let stdin = match call.inputs.first() {
        None | Some(None) => File::open("/dev/null")?,
        Some(Some(_)) => File::open(place.path("inputs").join("0"))?,
    };
    Ok(Program {
        file: c"/bin/sh",
        arguments: vec![c"sh".to_owned(), c"-c".to_owned(), spawn::c_string(line.into())?],
        environment: environment(call, place)?,
        dir: spawn::path(&place.path("work"))?,
        streams: [stdin.into(), place.stdout.try_clone()?.into(), place.stderr.try_clone()?.into()],
    })
}

fn run(call: &Call, line: &str, place: &Place) -> Result<Ended, TaskError> {
    let cannot = |e: std::io::Error| {
        TaskError::of(FailureKind::TaskCrash, format!("`sh` could not be started for the command: {e}"))
    };
    let program = shell(call, line, place).map_err(cannot)?;
    memory::reset_peak();
    let floor_mb = memory::peak_memory_mb();
    let started = Instant::now();
    let child = ending::start_guarded(|| program.start()).map_err(cannot)?;
    drop(program);
    let ends = call.timeout().map(|limit| started + limit);
    let waited = wait(child, ends, || call.cancel.is_set());
    if !matches!(waited, Waited::Ended) {
        // What left the group is still found below its leader.
        tree::kill_below(child);
    }
    // Before the leader is reaped: afterwards the id may belong to somebody else.
    // SAFETY: a plain system call on the group that the command leads.
    unsafe { libc::kill(-(child as libc::pid_t), libc::SIGKILL) };
    let (status, usage) = reap(child).map_err(cannot)?;
    match waited {
        Waited::Ended => {
            let exec_ms = started.elapsed().as_secs_f64() * 1000.0;
            Ok(Ended { status, exec_ms, peak_memory_mb: peak_mb(&usage, floor_mb) })
        }
        Waited::TimedOut => Err(call.timed_out()),
        Waited::GivenUp => Err(super::given_up()),
    }
}

/// What the command finds in its environment: that of its worker, and where it is.
fn environment(call: &Call, place: &Place) -> std::io::Result<Vec<CString>> {
    let task = &call.spec().id;
    let own = [
        ("FORESAIL_INPUTS", place.path("inputs").into_os_string()),
        ("FORESAIL_OUTPUTS", place.path("outputs").into_os_string()),
        ("FORESAIL_RUN", call.run.as_str().into()),
        ("FORESAIL_TASK", task.as_str().into()),
        ("FORESAIL_ATTEMPT", call.attempt.to_string().into()),
        ("FORESAIL_IDEMPOTENCY_KEY", format!("{}/{task}", call.run).into()),
    ];
    // Without the worker's own a command that starts the user's own binary would start a second worker.
    let is_kept = |name: &OsStr| {
        !ending::WORKER_VARIABLES.iter().any(|own| name == *own) && !own.iter().any(|(own, _)| name == *own)
    };
    let inherited = std::env::vars_os().filter(|(name, _)| is_kept(name));
    let all = inherited.map(|(name, value)| spawn::variable(&name, &value));
    all.chain(own.iter().map(|(name, value)| spawn::variable(OsStr::new(name), value))).collect()
}

enum Waited {
    Ended,
    TimedOut,
    GivenUp,
}

/// Waits until the process has ended, without reaping it: its id must stay taken until the group was killed.
fn wait(child: u32, ends: Option<Instant>, is_given_up: impl Fn() -> bool) -> Waited {
    let pidfd = pidfd(child);
    loop {
        if has_ended(child) {
            return Waited::Ended;
        }
        if is_given_up() {
            return Waited::GivenUp;
        }
        let left = ends.map_or(CANCEL_LOOK, |at| at.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Waited::TimedOut;
        }
        pause(pidfd.as_ref(), left.min(CANCEL_LOOK));
    }
}

/// A descriptor that becomes readable when the process ends; nothing on kernels before 5.3.
fn pidfd(child: u32) -> Option<OwnedFd> {
    // SAFETY: the call takes two numbers; what it gives is a new descriptor that nobody else owns.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, child as libc::pid_t, 0);
        RawFd::try_from(fd).ok().filter(|&fd| fd >= 0).map(|fd| OwnedFd::from_raw_fd(fd))
    }
}

fn pause(pidfd: Option<&OwnedFd>, longest: Duration) {
    use std::os::fd::AsRawFd;
    let Some(fd) = pidfd else {
        std::thread::sleep(longest.min(Duration::from_millis(1)));
        return;
    };
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let timeout_ms = (longest.as_millis() as libc::c_int).max(1);
    // SAFETY: one valid pollfd, and its number.
    unsafe { libc::poll(&raw mut poll, 1, timeout_ms) };
}

fn has_ended(child: u32) -> bool {
    // SAFETY: an all-zero siginfo_t is a valid value, and waitid fills it.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        let result = libc::waitid(libc::P_PID, child, &raw mut info, flags);
        result != 0 || info.si_pid() != 0
    }
}

fn reap(child: u32) -> std::io::Result<(ExitStatus, libc::rusage)> {
    // SAFETY: an all-zero rusage is a valid value; wait4 fills both targets. The group was killed, so it
    // returns.
    unsafe {
        let mut status = 0;
        let mut usage: libc::rusage = std::mem::zeroed();
        while libc::wait4(child as libc::pid_t, &raw mut status, 0, &raw mut usage) < 0 {
            let error = std::io::Error::last_os_error();
            if error.kind() != std::io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        Ok((ExitStatus::from_raw(status), usage))
    }
}

/// Peak of the largest process of the command. A process inherits the peak of the one that it was forked
/// from, so a figure up to the worker's own says nothing: then 0, not known.
fn peak_mb(usage: &libc::rusage, floor_mb: f64) -> f64 {
    let peak_mb = usage.ru_maxrss as f64 / 1024.0;
    if peak_mb > floor_mb + 1.0 { peak_mb } else { 0.0 }
}

fn out_of_memory(place: &Place, peak_memory_mb: f64) -> TaskError {
    let said = place.said();
    let peak = match peak_memory_mb > 0.0 {
        true => format!(", at least {peak_memory_mb:.0} MB in one process"),
        false => String::new(),
    };
    let detail = format!("the command used more memory than its worker has{peak}; {said}");
    TaskError::of(FailureKind::OutOfMemory, detail)
}

fn failure(status: ExitStatus, place: &Place, call: &Call) -> TaskError {
    let said = place.said();
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("the command ended with exit code {code}"),
        (None, Some(signal)) => format!("the command was ended by signal {signal}"),
        (None, None) => format!("the command ended with {status}"),
    };
    match status.code().and_then(|code| call.forbidden_exit(code)) {
        Some(rule) => TaskError::of(FailureKind::TaskRefused, format!("{how}, {rule}; {said}")),
        None => TaskError::of(FailureKind::TaskCrash, format!("{how}; {said}")),
    }
}

#[cfg(test)]
mod tests;
