//! Beside Prometheus: `histogram_quantile` over classic histograms of the same samples, questions per second
//! and error against the exact quantiles of the samples.
//!
//! Every (task, memory size) is one series of drawn times, half of the tasks lognormal, half with two modes.
//! Prometheus scrapes them from an exporter as two histograms: the buckets that its client libraries have by
//! default, and finer ones that grow by a fifth. The counters stand still, so that the question needs no
//! `rate`, which would only cost it more.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::draw::Draw;
use crate::load::{self, Connection, Load, cpu_s, get, http, median, post};
use crate::need::{self, Missing, Rival, free_port, wait_until};
use crate::stack;

/// Tasks; the series are these times the memory sizes.
const TASKS: usize = 20;
/// Memory sizes in MB.
const MEMORY_MB: [u32; 5] = [512, 1024, 1769, 3538, 7076];
/// Samples of a series.
const SAMPLES: usize = 2_000;
/// Input size of every execution in bytes: the histograms know none.
const INPUT_BYTES: u64 = 1_000_000;
/// When the first sample was taken, in s since the Unix epoch: the beginning of 2026.
const EPOCH_S: i64 = 1_767_225_600;
/// Seconds whose samples share a batch.
const BATCH_SECONDS: usize = 20;
/// Connections.
const CONNECTIONS: u64 = 8;
/// Turns of each side.
const TURNS: usize = 5;
/// Length of one turn.
const TURN: Duration = Duration::from_secs(2);
/// The quantiles asked for, with the names that metad has for them.
const QUANTILES: [(f64, &str); 3] = [(0.5, "median"), (0.95, "p95"), (0.99, "p99")];
/// Upper ends in s of the buckets that the client libraries of Prometheus have by default.
const DEFAULT_S: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// First and last upper end in s of the finer buckets, and how much one is larger than the one before.
const FINE_S: (f64, f64, f64) = (0.005, 60.0, 1.2);

/// The times of one task at one memory size.
struct Series {
    task: String,
    memory_mb: u32,
    shape: &'static str,
    times_ms: Vec<f64>,
    sorted_ms: Vec<f64>,
}

/// Prints questions per second and errors.
pub fn run(dir: &Path) -> Result<(), Missing> {
    let program = need::prometheus()?;
    let series = series();
    let metad = stack::metad(&dir.join("quantiles"), "127.0.0.1:0");
    let ours = load::host(&metad.address);
    fill_metad(ours, &series);
    let prometheus = prometheus(&program, dir, &exporter(exposition(&series)));
    let theirs = &prometheus.address;
    wait_until("the series were scraped", || {
        let last = series.last().expect("there are series");
        ask_prometheus(&mut Connection::open(theirs), "fine", last, 0.5).is_some()
    });
    println!(
        "{} series of {SAMPLES} samples, {CONNECTIONS} connections: questions per second and CPU of each",
        series.len()
    );
    println!(
        "{:<48} {:>10} {:>10} {:>8} {:>10} {:>10} {:>8}",
        "", "metad", "Prometheus", "ratio", "metad us", "Prom. us", "ratio"
    );
    let sides = Sides { ours, theirs, pids: (metad.pid(), prometheus.pid()) };
    ["default", "fine"].into_iter().for_each(|buckets| sides.speed(&series, buckets));
    errors(ours, theirs, &series);
    Ok(())
}

/// The medians of a task grow from 20 ms to 4 s and shrink with memory.
fn series() -> Vec<Series> {
    let mut all = Vec::new();
    for task in 0..TASKS {
        for (place, memory_mb) in MEMORY_MB.into_iter().enumerate() {
            let mut draw = Draw::new((task * MEMORY_MB.len() + place) as u64);
            let median_ms = 20.0 * 200_f64.powf(task as f64 / TASKS as f64) / (1.0 + place as f64 / 4.0);
            let shape = if task % 2 == 0 { "lognormal" } else { "two modes" };
            let time_ms = |_| match shape {
                "lognormal" => draw.lognormal(median_ms, 0.4),
                _ if draw.uniform() < 0.7 => draw.lognormal(median_ms, 0.08),
                _ => draw.lognormal(3.0 * median_ms, 0.08),
            };
            let times_ms: Vec<f64> = (0..SAMPLES).map(time_ms).collect();
            let mut sorted_ms = times_ms.clone();
            sorted_ms.sort_by(f64::total_cmp);
            all.push(Series { task: format!("t{task}"), memory_mb, shape, times_ms, sorted_ms });
        }
    }
    all
}

impl Series {
    /// The quantile of the samples themselves, between the closest ranks.
    fn exact_ms(&self, q: f64) -> f64 {
        let place = (self.sorted_ms.len() - 1) as f64 * q;
        let (low, high) = (self.sorted_ms[place as usize], self.sorted_ms[place.ceil() as usize]);
        low + (high - low) * place.fract()
    }
}

