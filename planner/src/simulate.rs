//! The event simulator: a plan carried out in virtual time by the very state machines that will carry it
//! out in fact.
//!
//! Real are [`Ledger`], [`Worker`] and [`Watchdog`]. Modelled are what surrounds them, as in the timing
//! pass: a host with its queue and warm containers, links, execution times as predicted, and a run's state
//! that is half of `dispatch_ms` away. Nothing fails here; heartbeats, hints and the watchdog's looks
//! happen as they would. What a worker fetches beforehand does not arrive if the worker leaves first.

mod agenda;
mod decisions;
mod held;
mod news;
mod places;
mod requests;
mod surroundings;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foresail_choreography::{Action, Event, Executed, Ledger, PlanView, Watchdog, Worker, first_invocations};
use foresail_schemas::graph::Graph;
use foresail_schemas::plan::{Plan, PlanSummary, Problem};
use foresail_schemas::run::{
    Commit, ConfigUsage, Location, Measured, RunOptions, RunStatus, StoredObject, WorkerUsage,
};

use crate::assignment::Assignment;
use crate::dense::Dense;
use crate::error::SimulationFailure;
use crate::expected::Part;
use crate::host::Host;
use crate::link::{Links, Mixed, Moved};
use agenda::{Agenda, Happening};
use news::{Audience, Listener, audiences};
use places::{Asked, Waiting};
use surroundings::Undisturbed;
pub use surroundings::{Left, Served, Surroundings};

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
    /// What its workers used, by size.
    pub usage: Vec<ConfigUsage>,
    /// Start of the downloads of every task in ms, by index.
    pub start_ms: Vec<f64>,
    /// End of the uploads of every task in ms, by index.
    pub end_ms: Vec<f64>,
    /// Attempts beyond the first of each task.
    pub retries: u64,
    /// Events handled.
    pub steps: u64,
}

/// Carries out `plan` in virtual time; what it does not expect is skipped, and has the times of the plan.
///
/// # Errors
/// [`SimulationFailure`] when problem or plan are not valid, or when the run stands still.
pub fn simulate(
    problem: &Problem,
    plan: &Plan,
    options: &RunOptions,
) -> Result<Simulated, SimulationFailure> {
    simulate_in(problem, plan, options, &mut Undisturbed)
}

/// As [`simulate`], in surroundings that see what is asked of them and may take their time.
///
/// # Errors
/// [`SimulationFailure`] when problem or plan are not valid, or when the run has not ended by the time or
/// after the steps that the surroundings allow.
pub fn simulate_in(
    problem: &Problem,
    plan: &Plan,
    options: &RunOptions,
    surroundings: &mut dyn Surroundings,
) -> Result<Simulated, SimulationFailure> {
    let Some(part) = Part::of_plan(problem, plan) else {
        return carry_out(problem, plan, options, surroundings);
    };
    Ok(part.widen_times(plan, carry_out(&part.problem, &part.narrow(plan), options, surroundings)?))
}

fn carry_out(
    problem: &Problem,
    plan: &Plan,
    options: &RunOptions,
    surroundings: &mut dyn Surroundings,
) -> Result<Simulated, SimulationFailure> {
    let dense = Dense::new(problem)?;
    plan.check(&problem.workflow)?;
    // Sizes that nothing is predicted for are found before the run begins, and what no worker lives to end.
    outlives(&dense, &Assignment::of_plan(&dense, plan)?)?;
    let steps_max = STEPS_MAX + STEPS_PER_TASK_MAX * u64::from(dense.len());
    let (steps_max, end_ms) = (steps_max.min(surroundings.steps_max()), surroundings.end_ms());
    let mut world = World::new(&dense, plan, *options, surroundings);
    world.begin();
    while world.steps < steps_max
        && world.agenda.now_ms <= end_ms
        && let Some(happening) = world.agenda.next()
    {
        world.steps += 1;
        world.happen(happening);
    }
    world.finish()
}

/// Whether a task is on a size on which every attempt would be ended before it has.
fn outlives(dense: &Dense, assignment: &Assignment) -> Result<(), SimulationFailure> {
    for (task, &size) in (0..).zip(&assignment.size) {
        let (needed_ms, life_ms_max) = (dense.life_needed_ms(size, task), dense.life_ms(size));
        if needed_ms > life_ms_max {
            return Err(SimulationFailure::Outlives {
                task: dense.problem.workflow.task(task).id.clone(),
                needed_ms,
                config: dense.size(size).config.to_string(),
                life_ms_max,
            });
        }
    }
    Ok(())
}

enum Machine {
    Watchdog(Box<Watchdog>),
    Worker(Box<Worker>),
}

