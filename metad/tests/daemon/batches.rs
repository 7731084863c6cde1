//! Ingest: the exact request of the design, repeated batches, bad records, other encodings.

use std::io::Write as _;

use foresail_schemas::ErrorCode;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use serde_json::{Value, json};

use crate::{Daemon, fails, good, task};

/// The request of the design, but for line breaks.
const DESIGN: &str = r#"{"batch_id":"b-1","run":"r-1","worker":"w-3","records":[
    {"kind":"task","task":"count","memory_mb":1769,"vcpu":1.0,
     "input_bytes":50000000,"output_bytes":1200,"exec_ms":1523.4,
     "peak_memory_mb":312,"attempt":1,"at":"2026-01-05T10:00:00Z"},
    {"kind":"transfer","direction":"download","bytes":50000000,"time_ms":812.0,"memory_mb":1769,"vcpu":1.0,
     "store":"s3"},
    {"kind":"startup","state":"cold","time_ms":640.2,"memory_mb":1769,"vcpu":1.0}]}"#;

fn post(daemon: &Daemon, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
    let url = daemon.url("/v1/workflows/w/batches");
    daemon.client.post(url).header("content-type", "application/json").body(body)
}

async fn records_kept(daemon: &Daemon) -> u64 {
    daemon.read("/v1/workflows/w").await["records_accepted"].as_u64().unwrap()
}

#[tokio::test]
async fn the_request_of_the_design_gets_the_answer_of_the_design() {
    let daemon = Daemon::start();
    let answer = good(post(&daemon, DESIGN)).await;
    assert_eq!(answer, json!({"accepted": 3, "duplicate": false, "rejected": [], "epoch": 1}));
}

#[tokio::test]
async fn duplicate_batch_changes_nothing_also_across_a_restart() {
    let daemon = Daemon::start();
    let bad = json!([task(5.0), {"kind": "nonsense"}, task(6.0)]);
    let first = daemon.batch("b-1", bad.clone()).await;
    assert_eq!((&first["accepted"], &first["duplicate"]), (&json!(2), &json!(false)));
    let before = daemon.read("/v1/workflows/w").await;
    let again = daemon.batch("b-1", bad.clone()).await;
    assert_eq!(again["duplicate"], json!(true));
    assert_eq!((&again["accepted"], &again["rejected"]), (&first["accepted"], &first["rejected"]));
    assert_eq!(again["epoch"], first["epoch"]);
    let daemon = daemon.restart();
    let after_restart = daemon.batch("b-1", bad).await;
    assert_eq!(after_restart, again);
    assert_eq!(daemon.read("/v1/workflows/w").await, before);
}

#[tokio::test]
async fn the_same_id_in_another_workflow_is_another_batch() {
    let daemon = Daemon::start();
    let body = json!({"batch_id": "b", "records": [task(1.0)]});
    for workflow in ["a", "b"] {
        let answer = good(daemon.post(&format!("/v1/workflows/{workflow}/batches"), &body)).await;
        assert_eq!(answer["duplicate"], json!(false));
    }
}

