//! The static timing pass: when every task of an assignment starts and ends, what the whole takes and costs.
//!
//! It is the choreography in short: invocations, leases, commits, hints and leaves happen in the order and
//! with the delays of the state machines, without their messages; a planned worker begins tasks ahead of the
//! run's state (`ahead`). One round trip to the run's state takes
//! `dispatch_ms`; it decides half-way. Contention is counted on lanes, on each worker's down-link and
//! up-link and for places on the host. A lane is free for the next task while outputs are stored; what is
//! done beside running tasks (`beside`) costs a plan without it nothing. What the pass leaves out
//! (heartbeats, the watchdog, faults) the event simulator has; a test holds both together.
//!
//! A [`Timing`] is made once per problem and times any number of assignments: every column is kept and
//! reused, so that a pass allocates nothing once the columns have grown. Cost: O(tasks log workers + edges).

use foresail_schemas::plan::PlanSummary;
use foresail_schemas::run::{ConfigUsage, RunOptions};

use crate::assignment::Assignment;
use crate::dense::{Dense, NONE};
use crate::draw::Draw;
use crate::extras::{PRE_LOAD, TASK_DUP};
use crate::host::Host;
use crate::link::{Links, Moved};
use crate::standing::Standing;

mod agenda;
mod ahead;
mod beside;
mod copies;
mod execute;
mod lists;
mod live;
mod protocol;
mod resume;
mod rows;
mod skip;

use agenda::{Agenda, Kind};
use beside::Beside;
use copies::Copies;
use lists::{List, Lists, Queues};
use live::{HANDS, Hand, Live, Phase};
pub(crate) use rows::Ran;
use rows::{ABSENT, NEW_WORKER, SOURCE, TaskState, WorkerState};

/// An assignment with its times.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timed {
    /// Start of the downloads, per task.
    pub start_ms: Vec<f64>,
    /// End of the uploads, per task.
    pub end_ms: Vec<f64>,
    /// Per task the one that it waited for last: a parent, or what ran before it in the same place.
    pub cause: Vec<u32>,
    /// The invocations, in order of their start.
    pub lives: Vec<Life>,
    /// The sums.
    pub summary: PlanSummary,
    /// What the invocations of the pass used, by size.
    pub usage: Vec<ConfigUsage>,
}

/// One invocation of a worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    /// The planned worker, or [`NONE`].
    pub worker: u32,
    pub size: u32,
    /// The first task that it was started for; [`NONE`] for one that was started beforehand.
    pub first: u32,
    pub is_cold: bool,
    pub container: u32,
    pub start_ms: f64,
    pub end_ms: f64,
    pub cost_usd: f64,
}

/// Room is made for one invocation in so many tasks; where workers run fewer it grows.
const LIVES_SHARE: usize = 32;

/// A request for a worker.
#[derive(Debug, Clone, Copy)]
struct Invoke {
    worker: u32,
    size: u32,
    tasks: List,
}

/// The pass and its columns.
#[derive(Debug)]
pub(crate) struct Timing<'a> {
    dense: &'a Dense<'a>,
    /// Times that are drawn instead of those predicted.
    pub draw: Option<Draw>,
    /// Where the run stands that goes on from there; nothing for one that begins.
    pub standing: Option<&'a Standing>,
    linger_ms: f64,
    /// Whether ends of code are looked at only when something depends on them; see `execute`.
    settles_late: bool,
    agenda: Agenda,
    lists: Lists,
    queues: Queues,
    tasks: Vec<TaskState>,
    /// Of a task that has not run yet: what an earlier pass left, where every task runs once.
    ran: Vec<Ran>,
    /// Per task the worker that it is planned on: most of what is asked about children is whether they are
    /// one's own, and this column stays in the caches where the rows of `tasks` do not.
    planned_on: Vec<u32>,
    /// Per task: parents without a commit. Apart for the same reason.
    missing: Vec<u32>,
    /// Whether there are tasks that do not run in this draw.
    has_absent: bool,
    /// Whether there are tasks that any worker of a size may run.
    has_flexible: bool,
    workers: Vec<WorkerState>,
    live: Vec<Live>,
    lives: Vec<Life>,
    /// What is in the hands of every invocation: [`HANDS`] rows of [`Timing::hand_len`].
    held: Vec<u32>,
    host: Host<Invoke>,
    moved: Moved,
    beside: Beside,
    copies: Copies,
    /// Children without a living worker, by name and number of that worker.
    absent: Vec<(u64, u32)>,
    committed: u32,
    /// Tasks that do not run and of which that is just known.
    skipping: Vec<u32>,
    names: u32,
    summary: PlanSummary,
}

