//! WfFormat: the twenty real instances load as they are, runs are written back, and what is wrong is named.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;

use foresail_schemas::run::{
    Change, Commit, Location, Measured, RunEvent, RunStatus, RunSummary, StoredObject,
};
use foresail_schemas::wfformat::{BURN, BurnParams, Scale, read, scaled, write};
use foresail_schemas::workflow::{Input, Work};
use foresail_schemas::{InstanceId, ResourceConfig, TaskName, Workflow, examples};
use serde_json::{Value, json};

/// Instances in the measurement data beside the project.
const INSTANCES: usize = 20;

fn instances() -> Vec<(String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/wfformat");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: the measurement data is not here ({} does not exist)", folder.display());
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "json"));
    paths.sort();
    assert_eq!(paths.len(), INSTANCES);
    let name = |p: &PathBuf| p.file_stem().unwrap().to_string_lossy().into_owned();
    paths.iter().map(|p| (name(p), std::fs::read_to_string(p).unwrap())).collect()
}

fn strings(value: &Value) -> BTreeSet<&str> {
    value.as_array().into_iter().flatten().map(|v| v.as_str().unwrap()).collect()
}

#[test]
fn every_real_instance_loads_with_its_tasks_files_edges_times_and_sizes() {
    for (name, text) in instances() {
        let document: Value = serde_json::from_str(&text).unwrap();
        let part = &document["workflow"];
        let specs = part["specification"]["tasks"].as_array().unwrap();
        let workflow = read(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let graph = workflow.graph();
        assert_eq!(workflow.tasks().len(), specs.len(), "{name}");

        let edges: usize = (0..specs.len() as u32).map(|t| graph.parents(t).len()).sum();
        let expected: usize = specs.iter().map(|t| strings(&t["parents"]).len()).sum();
        assert_eq!(edges, expected, "{name}: edges");

        let mut files = BTreeSet::new();
        for spec in specs {
            files.extend(strings(&spec["inputFiles"]));
            files.extend(strings(&spec["outputFiles"]));
        }
        let without = specs.iter().filter(|t| strings(&t["outputFiles"]).is_empty()).count();
        assert_eq!(graph.objects().len(), files.len() + without, "{name}: files");

        let sizes = part["specification"]["files"].as_array().unwrap();
        let total: u64 = sizes
            .iter()
            .filter(|f| files.contains(f["id"].as_str().unwrap()))
            .map(|f| f["sizeInBytes"].as_u64().unwrap())
            .sum();
        assert_eq!(graph.objects().iter().filter_map(|o| o.bytes_hint).sum::<u64>(), total, "{name}: bytes");

        let seconds: HashMap<&str, f64> = part["execution"]["tasks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| (t["id"].as_str().unwrap(), t["runtimeInSeconds"].as_f64().unwrap()))
            .collect();
        for (task, spec) in workflow.tasks().iter().zip(specs) {
            let expected = seconds[spec["id"].as_str().unwrap()] * 1000.0;
            assert_eq!(task.hint.exec_ms, Some(expected), "{name}: {}", task.id);
            assert_eq!(burn(&workflow, task.id.as_str()).cpu_ms, expected);
        }
    }
}

#[test]
fn tasks_of_one_function_share_their_name() {
    let names = |wanted: &str| -> Option<BTreeSet<String>> {
        let (_, text) = instances().into_iter().find(|(name, _)| name == wanted)?;
        Some(read(&text).unwrap().tasks().iter().map(|t| t.name.to_string()).collect())
    };
    let Some(montage) = names("montage-chameleon-2mass-005d-001") else { return };
    assert_eq!(montage.len(), 8, "{montage:?}");
    assert!(montage.contains("mDiffFit"));
    let blast = names("blast-chameleon-small-001").unwrap();
    assert_eq!(blast.into_iter().collect::<Vec<_>>(), ["blastall", "cat", "cat_blast", "split_fasta"]);
    let bacass = names("bacass-dirt02-001").unwrap();
    assert!(bacass.contains("NFCORE_BACASS.BACASS.UNICYCLER"), "{bacass:?}");
}

#[test]
fn a_scaled_instance_keeps_its_shape_and_opens_no_outside_file() {
    for (name, text) in instances() {
        let original = read(&text).unwrap();
        let small = scaled(&original, Scale { time: 0.001, size: 0.01 }).unwrap();
        assert_eq!(edges(&small), edges(&original), "{name}");
        assert_eq!(small.graph().objects().iter().filter(|o| o.producer.is_none()).count(), 0);
        for (task, before) in small.tasks().iter().zip(original.tasks()) {
            assert_eq!(burn(&small, task.id.as_str()).cpu_ms, before.hint.exec_ms.unwrap() * 0.001);
            assert_eq!(task.hint.exec_ms, Some(burn(&small, task.id.as_str()).cpu_ms));
            for (after, before) in task.inputs.iter().zip(&before.inputs) {
                match before {
                    Input::External { uri, .. } => {
                        let Input::Value { value } = after else { panic!("{name}: {after:?}") };
                        assert_eq!(value["file"], json!(uri));
                        assert!(value["bytes"].is_u64());
                    }
                    Input::Task { .. } | Input::Value { .. } => assert_eq!(after, before),
                }
            }
            for (after, before) in task.outputs.iter().zip(&before.outputs) {
                let (after, before) = (after.bytes.unwrap(), before.bytes.unwrap());
                assert_eq!(after == 0, before == 0, "{name}: {}", task.id);
                assert!((after as f64 - before as f64 * 0.01).abs() <= 1.0);
            }
        }
    }
}

#[test]
fn a_scale_that_is_no_positive_number_is_refused() {
    let workflow = read(&small().to_string()).unwrap();
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(scaled(&workflow, Scale { time: bad, size: 1.0 }).is_err());
        assert!(scaled(&workflow, Scale { time: 1.0, size: bad }).is_err());
    }
}

/// Two tasks: `a` reads a file from outside and writes `x`, which `b` reads.
fn small() -> Value {
    json!({"name": "a b", "schemaVersion": "1.5", "workflow": {
        "specification": {
            "tasks": [
                {"id": "a", "parents": [], "children": ["b"], "inputFiles": ["in"], "outputFiles": ["x"]},
                {"name": "b", "id": "b", "parents": ["a"], "children": [], "inputFiles": ["x"]}],
            "files": [{"id": "in", "sizeInBytes": 10}, {"id": "x", "sizeInBytes": 20}]},
        "execution": {"tasks": [{"id": "a", "runtimeInSeconds": 1.5}]}}})
}

#[test]
fn missing_optional_fields_are_tolerated() {
    let workflow = read(&small().to_string()).unwrap();
    assert_eq!(workflow.name().as_str(), "a_b");
    assert_eq!(workflow.tasks()[1].hint.exec_ms, None);
    assert_eq!(burn(&workflow, "b").cpu_ms, 0.0);

    let bare = json!({"name": "x", "workflow": {"specification": {"tasks": [{"id": "only"}]}}});
    assert_eq!(read(&bare.to_string()).unwrap().tasks()[0].name.as_str(), "only");
}

#[test]
fn an_edge_without_a_file_and_an_edge_only_in_children_are_kept() {
    let mut document = small();
    let tasks = &mut document["workflow"]["specification"]["tasks"];
    tasks[1]["parents"] = json!([]);
    tasks[1]["inputFiles"] = json!([]);
    let workflow = read(&document.to_string()).unwrap();
    assert_eq!(workflow.tasks()[1].after, [workflow.tasks()[0].id.clone()]);
}

#[test]
fn of_two_writers_of_a_file_the_parent_is_meant() {
    let tasks = json!([
        {"id": "a", "outputFiles": ["f"]},
        {"id": "b", "outputFiles": ["f"], "inputFiles": ["f"], "parents": ["a"]},
        {"id": "c", "inputFiles": ["f"], "parents": ["b"]},
    ]);
    let mut document = json!({"name": "x", "workflow": {"specification": {"tasks": tasks}}});
    let workflow = read(&document.to_string()).unwrap();
    assert_eq!(edges(&workflow), [vec![], vec!["a".to_owned()], vec!["b".to_owned()]]);
    document["workflow"]["specification"]["tasks"][2]["parents"] = json!(["a", "b"]);
    let error = read(&document.to_string()).unwrap_err().to_string();
    assert!(error.contains("task `c` reads file `f`, which `a` and `b` write"), "{error}");
}

#[test]
fn what_is_wrong_is_named() {
    let check = |change: &dyn Fn(&mut Value), expect: &str| {
        let mut document = small();
        change(&mut document);
        let error = read(&document.to_string()).unwrap_err().to_string();
        assert!(error.contains(expect), "`{error}` should contain `{expect}`");
    };
    check(&|d| d["schemaVersion"] = json!("1.4"), "WfFormat `1.4`");
    check(&|d| d["name"] = json!(""), "the document");
    let spec =
        |d: &mut Value, field: &str, value: Value| d["workflow"]["specification"]["tasks"][1][field] = value;
    check(&|d| spec(d, "parents", json!(["zz"])), "task `b` names `zz`");
    check(&|d| spec(d, "children", json!(["a"])), "circle");
    check(&|d| spec(d, "id", json!("a")), "`a` and `a`");
    check(&|d| spec(d, "inputFiles", json!("x")), "expected a sequence");
    check(&|d| spec(d, "outputFiles", json!(["\u{0}"])), "of task `b`");
    check(&|d| d["workflow"]["execution"]["tasks"][0]["runtimeInSeconds"] = json!(-1), "task `a` is `-1`");
    check(&|d| d["workflow"]["specification"]["files"][1]["sizeInBytes"] = json!(-5), "file `x` is `-5`");
    assert!(read("{").unwrap_err().to_string().contains("line 1"));
}

#[test]
fn a_run_written_back_reads_as_the_same_structure_with_the_measured_times_and_sizes() {
    let mut texts = instances();
    texts.push(("small".to_owned(), small().to_string()));
    for (name, text) in texts {
        let workflow = read(&text).unwrap();
        let (run, events) = finished(&workflow);
        let document = write(&workflow, &run, &events);
        let again = read(&document.to_string()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(again.name(), workflow.name());
        assert_eq!(edges(&again), edges(&workflow), "{name}");
        for (t, (after, before)) in again.tasks().iter().zip(workflow.tasks()).enumerate() {
            assert_eq!((&after.id, &after.name, &after.after), (&before.id, &before.name, &before.after));
            assert_eq!(after.inputs, before.inputs, "{name}: {}", before.id);
            assert_eq!(after.output_names(), before.output_names(), "{name}: {}", before.id);
            let took_ms = after.hint.exec_ms.unwrap();
            assert!((took_ms - t as f64 - 0.5).abs() < 1e-9 * took_ms, "{name}: {took_ms}");
            assert!(after.outputs.iter().all(|o| o.bytes == Some(7)));
        }
        let execution = &document["workflow"]["execution"];
        assert_eq!(execution["makespanInSeconds"], json!(99.0));
        assert_eq!(execution["machines"].as_array().unwrap().len(), 1);
        assert_eq!(execution["tasks"][0]["executedAt"], json!("2026-01-05T10:00:01Z"));
    }
}

#[test]
fn objects_of_the_same_name_are_told_apart_in_the_file() {
    let task = |id: &str, inputs: Value| json!({"id": id, "name": "f", "run": "true", "inputs": inputs});
    let spec = json!({"name": "w", "tasks": [
        task("a", json!([])),
        task("b", json!([])),
        task("c", json!([{"task": "a"}, {"task": "b"}, {"value": 3}]))]});
    let workflow: Workflow = serde_json::from_value(spec).unwrap();
    let (run, events) = finished(&workflow);
    let document = write(&workflow, &run, &events);
    let inputs = &document["workflow"]["specification"]["tasks"][2]["inputFiles"];
    assert_eq!(*inputs, json!(["a/out", "b/out"]));
    let again = read(&document.to_string()).unwrap();
    assert_eq!(again.tasks()[2].inputs, workflow.tasks()[2].inputs[..2]);
}

fn burn(workflow: &Workflow, id: &str) -> BurnParams {
    let task = workflow.tasks().iter().find(|t| t.id.as_str() == id).unwrap();
    let Work::Function { function, params } = &task.run else { panic!("{id} runs a command") };
    assert_eq!(function.as_str(), BURN);
    serde_json::from_value(params.clone()).unwrap()
}

/// The parents of every task by id, sorted.
fn edges(workflow: &Workflow) -> Vec<Vec<String>> {
    let graph = workflow.graph();
    let row = |t: u32| {
        let parents: HashSet<_> = graph.parents(t).iter().map(|&p| workflow.task(p).id.to_string()).collect();
        let mut parents: Vec<_> = parents.into_iter().collect();
        parents.sort();
        parents
    };
    (0..workflow.tasks().len() as u32).map(row).collect()
}

/// A run in which one worker ran every task: task `t` took `t + 0.5` ms and wrote 7 bytes per output.
fn finished(workflow: &Workflow) -> (RunSummary, Vec<RunEvent>) {
    let instance = InstanceId::new("i-1").unwrap();
    let config = ResourceConfig::new(885, None).unwrap();
    let start = foresail_schemas::metric::StartState::Cold;
    let mut changes = vec![Change::WorkerJoined { worker: None, instance: instance.clone(), config, start }];
    for (t, task) in workflow.tasks().iter().enumerate() {
        let (index, attempt, holder) = (t as u32, 1, instance.clone());
        changes.push(Change::TaskLeased {
            task: index,
            attempt,
            instance: holder,
            epoch: 1,
            expires_ms: 0.0,
            assuming: Vec::new(),
        });
        let stored =
            |_| StoredObject { bytes: 7, hash: "00".to_owned(), location: Location::Stored("k".to_owned()) };
        let commit = Commit {
            decision: None,
            printed: None,
            attempt,
            instance: instance.clone(),
            outputs: task.output_names().iter().map(stored).collect(),
            measured: Measured { exec_ms: t as f64 + 0.5, ..Measured::default() },
        };
        changes.push(Change::TaskCommitted { task: index, commit });
    }
    let mut events: Vec<RunEvent> = (1..)
        .zip(changes)
        .map(|(seq, change)| RunEvent { seq, at_ms: (seq - 1) as f64 * 1000.0, change })
        .collect();
    let change = Change::RunFinished { status: RunStatus::Completed, failure: None };
    events.push(RunEvent { seq: events.len() as u64 + 1, at_ms: 99_000.0, change });
    let count = workflow.tasks().len() as u64;
    let run = RunSummary {
        workflow: workflow.name().clone(),
        status: RunStatus::Completed,
        planner: TaskName::new("simple").unwrap(),
        tasks: count,
        committed: count,
        elapsed_ms: 99_500.0,
        predicted: Default::default(),
        last_event: events.len() as u64,
        ..examples::run_begun()
    };
    (run, events)
}
