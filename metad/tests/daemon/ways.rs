//! Plain predictions are answered before the router, all others through it: the same answers, the same gate.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use foresail_schemas::ErrorCode;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{Daemon, fails, good, task};

const MANY: &str = "/v1/workflows/w/predictions";
/// A question, plainly and with an encoded letter.
const ONE: [&str; 2] = [
    "/v1/workflows/w/predictions/execution-time?task=count&input_bytes=9&memory_mb=1769&sla=median,p99.5",
    "/v1/workflows/w/predictions/execution-time?task=%63ount&input_bytes=9&memory_mb=1769&sla=median,p99.5",
];

fn questions() -> Value {
    json!({"sla": ["mean", "p95"], "queries": [
        {"kind": "execution_time", "task": "count", "input_bytes": 1000, "memory_mb": 1769},
        {"kind": "output_size", "task": "unheard"},
    ]})
}

/// A request in every way: by GET plainly and encoded, by POST plainly, compressed and in pieces.
fn every_way(daemon: &Daemon) -> Vec<RequestBuilder> {
    let post = || daemon.client.post(daemon.url(MANY)).header(CONTENT_TYPE, "application/json");
    let text = questions().to_string();
    let packed = zstd::encode_all(text.as_bytes(), 1).unwrap();
    let pieces = futures_util::stream::iter([Ok::<_, std::io::Error>(text.clone())]);
    vec![
        daemon.get(ONE[0]),
        daemon.get(ONE[1]),
        post().body(text),
        post().header(CONTENT_ENCODING, "zstd").body(packed),
        post().body(reqwest::Body::wrap_stream(pieces)),
    ]
}

async fn learnt(change: impl FnOnce(&mut foresail_metad::Settings)) -> Daemon {
    let daemon = Daemon::with(change);
    let records: Vec<_> = (0..30).map(|n| task(100.0 + f64::from(n))).collect();
    daemon.batch("b-1", Value::Array(records)).await;
    daemon
}

