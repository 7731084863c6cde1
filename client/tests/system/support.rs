//! What the tests share: the binary, its output, a limit on every wait.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longest time that anything in these tests may take.
pub const LIMIT: Duration = Duration::from_secs(120);

/// The binary with a data directory of its own and without the environment of whoever runs the tests.
pub fn foresail(data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foresail"));
    command.args(args).arg("--data").arg(data).stdin(Stdio::null());
    for name in ["FORESAIL_METAD", "FORESAIL_HOST", "FORESAIL_METAD_TOKEN", "FORESAIL_DATA", "FORESAIL_LOG"] {
        command.env_remove(name);
    }
    command
}

/// What a command wrote and how it ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// The data as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs a command to its end.
pub fn run(data: &Path, args: &[&str]) -> Ended {
    finish(&mut foresail(data, args))
}

/// Runs a command that was changed first to its end.
pub fn finish(command: &mut Command) -> Ended {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let watched = ended.clone();
    // Without this a hanging command would hang the tests: reading its output has no limit.
    let watch = std::thread::spawn(move || {
        let until = Instant::now() + LIMIT;
        while !watched.load(std::sync::atomic::Ordering::SeqCst) {
            if Instant::now() > until {
                signal(pid, "KILL");
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let _ = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    ended.store(true, std::sync::atomic::Ordering::SeqCst);
    watch.join().unwrap();
    output.into()
}

/// Sends a signal to one process.
pub fn signal(pid: u32, name: &str) {
    Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().unwrap();
}

/// Waits until `is_so`, [`LIMIT`] at most.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < until, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ids of the processes whose command line contains `text`.
pub fn processes(text: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(text) {
            found.push(pid);
        }
    }
    found
}

/// A child that is killed when the test ends, however it ends.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `foresail up` on free ports, and the addresses that it tells.
pub fn stack(data: &Path, more: &[&str]) -> (Running, serde_json::Value) {
    let args = [&["up", "--listen", "127.0.0.1:0", "-o", "ndjson"], more].concat();
    let mut command = foresail(data, &args);
    let mut up = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(up.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (up, serde_json::from_str(&line).unwrap())
}

/// The files of this name anywhere below a folder.
pub fn files_named(folder: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_named(&path, name));
        } else if path.file_name().is_some_and(|file| file == name) {
            found.push(path);
        }
    }
    found
}
