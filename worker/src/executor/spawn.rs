//! Starts a program without a copy of the worker's address space.
//!
//! `fork` copies the page tables of the worker, and both sides then take a fault for each page that they
//! touch: for a brief command that is most of its time. Here the child runs in the memory of the worker, on a
//! stack of its own, while the thread that starts it stands still, until it has become the program
//! (`CLONE_VM` and `CLONE_VFORK`, clone(2); as `posix_spawn` of the C library does, which cannot ask for
//! `PR_SET_PDEATHSIG`). Between, only system calls: nothing that takes memory or a lock.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// Stack of the child until it is the program, in bytes; it calls a few functions deep.
const STACK_BYTES: usize = 64 << 10;
/// What a shell would report of a program that cannot be run. Nobody sees it: the error is told instead.
const EXIT_NOT_STARTED: libc::c_int = 127;
/// Signals are numbered from 1 up to here.
const SIGNAL_MAX: libc::c_int = 64;
/// How much sooner than its worker a program is ended when memory runs out (see proc(5), `oom_score_adj`).
const OOM_SCORE: &[u8] = b"500";

/// A program that is to be started, in a process group that it leads.
#[derive(Debug)]
pub(super) struct Program {
    /// Its file, an absolute path.
    pub file: &'static CStr,
    /// Its arguments, the name of the program first.
    pub arguments: Vec<CString>,
    /// Its environment, as `NAME=value`.
    pub environment: Vec<CString>,
    /// Its working directory.
    pub dir: CString,
    /// Its standard input, output and error.
    pub streams: [OwnedFd; 3],
}

/// What the child needs, made before it begins: it takes no memory.
struct Start {
    file: *const libc::c_char,
    arguments: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
    dir: *const libc::c_char,
    streams: [RawFd; 3],
    /// Number of the error for which the program does not run; 0 where it does.
    error: libc::c_int,
}

impl Program {
    /// Starts it; gives the id of its process, which the caller has to wait for. It ends with the thread that
    /// calls this.
    ///
    /// # Errors
    /// When there is no room for another process, the directory is gone, or the file cannot be run.
    pub fn start(&self) -> io::Result<u32> {
        // A stream that has the number of another's target would be overwritten before it is taken.
        let [stdin, stdout, stderr] = &self.streams;
        let streams = [above_standard(stdin)?, above_standard(stdout)?, above_standard(stderr)?];
        let mut start = Start {
            file: self.file.as_ptr(),
            arguments: pointers(&self.arguments),
            environment: pointers(&self.environment),
            dir: self.dir.as_ptr(),
            streams: streams.each_ref().map(AsRawFd::as_raw_fd),
            error: 0,
        };
        let mut stack: Vec<MaybeUninit<u128>> = Vec::with_capacity(STACK_BYTES / size_of::<u128>());
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: `become_program` gets a valid `Start` that nobody else refers to until this thread goes on,
        // which is when the child has left this memory; its stack is as long-lived, aligned, and grows down
        // from its end. No signal handler runs in the child: all signals are blocked until it has none.
        let pid = unsafe {
            let top = stack.as_mut_ptr().add(stack.capacity());
            let mut all = MaybeUninit::<libc::sigset_t>::uninit();
            let mut before = MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            let pid = libc::clone(become_program, top.cast(), flags, (&raw mut start).cast());
            let error = *libc::__errno_location();
            libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
            if pid < 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            pid
        };
        // SAFETY: written by the child before this thread went on, if at all.
        let error = unsafe { ptr::read_volatile(&raw const start.error) };
        if error != 0 {
            // SAFETY: a plain system call on a child of our own that is ending.
            unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
            return Err(io::Error::from_raw_os_error(error));
        }
        Ok(pid as u32)
    }
}

/// `NAME=value`.
///
/// # Errors
/// When there is a zero byte in it.
pub(super) fn variable(name: &OsStr, value: &OsStr) -> io::Result<CString> {
    c_string([name.as_bytes(), b"=", value.as_bytes()].concat())
}

/// A path as the system takes it.
///
/// # Errors
/// When there is a zero byte in it.
pub(super) fn path(path: &Path) -> io::Result<CString> {
    c_string(path.as_os_str().as_bytes().to_vec())
}

/// A text as the system takes it.
///
/// # Errors
/// When there is a zero byte in it.
pub(super) fn c_string(text: Vec<u8>) -> io::Result<CString> {
    CString::new(text).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

/// The same file under a number that is not one of the three standard streams, closed when a program begins.
fn above_standard(stream: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes numbers; what it gives is a new descriptor that nobody else owns.
    unsafe {
        let copy = libc::fcntl(stream.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3);
        if copy < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(copy)) }
    }
}

extern "C" fn become_program(start: *mut libc::c_void) -> libc::c_int {
    let start: *mut Start = start.cast();
    // SAFETY: see `Program::start`; the child only calls into the system.
    unsafe {
        prepare_and_run(&*start);
        ptr::write_volatile(&raw mut (*start).error, (*libc::__errno_location()).max(1));
        libc::_exit(EXIT_NOT_STARTED)
    }
}

