//! Decisions in simulated runs: what a task that decides is taken to decide, who hears of what is skipped.

use std::collections::BTreeSet;

use foresail_choreography::Event;
use foresail_schemas::decision::{Decision, Wanted};
use foresail_schemas::graph::Graph;

use super::World;

impl World<'_> {
    /// Tells the planned workers of tasks that will not run.
    pub(super) fn tell_skipped(&mut self, tasks: &[u32]) {
        let workers: BTreeSet<u32> = tasks.iter().filter_map(|&task| self.view.worker_index(task)).collect();
        let told = workers.iter().flat_map(|&worker| &self.listeners[worker as usize]);
        let told: Vec<usize> = told.map(|listener| listener.id).collect();
        for id in told {
            let hint = Event::Hint { ready: Vec::new(), committed: Vec::new(), skipped: tasks.to_vec() };
            self.hint_later(id, hint);
        }
    }
}

/// The decision by which most tasks run: the largest width, or the first branch.
pub(super) fn largest(graph: &Graph, task: u32) -> Option<Decision> {
    let conditions = || graph.children(task).iter().filter_map(|&child| graph.condition(child));
    let wanted = || conditions().filter(|(decider, _)| *decider == task).map(|(_, wanted)| wanted);
    let width = wanted().filter_map(|wanted| match wanted {
        Wanted::Above(place) => Some(place + 1),
        Wanted::Is(_) => None,
    });
    let branch = wanted().find_map(|wanted| match wanted {
        Wanted::Is(text) => Some(Decision::Branch(text.clone())),
        Wanted::Above(_) => None,
    });
    graph.decides(task).then(|| match (width.max(), branch) {
        (None, Some(branch)) => branch,
        (width, _) => Decision::Width(width.unwrap_or(0)),
    })
}