#[tokio::test]
async fn a_bad_record_does_not_block_the_good_ones_and_is_kept_with_its_reason() {
    let daemon = Daemon::start();
    let records =
        json!([task(1.0), {"kind": "task", "task": "count", "memory_mb": 1769, "exec_ms": -1}, task(2.0)]);
    let answer = daemon.batch("b-1", records).await;
    assert_eq!(answer["accepted"], json!(2));
    assert_eq!(answer["rejected"][0]["index"], json!(1));
    assert_eq!(answer["rejected"][0]["code"], json!("invalid_record"));
    assert!(answer["rejected"][0]["detail"].as_str().unwrap().contains("`-1`"), "{answer}");
    let quarantine = daemon.read("/v1/workflows/w/quarantine").await;
    let kept = &quarantine["records"][0];
    assert_eq!((&kept["batch_id"], &kept["index"]), (&json!("b-1"), &json!(1)));
    assert_eq!(kept["record"]["exec_ms"], json!(-1));
    assert_eq!((&quarantine["rejected"], &quarantine["kept"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn a_batch_of_bad_records_alone_makes_the_workflow_known_and_counts_once() {
    let daemon = Daemon::start();
    let answer = daemon.batch("b-1", json!([1, 2])).await;
    assert_eq!((&answer["accepted"], answer["rejected"].as_array().unwrap().len()), (&json!(0), 2));
    assert_eq!(daemon.batch("b-1", json!([1, 2])).await["duplicate"], json!(true));
    assert_eq!(daemon.read("/v1/workflows/w").await["quarantined_kept"], json!(2));
}

#[tokio::test]
async fn the_id_may_come_as_a_header_and_only_one_is_allowed() {
    let daemon = Daemon::start();
    let body = json!({"records": [task(1.0)]});
    let send =
        |key: &'static str| daemon.post("/v1/workflows/w/batches", &body).header("Idempotency-Key", key);
    assert_eq!(good(send("b-1")).await["duplicate"], json!(false));
    assert_eq!(good(send("\"b-1\"")).await["duplicate"], json!(true));
    fails(send("a b"), ErrorCode::InvalidName).await;
    fails(daemon.post("/v1/workflows/w/batches", &body), ErrorCode::InvalidBody).await;
    let both = json!({"batch_id": "b-2", "records": []});
    let both = daemon.post("/v1/workflows/w/batches", &both).header("Idempotency-Key", "b-3");
    assert!(fails(both, ErrorCode::InvalidBody).await.detail.contains("`b-2`"));
}

#[tokio::test]
async fn lines_are_taken_one_by_one() {
    let daemon = Daemon::start();
    let lines = format!("{}\n{{broken\n\n{}\n", task(1.0), task(2.0));
    let url = daemon.url("/v1/workflows/w/batches?run=r-1&worker=i-1&batch_id=b-9");
    let answer =
        good(daemon.client.post(url).header("content-type", "application/x-ndjson").body(lines)).await;
    assert_eq!(answer["accepted"], json!(2));
    assert_eq!(answer["rejected"][0]["index"], json!(1));
    let quarantine = daemon.read("/v1/workflows/w/quarantine").await;
    assert_eq!(quarantine["records"][0]["record"], json!("{broken"));
}

#[tokio::test]
async fn gzip_and_zstd_bodies_are_unpacked_and_others_refused() {
    let daemon = Daemon::start();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(DESIGN.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(DESIGN.as_bytes(), 1).unwrap();
    let first = good(post(&daemon, gzip.clone()).header("content-encoding", "gzip")).await;
    assert_eq!((&first["accepted"], &first["duplicate"]), (&json!(3), &json!(false)));
    let second = good(post(&daemon, zstd).header("content-encoding", "zstd")).await;
    assert_eq!(second["duplicate"], json!(true));
    assert_eq!(
        good(post(&daemon, DESIGN).header("content-encoding", "identity")).await["duplicate"],
        json!(true)
    );
    fails(post(&daemon, DESIGN).header("content-encoding", "br"), ErrorCode::UnsupportedMediaType).await;
    fails(post(&daemon, gzip[..40].to_vec()).header("content-encoding", "gzip"), ErrorCode::InvalidBody)
        .await;
}

#[tokio::test]
async fn what_is_no_batch_is_refused_and_stores_nothing() {
    let daemon = Daemon::start();
    for body in [
        "",
        "{",
        "[]",
        "{\"batch_id\":\"b\"}",
        "{\"batch_id\":\"b\",\"records\":7}",
        "{\"batch_id\":\"a b\",\"records\":[]}",
    ] {
        fails(post(&daemon, body), ErrorCode::InvalidBody).await;
    }
    let text = daemon
        .client
        .post(daemon.url("/v1/workflows/w/batches"))
        .header("content-type", "text/csv")
        .body("a");
    fails(text, ErrorCode::UnsupportedMediaType).await;
    let name = daemon.post("/v1/workflows/a%20b/batches", &json!({"batch_id": "b", "records": []}));
    fails(name, ErrorCode::InvalidName).await;
    assert_eq!(daemon.read("/v1/workflows").await["workflows"], json!([]));
}

#[tokio::test]
async fn samples_come_back_as_they_were_sent() {
    let daemon = Daemon::start();
    let sent: Vec<Value> =
        serde_json::from_str::<Value>(DESIGN).unwrap()["records"].as_array().unwrap().clone();
    good(post(&daemon, DESIGN)).await;
    daemon.batch("b-2", json!([task(7.0)])).await;
    let answer = daemon.get("/v1/workflows/w/samples?format=ndjson").send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    let lines = answer.text().await.unwrap();
    let back: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(back.len(), 4);
    assert_eq!(back[0]["at"], sent[0]["at"]);
    assert_eq!(back[1]["store"], json!("s3"));
    assert!(back[3]["at"].is_string(), "the time of arrival stands in");
    let csv = daemon.get("/v1/workflows/w/samples?format=csv");
    assert!(fails(csv, ErrorCode::InvalidParameter).await.detail.contains("`csv`"));
}

#[tokio::test]
async fn samples_download_as_parquet_in_groups_of_the_set_size() {
    let daemon = Daemon::with(|settings| settings.export_records_max = 10);
    for n in 0..5 {
        let records = (0..7).map(|i| task(f64::from(n * 7 + i))).collect();
        daemon.batch(&format!("b-{n}"), Value::Array(records)).await;
    }
    let answer = daemon.get("/v1/workflows/w/samples?format=parquet").send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/vnd.apache.parquet");
    let file = SerializedFileReader::new(answer.bytes().await.unwrap()).unwrap();
    let groups: Vec<i64> = file.metadata().row_groups().iter().map(|group| group.num_rows()).collect();
    assert_eq!(groups, [10, 10, 10, 5]);
    let exec_ms = |row: Row| row.into_columns().into_iter().find(|(name, _)| name == "exec_ms").unwrap().1;
    let read: Vec<Field> = file.get_row_iter(None).unwrap().map(|row| exec_ms(row.unwrap())).collect();
    assert_eq!(read, (0..35).map(|n| Field::Double(f64::from(n))).collect::<Vec<_>>());
}

#[tokio::test]
async fn many_writers_at_once_lose_nothing_and_count_nothing_twice() {
    let daemon = Daemon::start();
    let (writers, batches) = (8, 25);
    let mut tasks = Vec::new();
    for writer in 0..writers {
        let (client, url) = (daemon.client.clone(), daemon.url("/v1/workflows/w/batches"));
        tasks.push(tokio::spawn(async move {
            for batch in 0..batches {
                // Every id is sent twice, by neighbours, at about the same time.
                let id = format!("b-{}-{batch}", writer / 2);
                let body = json!({"batch_id": id, "records": [task(1.0), task(2.0)]});
                let answer = good(client.post(&url).json(&body)).await;
                assert_eq!(answer["accepted"], json!(2));
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(records_kept(&daemon).await, writers / 2 * batches * 2);
    let summary = daemon.read("/v1/workflows/w").await;
    let daemon = daemon.restart();
    assert_eq!(daemon.read("/v1/workflows/w").await, summary);
}

#[tokio::test]
async fn retention_drops_the_oldest_batches_and_keeps_what_was_learnt() {
    let daemon = Daemon::with(|s| {
        s.workflow_records_max = 10;
        s.workflow_quarantine_max = 3;
        s.workflow_batch_ids_max = 5;
        s.checkpoint_records = 1;
    });
    for batch in 0..20 {
        daemon.batch(&format!("b-{batch}"), json!([task(1.0), task(2.0), {"bad": batch}])).await;
    }
    // The checkpoint that lets raw batches go is stored with the next group.
    for batch in 20..40 {
        daemon.batch(&format!("b-{batch}"), json!([task(1.0), task(2.0)])).await;
        if daemon.read("/v1/workflows/w").await["records_kept"].as_u64().unwrap() <= 12 {
            break;
        }
    }
    let summary = daemon.read("/v1/workflows/w").await;
    assert!(summary["records_kept"].as_u64().unwrap() <= 12, "{summary}");
    assert!(summary["records_accepted"].as_u64().unwrap() >= 42);
    assert_eq!(summary["quarantined_kept"], json!(3));
    let quarantine = daemon.read("/v1/workflows/w/quarantine").await;
    assert_eq!(quarantine["records"][0]["record"]["bad"], json!(19));
    assert_eq!(daemon.batch("b-0", json!([])).await["duplicate"], json!(false), "its id was let go");
    let before = daemon.read("/v1/workflows/w/tasks/count").await;
    let daemon = daemon.restart();
    assert_eq!(daemon.read("/v1/workflows/w/tasks/count").await, before);
}
