//! kill -9 of metad during ingest: what was acknowledged is there, once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::stack::metad_with;

/// Points at which metad is killed; `FORESAIL_PROOF=1` makes it 1,000.
const KILLS: u64 = 50;
/// Connections that send batches at the same time.
const CLIENTS: u64 = 4;
/// Records in a batch.
const RECORDS: u64 = 7;
/// More batches than a client sends between two kills; keeps the numbers of clients apart.
const BATCHES_PER_CLIENT_MAX: u64 = 20_000;

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

/// Sends batches until the server dies or `stop` is set; gives the batch whose answer was lost.
async fn send_until(
    url: String,
    first: u64,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<u64>>>,
) -> Option<u64> {
    let http = reqwest::Client::new();
    let mut number = first;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let answer = send(&http, &url, &batch(&format!("b-{number}"), number)).await;
        let Some(answer) = answer else { return Some(number) };
        assert_eq!((&answer["accepted"], &answer["duplicate"]), (&json!(RECORDS), &json!(false)), "{answer}");
        acknowledged.lock().expect("not poisoned").push(number);
    }
    None
}

/// Sends batches again whose answer was lost: stored before or not, they are stored now.
async fn send_again(url: &str, in_doubt: &mut Vec<u64>, acknowledged: &Mutex<Vec<u64>>) {
    let http = reqwest::Client::new();
    for number in in_doubt.drain(..) {
        let answer = send(&http, url, &batch(&format!("b-{number}"), number)).await.expect("it answers");
        assert_eq!(answer["accepted"], RECORDS, "{answer}");
        acknowledged.lock().expect("not poisoned").push(number);
    }
}

#[test]
fn kill_nine_during_ingest_loses_nothing_acknowledged_and_doubles_nothing() {
    let kills = if std::env::var("FORESAIL_PROOF").is_ok() { 20 * KILLS } else { KILLS };
    let dir = tempfile::tempdir().expect("a temporary directory");
    // Checkpoints every few batches, so that kills hit them too; nothing is dropped by retention.
    let settings = ["--checkpoint-records", "100", "--workflow-records-max", "100000000"];
    let start = || metad_with(dir.path(), "127.0.0.1:0", &settings);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let acknowledged = Arc::new(Mutex::new(Vec::<u64>::new()));
        let mut in_doubt = Vec::new();
        for kill in 0..kills {
            let server = start();
            send_again(&server.address, &mut in_doubt, &acknowledged).await;
            let stop = Arc::new(AtomicBool::new(false));
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    let first = (kill * CLIENTS + client) * BATCHES_PER_CLIENT_MAX;
                    let (url, stop, acknowledged) =
                        (server.address.clone(), stop.clone(), acknowledged.clone());
                    tokio::spawn(send_until(url, first, stop, acknowledged))
                })
                .collect();
            // Different points of the daemon's work: the pause walks through 0 to 123 ms.
            tokio::time::sleep(Duration::from_millis(kill * 37 % 124)).await;
            server.kill();
            stop.store(true, Ordering::Relaxed);
            for client in clients {
                in_doubt.extend(client.await.expect("a client does not panic"));
            }
        }
        let server = start();
        send_again(&server.address, &mut in_doubt, &acknowledged).await;
        let http = reqwest::Client::new();
        let seen = stored(&http, &server.address).await;
        let acknowledged = acknowledged.lock().expect("not poisoned").clone();
        assert!(acknowledged.len() as u64 > kills, "the clients got through between the kills");
        for number in &acknowledged {
            for record in number * RECORDS..(number + 1) * RECORDS {
                assert_eq!(seen.get(&record), Some(&1), "record {record} of acknowledged batch b-{number}");
            }
        }
        assert_eq!(seen.len() as u64, acknowledged.len() as u64 * RECORDS, "nothing else is there");
        assert!(seen.values().all(|&times| times == 1), "no record is there twice");
        let mut last: Vec<u64> = acknowledged.iter().rev().take(20).copied().collect();
        for &number in &last {
            let answer = send(&http, &server.address, &batch(&format!("b-{number}"), number)).await;
            assert_eq!(answer.expect("it answers")["duplicate"], true);
        }
        send_again(&server.address, &mut last, &Mutex::default()).await;
        assert_eq!(stored(&http, &server.address).await, seen, "duplicates change nothing");
        assert!(server.terminate().success(), "a graceful stop");
        println!("{kills} kills, {} batches acknowledged, none lost, none doubled", acknowledged.len());
    });
}
