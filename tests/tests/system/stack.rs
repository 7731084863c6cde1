//! The real binaries as processes: built once, started on free ports, killed when dropped.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Longest wait for a process to say that it listens, or to end.
pub const PROCESS_WAIT: Duration = Duration::from_secs(60);

/// Where cargo puts the binaries of this build.
pub fn binary(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let dir = BUILT.get_or_init(|| {
        let test = std::env::current_exe().expect("a test runs from a file");
        let dir = test.ancestors().nth(2).expect("tests lie in target/PROFILE/deps").to_path_buf();
        let mut build = Command::new(env!("CARGO"));
        // The very build that these tests are part of, where that has the binaries: another selection of
        // packages would have other features, and compile everything again. Benches do without the SDK of
        // AWS, whose optimised build takes longer than they do.
        let release = "build --release -p foresail-metad -p foresail-worker -p foresail --bins \
            --no-default-features --features foresail/s3,foresail-metad/nats";
        let tested = "test --workspace --no-run";
        build.args(if dir.ends_with("release") { release } else { tested }.split_whitespace());
        build.arg("--quiet").current_dir(workspace());
        assert!(build.status().expect("cargo starts").success(), "the binaries must build");
        dir
    });
    dir.join(name)
}

/// The root of the project.
pub fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A process that ends with this value.
pub struct Process {
    child: Child,
    /// The address it listens on, as `http://…`.
    pub address: String,
}

impl Process {
    /// Starts a server and reads its address from the line `… listening on http://…`.
    pub fn start(name: &str, args: &[&str]) -> Self {
        let mut child = Command::new(binary(name))
            .args(args)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the binary was built");
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let (said, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(at) = line.find("listening on http://") {
                    let _ = said.send(line[at + "listening on ".len()..].trim().to_owned());
                }
            }
        });
        let address = heard.recv_timeout(PROCESS_WAIT);
        let mut process = Self { child, address: String::new() };
        process.address = address.expect("the server says where it listens");
        process
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is ours");
    }

    /// Asks it to end and waits.
    pub fn terminate(mut self) -> std::process::ExitStatus {
        // SAFETY: kill has no memory effects; the process is our child and was not waited for.
        unsafe { libc::kill(self.pid(), libc::SIGTERM) };
        wait(&mut self.child)
    }
}

/// Waits for a child, at most [`PROCESS_WAIT`].
pub fn wait(child: &mut Child) -> std::process::ExitStatus {
    let until = Instant::now() + PROCESS_WAIT;
    loop {
        if let Some(status) = child.try_wait().expect("it is ours") {
            return status;
        }
        assert!(Instant::now() < until, "the process does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A metad on `data`; `listen` is an address with port 0 or a former address.
pub fn metad(data: &Path, listen: &str) -> Process {
    metad_with(data, listen, &[])
}

/// The same with further settings.
pub fn metad_with(data: &Path, listen: &str, settings: &[&str]) -> Process {
    let data = data.to_str().expect("a temporary directory has a plain name");
    let args = ["serve", "--listen", listen, "--data", data, "--log", "warn"];
    Process::start("metad", &[&args, settings].concat())
}
