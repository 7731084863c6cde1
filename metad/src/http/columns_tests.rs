//! Columns are read as they were written, bad ones cost only themselves, and damaged ones never more than an
//! error.

use foresail_schemas::ResourceConfig;
use foresail_schemas::metric::Record;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const MANY: u64 = 1_000_000;

/// A body of a head and the bytes behind it.
fn body(head: &Value, values: &[u8]) -> Vec<u8> {
    let head = head.to_string();
    [MAGIC.as_slice(), &(head.len() as u32).to_le_bytes(), head.as_bytes(), values].concat()
}

/// Writes records of all kinds with every column.
fn write(records: &[Record]) -> Vec<u8> {
    let mut names: Vec<String> = Vec::new();
    let mut place = |name: &str| {
        names.iter().position(|n| n == name).unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        }) as u32
    };
    let (mut groups, mut values) = (Vec::new(), Vec::new());
    for kind in [Kind::Task, Kind::Transfer, Kind::Startup, Kind::Decision] {
        let (required, optional) = kind.columns();
        let columns = [required, optional].concat();
        let of_kind: Vec<_> = records.iter().filter(|r| kind_of(r) == kind).collect();
        for column in &columns {
            of_kind.iter().for_each(|record| values.extend(value(record, *column, &mut place)));
        }
        let columns: Vec<_> = columns.iter().map(|c| c.name()).collect();
        groups.push(json!({"kind": kind.name(), "records": of_kind.len(), "columns": columns}));
    }
    body(&json!({"batch_id": "b", "run": "r", "names": names, "groups": groups}), &values)
}

fn kind_of(record: &Record) -> Kind {
    match record {
        Record::Task(_) => Kind::Task,
        Record::Transfer(_) => Kind::Transfer,
        Record::Startup(_) => Kind::Startup,
        Record::Decision(_) => Kind::Decision,
    }
}

fn value(record: &Record, column: Column, place: &mut impl FnMut(&str) -> u32) -> Vec<u8> {
    let config = record.config().unwrap_or(ResourceConfig { memory_mb: 1, vcpu: None });
    match column {
        Column::MemoryMb => return config.memory_mb.to_le_bytes().to_vec(),
        Column::Vcpu => return config.vcpu.unwrap_or(f64::NAN).to_le_bytes().to_vec(),
        Column::At => return record.at().map_or(i64::MIN, |at| at.as_microsecond()).to_le_bytes().to_vec(),
        _ => {}
    }
    match record {
        Record::Task(r) => {
            let forecast = r.forecast.map(|f| [f.median_ms, f.p90_ms, f.p95_ms, f.p99_ms]);
            match column {
                Column::Task => place(r.task.as_str()).to_le_bytes().to_vec(),
                Column::InputBytes => r.input_bytes.to_le_bytes().to_vec(),
                Column::OutputBytes => r.output_bytes.unwrap_or(u64::MAX).to_le_bytes().to_vec(),
                Column::ExecMs => r.exec_ms.to_le_bytes().to_vec(),
                Column::PeakMemoryMb => r.peak_memory_mb.unwrap_or(f64::NAN).to_le_bytes().to_vec(),
                Column::Attempt => r.attempt.to_le_bytes().to_vec(),
                quantile => {
                    let number = FORECAST.iter().position(|c| *c == quantile).unwrap();
                    forecast.map_or(f64::NAN, |f| f[number]).to_le_bytes().to_vec()
                }
            }
        }
        Record::Transfer(r) => match column {
            Column::Direction => vec![u8::from(r.direction == Direction::Upload)],
            Column::Bytes => r.bytes.to_le_bytes().to_vec(),
            Column::TimeMs => r.time_ms.to_le_bytes().to_vec(),
            _ => r.store.as_ref().map_or(u32::MAX, |store| place(store.as_str())).to_le_bytes().to_vec(),
        },
        Record::Startup(r) => match column {
            Column::State => vec![u8::from(r.state == StartState::Warm)],
            _ => r.time_ms.to_le_bytes().to_vec(),
        },
        Record::Decision(r) => match (column, &r.value) {
            (Column::Task, _) => place(r.task.as_str()).to_le_bytes().to_vec(),
            (Column::InputBytes, _) => r.input_bytes.to_le_bytes().to_vec(),
            (Column::Width, Decision::Width(width)) => width.to_le_bytes().to_vec(),
            (Column::Branch, Decision::Branch(text)) => place(text).to_le_bytes().to_vec(),
            (Column::Width, _) => u64::MAX.to_le_bytes().to_vec(),
            _ => u32::MAX.to_le_bytes().to_vec(),
        },
    }
}

