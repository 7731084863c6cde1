//! Replicas that are there: the same bytes at the same epoch, whoever was fed; those that were away catch up;
//! a replica that is killed takes nothing along that was acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::Client;
use serde_json::json;

use crate::server::Nats;
use crate::{Process, Replica, ask, eventually, model, model_now, post, records, task};

#[tokio::test]
async fn replicas_fed_through_each_of_them_at_once_learn_the_same_bytes() {
    let Some(nats) = Nats::start() else { return };
    // Each writes checkpoints at other times and groups otherwise; neither may be seen.
    let replicas = [
        Replica::start(&nats),
        Replica::with(&nats, |s| (s.group_max, s.checkpoint_records) = (1, 10)),
        Replica::with(&nats, |s| s.checkpoint_ms = 5),
    ];
    for replica in &replicas {
        replica.ready().await;
    }
    let mut senders = Vec::new();
    for (replica, number) in replicas.iter().zip(0u32..) {
        for lane in 0..4 {
            let (client, base) = (replica.client.clone(), replica.url(""));
            senders.push(tokio::spawn(async move {
                let mut epochs = Vec::new();
                for batch in 0..25 {
                    let (workflow, id) =
                        (["v", "w"][batch as usize % 2], format!("b-{number}-{lane}-{batch}"));
                    let seed = number * 1000 + lane * 100 + batch;
                    let (status, answer) = post(&client, &base, workflow, &id, &records(seed)).await;
                    assert_eq!(status, 200, "{answer}");
                    assert_eq!((&answer["accepted"], &answer["duplicate"]), (&json!(4), &json!(false)));
                    assert_eq!(answer["rejected"][0]["index"], json!(4));
                    epochs.push(answer["epoch"].as_u64().unwrap());
                }
                epochs
            }));
        }
    }
    let mut epochs = Vec::new();
    for sender in senders {
        epochs.extend(sender.await.unwrap());
    }
    let last = *epochs.iter().max().unwrap();
    assert_eq!((epochs.len(), last), (300, 300), "an epoch is a place in the log");
    for replica in &replicas {
        eventually(async || replica.figure("foresail_metad_log_applied").await == last).await;
    }
    for workflow in ["v", "w"] {
        let [a, b, c] = &replicas;
        let (a, b, c) = (a.model(workflow, 1), b.model(workflow, 1), c.model(workflow, 1));
        let (a, b, c) = tokio::join!(a, b, c);
        assert!(a == b && b == c && !a.1.is_empty(), "{workflow} {} {} {}", a.0, b.0, c.0);
    }
    for path in ["/v1/workflows/v/quarantine", "/v1/workflows/w/tasks/count", "/v1/workflows"] {
        let first = replicas[0].get(path).await;
        assert!(
            first.0 == 200 && first == replicas[1].get(path).await && first == replicas[2].get(path).await
        );
    }
}

#[tokio::test]
async fn every_epoch_that_two_replicas_show_has_the_same_bytes() {
    let Some(nats) = Nats::start() else { return };
    let (one, two) = (Replica::start(&nats), Replica::start(&nats));
    one.ready().await;
    two.ready().await;
    let (mut seen, mut compared) = (BTreeMap::new(), 0);
    for batch in 0..40 {
        // Not waited for at the second: what it shows is whatever it has come to.
        let (to, from) = if batch % 2 == 0 { (&one, &two) } else { (&two, &one) };
        let answer = to.post("w", &format!("b-{batch}"), &records(batch)).await;
        let shown = to.model("w", answer["epoch"].as_u64().unwrap()).await;
        let other = model_now(&from.client, &from.url(""), "w").await;
        for (epoch, bytes) in [Some(shown), other].into_iter().flatten() {
            match seen.get(&epoch) {
                Some(known) => {
                    assert!(*known == bytes, "epoch {epoch}");
                    compared += 1;
                }
                None => assert!(seen.insert(epoch, bytes).is_none()),
            }
        }
    }
    assert!(compared >= 20 && seen.len() == 40, "{compared} {}", seen.len());
}

