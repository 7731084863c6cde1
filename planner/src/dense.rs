//! The problem in dense form: everything by index, so that the passes read columns of numbers and nothing
//! else.
//!
//! Tasks, objects and sizes keep the indices of the graph and of the prediction table. Times in ms, money
//! in USD.

use std::borrow::Cow;

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::graph::Graph;
use foresail_schemas::optimization::Optimization;
use foresail_schemas::plan::{Problem, StartupTimes, TransferTimes};
use foresail_schemas::platform::{Pool, Rates};
use foresail_schemas::prediction::Basis;
use foresail_schemas::run::{ConfigUsage, WorkerUsage};
use foresail_schemas::uncertainty::{P99_SAMPLES_MIN, Uncertainty};
use foresail_schemas::workflow::Task;

use crate::draw;
use crate::error::PlanFailure;
use crate::extras::{PRE_LOAD, PRE_WARM, TASK_DUP};
use crate::host::Host;
use crate::pool::Routed;

mod ahead;
mod check;
mod life;

pub(crate) use ahead::fetch;

/// No worker, no task, no size.
pub(crate) const NONE: u32 = u32::MAX;

/// Part of a worker's life that the p99 of a task may take, where it is known: the rest is for its start,
/// its transfers and what one of a hundred executions takes longer.
pub(crate) const LIFE_SHARE: f64 = 0.9;

/// One size of a worker with its prices and times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub config: ResourceConfig,
    pub usd_per_ms: f64,
    pub transfer: TransferTimes,
    pub startup: StartupTimes,
    /// What the engine takes of a lane per attempt.
    pub attempt_ms: f64,
}

/// What one task stores: objects that do not fit into its commit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stored {
    pub objects: u32,
    pub bytes: u64,
}

/// One object as the links see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traffic {
    pub bytes: u64,
    /// Tasks that read it.
    pub readers: u32,
    /// The task that makes it; [`NONE`] for one from outside.
    maker: u32,
}

impl Traffic {
    /// The task that makes it; nothing for one from outside.
    pub fn maker(&self) -> Option<u32> {
        Some(self.maker).filter(|&maker| maker != NONE)
    }
}

/// The dense problem.
#[derive(Debug)]
pub(crate) struct Dense<'p> {
    pub problem: &'p Problem,
    pub graph: &'p Graph,
    pub sizes: Vec<Size>,
    /// By size and then by task: time that it holds its lane beside transfers.
    exec_ms: Cow<'p, [Vec<f64>]>,
    /// Least memory per task; 0 where it states none.
    pub memory_mb_min: Vec<u32>,
    /// What each task uploads.
    pub uploads: Vec<Stored>,
    /// Size and readers of every object.
    pub objects: Vec<Traffic>,
    /// What each task reads from the store (and not from a commit), end to end; see `stored_reads`.
    reads: Vec<u32>,
    reads_from: Vec<u32>,
    /// Whether a task reads from the store what no task makes.
    reads_outside: Vec<bool>,
    /// Round trip to the run's state: from a task's end to the start of the next on the same worker.
    pub dispatch_ms: f64,
    pub lanes: u32,
    pub concurrency_max: u32,
    life_ms_max: f64,
    /// What workers cost.
    pub rates: Rates,
    /// The pool beside the platform and the tasks that only it can run, where there are any.
    pub pool: Option<Routed>,
    /// Per size: containers that are idle and warm when the run begins.
    pub warm: Vec<u32>,
    /// Flags of the optimisations that the workflow forces, per task; empty: none.
    forced: Vec<u8>,
    /// Sizes on which something is faster, or possible, that is not so on a cheaper size; ascending.
    pub useful: Vec<u32>,
    /// Whether a size allows a task, by task and then by size.
    allowed: Vec<bool>,
}

impl<'p> Dense<'p> {
    /// Checks the problem and brings it into dense form.
    pub fn new(problem: &'p Problem) -> Result<Self, PlanFailure> {
        Self::in_part(problem, |_| true)
    }

