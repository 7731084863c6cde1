//! How well plans predicted: the forecasts they carried, held against the times that were measured.
//!
//! A forecast is scored when the record with it is learnt. Errors in percent of the measured time, days in
//! UTC, by the time at which the execution ended.

use std::collections::BTreeMap;

use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Sla;
use crate::id::TaskName;
use crate::number::{non_negative_opt, shares};

/// Forecasts in sum.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Score {
    /// Executions whose forecast was scored.
    pub n: u64,
    /// Median of the absolute errors of the forecast median, at most 10 % of itself off; below 0.01 it is 0,
    /// null where nothing was scored.
    #[serde(default, deserialize_with = "non_negative_opt")]
    #[schemars(range(min = 0.0))]
    pub mdape_percent: Option<f64>,
    /// Mean of those errors, each counted up to 1,000,000; null where nothing was scored.
    #[serde(default, deserialize_with = "non_negative_opt")]
    #[schemars(range(min = 0.0))]
    pub mape_percent: Option<f64>,
    /// Share of the executions that took no longer than each forecast quantile; right is 0.5 for the median,
    /// 0.95 for p95. Empty where nothing was scored.
    #[serde(deserialize_with = "shares")]
    pub ratio: BTreeMap<Sla, f64>,
}

/// The forecasts of one day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DayScore {
    /// The day.
    pub day: Date,
    /// Its forecasts.
    #[serde(flatten)]
    pub score: Score,
}

/// Forecasts in sum and over time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Coverage {
    /// The whole history.
    #[serde(flatten)]
    pub score: Score,
    /// The newest days on which something was scored, at most 30, oldest first.
    pub days: Vec<DayScore>,
}

/// The forecasts of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskScore {
    /// The task.
    pub task: TaskName,
    /// Its whole history; its days stand in the report on the task.
    #[serde(flatten)]
    pub score: Score,
}

/// The forecasts of one workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkflowScores {
    /// Epoch of the last batch of the workflow.
    pub epoch: u64,
    /// All tasks together.
    pub total: Coverage,
    /// The tasks of which something was scored, by name, in pages.
    pub tasks: Vec<TaskScore>,
    /// What `after` is for the next page: the last task of this one; null where it is the last page.
    #[serde(default)]
    pub next_after: Option<TaskName>,
}