impl<'a> Timing<'a> {
    pub fn new(dense: &'a Dense<'a>) -> Self {
        // What is reserved and not used costs nothing; growing by copies does.
        let tasks = dense.len() as usize;
        Self {
            dense,
            draw: None,
            standing: None,
            linger_ms: RunOptions::default().linger_ms,
            settles_late: false,
            agenda: Agenda::new(dense.dispatch_ms, RunOptions::default().linger_ms),
            lists: Lists::new(),
            queues: Queues::default(),
            tasks: Vec::with_capacity(tasks),
            ran: Vec::with_capacity(tasks),
            planned_on: Vec::with_capacity(tasks),
            missing: Vec::with_capacity(tasks),
            has_absent: false,
            has_flexible: false,
            workers: Vec::new(),
            live: Vec::with_capacity(tasks / LIVES_SHARE),
            lives: Vec::with_capacity(tasks / LIVES_SHARE),
            held: Vec::new(),
            host: dense.host(),
            moved: Moved::for_reads(dense),
            beside: Beside::default(),
            copies: Copies::default(),
            absent: Vec::new(),
            committed: 0,
            skipping: Vec::new(),
            names: 0,
            summary: PlanSummary::default(),
        }
    }

    /// Times `plan`; the times of its tasks and invocations stay readable until the next pass.
    pub fn pass(&mut self, plan: &Assignment) -> PlanSummary {
        self.reset(plan);
        match self.standing {
            None => self.begin(),
            Some(standing) => self.resume(standing),
        }
        while let Some((kind, now_ms)) = self.agenda.pop() {
            self.happen(kind, now_ms);
        }
        debug_assert_eq!(self.committed, self.dense.len(), "every task of an assignment gets its turn");
        self.summary.download_bytes += self.moved.download_bytes;
        self.summary.upload_bytes += self.moved.upload_bytes;
        self.summary
    }

    /// Gives the memory of the columns back; another pass would make them anew.
    pub fn release(&mut self) {
        *self = Self { draw: self.draw.take(), standing: self.standing, ..Self::new(self.dense) };
    }

    /// When the tasks of the last pass ran.
    pub fn ran(&self) -> &[Ran] {
        &self.ran
    }

    /// The times of the last pass, which gave `summary`, copied out.
    pub fn timed(&self, summary: PlanSummary) -> Timed {
        Timed {
            start_ms: self.ran.iter().map(|ran| ran.start_ms).collect(),
            end_ms: self.ran.iter().map(|ran| ran.end_ms).collect(),
            cause: self.ran.iter().map(|ran| ran.cause).collect(),
            lives: self.lives.clone(),
            summary,
            usage: self.usage(),
        }
    }

    fn usage(&self) -> Vec<ConfigUsage> {
        let mut used = self.dense.no_usage();
        for (life, live) in self.lives.iter().zip(&self.live) {
            self.dense.count_start(&mut used, life.size, life.is_cold);
            used[life.size as usize].usage.add(&live.links.usage(life.end_ms - life.start_ms));
        }
        used.retain(|of_size| of_size.invocations > 0);
        used
    }