    /// As [`Dense::new`], where only the tasks that are `open` must fit into some size: others have run.
    pub fn in_part(problem: &'p Problem, open: impl Fn(u32) -> bool) -> Result<Self, PlanFailure> {
        problem.platform.check()?;
        let graph: &Graph = problem.workflow.graph();
        let table = &problem.predictions;
        check::dimensions(graph, table)?;
        check::numbers(table)?;
        check::menu(problem)?;
        draw::check(problem)?;
        let platform = &problem.platform;
        let sizes = (0..table.configs.len()).map(|c| Size {
            config: table.configs[c],
            usd_per_ms: platform.rates().usd_per_ms(&table.configs[c]),
            transfer: table.transfer[c],
            startup: table.startup[c],
            attempt_ms: table.engine.as_ref().map_or(0.0, |engine| engine.attempt_ms[c]),
        });
        let sizes: Vec<Size> = sizes.collect();
        let rows = sizes.iter().zip(&table.exec_ms);
        let exec_ms = match sizes.iter().all(|size| size.attempt_ms == 0.0) {
            true => Cow::Borrowed(&table.exec_ms[..]),
            false => rows.map(|(size, row)| row.iter().map(|ms| ms + size.attempt_ms).collect()).collect(),
        };
        let inline = |o: usize| {
            graph.objects()[o].producer.is_some() && table.object_bytes[o] <= platform.inline_bytes_max
        };
        let stored: Vec<bool> = (0..graph.objects().len()).map(|o| !inline(o)).collect();
        let uploads = (0..graph.len() as u32).map(|t| {
            let large = graph.writes(t).iter().filter(|&&o| stored[o as usize]);
            large.fold(Stored::default(), |sum, &o| Stored {
                objects: sum.objects + 1,
                bytes: sum.bytes + table.object_bytes[o as usize],
            })
        });
        let uploads = uploads.collect();
        let (reads, reads_from, reads_outside) = reads(graph, &stored);
        let objects = table.object_bytes.iter().enumerate();
        let objects = objects.map(|(o, &bytes)| Traffic {
            bytes,
            readers: graph.consumers(o as u32).len() as u32,
            maker: graph.objects()[o].producer.unwrap_or(NONE),
        });
        let tasks = problem.workflow.tasks();
        let mut dense = Self {
            problem,
            graph,
            sizes,
            exec_ms,
            memory_mb_min: tasks.iter().map(|t| t.memory_mb_min.unwrap_or(0)).collect(),
            uploads,
            objects: objects.collect(),
            reads,
            reads_from,
            reads_outside,
            dispatch_ms: table.engine.as_ref().map_or(platform.assumed.dispatch_ms, |e| e.dispatch_ms),
            lanes: platform.lanes,
            concurrency_max: platform.concurrency_max,
            life_ms_max: platform.life_ms_max,
            rates: platform.rates(),
            pool: None,
            warm: (0..table.configs.len()).map(|c| table.warm.get(c).copied().unwrap_or(0)).collect(),
            forced: forced(tasks),
            useful: Vec::new(),
            allowed: Vec::new(),
        };
        dense.pool = Routed::new(&dense);
        // Planners ask for each of them many times.
        dense.allowed = dense.all_that_suits();
        dense.useful = (0..dense.size_count()).filter(|&c| !dense.is_pool(c) && dense.is_useful(c)).collect();
        (0..dense.len()).filter(|&t| open(t)).try_for_each(|t| dense.check_fits(t))?;
        Ok(dense)
    }

    /// As many containers of each size are idle and warm, and no others.
    pub fn set_warm(&mut self, idle: &[(ResourceConfig, u32)]) {
        let of = |size: &Size| {
            let same = idle.iter().filter(|(config, _)| config.key() == size.config.key());
            same.map(|&(_, count)| count).sum()
        };
        self.warm = self.sizes.iter().map(of).collect();
    }

    /// The problem as if outputs that other tasks read were never stored: what no plan beats whose workers
    /// hold outputs in memory.
    pub fn storing_results_only(problem: &'p Problem) -> Result<Self, PlanFailure> {
        let mut dense = Self::new(problem)?;
        for task in 0..dense.len() {
            if !dense.graph.children(task).is_empty() {
                dense.uploads[task as usize] = Stored::default();
            }
        }
        Ok(dense)
    }

    /// Time of the first start of a worker of this size.
    pub fn first_start_ms(&self, size: u32) -> f64 {
        let startup = &self.size(size).startup;
        if self.warm[size as usize] > 0 { startup.warm_ms.min(startup.cold_ms) } else { startup.cold_ms }
    }

    /// Whether no smaller size does everything as fast: whoever uses one that is not useful pays for nothing.
    fn is_useful(&self, size: u32) -> bool {
        let tasks = 0..self.len();
        let replaces = |c: u32| {
            let (smaller, own) = (self.size(c), self.size(size));
            smaller.usd_per_ms <= own.usd_per_ms
                && smaller.transfer == own.transfer
                && smaller.startup == own.startup
                && (self.warm[c as usize], self.warm[size as usize]) == (0, 0)
                && tasks.clone().all(|t| {
                    self.exec_ms(c, t) <= self.exec_ms(size, t) && self.allows(c, t) == self.allows(size, t)
                })
        };
        !(0..size).rev().any(replaces)
    }

