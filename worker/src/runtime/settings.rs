//! What a host tells the worker processes that it starts: one JSON value in an environment variable.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::coordination::CoordinationSettings;
use crate::data::s3::S3Settings;
use crate::data::shared::SharedMemory;

/// Settings of a worker process. Sizes in bytes, times in ms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessSettings {
    /// Address of the host, for invocations of other workers.
    pub host: String,
    /// Where large objects lie.
    pub store: StoreSettings,
    /// Where the state of runs is kept.
    #[serde(default)]
    pub coordination: CoordinationSettings,
    /// What the workers of this machine share of a remote store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<SharedMemory>,
    /// Directory of measurements that were not acknowledged yet.
    pub spool_dir: PathBuf,
    /// Directory of this process alone: attempts of commands, notes for the host.
    pub scratch_dir: PathBuf,
    /// Largest output that rides inside the commit record.
    pub inline_bytes_max: u64,
    /// Most bytes of objects kept in memory.
    pub cache_bytes_max: u64,
    /// Tasks that run at the same time.
    pub lanes: u32,
    /// Longest life of one invocation.
    pub life_ms_max: f64,
    /// File in which the kernel counts processes of this worker that it ended for memory, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_counter: Option<PathBuf>,
    /// Control groups of this worker alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<PathBuf>,
    /// Token for metad, where it wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// Where objects lie that are too large for a commit record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreSettings {
    /// Files below this directory.
    Files(PathBuf),
    /// Blobs of metad.
    Metad,
    /// Objects of a bucket.
    S3(S3Settings),
}
