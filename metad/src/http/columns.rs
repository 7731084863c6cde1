//! Batches as columns: the compact form beside JSON, media type [`COLUMNS`].
//!
//! All integers and floats are little endian, so that one line of most languages writes a column
//! (`numpy.asarray(x, "<f8").tobytes()`):
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `FSC1`: the form and its version; another version has another digit |
//! | 4 | length of the head, u32, at most [`HEAD_BYTES_MAX`] |
//! | as said | the head, JSON: `batch_id`, `run`, `worker` as in a JSON batch, `names`, `groups` |
//! | as follows | for every group, for every one of its columns: as many values as the group has records |
//!
//! A group is `{"kind":"task","records":2,"columns":["task","memory_mb","exec_ms"]}`: records of one kind
//! that have the same fields. Columns are named like the fields of the JSON form and are as wide as
//! [`Column::width`] says; those that JSON requires are required. Names are numbers of entries in `names`.
//! What a record lacks is written as NaN, the largest u64 (`output_bytes`), the largest u32 (`store`) or the
//! smallest i64 (`at`, which is in µs since 1970). `direction` is 0 for a download and 1 for an upload,
//! `state` 0 for cold and 1 for warm. A `decision` has a `width`, or in `branch` the number of its text among
//! the `names`; what it has not is written as the largest u64 or u32. Records are counted through the groups
//! from 0, which is the `index` of those that are set aside.
//!
//! The decoder never allocates for more records than the body has bytes for.

use foresail_schemas::decision::Decision;
use foresail_schemas::id::NAME_LEN_MAX;
use foresail_schemas::metric::{
    DecisionRecord, Direction, Forecast, Record, StartState, StartupRecord, TaskRecord, TransferRecord,
};
use foresail_schemas::{ErrorCode, TaskName};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::batches::{Origin, Parsed, checked, cut, too_many};
use super::reply::Failure;

/// Media type of the form.
pub const COLUMNS: &str = "application/vnd.foresail.columns";
/// First bytes of every body.
const MAGIC: &[u8; 4] = b"FSC1";
/// Longest head in bytes: room for thousands of names.
pub const HEAD_BYTES_MAX: usize = 1 << 20;
/// Most groups in one batch.
const GROUPS_MAX: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    #[serde(default)]
    batch_id: Option<foresail_schemas::BatchId>,
    #[serde(default)]
    run: Option<foresail_schemas::RunId>,
    #[serde(default)]
    worker: Option<foresail_schemas::InstanceId>,
    #[serde(default)]
    names: Vec<String>,
    groups: Vec<GroupHead>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupHead {
    kind: Kind,
    records: usize,
    columns: Vec<Column>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Task,
    Transfer,
    Startup,
    Decision,
}

/// A field of a record; its place is its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Column {
    Task,
    MemoryMb,
    Vcpu,
    InputBytes,
    OutputBytes,
    ExecMs,
    PeakMemoryMb,
    Attempt,
    At,
    #[serde(rename = "forecast.median_ms")]
    Median,
    #[serde(rename = "forecast.p90_ms")]
    P90,
    #[serde(rename = "forecast.p95_ms")]
    P95,
    #[serde(rename = "forecast.p99_ms")]
    P99,
    Direction,
    Bytes,
    TimeMs,
    Store,
    State,
    Width,
    Branch,
}

const COLUMN_COUNT: usize = Column::Branch as usize + 1;

/// Every column with its name, in the order of their numbers.
const ALL: [(Column, &str); COLUMN_COUNT] = [
    (Column::Task, "task"),
    (Column::MemoryMb, "memory_mb"),
    (Column::Vcpu, "vcpu"),
    (Column::InputBytes, "input_bytes"),
    (Column::OutputBytes, "output_bytes"),
    (Column::ExecMs, "exec_ms"),
    (Column::PeakMemoryMb, "peak_memory_mb"),
    (Column::Attempt, "attempt"),
    (Column::At, "at"),
    (Column::Median, "forecast.median_ms"),
    (Column::P90, "forecast.p90_ms"),
    (Column::P95, "forecast.p95_ms"),
    (Column::P99, "forecast.p99_ms"),
    (Column::Direction, "direction"),
    (Column::Bytes, "bytes"),
    (Column::TimeMs, "time_ms"),
    (Column::Store, "store"),
    (Column::State, "state"),
    (Column::Width, "width"),
    (Column::Branch, "branch"),
];

