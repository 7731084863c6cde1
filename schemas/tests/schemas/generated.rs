//! Schemas, examples, the OpenAPI document and the page of errors: up to date, valid and true to the types.

use std::collections::BTreeSet;
use std::path::Path;

use foresail_schemas::generate::{WRITE_COMMAND, files, out_of_date, subjects};
use foresail_schemas::metric::{Batch, Record};
use foresail_schemas::openapi;
use foresail_schemas::prediction::{PredictionAnswer, PredictionRequest, Query};
use foresail_schemas::{ErrorCode, Sla};
use serde_json::Value;

/// The requests and the answer of the design, as they stand there.
const BATCH: &str = r#"{"batch_id":"b-1","run":"r-1","worker":"w-3","records":[
    {"kind":"task","task":"count","memory_mb":1769,"vcpu":1.0,"input_bytes":50000000,
        "output_bytes":1200,"exec_ms":1523.4,"peak_memory_mb":312,"attempt":1,"at":"2026-01-05T10:00:00Z"},
    {"kind":"transfer","direction":"download","bytes":50000000,"time_ms":812.0,"memory_mb":1769,
        "vcpu":1.0,"store":"s3"},
    {"kind":"startup","state":"cold","time_ms":640.2,"memory_mb":1769,"vcpu":1.0}]}"#;
const PREDICTIONS: &str = r#"{"sla":["median","p95"],"queries":[
    {"kind":"execution_time","task":"count","input_bytes":50000000,"memory_mb":1769,"vcpu":1.0},
    {"kind":"output_size","task":"count","input_bytes":50000000},
    {"kind":"transfer_time","direction":"download","bytes":50000000,"memory_mb":1769},
    {"kind":"startup_time","state":"cold","memory_mb":1769}]}"#;
const ANSWER: &str = r#"{"epoch":412,"predictions":[{"unit":"ms","values":{"median":1480.1,"p95":1623.5},
    "basis":"exact","samples":214,"extrapolated":false,"interval":{"p95":[1540.2,1755.0]}}]}"#;

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn generated_files_are_up_to_date() {
    let stale: Vec<String> =
        out_of_date(&root()).iter().map(|(path, _)| path.display().to_string()).collect();
    assert!(stale.is_empty(), "out of date: {stale:?}\nhint: {WRITE_COMMAND}");
}

#[test]
fn no_generated_file_is_left_over() {
    let known: BTreeSet<_> = files().into_iter().map(|(path, _)| root().join(path)).collect();
    for folder in ["schemas/json", "schemas/json/examples"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            assert!(path.is_dir() || known.contains(&path), "{} has no type any more", path.display());
        }
    }
}

#[test]
fn every_example_is_valid_under_its_schema_and_reads_as_its_type() {
    for subject in subjects() {
        let validator = jsonschema::draft202012::new(&subject.schema()).unwrap();
        let wrong: Vec<_> = validator.iter_errors(&subject.example).map(|e| e.to_string()).collect();
        assert!(wrong.is_empty(), "{}: {wrong:?}", subject.file);
        assert_eq!(subject.round_trip(&subject.example).unwrap(), subject.example, "{}", subject.file);
    }
}

#[test]
fn schemas_refuse_what_the_types_refuse() {
    let check = |file: &str, pointer: &str, bad: Value| {
        let subject = subjects().into_iter().find(|s| s.file == file).unwrap();
        let validator = jsonschema::draft202012::new(&subject.schema()).unwrap();
        let mut damaged = subject.example.clone();
        *damaged.pointer_mut(pointer).unwrap() = bad.clone();
        assert!(!validator.is_valid(&damaged), "the schema of {file} takes {bad} at {pointer}");
        assert!(subject.round_trip(&damaged).is_err(), "{file} takes {bad} at {pointer}");
    };
    check("batch", "/batch_id", "a b".into());
    check("batch", "/records/0/exec_ms", (-1).into());
    check("batch", "/records/0/kind", "other".into());
    check("workflow", "/name", "".into());
    check("workflow", "/tasks/0/memory_mb_min", 0.into());
    check("prediction-request", "/sla/0", "p100".into());
    check("prediction-request", "/queries/0/vcpu", 0.into());
    check("plan", "/workers/0/config/memory_mb", 0.into());
    check("operation-request", "/operations/0/op", "steal".into());
    check("problem", "/code", "no_such_code".into());
    check("workflow-entry", "/workflow", "a b".into());
    check("workflow-list", "/workflows/0/tasks", "3".into());
    check("task-list", "/tasks/0/memory_mb", 0.into());
    check("task-list", "/tasks/0/memory_mb", ((1 << 20) + 1).into());
    check("task-list", "/tasks/0/vcpu", 0.into());
    check("task-list", "/tasks/1/p95_ms", (-1).into());
    check("quarantine-list", "/records/0/code", "no_such_code".into());
    check("run-list", "/runs/0/status", "asleep".into());
}

#[test]
fn the_requests_of_the_design_are_read_exactly() {
    let batch: Batch = serde_json::from_str(BATCH).unwrap();
    assert_eq!(batch.records.len(), 3);
    assert!(
        batch
            .records
            .iter()
            .all(|r| r.check().is_ok() && r.config().is_some_and(|config| config.memory_mb == 1769))
    );
    let Record::Task(task) = &batch.records[0] else { panic!("the first record is a task") };
    assert_eq!((task.exec_ms, task.input_bytes, task.peak_memory_mb), (1523.4, 50_000_000, Some(312.0)));
    let request: PredictionRequest = serde_json::from_str(PREDICTIONS).unwrap();
    assert_eq!(request.sla, [Sla::MEDIAN, Sla::P95]);
    assert!(matches!(request.queries[3], Query::StartupTime { memory_mb: 1769, .. }));
    let answer: PredictionAnswer = serde_json::from_str(ANSWER).unwrap();
    assert_eq!(answer.predictions[0].values[&Sla::P95], Some(1623.5));
    let same = |text: &str, value: Value| {
        let numbers_as_written = text.replace(":312,", ":312.0,");
        assert_eq!(serde_json::from_str::<Value>(&numbers_as_written).unwrap(), value);
    };
    same(BATCH, serde_json::to_value(&batch).unwrap());
    same(PREDICTIONS, serde_json::to_value(&request).unwrap());
    same(ANSWER, serde_json::to_value(&answer).unwrap());
}

