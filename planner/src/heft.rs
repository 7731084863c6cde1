//! `heft`: tasks by upward rank, each on the worker where it ends first, into a gap if one fits.
//!
//! Ranks are of mean times over the sizes. A worker is a processor: it starts cold once and is then taken to
//! be there; inputs that another worker made are downloaded, all links at once. At most as many workers as
//! the platform runs at a time. Of many workers only those are looked at that hold an input, the few that
//! are free first, and a new one of each size.
//!
//! Source: Topcuoglu, Hariri, Wu: Performance-effective and low-complexity task scheduling for heterogeneous
//! computing, TPDS 2002 (HEFT with insertion).

use std::collections::BTreeSet;

use foresail_schemas::plan::{Plan, Problem};

use crate::assignment::Assignment;
use crate::dense::{Dense, NONE};
use crate::error::PlanFailure;
use crate::planner::Planner;
use crate::rank;
use crate::search::{Search, plan_by};

/// Workers that are free first that are looked at.
const FREE_FIRST: usize = 8;
/// Parents whose workers are looked at.
const PARENTS_MAX: usize = 8;

/// The planner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heft;

impl Planner for Heft {
    fn name(&self) -> &'static str {
        "heft"
    }

    fn plan(&self, problem: &Problem) -> Result<Plan, PlanFailure> {
        plan_by(self.name(), problem, offer)
    }
}

/// Offers the schedule.
pub(crate) fn offer(search: &mut Search) {
    let dense = search.dense;
    let order = rank::by_urgency(dense, &rank::mean_upward_ms(dense));
    let mut heft = Processors::new(dense);
    order.iter().for_each(|&t| heft.place(t));
    let sizes: Vec<u32> = heft.processors.iter().map(|p| p.size).collect();
    let worker = std::mem::take(&mut heft.of);
    let assignment = Assignment::placed_on(dense, worker, &sizes, heft.ranks());
    search.offer(format!("heft: {} workers, each task where it ends first", sizes.len()), assignment);
}

#[derive(Debug)]
struct Processor {
    size: u32,
    /// What runs there, by time: start and end.
    busy: Vec<(f64, f64)>,
}

impl Processor {
    /// The earliest start of something that is ready at `ready_ms` and takes `run_ms`, and its place.
    fn gap(&self, ready_ms: f64, run_ms: f64) -> (f64, usize) {
        // Gaps before the task is ready are of no use.
        let from = self.busy.partition_point(|&(_, end)| end <= ready_ms);
        let mut start_ms = ready_ms;
        for (at, &(begin, end)) in self.busy.iter().enumerate().skip(from) {
            if start_ms + run_ms <= begin {
                return (start_ms, at);
            }
            start_ms = start_ms.max(end);
        }
        (start_ms, self.busy.len())
    }
}

#[derive(Debug)]
struct Processors<'a> {
    dense: &'a Dense<'a>,
    processors: Vec<Processor>,
    by_free: BTreeSet<(u64, u32)>,
    of: Vec<u32>,
    start_ms: Vec<f64>,
    end_ms: Vec<f64>,
}

impl<'a> Processors<'a> {
    fn new(dense: &'a Dense<'a>) -> Self {
        let tasks = dense.len() as usize;
        let (start_ms, end_ms) = (vec![0.0; tasks], vec![0.0; tasks]);
        let (processors, by_free, of) = (Vec::new(), BTreeSet::new(), vec![NONE; tasks]);
        Self { dense, processors, by_free, of, start_ms, end_ms }
    }

    /// When the inputs of a task can be on a processor, without those downloads that others need not make.
    fn ready_ms(&self, task: u32, processor: u32, size: u32) -> f64 {
        let (dense, graph) = (self.dense, self.dense.graph);
        let is_made_here = |&p: &u32| self.of[p as usize] == processor;
        // Where all is made here it begins at once; otherwise it is told of what comes from elsewhere.
        let asks = if graph.parents(task).iter().all(is_made_here) { 0.0 } else { 1.0 };
        let parents = graph.parents(task).iter().map(|&p| {
            let trips = if is_made_here(&p) { asks } else { 2.0 };
            self.end_ms[p as usize] + trips * dense.dispatch_ms
        });
        let known_ms = parents.fold(0.0, f64::max);
        let is_here =
            |o: u32| graph.objects()[o as usize].producer.is_some_and(|p| self.of[p as usize] == processor);
        let missing = dense.stored_reads(task).iter().filter(|&&o| !is_here(o));
        known_ms + missing.map(|&o| dense.download_ms(size, o)).sum::<f64>()
    }

    fn place(&mut self, task: u32) {
        let dense = self.dense;
        let parents = dense.graph.parents(task).iter().take(PARENTS_MAX).map(|&p| self.of[p as usize]);
        let free = self.by_free.iter().take(FREE_FIRST).map(|&(_, w)| w);
        let mut looked_at: Vec<u32> = parents.chain(free).collect();
        looked_at.sort_unstable();
        looked_at.dedup();
        let mut best: Option<(f64, f64, u32, u32, usize)> = None;
        let mut consider = |end_ms: f64, start_ms: f64, w: u32, size: u32, place: usize| {
            if best.is_none_or(|b| end_ms < b.0) {
                best = Some((end_ms, start_ms, w, size, place));
            }
        };
        for w in looked_at {
            let at = &self.processors[w as usize];
            if dense.allows(at.size, task) {
                let run_ms = dense.exec_ms(at.size, task) + dense.upload_ms(at.size, task);
                let (start_ms, place) = at.gap(self.ready_ms(task, w, at.size), run_ms);
                consider(start_ms + run_ms, start_ms, w, at.size, place);
            }
        }
        let next = self.processors.len() as u32;
        let has_room = next < dense.concurrency_max;
        let known = dense.useful.iter().copied().filter(|&c| has_room && dense.allows(c, task));
        for size in known {
            let run_ms = dense.exec_ms(size, task) + dense.upload_ms(size, task);
            let start_ms = self.ready_ms(task, NONE, size) + dense.first_start_ms(size);
            consider(start_ms + run_ms, start_ms, next, size, 0);
        }
        let (end_ms, start_ms, w, size, place) = best.unwrap_or_else(|| {
            // No processor there allows the task: one more than the platform runs, which waits its turn.
            let size = dense.size_for(dense.default_size(), task);
            let start_ms = self.ready_ms(task, NONE, size) + dense.first_start_ms(size);
            (start_ms + dense.exec_ms(size, task), start_ms, next, size, 0)
        });
        if w == next {
            self.processors.push(Processor { size, busy: Vec::new() });
        }
        let busy = &mut self.processors[w as usize].busy;
        let free = |busy: &[(f64, f64)]| busy.last().map_or(0, |&(_, end)| end.to_bits());
        self.by_free.remove(&(free(busy), w));
        busy.insert(place, (start_ms, end_ms));
        self.by_free.insert((free(busy), w));
        (self.of[task as usize], self.start_ms[task as usize], self.end_ms[task as usize]) =
            (w, start_ms, end_ms);
    }

    /// The tasks in order of their start.
    fn ranks(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.dense.len()).collect();
        order.sort_by(|&a, &b| {
            self.start_ms[a as usize].total_cmp(&self.start_ms[b as usize]).then(a.cmp(&b))
        });
        rank::places(&order)
    }
}