    fn reset(&mut self, plan: &Assignment) {
        let graph = self.dense.graph;
        self.workers.clear();
        self.workers.resize(plan.workers as usize, NEW_WORKER);
        self.tasks.clear();
        self.planned_on.clone_from(&plan.worker);
        self.missing.clear();
        self.missing.extend((0..self.dense.len()).map(|t| graph.parents(t).len() as u32));
        let mut any = 0;
        let absent = self.draw.as_ref().map_or(&[] as &[bool], |draw| &draw.absent);
        self.tasks.extend((0..self.dense.len()).map(|t| {
            let at = t as usize;
            let (worker, parents) = (plan.worker[at], self.missing[at]);
            let flags = match absent.get(at) {
                Some(true) => ABSENT,
                _ if parents == 0 => plan.extras.flags(t) | self.dense.forced_flags(t) | SOURCE,
                _ => plan.extras.flags(t) | self.dense.forced_flags(t),
            };
            any |= flags;
            if worker != NONE {
                let state = &mut self.workers[worker as usize];
                state.left += 1;
                if flags & PRE_LOAD != 0 && self.dense.reads_from_outside(t) {
                    state.may_fetch(plan.rank[at]);
                }
            }
            TaskState {
                ready_ms: f64::INFINITY,
                size: plan.size[at] as u16,
                rank: plan.rank[at],
                filled_by: NONE,
                is_taken: false,
                committed_nth: NONE,
                awaited: 0,
                awaited_in: NONE,
                flags,
            }
        }));
        self.has_absent = any & ABSENT != 0;
        self.has_flexible = self.planned_on.contains(&NONE);
        // What a flag stands for is looked for only where some task has it: that is another way through all.
        let with = |flag: u8| if any & flag != 0 { &self.tasks[..] } else { &[] };
        self.copies.reset(self.dense, with(TASK_DUP), &self.planned_on);
        let all_run_once = !self.has_absent && !self.copies.has_any() && self.standing.is_none();
        if !all_run_once || self.ran.len() != self.tasks.len() {
            self.ran.clear();
            self.ran.resize(self.tasks.len(), Ran { start_ms: 0.0, end_ms: 0.0, cause: NONE, ran_on: NONE });
        }
        // Whoever runs copies learns which tasks have results from what is fetched for tasks that have begun.
        let begun = self.standing.filter(|_| !self.copies.has_any());
        self.beside.reset(self.dense, plan, with(PRE_LOAD), begun);
        self.settles_late = self.dense.lanes == 1 && !self.copies.has_any();
        self.agenda.clear();
        self.lists.clear();
        self.queues.clear();
        self.live.clear();
        self.lives.clear();
        self.dense.reset_host(&mut self.host, self.standing.map_or(0.0, |s| s.now_ms));
        self.moved.reset(self.dense, absent);
        self.committed = 0;
        self.names = 0;
        self.summary = PlanSummary::default();
    }

    /// The client starts the workers of the sources.
    fn begin(&mut self) {
        let mut sources: Vec<(u32, u32)> =
            self.dense.graph.sources().map(|t| (self.tasks[t as usize].rank, t)).collect();
        sources.sort_unstable();
        let mut order: Vec<Invoke> = Vec::new();
        // Until a worker is named, its name is the place of its request in `order`.
        for (_, t) in sources {
            let task = &mut self.tasks[t as usize];
            task.ready_ms = 0.0;
            let (worker, size) = (self.planned_on[t as usize], task.size());
            if worker == NONE {
                order.push(Invoke { worker, size, tasks: self.lists.of(t) });
                continue;
            }
            let state = &mut self.workers[worker as usize];
            self.lists.push(&mut state.open, t);
            state.open_count += 1;
            match order.get_mut(state.named as usize) {
                Some(invoke) => self.lists.push(&mut invoke.tasks, t),
                None => {
                    state.named = order.len() as u32;
                    order.push(Invoke { worker, size, tasks: self.lists.of(t) });
                }
            }
        }
        for invoke in order.iter().filter(|i| i.worker != NONE) {
            self.workers[invoke.worker as usize].named = NONE;
        }
        order.into_iter().for_each(|invoke| self.invoke(invoke, 0.0));
        self.warm_after(NONE, NONE, 0.0);
    }

    fn invoke(&mut self, invoke: Invoke, now_ms: f64) {
        let size = invoke.size;
        if invoke.worker == NONE {
            // A flexible task becomes ready once, so only planned workers can be asked for twice.
            return match self.host.has_place(size) {
                true => self.start(invoke, NONE, now_ms),
                false => drop(self.host.wait(invoke)),
            };
        }
        let state = &mut self.workers[invoke.worker as usize];
        if state.named == NONE {
            state.named = self.names;
            self.names += 1;
        }
        if self.host.has_place(size) {
            return self.start(invoke, NONE, now_ms);
        }
        match state.waiting.and_then(|place| self.host.waiting_mut(place)) {
            Some(same) => self.lists.append(&mut same.tasks, invoke.tasks),
            None => state.waiting = Some(self.host.wait(invoke)),
        }
    }

