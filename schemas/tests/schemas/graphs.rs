//! Graphs: what is a DAG is accepted with a sound dense form, what is none is refused with the reason.

use std::collections::{BTreeSet, HashMap};

use foresail_schemas::graph::GraphError;
use foresail_schemas::workflow::{Input, WorkflowError, WorkflowSpec};
use foresail_schemas::{ObjectName, TaskId, Workflow};
use proptest::prelude::*;

use crate::builders;

/// Everything that the dense graph promises.
pub fn assert_invariants(workflow: &Workflow) {
    let graph = workflow.graph();
    let tasks = 0..workflow.tasks().len() as u32;
    assert_eq!(graph.len(), tasks.len());
    let mut place = vec![usize::MAX; tasks.len()];
    for (at, &t) in graph.order().iter().enumerate() {
        place[t as usize] = at;
    }
    assert!(place.iter().all(|&p| p != usize::MAX), "the order has every task once");
    for t in tasks.clone() {
        assert_eq!(graph.find(&workflow.task(t).id), Some(t));
        distinct(graph.parents(t));
        distinct(graph.reads(t));
        assert!(graph.children(t).is_sorted());
        for (bit, &parent) in graph.parents(t).iter().enumerate() {
            assert!(place[parent as usize] < place[t as usize]);
            assert!(graph.children(parent).contains(&t));
            assert_eq!(graph.edge_bit(parent, t), Some(bit as u32));
        }
        for &child in graph.children(t) {
            assert!(graph.parents(child).contains(&t));
        }
        for &object in graph.reads(t) {
            assert!(graph.consumers(object).contains(&t));
            if let Some(producer) = graph.objects()[object as usize].producer {
                assert!(graph.parents(t).contains(&producer));
            }
        }
        for (output, &object) in graph.writes(t).iter().enumerate() {
            let stored = &graph.objects()[object as usize];
            assert_eq!((stored.producer, stored.output), (Some(t), output as u32));
        }
        assert_eq!(graph.writes(t).len(), workflow.task(t).output_names().len());
    }
    for object in 0..graph.objects().len() as u32 {
        distinct(graph.consumers(object));
        assert!(graph.consumers(object).iter().all(|&t| graph.reads(t).contains(&object)));
    }
    assert!(graph.sources().all(|t| graph.parents(t).is_empty()));
    assert!(graph.sinks().all(|t| graph.children(t).is_empty()));
    assert!(graph.sources().count() > 0 && graph.sinks().count() > 0);
}

fn distinct(row: &[u32]) {
    assert_eq!(row.iter().collect::<BTreeSet<_>>().len(), row.len(), "{row:?}");
}

/// The tasks that `spec` says `task` waits for.
fn waits_for<'a>(spec: &'a WorkflowSpec, task: &TaskId) -> Vec<&'a TaskId> {
    let task = spec.tasks.iter().find(|t| t.id == *task).unwrap();
    let inputs = task.inputs.iter().filter_map(|input| match input {
        Input::Task { task, .. } => Some(task),
        Input::External { .. } | Input::Value { .. } => None,
    });
    inputs.chain(&task.after).collect()
}

