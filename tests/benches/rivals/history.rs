//! Against the way without a model: history in Redis, loaded and scanned in Python for every plan
//! (`redis_history.py`).
//!
//! One task in three memory sizes, the same records on both sides. Asked is the 95th percentile at sizes and
//! memory that the history has. Times are medians over the predictions of a turn, then over the turns.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use foresail_schemas::prediction::Query;
use foresail_schemas::{Sla, WorkflowName};
use serde_json::{Value, json};

use crate::draw::Draw;
use crate::load::{self, Connection, drive, get, http, median, post};
use crate::need::{self, Missing, Rival};
use crate::resp::Redis;
use crate::stack;

/// Samples of the task that is asked about.
const SAMPLES: [u64; 4] = [100, 1_000, 10_000, 100_000];
/// Turns, of which the median is shown.
const TURNS: usize = 5;
/// Length of one turn of one side.
const TURN: Duration = Duration::from_millis(500);
/// Questions in one POST.
const QUESTIONS: usize = 1_000;
/// Most records in one batch.
const BATCH: usize = 10_000;
/// Memory sizes in MB, in turns.
const MEMORY_MB: [u32; 3] = [512, 1024, 1769];
/// Sizes that are asked about, in bytes.
const INPUT_BYTES: [u64; 4] = [2_000_000, 10_000_000, 30_000_000, 80_000_000];
/// Deviation of the logarithm of a time from its curve.
const SIGMA: f64 = 0.2;

