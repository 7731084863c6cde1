//! Samples for the comparisons, drawn with a seed: the same in every run.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

/// A stream of samples.
pub struct Draw(Pcg64);

impl Draw {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(Pcg64::seed_from_u64(seed))
    }

    /// Evenly between 0 and 1.
    pub fn uniform(&mut self) -> f64 {
        self.0.random()
    }

    /// Around `median`, with `sigma` as the deviation of the logarithm.
    pub fn lognormal(&mut self, median: f64, sigma: f64) -> f64 {
        // Box and Muller, A note on the generation of random normal deviates, 1958.
        let (radius, angle) = (1.0 - self.uniform(), self.uniform() * std::f64::consts::TAU);
        median * (sigma * (-2.0 * radius.ln()).sqrt() * angle.cos()).exp()
    }

    /// Evenly on a logarithmic scale.
    pub fn log_uniform(&mut self, low: f64, high: f64) -> f64 {
        low * (high / low).powf(self.uniform())
    }
}
