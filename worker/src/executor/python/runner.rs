//! One runner: a Python process that carries out one call after the other.
//!
//! It leads a process group of its own. Whoever drops it ends it with all that it started. Standard output
//! and error of it are one file in memory, which is read and emptied after every call.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::frame::{Answer, Digest, FRAME_BYTES_MAX};
use super::link::Link;
use super::socket::Socket;
use super::start;
use crate::data::kept::Keeper;
use crate::data::mapped::{Append, memory_file};
use crate::ending;
use crate::executor::memory::Meter;
use crate::executor::spawn::end_with_worker;
use crate::executor::tree;
use crate::registry::Cancel;

/// Time between two looks at the cancel flag, the clock and the process.
const LOOK: Duration = Duration::from_millis(25);
/// How long an interpreter may take to be ready: with a small CPU share a start is slow.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of printed text that are kept.
pub(super) const PRINTED_BYTES_MAX: u64 = 8 << 10;
/// Printed text past this is let go while the attempt still runs.
const PRINTED_BYTES_KEPT: u64 = 1 << 20;
/// Buffer for answers; a larger one gets its own.
const BUFFER_BYTES: usize = 64 << 10;
/// Shorter calls are not looked at for their memory each: a look takes longer than a call may.
const METERED_MS_MIN: f64 = 1.0;
/// Short calls are looked at so often all the same.
const METERED_EVERY: Duration = Duration::from_millis(50);
/// Functions that the runner is known to have; past it all are sent again when they are called.
const SENT_MAX: usize = 4096;
/// So much is read of a runner's memory to see whether that can be.
const PROBE_BYTES_MAX: usize = 4096;
/// How long an ended process is waited for.
const REAP_LIMIT: Duration = Duration::from_secs(5);

/// A Python process.
#[derive(Debug)]
pub(super) struct Runner {
    child: Child,
    /// Its process, for those who refer to what it keeps.
    pub link: Arc<Link>,
    printed: File,
    meter: Meter,
    metered_at: Instant,
    buffer: Vec<u8>,
    /// What it says about itself.
    pub about: About,
    /// Whether its memory can be read here, so that it may keep results there.
    pub may_keep: bool,
    /// Functions that were loaded in it; it may have forgotten some.
    pub has: HashSet<Digest>,
}

/// What a runner says about itself.
#[derive(Debug, Default, Deserialize)]
pub(super) struct About {
    /// Version of Python.
    pub python: String,
    /// The program.
    pub executable: String,
    /// What its worker can try to read of its memory; nothing where it keeps nothing there.
    pub probe: Option<Probe>,
}

/// A place in the memory of a runner.
#[derive(Debug, Deserialize)]
pub(super) struct Probe {
    at: u64,
    bytes: usize,
}

impl Probe {
    fn is_readable(&self, link: &Link) -> bool {
        let mut found = vec![0; self.bytes.min(PROBE_BYTES_MAX)];
        link.read(self.at, &mut found).is_ok()
    }
}

/// Until when, and as long as what, an answer is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience<'a> {
    pub ends: Option<Instant>,
    pub cancel: Option<&'a Cancel>,
}

/// Why there is no answer; the runner is of no use any more.
#[derive(Debug)]
pub(super) enum Silence {
    TimedOut,
    GivenUp,
    /// The process has ended.
    Died(ExitStatus),
    /// It says what cannot be understood.
    Garbage(String),
}

/// Why a runner could not be started.
#[derive(Debug)]
pub(super) enum StartError {
    /// No such program, or it may not be run.
    NotRun(io::Error),
    /// It is ready to say what is wrong with it.
    Refused(String),
    /// It ended or was silent; what it printed.
    NotReady(Silence, String),
}

