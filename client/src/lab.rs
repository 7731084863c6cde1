//! The lab: judges the predictor on recorded measurements, and planners on recorded workflows, without a
//! stack.
//!
//! [`plans`] compares planners in virtual time, [`runs`] real runs, [`effects`] real runs with and without an
//! optimisation, [`shapes`] has synthetic workflows; the rest is about the predictor.
//!
//! The back-test itself is `foresail_model::backtest`: pure, and through the code that the daemon runs. Here
//! files become rows. Errors in percent, coverage as a ratio, times in ms, sizes
//! in bytes.

pub use foresail_planner::shapes;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use csv::StringRecord;
use foresail_model::backtest::{self, BacktestError, Method, Protocol, Quantity, Report, Row, Settings};
use foresail_schemas::config::ResourceConfig;
use serde::Serialize;

use crate::samples::{CsvLines, Line};

pub mod effects;
pub mod plans;
pub mod runs;
pub mod scale;

pub use foresail_model::backtest as protocols;

/// Largest file of measurements, in bytes; all its rows are held in memory.
pub const FILE_BYTES_MAX: u64 = 1 << 30;
/// Most files of a folder.
pub const FILES_MAX: usize = 1_000;

/// What [`accuracy`] asks of every file. No file says whether its rows are transfers: they are taken for
/// executions.
pub const QUESTIONS: [(Protocol, Quantity); 8] = [
    (Protocol::Memory, Quantity::ExecutionTime),
    (Protocol::MemoryOne, Quantity::ExecutionTime),
    (Protocol::Joint(30), Quantity::ExecutionTime),
    (Protocol::Joint(10), Quantity::ExecutionTime),
    (Protocol::Extrapolate, Quantity::ExecutionTime),
    (Protocol::NextRun, Quantity::ExecutionTime),
    (Protocol::Coverage(10), Quantity::ExecutionTime),
    (Protocol::NextRun, Quantity::OutputSize),
];

/// What is learned and predicted of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Rows {
    /// Every measurement.
    Single,
    /// The median of what was measured of the same task, worker and input size.
    Medians,
}

/// Why the lab has no answer.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A file or folder cannot be read.
    #[error("`{}` cannot be read: {reason}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file has no measurements.
    #[error("`{}` is empty: it has no row of measurements", .0.display())]
    Empty(PathBuf),
    /// A folder has no files to judge with.
    #[error("`{}` has no CSV file that supports a protocol", .0.display())]
    NoFiles(PathBuf),
    /// The rows and the protocol do not fit.
    #[error("`{}`: {error}", path.display())]
    Backtest {
        /// The file.
        path: PathBuf,
        /// Why.
        error: BacktestError,
    },
}

/// The answers of one folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Accuracy {
    /// Seed of what was drawn.
    pub seed: u64,
    /// What was learned and predicted.
    pub of: Rows,
    /// One per file and question that the file supports, files by name.
    pub reports: Vec<FileReport>,
}

/// The answer of one file to one question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileReport {
    /// Name of the file without folder and ending.
    pub file: String,
    /// Lines of the file that are no measurements and were left out.
    pub refused: u64,
    /// Why the first of them is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// What was learned and predicted.
    pub of: Rows,
    /// The answer.
    #[serde(flatten)]
    pub report: Report,
}

/// The measurements of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct FileRows {
    /// What the rows are.
    pub of: Rows,
    /// The measurements, in the order of the file.
    pub rows: Vec<Row>,
    /// Lines that are none.
    pub refused: u64,
    /// Why the first of them is none, with its line.
    pub refusal: Option<String>,
}

/// Reads a CSV file with a header, as single measurements; a blank cell is not known.
///
/// # Errors
/// [`LabError::Unreadable`] when it is too large or has no line that is a measurement.
pub fn rows(path: &Path) -> Result<FileRows, LabError> {
    let wrong = |reason: String| LabError::Unreadable { path: path.to_owned(), reason };
    let bytes = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(wrong(format!("it has {bytes} bytes, at most {FILE_BYTES_MAX} are taken")));
    }
    let unreadable = |e: std::io::Error| wrong(e.to_string());
    let input = BufReader::new(File::open(path).map_err(unreadable)?);
    let mut file = FileRows { of: Rows::Single, rows: Vec::new(), refused: 0, refusal: None };
    let Some(mut lines) = CsvLines::open(input).map_err(unreadable)? else { return Ok(file) };
    while let Some(Line { number, read, .. }) = lines.next_row().map_err(unreadable)? {
        match read.and_then(|cells| measurement(&cells, lines.header())) {
            Ok(row) => file.rows.push(row),
            Err(reason) => {
                file.refused += 1;
                file.refusal.get_or_insert_with(|| format!("line {number}: {reason}"));
            }
        }
    }
    match file.refusal {
        Some(reason) if file.rows.is_empty() => Err(wrong(reason)),
        _ => Ok(file),
    }
}

