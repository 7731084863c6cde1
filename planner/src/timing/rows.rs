//! What a timing pass knows of each task and each planned worker.
//!
//! Most of a pass over a large workflow is waiting for memory, so rows hold what is asked together and no
//! more, and what is to come is read ahead of time.

use crate::dense::{NONE, fetch};
use crate::timing::Timing;
use crate::timing::lists::List;

/// How many tasks earlier the row of a task is asked for than what follows from its size.
const FARTHER: usize = 32;

/// When one task ran in a pass, and where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ran {
    pub start_ms: f64,
    pub end_ms: f64,
    /// The task that it waited for last, a parent or what ran before it in the same place.
    pub cause: u32,
    /// The invocation that it began on.
    pub ran_on: u32,
}

/// One task in a pass: how far it is. On which worker it is planned stands apart, in `planned_on`.
#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
pub(super) struct TaskState {
    pub ready_ms: f64,
    pub rank: u32,
    /// The parent that came last.
    pub filled_by: u32,
    /// Its place among the results; [`NONE`] as long as it has none.
    pub committed_nth: u32,
    /// Parents that have not run in the invocation `awaited_in`, as the only ones that count.
    pub awaited: u32,
    pub awaited_in: u32,
    pub size: u16,
    pub is_taken: bool,
    /// What is done beside running it, see `extras`, and [`SOURCE`]; or [`ABSENT`] alone.
    pub flags: u8,
}

// Half a cache line: most of a pass over a large workflow is waiting for these.
const _: () = assert!(size_of::<TaskState>() == 32);

/// A task without parents.
pub(super) const SOURCE: u8 = 0x80;
/// A task that does not run in this draw.
pub(super) const ABSENT: u8 = 0x40;

impl TaskState {
    pub fn size(&self) -> u32 {
        u32::from(self.size)
    }

    pub fn is_absent(&self) -> bool {
        self.flags & ABSENT != 0
    }
}

/// One planned worker in a pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct WorkerState {
    /// Alive invocation, as the run's state knows it.
    pub alive: u32,
    /// Place in the order of first invocations, which is the order of the names in the plan.
    pub named: u32,
    /// The request of it that waits for a place on the host.
    pub waiting: Option<u64>,
    /// Tasks without a result.
    pub left: u32,
    /// Ready tasks, the taken ones included until the next look.
    pub open: List,
    /// Those that nobody has taken; of no use where tasks run twice.
    pub open_count: u32,
    /// Where its tasks that fetch ahead begin that are not taken; [`NONE`] as long as nobody looked.
    pub fetching_from: u32,
    /// None of its tasks of this rank or a later one has anything to fetch yet.
    pub fetching_to: u64,
}

/// One whose tasks have not begun.
pub(super) const NEW_WORKER: WorkerState = WorkerState {
    alive: NONE,
    named: NONE,
    waiting: None,
    left: 0,
    open: List::EMPTY,
    open_count: 0,
    fetching_from: NONE,
    fetching_to: 0,
};

impl WorkerState {
    /// A task of this rank has something to fetch.
    pub fn may_fetch(&mut self, rank: u32) {
        self.fetching_to = self.fetching_to.max(u64::from(rank) + 1);
    }
}

/// Name and number of a worker in one number that orders by the name.
pub(super) fn named(name: u32, worker: u32) -> u64 {
    u64::from(name) << 32 | u64::from(worker)
}

impl Timing<'_> {
    /// Asks for what is needed about a task that comes some time after those that have a result.
    #[inline(always)]
    pub(super) fn look_ahead(&self) {
        let done = self.committed as usize;
        let Some(later) = self.dense.later(done) else { return };
        fetch(&self.ran, later as usize);
        self.dense.look_at_exec(self.tasks[later as usize].size(), later);
        if let Some(object) = self.dense.look_at(later) {
            self.moved.look_at(object);
        }
        // Its size is read when it comes nearer.
        if let Some(still_later) = self.dense.later(done + FARTHER) {
            fetch(&self.tasks, still_later as usize);
        }
    }
}