impl Runner {
    /// Starts an interpreter and waits until it is ready.
    pub fn start(program: &Path) -> Result<Self, StartError> {
        let (socket, other) = Socket::pair(LOOK).map_err(StartError::NotRun)?;
        let printed = memory_file(Append::AtEnd).map_err(StartError::NotRun)?;
        let output = || printed.try_clone().map(Stdio::from);
        let mut command = Command::new(program);
        command
            .args(start::arguments())
            .stdin(Stdio::from(other))
            .stdout(output().map_err(StartError::NotRun)?)
            .stderr(output().map_err(StartError::NotRun)?)
            .process_group(0);
        for name in ending::WORKER_VARIABLES {
            command.env_remove(name);
        }
        // SAFETY: between fork and exec only calls that are safe there: prctl, open, write, close.
        unsafe {
            command.pre_exec(|| {
                end_with_worker();
                Ok(())
            })
        };
        let child = start::spawn(command).map_err(StartError::NotRun)?;
        let meter = Meter::of(&child.id().to_string());
        let link = Arc::new(Link::new(child.id(), socket));
        let mut runner = Self {
            child,
            link,
            printed,
            meter,
            metered_at: Instant::now(),
            buffer: vec![0; BUFFER_BYTES],
            about: About::default(),
            may_keep: false,
            has: HashSet::new(),
        };
        let patience = Patience { ends: Some(Instant::now() + START_LIMIT), cancel: None };
        match runner.greet(patience) {
            Ok(Answer::Hello(text)) => match serde_json::from_str::<About>(&text) {
                Ok(about) => {
                    let probe = about.probe.as_ref();
                    runner.may_keep = probe.is_some_and(|probe| probe.is_readable(&runner.link));
                    runner.about = about;
                    runner.meter.reset();
                    Ok(runner)
                }
                Err(e) => {
                    let printed = runner.take_printed();
                    Err(StartError::NotReady(Silence::Garbage(e.to_string()), printed))
                }
            },
            Ok(Answer::Failed { text, .. }) => Err(StartError::Refused(text)),
            Ok(other) => {
                Err(StartError::NotReady(Silence::Garbage(format!("{other:?}")), runner.take_printed()))
            }
            Err(silence) => Err(StartError::NotReady(silence, runner.take_printed())),
        }
    }

    fn greet(&mut self, patience: Patience<'_>) -> Result<Answer, Silence> {
        // One that has ended may have said something before.
        let _ = start::MODULES.iter().try_for_each(|text| self.send(text.as_bytes(), &[], patience));
        self.receive(patience)
    }

    /// The id of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process has not ended.
    pub fn lives(&mut self) -> bool {
        matches!(self.reaped(), Ok(None))
    }

    /// How the process has ended; nothing while it lives.
    fn reaped(&mut self) -> io::Result<Option<ExitStatus>> {
        self.link.reap(|| self.child.try_wait())
    }

    /// Sends a frame and waits for its answer.
    pub fn ask(&mut self, frame: &[u8], files: &[RawFd], patience: Patience<'_>) -> Result<Answer, Silence> {
        self.send(frame, files, patience)?;
        self.receive(patience)
    }

    /// Remembers that a function is loaded.
    pub fn note_code(&mut self, digest: Digest) {
        if self.has.len() >= SENT_MAX {
            self.has.clear();
        }
        self.has.insert(digest);
    }

    /// The largest memory since it was asked last, where that is worth a look after a call of `exec_ms`; else
    /// 0, not known.
    pub fn take_peak_mb(&mut self, exec_ms: f64) -> f64 {
        if exec_ms < METERED_MS_MIN && self.metered_at.elapsed() < METERED_EVERY {
            return 0.0;
        }
        let peak_mb = self.meter.peak_mb();
        self.meter.reset();
        self.metered_at = Instant::now();
        peak_mb
    }

    /// The end of what was printed since it was asked last.
    pub fn take_printed(&self) -> String {
        let tail = || -> io::Result<Vec<u8>> {
            let len = self.printed.metadata()?.len();
            if len == 0 {
                return Ok(Vec::new());
            }
            let from = len.saturating_sub(PRINTED_BYTES_MAX);
            let mut bytes = vec![0; (len - from) as usize];
            self.printed.read_exact_at(&mut bytes, from)?;
            self.printed.set_len(0)?;
            Ok(bytes)
        };
        let bytes = tail().unwrap_or_default();
        // The first character may be cut.
        let lead = bytes.iter().take(3).take_while(|byte| **byte & 0xC0 == 0x80).count();
        String::from_utf8_lossy(&bytes[lead..]).into_owned()
    }

