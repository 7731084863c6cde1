//! One invocation from its message to its end: what it needs from metad, its measurements, its run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use foresail_choreography::{Worker, WorkerSettings};
use foresail_schemas::id::{InstanceId, RunId};
use foresail_schemas::invocation::{Documents, Invocation, Purpose};
use foresail_schemas::metric::{Record, StartState, StartupRecord};
use foresail_schemas::run::{CurrentPlan, Operation, OperationRequest, RunStatus, WorkerUsage};
use foresail_schemas::workflow::{Task, Work, Workflow};
use jiff::Timestamp;

use super::carrier::{Carrier, KnownRun};
use super::engine;
use super::invocation::Driver;
use super::lanes::Lanes;
use super::settings::ProcessSettings;
use crate::api::ApiError;
use crate::coordination::Coordination;
use crate::data::{Data, Durable};
use crate::documents;
use crate::metrics::Recorder;

/// How long an invocation tries to learn what it is to do.
const BEGIN_LIMIT: Duration = Duration::from_secs(20);
/// First pause after a failed try; it doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(25);
/// Longest pause after a failed try.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How much work waits for a lane: what it takes to tell the machine of the end of a task and to be told the
/// next is a small part of it.
const BACKLOG_MS: f64 = 2.0;

/// Smaller outputs are stored at once: that takes as long as to keep them.
const KEPT_BYTES_MIN: u64 = 64 << 10;
/// Outputs that are not stored take at most one part in so many of the memory of a worker.
const HELD_MEMORY_PART: u64 = 8;

/// An invocation that begins, as its worker is told of it.
#[derive(Debug, Clone)]
pub struct Started {
    /// Its id.
    pub instance: InstanceId,
    /// What is asked.
    pub invocation: Invocation,
    /// Whether the worker was started for it.
    pub start: StartState,
    /// When it was asked for; the time since then is part of its start, and billed.
    pub invoked_at: Timestamp,
    /// What the worker took to become ready, where it was started for this and knows.
    pub init_ms: Option<f64>,
    /// How long the platform let the invocation wait before that, in ms; part of its start, and not billed.
    pub queued_ms: f64,
}

/// Carries out an invocation and says what it used.
pub(super) async fn carry_out(process: &mut Carrier, started: Started, life_ms_max: f64) -> WorkerUsage {
    let clock = Clock::start(&started);
    let instance = started.instance.clone();
    match carry_out_checked(process, started, clock, life_ms_max).await {
        Ok(usage) => usage,
        Err(error) => {
            tracing::error!(%instance, "the invocation could not begin: {error}");
            clock.usage(WorkerUsage::default())
        }
    }
}

