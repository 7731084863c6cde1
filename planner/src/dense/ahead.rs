//! Reading what is asked about soon, so that it has come from memory by then.
//!
//! Whoever goes through a large workflow goes through more than fits into the caches near a core. Tasks of
//! one layer come in an order that no cache foresees; the order of the graph is one that it does. So what
//! stands in the columns for a task is read in that order, some time before anybody asks. Nothing depends on
//! it: it changes how long a pass takes and nothing else.

use crate::dense::Dense;

/// How many tasks before it is asked about a task is read: more than two layers of most workflows, and what
/// is read stays in a cache of 1 MB until then.
const AHEAD: usize = 2_000;

impl Dense<'_> {
    /// The task that comes some time after so many others.
    pub fn later(&self, done: usize) -> Option<u32> {
        self.graph.order().get(done + AHEAD).copied()
    }

    /// Reads what the graph and the columns have on a task, and what `object` has on the first object that it
    /// makes.
    pub fn look_at(&self, task: u32, object: impl Fn(usize) -> u32) -> u32 {
        let made = self.graph.writes(task).first().map_or(0, |&o| {
            let at = o as usize;
            self.objects[at].readers ^ object(at)
        });
        let read = self.stored_reads(task).first().copied().unwrap_or(0);
        let child = self.graph.children(task).first().copied().unwrap_or(0);
        made ^ read ^ child ^ self.uploads[task as usize].objects
    }
}
