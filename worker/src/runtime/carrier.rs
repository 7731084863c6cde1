//! What a worker keeps between invocations: executors, objects in memory, workflows and plans, connections.
//!
//! One invocation at a time: whoever gives it the next one waits for the end of the last.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use foresail_choreography::PlanView;
use foresail_schemas::id::RunId;
use foresail_schemas::invocation::Documents;
use foresail_schemas::run::{CurrentPlan, WorkerUsage};
use foresail_schemas::workflow::Workflow;
use tokio::runtime::Handle;

use super::carry::{self, Started};
use super::settings::{ProcessSettings, StoreSettings};
use super::{STRAY_GRACE, lanes};
use crate::api::ApiError;
use crate::coordination::Coordination;
use crate::data::cache::ObjectCache;
use crate::data::s3;
use crate::data::store::{BlobStore, FileStore, ObjectStore, StoreError};
use crate::documents;
use crate::executor::Executors;
use crate::executor::command::CommandExecutor;
use crate::executor::function::FunctionExecutor;
use crate::executor::python::{PythonExecutor, PythonSettings};
use crate::host::Host;
use crate::metad::Metad;
use crate::note::Notes;
use crate::registry::Registry;

/// Runs whose workflow and plan a warm worker keeps.
const RUNS_KEPT_MAX: usize = 4;

/// Carries out invocations, one after another.
pub(super) struct Carrier {
    pub settings: ProcessSettings,
    pub executors: Executors,
    pub notes: Arc<Notes>,
    pub registry: Arc<Registry>,
    pub strays: Arc<AtomicUsize>,
    pub threads: lanes::Threads,
    pub cache: Arc<Mutex<ObjectCache>>,
    runs: VecDeque<Arc<KnownRun>>,
    metad: Option<Metad>,
    /// Where the state of the runs of that metad is kept.
    state: Option<Arc<dyn Coordination>>,
    /// The bucket, whose connections stay open between invocations.
    bucket: Option<Arc<dyn ObjectStore>>,
    /// Where other workers are asked for.
    pub host: Arc<dyn Host>,
}

/// Workflow and plan of a run.
#[derive(Debug)]
pub(super) struct KnownRun {
    pub run: RunId,
    pub workflow: Arc<Workflow>,
    pub plan: CurrentPlan,
    /// The plan as the machines of all its invocations see it.
    pub view: Arc<PlanView>,
    /// Both, once they were packed for an invocation of another worker.
    packed: OnceLock<Option<Documents>>,
}

impl KnownRun {
    pub fn new(run: RunId, workflow: Arc<Workflow>, plan: CurrentPlan) -> Self {
        let view = Arc::new(PlanView::new(plan.epoch, &plan.plan));
        Self { run, workflow, plan, view, packed: OnceLock::new() }
    }

    /// Workflow and plan for an invocation of another worker of this platform, whose payload has room for so
    /// many bytes of them. Takes milliseconds for a large workflow.
    pub fn documents(&self, token: Option<&str>, bytes_max: usize) -> Option<Documents> {
        let pack = || documents::pack(&self.run, &self.workflow, &self.plan, token, bytes_max);
        self.packed.get_or_init(pack).clone()
    }
}

impl Carrier {
    pub fn new(registry: &Registry, settings: ProcessSettings, host: Arc<dyn Host>) -> Self {
        let functions = FunctionExecutor::new(registry.clone());
        let strays = functions.strays();
        let scratch = Some(settings.scratch_dir.clone());
        let commands = CommandExecutor { scratch, oom_counter: settings.oom_counter.clone() };
        let oom_counter = settings.oom_counter.clone();
        let python = PythonExecutor::new(PythonSettings { oom_counter, ..PythonSettings::default() });
        Self {
            cache: Arc::new(Mutex::new(ObjectCache::new(settings.cache_bytes_max))),
            notes: Arc::new(Notes::in_dir(&settings.scratch_dir)),
            settings,
            executors: Executors::new(vec![Arc::new(functions), Arc::new(commands), Arc::new(python)]),
            registry: Arc::new(registry.clone()),
            strays,
            threads: lanes::Threads::default(),
            runs: VecDeque::new(),
            metad: None,
            state: None,
            bucket: None,
            host,
        }
    }

    /// Carries out an invocation that lives so long from its start, and says what it used.
    pub async fn carry_out(&mut self, started: Started, life_ms_max: f64) -> WorkerUsage {
        carry::carry_out(self, started, life_ms_max).await
    }

    /// Longest life of an invocation by the settings.
    pub fn life_ms_max(&self) -> f64 {
        self.settings.life_ms_max
    }

    /// Where notes of running attempts lie.
    pub fn scratch_dir(&self) -> &Path {
        &self.settings.scratch_dir
    }

    /// Where measurements that were not acknowledged lie.
    pub fn spool_dir(&self) -> &Path {
        &self.settings.spool_dir
    }

    /// Whether a function goes on that was given up.
    pub async fn has_strays(&self) -> bool {
        if self.strays.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(STRAY_GRACE).await;
        }
        self.strays.load(Ordering::SeqCst) > 0
    }

    /// The client of the metad at `base`; its connections stay open between invocations.
    pub fn metad(&mut self, base: &str) -> Result<Metad, ApiError> {
        if let Some(metad) = self.metad.as_ref().filter(|m| m.base() == base.trim_end_matches('/')) {
            return Ok(metad.clone());
        }
        let metad = Metad::new(base, self.settings.token.as_deref())?;
        self.metad = Some(metad.clone());
        self.state = None;
        Ok(metad)
    }

    /// The state of the runs of `metad`, which is the last one that was asked for.
    pub fn state(&mut self, metad: &Metad) -> Result<Arc<dyn Coordination>, ApiError> {
        Ok(match &self.state {
            Some(state) => Arc::clone(state),
            None => Arc::clone(self.state.insert(self.settings.coordination.open(metad)?)),
        })
    }

    /// Where the large objects of `run` lie.
    pub fn store(&mut self, run: &RunId, metad: &Metad) -> Result<Arc<dyn ObjectStore>, ApiError> {
        Ok(match (&self.settings.store, &self.bucket) {
            (StoreSettings::Files(root), _) => Arc::new(FileStore::new(root)),
            (StoreSettings::Metad, _) => {
                Arc::new(BlobStore::new(metad.clone(), run.clone(), Handle::current()))
            }
            (StoreSettings::S3(_), Some(bucket)) => Arc::clone(bucket),
            (StoreSettings::S3(settings), None) => {
                let unusable =
                    |e: StoreError| ApiError::Settings { base: settings.to_string(), cause: e.to_string() };
                Arc::clone(self.bucket.insert(s3::open(settings).map_err(unusable)?))
            }
        })
    }

    pub fn known(&self, run: &RunId) -> Option<Arc<KnownRun>> {
        self.runs.iter().find(|known| known.run == *run).cloned()
    }

    pub fn keep(&mut self, known: Arc<KnownRun>) {
        self.runs.retain(|other| other.run != known.run);
        self.runs.truncate(RUNS_KEPT_MAX - 1);
        self.runs.push_front(known);
    }
}
