//! The static timing pass: when every task of an assignment starts and ends, what the whole takes and costs.
//!
//! It is the choreography in short: invocations, leases, commits, hints and leaves happen in the order and
//! with the delays of the state machines, without their messages. One round trip to the run's state takes
//! `dispatch_ms`; it decides half-way. Contention is counted on lanes, on each worker's down-link and
//! up-link and for places on the host. What the pass leaves out (heartbeats, the watchdog, faults) the
//! event simulator has; a test holds both together. Cost: O((tasks + edges) log tasks).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use foresail_schemas::plan::PlanSummary;
use foresail_schemas::run::RunOptions;

use crate::assignment::Assignment;
use crate::dense::{Dense, NONE};
use crate::host::Host;
use crate::link::{Links, Moved};

mod edges;
mod protocol;

use edges::{Edges, Fate};

/// An assignment with its times.
#[derive(Debug, Clone)]
pub(crate) struct Timed {
    /// Start of the downloads, per task.
    pub start_ms: Vec<f64>,
    /// End of the uploads, per task.
    pub end_ms: Vec<f64>,
    /// Per task the one that it waited for last: a parent, or what ran before it in the same place.
    pub cause: Vec<u32>,
    /// Per task the invocation that ran it, as an index into `lives`.
    pub ran_in: Vec<u32>,
    /// The invocations, in order of their start.
    pub lives: Vec<Life>,
    /// The sums.
    pub summary: PlanSummary,
}

/// One invocation of a worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    /// The planned worker, or [`NONE`].
    pub worker: u32,
    pub start_ms: f64,
    pub end_ms: f64,
    pub cost_usd: f64,
}

/// Times `assignment`.
pub(crate) fn time(dense: &Dense, assignment: &Assignment) -> Timed {
    let mut pass = Pass::new(dense, assignment);
    pass.begin();
    while let Some(Reverse(entry)) = pass.agenda.pop() {
        pass.happen(entry.kind, f64::from_bits(entry.at_bits));
    }
    pass.finish()
}

/// What happens, to which invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// The worker runs its first instruction.
    Up(u32),
    /// The answer to its request is there.
    Answer(u32),
    /// The user's code has ended (only where lanes share an up-link).
    Executed(u32, u32),
    /// The outputs are stored.
    Done(u32, u32),
    /// A task of its own became ready.
    Hint(u32, u32),
    /// It hears that the run has ended.
    RunEnded(u32),
    /// It has lingered since the pause of this number.
    Linger(u32, u32),
}

/// Order: time, then order of entry. Times are not negative, so that their bits order like they do.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at_bits: u64,
    seq: u64,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Joining,
    Working,
    Leaving,
    Gone,
}

/// A request for a worker.
#[derive(Debug)]
struct Invoke {
    worker: u32,
    size: u32,
    tasks: Vec<u32>,
}

/// An invocation that lives.
#[derive(Debug)]
struct Live {
    worker: u32,
    size: u32,
    container: u32,
    start_ms: f64,
    phase: Phase,
    queue: BinaryHeap<Reverse<(u32, u32)>>,
    running: u32,
    /// To be asked for with the next request.
    leasing: Vec<u32>,
    /// Asked for by the request that is on its way.
    asked: Vec<u32>,
    /// To be sent with the next request.
    commits: Vec<u32>,
    /// Granted by the request that is on its way.
    granted: Vec<u32>,
    /// Children made ready by the request that is on its way.
    fates: Vec<(u32, Fate)>,
    is_waiting: bool,
    /// Whether the run was over when the request was decided.
    saw_end: bool,
    stays: bool,
    /// Tasks of the worker that this invocation does not know to be done.
    mine: u32,
    handed_over: Vec<u32>,
    idle_since_ms: Option<f64>,
    pauses: u32,
    last_task: u32,
    /// The task whose end gave it the place it waited for.
    place_cause: u32,
    links: Links,
}

impl Live {
    fn asks_for(&self, task: u32) -> bool {
        self.leasing.contains(&task) || self.asked.contains(&task)
    }
}

struct Pass<'a> {
    dense: &'a Dense<'a>,
    plan: &'a Assignment,
    linger_ms: f64,
    agenda: BinaryHeap<Reverse<Entry>>,
    entries: u64,
    edges: Edges,
    host: Host<Invoke>,
    live: Vec<Live>,
    /// Alive invocation per worker, as the run's state knows it.
    alive: Vec<u32>,
    /// Place of every worker in the order of first invocations, which is the order of their names in the
    /// plan.
    named: Vec<u32>,
    names: u32,
    /// Whether an invocation of the worker waits for a place.
    queued: Vec<bool>,
    /// Ready tasks per worker, the taken ones included.
    open: Vec<Vec<u32>>,
    open_of: Vec<u32>,
    taken: Vec<bool>,
    committed: u32,
    moved: Moved,
    timed: Timed,
}