proptest! {
    #[test]
    fn random_dags_are_accepted_and_sound(spec in builders::workflow_spec(), seed in any::<u64>()) {
        // The order of the tasks must not matter: rotate it so that children may stand before parents.
        let mut spec = spec;
        let by = seed as usize % spec.tasks.len();
        spec.tasks.rotate_left(by);
        let workflow = spec.clone().check().unwrap();
        assert_invariants(&workflow);
        let edges: usize = (0..spec.tasks.len() as u32).map(|t| workflow.graph().parents(t).len()).sum();
        let said: usize = spec.tasks.iter()
            .map(|t| waits_for(&spec, &t.id).into_iter().collect::<BTreeSet<_>>().len())
            .sum();
        prop_assert_eq!(edges, said);
    }

    #[test]
    fn a_back_edge_is_refused_with_a_cycle_that_is_there(
        spec in builders::workflow_spec(), at in any::<prop::sample::Index>()
    ) {
        let mut spec = spec;
        let last = spec.tasks.len() - 1;
        let first = at.index(spec.tasks.len());
        // A path from `first` to the last task and an edge back.
        for t in first..last {
            let parent = spec.tasks[t].id.clone();
            spec.tasks[t + 1].after.push(parent);
        }
        let child = spec.tasks[last].id.clone();
        spec.tasks[first].after.push(child);
        let Err(WorkflowError::Graph(GraphError::Cycle(cycle))) = spec.clone().check() else {
            return Err(TestCaseError::fail("the cycle was not refused"));
        };
        prop_assert!(!cycle.is_empty());
        prop_assert_eq!(cycle.iter().collect::<BTreeSet<_>>().len(), cycle.len());
        for (at, task) in cycle.iter().enumerate() {
            let next = &cycle[(at + 1) % cycle.len()];
            prop_assert!(waits_for(&spec, next).contains(&task), "{} does not wait for {}", next, task);
        }
    }

    #[test]
    fn references_to_nothing_are_refused(
        spec in builders::workflow_spec(), at in any::<prop::sample::Index>()
    ) {
        let at = at.index(spec.tasks.len());
        let nowhere: TaskId = "nowhere".parse().unwrap();
        let task = spec.tasks[at].id.clone();

        let mut after = spec.clone();
        after.tasks[at].after.push(nowhere.clone());
        let expected = GraphError::DanglingTask { task: task.clone(), parent: nowhere.clone() };
        prop_assert_eq!(after.check().unwrap_err(), WorkflowError::Graph(expected.clone()));

        let mut reads = spec.clone();
        reads.tasks[at].inputs.push(Input::task(nowhere, ObjectName::default()));
        prop_assert_eq!(reads.check().unwrap_err(), WorkflowError::Graph(expected));

        let mut no_output = spec;
        let parent = no_output.tasks[0].id.clone();
        let output: ObjectName = "no-such-output".parse().unwrap();
        let text = output.to_string();
        no_output.tasks[at].inputs.push(Input::task(parent.clone(), output));
        let expected = GraphError::DanglingOutput { task, parent, output: text };
        prop_assert_eq!(no_output.check().unwrap_err(), WorkflowError::Graph(expected));
    }

    #[test]
    fn double_ids_are_refused(spec in builders::workflow_spec(), at in any::<prop::sample::Index>()) {
        let mut spec = spec;
        let twin = spec.tasks[at.index(spec.tasks.len())].clone();
        let id = twin.id.clone();
        spec.tasks.push(twin);
        prop_assert_eq!(spec.check().unwrap_err(), WorkflowError::Graph(GraphError::DuplicateTask(id)));
    }

    #[test]
    fn objects_are_shared_by_their_readers(workflow in builders::workflow()) {
        let graph = workflow.graph();
        let mut outside: HashMap<&str, u32> = HashMap::new();
        for (t, task) in workflow.tasks().iter().enumerate() {
            for input in &task.inputs {
                if let Input::External { uri, .. } = input {
                    *outside.entry(uri).or_default() += 1;
                    let is_outside = |o: &u32| graph.objects()[*o as usize].producer.is_none();
                    prop_assert!(graph.reads(t as u32).iter().any(is_outside));
                }
            }
        }
        let external = graph.objects().iter().filter(|o| o.producer.is_none()).count();
        prop_assert_eq!(external, outside.len());
    }
}

#[test]
fn a_workflow_without_tasks_or_with_a_limit_of_zero_is_refused() {
    let check = |text: &str, expect: &str| {
        let error = serde_json::from_str::<Workflow>(text).unwrap_err().to_string();
        assert!(error.contains(expect), "`{error}` should contain `{expect}`");
    };
    check(r#"{"name":"w","tasks":[]}"#, "no tasks");
    let task = |more: &str| format!(r#"{{"name":"w","tasks":[{{"id":"a","name":"f","run":"x"{more}}}]}}"#);
    check(&task(r#","memory_mb_min":0"#), "memory_mb_min");
    check(&task(r#","attempts_max":0"#), "attempts_max");
    check(&task(r#","timeout_ms":0"#), "greater than 0");
    check(&task(r#","after":["a"]"#), "circle");
    check(&task(r#","outputs":[{"name":"x"},{"name":"x"}]"#), "writes `x` twice");
    let many: Vec<String> = (0..20).map(|n| format!(r#"{{"name":"x{}"}}"#, n % 19)).collect();
    check(&task(&format!(r#","outputs":[{}]"#, many.join(","))), "writes `x0` twice");
    check(r#"{"name":"w","tasks":[{"id":"a","name":"f","run":""}]}"#, "command of task `a`");
}

#[test]
fn an_output_is_found_by_its_name_among_few_and_among_many() {
    for outputs in [1_u32, 8, 9, 40] {
        let names: Vec<String> = (0..outputs).map(|n| format!(r#"{{"name":"x{n}"}}"#)).collect();
        let read: Vec<String> =
            (0..outputs).rev().map(|n| format!(r#"{{"task":"a","output":"x{n}"}}"#)).collect();
        let (names, read) = (names.join(","), read.join(","));
        let maker = format!(r#"{{"id":"a","name":"f","run":"x","outputs":[{names}]}}"#);
        let tasks = format!(r#"{maker},{{"id":"b","name":"f","run":"x","inputs":[{read}]}}"#);
        let whole = |tasks: &str| format!(r#"{{"name":"w","tasks":[{tasks}]}}"#);
        let workflow: Workflow = serde_json::from_str(&whole(&tasks)).unwrap();
        assert_invariants(&workflow);
        assert!(workflow.graph().reads(1).iter().copied().eq((0..outputs).rev()), "{outputs}");
        let missing = tasks.replace(r#""output":"x0""#, r#""output":"x99""#);
        let error = serde_json::from_str::<Workflow>(&whole(&missing)).unwrap_err().to_string();
        assert!(error.contains("reads `x99` of `a`"), "{error}");
    }
}
