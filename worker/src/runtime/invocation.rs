//! The driver of one invocation: carries out what the choreography machine asks for and tells it what came of
//! it.
//!
//! The machine decides everything; here are only the hands: requests to metad and host, the blocking threads
//! that run tasks, the timer. At most one request, `lanes` tasks that compute and `lanes` that store their
//! outputs are under way at a time, so the queue of events is bounded by the machine itself.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use foresail_choreography::{Action, CommitHints, Event, Executed, Invoke, Worker};
use foresail_schemas::ResourceConfig;
use foresail_schemas::id::InstanceId;
use foresail_schemas::invocation::{Invocation, Purpose};
use foresail_schemas::metric::Forecast;
use foresail_schemas::plan::Plan;
use foresail_schemas::run::{
    Commit, CurrentPlan, FailureKind, Operation, OperationAnswer, OperationRequest, OperationResult,
    RunStatus, WorkerUsage,
};
use foresail_schemas::workflow::Workflow;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};

use super::attempt::{Attempt, tell_of_strays};
use super::carrier::KnownRun;
use super::carry::{Clock, PAUSE_MAX};
use super::decided::Decided;
use super::engine::{Engine, Stored};
use super::invoke::{INVOKE_PAUSE_FIRST, invoke_in_turn};
use super::lanes::Lanes;
use super::listen::listen;
use super::telling::{Telling, failed};
use crate::coordination::Coordination;
use crate::custom::Customs;
use crate::data::Data;
use crate::executor::{Executors, GiveUp};
use crate::host::Host;
use crate::metrics::Recorder;
use crate::note::Notes;
use crate::registry::{Cancel, Registry, TaskError};

mod noting;

use noting::forecast;

/// Events that wait for the machine.
const EVENTS_MAX: usize = 1024;
/// Requests to the host under way at a time: the children of a wide fan-out go out in turn, and the number of
/// open connections stays far below what a process may have.
const INVOCATIONS_AT_ONCE: usize = 16;
/// Tasks whose inputs wait to be fetched beforehand.
const PRELOADS_MAX: usize = 1024;
/// How long the end of an invocation waits while no invocation or deletion under way comes to its end.
const CHORES_LIMIT: Duration = Duration::from_secs(15);

/// The hands of one invocation.
pub(super) struct Driver {
    pub instance: InstanceId,
    pub invocation: Invocation,
    pub clock: Clock,
    pub workflow: Arc<Workflow>,
    /// The run with the plan that the invocation begins with.
    pub known: Arc<KnownRun>,
    /// Token of metad.
    pub token: Option<String>,
    /// Number of the last event of the run when the invocation began.
    pub last_event: u64,
    pub state: Arc<dyn Coordination>,
    pub host: Arc<dyn Host>,
    pub executors: Executors,
    pub registry: Arc<Registry>,
    /// Where attempts run.
    pub lanes: Lanes,
    /// Functions that go on although their attempt has ended.
    pub strays: Arc<AtomicUsize>,
    pub notes: Arc<Notes>,
    pub data: Data,
}

/// What is under way.
struct UnderWay {
    events: mpsc::Sender<Event>,
    /// Answers that need no waiting.
    ready: VecDeque<Event>,
    running: HashMap<u32, Running>,
    engine: Engine,
    /// What was made and is not stored, until that is decided.
    held: HashMap<u32, Executed>,
    /// What requests that are not answered yet decide.
    decided: HashMap<u64, Decided>,
    /// The queue of what is fetched beforehand, once there is something.
    preloads: Option<mpsc::Sender<PreLoad>>,
    /// The last listener asked for.
    listener: Option<AbortHandle>,
    /// Requests, tasks, the listener: of no interest any more when the invocation is over.
    work: JoinSet<()>,
    /// Invocations and deletions: finished before the invocation ends.
    chores: JoinSet<()>,
    /// Places for requests to the host.
    invocations: Arc<Semaphore>,
    /// Told when metad refuses for good what the invocation asks: it cannot go on then.
    refused: Arc<Notify>,
    wake: Option<Instant>,
    newer_plan: Option<(u64, Plan)>,
    /// What it said last that it used.
    told: Option<WorkerUsage>,
}

/// A task that has not begun, and parents of it that have a result.
type PreLoad = (u32, Vec<(u32, Commit)>);