fn any_record() -> impl Strategy<Value = Record> {
    let at = prop::option::of(
        (0i64..4_000_000_000_000_000).prop_map(|us| Timestamp::from_microsecond(us).unwrap()),
    );
    let name = "[a-z]{1,3}".prop_map(|name| TaskName::new(name).unwrap());
    let sizes = (1u32..1 << 20, prop::option::of(0.1f64..64.0), at, 0.0f64..1e9, 0..u64::MAX, 0u8..6);
    let rest = (name, prop::option::of(0.0f64..1e6), 1u32..5, any::<bool>());
    (sizes, rest).prop_map(|((memory_mb, vcpu, at, time_ms, bytes, kind), (name, peak, attempt, has))| {
        match kind {
            5 => {
                let value = if has { Decision::Width(bytes) } else { Decision::Branch(format!("{name} ")) };
                Record::Decision(DecisionRecord { task: name, input_bytes: bytes, value, at })
            }
            0..=2 => Record::Task(TaskRecord {
                task: name,
                memory_mb,
                vcpu,
                input_bytes: bytes,
                output_bytes: has.then_some(bytes / 2),
                exec_ms: time_ms,
                peak_memory_mb: peak,
                attempt,
                at,
                forecast: has.then_some(Forecast {
                    median_ms: time_ms,
                    p90_ms: time_ms * 2.0,
                    p95_ms: time_ms * 3.0,
                    p99_ms: time_ms * 4.0,
                }),
            }),
            3 => {
                let direction = if has { Direction::Upload } else { Direction::Download };
                let store = has.then_some(name);
                Record::Transfer(TransferRecord { direction, bytes, time_ms, memory_mb, vcpu, store, at })
            }
            _ => {
                let state = if has { StartState::Cold } else { StartState::Warm };
                Record::Startup(StartupRecord { state, time_ms, memory_mb, vcpu, at })
            }
        }
    })
}

proptest! {
    #[test]
    fn what_was_written_is_read(mut records in prop::collection::vec(any_record(), 0..40)) {
        let parsed = parse(&write(&records), MANY).unwrap();
        // Columns keep the order within a kind.
        records.sort_by_key(|record| kind_of(record) as u8);
        prop_assert_eq!(parsed.records, records);
        prop_assert!(parsed.rejected.is_empty());
    }

    #[test]
    fn damaged_columns_are_refused_or_read_but_never_panic(
        records in prop::collection::vec(any_record(), 0..6),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = write(&records);
        let cut = cut.index(bytes.len());
        let _ = parse(&bytes[..cut], MANY);
        for (at, to) in changes {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        if let Ok(parsed) = parse(&bytes, MANY) {
            prop_assert!(parsed.records.iter().all(|record| checked(record).is_ok()));
            prop_assert!(parsed.records.len() + parsed.rejected.len() <= bytes.len());
        }
    }

    #[test]
    fn foreign_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(parse(&bytes, MANY).is_err());
        prop_assert!(parse(&[MAGIC.as_slice(), &bytes].concat(), MANY).is_err());
    }
}

/// Two startups with these values of `time_ms`.
fn startups(times_ms: [f64; 2], states: [u8; 2]) -> Vec<u8> {
    let group = json!({"kind": "startup", "records": 2, "columns": ["state", "memory_mb", "time_ms"]});
    let memory = [1769u32, 512].map(u32::to_le_bytes).concat();
    let values = [states.to_vec(), memory, times_ms.map(f64::to_le_bytes).concat()].concat();
    body(&json!({"groups": [group]}), &values)
}

#[test]
fn a_bad_record_is_set_aside_with_its_reason_and_its_values() {
    let parsed = parse(&startups([640.0, f64::NAN], [0, 1]), MANY).unwrap();
    assert_eq!(parsed.records.len(), 1);
    let (rejected, record) = &parsed.rejected[0];
    assert_eq!((rejected.index, rejected.code), (1, ErrorCode::InvalidRecord));
    assert_eq!(rejected.detail, "time_ms `NaN` must be finite and at least 0");
    assert_eq!(*record, json!({"kind": "startup", "memory_mb": 512, "time_ms": "NaN", "state": 1}));
    for bad in [startups([1.0, -1.0], [0, 1]), startups([1.0, 1e12], [0, 1]), startups([1.0, 2.0], [0, 7])] {
        let parsed = parse(&bad, MANY).unwrap();
        assert_eq!((parsed.records.len(), parsed.rejected[0].0.index), (1, 1));
    }
}

