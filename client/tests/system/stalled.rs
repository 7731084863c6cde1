//! A run that nobody works on: it is told apart from one that runs, and goes on when it is asked to.

use std::time::{Duration, Instant};

use foresail::schemas::plan::Objective;
use foresail::schemas::run::{RunOptions, RunRequest};
use foresail::schemas::{Platform, Sla};
use foresail::{Client, WorkflowBuilder, problem};

use crate::replan::Services;
use crate::support::{self, Ended};

/// A run whose client died before it had asked for a worker, which nobody can see but by the silence.
async fn abandoned(addresses: &serde_json::Value) -> String {
    let [metad, host] = ["metad", "host"].map(|key| addresses[key].as_str().unwrap());
    let client = Client::connect(metad, host).await.unwrap();
    let mut flow = WorkflowBuilder::new("abandoned");
    let a = flow.task("a").command("echo 20").handle();
    flow.task("b").command("read n; echo $((n + 1))").reads(&a);
    let workflow = flow.build().unwrap();
    let platform = Platform::built_in().remove(0);
    let predictions = client.predictions(&workflow, &platform, Sla::MEDIAN).await.unwrap();
    let problem = problem(&workflow, &platform, predictions, Objective::Fastest, 1);
    let plan = client.plan("uniform", &problem).unwrap();
    let options =
        RunOptions { lease_ms: 100.0, watch_ms: 100.0, heartbeat_ms: 50.0, ..RunOptions::default() };
    let request = RunRequest { run: None, workflow, plan, options, resume: None };
    let answer = reqwest::Client::new().post(format!("{metad}/v1/runs")).json(&request).send().await.unwrap();
    let created: serde_json::Value = answer.error_for_status().unwrap().json().await.unwrap();
    created["run"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_nobody_works_on_is_shown_as_stalled_and_is_taken_up_by_resume() {
    let services = Services::start().await;
    let run = abandoned(&services.addresses()).await;
    let hint = format!("`foresail resume {run}`");
    let is_told = |runs: &Ended| {
        assert_eq!(runs.stderr.contains(&hint), runs.stdout.contains("stalled"), "{runs:?}");
        runs.stdout.contains("stalled")
    };
    let until = Instant::now() + support::LIMIT;
    while !is_told(&services.command(&["runs"]).await) {
        assert!(Instant::now() < until, "the run does not stall");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let detail = services.command(&["runs", &run]).await;
    assert!(detail.stdout.contains("stalled, 0/2 tasks"), "{detail:?}");
    let listed = services.command(&["runs", "-o", "json"]).await.json();
    assert!(listed[0]["stalled_ms"].as_f64().is_some_and(|ms| ms > 600.0), "{listed}");

    let resumed = services.command(&["resume", &run]).await;
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    assert!(resumed.stderr.contains("0 of 2 tasks done; it goes on"), "{resumed:?}");
    assert!(resumed.stdout.contains("\n  21\n"), "{resumed:?}");
    let runs = services.command(&["runs"]).await;
    let line = runs.stdout.lines().find(|line| line.contains(&run)).unwrap();
    assert!(line.contains("completed"), "no other run was made of it: {runs:?}");
    services.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_takes_up_a_run_that_nobody_works_on() {
    let data = tempfile::tempdir().unwrap();
    let (_up, addresses) = support::stack(data.path(), &[]);
    let run = abandoned(&addresses).await;
    support::eventually("the run is completed", || {
        let runs = support::run(data.path(), &["runs"]);
        runs.stdout.lines().any(|line| line.contains(&run) && line.contains("completed"))
    });
}
