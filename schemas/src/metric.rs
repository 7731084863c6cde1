//! Measurements: what workers send to metad, in batches.
//!
//! A batch is the unit of durability and of idempotence; a record is the unit of validity: a bad record is
//! set aside with its reason and never blocks a good one. A field that is not known makes a record bad: it
//! may be a misspelt one, without which the measurement means something else, and set aside it is kept as it
//! came.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{ResourceConfig, Sla};
use crate::decision::{DECISION_LEN_MAX, Decision};
use crate::error::ErrorCode;
use crate::id::{BatchId, InstanceId, RunId, TaskName};
use crate::number::{non_negative, non_negative_opt, positive_opt};

/// Most records accepted in one batch by default.
pub const RECORDS_PER_BATCH_MAX: usize = 100_000;
/// The store of a transfer that names none.
pub const STORE_NAME_DEFAULT: &str = "default";
/// How the names of ways inside the engine begin: they are measured as transfers of 0 bytes, and a question
/// that names no store leaves them out.
pub const ENGINE_STORE_PREFIX: &str = "engine.";
/// The way to the run's state and back, as a worker waits for it that has nothing else to do: the mean of an
/// invocation.
pub const STORE_OF_STATE: &str = "engine.state";
/// What an attempt holds its lane beside downloads, code and uploads: the mean of an invocation.
pub const STORE_OF_LANES: &str = "engine.lane";
/// What a worker that was started took until it could be asked for anything: process, libraries, connections.
pub const STORE_OF_INIT: &str = "engine.init";

/// A batch of measurements of one worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Idempotency key; may come as the header `Idempotency-Key` instead.
    pub batch_id: BatchId,
    /// The run that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The worker instance that measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<InstanceId>,
    /// The measurements, in the order they were made.
    pub records: Vec<Record>,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// One execution of a task.
    Task(TaskRecord),
    /// One object moved between a worker and a store.
    Transfer(TransferRecord),
    /// One start of a worker.
    Startup(StartupRecord),
    /// What one execution of a task decided.
    Decision(DecisionRecord),
}

/// One execution of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskRecord {
    /// The function that ran.
    pub task: TaskName,
    /// Memory of the worker in MB.
    #[schemars(range(min = 1, max = 1048576))]
    pub memory_mb: u32,
    /// vCPUs of the worker, where known.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "positive_opt")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub vcpu: Option<f64>,
    /// Size of all inputs in bytes.
    #[serde(default)]
    pub input_bytes: u64,
    /// Size of all outputs in bytes, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// Time in the user's code in ms, without transfers.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub exec_ms: f64,
    /// Largest resident memory in MB, where known.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "non_negative_opt")]
    #[schemars(range(min = 0.0))]
    pub peak_memory_mb: Option<f64>,
    /// Which attempt it was, from 1.
    #[serde(default = "first")]
    pub attempt: u32,
    /// When it ended; the time of arrival where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// What the plan of the run had predicted for it, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
}

/// The execution time that a plan predicted, in ms; metad scores it with the time that was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Forecast {
    /// The median.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub median_ms: f64,
    /// The time that nine of ten executions stay below.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub p90_ms: f64,
    /// The time that 95 of 100 executions stay below.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub p95_ms: f64,
    /// The time that 99 of 100 executions stay below.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub p99_ms: f64,
}

impl Forecast {
    /// The service levels, in the order of the fields.
    pub const SLAS: [Sla; 4] = [Sla::MEDIAN, Sla::P90, Sla::P95, Sla::P99];

    /// The forecast with a time per service level of [`Self::SLAS`].
    #[must_use]
    pub fn new([median_ms, p90_ms, p95_ms, p99_ms]: [f64; 4]) -> Self {
        Self { median_ms, p90_ms, p95_ms, p99_ms }
    }

    /// The time per service level of [`Self::SLAS`].
    #[must_use]
    pub fn times_ms(&self) -> [f64; 4] {
        [self.median_ms, self.p90_ms, self.p95_ms, self.p99_ms]
    }
}

/// One object moved between a worker and a store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransferRecord {
    /// Which way.
    pub direction: Direction,
    /// Size in bytes.
    pub bytes: u64,
    /// Time in ms.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub time_ms: f64,
    /// Memory of the worker in MB.
    #[schemars(range(min = 1, max = 1048576))]
    pub memory_mb: u32,
    /// vCPUs of the worker, where known.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "positive_opt")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub vcpu: Option<f64>,
    /// The store, for instance `s3` or `file`; `default` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<TaskName>,
    /// When it ended; the time of arrival where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// One start of a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StartupRecord {
    /// Cold or warm.
    pub state: StartState,
    /// From the invocation until the worker can ask for its first task, in ms.
    #[serde(deserialize_with = "non_negative")]
    #[schemars(range(min = 0.0))]
    pub time_ms: f64,
    /// Memory of the worker in MB.
    #[schemars(range(min = 1, max = 1048576))]
    pub memory_mb: u32,
    /// vCPUs of the worker, where known.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "positive_opt")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub vcpu: Option<f64>,
    /// When it ended; the time of arrival where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// What one execution of a task decided; sent once per execution whose result stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecisionRecord {
    /// The function that ran.
    pub task: TaskName,
    /// Size of all inputs in bytes.
    #[serde(default)]
    pub input_bytes: u64,
    /// How many follow, or which branch is taken.
    pub value: Decision,
    /// When it ended; the time of arrival where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// Direction of a transfer, seen from the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the store to the worker.
    Download,
    /// From the worker to the store.
    Upload,
}

/// Whether a worker had to be started for an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StartState {
    /// A new process or container was started.
    Cold,
    /// An idle one was used again.
    Warm,
}

