//! Predictions over HTTP: the exact request of the design, the single forms, ETags, priors, the model as a
//! download.

use foresail_model::Predictor;
use foresail_schemas::ErrorCode;
use foresail_schemas::prediction::{PredictionAnswer, SinglePrediction};
use reqwest::StatusCode;
use reqwest::header::{ETAG, IF_NONE_MATCH, VARY};
use serde_json::{Value, json};

use crate::{Daemon, fails, good, task};

const ONE: &str =
    "/v1/workflows/w/predictions/execution-time?task=count&input_bytes=1000&memory_mb=1769&sla=median,p95";

async fn learnt() -> Daemon {
    let daemon = Daemon::start();
    let transfer = |bytes: u64, time_ms: f64| {
        json!({
            "kind": "transfer", "direction": "download", "bytes": bytes, "time_ms": time_ms,
            "memory_mb": 1769, "store": "s3"
        })
    };
    let startup = |ms: f64| json!({"kind": "startup", "state": "cold", "time_ms": ms, "memory_mb": 1769});
    let mut records = Vec::new();
    for n in 0..40u32 {
        let n = f64::from(n);
        records.extend([task(100.0 + n), transfer(1_000_000, 50.0 + n), startup(300.0 + n)]);
    }
    daemon.batch("b-1", Value::Array(records)).await;
    daemon
}

#[tokio::test]
async fn the_request_of_the_design_is_answered_in_the_order_of_the_questions() {
    let daemon = learnt().await;
    let body: Value = serde_json::from_str(
        r#"{"sla":["median","p95"],"queries":[
    {"kind":"execution_time","task":"count","input_bytes":50000000,"memory_mb":1769,"vcpu":1.0},
    {"kind":"output_size","task":"count","input_bytes":50000000},
    {"kind":"transfer_time","direction":"download","bytes":50000000,"memory_mb":1769},
    {"kind":"startup_time","state":"cold","memory_mb":1769}]}"#,
    )
    .unwrap();
    let answer = good(daemon.post("/v1/workflows/w/predictions", &body)).await;
    let typed: PredictionAnswer = serde_json::from_value(answer.clone()).unwrap();
    assert_eq!(typed.epoch, 1);
    let units: Vec<_> =
        answer["predictions"].as_array().unwrap().iter().map(|p| p["unit"].as_str().unwrap()).collect();
    assert_eq!(units, ["ms", "bytes", "ms", "ms"]);
    for prediction in answer["predictions"].as_array().unwrap() {
        let (median, p95) = (&prediction["values"]["median"], &prediction["values"]["p95"]);
        assert!(
            median.as_f64().unwrap() > 0.0 && p95.as_f64().unwrap() >= median.as_f64().unwrap(),
            "{prediction}"
        );
        assert_ne!(prediction["basis"], json!("none"));
    }
}

#[tokio::test]
async fn each_kind_can_be_asked_for_alone() {
    let daemon = learnt().await;
    for (path, unit) in [
        ("execution-time?task=count&input_bytes=1000&memory_mb=1769&vcpu=1.0&sla=median,p95", "ms"),
        ("output-size?task=count&input_bytes=1000", "bytes"),
        ("transfer-time?direction=download&bytes=1000000&memory_mb=1769&store=s3&sla=mean", "ms"),
        ("startup-time?state=cold&memory_mb=1769&sla=p99.9", "ms"),
    ] {
        let answer = daemon.read(&format!("/v1/workflows/w/predictions/{path}")).await;
        let typed: SinglePrediction = serde_json::from_value(answer.clone()).unwrap();
        assert_eq!((typed.epoch, &answer["unit"]), (1, &json!(unit)), "{path}");
        assert!(typed.prediction.values.values().all(|v| v.is_some_and(|v| v > 0.0)), "{answer}");
    }
}

