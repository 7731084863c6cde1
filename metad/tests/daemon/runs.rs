//! Runs: create, read, operate, re-plan, cancel, blobs.

use foresail_schemas::run::{CurrentPlan, RunCreated, RunRequest, RunStatus, RunSummary};
use foresail_schemas::{ErrorCode, Plan, examples};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{Daemon, fails, good, why};

pub fn join(instance: &str) -> Value {
    json!({"op": "join", "instance": instance, "config": {"memory_mb": 885}, "start": "cold"})
}

pub fn lease(task: u32, instance: &str) -> Value {
    json!({"op": "lease", "task": task, "instance": instance, "epoch": 1})
}

pub fn commit(task: u32, instance: &str, outputs: usize) -> Value {
    let output = json!({"bytes": 2, "hash": "aa", "location": {"inline": "eHg="}});
    let measured = json!({
        "download_ms": 0, "exec_ms": 5, "upload_ms": 0, "input_bytes": 1, "output_bytes": 2,
        "peak_memory_mb": 0
    });
    let outputs = vec![output; outputs];
    let commit = json!({"attempt": 1, "instance": instance, "outputs": outputs, "measured": measured});
    json!({"op": "commit", "task": task, "commit": commit})
}

/// Carries the example out to its end under instance `i-1`.
pub async fn complete(daemon: &Daemon, run: &str) {
    let i = "i-1";
    let results = daemon.operate(run, json!([join(i), lease(0, i), commit(0, i, 2)])).await;
    assert_eq!(results[1], json!({"result": "granted", "attempt": 1, "parents": []}));
    assert_eq!(results[2], json!({"result": "won", "ready": [1, 2]}));
    let rest =
        json!([lease(1, i), commit(1, i, 1), lease(2, i), commit(2, i, 1), lease(3, i), commit(3, i, 1)]);
    let results = daemon.operate(run, rest).await;
    assert_eq!(results[3], json!({"result": "won", "ready": [3]}));
    assert_eq!(results[5], json!({"result": "won"}), "{results:?}");
}

pub async fn summary(daemon: &Daemon, run: &str) -> RunSummary {
    serde_json::from_value(daemon.read(&format!("/v1/runs/{run}")).await).unwrap()
}

#[tokio::test]
async fn a_run_is_created_once_and_can_be_read() {
    let daemon = Daemon::start();
    let request = daemon.run("r-1").await;
    let again = daemon.post("/v1/runs", &json!(request)).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::OK);
    assert!(again.json::<RunCreated>().await.unwrap().duplicate);
    let mut other = request.clone();
    other.plan.seed += 1;
    fails(daemon.post("/v1/runs", &json!(other)), ErrorCode::RunExists).await;
    let run = summary(&daemon, "r-1").await;
    assert_eq!((run.status, run.tasks, run.committed, run.plan_epoch), (RunStatus::Running, 4, 0, 1));
    assert_eq!(run.predicted, request.plan.predicted);
    assert_eq!(daemon.read("/v1/runs/r-1/workflow").await, json!(request.workflow));
    let plan: CurrentPlan = serde_json::from_value(daemon.read("/v1/runs/r-1/plan").await).unwrap();
    assert_eq!((plan.epoch, &plan.plan, plan.options), (1, &request.plan, request.options));
    let listed = daemon.read("/v1/runs?workflow=word-count&status=running").await;
    assert_eq!(
        listed["runs"].as_array().unwrap().len(),
        usize::from(request.workflow.name().as_str() == "word-count")
    );
    assert_eq!(daemon.read("/v1/runs").await["runs"][0]["run"], json!("r-1"));
    assert_eq!(daemon.read("/v1/runs?status=completed").await["runs"], json!([]));
}

#[tokio::test]
async fn metad_chooses_an_id_where_none_is_given() {
    let daemon = Daemon::start();
    let request = json!(RunRequest { run: None, ..examples::run_request() });
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..5 {
        let answer = daemon.post("/v1/runs", &request).send().await.unwrap();
        let location = answer.headers()["location"].to_str().unwrap().to_owned();
        let id = answer.json::<RunCreated>().await.unwrap().run;
        assert_eq!(location, format!("/v1/runs/{id}"));
        assert!(id.as_str().starts_with(examples::workflow().name().as_str()));
        ids.insert(id);
    }
    assert_eq!(ids.len(), 5);
}

