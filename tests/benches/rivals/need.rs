//! The programs of the rivals: found or named, started on loopback, ended with the value that holds them.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for a rival to take requests.
const READY_WAIT: Duration = Duration::from_secs(60);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// What is missing, one line for each thing, with the command that installs it.
pub struct Missing(String);

impl Missing {
    fn new(what: &str, command: &str) -> Self {
        Self(format!("{what} is missing\n  hint: {command}"))
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Two things that are needed together.
pub fn both<A, B>(a: Result<A, Missing>, b: Result<B, Missing>) -> Result<(A, B), Missing> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(a), Err(b)) => Err(Missing(format!("{a}\n{b}"))),
        (Err(missing), _) | (_, Err(missing)) => Err(missing),
    }
}

/// `redis-server`.
pub fn redis_server() -> Result<PathBuf, Missing> {
    program("redis-server", "sudo apt-get install redis-server")
}

/// `prometheus`.
pub fn prometheus() -> Result<PathBuf, Missing> {
    program("prometheus", "sudo apt-get install prometheus")
}

/// A Python with the package `redis`.
pub fn python(root: &Path) -> Result<PathBuf, Missing> {
    python_with(root, "redis", "redis")
}

/// A Python that can import `module`, which `package` brings: `FORESAIL_BENCH_PYTHON`, that of `.venv`, or
/// `python3`.
pub fn python_with(root: &Path, module: &str, package: &str) -> Result<PathBuf, Missing> {
    let venv = root.join(".venv/bin/python");
    let python = match std::env::var_os("FORESAIL_BENCH_PYTHON").filter(|given| !given.is_empty()) {
        Some(given) => PathBuf::from(given),
        None if venv.exists() => venv,
        None => PathBuf::from("python3"),
    };
    let mut import = Command::new(&python);
    import.args(["-c", &format!("import {module}")]).stdout(Stdio::null()).stderr(Stdio::null());
    match import.status() {
        Ok(status) if status.success() => Ok(python),
        _ => {
            let what = format!("the Python package `{package}` (for `{}`)", python.display());
            let command = format!("python3 -m venv .venv && .venv/bin/pip install '{package}'");
            Err(Missing::new(&what, &command))
        }
    }
}

fn program(name: &str, command: &str) -> Result<PathBuf, Missing> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
    found.ok_or_else(|| Missing::new(&format!("the program `{name}`"), command))
}

/// A rival that runs until this is dropped.
pub struct Rival {
    child: Child,
    /// Where it listens, as host and port.
    pub address: String,
}

impl Rival {
    /// Starts a program that is to listen on `port` of loopback, and waits until it does.
    pub fn start(command: &mut Command, port: u16) -> Self {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = quiet.spawn().expect("the program was found");
        let rival = Self { child, address: format!("127.0.0.1:{port}") };
        wait_until("the rival listens", || TcpStream::connect(&rival.address).is_ok());
        rival
    }

    /// A Redis that keeps its files in `dir`, with further settings.
    pub fn redis(program: &Path, dir: &Path, settings: &[&str]) -> Self {
        let port = free_port();
        let mut command = Command::new(program);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--dir"]).arg(dir);
        Self::start(command.args(settings), port)
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port of loopback that nobody listens on at the moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// Looks again and again until `is_so`.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + READY_WAIT;
    while !is_so() {
        assert!(Instant::now() < until, "waited for nothing: {what}");
        std::thread::sleep(LOOK);
    }
}
