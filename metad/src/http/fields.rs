//! The fields of records and questions before it is known what they make.
//!
//! [`Fields::record`] and [`Fields::query`] give what the types of `foresail-schemas` would read from the
//! same fields, or nothing where something is missing, out of range, or does not belong to the kind.

use std::cell::RefCell;

use foresail_schemas::TaskName;
use foresail_schemas::decision::Decision;
use foresail_schemas::metric::{
    DecisionRecord, Direction, Forecast, Record, StartState, StartupRecord, TaskRecord, TransferRecord,
};
use foresail_schemas::prediction::Query;
use jiff::Timestamp;
use serde::Deserialize;

/// Names that are remembered while a text is read; a power of two.
const NAMES_MAX: usize = 64;

/// Names that were just read: a batch repeats few of them.
#[derive(Default)]
pub struct Names(RefCell<Vec<Option<TaskName>>>);

impl Names {
    /// The name, checked.
    pub fn name(&self, text: &[u8]) -> Option<TaskName> {
        let mut known = self.0.borrow_mut();
        known.resize(NAMES_MAX, None);
        let mixed =
            text.iter().fold(text.len(), |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte as usize));
        let slot = &mut known[mixed % NAMES_MAX];
        match slot {
            Some(name) if name.as_str().as_bytes() == text => Some(name.clone()),
            _ => {
                *slot = Some(TaskName::new(std::str::from_utf8(text).ok()?).ok()?);
                slot.clone()
            }
        }
    }
}

/// The name of a field.
#[derive(Clone, Copy, Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
#[allow(missing_docs, reason = "they are the names of the fields")]
pub enum Key {
    Kind,
    Task,
    MemoryMb,
    Vcpu,
    InputBytes,
    OutputBytes,
    ExecMs,
    PeakMemoryMb,
    Attempt,
    At,
    Forecast,
    Direction,
    Bytes,
    TimeMs,
    Store,
    State,
    Value,
    #[serde(other)]
    Other,
}

/// What a record or a question is. Read as the name of a field is: from a text alone, as the types read the
/// tag of an object. A plain enum would take `{"task": null}` as well.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
#[allow(missing_docs, reason = "they are the values of the field")]
pub enum Kind {
    Task,
    Transfer,
    Startup,
    Decision,
    ExecutionTime,
    OutputSize,
    TransferTime,
    StartupTime,
}

