//! Raw batches: everything that was measured, as long as retention keeps it.
//!
//! Table `batches`: (workflow u32, sequence u64) -> version byte 2, number of records (u32, little endian),
//! postcard of [`FlatBatch`]. A batch is one value: a row per record costs 2 to 10 times as much. Names are
//! written once per batch and referred to by their place; times are ns since 1970, those of records relative
//! to the arrival of the batch. A task record takes about 30 to 40 bytes. Retention drops the oldest batches
//! of a workflow.

use std::collections::HashMap;

use foresail_schemas::TaskName;
use foresail_schemas::decision::Decision;
use foresail_schemas::metric::{
    DecisionRecord, Direction, Forecast, Record, StartState, StartupRecord, TaskRecord, TransferRecord,
};
use jiff::Timestamp;
use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::change::Change;
use super::{ReadView, Result, WriteGroup, corrupt};

const NAME: &str = "batches";
const TABLE: TableDefinition<(u32, u64), &[u8]> = TableDefinition::new(NAME);
const VERSION: u8 = 2;
const HEAD: usize = 5;
/// Names that are compared before they are looked up.
const FEW_NAMES: usize = 8;

/// A batch as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredBatch {
    /// Its id.
    pub batch_id: String,
    /// The run it belongs to.
    pub run: Option<String>,
    /// The worker that measured.
    pub worker: Option<String>,
    /// When it arrived.
    pub arrival: Timestamp,
    /// The accepted records.
    pub records: Vec<Record>,
}

/// The form on disk.
#[derive(Serialize, Deserialize)]
struct FlatBatch {
    batch_id: String,
    run: Option<String>,
    worker: Option<String>,
    arrival_ns: i128,
    /// Task names and names of stores, by their place here.
    names: Vec<String>,
    records: Vec<FlatRecord>,
}

#[derive(Serialize, Deserialize)]
struct FlatRecord {
    /// 0 where it does not matter.
    memory_mb: u32,
    vcpu: Option<f64>,
    /// Relative to the arrival of the batch.
    at_ns: Option<i128>,
    body: FlatBody,
}

/// New kinds go to the end: the place of a kind is what is written.
#[derive(Serialize, Deserialize)]
enum FlatBody {
    Task {
        name: u32,
        input_bytes: u64,
        output_bytes: Option<u64>,
        exec_ms: f64,
        peak_memory_mb: Option<f64>,
        attempt: u32,
        /// Median, p90, p95 and p99.
        forecast: Option<[f64; 4]>,
    },
    Download {
        bytes: u64,
        time_ms: f64,
        store: Option<u32>,
    },
    Upload {
        bytes: u64,
        time_ms: f64,
        store: Option<u32>,
    },
    Cold {
        time_ms: f64,
    },
    Warm {
        time_ms: f64,
    },
    Width {
        name: u32,
        input_bytes: u64,
        width: u64,
    },
    Branch {
        name: u32,
        input_bytes: u64,
        text: String,
    },
}

#[derive(Default)]
struct Names<'a> {
    places: HashMap<&'a str, u32>,
    list: Vec<String>,
}

impl<'a> Names<'a> {
    fn place(&mut self, name: &'a TaskName) -> u32 {
        // Most batches have a handful of names: comparing takes less than hashing.
        let few = &self.list[..self.list.len().min(FEW_NAMES)];
        if let Some(place) = few.iter().position(|known| known == name.as_str()) {
            return place as u32;
        }
        *self.places.entry(name.as_str()).or_insert_with(|| {
            self.list.push(name.as_str().to_owned());
            self.list.len() as u32 - 1
        })
    }
}

fn flatten<'a>(record: &'a Record, names: &mut Names<'a>, arrival_ns: i128) -> FlatRecord {
    let body = match record {
        Record::Task(r) => FlatBody::Task {
            name: names.place(&r.task),
            input_bytes: r.input_bytes,
            output_bytes: r.output_bytes,
            exec_ms: r.exec_ms,
            peak_memory_mb: r.peak_memory_mb,
            attempt: r.attempt,
            forecast: r.forecast.map(|f| f.times_ms()),
        },
        Record::Transfer(r) => {
            let (bytes, time_ms) = (r.bytes, r.time_ms);
            let store = r.store.as_ref().map(|s| names.place(s));
            match r.direction {
                Direction::Download => FlatBody::Download { bytes, time_ms, store },
                Direction::Upload => FlatBody::Upload { bytes, time_ms, store },
            }
        }
        Record::Startup(r) => match r.state {
            StartState::Cold => FlatBody::Cold { time_ms: r.time_ms },
            StartState::Warm => FlatBody::Warm { time_ms: r.time_ms },
        },
        Record::Decision(r) => {
            let (name, input_bytes) = (names.place(&r.task), r.input_bytes);
            match &r.value {
                Decision::Width(width) => FlatBody::Width { name, input_bytes, width: *width },
                Decision::Branch(text) => FlatBody::Branch { name, input_bytes, text: text.clone() },
            }
        }
    };
    let config = record.config();
    let at_ns = record.at().map(|at| at.as_nanosecond() - arrival_ns);
    let memory_mb = config.map_or(0, |config| config.memory_mb);
    FlatRecord { memory_mb, vcpu: config.and_then(|config| config.vcpu), at_ns, body }
}