    /// The host at the start of the run.
    pub fn host<W>(&self) -> Host<W> {
        let pool = self.pool.as_ref().map(|pool| pool.size);
        Host::new(self.concurrency_max, self.problem.platform.keep_alive_ms, &self.warm, pool)
    }

    /// Brings a host back to `since_ms`, when the run begins or is looked at.
    pub fn reset_host<W>(&self, host: &mut Host<W>, since_ms: f64) {
        host.reset(&self.warm, since_ms);
    }

    /// Number of tasks.
    pub fn len(&self) -> u32 {
        self.graph.len() as u32
    }

    /// Number of sizes.
    pub fn size_count(&self) -> u32 {
        self.sizes.len() as u32
    }

    pub fn size(&self, size: u32) -> &Size {
        &self.sizes[size as usize]
    }

    /// The size that a config is, if anything is predicted for it.
    pub fn size_of(&self, config: &ResourceConfig) -> Option<u32> {
        let find = |is_it: &dyn Fn(&Size) -> bool| self.sizes.iter().position(is_it);
        // The same size may be written in two ways, which is seldom and takes longer to see.
        let found = find(&|s| s.config == *config).or_else(|| find(&|s| s.config.key() == config.key()));
        found.map(|at| at as u32)
    }

    /// Time that a task holds its lane beside transfers: its code, and what the engine takes per attempt.
    pub fn exec_ms(&self, size: u32, task: u32) -> f64 {
        self.exec_ms[size as usize][task as usize]
    }

    /// Time in the code of a task.
    pub fn code_ms(&self, size: u32, task: u32) -> f64 {
        self.problem.predictions.exec_ms[size as usize][task as usize]
    }

    pub fn object_bytes(&self, object: u32) -> u64 {
        self.objects[object as usize].bytes
    }

    /// The task that makes an object; nothing for one from outside.
    pub fn maker(&self, object: u32) -> Option<u32> {
        self.objects[object as usize].maker()
    }

    /// Time of a start.
    pub fn startup_ms(&self, size: u32, is_cold: bool) -> f64 {
        let startup = &self.size(size).startup;
        if is_cold { startup.cold_ms } else { startup.warm_ms }
    }

    /// Nothing used by workers of any size.
    pub fn no_usage(&self) -> Vec<ConfigUsage> {
        let none = |size: &Size| ConfigUsage {
            config: size.config,
            invocations: 0,
            cold_starts: 0,
            usage: WorkerUsage::default(),
        };
        self.sizes.iter().map(none).collect()
    }

    /// Counts a start; what a new worker takes longer than one that is there is its initialisation.
    pub fn count_start(&self, used: &mut [ConfigUsage], size: u32, is_cold: bool) {
        let used = &mut used[size as usize];
        used.invocations += 1;
        if is_cold {
            used.cold_starts += 1;
            let init_ms = self.startup_ms(size, true) - self.startup_ms(size, false);
            used.usage.init_ms += init_ms.max(0.0);
        }
    }

    /// Time that one of a hundred executions takes longer than; the predicted one where no distribution is
    /// known, or one of too few executions.
    pub fn p99_ms(&self, size: u32, task: u32) -> f64 {
        let is_measured =
            |u: &&Uncertainty| u.samples.get(task as usize).is_none_or(|&samples| samples >= P99_SAMPLES_MIN);
        let uncertainty = self.problem.predictions.uncertainty.as_ref().filter(is_measured);
        let shape = uncertainty.and_then(|u| draw::exec_shape(u, size, task));
        self.exec_ms(size, task) * shape.map_or(1.0, |shape| shape[shape.len() - 1])
    }

    /// Time to download one object.
    pub fn download_ms(&self, size: u32, object: u32) -> f64 {
        let transfer = &self.size(size).transfer;
        transfer.download_latency_ms + self.object_bytes(object) as f64 * transfer.download_ms_per_byte
    }

    /// Time to upload all that a task stores.
    pub fn upload_ms(&self, size: u32, task: u32) -> f64 {
        let (transfer, stored) = (&self.size(size).transfer, self.uploads[task as usize]);
        f64::from(stored.objects) * transfer.upload_latency_ms
            + stored.bytes as f64 * transfer.upload_ms_per_byte
    }