#[tokio::test]
async fn a_workflow_or_plan_that_does_not_fit_is_refused_with_its_own_code() {
    let daemon = Daemon::start();
    let good = json!(examples::run_request());
    let mut cycle = good.clone();
    cycle["workflow"]["tasks"][0]["after"] = json!(["merge"]);
    let problem = fails(daemon.post("/v1/runs", &cycle), ErrorCode::InvalidWorkflow).await;
    assert!(problem.detail.contains("circle"), "{}", problem.detail);
    let mut plan = good.clone();
    plan["plan"]["tasks"].as_array_mut().unwrap().pop();
    fails(daemon.post("/v1/runs", &plan), ErrorCode::InvalidPlan).await;
    let mut body = good.clone();
    body["plan"] = json!(7);
    fails(daemon.post("/v1/runs", &body), ErrorCode::InvalidBody).await;
    assert_eq!(daemon.read("/v1/runs").await["runs"], json!([]));
    fails(daemon.get("/v1/runs/nobody"), ErrorCode::RunNotFound).await;
}

#[tokio::test]
async fn options_that_no_run_can_live_with_and_misspelt_ones_are_refused_and_named() {
    let daemon = Daemon::start();
    let check = async |options: Value, named: &[&str]| {
        let mut request = json!(examples::run_request());
        request["options"] = options;
        let problem = fails(daemon.post("/v1/runs", &request), ErrorCode::InvalidBody).await;
        assert_eq!(problem.status, 400);
        named.iter().for_each(|name| assert!(problem.detail.contains(name), "{}", problem.detail));
    };
    check(json!({"attempts_max": 0}), &["`options.attempts_max` is `0`", "at least 1"]).await;
    check(json!({"lease_ms": 0}), &["`options.lease_ms` is `0`", "heartbeat"]).await;
    check(json!({"lease_ms": 500, "heartbeat_ms": 500}), &["`options.lease_ms` is `500`", "1000"]).await;
    check(json!({"watch_ms": -1}), &["`options.watch_ms`", "`-1`"]).await;
    check(json!({"overlap_upload": false}), &["unknown field `overlap_upload`"]).await;
    let mut misspelt = json!(examples::run_request());
    misspelt["option"] = json!({});
    let problem = fails(daemon.post("/v1/runs", &misspelt), ErrorCode::InvalidBody).await;
    assert!(problem.detail.contains("`option`"), "{}", problem.detail);
    assert_eq!(daemon.read("/v1/runs").await["runs"], json!([]));
}

#[tokio::test]
async fn a_run_goes_from_its_first_task_to_its_end() {
    let daemon = Daemon::start();
    daemon.run("r-1").await;
    complete(&daemon, "r-1").await;
    let run = summary(&daemon, "r-1").await;
    assert_eq!((run.status, run.committed, run.running, run.retries), (RunStatus::Completed, 4, 0, 0));
    assert_eq!((run.usage[0].invocations, run.usage[0].cold_starts), (1, 1));
    let usage = json!({
        "billed_ms": 5, "puts": 1, "gets": 2, "download_bytes": 3, "upload_bytes": 4, "saved_bytes": 5
    });
    let leave = json!({"op": "leave", "instance": "i-1", "tasks": [], "usage": usage});
    assert_eq!(daemon.operate("r-1", json!([leave])).await, [json!({"result": "done"})]);
    let late = summary(&daemon, "r-1").await;
    assert_eq!(late.usage[0].usage.puts, 1, "use that is reported after the end counts");
    assert_eq!(late.elapsed_ms, run.elapsed_ms, "the clock of a run stops at its end");
    let daemon = daemon.restart();
    assert_eq!(summary(&daemon, "r-1").await, late);
}

