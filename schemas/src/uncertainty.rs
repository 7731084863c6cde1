//! How uncertain predictions are, and how uncertain that makes a plan.
//!
//! [`Uncertainty`] rides with a prediction table: a time that will be measured is the predicted one times a
//! factor, and a [`Shape`] holds seven quantiles of that factor. Equal shapes are stored once and named by
//! their place, so that 64,000 tasks at six sizes need 3 MB of places and no more than 56 bytes per distinct
//! shape. [`Outlook`] rides with a plan: what Monte-Carlo draws say about its makespan and cost.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{TaskId, TaskName};
use crate::number::non_negative;

/// The quantiles of a [`Shape`].
///
/// The body and the upper tail of run times decide a makespan, so p90, p95 and p99 stand beside the
/// quartiles; p5 is enough of the lower tail.
pub const LEVELS: [f64; 7] = [0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99];

/// Quantiles of a time over the predicted time, at [`LEVELS`]; ascending, finite and not negative.
pub type Shape = [f64; 7];

/// Executions from which on a p99 counts as measured: with fewer, four of five times none was that slow.
pub const P99_SAMPLES_MIN: u64 = 20;

/// The shape of a time that is taken as certain.
pub const CERTAIN: Shape = [1.0; 7];

/// The distributions behind a prediction table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Uncertainty {
    /// The distinct shapes of execution times.
    pub shapes: Vec<Shape>,
    /// Which of `shapes` the execution time has: a row per config, a column per task. Nothing: the time is
    /// not known well enough for a distribution and taken as certain.
    pub exec: Vec<Vec<Option<u32>>>,
    /// Executions that the distribution of each task rests on, the fewest over the configs; empty: enough of
    /// each. The p99 of fewer than [`P99_SAMPLES_MIN`] is a guess about what was never seen: it widens an
    /// outlook, but refuses no task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<u64>,
    /// Starts per config.
    pub startup: Vec<StartupShapes>,
    /// Transfers per config.
    pub transfer: Vec<Shape>,
    /// How many tasks follow a decision, by the task that decides: quantiles of its width at [`LEVELS`], in
    /// tasks. A width that is absent is the predicted one in every run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub widths: BTreeMap<TaskId, Shape>,
    /// How likely each decision is, by the task that decides and the text of what it decides; what is left to
    /// 1 are decisions that no task waits for. Where a task has branches and a width, the branches count. A
    /// task that is absent in both decides in every run as the plan expects.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub branches: BTreeMap<TaskId, BTreeMap<String, f64>>,
    /// What errors the tasks of one name share; a name that is absent has [`SharedError::UNKNOWN`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shared: BTreeMap<TaskName, SharedError>,
}

/// Shapes of the time until a worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StartupShapes {
    /// Of a new worker.
    pub cold: Shape,
    /// Of one that was idle.
    pub warm: Shape,
}

/// Which part of the variance of the error is common to all tasks of a name in one run; the rest is each
/// task's own. Where only bounds are known the two differ, and every draw takes a value between them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SharedError {
    /// Least part, in [0, 1].
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub low: f64,
    /// Largest part, in [0, 1].
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub high: f64,
}

impl SharedError {
    /// Nothing is known about the part.
    pub const UNKNOWN: Self = Self { low: 0.0, high: 1.0 };
}

/// What Monte-Carlo draws say about a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outlook {
    /// Draws.
    pub draws: u32,
    /// Seed of the draws.
    pub seed: u64,
    /// Tasks whose time is taken as certain, because nothing is known of its distribution.
    pub certain_tasks: u32,
    /// Makespan in ms.
    pub makespan_ms: Range,
    /// Cost in USD.
    pub cost_usd: Range,
    /// Cold starts per run, on the average.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub cold_starts: f64,
    /// How likely the run ends by the deadline of the objective, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_time: Option<Probability>,
    /// How likely the run costs no more than the budget of the objective, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_budget: Option<Probability>,
    /// The probability that the objective asks for, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<f64>,
    /// A deadline in ms that this plan keeps with the probability asked for: the upper end of the 95 %
    /// confidence interval of that quantile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feasible_ms: Option<f64>,
}

impl Outlook {
    /// Whether the measured probability is at least the one asked for; nothing where none was asked for.
    #[must_use]
    pub fn keeps(&self) -> Option<bool> {
        Some(self.in_time?.measured >= self.asked?)
    }
}

/// Mean and quantiles of what was drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Range {
    /// The mean.
    pub mean: f64,
    /// Five of a hundred draws stay below.
    pub p5: f64,
    /// Half of the draws stay below.
    pub median: f64,
    /// Nine of ten draws stay below.
    pub p90: f64,
    /// 95 of a hundred draws stay below.
    pub p95: f64,
    /// 99 of a hundred draws stay below.
    pub p99: f64,
}

/// A measured probability with its confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Probability {
    /// The limit, in ms or USD.
    pub limit: f64,
    /// Part of the draws that keep it.
    pub measured: f64,
    /// Lower end of the 95 % interval (Wilson).
    pub low: f64,
    /// Upper end of the 95 % interval (Wilson).
    pub high: f64,
}
