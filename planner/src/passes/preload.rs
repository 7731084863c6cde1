//! Pre-load: whose inputs are fetched ahead.
//!
//! A fetch costs what the later download would have cost, so first all tasks that could gain get it. Where
//! that makes the plan no better, since fetches of one task delay those of another on the same link, only
//! tasks of the critical path do, as the source paper has it.

use crate::dense::{Dense, NONE};
use crate::extras::{Extras, PRE_LOAD};
use crate::passes::{Bench, State};

pub(super) fn derive(bench: &mut Bench, mut state: State) -> State {
    let dense = bench.dense;
    let standing = bench.timing.standing;
    let is_open = |t: u32| standing.is_none_or(|standing| !standing.has_begun(t));
    let gains = |state: &State, t: u32| is_open(t) && gains(dense, state, t);
    let all: Vec<u32> = (0..dense.len()).filter(|&t| gains(&state, t)).collect();
    if all.is_empty() {
        return state;
    }
    let give_all = |extras: &mut Extras| {
        all.iter().for_each(|&t| extras.give(t, PRE_LOAD, dense.len()));
    };
    if !bench.try_change(&mut state, give_all) {
        bench.along_path(&mut state, PRE_LOAD, gains);
    }
    state
}

/// Whether there is anything that the worker of a task could fetch ahead.
fn gains(dense: &Dense, state: &State, task: u32) -> bool {
    let worker = state.assignment.worker[task as usize];
    let elsewhere = |&o: &u32| {
        let maker = dense.maker(o);
        maker.is_none_or(|p| state.assignment.worker[p as usize] != worker)
    };
    worker != NONE
        && dense.forced_flags(task) & PRE_LOAD == 0
        && dense.stored_reads(task).iter().any(elsewhere)
}
