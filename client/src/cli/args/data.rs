//! Arguments of the commands that move measurements: import and export.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use foresail_schemas::WorkflowName;
use foresail_schemas::config::MEMORY_MB_MAX;
use foresail_schemas::id::RunId;
use jiff::Timestamp;

/// What the order of the lines says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImportOrder {
    /// Lines stand in the order in which they were measured.
    Rows,
    /// Lines stand in some other order, which must not be taken for a change over time.
    Shuffled,
}

/// `foresail import`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    foresail import history.csv\n  \
    foresail import lambda.csv --workflow resize --memory 1024\n  \
    foresail export samples resize --file resize.ndjson\n  \
    foresail import resize.ndjson --workflow resize --metad http://127.0.0.1:7070\n\n\
    A CSV file has a header with these columns, in any order: task and exec_ms, and where\n\
    known workflow, memory_mb, vcpu, input_bytes, output_bytes, at. Other columns are ignored.\n\
    A blank is `not known`. An NDJSON file has one record per line, as metad exports them.\n\n\
    Importing the same file again changes nothing, and of a file that grew only the new lines\n\
    are stored: lines are known again by their text and place. A file with other lines than\n\
    those that were imported is refused from there on. Lines that cannot be taken are listed\n\
    with their number and the reason; the others are stored, and the exit code is then 1.")]
pub struct ImportArgs {
    /// A CSV or NDJSON file; - reads stdin.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The workflow of all lines, whatever the file says.
    #[arg(long, value_name = "NAME")]
    pub workflow: Option<WorkflowName>,
    /// Memory of lines that name none, in MB.
    #[arg(long, default_value_t = 1769, value_name = "MB",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MEMORY_MB_MAX)))]
    pub memory: u32,
    /// Time of the first line that names none, for instance 2026-01-05T10:00:00Z; each further one is a
    /// microsecond later [default: such that the last is as old as the file].
    #[arg(long, value_name = "TIME")]
    pub start: Option<Timestamp>,
    /// What the order of the lines says.
    #[arg(long, value_enum, default_value_t = ImportOrder::Rows)]
    pub order: ImportOrder,
    /// Writes _ for every character that a name must not have, instead of refusing the line.
    #[arg(long)]
    pub map_names: bool,
}

/// `foresail export`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Examples:\n  \
    foresail export r-20260105-101530-4f2a1c > run.json\n  \
    foresail export samples text-analysis --file history.parquet\n  \
    foresail export samples text-analysis --form csv > history.csv")]
pub struct ExportArgs {
    /// The run to write as WfFormat 1.5, the exchange format of WfCommons.
    #[arg(required = true)]
    pub run: Option<RunId>,
    /// Writes WfFormat 1.5; there is no other format for runs yet.
    #[arg(long)]
    pub wfformat: bool,
    /// Something else than a run.
    #[command(subcommand)]
    pub what: Option<ExportWhat>,
}

/// What is written that is no run.
#[derive(Debug, Subcommand)]
pub enum ExportWhat {
    /// Write the measurements of a workflow that metad keeps.
    Samples(SamplesArgs),
}

/// Form of exported measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SampleForm {
    /// One record per line, as `foresail import` reads them.
    Ndjson,
    /// Executions as a table with a header, as `foresail import` reads it; transfers and starts have no place
    /// in it.
    Csv,
    /// Apache Parquet, for pandas, DuckDB and the like.
    Parquet,
}

/// `foresail export samples`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    foresail export samples text-analysis > history.ndjson\n  \
    foresail export samples text-analysis --file history.parquet\n\n\
    Without --form the ending of --file decides; ndjson is the default.")]
pub struct SamplesArgs {
    /// The workflow.
    pub workflow: WorkflowName,
    /// Form of what is written.
    #[arg(long, value_enum)]
    pub form: Option<SampleForm>,
    /// Writes this file instead of stdout; it appears when it is complete.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}
