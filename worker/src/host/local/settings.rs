//! Settings of the local host. Times in ms, sizes in bytes, memory in MB.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::platform::{Platform, Pool};

use crate::coordination::CoordinationSettings;
use crate::data::s3::{self, S3Settings};
use crate::data::shared::SharedMemory;
use crate::host::objects::{Learning, Sweeping};
use crate::runtime::settings::StoreSettings;

/// Most invocations that wait, by default.
pub const QUEUE_MAX: u32 = 10_000;
/// How long an idle worker stays, by default.
pub const KEEP_ALIVE_MS: f64 = 60_000.0;
/// Longest life of one invocation, by default: that of AWS Lambda.
pub const LIFE_MS_MAX: f64 = 900_000.0;
/// Largest output inside a commit record, by default.
pub const INLINE_BYTES_MAX: u64 = 8192;
/// Most bytes of objects that a worker keeps in memory, by default.
pub const CACHE_BYTES_MAX: u64 = 256 << 20;
/// Most bytes of objects of a remote store that the workers share, by default.
pub const SHARED_BYTES_MAX: u64 = 1 << 30;
/// Runs that have ended whose objects are kept, by default.
pub const OBJECT_RUNS_KEPT_MAX: usize = 50;
/// Time between two looks for objects that nobody needs any more, by default.
pub const SWEEP_MS: f64 = 5_000.0;
/// Time between two looks of the host at a run, by default: several looks of a client, and a lease.
pub const GUARD_MS: f64 = 15_000.0;
/// How long a worker may take to end when it is told to, by default.
pub const STOP_MS_MAX: f64 = 2_000.0;

/// The program that a worker process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
}

/// Whether a worker gets the CPU share of its size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CpuShare {
    /// As much CPU time as its size says, where the system allows to hold it to that.
    #[default]
    Enforced,
    /// As much as it takes.
    Free,
}

/// Where workers put objects too large for a commit record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ObjectPlace {
    /// Files below the data directory.
    #[default]
    Files,
    /// Blobs of metad.
    Metad,
    /// Objects of a bucket.
    S3(S3Settings),
}

impl FromStr for ObjectPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "files" => Ok(Self::Files),
            "metad" => Ok(Self::Metad),
            bucket if bucket.starts_with("s3:") && s3::is_built_in() => bucket.parse().map(Self::S3),
            bucket if bucket.starts_with("s3:") => Err(format!("store `{bucket}`: {}", s3::NOT_BUILT_IN)),
            other => Err(format!("store `{other}`; hint: use `files`, `metad` or `s3://BUCKET/PREFIX`")),
        }
    }
}

impl ObjectPlace {
    /// The same, as workers are told; `files` is the directory where that is the place.
    #[must_use]
    pub fn store(&self, files: PathBuf) -> StoreSettings {
        match self {
            Self::Files => StoreSettings::Files(files),
            Self::Metad => StoreSettings::Metad,
            Self::S3(settings) => StoreSettings::S3(settings.clone()),
        }
    }
}

impl std::fmt::Display for ObjectPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Files => f.write_str("files"),
            Self::Metad => f.write_str("metad"),
            Self::S3(settings) => settings.fmt(f),
        }
    }
}

/// Settings of the local host.
#[derive(Debug, Clone)]
pub struct LocalSettings {
    /// Address to listen on; port 0 chooses a free one.
    pub listen: SocketAddr,
    /// Address of metad.
    pub metad: String,
    /// Token for metad, where it wants one; the host then wants the same of who invokes over HTTP.
    pub token: Option<String>,
    /// Directory for objects, measurements that wait, and the scratch files of workers.
    pub data: PathBuf,
    /// What a worker process runs; this very program where absent.
    pub worker: Option<WorkerCommand>,
    /// The Python interpreter of the workers; what they find themselves where absent, see
    /// [`PYTHON_VARIABLE`](crate::executor::python::PYTHON_VARIABLE).
    pub python: Option<PathBuf>,
    /// Where large objects lie.
    pub objects: ObjectPlace,
    /// Where the state of runs is kept; metad must be told the same.
    pub coordination: CoordinationSettings,
    /// Sizes offered; any where empty.
    pub menu: Vec<ResourceConfig>,
    /// Workers beside the menu for what it cannot hold: no limit of their life, places of their own.
    pub pool: Option<Pool>,
    /// Most workers that carry out an invocation at the same time, those of the pool left out.
    pub concurrency_max: u32,
    /// Most worker processes, idle ones included; past it the one idle longest is ended.
    pub processes_max: u32,
    /// Most invocations that wait for a place.
    pub queue_max: u32,
    /// How long an idle worker stays.
    pub keep_alive_ms: f64,
    /// A delay added to every cold start. It simulates the part that a remote platform has and a process does
    /// not (image, sandbox); 0 is the truth of this machine.
    pub cold_start_ms: f64,
    /// Longest life of one invocation; its worker is killed then.
    pub life_ms_max: f64,
    /// Tasks that a worker runs at the same time.
    pub lanes: u32,
    /// Largest output that rides inside the commit record.
    pub inline_bytes_max: u64,
    /// Most bytes of objects that a worker keeps in memory.
    pub cache_bytes_max: u64,
    /// Most bytes of objects of a remote store that the workers share; 0 shares none. Those of
    /// [`ObjectPlace::Files`] are shared where they lie, in pages that the kernel takes back when it needs
    /// them.
    pub shared_bytes_max: u64,
    /// Runs that have ended whose objects are kept; those of older runs are deleted, results too.
    pub object_runs_kept_max: usize,
    /// Time between two looks for objects that nobody needs any more.
    pub sweep_ms: f64,
    /// Time between two looks for tasks of a run that are stuck and that no client starts again.
    pub guard_ms: f64,
    /// Whether a worker gets the CPU share of its size.
    pub cpu_share: CpuShare,
    /// How long a worker may take to end when it is told to; then it is killed.
    pub stop_ms_max: f64,
}

