//! kill -9 of metad during ingest: what was acknowledged is there, once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::stack::metad;

/// Points at which metad is killed; `FORESAIL_PROOF=1` makes it 1,000.
const KILLS: u64 = 50;
/// Connections that send batches at the same time.
const CLIENTS: u64 = 4;
/// Records in a batch.
const RECORDS: u64 = 7;

fn batch(id: &str, number: u64) -> Value {
    let records: Vec<Value> = (0..RECORDS)
        .map(|r| {
            let exec_ms = (number * RECORDS + r) as f64;
            json!({"kind": "task", "task": "t", "memory_mb": 1769, "input_bytes": number, "exec_ms": exec_ms})
        })
        .collect();
    json!({"batch_id": id, "run": "r-1", "worker": "w-1", "records": records})
}

async fn send(http: &reqwest::Client, url: &str, body: &Value) -> Option<Value> {
    let answer = http.post(format!("{url}/v1/workflows/crash/batches")).json(body).send().await.ok()?;
    answer.status().is_success().then_some(())?;
    answer.json().await.ok()
}

/// Every record of the workflow, as the number it carries, with how often it is there.
async fn stored(http: &reqwest::Client, url: &str) -> BTreeMap<u64, u64> {
    let text = http
        .get(format!("{url}/v1/workflows/crash/samples?format=ndjson"))
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .expect("samples are served")
        .text()
        .await
        .expect("samples end");
    let mut seen = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let record: Value = serde_json::from_str(line).expect("a line is a record");
        let number = record["exec_ms"].as_f64().expect("a task record has a time") as u64;
        *seen.entry(number).or_insert(0) += 1;
    }
    seen
}

#[test]
fn kill_nine_during_ingest_loses_nothing_acknowledged_and_doubles_nothing() {
    let kills = if std::env::var("FORESAIL_PROOF").is_ok() { 20 * KILLS } else { KILLS };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let acknowledged = Arc::new(Mutex::new(Vec::<u64>::new()));
        for kill in 0..kills {
            let server = metad(dir.path(), "127.0.0.1:0");
            let stop = Arc::new(AtomicBool::new(false));
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    let (url, stop, acknowledged) =
                        (server.address.clone(), stop.clone(), acknowledged.clone());
                    tokio::spawn(async move {
                        let http = reqwest::Client::new();
                        let mut number = (kill * CLIENTS + client) * 1_000_000;
                        while !stop.load(Ordering::Relaxed) {
                            number += 1;
                            let body = batch(&format!("b-{number}"), number);
                            match send(&http, &url, &body).await {
                                Some(answer) => {
                                    assert_eq!(answer["accepted"], RECORDS, "{answer}");
                                    assert_eq!(answer["duplicate"], false, "{answer}");
                                    acknowledged.lock().expect("not poisoned").push(number);
                                }
                                None => break,
                            }
                        }
                    })
                })
                .collect();
            // Different points of the daemon's work: the pause walks through 0 to 123 ms.
            tokio::time::sleep(Duration::from_millis(kill * 37 % 124)).await;
            server.kill();
            stop.store(true, Ordering::Relaxed);
            for client in clients {
                client.await.expect("a client does not panic");
            }
        }
        let server = metad(dir.path(), "127.0.0.1:0");
        let http = reqwest::Client::new();
        let seen = stored(&http, &server.address).await;
        let acknowledged = acknowledged.lock().expect("not poisoned").clone();
        assert!(acknowledged.len() as u64 > kills, "the clients got through between the kills");
        for number in &acknowledged {
            for record in number * RECORDS..(number + 1) * RECORDS {
                assert_eq!(seen.get(&record), Some(&1), "record {record} of acknowledged batch b-{number}");
            }
        }
        assert!(seen.values().all(|&times| times == 1), "no record is there twice");
        // The last batches again: duplicates, and nothing changes.
        for &number in acknowledged.iter().rev().take(20) {
            let answer = send(&http, &server.address, &batch(&format!("b-{number}"), number))
                .await
                .expect("it answers");
            assert_eq!((&answer["duplicate"], &answer["accepted"]), (&json!(true), &json!(RECORDS)));
        }
        assert_eq!(stored(&http, &server.address).await, seen);
        assert!(server.terminate().success(), "a graceful stop");
        println!("{kills} kills, {} batches acknowledged, none lost, none doubled", acknowledged.len());
    });
}
