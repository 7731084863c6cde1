//! The event simulator: a plan carried out in virtual time by the very state machines that will carry it
//! out in fact.
//!
//! Real are [`Ledger`], [`Worker`] and [`Watchdog`]. Modelled are what surrounds them, as in the timing
//! pass: a host with its queue and warm containers, links, execution times as predicted, and a run's state
//! that is half of `dispatch_ms` away. Nothing fails here; heartbeats, hints and the watchdog's looks
//! happen as they would.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use foresail_choreography::{
    Action, Event, Executed, Invoke, Ledger, Watchdog, Worker, WorkerSettings, first_invocations,
};
use foresail_schemas::graph::Graph;
use foresail_schemas::id::{InstanceId, WorkerId};
use foresail_schemas::metric::StartState;
use foresail_schemas::plan::{Plan, PlanSummary, Problem};
use foresail_schemas::run::{
    Change, Location, Measured, Operation, OperationAnswer, RunEvent, RunOptions, RunStatus, StoredObject,
    WorkerUsage,
};

use crate::assignment::Assignment;
use crate::dense::Dense;
use crate::error::SimulationFailure;
use crate::host::Host;
use crate::link::{Links, Moved};

/// Events handled before a run counts as stuck: this many, and [`STEPS_PER_TASK_MAX`] per task.
const STEPS_MAX: u64 = 1_000_000;
/// See [`STEPS_MAX`]; a task of 15 minutes needs about a thousand for its heartbeats.
const STEPS_PER_TASK_MAX: u64 = 10_000;
/// The client's watchdog is the first machine.
const WATCHDOG: usize = 0;

/// A plan as it was carried out.
#[derive(Debug, Clone, PartialEq)]
pub struct Simulated {
    /// What it took and cost.
    pub summary: PlanSummary,
    /// Start of the downloads of every task in ms, by index.
    pub start_ms: Vec<f64>,
    /// End of the uploads of every task in ms, by index.
    pub end_ms: Vec<f64>,
    /// Attempts beyond the first of each task.
    pub retries: u64,
    /// Events handled.
    pub steps: u64,
}

/// Carries out `plan` in virtual time.
///
/// # Errors
/// [`SimulationFailure`] when problem or plan are not valid, or when the run stands still.
pub fn simulate(
    problem: &Problem,
    plan: &Plan,
    options: &RunOptions,
) -> Result<Simulated, SimulationFailure> {
    let dense = Dense::new(problem)?;
    plan.check(&problem.workflow)?;
    // Sizes that nothing is predicted for are found before the run begins.
    Assignment::of_plan(&dense, plan)?;
    let mut world = World::new(&dense, plan, *options);
    world.begin();
    let steps_max = STEPS_MAX + STEPS_PER_TASK_MAX * u64::from(dense.len());
    while let Some(Reverse(entry)) = world.agenda.pop() {
        world.steps += 1;
        if world.steps > steps_max {
            break;
        }
        world.now_ms = f64::from_bits(entry.at_bits);
        world.happen(entry.happening);
    }
    world.finish()
}

#[derive(Debug)]
enum Happening {
    /// A machine hears of something.
    Hear(usize, Box<Event>),
    /// A request arrives at the run's state.
    Request(usize, u64, Vec<Operation>),
    /// The worker runs its first instruction.
    Up(usize),
    /// The user's code has ended.
    Computed(usize, u32, u32),
    /// The time that a machine asked for has come, unless it asked for another since.
    Timer(usize, u32),
}

#[derive(Debug)]
struct Entry {
    at_bits: u64,
    seq: u64,
    happening: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at_bits, self.seq) == (other.at_bits, other.seq)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_bits, self.seq).cmp(&(other.at_bits, other.seq))
    }
}

enum Machine {
    Watchdog(Box<Watchdog>),
    Worker(Box<Worker>),
}

/// One machine and what it stands on.
struct Node {
    /// Nothing once it has finished.
    machine: Option<Machine>,
    timer: u32,
    listens_as: Option<WorkerId>,
    size: u32,
    container: u32,
    start_ms: f64,
    links: Links,
}

