//! Large outputs that flexible workers keep in memory, by WUKONG's switches.

use foresail_schemas::Workflow;
use foresail_schemas::metric::Record;
use foresail_schemas::optimization::FlexibleRules;
use foresail_schemas::run::{Location, WorkerUsage};
use serde_json::json;

use crate::support::*;

const LARGE_BYTES: u64 = 100_000;

/// `make` writes a large object that three tasks read, whose small outputs `sum` reads.
fn fan() -> Workflow {
    let count = |id: &str| json!({"id": id, "name": "count", "run": "wc -c", "inputs": [{"task": "make"}]});
    let sum = json!({"id": "sum", "name": "sum", "run": {"function": "foresail.concat"},
        "inputs": [{"task": "a"}, {"task": "b"}, {"task": "c"}]});
    let make = burn("make", json!({"output_bytes": LARGE_BYTES}));
    workflow(json!([make, count("a"), count("b"), count("c"), sum]))
}

fn rules(cluster_fan_out: bool, large_output_bytes: u64) -> Option<FlexibleRules> {
    Some(FlexibleRules { cluster_fan_out, cluster_fan_in: true, delayed_io: true, large_output_bytes })
}

/// Runs the fan; gives what the workers used, where the large object is, and the measured tasks.
fn run(rules: Option<FlexibleRules>) -> (WorkerUsage, Location, usize) {
    let bench = Bench::new(|_| {});
    let workflow = fan();
    let mut plan = flexible(&workflow, config(256, 1.0));
    plan.flexible = rules;
    let run = bench.complete("r", &workflow, &plan);
    let mut usage = WorkerUsage::default();
    bench.store.summary(&run).usage.iter().for_each(|of_config| usage.add(&of_config.usage));
    let records = bench.store.records();
    let tasks = records.iter().filter(|r| matches!(r, Record::Task(_))).count();
    let held = bench.store.held();
    let ledger = &held.runs[&run].ledger;
    let sum = &ledger.commit(4).unwrap().outputs[0];
    assert_eq!(sum.location, Location::Inline("MTAwMDAwCjEwMDAwMAoxMDAwMDAK".to_owned()));
    (usage, ledger.commit(0).unwrap().outputs[0].location.clone(), tasks)
}

#[test]
fn a_fan_out_of_a_large_object_runs_where_it_is_and_stores_nothing() {
    let (usage, place, tasks) = run(rules(true, LARGE_BYTES));
    assert!(matches!(place, Location::Unstored(_)), "{place:?}");
    assert_eq!((usage.puts, usage.gets, usage.upload_bytes), (0, 0, 0));
    assert_eq!(usage.saved_bytes, 3 * LARGE_BYTES);
    assert_eq!(tasks, 5, "every task is measured once");
}

#[test]
fn what_is_switched_off_or_small_is_stored() {
    for rules in [None, rules(false, LARGE_BYTES), rules(true, LARGE_BYTES + 1)] {
        let (usage, place, tasks) = run(rules);
        assert!(matches!(place, Location::Stored(_)), "{rules:?}: {place:?}");
        assert_eq!((usage.puts, usage.upload_bytes, tasks), (1, LARGE_BYTES, 5), "{rules:?}");
    }
}