impl Key {
    /// Its place in a set of fields.
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// The fields of all of `keys`.
const fn set_of(keys: &[Key]) -> u32 {
    let (mut set, mut place) = (0, 0);
    while place < keys.len() {
        set |= keys[place].bit();
        place += 1;
    }
    set
}

const OF_ALL: u32 = set_of(&[Key::Kind, Key::MemoryMb, Key::Vcpu, Key::At]);
/// What a record of a task may have.
pub const OF_TASK: u32 = OF_ALL
    | set_of(&[Key::Task, Key::InputBytes, Key::OutputBytes, Key::ExecMs])
    | set_of(&[Key::PeakMemoryMb, Key::Attempt, Key::Forecast]);
/// What one of a transfer may have.
pub const OF_TRANSFER: u32 = OF_ALL | set_of(&[Key::Direction, Key::Bytes, Key::TimeMs, Key::Store]);
/// What one of a start may have.
pub const OF_STARTUP: u32 = OF_ALL | set_of(&[Key::State, Key::TimeMs]);
/// What one of a decision may have.
pub const OF_DECISION: u32 = set_of(&[Key::Kind, Key::Task, Key::InputBytes, Key::Value, Key::At]);
/// What a question of each kind may have.
const ASKS_OUTPUT: u32 = set_of(&[Key::Kind, Key::Task, Key::InputBytes]);
const ASKS_TIME: u32 = set_of(&[Key::Kind, Key::MemoryMb, Key::Vcpu]);
const ASKS_EXECUTION: u32 = ASKS_TIME | ASKS_OUTPUT;
const ASKS_TRANSFER: u32 = ASKS_TIME | set_of(&[Key::Direction, Key::Bytes, Key::Store]);
const ASKS_STARTUP: u32 = ASKS_TIME | set_of(&[Key::State]);

/// The fields of a question or of a record.
#[derive(Default)]
pub struct Fields {
    /// Which there were, as a set.
    pub seen: u32,
    /// What it is.
    pub kind: Option<Kind>,
    /// Task.
    pub task: Option<TaskName>,
    /// Memory.
    pub memory_mb: Option<u32>,
    /// vCPUs.
    pub vcpu: Option<f64>,
    /// Bytes read.
    pub input_bytes: Option<u64>,
    /// Bytes written.
    pub output_bytes: Option<u64>,
    /// Time of an execution.
    pub exec_ms: Option<f64>,
    /// Most memory used.
    pub peak_memory_mb: Option<f64>,
    /// Which attempt.
    pub attempt: Option<u32>,
    /// When.
    pub at: Option<Timestamp>,
    /// What was forecast.
    pub forecast: Option<Forecast>,
    /// Way of a transfer.
    pub direction: Option<Direction>,
    /// Bytes transferred.
    pub bytes: Option<u64>,
    /// Time of anything else.
    pub time_ms: Option<f64>,
    /// Store.
    pub store: Option<TaskName>,
    /// State of a worker.
    pub state: Option<StartState>,
    /// What was decided.
    pub value: Option<Decision>,
}

/// Finite and not negative.
fn is_amount(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

impl Fields {
    /// vCPU is a number > 0, where it is one.
    fn vcpu_is_good(&self) -> bool {
        self.vcpu.is_none_or(|v| v.is_finite() && v > 0.0)
    }

    /// The question that they make.
    pub fn query(self) -> Option<Query> {
        let of_kind = match self.kind? {
            Kind::ExecutionTime => ASKS_EXECUTION,
            Kind::OutputSize | Kind::Decision => ASKS_OUTPUT,
            Kind::TransferTime => ASKS_TRANSFER,
            Kind::StartupTime => ASKS_STARTUP,
            _ => return None,
        };
        if self.seen & !of_kind != 0 {
            return None;
        }
        let (vcpu, is_good) = (self.vcpu, self.vcpu_is_good());
        let input_bytes = self.input_bytes.unwrap_or(0);
        let query = match self.kind? {
            Kind::ExecutionTime => {
                Query::ExecutionTime { task: self.task?, input_bytes, memory_mb: self.memory_mb?, vcpu }
            }
            Kind::OutputSize => return Some(Query::OutputSize { task: self.task?, input_bytes }),
            Kind::Decision => return Some(Query::Decision { task: self.task?, input_bytes }),
            Kind::TransferTime => Query::TransferTime {
                direction: self.direction?,
                bytes: self.bytes.unwrap_or(0),
                memory_mb: self.memory_mb?,
                vcpu,
                store: self.store,
            },
            Kind::StartupTime => Query::StartupTime { state: self.state?, memory_mb: self.memory_mb?, vcpu },
            Kind::Task | Kind::Transfer | Kind::Startup => return None,
        };
        is_good.then_some(query)
    }

    /// The record that they make.
    pub fn record(self) -> Option<Record> {
        let of_kind = match self.kind? {
            Kind::Task => OF_TASK,
            Kind::Transfer => OF_TRANSFER,
            Kind::Startup => OF_STARTUP,
            Kind::Decision => OF_DECISION,
            _ => return None,
        };
        if self.seen & !of_kind != 0 {
            return None;
        }
        if self.kind? == Kind::Decision {
            let input_bytes = self.input_bytes.unwrap_or(0);
            let record = DecisionRecord { task: self.task?, input_bytes, value: self.value?, at: self.at };
            return Some(Record::Decision(record));
        }
        let time_ms = if self.kind? == Kind::Task { self.exec_ms } else { self.time_ms };
        let time_ms = time_ms.filter(|&ms| is_amount(ms))?;
        if !self.vcpu_is_good() {
            return None;
        }
        let (memory_mb, vcpu, at) = (self.memory_mb?, self.vcpu, self.at);
        match self.kind? {
            Kind::Task => Some(Record::Task(TaskRecord {
                task: self.task?,
                memory_mb,
                vcpu,
                input_bytes: self.input_bytes.unwrap_or(0),
                output_bytes: self.output_bytes,
                exec_ms: time_ms,
                peak_memory_mb: match self.peak_memory_mb {
                    Some(peak) if !is_amount(peak) => return None,
                    peak => peak,
                },
                attempt: self.attempt.unwrap_or(1),
                at,
                forecast: self.forecast,
            })),
            Kind::Transfer => {
                let (direction, bytes, store) = (self.direction?, self.bytes?, self.store);
                let record = TransferRecord { direction, bytes, time_ms, memory_mb, vcpu, store, at };
                Some(Record::Transfer(record))
            }
            Kind::Startup => {
                let state = self.state?;
                Some(Record::Startup(StartupRecord { state, time_ms, memory_mb, vcpu, at }))
            }
            _ => None,
        }
    }
}
