//! Speed beside the limit: metad against a bare axum server and a bare fdatasync, planners by graph size.
//!
//! `cargo bench -p foresail-tests` prints one line per question. Pairs run in turns within one run and the
//! ratio is the median over the turns, so that a noisy machine moves both sides. Absolute numbers are of this
//! machine and moment.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foresail_schemas::plan::{Objective, Problem};
use foresail_schemas::workflow::{Input, Task, Work, WorkflowSpec};
use foresail_schemas::{ObjectName, Platform, Sla, Workflow};

#[allow(dead_code, reason = "the system tests use more of it")]
#[path = "../tests/system/stack.rs"]
mod stack;

/// Turns of each pair.
const TURNS: usize = 5;
/// Length of one turn.
const TURN: Duration = Duration::from_millis(800);
/// Records in a batch.
const RECORDS: u64 = 100;

fn main() {
    // `cargo test --benches` only checks that it builds.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let metad = stack::metad(dir.path(), "127.0.0.1:0");
    let address = metad.address.trim_start_matches("http://").to_owned();
    let bare = bare_axum();
    println!("{:<58} {:>12} {:>12} {:>7}", "", "measured", "limit", "ratio");
    seed(&address);
    for connections in [1, 8, 64] {
        let path = "/v1/workflows/bench/predictions/execution-time\
                    ?task=t1&input_bytes=5000&memory_mb=1769&sla=median,p95";
        let prediction = Arc::new(move |_| get(path));
        let hello = Arc::new(|_| get("/hello"));
        let what = format!("GET prediction / bare axum hello, {connections} connections, 1/s");
        pair(
            &what,
            || load(&address, connections, prediction.clone()),
            || load(&bare, connections, hello.clone()),
        );
    }
    let counter = Arc::new(AtomicU64::new(0));
    for connections in [1, 8] {
        let next = counter.clone();
        let batch = Arc::new(move |_| post_batch(next.fetch_add(1, Ordering::Relaxed)));
        let what = format!("durable batches of 100 / bare fdatasync, {connections} connections, 1/s");
        let file = dir.path().join("fdatasync");
        pair(&what, || load(&address, connections, batch.clone()), || fdatasync(&file));
    }
    planners();
}

/// Runs both sides in turns and prints medians.
fn pair(what: &str, mut ours: impl FnMut() -> f64, mut limit: impl FnMut() -> f64) {
    let mut turns: Vec<(f64, f64)> = (0..TURNS).map(|_| (ours(), limit())).collect();
    turns.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
    let (measured, bound) = turns[TURNS / 2];
    println!("{what:<58} {measured:>12.0} {bound:>12.0} {:>7.2}", measured / bound);
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n").into_bytes()
}

fn post_batch(number: u64) -> Vec<u8> {
    let records: Vec<String> = (0..RECORDS)
        .map(|r| {
            let (task, exec_ms) = (r % 4, 100 + (number + r) % 37);
            format!(
                r#"{{"kind":"task","task":"t{task}","memory_mb":1769,"input_bytes":50,"exec_ms":{exec_ms}}}"#
            )
        })
        .collect();
    let body = format!(r#"{{"batch_id":"bench-{number}","records":[{}]}}"#, records.join(","));
    let head =
        "POST /v1/workflows/bench/batches HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n";
    format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn seed(address: &str) {
    let mut connection = Connection::open(address);
    (0..20).for_each(|number| connection.ask(&post_batch(u64::MAX - number)));
}

/// Requests per second over one turn.
fn load(address: &str, connections: u64, request: Arc<dyn Fn(u64) -> Vec<u8> + Send + Sync>) -> f64 {
    let stop = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let threads: Vec<_> = (0..connections)
        .map(|at| {
            let (stop, request, address) = (stop.clone(), request.clone(), address.to_owned());
            std::thread::spawn(move || {
                let mut connection = Connection::open(&address);
                let mut done = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    connection.ask(&request(at));
                    done += 1;
                }
                done
            })
        })
        .collect();
    std::thread::sleep(TURN);
    stop.store(true, Ordering::Relaxed);
    let done: u64 = threads.into_iter().map(|thread| thread.join().expect("a client does not panic")).sum();
    done as f64 / began.elapsed().as_secs_f64()
}

/// A connection that is kept open; as little client as possible, so that the server is what is measured.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("TCP");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("TCP");
        Self { stream, buffer: Vec::new() }
    }

    /// Sends a request and reads its whole answer, which must be a success.
    fn ask(&mut self, request: &[u8]) {
        self.stream.write_all(request).expect("the server reads");
        self.buffer.clear();
        let mut piece = [0; 16 * 1024];
        loop {
            let read = self.stream.read(&mut piece).expect("the server answers");
            assert!(read > 0, "the server closed the connection");
            self.buffer.extend_from_slice(&piece[..read]);
            if let Some(end) = self.answer_end() {
                assert!(self.buffer.len() >= end, "an answer is whole");
                break;
            }
        }
        assert!(self.buffer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&self.buffer));
    }

    fn answer_end(&self) -> Option<usize> {
        let head_end = self.buffer.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&self.buffer[..head_end]).to_ascii_lowercase();
        let length: usize =
            head.split("content-length:").nth(1)?.split("\r\n").next()?.trim().parse().ok()?;
        (self.buffer.len() >= head_end + length).then_some(head_end + length)
    }
}

