//! Pre-warm: which workers are started beforehand, and when.
//!
//! A worker that starts at S shall find a container that is up by then and has not gone cold: the empty
//! invocation is sent in [S - (round trip + cold) - keep-alive, S - (round trip + cold)]. It hangs on a task
//! that runs then and that the start waits for, so that it shifts with it; where there is none, on the start
//! of the run. Whether another worker of the size takes the container the timing pass tells.
//!
//! Source of the window: the source paper's pre-warm, with the time of the start itself counted.

use crate::assignment::Assignment;
use crate::dense::{Dense, NONE};
use crate::extras::{Extras, Warming};
use crate::passes::{Bench, State};
use crate::slack::slack_ms;
use crate::timing::{Life, Timed};

/// Times that the warmings are set anew for the times that came out of them.
const ROUNDS_MAX: u32 = 4;
/// Most workers of a plan that are started beforehand.
pub(crate) const WARMINGS_MAX: usize = 10_000;

pub(super) fn derive(bench: &mut Bench, mut state: State) -> State {
    let dense = bench.dense;
    for _ in 0..ROUNDS_MAX {
        let warmings = wanted(dense, &state, Starts::Cold);
        if warmings.is_empty() {
            break;
        }
        // Who is started beforehand may take an idle container from under another, which then starts cold.
        let all = wanted(dense, &state, Starts::All);
        let is_better = all.len() > warmings.len() && set(bench, &mut state, &all);
        if !is_better && !try_warmings(bench, &mut state, &warmings) {
            break;
        }
    }
    if !state.assignment.extras.warmings.is_empty() {
        thin(bench, &mut state);
    }
    state
}

/// Sets these besides those that are there; where that makes the plan no better, halves of them.
fn try_warmings(bench: &mut Bench, state: &mut State, warmings: &[Warming]) -> bool {
    let is_better = set(bench, state, warmings);
    if is_better || warmings.len() < 2 || !bench.has_tries() {
        return is_better;
    }
    let (first, second) = warmings.split_at(warmings.len() / 2);
    let is_better = try_warmings(bench, state, first);
    try_warmings(bench, state, second) || is_better
}

/// Sets these besides those that are there, if that makes the plan better.
fn set(bench: &mut Bench, state: &mut State, warmings: &[Warming]) -> bool {
    bench.try_change(state, |extras| {
        let all = &mut extras.warmings;
        all.retain(|old| !warmings.iter().any(|new| new.serves == old.serves));
        all.extend(warmings);
    })
}

/// Leaves out what the plan is better without, by halves.
fn thin(bench: &mut Bench, state: &mut State) {
    let mut parts = vec![state.assignment.extras.warmings.clone()];
    while let Some(part) = parts.pop() {
        let drop = |extras: &mut Extras| {
            extras.warmings.retain(|w| !part.iter().any(|out| out.serves == w.serves));
        };
        if !bench.has_tries() || bench.try_change(state, drop) || part.len() < 2 {
            continue;
        }
        let (first, second) = part.split_at(part.len() / 2);
        parts.extend([second.to_vec(), first.to_vec()]);
    }
}

/// Which starts are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Starts {
    /// Those that are cold, or warm because of a warming.
    Cold,
    /// Those as well that find a container that another has left.
    All,
}

/// A warming for every worker whose start decides the makespan, or would if another did no more; by time.
fn wanted(dense: &Dense, state: &State, starts: Starts) -> Vec<Warming> {
    let (assignment, timed) = (&state.assignment, &state.timed);
    let limit_ms = timed.summary.makespan_ms;
    let slack_ms = slack_ms(dense, assignment, timed, limit_ms);
    let clock = Clock { dense, timed };
    let is_served = |task: u32| assignment.extras.warmings.iter().any(|w| w.serves == task);
    let gains = |life: &&Life| {
        let (size, first) = (life.size, life.first as usize);
        let gain_ms = dense.startup_ms(size, true) - dense.startup_ms(size, false);
        let is_looked_at = starts == Starts::All || life.is_cold || is_served(life.first);
        life.first != NONE && is_looked_at && slack_ms[first] < gain_ms
    };
    let lives = timed.lives.iter().filter(gains);
    lives.filter_map(|life| clock.warming(life.size, life.first, life.start_ms)).take(WARMINGS_MAX).collect()
}

/// The times of a plan, to hang something on.
pub(crate) struct Clock<'s> {
    pub dense: &'s Dense<'s>,
    pub timed: &'s Timed,
}

impl Clock<'_> {
    /// Starts a worker of `size` so that it is warm when that of `serves` starts; nothing where the run
    /// begins too late for that.
    pub fn warming(&self, size: u32, serves: u32, start_ms: f64) -> Option<Warming> {
        let latest_ms = start_ms - self.dense.startup_ms(size, true) - self.dense.dispatch_ms;
        (latest_ms >= 0.0).then(|| self.at(size, serves, latest_ms))
    }

    /// The place among the lives of that of the worker which runs a task; nothing for a flexible one that
    /// came to a worker that ran already.
    pub fn life(&self, assignment: &Assignment, task: u32) -> Option<usize> {
        let (worker, start_ms) = (assignment.worker[task as usize], self.timed.start_ms[task as usize]);
        let runs_it =
            |l: &Life| l.first == task || worker != NONE && l.worker == worker && l.start_ms <= start_ms;
        self.timed.lives.iter().rposition(runs_it)
    }

    /// When a worker for a task has to be started beforehand at the latest, or when the run begins.
    pub fn latest_ms(&self, assignment: &Assignment, task: u32) -> f64 {
        let life = self.life(assignment, task);
        // Where it came to a worker that ran already it is as if it got one of its own.
        let from_ms = life.map_or(self.timed.start_ms[task as usize], |at| self.timed.lives[at].start_ms);
        let size = assignment.size[task as usize];
        (from_ms - self.dense.startup_ms(size, true) - self.dense.dispatch_ms).max(0.0)
    }

    /// Starts a worker of `size` for `serves`, no later than at `latest_ms`.
    pub fn at(&self, size: u32, serves: u32, latest_ms: f64) -> Warming {
        let (timed, keep_alive_ms) = (self.timed, self.dense.problem.platform.keep_alive_ms);
        let mut after = timed.cause[serves as usize];
        while after != NONE && timed.start_ms[after as usize] > latest_ms {
            after = timed.cause[after as usize];
        }
        if after != NONE {
            // A worker that has told of its last task does not wait to start another.
            let (start_ms, end_ms) = (timed.start_ms[after as usize], timed.end_ms[after as usize]);
            let at_ms = latest_ms.min(end_ms);
            if latest_ms - at_ms <= keep_alive_ms {
                return Warming { size, after, delay_ms: at_ms - start_ms, serves };
            }
        }
        Warming { size, after: NONE, delay_ms: latest_ms, serves }
    }
}