struct World<'a> {
    dense: &'a Dense<'a>,
    plan: &'a Plan,
    graph: Arc<Graph>,
    options: RunOptions,
    now_ms: f64,
    agenda: BinaryHeap<Reverse<Entry>>,
    entries: u64,
    steps: u64,
    ledger: Ledger,
    nodes: Vec<Node>,
    listeners: HashMap<WorkerId, Vec<usize>>,
    host: Host<Invoke>,
    moved: Moved,
    start_ms: Vec<f64>,
    end_ms: Vec<f64>,
    summary: PlanSummary,
}

impl<'a> World<'a> {
    fn new(dense: &'a Dense<'a>, plan: &'a Plan, options: RunOptions) -> Self {
        let problem = dense.problem;
        let mut moved = Moved::default();
        moved.reset(dense);
        Self {
            dense,
            plan,
            graph: problem.workflow.graph().clone(),
            options,
            now_ms: 0.0,
            agenda: BinaryHeap::new(),
            entries: 0,
            steps: 0,
            ledger: Ledger::new(&problem.workflow, options),
            nodes: Vec::new(),
            listeners: HashMap::new(),
            host: dense.host(),
            moved,
            start_ms: vec![0.0; plan.tasks.len()],
            end_ms: vec![0.0; plan.tasks.len()],
            summary: PlanSummary::default(),
        }
    }

    fn later(&mut self, delay_ms: f64, happening: Happening) {
        self.entries += 1;
        let at_bits = (self.now_ms + delay_ms.max(0.0)).to_bits();
        self.agenda.push(Reverse(Entry { at_bits, seq: self.entries, happening }));
    }

    fn tell_later(&mut self, delay_ms: f64, id: usize, event: Event) {
        self.later(delay_ms, Happening::Hear(id, Box::new(event)));
    }

    fn begin(&mut self) {
        let events = self.ledger.begin(0.0);
        self.tell(&events);
        let mut watchdog = Watchdog::new(self.graph.clone(), 1, self.plan, self.options);
        let mut out = Vec::new();
        watchdog.start(0.0, &mut out);
        self.add(Machine::Watchdog(Box::new(watchdog)), 0, 0);
        self.act(WATCHDOG, out);
        for invoke in first_invocations(&self.graph, self.plan) {
            self.invoke(invoke);
        }
    }

