//! What follows from a decision: which tasks are skipped, and whose in-edges that settles.
//!
//! One rule for the ledger, which keeps the truth, and for a worker that runs ahead of it. A task whose
//! condition does not hold is skipped; so is every task that needs something of a skipped one: an input that
//! is not optional, its end (`after`), its decision (`when`). A task that only reads it as optional inputs
//! is not: the in-edge counts as marked, as that of a task with a result does.

use std::collections::{BTreeMap, BTreeSet};

use foresail_schemas::decision::Decision;
use foresail_schemas::graph::Graph;

/// Whether `child` may run when `parent` has decided `decision`, as far as that says it.
pub(crate) fn is_called(graph: &Graph, child: u32, parent: u32, decision: &Decision) -> bool {
    graph.condition(child).is_none_or(|(decider, wanted)| decider != parent || wanted.holds(decision))
}

/// The tasks that are skipped because `decider` has decided `decision`, ascending; some may have been skipped
/// before, because of another.
pub(crate) fn skipped_by(graph: &Graph, decider: u32, decision: &Decision) -> Vec<u32> {
    let not_called = |&&child: &&u32| !is_called(graph, child, decider, decision);
    closure(graph, graph.children(decider).iter().filter(not_called).copied().collect())
}

/// All tasks that `decider` may decide to skip, ascending.
pub(crate) fn decided_by(graph: &Graph, decider: u32) -> Vec<u32> {
    let is_its = |&&child: &&u32| graph.condition(child).is_some_and(|(by, _)| by == decider);
    closure(graph, graph.children(decider).iter().filter(is_its).copied().collect())
}

/// These tasks and all that need something of them.
fn closure(graph: &Graph, mut found: Vec<u32>) -> Vec<u32> {
    let mut all: BTreeSet<u32> = found.iter().copied().collect();
    while let Some(task) = found.pop() {
        let needs = graph.children(task).iter().filter(|&&child| !graph.is_optional(task, child));
        found.extend(needs.filter(|&&child| all.insert(child)));
    }
    all.into_iter().collect()
}

/// The tasks that wait for `decider` or for one of `newly` skipped tasks and are not among the `skipped`
/// ones, ascending, and how many of its in-edges that settles.
pub(crate) fn followers(graph: &Graph, decider: u32, newly: &[u32], skipped: &[u32]) -> Vec<(u32, u32)> {
    if skipped.is_empty() {
        return graph.children(decider).iter().map(|&child| (child, 1)).collect();
    }
    let mut followers: BTreeMap<u32, u32> = BTreeMap::new();
    let children = newly.iter().chain([&decider]).flat_map(|&task| graph.children(task));
    for &child in children.filter(|child| skipped.binary_search(child).is_err()) {
        *followers.entry(child).or_default() += 1;
    }
    followers.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use foresail_schemas::Workflow;
    use serde_json::json;

    use super::*;

    /// `d` decides how many of `p0` to `p2` run; `s` reads what there is, `n` needs the second, `e` waits
    /// for `n`, and `o` reads both of them as optional inputs and needs the first.
    fn workflow() -> Workflow {
        let place = |at: u32| {
            json!({"id": format!("p{at}"), "name": "p", "run": "true", "inputs": [{"task": "d"}],
                "when": {"task": "d", "above": at}})
        };
        let all = [0, 1, 2].map(|at| json!({"task": format!("p{at}"), "optional": true}));
        serde_json::from_value(json!({"name": "w", "tasks": [
            {"id": "d", "name": "d", "run": "true", "decision": "out"},
            place(0), place(1), place(2),
            {"id": "s", "name": "s", "run": "true", "inputs": all},
            {"id": "n", "name": "n", "run": "true", "inputs": [{"task": "p1"}]},
            {"id": "e", "name": "e", "run": "true", "after": ["n"]},
            {"id": "o", "name": "o", "run": "true", "inputs":
                [{"task": "n", "optional": true}, {"task": "e", "optional": true}, {"task": "p0"}]},
        ]}))
        .unwrap()
    }

    fn skipped(width: u64) -> Vec<String> {
        let workflow = workflow();
        let skipped = skipped_by(workflow.graph(), 0, &Decision::Width(width));
        skipped.into_iter().map(|task| workflow.task(task).id.to_string()).collect()
    }

    #[test]
    fn what_needs_something_of_a_skipped_task_is_skipped_and_what_can_do_without_is_not() {
        assert_eq!(skipped(0), ["p0", "p1", "p2", "n", "e", "o"]);
        assert_eq!(skipped(1), ["p1", "p2", "n", "e"]);
        assert_eq!(skipped(2), ["p2"]);
        assert!(skipped(3).is_empty() && skipped(99).is_empty());
    }

    #[test]
    fn a_decision_is_about_what_waits_for_it_and_what_needs_that() {
        assert_eq!(decided_by(workflow().graph(), 0), [1, 2, 3, 5, 6, 7]);
        assert!(decided_by(workflow().graph(), 5).is_empty());
    }

    #[test]
    fn every_edge_of_a_settled_task_is_counted_once() {
        let workflow = workflow();
        let graph = workflow.graph();
        let skipped = skipped_by(graph, 0, &Decision::Width(1));
        assert_eq!(followers(graph, 0, &skipped, &skipped), [(1, 1), (4, 2), (7, 2)]);
        assert_eq!(followers(graph, 0, &[], &[]), [(1, 1), (2, 1), (3, 1)]);
    }
}