/// Returns where the program cannot be run; the C library has the error then.
unsafe fn prepare_and_run(start: &Start) {
    // SAFETY: system calls on pointers that live until this thread goes on, see `Program::start`.
    unsafe {
        default_signals();
        for (stream, number) in start.streams.iter().zip(0..) {
            if libc::dup2(*stream, number) < 0 {
                return;
            }
        }
        if libc::setpgid(0, 0) < 0 || libc::chdir(start.dir) < 0 {
            return;
        }
        end_with_worker();
        libc::execve(start.file, start.arguments.as_ptr(), start.environment.as_ptr());
    }
}

/// A program begins with no signal blocked, and is ended by a pipe that nobody reads, which Rust ignores.
/// What the worker was told to ignore the program ignores too.
unsafe fn default_signals() {
    // SAFETY: all-zero values are valid, and filled by the calls.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        for signal in 1..=SIGNAL_MAX {
            let known = libc::sigaction(signal, ptr::null(), &raw mut action) == 0;
            let is_ignored = action.sa_sigaction == libc::SIG_IGN && signal != libc::SIGPIPE;
            if known && action.sa_sigaction != libc::SIG_DFL && !is_ignored {
                let default: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, &raw const default, ptr::null_mut());
            }
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Ends the process with the thread that starts it, and before its worker when memory runs out. For the time
/// between fork and exec.
pub(super) fn end_with_worker() {
    // SAFETY: plain system calls on constants; a failure of either only loses a convenience.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let file = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY);
        if file >= 0 {
            libc::write(file, OOM_SCORE.as_ptr().cast(), OOM_SCORE.len());
            libc::close(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek};
    use std::process::Command;

    use super::*;

    fn program(line: &str, dir: &Path, stdout: &File) -> Program {
        let text = |text: &str| c_string(text.as_bytes().to_vec()).unwrap();
        let null = || OwnedFd::from(File::options().read(true).write(true).open("/dev/null").unwrap());
        Program {
            file: c"/bin/sh",
            arguments: ["sh", "-c", line].map(text).to_vec(),
            environment: vec![variable(OsStr::new("A"), OsStr::new("b c")).unwrap()],
            dir: path(dir).unwrap(),
            streams: [null(), stdout.try_clone().unwrap().into(), null()],
        }
    }

    fn waited(pid: u32) -> i32 {
        let mut status = 0;
        // SAFETY: a plain system call on a child of our own.
        assert_eq!(unsafe { libc::waitpid(pid as libc::pid_t, &raw mut status, 0) }, pid as libc::pid_t);
        status
    }

    #[test]
    fn a_program_has_its_directory_environment_streams_and_group() {
        let dir = tempfile::tempdir().unwrap();
        let mut stdout = tempfile::tempfile().unwrap();
        let line = "pwd -P; env | grep '^A='; env | wc -l; set -- /proc/$$/fd/*; echo $#; \
                    cut -d' ' -f5 /proc/$$/stat";
        let pid = program(line, dir.path(), &stdout).start().unwrap();
        assert_eq!(waited(pid), 0);
        let mut said = String::new();
        stdout.rewind().unwrap();
        stdout.read_to_string(&mut said).unwrap();
        let lines: Vec<&str> = said.lines().map(str::trim).collect();
        assert_eq!(lines[0], dir.path().canonicalize().unwrap().to_str().unwrap());
        assert_eq!(lines[1], "A=b c");
        let variables: usize = lines[2].parse().unwrap();
        assert!(variables <= 4, "a shell adds PWD and the like: {said}");
        // A test may have been started with more than its standard streams.
        let beside =
            Command::new("sh").args(["-c", "set -- /proc/$$/fd/*; echo $#"]).output().unwrap().stdout;
        let beside = String::from_utf8(beside).unwrap();
        assert_eq!(lines[3], beside.trim(), "no descriptor of the worker is open: {said}");
        assert_eq!(lines[4], pid.to_string());
    }

    #[test]
    fn no_signal_is_blocked_and_a_closed_pipe_ends_the_program() {
        let dir = tempfile::tempdir().unwrap();
        let mut stdout = tempfile::tempfile().unwrap();
        let line = "grep -E '^Sig(Blk|Cgt)|^SigIgn' /proc/self/status";
        assert_eq!(waited(program(line, dir.path(), &stdout).start().unwrap()), 0);
        let mut said = String::new();
        stdout.rewind().unwrap();
        stdout.read_to_string(&mut said).unwrap();
        let of = |name: &str| {
            let line = said.lines().find(|line| line.starts_with(name)).unwrap();
            u64::from_str_radix(line.rsplit('\t').next().unwrap(), 16).unwrap()
        };
        assert_eq!((of("SigBlk"), of("SigIgn") & (1 << (libc::SIGPIPE - 1))), (0, 0), "{said}");
    }

    #[test]
    fn what_cannot_be_started_says_why_and_leaves_no_process() {
        let stdout = tempfile::tempfile().unwrap();
        let error = program("true", Path::new("/no/such"), &stdout).start().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let dir = tempfile::tempdir().unwrap();
        let mut lacking = program("true", dir.path(), &stdout);
        lacking.file = c"/etc/passwd";
        assert_eq!(lacking.start().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn many_threads_start_programs_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let dir = dir.path();
                scope.spawn(move || {
                    for _ in 0..20 {
                        let stdout = tempfile::tempfile().unwrap();
                        let line = format!("exit {number}");
                        assert_eq!(waited(program(&line, dir, &stdout).start().unwrap()), number << 8);
                    }
                });
            }
        });
    }
}