impl LocalSettings {
    /// The defaults: a free port, any size, as many workers at a time as there are cores.
    #[must_use]
    pub fn new(metad: impl Into<String>, data: impl Into<PathBuf>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            metad: metad.into(),
            token: None,
            data: data.into(),
            worker: None,
            python: None,
            objects: ObjectPlace::default(),
            coordination: CoordinationSettings::default(),
            menu: Vec::new(),
            pool: None,
            concurrency_max: cores,
            processes_max: processes_for(cores),
            queue_max: QUEUE_MAX,
            keep_alive_ms: KEEP_ALIVE_MS,
            cold_start_ms: 0.0,
            life_ms_max: LIFE_MS_MAX,
            lanes: 1,
            inline_bytes_max: INLINE_BYTES_MAX,
            cache_bytes_max: CACHE_BYTES_MAX,
            shared_bytes_max: SHARED_BYTES_MAX,
            object_runs_kept_max: OBJECT_RUNS_KEPT_MAX,
            sweep_ms: SWEEP_MS,
            guard_ms: GUARD_MS,
            cpu_share: CpuShare::default(),
            stop_ms_max: STOP_MS_MAX,
        }
    }

    /// The same with the menu and the limits of a platform table, so that plans for it hold here.
    #[must_use]
    pub fn for_platform(self, platform: &Platform) -> Self {
        Self {
            menu: platform.menu.clone(),
            pool: platform.pool,
            concurrency_max: platform.concurrency_max,
            processes_max: processes_for(platform.concurrency_max),
            keep_alive_ms: platform.keep_alive_ms,
            life_ms_max: platform.life_ms_max,
            lanes: platform.lanes,
            inline_bytes_max: platform.inline_bytes_max,
            ..self
        }
    }

    /// Where the objects of [`ObjectPlace::Files`] lie.
    #[must_use]
    pub fn objects_dir(&self) -> PathBuf {
        self.data.join("objects")
    }

    /// Longest life of an invocation of this size.
    pub(super) fn life_ms(&self, config: &ResourceConfig) -> f64 {
        if self.is_pool(config) { Pool::LIFE_MS_MAX } else { self.life_ms_max }
    }

    pub(super) fn is_pool(&self, config: &ResourceConfig) -> bool {
        self.pool.is_some_and(|pool| pool.config().key() == config.key())
    }

    pub(super) fn spool_dir(&self) -> PathBuf {
        self.data.join("spool")
    }

    pub(super) fn scratch_dir(&self) -> PathBuf {
        self.data.join("scratch")
    }

    pub(super) fn shared_dir(&self) -> PathBuf {
        self.data.join("shared")
    }

    /// What the workers share beside what lies in files anyway.
    pub(super) fn shared(&self) -> Option<SharedMemory> {
        let is_remote = self.objects != ObjectPlace::Files && self.shared_bytes_max > 0;
        is_remote.then(|| SharedMemory { dir: self.shared_dir(), bytes_max: self.shared_bytes_max })
    }

    pub(super) fn sweeping(&self) -> Sweeping {
        Sweeping {
            place: self.objects.clone(),
            objects: self.objects_dir(),
            shared: self.shared(),
            runs_kept_max: self.object_runs_kept_max,
            sweep_ms: self.sweep_ms,
            learning: Learning::Told,
        }
    }

    pub(super) fn store(&self) -> StoreSettings {
        self.objects.store(self.objects_dir())
    }
}

/// Room for idle workers of several sizes beside the busy ones.
fn processes_for(concurrency_max: u32) -> u32 {
    concurrency_max.saturating_mul(4).max(16)
}
