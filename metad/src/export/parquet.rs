//! Raw samples as a Parquet file: one row per record, in groups of rows, as the file is read.
//!
//! What a kind of record does not have is null. Columns that CSV samples have bear the same names. Times in
//! ms, sizes in bytes, memory in MB; `at` in microseconds of UTC. Pages are compressed with Snappy.
//!
//! Guarantees: no more than one group of rows is in memory, besides the batch that is being added, and a
//! group has at most the rows that are set and about [`GROUP_BYTES_MAX`] bytes. Source: the Apache Parquet
//! format, version 2 types.

use std::sync::Arc;

use bytes::Bytes;
use foresail_schemas::decision::Decision;
use foresail_schemas::metric::{DecisionRecord, Direction, Forecast, Record, StartState, TaskRecord};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type};
use parquet::errors::Result;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;

use super::timed;
use crate::store::batches::StoredBatch;

/// Media type of Parquet files.
pub const MEDIA_TYPE: &str = "application/vnd.apache.parquet";

/// Most bytes of the rows of a group, counted as they are in memory with all their texts.
pub const GROUP_BYTES_MAX: usize = 8 << 20;

/// One record and what its batch says of it.
struct Row {
    batch: Arc<Batch>,
    record: Record,
}

struct Batch {
    workflow: String,
    batch_id: String,
    run: Option<String>,
    worker: Option<String>,
}

/// What a column holds, and how it is read from a row.
enum Cell {
    Text(fn(&Row) -> Option<&str>),
    U32(fn(&Row) -> Option<u32>),
    U64(fn(&Row) -> Option<u64>),
    Number(fn(&Row) -> Option<f64>),
    Time(fn(&Row) -> Option<i64>),
}

/// A column.
pub struct Column {
    /// Its name.
    pub name: &'static str,
    cell: Cell,
}

const fn column(name: &'static str, cell: Cell) -> Column {
    Column { name, cell }
}

/// The columns in order.
pub const COLUMNS: [Column; 25] = [
    column("workflow", Cell::Text(|row| Some(&row.batch.workflow))),
    column("task", Cell::Text(Row::name)),
    column("run", Cell::Text(|row| row.batch.run.as_deref())),
    column("memory_mb", Cell::U32(|row| Some(row.record.config()?.memory_mb))),
    column("vcpu", Cell::Number(|row| row.record.config()?.vcpu)),
    column("input_bytes", Cell::U64(Row::input_bytes)),
    column("output_bytes", Cell::U64(|row| row.task()?.output_bytes)),
    column("exec_ms", Cell::Number(|row| Some(row.task()?.exec_ms))),
    column("kind", Cell::Text(|row| Some(row.kind()))),
    column("worker", Cell::Text(|row| row.batch.worker.as_deref())),
    column("attempt", Cell::U32(|row| Some(row.task()?.attempt))),
    column("peak_memory_mb", Cell::Number(|row| row.task()?.peak_memory_mb)),
    column("direction", Cell::Text(Row::direction)),
    column("store", Cell::Text(Row::store)),
    column("state", Cell::Text(Row::state)),
    column("bytes", Cell::U64(Row::bytes)),
    column("time_ms", Cell::Number(Row::time_ms)),
    column("forecast_median_ms", Cell::Number(|row| Some(row.forecast()?.median_ms))),
    column("forecast_p90_ms", Cell::Number(|row| Some(row.forecast()?.p90_ms))),
    column("forecast_p95_ms", Cell::Number(|row| Some(row.forecast()?.p95_ms))),
    column("forecast_p99_ms", Cell::Number(|row| Some(row.forecast()?.p99_ms))),
    column("at", Cell::Time(|row| Some(row.record.at()?.as_microsecond()))),
    column("batch_id", Cell::Text(|row| Some(&row.batch.batch_id))),
    column("width", Cell::U64(Row::width)),
    column("branch", Cell::Text(Row::branch)),
];

impl Row {
    /// About what it takes until its group is written: each text is copied into its column.
    fn bytes_held(&self) -> usize {
        let texts = |cell: &Cell| if let Cell::Text(of) = cell { of(self).map_or(0, str::len) } else { 0 };
        size_of::<Self>() + COLUMNS.iter().map(|column| texts(&column.cell)).sum::<usize>()
    }

    fn task(&self) -> Option<&TaskRecord> {
        if let Record::Task(task) = &self.record { Some(task) } else { None }
    }

    fn decision(&self) -> Option<&DecisionRecord> {
        if let Record::Decision(decision) = &self.record { Some(decision) } else { None }
    }

    fn name(&self) -> Option<&str> {
        let name = self.task().map(|r| &r.task).or_else(|| self.decision().map(|r| &r.task));
        name.map(|name| name.as_str())
    }

    fn input_bytes(&self) -> Option<u64> {
        self.task().map(|r| r.input_bytes).or_else(|| self.decision().map(|r| r.input_bytes))
    }

    fn width(&self) -> Option<u64> {
        if let Decision::Width(width) = self.decision()?.value { Some(width) } else { None }
    }

    fn branch(&self) -> Option<&str> {
        if let Decision::Branch(text) = &self.decision()?.value { Some(text) } else { None }
    }

    fn forecast(&self) -> Option<&Forecast> {
        self.task()?.forecast.as_ref()
    }

    fn kind(&self) -> &str {
        match self.record {
            Record::Task(_) => "task",
            Record::Transfer(_) => "transfer",
            Record::Startup(_) => "startup",
            Record::Decision(_) => "decision",
        }
    }