impl<'a> Pass<'a> {
    fn new(dense: &'a Dense<'a>, plan: &'a Assignment) -> Self {
        let (tasks, workers) = (dense.len() as usize, plan.workers as usize);
        let mut open_of = vec![0; workers];
        plan.worker.iter().filter(|&&w| w != NONE).for_each(|&w| open_of[w as usize] += 1);
        let keep_alive_ms = dense.problem.platform.keep_alive_ms;
        Self {
            dense,
            plan,
            linger_ms: RunOptions::default().linger_ms,
            agenda: BinaryHeap::with_capacity(1024),
            entries: 0,
            edges: Edges::new(dense.graph),
            host: Host::new(dense.concurrency_max, keep_alive_ms, dense.sizes.len()),
            live: Vec::new(),
            alive: vec![NONE; workers],
            named: vec![NONE; workers],
            names: 0,
            queued: vec![false; workers],
            open: vec![Vec::new(); workers],
            open_of,
            taken: vec![false; tasks],
            committed: 0,
            moved: Moved::default(),
            timed: Timed {
                start_ms: vec![0.0; tasks],
                end_ms: vec![0.0; tasks],
                cause: vec![NONE; tasks],
                ran_in: vec![NONE; tasks],
                lives: Vec::new(),
                summary: PlanSummary::default(),
            },
        }
    }

    fn at(&mut self, at_ms: f64, kind: Kind) {
        self.entries += 1;
        self.agenda.push(Reverse(Entry { at_bits: at_ms.to_bits(), seq: self.entries, kind }));
    }

    /// The client starts the workers of the sources.
    fn begin(&mut self) {
        let mut sources: Vec<u32> = self.dense.graph.sources().collect();
        sources.sort_unstable_by_key(|&t| self.plan.rank[t as usize]);
        let mut order: Vec<Invoke> = Vec::new();
        let mut place = std::collections::HashMap::new();
        for &t in &sources {
            self.edges.make_ready(t, NONE, 0.0);
            let (worker, size) = (self.plan.worker[t as usize], self.plan.size[t as usize]);
            if worker == NONE {
                order.push(Invoke { worker, size, tasks: vec![t] });
                continue;
            }
            self.open[worker as usize].push(t);
            let at = *place.entry(worker).or_insert(order.len());
            match order.get_mut(at) {
                Some(invoke) => invoke.tasks.push(t),
                None => order.push(Invoke { worker, size, tasks: vec![t] }),
            }
        }
        order.into_iter().for_each(|invoke| self.invoke(invoke, 0.0));
    }

    fn invoke(&mut self, invoke: Invoke, now_ms: f64) {
        if invoke.worker != NONE && self.named[invoke.worker as usize] == NONE {
            self.named[invoke.worker as usize] = self.names;
            self.names += 1;
        }
        if self.host.has_place() {
            return self.start(invoke, NONE, now_ms);
        }
        // A flexible task becomes ready once, so only planned workers can be asked for twice.
        let is_planned = invoke.worker != NONE;
        if is_planned
            && std::mem::replace(&mut self.queued[invoke.worker as usize], true)
            && let Some(same) = self.host.find_waiting(|w| w.worker == invoke.worker)
        {
            return same.tasks.extend(invoke.tasks);
        }
        self.host.wait(invoke);
    }

    fn start(&mut self, invoke: Invoke, place_cause: u32, now_ms: f64) {
        let Invoke { worker, size, tasks } = invoke;
        if worker != NONE {
            self.queued[worker as usize] = false;
        }
        let place = self.host.start(size, now_ms);
        let startup = self.dense.size(size).startup;
        let startup_ms = if place.is_cold { startup.cold_ms } else { startup.warm_ms };
        self.timed.summary.invocations += 1;
        self.timed.summary.cold_starts += u64::from(place.is_cold);
        let id = self.live.len() as u32;
        self.timed.lives.push(Life { worker, start_ms: now_ms, end_ms: now_ms, cost_usd: 0.0 });
        self.live.push(Live {
            worker,
            size,
            container: place.container,
            start_ms: now_ms,
            phase: Phase::Joining,
            queue: tasks.into_iter().map(|t| Reverse((self.plan.rank[t as usize], t))).collect(),
            running: 0,
            leasing: Vec::new(),
            asked: Vec::new(),
            commits: Vec::new(),
            granted: Vec::new(),
            fates: Vec::new(),
            is_waiting: false,
            saw_end: false,
            stays: false,
            mine: if worker == NONE { 0 } else { self.open_of[worker as usize] },
            handed_over: Vec::new(),
            idle_since_ms: None,
            pauses: 0,
            last_task: NONE,
            place_cause,
            links: Links::default(),
        });
        self.at(now_ms + startup_ms, Kind::Up(id));
    }