async fn carry_out_checked(
    process: &mut Carrier,
    started: Started,
    clock: Clock,
    life_ms_max: f64,
) -> Result<WorkerUsage, ApiError> {
    let Started { instance, mut invocation, start, init_ms, queued_ms, .. } = started;
    let documents = invocation.documents.take();
    let metad = process.metad(&invocation.metad)?;
    let state = process.state(&metad)?;
    let Some((known, last_event)) = begin(process, &*state, &invocation, documents).await? else {
        tracing::debug!(%instance, run = %invocation.run, "the run is over already");
        return Ok(clock.usage(WorkerUsage::default()));
    };
    let store = process.store(&invocation.run, &metad)?;
    let settings = &process.settings;
    let workflow = known.workflow.name().clone();
    let mut recorder = Recorder::new(&settings.spool_dir, workflow, invocation.run.clone(), instance.clone());
    if !known.plan.options.replan.is_off() {
        recorder = recorder.sending_early(metad.clone());
    }
    prepare(process, &known, &invocation).await;
    recorder.record(Record::Startup(StartupRecord {
        state: start,
        // What it waited, and what it takes to learn what is to be done, is part of the start, as a plan
        // counts it.
        time_ms: queued_ms + clock.billed_ms(),
        memory_mb: invocation.config.memory_mb,
        vcpu: invocation.config.vcpu,
        at: Some(Timestamp::now()),
    }));
    init_ms
        .and_then(|ms| engine::init_record(invocation.config, ms))
        .into_iter()
        .for_each(|r| recorder.record(r));
    if invocation.purpose == Purpose::PreWarm {
        let usage = clock.usage(WorkerUsage::default());
        tell_of_prewarm(&*state, &instance, &invocation, start, usage).await;
        recorder.send(&metad).await;
        return Ok(usage);
    }
    let machine = Worker::new(
        WorkerSettings {
            instance: instance.clone(),
            worker: invocation.worker.clone(),
            config: invocation.config,
            start,
            options: known.plan.options,
            lanes: settings.lanes,
            backlog_ms: BACKLOG_MS,
            keep_bytes_min: (!known.plan.options.keep_intermediate).then_some(KEPT_BYTES_MIN),
            life_ends_ms: life_ms_max - clock.startup_ms,
        },
        Arc::clone(known.workflow.graph()),
        Arc::clone(&known.view),
        &invocation.tasks,
    );
    let (cache, inline_bytes_max) = (Arc::clone(&process.cache), settings.inline_bytes_max);
    let durable = if known.plan.options.keep_intermediate { Durable::All } else { Durable::Results };
    let data = Data::new(invocation.run.clone(), instance.clone(), store, cache, inline_bytes_max);
    let mut data = data.durable(durable).holding(held_bytes_max(settings, &known, &invocation));
    if let Some(shared) = &settings.shared {
        data = data.sharing(shared.clone(), settings.scratch_dir.clone());
    }
    let driver = Driver {
        instance,
        invocation,
        clock,
        workflow: Arc::clone(&known.workflow),
        known: Arc::clone(&known),
        token: settings.token.clone(),
        last_event,
        state,
        host: Arc::clone(&process.host),
        executors: process.executors.clone(),
        registry: Arc::clone(&process.registry),
        strays: Arc::clone(&process.strays),
        lanes: Lanes::new(settings.lanes, process.threads.clone()),
        notes: Arc::clone(&process.notes),
        data,
    };
    let (usage, newer_plan) = driver.drive(machine, &mut recorder).await;
    if let Some((epoch, plan)) = newer_plan {
        let (run, workflow) = (known.run.clone(), Arc::clone(&known.workflow));
        let plan = CurrentPlan { epoch, plan, options: known.plan.options };
        process.keep(Arc::new(KnownRun::new(run, workflow, plan)));
    }
    recorder.send(&metad).await;
    Ok(usage)
}

/// Most bytes of outputs that are in memory and nowhere else.
fn held_bytes_max(settings: &ProcessSettings, known: &KnownRun, invocation: &Invocation) -> u64 {
    let memory_bytes = u64::from(invocation.config.memory_mb) << 20;
    match known.plan.options.attempts_max {
        // What was lost with its process could not be made again.
        0 | 1 => 0,
        _ => settings.cache_bytes_max.min(memory_bytes / HELD_MEMORY_PART),
    }
}

/// Makes ready what the tasks of the invocation need to be run. It is part of the start of the worker: a plan
/// counts it there.
async fn prepare(process: &Carrier, known: &Arc<KnownRun>, invocation: &Invocation) {
    let workflow = &known.workflow;
    if workflow.spec().code.is_empty() {
        return;
    }
    let all = 0..workflow.tasks().len() as u32;
    let is_planned = |task: &u32| {
        let worker = known.plan.plan.tasks.get(*task as usize).and_then(|task| task.worker.as_ref());
        worker.is_some() && worker == invocation.worker.as_ref()
    };
    let mut tasks: Vec<u32> = match invocation.purpose {
        Purpose::PreWarm => all.collect(),
        Purpose::Work => all.filter(is_planned).chain(invocation.tasks.iter().copied()).collect(),
    };
    tasks.retain(|task| {
        matches!(workflow.tasks().get(*task as usize), Some(Task { run: Work::Python { .. }, .. }))
    });
    if tasks.is_empty() {
        return;
    }
    let (executors, workflow, lanes) =
        (process.executors.clone(), Arc::clone(workflow), process.settings.lanes);
    // A panic there is none here: whatever is missing is told when its task runs.
    let _ = tokio::task::spawn_blocking(move || executors.prepare(&workflow, &tasks, lanes)).await;
}

/// Counts an invocation that was only there to be warm among those of the run. It took part in nothing, so
/// where this is not heard nothing is lost but the count.
async fn tell_of_prewarm(
    state: &dyn Coordination,
    instance: &InstanceId,
    invocation: &Invocation,
    start: StartState,
    usage: WorkerUsage,
) {
    let (instance, config) = (instance.clone(), invocation.config);
    let join = Operation::Join { worker: None, instance: instance.clone(), config, start };
    let leave = Operation::Leave { instance, tasks: Vec::new(), usage };
    let request = OperationRequest { operations: vec![join, leave] };
    if let Err(error) = state.operate(&invocation.run, &request).await {
        tracing::debug!(%error, "a worker that was started beforehand is not counted");
    }
}

