//! Limits: what is past one is refused with the limit in the answer, and nothing is stored.

use std::io::Write as _;
use std::time::Duration;

use foresail_metad::{Server, Settings, StartError};
use foresail_schemas::run::FAILURE_TEXT_MAX;
use foresail_schemas::{ErrorCode, examples};
use serde_json::{Value, json};

use crate::runs::{commit, join, lease};
use crate::{Daemon, fails, good, problem, task};

fn small() -> Daemon {
    Daemon::with(|s| {
        s.body_bytes_max = 4096;
        s.blob_bytes_max = 1000;
        s.run_blob_bytes_max = 1500;
        s.batch_records_max = 3;
        s.queries_max = 2;
        s.operations_max = 2;
        s.workflows_max = 2;
        s.running_runs_max = 1;
    })
}

#[tokio::test]
async fn large_bodies_are_refused_as_sent_and_as_unpacked() {
    let daemon = small();
    let url = daemon.url("/v1/workflows/w/batches");
    let post = |body: Vec<u8>| daemon.client.post(&url).header("content-type", "application/json").body(body);
    let large =
        serde_json::to_vec(&json!({"batch_id": "b", "records": [], "filler": "x".repeat(5000)})).unwrap();
    assert_eq!(fails(post(large.clone()), ErrorCode::TooLarge).await.limit, Some(4096));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&large).unwrap();
    let bomb = gzip.finish().unwrap();
    assert!(bomb.len() < 200);
    let unpacked = fails(post(bomb).header("content-encoding", "gzip"), ErrorCode::TooLarge).await;
    assert_eq!(unpacked.limit, Some(4096));
    let chunks = futures_util::stream::iter((0..10).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1000])));
    let chunked = daemon.client.post(&url).body(reqwest::Body::wrap_stream(chunks));
    assert_eq!(fails(chunked, ErrorCode::TooLarge).await.limit, Some(4096));
    // Empty members unpack to nothing: only the limit on the bytes as sent can stop them.
    let member = || flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()).finish().unwrap();
    let empty = futures_util::stream::iter((0..1000).map(move |_| Ok::<_, std::io::Error>(member())));
    let empty =
        daemon.client.post(&url).header("content-encoding", "gzip").body(reqwest::Body::wrap_stream(empty));
    let refused = problem(empty.send().await.unwrap()).await;
    assert!([ErrorCode::TooLarge, ErrorCode::InvalidBody].contains(&refused.code));
    assert_eq!(daemon.read("/v1/workflows").await["workflows"], json!([]));
}

#[tokio::test]
async fn too_many_of_anything_are_refused_with_the_limit() {
    let daemon = small();
    let batch = json!({"batch_id": "b", "records": [task(1.0), task(1.0), task(1.0), task(1.0)]});
    let refused = fails(daemon.post("/v1/workflows/w/batches", &batch), ErrorCode::TooMany).await;
    assert_eq!(refused.limit, Some(3));
    let query = json!({"kind": "startup_time", "state": "cold", "memory_mb": 1});
    let queries = json!({"queries": vec![query; 3]});
    let refused = fails(daemon.post("/v1/workflows/w/predictions", &queries), ErrorCode::TooMany).await;
    assert_eq!(refused.limit, Some(2));
    for (name, fits) in [("a", true), ("b", true), ("c", false), ("a", true)] {
        let request =
            daemon.post(&format!("/v1/workflows/{name}/batches"), &json!({"batch_id": "b", "records": []}));
        match fits {
            true => drop(good(request).await),
            false => assert_eq!(fails(request, ErrorCode::TooMany).await.limit, Some(2)),
        }
    }
}

#[tokio::test]
async fn runs_operations_and_blobs_have_limits_too() {
    let daemon = small();
    daemon.run("r-1").await;
    let second = json!({"run": "r-2", "workflow": examples::workflow(), "plan": examples::plan()});
    let refused = fails(daemon.post("/v1/runs", &second), ErrorCode::Overloaded).await;
    assert_eq!((refused.limit, refused.retryable), (Some(1), true));
    let operations = json!({"operations": [join("i-1"), join("i-2"), join("i-3")]});
    let refused = fails(daemon.post("/v1/runs/r-1/operations", &operations), ErrorCode::TooMany).await;
    assert_eq!(refused.limit, Some(2));
    let put = |key: &str, bytes: usize| {
        daemon.client.put(daemon.url(&format!("/v1/runs/r-1/blobs/{key}"))).body(vec![1u8; bytes])
    };
    assert_eq!(fails(put("a", 1001), ErrorCode::TooLarge).await.limit, Some(1000));
    assert!(put("a", 1000).send().await.unwrap().status().is_success());
    assert_eq!(fails(put("b", 501), ErrorCode::TooLarge).await.limit, Some(1500));
    assert!(put("b", 500).send().await.unwrap().status().is_success());
    fails(put(&"k".repeat(5000), 1), ErrorCode::InvalidParameter).await;
}

