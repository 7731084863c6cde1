//! Batches as columns: stored, set aside, repeated and limited exactly as JSON batches are.

use std::io::Write as _;

use foresail_schemas::ErrorCode;
use serde_json::{Value, json};

use crate::{Daemon, fails, good};

const MEDIA_TYPE: &str = "application/vnd.foresail.columns";

/// Executions of the task `count` that took these times.
fn body(batch_id: &str, times_ms: &[f64]) -> Vec<u8> {
    let columns = ["task", "memory_mb", "exec_ms", "input_bytes"];
    let group = json!({"kind": "task", "records": times_ms.len(), "columns": columns});
    let head = json!({"batch_id": batch_id, "run": "r-1", "names": ["count"], "groups": [group]}).to_string();
    let mut body = b"FSC1".to_vec();
    body.extend((head.len() as u32).to_le_bytes());
    body.extend(head.as_bytes());
    times_ms.iter().for_each(|_| body.extend(0_u32.to_le_bytes()));
    times_ms.iter().for_each(|_| body.extend(1769_u32.to_le_bytes()));
    times_ms.iter().for_each(|ms| body.extend(ms.to_le_bytes()));
    times_ms.iter().for_each(|_| body.extend(1000_u64.to_le_bytes()));
    body
}

fn post(daemon: &Daemon, body: Vec<u8>) -> reqwest::RequestBuilder {
    let url = daemon.url("/v1/workflows/w/batches");
    daemon.client.post(url).header("content-type", MEDIA_TYPE).body(body)
}

#[tokio::test]
async fn columns_are_learnt_from_like_json() {
    let daemon = Daemon::start();
    let times: Vec<f64> = (0..40).map(|n| 100.0 + f64::from(n)).collect();
    let answer = good(post(&daemon, body("b-1", &times))).await;
    assert_eq!(answer, json!({"accepted": 40, "duplicate": false, "rejected": [], "epoch": 1}));
    let records: Vec<Value> = times.iter().map(|ms| crate::task(*ms)).collect();
    good(daemon.post("/v1/workflows/v/batches", &json!({"batch_id": "b-1", "records": records}))).await;
    let ask = |workflow: &str| {
        format!(
            "/v1/workflows/{workflow}/predictions/execution-time?task=count&input_bytes=1000&memory_mb=1769"
        )
    };
    let (columns, json) = (daemon.read(&ask("w")).await, daemon.read(&ask("v")).await);
    assert_eq!((&columns["values"], &columns["samples"]), (&json["values"], &json["samples"]));
}

#[tokio::test]
async fn the_same_columns_twice_change_nothing_and_packed_ones_are_unpacked() {
    let daemon = Daemon::start();
    let plain = body("b-1", &[1.0, 2.0]);
    let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let first = good(post(&daemon, zstd).header("content-encoding", "zstd")).await;
    assert_eq!((&first["accepted"], &first["duplicate"]), (&json!(2), &json!(false)));
    for again in
        [post(&daemon, gzip.finish().unwrap()).header("content-encoding", "gzip"), post(&daemon, plain)]
    {
        assert_eq!(good(again).await["duplicate"], json!(true));
    }
    let other = fails(post(&daemon, body("b-2", &[])).header("idempotency-key", "x"), ErrorCode::InvalidBody);
    assert!(other.await.detail.contains("two ids"));
}

#[tokio::test]
async fn a_bad_record_of_columns_goes_to_the_quarantine_and_the_others_are_stored() {
    let daemon = Daemon::start();
    let answer = good(post(&daemon, body("b-1", &[1.0, f64::INFINITY, -1.0, 4.0]))).await;
    assert_eq!(answer["accepted"], json!(2));
    let kept = daemon.read("/v1/workflows/w/quarantine").await;
    let records = kept["records"].as_array().unwrap();
    let seen: Vec<_> = records.iter().map(|r| (&r["index"], &r["code"], &r["record"]["exec_ms"])).collect();
    let code = json!("invalid_record");
    assert_eq!(seen, [(&json!(2), &code, &json!(-1.0)), (&json!(1), &code, &json!("inf"))], "youngest first");
    assert_eq!(records[0]["record"]["task"], json!("count"));
}

#[tokio::test]
async fn columns_have_the_limits_of_json() {
    let daemon = Daemon::with(|s| s.batch_records_max = 3);
    let refused = fails(post(&daemon, body("b-1", &[1.0; 4])), ErrorCode::TooMany).await;
    assert_eq!(refused.limit, Some(3));
    let mut cut = body("b-1", &[1.0; 3]);
    cut.pop();
    fails(post(&daemon, cut), ErrorCode::InvalidBody).await;
    assert_eq!(daemon.read("/v1/workflows").await["workflows"], json!([]));
}
