//! How long a large object takes from the task that made it to the task that reads it, on two workers of this
//! machine.
//!
//! ```text
//! cargo bench -p foresail-worker --bench hand_over [-- [--bytes N] [--rounds N] [--python] [--same]
//!     [--worker PROGRAM]...]
//! ```
//!
//! Without arguments: 100 MB, this version's worker, both stores of objects (metad's takes 16 MB at most, so
//! it gets 16 MB; here it is a map in memory behind HTTP, which makes the store look better than it is). With
//! `--worker` the program of another version runs beside it, round by round in turn. Told are medians in ms:
//! from the end of the code that made the object to the start of the code that reads it, and of that what
//! storing and bringing took. With `--python` the tasks are Python functions, whose results stay in
//! their process until the worker has copied them, and what the two tasks run in all is told as well. With
//! `--same` both tasks are on the same worker: nothing is copied then.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on shall end")]
#![allow(dead_code, reason = "the tests need more of their support than this does")]

#[path = "../tests/system/pickled.rs"]
mod python;
#[path = "../tests/system/store.rs"]
mod store;
#[path = "../tests/system/support.rs"]
mod support;

use std::path::PathBuf;

use foresail_schemas::run::{Change, RunOptions};
use foresail_worker::host::local::{LocalSettings, ObjectPlace, WorkerCommand};
use serde_json::json;
use support::{Bench, burn, config, plan, worker_program, workflow};

/// Largest blob that metad takes by default.
const BLOB_BYTES_MAX: u64 = 16 << 20;

struct Arguments {
    bytes: u64,
    rounds: usize,
    kind: Kind,
    places: [&'static str; 2],
    workers: Vec<PathBuf>,
}

/// What the tasks run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rust,
    Python,
}

/// Times of one hand-over in ms.
#[derive(Clone, Copy)]
struct Times {
    all: f64,
    stored: f64,
    brought: f64,
    code: f64,
}

fn main() {
    let asked = arguments();
    let Arguments { bytes, rounds, workers, .. } = &asked;
    let (head, of_it) = ("all ms", ["stored", "brought", "code"]);
    println!(
        "{:8} {:>12} {head:>9} {:>9} {:>9} {:>9}  worker",
        "store", "bytes", of_it[0], of_it[1], of_it[2]
    );
    for place in [ObjectPlace::Files, ObjectPlace::Metad] {
        let bytes = if place == ObjectPlace::Metad { (*bytes).min(BLOB_BYTES_MAX) } else { *bytes };
        let benches: Vec<Bench> = workers.iter().map(|program| bench(program, place.clone())).collect();
        let mut times = vec![Vec::new(); workers.len()];
        // The first round starts the workers.
        for round in 0..=*rounds {
            for (bench, times) in benches.iter().zip(&mut times) {
                let measured = hand_over(bench, &asked, round, bytes);
                times.extend((round > 0).then_some(measured));
            }
        }
        for (program, times) in workers.iter().zip(&times) {
            let of = |part: fn(&Times) -> f64| median(times.iter().map(part).collect());
            let (all, stored, brought) = (of(|t| t.all), of(|t| t.stored), of(|t| t.brought));
            let code = of(|t| t.code);
            let (store, program) = (format!("{place:?}").to_lowercase(), program.display());
            println!("{store:8} {bytes:12} {all:9.1} {stored:9.1} {brought:9.1} {code:9.1}  {program}");
        }
    }
}

fn arguments() -> Arguments {
    let (kind, places) = (Kind::Rust, ["a", "b"]);
    let mut asked =
        Arguments { bytes: 100_000_000, rounds: 9, kind, places, workers: vec![worker_program()] };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--bytes" => asked.bytes = words.next().unwrap().parse().unwrap(),
            "--rounds" => asked.rounds = words.next().unwrap().parse().unwrap(),
            "--python" => asked.kind = Kind::Python,
            "--same" => asked.places = ["a", "a"],
            "--worker" => asked.workers.push(words.next().unwrap().into()),
            // What cargo adds.
            "--bench" => {}
            other => panic!("`{other}` is not known; hint: --bytes, --rounds, --python, --same, --worker"),
        }
    }
    asked
}

fn bench(program: &std::path::Path, place: ObjectPlace) -> Bench {
    Bench::new(|settings: &mut LocalSettings| {
        settings.worker = Some(WorkerCommand { program: program.to_owned(), args: Vec::new() });
        settings.objects = place;
    })
}

fn hand_over(bench: &Bench, asked: &Arguments, round: usize, bytes: u64) -> Times {
    let input = json!([{"task": "make"}]);
    let workflow = if asked.kind == Kind::Python {
        let made = format!("bytearray(b'x') * {bytes}");
        let make = format!("import pickle\ndef f():\n    return pickle.PickleBuffer({made})\n");
        let read = "def f(array):\n    return sum(memoryview(array)[::4096]) > 0\n";
        python::sources(json!([
            {"id": "make", "name": "make", "run": make},
            {"id": "read", "name": "read", "run": read, "inputs": input},
        ]))
    } else {
        let mut read = burn("read", json!({"output_bytes": 1}));
        read["inputs"] = input;
        workflow(json!([burn("make", json!({"output_bytes": bytes})), read]))
    };
    let size = config(1769, 1.0);
    let [first, second] = asked.places;
    let plan = plan(&workflow, &[(Some(first), size), (Some(second), size)]);
    let run = bench.submit(&format!("r-{round}"), &workflow, &plan, RunOptions::default());
    bench.wait_for_end(&run);
    let held = bench.store.held();
    let commits: Vec<_> = held.runs[&run]
        .events
        .iter()
        .filter_map(|event| match &event.change {
            Change::TaskCommitted { commit, .. } => Some((event.at_ms, commit.measured)),
            _ => None,
        })
        .collect();
    let [(made_ms, made), (used_ms, used)] = commits[..] else { panic!("{} commits", commits.len()) };
    let all = (used_ms - used.upload_ms - used.exec_ms) - (made_ms - made.upload_ms);
    Times { all, stored: made.upload_ms, brought: used.download_ms, code: made.exec_ms + used.exec_ms }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
