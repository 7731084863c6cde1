//! Two sides that take turns, and the line that comes of it.

use std::time::Duration;

use crate::load::{Load, cpu_s};

/// Turns of each side.
pub const TURNS: usize = 5;
/// Length of one turn.
pub const TURN: Duration = Duration::from_millis(400);

/// One turn of one side.
#[derive(Debug, Clone, Copy)]
pub struct Side {
    /// What the clients saw.
    pub load: Load,
    /// CPU time of the server per request in µs; 0 where it is not measured.
    pub cpu_us: f64,
}

/// A turn of load on the server `pid`.
pub fn on(pid: i32, run: impl FnOnce() -> Load) -> Side {
    let before_s = cpu_s(pid);
    let load = run();
    Side { load, cpu_us: (cpu_s(pid) - before_s) * 1e6 / load.requests as f64 }
}

/// The heading of the lines that [`pair`] prints.
pub fn heading(what: &str, limit: &str) {
    println!(
        "\n{what:<46} {:>10} {:>10} {:>6} {:>6} {:>6} {:>7} {:>7} {:>6}",
        "1/s", limit, "ratio", "p50", "p99", "CPU us", limit, "ratio"
    );
}

/// Runs both sides in turns and prints the medians; a ratio of times is ours through theirs.
pub fn pair(what: &str, mut ours: impl FnMut() -> Side, mut limit: impl FnMut() -> Side) {
    // Connections, caches and the branch predictor of both sides warm up.
    let _warm = (ours(), limit());
    let turns: Vec<(Side, Side)> = (0..TURNS)
        .map(|turn| match turn % 2 {
            0 => (ours(), limit()),
            _ => {
                let bound = limit();
                (ours(), bound)
            }
        })
        .collect();
    let middle = |of: &dyn Fn(&(Side, Side)) -> f64| {
        let mut all: Vec<f64> = turns.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[TURNS / 2]
    };
    println!(
        "{what:<46} {:>10.0} {:>10.0} {:>6.2} {:>6.2} {:>6.2} {:>7.1} {:>7.1} {:>6.2}",
        middle(&|t| t.0.load.per_s),
        middle(&|t| t.1.load.per_s),
        middle(&|t| t.0.load.per_s / t.1.load.per_s),
        middle(&|t| t.0.load.p50_us / t.1.load.p50_us),
        middle(&|t| t.0.load.p99_us / t.1.load.p99_us),
        middle(&|t| t.0.cpu_us),
        middle(&|t| t.1.cpu_us),
        middle(&|t| t.0.cpu_us / t.1.cpu_us),
    );
}
