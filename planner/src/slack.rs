//! Slack: how much later a task may end without the whole ending later, read from a timed schedule, so that
//! contention on workers and links is in it.

use crate::assignment::Assignment;
use crate::dense::{Dense, NONE};
use crate::timing::Timed;

/// Per task: how much later it may end without the whole ending after `limit_ms`, with the order on workers
/// as timed.
pub(crate) fn slack_ms(dense: &Dense, assignment: &Assignment, timed: &Timed, limit_ms: f64) -> Vec<f64> {
    let tasks = dense.len() as usize;
    let mut next = vec![NONE; tasks];
    let mut by_end: Vec<u32> = (0..dense.len()).collect();
    by_end.sort_by(|&a, &b| timed.end_ms[a as usize].total_cmp(&timed.end_ms[b as usize]).then(a.cmp(&b)));
    let mut last = vec![NONE; assignment.workers as usize];
    for &t in &by_end {
        let w = assignment.worker[t as usize];
        if w != NONE {
            let before = std::mem::replace(&mut last[w as usize], t);
            if before != NONE {
                next[before as usize] = t;
            }
        }
    }
    let mut slack_ms = vec![0.0_f64; tasks];
    for &t in by_end.iter().rev() {
        let at = t as usize;
        let end_ms = timed.end_ms[at];
        let following = dense.graph.children(t).iter().copied().chain((next[at] != NONE).then_some(next[at]));
        let gaps = following.map(|s| {
            let gap_ms = timed.start_ms[s as usize] - end_ms - asks_ms(dense, assignment, s);
            slack_ms[s as usize] + gap_ms.max(0.0)
        });
        slack_ms[at] = gaps.fold((limit_ms - end_ms).max(0.0), f64::min);
    }
    slack_ms
}

/// The round trip that a task waits for, unless all its parents run in its worker.
fn asks_ms(dense: &Dense, assignment: &Assignment, task: u32) -> f64 {
    let worker = assignment.worker[task as usize];
    let is_made_here = |&p: &u32| assignment.worker[p as usize] == worker;
    let runs_ahead = worker != NONE && dense.graph.parents(task).iter().all(is_made_here);
    if runs_ahead { 0.0 } else { dense.dispatch_ms }
}
