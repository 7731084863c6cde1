//! Which sizes allow which tasks: by memory, and by the life of an invocation.
//!
//! A planned worker may run more tasks than fit into one invocation, since it hands over to a successor. One
//! task cannot be divided: in an invocation that runs nothing else there must be time for a cold start, for
//! joining the run, and for the task with all of its transfers.

use foresail_schemas::prediction::Basis;

use super::{Dense, LIFE_SHARE};
use crate::error::PlanFailure;

impl Dense<'_> {
    /// Least life of an invocation of this size in which the task runs, by all that is known.
    pub fn life_needed_ms(&self, size: u32, task: u32) -> f64 {
        let at = self.size(size);
        let reads = self.stored_reads(task);
        let bytes: u64 = reads.iter().filter(|&&o| !self.is_guessed(o)).map(|&o| self.object_bytes(o)).sum();
        let downloads_ms = reads.len() as f64 * at.transfer.download_latency_ms
            + bytes as f64 * at.transfer.download_ms_per_byte;
        let begins_ms = at.startup.cold_ms.max(at.startup.warm_ms) + self.dispatch_ms;
        let is_guessed = self.graph.writes(task).iter().any(|&o| self.is_guessed(o));
        let upload_ms = if is_guessed { 0.0 } else { self.upload_ms(size, task) };
        begins_ms + downloads_ms + self.exec_ms(size, task) + upload_ms
    }

    /// Whether anything that the task moves has a size that was only guessed.
    pub fn moves_guessed(&self, task: u32) -> bool {
        self.graph.reads(task).iter().chain(self.graph.writes(task)).any(|&o| self.is_guessed(o))
    }

    /// Whether the size of an object was neither measured nor stated. What is then taken for it follows the
    /// inputs of its task, along a chain of such tasks ever farther from the truth: it may slow a plan down,
    /// and is no reason to refuse one.
    fn is_guessed(&self, object: u32) -> bool {
        let basis = |t: u32| self.problem.predictions.basis[t as usize];
        let is_stated = self.graph.objects()[object as usize].bytes_hint.is_some();
        !is_stated && self.maker(object).is_some_and(|t| basis(t) == Basis::None)
    }

    /// What [`Dense::allows`] says, found anew.
    pub fn suits(&self, size: u32, task: u32) -> bool {
        let (memory_mb, needed_mb) = (self.size(size).config.memory_mb, self.memory_mb_min[task as usize]);
        if self.is_pool(size) {
            return memory_mb >= needed_mb && self.is_pooled(task);
        }
        memory_mb >= needed_mb
            && self.life_needed_ms(size, task) <= self.life_ms_max
            && (self.problem.predictions.uncertainty.is_none()
                || self.p99_ms(size, task) <= LIFE_SHARE * self.life_ms_max)
    }

    /// What [`Dense::suits`] says of every task on every size.
    pub(super) fn all_that_suits(&self) -> Vec<bool> {
        let sizes = self.sizes.len();
        let mut allowed = vec![false; sizes * self.graph.len()];
        for (c, size) in (0..).zip(&self.sizes) {
            let places = allowed.iter_mut().skip(c as usize).step_by(sizes);
            if self.pool.is_some() || self.problem.predictions.uncertainty.is_some() {
                (0..).zip(places).for_each(|(t, allowed)| *allowed = self.suits(c, t));
                continue;
            }
            // Most tasks are far from the end of a life whatever they move, which takes longer to add up.
            let (memory_mb, sure_ms) = (size.config.memory_mb, self.life_ms_max - self.most_around_ms(c));
            let rows = self.memory_mb_min.iter().zip(&self.exec_ms[c as usize]);
            for (t, (allowed, (needed_mb, exec_ms))) in (0..).zip(places.zip(rows)) {
                *allowed = memory_mb >= *needed_mb
                    && (*exec_ms <= sure_ms || self.life_needed_ms(c, t) <= self.life_ms_max);
            }
        }
        allowed
    }

    /// At least what [`Dense::life_needed_ms`] adds to the time of any task on this size.
    fn most_around_ms(&self, size: u32) -> f64 {
        let at = self.size(size);
        let most_reads = self.reads_from.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0);
        let most_bytes = self.objects.iter().map(|o| o.bytes).max().unwrap_or(0) as f64;
        let each_ms = at.transfer.download_latency_ms + most_bytes * at.transfer.download_ms_per_byte;
        let begins_ms = at.startup.cold_ms.max(at.startup.warm_ms) + self.dispatch_ms;
        let uploads =
            self.uploads.iter().fold((0, 0), |most, s| (most.0.max(s.objects), most.1.max(s.bytes)));
        let uploads_ms = f64::from(uploads.0) * at.transfer.upload_latency_ms
            + uploads.1 as f64 * at.transfer.upload_ms_per_byte;
        begins_ms + f64::from(most_reads) * each_ms + uploads_ms
    }

    /// Whether any size allows the task.
    pub(super) fn check_fits(&self, task: u32) -> Result<(), PlanFailure> {
        if self.smallest_allowed(task).is_some() {
            return Ok(());
        }
        let id = self.problem.workflow.task(task).id.clone();
        let needed_mb = self.memory_mb_min[task as usize];
        let largest_mb = self.sizes.iter().map(|s| s.config.memory_mb).max().unwrap_or(0);
        if needed_mb > largest_mb {
            return Err(PlanFailure::Memory { task: id, needed_mb, largest_mb });
        }
        let life_ms_max = self.life_ms_max;
        let large_enough = || (0..self.size_count()).filter(|&c| self.size(c).config.memory_mb >= needed_mb);
        let least = |of: &dyn Fn(u32) -> f64| large_enough().map(of).fold(f64::INFINITY, f64::min);
        let exec_ms = least(&|c| self.exec_ms(c, task));
        if exec_ms > life_ms_max {
            return Err(PlanFailure::TooLong { task: id, exec_ms, life_ms_max });
        }
        let needed_ms = least(&|c| self.life_needed_ms(c, task));
        if needed_ms > life_ms_max {
            return Err(PlanFailure::TooLongWithTransfers { task: id, exec_ms, needed_ms, life_ms_max });
        }
        let p99_ms = least(&|c| self.p99_ms(c, task));
        Err(PlanFailure::TooLongAtTimes { task: id, p99_ms, life_ms_max })
    }
}
