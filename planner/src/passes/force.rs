//! Workers that are started beforehand because the workflow asks for it, whether that pays or not.
//!
//! Pre-load and task-dup that a workflow forces are in every timing pass; a pre-warming needs times, so it
//! is set once a plan has some.

use std::collections::HashSet;

use crate::dense::Dense;
use crate::explain::Candidate;
use crate::extras::PRE_WARM;
use crate::passes::prewarm::Clock;
use crate::timing::Timing;

/// The candidate with a pre-warming for every task that the workflow forces one on and that has none, but one
/// for each worker: what comes to it later finds it running. Nothing where there is nothing to add.
pub(crate) fn with_forced(dense: &Dense, candidate: &Candidate) -> Option<Candidate> {
    if !dense.forces() {
        return None;
    }
    let (mut assignment, timed) = (candidate.assignment.clone(), &candidate.timed);
    let warmings = &mut assignment.extras.warmings;
    let is_open = |&t: &u32| dense.forced_flags(t) & PRE_WARM != 0 && !warmings.iter().any(|w| w.serves == t);
    let mut open: Vec<u32> = (0..dense.len()).filter(is_open).collect();
    // The first that a worker runs is the one that waits for it.
    open.sort_by(|&a, &b| timed.start_ms[a as usize].total_cmp(&timed.start_ms[b as usize]).then(a.cmp(&b)));
    let (clock, planned) = (Clock { dense, timed }, &candidate.assignment);
    let mut warmed: HashSet<usize> = warmings.iter().filter_map(|w| clock.life(planned, w.serves)).collect();
    for t in open {
        if clock.life(planned, t).is_none_or(|life| warmed.insert(life)) {
            let latest_ms = clock.latest_ms(planned, t);
            warmings.push(clock.at(planned.size[t as usize], t, latest_ms));
        }
    }
    if warmings.len() == planned.extras.warmings.len() {
        return None;
    }
    let mut timing = Timing::new(dense);
    let summary = timing.pass(&assignment);
    Some(Candidate { label: candidate.label.clone(), assignment, timed: timing.timed(summary) })
}
