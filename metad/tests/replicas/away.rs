//! The log is away, is another one, or has what is no batch.

use foresail_metad::{Server, Settings, StartError};
use serde_json::{Value, json};

use crate::server::Nats;
use crate::{Replica, eventually, records, task};

#[tokio::test]
async fn without_the_log_batches_are_refused_reads_go_on_and_it_resumes_by_itself() {
    let Some(mut nats) = Nats::start() else { return };
    let replica = Replica::start(&nats);
    replica.ready().await;
    let epoch = replica.post("w", "before", &records(1)).await["epoch"].as_u64().unwrap();
    nats.down();
    eventually(async || replica.figure("foresail_metad_log_connected").await == 0).await;
    let (status, answer) = replica.try_post("w", "meanwhile", &records(2)).await;
    assert_eq!((status.as_u16(), &answer["code"]), (503, &json!("unavailable")));
    let (detail, hint) = (answer["detail"].as_str().unwrap(), answer["hint"].as_str().unwrap());
    assert!(detail.contains("`tests`") && hint.contains("nats-server"), "{answer}");
    let before = replica.model("w", epoch).await;
    let question = "/v1/workflows/w/predictions/execution-time?task=count&input_bytes=25&memory_mb=1769";
    assert_eq!(replica.get(question).await.0, 200);
    assert_eq!(replica.get("/readyz").await.0, 200, "it was up to date and answers what it knows");
    nats.up();
    eventually(async || replica.try_post("w", "meanwhile", &records(2)).await.0 == 200).await;
    assert!(replica.model("w", epoch + 1).await != before);
    let workflow = String::from_utf8(replica.get("/v1/workflows/w").await.1).unwrap();
    assert!(workflow.contains("\"records_accepted\":8"), "{workflow}");
}

#[tokio::test]
async fn a_replica_that_starts_before_the_log_serves_what_it_knows_and_says_that_it_is_behind() {
    let Some(mut nats) = Nats::start() else { return };
    let mut replica = Replica::start(&nats);
    replica.ready().await;
    let epoch = replica.post("w", "b", &records(1)).await["epoch"].as_u64().unwrap();
    replica.stop();
    nats.down();
    replica.up();
    let (status, text) = replica.get("/readyz").await;
    assert_eq!(status, 503, "{}", String::from_utf8_lossy(&text));
    replica.model("w", epoch).await;
    nats.up();
    replica.ready().await;
    assert_eq!(replica.post("w", "c", &records(2)).await["epoch"], json!(epoch + 1));
}

#[tokio::test]
async fn a_stream_that_was_made_anew_is_not_taken_for_the_old_one() {
    let Some(mut nats) = Nats::start() else { return };
    let replica = Replica::start(&nats);
    replica.ready().await;
    let epoch = replica.post("w", "b", &records(1)).await["epoch"].as_u64().unwrap();
    nats.down();
    nats.forget();
    nats.up();
    eventually(async || replica.get("/readyz").await.0 == 503).await;
    let (status, answer) = replica.try_post("w", "c", &records(2)).await;
    assert_eq!(status, 503);
    assert!(answer["detail"].as_str().unwrap().contains("made anew"), "{answer}");
    replica.model("w", epoch).await;
}

#[tokio::test]
async fn what_is_no_batch_in_the_log_is_passed_over_by_all() {
    let Some(nats) = Nats::start() else { return };
    let (one, two) = (Replica::start(&nats), Replica::start(&nats));
    one.ready().await;
    two.ready().await;
    let client = async_nats::connect(nats.server()).await.unwrap();
    for text in ["hello", "FSL1", ""] {
        client.publish("tests.batches", text.into()).await.unwrap();
    }
    client.flush().await.unwrap();
    eventually(async || one.figure("foresail_metad_log_applied").await == 3).await;
    let epoch = one.post("w", "b", &records(1)).await["epoch"].as_u64().unwrap();
    assert_eq!(epoch, 4);
    assert!(one.model("w", epoch).await == two.model("w", epoch).await);
    client.publish("tests.batches", "FSL9 of the future".into()).await.unwrap();
    client.flush().await.unwrap();
    eventually(async || two.get("/readyz").await.0 == 503).await;
    let (_, text) = two.get("/readyz").await;
    assert!(String::from_utf8_lossy(&text).contains("newer metad"));
}

#[tokio::test]
async fn a_batch_too_large_for_the_log_is_refused_with_its_limit() {
    let Some(nats) = Nats::start() else { return };
    let replica = Replica::start(&nats);
    replica.ready().await;
    let many: Vec<Value> = (0..60_000).map(|n| task("count", f64::from(n))).collect();
    let (status, answer) = replica.try_post("w", "large", &many).await;
    assert_eq!((status.as_u16(), &answer["code"]), (413, &json!("too_large")), "{answer}");
    assert!(
        answer["limit"].as_u64().unwrap() > 1_000_000
            && answer["hint"].as_str().unwrap().contains("max_payload")
    );
    replica.post("w", "half", &many[..20_000]).await;
}

#[tokio::test]
async fn a_directory_with_batches_from_elsewhere_is_refused_and_so_is_leaving_the_log() {
    let Some(nats) = Nats::start() else { return };
    let refused = |settings: &Settings| match Server::start(settings.clone()) {
        Err(StartError::BatchLog(why)) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it starts"),
    };
    let mut plain = Replica::with(&nats, |s| s.batch_log = None);
    plain.post("w", "b", &records(1)).await;
    plain.stop();
    plain.settings.batch_log = Some(nats.log());
    assert!(refused(&plain.settings).contains("empty --data directory"));
    let mut replica = Replica::start(&nats);
    replica.ready().await;
    replica.post("w", "b", &records(1)).await;
    replica.stop();
    replica.settings.batch_log = None;
    assert!(refused(&replica.settings).contains("--batch-log"));
    replica.settings.batch_log = Some(format!("{}?stream=other", nats.server()));
    assert!(refused(&replica.settings).contains("not `other`"));
}
