//! What the proofs with real processes share: a stack, a workflow whose results are known, runs of it.

use std::time::{Duration, Instant};

use foresail::examples::reference;
use foresail::{Client, RunHandle, SubmitOptions, WorkflowBuilder};
use foresail_schemas::plan::Objective;
use foresail_schemas::run::{RunOptions, RunStatus};
use foresail_schemas::{Platform, Sla, Workflow};
use foresail_worker::Registry;
use foresail_worker::builtin::{BURN, CONCAT};
use serde_json::json;

use crate::runs::host;
use crate::stack::{Process, metad};

/// Longest time of one run: one that takes longer waits for ever.
pub const RUN_LIMIT: Duration = Duration::from_secs(180);
/// Tasks that write bytes of their own, two of which each task of the next layer reads.
const SOURCES: u32 = 8;
/// Bytes that each of them writes.
const SOURCE_BYTES: u64 = 3_000;

/// `scaled` in the normal test, `full` under `FORESAIL_PROOF=1`.
pub fn amount(scaled: u64, full: u64) -> u64 {
    if std::env::var("FORESAIL_PROOF").is_ok_and(|v| v == "1") { full } else { scaled }
}

/// A metad, a host and its workers.
pub struct Stack {
    metad: Option<Process>,
    pub host: Process,
    dir: tempfile::TempDir,
}

impl Stack {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let metad = metad(&dir.path().join("metad"), "127.0.0.1:0");
        let host = host(dir.path(), &metad.address);
        Self { metad: Some(metad), host, dir }
    }

    pub fn address(&self) -> String {
        self.metad.as_ref().expect("it runs").address.clone()
    }

    /// kill -9 of metad, then a new one on the same address and data.
    pub fn restart_metad(&mut self) {
        let address = self.address();
        self.metad.take().expect("it runs").kill();
        self.metad = Some(metad(&self.dir.path().join("metad"), address.trim_start_matches("http://")));
    }
}

/// Eight that sleep and write, four that join two each, four that wait for one of these, one that joins all.
pub fn workflow(sleep_ms: u64) -> Workflow {
    let mut flow = WorkflowBuilder::new("proof");
    let burn = json!({ "sleep_ms": sleep_ms, "output_bytes": SOURCE_BYTES });
    let sources: Vec<_> =
        (0..SOURCES).map(|n| flow.task(format!("source-{n}")).function(BURN, &burn).handle()).collect();
    let mut ends = Vec::new();
    for (n, pair) in sources.chunks(2).enumerate() {
        let mut join = flow.task(format!("join-{n}")).function(CONCAT, json!({}));
        for source in pair {
            join = join.reads(source);
        }
        let join = join.handle();
        let late = flow.task(format!("late-{n}")).function(BURN, &burn).reads(&join).handle();
        ends.extend([join, late]);
    }
    let mut all = flow.task("all").function(CONCAT, json!({}));
    for end in &ends {
        all = all.reads(end);
    }
    let _all = all.handle();
    flow.build().expect("it is a DAG")
}

/// What the last task gives, by the same functions in this process.
pub fn expected(workflow: &Workflow) -> Vec<u8> {
    let outputs = reference::all_outputs(workflow, &Registry::new()).expect("every function is built in");
    let all = outputs.iter().find(|((task, _), _)| task == "all").expect("it has an output");
    all.1.to_vec()
}

/// Short intervals, so that a death is noticed soon; many attempts, because a run that fails proves nothing.
fn options() -> SubmitOptions {
    let limits = RunOptions {
        lease_ms: 800.0,
        heartbeat_ms: 200.0,
        watch_ms: 200.0,
        linger_ms: 100.0,
        attempts_max: 50,
        ..RunOptions::default()
    };
    SubmitOptions { limits, ..SubmitOptions::default() }
}

pub async fn submit(client: &Client, workflow: &Workflow, planner: &str, seed: u64) -> RunHandle {
    let platform = Platform::built_in().remove(0);
    let table = client.predictions(workflow, &platform, Sla::MEDIAN).await.expect("metad answers");
    let problem = foresail::problem(workflow, &platform, table, Objective::Fastest, seed);
    let plan = client.plan(planner, &problem).expect("the planner plans");
    client.submit(workflow, plan, options()).await.expect("the run starts")
}

/// The run ends in time, completed, with the right result.
pub async fn finish(handle: &RunHandle, expected: &[u8], name: &str) {
    let waited = tokio::time::timeout(RUN_LIMIT, handle.wait()).await;
    let outcome = match waited {
        Ok(outcome) => outcome.expect("metad answers again"),
        Err(_) => panic!("{name} waits for ever: {:?}", handle.summary().await),
    };
    assert_eq!(outcome.status, RunStatus::Completed, "{name}: {:?}", outcome.failure);
    let result = handle.result("all").await.expect("the last task has a result");
    assert!(result[..] == *expected, "{name}: {} bytes, {} expected", result.len(), expected.len());
}

/// Waits until so many tasks have results and one runs; false where the run is over before.
pub async fn reaches(handle: &RunHandle, committed: u64) -> bool {
    let until = Instant::now() + RUN_LIMIT;
    loop {
        let summary = handle.summary().await.expect("metad answers");
        if summary.status != RunStatus::Running {
            return false;
        }
        if summary.committed >= committed && summary.running > 0 {
            return true;
        }
        assert!(Instant::now() < until, "the run does not get there: {summary:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
