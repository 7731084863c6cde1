//! Foresail beside programs that answer the same need: history in Redis and Python, Prometheus, Redis as a
//! durable store, Dask distributed and Ray as engines, HyperQueue for a process per task.
//!
//! `make bench-rivals` runs all; `cargo bench -p foresail-tests --bench rivals -- history` runs one of
//! `history`, `quantiles`, `durable`, `engine`, `commands`. A rival that is not installed is named and its
//! comparison left out. Sides run in turns within one run and medians over the turns are shown: absolute
//! numbers are of one machine and moment, ratios travel.

use std::path::Path;

#[allow(dead_code, reason = "the benches of speed use the rest")]
#[path = "../speed/bodies.rs"]
mod bodies;
mod commands;
mod draw;
mod durable;
mod engine;
mod history;
#[allow(dead_code, reason = "the other benches use the rest")]
#[path = "../load/mod.rs"]
mod load;
mod need;
mod quantiles;
mod resp;
#[allow(dead_code, reason = "the system tests use more of it")]
#[path = "../../tests/system/stack.rs"]
mod stack;

type Comparison = fn(&Path) -> Result<(), need::Missing>;

/// The comparisons by name.
const COMPARISONS: [(&str, Comparison); 5] = [
    ("history", history::run),
    ("quantiles", quantiles::run),
    ("durable", durable::run),
    ("engine", engine::run),
    ("commands", commands::run),
];

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if asked.is_empty() {
        // `cargo bench --workspace` needs cargo and nothing else.
        println!("the comparisons with rivals are not part of this run: `make bench-rivals` runs them");
        return;
    }
    for (name, compare) in COMPARISONS.iter().filter(|(name, _)| asked.iter().any(|a| a == name)) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        if let Err(missing) = compare(dir.path()) {
            println!("skipped `{name}`: {missing}");
        }
        println!();
    }
    let unknown = asked.iter().filter(|a| COMPARISONS.iter().all(|(name, _)| a != name));
    unknown.for_each(|name| {
        println!("there is no comparison `{name}`: history, quantiles, durable, engine and commands are")
    });
}
