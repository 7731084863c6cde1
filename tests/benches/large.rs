//! One run of 100,000 small tasks with dependencies: how long its parts take, and the largest memory of
//! metad, host, workers and client (`VmHWM` of `/proc`).
//!
//! Layers of 1,000 tasks; each task reads two of the layer before and writes 8 bytes. metad, the host and its
//! workers are the real binaries; this process is the client: it builds, plans, submits and waits.
//! `cargo bench -p foresail-tests --bench large -- 20000` takes another number of tasks; memory per task
//! tells what grows with the graph.

use std::path::Path;
use std::time::Instant;

use foresail::{Client, SubmitOptions, TaskHandle, WorkflowBuilder};
use foresail_schemas::Workflow;
use foresail_schemas::config::Sla;
use foresail_schemas::plan::Objective;
use foresail_schemas::platform::Platform;
use serde_json::json;

#[allow(dead_code, reason = "the other benches use the rest")]
#[path = "load/mod.rs"]
mod load;
#[allow(dead_code, reason = "the system tests use more of it")]
#[path = "../tests/system/stack.rs"]
mod stack;

use load::{children, resident_bytes};

/// Tasks where nothing else is asked.
const TASKS: usize = 100_000;
/// Tasks of a layer.
const WIDTH: usize = 1_000;
/// Bytes that each task writes.
const OUTPUT_BYTES: u64 = 8;

fn main() {
    // Only `cargo bench` says so: `cargo test --benches` checks that it builds.
    if std::env::args().all(|arg| arg != "--bench") {
        return;
    }
    let asked: Vec<usize> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let sizes = if asked.is_empty() { vec![TASKS / 4, TASKS] } else { asked };
    println!(
        "layers of {WIDTH} tasks, two inputs each, {OUTPUT_BYTES} bytes each, on two workers; largest MB"
    );
    println!(
        "{:>7} | {:>8} {:>8} {:>8} {:>8} {:>8} | {:>6} {:>6} {:>8} {:>7} {:>9}",
        "tasks",
        "build s",
        "plan s",
        "submit s",
        "run s",
        "tasks/s",
        "metad",
        "host",
        "a worker",
        "client",
        "disk"
    );
    for tasks in sizes {
        let dir = tempfile::tempdir().expect("a temporary directory");
        row(tasks, dir.path());
    }
}

/// Carries out a graph on programs of its own.
fn row(tasks: usize, dir: &Path) {
    let metad = stack::metad(&dir.join("metad"), "127.0.0.1:0");
    let data = dir.join("host");
    let data = data.to_str().expect("a temporary directory has a plain name");
    let host = ["host", "--metad", &metad.address, "--data", data, "--concurrency-max", "2"];
    let host = stack::Process::start("foresail-worker", &host);
    let runtime = tokio::runtime::Runtime::new().expect("threads start");
    let [build_s, plan_s, submit_s, run_s] =
        runtime.block_on(carry_out(tasks, &metad.address, &host.address));
    let megabytes = |bytes: u64| bytes >> 20;
    let largest = |pid: i32| megabytes(resident_bytes(pid).1);
    let worker = children(host.pid()).into_iter().map(largest).max().unwrap_or(0);
    let rate = tasks as f64 / run_s;
    println!(
        "{tasks:>7} | {build_s:>8.2} {plan_s:>8.2} {submit_s:>8.2} {run_s:>8.2} {rate:>8.0} | {:>6} {:>6} \
         {worker:>8} {:>7} {:>9}",
        largest(metad.pid()),
        largest(host.pid()),
        largest(std::process::id() as i32),
        megabytes(load::disk_bytes(&dir.join("metad"))),
    );
}

/// Times of building, planning, submitting and running, in s.
async fn carry_out(tasks: usize, metad: &str, host: &str) -> [f64; 4] {
    let client = Client::connect(metad, host).await.expect("both answer");
    let mut platform = Platform::built_in().swap_remove(0);
    platform.concurrency_max = 2;
    let began = Instant::now();
    let workflow = layered(tasks);
    let build_s = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let table = client.predictions(&workflow, &platform, Sla::MEDIAN).await.expect("metad answers");
    let problem = foresail::problem(&workflow, &platform, table, Objective::Fastest, 1);
    let plan = client.plan("sweep", &problem).expect("there is a plan");
    drop(problem);
    let plan_s = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let run = client.submit(&workflow, plan, SubmitOptions::on(&platform)).await.expect("the run begins");
    let submit_s = began.elapsed().as_secs_f64();
    let outcome = run.wait().await.expect("the run is watched").completed().expect("the run completes");
    assert_eq!(outcome.progress.committed, tasks as u64, "every task has a result");
    [build_s, plan_s, submit_s, began.elapsed().as_secs_f64()]
}

fn layered(tasks: usize) -> Workflow {
    let mut flow = WorkflowBuilder::new(format!("layered-{tasks}"));
    let params = json!({ "output_bytes": OUTPUT_BYTES });
    let mut before: Vec<TaskHandle> = Vec::new();
    for at in 0..tasks {
        let place = at % WIDTH;
        let task = flow.task(format!("t{at}")).named("t").function("foresail.burn", &params);
        let parents =
            [at.checked_sub(WIDTH), (at - place).checked_sub(WIDTH).map(|first| first + (place + 1) % WIDTH)];
        let task = parents.into_iter().flatten().fold(task, |task, parent| task.reads(&before[parent]));
        before.push(task.handle());
    }
    flow.build().expect("the graph is one")
}
