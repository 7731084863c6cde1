//! Operations that change nothing: what is open, what is stuck; and the check of what an operation names.

use foresail_schemas::run::{Operation, OperationResult};

use super::{Decision, Ledger, read};

impl Ledger {
    pub(super) fn missing(&self, tasks: &[u32], parent: u32, now_ms: f64) -> Decision {
        let count = |&t: &u32| {
            let state = self.state.task(t);
            let is_free = state.commit.is_none() && !state.skipped && state.live_lease(now_ms).is_none();
            let marked = |&&p: &&u32| self.graph.edge_bit(p, t).is_some_and(|bit| state.is_marked(bit));
            let others = self.graph.parents(t).iter().filter(|&&p| p != parent);
            is_free.then(|| (others.clone().count() - others.filter(marked).count()) as u32)
        };
        read(OperationResult::Missing { counts: tasks.iter().map(count).collect() })
    }

    pub(super) fn open(&self, tasks: &[u32], now_ms: f64) -> Decision {
        // One that ran out of memory is none of its planned worker's any more.
        let open = |t: &u32| {
            let state = self.state.task(*t);
            state.commit.is_none() && !state.skipped && state.larger.is_none()
        };
        let ready = |t: &u32| self.state.task(*t).is_free_for_its_worker(now_ms);
        let tasks: Vec<u32> = tasks.iter().copied().filter(open).collect();
        let ready = tasks.iter().copied().filter(ready).collect();
        read(OperationResult::Open { tasks, ready })
    }

    pub(super) fn frontier(&self, idle_ms_min: f64, limit: u32, now_ms: f64) -> Decision {
        if self.is_over() {
            return read(OperationResult::RunOver);
        }
        let (since_ms, limit) = (now_ms - idle_ms_min, limit as usize);
        // A task that nobody has had yet is on its way to a worker that may be starting or waiting for a
        // place, so that it gets as long as a lease before it counts as stuck. Nobody is on the way to one
        // that was had: whoever failed takes it again at once, or is dead. (The young ones among those that
        // are looked at grow old, so that none waits for ever behind them.)
        let is_stuck = |task: &u32| {
            let state = self.state.task(*task);
            state.attempts > 0
                || state.idle_since_ms.is_some_and(|at_ms| at_ms <= since_ms - self.options.lease_ms)
        };
        let free = self.state.free.until(since_ms, 4 * limit).filter(is_stuck);
        let mut ready: Vec<u32> = free.chain(self.state.leased.until(since_ms, limit)).collect();
        ready.sort_unstable();
        ready.truncate(limit);
        let larger = self.larger_of(&ready);
        let is_untried = |task: &u32| self.state.task(*task).attempts == 0;
        let mut untried: Vec<u32> = ready.iter().copied().filter(is_untried).collect();
        // Where nobody works there is no place to wait for, and nobody who looks again.
        if !untried.is_empty() && self.state.leased.count_after(now_ms) == 0 {
            untried.clear();
        }
        read(OperationResult::Frontier { ready, larger, untried })
    }
}

/// The first task index of an operation that the graph does not have.
pub(super) fn unknown_task(operation: &Operation, len: usize) -> Option<u32> {
    let known = |task: &u32| (*task as usize) < len;
    match operation {
        Operation::Fail { task, .. } => (!known(task)).then_some(*task),
        Operation::Lease { task, assuming, .. } => assuming.iter().chain([task]).copied().find(|t| !known(t)),
        Operation::Commit { task, assuming, .. } => {
            assuming.iter().map(|assumption| &assumption.task).chain([task]).copied().find(|t| !known(t))
        }
        Operation::Missing { tasks, parent } => tasks.iter().chain([parent]).copied().find(|t| !known(t)),
        Operation::Leave { tasks, .. }
        | Operation::Renew { tasks, .. }
        | Operation::Duplicate { tasks, .. }
        | Operation::Open { tasks }
        | Operation::Commits { tasks } => tasks.iter().copied().find(|t| !known(t)),
        Operation::Join { .. }
        | Operation::Cancel { .. }
        | Operation::WhoIs { .. }
        | Operation::Frontier { .. } => None,
    }
}