fn rebuild(flat: FlatRecord, names: &[TaskName], arrival_ns: i128) -> std::result::Result<Record, String> {
    let name = |place: u32| names.get(place as usize).cloned().ok_or(format!("name {place} is missing"));
    let at_ns = flat.at_ns.map(|ns| arrival_ns.checked_add(ns).ok_or("a time is out of range"));
    let at = at_ns.transpose()?.map(Timestamp::from_nanosecond).transpose().map_err(|e| e.to_string())?;
    let (memory_mb, vcpu) = (flat.memory_mb, flat.vcpu);
    let transfer = |direction, bytes, time_ms, store: Option<u32>| {
        let store = store.map(name).transpose()?;
        let record = TransferRecord { direction, bytes, time_ms, memory_mb, vcpu, store, at };
        Ok::<_, String>(Record::Transfer(record))
    };
    let decision = |place, input_bytes, value| {
        Ok::<_, String>(Record::Decision(DecisionRecord { task: name(place)?, input_bytes, value, at }))
    };
    let startup = |state, time_ms| Record::Startup(StartupRecord { state, time_ms, memory_mb, vcpu, at });
    let record = match flat.body {
        FlatBody::Task {
            name: place,
            input_bytes,
            output_bytes,
            exec_ms,
            peak_memory_mb,
            attempt,
            forecast,
        } => {
            let (task, forecast) = (name(place)?, forecast.map(Forecast::new));
            Record::Task(TaskRecord {
                task,
                memory_mb,
                vcpu,
                input_bytes,
                output_bytes,
                exec_ms,
                peak_memory_mb,
                attempt,
                at,
                forecast,
            })
        }
        FlatBody::Download { bytes, time_ms, store } => transfer(Direction::Download, bytes, time_ms, store)?,
        FlatBody::Upload { bytes, time_ms, store } => transfer(Direction::Upload, bytes, time_ms, store)?,
        FlatBody::Cold { time_ms } => startup(StartState::Cold, time_ms),
        FlatBody::Warm { time_ms } => startup(StartState::Warm, time_ms),
        FlatBody::Width { name, input_bytes, width } => decision(name, input_bytes, Decision::Width(width))?,
        FlatBody::Branch { name, input_bytes, text } => decision(name, input_bytes, Decision::Branch(text))?,
    };
    let times = match &record {
        Record::Task(r) => [r.exec_ms, r.peak_memory_mb.unwrap_or(0.0)],
        Record::Transfer(r) => [r.time_ms, 0.0],
        Record::Startup(r) => [r.time_ms, 0.0],
        Record::Decision(_) => [0.0; 2],
    };
    match times.iter().find(|t| !(t.is_finite() && **t >= 0.0)) {
        Some(bad) => Err(format!("`{bad}` is no time")),
        None => record.check().map(|()| record),
    }
}

/// The form of a batch on disk and in a log.
pub fn encode(batch: &StoredBatch) -> Vec<u8> {
    let arrival_ns = batch.arrival.as_nanosecond();
    let mut names = Names::default();
    let records: Vec<_> = batch.records.iter().map(|r| flatten(r, &mut names, arrival_ns)).collect();
    let mut value = vec![VERSION];
    value.extend((records.len() as u32).to_le_bytes());
    let flat = FlatBatch {
        batch_id: batch.batch_id.clone(),
        run: batch.run.clone(),
        worker: batch.worker.clone(),
        arrival_ns,
        names: names.list,
        records,
    };
    postcard::to_extend(&flat, value).expect("numbers and text always have a postcard form")
}

/// Number of records of an encoded batch.
fn count(value: &[u8]) -> Option<u64> {
    let (&version, rest) = value.split_first()?;
    let count: [u8; 4] = rest.get(..4)?.try_into().ok()?;
    (version == VERSION).then(|| u64::from(u32::from_le_bytes(count)))
}

