//! Arguments of `foresail lab`: the predictor on recorded measurements, planners on recorded workflows,
//! without a stack.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use foresail_model::backtest::{BacktestError, Method, Protocol, Quantity};

use super::plans::PlannersArgs;
use super::runs::{LabOptimisationsArgs, LabRunArgs};
use super::scale::LabScaleArgs;
use crate::lab::Rows;

/// `foresail lab`.
#[derive(Debug, Args)]
pub struct LabArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: LabCommand,
}

/// What to do in the lab.
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// Predict recorded measurements that the model has not seen, beside simple rules.
    Backtest(BacktestArgs),
    /// Every protocol that a file supports, over every CSV file of a folder: one table.
    Accuracy(AccuracyArgs),
    /// Compare planners on recorded workflows and synthetic shapes.
    Plans(PlannersArgs),
    /// Compare planners on workloads that workers carry out.
    Run(LabRunArgs),
    /// Show what each optimisation brings on workloads that workers carry out.
    Optimisations(LabOptimisationsArgs),
    /// Tell what breaks first with so many workers: a run at size, in virtual time.
    Scale(LabScaleArgs),
}

/// `foresail lab backtest`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    foresail lab backtest --samples history.csv --protocol memory\n  \
    foresail lab backtest --samples history.csv --protocol joint:30 --seed 7 -o json\n  \
    foresail lab backtest --samples history.csv --protocol coverage:10 --methods model,median\n\n\
    Protocols: what is left out and predicted\n  \
    memory        a memory size of a task, from its other sizes\n  \
    memory-one    a memory size at most twice or half the only one that is known\n  \
    joint:N       combinations of memory and input size, from N rows of the task\n  \
    extrapolate   the largest inputs, from smaller ones\n  \
    next-run      every run, from the runs before it\n  \
    coverage:N    every row, from those before it, once there are N\n\n\
    The model goes through the code that the daemon runs. -o markdown writes a table for a page.")]
pub struct BacktestArgs {
    /// A CSV file with measurements, as `foresail import` reads it.
    #[arg(long, value_name = "FILE")]
    pub samples: PathBuf,
    /// What is left out: memory, memory-one, joint:N, extrapolate, next-run or coverage:N.
    #[arg(long, value_parser = read::<Protocol>)]
    pub protocol: Protocol,
    /// What is predicted: execution-time, output-size or transfer-time.
    #[arg(long, default_value = "execution-time", value_parser = read::<Quantity>)]
    pub quantity: Quantity,
    /// Who predicts, separated by commas: all, model, mean, median, nearest-neighbours, linear, log-linear,
    /// fixed-exponent, proportional-to-bytes.
    #[arg(long, value_delimiter = ',', default_value = "all", value_parser = read_methods)]
    pub methods: Vec<Methods>,
    /// What is learned and predicted: every measurement, or medians of the same task, worker and input size.
    #[arg(long, value_name = "WHAT", default_value = "single")]
    pub rows: Rows,
    /// Seed of what is drawn; the same seed gives the same figures.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// `foresail lab accuracy`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  foresail lab accuracy samples -o markdown > accuracy.md\n\n\
    A file supports a protocol where that leaves something to predict. Figures are the median\n\
    absolute percentage error; the last columns are the coverage of the model's p90 and p95.")]
pub struct AccuracyArgs {
    /// A folder with CSV files, as `foresail import` reads them.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// What is learned and predicted: every measurement, or medians of the same task, worker and input size.
    #[arg(long, value_name = "WHAT", default_value = "single")]
    pub rows: Rows,
    /// Seed of what is drawn; the same seed gives the same figures.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// One method, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Methods {
    /// Every method.
    All,
    /// This one.
    One(Method),
}

impl BacktestArgs {
    /// The methods, each once, in the order of their first mention.
    #[must_use]
    pub fn methods(&self) -> Vec<Method> {
        let mut methods = Vec::new();
        for asked in &self.methods {
            let asked = match asked {
                Methods::All => &Method::ALL[..],
                Methods::One(method) => std::slice::from_ref(method),
            };
            for method in asked {
                if !methods.contains(method) {
                    methods.push(*method);
                }
            }
        }
        methods
    }
}

fn read<T: std::str::FromStr<Err = BacktestError>>(text: &str) -> Result<T, BacktestError> {
    text.parse()
}

fn read_methods(text: &str) -> Result<Methods, BacktestError> {
    if text == "all" { Ok(Methods::All) } else { text.parse().map(Methods::One) }
}