/// A task that runs.
struct Running {
    cancel: Cancel,
    /// What the plan that it began under said of its time here.
    forecast: Option<Forecast>,
    /// Whether its lane is free while its outputs are stored.
    stored: Stored,
}

impl Driver {
    /// Runs the machine to its end; gives what the invocation used and the plan, where it was replaced
    /// meanwhile.
    pub(super) async fn drive(
        self,
        mut machine: Worker,
        recorder: &mut Recorder,
    ) -> (WorkerUsage, Option<(u64, Plan)>) {
        let (events, mut happened) = mpsc::channel(EVENTS_MAX);
        let mut under_way = UnderWay {
            events,
            ready: VecDeque::new(),
            running: HashMap::new(),
            engine: Engine::new(self.lanes.count()),
            held: HashMap::new(),
            decided: HashMap::new(),
            preloads: None,
            listener: None,
            work: JoinSet::new(),
            chores: JoinSet::new(),
            invocations: Arc::new(Semaphore::new(INVOCATIONS_AT_ONCE)),
            refused: Arc::new(Notify::new()),
            wake: None,
            newer_plan: None,
            told: None,
        };
        let mut actions = Vec::new();
        machine.start(self.clock.now_ms(), &mut actions);
        while self.perform(&mut actions, &mut under_way) {
            let Some(event) = next_event(&mut under_way, &mut happened).await else { break };
            self.note_event(&event, &mut under_way, recorder);
            machine.handle(event, self.clock.now_ms(), &mut actions);
        }
        // What the run was told is what the host is told.
        let usage = under_way.told.unwrap_or_else(|| self.usage());
        self.end(&mut under_way, recorder).await;
        (usage, under_way.newer_plan)
    }

    /// Carries out the actions; false when the invocation is over.
    fn perform(&self, actions: &mut Vec<Action>, under_way: &mut UnderWay) -> bool {
        let mut goes_on = true;
        for action in actions.drain(..) {
            match action {
                Action::Operate { request, operations } => self.operate(request, operations, under_way),
                Action::Execute { task, attempt, parents, hold_bytes_min } => {
                    self.execute((task, attempt), parents, hold_bytes_min, under_way);
                }
                Action::Store { task, attempt } => self.store_held(task, attempt, under_way),
                Action::Abort { task } => self.abort(task, under_way),
                Action::Discard { task, attempt } => self.discard(task, attempt, under_way),
                Action::Invoke(invoke) => self.invoke(invoke, under_way),
                Action::PreLoad { task, parents } => self.preload(task, parents, under_way),
                Action::PreWarm { config } => self.prewarm(config, under_way),
                Action::Listen { commits } => self.listen(commits, under_way),
                Action::ReadPlan => self.read_plan(under_way),
                Action::ReadUsage => {
                    let usage = self.usage();
                    under_way.told = Some(usage);
                    under_way.ready.push_back(Event::UsageRead { usage });
                }
                Action::WakeAt { at_ms } => under_way.wake = self.clock.instant(at_ms),
                Action::Finished => goes_on = false,
            }
        }
        goes_on
    }

    fn usage(&self) -> WorkerUsage {
        self.clock.usage(self.data.usage())
    }