/// The batch in these bytes, or what is wrong with them.
pub fn decode(value: &[u8]) -> std::result::Result<StoredBatch, String> {
    if count(value).is_none() {
        return Err("unknown version".to_owned());
    }
    let flat: FlatBatch = postcard::from_bytes(&value[HEAD..]).map_err(|e| e.to_string())?;
    let names: std::result::Result<Vec<_>, _> = flat.names.iter().map(TaskName::new).collect();
    let names = names.map_err(|e| e.to_string())?;
    let arrival = Timestamp::from_nanosecond(flat.arrival_ns).map_err(|e| e.to_string())?;
    let records: std::result::Result<Vec<_>, _> =
        flat.records.into_iter().map(|r| rebuild(r, &names, flat.arrival_ns)).collect();
    Ok(StoredBatch {
        batch_id: flat.batch_id,
        run: flat.run,
        worker: flat.worker,
        arrival,
        records: records?,
    })
}

pub(super) fn prepare(group: &WriteTransaction) -> Result<()> {
    group.open_table(TABLE)?;
    Ok(())
}

/// The table, opened once for several changes.
pub(super) struct Rows<'t>(Table<'t, (u32, u64), &'static [u8]>);

impl<'t> Rows<'t> {
    pub fn open(transaction: &'t WriteTransaction) -> Result<Self> {
        Ok(Self(transaction.open_table(TABLE)?))
    }

    pub fn put(&mut self, key: (u32, u64), batch: &[u8]) -> Result<()> {
        self.0.insert(key, batch)?;
        Ok(())
    }

    pub fn drop(&mut self, key: (u32, u64)) -> Result<()> {
        self.0.remove(key)?;
        Ok(())
    }
}

impl ReadView {
    /// Up to `limit` batches of a workflow after `sequence`, in order. What cannot be read comes as its
    /// error, so that one damaged value does not hide those behind it.
    ///
    /// # Errors
    /// [`super::StoreError`] when the database fails.
    pub fn batches_after(
        &self,
        workflow: u32,
        sequence: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Result<StoredBatch>)>> {
        let table = self.0.open_table(TABLE)?;
        let range = table.range((workflow, sequence.saturating_add(1))..=(workflow, u64::MAX))?;
        range
            .take(limit)
            .map(|entry| {
                let (key, value) = entry?;
                let batch = decode(value.value()).map_err(|e| corrupt(NAME, key.value(), e));
                Ok((key.value().1, batch))
            })
            .collect()
    }

    /// Batches of a workflow after `sequence`, in order: so many that they have `records` records or more
    /// together, or all that are left.
    ///
    /// # Errors
    /// [`super::StoreError`] when the database fails or a batch is damaged.
    pub fn samples_after(
        &self,
        workflow: u32,
        sequence: u64,
        records: u64,
    ) -> Result<Vec<(u64, StoredBatch)>> {
        let table = self.0.open_table(TABLE)?;
        let (mut batches, mut found) = (Vec::new(), 0);
        for entry in table.range((workflow, sequence.saturating_add(1))..=(workflow, u64::MAX))? {
            let (key, value) = entry?;
            let batch = decode(value.value()).map_err(|e| corrupt(NAME, key.value(), e))?;
            found += batch.records.len() as u64;
            batches.push((key.value().1, batch));
            if found >= records {
                break;
            }
        }
        Ok(batches)
    }
}