    fn happen(&mut self, kind: Kind, now_ms: f64) {
        match kind {
            Kind::Up(id) => self.up(id, now_ms),
            Kind::Answer(id) => self.answered(id, now_ms),
            Kind::Executed(id, task) => self.upload(id, task, now_ms),
            Kind::Done(id, task) => self.done(id, task, now_ms),
            Kind::Hint(id, task) => {
                if self.live[id as usize].phase != Phase::Gone {
                    self.enqueue(id, task);
                    self.pump(id, now_ms);
                }
            }
            Kind::RunEnded(id) => {
                if self.live[id as usize].phase == Phase::Working {
                    self.live[id as usize].mine = 0;
                    self.pump(id, now_ms);
                }
            }
            Kind::Linger(id, pause) => {
                let live = &self.live[id as usize];
                if live.pauses == pause && live.idle_since_ms.is_some() {
                    self.pump(id, now_ms);
                }
            }
        }
    }

    /// A granted task begins: downloads, then the user's code, then uploads.
    fn run(&mut self, id: u32, task: u32, now_ms: f64) {
        let t = task as usize;
        let live = &mut self.live[id as usize];
        live.running += 1;
        live.idle_since_ms = None;
        self.timed.start_ms[t] = now_ms;
        self.timed.ran_in[t] = id;
        let ready_ms = self.edges.ready_ms(task);
        let before = live.last_task;
        self.timed.cause[t] = if before != NONE && self.timed.end_ms[before as usize] > ready_ms {
            before
        } else if live.place_cause != NONE && live.start_ms > ready_ms {
            live.place_cause
        } else {
            self.edges.filled_by(task)
        };
        let (size, container) = (live.size, live.container);
        let inputs_ms = self.moved.download(self.dense, &mut live.links, size, container, task, now_ms);
        let executed_ms = inputs_ms + self.dense.exec_ms(size, task);
        if self.dense.lanes > 1 {
            self.at(executed_ms, Kind::Executed(id, task));
        } else {
            self.upload(id, task, executed_ms);
        }
    }

    fn upload(&mut self, id: u32, task: u32, executed_ms: f64) {
        let live = &mut self.live[id as usize];
        let (size, container) = (live.size, live.container);
        let done_ms = self.moved.upload(self.dense, &mut live.links, size, container, task, executed_ms);
        self.at(done_ms, Kind::Done(id, task));
    }

    /// The invocation is over; its place goes to who waited longest.
    fn gone(&mut self, id: u32, now_ms: f64) {
        let live = &mut self.live[id as usize];
        live.phase = Phase::Gone;
        live.queue = BinaryHeap::new();
        let (worker, size, container, last_task) = (live.worker, live.size, live.container, live.last_task);
        let billed_ms = now_ms - live.start_ms;
        let config = &self.dense.size(size).config;
        let prices = &self.dense.problem.platform.prices;
        let cost_usd = prices.worker_usd(config, billed_ms, live.links.puts, live.links.gets);
        let handed_over = std::mem::take(&mut live.handed_over);
        let life = &mut self.timed.lives[id as usize];
        (life.end_ms, life.cost_usd) = (now_ms, cost_usd);
        self.timed.summary.cost_usd += cost_usd;
        self.timed.summary.gb_seconds += config.gb() * billed_ms / 1000.0;
        if let Some(waiting) = self.host.end(size, container, now_ms) {
            self.start(waiting, last_task, now_ms);
        }
        if !handed_over.is_empty() && self.committed < self.dense.len() {
            self.invoke(Invoke { worker, size, tasks: handed_over }, now_ms);
        }
    }

    fn finish(mut self) -> Timed {
        debug_assert_eq!(self.committed, self.dense.len(), "every task of an assignment gets its turn");
        self.timed.summary.download_bytes = self.moved.download_bytes;
        self.timed.summary.upload_bytes = self.moved.upload_bytes;
        self.timed
    }
}
