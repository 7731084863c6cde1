//! Predictions over REST beside a bare axum server: one by GET, few by POST, very many by POST.

use crate::bare::Bare;
use crate::bodies::{execution_times, json_batch, post, questions};
use crate::load::{Connection, cpu_s, get, host, http};
use crate::stack;
use crate::turns::{TURN, heading, on, pair};

const JSON: &str = "application/json";
const ONE: &str = "/v1/workflows/bench/predictions/execution-time\
                   ?task=t1&input_bytes=50&memory_mb=1769&sla=median,p95";
const MANY: &str = "/v1/workflows/bench/predictions";
/// Connections at the same time.
const CONNECTIONS: [u64; 3] = [1, 8, 64];
/// Questions of a small request, all kinds once.
const FEW: usize = 4;

/// Prints all lines.
pub fn run() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let metad = stack::metad(dir.path(), "127.0.0.1:0");
    let address = host(&metad.address);
    let mut connection = Connection::open(address);
    for number in 0..20 {
        connection.ask(&post("/v1/workflows/bench/batches", JSON, &json_batch(number, 100, 4)));
    }
    connection.ask(&post("/v1/workflows/bench/batches", JSON, other_kinds().as_bytes()));
    let few = post(MANY, JSON, questions(FEW).as_bytes());
    let answer = connection.ask(&few).to_vec();
    let bare = Bare::start(&answer);
    let echo = post("/echo", JSON, questions(FEW).as_bytes());

    heading("GET prediction / bare axum hello", "hello");
    for connections in CONNECTIONS {
        let load = |address: &str, path: &'static str| {
            let request = get(path);
            http(address, connections, TURN, move |_, _| request.clone())
        };
        pair(
            &format!("{connections} connections"),
            || on(metad.pid(), || load(address, ONE)),
            || on(bare.pid(), || load(&bare.address, "/hello")),
        );
    }
    heading("POST of 4 predictions / bare axum JSON echo", "echo");
    for connections in CONNECTIONS {
        pair(
            &format!("{connections} connections"),
            || on(metad.pid(), || http(address, connections, TURN, |_, _| few.clone())),
            || on(bare.pid(), || http(&bare.address, connections, TURN, |_, _| echo.clone())),
        );
    }
    very_many(address, metad.pid());
}

/// Transfers and starts, so that every kind of question has an answer.
fn other_kinds() -> String {
    let records: Vec<String> = (0..60)
        .map(|n| {
            let (bytes, ms) = (10_000 * (1 + n % 7), 20 + n);
            format!(
                r#"{{"kind":"transfer","direction":"download","bytes":{bytes},"memory_mb":1769,
                "time_ms":{ms}}},
                {{"kind":"task","memory_mb":1769,"task":"t1","output_bytes":{n},"exec_ms":{ms}}},
                {{"kind":"startup","memory_mb":1769,"state":"cold","time_ms":{ms}}}"#
            )
        })
        .collect();
    format!(r#"{{"batch_id":"other-kinds","records":[{}]}}"#, records.join(","))
}

/// Requests with many questions: predictions per second of CPU time that the server spends.
fn very_many(address: &str, pid: i32) {
    println!("\n{:<46} {:>10} {:>14}", "questions in one request", "1/s", "1/s of CPU");
    for count in [1_000, 10_000] {
        let request = post(MANY, JSON, execution_times(count).as_bytes());
        let before_s = cpu_s(pid);
        let load = http(address, 1, TURN * 3, |_, _| request.clone());
        let done = load.requests as f64 * count as f64;
        println!("{count:<46} {:>10.0} {:>14.0}", load.per_s * count as f64, done / (cpu_s(pid) - before_s));
    }
}