impl WriteGroup {
    /// Writes a batch.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn put_batch(&self, workflow: u32, sequence: u64, batch: &StoredBatch) -> Result<()> {
        self.make(Change::PutBatch { workflow, sequence, batch: &encode(batch) })
    }

    /// Drops the oldest batch of a workflow unless it is younger than `sequence_max`; answers how many
    /// records it had.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn drop_oldest_batch(&self, workflow: u32, sequence_max: u64) -> Result<Option<u64>> {
        let oldest = {
            let table = self.transaction()?.open_table(TABLE)?;
            let first = table.range((workflow, 0)..=(workflow, sequence_max))?.next().transpose()?;
            first.map(|(key, value)| (key.value().1, count(value.value()).unwrap_or(0)))
        };
        let Some((sequence, records)) = oldest else { return Ok(None) };
        self.make(Change::DropBatch { workflow, sequence })?;
        Ok(Some(records))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::store::testing;

    fn any_time() -> impl Strategy<Value = Timestamp> {
        (0i64..4_000_000_000, 0i32..1_000_000_000).prop_map(|(s, ns)| Timestamp::new(s, ns).unwrap())
    }

    /// Any valid record.
    pub fn any_record() -> impl Strategy<Value = Record> {
        let size = (1u32..=1_048_576, option::of(0.01f64..64.0), option::of(any_time()));
        let number = 0.0f64..1e12;
        let name = "[a-zA-Z0-9_][a-z.:@+~-]{0,40}";
        let task = (name, any::<u64>(), option::of(any::<u64>()), option::of(0.0f64..1e6), 1u32..9);
        (size, number, 0u8..6, task).prop_map(|((memory_mb, vcpu, at), time_ms, kind, task)| {
            let (name, bytes, output_bytes, peak_memory_mb, attempt) = task;
            let name = TaskName::new(name).unwrap();
            let direction = if kind == 1 { Direction::Download } else { Direction::Upload };
            let state = if kind == 3 { StartState::Cold } else { StartState::Warm };
            match kind {
                0 => Record::Task(TaskRecord {
                    task: name,
                    memory_mb,
                    vcpu,
                    input_bytes: bytes,
                    output_bytes,
                    exec_ms: time_ms,
                    peak_memory_mb,
                    attempt,
                    at,
                    forecast: (attempt > 1).then_some(Forecast {
                        median_ms: time_ms,
                        p90_ms: time_ms * 1.5,
                        p95_ms: time_ms * 2.0,
                        p99_ms: time_ms * 3.0,
                    }),
                }),
                1 | 2 => {
                    let store = output_bytes.map(|_| name);
                    Record::Transfer(TransferRecord { direction, bytes, time_ms, memory_mb, vcpu, store, at })
                }
                5 => {
                    let value = output_bytes.map_or(Decision::Branch(name.to_string()), Decision::Width);
                    Record::Decision(DecisionRecord { task: name, input_bytes: bytes, value, at })
                }
                _ => Record::Startup(StartupRecord { state, time_ms, memory_mb, vcpu, at }),
            }
        })
    }

    proptest! {
        #[test]
        fn batches_round_trip(
            batch_id in "[a-z]{1,20}", run in option::of("[a-z]{1,20}"), arrival in any_time(),
            records in proptest::collection::vec(any_record(), 0..20),
        ) {
            let batch = StoredBatch { batch_id, worker: run.clone(), run, arrival, records };
            let value = encode(&batch);
            prop_assert_eq!(count(&value), Some(batch.records.len() as u64));
            prop_assert_eq!(decode(&value).unwrap(), batch);
        }

        #[test]
        fn damaged_bytes_are_refused_or_read_but_never_panic(
            records in proptest::collection::vec(any_record(), 0..4),
            at in any::<prop::sample::Index>(), to in any::<u8>(),
        ) {
            let arrival = Timestamp::UNIX_EPOCH;
            let batch = StoredBatch { batch_id: "b".into(), run: None, worker: None, arrival, records };
            let mut value = encode(&batch);
            let at = at.index(value.len());
            value[at] = to;
            let _ = decode(&value);
            let _ = decode(&value[..at]);
        }
    }

    #[test]
    fn a_hundred_task_records_take_less_than_four_kilobytes() {
        let record = TaskRecord {
            task: TaskName::new("count").unwrap(),
            memory_mb: 1769,
            vcpu: None,
            input_bytes: 50_000_000,
            output_bytes: Some(1200),
            exec_ms: 1523.4,
            peak_memory_mb: Some(312.0),
            attempt: 1,
            at: Some(Timestamp::from_second(1_700_000_000).unwrap()),
            forecast: None,
        };
        let records = vec![Record::Task(record); 100];
        let arrival = Timestamp::from_second(1_700_000_009).unwrap();
        let batch = StoredBatch { batch_id: "b".into(), run: None, worker: None, arrival, records };
        assert!(encode(&batch).len() < 4096, "{}", encode(&batch).len());
    }

    #[test]
    fn the_oldest_batch_of_the_workflow_goes_first_and_only_up_to_the_limit() {
        let (writer, reader) = testing::in_memory();
        let batch = |n: usize| StoredBatch {
            batch_id: format!("b{n}"),
            run: None,
            worker: None,
            arrival: Timestamp::UNIX_EPOCH,
            records: vec![
                Record::Startup(StartupRecord {
                    state: StartState::Cold,
                    time_ms: 1.0,
                    memory_mb: 1,
                    vcpu: None,
                    at: None
                });
                n
            ],
        };
        let group = writer.begin().unwrap();
        for (workflow, sequence, records) in [(0, 1, 5), (1, 1, 7), (0, 2, 6)] {
            group.put_batch(workflow, sequence, &batch(records)).unwrap();
        }
        assert_eq!(group.drop_oldest_batch(0, 1).unwrap(), Some(5));
        assert_eq!(group.drop_oldest_batch(0, 1).unwrap(), None);
        group.commit().unwrap();
        let left = reader.view().unwrap().batches_after(0, 0, 9).unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].1.as_ref().unwrap().batch_id, "b6");
    }
}