#[tokio::test]
async fn a_replica_that_was_away_catches_up_to_the_same_bytes() {
    let Some(nats) = Nats::start() else { return };
    let (one, mut two) = (Replica::start(&nats), Replica::start(&nats));
    one.ready().await;
    two.ready().await;
    for batch in 0..30 {
        two.post("w", &format!("early-{batch}"), &records(batch)).await;
    }
    two.stop();
    for batch in 0..700 {
        one.post("w", &format!("late-{batch}"), &[task("count", f64::from(batch))]).await;
    }
    let wanted = one.post("w", "last", &records(3)).await["epoch"].as_u64().unwrap();
    two.up();
    two.ready().await;
    assert_eq!(two.figure("foresail_metad_log_lag").await, 0);
    assert!(one.model("w", wanted).await == two.model("w", wanted).await);
    // One that begins only now learns the same from the whole log, and one from a copy of a directory too.
    let three = Replica::start(&nats);
    three.ready().await;
    assert!(one.model("w", wanted).await == three.model("w", wanted).await);
    two.stop();
    let mut four = Replica::start(&nats);
    four.stop();
    for file in std::fs::read_dir(two.data.path()).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), four.data.path().join(file.file_name())).unwrap();
    }
    let epoch = one.post("w", "after", &records(4)).await["epoch"].as_u64().unwrap();
    four.up();
    assert!(one.model("w", epoch).await == four.model("w", epoch).await);
}

#[tokio::test]
async fn a_replica_killed_while_batches_flow_takes_nothing_along() {
    let Some(nats) = Nats::start() else { return };
    let one = Replica::start(&nats);
    one.ready().await;
    let data = tempfile::tempdir().unwrap();
    let (client, mut acknowledged, mut attempted) = (Client::new(), Vec::new(), 0u64);
    for life in 0..4 {
        let mut process = Process::start(&nats, &data);
        eventually(async || ask(&client, &format!("{}/readyz", process.base)).await.0 == 200).await;
        let count = Arc::new(AtomicUsize::new(0));
        let mut senders = Vec::new();
        for lane in 0..4 {
            let (client, base, count) = (client.clone(), process.base.clone(), Arc::clone(&count));
            senders.push(tokio::spawn(async move {
                let mut taken = Vec::new();
                for batch in 0..10_000 {
                    let id = format!("b-{life}-{lane}-{batch}");
                    match post(&client, &base, "w", &id, &[task("count", f64::from(batch))]).await.0.as_u16()
                    {
                        200 => taken.push(id),
                        _ => return (taken, batch + 1),
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
                (taken, 10_000)
            }));
        }
        eventually(async || count.load(Ordering::Relaxed) > 40).await;
        process.kill();
        for sender in senders {
            let (taken, tried) = sender.await.unwrap();
            acknowledged.extend(taken);
            attempted += u64::from(tried as u32);
        }
    }
    for id in &acknowledged {
        let answer = one.post("w", id, &[task("count", 1.0)]).await;
        assert_eq!(answer["duplicate"], json!(true), "{id}");
    }
    let process = Process::start(&nats, &data);
    let epoch = one.post("w", "end", &[task("count", 1.0)]).await["epoch"].as_u64().unwrap();
    assert!(one.model("w", epoch).await == model(&client, &process.base, "w", epoch).await);
    let (_, bytes) = one.get("/v1/workflows/w").await;
    let stored: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let stored = stored["records_accepted"].as_u64().unwrap();
    assert!(stored > acknowledged.len() as u64 && stored <= attempted + 1, "{stored} of {attempted}");
}

#[tokio::test]
async fn one_batch_id_posted_to_two_replicas_counts_once() {
    let Some(nats) = Nats::start() else { return };
    let (one, two) = (Replica::start(&nats), Replica::start(&nats));
    one.ready().await;
    two.ready().await;
    for batch in 0..20 {
        let (id, first) = (format!("b-{batch}"), records(batch));
        let (a, b) = tokio::join!(one.post("w", &id, &first), two.post("w", &id, &first));
        assert!((a["duplicate"] == json!(true)) != (b["duplicate"] == json!(true)), "{a} {b}");
        assert_eq!((&a["epoch"], &a["accepted"], &a["rejected"]), (&b["epoch"], &json!(4), &b["rejected"]));
    }
    // The answer to a repetition is that to the first sending, whatever it has.
    let again = two.post("w", "b-0", &[task("count", 1.0)]).await;
    assert_eq!((&again["accepted"], &again["duplicate"]), (&json!(4), &json!(true)));
    // The same id in another workflow is another batch.
    assert_eq!(two.post("v", "b-0", &records(1)).await["duplicate"], json!(false));
    let workflow = String::from_utf8(one.get("/v1/workflows/w").await.1).unwrap();
    assert!(workflow.contains("\"records_accepted\":80"), "{workflow}");
}