    fn direction(&self) -> Option<&str> {
        let Record::Transfer(transfer) = &self.record else { return None };
        Some(match transfer.direction {
            Direction::Download => "download",
            Direction::Upload => "upload",
        })
    }

    fn store(&self) -> Option<&str> {
        let Record::Transfer(transfer) = &self.record else { return None };
        transfer.store.as_ref().map(|store| store.as_str())
    }

    fn state(&self) -> Option<&str> {
        let Record::Startup(startup) = &self.record else { return None };
        Some(match startup.state {
            StartState::Cold => "cold",
            StartState::Warm => "warm",
        })
    }

    fn bytes(&self) -> Option<u64> {
        if let Record::Transfer(transfer) = &self.record { Some(transfer.bytes) } else { None }
    }

    fn time_ms(&self) -> Option<f64> {
        match &self.record {
            Record::Task(_) | Record::Decision(_) => None,
            Record::Transfer(transfer) => Some(transfer.time_ms),
            Record::Startup(startup) => Some(startup.time_ms),
        }
    }
}

/// A file that is being made.
pub struct Export {
    workflow: String,
    rows: Vec<Row>,
    rows_bytes: usize,
    group_rows_max: usize,
    file: SerializedFileWriter<Vec<u8>>,
}

impl Export {
    /// An empty file on `workflow`, with groups of at most `group_rows_max` rows.
    ///
    /// # Errors
    /// What the format says of the columns.
    pub fn new(workflow: &str, group_rows_max: usize) -> Result<Self> {
        let created_by = concat!("foresail metad ", env!("CARGO_PKG_VERSION"));
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(created_by.to_owned());
        let schema = Arc::new(parse_message_type(&message())?);
        let file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties.build()))?;
        Ok(Self { workflow: workflow.to_owned(), rows: Vec::new(), rows_bytes: 0, group_rows_max, file })
    }

    /// Adds the records of a batch.
    ///
    /// # Errors
    /// What the format says of a group of rows.
    pub fn add(&mut self, batch: StoredBatch) -> Result<()> {
        let StoredBatch { batch_id, run, worker, arrival, records } = batch;
        let batch = Arc::new(Batch { workflow: self.workflow.clone(), batch_id, run, worker });
        for record in records {
            let row = Row { batch: Arc::clone(&batch), record: timed(record, arrival) };
            self.rows_bytes += row.bytes_held();
            self.rows.push(row);
            if self.rows.len() >= self.group_rows_max || self.rows_bytes >= GROUP_BYTES_MAX {
                self.write_group()?;
            }
        }
        Ok(())
    }

    /// What the file has grown by since the last call.
    ///
    /// # Errors
    /// None where memory is the sink.
    pub fn take(&mut self) -> Result<Bytes> {
        self.file.flush()?;
        Ok(std::mem::take(self.file.inner_mut()).into())
    }

    /// Writes the last group of rows and what ends the file, and gives what it has grown by.
    ///
    /// # Errors
    /// What the format says of a group of rows.
    pub fn finish(mut self) -> Result<Bytes> {
        if !self.rows.is_empty() {
            self.write_group()?;
        }
        Ok(self.file.into_inner()?.into())
    }

    fn write_group(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.rows);
        self.rows_bytes = 0;
        let mut group = self.file.next_row_group()?;
        for column in &COLUMNS {
            // One writer per column of the schema, which was made of the same list.
            let Some(mut writer) = group.next_column()? else { break };
            column.cell.write(&rows, &mut writer)?;
            writer.close()?;
        }
        group.close()?;
        Ok(())
    }
}

impl Cell {
    fn kind(&self) -> (&'static str, &'static str) {
        match self {
            Self::Text(_) => ("binary", " (STRING)"),
            Self::U32(_) => ("int32", " (INTEGER(32,false))"),
            Self::U64(_) => ("int64", " (INTEGER(64,false))"),
            Self::Number(_) => ("double", ""),
            Self::Time(_) => ("int64", " (TIMESTAMP(MICROS,true))"),
        }
    }

    fn write(&self, rows: &[Row], to: &mut SerializedColumnWriter<'_>) -> Result<()> {
        match self {
            Self::Text(of) => write::<ByteArrayType>(rows, to, |row| of(row).map(ByteArray::from)),
            // Unsigned numbers are stored as signed ones of the same bits, as the format wants it.
            Self::U32(of) => write::<Int32Type>(rows, to, |row| of(row).map(|n| n as i32)),
            Self::U64(of) => write::<Int64Type>(rows, to, |row| of(row).map(|n| n as i64)),
            Self::Number(of) => write::<DoubleType>(rows, to, of),
            Self::Time(of) => write::<Int64Type>(rows, to, of),
        }
    }
}

fn write<T: DataType>(
    rows: &[Row],
    to: &mut SerializedColumnWriter<'_>,
    of: impl Fn(&Row) -> Option<T::T>,
) -> Result<()> {
    let mut values = Vec::with_capacity(rows.len());
    let present = |row| {
        let value = of(row);
        let level = i16::from(value.is_some());
        values.extend(value);
        level
    };
    let levels: Vec<i16> = rows.iter().map(present).collect();
    to.typed::<T>().write_batch(&values, Some(&levels), None).map(drop)
}

/// The schema in the format's own language.
fn message() -> String {
    let field = |column: &Column| {
        let (kind, meaning) = column.cell.kind();
        format!("optional {kind} {}{meaning};", column.name)
    };
    format!("message sample {{ {} }}", COLUMNS.iter().map(field).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests;
