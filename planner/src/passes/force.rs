//! Workers that are started beforehand because the workflow asks for it, whether that pays or not.
//!
//! Pre-load and task-dup that a workflow forces are in every timing pass; a pre-warming needs times, so it
//! is set once a plan has some.

use crate::dense::Dense;
use crate::explain::Candidate;
use crate::extras::PRE_WARM;
use crate::passes::prewarm::Clock;
use crate::timing::Timing;

/// The candidate with a pre-warming for every task that the workflow forces one on and that has none;
/// nothing where there is no such task.
pub(crate) fn with_forced(dense: &Dense, candidate: &Candidate) -> Option<Candidate> {
    let warmings = &candidate.assignment.extras.warmings;
    let is_open = |&t: &u32| dense.forced_flags(t) & PRE_WARM != 0 && !warmings.iter().any(|w| w.serves == t);
    let open: Vec<u32> = if dense.forces() { (0..dense.len()).filter(is_open).collect() } else { Vec::new() };
    if open.is_empty() {
        return None;
    }
    let (mut assignment, timed) = (candidate.assignment.clone(), &candidate.timed);
    let clock = Clock { dense, timed };
    for t in open {
        let latest_ms = clock.latest_ms(&candidate.assignment, t);
        assignment.extras.warmings.push(clock.at(assignment.size[t as usize], t, latest_ms));
    }
    let mut timing = Timing::new(dense);
    let summary = timing.pass(&assignment);
    Some(Candidate { label: candidate.label.clone(), assignment, timed: timing.timed(summary) })
}
