//! `foresail export`: a run as WfFormat, or the measurements of a workflow.

use std::fs::Permissions;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;

use bytes::Bytes;
use foresail_schemas::id::RunId;
use foresail_schemas::metric::Record;
use foresail_schemas::{WorkflowName, wfformat};
use futures_util::stream::{Stream, TryStreamExt};
use tempfile::NamedTempFile;

use super::args::{ExportArgs, ExportWhat, Format, Global, SampleForm, SamplesArgs};
use super::error::CliError;
use super::known;
use super::render;
use super::session::Session;
use super::terminal::Terminal;
use super::written;
use crate::error::ClientError;

/// Columns of exported measurements, those that an import reads.
const COLUMNS: [&str; 8] =
    ["workflow", "task", "memory_mb", "vcpu", "input_bytes", "output_bytes", "exec_ms", "at"];
/// Mode of an exported file before the umask takes from it, as of any file that a program writes.
const FILE_MODE: u32 = 0o666;
/// Longest line of exported measurements, in bytes; a record has a few hundred.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Writes a run or measurements.
///
/// # Errors
/// [`CliError`] when there is no stack, no such run or workflow, or the file cannot be written.
pub async fn export(global: &Global, args: &ExportArgs, terminal: &Terminal) -> Result<(), CliError> {
    match (&args.what, &args.run) {
        (Some(ExportWhat::Samples(args)), _) => samples(global, args, terminal).await,
        (None, Some(run)) => wfformat_of(global, run).await,
        (None, None) => Err(CliError::input("nothing to export was named", "see `foresail export --help`")),
    }
}

async fn wfformat_of(global: &Global, run: &RunId) -> Result<(), CliError> {
    let session = Session::look(global).await?;
    let read = async {
        let handle = session.client.attach(run).await?;
        Ok::<_, CliError>((handle.workflow().clone(), handle.summary().await?, handle.events_so_far().await?))
    };
    let read = read.await;
    session.close().await;
    let (workflow, summary, events) = read?;
    let document = wfformat::write(&workflow, &summary, &events);
    let format = if global.format == Format::Table { Format::Json } else { global.format };
    Ok(render::one(format, &document, String::new)?)
}

async fn samples(global: &Global, args: &SamplesArgs, terminal: &Terminal) -> Result<(), CliError> {
    let form = form(global, args)?;
    if let Some(file) = &args.file {
        written::may_be_named(file, "--file")?;
    }
    let session = Session::look(global).await?;
    let written = write_samples(&session, args, form).await;
    session.close().await;
    let left_out = written?;
    if left_out > 0 {
        terminal.say(&format!(
            "{left_out} transfers and starts were left out: CSV has executions only, --form ndjson has all"
        ));
    }
    if let Some(file) = &args.file {
        terminal.say(&format!("wrote {}", file.display()));
    }
    Ok(())
}

/// What `--form`, the ending of the file and `-o` say, in this order.
fn form(global: &Global, args: &SamplesArgs) -> Result<SampleForm, CliError> {
    let ending = args.file.as_deref().and_then(Path::extension).and_then(|ending| ending.to_str());
    let form = match (args.form, ending) {
        (Some(form), _) => form,
        (None, Some("csv")) => SampleForm::Csv,
        (None, Some("parquet")) => SampleForm::Parquet,
        (None, _) => SampleForm::Ndjson,
    };
    let hint = "measurements are written with --form ndjson, csv or parquet";
    if global.format == Format::Json {
        return Err(CliError::input("measurements are not one JSON document", hint));
    }
    if form == SampleForm::Parquet && args.file.is_none() && io::stdout().is_terminal() {
        return Err(CliError::input(
            "Parquet is not for a terminal",
            "name a file with --file, or use a pipe",
        ));
    }
    Ok(form)
}

/// Writes and tells how many records have no place in the form.
async fn write_samples(session: &Session, args: &SamplesArgs, form: SampleForm) -> Result<u64, CliError> {
    let format = if form == SampleForm::Parquet { "parquet" } else { "ndjson" };
    let Some(pieces) = session.client.samples(&args.workflow, format).await? else {
        return Err(known::unknown_workflow(&session.client, &args.workflow).await);
    };
    let mut out = Target::open(args.file.as_deref())?;
    let left_out = match form {
        SampleForm::Csv => write_csv(pieces, &args.workflow, &mut out).await?,
        SampleForm::Ndjson | SampleForm::Parquet => {
            let mut pieces = pin!(pieces);
            while let Some(piece) = pieces.try_next().await? {
                out.write_all(&piece)?;
            }
            0
        }
    };
    out.complete()?;
    Ok(left_out)
}

async fn write_csv(
    pieces: impl Stream<Item = Result<Bytes, ClientError>>,
    workflow: &WorkflowName,
    out: &mut Target,
) -> Result<u64, CliError> {
    let mut table = csv::Writer::from_writer(out);
    table.write_record(COLUMNS).map_err(io_error)?;
    let (mut left_out, mut rest) = (0, Vec::new());
    let mut pieces = pin!(pieces);
    while let Some(piece) = pieces.try_next().await? {
        rest.extend_from_slice(&piece);
        let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in rest[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            left_out += u64::from(!write_row(&mut table, workflow, line)?);
        }
        rest.drain(..whole);
        if rest.len() > LINE_BYTES_MAX {
            return Err(io::Error::other("a line of the answer has no end").into());
        }
    }
    if !rest.is_empty() {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    table.flush()?;
    Ok(left_out)
}

/// Writes an execution and tells whether it was one.
fn write_row(table: &mut csv::Writer<&mut Target>, workflow: &WorkflowName, line: &[u8]) -> io::Result<bool> {
    let record: Record = serde_json::from_slice(line)?;
    let Record::Task(record) = record else { return Ok(false) };
    fn text<T: ToString>(known: Option<T>) -> String {
        known.map_or_else(String::new, |known| known.to_string())
    }
    let row = [
        workflow.to_string(),
        record.task.to_string(),
        record.memory_mb.to_string(),
        text(record.vcpu),
        record.input_bytes.to_string(),
        text(record.output_bytes),
        record.exec_ms.to_string(),
        text(record.at),
    ];
    table.write_record(row).map_err(io_error)?;
    Ok(true)
}

/// The error below: its kind says whether the reader of a pipe has gone.
fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

/// Where data goes: stdout, or a file that appears under its name when it is complete.
enum Target {
    Stdout(BufWriter<io::Stdout>),
    File(BufWriter<NamedTempFile>, PathBuf),
}

impl Target {
    fn open(path: Option<&Path>) -> io::Result<Self> {
        let Some(path) = path else { return Ok(Self::Stdout(BufWriter::new(io::stdout()))) };
        let mut builder = tempfile::Builder::new();
        // The mode stays with the file when it gets its name.
        builder.prefix(".foresail-").permissions(Permissions::from_mode(FILE_MODE));
        let file = builder.tempfile_in(written::folder(path))?;
        Ok(Self::File(BufWriter::new(file), path.to_owned()))
    }

    fn complete(self) -> io::Result<()> {
        match self {
            Self::Stdout(mut out) => out.flush(),
            Self::File(out, path) => {
                let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.persist(path).map(drop).map_err(|e| e.error)
            }
        }
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(out) => out.write(bytes),
            Self::File(out, _) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::File(out, _) => out.flush(),
        }
    }
}
