//! A world in virtual time: a store, a platform that starts workers, a network that loses things.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt::Write;
use std::sync::Arc;

use foresail_choreography::{
    Action, CommitHints, Event, Invoke, Ledger, PlanView, Watchdog, Worker, WorkerSettings,
};
use foresail_schemas::decision::Decision;
use foresail_schemas::id::{InstanceId, WorkerId};
use foresail_schemas::metric::StartState;
use foresail_schemas::run::{Commit, Failure, Operation, OperationAnswer, RunEvent, RunOptions, WorkerUsage};
use foresail_schemas::{Plan, Workflow};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

mod checks;
mod clocks;
mod death;
mod decisions;
mod faults;
mod lost;
mod network;
mod problems;
mod work;

use clocks::{Clock, Clocks};
pub use faults::Faults;
use work::is_unstored;

/// Longest virtual time of a run.
const RUN_MS_MAX: f64 = 4.0 * 3_600_000.0;
/// Most happenings in one run: a machine that spins is a mistake too.
const HAPPENINGS_MAX: u64 = 1_000_000;
/// How often something may go wrong in one run: attempts are limited, so faults must be.
const FAULTS_PER_RUN_MAX: u32 = 40;

/// Who an event is for.
#[derive(Debug, Clone, PartialEq)]
enum Happening {
    Machine { machine: u64, event: Box<Event> },
    Tick { machine: u64, timer: u64 },
    Request { machine: u64, request: u64, operations: Arc<[Operation]>, answer_lost: bool },
    Start { invoke: Invoke },
    Die { machine: u64 },
}

fn tell(machine: u64, event: Event) -> Happening {
    Happening::Machine { machine, event: Box::new(event) }
}

enum Machine {
    Worker(Box<Worker>),
    Watchdog(Box<Watchdog>),
}

struct Running {
    machine: Machine,
    worker: Option<WorkerId>,
    listens: Option<CommitHints>,
    timer: u64,
    clock: Clock,
    lanes: usize,
    /// Whether tasks may wait for a lane; which of those that were begun wait is not told here: all of them
    /// run.
    has_backlog: bool,
    memory_mb: u32,
    /// Tasks that run, and those of them that store their outputs.
    begun: BTreeMap<u32, Stage>,
    /// Tasks that have run and whose outputs were held.
    held: BTreeSet<u32>,
}

#[derive(PartialEq)]
enum Stage {
    Computes,
    Stores,
    /// Stores what it held first.
    StoresHeld,
}

/// What the optimisations did in one run.
#[derive(Default, Clone, Copy)]
pub struct Seen {
    pub copies: u64,
    pub copies_won: u64,
    pub preloads: u64,
    pub prewarms: u64,
    pub overlaps: u64,
    pub backlog: u64,
    pub held: u64,
    pub out_of_memory: u64,
    pub never_stored: u64,
    /// Of these, results of planned workers.
    pub kept: u64,
    /// Attempts that were told to stop.
    pub stopped: u64,
    /// Requests and answers that came later than anybody waits for one.
    pub late: u64,
    pub ahead: u64,
    pub skipped: u64,
    /// Attempts that began without a parent, which is skipped; and those of them ahead of a lease.
    pub without: u64,
    pub without_ahead: u64,
}

/// Who made a result, in which attempt.
type Made = (InstanceId, u32);

/// The client's watchdog is machine 0.
const WATCHDOG: u64 = 0;

pub struct World {
    rng: Pcg64,
    clocks: Clocks,
    faults: Faults,
    faults_left: u32,
    now_ms: f64,
    workflow: Workflow,
    plan: Plan,
    epoch: u64,
    options: RunOptions,
    /// Memory that each task needs.
    needs_mb: Vec<u32>,
    /// What each task decides, where it does.
    decisions: Vec<Decision>,
    ledger: Ledger,
    events: Vec<RunEvent>,
    machines: BTreeMap<u64, Running>,
    machines_started: u64,
    agenda: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    happened: u64,
    executed: u64,
    /// By machine and task: who made what the last attempt read, and in which attempt.
    read: BTreeMap<(u64, u32), Vec<Option<Made>>>,
    seen: Seen,
    /// The one death that is asked for, in place of drawn crashes.
    death: Option<death::Death>,
    lost: lost::Lost,
    trace: Vec<String>,
    broken: Option<String>,
}

