//! Debian's nats-server for the length of a test: started on a free port of loopback, stopped and started
//! again over the same files, killed when dropped.
//!
//! Where it is not installed the test says on stderr that it was skipped, unless
//! `FORESAIL_TEST_SERVERS=required` is set, as `make test` does: then it fails.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::ports::free_address;

/// Longest wait for the server to listen.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The server, with JetStream in a directory of its own.
pub struct Nats {
    program: PathBuf,
    port: u16,
    files: TempDir,
    child: Option<Child>,
}

impl Nats {
    /// Starts it; nothing where it is not installed.
    pub fn start() -> Option<Self> {
        let port = free_address().port();
        let mut nats = Self { program: program()?, port, files: tempfile::tempdir().unwrap(), child: None };
        nats.up();
        Some(nats)
    }

    /// Starts it again over what it had.
    pub fn up(&mut self) {
        let mut command = Command::new(&self.program);
        command.args(["-js", "-a", "127.0.0.1", "-p", &self.port.to_string(), "-sd"]).arg(self.files.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.child = Some(child.unwrap());
        let ends = Instant::now() + START_LIMIT;
        while TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], self.port))).is_err() {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("{command:?} ended with {status}");
            }
            assert!(Instant::now() < ends, "{command:?} does not listen");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it.
    pub fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Forgets everything; it is down.
    pub fn forget(&mut self) {
        self.files = tempfile::tempdir().unwrap();
    }

    /// The server itself.
    pub fn server(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The log of the tests.
    pub fn log(&self) -> String {
        format!("{}?stream=tests", self.server())
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.down();
    }
}

fn program() -> Option<PathBuf> {
    let named = std::env::var_os("FORESAIL_NATS_SERVER").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian has it among the programs of the system.
    let places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found =
        named.into_iter().chain(places.map(|dir| dir.join("nats-server"))).find(|path| path.is_file());
    if found.is_none() {
        let hint = "no program for FORESAIL_NATS_SERVER; hint: sudo apt-get install nats-server";
        let required = std::env::var("FORESAIL_TEST_SERVERS").is_ok_and(|text| text == "required");
        assert!(!required, "{hint}");
        // Unlike `eprintln`, this is seen though the test passes.
        let _ = writeln!(std::io::stderr(), "skipped: {hint}");
    }
    found
}
