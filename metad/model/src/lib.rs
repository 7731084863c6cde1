//! The prediction kernel: measurements in, predictions out. No clock, no I/O, no randomness.
//!
//! [`WorkflowModel`] takes the records of one workflow ([`WorkflowModel::update`], constant time) and keeps a
//! bounded amount of them; [`WorkflowModel::snapshot`] shares them with a [`Predictor`], which is immutable,
//! cheap to clone and serialisable. A snapshot fits nothing and costs microseconds, however many tasks there
//! are. A predictor fits a curve at the first question that needs it (some 20 to 60 microseconds) and keeps
//! it for every later snapshot of the same measurements; from then on an answer takes less than a
//! microsecond.
//!
//! Guarantees: a prediction is finite, never negative and monotone in the quantile; where nothing is known it
//! is `null` with basis `none`. The answer depends on the samples and their times, not on how they were cut
//! into batches, on the order in which they came, on how many snapshots were taken or on which question came
//! first; merging two models equals one model of both histories.
//! Both hold below the bounds on the number of tasks and configs ([`TASKS_PER_WORKFLOW_MAX`],
//! [`CONFIGS_PER_TASK_MAX`], [`DECIDERS_MAX`]), which say what happens beyond.
//!
//! Units: times in ms (histograms and sums: microseconds), sizes in bytes, memory in MB.

mod answers;
pub mod backtest;
mod cells;
mod config;
mod curve;
mod decision;
mod download;
mod drift;
mod evidence;
mod form;
mod formula;
mod histogram;
mod history;
mod interaction;
mod kinds;
mod levels;
mod local;
mod logs;
mod memo;
mod memory;
mod mixture;
mod model;
mod moments;
mod peak;
mod pool;
mod pooled;
mod predictor;
mod quantile;
mod report;
mod ring;
mod scaled;
mod score;
mod series;
mod shape;
mod shared;
mod size;
mod smooth;
mod sort;
mod startup;
mod stats;
mod steps;
mod task;
mod transfer;

pub use config::CONFIGS_PER_TASK_MAX;
pub use decision::{BRANCHES_MAX, DECIDERS_MAX};
pub use download::{Download, DownloadError, Form};
pub use formula::CurvePart;
pub use model::{MODEL_VERSION, SavedRest, SavedTask, TASKS_PER_WORKFLOW_MAX, WorkflowModel};
pub use peak::PeakMemory;
pub use predictor::{Cold, PREDICTOR_VERSION, Predictor};
pub use report::{
    Bucket, ConfigReport, CurvePoint, InputRange, Quantiles, ShapeReport, SizeCurve, SizeFit, TaskReport,
    TuningPoint,
};
pub use ring::RING_SAMPLES;
pub use score::{DAYS_KEPT_MAX, Scores};
pub use task::EXACT_SAMPLES_MIN;
pub use transfer::STORES_MAX;
