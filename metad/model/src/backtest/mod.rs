//! The back-test: how well measurements are predicted that the model has not seen, beside simple rules.
//!
//! Pure: rows in, scores out, the same for the same seed. The model is asked through the daemon's own path
//! (`WorkflowModel::update`, `snapshot`, `Predictor::predict`), and every method gets the same rows of a task
//! to learn from. Under the memory protocols the model also learns the other tasks of the file, as in the
//! daemon, where a task's neighbours are known; the rules learn the task's own rows only, having no use for
//! others. What is learned and asked per fit is bounded: what was left out is said in [`Report::thinned`].
//!
//! Units: times in ms, sizes in bytes, errors in percent, coverage as a ratio.

mod learn;
mod medians;
mod names;
mod rules;
mod score;
mod split;

use std::collections::BTreeMap;

use foresail_schemas::Sla;
use foresail_schemas::prediction::Unit;
use serde::{Deserialize, Deserializer, Serialize};

pub use medians::medians;
pub use score::{Score, TaskScore};

/// Memory of a row that names none: one vCPU.
pub const MEMORY_MB_DEFAULT: u32 = 1769;
/// Quantiles that are scored.
pub const QUANTILES: [Sla; 4] = [Sla::MEDIAN, Sla::Quantile(9000), Sla::P95, Sla::Quantile(9900)];

/// One measurement; blank fields are not known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The workflow, whose tasks share one model.
    pub workflow: String,
    /// The function that ran.
    pub task: String,
    /// The run it belongs to, where known.
    #[serde(default)]
    pub run: Option<String>,
    /// Memory in MB; [`MEMORY_MB_DEFAULT`] where absent.
    #[serde(default, deserialize_with = "whole_mb")]
    pub memory_mb: Option<u32>,
    /// vCPUs, where known apart from memory.
    #[serde(default)]
    pub vcpu: Option<f64>,
    /// Input size; 0 where absent.
    #[serde(default, deserialize_with = "whole_bytes")]
    pub input_bytes: Option<u64>,
    /// Output size, where known.
    #[serde(default, deserialize_with = "whole_bytes")]
    pub output_bytes: Option<u64>,
    /// The time.
    pub exec_ms: f64,
}

/// Some tables write whole numbers as `12.0`.
fn whole_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    Ok(whole::<D>(from)?.map(|number| number as u64))
}

fn whole_mb<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    Ok(whole::<D>(from)?.map(|number| number as u32))
}

fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    match Option::<f64>::deserialize(from)? {
        Some(n) if !(n.is_finite() && n >= 0.0) => Err(serde::de::Error::custom(format!(
            "`{n}` is not a size\nhint: sizes are whole numbers from 0"
        ))),
        number => Ok(number),
    }
}

/// What is left out and predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `memory`: one config of a task is left out completely and predicted from its other configs.
    Memory,
    /// `memory-one`: a task is learned on one config only; configs at most a factor of two away are
    /// predicted. In both, the model also knows the other tasks of the workflow; the rules do not.
    MemoryOne,
    /// `joint:N`: N rows of every task are learned; combinations of config and size not among them are
    /// predicted.
    Joint(usize),
    /// `extrapolate`: the largest inputs are predicted from smaller ones. Rows of runs named `train...` and
    /// `test` are learned and predicted as named, six of the former only, spread over their sizes.
    Extrapolate,
    /// `next-run`: every run is predicted from the runs before it.
    NextRun,
    /// `coverage:N`: rows are predicted from those of the task before them, once the same config has N.
    Coverage(usize),
}

/// What is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// `execution-time`.
    ExecutionTime,
    /// `output-size`, from the rows that have one.
    OutputSize,
    /// `transfer-time`: rows are taken for transfers of `input_bytes` that took `exec_ms`, tasks for stores.
    TransferTime,
}

