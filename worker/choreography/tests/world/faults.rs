//! What goes wrong, and how often.

/// Probability of each fault at each occasion.
#[derive(Clone, Copy)]
pub struct Faults {
    pub(super) crash: f64,
    pub(super) lose: f64,
    pub(super) double: f64,
    /// That a request or an answer takes as long as several leases.
    pub(super) late: f64,
    pub(super) fail: f64,
    /// That a task needs more memory than the plan gives it; drawn once per task.
    pub(super) large: f64,
    /// That a worker is told to make way for another process.
    pub(super) retire: f64,
    pub(super) restart: f64,
    pub(super) replan: f64,
    /// That an attempt decides something else than the others.
    pub(super) waver: f64,
    /// That an object is not there when it is to be read.
    pub(super) lost: f64,
}

impl Faults {
    pub fn all() -> Self {
        Self {
            crash: 0.02,
            lose: 0.05,
            double: 0.05,
            late: 0.02,
            fail: 0.02,
            large: 0.05,
            retire: 0.01,
            restart: 0.005,
            replan: 0.01,
            waver: 0.2,
            lost: 0.01,
        }
    }

    /// Tasks that need more memory than they get, and nothing else.
    pub fn memory() -> Self {
        Self { large: 0.3, ..Self::none() }
    }

    /// Objects that are lost, and nothing else.
    pub fn lost() -> Self {
        Self { lost: 0.2, ..Self::none() }
    }

    pub fn none() -> Self {
        Self {
            crash: 0.0,
            lose: 0.0,
            double: 0.0,
            late: 0.0,
            fail: 0.0,
            large: 0.0,
            retire: 0.0,
            restart: 0.0,
            replan: 0.0,
            waver: 0.0,
            lost: 0.0,
        }
    }
}
