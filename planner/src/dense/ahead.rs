//! Asking for what is needed soon, so that it has come from memory by then.
//!
//! Whoever goes through a large workflow goes through more than fits into the caches near a core. Tasks of
//! one layer come in an order that no cache foresees; the order of the graph is one that it does. So what
//! stands in the columns for a task is asked for in that order, some time before anybody needs it. Nothing
//! depends on it: it changes how long a pass takes and nothing else.

use crate::dense::Dense;

/// How many tasks before it is needed a task is asked for: more than two layers of most workflows, and what
/// has come stays in a cache of 1 MB until then.
const AHEAD: usize = 2_000;

/// Asks for a row of a column and goes on. To read it would be to wait for it: a core does a few hundred
/// other instructions meanwhile, and then nothing.
#[inline(always)]
pub(crate) fn fetch<T: Copy>(column: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(row) = column.get(at) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: the address is that of a row, and the instruction changes nothing but caches.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(row).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::hint::black_box(column.get(at).copied());
}

impl Dense<'_> {
    /// The task that comes some time after so many others.
    pub fn later(&self, done: usize) -> Option<u32> {
        self.graph.order().get(done + AHEAD).copied()
    }

    /// Asks for what the graph and the columns have on a task; the first object that it makes, if any.
    #[inline(always)]
    pub fn look_at(&self, task: u32) -> Option<usize> {
        fetch(&self.uploads, task as usize);
        fetch(self.graph.children(task), 0);
        fetch(self.stored_reads(task), 0);
        let made = self.graph.writes(task).first().map(|&object| object as usize)?;
        fetch(&self.objects, made);
        Some(made)
    }

    /// Asks for the time of a task on a size.
    #[inline(always)]
    pub fn look_at_exec(&self, size: u32, task: u32) {
        fetch(&self.exec_ms[size as usize], task as usize);
    }
}
