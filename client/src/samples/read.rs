//! Reads measurements from CSV and NDJSON, line by line, in constant memory.
//!
//! Guarantees: every line that is not blank comes out, either as a sample or as a refusal with its number and
//! the reason; the same file and settings give the same samples. Units: times in ms, sizes in bytes, memory
//! in MB.

use std::io::BufRead;

use csv::StringRecord;
use foresail_schemas::metric::{Record, TaskRecord};
use foresail_schemas::{TaskName, WorkflowName};
use jiff::{Timestamp, ToSpan};
use serde::Deserialize;
use serde_json::Value;

use super::lines::{CsvLines, Line, Lines};

/// Times of shuffled lines are drawn from this long a span, in microseconds: so long that few are equal.
const SHUFFLE_SPAN_US: i64 = 1 << 32;

/// How a file is read.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadSettings {
    /// The workflow of all lines; what the line says where absent.
    pub workflow: Option<WorkflowName>,
    /// Memory of lines that name none.
    pub memory_mb: u32,
    /// Time of the first line that names none.
    pub start: Timestamp,
    /// What the order of the lines says.
    pub order: LineOrder,
    /// What happens to names that are not allowed.
    pub names: NameRule,
}

/// What the order of the lines says about when they were measured.
///
/// A line without a time gets one, because the model keeps the newest samples and looks for changes over
/// time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineOrder {
    /// They stand in the order of their measurement: each is a microsecond later than the one before.
    Measured,
    /// They stand in another order, for instance by size: they get times in an order of no meaning, the same
    /// for the same file.
    Shuffled,
}

impl LineOrder {
    /// How long after the start the last of `lines` lines is, in microseconds.
    #[must_use]
    pub fn span_us(self, lines: u64) -> i64 {
        match self {
            Self::Measured => i64::try_from(lines).unwrap_or(i64::MAX),
            Self::Shuffled => SHUFFLE_SPAN_US,
        }
    }

    /// How long after the start line number `at` (from 0) is, in microseconds.
    fn offset_us(self, at: u64) -> i64 {
        match self {
            Self::Measured => i64::try_from(at).unwrap_or(i64::MAX),
            Self::Shuffled => (mix(at) % SHUFFLE_SPAN_US as u64) as i64,
        }
    }
}

/// What happens to names that are not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// The line is refused.
    Refuse,
    /// Every character that is not allowed becomes `_`.
    Map,
}

/// A line that was taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its number in the file, from 1.
    pub line: u64,
    /// The workflow it belongs to.
    pub workflow: WorkflowName,
    /// The measurement.
    pub record: Record,
    /// Hash of what the line says, with the names of its columns: the same wherever the line stands, whenever
    /// the file was written and whatever the settings are.
    pub hash: blake3::Hash,
}

/// A line that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Refusal {
    /// Its number in the file, from 1.
    pub line: u64,
    /// Why.
    pub reason: String,
}

/// What is noticed while reading.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Notes {
    /// Lines that name no memory.
    pub without_memory: u64,
    /// Lines that name no input size; it is 0 for them.
    pub without_input: u64,
    /// Columns of which nothing is known.
    pub ignored_columns: Vec<String>,
}

/// Why a file cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum SampleFileError {
    /// The file ends or breaks off.
    #[error("the file cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// The header lacks a column.
    #[error("the header has no column `{column}`; it has `{found}`")]
    Column {
        /// The column.
        column: &'static str,
        /// The columns there are.
        found: String,
    },
    /// A column stands twice in the header.
    #[error("the header has the column `{0}` twice")]
    Twice(String),
    /// The file has nothing.
    #[error("the file is empty")]
    Empty,
}

impl SampleFileError {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Io(_) => "give a file in UTF-8 that you may read",
            Self::Column { column: "workflow", .. } => "name the workflow of all lines with --workflow NAME",
            Self::Column { .. } | Self::Twice(_) | Self::Empty => {
                "the first line must be like workflow,task,memory_mb,vcpu,input_bytes,output_bytes,exec_ms; \
                 task and exec_ms are needed, the order is free"
            }
        }
    }
}

/// Reads one file; the form is told by its first character.
pub struct SampleReader<R: BufRead> {
    source: Source<R>,
    settings: ReadSettings,
    notes: Notes,
    lines: u64,
}