    fn send(&mut self, bytes: &[u8], files: &[RawFd], patience: Patience<'_>) -> Result<(), Silence> {
        let link = Arc::clone(&self.link);
        let _sending = link.begin_frame();
        let mut sent = 0;
        while sent < bytes.len() {
            let files = if sent == 0 { files } else { &[] };
            match link.socket.send(&bytes[sent..], files) {
                Ok(len) => sent += len,
                Err(error) => self.look(&error, patience)?,
            }
        }
        Ok(())
    }

    fn receive(&mut self, patience: Patience<'_>) -> Result<Answer, Silence> {
        let (mut have, mut files) = (0, Vec::new());
        let mut frame = std::mem::take(&mut self.buffer);
        let answer = loop {
            let end = match frame.get(..4).filter(|_| have >= 4) {
                Some(length) => 4 + u32::from_le_bytes(length.try_into().expect("four bytes")) as usize,
                None => frame.len(),
            };
            if end > FRAME_BYTES_MAX {
                break Err(Silence::Garbage(format!(
                    "`{}`",
                    String::from_utf8_lossy(&frame[..have.min(80)])
                )));
            }
            if have >= 4 && have >= end {
                break Answer::read(&frame[4..end], files).map_err(Silence::Garbage);
            }
            if end > frame.len() {
                frame.resize(end, 0);
            }
            match self.link.socket.receive(&mut frame[have..end], &mut files) {
                Ok(0) => break Err(self.ended()),
                Ok(len) => have += len,
                Err(error) => match self.look(&error, patience) {
                    Ok(()) => {}
                    Err(silence) => break Err(silence),
                },
            }
        };
        frame.truncate(BUFFER_BYTES);
        frame.shrink_to(BUFFER_BYTES);
        self.buffer = frame;
        answer
    }

    /// Nothing moved for a while: whether that is to go on.
    fn look(&mut self, error: &io::Error, patience: Patience<'_>) -> Result<(), Silence> {
        use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
        if !matches!(error.kind(), WouldBlock | TimedOut | Interrupted) {
            return Err(self.ended());
        }
        if patience.cancel.is_some_and(Cancel::is_set) {
            return Err(Silence::GivenUp);
        }
        if patience.ends.is_some_and(|at| at <= Instant::now()) {
            return Err(Silence::TimedOut);
        }
        // What it forked may hold the socket open when it is gone itself.
        if let Ok(Some(status)) = self.reaped() {
            return Err(Silence::Died(status));
        }
        self.let_go_of_printed();
        Ok(())
    }

    /// The socket is closed: the process ends now, or is made to.
    fn ended(&mut self) -> Silence {
        let ends = Instant::now() + REAP_LIMIT;
        while Instant::now() < ends {
            match self.reaped() {
                Ok(Some(status)) => return Silence::Died(status),
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                Err(_) => break,
            }
        }
        Silence::Garbage("it closed its socket and goes on".to_owned())
    }

    /// Frees the memory of printed text that nobody will read.
    fn let_go_of_printed(&self) {
        let len = self.printed.metadata().map_or(0, |about| about.len());
        let Some(surplus) = len.checked_sub(PRINTED_BYTES_KEPT) else { return };
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: a plain system call on a descriptor of our own.
        unsafe { libc::fallocate(self.printed.as_raw_fd(), mode, 0, surplus as libc::off_t) };
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        if self.lives() {
            // What left the group is still found below its leader, and the group by the leader's id, which
            // stays taken until it is reaped.
            tree::kill_below(self.child.id());
        }
        // SAFETY: a plain system call on the group that the runner leads; a member keeps its number taken.
        unsafe { libc::kill(-(self.child.id() as libc::pid_t), libc::SIGKILL) };
        let _ = self.child.kill();
        let _ = self.link.reap(|| self.child.wait().map(Some));
    }
}
