//! Worker ids by load: tasks in order of urgency, each on the worker where it is predicted to end first.
//!
//! List scheduling on at most `workers` workers of one size, with transfers, starts and the round trip
//! between tasks. With few slots this is longest-processing-time balancing along the critical path. Source:
//! HEFT (TPDS 2002) without insertion; LPT (Graham 1969).

use std::collections::{BTreeSet, HashSet};

use foresail_schemas::run::RunOptions;

use crate::dense::{Dense, NONE};

/// Up to this many workers every worker is looked at; beyond, the parents' workers, the idlest and a new one.
const LOOK_AT_ALL_MAX: u32 = 16;
/// Most parents whose workers are looked at.
const PARENTS_MAX: usize = 8;

/// A worker per task, at most `workers` of them; `order` has parents before children.
pub(crate) fn by_load(dense: &Dense, size: u32, workers: u32, order: &[u32]) -> Vec<u32> {
    let mut packing = Packing {
        dense,
        size,
        linger_ms: RunOptions::default().linger_ms,
        worker: vec![NONE; dense.len() as usize],
        end_ms: vec![0.0; dense.len() as usize],
        free_ms: Vec::new(),
        by_free: BTreeSet::new(),
        held: HashSet::new(),
    };
    for &t in order {
        packing.place(t, workers.max(1));
    }
    packing.worker
}

struct Packing<'a> {
    dense: &'a Dense<'a>,
    size: u32,
    linger_ms: f64,
    worker: Vec<u32>,
    end_ms: Vec<f64>,
    /// End of the last task per worker.
    free_ms: Vec<f64>,
    by_free: BTreeSet<(u64, u32)>,
    /// Worker and object that it downloaded.
    held: HashSet<(u32, u32)>,
}

impl Packing<'_> {
    fn place(&mut self, task: u32, workers_max: u32) {
        let used = self.free_ms.len() as u32;
        let mut candidates: Vec<u32> = if used <= LOOK_AT_ALL_MAX {
            (0..used).collect()
        } else {
            let parents = self.dense.graph.parents(task).iter().take(PARENTS_MAX);
            let near = parents.map(|&p| self.worker[p as usize]);
            near.chain(self.by_free.first().map(|&(_, w)| w)).collect()
        };
        if used < workers_max {
            candidates.push(used);
        }
        let best = candidates.into_iter().map(|w| (self.end_on(task, w), w)).min_by(|a, b| {
            // Equal ends: the earlier worker, so that no start is paid for nothing.
            a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
        });
        let (end_ms, w) = best.unwrap_or((0.0, 0));
        self.put(task, w, end_ms);
    }

    fn ready_ms(&self, task: u32, worker: u32) -> f64 {
        let dispatch_ms = self.dense.dispatch_ms;
        let parents = self.dense.graph.parents(task).iter().map(|&p| {
            let trips = if self.worker[p as usize] == worker { 1.0 } else { 2.0 };
            self.end_ms[p as usize] + trips * dispatch_ms
        });
        parents.fold(0.0, f64::max)
    }

    fn is_held(&self, object: u32, worker: u32) -> bool {
        let producer = self.dense.graph.objects()[object as usize].producer;
        producer.is_some_and(|p| self.worker[p as usize] == worker) || self.held.contains(&(worker, object))
    }

    fn end_on(&self, task: u32, worker: u32) -> f64 {
        let dense = self.dense;
        let ready_ms = self.ready_ms(task, worker);
        let startup = dense.size(self.size).startup;
        let start_ms = match self.free_ms.get(worker as usize) {
            None => ready_ms + startup.cold_ms + dense.dispatch_ms,
            Some(&free_ms) if ready_ms > free_ms + self.linger_ms => {
                ready_ms + startup.warm_ms + dense.dispatch_ms
            }
            Some(&free_ms) => ready_ms.max(free_ms + dense.dispatch_ms),
        };
        let missing = dense.stored_reads(task).iter().copied().filter(|&o| !self.is_held(o, worker));
        let download_ms: f64 = missing.map(|o| dense.download_ms(self.size, o)).sum();
        let exec_ms = dense.exec_ms(dense.size_for(self.size, task), task);
        start_ms + download_ms + exec_ms + dense.upload_ms(self.size, task)
    }

    fn put(&mut self, task: u32, worker: u32, end_ms: f64) {
        let downloaded = self.dense.stored_reads(task).iter().copied().filter(|&o| !self.is_held(o, worker));
        let downloaded: Vec<(u32, u32)> = downloaded.map(|o| (worker, o)).collect();
        self.held.extend(downloaded);
        match self.free_ms.get_mut(worker as usize) {
            None => self.free_ms.push(end_ms),
            Some(free_ms) => {
                self.by_free.remove(&(free_ms.to_bits(), worker));
                *free_ms = end_ms;
            }
        }
        self.by_free.insert((end_ms.to_bits(), worker));
        self.worker[task as usize] = worker;
        self.end_ms[task as usize] = end_ms;
    }
}
