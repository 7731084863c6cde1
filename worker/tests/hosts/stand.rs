//! What the tests share: a store of runs in this process, worker programs as processes of their own.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use foresail_schemas::run::RunCreated;
use foresail_schemas::{ResourceConfig, Workflow};
use foresail_worker::api::{Api, REQUEST_LIMIT};
use foresail_worker::host::conformance;
use serde_json::json;

use crate::store::Store;

/// A store of runs with a directory; both end with it.
pub struct Stand {
    pub url: String,
    pub dir: tempfile::TempDir,
}

impl Stand {
    pub fn start() -> Self {
        Self { url: Store::start().url, dir: tempfile::tempdir().unwrap() }
    }
}

impl Stand {
    /// A directory of its own.
    pub fn data(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// A run of one task that sleeps so long.
    pub fn run_that_sleeps_ms(&self, sleep_ms: u64) -> String {
        let task = json!({"id": "t", "name": "t",
            "run": {"function": "foresail.burn", "params": {"sleep_ms": sleep_ms}}});
        let workflow: Workflow = serde_json::from_value(json!({"name": "w", "tasks": [task]})).unwrap();
        let plan = conformance::plan(&workflow, size(256)).unwrap();
        let body = json!({"workflow": workflow, "plan": plan});
        let api = Api::new(&self.url, None).unwrap();
        let created: RunCreated = block_on(api.post("/v1/runs", &body, REQUEST_LIMIT)).unwrap();
        created.run.to_string()
    }
}

/// A server of the worker program; it ends when dropped.
pub struct Program {
    child: Child,
    pub url: String,
}

impl Program {
    pub fn start(args: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(program());
        command.args(args).envs(environment.iter().copied()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().split_once("listening on ").unwrap().1.to_owned();
        Self { child, url }
    }

    /// Waits until it has ended by itself.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // SAFETY: a plain system call on a process that this test started and has not waited for.
            unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        }
        let _ = self.child.wait();
    }
}

/// The arguments of a worker that listens wherever it can.
pub fn serving<'a>(host: &'a str, data: &'a str) -> Vec<&'a str> {
    vec!["serve", "--listen", "127.0.0.1:0", "--host", host, "--data", data]
}

pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_foresail-worker"))
}

pub fn size(memory_mb: u32) -> ResourceConfig {
    ResourceConfig::new(memory_mb, None).unwrap()
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
