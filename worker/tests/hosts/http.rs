//! The host of HTTP endpoints, by itself and behind its gateway, with `foresail-worker serve` as the
//! endpoint.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use foresail_schemas::RunId;
use foresail_schemas::invocation::{HostStatus, Invocation};
use foresail_worker::api::{Api, REQUEST_LIMIT};
use foresail_worker::host::conformance::{Hears, Subject, check};
use foresail_worker::host::endpoint::{EndpointHost, EndpointSettings};
use foresail_worker::host::{Host, HttpHost};

use crate::ports::free_address;
use crate::stand::{Program, Stand, block_on, serving, size};

/// An address of this machine at which nobody listens.
fn nowhere() -> String {
    format!("http://{}", free_address())
}

fn worker(stand: &Stand, host: &str) -> Program {
    Program::start(&serving(host, &stand.data("worker")), &[])
}

fn host(url: &str, adjust: impl FnOnce(&mut EndpointSettings)) -> EndpointHost {
    let mut settings = EndpointSettings::new(vec![format!("256={url}").parse().unwrap()]);
    adjust(&mut settings);
    EndpointHost::new(settings).unwrap()
}

/// A gateway has to be known to its workers, and they to it: the port is chosen beforehand.
fn gateway(stand: &Stand, at: &str, worker: &Program) -> Program {
    let listen = at.strip_prefix("http://").unwrap();
    let endpoint = format!("256={}", worker.url);
    Program::start(
        &["host", "--listen", listen, "--metad", &stand.url, "--endpoint", &endpoint, "--queue-max", "64"],
        &[],
    )
}

#[test]
fn the_host_of_endpoints_is_a_host_at_its_gateway() {
    let stand = Stand::start();
    let at = nowhere();
    let worker = worker(&stand, &at);
    let gateway = gateway(&stand, &at, &worker);
    let full_worker = self::worker(&stand, &at);
    let full = host(&full_worker.url, |settings| {
        settings.in_flight_max = 1;
        settings.queue_max = 1;
    });
    let subject = Subject {
        host: Arc::new(HttpHost::new(&gateway.url).unwrap()),
        full: Arc::new(full),
        gone: Arc::new(host(&nowhere(), |_| {})),
        metad: stand.url.clone(),
        config: size(256),
        not_offered: size(512),
        hears: Hears::Ends,
    };
    block_on(check(&subject)).unwrap();
}

/// An endpoint that answers with these, one after another, and the ids of the invocations that it saw.
async fn scripted(answers: Vec<(StatusCode, &'static str)>) -> (String, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let answer = move |headers: HeaderMap| async move {
        let mut seen = noted.lock().unwrap();
        seen.push(headers["foresail-instance"].to_str().unwrap().to_owned());
        let answer: Response = answers[(seen.len() - 1).min(answers.len() - 1)].into_response();
        answer
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(post(answer))).await });
    (url, seen)
}

fn invocation(run: &str, metad: &str) -> Invocation {
    Invocation::new(RunId::new(run).unwrap(), None, size(256), vec![0], metad.to_owned())
}

async fn idle(host: &impl Host) -> HostStatus {
    let ends = Instant::now() + Duration::from_secs(60);
    loop {
        let status = host.status().await.unwrap();
        if status.busy + status.queued == 0 {
            return status;
        }
        assert!(Instant::now() < ends, "{status:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn an_endpoint_without_a_place_is_asked_again_for_the_same_invocation() {
    block_on(async {
        let usage =
            r#"{"billed_ms":1,"puts":0,"gets":0,"download_bytes":0,"upload_bytes":0,"saved_bytes":0}"#;
        let served: &str =
            format!(r#"{{"instance":"f-1","start":"cold","peak_memory_mb":1,"usage":{usage}}}"#).leak();
        let busy = (StatusCode::TOO_MANY_REQUESTS, "busy");
        let script = vec![busy, (StatusCode::SERVICE_UNAVAILABLE, "scaling"), busy, (StatusCode::OK, served)];
        let (url, seen) = scripted(script).await;
        let host = host(&url, |_| {});
        let invoked = host.invoke(invocation("r", "http://127.0.0.1:9")).await.unwrap();
        let status = idle(&host).await;
        assert_eq!(*seen.lock().unwrap(), vec![invoked.instance.to_string(); 4]);
        assert_eq!((status.cold_starts, status.warm_starts), (1, 0));
    });
}

#[test]
fn what_is_refused_for_good_or_too_often_is_given_up() {
    block_on(async {
        let (url, seen) = scripted(vec![(StatusCode::BAD_REQUEST, "no")]).await;
        let refusing = host(&url, |_| {});
        refusing.invoke(invocation("r", "http://127.0.0.1:9")).await.unwrap();
        idle(&refusing).await;
        assert_eq!(seen.lock().unwrap().len(), 1);
        let (url, seen) = scripted(vec![(StatusCode::TOO_MANY_REQUESTS, "busy")]).await;
        let full = host(&url, |settings| settings.retry_limit = Duration::from_millis(300));
        full.invoke(invocation("r", "http://127.0.0.1:9")).await.unwrap();
        idle(&full).await;
        let tries = seen.lock().unwrap().len();
        assert!((2..=8).contains(&tries), "the pauses grow, so that {tries} tries are few");
    });
}

#[test]
fn a_worker_that_runs_out_of_time_says_so_and_makes_way() {
    let stand = Stand::start();
    let at = nowhere();
    let mut arguments = serving(&at, stand.data("worker").leak());
    arguments.extend(["--life-ms-max", "3000"]);
    let mut worker = Program::start(&arguments, &[]);
    let run = stand.run_that_sleeps_ms(600_000);
    let failed = block_on(async {
        host(&worker.url, |_| {}).invoke(invocation(&run, &stand.url)).await.unwrap();
        let ends = Instant::now() + Duration::from_secs(60);
        loop {
            let api = Api::new(&stand.url, None).unwrap();
            let path = format!("/v1/runs/{run}/events?after=0");
            let page: serde_json::Value = api.get(&path, REQUEST_LIMIT).await.unwrap();
            let failed = page["events"].as_array().unwrap().iter().find(|e| e["kind"] == "task_failed");
            if let Some(failed) = failed {
                break failed.clone();
            }
            assert!(Instant::now() < ends, "{page}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(failed.to_string().contains("its worker has no more time"), "{failed}");
    assert_eq!(worker.exit_code(), Some(86), "it makes way for a new process");
}

#[test]
fn a_worker_by_its_environment_wants_its_token() {
    let stand = Stand::start();
    let data = stand.data("worker");
    let environment = [
        ("FORESAIL_WORKER_LISTEN", "127.0.0.1:0"),
        ("FORESAIL_HOST", "http://127.0.0.1:9"),
        ("FORESAIL_METAD_TOKEN", "secret"),
        ("FORESAIL_WORKER_DATA", &data),
    ];
    let worker = Program::start(&[], &environment);
    let status = |token: &str| {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        block_on(client.get(&worker.url).bearer_auth(token).send()).unwrap().status().as_u16()
    };
    assert_eq!((status("wrong"), status("secret")), (401, 204));
}