impl Quantity {
    /// Unit of the values.
    #[must_use]
    pub fn unit(self) -> Unit {
        if self == Self::OutputSize { Unit::Bytes } else { Unit::Ms }
    }
}

/// Who predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// `model`: Foresail's.
    Model,
    /// `mean` of the task's rows.
    Mean,
    /// `median` of the task's rows.
    Median,
    /// `nearest-neighbours`: mean of the five nearest rows in log memory, log vCPU and log size.
    NearestNeighbours,
    /// `linear` least squares in CPU share and size.
    Linear,
    /// `log-linear`: the same in logarithms.
    LogLinear,
    /// `fixed-exponent`: time x share^0.3, median over the rows of the nearest size.
    FixedExponent,
    /// `proportional-to-bytes`: median of value per byte, times bytes.
    ProportionalToBytes,
}

impl Method {
    /// All methods, the model first.
    pub const ALL: [Self; 8] = [
        Self::Model,
        Self::Mean,
        Self::Median,
        Self::NearestNeighbours,
        Self::Linear,
        Self::LogLinear,
        Self::FixedExponent,
        Self::ProportionalToBytes,
    ];
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What is left out.
    pub protocol: Protocol,
    /// What is predicted.
    pub quantity: Quantity,
    /// Who predicts.
    pub methods: Vec<Method>,
    /// Seed of the drawing in [`Protocol::Joint`].
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What was left out.
    pub protocol: Protocol,
    /// What was predicted.
    pub quantity: Quantity,
    /// Unit of the values.
    pub unit: Unit,
    /// Seed of the drawing.
    pub seed: u64,
    /// Rows given.
    pub rows: u64,
    /// Times the methods learned anew.
    pub fits: u64,
    /// What was left out so that the run time stays bounded; empty where nothing was.
    pub thinned: Vec<String>,
    /// One score per method, in the order asked for.
    pub scores: Vec<Score>,
}

/// Why there is no report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BacktestError {
    /// A text names no protocol, quantity or method.
    #[error("`{value}` is not a {kind}\nhint: {hint}")]
    Unknown {
        /// What was being named.
        kind: &'static str,
        /// The text.
        value: String,
        /// What is possible.
        hint: &'static str,
    },
    /// A row has a value that cannot be a measurement.
    #[error("row {row} has `{value}` as {column}\nhint: {hint}")]
    Row {
        /// Place of the row, from 1.
        row: u64,
        /// The column.
        column: &'static str,
        /// The value.
        value: String,
        /// What is possible.
        hint: &'static str,
    },
    /// No row can be predicted under the protocol.
    #[error("nothing to predict under `{protocol}`: {reason}\nhint: {hint}")]
    Nothing {
        /// The protocol.
        protocol: String,
        /// What the rows lack.
        reason: &'static str,
        /// What would help.
        hint: &'static str,
    },
}

/// Runs a back-test.
///
/// # Errors
/// [`BacktestError`] where a row is no measurement or the protocol finds nothing to predict in the rows.
pub fn run(rows: &[Row], settings: &Settings) -> Result<Report, BacktestError> {
    let table = Table::new(rows, settings.quantity)?;
    let split = split::split(&table, settings);
    if split.trials.iter().all(|trial| trial.ask.is_empty()) {
        let (reason, hint) = split::lacking(&table, settings.protocol);
        return Err(BacktestError::Nothing { protocol: settings.protocol.to_string(), reason, hint });
    }
    let mut boards: Vec<score::Board> = settings.methods.iter().map(|_| score::Board::new()).collect();
    let mut model = learn::ModelJudge::new(&table);
    for (turn, trial) in split.trials.iter().enumerate() {
        let learned = trial.learned(&table);
        for (method, board) in settings.methods.iter().zip(&mut boards) {
            match method {
                Method::Model => model.judge(&table, turn, trial, &learned, board),
                rule => rules::judge_rule(&table, turn, trial, &learned, *rule, board),
            }
        }
    }
    Ok(Report {
        protocol: settings.protocol,
        quantity: settings.quantity,
        unit: settings.quantity.unit(),
        seed: settings.seed,
        rows: rows.len() as u64,
        fits: split.trials.len() as u64,
        thinned: split.thinned,
        scores: settings.methods.iter().zip(boards).map(|(method, board)| board.score(*method)).collect(),
    })
}

