//! What the tasks of a workflow tell each other about shapes.
//!
//! The pool is the sum of what at most [`POOL_TASKS_MAX`] tasks tell: those of the smallest name hashes among
//! the tasks that were measured at two CPU shares. Which they are depends on the history alone, and a bounded
//! sample keeps both the first question after a change and a change of the pool cheap. The sum is computed
//! at the first question that leans on it.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use foresail_schemas::TaskName;

use crate::shape::Pool;

/// Most tasks that tell the pool: the error of what they tell in the mean falls with the root of their
/// number, and at this one it is far below the differences between tasks.
pub const POOL_TASKS_MAX: usize = 24;

/// The tasks that tell the pool.
#[derive(Debug, Clone, Default)]
pub struct Members {
    ranked: BTreeSet<(u64, TaskName)>,
}

/// Whether the pool has to be summed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing that the pool rests on changed.
    None,
    /// A member came or changed.
    Changed,
}

impl Members {
    /// Notes that a task measured at two shares is there or changed.
    pub fn note(&mut self, task: &TaskName) -> Effect {
        let rank = rank(task);
        let full = self.ranked.len() >= POOL_TASKS_MAX;
        if full && self.ranked.last().is_some_and(|(last, name)| (*last, name) < (rank, task)) {
            return Effect::None;
        }
        if self.ranked.insert((rank, task.clone())) && full {
            self.ranked.pop_last();
        }
        Effect::Changed
    }
}

/// FNV-1a: the same on every machine, in every version. Source: G. Fowler, L. C. Noll, K.-P. Vo, "The FNV
/// non-cryptographic hash algorithm", RFC 9923.
fn rank(task: &TaskName) -> u64 {
    task.as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The pool of all snapshots between two changes of its members.
#[derive(Debug, Default)]
pub struct SharedPool {
    members: Vec<TaskName>,
    /// The last one that was summed before, so that an equal pool is the same one.
    former: Option<Arc<Pool>>,
    sum: OnceLock<Arc<Pool>>,
}

impl SharedPool {
    /// The pool of `members`, to be summed later.
    pub fn after(&self, members: &Members) -> Self {
        Self {
            members: members.ranked.iter().map(|(_, name)| name.clone()).collect(),
            former: self.sum.get().or(self.former.as_ref()).cloned(),
            sum: OnceLock::new(),
        }
    }

    /// The pool, where it was summed already.
    pub fn known(&self) -> Option<&Arc<Pool>> {
        self.sum.get()
    }

    /// The pool, summed with `add` for each member at the first question.
    pub fn get(&self, add: impl Fn(&TaskName, &mut Pool)) -> &Arc<Pool> {
        self.sum.get_or_init(|| {
            let mut sum = Pool::default();
            self.members.iter().for_each(|name| add(name, &mut sum));
            let sum = sum.coarse();
            match &self.former {
                Some(former) if **former == sum => Arc::clone(former),
                _ => Arc::new(sum),
            }
        })
    }
}
