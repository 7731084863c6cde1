//! What metad answers is what `/openapi.json` says: every GET is asked, and every JSON answer is held against
//! its schema, closed first, so that a field that the document does not name is refused too.

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde_json::{Map, Value, json};

use crate::runs::{commit, complete, join, lease};
use crate::{Daemon, task, why};

/// Enough of every parameter for every question; an endpoint passes over those that it does not have.
const QUERY: &str = "task=count&input_bytes=1000&direction=download&bytes=1000000&store=s3&state=cold\
                     &memory_mb=1769&sla=median,p95";

/// A daemon that has something in every list: measurements on two configs, records set aside, a run that
/// has ended and one under way.
async fn seeded() -> Daemon {
    let daemon = Daemon::start();
    let transfer = |n: u32| {
        json!({
            "kind": "transfer", "direction": "download", "bytes": 1_000_000, "time_ms": 50 + n,
            "memory_mb": 1769, "store": "s3"
        })
    };
    let startup = |n: u32| json!({"kind": "startup", "state": "cold", "time_ms": 300 + n, "memory_mb": 1769});
    let mut records = vec![json!({"kind": "task", "task": "count", "exec_ms": -1}), json!("no record")];
    for n in 0..40 {
        let mut sized = task(f64::from(100 + n));
        sized["input_bytes"] = json!(1000 + 10 * n);
        sized["forecast"] = json!({"median_ms": 120, "p90_ms": 130, "p95_ms": 135, "p99_ms": 139});
        let mut larger = task(f64::from(50 + n));
        (larger["memory_mb"], larger["vcpu"]) = (json!(3538), json!(2.0));
        records.extend([sized, larger, transfer(n), startup(n)]);
    }
    daemon.batch("b-1", Value::Array(records)).await;
    let request = daemon.run("r-1").await;
    daemon.suggest("r-1", &request.plan, &why()).await;
    complete(&daemon, "r-1").await;
    daemon.run("r-2").await;
    daemon.operate("r-2", json!([join("i-2"), lease(0, "i-2"), commit(0, "i-2", 2)])).await;
    let put = daemon.client.put(daemon.url("/v1/runs/r-1/blobs/key")).body("content");
    assert_eq!(put.send().await.unwrap().status(), 204);
    daemon
}

/// The addresses behind a path, all values of `{kind}` included.
fn addresses(path: &str, operation: &Value) -> Vec<String> {
    let filled = path.replace("{workflow}", "w").replace("{task}", "count").replace("{run}", "r-1");
    let filled = filled.replace("{epoch}", "1").replace("{key}", "key");
    let parameters = operation["parameters"].as_array().unwrap();
    let Some(kind) = parameters.iter().find(|p| p["name"] == "kind" && p["in"] == "path") else {
        return vec![filled];
    };
    let kinds = kind["schema"]["enum"].as_array().unwrap().iter();
    kinds.map(|k| format!("{}?{QUERY}", filled.replace("{kind}", k.as_str().unwrap()))).collect()
}

/// Refuses fields that are not named, wherever an object stands by itself. What is joined with others in
/// place (the branches of a choice, what is referred to) stays open; where they are joined is closed.
fn close(schema: &mut Value) {
    let Value::Object(keywords) = schema else { return };
    if ["$ref", "properties", "oneOf", "anyOf", "allOf"].iter().any(|k| keywords.contains_key(*k)) {
        keywords.insert("unevaluatedProperties".to_owned(), json!(false));
    }
    close_parts(keywords);
}

fn close_parts(keywords: &mut Map<String, Value>) {
    for part in ["properties", "patternProperties"] {
        keywords
            .get_mut(part)
            .and_then(Value::as_object_mut)
            .into_iter()
            .flatten()
            .for_each(|(_, s)| close(s));
    }
    for part in ["items", "additionalProperties"] {
        keywords.get_mut(part).into_iter().for_each(close);
    }
    let places = keywords.get_mut("prefixItems").and_then(Value::as_array_mut);
    places.into_iter().flatten().for_each(close);
    for part in ["oneOf", "anyOf", "allOf"] {
        let branches = keywords.get_mut(part).and_then(Value::as_array_mut).into_iter().flatten();
        branches.filter_map(Value::as_object_mut).for_each(close_parts);
    }
}

/// The closed schema with the components that it refers to.
fn validator(document: &Value, schema: &Value) -> jsonschema::Validator {
    let mut schema = schema.clone();
    close(&mut schema);
    let mut components = document["components"]["schemas"].clone();
    components.as_object_mut().unwrap().values_mut().filter_map(Value::as_object_mut).for_each(close_parts);
    schema["components"] = json!({"schemas": components});
    jsonschema::draft202012::new(&schema).unwrap()
}