#[tokio::test]
async fn repeated_operations_answer_like_the_first_and_add_no_event() {
    let daemon = Daemon::start();
    daemon.run("r-1").await;
    let operations = json!([join("i-1"), lease(0, "i-1"), commit(0, "i-1", 2)]);
    daemon.operate("r-1", operations.clone()).await;
    let events = summary(&daemon, "r-1").await.last_event;
    let again = daemon.operate("r-1", operations).await;
    assert_eq!(again[0], json!({"result": "joined", "before": "left"}));
    assert_eq!(again[1]["result"], json!("committed"));
    assert_eq!(again[2], json!({"result": "won", "ready": [1, 2]}));
    assert_eq!(summary(&daemon, "r-1").await.last_event, events);
}

#[tokio::test]
async fn a_suggested_plan_is_kept_until_another_is_in_force() {
    let daemon = Daemon::start();
    let request = daemon.run("r-1").await;
    let suggested = daemon.url("/v1/runs/r-1/plans/suggested");
    let put = |body: &Value| daemon.client.put(suggested.clone()).json(body);
    fails(daemon.get("/v1/runs/r-1/plans/suggested"), ErrorCode::NotFound).await;
    let mut plan: Plan = request.plan.clone();
    plan.seed = 99;
    let why = why();
    fails(put(&json!({"expected_epoch": 1, "plan": plan})), ErrorCode::InvalidBody).await;
    fails(put(&json!({"expected_epoch": 2, "plan": plan, "why": why})), ErrorCode::PlanEpochConflict).await;
    daemon.suggest("r-1", &plan, &why).await;
    let daemon = daemon.restart();
    let kept = daemon.read("/v1/runs/r-1/plans/suggested").await;
    assert_eq!((&kept["plan"]["seed"], &kept["why"]), (&json!(99), &why));
    assert_eq!(daemon.read("/v1/runs/r-1/plan").await["epoch"], json!(1), "the plan in force stays");
    fails(daemon.get("/v1/runs/r-1/plans/0"), ErrorCode::NotFound).await;
    let events = daemon.read("/v1/runs/r-1/events?kinds=plan_suggested").await;
    assert_eq!(events["events"][0]["why"], why, "{events}");

    // What is answered is what puts it in force.
    let current = good(daemon.client.put(daemon.url("/v1/runs/r-1/plan")).json(&kept)).await;
    assert_eq!((&current["epoch"], &current["plan"]["seed"]), (&json!(2), &json!(99)));
    fails(daemon.get("/v1/runs/r-1/plans/suggested"), ErrorCode::NotFound).await;
}

#[tokio::test]
async fn a_plan_is_replaced_by_who_knows_the_one_in_force() {
    let daemon = Daemon::start();
    let request = daemon.run("r-1").await;
    let mut plan: Plan = request.plan.clone();
    plan.seed = 99;
    plan.predicted.makespan_ms = 1234.0;
    let put = |expected: u64, plan: &Plan| {
        let body = json!({"expected_epoch": expected, "plan": plan});
        daemon.client.put(daemon.url("/v1/runs/r-1/plan")).json(&body)
    };
    let current: CurrentPlan = serde_json::from_value(good(put(1, &plan)).await).unwrap();
    assert_eq!((current.epoch, &current.plan), (2, &plan));
    assert_eq!(good(put(1, &plan)).await["epoch"], json!(2), "a repeated request changes nothing");
    fails(put(1, &request.plan), ErrorCode::PlanEpochConflict).await;
    fails(put(7, &request.plan), ErrorCode::PlanEpochConflict).await;
    let mut foreign = plan.clone();
    foreign.tasks.clear();
    fails(put(2, &foreign), ErrorCode::InvalidPlan).await;
    let run = summary(&daemon, "r-1").await;
    assert_eq!((run.plan_epoch, run.predicted.makespan_ms), (2, 1234.0));
    assert_eq!(daemon.read("/v1/runs/r-1/plans/1").await["plan"]["seed"], json!(7));
    assert_eq!(daemon.read("/v1/runs/r-1/plan").await["epoch"], json!(2));
    fails(daemon.get("/v1/runs/r-1/plans/3"), ErrorCode::NotFound).await;
    let stale = daemon.operate("r-1", json!([join("i-1"), lease(0, "i-1")])).await;
    assert_eq!(stale[1], json!({"result": "stale_epoch"}));
    let daemon = daemon.restart();
    assert_eq!(summary(&daemon, "r-1").await.predicted.makespan_ms, 1234.0);
    complete_after_cancel(&daemon).await;
}