/// Workflow and plan of the run and the number of its last event; nothing when the run is over.
///
/// Events are followed from here on, and the machine asks for what is ready only later: so none falls
/// between.
async fn begin(
    process: &mut Carrier,
    state: &dyn Coordination,
    invocation: &Invocation,
    documents: Option<Box<Documents>>,
) -> Result<Option<(Arc<KnownRun>, u64)>, ApiError> {
    let run = &invocation.run;
    let ends = Instant::now() + BEGIN_LIMIT;
    let summary = patiently(ends, || state.summary(run)).await?;
    if summary.status != RunStatus::Running {
        return Ok(None);
    }
    if let Some(known) = process.known(run).filter(|known| known.plan.epoch == summary.plan_epoch) {
        return Ok(Some((known, summary.last_event)));
    }
    let (workflow, plan) = match process.known(run) {
        Some(known) => (Some(Arc::clone(&known.workflow)), None),
        None => brought(process, run, documents).await.unzip(),
    };
    let workflow = match workflow {
        Some(workflow) => workflow,
        None => Arc::new(patiently(ends, || state.workflow(run)).await?),
    };
    let plan = match plan.filter(|plan| plan.epoch == summary.plan_epoch) {
        Some(plan) => plan,
        None => patiently(ends, || state.plan(run)).await?,
    };
    let known = Arc::new(KnownRun::new(run.clone(), workflow, plan));
    process.keep(Arc::clone(&known));
    Ok(Some((known, summary.last_event)))
}

/// Workflow and plan that came with the invocation.
async fn brought(
    process: &Carrier,
    run: &RunId,
    documents: Option<Box<Documents>>,
) -> Option<(Arc<Workflow>, CurrentPlan)> {
    let (documents, run, token) = (documents?, run.clone(), process.settings.token.clone());
    let unpack = move || documents::unpack(&run, &documents, token.as_deref());
    match tokio::task::spawn_blocking(unpack).await {
        Ok(Ok((workflow, plan))) => Some((Arc::new(workflow), plan)),
        Ok(Err(error)) => {
            tracing::warn!("the documents of the invocation are not used: {error}");
            None
        }
        Err(_) => None,
    }
}

/// Asks again while it can help and time is left.
async fn patiently<T, F>(ends: Instant, mut ask: impl FnMut() -> F) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>>,
{
    let mut pause = PAUSE_FIRST;
    loop {
        match ask().await {
            Err(error) if error.is_retryable() && Instant::now() + pause < ends => {
                tracing::debug!(%error, "asking again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            other => return other,
        }
    }
}

/// The time of an invocation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    started: Instant,
    /// From the invocation to the first instruction.
    pub startup_ms: f64,
    /// The part of it that the worker needed to be there at all.
    init_ms: f64,
}

impl Clock {
    fn start(started: &Started) -> Self {
        let startup_ms = Timestamp::now().duration_since(started.invoked_at).as_secs_f64() * 1000.0;
        // The wall clock of a machine may be set back; a start never takes less than nothing.
        let startup_ms = startup_ms.max(0.0);
        let init_ms = match started.start {
            StartState::Cold => started.init_ms.map_or(startup_ms, |ms| ms.min(startup_ms)),
            StartState::Warm => 0.0,
        };
        Self { started: Instant::now(), startup_ms, init_ms }
    }

    /// Time since the first instruction, in ms: the clock of the machine.
    pub(super) fn now_ms(&self) -> f64 {
        self.started.elapsed().as_secs_f64() * 1000.0
    }

    /// The moment at which [`Clock::now_ms`] is `at_ms`.
    pub(super) fn instant(&self, at_ms: f64) -> Option<Instant> {
        self.started.checked_add(Duration::try_from_secs_f64(at_ms.max(0.0) / 1000.0).ok()?)
    }

    /// Time since the invocation, its start included, in ms.
    pub(super) fn billed_ms(&self) -> f64 {
        self.startup_ms + self.now_ms()
    }

    /// What the invocation used by now, beside what it moved. Whole ms are billed, as Lambda bills them.
    pub(super) fn usage(&self, moved: WorkerUsage) -> WorkerUsage {
        WorkerUsage { billed_ms: self.billed_ms().ceil(), init_ms: self.init_ms, ..moved }
    }
}
