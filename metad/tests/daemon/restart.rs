//! Restarts: what was acknowledged is there, what was learnt answers the same, runs go on where they were.

use foresail_schemas::run::RunStatus;
use serde_json::{Value, json};

use crate::runs::{commit, join, lease, summary};
use crate::{Daemon, good, task};

async fn model(daemon: &Daemon) -> Vec<u8> {
    daemon.get("/v1/workflows/w/model").send().await.unwrap().bytes().await.unwrap().to_vec()
}

#[tokio::test]
async fn the_model_after_a_restart_equals_the_model_before() {
    // With checkpoints in the middle, so that the next start takes one and replays the rest.
    let mut daemon = Daemon::with(|s| s.checkpoint_records = 25);
    for life in 0..3u32 {
        for batch in 0..10u32 {
            let exec_ms = f64::from(life * 100 + batch);
            daemon.batch(&format!("b-{life}-{batch}"), json!([task(exec_ms), task(exec_ms * 1.5)])).await;
        }
        let (before, tasks) = (model(&daemon).await, daemon.read("/v1/workflows/w/tasks/count").await);
        daemon = daemon.restart();
        assert_eq!(model(&daemon).await, before);
        assert_eq!(daemon.read("/v1/workflows/w/tasks/count").await, tasks);
    }
    assert_eq!(daemon.read("/v1/workflows/w").await["records_accepted"], json!(60));
    let next = daemon.batch("b-next", json!([task(1.0)])).await;
    assert_eq!(next["epoch"], json!(31), "epochs go on");
}

#[tokio::test]
async fn a_run_goes_on_after_a_restart_in_its_middle() {
    let daemon = Daemon::start();
    daemon.run("r-1").await;
    let i = "i-1";
    daemon.operate("r-1", json!([join(i), lease(0, i), commit(0, i, 2), lease(1, i)])).await;
    let before = summary(&daemon, "r-1").await;
    let daemon = daemon.restart();
    let after = summary(&daemon, "r-1").await;
    assert_eq!(
        (after.status, after.committed, after.running),
        (RunStatus::Running, 1, 1),
        "the lease lives on"
    );
    assert!(after.elapsed_ms >= before.elapsed_ms, "the clock of a run does not go back");
    assert_eq!(after.last_event, before.last_event);
    let other = daemon.operate("r-1", json!([join("i-2"), lease(1, "i-2")])).await;
    assert_eq!(other[1]["result"], json!("held"));
    let rest = json!([commit(1, i, 1), lease(2, i), commit(2, i, 1), lease(3, i), commit(3, i, 1)]);
    daemon.operate("r-1", rest).await;
    assert_eq!(summary(&daemon, "r-1").await.status, RunStatus::Completed);
    let events = daemon.read("/v1/runs/r-1/events").await;
    let seqs: Vec<u64> =
        events["events"].as_array().unwrap().iter().map(|e| e["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "no gap over the restart");
}

#[tokio::test]
async fn a_stop_under_load_loses_nothing_that_was_acknowledged() {
    let mut daemon = Daemon::start();
    let mut senders = Vec::new();
    for sender in 0..4 {
        let (client, url) = (daemon.client.clone(), daemon.url("/v1/workflows/w/batches"));
        senders.push(tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for batch in 0..10_000 {
                let id = format!("b-{sender}-{batch}");
                let body = json!({"batch_id": id, "records": [task(1.0)]});
                match client.post(&url).json(&body).send().await {
                    Ok(answer) if answer.status() == 200 => acknowledged.push(id),
                    _ => break,
                }
            }
            acknowledged
        }));
    }
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    daemon = tokio::task::spawn_blocking(move || daemon.restart()).await.unwrap();
    let mut acknowledged = Vec::new();
    for sender in senders {
        acknowledged.extend(sender.await.unwrap());
    }
    assert!(!acknowledged.is_empty());
    let stored = daemon.read("/v1/workflows/w").await["records_accepted"].as_u64().unwrap();
    assert!(stored >= acknowledged.len() as u64, "{stored} < {}", acknowledged.len());
    for id in acknowledged {
        let body: Value = json!({"batch_id": id, "records": [task(1.0)]});
        assert_eq!(
            good(daemon.post("/v1/workflows/w/batches", &body)).await["duplicate"],
            json!(true),
            "{id}"
        );
    }
}
