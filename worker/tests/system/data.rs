//! Whole runs: data between functions and commands, on one worker and on several, over both stores.

use foresail_schemas::run::{Location, WorkerUsage};
use foresail_schemas::{RunId, Workflow};
use foresail_worker::host::local::ObjectPlace;
use serde_json::json;

use crate::support::*;

/// Two large objects of 100,000 bytes each are made, joined, and counted by a command.
fn diamond() -> Workflow {
    let large = json!({"output_bytes": 100_000});
    let join = json!({"id": "join", "name": "join", "run": {"function": "foresail.concat"}, "inputs": [
        {"task": "left"}, {"task": "right"}, {"value": "x"}]});
    let count = json!({"id": "count", "name": "count", "run": "wc -c", "inputs": [{"task": "join"}]});
    workflow(json!([burn("left", large.clone()), burn("right", large), join, count]))
}

fn result(bench: &Bench, run: &RunId) -> Location {
    let held = bench.store.held();
    let run = &held.runs[run];
    let last = run.workflow.tasks().len() as u32 - 1;
    run.ledger.commit(last).unwrap().outputs[0].location.clone()
}

/// `200003` and a newline in base64: both objects and the value `"x"`.
const COUNT: &str = "MjAwMDAzCg==";

fn usage(bench: &Bench, run: &RunId) -> WorkerUsage {
    let mut sum = WorkerUsage::default();
    bench.store.summary(run).usage.iter().for_each(|of_config| sum.add(&of_config.usage));
    sum
}

#[test]
fn on_one_planned_worker_nothing_is_downloaded() {
    let bench = Bench::new(|_| {});
    let workflow = diamond();
    let size = config(256, 1.0);
    let run = bench.complete("r", &workflow, &plan(&workflow, &[(Some("w"), size); 4]));
    assert_eq!(result(&bench, &run), Location::Inline(COUNT.to_owned()));
    let usage = usage(&bench, &run);
    // Of the two in the middle the second is read by the task that runs next: it is not stored.
    assert_eq!((usage.puts, usage.gets, usage.saved_bytes), (2, 0, 400_003));
    assert!(usage.billed_ms > 0.0);
    assert_eq!(bench.status().cold_starts, 1);
}

#[test]
fn on_two_planned_workers_each_object_is_downloaded_where_it_was_not_made() {
    for objects in [ObjectPlace::Files, ObjectPlace::Metad] {
        let bench = Bench::new(|settings| settings.objects = objects.clone());
        let workflow = diamond();
        let size = config(256, 1.0);
        let placed = [(Some("a"), size), (Some("b"), size), (Some("a"), size), (Some("b"), size)];
        let run = bench.complete("r", &workflow, &plan(&workflow, &placed));
        assert_eq!(result(&bench, &run), Location::Inline(COUNT.to_owned()));
        let usage = usage(&bench, &run);
        assert_eq!((usage.puts, usage.gets), (3, 2), "{objects:?}");
        assert_eq!((usage.upload_bytes, usage.download_bytes), (400_003, 300_003), "{objects:?}");
        let store = bench.store.records().iter().find_map(|r| match r {
            foresail_schemas::metric::Record::Transfer(t) => t.store.as_ref().map(ToString::to_string),
            _ => None,
        });
        let expect = if objects == ObjectPlace::Files { "file" } else { "metad" };
        assert_eq!(store.as_deref(), Some(expect));
    }
}

#[test]
fn flexible_workers_hand_on_until_the_run_is_complete() {
    let bench = Bench::new(|_| {});
    let workflow = diamond();
    let run = bench.complete("r", &workflow, &flexible(&workflow, config(256, 1.0)));
    assert_eq!(result(&bench, &run), Location::Inline(COUNT.to_owned()));
}

#[test]
fn every_task_transfer_and_start_is_measured_once() {
    let bench = Bench::new(|_| {});
    let workflow = diamond();
    bench.complete("r", &workflow, &flexible(&workflow, config(256, 1.0)));
    let records = bench.store.records();
    let mut sizes: Vec<(String, u64, u64)> = records
        .iter()
        .filter_map(|r| match r {
            foresail_schemas::metric::Record::Task(t) => {
                Some((t.task.to_string(), t.input_bytes, t.output_bytes.unwrap()))
            }
            _ => None,
        })
        .collect();
    sizes.sort();
    let expect =
        [("burn", 0, 100_000), ("burn", 0, 100_000), ("count", 200_003, 7), ("join", 200_003, 200_003)];
    assert_eq!(sizes, expect.map(|(name, input, output)| (name.to_owned(), input, output)));
    let invocations: u64 =
        bench.store.summary(&RunId::new("r").unwrap()).usage.iter().map(|u| u.invocations).sum();
    assert_eq!(starts(&records).len() as u64, invocations);
}

#[test]
fn a_wide_fan_out_on_few_places_completes() {
    let bench = Bench::new(|_| {});
    let mut tasks = vec![burn("root", json!({"output_bytes": 10}))];
    for i in 0..40 {
        let mut leaf = burn(&format!("leaf-{i}"), json!({"output_bytes": 10}));
        leaf["inputs"] = json!([{"task": "root"}]);
        tasks.push(leaf);
    }
    let inputs: Vec<_> = (0..40).map(|i| json!({"task": format!("leaf-{i}")})).collect();
    tasks.push(json!({"id": "all", "name": "all", "run": {"function": "foresail.concat"}, "inputs": inputs}));
    let workflow = workflow(json!(tasks));
    let run = bench.complete("r", &workflow, &flexible(&workflow, config(256, 1.0)));
    let held = bench.store.held();
    assert_eq!(held.runs[&run].ledger.commit(41).unwrap().outputs[0].bytes, 400);
}