/// One row as the methods see it.
#[derive(Debug, Clone, PartialEq)]
struct Case {
    workflow: usize,
    /// Place of (workflow, task) among all of them.
    task: usize,
    run: Option<usize>,
    memory_mb: u32,
    vcpu: Option<f64>,
    share: f64,
    input_bytes: u64,
    value: f64,
    /// Place in the table, which is its time.
    order: u32,
}

impl Case {
    /// Key of the config.
    fn config(&self) -> (u32, u64) {
        (self.memory_mb, (self.share * 1000.0).round() as u64)
    }

    /// The config and size that it answers for.
    fn question(&self) -> score::Question {
        (self.config(), self.input_bytes)
    }

    /// The same with its task.
    fn cell(&self) -> (usize, score::Question) {
        (self.task, self.question())
    }
}

/// The rows with numbers for names, in measured order.
struct Table {
    quantity: Quantity,
    cases: Vec<Case>,
    /// Names of the tasks with their workflow.
    tasks: Vec<String>,
    /// Names of the runs.
    runs: Vec<String>,
}

impl Table {
    fn new(rows: &[Row], quantity: Quantity) -> Result<Self, BacktestError> {
        let mut table = Self { quantity, cases: Vec::new(), tasks: Vec::new(), runs: Vec::new() };
        let mut workflows: BTreeMap<&str, usize> = BTreeMap::new();
        let mut tasks: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        let mut runs: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for (place, row) in rows.iter().enumerate() {
            check(place, row)?;
            let value = match quantity {
                Quantity::OutputSize => match row.output_bytes {
                    Some(bytes) => bytes as f64,
                    None => continue,
                },
                Quantity::ExecutionTime | Quantity::TransferTime => row.exec_ms,
            };
            let count = workflows.len();
            let workflow = *workflows.entry(&row.workflow).or_insert(count);
            let task = *tasks.entry((&row.workflow, &row.task)).or_insert_with(|| {
                table.tasks.push(format!("{}/{}", row.workflow, row.task));
                table.tasks.len() - 1
            });
            let run = row.run.as_deref().filter(|run| !run.is_empty()).map(|run| {
                *runs.entry((&row.workflow, run)).or_insert_with(|| {
                    table.runs.push(run.to_owned());
                    table.runs.len() - 1
                })
            });
            let memory_mb = row.memory_mb.unwrap_or(MEMORY_MB_DEFAULT);
            table.cases.push(Case {
                workflow,
                task,
                run,
                memory_mb,
                vcpu: row.vcpu,
                share: row.vcpu.unwrap_or(f64::from(memory_mb) / f64::from(MEMORY_MB_DEFAULT)),
                input_bytes: row.input_bytes.unwrap_or(0),
                value,
                order: place as u32,
            });
        }
        Ok(table)
    }
}

fn check(place: usize, row: &Row) -> Result<(), BacktestError> {
    let refuse =
        |column, value: String, hint| Err(BacktestError::Row { row: place as u64 + 1, column, value, hint });
    if !(row.exec_ms.is_finite() && row.exec_ms >= 0.0) {
        return refuse("exec_ms", row.exec_ms.to_string(), "times are finite and not negative");
    }
    if row.memory_mb == Some(0) {
        return refuse("memory_mb", "0".to_owned(), "leave it blank where it is not known");
    }
    match row.vcpu {
        Some(vcpu) if !(vcpu.is_finite() && vcpu > 0.0) => {
            refuse("vcpu", vcpu.to_string(), "leave it blank where it is not known")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