#[test]
fn a_name_that_is_missing_or_illegal_costs_only_the_records_that_have_it() {
    let group = json!({"kind": "task", "records": 3, "columns": ["task", "memory_mb", "exec_ms"]});
    let values = [
        [0u32, 1, 2].map(u32::to_le_bytes).concat(),
        [1769u32; 3].map(u32::to_le_bytes).concat(),
        [5.0f64; 3].map(f64::to_le_bytes).concat(),
    ];
    let parsed = parse(&body(&json!({"names": ["a", "b c"], "groups": [group]}), &values.concat()), MANY);
    let parsed = parsed.unwrap();
    assert_eq!((parsed.records.len(), parsed.rejected.len()), (1, 2));
    assert!(parsed.rejected[0].0.detail.contains("`b c`"), "{}", parsed.rejected[0].0.detail);
    assert!(parsed.rejected[1].0.detail.contains("name `2`"), "{}", parsed.rejected[1].0.detail);
    assert_eq!(parsed.rejected[1].1["task"], json!(2));
}

#[test]
fn a_long_illegal_name_is_cut_in_every_record_that_has_it() {
    let (records, name) = (1000, "\u{e9}".repeat(500_000));
    let group = json!({"kind": "task", "records": records, "columns": ["task", "memory_mb", "exec_ms"]});
    let values = [
        [0u32; 1000].map(u32::to_le_bytes).concat(),
        [1769u32; 1000].map(u32::to_le_bytes).concat(),
        [5.0f64; 1000].map(f64::to_le_bytes).concat(),
    ];
    let parsed = parse(&body(&json!({"names": [name], "groups": [group]}), &values.concat()), MANY).unwrap();
    assert_eq!((parsed.records.len(), parsed.rejected.len()), (0, records));
    let kept: usize = parsed.rejected.iter().map(|(r, v)| r.detail.len() + v.to_string().len()).sum();
    assert!(kept < records * 1000, "`{kept}` bytes are kept of {records} records");
    let (rejected, record) = &parsed.rejected[0];
    assert!(rejected.detail.contains("1000000") && rejected.detail.contains("255"), "{}", rejected.detail);
    assert_eq!(record["task"], json!("\u{e9}".repeat(127)), "whole characters");
}

#[test]
fn what_is_wrong_with_the_whole_is_said() {
    let group = |kind: &str, records: u64, columns: &[&str]| {
        body(&json!({"groups": [{"kind": kind, "records": records, "columns": columns}]}), &[0; 13])
    };
    let startup = ["state", "memory_mb", "time_ms"];
    for (bytes, named) in [
        (b"FSC".to_vec(), "shorter"),
        (b"FSC2....".to_vec(), "`FSC2`"),
        ([MAGIC.as_slice(), &u32::MAX.to_le_bytes()].concat(), "at most"),
        (body(&json!({"groups": [], "colour": 1}), &[]), "colour"),
        (body(&json!({"groups": []}), &[1]), "`1` bytes stand behind"),
        (group("startup", 1, &["state", "time_ms"]), "needs `memory_mb`"),
        (group("startup", 1, &["state", "state", "time_ms"]), "twice"),
        (group("startup", 1, &["state", "exec_ms"]), "no `exec_ms`"),
        (group("startup", 2, &startup), "fewer than 2"),
        (group("startup", 1, &["colour"]), "colour"),
        (group("task", 1, &["task", "forecast.p90_ms"]), "needs"),
        (group("startup", 999_999, &startup), "fewer"),
        (group("startup", 0, &startup), "behind"),
    ] {
        let problem = parse(&bytes, MANY).unwrap_err().0;
        assert_eq!(problem.code, ErrorCode::InvalidBody);
        assert!(problem.detail.contains(named), "{named}: {}", problem.detail);
    }
    let problem = parse(&group("startup", u64::MAX, &startup), 10).unwrap_err().0;
    assert_eq!((problem.code, problem.limit), (ErrorCode::TooMany, Some(10)));
    assert_eq!(parse(&group("startup", 1, &startup), MANY).unwrap().rejected.len(), 1, "memory 0");
}

#[test]
fn every_column_has_its_own_place_and_name() {
    for (place, (column, name)) in ALL.iter().enumerate() {
        assert_eq!((*column as usize, column.name()), (place, *name));
        assert_eq!(serde_json::from_value::<Column>(json!(name)).unwrap(), *column);
    }
}
