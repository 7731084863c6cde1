//! The commands: what they print, how they end, what they say about mistakes.

use foresail::schemas::plan::Plan;
use foresail::schemas::wfformat;

use crate::support::{run, stack};

#[test]
fn an_example_runs_to_its_result() {
    let data = tempfile::tempdir().unwrap();
    let ended = run(data.path(), &["run", "hello", "-o", "json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let told = ended.json();
    assert_eq!(told["status"], "completed");
    assert!(told["actual"]["makespan_ms"].as_f64().unwrap() > 0.0);
    assert!(told["actual"]["cost_usd"].as_f64().unwrap() > 0.0);
    assert_eq!(told["results"].as_array().unwrap().len(), 2);
}

#[test]
fn a_bill_says_what_was_predicted_what_is_billed_and_why_that_differs() {
    let data = tempfile::tempdir().unwrap();
    let told = run(data.path(), &["run", "tree-reduction", "--size", "4"]);
    let in_short = told.stdout.lines().find(|line| line.starts_with("bill: ")).unwrap_or_default();
    assert!(in_short.contains("predicted") && in_short.contains("billed"), "{told:?}");
    let id = in_short.split("foresail bill ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let bill = run(data.path(), &["bill", id, "-o", "json"]).json();
    let usd = |value: &serde_json::Value| value.as_f64().unwrap();
    let sum = |list: &str, of: fn(&serde_json::Value) -> f64| -> f64 {
        bill[list].as_array().unwrap().iter().map(of).sum()
    };
    let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
    assert!(
        near(sum("causes", |cause| cause["usd"].as_f64().unwrap()), usd(&bill["difference_usd"])),
        "{bill}"
    );
    assert!(near(sum("lines", |line| line["billed"]["usd"].as_f64().unwrap()), usd(&bill["billed_usd"])));
    assert!(near(
        sum("lines", |line| line["predicted"]["usd"].as_f64().unwrap()),
        usd(&bill["predicted_usd"])
    ));
    let table = run(data.path(), &["bill", id]);
    for part in ["initialisation", "transfer", "GB s", "difference", "where "] {
        assert!(table.stdout.contains(part), "{part}: {table:?}");
    }
    assert_eq!(run(data.path(), &["bill", "no-such-run"]).code, Some(2));
}

#[test]
fn a_command_that_needs_aws_says_so_in_a_build_without() {
    let data = tempfile::tempdir().unwrap();
    for command in ["deploy", "doctor", "destroy"] {
        let ended = run(data.path(), &[command, "aws", "--help"]);
        let is_told = ended.stderr.contains("without the feature `aws`")
            && ended.stderr.contains("hint: `cargo build --release -p foresail`");
        assert_eq!(
            (is_told, ended.code),
            if cfg!(feature = "aws") { (false, Some(0)) } else { (true, Some(2)) }
        );
    }
    let store =
        ["run", "hello", "--store", "s3://bucket/prefix?endpoint=http://127.0.0.1:9&request_ms_max=1"];
    let ended = run(data.path(), &store);
    let is_built_in = foresail_worker::data::s3::is_built_in();
    assert_eq!(ended.stderr.contains("without the feature `s3`"), !is_built_in, "{ended:?}");
    assert_ne!(ended.code, Some(0));
}

#[test]
fn numbers_of_a_tree_add_up_and_the_result_is_saved() {
    let data = tempfile::tempdir().unwrap();
    let saved = data.path().join("results");
    let args = ["run", "tree-reduction", "--size", "9", "--output", saved.to_str().unwrap()];
    let ended = run(data.path(), &args);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let files: Vec<_> = std::fs::read_dir(&saved).unwrap().flatten().collect();
    assert_eq!(files.len(), 1, "{ended:?}");
    assert_eq!(std::fs::read_to_string(files[0].path()).unwrap(), "45");
}

#[test]
fn a_worker_with_lanes_carries_out_several_tasks_at_a_time() {
    let data = tempfile::tempdir().unwrap();
    let met = data.path().join("met");
    std::fs::create_dir(&met).unwrap();
    // Each waits for the others: one after another they never end.
    let line = r#"touch "$MET/$FORESAIL_TASK"; until [ "$(ls "$MET" | wc -l)" = 3 ]; do sleep 0.02; done"#
        .replace("$MET", met.to_str().unwrap());
    let task = |id: &str| serde_json::json!({"id": id, "name": "t", "run": line, "timeout_ms": 20_000});
    let tasks = ["t0", "t1", "t2"].map(task);
    let workflow = serde_json::json!({"name": "lanes", "tasks": tasks});
    let file = data.path().join("lanes.json");
    std::fs::write(&file, workflow.to_string()).unwrap();
    let (_up, _) = stack(data.path(), &["--concurrency", "1", "--lanes", "3", "--memory", "1000"]);
    let ended = run(data.path(), &["run", file.to_str().unwrap(), "-o", "json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let predicted = &ended.json()["predicted"];
    assert!(predicted["makespan_ms"].as_f64().unwrap() < 2_500.0, "planned one after another: {ended:?}");
}

#[test]
fn the_second_run_plans_with_what_the_first_measured() {
    let data = tempfile::tempdir().unwrap();
    let first = run(data.path(), &["run", "tree-reduction", "--size", "4", "-o", "json"]);
    assert!(first.stderr.contains("3 assumed"), "{first:?}");
    let second = run(data.path(), &["run", "tree-reduction", "--size", "4", "-o", "json"]);
    assert_eq!(second.code, Some(0), "{second:?}");
    assert!(!second.stderr.contains("assumed"), "{second:?}");
    assert!(second.stderr.contains("3 measured"), "{second:?}");
    let predict = run(data.path(), &["predict", "tree-reduction/add", "--sla", "p50,p95", "-o", "json"]);
    let median = predict.json()["execution_time"][0]["values"]["p50"].as_f64();
    assert!(median.is_some_and(|ms| ms >= 0.0), "{predict:?}");

    let runs = run(data.path(), &["runs", "-o", "json"]);
    assert_eq!(runs.json().as_array().unwrap().len(), 2, "{runs:?}");
    let id = first.json()["run"].as_str().unwrap().to_owned();
    let detail = run(data.path(), &["runs", &id]);
    assert!(detail.stdout.contains("task committed") && detail.stdout.contains("add-1-1"), "{detail:?}");
    let events = run(data.path(), &["runs", &id, "-o", "ndjson"]);
    let last = events.stdout.lines().filter(|line| line.contains("run_finished")).count();
    assert_eq!(last, 1, "{events:?}");
    let exported = run(data.path(), &["export", &id]);
    assert_eq!(wfformat::read(&exported.stdout).unwrap().tasks().len(), 3, "{exported:?}");
}

#[test]
fn the_same_seed_gives_the_same_plan() {
    let data = tempfile::tempdir().unwrap();
    let args = ["plan", "montage", "--seed", "7", "-o", "json"];
    let (first, second) = (run(data.path(), &args), run(data.path(), &args));
    assert_eq!(first.code, Some(0), "{first:?}");
    assert_eq!(first.stdout, second.stdout);
    let plan: Plan = serde_json::from_str(&first.stdout).unwrap();
    assert!(plan.bounds.makespan_ratio >= 1.0);
    let table = run(data.path(), &["plan", "montage", "--planner", "simple"]);
    for word in ["makespan", "critical path", "no plan is below", "#"] {
        assert!(table.stdout.contains(word), "`{word}` is missing: {table:?}");
    }
}

#[test]
fn a_wrong_file_is_told_with_a_hint_and_code_2() {
    let data = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = data.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let task =
        |id: &str, after: &str| format!(r#"{{"id":"{id}","name":"{id}","run":"true","after":["{after}"]}}"#);
    let circle = format!(r#"{{"name":"w","tasks":[{},{}]}}"#, task("a", "b"), task("b", "a"));
    for (path, word) in [
        (file("no.json", "no json"), "line 1"),
        (file("circle.json", &circle), "circle"),
        (file("empty.json", r#"{"name":"w","tasks":[]}"#), "no tasks"),
        ("no-such-example".to_owned(), "text-analysis"),
    ] {
        let ended = run(data.path(), &["run", &path]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("error:") && ended.stderr.contains("hint:"), "{ended:?}");
        assert!(ended.stderr.contains(word), "`{word}` is missing: {ended:?}");
        assert!(ended.stdout.is_empty(), "{ended:?}");
    }
}

#[test]
fn an_unknown_planner_is_refused_with_those_there_are() {
    let data = tempfile::tempdir().unwrap();
    let ended = run(data.path(), &["plan", "hello", "--planner", "oracle"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("oracle") && ended.stderr.contains("simple"), "{ended:?}");
}

#[test]
fn a_task_that_fails_is_told_with_what_it_said() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("fails.json");
    let text = r#"{"name":"fails","tasks":[
        {"id":"bad","name":"bad","run":"echo the reason >&2; exit 3","attempts_max":2}]}"#;
    std::fs::write(&file, text).unwrap();
    let ended = run(data.path(), &["run", file.to_str().unwrap(), "-o", "json"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for word in ["`bad`", "the reason", "attempt 2", "hint: `foresail runs"] {
        assert!(ended.stderr.contains(word), "`{word}` is missing: {ended:?}");
    }
    assert_eq!(ended.json()["status"], "failed");
}

#[test]
fn a_stack_that_does_not_answer_is_code_3() {
    let data = tempfile::tempdir().unwrap();
    let ended = run(data.path(), &["runs", "--metad", "http://127.0.0.1:9"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("http://127.0.0.1:9") && ended.stderr.contains("foresail up"), "{ended:?}");
}

#[test]
fn a_run_with_metad_alone_is_refused_before_anything_is_asked() {
    let data = tempfile::tempdir().unwrap();
    let ended = run(data.path(), &["run", "hello", "--metad", "http://127.0.0.1:9"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("--host") && ended.stderr.contains("hint:"), "{ended:?}");
}

#[test]
fn a_run_that_has_ended_cannot_be_cancelled_and_an_unknown_one_is_told_by_commands() {
    let data = tempfile::tempdir().unwrap();
    let done = run(data.path(), &["run", "hello", "-o", "json"]);
    let id = done.json()["run"].as_str().unwrap().to_owned();
    let ended = run(data.path(), &["cancel", &id]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("is completed; nothing was left to cancel"), "{ended:?}");
    for command in ["runs", "cancel", "export"] {
        let ended = run(data.path(), &[command, "r-none"]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("hint: `foresail runs` lists the runs"), "{ended:?}");
    }
}

#[test]
fn a_limit_that_is_missed_is_told_before_and_after_the_run() {
    let data = tempfile::tempdir().unwrap();
    let args = ["run", "hello", "--objective", "budget:0.000000001", "-o", "json"];
    let ended = run(data.path(), &args);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("over the budget"), "{ended:?}");
    assert!(ended.stderr.contains("the run did not keep to it"), "{ended:?}");
    assert!(ended.json()["missed"].as_str().unwrap().contains("over the budget"), "{ended:?}");
    let kept = run(data.path(), &["run", "hello", "--objective", "budget:1000", "-o", "json"]);
    assert!(kept.json()["missed"].is_null() && !kept.stderr.contains("keep to it"), "{kept:?}");
}

#[test]
fn completions_name_every_command() {
    let data = tempfile::tempdir().unwrap();
    let ended = run(data.path(), &["completions", "bash"]);
    assert_eq!(ended.code, Some(0));
    let commands = [
        "up", "run", "plan", "predict", "tune", "scores", "runs", "cancel", "import", "export", "lab", "demo",
    ];
    for command in commands.into_iter().chain(["samples", "backtest", "accuracy"]) {
        assert!(ended.stdout.contains(command), "{command}");
    }
}

#[test]
fn a_small_demo_ends_with_one_result_and_a_first_run_that_knew_nothing() {
    let data = tempfile::tempdir().unwrap();
    let text = data.path().join("text");
    std::fs::create_dir(&text).unwrap();
    for i in 0..12 {
        std::fs::write(text.join(format!("{i}.rs")), "impl trait match let pub struct enum\n".repeat(50))
            .unwrap();
        std::fs::write(text.join(format!("{i}.py")), "def class yield lambda import self\n".repeat(40))
            .unwrap();
    }
    let folder = text.to_str().unwrap().to_owned();
    let args = ["demo", &folder, "--runs", "2", "--parts", "3", "--cold-start-ms", "0", "-o", "json"];
    let ended = run(data.path(), &args);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let runs = ended.json();
    let runs = runs.as_array().unwrap();
    assert_eq!(runs.len(), 2);
    assert_eq!(runs[0]["result_hash"], runs[1]["result_hash"]);
    assert!(runs[0]["assumed_tasks"].as_u64() > Some(0), "{ended:?}");
    assert_eq!(runs[1]["assumed_tasks"], 0, "{ended:?}");
    assert!(runs.iter().all(|run| run["actual"]["cold_starts"].as_u64() > Some(0)), "{ended:?}");
}