fn faults(validator: &jsonschema::Validator, value: &Value) -> Vec<String> {
    validator.iter_errors(value).map(|e| format!("at `{}`: {e}", e.instance_path())).collect()
}

#[tokio::test]
async fn every_get_answers_what_the_document_says() {
    let daemon = seeded().await;
    let document = daemon.read("/openapi.json").await;
    let mut checked = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        if item.get("get").is_none() || item.get("servers").is_some() {
            continue;
        }
        let content = item["get"]["responses"]["200"]["content"].as_object().unwrap();
        for address in addresses(path, &item["get"]) {
            for (media_type, body) in content {
                let answer = daemon.get(&address).header(ACCEPT, media_type).send().await.unwrap();
                assert_eq!(answer.status(), 200, "{address}");
                let given = answer.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
                assert_eq!(given.split(';').next(), Some(media_type.as_str()), "{address}");
                if media_type == "application/json" {
                    let (validator, answer) = (validator(&document, &body["schema"]), answer.json().await);
                    assert_eq!(faults(&validator, &answer.unwrap()), [""; 0], "{address}");
                    checked.push(path.as_str());
                }
            }
        }
    }
    checked.dedup();
    for path in ["/v1/workflows/{workflow}/tasks/{task}", "/v1/workflows/{workflow}/quarantine", "/v1/runs"] {
        assert!(checked.contains(&path), "{path} was not checked: {checked:?}");
    }
}

#[tokio::test]
async fn no_list_of_the_seeded_daemon_is_empty() {
    let daemon = seeded().await;
    for (path, list) in [
        ("/v1/workflows", "/workflows"),
        ("/v1/workflows/w/tasks", "/tasks"),
        ("/v1/workflows/w/tasks/count", "/tuning"),
        ("/v1/workflows/w/tasks/count", "/curves/0/points"),
        ("/v1/workflows/w/tasks/count", "/curves/0/formula"),
        ("/v1/workflows/w/tasks/count", "/coverage/days"),
        ("/v1/workflows/w/scores", "/tasks"),
        ("/v1/workflows/w/scores", "/total/days"),
        ("/v1/workflows/w/tasks/count", "/configs/0/histogram"),
        ("/v1/workflows/w/quarantine", "/records"),
        ("/v1/runs", "/runs"),
        ("/v1/runs/r-1/events", "/events"),
    ] {
        let answer = daemon.read(path).await;
        assert!(answer.pointer(list).unwrap().as_array().is_some_and(|l| !l.is_empty()), "{path} {list}");
    }
    let report = daemon.read("/v1/workflows/w/tasks/count").await;
    for part in ["/input", "/shape", "/configs/0/size_fit"] {
        assert!(report.pointer(part).unwrap().is_object(), "{part}: {report}");
    }
}

/// The check itself: a field too many or too few is a fault, on top and far within.
#[tokio::test]
async fn a_field_too_many_or_too_few_is_a_fault() {
    let daemon = seeded().await;
    let document = daemon.read("/openapi.json").await;
    for (path, address, at, field) in [
        ("/v1/workflows", "/v1/workflows", "", "epoch"),
        ("/v1/workflows", "/v1/workflows", "/workflows/0", "batches"),
        ("/v1/workflows/{workflow}/tasks/{task}", "/v1/workflows/w/tasks/count", "/configs/1", "mean_ms"),
        ("/v1/workflows/{workflow}/tasks/{task}", "/v1/workflows/w/tasks/count", "/shape", "cap"),
        ("/v1/workflows/{workflow}/tasks/{task}", "/v1/workflows/w/tasks/count", "/coverage/days/0", "n"),
        ("/v1/workflows/{workflow}/scores", "/v1/workflows/w/scores", "/tasks/0", "task"),
        ("/v1/workflows/{workflow}/quarantine", "/v1/workflows/w/quarantine", "/records/0", "detail"),
        ("/v1/runs", "/v1/runs", "/runs/0/predicted", "makespan_ms"),
        ("/v1/runs/{run}/events", "/v1/runs/r-1/events", "/events/0", "seq"),
    ] {
        let content = &document["paths"][path]["get"]["responses"]["200"]["content"];
        let validator = validator(&document, &content["application/json"]["schema"]);
        let answer = daemon.read(address).await;
        assert_eq!(faults(&validator, &answer), [""; 0], "{address}");
        let (mut more, mut less) = (answer.clone(), answer);
        more.pointer_mut(at).unwrap()["unheard_of"] = json!(1);
        less.pointer_mut(at).unwrap().as_object_mut().unwrap().remove(field).unwrap();
        assert!(!validator.is_valid(&more), "{address}{at} takes a field too many");
        assert!(!validator.is_valid(&less), "{address}{at} does without {field}");
    }
}
