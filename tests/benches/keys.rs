//! 100,000 (task, config) keys in one metad: time to be ready after a restart, memory while it answers, disk.
//!
//! The keys are filled over REST, every round one sample of every key, with retention on: so much raw history
//! is kept per workflow that the second half of the rounds must displace the first. `cargo bench -p
//! foresail-tests --bench keys -- 20` takes another number of rounds. Memory is read from `/proc`.

use std::path::Path;
use std::time::{Duration, Instant};

#[allow(dead_code, reason = "the other benches use the rest")]
#[path = "load/mod.rs"]
mod load;
#[allow(dead_code, reason = "the system tests use more of it")]
#[path = "../tests/system/stack.rs"]
mod stack;

use load::{Connection, cpu_s, disk_bytes, get, http, post, resident_bytes};

/// Workflows, tasks of each and memory sizes of each task: 100,000 keys.
const WORKFLOWS: u64 = 100;
const TASKS: u64 = 100;
const CONFIGS: u64 = 10;
/// Samples of a key where nothing else is asked.
const ROUNDS: u64 = 10;
/// Connections that ask random questions, and for how long.
const CONNECTIONS: u64 = 8;
const ASKING: Duration = Duration::from_secs(5);

fn main() {
    // Only `cargo bench` says so: `cargo test --benches` checks that it builds.
    if std::env::args().all(|arg| arg != "--bench") {
        return;
    }
    let rounds = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(ROUNDS);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let metad = start(dir.path(), rounds);
    println!("{} keys, {rounds} samples each, filled over REST", WORKFLOWS * TASKS * CONFIGS);
    println!("{:<34} {:>9} {:>11} {:>11} {:>9}", "", "took s", "resident MB", "largest MB", "disk MB");
    for (half, first) in [("first half", 0), ("second half", rounds / 2)] {
        let last = if first == 0 { rounds / 2 } else { rounds };
        let began = Instant::now();
        fill(load::host(&metad.address), first..last);
        row(&format!("filled, {half}"), began.elapsed(), metad.pid(), dir.path());
    }
    let began = Instant::now();
    metad.terminate();
    println!("{:<34} {:>9.2}", "stopped", began.elapsed().as_secs_f64());
    let metad = restart("ready after a stop", dir.path(), rounds);
    ask(&metad, dir.path());
    metad.kill();
    let metad = restart("ready after kill -9", dir.path(), rounds);
    ask(&metad, dir.path());
}

/// Half of what is sent is kept as raw records.
fn start(dir: &Path, rounds: u64) -> stack::Process {
    let kept = (TASKS * CONFIGS * rounds).div_ceil(2).to_string();
    stack::metad_with(dir, "127.0.0.1:0", &["--workflow-records-max", &kept])
}

fn restart(what: &str, dir: &Path, rounds: u64) -> stack::Process {
    let began = Instant::now();
    let metad = start(dir, rounds);
    Connection::open(load::host(&metad.address)).ask(&get("/readyz"));
    row(what, began.elapsed(), metad.pid(), dir);
    metad
}

fn row(what: &str, took: Duration, pid: i32, dir: &Path) {
    let (resident, largest) = resident_bytes(pid);
    let megabytes = |bytes: u64| bytes >> 20;
    println!(
        "{what:<34} {:>9.2} {:>11} {:>11} {:>9}",
        took.as_secs_f64(),
        megabytes(resident),
        megabytes(largest),
        megabytes(disk_bytes(dir))
    );
}

/// Sends one sample of every key per round.
fn fill(address: &str, rounds: std::ops::Range<u64>) {
    let mut connection = Connection::open(address);
    for round in rounds {
        for workflow in 0..WORKFLOWS {
            let body = format!(r#"{{"batch_id":"round-{round}","records":[{}]}}"#, records(workflow, round));
            connection.ask(&post(&format!("/v1/workflows/w{workflow}/batches"), &body));
        }
    }
}

fn records(workflow: u64, round: u64) -> String {
    let keys = (0..TASKS).flat_map(|task| (0..CONFIGS).map(move |config| (task, config)));
    let record = |(task, config): (u64, u64)| {
        let mixed = mix(workflow << 40 | task << 20 | config << 10 | round);
        let (input_bytes, noise) = (1_000 + mixed % 1_000_000, (mixed >> 32) % 100);
        let exec_ms = (input_bytes / 2_000 + 20 * task + noise) / (config + 1) + 1;
        let sizes = format!(r#""input_bytes":{input_bytes},"output_bytes":{}"#, input_bytes / 3);
        let memory_mb = memory_mb(config);
        format!(r#"{{"kind":"task","task":"t{task}","memory_mb":{memory_mb},{sizes},"exec_ms":{exec_ms}}}"#)
    };
    keys.map(record).collect::<Vec<_>>().join(",")
}

fn memory_mb(config: u64) -> u64 {
    512 * (config + 1)
}

/// A number that looks random. Source: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Asks random keys at random sizes.
fn ask(metad: &stack::Process, dir: &Path) {
    let before_s = cpu_s(metad.pid());
    let load = http(load::host(&metad.address), CONNECTIONS, ASKING, |connection, number| {
        let mixed = mix(connection << 40 | number);
        let (workflow, task, config) = (mixed % WORKFLOWS, (mixed >> 16) % TASKS, (mixed >> 32) % CONFIGS);
        get(&format!(
            "/v1/workflows/w{workflow}/predictions/execution-time\
             ?task=t{task}&input_bytes={}&memory_mb={}&sla=median,p95",
            (mixed >> 8) % 1_000_000,
            memory_mb(config)
        ))
    });
    let cpu_us = (cpu_s(metad.pid()) - before_s) * 1e6 / load.requests as f64;
    row("answered random questions", ASKING, metad.pid(), dir);
    println!("  {:.0} predictions/s, p99 {:.0} us, CPU {cpu_us:.1} us each", load.per_s, load.p99_us);
}