#[tokio::test]
async fn a_question_that_lacks_something_is_refused_by_name() {
    let daemon = learnt().await;
    for (path, named) in [
        ("execution-time?input_bytes=1&memory_mb=1769", "`task`"),
        ("execution-time?task=count", "`memory_mb`"),
        ("transfer-time?memory_mb=1769", "`direction`"),
        ("startup-time?memory_mb=1769", "`state`"),
        ("execution-time?task=count&memory_mb=0", "`0`"),
        ("execution-time?task=count&memory_mb=1769&vcpu=-1", "`-1`"),
        ("execution-time?task=count&memory_mb=1769&sla=p101", "`p101`"),
        ("execution-time?task=count&memory_mb=lots", "memory_mb"),
        ("startup-time?memory_mb=1769&state=tepid", "tepid"),
        ("execution-time?task=count&memory_mb=1769&memory=512", "`memory`"),
    ] {
        let request = daemon.get(&format!("/v1/workflows/w/predictions/{path}"));
        let problem = fails(request, ErrorCode::InvalidParameter).await;
        assert!(problem.detail.contains(named), "{path}: {}", problem.detail);
    }
    fails(daemon.get("/v1/workflows/w/predictions/weather?task=a"), ErrorCode::NotFound).await;
    let none = json!({"sla": [], "queries": []});
    fails(daemon.post("/v1/workflows/w/predictions", &none), ErrorCode::InvalidBody).await;
    let bad = json!({"queries": [{"kind": "startup_time", "state": "cold", "memory_mb": 0}]});
    let problem = fails(daemon.post("/v1/workflows/w/predictions", &bad), ErrorCode::InvalidBody).await;
    assert!(problem.detail.contains("queries[0]"));
    let asked = json!({"kind": "execution_time", "task": "count", "memory_mb": 1769});
    for (field, place) in [("input_byte", "/queries/0"), ("slas", "")] {
        let mut body = json!({"queries": [asked.clone()]});
        body.pointer_mut(place).unwrap()[field] = json!(7);
        let problem = fails(daemon.post("/v1/workflows/w/predictions", &body), ErrorCode::InvalidBody).await;
        assert!(problem.detail.contains(&format!("`{field}`")), "{}", problem.detail);
    }
}

#[tokio::test]
async fn who_has_the_epoch_gets_304_until_the_model_learns() {
    let daemon = learnt().await;
    let first = daemon.get(ONE).send().await.unwrap();
    let etag = first.headers()[ETAG].clone();
    assert_eq!(etag, "\"1\"");
    let again = daemon.get(ONE).header(IF_NONE_MATCH, &etag).send().await.unwrap();
    assert_eq!((again.status(), &again.headers()[ETAG]), (StatusCode::NOT_MODIFIED, &etag));
    let epoch = daemon.batch("b-2", json!([task(900.0)])).await["epoch"].as_u64().unwrap();
    let newer = daemon.get(ONE).header(IF_NONE_MATCH, &etag).send().await.unwrap();
    assert_eq!(newer.status(), StatusCode::OK);
    assert!(
        newer.json::<SinglePrediction>().await.unwrap().epoch >= epoch,
        "a read after the answer sees it"
    );
}

#[tokio::test]
async fn nothing_known_is_null_and_never_zero() {
    let daemon = learnt().await;
    for workflow in ["w", "never-heard-of"] {
        let path = format!("/v1/workflows/{workflow}/predictions/execution-time?task=other&memory_mb=512");
        let answer = daemon.read(&path).await;
        assert_eq!((&answer["basis"], &answer["values"]["median"]), (&json!("none"), &Value::Null));
    }
}

#[tokio::test]
async fn a_workflow_without_history_borrows_from_another() {
    let daemon = learnt().await;
    let path = "/v1/workflows/new/predictions/execution-time?task=count&input_bytes=1000&memory_mb=1769";
    let answer = daemon.read(path).await;
    assert_eq!((&answer["basis"], &answer["epoch"]), (&json!("prior"), &json!(1)));
    let start = daemon.read("/v1/workflows/new/predictions/startup-time?state=cold&memory_mb=1769").await;
    assert_eq!(start["basis"], json!("prior"));
}