/// The Python process; it ends with this value.
struct Python {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What one side took: to load the history or the model, and per prediction.
#[derive(Clone, Copy)]
struct Took {
    python_load_ms: f64,
    python_us: f64,
    model_load_ms: f64,
    get_us: f64,
    batch_us: f64,
    inside_us: f64,
}

/// Prints the table.
pub fn run(dir: &Path) -> Result<(), Missing> {
    let (server, python) = need::both(need::redis_server(), need::python(stack::workspace()))?;
    let redis = Rival::redis(&server, dir, &["--appendonly", "no"]);
    let mut python = Python::start(&python, &redis);
    let metad = stack::metad(&dir.join("history"), "127.0.0.1:0");
    println!("time per prediction in us, and of loading in ms: history in Redis and Python / metad");
    println!(
        "{:>8} | {:>10} {:>12} | {:>10} {:>10} {:>10} {:>10}",
        "samples", "load ms", "scan us", "model ms", "GET us", "batch us", "inside us"
    );
    for samples in SAMPLES {
        let workflow = format!("history-{samples}");
        let records = records(samples);
        fill_redis(&redis.address, &workflow, &records);
        fill_metad(&metad.address, &workflow, &records);
        let turns: Vec<Took> = (0..TURNS).map(|_| turn(&mut python, &metad.address, &workflow)).collect();
        let middle = |key: fn(&Took) -> f64| key(&median(turns.clone(), key));
        println!(
            "{samples:>8} | {:>10.1} {:>12.1} | {:>10.2} {:>10.1} {:>10.2} {:>10.2}",
            middle(|t| t.python_load_ms),
            middle(|t| t.python_us),
            middle(|t| t.model_load_ms),
            middle(|t| t.get_us),
            middle(|t| t.batch_us),
            middle(|t| t.inside_us),
        );
    }
    Ok(())
}

/// A task whose time has a fixed part, grows with the input and shrinks with memory, up to one core.
fn records(samples: u64) -> Vec<String> {
    let mut draw = Draw::new(samples);
    let record = |number: u64| {
        let memory_mb = MEMORY_MB[number as usize % MEMORY_MB.len()];
        let input_bytes = draw.log_uniform(1e6, 1e8) as u64;
        let curve_ms = 40.0 + 3e-5 * input_bytes as f64 * 1769.0 / f64::from(memory_mb);
        let exec_ms = draw.lognormal(curve_ms, SIGMA);
        let output_bytes = input_bytes / 10;
        let sizes = format!(r#""input_bytes":{input_bytes},"output_bytes":{output_bytes}"#);
        format!(r#"{{"kind":"task","task":"t","memory_mb":{memory_mb},{sizes},"exec_ms":{exec_ms:.3}}}"#)
    };
    (0..samples).map(record).collect()
}

fn fill_redis(address: &str, workflow: &str, records: &[String]) {
    let (list, set) = (format!("metrics:{workflow}:t"), format!("tasks:{workflow}"));
    let mut redis = Redis::open(address);
    redis.ask(&[b"SADD", set.as_bytes(), b"t"]);
    redis.ask_all(records.iter().map(|record| [&b"RPUSH"[..], list.as_bytes(), record.as_bytes()]));
}

fn fill_metad(url: &str, workflow: &str, records: &[String]) {
    let mut connection = Connection::open(load::host(url));
    for (number, part) in records.chunks(BATCH).enumerate() {
        let body = format!(r#"{{"batch_id":"b-{number}","records":[{}]}}"#, part.join(","));
        connection.ask(&post(&format!("/v1/workflows/{workflow}/batches"), &body));
    }
}

/// One turn of every way.
fn turn(python: &mut Python, url: &str, workflow: &str) -> Took {
    let loaded = python.ask(&json!({"workflow": workflow}));
    let scan = json!({
        "workflow": workflow, "task": "t", "ask_s": TURN.as_secs_f64(), "percentile": 95,
        "memory_mb": MEMORY_MB, "input_bytes": INPUT_BYTES,
    });
    let scanned = python.ask(&scan);
    let gets = gets(workflow);
    let asked = http(load::host(url), 1, TURN, |_, number| gets[number as usize % gets.len()].clone());
    let batch = batch(workflow);
    let batched = http(load::host(url), 1, TURN, |_, _| batch.clone());
    let (model_load_ms, inside_us) = inside(url, workflow);
    Took {
        python_load_ms: loaded["load_s"].as_f64().expect("a time") * 1e3,
        python_us: scanned["us"].as_f64().expect("a time"),
        model_load_ms,
        get_us: asked.p50_us,
        batch_us: batched.p50_us / QUESTIONS as f64,
        inside_us,
    }
}

/// Every size that is asked about.
fn sizes() -> impl Iterator<Item = (u32, u64)> + Clone {
    MEMORY_MB.into_iter().flat_map(|memory_mb| INPUT_BYTES.map(|input_bytes| (memory_mb, input_bytes)))
}

fn gets(workflow: &str) -> Vec<Vec<u8>> {
    let path = |(memory_mb, input_bytes)| {
        format!(
            "/v1/workflows/{workflow}/predictions/execution-time\
             ?task=t&input_bytes={input_bytes}&memory_mb={memory_mb}&sla=p95"
        )
    };
    sizes().map(|size| get(&path(size))).collect()
}

fn batch(workflow: &str) -> Vec<u8> {
    let query = |(memory_mb, input_bytes)| {
        let task = "t";
        json!({"kind": "execution_time", "task": task, "input_bytes": input_bytes, "memory_mb": memory_mb})
    };
    let queries: Vec<Value> = sizes().cycle().take(QUESTIONS).map(query).collect();
    let body = json!({"sla": ["p95"], "queries": queries}).to_string();
    post(&format!("/v1/workflows/{workflow}/predictions"), &body)
}

/// The way of the planner: downloads the model once (ms), then predicts in this process (µs).
fn inside(url: &str, workflow: &str) -> (f64, f64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let client = foresail::Client::connect(url, url);
    let client = runtime.block_on(client).expect("metad answers");
    let name: WorkflowName = workflow.parse().expect("letters and digits");
    let began = Instant::now();
    let model = runtime.block_on(client.model(&name)).expect("metad answers");
    let load_ms = began.elapsed().as_secs_f64() * 1e3;
    let (model, _epoch) = model.expect("the workflow was filled");
    let task: foresail_schemas::TaskName = "t".parse().expect("a letter");
    let query = |(memory_mb, input_bytes)| Query::ExecutionTime {
        task: task.clone(),
        input_bytes,
        memory_mb,
        vcpu: None,
    };
    let queries: Vec<Query> = sizes().map(query).collect();
    let load = drive(1, TURN, |_| {
        || {
            for query in queries.iter().cycle().take(QUESTIONS) {
                let answer = std::hint::black_box(model.predict(query, &[Sla::P95]));
                assert!(answer.samples > 0, "the model knows this task");
            }
        }
    });
    (load_ms, load.p50_us / QUESTIONS as f64)
}

impl Python {
    fn start(python: &Path, redis: &Rival) -> Self {
        let script = stack::workspace().join("tests/benches/rivals/redis_history.py");
        let port = redis.address.rsplit(':').next().unwrap_or_default();
        let mut command = Command::new(python);
        command.arg(script).arg(port).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("Python was found");
        let commands = child.stdin.take().expect("stdin is a pipe");
        let answers = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        Self { child, commands, answers }
    }

    fn ask(&mut self, command: &Value) -> Value {
        writeln!(self.commands, "{command}").expect("Python reads");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("Python answers");
        serde_json::from_str(&line).expect("it answers in JSON, or has said on stderr why not")
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
