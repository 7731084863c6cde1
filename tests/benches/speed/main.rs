//! Speed beside the limit: metad against a bare axum server, a bare redb program and a bare fdatasync;
//! planners by graph size.
//!
//! `cargo bench -p foresail-tests --bench speed` prints one line per question; `-- predictions`, `-- ingest`
//! and `-- planners` print a part. Both sides of a line take turns within one run, and what is shown is the
//! median over the turns: a noisy machine moves both sides, so the ratio is what to read, and CPU per request
//! before requests per second. Absolute numbers are of one machine and moment.

mod bare;
mod bodies;
mod ingest;
#[allow(dead_code, reason = "the other benches use the rest")]
#[path = "../load/mod.rs"]
mod load;
mod planners;
mod predictions;
#[allow(dead_code, reason = "the system tests use more of it")]
#[path = "../../tests/system/stack.rs"]
mod stack;
mod turns;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        // `cargo test --benches` only checks that it builds.
        Some("--test") => return,
        Some(bare::FLAG) => return bare::serve(args.get(1).map(String::as_str).unwrap_or_default()),
        _ => {}
    }
    let asked: Vec<&str> = args.iter().map(String::as_str).filter(|arg| !arg.starts_with("--")).collect();
    let is_asked = |part| asked.is_empty() || asked.contains(&part);
    if is_asked("predictions") {
        predictions::run();
    }
    if is_asked("ingest") {
        ingest::run();
    }
    if is_asked("planners") {
        planners::run();
    }
}
