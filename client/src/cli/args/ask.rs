//! Arguments of the commands that ask the model: predict, tune, scores.

use std::fmt;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use foresail_schemas::WorkflowName;
use foresail_schemas::config::{ConfigError, Sla};

use crate::units;

/// A statistic as it was typed: `p50` stays `p50` although it is the median.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedSla {
    /// What it means.
    pub sla: Sla,
    text: String,
}

impl FromStr for AskedSla {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let text = text.trim();
        Ok(Self { sla: text.parse()?, text: text.to_owned() })
    }
}

impl fmt::Display for AskedSla {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// What is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Quantities {
    /// Execution time and output size, and what it decides where it was seen to.
    All,
    /// Execution time.
    Time,
    /// Output size.
    Output,
    /// What it decides: how many tasks follow, or which branch is taken.
    Decision,
}

/// `foresail predict`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    foresail predict text-analysis/count --input 2MB --memory 1769 --sla p50,p95,p99\n  \
    foresail predict text-analysis/count --input 2MB --memory 512,1769 --what time\n  \
    foresail predict text-analysis/count --input 2MB --memory 2048 --vcpu 4 -o json\n\n\
    The interval is where the quantile lies with 90 % confidence. What the basis means, and\n\
    when an answer is extrapolated: docs/prediction.md.")]
pub struct PredictArgs {
    /// The task: WORKFLOW/TASK.
    #[arg(value_name = "WORKFLOW/TASK")]
    pub task: String,
    /// Size of all its inputs, for instance 50MB or 1.5GiB.
    #[arg(long, default_value = "0", value_parser = units::parse_bytes, value_name = "SIZE")]
    pub input: u64,
    /// Memory of the worker in MB; several, separated by commas, are compared.
    #[arg(long, value_delimiter = ',', default_value = "1769", value_name = "MB")]
    pub memory: Vec<u32>,
    /// vCPUs of the worker, where decoupled from memory.
    #[arg(long, value_name = "N")]
    pub vcpu: Option<f64>,
    /// Statistics, separated by commas: mean, median or pNN.
    #[arg(long, value_delimiter = ',', default_value = "median,p95")]
    pub sla: Vec<AskedSla>,
    /// What is predicted.
    #[arg(long, value_enum, default_value_t = Quantities::All)]
    pub what: Quantities,
}

/// `foresail tune`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    foresail tune text-analysis/count --input 50MB\n  \
    foresail tune text-analysis/count --input 50MB --platform aws-lambda-x86 --sla p95 --deadline 2s\n  \
    foresail tune text-analysis/count --input 50MB --memory 512,1024,1769,3008 -o json\n\n\
    Nothing is invoked: the answer comes from history. The cost is that of the mean time: what\n\
    many executions cost, divided by their number, without cold starts and storage. The best\n\
    trade-off is the size with the least product of time and cost.")]
pub struct TuneArgs {
    /// The task: WORKFLOW/TASK.
    #[arg(value_name = "WORKFLOW/TASK")]
    pub task: String,
    /// Size of all its inputs, for instance 50MB or 1.5GiB.
    #[arg(long, default_value = "0", value_parser = units::parse_bytes, value_name = "SIZE")]
    pub input: u64,
    /// Prices and sizes: local, aws-lambda-x86 or a TOML file.
    #[arg(long, default_value = "local", value_name = "NAME|FILE")]
    pub platform: String,
    /// Statistic of the time: mean, median or pNN.
    #[arg(long, default_value = "median")]
    pub sla: AskedSla,
    /// Memory sizes in MB, separated by commas [default: the menu of the platform].
    #[arg(long, value_delimiter = ',', value_name = "MB")]
    pub memory: Vec<u32>,
    /// vCPUs of the sizes of --memory, where decoupled from memory.
    #[arg(long, requires = "memory", value_name = "N")]
    pub vcpu: Option<f64>,
    /// Names the cheapest size that takes at most this time, for instance 2s.
    #[arg(long, value_name = "TIME", value_parser = units::parse_ms)]
    pub deadline: Option<f64>,
}

/// `foresail scores`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  foresail scores text-analysis\n\n\
    Every prediction that a plan was made with is scored when the truth arrives. Coverage of\n\
    p95: the share of executions that took no longer than predicted; right is 95 %.")]
pub struct ScoresArgs {
    /// The workflow.
    pub workflow: WorkflowName,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statistic_keeps_the_name_it_was_asked_by() {
        let asked: AskedSla = " p50".parse().unwrap();
        assert_eq!((asked.sla, asked.to_string().as_str()), (Sla::MEDIAN, "p50"));
        assert!("p0".parse::<AskedSla>().is_err());
    }
}
