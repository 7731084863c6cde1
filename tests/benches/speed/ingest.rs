//! Durable batches over REST beside what the disk and redb give without a server, and large batches.
//!
//! The bare programs run inside this process and store the very bytes that metad is sent. `redb` commits once
//! per batch, or, beside several connections, once per as many batches; `fdatasync` appends and syncs.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redb::{Database, TableDefinition};

use crate::bodies::{column_batch, json_batch, post};
use crate::load::{Load, cpu_s, drive, host, http};
use crate::stack;
use crate::turns::{Side, TURN, heading, on, pair};

const PATH: &str = "/v1/workflows/bench/batches";
const JSON: &str = "application/json";
const COLUMNS: &str = "application/vnd.foresail.columns";
const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("batches");
/// Number of the first batch; all have ten digits.
const FIRST: u64 = 1_000_000_000;
/// Records in a batch of usual size.
const RECORDS: u64 = 100;
/// Connections at the same time.
const CONNECTIONS: [u64; 3] = [1, 8, 64];
/// Records in a large batch, connections that send such, and tasks that they are about.
const LARGE: u64 = 20_000;
const LARGE_CONNECTIONS: u64 = 3;
/// Length of the turn of large batches.
const LARGE_TURN: Duration = Duration::from_secs(3);

/// Prints all lines.
pub fn run() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let metad = stack::metad(&dir.path().join("metad"), "127.0.0.1:0");
    let (address, next) = (host(&metad.address), AtomicU64::new(FIRST));
    let sends = |connections: u64, records: u64| {
        let request = post(PATH, JSON, &json_batch(FIRST, records, 4));
        let number = || next.fetch_add(1, Ordering::Relaxed);
        on(metad.pid(), || http(address, connections, TURN, |_, _| renumbered(&request, number())))
    };
    heading("durable batches of 100 / bare redb, a value each", "redb");
    let database = Database::create(dir.path().join("bare.redb")).expect("a writable directory");
    for connections in CONNECTIONS {
        let bare = || unmeasured(redb(&database, connections, &next));
        pair(&format!("{connections} connections, commit"), || sends(connections, RECORDS), bare);
    }
    heading("durable batches of 1 / bare fdatasync", "sync");
    let file = dir.path().join("bare.log");
    pair("1 connections", || sends(1, 1), || unmeasured(fdatasync(&file, &json_batch(FIRST, 1, 4))));
    large(address, metad.pid(), &next);
}

/// A side that runs in this process, whose CPU time is not its own.
fn unmeasured(load: Load) -> Side {
    Side { load, cpu_us: f64::NAN }
}

/// Batches per second of a program that only stores them, `group` in a commit.
fn redb(database: &Database, group: u64, next: &AtomicU64) -> Load {
    let batch = json_batch(FIRST, RECORDS, 4);
    let load = drive(1, TURN, |_| {
        || {
            let writes = database.begin_write().expect("the only writer");
            {
                let mut table = writes.open_table(TABLE).expect("a table");
                for _ in 0..group {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    table.insert(number, renumbered(&batch, number).as_slice()).expect("room on the disk");
                }
            }
            writes.commit().expect("the disk works");
        }
    });
    let (per_s, requests) = (load.per_s * group as f64, load.requests * group);
    Load { per_s, requests, ..load }
}

/// Appends of `content`, each followed by fdatasync.
fn fdatasync(path: &Path, content: &[u8]) -> Load {
    let file = std::fs::File::options().create(true).append(true).open(path).expect("a writable directory");
    drive(1, TURN, |_| {
        || {
            (&file).write_all(content).expect("room on the disk");
            file.sync_data().expect("the disk works");
        }
    })
}

/// Large batches, about one task and about a hundred: records per second, and per second of CPU time.
fn large(address: &str, pid: i32, next: &AtomicU64) {
    println!("\n{:<46} {:>12} {:>14} {:>12}", "large batches", "records/s", "1/s of CPU", "bytes each");
    type Body = fn(u64, u64, u64) -> Vec<u8>;
    let forms: [(&str, &str, Body); 2] = [("JSON", JSON, json_batch), ("columns", COLUMNS, column_batch)];
    for (form, media_type, body) in forms {
        for tasks in [1, 100] {
            let request = post(PATH, media_type, &body(FIRST, LARGE, tasks));
            let bytes = request.len() as u64 / LARGE;
            let before_s = cpu_s(pid);
            let load = http(address, LARGE_CONNECTIONS, LARGE_TURN, |_, _| {
                renumbered(&request, next.fetch_add(1, Ordering::Relaxed))
            });
            let (done, cpu) = (load.requests as f64 * LARGE as f64, cpu_s(pid) - before_s);
            let what = format!("{form}, {tasks} tasks, {LARGE} records each");
            println!("{what:<46} {:>12.0} {:>14.0} {bytes:>12}", load.per_s * LARGE as f64, done / cpu);
        }
    }
}

/// The same bytes with another batch id: making the text anew would take as long as reading it.
fn renumbered(request: &[u8], number: u64) -> Vec<u8> {
    let mut request = request.to_vec();
    let id = b"bench-";
    let at = request.windows(id.len()).position(|w| w == id).expect("every batch has an id") + id.len();
    request[at..at + 10].copy_from_slice(number.to_string().as_bytes());
    request
}