/// The samples as workers send them: those of one second after those of the second before, all series mixed.
fn fill_metad(address: &str, series: &[Series]) {
    let mut connection = Connection::open(address);
    for first in (0..SAMPLES).step_by(BATCH_SECONDS) {
        let seconds = first..first + BATCH_SECONDS;
        let records = seconds.flat_map(|second| series.iter().map(move |s| record(s, second)));
        let records: Vec<Value> = records.collect();
        let body = json!({"batch_id": format!("b-{first}"), "records": records}).to_string();
        connection.ask(&post("/v1/workflows/rivals/batches", &body));
    }
}

fn record(s: &Series, second: usize) -> Value {
    let at = jiff::Timestamp::from_second(EPOCH_S + second as i64).expect("a time in 2026");
    json!({
        "kind": "task", "task": s.task, "memory_mb": s.memory_mb, "input_bytes": INPUT_BYTES,
        "exec_ms": s.times_ms[second], "at": at,
    })
}

/// All series in the text format of Prometheus.
fn exposition(series: &[Series]) -> String {
    let (first, last, growth) = FINE_S;
    let fine: Vec<f64> =
        std::iter::successors(Some(first), |s| Some(s * growth).filter(|s| *s < last)).collect();
    let mut text = String::new();
    for (buckets, ends) in [("default", &DEFAULT_S[..]), ("fine", &fine)] {
        writeln!(text, "# TYPE exec_seconds_{buckets} histogram").expect("memory");
        for s in series {
            let (name, labels) = (format!("exec_seconds_{buckets}"), selector(s));
            for end in ends {
                let below = s.sorted_ms.partition_point(|ms| ms / 1e3 <= *end);
                writeln!(text, "{name}_bucket{{{labels},le=\"{end}\"}} {below}").expect("memory");
            }
            writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {SAMPLES}").expect("memory");
            let sum_s = s.sorted_ms.iter().sum::<f64>() / 1e3;
            writeln!(text, "{name}_sum{{{labels}}} {sum_s}\n{name}_count{{{labels}}} {SAMPLES}")
                .expect("memory");
        }
    }
    text
}

/// Serves `text` as metrics; its address.
fn exporter(text: String) -> String {
    let (said, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            said.send(listener.local_addr().expect("bound").to_string()).expect("somebody listens");
            let answer = move || std::future::ready(text.clone());
            let routes = axum::Router::new().route("/metrics", axum::routing::get(answer));
            axum::serve(listener, routes).await.expect("it serves until the process ends");
        });
    });
    heard.recv().expect("the exporter says where it listens")
}

fn prometheus(program: &Path, dir: &Path, exporter: &str) -> Rival {
    let config = format!(
        "global: {{scrape_interval: 5s}}\n\
         scrape_configs: [{{job_name: rivals, static_configs: [{{targets: ['{exporter}']}}]}}]\n"
    );
    let file = dir.join("prometheus.yml");
    std::fs::write(&file, config).expect("a writable directory");
    let port = free_port();
    let mut command = Command::new(program);
    command.arg(format!("--config.file={}", file.display()));
    command.arg(format!("--storage.tsdb.path={}", dir.join("prometheus").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--log.level=error");
    Rival::start(&mut command, port)
}

fn selector(s: &Series) -> String {
    format!("task=\"{}\",memory_mb=\"{}\"", s.task, s.memory_mb)
}

fn expression(buckets: &str, selector: &str, q: f64) -> String {
    format!("histogram_quantile({q},exec_seconds_{buckets}_bucket{{{selector}}})")
}

fn prometheus_path(expression: &str) -> String {
    let escaped = expression.replace('"', "%22").replace('{', "%7B").replace('}', "%7D").replace('=', "%3D");
    format!("/api/v1/query?query={escaped}")
}

fn metad_path(s: &Series, slas: &str) -> String {
    let (task, memory_mb) = (&s.task, s.memory_mb);
    format!(
        "/v1/workflows/rivals/predictions/execution-time\
         ?task={task}&input_bytes={INPUT_BYTES}&memory_mb={memory_mb}&sla={slas}"
    )
}

fn metad_batch(series: &[Series]) -> Vec<u8> {
    let query = |s: &Series| {
        let (task, memory_mb) = (&s.task, s.memory_mb);
        json!({"kind": "execution_time", "task": task, "input_bytes": INPUT_BYTES, "memory_mb": memory_mb})
    };
    let queries: Vec<Value> = series.iter().map(query).collect();
    post("/v1/workflows/rivals/predictions", &json!({"sla": ["p95"], "queries": queries}).to_string())
}

/// Both servers: addresses and processes.
struct Sides<'a> {
    ours: &'a str,
    theirs: &'a str,
    pids: (i32, i32),
}

impl Sides<'_> {
    /// Prints requests per second: one quantile of one series, three of one, one of all.
    fn speed(&self, series: &[Series], buckets: &str) {
        let each = |slas: &str| series.iter().map(|s| get(&metad_path(s, slas))).collect::<Vec<_>>();
        let query = |s: &Series, q| get(&prometheus_path(&expression(buckets, &selector(s), q)));
        let single: Vec<_> = series.iter().map(|s| query(s, 0.95)).collect();
        self.compare(&format!("p95 of one series, {buckets} buckets"), &each("p95"), &single, 1);
        let three: Vec<_> = series.iter().flat_map(|s| QUANTILES.map(|(q, _)| query(s, q))).collect();
        let what = format!("three quantiles of one series, {buckets} buckets");
        self.compare(&what, &each("median,p95,p99"), &three, QUANTILES.len());
        let (batch, all) = (metad_batch(series), get(&prometheus_path(&expression(buckets, "", 0.95))));
        self.compare(&format!("p95 of all series at once, {buckets} buckets"), &[batch], &[all], 1);
    }

    /// A question takes Prometheus `theirs_each` requests and metad one.
    fn compare(&self, what: &str, ours: &[Vec<u8>], theirs: &[Vec<u8>], theirs_each: usize) {
        let side = |pid, address, requests, each: usize| {
            let before_s = cpu_s(pid);
            let load = turn(address, requests);
            let questions = load.requests as f64 / each as f64;
            (load.per_s / each as f64, (cpu_s(pid) - before_s) * 1e6 / questions)
        };
        let pair = |_| {
            let ours = side(self.pids.0, self.ours, ours, 1);
            (ours, side(self.pids.1, self.theirs, theirs, theirs_each))
        };
        let (ours, theirs) = median((0..TURNS).map(pair).collect(), |(ours, theirs)| ours.0 / theirs.0);
        let ratio = ours.0 / theirs.0;
        println!(
            "{what:<48} {:>10.0} {:>10.0} {ratio:>8.1} {:>10.1} {:>10.1} {:>8.1}",
            ours.0,
            theirs.0,
            ours.1,
            theirs.1,
            theirs.1 / ours.1
        );
    }
}