    /// Objects that `task` reads and that move through the store.
    pub fn stored_reads(&self, task: u32) -> &[u32] {
        let at = task as usize;
        &self.reads[self.reads_from[at] as usize..self.reads_from[at + 1] as usize]
    }

    /// The object that a task stores, if it makes no other and all of its children read it.
    pub fn read_by_all_children(&self, task: u32) -> Option<u32> {
        let &[object] = self.graph.writes(task) else { return None };
        let is_stored = self.uploads[task as usize].objects == 1;
        let readers = self.objects[object as usize].readers as usize;
        (is_stored && readers == self.graph.children(task).len()).then_some(object)
    }

    /// How many such reads there are in all.
    pub fn reads_count(&self) -> usize {
        self.reads.len()
    }

    /// Whether any of these is made by no task.
    pub fn reads_from_outside(&self, task: u32) -> bool {
        self.reads_outside[task as usize]
    }

    /// Whether this is the size of the pool.
    pub fn is_pool(&self, size: u32) -> bool {
        self.pool.as_ref().is_some_and(|pool| pool.size == size)
    }

    /// Whether only the pool can run the task.
    pub fn is_pooled(&self, task: u32) -> bool {
        self.pool.as_ref().is_some_and(|pool| pool.is_routed[task as usize])
    }

    /// Longest life of a worker of this size.
    pub fn life_ms(&self, size: u32) -> f64 {
        if self.is_pool(size) { Pool::LIFE_MS_MAX } else { self.life_ms_max }
    }

    /// Whether a worker of this size has the memory and lives long enough for the task. The pool takes only
    /// what nothing else does.
    pub fn allows(&self, size: u32, task: u32) -> bool {
        self.allowed[task as usize * self.sizes.len() + size as usize]
    }

    /// The smallest size that allows the task.
    pub fn smallest_allowed(&self, task: u32) -> Option<u32> {
        (0..self.size_count()).find(|&c| self.allows(c, task))
    }

    /// The wanted size if it allows the task, else the smallest that does.
    pub fn size_for(&self, wanted: u32, task: u32) -> u32 {
        if self.allows(wanted, task) {
            return wanted;
        }
        self.smallest_allowed(task).unwrap_or(wanted)
    }

    /// The size of the platform's default, or the largest below it.
    pub fn default_size(&self) -> u32 {
        let default = self.problem.platform.default_config.key();
        let at_most = self.sizes.iter().rposition(|s| s.config.key() <= default);
        at_most.unwrap_or(0) as u32
    }

    /// Flags of the optimisations that the workflow forces on a task.
    pub fn forced_flags(&self, task: u32) -> u8 {
        self.forced.get(task as usize).copied().unwrap_or(0)
    }

    /// Whether the workflow forces any optimisation.
    pub fn forces(&self) -> bool {
        !self.forced.is_empty()
    }

    /// Whether no task was ever measured.
    pub fn is_blind(&self) -> bool {
        self.problem.predictions.basis.iter().all(|b| *b == Basis::None)
    }
}

/// What each task reads from the store, end to end, where each begins, and whether any of it comes from
/// outside.
fn reads(graph: &Graph, stored: &[bool]) -> (Vec<u32>, Vec<u32>, Vec<bool>) {
    let all = (0..graph.len() as u32).map(|t| graph.reads(t).len()).sum();
    let (mut reads, mut reads_from) = (Vec::with_capacity(all), Vec::with_capacity(graph.len() + 1));
    let mut reads_outside = Vec::with_capacity(graph.len());
    reads_from.push(0);
    for t in 0..graph.len() as u32 {
        let from = reads.len();
        reads.extend(graph.reads(t).iter().copied().filter(|&o| stored[o as usize]));
        reads_from.push(reads.len() as u32);
        let is_outside = |&o: &u32| graph.objects()[o as usize].producer.is_none();
        reads_outside.push(reads[from..].iter().any(is_outside));
    }
    (reads, reads_from, reads_outside)
}

/// Flags per task; nothing where no task forces anything.
fn forced(tasks: &[Task]) -> Vec<u8> {
    let flag = |o: &Optimization| match o {
        Optimization::PreLoad => PRE_LOAD,
        Optimization::TaskDup => TASK_DUP,
        Optimization::PreWarm => PRE_WARM,
        Optimization::Custom { .. } => 0,
    };
    if tasks.iter().all(|t| t.optimizations.is_empty()) {
        return Vec::new();
    }
    tasks.iter().map(|t| t.optimizations.iter().fold(0, |flags, o| flags | flag(o))).collect()
}
