//! Whole runs through the real binaries: metad, the host and its workers as processes, and what happens when
//! they die.

use std::path::Path;
use std::time::{Duration, Instant};

use foresail::{Client, RunOutcome, SubmitOptions, WorkflowBuilder};
use foresail_schemas::plan::Objective;
use foresail_schemas::prediction::Basis;
use foresail_schemas::run::{RunOptions, RunStatus};
use foresail_schemas::{Platform, Sla, Workflow};

use crate::stack::{Process, binary, metad};

/// Numbers that the workflow adds.
const NUMBERS: u32 = 8;
/// Longest wait for something to happen in a run.
const WAIT: Duration = Duration::from_secs(120);

/// Short intervals, so that a death is noticed within a test.
fn options() -> SubmitOptions {
    let limits = RunOptions {
        lease_ms: 1_500.0,
        heartbeat_ms: 300.0,
        watch_ms: 300.0,
        attempts_max: 5,
        ..RunOptions::default()
    };
    SubmitOptions { limits, ..SubmitOptions::default() }
}

/// Eight commands that each wait and print a number, one that adds them up, one that doubles the sum.
fn addition(pause: &str) -> Workflow {
    let mut workflow = WorkflowBuilder::new("addition");
    let numbers: Vec<_> = (1..=NUMBERS)
        .map(|n| {
            let line = format!("sleep {pause}; echo {n}");
            workflow.task(format!("number-{n}")).named("number").command(line).handle()
        })
        .collect();
    let mut sum = workflow.task("sum").command("cat \"$FORESAIL_INPUTS\"/* | awk '{s += $1} END {print s}'");
    for number in &numbers {
        sum = sum.reads(number);
    }
    let sum = sum.handle();
    let _double = workflow.task("double").command("awk '{print 2 * $1}'").reads(&sum).handle();
    workflow.build().expect("it is a DAG")
}

fn expected() -> String {
    format!("{}\n", NUMBERS * (NUMBERS + 1))
}

/// A host of workers on `data`.
pub fn host(data: &Path, metad: &str) -> Process {
    let data = data.join("host");
    let args =
        ["host", "--listen", "127.0.0.1:0", "--metad", metad, "--data", data.to_str().expect("a plain name")];
    Process::start("foresail-worker", &args)
}

/// Process ids of the workers of a host that live.
pub fn workers(host: &Process) -> Vec<i32> {
    let parent = |pid: i32| -> Option<i32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let is_alive = fields.next()? != "Z";
        fields.next().filter(|_| is_alive)?.parse().ok()
    };
    let pids = std::fs::read_dir("/proc").expect("Linux").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|&pid| parent(pid) == Some(host.pid())).collect()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(WAIT, future).await.expect("the run ends in time") })
}

struct Stack {
    metad: Option<Process>,
    host: Process,
    dir: tempfile::TempDir,
}

impl Stack {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let metad = metad(&dir.path().join("metad"), "127.0.0.1:0");
        let host = host(dir.path(), &metad.address);
        Self { metad: Some(metad), host, dir }
    }

    fn metad_address(&self) -> String {
        self.metad.as_ref().expect("it runs").address.clone()
    }

    /// kill -9, then a new one on the same address and data.
    fn restart_metad(&mut self) {
        let address = self.metad_address();
        self.metad.take().expect("it runs").kill();
        let listen = address.trim_start_matches("http://");
        self.metad = Some(metad(&self.dir.path().join("metad"), listen));
    }

    async fn client(&self) -> Client {
        Client::connect(&self.metad_address(), &self.host.address).await.expect("both listen")
    }

    /// Submits `workflow` under `planner`; `disturb` is done once some tasks have a result and some run.
    async fn run(
        &mut self,
        workflow: &Workflow,
        planner: &str,
        disturb: impl FnOnce(&mut Self),
    ) -> (RunOutcome, String) {
        let client = self.client().await;
        let platform = Platform::built_in().remove(0);
        let table = client.predictions(workflow, &platform, Sla::MEDIAN).await.expect("metad answers");
        let problem = foresail::problem(workflow, &platform, table, Objective::Fastest, 1);
        let plan = client.plan(planner, &problem).expect("the planner plans");
        let handle = client.submit(workflow, plan, options()).await.expect("the run starts");
        let until = Instant::now() + WAIT;
        loop {
            let summary = handle.summary().await.expect("metad answers");
            if summary.committed >= 2 && summary.running >= 1 {
                break;
            }
            assert!(Instant::now() < until && summary.status == RunStatus::Running, "{summary:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        disturb(self);
        let outcome = handle.wait().await.expect("metad answers again");
        let result = handle.result("double").await.expect("the last task has a result");
        (outcome, String::from_utf8(result.to_vec()).expect("digits"))
    }
}

#[test]
fn a_worker_killed_mid_task_is_replaced_and_the_run_completes() {
    for planner in ["simple", "uniform"] {
        let mut stack = Stack::start();
        let (outcome, result) = block_on(stack.run(&addition("0.3"), planner, |stack| {
            let victims = workers(&stack.host);
            assert!(!victims.is_empty(), "workers run");
            // SAFETY: kill has no memory effects.
            victims.into_iter().for_each(|pid| assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0));
        }));
        assert_eq!(
            (outcome.status, result),
            (RunStatus::Completed, expected()),
            "{planner}: {:?}",
            outcome.failure
        );
    }
}