/// One machine and what it stands on.
struct Node {
    /// Nothing once it has finished.
    machine: Option<Machine>,
    /// When it wants to be woken.
    wake_ms: f64,
    /// The earliest time at which it is looked whether it wants to: a machine puts its wish off with every
    /// event, and an entry of the agenda for each would make most of the agenda.
    look_ms: f64,
    /// Index of the planned worker it is.
    listens_as: Option<u32>,
    size: u32,
    container: u32,
    start_ms: f64,
    links: Links,
    /// Attempts that ran to their end here.
    attempts: u64,
}

struct World<'a> {
    surroundings: &'a mut dyn Surroundings,
    dense: &'a Dense<'a>,
    plan: &'a Plan,
    view: Arc<PlanView>,
    graph: Arc<Graph>,
    options: RunOptions,
    agenda: Agenda,
    steps: u64,
    ledger: Ledger,
    nodes: Vec<Node>,
    /// By index of the planned worker.
    listeners: Vec<Vec<Listener>>,
    audiences: HashMap<u32, Audience, Mixed>,
    host: Host<Waiting>,
    queued: HashMap<Asked, u64>,
    moved: Moved,
    /// What a machine does, for a moment; kept for its memory.
    actions: Vec<Action>,
    start_ms: Vec<f64>,
    end_ms: Vec<f64>,
    /// Start and end of copies, by machine and task.
    copies: HashMap<(usize, u32), (f64, f64), Mixed>,
    /// Attempts whose outputs are held back where they have so many bytes.
    holds: HashMap<(usize, u32), u64, Mixed>,
    /// Attempts whose outputs were held back.
    held: HashSet<(usize, u32), Mixed>,
    /// Attempts that were stopped before their code ended.
    stopped: HashSet<(usize, u32), Mixed>,
    summary: PlanSummary,
    /// By index of the size.
    used: Vec<ConfigUsage>,
}

impl<'a> World<'a> {
    fn new(
        dense: &'a Dense<'a>,
        plan: &'a Plan,
        options: RunOptions,
        surroundings: &'a mut dyn Surroundings,
    ) -> Self {
        let problem = dense.problem;
        let graph = problem.workflow.graph().clone();
        let mut moved = Moved::default();
        moved.reset(dense, &[]);
        let view = Arc::new(PlanView::new(1, plan));
        Self {
            surroundings,
            dense,
            plan,
            listeners: vec![Vec::new(); view.worker_count()],
            audiences: audiences(&graph, &view),
            view,
            graph,
            options,
            agenda: Agenda::default(),
            steps: 0,
            ledger: Ledger::new(&problem.workflow, options),
            nodes: Vec::new(),
            host: dense.host(),
            queued: HashMap::new(),
            moved,
            actions: Vec::new(),
            start_ms: vec![0.0; plan.tasks.len()],
            end_ms: vec![0.0; plan.tasks.len()],
            copies: HashMap::default(),
            holds: HashMap::default(),
            held: HashSet::default(),
            stopped: HashSet::default(),
            summary: PlanSummary::default(),
            used: dense.no_usage(),
        }
    }

    fn tell_later(&mut self, delay_ms: f64, id: usize, event: Event) {
        self.agenda.later(delay_ms, Happening::Hear(id, Box::new(event)));
    }

    /// At once, after what is done now.
    fn tell_next(&mut self, id: usize, event: Event) {
        self.agenda.follow(self.agenda.now_ms, Happening::Hear(id, Box::new(event)));
    }

    fn begin(&mut self) {
        let events = self.ledger.begin(0.0);
        self.tell(&events);
        let mut watchdog = Watchdog::new(Arc::clone(&self.view), self.options);
        let mut out = Vec::new();
        watchdog.start(0.0, &mut out);
        self.add(Machine::Watchdog(Box::new(watchdog)), 0, 0);
        self.act(WATCHDOG, out);
        for invoke in first_invocations(&self.graph, &self.view) {
            self.ask_host(WATCHDOG, invoke);
        }
        for start in self.view.prewarms(None) {
            self.agenda.later(start.delay_ms, Happening::PreWarm(start.config));
        }
    }