const FORECAST: [Column; 4] = [Column::Median, Column::P90, Column::P95, Column::P99];

impl Column {
    /// Bytes of a value: u8, u32, and u64, i64 or f64.
    fn width(self) -> usize {
        match self {
            Self::Direction | Self::State => 1,
            Self::Task | Self::MemoryMb | Self::Attempt | Self::Store | Self::Branch => 4,
            _ => 8,
        }
    }

    fn name(self) -> &'static str {
        ALL[self as usize].1
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Transfer => "transfer",
            Self::Startup => "startup",
            Self::Decision => "decision",
        }
    }

    /// What every record of this kind has, and what it may have.
    fn columns(self) -> (&'static [Column], &'static [Column]) {
        use Column::*;
        match self {
            Self::Task => (
                &[Task, MemoryMb, ExecMs],
                &[Vcpu, InputBytes, OutputBytes, PeakMemoryMb, Attempt, At, Median, P90, P95, P99],
            ),
            Self::Transfer => (&[Direction, Bytes, TimeMs, MemoryMb], &[Vcpu, Store, At]),
            Self::Startup => (&[State, TimeMs, MemoryMb], &[Vcpu, At]),
            Self::Decision => (&[Task], &[InputBytes, Width, Branch, At]),
        }
    }
}

/// The records of one kind.
struct Group<'a> {
    kind: Kind,
    records: usize,
    /// The values of a column, in its place.
    columns: [Option<&'a [u8]>; COLUMN_COUNT],
}

fn invalid(detail: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::InvalidBody, format!("the columns: {}", detail.into()))
}

/// Reads a batch.
///
/// # Errors
/// Invalid body, or too many records.
pub fn parse(bytes: &[u8], limit: u64) -> Result<Parsed, Failure> {
    let (head, mut rest) = open(bytes)?;
    let total = head.groups.iter().fold(0usize, |sum, group| sum.saturating_add(group.records));
    too_many(total, limit)?;
    if head.groups.len() > GROUPS_MAX {
        return Err(invalid(format!("`{}` groups, at most {GROUPS_MAX} are taken", head.groups.len())));
    }
    let groups: Result<Vec<_>, _> = head.groups.iter().map(|group| split(group, &mut rest)).collect();
    let groups = groups?;
    if !rest.is_empty() {
        return Err(invalid(format!("`{}` bytes stand behind the last one", rest.len())));
    }
    let names: Vec<_> =
        head.names.iter().map(|name| TaskName::new(name).map_err(|e| e.to_string())).collect();
    let origin = Origin { batch_id: head.batch_id, run: head.run, worker: head.worker };
    let mut parsed = Parsed { origin, records: Vec::with_capacity(total), rejected: Vec::new() };
    let mut index = 0;
    for group in &groups {
        for place in 0..group.records {
            match group.record(place, &names, &head.names).and_then(|r| checked(&r).map(|()| r)) {
                Ok(record) => parsed.records.push(record),
                Err(detail) => parsed.reject(index, detail, group.as_it_came(place, &head.names)),
            }
            index += 1;
        }
    }
    Ok(parsed)
}

fn open(bytes: &[u8]) -> Result<(Head, &[u8]), Failure> {
    let Some((magic, rest)) = bytes.split_first_chunk::<4>() else {
        return Err(invalid("the body is shorter than its first field"));
    };
    if magic != MAGIC {
        let found = String::from_utf8_lossy(magic);
        return Err(invalid(format!("they begin with `{found}`, this metad reads `FSC1`")));
    }
    let Some((length, rest)) = rest.split_first_chunk::<4>() else {
        return Err(invalid("the length of the head is missing"));
    };
    let length = u32::from_le_bytes(*length) as usize;
    if length > HEAD_BYTES_MAX {
        return Err(invalid(format!("the head has `{length}` bytes, at most {HEAD_BYTES_MAX} are taken")));
    }
    let Some((head, rest)) = rest.split_at_checked(length) else {
        return Err(invalid(format!("the head has `{length}` bytes, the body only {}", rest.len())));
    };
    let head = serde_json::from_slice(head).map_err(|e| invalid(format!("the head: {e}")))?;
    Ok((head, rest))
}

