//! Who hears of results and of ready tasks because of an optimisation, and of which.

use std::collections::HashMap;

use foresail_choreography::PlanView;
use foresail_schemas::graph::Graph;

/// Who hears of a task that it does not own, beside nobody.
#[derive(Debug, Default)]
pub(super) struct Audience {
    /// Planned workers that fetch its outputs beforehand.
    pub of_commit: Vec<u32>,
    /// Planned workers that may run it too.
    pub of_ready: Vec<u32>,
}

/// Who hears of whose tasks because of an optimisation.
pub(super) fn audiences(graph: &Graph, view: &PlanView) -> HashMap<u32, Audience> {
    let mut audiences: HashMap<u32, Audience> = HashMap::new();
    // Worker by worker, so that nobody is added twice but in a row.
    for worker in 0..view.worker_count() as u32 {
        for &task in view.tasks_of(worker) {
            for &parent in graph.parents(task) {
                if view.is_preloaded(task) {
                    audiences.entry(parent).or_default().of_commit.push(worker);
                }
                if view.may_be_copied(parent) && view.worker_index(parent) != Some(worker) {
                    audiences.entry(parent).or_default().of_ready.push(worker);
                }
            }
        }
    }
    for audience in audiences.values_mut() {
        audience.of_commit.dedup();
        audience.of_ready.dedup();
    }
    audiences
}