/// A row, or why it is no measurement: what the daemon would set aside teaches nothing here either.
fn measurement(cells: &StringRecord, header: &StringRecord) -> Result<Row, String> {
    let row: Row = cells.deserialize(Some(header)).map_err(|error| match error.kind() {
        csv::ErrorKind::Deserialize { err, .. } => {
            let at = err.field().and_then(|at| usize::try_from(at).ok());
            let cell = at.and_then(|at| header.get(at).zip(cells.get(at)));
            let cell = cell.map(|(column, cell)| format!("{column} `{cell}`: ")).unwrap_or_default();
            format!("{cell}{}", err.kind())
        }
        _ => error.to_string(),
    })?;
    if !(row.exec_ms.is_finite() && row.exec_ms >= 0.0) {
        return Err(format!("exec_ms `{}` is not a number from 0", row.exec_ms));
    }
    ResourceConfig::new(row.memory_mb.unwrap_or(backtest::MEMORY_MB_DEFAULT), row.vcpu)
        .map_err(|e| e.to_string())?;
    Ok(row)
}

/// Runs one back-test over one file.
///
/// # Errors
/// [`LabError`] when the file cannot be read or leaves nothing to predict.
pub fn backtest(path: &Path, of: Rows, settings: &Settings) -> Result<FileReport, LabError> {
    let failed = |error| LabError::Backtest { path: path.to_owned(), error };
    let file = rows(path)?.folded(of);
    if file.rows.is_empty() {
        return Err(LabError::Empty(path.to_owned()));
    }
    let report = backtest::run(&file.rows, settings).map_err(failed)?;
    Ok(file.answer(path, report))
}

impl FileRows {
    /// What of single measurements is learned and predicted.
    fn folded(mut self, of: Rows) -> Self {
        self.of = of;
        if of == Rows::Medians {
            self.rows = backtest::medians(&self.rows);
        }
        self
    }

    fn answer(&self, path: &Path, report: Report) -> FileReport {
        let file = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        FileReport { file, refused: self.refused, refusal: self.refusal.clone(), of: self.of, report }
    }
}

/// Asks every CSV file of a folder every question that it supports; `watch` is told each before it is asked.
/// Medians leave out the questions about what comes next in time.
///
/// # Errors
/// [`LabError`] when the folder or one of its files cannot be read, or none supports anything.
pub fn accuracy(
    folder: &Path,
    of: Rows,
    seed: u64,
    mut watch: impl FnMut(&Path, &Settings),
) -> Result<Accuracy, LabError> {
    let mut reports = Vec::new();
    for path in csv_files(folder)? {
        let file = rows(&path)?.folded(of);
        for (protocol, quantity) in QUESTIONS {
            // Medians are of no time.
            if of == Rows::Medians && matches!(protocol, Protocol::NextRun | Protocol::Coverage(_)) {
                continue;
            }
            let settings = Settings { protocol, quantity, methods: Method::ALL.to_vec(), seed };
            watch(&path, &settings);
            match backtest::run(&file.rows, &settings) {
                Ok(report) => reports.push(file.answer(&path, report)),
                Err(BacktestError::Nothing { .. }) => {}
                Err(error) => return Err(LabError::Backtest { path, error }),
            }
        }
    }
    match reports.is_empty() {
        true => Err(LabError::NoFiles(folder.to_owned())),
        false => Ok(Accuracy { seed, of, reports }),
    }
}

