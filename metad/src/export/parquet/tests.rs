//! Files read back with the reader of the crate.

use foresail_schemas::TaskName;
use foresail_schemas::metric::{StartupRecord, TransferRecord};
use jiff::Timestamp;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;

use super::super::Remaining;
use super::*;

const GROUP: usize = 4;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn records(second: i64) -> Vec<Record> {
    let task = Record::Task(TaskRecord {
        task: TaskName::new("count").unwrap(),
        memory_mb: 1769,
        vcpu: Some(1.5),
        input_bytes: u64::MAX,
        output_bytes: None,
        exec_ms: 12.25,
        peak_memory_mb: Some(312.5),
        attempt: 2,
        at: Some(at(second)),
        forecast: Some(Forecast::new([10.0, 11.0, 12.0, 13.0])),
    });
    let transfer = Record::Transfer(TransferRecord {
        direction: Direction::Upload,
        bytes: 77,
        time_ms: 3.5,
        memory_mb: 512,
        vcpu: None,
        store: Some(TaskName::new("s3").unwrap()),
        at: None,
    });
    let startup = Record::Startup(StartupRecord {
        state: StartState::Cold,
        time_ms: 640.0,
        memory_mb: 512,
        vcpu: None,
        at: None,
    });
    vec![task, transfer, startup]
}

fn batch(n: i64) -> StoredBatch {
    StoredBatch {
        batch_id: format!("b-{n}"),
        run: (n > 0).then(|| "r-1".to_owned()),
        worker: None,
        arrival: at(1000 + n),
        records: records(n),
    }
}

/// The file of `batches` batches, joined from what was taken after each.
fn file(batches: i64) -> Bytes {
    let mut export = Export::new("w", GROUP).unwrap();
    let mut pieces = Vec::new();
    for n in 0..batches {
        export.add(batch(n)).unwrap();
        assert!(export.rows.len() < GROUP, "a full group is not kept");
        pieces.push(export.take().unwrap());
    }
    pieces.push(export.finish().unwrap());
    pieces.concat().into()
}

fn rows(file: &Bytes) -> Vec<Vec<(String, Field)>> {
    let reader = SerializedFileReader::new(file.clone()).unwrap();
    reader.get_row_iter(None).unwrap().map(|row| row.unwrap().into_columns()).collect()
}

#[test]
fn every_record_comes_back_with_what_its_kind_has_and_null_for_the_rest() {
    let rows = rows(&file(3));
    assert_eq!(rows.len(), 9);
    let names: Vec<&str> = rows[0].iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, COLUMNS.iter().map(|column| column.name).collect::<Vec<_>>());
    let known = |row: usize| -> Vec<(&str, Field)> {
        let cells = rows[row].iter().filter(|(_, field)| *field != Field::Null);
        cells.map(|(name, field)| (name.as_str(), field.clone())).collect()
    };
    let text = |s: &str| Field::Str(s.to_owned());
    let time = |second: i64| Field::TimestampMicros(at(second).as_microsecond());
    assert_eq!(
        known(3),
        [
            ("workflow", text("w")),
            ("task", text("count")),
            ("run", text("r-1")),
            ("memory_mb", Field::UInt(1769)),
            ("vcpu", Field::Double(1.5)),
            ("input_bytes", Field::ULong(u64::MAX)),
            ("exec_ms", Field::Double(12.25)),
            ("kind", text("task")),
            ("attempt", Field::UInt(2)),
            ("peak_memory_mb", Field::Double(312.5)),
            ("forecast_median_ms", Field::Double(10.0)),
            ("forecast_p90_ms", Field::Double(11.0)),
            ("forecast_p95_ms", Field::Double(12.0)),
            ("forecast_p99_ms", Field::Double(13.0)),
            ("at", time(1)),
            ("batch_id", text("b-1")),
        ]
    );
    assert_eq!(
        known(1),
        [
            ("workflow", text("w")),
            ("memory_mb", Field::UInt(512)),
            ("kind", text("transfer")),
            ("direction", text("upload")),
            ("store", text("s3")),
            ("bytes", Field::ULong(77)),
            ("time_ms", Field::Double(3.5)),
            ("at", time(1000)),
            ("batch_id", text("b-0")),
        ],
        "the arrival stands in for a time that is not known"
    );
    assert_eq!(rows[8].iter().find(|(name, _)| name == "state").unwrap().1, text("cold"));
}

#[test]
fn groups_of_rows_stay_within_their_limit() {
    let reader = SerializedFileReader::new(file(5)).unwrap();
    let groups: Vec<i64> = reader.metadata().row_groups().iter().map(|group| group.num_rows()).collect();
    assert_eq!(groups, [4, 4, 4, 3]);
}

#[test]
fn rows_with_long_texts_make_smaller_groups() {
    let mut export = Export::new("w", usize::MAX).unwrap();
    let long = |c: &str| c.repeat(255);
    let StoredBatch { records, arrival, .. } = batch(1);
    let (run, worker) = (Some(long("r")), Some(long("i")));
    let records = records.into_iter().cycle().take(3 * GROUP_BYTES_MAX / 765).collect();
    export.add(StoredBatch { batch_id: long("b"), run, worker, arrival, records }).unwrap();
    assert!(export.rows_bytes < GROUP_BYTES_MAX, "{}", export.rows_bytes);
    let file = SerializedFileReader::new(export.finish().unwrap()).unwrap();
    let groups: Vec<i64> = file.metadata().row_groups().iter().map(|group| group.num_rows()).collect();
    let most = *groups.iter().max().unwrap() as usize;
    assert!(groups.len() >= 4 && most * 765 <= GROUP_BYTES_MAX, "{groups:?}");
}

#[test]
fn a_workflow_without_samples_is_a_file_without_rows() {
    let reader = SerializedFileReader::new(file(0)).unwrap();
    assert_eq!(reader.metadata().file_metadata().num_rows(), 0);
    assert_eq!(reader.metadata().file_metadata().schema_descr().num_columns(), COLUMNS.len());
}

#[test]
fn lines_and_rows_hold_the_same_records_in_the_same_order() {
    let mut lines = Vec::new();
    (0..3).for_each(|n| Remaining::from(batch(n)).write(&mut lines, usize::MAX).unwrap());
    let lines: Vec<Record> =
        String::from_utf8(lines).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let times = |row: &Vec<(String, Field)>| row.iter().find(|(name, _)| name == "at").unwrap().1.clone();
    let rows: Vec<Field> = rows(&file(3)).iter().map(times).collect();
    let line_time = |record: &Record| Field::TimestampMicros(record.at().unwrap().as_microsecond());
    assert_eq!(rows, lines.iter().map(line_time).collect::<Vec<_>>());
}