#[test]
fn the_openapi_document_holds_together() {
    let document = openapi::document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(name, _)| *name != "servers") {
            let at = format!("{method} {path}");
            assert!(["get", "put", "post", "delete"].contains(&method.as_str()), "{at}");
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{at}: id used twice");
            assert!(!operation["summary"].as_str().unwrap().is_empty(), "{at}");
            let parameters = operation["parameters"].as_array().unwrap();
            let in_path: BTreeSet<_> = parameters
                .iter()
                .filter(|p| p["in"] == "path")
                .map(|p| p["name"].as_str().unwrap())
                .collect();
            let braces: BTreeSet<_> = path.split('{').skip(1).map(|s| s.split('}').next().unwrap()).collect();
            assert_eq!(in_path, braces, "{at}");
            let answers = operation["responses"].as_object().unwrap();
            assert!(answers.keys().any(|s| s.starts_with('2')), "{at} has no good answer");
            for (status, answer) in answers {
                assert!(!answer["description"].as_str().unwrap().is_empty(), "{at} {status}");
                let problem = answer["content"].get("application/problem+json");
                assert_eq!(problem.is_some(), status.starts_with(['4', '5']), "{at} {status}");
            }
        }
    }
    references(&document, &mut |reference| {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    });
}

#[test]
fn every_endpoint_of_the_design_is_described() {
    let document = openapi::document();
    for (method, path) in [
        ("post", "/v1/workflows/{workflow}/batches"),
        ("post", "/v1/workflows/{workflow}/predictions"),
        ("get", "/v1/workflows/{workflow}/predictions/{kind}"),
        ("get", "/v1/workflows"),
        ("get", "/v1/workflows/{workflow}"),
        ("get", "/v1/workflows/{workflow}/tasks"),
        ("get", "/v1/workflows/{workflow}/tasks/{task}"),
        ("get", "/v1/workflows/{workflow}/model"),
        ("get", "/v1/workflows/{workflow}/samples"),
        ("get", "/v1/workflows/{workflow}/quarantine"),
        ("post", "/v1/runs"),
        ("get", "/v1/runs"),
        ("get", "/v1/runs/{run}"),
        ("get", "/v1/runs/{run}/workflow"),
        ("get", "/v1/runs/{run}/plan"),
        ("put", "/v1/runs/{run}/plan"),
        ("get", "/v1/runs/{run}/plans/{epoch}"),
        ("post", "/v1/runs/{run}/operations"),
        ("post", "/v1/runs/{run}/cancel"),
        ("get", "/v1/runs/{run}/events"),
        ("put", "/v1/runs/{run}/blobs/{key}"),
        ("get", "/v1/runs/{run}/blobs/{key}"),
        ("delete", "/v1/runs/{run}/blobs/{key}"),
        ("get", "/livez"),
        ("get", "/readyz"),
        ("get", "/metrics"),
        ("get", "/openapi.json"),
        ("get", "/docs"),
        ("get", "/"),
        ("post", "/v1/invocations"),
        ("get", "/v1/status"),
        ("post", "/v1/drain"),
    ] {
        assert!(document["paths"][path].get(method).is_some(), "{method} {path}");
    }
}

#[test]
fn examples_in_the_openapi_document_are_valid_under_its_components() {
    let document = openapi::document();
    let mut checked = 0;
    let mut check = |content: &Value| {
        for body in content.as_object().into_iter().flat_map(|c| c.values()) {
            let Some(example) = body.get("example") else { continue };
            let mut schema = body["schema"].clone();
            schema["components"] = document["components"].clone();
            let validator = jsonschema::draft202012::new(&schema).unwrap();
            assert!(validator.is_valid(example), "{}: {example}", body["schema"]);
            checked += 1;
        }
    };
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values().filter(|o| o.is_object()) {
            check(&operation["requestBody"]["content"]);
            for answer in operation["responses"].as_object().unwrap().values() {
                check(&answer["content"]);
            }
        }
    }
    assert!(checked > 100, "{checked}");
}

#[test]
fn no_json_body_is_without_a_form() {
    for item in openapi::document()["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values().filter(|o| o.is_object()) {
            let answers = operation["responses"].as_object().unwrap().values();
            for body in answers.chain([&operation["requestBody"]]).map(|a| &a["content"]["application/json"])
            {
                let formed =
                    body.is_null() || ["$ref", "type"].iter().any(|k| body["schema"].get(k).is_some());
                assert!(formed, "{}: {body}", operation["operationId"]);
            }
        }
    }
}

#[test]
fn every_code_has_a_sentence_that_says_when_it_happens() {
    let sentences: BTreeSet<_> = ErrorCode::ALL.iter().map(|c| c.description()).collect();
    assert_eq!(sentences.len(), ErrorCode::ALL.len());
    assert!(sentences.iter().all(|s| s.ends_with('.') && !s.starts_with(' ')), "{sentences:?}");
}

/// Every `$ref` in `value`.
fn references(value: &Value, visit: &mut impl FnMut(&str)) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                visit(reference);
            }
            fields.values().for_each(|field| references(field, visit));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, visit)),
        _ => {}
    }
}