#[tokio::test]
async fn every_way_gives_the_same_answer_with_the_same_headers() {
    let daemon = learnt(|_| {}).await;
    let mut answers = Vec::new();
    for request in every_way(&daemon) {
        let answer = request.send().await.unwrap();
        let mut headers: Vec<_> = answer
            .headers()
            .iter()
            .map(|(k, v)| format!("{k}: {v:?}"))
            .filter(|h| !h.starts_with("date"))
            .collect();
        headers.sort();
        answers.push((answer.status(), headers, answer.text().await.unwrap()));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[2], answers[3]);
    assert_eq!(answers[2], answers[4]);
    assert!(
        answers[0].2.contains(r#""p99.5":"#) && answers[2].2.contains(r#""basis":"none""#),
        "{answers:?}"
    );
    for path in ONE {
        let etag = daemon.get(path).send().await.unwrap().headers()[ETAG].clone();
        assert_eq!(daemon.get(path).header(IF_NONE_MATCH, etag).send().await.unwrap().status(), 304);
    }
}

#[tokio::test]
async fn every_way_needs_the_token() {
    let daemon = Daemon::with(|s| s.token = Some("secret".into()));
    for request in every_way(&daemon) {
        fails(request, ErrorCode::Unauthorized).await;
    }
    for request in every_way(&daemon) {
        fails(request.bearer_auth("wrong"), ErrorCode::Unauthorized).await;
    }
    for request in every_way(&daemon) {
        good(request.bearer_auth("secret")).await;
    }
}

#[tokio::test]
async fn no_way_is_open_to_pages_of_the_web_where_there_is_no_token() {
    let daemon = Daemon::start();
    for (name, value) in
        [("origin", "https://example.org"), ("origin", "null"), ("host", "rebound.example.org:7070")]
    {
        for request in every_way(&daemon) {
            fails(request.header(name, value), ErrorCode::Unauthorized).await;
        }
    }
    let own = daemon.url("");
    for request in every_way(&daemon) {
        good(request.header("origin", &own)).await;
    }
    let with_token = Daemon::with(|s| s.token = Some("secret".into()));
    for request in every_way(&with_token) {
        good(request.bearer_auth("secret").header("origin", "https://example.org")).await;
    }
}

/// Takes a place with a request whose body does not come; the connection keeps it.
fn stalled(daemon: &Daemon, path: &str, length: &str) -> TcpStream {
    let mut connection = TcpStream::connect(daemon.server.as_ref().unwrap().address()).unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\n{length}\r\n\r\n");
    connection.write_all(head.as_bytes()).unwrap();
    connection
}

#[tokio::test]
async fn a_place_is_needed_and_taken_in_every_way() {
    for length in ["content-length: 100", "transfer-encoding: chunked"] {
        let daemon = Daemon::with(|s| (s.requests_max, s.request_ms_max, s.wait_ms_max) = (1, 20_000, 50));
        let holder = stalled(&daemon, MANY, length);
        // Until the daemon has seen it.
        while daemon.get(ONE[0]).send().await.unwrap().status() == 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for request in every_way(&daemon) {
            assert_eq!(fails(request, ErrorCode::Overloaded).await.limit, Some(1), "{length}");
        }
        drop(holder);
        // Until the daemon has noticed that it is gone.
        while daemon.get(ONE[0]).send().await.unwrap().status() == 429 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for request in every_way(&daemon) {
            good(request).await;
        }
        let metrics = daemon.get("/metrics").send().await.unwrap().text().await.unwrap();
        assert!(metrics.contains("foresail_metad_requests_open 1\n"), "only this one is open: {metrics}");
    }
}

#[tokio::test]
async fn every_way_has_a_time_limit() {
    for length in ["content-length: 100", "transfer-encoding: chunked"] {
        let daemon = Daemon::with(|s| (s.request_ms_max, s.wait_ms_max) = (100, 50));
        let mut connection = stalled(&daemon, MANY, length);
        connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut answer = [0; 4096];
        let read = connection.read(&mut answer).unwrap();
        let text = String::from_utf8_lossy(&answer[..read]);
        assert!(text.contains("within 100 ms"), "{length}: {text}");
    }
}

#[tokio::test]
async fn every_way_is_counted_under_its_route() {
    let daemon = learnt(|_| {}).await;
    for request in every_way(&daemon) {
        good(request).await;
    }
    daemon.client.request(Method::DELETE, daemon.url(ONE[0])).send().await.unwrap();
    let metrics = daemon.get("/metrics").send().await.unwrap().text().await.unwrap();
    for expected in [
        r#"requests_total{route="/v1/workflows/{workflow}/predictions/{kind}",method="GET",status="200"} 2"#,
        r#"{route="/v1/workflows/{workflow}/predictions/{kind}",method="DELETE",status="405"} 1"#,
        r#"requests_total{route="/v1/workflows/{workflow}/predictions",method="POST",status="200"} 3"#,
        r#"request_seconds_count{route="/v1/workflows/{workflow}/predictions"} 3"#,
        "foresail_metad_predictions_total 8",
    ] {
        assert!(metrics.contains(expected), "{expected}\n{metrics}");
    }
}

#[tokio::test]
async fn an_unknown_encoding_is_refused_in_every_way() {
    let daemon = learnt(|_| {}).await;
    for path in ONE {
        let refused = fails(daemon.get(path).header(CONTENT_ENCODING, "br"), ErrorCode::UnsupportedMediaType);
        assert!(refused.await.detail.contains("`br`"), "{path}");
    }
    let post = daemon.post(MANY, &questions()).header(CONTENT_ENCODING, "br");
    fails(post, ErrorCode::UnsupportedMediaType).await;
}

#[tokio::test]
async fn what_is_wrong_is_said_in_the_same_words() {
    let daemon = learnt(|_| {}).await;
    for (plain, encoded) in [
        ("execution-time?task=count", "execution-time?task=%63ount"),
        ("execution-time?task=a&task=b&memory_mb=1", "execution-time?task=%61&task=b&memory_mb=1"),
        ("output-size?task=count&sla=p0", "output-size?task=%63ount&sla=p0"),
        ("output-size?task=count&input_bytes=x", "output-size?task=%63ount&input_bytes=x"),
        ("output-size?task=count&input=5", "output-size?task=%63ount&input=5"),
    ] {
        let [plain, encoded] = [plain, encoded].map(|question| daemon.get(&format!("{MANY}/{question}")));
        let plain = fails(plain, ErrorCode::InvalidParameter).await;
        assert_eq!(plain, fails(encoded, ErrorCode::InvalidParameter).await);
    }
}