    fn operate(&self, request: u64, operations: Arc<[Operation]>, under_way: &mut UnderWay) {
        let (state, run, events) =
            (Arc::clone(&self.state), self.invocation.run.clone(), under_way.events.clone());
        let refused = Arc::clone(&under_way.refused);
        let decided = Decided::of(&self.workflow, &operations);
        if !decided.is_empty() {
            under_way.decided.insert(request, decided);
        }
        under_way.engine.asked(request, self.clock.now_ms());
        under_way.work.spawn(async move {
            let body = OperationRequest { operations: operations.to_vec() };
            let event = match state.operate(&run, &body).await {
                Ok(answer) => Event::Answered { request, answer },
                Err(error) if error.is_missing() => {
                    tracing::warn!(%error, "the run is gone");
                    Event::Answered { request, answer: run_over(body.operations.len()) }
                }
                Err(error) if !error.is_retryable() => {
                    tracing::error!(%error, "metad refuses what the invocation asks: it ends here");
                    refused.notify_one();
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "operations are sent again");
                    Event::Unanswered { request }
                }
            };
            let _ = events.send(event).await;
        });
    }

    fn execute(
        &self,
        (task, attempt): (u32, u32),
        parents: Vec<Option<Commit>>,
        hold_bytes_min: Option<u64>,
        under_way: &mut UnderWay,
    ) {
        let cancel = Cancel::default();
        let plan = under_way.newer_plan.as_ref().map_or(&self.known.plan.plan, |(_, plan)| plan);
        let forecast = forecast(plan, task, self.invocation.config);
        let customs = Customs::of(&self.registry, &self.invocation.run, &self.workflow, plan, task);
        under_way.engine.begun(self.clock.now_ms());
        let stored = Stored::InTheLane;
        under_way.running.insert(task, Running { cancel: cancel.clone(), forecast, stored });
        let attempt_of = Attempt {
            workflow: Arc::clone(&self.workflow),
            data: self.data.clone(),
            executors: self.executors.clone(),
            notes: Arc::clone(&self.notes),
            invocation: self.invocation.clone(),
            instance: self.instance.clone(),
            task,
            attempt,
            cancel,
            customs,
            computed: self.known.plan.options.overlap_uploads.then(|| under_way.events.clone()),
            hold_bytes_min,
        };
        let (id, events) = (self.workflow.task(task).id.clone(), under_way.events.clone());
        let telling = Telling::new(id.clone(), task, attempt, events);
        let (strays, runtime) = (Arc::clone(&self.strays), Handle::current());
        let begun = self.lanes.run(move |lane| {
            let (own, given_up) = (lane.clone(), telling.clone());
            let give_up = GiveUp(Arc::new(move |error| {
                given_up.tell(Err(error));
                own.give_back();
                runtime.spawn(tell_of_strays(Arc::clone(&strays), given_up.events.clone()));
            }));
            let outcome = catch_unwind(AssertUnwindSafe(|| attempt_of.run(&parents, lane, give_up)));
            telling.tell(outcome.unwrap_or_else(|_| {
                Err(TaskError::of(FailureKind::TaskCrash, "the executor crashed; see the log of the worker"))
            }));
        });
        if let Err(error) = begun {
            let detail = format!("no thread for the task: {error}; the worker is out of memory or threads");
            let error = TaskError::of(FailureKind::OutOfMemory, detail);
            under_way.ready.push_back(failed(id, task, attempt, error));
        }
    }

    /// Stores what an attempt of this invocation held back.
    fn store_held(&self, task: u32, attempt: u32, under_way: &mut UnderWay) {
        let Some(Executed { outputs, mut measured, decision, printed }) = under_way.held.get(&task).cloned()
        else {
            return;
        };
        let (data, events) = (self.data.clone(), under_way.events.clone());
        let id = self.workflow.task(task).id.clone();
        under_way.work.spawn(async move {
            let began = Instant::now();
            let stored = tokio::task::spawn_blocking(move || data.store_held(&outputs)).await;
            let stored = stored.unwrap_or_else(|crash| {
                Err(TaskError::of(FailureKind::OutputNotStored, format!("storing crashed: {crash}")))
            });
            let event = match stored {
                Ok(outputs) => {
                    measured.upload_ms = began.elapsed().as_secs_f64() * 1000.0;
                    Event::Executed {
                        task,
                        attempt,
                        outcome: Ok(Executed { outputs, measured, decision, printed }),
                    }
                }
                Err(error) => failed(id, task, attempt, error),
            };
            let _ = events.send(event).await;
        });
    }

    /// Queues what is to be fetched beforehand. What finds no room in the queue is fetched when its task
    /// begins.
    fn preload(&self, task: u32, parents: Vec<(u32, Commit)>, under_way: &mut UnderWay) {
        let queue = match &under_way.preloads {
            Some(queue) => queue,
            None => {
                let (queue, asked) = mpsc::channel(PRELOADS_MAX);
                let (data, workflow) = (self.data.clone(), Arc::clone(&self.workflow));
                under_way.work.spawn(preload_in_turn(data, workflow, asked));
                under_way.preloads.insert(queue)
            }
        };
        if queue.try_send((task, parents)).is_err() {
            tracing::debug!(task, "nothing more is fetched beforehand for the moment");
        }
    }

    fn listen(&self, commits: CommitHints, under_way: &mut UnderWay) {
        let (state, run, events) =
            (Arc::clone(&self.state), self.invocation.run.clone(), under_way.events.clone());
        let listener = under_way.work.spawn(listen(state, run, self.last_event, commits, events));
        if let Some(before) = under_way.listener.replace(listener) {
            before.abort();
        }
    }

    fn discard(&self, task: u32, attempt: u32, under_way: &mut UnderWay) {
        under_way.held.remove(&task);
        let (data, workflow) = (self.data.clone(), Arc::clone(&self.workflow));
        under_way.chores.spawn_blocking(move || data.discard(&workflow, task, attempt));
    }

    fn invoke(&self, invoke: Invoke, under_way: &mut UnderWay) {
        self.ask_host(invoke, Purpose::Work, under_way);
    }

    fn prewarm(&self, config: ResourceConfig, under_way: &mut UnderWay) {
        self.ask_host(Invoke { worker: None, config, tasks: Vec::new() }, Purpose::PreWarm, under_way);
    }

    fn ask_host(&self, invoke: Invoke, purpose: Purpose, under_way: &mut UnderWay) {
        let Invoke { worker, config, tasks } = invoke;
        let (run, metad) = (self.invocation.run.clone(), self.invocation.metad.clone());
        let invocation = Invocation { purpose, ..Invocation::new(run, worker, config, tasks, metad) };
        let (host, places) = (Arc::clone(&self.host), Arc::clone(&under_way.invocations));
        // A plan that was replaced would be read anew.
        let known = under_way.newer_plan.is_none().then(|| Arc::clone(&self.known));
        let token = self.token.clone();
        let documents = move |bytes_max| known.and_then(|run| run.documents(token.as_deref(), bytes_max));
        under_way.chores.spawn(invoke_in_turn(places, host, invocation, documents));
    }

    fn read_plan(&self, under_way: &mut UnderWay) {
        let (state, run, events) =
            (Arc::clone(&self.state), self.invocation.run.clone(), under_way.events.clone());
        under_way.work.spawn(async move {
            let mut pause = INVOKE_PAUSE_FIRST;
            // Ends with the invocation at the latest, whose life is limited.
            loop {
                match state.plan(&run).await {
                    Ok(CurrentPlan { epoch, plan, .. }) => {
                        let _ = events.send(Event::PlanRead { epoch, plan: Box::new(plan) }).await;
                        return;
                    }
                    Err(error) => tracing::warn!(%error, "the new plan is asked for again"),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        });
    }

    /// Stops what is of no interest any more and waits, within a limit, for what others count on.
    async fn end(&self, under_way: &mut UnderWay, recorder: &mut Recorder) {
        under_way.running.drain().for_each(|(_, running)| running.cancel.set());
        self.data.end_preloads();
        under_way.work.abort_all();
        // The limit holds for the time without progress: a wide fan-out takes long, and every part counts.
        loop {
            match tokio::time::timeout(CHORES_LIMIT, under_way.chores.join_next()).await {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => {
                    tracing::warn!("invocations of other workers are left to the watchdog of the run");
                    under_way.chores.abort_all();
                    break;
                }
            }
        }
        self.record_transfers(recorder);
        let config = self.invocation.config;
        under_way.engine.records(config).into_iter().for_each(|record| recorder.record(record));
    }
}

/// What a store that does not know the run any more means: nothing can be changed, nothing is left to do.
fn run_over(operations: usize) -> OperationAnswer {
    let results = vec![OperationResult::RunOver; operations];
    OperationAnswer { status: RunStatus::Cancelled, plan_epoch: 0, results }
}

/// What happens next; nothing when metad refuses for good what the invocation asks.
async fn next_event(under_way: &mut UnderWay, happened: &mut mpsc::Receiver<Event>) -> Option<Event> {
    if let Some(event) = under_way.ready.pop_front() {
        return Some(event);
    }
    while under_way.work.try_join_next().is_some() {}
    let wake = async {
        match under_way.wake {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = under_way.refused.notified() => None,
        event = happened.recv() => Some(event.unwrap_or(Event::Tick)),
        () = wake => {
            under_way.wake = None;
            Some(Event::Tick)
        }
    }
}

/// Fetches beforehand, one object at a time, until the invocation ends.
async fn preload_in_turn(data: Data, workflow: Arc<Workflow>, mut asked: mpsc::Receiver<PreLoad>) {
    while let Some((task, parents)) = asked.recv().await {
        let (data, workflow) = (data.clone(), Arc::clone(&workflow));
        // One that panics brings nothing, which the task does itself then.
        let _ = tokio::task::spawn_blocking(move || data.preload(&workflow, task, &parents)).await;
    }
}

#[cfg(test)]
mod tests;
