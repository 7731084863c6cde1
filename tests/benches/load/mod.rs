//! Load on a server and what it costs: connections that are kept open, requests per second, tail, CPU,
//! memory.
//!
//! As little client as possible, so that the server is what is measured. Times in µs and s, sizes in bytes;
//! CPU and memory of a process are read from `/proc` and therefore on Linux only.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Longest wait for a piece of an answer.
const ANSWER_WAIT: Duration = Duration::from_secs(120);
/// Bytes read at once.
const PIECE_BYTES: usize = 64 * 1024;

/// What one turn of load gave.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Requests answered per second, all connections together.
    pub per_s: f64,
    /// Median time of a request in µs.
    pub p50_us: f64,
    /// Time of a request in µs that 99 of 100 stay below.
    pub p99_us: f64,
    /// Requests answered.
    pub requests: u64,
}

/// Has `clients` threads repeat what `open` gives each of them for as long as `turn`.
pub fn drive<Step: FnMut() + Send>(clients: u64, turn: Duration, open: impl Fn(u64) -> Step) -> Load {
    let ready = std::sync::Barrier::new(clients as usize);
    // All are open before any waits for the others: one that fails would leave them waiting for ever.
    let steps: Vec<Step> = (0..clients).map(open).collect();
    let client = |mut step: Step| {
        ready.wait();
        let (began, mut times_us) = (Instant::now(), Vec::new());
        let mut before = began;
        while before - began < turn {
            step();
            let now = Instant::now();
            times_us.push((now - before).as_secs_f64() * 1e6);
            before = now;
        }
        (times_us, (before - began).as_secs_f64())
    };
    let turns: Vec<(Vec<f64>, f64)> = std::thread::scope(|scope| {
        let threads: Vec<_> = steps.into_iter().map(|step| scope.spawn(move || client(step))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a client does not panic")).collect()
    });
    let took_s = turns.iter().map(|(_, took_s)| *took_s).fold(0.0, f64::max);
    let mut times_us: Vec<f64> = turns.into_iter().flat_map(|(times_us, _)| times_us).collect();
    times_us.sort_by(f64::total_cmp);
    let at = |q: f64| times_us[((times_us.len() - 1) as f64 * q) as usize];
    let requests = times_us.len() as u64;
    Load { per_s: requests as f64 / took_s, p50_us: at(0.5), p99_us: at(0.99), requests }
}

/// Load by HTTP: `request` is told the number of the connection and of the request on it.
pub fn http(
    address: &str,
    connections: u64,
    turn: Duration,
    request: impl Fn(u64, u64) -> Vec<u8> + Sync,
) -> Load {
    drive(connections, turn, |connection| {
        let (mut stream, mut number, request) = (Connection::open(address), 0, &request);
        move || {
            stream.ask(&request(connection, number));
            number += 1;
        }
    })
}

/// Host and port of `http://host:port`.
pub fn host(url: &str) -> &str {
    url.trim_start_matches("http://")
}

/// A GET of `path`.
pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n").into_bytes()
}

/// A POST of a JSON body to `path`.
pub fn post(path: &str, body: &str) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n");
    format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// An HTTP connection that is kept open.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects to `address`, a host with a port.
    pub fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("TCP");
        stream.set_read_timeout(Some(ANSWER_WAIT)).expect("TCP");
        Self { stream, buffer: Vec::new() }
    }

    /// Sends a request and reads its whole answer, which must be a success; the body as it was sent.
    pub fn ask(&mut self, request: &[u8]) -> &[u8] {
        let body = self.exchange(request);
        assert!(self.is_success(), "{}", String::from_utf8_lossy(&self.buffer));
        &self.buffer[body..]
    }

    /// The same where the server may not be ready yet: nothing unless it was a success.
    pub fn try_ask(&mut self, request: &[u8]) -> Option<&[u8]> {
        let body = self.exchange(request);
        self.is_success().then(|| &self.buffer[body..])
    }

    fn is_success(&self) -> bool {
        self.buffer.starts_with(b"HTTP/1.1 2")
    }

    /// Leaves the whole answer in the buffer and says where its body begins.
    fn exchange(&mut self, request: &[u8]) -> usize {
        self.stream.write_all(request).expect("the server reads");
        self.buffer.clear();
        let mut piece = [0; PIECE_BYTES];
        loop {
            let read = self.stream.read(&mut piece).expect("the server answers");
            assert!(read > 0, "the server closed the connection");
            self.buffer.extend_from_slice(&piece[..read]);
            if let Some(body) = whole_body(&self.buffer) {
                return body;
            }
        }
    }
}

/// Where the body of a whole answer begins; nothing while something is missing.
fn whole_body(answer: &[u8]) -> Option<usize> {
    let body = answer.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&answer[..body]).to_ascii_lowercase();
    let is_whole = match head.split("content-length:").nth(1) {
        Some(rest) => {
            let length = rest.split("\r\n").next().and_then(|text| text.trim().parse().ok());
            answer.len() - body >= length.unwrap_or(usize::MAX)
        }
        // In pieces, the last of which is empty.
        None => answer.ends_with(b"\r\n0\r\n\r\n"),
    };
    is_whole.then_some(body)
}

/// CPU time in s that a process has used.
pub fn cpu_s(pid: i32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("Linux, and the process runs");
    // The name of the program stands in brackets and may have blanks; user and system time are the fields 14
    // and 15 (proc(5)).
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = after_name.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    // SAFETY: sysconf has no preconditions.
    ticks.sum::<f64>() / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64
}

/// Memory in bytes that a process has resident, and the most it had.
pub fn resident_bytes(pid: i32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux, and the process runs");
    let kilobytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    (kilobytes("VmRSS:") << 10, kilobytes("VmHWM:") << 10)
}

/// The processes that this one has started and that run.
pub fn children(pid: i32) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("Linux").map_while(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let parent = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may have blanks in it.
        stat.rsplit_once(") ")?.1.split_whitespace().nth(1)?.parse::<i32>().ok()
    };
    pids.filter(|child| parent(child) == Some(pid)).collect()
}

/// Sum in bytes of the files of a directory.
pub fn disk_bytes(dir: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("the directory is there").map_while(Result::ok);
    entries.filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
}

/// The middle one of some measurements, by `key`.
pub fn median<T: Copy>(mut of: Vec<T>, key: impl Fn(&T) -> f64) -> T {
    of.sort_by(|a, b| key(a).total_cmp(&key(b)));
    of[of.len() / 2]
}
