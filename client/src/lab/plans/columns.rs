//! Rows as CSV and as Parquet: the same columns, one row per plan.
//!
//! What is not known is an empty cell in CSV and null in Parquet. Times in ms, money in USD.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use super::{Origin, Row};

enum Cell {
    Text(fn(&Row) -> Option<&str>),
    Count(fn(&Row) -> Option<u64>),
    Number(fn(&Row) -> Option<f64>),
    Flag(fn(&Row) -> bool),
}

use Cell::{Count, Flag, Number, Text};

const COLUMNS: [(&str, Cell); 27] = [
    ("workflow", Text(|r| Some(&r.workflow))),
    ("origin", Text(|r| Some(if r.origin == Origin::Recorded { "recorded" } else { "shape" }))),
    ("tasks", Count(|r| Some(r.tasks))),
    ("edges", Count(|r| Some(r.edges))),
    ("task_ms_max", Number(|r| r.task_ms_max)),
    ("history", Count(|r| r.history.map(u64::from))),
    ("seed", Count(|r| Some(r.seed))),
    ("planner", Text(|r| Some(&r.planner))),
    ("planned_makespan_ms", Number(|r| Some(r.planned?.makespan_ms))),
    ("planned_cost_usd", Number(|r| Some(r.planned?.cost_usd))),
    ("makespan_ms", Number(|r| Some(r.carried_out?.makespan_ms))),
    ("cost_usd", Number(|r| Some(r.carried_out?.cost_usd))),
    ("gb_seconds", Number(|r| Some(r.carried_out?.gb_seconds))),
    ("invocations", Count(|r| Some(r.carried_out?.invocations))),
    ("cold_starts", Count(|r| Some(r.carried_out?.cold_starts))),
    ("download_bytes", Count(|r| Some(r.carried_out?.download_bytes))),
    ("upload_bytes", Count(|r| Some(r.carried_out?.upload_bytes))),
    ("makespan_bound_ms", Number(|r| Some(r.makespan_bound_ms))),
    ("cost_bound_usd", Number(|r| Some(r.cost_bound_usd))),
    ("makespan_ratio", Number(Row::makespan_ratio)),
    ("cost_ratio", Number(Row::cost_ratio)),
    ("simple_makespan_ms", Number(|r| Some(r.reference?.makespan_ms))),
    ("simple_cost_usd", Number(|r| Some(r.reference?.cost_usd))),
    ("cost_to_simple", Number(Row::cost_to_reference)),
    ("won", Flag(|r| r.won)),
    ("planning_ms", Number(|r| Some(r.planning_ms))),
    ("failure", Text(|r| r.failure.as_deref())),
];

/// Writes the rows as CSV with a header.
///
/// # Errors
/// When `out` cannot be written.
pub fn csv(rows: &[Row], out: impl Write) -> std::io::Result<()> {
    let mut table = csv::Writer::from_writer(out);
    table.write_record(COLUMNS.iter().map(|(name, _)| name))?;
    for row in rows {
        table.write_record(COLUMNS.iter().map(|(_, cell)| text(cell, row)))?;
    }
    table.flush()
}

fn text(cell: &Cell, row: &Row) -> String {
    fn known<T: ToString>(value: Option<T>) -> String {
        value.map_or_else(String::new, |value| value.to_string())
    }
    match cell {
        Text(of) => known(of(row)),
        Count(of) => known(of(row)),
        Number(of) => known(of(row)),
        Flag(of) => of(row).to_string(),
    }
}

/// Writes the rows as one Parquet file, compressed with Snappy.
///
/// # Errors
/// When `out` cannot be written.
pub fn parquet(rows: &[Row], out: impl Write + Send) -> Result<(), ParquetError> {
    let fields: Vec<String> = COLUMNS
        .iter()
        .map(|(name, cell)| match cell {
            Text(_) => format!("optional binary {name} (UTF8);"),
            Count(_) => format!("optional int64 {name};"),
            Number(_) => format!("optional double {name};"),
            Flag(_) => format!("optional boolean {name};"),
        })
        .collect();
    let schema = parse_message_type(&format!("message plans {{ {} }}", fields.concat()))?;
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut file = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties))?;
    let mut group = file.next_row_group()?;
    for (_, cell) in &COLUMNS {
        match cell {
            Text(of) => column::<ByteArrayType, _>(&mut group, rows, |r| of(r).map(ByteArray::from))?,
            Count(of) => {
                column::<Int64Type, _>(&mut group, rows, |r| of(r).and_then(|n| i64::try_from(n).ok()))?;
            }
            Number(of) => column::<DoubleType, _>(&mut group, rows, of)?,
            Flag(of) => column::<BoolType, _>(&mut group, rows, |r| Some(of(r)))?,
        }
    }
    group.close()?;
    file.close().map(drop)
}

fn column<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    rows: &[Row],
    of: impl Fn(&Row) -> Option<T::T>,
) -> Result<(), ParquetError> {
    let cells: Vec<Option<T::T>> = rows.iter().map(of).collect();
    let levels: Vec<i16> = cells.iter().map(|cell| i16::from(cell.is_some())).collect();
    let values: Vec<T::T> = cells.into_iter().flatten().collect();
    let Some(mut writer) = group.next_column()? else {
        return Err(ParquetError::General("the schema has fewer columns than the rows".to_owned()));
    };
    writer.typed::<T>().write_batch(&values, Some(&levels), None)?;
    writer.close()
}

#[cfg(test)]
mod tests {
    use ::parquet::file::reader::{FileReader, SerializedFileReader};
    use ::parquet::record::Field;

    use super::super::tests::{case, settings};
    use super::super::{Goal, compare, summaries};
    use super::*;
    use crate::lab::shapes::Shape;
    use crate::planning::Stop;

    fn rows() -> Vec<Row> {
        let settings = settings(&["simple", "oracle"]);
        let mut rows = Vec::new();
        compare(&[case(Shape::Tree(8))], &settings, &Stop::never(), |row| rows.push(row));
        summaries(&mut rows, Goal::AtReference, 2);
        rows
    }

    #[test]
    fn csv_and_parquet_say_the_same() {
        let rows = rows();
        let mut text = Vec::new();
        csv(&rows, &mut text).unwrap();
        let mut lines = ::csv::Reader::from_reader(&text[..]);
        let header = lines.headers().unwrap().clone();
        let lines: Vec<_> = lines.records().map(Result::unwrap).collect();
        assert_eq!((lines.len(), &lines[0][7], &lines[0][0]), (2, "simple", "tree:8"));
        assert!(lines[1][26].contains("oracle") && lines[1][10].is_empty(), "{:?}", lines[1]);

        let mut bytes = Vec::new();
        parquet(&rows, &mut bytes).unwrap();
        let file = SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap();
        let found: Vec<_> = file.get_row_iter(None).unwrap().map(Result::unwrap).collect();
        assert_eq!(found.len(), 2);
        for (row, line) in found.iter().zip(&lines) {
            for (((name, field), cell), title) in row.get_column_iter().zip(line).zip(&header) {
                assert_eq!(name, title);
                let text = match field {
                    Field::Null => String::new(),
                    Field::Str(text) => text.clone(),
                    Field::Long(n) => n.to_string(),
                    Field::Double(x) => x.to_string(),
                    Field::Bool(flag) => flag.to_string(),
                    other => panic!("{name} is {other:?}"),
                };
                assert_eq!(text, cell, "{name}");
            }
        }
    }
}