#[tokio::test]
async fn a_downloaded_model_answers_like_the_daemon() {
    let daemon = learnt().await;
    let answer = daemon.get("/v1/workflows/w/model").send().await.unwrap();
    let etag = answer.headers()[ETAG].clone();
    let packed: Predictor = postcard::from_bytes(&answer.bytes().await.unwrap()).unwrap();
    let text = daemon.get("/v1/workflows/w/model").header("accept", "application/json").send().await.unwrap();
    assert!(text.headers().get_all(VARY).iter().any(|v| v == "accept"));
    let text_etag = text.headers()[ETAG].clone();
    assert!(etag == "\"1\"" && text_etag == "\"1-json\"", "{etag:?} {text_etag:?}");
    let named: Predictor = text.json().await.unwrap();
    assert_eq!(packed, named);
    for (accept, known, expected) in [
        ("*/*", &etag, StatusCode::NOT_MODIFIED),
        ("*/*", &text_etag, StatusCode::OK),
        ("application/json", &text_etag, StatusCode::NOT_MODIFIED),
        ("application/json", &etag, StatusCode::OK),
    ] {
        let again = daemon.get("/v1/workflows/w/model").header("accept", accept);
        let again = again.header(IF_NONE_MATCH, known).send().await.unwrap();
        assert_eq!(again.status(), expected, "{accept} {known:?}");
    }
    let asked: SinglePrediction = daemon.get(ONE).send().await.unwrap().json().await.unwrap();
    let query = serde_json::from_value(
        json!({"kind": "execution_time", "task": "count", "input_bytes": 1000, "memory_mb": 1769}),
    );
    let slas = ["median".parse().unwrap(), "p95".parse().unwrap()];
    assert_eq!(packed.predict(&query.unwrap(), &slas), asked.prediction);
    fails(daemon.get("/v1/workflows/x/model"), ErrorCode::WorkflowNotFound).await;
}

#[tokio::test]
async fn tasks_are_listed_and_reported() {
    let daemon = learnt().await;
    let tasks = daemon.read("/v1/workflows/w/tasks").await;
    let entry = &tasks["tasks"][0];
    assert_eq!(
        (&entry["task"], &entry["samples"], &entry["memory_mb"]),
        (&json!("count"), &json!(40), &json!(1769))
    );
    let report = daemon.read("/v1/workflows/w/tasks/count").await;
    assert_eq!(report["configs"][0]["samples"], json!(40));
    fails(daemon.get("/v1/workflows/w/tasks/other"), ErrorCode::TaskNotFound).await;
    fails(daemon.get("/v1/workflows/x/tasks"), ErrorCode::WorkflowNotFound).await;
}

#[tokio::test]
async fn a_large_request_is_answered_whole() {
    let daemon = learnt().await;
    let query = json!({"kind": "execution_time", "task": "count", "input_bytes": 1000, "memory_mb": 1769});
    let body = json!({"sla": ["median"], "queries": vec![query; 3000]});
    let answer = good(daemon.post("/v1/workflows/w/predictions", &body)).await;
    let predictions = answer["predictions"].as_array().unwrap();
    assert_eq!(predictions.len(), 3000);
    assert!(predictions.iter().all(|p| *p == predictions[0]));
}

#[tokio::test]
async fn workflows_and_tasks_come_in_pages_without_gaps() {
    let daemon = Daemon::with(|settings| settings.list_max = 3);
    for (n, workflow) in ["w-d", "w-b", "w-a", "w-c"].into_iter().enumerate() {
        let named = |name: &str| {
            let mut record = task(1.0);
            record["task"] = json!(name);
            record
        };
        let records: Vec<Value> = ["e", "b", "d", "a", "c"][..n + 2].iter().map(|t| named(t)).collect();
        let body = json!({"batch_id": "b-1", "records": records});
        good(daemon.post(&format!("/v1/workflows/{workflow}/batches"), &body)).await;
    }
    for (path, list, name, limit, expected) in [
        ("/v1/workflows", "workflows", "workflow", "", vec!["w-d w-b w-a", "w-c"]),
        ("/v1/workflows", "workflows", "workflow", "&limit=2", vec!["w-d w-b", "w-a w-c"]),
        ("/v1/workflows/w-c/tasks", "tasks", "task", "&limit=99", vec!["a b c", "d e"]),
        ("/v1/workflows/w-c/tasks", "tasks", "task", "&limit=0", vec!["a", "b", "c", "d", "e"]),
        ("/v1/workflows/w-b/tasks", "tasks", "task", "", vec!["b d e"]),
    ] {
        let (mut after, mut pages) = (String::new(), Vec::new());
        loop {
            let page = daemon.read(&format!("{path}?{after}{limit}")).await;
            let names = page[list].as_array().unwrap().iter().map(|entry| entry[name].as_str().unwrap());
            pages.push(names.collect::<Vec<_>>().join(" "));
            let Some(next) = page["next_after"].as_str() else { break };
            after = format!("after={next}");
        }
        assert_eq!(pages, expected, "{path} {limit}");
    }
    for query in ["after=w-x", "limit=x", "limit=-1", "after=a%20b"] {
        fails(daemon.get(&format!("/v1/workflows?{query}")), ErrorCode::InvalidParameter).await;
    }
    assert_eq!(daemon.read("/v1/workflows/w-c/tasks?after=zz").await["tasks"], json!([]));
}
