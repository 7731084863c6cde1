//! Task-dup: which tasks a worker that waits for them may run itself.
//!
//! Suitable is a task that another worker waits for longest, that has begun before, and whose code takes
//! less time there than storing and fetching what it makes. A copy occupies a worker that waits anyway, but
//! it delays what becomes ready meanwhile, which the timing pass tells.

use crate::dense::{Dense, NONE};
use crate::extras::{Extras, TASK_DUP, may_be_copied};
use crate::passes::{Bench, State};

pub(super) fn derive(bench: &mut Bench, mut state: State) -> State {
    let dense = bench.dense;
    let all: Vec<u32> = (0..dense.len()).filter(|&t| is_suitable(dense, &state, t)).collect();
    if all.is_empty() {
        return state;
    }
    let give_all = |extras: &mut Extras| {
        all.iter().for_each(|&t| extras.give(t, TASK_DUP, dense.len()));
    };
    if !bench.try_change(&mut state, give_all) {
        bench.along_path(&mut state, TASK_DUP, |state, t| is_suitable(dense, state, t));
    }
    state
}

fn is_suitable(dense: &Dense, state: &State, task: u32) -> bool {
    let (assignment, timed) = (&state.assignment, &state.timed);
    let own = assignment.worker[task as usize];
    let place = |t: u32| (assignment.worker[t as usize], assignment.size[t as usize]);
    if dense.forced_flags(task) & TASK_DUP != 0 || !may_be_copied(dense, task, place) {
        return false;
    }
    let waits = |&c: &u32| {
        let worker = assignment.worker[c as usize];
        worker != NONE
            && worker != own
            && timed.cause[c as usize] == task
            && dense.exec_ms(assignment.size[c as usize], task) <= way_ms(dense, state, task, c)
    };
    dense.graph.children(task).iter().any(waits)
}

/// What storing the outputs of a task and fetching them for a child takes, beside the round trip.
fn way_ms(dense: &Dense, state: &State, task: u32, child: u32) -> f64 {
    let size = state.assignment.size[child as usize];
    let made = dense.stored_reads(child).iter();
    let made = made.filter(|&&o| dense.maker(o) == Some(task));
    let fetch_ms: f64 = made.map(|&o| dense.download_ms(size, o)).sum();
    dense.upload_ms(state.assignment.size[task as usize], task) + fetch_ms + dense.dispatch_ms
}