fn turn(address: &str, requests: &[Vec<u8>]) -> Load {
    http(address, CONNECTIONS, TURN, |connection, number| {
        requests[(connection * 31 + number) as usize % requests.len()].clone()
    })
}

/// A quantile in ms; nothing while Prometheus is not ready or has not scraped the series.
fn ask_prometheus(connection: &mut Connection, buckets: &str, s: &Series, q: f64) -> Option<f64> {
    let body = connection.try_ask(&get(&prometheus_path(&expression(buckets, &selector(s), q))))?;
    let answer: Value = serde_json::from_slice(body).expect("Prometheus answers in JSON");
    let value_s = answer["data"]["result"][0]["value"][1].as_str()?.parse::<f64>();
    Some(value_s.expect("a number") * 1e3)
}

/// Prints by how much the answers miss the quantiles of the samples, in percent of them.
fn errors(ours: &str, theirs: &str, series: &[Series]) {
    let mut found: BTreeMap<(&str, &str, &str), Vec<f64>> = BTreeMap::new();
    let (mut ours, mut theirs) = (Connection::open(ours), Connection::open(theirs));
    for s in series {
        let names: Vec<&str> = QUANTILES.iter().map(|(_, name)| *name).collect();
        let body = ours.ask(&get(&metad_path(s, &names.join(","))));
        let answer: Value = serde_json::from_slice(body).expect("metad answers in JSON");
        for (q, name) in QUANTILES {
            let exact_ms = s.exact_ms(q);
            let mut note = |who, value_ms: f64| {
                let error = (value_ms / exact_ms - 1.0).abs() * 100.0;
                found.entry((s.shape, name, who)).or_default().push(error);
            };
            note("metad", answer["values"][name].as_f64().expect("the model knows this task"));
            for (who, buckets) in [("default", "default"), ("fine", "fine")] {
                let value_ms = ask_prometheus(&mut theirs, buckets, s, q);
                note(who, value_ms.expect("the series were scraped"));
            }
        }
    }
    println!("error in % of the exact quantile, median (largest) over the series");
    println!("{:<24} {:>18} {:>18} {:>18}", "", "metad", "default buckets", "fine buckets");
    for shape in ["lognormal", "two modes"] {
        for (_, name) in QUANTILES {
            let of = |who| {
                let errors = &found[&(shape, name, who)];
                let largest = errors.iter().copied().fold(0.0, f64::max);
                format!("{:.2} ({largest:.2})", median(errors.clone(), |e| *e))
            };
            println!(
                "{:<24} {:>18} {:>18} {:>18}",
                format!("{shape}, {name}"),
                of("metad"),
                of("default"),
                of("fine")
            );
        }
    }
}