/// Takes the columns of a group from the front of `rest`.
fn split<'a>(head: &GroupHead, rest: &mut &'a [u8]) -> Result<Group<'a>, Failure> {
    let (kind, records) = (head.kind, head.records);
    let (required, optional) = kind.columns();
    let mut columns = [None; COLUMN_COUNT];
    for &column in &head.columns {
        let name = column.name();
        if !required.contains(&column) && !optional.contains(&column) {
            return Err(invalid(format!("a {} has no `{name}`", kind.name())));
        }
        let values = records.checked_mul(column.width()).and_then(|bytes| rest.split_at_checked(bytes));
        let Some((values, behind)) = values else {
            return Err(invalid(format!("`{name}` has fewer than {records} values")));
        };
        *rest = behind;
        if columns[column as usize].replace(values).is_some() {
            return Err(invalid(format!("`{name}` stands twice in a group")));
        }
    }
    let group = Group { kind, records, columns };
    let lacks = |column: &&Column| group.columns[**column as usize].is_none();
    if let Some(missing) = required.iter().find(lacks) {
        return Err(invalid(format!("a {} needs `{}`", kind.name(), missing.name())));
    }
    let forecasts = FORECAST.iter().filter(|column| !lacks(column)).count();
    if forecasts != 0 && forecasts != FORECAST.len() {
        return Err(invalid("a forecast needs all of its four columns"));
    }
    Ok(group)
}