enum Source<R: BufRead> {
    Csv { rows: CsvLines<R>, columns: Columns },
    Ndjson(Lines<R>),
}

/// Where the columns stand.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Columns {
    workflow: Option<usize>,
    task: usize,
    exec_ms: usize,
    memory_mb: Option<usize>,
    vcpu: Option<usize>,
    input_bytes: Option<usize>,
    output_bytes: Option<usize>,
    at: Option<usize>,
}

impl<R: BufRead> SampleReader<R> {
    /// Looks at the beginning of the file.
    ///
    /// # Errors
    /// [`SampleFileError`] when it is empty or its header lacks a column.
    pub fn new(mut input: R, settings: ReadSettings) -> Result<Self, SampleFileError> {
        let first = input.fill_buf()?.iter().copied().find(|byte| !byte.is_ascii_whitespace());
        let mut notes = Notes::default();
        let source = match first {
            None => return Err(SampleFileError::Empty),
            Some(b'{') => Source::Ndjson(Lines::new(input)),
            Some(_) => {
                let rows = CsvLines::open(input)?.ok_or(SampleFileError::Empty)?;
                let columns = Columns::find(rows.header(), &settings, &mut notes)?;
                Source::Csv { rows, columns }
            }
        };
        Ok(Self { source, settings, notes, lines: 0 })
    }

    /// The next line that is not blank; nothing at the end.
    ///
    /// # Errors
    /// [`SampleFileError::Io`] when the file breaks off.
    pub fn next_line(&mut self) -> Result<Option<Result<Sample, Refusal>>, SampleFileError> {
        let at_us = self.settings.order.offset_us(self.lines).microseconds();
        let at = self.settings.start.checked_add(at_us).unwrap_or(self.settings.start);
        let Self { settings, notes, .. } = self;
        let read = match &mut self.source {
            Source::Csv { rows, columns } => rows.next_row()?.map(|Line { number, raw, read }| {
                let names = rows.header().as_slice().as_bytes();
                (number, hash(names, &raw), read.and_then(|row| columns.sample(&row, settings, at, notes)))
            }),
            Source::Ndjson(lines) => lines.next_text()?.map(|Line { number, raw, read }| {
                (number, hash(&[], &raw), read.and_then(|text| sample_of_json(&text, settings, at)))
            }),
        };
        let Some((line, hash, sample)) = read else { return Ok(None) };
        self.lines += 1;
        Ok(Some(match sample {
            Ok((workflow, record)) => Ok(Sample { line, workflow, record, hash }),
            Err(reason) => Err(Refusal { line, reason }),
        }))
    }

    /// Lines read so far, without blank ones and the header.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// What was noticed so far.
    #[must_use]
    pub fn notes(&self) -> &Notes {
        &self.notes
    }
}

fn hash(names: &[u8], line: &[u8]) -> blake3::Hash {
    // No line has an end of line in it.
    blake3::Hasher::new().update(names).update(b"\n").update(line).finalize()
}

impl Columns {
    fn find(
        header: &StringRecord,
        settings: &ReadSettings,
        notes: &mut Notes,
    ) -> Result<Self, SampleFileError> {
        let find = |name: &str| header.iter().position(|column| column == name);
        let found = || header.iter().collect::<Vec<_>>().join(",");
        let need = |column| find(column).ok_or_else(|| SampleFileError::Column { column, found: found() });
        if let Some((_, twice)) = header.iter().enumerate().find(|(at, name)| find(name) != Some(*at)) {
            return Err(SampleFileError::Twice(twice.to_owned()));
        }
        let columns = Self {
            workflow: if settings.workflow.is_some() { None } else { Some(need("workflow")?) },
            task: need("task")?,
            exec_ms: need("exec_ms")?,
            memory_mb: find("memory_mb"),
            vcpu: find("vcpu"),
            input_bytes: find("input_bytes"),
            output_bytes: find("output_bytes"),
            at: find("at"),
        };
        let known = ["workflow", "task", "exec_ms", "memory_mb", "vcpu", "input_bytes", "output_bytes", "at"];
        notes.ignored_columns =
            header.iter().filter(|name| !known.contains(name)).map(str::to_owned).collect();
        Ok(columns)
    }

