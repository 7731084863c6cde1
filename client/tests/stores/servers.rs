//! Servers for the length of a test: found, started on a free port of loopback, killed when dropped.
//!
//! Where a server is not installed the test says on stderr that it was skipped, unless
//! `FORESAIL_TEST_SERVERS=required` is set, as `make test` does: then it fails. Tests of other crates use
//! this file too.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::thread;
use std::time::{Duration, Instant};

use foresail_worker::data::s3::S3Settings;

#[path = "ports.rs"]
mod ports;

pub use ports::free_address;

/// Longest wait for a server to answer.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The program of a server, from `variable` or one of `places`.
///
/// # Panics
/// Where it is missing and servers are required.
pub fn program(variable: &str, places: &[PathBuf], hint: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let found = named.into_iter().chain(places.iter().cloned()).find(|path| path.is_file());
    if found.is_none() {
        let required = std::env::var("FORESAIL_TEST_SERVERS").is_ok_and(|text| text == "required");
        assert!(!required, "no program for {variable}; hint: {hint}");
        // Unlike `eprintln`, this is seen though the test passes.
        let _ = writeln!(std::io::stderr(), "skipped: no program for {variable}; hint: {hint}");
    }
    found
}

/// A program of the virtual environment of `make test`.
pub fn in_venv(name: &str) -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = own.ancestors().find(|dir| dir.join("Makefile").is_file()).unwrap_or(own);
    root.join(".venv/bin").join(name)
}

/// A server that ends with this value.
pub struct Server(Child);

impl Server {
    /// Starts it and waits until it listens.
    pub fn start(command: &mut Command, address: SocketAddr) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut server = Self(child.unwrap());
        let ends = Instant::now() + START_LIMIT;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.0.try_wait().unwrap() {
                panic!("{command:?} ended with {status}");
            }
            assert!(Instant::now() < ends, "{command:?} does not listen on {address}");
            thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// moto's server, with one bucket.
pub struct Moto {
    address: SocketAddr,
    _server: Server,
}

impl Moto {
    /// Starts it; nothing where it is not installed.
    pub fn start() -> Option<Self> {
        let hint = "`make test` installs it into .venv: pip install 'moto[server]'";
        let program = program("FORESAIL_MOTO_SERVER", &[in_venv("moto_server")], hint)?;
        static CREDENTIALS: Once = Once::new();
        // SAFETY: only Rust's own functions, which take a lock, read the environment in these tests.
        CREDENTIALS.call_once(|| unsafe {
            for (name, value) in [
                ("AWS_ACCESS_KEY_ID", "testing"),
                ("AWS_SECRET_ACCESS_KEY", "testing"),
                ("AWS_REGION", "us-east-1"),
            ] {
                std::env::set_var(name, value);
            }
        });
        let address = free_address();
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &address.port().to_string()]);
        let moto = Self { address, _server: Server::start(&mut command, address) };
        moto.ask("PUT", "/bucket", "200");
        Some(moto)
    }

    /// The bucket, reached through `address`.
    pub fn bucket_through(&self, address: SocketAddr, request_ms_max: u64) -> S3Settings {
        let text =
            format!("s3://bucket/some/place?endpoint=http://{address}&request_ms_max={request_ms_max}");
        text.parse().unwrap()
    }

    pub fn bucket(&self) -> S3Settings {
        self.bucket_through(self.address, 30_000)
    }

    /// Where it speaks the protocols of AWS.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The keys in the bucket.
    pub fn keys(&self) -> Vec<String> {
        let answer = self.ask("GET", "/bucket?list-type=2", "200");
        let keys = answer.split("<Key>").skip(1);
        keys.map(|rest| rest.split("</Key>").next().unwrap().to_owned()).collect()
    }

    /// Puts an object into the bucket.
    pub fn put(&self, key: &str, content: &str) {
        self.ask_with("PUT", &format!("/bucket/{key}"), content, "200");
    }

    fn ask(&self, method: &str, path: &str, expect: &str) -> String {
        self.ask_with(method, path, "", expect)
    }

    fn ask_with(&self, method: &str, path: &str, body: &str, expect: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let (host, len) = (self.address, body.len());
        write!(stream, "{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Length: {len}\r\n\r\n{body}")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.split(' ').nth(1) == Some(expect), "{method} {path}: {answer}");
        answer
    }
}

/// A listener that takes connections and never answers.
pub fn silence() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut taken = Vec::new();
        while let Ok((stream, _)) = listener.accept() {
            taken.push(stream);
        }
    });
    address
}

/// A way to `target` on which every connection breaks once so many bytes have gone there.
pub fn breaking_after(target: SocketAddr, bytes: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((near, _)) = listener.accept() {
            thread::spawn(move || pass_on(near, TcpStream::connect(target).unwrap(), bytes));
        }
    });
    address
}

fn pass_on(near: TcpStream, far: TcpStream, bytes: u64) {
    let (mut back_from, mut back_to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut back_from, &mut back_to);
        let _ = back_to.shutdown(std::net::Shutdown::Both);
    });
    let _ = std::io::copy(&mut (&near).take(bytes), &mut &far);
    let _ = near.shutdown(std::net::Shutdown::Both);
    let _ = far.shutdown(std::net::Shutdown::Both);
}

/// A program of the system; nothing where it is not installed.
pub fn installed(variable: &str, name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<_> = std::env::split_paths(&path).map(|dir| dir.join(name)).collect();
    program(variable, &places, &format!("sudo apt-get install {name}"))
}

/// Debian's redis-server, without files.
pub struct Redis {
    pub url: String,
    address: SocketAddr,
    _dir: tempfile::TempDir,
    server: Server,
}

impl Redis {
    /// Starts it; nothing where it is not installed.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// Starts it with more arguments.
    pub fn start_with(more: &[&str]) -> Option<Self> {
        let address = free_address();
        Self::start_at(address, &[&["--port", &address.port().to_string()], more].concat())
    }

    /// Starts it where the arguments tell it to listen.
    pub fn start_at(address: SocketAddr, arguments: &[&str]) -> Option<Self> {
        let program = installed("FORESAIL_REDIS_SERVER", "redis-server")?;
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(program);
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]).arg(dir.path());
        let server = Server::start(command.args(arguments), address);
        Some(Self { url: format!("redis://{address}"), address, _dir: dir, server })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it at once, as a loss of power would.
    pub fn kill(&mut self) {
        self.server.0.kill().unwrap();
        self.server.0.wait().unwrap();
    }

    /// Sends a command and gives the first line of the answer.
    pub fn ask(&self, command: &str) -> String {
        self.ask_all(command).lines().next().unwrap_or_default().to_owned()
    }

    /// Sends a command and gives the answer.
    pub fn ask_all(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(stream, "{command}\r\nQUIT\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Breaks every connection of a client but this one.
    pub fn kill_connections(&self) -> u64 {
        let normal = self.ask("CLIENT KILL TYPE normal");
        let waiting = self.ask("CLIENT KILL TYPE pubsub");
        [normal, waiting].iter().filter_map(|text| text.strip_prefix(':')?.parse::<u64>().ok()).sum()
    }
}