impl World {
    pub fn new(seed: u64, faults: Faults) -> Self {
        let mut rng = Pcg64::seed_from_u64(seed);
        let workflow = problems::workflow(&mut rng);
        Self::of(rng, faults, workflow)
    }

    /// One task and many that wait for it.
    pub fn wide(children: usize) -> Self {
        Self::of(Pcg64::seed_from_u64(1), Faults::none(), problems::wide(children))
    }

    /// One task that decides how many of many run, and one that reads what these have made.
    pub fn fan_out(width_max: usize, width: u64) -> Self {
        let mut world = Self::of(Pcg64::seed_from_u64(1), Faults::none(), problems::fan_out(width_max));
        world.decisions[0] = Decision::Width(width);
        world
    }

    fn of(mut rng: Pcg64, faults: Faults, workflow: Workflow) -> Self {
        let clocks = Clocks::of(&rng);
        let plan = problems::plan(&mut rng, &workflow);
        let (overlap_uploads, run_ahead) = (rng.random_bool(0.7), rng.random_bool(0.8));
        let (attempts_max, sizes) = (2 * FAULTS_PER_RUN_MAX, problems::menu());
        let options = RunOptions { attempts_max, overlap_uploads, run_ahead, sizes, ..RunOptions::default() };
        let needs_mb = problems::needs_mb(&mut rng, &workflow, faults.large);
        let decisions = workflow.tasks().iter().map(|_| problems::decision(&mut rng)).collect();
        let ledger = Ledger::new(&workflow, options);
        Self {
            rng,
            clocks,
            faults,
            faults_left: FAULTS_PER_RUN_MAX,
            now_ms: 0.0,
            workflow,
            plan,
            epoch: 1,
            options,
            needs_mb,
            decisions,
            ledger,
            events: Vec::new(),
            machines: BTreeMap::new(),
            machines_started: 0,
            agenda: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            happened: 0,
            executed: 0,
            read: BTreeMap::new(),
            seen: Seen::default(),
            death: None,
            lost: lost::Lost::default(),
            trace: Vec::new(),
            broken: None,
        }
    }

    pub fn tasks(&self) -> usize {
        self.workflow.tasks().len()
    }

    /// Attempts under a lease.
    pub fn executions(&self) -> u64 {
        self.executed
    }

    /// Leases beyond the first of each task.
    pub fn retries(&self) -> u64 {
        self.ledger.summary(self.now_ms).retries
    }

    /// From now on the task needs so much.
    pub fn need(&mut self, task: usize, memory_mb: u32) {
        self.needs_mb[task] = memory_mb;
    }

    /// What the run failed of.
    pub fn failure(&self) -> Option<Failure> {
        self.ledger.summary(self.now_ms).failure
    }

    pub fn seen(&self) -> Seen {
        self.seen
    }

    pub fn trace_tail(&self, lines: usize) -> String {
        self.trace[self.trace.len().saturating_sub(lines)..].join("\n")
    }

    /// Plays the run to its end.
    pub fn run(&mut self) -> Result<(), String> {
        let begun = self.ledger.begin(0.0);
        self.store(begun);
        let graph = self.workflow.graph().clone();
        let view = self.view();
        let mut watchdog = Watchdog::new(Arc::clone(&view), self.options);
        let mut out = Vec::new();
        let clock = self.clocks.next();
        watchdog.start(clock.shows(0.0), &mut out);
        let machine = Machine::Watchdog(Box::new(watchdog));
        self.add(WATCHDOG, (machine, clock), (None, 0), (0, false));
        self.act(WATCHDOG, out);
        for invoke in foresail_choreography::first_invocations(&graph, &view) {
            self.act(WATCHDOG, vec![Action::Invoke(invoke)]);
        }
        while let Some(Reverse((at_us, number))) = self.agenda.pop() {
            self.now_ms = at_us as f64 / 1000.0;
            let happening =
                self.happenings.remove(&number).expect("every entry of the agenda has its happening");
            self.happen(happening);
            if let Some(broken) = self.broken.take() {
                return Err(broken);
            }
            if self.now_ms > RUN_MS_MAX || self.happened > HAPPENINGS_MAX {
                return Err(format!(
                    "not ended after {RUN_MS_MAX} ms, {} machines live",
                    self.machines.len()
                ));
            }
        }
        self.check_end()
    }

    fn view(&self) -> Arc<PlanView> {
        Arc::new(PlanView::new(self.epoch, &self.plan))
    }

