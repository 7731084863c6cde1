//! Worker ids by shape: the heuristic of the reference planners (see `uniform`).
//!
//! One child of one parent stays on its worker. Of several children, the three short ones (at most the
//! median time) with the largest outputs stay on the parent's worker, the rest forms groups of one long and
//! some short tasks. A task with several parents goes to the worker that holds the largest part of its
//! input. Source: the worker-id heuristic of the reference design.

use crate::dense::{Dense, NONE};

/// Short children that stay with their parent.
const STAY_MAX: usize = 3;

/// A worker per task; `group_len` tasks per group, one of them long.
pub(crate) fn by_shape(dense: &Dense, size: u32, group_len: usize) -> Vec<u32> {
    let mut ids = Ids { worker: vec![NONE; dense.len() as usize], workers: 0 };
    let sources: Vec<u32> = dense.graph.sources().collect();
    ids.group(dense, size, sources, group_len);
    for &t in dense.graph.order() {
        if dense.graph.parents(t).len() > 1 {
            ids.worker[t as usize] = holder(dense, t, &ids.worker);
        }
        let only = |&c: &u32| dense.graph.parents(c).len() == 1;
        let children: Vec<u32> = dense.graph.children(t).iter().copied().filter(only).collect();
        ids.fan_out(dense, size, t, children, group_len);
    }
    ids.worker
}

struct Ids {
    worker: Vec<u32>,
    workers: u32,
}

impl Ids {
    fn fan_out(&mut self, dense: &Dense, size: u32, parent: u32, children: Vec<u32>, group_len: usize) {
        let home = self.worker[parent as usize];
        if let [only] = children[..] {
            self.worker[only as usize] = home;
            return;
        }
        let (mut short, long) = by_median(dense, size, children);
        short.sort_by_key(|&c| (std::cmp::Reverse(dense.uploads[c as usize].bytes), c));
        let rest = short.split_off(short.len().min(STAY_MAX));
        short.into_iter().for_each(|c| self.worker[c as usize] = home);
        self.groups(long, rest, group_len);
    }

    fn group(&mut self, dense: &Dense, size: u32, tasks: Vec<u32>, group_len: usize) {
        let (short, long) = by_median(dense, size, tasks);
        self.groups(long, short, group_len);
    }

    /// Each group takes one long task and as many short ones as fit, on a new worker.
    fn groups(&mut self, long: Vec<u32>, short: Vec<u32>, group_len: usize) {
        let (mut long, mut short) = (long.into_iter(), short.into_iter());
        loop {
            let head = long.next();
            let room = group_len - usize::from(head.is_some());
            let group: Vec<u32> = head.into_iter().chain(short.by_ref().take(room)).collect();
            if group.is_empty() {
                return;
            }
            group.into_iter().for_each(|t| self.worker[t as usize] = self.workers);
            self.workers += 1;
        }
    }
}

/// The tasks that take at most the median time, and those that take longer, the longest first.
fn by_median(dense: &Dense, size: u32, mut tasks: Vec<u32>) -> (Vec<u32>, Vec<u32>) {
    let exec_ms = |t: u32| dense.exec_ms(dense.size_for(size, t), t);
    tasks.sort_by(|&a, &b| exec_ms(b).total_cmp(&exec_ms(a)).then(a.cmp(&b)));
    let median_ms = tasks.get(tasks.len() / 2).map_or(0.0, |&t| exec_ms(t));
    let (short, long) = tasks.into_iter().partition(|&t| exec_ms(t) <= median_ms);
    (short, long)
}

/// The worker that holds the largest part of the task's input; that of the first parent where nothing moves.
fn holder(dense: &Dense, task: u32, worker: &[u32]) -> u32 {
    let mut bytes = std::collections::BTreeMap::new();
    let first = dense.graph.parents(task)[0];
    bytes.insert(worker[first as usize], 0_u64);
    for o in dense.graph.reads(task).iter().copied() {
        if let Some(producer) = dense.maker(o) {
            *bytes.entry(worker[producer as usize]).or_insert(0) += dense.object_bytes(o);
        }
    }
    let largest = bytes.into_iter().max_by_key(|&(w, held)| (held, std::cmp::Reverse(w)));
    largest.map_or(worker[first as usize], |(w, _)| w)
}
