//! Clocks of the machines: none is that of the store, none goes at its pace, and none agrees with another.
//!
//! A machine is told the time of its own clock and asks to be woken at such times. Times in ms.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

/// How far a clock is off at most.
const OFFSET_MS_MAX: f64 = 5.0 * 60_000.0;
/// How much faster or slower than true a clock goes: as bad as they are where nobody sets them ...
const RATE_MAX: f64 = 1e-3;
/// ... and, in one of so many runs, much worse.
const RUNS_PER_BAD_ONE: u32 = 4;
const RATE_MAX_BAD: f64 = 0.05;

/// The clock of one machine.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    offset_ms: f64,
    rate: f64,
}

impl Clock {
    /// What it shows at this true time.
    pub fn shows(self, true_ms: f64) -> f64 {
        self.offset_ms + true_ms * self.rate
    }

    /// How long it truly takes until it shows a time that is so far off.
    pub fn takes(self, shown_ms: f64) -> f64 {
        shown_ms / self.rate
    }
}

/// The clocks of one run.
pub(super) struct Clocks {
    rng: Pcg64,
    /// How far the pace of a clock is from true at most.
    pub rate_max: f64,
}

impl Clocks {
    /// Drawn apart from all else, of which nothing changes with them.
    pub fn of(rng: &Pcg64) -> Self {
        let mut rng = Pcg64::seed_from_u64(rng.clone().random());
        let rate_max = if rng.random_ratio(1, RUNS_PER_BAD_ONE) { RATE_MAX_BAD } else { RATE_MAX };
        Self { rng, rate_max }
    }

    pub fn next(&mut self) -> Clock {
        let offset_ms = self.rng.random_range(-OFFSET_MS_MAX..OFFSET_MS_MAX);
        let rate = 1.0 + self.rng.random_range(-self.rate_max..self.rate_max);
        Clock { offset_ms, rate }
    }
}