    fn add(
        &mut self,
        id: u64,
        (machine, clock): (Machine, Clock),
        (worker, memory_mb): (Option<WorkerId>, u32),
        (lanes, has_backlog): (u32, bool),
    ) {
        let (lanes, begun, held) = (lanes as usize, BTreeMap::new(), BTreeSet::new());
        let (listens, timer) = (None, 0);
        let running =
            Running { machine, worker, listens, timer, clock, lanes, has_backlog, memory_mb, begun, held };
        self.machines.insert(id, running);
    }

    fn chance(&mut self, probability: f64) -> bool {
        let hit = probability > 0.0 && self.faults_left > 0 && self.rng.random_bool(probability);
        self.faults_left -= u32::from(hit);
        hit
    }

    fn later(&mut self, delay_ms: f64, happening: Happening) {
        self.happened += 1;
        let at_us = ((self.now_ms + delay_ms.max(0.0)) * 1000.0).ceil() as u64 + 1;
        self.agenda.push(Reverse((at_us, self.happened)));
        self.happenings.insert(self.happened, happening);
    }

    fn note(&mut self, text: &str) {
        let mut line = String::new();
        let _ = write!(line, "{:12.3} {text}", self.now_ms);
        self.trace.push(line);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Start { invoke } => self.start_worker(invoke),
            Happening::Die { machine } => self.die(machine),
            Happening::Request { machine, request, operations, answer_lost } => {
                self.request(machine, request, &operations, answer_lost);
            }
            Happening::Machine { machine, event } => self.deliver(machine, *event),
            Happening::Tick { machine, timer } => {
                if self.machines.get(&machine).is_some_and(|m| m.timer == timer) {
                    self.deliver(machine, Event::Tick);
                }
            }
        }
    }

    fn start_worker(&mut self, invoke: Invoke) {
        self.machines_started += 1;
        let id = self.machines_started;
        let clock = self.clocks.next();
        let now_ms = clock.shows(self.now_ms);
        let settings = WorkerSettings {
            instance: InstanceId::new(format!("i{id}")).expect("a legal name"),
            worker: invoke.worker,
            config: invoke.config,
            start: StartState::Cold,
            options: self.options,
            lanes: 1 + (id % 2) as u32,
            keep_bytes_min: (!id.is_multiple_of(4)).then_some(1),
            // Of the order of what tasks take here.
            backlog_ms: if id.is_multiple_of(3) { 0.0 } else { 12_000.0 },
            life_ends_ms: now_ms + 60_000.0,
        };
        self.note(&format!("start {id} as {:?} with {:?}", settings.worker, invoke.tasks));
        let planned = (settings.worker.clone(), settings.config.memory_mb);
        let lanes = (settings.lanes, settings.backlog_ms > 0.0);
        let graph = self.workflow.graph().clone();
        let mut worker = Worker::new(settings, graph, self.view(), &invoke.tasks);
        let mut out = Vec::new();
        worker.start(now_ms, &mut out);
        self.add(id, (Machine::Worker(Box::new(worker)), clock), planned, lanes);
        self.act(id, out);
    }

    fn request(&mut self, machine: u64, request: u64, operations: &[Operation], answer_lost: bool) {
        let mut results = Vec::new();
        for operation in operations {
            self.hear_of_doomed(machine, operation);
            let before = self.standing(operation);
            let (result, events) = self.ledger.apply(operation, self.now_ms);
            events.iter().for_each(|event| self.note_taken_back(&before, event));
            self.note(&format!("{machine} {operation:?} -> {result:?}"));
            self.store(events);
            results.push(result);
        }
        if self.chance(self.faults.restart) {
            self.restart_store();
        }
        if self.chance(self.faults.replan) {
            self.replan();
        }
        let answer =
            OperationAnswer { status: self.ledger.status(), plan_epoch: self.ledger.plan_epoch(), results };
        if !answer_lost {
            let delay_ms = self.travel_ms(machine, request);
            self.later(delay_ms, tell(machine, Event::Answered { request, answer }));
        }
    }

    fn restart_store(&mut self) {
        self.note("the store restarts");
        self.check_saved();
        let mut ledger = Ledger::new(&self.workflow, self.options);
        self.events.iter().for_each(|event| ledger.replay(event));
        ledger.recovered(self.now_ms);
        self.ledger = ledger;
    }

    /// A state that was saved and read again is the same.
    fn check_saved(&self) {
        let bytes = postcard::to_allocvec(&self.ledger.saved()).expect("a state has a postcard form");
        let saved = postcard::from_bytes(&bytes).expect("it was written like this");
        let read = Ledger::restored(&self.workflow, self.options, saved).expect("it is of this workflow");
        assert_eq!(read.saved(), self.ledger.saved());
    }

    fn replan(&mut self) {
        self.plan = problems::plan(&mut self.rng, &self.workflow);
        if let Ok(events) = self.ledger.replan(self.epoch, None, self.now_ms) {
            self.epoch += 1;
            self.store(events);
        }
    }

    fn deliver(&mut self, id: u64, event: Event) {
        if id != WATCHDOG && self.chance(self.faults.crash) {
            self.note(&format!("{id} crashes"));
            self.machines.remove(&id);
        }
        if id != WATCHDOG && self.chance(self.faults.retire) {
            self.later(0.0, tell(id, Event::Retire));
        }
        let Some(running) = self.machines.get_mut(&id) else { return };
        match event {
            Event::Computed { task, .. } => {
                // What was aborted is not waited for.
                running.begun.entry(task).and_modify(|stage| *stage = Stage::Stores);
            }
            Event::Held { task, .. } => {
                running.begun.remove(&task);
                running.held.insert(task);
            }
            Event::Executed { task, .. } => {
                running.begun.remove(&task);
            }
            _ => {}
        }
        let (mut out, now_ms) = (Vec::new(), running.clock.shows(self.now_ms));
        match &mut running.machine {
            Machine::Worker(worker) => worker.handle(event, now_ms, &mut out),
            Machine::Watchdog(watchdog) => watchdog.handle(event, now_ms, &mut out),
        }
        self.act(id, out);
    }

    fn act(&mut self, id: u64, actions: Vec<Action>) {
        for action in actions {
            if !matches!(action, Action::WakeAt { .. }) {
                self.note(&format!("{id} {action:?}"));
            }
            match action {
                Action::Operate { request, operations } => self.send(id, request, operations),
                Action::Execute { task, attempt, parents, hold_bytes_min } => {
                    self.execute(id, task, attempt, &parents, hold_bytes_min);
                }
                Action::Store { task, attempt } => self.store_held(id, task, attempt),
                Action::Invoke(invoke) => {
                    self.notice(&invoke.tasks, invoke.worker.as_ref());
                    self.invoke(invoke);
                }
                Action::PreLoad { task, parents } => self.preload(id, task, &parents),
                Action::PreWarm { .. } => self.seen.prewarms += 1,
                Action::Listen { commits } => self.change(id, |m| m.listens = Some(commits)),
                Action::ReadPlan => {
                    let event = Event::PlanRead { epoch: self.epoch, plan: Box::new(self.plan.clone()) };
                    self.later(1.0, tell(id, event));
                }
                Action::ReadUsage => {
                    let event =
                        Event::UsageRead { usage: WorkerUsage { billed_ms: 1.0, ..WorkerUsage::default() } };
                    self.later(0.0, tell(id, event));
                }
                Action::WakeAt { at_ms } => {
                    assert!(at_ms.is_finite(), "a timer must end");
                    let Some(running) = self.machines.get_mut(&id) else { continue };
                    running.timer += 1;
                    let (timer, clock) = (running.timer, running.clock);
                    let delay_ms = clock.takes(at_ms - clock.shows(self.now_ms));
                    self.later(delay_ms, Happening::Tick { machine: id, timer });
                }
                Action::Finished => {
                    self.machines.remove(&id);
                }
                Action::Abort { task } => {
                    self.seen.stopped += 1;
                    self.change(id, |m| {
                        m.begun.remove(&task);
                    });
                }
                Action::Discard { task, attempt } => {
                    let name = format!("i{id}");
                    let stands =
                        |c: &Commit| c.attempt == attempt && c.instance.as_str() == name && !is_unstored(c);
                    if self.ledger.commit(task).is_some_and(stands) {
                        self.broken = Some(format!("{id} discards the result of task {task} that stands"));
                    }
                }
            }
        }
    }

    fn change(&mut self, id: u64, change: impl FnOnce(&mut Running)) {
        if let Some(running) = self.machines.get_mut(&id) {
            change(running);
        }
    }
}