    fn sample(
        &self,
        row: &StringRecord,
        settings: &ReadSettings,
        at: Timestamp,
        notes: &mut Notes,
    ) -> Result<(WorkflowName, Record), String> {
        let cell =
            |column: Option<usize>| column.and_then(|column| row.get(column)).filter(|cell| !cell.is_empty());
        let workflow = match &settings.workflow {
            Some(workflow) => workflow.clone(),
            None => named(cell(self.workflow), "workflow", settings.names, |name| WorkflowName::new(name))?,
        };
        let memory = cell(self.memory_mb).map(|text| whole(text, "memory_mb")).transpose()?;
        let input_bytes = cell(self.input_bytes).map(|text| whole(text, "input_bytes")).transpose()?;
        let time = |text: &str| text.parse().map_err(|e| format!("at `{text}` is not a time: {e}"));
        let record = Record::Task(TaskRecord {
            task: named(cell(Some(self.task)), "task", settings.names, |name| TaskName::new(name))?,
            memory_mb: match memory {
                None => settings.memory_mb,
                Some(mb) => u32::try_from(mb).unwrap_or(u32::MAX),
            },
            vcpu: cell(self.vcpu).map(|text| number(text, "vcpu")).transpose()?,
            input_bytes: input_bytes.unwrap_or(0),
            output_bytes: cell(self.output_bytes).map(|text| whole(text, "output_bytes")).transpose()?,
            exec_ms: number(cell(Some(self.exec_ms)).ok_or("exec_ms is blank")?, "exec_ms")?,
            peak_memory_mb: None,
            attempt: 1,
            at: Some(cell(self.at).map(time).transpose()?.unwrap_or(at)),
            forecast: None,
        });
        record.check()?;
        notes.without_memory += u64::from(memory.is_none());
        notes.without_input += u64::from(input_bytes.is_none());
        Ok((workflow, record))
    }
}

/// A record as metad takes it; a member `workflow` names its workflow.
fn sample_of_json(
    text: &str,
    settings: &ReadSettings,
    at: Timestamp,
) -> Result<(WorkflowName, Record), String> {
    let mut value: Value = serde_json::from_str(text).map_err(|e| format!("is not JSON: {e}"))?;
    let said = value.as_object_mut().and_then(|members| members.remove("workflow"));
    let said = said.as_ref().and_then(Value::as_str);
    let workflow = match &settings.workflow {
        Some(workflow) => workflow.clone(),
        None => named(said, "workflow", settings.names, |name| WorkflowName::new(name))?,
    };
    if settings.names == NameRule::Map
        && let Some(Value::String(task)) = value.get_mut("task")
    {
        *task = mapped(task);
    }
    let mut record = Record::deserialize(&value).map_err(|said| Record::refusal(&value, &said))?;
    record.check()?;
    record.at_mut().get_or_insert(at);
    Ok((workflow, record))
}

fn named<T, E: std::fmt::Display>(
    text: Option<&str>,
    column: &str,
    rule: NameRule,
    make: impl Fn(&str) -> Result<T, E>,
) -> Result<T, String> {
    let text = text.ok_or_else(|| format!("{column} is blank"))?;
    let name = match rule {
        NameRule::Refuse => make(text),
        NameRule::Map => make(&mapped(text)),
    };
    name.map_err(|e| e.to_string())
}

/// `text` with `_` for every character that a name must not have where it stands.
fn mapped(text: &str) -> String {
    let legal = |at: usize, c: char| {
        c.is_ascii_alphanumeric() || c == '_' || (at > 0 && matches!(c, '.' | ':' | '@' | '+' | '~' | '-'))
    };
    text.chars().enumerate().map(|(at, c)| if legal(at, c) { c } else { '_' }).collect()
}

fn number(text: &str, column: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
    number.ok_or_else(|| format!("{column} `{text}` is not a number from 0"))
}

/// Whole numbers; some programs write them as `512.0`.
fn whole(text: &str, column: &str) -> Result<u64, String> {
    text.parse::<u64>().or_else(|_| number(text, column).map(|n| n.round() as u64))
}

/// Scatters numbers evenly over 64 bits.
///
/// Source: S. Vigna, splitmix64, 2015, after G. Steele, D. Lea and C. Flood, "Fast splittable pseudorandom
/// number generators", OOPSLA 2014.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