/// The CSV files of a folder by name.
fn csv_files(folder: &Path) -> Result<Vec<PathBuf>, LabError> {
    let wrong = |reason: String| LabError::Unreadable { path: folder.to_owned(), reason };
    let entries = std::fs::read_dir(folder).map_err(|e| wrong(e.to_string()))?;
    let is_csv = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "csv");
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_csv).collect();
    if files.len() > FILES_MAX {
        return Err(wrong(format!("it has {} CSV files, at most {FILES_MAX} are taken", files.len())));
    }
    files.sort_unstable();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times that halve with every doubling of memory and grow with the input, without noise.
    fn write(folder: &Path) {
        let mut text = "workflow,task,run,memory_mb,vcpu,input_bytes,output_bytes,exec_ms\n".to_owned();
        for run in 1..=8 {
            for mb in [256, 512, 1024] {
                let input_bytes = run * 1_000_000;
                let exec_ms = f64::from(input_bytes) / f64::from(mb);
                text += &format!("w,t,{run},{mb},,{input_bytes},,{exec_ms}\n");
            }
        }
        std::fs::write(folder.join("halving.csv"), text).unwrap();
    }

    #[test]
    fn every_question_that_a_file_supports_is_answered_the_same_every_time() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path());
        std::fs::write(folder.path().join("notes.txt"), "no measurements").unwrap();
        let mut asked = 0;
        let first = accuracy(folder.path(), Rows::Single, 3, |_, _| asked += 1).unwrap();
        assert_eq!(asked, QUESTIONS.len());
        let protocols: Vec<Protocol> = first.reports.iter().map(|r| r.report.protocol).collect();
        assert!(protocols.contains(&Protocol::Memory) && protocols.contains(&Protocol::NextRun));
        assert!(first.reports.iter().all(|r| r.report.quantity != Quantity::OutputSize), "none has outputs");
        assert_eq!(first, accuracy(folder.path(), Rows::Single, 3, |_, _| ()).unwrap());
        let memory = first.reports.iter().find(|r| r.report.protocol == Protocol::Memory).unwrap();
        assert_eq!(memory.report.scores[0].method, Method::Model);
        assert!(memory.report.scores[0].mdape_percent < 10.0, "{}", memory.report.scores[0].mdape_percent);
    }

    #[test]
    fn lines_that_are_no_measurements_are_left_out_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(accuracy(folder.path(), Rows::Single, 0, |_, _| ()), Err(LabError::NoFiles(_))));
        let path = folder.path().join("bad.csv");
        std::fs::write(&path, "workflow,task,exec_ms\nw,t,1\nw,t,soon\nw,t,2\n").unwrap();
        let file = rows(&path).unwrap();
        assert_eq!((file.rows.len(), file.refused), (2, 1));
        assert!(file.refusal.unwrap().contains("line 3"));
        std::fs::write(&path, "workflow,task,exec_ms\nw,t,soon\n").unwrap();
        let error = rows(&path).unwrap_err().to_string();
        assert!(error.contains("bad.csv") && error.contains("line 2"), "{error}");
    }

    #[test]
    fn values_that_no_measurement_has_cost_their_own_line_only() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path());
        let path = folder.path().join("halving.csv");
        let good = std::fs::read_to_string(&path).unwrap();
        let expect = accuracy(folder.path(), Rows::Single, 3, |_, _| ()).unwrap();
        let bad = [
            ("w,t,1,0,,1,,5", "memory_mb `0`"),
            ("w,t,1,512,,1,,-3", "exec_ms `-3`"),
            ("w,t,1,512,0,1,,5", "vcpu `0`"),
            ("w,t,1,512,,1,,\"5", "`\"`"),
            ("w,t,1,512,,many,,5", "input_bytes `many`"),
        ];
        for (line, word) in bad {
            std::fs::write(&path, good.replacen('\n', &format!("\n\n{line}\n"), 1)).unwrap();
            let found = accuracy(folder.path(), Rows::Single, 3, |_, _| ()).unwrap();
            let told = found.reports[0].refusal.clone().unwrap();
            assert!(told.starts_with("line 3: ") && told.contains(word), "`{line}` is told as `{told}`");
            assert!(found.reports.iter().all(|report| report.refused == 1), "{line}");
            let scores = |answer: &Accuracy| -> Vec<Report> {
                answer.reports.iter().map(|report| report.report.clone()).collect()
            };
            assert_eq!(scores(&found), scores(&expect), "{line}");
        }
    }
}