#[tokio::test]
async fn a_place_is_refused_when_all_are_taken_and_given_when_one_is_free() {
    let daemon = Daemon::with(|s| s.listeners_max = 1);
    daemon.run("r-1").await;
    let first = daemon.get("/v1/runs/r-1/events").header("accept", "text/event-stream").send().await.unwrap();
    let answer = daemon.get("/v1/runs/r-1/events").send().await.unwrap();
    assert_eq!(answer.headers()["retry-after"], "1");
    let refused = problem(answer).await;
    assert_eq!((refused.code, refused.limit), (ErrorCode::Overloaded, Some(1)));
    drop(first);
    // The place is free once the daemon has noticed that nobody listens any more.
    for _ in 0..200 {
        daemon.operate("r-1", json!([join("i-1")])).await;
        if daemon.get("/v1/runs/r-1/events").send().await.unwrap().status() == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the place was never given back");
}

/// Stores enough for a download that no buffer between the daemon and a reader holds.
async fn much(daemon: &Daemon) {
    for batch in 0..8 {
        let records: Vec<_> = (0..20_000).map(|n| task(f64::from(n))).collect();
        daemon.batch(&format!("b-{batch}"), records.into()).await;
    }
}

#[tokio::test]
async fn a_download_keeps_its_place_until_it_is_read_or_nobody_reads_it() {
    let daemon = Daemon::with(|s| (s.exports_max, s.send_ms_max) = (1, 3000));
    much(&daemon).await;
    for path in ["/v1/workflows/w/samples?format=ndjson", "/v1/workflows/w/samples?format=parquet"] {
        let text = daemon.get(path).send().await.unwrap().bytes().await.unwrap();
        assert!(text.len() > 100_000, "all of it is sent: {}", text.len());
    }
    let unread = daemon.get("/v1/workflows/w/samples?format=ndjson").send().await.unwrap();
    for path in ["/v1/workflows/w/samples?format=parquet", "/v1/workflows/w/model"] {
        let answer = daemon.get(path).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"] == "1"), (503, true));
        assert_eq!(problem(answer).await.limit, Some(1));
    }
    for _ in 0..200 {
        if daemon.get("/v1/workflows/w/model").send().await.unwrap().status() == 200 {
            assert!(unread.bytes().await.is_err(), "it was broken off");
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the place was never given back");
}

#[tokio::test]
async fn a_request_that_never_ends_is_ended() {
    let daemon = Daemon::with(|s| (s.request_ms_max, s.wait_ms_max) = (100, 50));
    let never = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let request =
        daemon.client.post(daemon.url("/v1/workflows/w/batches")).body(reqwest::Body::wrap_stream(never));
    let refused = fails(request, ErrorCode::Timeout).await;
    assert_eq!(refused.limit, Some(100));
}

#[tokio::test]
async fn connections_that_say_nothing_do_not_keep_others_out() {
    let daemon = Daemon::with(|s| (s.connections_max, s.head_ms_max) = (4, 200));
    let address = daemon.server.as_ref().unwrap().address();
    let mut silent: Vec<_> = (0..4).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    // Half a head is no head.
    silent[0].write_all(b"GET /livez HT").unwrap();
    let answer = daemon.get("/livez").timeout(Duration::from_secs(20)).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn long_texts_are_cut_and_long_contents_in_commits_are_refused() {
    let daemon = Daemon::start();
    daemon.run("r-1").await;
    daemon.operate("r-1", json!([join("i-1"), lease(0, "i-1")])).await;
    let mut large = commit(0, "i-1", 2);
    large["commit"]["outputs"][1]["location"]["inline"] = "A".repeat((256 << 10) + 1).into();
    let operations = json!({"operations": [large]});
    let refused = fails(daemon.post("/v1/runs/r-1/operations", &operations), ErrorCode::TooLarge).await;
    assert_eq!(refused.limit, Some(256 << 10));
    assert_eq!(daemon.read("/v1/runs/r-1").await["committed"], 0);
    let reason = format!("x{}", "ä".repeat(FAILURE_TEXT_MAX));
    daemon.operate("r-1", json!([{"op": "cancel", "reason": reason}])).await;
    let kept = daemon.read("/v1/runs/r-1").await["failure"]["message"].as_str().unwrap().to_owned();
    assert!(kept.len() == FAILURE_TEXT_MAX - 1 && reason.starts_with(&kept), "{}", kept.len());
}

#[tokio::test]
async fn without_the_token_nothing_but_livez_is_answered() {
    let daemon = Daemon::with(|s| s.token = Some("secret".into()));
    assert_eq!(daemon.get("/livez").send().await.unwrap().status(), 200);
    for path in ["/", "/readyz", "/metrics", "/v1/workflows", "/nowhere"] {
        fails(daemon.get(path), ErrorCode::Unauthorized).await;
        fails(daemon.get(path).bearer_auth("wrong"), ErrorCode::Unauthorized).await;
    }
    let answer: Value = good(daemon.get("/v1/workflows").bearer_auth("secret")).await;
    assert_eq!(answer["workflows"], json!([]));
}

#[test]
fn an_address_that_others_can_reach_needs_a_token() {
    let data = tempfile::tempdir().unwrap();
    let open = Settings { listen: "0.0.0.0:0".parse().unwrap(), ..Settings::embedded(data.path()) };
    let refused = Server::start(open).unwrap_err();
    assert!(matches!(refused, StartError::Settings(_)));
    assert!(refused.to_string().contains("hint:"), "{refused}");
}

#[test]
fn a_port_or_a_store_in_use_is_named() {
    let data = tempfile::tempdir().unwrap();
    let first = Server::start(Settings::embedded(data.path())).unwrap();
    let port = Settings { listen: first.address(), ..Settings::embedded(data.path().join("other")) };
    assert!(matches!(Server::start(port).unwrap_err(), StartError::Listen { .. }));
    let store = Server::start(Settings::embedded(data.path())).unwrap_err();
    assert!(store.to_string().contains("another metad"), "{store}");
}
