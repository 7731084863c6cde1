//! The prediction kernel: measurements in, predictions out. No clock, no I/O, no randomness.
//!
//! [`WorkflowModel`] takes the records of one workflow ([`WorkflowModel::update`], constant time) and keeps a
//! bounded amount of them; [`WorkflowModel::snapshot`] fits what changed and gives a [`Predictor`], which is
//! immutable, cheap to clone, serialisable, and answers a question in about a microsecond without fitting
//! anything.
//!
//! Guarantees: a prediction is finite, never negative and monotone in the quantile; where nothing is known it
//! is `null` with basis `none`. The answer depends on the samples and their times, not on how they were cut
//! into batches or on the order in which they came; merging two models equals one model of both histories.
//! Both hold below the bounds on the number of tasks and configs ([`TASKS_PER_WORKFLOW_MAX`],
//! [`CONFIGS_PER_TASK_MAX`]), which say what happens beyond.
//!
//! Units: times in ms (histograms and sums: microseconds), sizes in bytes, memory in MB.

pub mod backtest;
mod cells;
mod config;
mod curve;
mod drift;
mod histogram;
mod local;
mod mixture;
mod model;
mod moments;
mod pooled;
mod predictor;
mod quantile;
mod report;
mod ring;
mod scaled;
mod series;
mod shape;
mod size;
mod startup;
mod stats;
mod task;
mod transfer;

pub use config::CONFIGS_PER_TASK_MAX;
pub use model::{MODEL_VERSION, TASKS_PER_WORKFLOW_MAX, WorkflowModel};
pub use predictor::{PREDICTOR_VERSION, Predictor};
pub use report::{
    Bucket, ConfigReport, InputRange, Quantiles, ShapeReport, SizeFit, TaskReport, TuningPoint,
};
pub use ring::RING_SAMPLES;
pub use task::EXACT_SAMPLES_MIN;
pub use transfer::STORES_MAX;