impl Group<'_> {
    fn value<const WIDTH: usize>(&self, column: Column, place: usize) -> Option<[u8; WIDTH]> {
        let values = self.columns[column as usize]?;
        values.get(place * WIDTH..)?.first_chunk().copied()
    }

    fn small(&self, column: Column, place: usize) -> Option<u32> {
        self.value(column, place).map(u32::from_le_bytes)
    }

    fn large(&self, column: Column, place: usize) -> Option<u64> {
        self.value(column, place).map(u64::from_le_bytes)
    }

    /// A number, which NaN is not.
    fn float(&self, column: Column, place: usize) -> Option<f64> {
        self.value(column, place).map(f64::from_le_bytes).filter(|value| !value.is_nan())
    }

    /// A number that must be there, finite and not negative.
    fn amount(&self, column: Column, place: usize) -> Result<f64, String> {
        let value = self.value(column, place).map_or(f64::NAN, f64::from_le_bytes);
        match value.is_finite() && value >= 0.0 {
            true => Ok(value),
            false => Err(format!("{} `{value}` must be finite and at least 0", column.name())),
        }
    }

    fn name(&self, place: Option<u32>, names: &[Result<TaskName, String>]) -> Result<TaskName, String> {
        let place = place.unwrap_or(u32::MAX);
        let Some(name) = names.get(place as usize) else {
            return Err(format!("name `{place}` is not among the {} names", names.len()));
        };
        name.clone()
    }

    fn at(&self, place: usize) -> Result<Option<Timestamp>, String> {
        match self.value(Column::At, place).map(i64::from_le_bytes) {
            None | Some(i64::MIN) => Ok(None),
            Some(us) => Timestamp::from_microsecond(us).map(Some).map_err(|e| format!("at `{us}`: {e}")),
        }
    }

    fn forecast(&self, place: usize) -> Result<Option<Forecast>, String> {
        if FORECAST.iter().all(|column| self.float(*column, place).is_none()) {
            return Ok(None);
        }
        let [median, p90, p95, p99] = FORECAST.map(|column| self.amount(column, place));
        Ok(Some(Forecast::new([median?, p90?, p95?, p99?])))
    }

    /// What was decided: the one of both that is there.
    fn decision(&self, place: usize, texts: &[String]) -> Result<Decision, String> {
        let width = self.large(Column::Width, place).filter(|width| *width != u64::MAX);
        let branch = self.small(Column::Branch, place).filter(|branch| *branch != u32::MAX);
        match (width, branch) {
            (Some(width), None) => Ok(Decision::Width(width)),
            (None, Some(branch)) => texts
                .get(branch as usize)
                .map(|text| Decision::Branch(text.clone()))
                .ok_or_else(|| format!("branch `{branch}` is not among the {} names", texts.len())),
            (Some(width), Some(_)) => Err(format!("width `{width}` and a branch: a decision is one of both")),
            (None, None) => Err("neither a width nor a branch is there".to_owned()),
        }
    }

    fn record(
        &self,
        place: usize,
        names: &[Result<TaskName, String>],
        texts: &[String],
    ) -> Result<Record, String> {
        let memory_mb = self.small(Column::MemoryMb, place).unwrap_or(0);
        let (vcpu, at) = (self.float(Column::Vcpu, place), self.at(place)?);
        match self.kind {
            Kind::Task => Ok(Record::Task(TaskRecord {
                task: self.name(self.small(Column::Task, place), names)?,
                memory_mb,
                vcpu,
                input_bytes: self.large(Column::InputBytes, place).unwrap_or(0),
                output_bytes: self.large(Column::OutputBytes, place).filter(|bytes| *bytes != u64::MAX),
                exec_ms: self.amount(Column::ExecMs, place)?,
                peak_memory_mb: match self.float(Column::PeakMemoryMb, place) {
                    None => None,
                    Some(_) => Some(self.amount(Column::PeakMemoryMb, place)?),
                },
                attempt: self.small(Column::Attempt, place).unwrap_or(1),
                at,
                forecast: self.forecast(place)?,
            })),
            Kind::Transfer => {
                let direction = match self.value(Column::Direction, place) {
                    Some([0]) => Direction::Download,
                    Some([1]) => Direction::Upload,
                    other => {
                        return Err(format!("direction `{:?}` must be 0 or 1", other.map(|[d]: [u8; 1]| d)));
                    }
                };
                let store = self.small(Column::Store, place).filter(|store| *store != u32::MAX);
                let store = store.map(|store| self.name(Some(store), names)).transpose()?;
                let bytes = self.large(Column::Bytes, place).unwrap_or(0);
                let time_ms = self.amount(Column::TimeMs, place)?;
                Ok(Record::Transfer(TransferRecord { direction, bytes, time_ms, memory_mb, vcpu, store, at }))
            }
            Kind::Startup => {
                let state = match self.value(Column::State, place) {
                    Some([0]) => StartState::Cold,
                    Some([1]) => StartState::Warm,
                    other => return Err(format!("state `{:?}` must be 0 or 1", other.map(|[s]: [u8; 1]| s))),
                };
                let time_ms = self.amount(Column::TimeMs, place)?;
                Ok(Record::Startup(StartupRecord { state, time_ms, memory_mb, vcpu, at }))
            }
            Kind::Decision => Ok(Record::Decision(DecisionRecord {
                task: self.name(self.small(Column::Task, place), names)?,
                input_bytes: self.large(Column::InputBytes, place).unwrap_or(0),
                value: self.decision(place, texts)?,
                at,
            })),
        }
    }

    /// The record as an object of its columns; a number that JSON cannot write is text. Thousands of records
    /// may share one long name, so each keeps no more of it than a legal name has; the reason says how long
    /// it was.
    fn as_it_came(&self, place: usize, names: &[String]) -> Value {
        let mut object = Map::new();
        object.insert("kind".to_owned(), self.kind.name().into());
        for (column, name) in ALL.iter().filter(|(column, _)| self.columns[*column as usize].is_some()) {
            let named =
                |number: u32| names.get(number as usize).map(|name| Value::from(cut(name, NAME_LEN_MAX)));
            let value = match column {
                Column::Task | Column::Store | Column::Branch => {
                    let number = self.small(*column, place).unwrap_or(u32::MAX);
                    named(number).unwrap_or(number.into())
                }
                Column::MemoryMb | Column::Attempt => self.small(*column, place).into(),
                Column::InputBytes | Column::OutputBytes | Column::Bytes | Column::Width => {
                    self.large(*column, place).into()
                }
                Column::At => self.value(*column, place).map(i64::from_le_bytes).into(),
                Column::Direction | Column::State => {
                    self.value(*column, place).map(|[value]: [u8; 1]| value).into()
                }
                _ => {
                    let value = self.value(*column, place).map_or(f64::NAN, f64::from_le_bytes);
                    serde_json::Number::from_f64(value).map_or(value.to_string().into(), Value::Number)
                }
            };
            object.insert((*name).to_owned(), value);
        }
        Value::Object(object)
    }
}

#[cfg(test)]
#[path = "columns_tests.rs"]
mod tests;