#[test]
fn a_restart_of_metad_mid_run_loses_nothing() {
    for planner in ["simple", "uniform"] {
        let mut stack = Stack::start();
        let (outcome, result) = block_on(stack.run(&addition("0.3"), planner, Stack::restart_metad));
        assert_eq!(
            (outcome.status, result),
            (RunStatus::Completed, expected()),
            "{planner}: {:?}",
            outcome.failure
        );
    }
}

#[test]
fn what_was_measured_is_known_to_the_next_plan() {
    let mut stack = Stack::start();
    let workflow = addition("0.2");
    let platform = Platform::built_in().remove(0);
    block_on(async {
        stack.run(&workflow, "simple", |_| {}).await;
        let until = Instant::now() + WAIT;
        loop {
            let client = stack.client().await;
            let table = client.predictions(&workflow, &platform, Sla::MEDIAN).await.expect("metad answers");
            let used = table.configs.iter().position(|c| c.key() == platform.default_config.key());
            let exec_ms = table.exec_ms[used.expect("a blind plan uses the default size")][0];
            if table.basis[0] != Basis::None {
                assert!(
                    (200.0..platform.assumed.exec_ms).contains(&exec_ms),
                    "200 ms were measured: {exec_ms}"
                );
                break;
            }
            assert!(Instant::now() < until, "the workers sent what they measured");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

#[test]
fn the_second_plan_forecasts_every_task_and_its_run_is_scored() {
    let mut stack = Stack::start();
    let workflow = addition("0.1");
    let tasks = workflow.tasks().len() as u64;
    let platform = Platform::built_in().remove(0);
    block_on(async {
        stack.run(&workflow, "simple", |_| {}).await;
        let client = stack.client().await;
        let until = Instant::now() + WAIT;
        let table = loop {
            let table = client.predictions(&workflow, &platform, Sla::MEDIAN).await.expect("metad answers");
            if table.basis.iter().all(|basis| *basis != Basis::None) {
                break table;
            }
            assert!(Instant::now() < until, "the workers sent what they measured: {:?}", table.basis);
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let problem = foresail::problem(&workflow, &platform, table, Objective::Fastest, 1);
        let plan = client.plan("simple", &problem).expect("the planner plans");
        for task in &plan.tasks {
            let times_ms = task.forecast.expect("every task was measured").times_ms();
            assert!(times_ms[0] > 0.0 && times_ms.is_sorted(), "{}: {times_ms:?}", task.task);
        }
        let scores = client.scores(workflow.name()).await.expect("metad answers").expect("it is known");
        assert_eq!(scores.total.score.n, 0, "the first plan knew nothing, so it forecast nothing");
        stack.run(&workflow, "simple", |_| {}).await;
        loop {
            let scores = client.scores(workflow.name()).await.expect("metad answers").expect("it is known");
            if scores.total.score.n >= tasks {
                assert_eq!(scores.tasks.len(), 3, "number, sum and double: {:?}", scores.tasks);
                assert!(scores.total.score.mdape_percent.is_some() && scores.total.score.ratio.len() == 4);
                assert_eq!(
                    scores.total.days.iter().map(|day| day.score.n).sum::<u64>(),
                    scores.total.score.n
                );
                break;
            }
            assert!(Instant::now() < until, "every forecast is scored: {scores:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

#[test]
fn a_failing_task_fails_the_run_with_its_cause() {
    let stack = Stack::start();
    let mut workflow = WorkflowBuilder::new("broken");
    let _bad = workflow.task("bad").command("echo the reason >&2; exit 3").attempts(2).handle();
    let workflow = workflow.build().expect("it is a DAG");
    let outcome = block_on(async {
        let client = stack.client().await;
        let platform = Platform::built_in().remove(0);
        let table = client.predictions(&workflow, &platform, Sla::MEDIAN).await.expect("metad answers");
        let plan =
            client.plan("simple", &foresail::problem(&workflow, &platform, table, Objective::Fastest, 1));
        let handle =
            client.submit(&workflow, plan.expect("a plan"), options()).await.expect("the run starts");
        handle.wait().await.expect("metad answers")
    });
    let failure = outcome.failure.expect("a failed run has a cause");
    assert_eq!((outcome.status, failure.attempt), (RunStatus::Failed, 2));
    assert!(failure.message.contains("the reason"), "{failure:?}");
}

/// A recorded Montage run, where this checkout has it.
fn montage() -> Option<std::path::PathBuf> {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../shared/data/wfformat/montage-chameleon-2mass-005d-001.json"
    );
    let file = Path::new(file).to_path_buf();
    if !file.exists() {
        eprintln!("skipped: no recorded workflows beside the project ({})", file.display());
        return None;
    }
    Some(file)
}

fn foresail(data: &Path, args: &[&str]) -> std::process::Output {
    let mut command = std::process::Command::new(binary("foresail"));
    command.args(args).arg("--data").arg(data).env("RUST_LOG", "warn");
    command.env_remove("FORESAIL_METAD").env_remove("FORESAIL_HOST");
    let output = command.output().expect("the binary was built");
    assert!(output.status.success(), "foresail {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn montage_is_planned_by_each_planner_within_its_bounds_and_the_same_seed_gives_the_same_bytes() {
    let Some(file) = montage() else { return };
    let file = file.to_str().expect("a plain name");
    let dir = tempfile::tempdir().expect("a temporary directory");
    for planner in ["simple", "uniform", "nonuniform", "random", "auto"] {
        for platform in ["local", "aws-lambda-x86"] {
            let args =
                ["plan", file, "--planner", planner, "--platform", platform, "--seed", "7", "-o", "json"];
            let first = foresail(dir.path(), &args).stdout;
            assert!(
                first == foresail(dir.path(), &args).stdout,
                "{planner}: the same seed gives the same plan"
            );
            let plan: foresail_schemas::Plan = serde_json::from_slice(&first).expect("a plan");
            let (predicted, bounds) = (plan.predicted, plan.bounds);
            assert!(
                bounds.makespan_ms > 0.0 && predicted.makespan_ms >= bounds.makespan_ms,
                "{planner} {platform}"
            );
            assert!(bounds.cost_usd > 0.0 && predicted.cost_usd >= bounds.cost_usd, "{planner} {platform}");
        }
    }
}

#[test]
fn montage_runs_on_the_local_faas_and_the_run_loads_again_as_wfformat() {
    let Some(file) = montage() else { return };
    let file = file.to_str().expect("a plain name");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let run = ["run", file, "--time-scale", "0.002", "--size-scale", "0.001", "-o", "json"];
    foresail(dir.path(), &run);
    let runs: serde_json::Value =
        serde_json::from_slice(&foresail(dir.path(), &["runs", "-o", "json"]).stdout).expect("JSON");
    let first = &runs.as_array().or_else(|| runs["runs"].as_array()).expect("a list")[0];
    assert_eq!((&first["status"], &first["committed"]), (&"completed".into(), &58.into()), "{first}");
    let id = first["run"].as_str().expect("an id");
    let written = foresail(dir.path(), &["export", id, "--wfformat"]).stdout;
    let read =
        foresail_schemas::wfformat::read(std::str::from_utf8(&written).expect("text")).expect("WfFormat");
    assert_eq!(read.tasks().len(), 58);
}
