//! The limit of any server here: an axum program that answers without doing anything, a process of its own.
//!
//! It runs as metad does: one current-thread runtime, Nagle's algorithm off. `/hello` is five bytes; `/echo`
//! reads a prediction request with serde and writes an answer of its type, the same for every request, which
//! it was started with: as large as the one of metad.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use axum::extract::State;
use axum::serve::ListenerExt;
use axum::{Json, Router, routing};
use foresail_schemas::prediction::{PredictionAnswer, PredictionRequest};

/// Makes this program the bare server; the answer of `/echo` follows as JSON.
pub const FLAG: &str = "--bare-server";

/// The bare server.
pub struct Bare {
    child: Child,
    /// Where it listens, a host with a port.
    pub address: String,
}

impl Bare {
    /// Starts it with the answer that `/echo` gives.
    pub fn start(answer: &[u8]) -> Self {
        let this = std::env::current_exe().expect("a benchmark runs from a file");
        let answer = std::str::from_utf8(answer).expect("JSON is UTF-8");
        let mut child = Command::new(this)
            .args([FLAG, answer])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts");
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let line = BufReader::new(stdout).lines().next().expect("it says where it listens");
        let address = line.expect("text");
        Self { child, address }
    }

    /// The process.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves until it is killed.
pub fn serve(answer: &str) {
    let answer: Arc<PredictionAnswer> = Arc::new(serde_json::from_str(answer).expect("an answer of metad"));
    let routes = Router::new()
        .route("/hello", routing::get(|| async { "hello" }))
        .route("/echo", routing::post(echo))
        .with_state(answer);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        println!("{}", listener.local_addr().expect("bound"));
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("TCP"));
        axum::serve(listener, routes).await.expect("it serves until the process ends");
    });
}

async fn echo(
    State(answer): State<Arc<PredictionAnswer>>,
    Json(request): Json<PredictionRequest>,
) -> Json<Arc<PredictionAnswer>> {
    std::hint::black_box(request);
    Json(answer)
}
