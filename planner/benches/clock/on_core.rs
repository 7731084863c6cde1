//! The clock of the benches: time on a core, so that other programs disturb less.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Time on a core so far; time passed where the system does not tell.
pub fn on_core() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = told.and_then(|text| text.split(' ').next().and_then(|first| first.parse().ok()));
    nanos.map_or_else(|| START.elapsed(), Duration::from_nanos)
}
