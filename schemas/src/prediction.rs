//! Questions to the model and its answers.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Sla;
use crate::id::TaskName;
use crate::metric::{Direction, StartState};
use crate::number::positive_opt;

/// Most questions answered in one request by default.
pub const QUERIES_PER_REQUEST_MAX: usize = 100_000;
/// Most service levels asked in one request.
pub const SLAS_PER_REQUEST_MAX: usize = 16;

/// Several questions at the same service levels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PredictionRequest {
    /// The statistics asked for; the median where absent.
    #[serde(default = "median")]
    #[schemars(length(min = 1, max = 16))]
    pub sla: Vec<Sla>,
    /// The questions.
    pub queries: Vec<Query>,
}

/// One question. A field that its kind does not have is refused: it was meant to change the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Query {
    /// How long does the task run?
    ExecutionTime {
        /// The function.
        task: TaskName,
        /// Size of all inputs in bytes.
        #[serde(default)]
        input_bytes: u64,
        /// Memory of the worker in MB.
        #[schemars(range(min = 1, max = 1048576))]
        memory_mb: u32,
        /// vCPUs of the worker, where decoupled from memory.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "positive_opt")]
        #[schemars(extend("exclusiveMinimum" = 0.0))]
        vcpu: Option<f64>,
    },
    /// How many bytes does the task write?
    OutputSize {
        /// The function.
        task: TaskName,
        /// Size of all inputs in bytes.
        #[serde(default)]
        input_bytes: u64,
    },
    /// How long does it take to move an object?
    TransferTime {
        /// Which way.
        direction: Direction,
        /// Size in bytes.
        #[serde(default)]
        bytes: u64,
        /// Memory of the worker in MB.
        #[schemars(range(min = 1, max = 1048576))]
        memory_mb: u32,
        /// vCPUs of the worker, where decoupled from memory.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "positive_opt")]
        #[schemars(extend("exclusiveMinimum" = 0.0))]
        vcpu: Option<f64>,
        /// The store; all stores together where absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        store: Option<TaskName>,
    },
    /// How long does it take until a worker runs?
    StartupTime {
        /// Cold or warm.
        state: StartState,
        /// Memory of the worker in MB.
        #[schemars(range(min = 1, max = 1048576))]
        memory_mb: u32,
        /// vCPUs of the worker, where decoupled from memory.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "positive_opt")]
        #[schemars(extend("exclusiveMinimum" = 0.0))]
        vcpu: Option<f64>,
    },
    /// What does the task decide: how many follow, or which branch is taken?
    Decision {
        /// The function.
        task: TaskName,
        /// Size of all inputs in bytes.
        #[serde(default)]
        input_bytes: u64,
    },
}

/// The answers, in the order of the questions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PredictionAnswer {
    /// Epoch of the model that answered.
    pub epoch: u64,
    /// One answer per question.
    pub predictions: Vec<Prediction>,
}

/// The answer to a single GET: one prediction and the epoch of the model that made it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SinglePrediction {
    /// Epoch of the model that answered.
    pub epoch: u64,
    /// The answer.
    #[serde(flatten)]
    pub prediction: Prediction,
}

/// One answer.
///
/// Monotone in the quantile, finite and never negative. Where nothing is known every value is `null` and the
/// basis is `none`; it is never 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Prediction {
    /// Unit of the values.
    pub unit: Unit,
    /// Value per service level asked for.
    pub values: BTreeMap<Sla, Option<f64>>,
    /// What the answer rests on.
    pub basis: Basis,
    /// Samples it rests on.
    pub samples: u64,
    /// True when the input size or the config lies outside what was seen.
    pub extrapolated: bool,
    /// For quantiles: where the true quantile lies with 90 % confidence, where that can be said.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub interval: BTreeMap<Sla, [f64; 2]>,
    /// For decisions: how likely each is, by its text, those that were most often first to be kept. What is
    /// left to 1 are decisions that are not listed. A task that decides by texts alone has no width: its
    /// values are `null`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub branches: BTreeMap<String, f64>,
}

/// Unit of a prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Milliseconds.
    Ms,
    /// Bytes.
    Bytes,
    /// Tasks: the width of a fan-out.
    Tasks,
}

/// What a prediction rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Enough samples of the same config: those only.
    Exact,
    /// Samples of all configs, brought to this one by the fitted resource shape.
    MemoryNormalised,
    /// Samples of all configs together, where the config is thought not to matter.
    Pooled,
    /// The same task name in other workflows.
    Prior,
    /// Nothing is known.
    None,
}

fn median() -> Vec<Sla> {
    vec![Sla::MEDIAN]
}
