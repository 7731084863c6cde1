//! Runs whose workers hear nothing: a proxy before metad takes every event out of what they are told, for
//! whole runs, and no run waits for ever.
//!
//! One run in two gets empty pages, as if nothing happened; the others get no page at all. Only the client
//! that waits for the end of the run is answered. `FORESAIL_PROOF=1` drops 1,000 notifications instead of 40.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use foresail_schemas::run::{EventPage, RunStatus};

use crate::proof::{Repeat, Stack, amount, expected, finish, seed, submit, workflow};

/// Tasks of one worker wait for those of others under all of these.
const PLANNERS: [&str; 2] = ["uniform", "random"];
/// How long a task sleeps.
const SLEEP_MS: u64 = 30;
/// Most runs until so many notifications are dropped.
const RUNS_MAX: u64 = 2_000;
/// Pause before an answer about a run that has ended.
const ENDED_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
/// Longest request or answer, in bytes.
const BODY_BYTES_MAX: usize = 64 << 20;

/// The proxy.
struct Deaf {
    metad: String,
    http: reqwest::Client,
    /// Refuses pages rather than emptying them.
    refuses: AtomicBool,
    /// Events that were taken out of pages.
    dropped: AtomicU64,
    /// Pages that were not given, whatever was in them: it is asked for again.
    refused: AtomicU64,
}

impl Deaf {
    async fn start(metad: String) -> (Arc<Self>, String) {
        let (refuses, dropped, refused) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        let deaf = Arc::new(Self { metad, http: reqwest::Client::new(), refuses, dropped, refused });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("it is bound"));
        let routes = Router::new().fallback(pass).with_state(Arc::clone(&deaf));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (deaf, address)
    }

    /// What a worker gets in place of a page: none, or one without events, which skips what it had.
    async fn muffle(&self, page: &[u8]) -> Response {
        if self.refuses.load(Ordering::Relaxed) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let mut page: EventPage = serde_json::from_slice(page).expect("metad tells a page");
        self.dropped.fetch_add(page.events.len() as u64, Ordering::Relaxed);
        if page.status != RunStatus::Running {
            // metad holds back no answer about an ended run, and who does not hear of the end asks on.
            tokio::time::sleep(ENDED_PAUSE).await;
        }
        (page.events, page.status) = (Vec::new(), RunStatus::Running);
        axum::Json(page).into_response()
    }
}

/// Passes a request on, and its answer back, unless that tells a worker what happened.
async fn pass(
    State(deaf): State<Arc<Deaf>>,
    method: Method,
    uri: Uri,
    mut headers: HeaderMap,
    body: Body,
) -> Response {
    for name in [header::HOST, header::CONTENT_LENGTH, header::CONNECTION, header::TRANSFER_ENCODING] {
        headers.remove(name);
    }
    let body: Bytes = axum::body::to_bytes(body, BODY_BYTES_MAX).await.expect("requests are small");
    let request = deaf.http.request(method, format!("{}{uri}", deaf.metad)).headers(headers).body(body);
    let Ok(answer) = request.send().await else { return StatusCode::BAD_GATEWAY.into_response() };
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    let Ok(body) = answer.bytes().await else { return StatusCode::BAD_GATEWAY.into_response() };
    let is_hint = uri.query().is_some_and(|query| query.contains("kinds=task_ready"));
    if is_hint && status.is_success() {
        return deaf.muffle(&body).await;
    }
    for name in [header::CONTENT_LENGTH, header::CONNECTION, header::TRANSFER_ENCODING] {
        headers.remove(name);
    }
    (status, headers, body).into_response()
}

#[test]
fn no_run_waits_for_ever_when_every_notification_is_lost() {
    let wanted = amount(40, 1_000);
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut proxy = None;
    let stack = Stack::behind(|metad| {
        let (deaf, address) = runtime.block_on(Deaf::start(metad));
        proxy = Some((deaf, address.clone()));
        address
    });
    let (deaf, address) = proxy.expect("the stack is behind it");
    let (workflow, expected) = (workflow(SLEEP_MS), expected());
    let [mut runs, mut dropped] = [0, 0];
    runtime.block_on(async {
        let client = stack.client(&address).await;
        for number in seed().map_or(0..RUNS_MAX, |seed| seed..seed + 1) {
            let _repeat = Repeat { test: "deaf", number };
            let planner = PLANNERS[number as usize % PLANNERS.len()];
            deaf.refuses.store(number / PLANNERS.len() as u64 % 2 == 1, Ordering::Relaxed);
            let handle = submit(&client, &workflow, planner, number).await;
            finish(&handle, &expected, &format!("run {number} under `{planner}`")).await;
            (runs, dropped) = (runs + 1, deaf.dropped.load(Ordering::Relaxed));
            if runs.is_multiple_of(20) {
                let seconds = began.elapsed().as_secs_f64();
                eprintln!("{dropped} of {wanted} dropped in {runs} runs, {seconds:.0} s");
            }
            // Pages are refused in the last two of four runs.
            if dropped >= wanted && number % 4 == 3 {
                break;
            }
        }
    });
    assert!(seed().is_some() || dropped >= wanted, "{dropped} of {wanted} notifications in {runs} runs");
    stack.end();
    let (refused, seconds) = (deaf.refused.load(Ordering::Relaxed), began.elapsed().as_secs_f64());
    eprintln!("{dropped} notifications dropped, {refused} pages refused, {runs} runs right, {seconds:.0} s");
}
