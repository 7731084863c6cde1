//! Durable ingest at 64 clients: metad beside Redis that syncs its log before every answer
//! (`appendfsync always`).
//!
//! A batch of 100 records is one request on both sides, with the same bytes: a POST that metad parses,
//! checks, stores and learns from, and a value that Redis stores. Both share one fsync among all clients that
//! wait.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::load::{self, Load, cpu_s, drive, http, median, post};
use crate::need::{self, Missing, Rival};
use crate::resp::Redis;
use crate::stack;

/// Connections, each with one batch under way.
const CLIENTS: u64 = 64;
/// Records in a batch.
const RECORDS: u64 = 100;
/// Turns of each side.
const TURNS: usize = 5;
/// Length of one turn.
const TURN: Duration = Duration::from_secs(2);

/// One turn of a side.
#[derive(Clone, Copy)]
struct Side {
    load: Load,
    cpu_us: f64,
}

/// Prints batches per second of both and their ratio.
pub fn run(dir: &Path) -> Result<(), Missing> {
    let program = need::redis_server()?;
    let always = ["--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"];
    let redis = Rival::redis(&program, dir, &always);
    let metad = stack::metad(&dir.join("durable"), "127.0.0.1:0");
    let next = AtomicU64::new(0);
    let turn = |_| {
        let ours = side(metad.pid(), || {
            http(load::host(&metad.address), CLIENTS, TURN, |_, _| {
                let number = next.fetch_add(1, Ordering::Relaxed);
                post("/v1/workflows/durable/batches", &batch(number))
            })
        });
        let theirs = side(redis.pid(), || drive(CLIENTS, TURN, |_| client(&redis.address, &next)));
        // Only so that memory does not run out: the values of a turn are not looked at again.
        Redis::open(&redis.address).ask(&[b"FLUSHALL"]);
        (ours, theirs)
    };
    let turns: Vec<(Side, Side)> = (0..TURNS).map(turn).collect();
    let ratio = |(ours, theirs): &(Side, Side)| ours.load.per_s / theirs.load.per_s;
    let ratios: Vec<f64> = turns.iter().map(ratio).collect();
    let (ours, theirs) = median(turns, ratio);
    println!("durable batches of {RECORDS} records, {CLIENTS} clients");
    println!(
        "{:<28} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "", "batches/s", "records/s", "p50 ms", "p99 ms", "CPU us"
    );
    for (name, Side { load, cpu_us }) in [("metad", ours), ("Redis appendfsync always", theirs)] {
        println!(
            "{name:<28} {:>10.0} {:>10.0} {:>10.1} {:>10.1} {cpu_us:>10.0}",
            load.per_s,
            load.per_s * RECORDS as f64,
            load.p50_us / 1e3,
            load.p99_us / 1e3
        );
    }
    let (least, most) = ratios.iter().fold((f64::MAX, 0_f64), |(l, m), r| (l.min(*r), m.max(*r)));
    println!("metad / Redis {:.2} (turns: {least:.2} to {most:.2})", ratio(&(ours, theirs)));
    Ok(())
}

fn side(pid: i32, run: impl FnOnce() -> Load) -> Side {
    let before_s = cpu_s(pid);
    let load = run();
    Side { load, cpu_us: (cpu_s(pid) - before_s) * 1e6 / load.requests as f64 }
}

/// A client of Redis that sets one value after another, each under a key of its own.
fn client(address: &str, next: &AtomicU64) -> impl FnMut() {
    let mut redis = Redis::open(address);
    move || {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let key = format!("batch-{number}");
        redis.ask(&[b"SET", key.as_bytes(), batch(number).as_bytes()]);
    }
}

fn batch(number: u64) -> String {
    let records: Vec<String> = (0..RECORDS)
        .map(|r| {
            let (task, exec_ms) = (r % 4, 100 + (number + r) % 37);
            format!(
                r#"{{"kind":"task","task":"t{task}","memory_mb":1769,"input_bytes":50,"exec_ms":{exec_ms}}}"#
            )
        })
        .collect();
    format!(r#"{{"batch_id":"b-{number}","records":[{}]}}"#, records.join(","))
}
