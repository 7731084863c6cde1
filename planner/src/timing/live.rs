//! One invocation in the timing pass.

use crate::dense::NONE;
use crate::link::Links;
use crate::timing::lists::List;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Phase {
    Joining,
    Working,
    Leaving,
    Gone,
}

/// What a worker may hold of each kind is limited by its lanes; the kinds stand side by side.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hand {
    /// To be asked for with the next request.
    Leasing,
    /// Asked for by the request that is on its way.
    Asked,
    /// Granted by the request that is on its way.
    Granted,
}

pub(super) const HANDS: usize = 3;

/// An invocation that lives.
#[derive(Debug)]
pub(super) struct Live {
    pub start_ms: f64,
    pub links: Links,
    pub idle_since_ms: Option<f64>,
    pub worker: u32,
    pub size: u32,
    pub container: u32,
    /// What it was started for, until it is up.
    pub first: List,
    /// Its own children made ready by the request that is on its way.
    pub own: List,
    /// The others without a living owner.
    pub fates: List,
    pub handed_over: List,
    /// To be committed with the next request.
    pub commits: List,
    /// The next ready task; further ones are in `queue`.
    pub next: u32,
    pub queue: u32,
    pub hands: [u16; HANDS],
    /// Tasks that hold a lane.
    pub running: u32,
    /// Tasks that hold none any more while their outputs are stored.
    pub storing: u32,
    /// Of those that hold a lane: how many store as well, since too many others do.
    pub blocked: u32,
    /// Tasks of the worker that this invocation does not know to be done.
    pub mine: u32,
    pub pauses: u32,
    /// Number of results when the run's state decided on its join.
    pub joined_nth: u32,
    /// When a task last gave a lane back, and which.
    pub free_ms: f64,
    pub last_task: u32,
    /// The task whose end gave it the place it waited for.
    pub place_cause: u32,
    pub phase: Phase,
    pub is_waiting: bool,
    /// Whether the run was over when the request was decided.
    pub saw_end: bool,
    pub stays: bool,
    /// Whether it has heard of the end.
    pub is_stopped: bool,
    /// The task whose code runs, where nothing waits for its end, and when that ends; see `execute`.
    pub computes: u32,
    pub computed_ms: f64,
    /// Whether the end of its code is on the agenda all the same.
    pub wakes: bool,
}

impl Live {
    /// Lanes that nothing holds or is asked for.
    pub fn free_lanes(&self, lanes: u32) -> u32 {
        let asked = self.hands[Hand::Leasing as usize] + self.hands[Hand::Asked as usize];
        lanes.saturating_sub(self.running + u32::from(asked))
    }

    /// Whether there is anything to do but to wait.
    pub fn has_work(&self) -> bool {
        let asks = self.hands[Hand::Leasing as usize] + self.hands[Hand::Asked as usize];
        (self.running + self.storing + u32::from(asks) > 0) | (self.next != NONE)
    }

    /// One that has nothing to do yet.
    pub fn new(worker: u32, size: u32, container: u32, start_ms: f64, links: Links, phase: Phase) -> Self {
        Self {
            start_ms,
            links,
            idle_since_ms: None,
            worker,
            size,
            container,
            first: List::EMPTY,
            own: List::EMPTY,
            fates: List::EMPTY,
            handed_over: List::EMPTY,
            commits: List::EMPTY,
            next: NONE,
            queue: NONE,
            hands: [0; HANDS],
            running: 0,
            storing: 0,
            blocked: 0,
            mine: 0,
            pauses: 0,
            joined_nth: 0,
            free_ms: 0.0,
            last_task: NONE,
            place_cause: NONE,
            phase,
            is_waiting: false,
            saw_end: false,
            stays: false,
            is_stopped: false,
            computes: NONE,
            computed_ms: 0.0,
            wakes: false,
        }
    }
}