    fn add(&mut self, machine: Machine, size: u32, container: u32) -> usize {
        let (start_ms, links) = (self.now_ms, Links::default());
        let machine = Some(machine);
        self.nodes.push(Node { machine, timer: 0, listens_as: None, size, container, start_ms, links });
        self.nodes.len() - 1
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Hear(id, event) => self.deliver(id, *event),
            Happening::Request(id, request, operations) => self.request(id, request, &operations),
            Happening::Up(id) => {
                let mut out = Vec::new();
                if let Some(Machine::Worker(worker)) = &mut self.nodes[id].machine {
                    worker.start(self.now_ms, &mut out);
                }
                self.act(id, out);
            }
            Happening::Computed(id, task, attempt) => self.store(id, task, attempt),
            Happening::Timer(id, timer) => {
                if self.nodes[id].timer == timer {
                    self.deliver(id, Event::Tick);
                }
            }
        }
    }

    fn deliver(&mut self, id: usize, event: Event) {
        let mut out = Vec::new();
        match &mut self.nodes[id].machine {
            None => return,
            Some(Machine::Watchdog(watchdog)) => watchdog.handle(event, self.now_ms, &mut out),
            Some(Machine::Worker(worker)) => worker.handle(event, self.now_ms, &mut out),
        }
        self.act(id, out);
    }

    fn act(&mut self, id: usize, actions: Vec<Action>) {
        let way_ms = self.dense.dispatch_ms / 2.0;
        for action in actions {
            match action {
                Action::Operate { request, operations } => {
                    self.later(way_ms, Happening::Request(id, request, operations));
                }
                Action::Execute { task, attempt, .. } => self.execute(id, task, attempt),
                Action::Invoke(invoke) => self.invoke(invoke),
                Action::Listen => self.listen(id),
                Action::ReadPlan => {
                    let event = Event::PlanRead {
                        epoch: self.ledger.plan_epoch(),
                        plan: Box::new(self.plan.clone()),
                    };
                    self.tell_later(2.0 * way_ms, id, event);
                }
                Action::ReadUsage => {
                    let event = Event::UsageRead { usage: self.usage(id) };
                    self.tell_later(0.0, id, event);
                }
                Action::WakeAt { at_ms } => {
                    self.nodes[id].timer += 1;
                    let timer = self.nodes[id].timer;
                    self.later(at_ms - self.now_ms, Happening::Timer(id, timer));
                }
                Action::Finished => self.gone(id),
                // Nothing fails here, so no attempt loses and none is stopped.
                Action::Abort { .. } | Action::Discard { .. } => {}
            }
        }
    }

    fn listen(&mut self, id: usize) {
        if let Some(worker) = self.nodes[id].listens_as.clone() {
            self.listeners.entry(worker).or_default().push(id);
        }
    }

    fn invoke(&mut self, invoke: Invoke) {
        if self.host.has_place(self.size_of(&invoke.config)) {
            return self.start(invoke);
        }
        let is_same =
            |w: &Invoke| w.worker == invoke.worker && (w.worker.is_some() || w.tasks == invoke.tasks);
        match self.host.find_waiting(is_same) {
            Some(same) => {
                let news = invoke.tasks.into_iter().filter(|t| !same.tasks.contains(t));
                let news: Vec<u32> = news.collect();
                same.tasks.extend(news);
            }
            None => drop(self.host.wait(invoke)),
        }
    }

    fn size_of(&self, config: &foresail_schemas::ResourceConfig) -> u32 {
        let sizes = self.dense.sizes.iter();
        sizes.take_while(|s| s.config.key() != config.key()).count() as u32
    }

    fn start(&mut self, invoke: Invoke) {
        let Invoke { worker, config, tasks } = invoke;
        let size = self.size_of(&config);
        let place = self.host.start(size, self.now_ms);
        let startup = self.dense.size(size).startup;
        let (start, startup_ms) = match place.is_cold {
            true => (StartState::Cold, startup.cold_ms),
            false => (StartState::Warm, startup.warm_ms),
        };
        self.summary.invocations += 1;
        self.summary.cold_starts += u64::from(place.is_cold);
        let number = self.summary.invocations;
        let settings = WorkerSettings {
            instance: InstanceId::new(format!("i{number}")).expect("a letter and digits are a legal name"),
            worker: worker.clone(),
            config,
            start,
            options: self.options,
            lanes: self.dense.lanes,
            life_ends_ms: self.now_ms + self.dense.life_ms(size),
        };
        let epoch = self.ledger.plan_epoch();
        let machine = Worker::new(settings, self.graph.clone(), epoch, self.plan, &tasks);
        let id = self.add(Machine::Worker(Box::new(machine)), size, place.container);
        self.nodes[id].listens_as = worker;
        self.later(startup_ms, Happening::Up(id));
    }

    fn request(&mut self, id: usize, request: u64, operations: &[Operation]) {
        let mut results = Vec::with_capacity(operations.len());
        for operation in operations {
            let (result, events) = self.ledger.apply(operation, self.now_ms);
            self.tell(&events);
            results.push(result);
        }
        let (status, plan_epoch) = (self.ledger.status(), self.ledger.plan_epoch());
        let answer = OperationAnswer { status, plan_epoch, results };
        let event = Event::Answered { request, answer };
        self.tell_later(self.dense.dispatch_ms / 2.0, id, event);
    }

    /// Passes events on. Only the owner of a ready task is told: the others would ignore it.
    fn tell(&mut self, events: &[RunEvent]) {
        let way_ms = self.dense.dispatch_ms / 2.0;
        for event in events {
            match event.change {
                Change::TaskReady { task } => {
                    let owner = self.plan.tasks[task as usize].worker.as_ref();
                    let listeners = owner.and_then(|w| self.listeners.get(w)).cloned().unwrap_or_default();
                    for id in listeners {
                        self.tell_later(way_ms, id, Event::Hint { ready: vec![task] });
                    }
                }
                Change::RunFinished { status, .. } => {
                    self.summary.makespan_ms = self.now_ms;
                    let mut all: Vec<usize> = self.listeners.values().flatten().copied().collect();
                    all.push(WATCHDOG);
                    all.sort_unstable();
                    for id in all {
                        self.tell_later(way_ms, id, Event::RunEnded { status });
                    }
                }
                _ => {}
            }
        }
    }

    /// Downloads, then the user's code; what is stored comes after.
    fn execute(&mut self, id: usize, task: u32, attempt: u32) {
        let node = &mut self.nodes[id];
        self.start_ms[task as usize] = self.now_ms;
        let (size, container) = (node.size, node.container);
        let inputs_ms = self.moved.download(self.dense, &mut node.links, size, container, task, self.now_ms);
        let computed_ms = inputs_ms + self.dense.exec_ms(size, task);
        self.later(computed_ms - self.now_ms, Happening::Computed(id, task, attempt));
    }

    fn store(&mut self, id: usize, task: u32, attempt: u32) {
        let node = &mut self.nodes[id];
        let (size, container) = (node.size, node.container);
        let done_ms = self.moved.upload(self.dense, &mut node.links, size, container, task, self.now_ms);
        self.end_ms[task as usize] = done_ms;
        let object = |&o: &u32| StoredObject {
            bytes: self.dense.object_bytes(o),
            hash: String::new(),
            location: Location::Stored(String::new()),
        };
        let outputs = self.graph.writes(task).iter().map(object).collect();
        let measured = Measured { exec_ms: self.dense.exec_ms(size, task), ..Measured::default() };
        let outcome = Ok(Executed { outputs, measured });
        self.tell_later(done_ms - self.now_ms, id, Event::Executed { task, attempt, outcome });
    }

    fn usage(&self, id: usize) -> WorkerUsage {
        let node = &self.nodes[id];
        WorkerUsage {
            billed_ms: self.now_ms - node.start_ms,
            puts: node.links.puts,
            gets: node.links.gets,
            download_bytes: node.links.download_bytes,
            upload_bytes: node.links.upload_bytes,
            saved_bytes: node.links.saved_bytes,
        }
    }

    fn gone(&mut self, id: usize) {
        if id == WATCHDOG {
            self.nodes[id].machine = None;
            return;
        }
        let usage = self.usage(id);
        let node = &mut self.nodes[id];
        node.machine = None;
        let (size, container) = (node.size, node.container);
        if let Some(listeners) = node.listens_as.as_ref().and_then(|w| self.listeners.get_mut(w)) {
            listeners.retain(|&listener| listener != id);
        }
        let config = &self.dense.size(size).config;
        self.summary.cost_usd += self.dense.rates.worker_usd(config, usage.billed_ms, usage.puts, usage.gets);
        self.summary.gb_seconds += config.gb() * usage.billed_ms / 1000.0;
        if let Some(waiting) = self.host.end(size, container, self.now_ms) {
            self.start(waiting);
        }
    }

    fn finish(mut self) -> Result<Simulated, SimulationFailure> {
        let ledger = self.ledger.summary(self.now_ms);
        let lives = self.nodes.iter().any(|n| n.machine.is_some());
        if self.ledger.status() != RunStatus::Completed || lives {
            return Err(SimulationFailure::Stuck {
                at_ms: self.now_ms,
                committed: ledger.committed,
                tasks: self.plan.tasks.len() as u64,
                steps: self.steps,
            });
        }
        self.summary.download_bytes = self.moved.download_bytes;
        self.summary.upload_bytes = self.moved.upload_bytes;
        let (start_ms, end_ms) = (self.start_ms, self.end_ms);
        Ok(Simulated { summary: self.summary, start_ms, end_ms, retries: ledger.retries, steps: self.steps })
    }
}
