//! The same workflow on functions and on processes of this machine.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::emulator::{Emulator, KEYS, block_on};

pub const FORESAIL: &str = env!("CARGO_BIN_EXE_foresail");
/// Longest wait for a stack to stand.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A stack of `foresail up`; it ends when dropped.
pub struct Up(Child);

impl Up {
    pub fn start(data: &Path, lambda: &str, more: &[&str]) -> Self {
        let mut command = Command::new(FORESAIL);
        command.args(["up", "--host", "lambda", "--memory", "512,1769", "--listen", "127.0.0.1:0"]);
        command.args(more).arg("--data").arg(data).envs(KEYS).env("AWS_ENDPOINT_URL", lambda);
        let up = Self(command.stdout(Stdio::null()).spawn().unwrap());
        let ends = Instant::now() + START_LIMIT;
        while !data.join("stack.json").is_file() {
            assert!(Instant::now() < ends, "no stack stands in {}", data.display());
            std::thread::sleep(Duration::from_millis(20));
        }
        up
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a command on the stack there writes.
pub fn look(data: &Path, args: &[&str]) -> Value {
    let mut command = Command::new(FORESAIL);
    command.args(args).args(["-o", "json", "--data"]).arg(data).envs(KEYS);
    let output = command.env_remove("FORESAIL_METAD").env_remove("FORESAIL_HOST").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs a workflow there.
pub fn run(data: &Path, workflow: &[&str]) -> Value {
    look(data, &[&["run"], workflow].concat())
}

/// Task, output and hash of every result.
pub fn results(told: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = told["results"].as_array().unwrap().iter();
    let mut all: Vec<_> = all.map(|r| (text(&r["task"]), text(&r["output"]), text(&r["hash"]))).collect();
    all.sort();
    all
}

/// How often metad was asked for a workflow.
fn reads_of_workflows(data: &Path) -> u64 {
    let stack: Value = serde_json::from_slice(&std::fs::read(data.join("stack.json")).unwrap()).unwrap();
    let url = format!("{}/metrics", stack["metad"].as_str().unwrap());
    let answer = block_on(async { reqwest::get(url).await.unwrap().text().await.unwrap() });
    let route = "route=\"/v1/runs/{run}/workflow\"";
    let counts = answer
        .lines()
        .filter(|line| line.starts_with("foresail_metad_requests_total") && line.contains(route));
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn functions_give_the_results_that_processes_give_even_while_they_are_throttled() {
    let Some(emulator) = Emulator::start(FORESAIL, &[512, 1769], 2) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (there, here) = (dir.path().join("lambda"), dir.path().join("local"));
    let _up = Up::start(&there, &emulator.url, &[]);
    for workflow in [&["gemm"][..], &["text-analysis"], &["tree-reduction"]] {
        emulator.refuse(3, (429, "TooManyRequestsException"));
        let (on_lambda, on_processes) = (run(&there, workflow), run(&here, workflow));
        assert_eq!(results(&on_lambda), results(&on_processes), "{workflow:?}");
        assert!(!results(&on_lambda).is_empty());
        let left = emulator.told.refuse.lock().unwrap().map(|(left, _)| left);
        assert_eq!(left, Some(0), "nothing was throttled");
    }
    let told =
        emulator.log.lock().unwrap().iter().filter(|line| line.contains("\"foresail\"")).count() as u64;
    assert!(told >= 3, "{told} invocations were told of");
    let brought = emulator.told.with_documents.load(Ordering::SeqCst);
    assert!(brought >= told, "{brought} of {told} invocations brought workflow and plan");
    // For each run by the two that go out while nobody has read it yet, and once by who deletes its objects.
    let read = reads_of_workflows(&there);
    assert!(read <= 9, "workflows were read {read} times");
}