async fn complete_after_cancel(daemon: &Daemon) {
    let cancelled = good(daemon.post("/v1/runs/r-1/cancel", &json!({"reason": "enough"}))).await;
    assert_eq!(
        (&cancelled["status"], &cancelled["failure"]["message"]),
        (&json!("cancelled"), &json!("enough"))
    );
    let again = good(daemon.post("/v1/runs/r-1/cancel", &json!({"reason": "more"}))).await;
    assert_eq!(again["failure"]["message"], json!("enough"), "one that has ended stays as it is");
    let results = daemon.operate("r-1", json!([lease(0, "i-1")])).await;
    assert_eq!(results, [json!({"result": "run_over"})]);
    let plan = examples::plan();
    let late =
        daemon.client.put(daemon.url("/v1/runs/r-1/plan")).json(&json!({"expected_epoch": 2, "plan": plan}));
    fails(late, ErrorCode::RunOver).await;
}

#[tokio::test]
async fn blobs_are_kept_under_any_key_until_they_are_deleted() {
    let daemon = Daemon::start();
    daemon.run("r-1").await;
    let url = daemon.url("/v1/runs/r-1/blobs/split/1/part-0%20%C3%A4.bin");
    let content: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    let put = daemon.client.put(&url).body(content.clone()).send().await.unwrap();
    assert_eq!(put.status(), StatusCode::NO_CONTENT);
    let daemon = daemon.restart();
    let url = daemon.url("/v1/runs/r-1/blobs/split/1/part-0%20%C3%A4.bin");
    let back = daemon.client.get(&url).send().await.unwrap();
    assert_eq!(back.headers()["content-type"], "application/octet-stream");
    assert_eq!(back.bytes().await.unwrap(), content);
    for _ in 0..2 {
        let deleted = daemon.client.delete(&url).send().await.unwrap();
        assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    }
    fails(daemon.client.get(&url), ErrorCode::BlobNotFound).await;
    fails(daemon.client.put(daemon.url("/v1/runs/none/blobs/a")).body("x"), ErrorCode::RunNotFound).await;
    let empty = daemon.client.put(daemon.url("/v1/runs/r-1/blobs/empty")).send().await.unwrap();
    assert_eq!(empty.status(), StatusCode::NO_CONTENT);
    let empty = daemon.get("/v1/runs/r-1/blobs/empty").send().await.unwrap();
    assert_eq!((empty.status(), empty.bytes().await.unwrap().len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn the_oldest_finished_runs_are_let_go_and_running_ones_are_not() {
    let daemon = Daemon::with(|s| s.finished_runs_max = 2);
    daemon.run("stays").await;
    for run in ["r-1", "r-2", "r-3", "r-4"] {
        daemon.run(run).await;
        let put =
            daemon.client.put(daemon.url(&format!("/v1/runs/{run}/blobs/a"))).body("x").send().await.unwrap();
        assert!(put.status().is_success());
        complete(&daemon, run).await;
    }
    let listed = |list: Value| -> Vec<String> {
        list["runs"].as_array().unwrap().iter().map(|r| r["run"].as_str().unwrap().to_owned()).collect()
    };
    let expected = ["r-4", "r-3", "stays"];
    assert_eq!(listed(daemon.read("/v1/runs").await), expected);
    fails(daemon.get("/v1/runs/r-1"), ErrorCode::RunNotFound).await;
    let daemon = daemon.restart();
    assert_eq!(listed(daemon.read("/v1/runs").await), expected);
    daemon.run("r-1").await;
}
