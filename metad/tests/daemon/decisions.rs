//! Decisions over HTTP: taken in, predicted, exported, kept over a restart, and set aside where they are
//! none.

use foresail_schemas::ErrorCode;
use serde_json::{Value, json};

use crate::{Daemon, fails, good};

const ONE: &str = "/v1/workflows/w/predictions/decision?task=split&input_bytes=10&sla=median,p95";

fn decision(value: &Value) -> Value {
    json!({"kind": "decision", "task": "split", "input_bytes": 10, "value": value})
}

#[tokio::test]
async fn decisions_are_predicted_and_survive_a_restart() {
    let mut daemon = Daemon::with(|s| s.checkpoint_records = 5);
    let unknown = daemon.read(ONE).await;
    assert_eq!((&unknown["unit"], &unknown["basis"]), (&json!("tasks"), &json!("none")));
    for batch in 0..10 {
        let widths = [8, 8, 7, 9].map(|width| decision(&json!(width)));
        daemon.batch(&format!("b-{batch}"), json!(widths)).await;
    }
    let answer = daemon.read(ONE).await;
    assert_eq!(answer["values"], json!({"median": 8.0, "p95": 9.0}));
    assert_eq!((&answer["samples"], &answer["branches"]["8"]), (&json!(40), &json!(21.0 / 44.0)));
    let query = json!({"kind": "decision", "task": "split", "input_bytes": 10});
    let body = json!({"sla": ["median", "p95"], "queries": [query]});
    let many = good(daemon.post("/v1/workflows/w/predictions", &body)).await;
    assert_eq!(many["predictions"][0]["branches"], answer["branches"]);
    daemon = daemon.restart();
    assert_eq!(daemon.read(ONE).await, answer);
}

#[tokio::test]
async fn what_decides_nothing_is_set_aside_and_the_rest_comes_out_as_it_came() {
    let daemon = Daemon::start();
    let long = "x".repeat(257);
    let records = [json!(3), json!("left"), json!(-1), json!(true), json!(long), json!(null)];
    let answer = daemon.batch("b-1", json!(records.map(|value| decision(&value)))).await;
    let rejected = answer["rejected"].as_array().unwrap();
    let places: Vec<_> = rejected.iter().map(|one| one["index"].as_u64().unwrap()).collect();
    assert_eq!((&answer["accepted"], places), (&json!(2), vec![2, 3, 4, 5]));
    let with_size = json!([{"kind": "decision", "task": "split", "value": 3, "memory_mb": 512}]);
    let answer = daemon.batch("b-2", with_size).await;
    assert!(answer["rejected"][0]["detail"].as_str().unwrap().contains("memory_mb"), "{answer}");
    let path = "/v1/workflows/w/samples?format=ndjson";
    let text = daemon.get(path).send().await.unwrap().text().await.unwrap();
    let values: Vec<Value> =
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["value"].clone()).collect();
    assert_eq!(values, [json!(3), json!("left")]);
    fails(daemon.get("/v1/workflows/w/predictions/decision"), ErrorCode::InvalidParameter).await;
}