impl Record {
    /// Why `json` is no record: what its reading said, with the name of the field that is wrong. serde copies
    /// a form with its tag inside before it reads it, and the copy has no places.
    #[must_use]
    pub fn refusal(json: &Value, said: &serde_json::Error) -> String {
        let fields = json.as_object().cloned().and_then(|mut fields| {
            let kind = fields.remove("kind")?;
            Some((kind.as_str()?.to_owned(), Value::Object(fields)))
        });
        let wrong = fields.and_then(|(kind, fields)| match kind.as_str() {
            "task" => wrong_field::<TaskRecord>(&fields),
            "transfer" => wrong_field::<TransferRecord>(&fields),
            "startup" => wrong_field::<StartupRecord>(&fields),
            "decision" => wrong_field::<DecisionRecord>(&fields),
            _ => None,
        });
        wrong.unwrap_or_else(|| said.to_string())
    }

    /// Checks what types alone do not hold: memory and attempt at least 1, a decision of legal length.
    ///
    /// # Errors
    /// A sentence that names the field and the value.
    pub fn check(&self) -> Result<(), String> {
        if let Some(ResourceConfig { memory_mb, vcpu }) = self.config() {
            ResourceConfig::new(memory_mb, vcpu).map_err(|e| e.to_string())?;
        }
        match self {
            Self::Task(r) if r.attempt == 0 => Err("attempt `0` must be at least 1".to_owned()),
            Self::Decision(DecisionRecord { value: Decision::Branch(text), .. })
                if text.len() > DECISION_LEN_MAX =>
            {
                let len = text.len();
                Err(format!("value: its text has `{len}` bytes, at most {DECISION_LEN_MAX} are allowed"))
            }
            _ => Ok(()),
        }
    }

    /// The size of the worker that measured, where what was measured depends on it.
    #[must_use]
    pub fn config(&self) -> Option<ResourceConfig> {
        let (memory_mb, vcpu) = match self {
            Self::Task(r) => (r.memory_mb, r.vcpu),
            Self::Transfer(r) => (r.memory_mb, r.vcpu),
            Self::Startup(r) => (r.memory_mb, r.vcpu),
            Self::Decision(_) => return None,
        };
        Some(ResourceConfig { memory_mb, vcpu })
    }

    /// When it was measured, where the worker said so.
    #[must_use]
    pub fn at(&self) -> Option<Timestamp> {
        match self {
            Self::Task(r) => r.at,
            Self::Transfer(r) => r.at,
            Self::Startup(r) => r.at,
            Self::Decision(r) => r.at,
        }
    }

    /// The same, to be set.
    pub fn at_mut(&mut self) -> &mut Option<Timestamp> {
        match self {
            Self::Task(r) => &mut r.at,
            Self::Transfer(r) => &mut r.at,
            Self::Startup(r) => &mut r.at,
            Self::Decision(r) => &mut r.at,
        }
    }
}

/// Answer to a batch: what was stored, what was set aside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BatchAnswer {
    /// Records stored.
    pub accepted: u64,
    /// True when this batch id was stored before; nothing changed.
    pub duplicate: bool,
    /// Records set aside.
    pub rejected: Vec<Rejected>,
    /// Epoch of the model that contains the batch.
    pub epoch: u64,
}

/// A record that was set aside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rejected {
    /// Its place in the batch, from 0.
    pub index: u64,
    /// Why, as a code.
    pub code: ErrorCode,
    /// Why, in words.
    pub detail: String,
}

/// A record kept in the quarantine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Quarantined {
    /// The batch it came in.
    pub batch_id: BatchId,
    /// When it came.
    pub at: Timestamp,
    /// Where it stood and why it was set aside.
    #[serde(flatten)]
    pub rejected: Rejected,
    /// The record as it came.
    pub record: serde_json::Value,
}

/// The field that is wrong, and why; nothing where it is the form as a whole.
fn wrong_field<T: DeserializeOwned>(fields: &Value) -> Option<String> {
    let error = serde_path_to_error::deserialize::<_, T>(fields).err()?;
    error.path().iter().next()?;
    let (field, why) = (error.path(), error.inner().to_string());
    // Our own sentences begin with the value, those of serde with what was expected.
    Some(if why.starts_with('`') { format!("{field} {why}") } else { format!("{field}: {why}") })
}

fn first() -> u32 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_refused_says_which_field_is_wrong() {
        let forecast = r#""exec_ms":1,"forecast":{"median_ms":1,"p90_ms":-2,"p95_ms":1,"p99_ms":1}"#;
        for (fields, expect) in [
            (r#""exec_ms":-5"#, "exec_ms `-5` must be finite and at least 0"),
            (r#""exec_ms":1,"vcpu":0"#, "vcpu `0` must be finite and greater than 0"),
            (r#""exec_ms":1,"peak_memory_mb":-1"#, "peak_memory_mb `-1` must be finite and at least 0"),
            (forecast, "forecast.p90_ms `-2` must be finite and at least 0"),
            (r#""exec_ms":"soon""#, "exec_ms: invalid type: string \"soon\", expected f64"),
            (r#""attempt":1"#, "missing field `exec_ms`"),
        ] {
            let text = format!(r#"{{"kind":"task","task":"a","memory_mb":1,{fields}}}"#);
            let said = serde_json::from_str::<Record>(&text).expect_err("wrong on purpose");
            let json = serde_json::from_str(&text).expect("it is JSON");
            assert_eq!(Record::refusal(&json, &said), expect);
        }
        for text in ["17", "{}", r#"{"kind":"unheard"}"#, r#"{"kind":5}"#] {
            let said = serde_json::from_str::<Record>(text).expect_err("wrong on purpose");
            let json = serde_json::from_str(text).expect("it is JSON");
            assert_eq!(Record::refusal(&json, &said), said.to_string());
        }
    }
}
