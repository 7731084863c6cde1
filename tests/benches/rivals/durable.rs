//! Durable ingest at 64 clients: metad beside Redis that syncs its log before every answer
//! (`appendfsync always`).
//!
//! A batch of 100 records is one request on both sides, with the same bytes, once as JSON and once as
//! columns: a POST that metad parses, checks, stores and learns from, and a value that Redis stores. Both
//! share one fsync among all clients that wait.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::bodies;
use crate::load::{self, Load, cpu_s, drive, http, median};
use crate::need::{self, Missing, Rival};
use crate::resp::Redis;
use crate::stack;

/// Connections, each with one batch under way.
const CLIENTS: u64 = 64;
/// Records in a batch.
const RECORDS: u64 = 100;
/// Tasks that the records are about.
const TASKS: u64 = 4;
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

/// A form of a batch: its name, its media type and the batch of a number.
type Form = (&'static str, &'static str, fn(u64, u64, u64) -> Vec<u8>);

const FORMS: [Form; 2] = [
    ("JSON", "application/json", bodies::json_batch),
    ("columns", "application/vnd.foresail.columns", bodies::column_batch),
];

/// Prints batches per second of both and their ratio, per form.
pub fn run(dir: &Path) -> Result<(), Missing> {
    let program = need::redis_server()?;
    let always = ["--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"];
    let redis = Rival::redis(&program, dir, &always);
    let metad = stack::metad(&dir.join("durable"), "127.0.0.1:0");
    println!("durable batches of {RECORDS} records, {CLIENTS} clients");
    let next = AtomicU64::new(0);
    for (form, media_type, batch) in FORMS {
        let body = |number| batch(number, RECORDS, TASKS);
        let turn = |_| {
            let ours = side(metad.pid(), || {
                http(load::host(&metad.address), CLIENTS, TURN, |_, _| {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    bodies::post("/v1/workflows/durable/batches", media_type, &body(number))
                })
            });
            let theirs = side(redis.pid(), || drive(CLIENTS, TURN, |_| client(&redis.address, &next, body)));
            // Only so that memory does not run out: the values of a turn are not looked at again.
            Redis::open(&redis.address).ask(&[b"FLUSHALL"]);
            (ours, theirs)
        };
        let turns: Vec<(Side, Side)> = (0..TURNS).map(turn).collect();
        show(form, turns);
    }
    Ok(())
}

fn show(form: &str, turns: Vec<(Side, Side)>) {
    let ratio = |(ours, theirs): &(Side, Side)| ours.load.per_s / theirs.load.per_s;
    let ratios: Vec<f64> = turns.iter().map(ratio).collect();
    let (ours, theirs) = median(turns, ratio);
    println!(
        "{form:<28} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "batches/s", "records/s", "p50 ms", "p99 ms", "CPU us"
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
}

fn side(pid: i32, run: impl FnOnce() -> Load) -> Side {
    let before_s = cpu_s(pid);
    let load = run();
    Side { load, cpu_us: (cpu_s(pid) - before_s) * 1e6 / load.requests as f64 }
}

/// A client of Redis that sets one value after another, each under a key of its own.
fn client(address: &str, next: &AtomicU64, body: impl Fn(u64) -> Vec<u8>) -> impl FnMut() {
    let mut redis = Redis::open(address);
    move || {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let key = format!("batch-{number}");
        redis.ask(&[b"SET", key.as_bytes(), &body(number)]);
    }
}
