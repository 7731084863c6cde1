//! What the proofs with real processes share: a stack, a workflow whose results are known, runs of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use foresail::examples::reference;
use foresail::{Client, ClientSettings, RunHandle, SubmitOptions, WorkflowBuilder};
use foresail_schemas::plan::Objective;
use foresail_schemas::run::{Change, RunOptions, RunStatus};
use foresail_schemas::{Platform, Sla, Workflow};
use foresail_worker::Registry;
use foresail_worker::builtin::{BURN, CONCAT};
use serde_json::json;

use crate::runs::host;
use crate::stack::{PROCESS_WAIT, Process, metad};

/// Longest time of one run: one that takes longer waits for ever.
pub const RUN_LIMIT: Duration = Duration::from_secs(300);
/// Tasks that write bytes of their own, two of which each task of the next layer reads.
const SOURCES: u32 = 8;
/// Bytes that each of them writes: what two of them wrote is too large for a commit record.
const SOURCE_BYTES: u64 = 5_000;

/// The one run that is asked for.
pub fn seed() -> Option<u64> {
    std::env::var("FORESAIL_SEED").ok().map(|seed| seed.parse().expect("FORESAIL_SEED is a number"))
}

/// `scaled` in the normal test, `full` under `FORESAIL_PROOF=1`.
pub fn amount(scaled: u64, full: u64) -> u64 {
    if std::env::var("FORESAIL_PROOF").is_ok_and(|v| v == "1") { full } else { scaled }
}

/// Says how to repeat a run, where the test fails while this lives.
pub struct Repeat {
    pub test: &'static str,
    pub number: u64,
}

impl Drop for Repeat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { test, number } = self;
            eprintln!("repeat: FORESAIL_SEED={number} cargo test -p foresail-tests --test system {test}");
        }
    }
}

/// A metad, a host and its workers.
pub struct Stack {
    metad: Option<Process>,
    pub host: Process,
    dir: tempfile::TempDir,
}

impl Stack {
    pub fn start() -> Self {
        Self::behind(|metad| metad)
    }

    /// One whose host and workers find at the address that `proxy` gives what is at the one that it is given.
    pub fn behind(proxy: impl FnOnce(String) -> String) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let metad = metad(&dir.path().join("metad"), "127.0.0.1:0");
        let host = host(dir.path(), &proxy(metad.address.clone()));
        Self { metad: Some(metad), host, dir }
    }

    /// A client that asks the metad at `address`.
    pub async fn client(&self, address: &str) -> Client {
        let objects = Some(self.dir.path().join("host/objects"));
        let settings = ClientSettings { objects, ..ClientSettings::default() };
        Client::connect_with(address, &self.host.address, settings).await.expect("both listen")
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
    /// Ends everything; no process may be left.
    pub fn end(self) {
        let Self { metad, host, dir } = self;
        assert!(host.terminate().success() && metad.expect("it runs").terminate().success());
        let until = Instant::now() + PROCESS_WAIT;
        loop {
            let left = processes_in(dir.path());
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < until, "processes are left: {left:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Processes that were started with a path in `dir`: as an argument, in a variable or to work there.
fn processes_in(dir: &Path) -> Vec<String> {
    let needle = dir.to_str().expect("a temporary directory has a plain name").as_bytes();
    let names_it = |process: &Path| {
        let told = |file| std::fs::read(process.join(file)).unwrap_or_default();
        let works_there = std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        works_there || [told("cmdline"), told("environ")].iter().any(|t| memmem(t, needle))
    };
    let processes = std::fs::read_dir("/proc").expect("Linux").flatten().map(|entry| entry.path());
    let processes = processes.filter(|path| names_it(path));
    processes.map(|path| format!("{}: {}", path.display(), command_line(&path))).collect()
}

fn memmem(text: &[u8], needle: &[u8]) -> bool {
    text.windows(needle.len()).any(|part| part == needle)
}

fn command_line(process: &Path) -> String {
    let text = std::fs::read(process.join("cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&text).replace('\0', " ")
}

/// What the tasks of the last layer but one are.
#[derive(Clone, Copy)]
enum Late {
    /// A command with processes of its own.
    Command,
    /// A function that gives the same.
    Function,
}

/// Eight that sleep and write, four that join two each, four commands that wait and pass one of these on, one
/// that joins all.
pub fn workflow(sleep_ms: u64) -> Workflow {
    workflow_with(sleep_ms, Late::Command)
}

fn workflow_with(sleep_ms: u64, kind: Late) -> Workflow {
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
        let late = flow.task(format!("late-{n}"));
        let late = match kind {
            Late::Command => late.command(format!("sleep {}; cat", sleep_ms as f64 / 1000.0)),
            Late::Function => late.function(CONCAT, json!({})),
        };
        let late = late.reads(&join).handle();
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
pub fn expected() -> Vec<u8> {
    let workflow = workflow_with(0, Late::Function);
    let outputs = reference::all_outputs(&workflow, &Registry::new()).expect("every function is built in");
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

/// The run ends in time, completed, with the right result, and no task has two.
pub async fn finish(handle: &RunHandle, expected: &[u8], name: &str) {
    let waited = tokio::time::timeout(RUN_LIMIT, handle.wait()).await;
    let outcome = match waited {
        Ok(outcome) => outcome.expect("metad answers again"),
        Err(_) => panic!("{name} waits for ever: {:?}", handle.summary().await),
    };
    assert_eq!(outcome.status, RunStatus::Completed, "{name}: {:?}", outcome.failure);
    let result = handle.result("all").await.expect("the last task has a result");
    assert!(result[..] == *expected, "{name}: {} bytes, {} expected", result.len(), expected.len());
    let mut commits = BTreeMap::new();
    let mut after = 0;
    loop {
        let page = handle.events_after(after, Duration::ZERO).await.expect("metad answers");
        for event in &page.events {
            if let Change::TaskCommitted { task, .. } = event.change {
                *commits.entry(task).or_insert(0) += 1;
            }
        }
        if page.events.is_empty() {
            break;
        }
        after = page.next_after;
    }
    let tasks = handle.workflow().tasks().len() as u32;
    let once: BTreeMap<u32, u32> = (0..tasks).map(|task| (task, 1)).collect();
    assert_eq!(commits, once, "{name}: every task is committed once");
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