    /// Starts a worker; in a run that is under way `now_ms` may have been before.
    fn start(&mut self, invoke: Invoke, place_cause: u32, now_ms: f64) {
        let Invoke { worker, size, tasks } = invoke;
        if worker != NONE {
            self.workers[worker as usize].waiting = None;
        }
        let place = self.host.start(size, now_ms);
        self.summary.invocations += 1;
        self.summary.cold_starts += u64::from(place.is_cold);
        let id = self.live.len() as u32;
        let startup_ms = self.dense.startup_ms(size, place.is_cold);
        let (startup_ms, links) = match &self.draw {
            None => (startup_ms, Links::default()),
            Some(draw) => draw.invocation(self.dense, size, place.is_cold, id),
        };
        let first = self.lists.first(tasks);
        let (start_ms, end_ms) = (now_ms, now_ms);
        let (container, is_cold, phase) = (place.container, place.is_cold, Phase::Joining);
        self.lives.push(Life { worker, size, first, is_cold, container, start_ms, end_ms, cost_usd: 0.0 });
        let live =
            Live { first: tasks, place_cause, ..Live::new(worker, size, container, now_ms, links, phase) };
        self.push_live(live);
        let from_ms = self.standing.map_or(0.0, |standing| standing.now_ms);
        self.agenda.at_start(from_ms.max(now_ms + startup_ms), Kind::Up(id));
    }

    fn push_live(&mut self, live: Live) {
        self.live.push(live);
        let needed = self.live.len() * HANDS * self.hand_len();
        if self.held.len() < needed {
            self.held.resize(2 * needed, NONE);
        }
        self.copies.begin();
    }

    /// Most of a kind in the hands of an invocation: what holds its lanes, and as many that store.
    fn hand_len(&self) -> usize {
        2 * self.dense.lanes as usize
    }

    fn happen(&mut self, kind: Kind, now_ms: f64) {
        match kind {
            Kind::Up(id) => self.up(id, now_ms),
            Kind::Answer(id) => self.answered(id, now_ms),
            Kind::Computed(id, task) => self.computed(id, task, now_ms),
            Kind::Done(id, task) => self.done(id, task, now_ms),
            Kind::Committed(id, parent) => self.hear_of_commit(id, parent, now_ms),
            Kind::PreWarm(id, warming) => self.pre_warm(id, warming, now_ms),
            Kind::Hint(id, task) => {
                if self.live[id as usize].phase != Phase::Gone {
                    self.settle(id, now_ms);
                    self.enqueue(id, task);
                    self.pump(id, now_ms);
                }
            }
            Kind::RunEnded(id) => {
                if self.live[id as usize].phase == Phase::Working {
                    self.stop(id);
                    self.pump(id, now_ms);
                }
            }
            Kind::CopyHint(id, task) => self.hear_of_copy(id, task, now_ms),
            Kind::Linger(id, pause) => {
                let live = &self.live[id as usize];
                if live.pauses == pause && live.idle_since_ms.is_some() {
                    self.pump(id, now_ms);
                }
            }
        }
    }

    /// The invocation is over; its place goes to who waited longest.
    fn gone(&mut self, id: u32, now_ms: f64) {
        let live = &mut self.live[id as usize];
        live.phase = Phase::Gone;
        live.next = NONE;
        self.queues.release(&mut live.queue);
        let (worker, size, container, last_task) = (live.worker, live.size, live.container, live.last_task);
        self.moved.leave(self.dense, &live.links, container, now_ms);
        let billed_ms = now_ms - live.start_ms;
        let config = &self.dense.size(size).config;
        let cost_usd = self.dense.rates.worker_usd(config, &live.links.usage(billed_ms));
        let handed_over = std::mem::replace(&mut live.handed_over, List::EMPTY);
        let life = &mut self.lives[id as usize];
        (life.end_ms, life.cost_usd) = (now_ms, cost_usd);
        self.summary.cost_usd += cost_usd;
        self.summary.gb_seconds += config.gb() * billed_ms / 1000.0;
        // The successor is asked for before this one ends, so it is in another container.
        if !handed_over.is_empty() && self.committed < self.dense.len() {
            self.invoke(Invoke { worker, size, tasks: handed_over }, now_ms);
        }
        if let Some(waiting) = self.host.end(size, container, now_ms) {
            self.start(waiting, last_task, now_ms);
        }
    }
}