/// A bare axum server on one current_thread runtime; its address.
fn bare_axum() -> String {
    let (said, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            said.send(listener.local_addr().expect("bound").to_string()).expect("somebody listens");
            let routes = axum::Router::new().route("/hello", axum::routing::get(|| async { "hello" }));
            axum::serve(listener, routes).await.expect("it serves until the process ends");
        });
    });
    heard.recv().expect("the server says where it listens")
}

/// Appends of a batch's size to a file, each followed by fdatasync, per second.
fn fdatasync(path: &std::path::Path) -> f64 {
    let mut file =
        std::fs::File::options().create(true).append(true).open(path).expect("a writable directory");
    let content = vec![7_u8; 4096];
    let began = Instant::now();
    let mut done = 0_u64;
    while began.elapsed() < TURN {
        file.write_all(&content).expect("room on the disk");
        file.sync_data().expect("the disk works");
        done += 1;
    }
    done as f64 / began.elapsed().as_secs_f64()
}

/// Layers of tasks that each read three objects of the layer before.
fn layered(width: usize, depth: usize) -> Workflow {
    let name = |text: String| text.parse().expect("letters and digits");
    let mut tasks = Vec::with_capacity(width * depth);
    for layer in 0..depth {
        for at in 0..width {
            let work =
                Work::Function { function: "f".parse().expect("a letter"), params: serde_json::Value::Null };
            let id = format!("t{layer}-{at}").parse().expect("letters and digits");
            let mut task = Task::new(id, format!("f{}", at % 7).parse().expect("letters and digits"), work);
            task.hint.exec_ms = Some(50.0 + ((at * 31 + layer * 17) % 400) as f64);
            for parent in [at, (at + 1) % width, (at * 7 + 3) % width].into_iter().filter(|_| layer > 0) {
                let parent = name(format!("t{}-{parent}", layer - 1));
                task.inputs.push(Input::Task { task: parent, output: ObjectName::default() });
            }
            tasks.push(task);
        }
    }
    let name = "layered".parse().expect("letters");
    WorkflowSpec { name, description: None, tasks }.check().expect("edges go from layer to layer")
}

fn planners() {
    println!(
        "\n{:<24} {:>10} {:>12} {:>14} {:>14}",
        "planner", "tasks", "plan ms", "makespan/LB_T", "cost/LB_C"
    );
    let platform = Platform::built_in().into_iter().find(|p| p.name.as_str() == "aws-lambda-x86");
    let platform = platform.expect("it is built in");
    for (width, depth) in [(50, 20), (200, 50)] {
        let workflow = layered(width, depth);
        let predictions = foresail_planner::blind_table(&workflow, &platform, Sla::MEDIAN);
        let (objective, platform) = (Objective::Fastest, platform.clone());
        let problem = Problem { workflow, platform, predictions, objective, seed: 1 };
        for planner in foresail_planner::planners() {
            let mut times: Vec<(f64, _)> = (0..3)
                .map(|_| {
                    let began = Instant::now();
                    let plan = planner.plan(&problem).expect("a plan");
                    (began.elapsed().as_secs_f64() * 1000.0, plan.bounds)
                })
                .collect();
            times.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (plan_ms, bounds) = times[1];
            let (name, tasks) = (planner.name(), width * depth);
            let (time, cost) = (bounds.makespan_ratio, bounds.cost_ratio);
            println!("{name:<24} {tasks:>10} {plan_ms:>12.1} {time:>14.2} {cost:>14.2}");
        }
    }
}