    fn add(&mut self, machine: Machine, size: u32, container: u32) -> usize {
        let (start_ms, links) = (self.agenda.now_ms, Links::default());
        let machine = Some(machine);
        let (wake_ms, look_ms, listens_as) = (f64::INFINITY, f64::INFINITY, None);
        self.nodes.push(Node {
            machine,
            wake_ms,
            look_ms,
            listens_as,
            size,
            container,
            start_ms,
            links,
            attempts: 0,
        });
        self.nodes.len() - 1
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Hear(id, event) => self.deliver(id, *event),
            Happening::Request(id, request, operations) => self.request(id, request, operations),
            Happening::Served(served) => self.serve(&served),
            Happening::Begin(id) => self.read_documents(id),
            Happening::Up(id) => self.up(id),
            Happening::Invoke(invoke) => self.invoke(*invoke),
            Happening::Computed(id, task, attempt) => {
                if !self.hold(id, task, attempt)
                    && let Some(executed) = self.store(id, task, attempt)
                {
                    self.deliver(id, executed);
                }
            }
            Happening::Timer(id) => self.timer(id),
            Happening::LifeEnds(id) if self.nodes[id].machine.is_some() => self.gone(id),
            Happening::LifeEnds(_) => {}
            Happening::PreWarm(config) => self.prewarm_of_client(config),
            Happening::Warm { size, container, start_ms } => {
                let billed_ms = self.agenda.now_ms - start_ms;
                self.end(size, container, &WorkerUsage { billed_ms, ..WorkerUsage::default() });
            }
        }
    }

    fn deliver(&mut self, id: usize, event: Event) {
        let (mut out, now_ms) = (std::mem::take(&mut self.actions), self.agenda.now_ms);
        // Children in the same place may begin before the result stands.
        if let Event::Executed { task, outcome: Ok(_), .. } = &event
            && self.owns(id, *task)
            && self.ledger.commit(*task).is_none()
        {
            self.moved.made(self.dense, self.nodes[id].container, *task, now_ms);
        }
        match &mut self.nodes[id].machine {
            None => {}
            Some(Machine::Watchdog(watchdog)) => watchdog.handle(event, now_ms, &mut out),
            Some(Machine::Worker(worker)) => worker.handle(event, now_ms, &mut out),
        }
        self.act(id, out);
    }

    /// Whether the machine is the planned worker of the task.
    fn owns(&self, id: usize, task: u32) -> bool {
        self.view.worker_index(task).is_some_and(|owner| self.nodes[id].listens_as == Some(owner))
    }

    fn act(&mut self, id: usize, mut actions: Vec<Action>) {
        let way_ms = self.dense.dispatch_ms / 2.0;
        for action in actions.drain(..) {
            match action {
                Action::Operate { request, operations } => {
                    self.agenda.later(way_ms, Happening::Request(id, request, operations));
                }
                Action::Execute { task, attempt, hold_bytes_min, .. } => {
                    self.execute(id, task, attempt);
                    self.may_hold(id, task, hold_bytes_min);
                }
                Action::Store { task, attempt } => {
                    if let Some(executed) = self.store(id, task, attempt) {
                        self.tell_next(id, executed);
                    }
                }
                Action::PreLoad { task, parents } => self.preload(id, task, &parents),
                Action::PreWarm { config } => self.prewarm(config),
                Action::Invoke(invoke) => self.ask_host(id, invoke),
                Action::Listen { commits } => self.listen(id, commits),
                Action::ReadPlan => {
                    let event = Event::PlanRead {
                        epoch: self.ledger.plan_epoch(),
                        plan: Box::new(self.plan.clone()),
                    };
                    self.tell_later(2.0 * way_ms, id, event);
                }
                Action::ReadUsage => {
                    let event = Event::UsageRead { usage: self.usage(id) };
                    self.tell_next(id, event);
                }
                Action::WakeAt { at_ms } => {
                    self.nodes[id].wake_ms = at_ms;
                    self.look_at_wake(id);
                }
                Action::Finished if id == WATCHDOG => self.nodes[id].machine = None,
                Action::Finished => self.gone(id),
                Action::Abort { task } => drop(self.stopped.insert((id, task))),
                // What a copy or its original stored in vain was paid for and costs nothing more.
                Action::Discard { .. } => {}
            }
        }
        self.actions = actions;
    }

    fn look_at_wake(&mut self, id: usize) {
        let node = &mut self.nodes[id];
        if node.wake_ms < node.look_ms {
            node.look_ms = node.wake_ms;
            self.agenda.at(node.wake_ms, Happening::Timer(id));
        }
    }

    fn timer(&mut self, id: usize) {
        let node = &mut self.nodes[id];
        if node.machine.is_none() {
            return;
        }
        if node.look_ms <= self.agenda.now_ms {
            node.look_ms = f64::INFINITY;
        }
        if node.wake_ms <= self.agenda.now_ms {
            node.wake_ms = f64::INFINITY;
            self.deliver(id, Event::Tick);
        } else {
            self.look_at_wake(id);
        }
    }

    fn preload(&mut self, id: usize, task: u32, parents: &[(u32, Commit)]) {
        let node = &mut self.nodes[id];
        let is_made = |producer: u32| parents.iter().any(|(parent, _)| *parent == producer);
        let place = (node.size, node.container);
        self.moved.preload(self.dense, &mut node.links, place, task, is_made, self.agenda.now_ms);
    }

    /// Downloads, then the user's code; what is stored comes after.
    fn execute(&mut self, id: usize, task: u32, attempt: u32) {
        let now_ms = self.agenda.now_ms;
        if attempt == 0 && !self.owns(id, task) {
            self.copies.insert((id, task), (now_ms, now_ms));
        } else if self.ledger.commit(task).is_none() {
            self.start_ms[task as usize] = now_ms;
        }
        self.stopped.remove(&(id, task));
        let node = &mut self.nodes[id];
        let (size, container, gets) = (node.size, node.container, node.links.gets);
        let inputs_ms = self.moved.download(self.dense, &mut node.links, size, container, task, now_ms);
        let fetched_ms = self.surroundings.fetched(node.links.gets - gets, now_ms) - now_ms;
        let computed_ms = inputs_ms + fetched_ms + self.dense.exec_ms(size, task);
        self.agenda.at(computed_ms, Happening::Computed(id, task, attempt));
        self.may_outlive(id, task, computed_ms);
    }

    /// What is done for a task until `until_ms` is cut off where the platform ends the invocation before.
    fn may_outlive(&mut self, id: usize, task: u32, until_ms: f64) {
        let node = &self.nodes[id];
        let life_ends_ms = node.start_ms + self.dense.life_ms(node.size);
        if until_ms > life_ends_ms && !self.dense.moves_guessed(task) {
            self.agenda.at(life_ends_ms, Happening::LifeEnds(id));
        }
    }

    /// Uploads; what the worker is told then, where that is now.
    fn store(&mut self, id: usize, task: u32, attempt: u32) -> Option<Event> {
        let (node, now_ms) = (&mut self.nodes[id], self.agenda.now_ms);
        if node.machine.is_none() || self.stopped.remove(&(id, task)) {
            return None;
        }
        let (size, puts) = (node.size, node.links.puts);
        node.attempts += 1;
        let done_ms = self.moved.upload(self.dense, &mut node.links, size, task, now_ms);
        let waits_ms = self.surroundings.stored(node.links.puts - puts, now_ms) - now_ms;
        let done_ms = done_ms + waits_ms;
        match self.copies.get_mut(&(id, task)) {
            Some((_, end_ms)) => *end_ms = done_ms,
            // What was held had ended for its readers here when its code had.
            None if self.ledger.commit(task).is_some() || self.held.contains(&(id, task)) => {}
            None => self.end_ms[task as usize] = done_ms,
        }
        let outcome = Ok(self.executed(size, task, Location::Stored(String::new())));
        let executed = Event::Executed { task, attempt, outcome };
        if done_ms <= now_ms {
            return Some(executed);
        }
        self.agenda.follow(done_ms, Happening::Hear(id, Box::new(executed)));
        self.may_outlive(id, task, done_ms);
        if self.options.overlap_uploads && self.dense.upload_ms(size, task) > 0.0 {
            self.deliver(id, Event::Computed { task, attempt });
        }
        None
    }

    fn executed(&self, size: u32, task: u32, location: Location) -> Executed {
        let object = |&o: &u32| {
            let (bytes, location) = (self.dense.object_bytes(o), location.clone());
            StoredObject { bytes, hash: String::new(), location }
        };
        let outputs = self.graph.writes(task).iter().map(object).collect();
        let measured = Measured { exec_ms: self.dense.exec_ms(size, task), ..Measured::default() };
        Executed { outputs, measured, decision: decisions::largest(&self.graph, task), printed: None }
    }

    fn finish(mut self) -> Result<Simulated, SimulationFailure> {
        let ledger = self.ledger.summary(self.agenda.now_ms);
        let lives = self.nodes.iter().any(|n| n.machine.is_some());
        if self.ledger.status() != RunStatus::Completed || lives {
            return Err(SimulationFailure::Stuck {
                at_ms: self.agenda.now_ms,
                committed: ledger.committed,
                tasks: self.plan.tasks.len() as u64,
                steps: self.steps,
            });
        }
        self.summary.download_bytes = self.moved.download_bytes;
        self.summary.upload_bytes = self.moved.upload_bytes;
        let Self { summary, used: mut usage, start_ms, end_ms, steps, .. } = self;
        usage.retain(|of_size| of_size.invocations > 0);
        Ok(Simulated { summary, usage, start_ms, end_ms, retries: ledger.retries, steps })
    }
}
