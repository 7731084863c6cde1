//! Invocations: how a worker is asked for, and what host and worker process tell each other.
//!
//! `POST {host}/v1/invocations` takes an [`Invocation`] and answers 202 with an [`Invoked`] at once; the
//! worker runs later, when the host has a place for it.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::ResourceConfig;
use crate::id::{InstanceId, RunId, WorkerId};
use crate::metric::StartState;
use crate::run::WorkerUsage;

/// Asks a host for a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Invocation {
    /// The run.
    pub run: RunId,
    /// The planned worker; absent for a flexible one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerId>,
    /// The size.
    pub config: ResourceConfig,
    /// The tasks to begin with, by index.
    pub tasks: Vec<u32>,
    /// Address of metad, for instance `http://127.0.0.1:7070`.
    pub metad: String,
    /// What the worker shall do.
    #[serde(default, skip_serializing_if = "Purpose::is_work")]
    pub purpose: Purpose,
    /// When it was asked for, by the clock of who asked, where the platform lets invocations wait and does
    /// not say for how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<Timestamp>,
    /// Workflow and plan, where the platform has room for them: the worker need not read them then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<Box<Documents>>,
}

/// Workflow and plan of a run on their way with an invocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Documents {
    /// Both as JSON, compressed with Zstandard (RFC 8878), in base64 (RFC 4648).
    pub packed: String,
    /// Keyed BLAKE3 hash of run and `packed`, hexadecimal; the key follows from the token of metad. Who does
    /// not know the token cannot have a worker run what is no run of that metad.
    pub mac: String,
}

/// What an invocation is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// To run tasks.
    #[default]
    Work,
    /// To be there: the worker ends its invocation at once and stays warm.
    PreWarm,
}

impl Purpose {
    fn is_work(&self) -> bool {
        *self == Self::Work
    }
}

impl Invocation {
    /// Most tasks that an invocation names. A planned worker with more finds the others when it joins.
    pub const TASKS_MAX: usize = 1024;
    /// Most bytes of an invocation as JSON without documents: its tasks, two names and an address.
    pub const BYTES_MAX: u64 = 32 << 10;

    /// An invocation that runs tasks; that of a planned worker names no more than [`Self::TASKS_MAX`] of
    /// them.
    #[must_use]
    pub fn new(
        run: RunId,
        worker: Option<WorkerId>,
        config: ResourceConfig,
        mut tasks: Vec<u32>,
        metad: String,
    ) -> Self {
        if worker.is_some() {
            tasks.truncate(Self::TASKS_MAX);
        }
        let (purpose, asked_at, documents) = (Purpose::Work, None, None);
        Self { run, worker, config, tasks, metad, purpose, asked_at, documents }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_invocation_of_a_planned_worker_fits_into_its_limit() {
        let long = "n".repeat(crate::id::NAME_LEN_MAX);
        let (run, worker) = (RunId::new(&long), WorkerId::new(&long));
        let config = ResourceConfig::new(1 << 20, Some(64.123_456_789)).expect("a size");
        let tasks = (0..100_000).map(|t| u32::MAX - t).collect();
        let metad = format!("http://{}", "h".repeat(2_000));
        let mut invocation = Invocation::new(run.expect("a name"), worker.ok(), config, tasks, metad);
        invocation.asked_at = Some(Timestamp::MAX);
        let bytes = serde_json::to_vec(&invocation).expect("it is JSON").len() as u64;
        assert!(bytes <= Invocation::BYTES_MAX, "{bytes}");
        assert_eq!(invocation.tasks.len(), Invocation::TASKS_MAX);
    }
}

/// Answer to an invocation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Invoked {
    /// Id of the invocation.
    pub instance: InstanceId,
}

/// What a host tells a worker process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HostMessage {
    /// Carry out an invocation.
    Start {
        /// Its id.
        instance: InstanceId,
        /// The invocation.
        invocation: Invocation,
        /// Whether the process was started for it.
        start: StartState,
        /// When the invocation was given to this process (for a cold start: when the process was created).
        invoked_at: Timestamp,
    },
    /// End the process once the invocation it carries out is done.
    Stop,
}

/// What a worker process tells its host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum WorkerMessage {
    /// The process is ready for its first invocation.
    Hello {
        /// Its process id.
        pid: u32,
    },
    /// The invocation is done.
    Done {
        /// Its id.
        instance: InstanceId,
        /// What it used.
        usage: WorkerUsage,
    },
}

/// What a host is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HostStatus {
    /// Workers that carry out an invocation.
    pub busy: u64,
    /// Workers that are warm and idle.
    pub idle: u64,
    /// Invocations that wait for a place.
    pub queued: u64,
    /// Most workers at the same time.
    pub concurrency_max: u64,
    /// Cold starts since the host began.
    pub cold_starts: u64,
    /// Warm starts since the host began.
    pub warm_starts: u64,
    /// The warm and idle workers by size, as far as the host knows them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warm: Vec<WarmWorkers>,
}

/// Workers of one size that are warm and idle.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WarmWorkers {
    /// Their size.
    pub config: ResourceConfig,
    /// How many.
    pub count: u32,
}
