//! `foresail import`: measurements from a file into metad.

use std::fs::File;
use std::io::{BufReader, Seek};
use std::path::Path;
use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};

use super::args::{Global, ImportArgs, ImportOrder};
use super::error::CliError;
use super::render::{self, Table};
use super::session::Session;
use super::terminal::Terminal;
use crate::samples::{
    ImportError, ImportReport, LineOrder, NameRule, ReadSettings, SampleFileError, SampleReader, count_lines,
};

/// Most refused lines that are shown to people; `-o json` has more.
const REFUSALS_SHOWN_MAX: usize = 20;

/// Imports a file.
///
/// # Errors
/// [`CliError`] when the file cannot be read, metad does not answer, or lines were refused.
pub async fn import(global: &Global, args: &ImportArgs, terminal: &Terminal) -> Result<(), CliError> {
    let name = args.file.display().to_string();
    let unreadable = |e: std::io::Error| {
        CliError::input(format!("`{name}` cannot be read: {e}"), "give a CSV or NDJSON file")
    };
    let (mut file, age) = open(&args.file).map_err(unreadable)?;
    let lines = count_lines(&mut file).map_err(unreadable)?;
    file.rewind().map_err(unreadable)?;
    let of_file = |e: SampleFileError| CliError::input(format!("`{name}`: {e}"), e.hint());
    let mut reader = SampleReader::new(BufReader::new(file), settings(args, lines, age)).map_err(of_file)?;
    let session = Session::look(global).await?;
    terminal.say(&format!("importing `{name}` into the metad at {}", session.addresses.metad));
    let mut line = terminal.counter("lines", lines);
    let done = session.client.import(&mut reader, |report| line.show(report.lines)).await;
    line.end();
    session.close().await;
    let report = done.map_err(|error| match error {
        ImportError::File(error) => of_file(error),
        ImportError::Client(error) => error.into(),
    })?;
    render::one(global.format, &report, || table(&report))?;
    tell(&report, args, terminal);
    match report.refused {
        0 => Ok(()),
        refused => Err(CliError::Refused { refused, lines: report.lines }),
    }
}

/// The file and when it was written; stdin is copied first, because the content is read twice.
fn open(path: &Path) -> std::io::Result<(File, SystemTime)> {
    if path == Path::new("-") {
        let mut copy = tempfile::tempfile()?;
        std::io::copy(&mut std::io::stdin().lock(), &mut copy)?;
        copy.rewind()?;
        return Ok((copy, SystemTime::now()));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    Ok((file, metadata.modified()?))
}

/// No line can have been measured after the file was written: this is the latest that its lines can be, and
/// so they are never taken for newer than what metad measured since.
fn settings(args: &ImportArgs, lines: u64, written: SystemTime) -> ReadSettings {
    let order = match args.order {
        ImportOrder::Rows => LineOrder::Measured,
        ImportOrder::Shuffled => LineOrder::Shuffled,
    };
    let now = Timestamp::now();
    let written = Timestamp::try_from(written).unwrap_or(now).min(now);
    let span = SignedDuration::from_micros(order.span_us(lines));
    ReadSettings {
        workflow: args.workflow.clone(),
        memory_mb: args.memory,
        start: args.start.unwrap_or_else(|| written.checked_sub(span).unwrap_or(written)),
        order,
        names: if args.map_names { NameRule::Map } else { NameRule::Refuse },
    }
}

fn table(report: &ImportReport) -> String {
    let mut table = Table::new(&["workflow", "records"]);
    for (workflow, records) in &report.workflows {
        table.row([workflow.to_string(), records.to_string()]);
    }
    let ImportReport { lines, stored, stored_before, refused, .. } = report;
    format!("{table}\n{lines} lines: {stored} stored, {stored_before} stored before, {refused} refused\n")
}

fn tell(report: &ImportReport, args: &ImportArgs, terminal: &Terminal) {
    let notes = &report.notes;
    if notes.without_memory > 0 {
        let (lines, mb) = (notes.without_memory, args.memory);
        terminal.say(&format!("{lines} lines name no memory: {mb} MB was taken (--memory)"));
    }
    if notes.without_input > 0 {
        terminal.say(&format!("{} lines name no input size: 0 bytes was taken", notes.without_input));
    }
    if !notes.ignored_columns.is_empty() {
        terminal.say(&format!("ignored columns: {}", notes.ignored_columns.join(", ")));
    }
    if report.stored == 0 && report.stored_before > 0 {
        terminal.say("these lines were imported before; nothing changed");
    }
    for refusal in report.refusals.iter().take(REFUSALS_SHOWN_MAX) {
        terminal.say(&format!("line {}: {}", refusal.line, refusal.reason));
    }
    let more = report.refused.saturating_sub(REFUSALS_SHOWN_MAX as u64);
    if more > 0 {
        terminal.say(&format!("and {more} more refused lines; -o json lists the first 1000"));
    }
}
