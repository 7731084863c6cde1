//! Planning from the command line: planners of one's own, interrupts, comparisons.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use foresail::schemas::plan::Plan;

use crate::support::{LIMIT, Running, eventually, foresail, processes, run, signal};

/// A small WfFormat instance: a fork into three tasks of uneven length and a join.
fn instance(folder: &Path) -> String {
    let task = |id: &str, parents: &[&str]| {
        let reads: Vec<String> = parents.iter().map(|p| format!("{p}.out")).collect();
        serde_json::json!({"name": id, "id": id, "parents": parents, "children": [],
            "inputFiles": reads, "outputFiles": [format!("{id}.out")]})
    };
    let tasks = [
        task("split", &[]),
        task("a", &["split"]),
        task("b", &["split"]),
        task("c", &["split"]),
        task("join", &["a", "b", "c"]),
    ];
    let ids = ["split", "a", "b", "c", "join"];
    let files: Vec<_> = ids
        .iter()
        .map(|id| serde_json::json!({"id": format!("{id}.out"), "sizeInBytes": 2_000_000}))
        .collect();
    let times: Vec<_> = ids
        .iter()
        .zip([4.0, 30.0, 60.0, 90.0, 8.0])
        .map(|(id, s)| serde_json::json!({"id": id, "runtimeInSeconds": s}))
        .collect();
    let document = serde_json::json!({"name": "fork", "schemaVersion": "1.5", "workflow": {
        "specification": {"tasks": tasks, "files": files},
        "execution": {"makespanInSeconds": 100, "executedAt": "x", "tasks": times}}});
    let path = folder.join("fork.json");
    std::fs::write(&path, document.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_example_of_a_planner_in_python_plans() {
    let data = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/own_planner.py");
    let planner = format!("exec:python3 '{script}' 0.3");
    let ended = run(data.path(), &["plan", &instance(data.path()), "--planner", &planner, "-o", "json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let plan: Plan = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((plan.planner.as_str(), plan.workers.len()), ("exec", 3), "{ended:?}");
    assert!(plan.explanation.iter().any(|s| s == "3 chains."), "{ended:?}");
    assert_eq!(plan.tasks[1].why, "follows split");
    assert!(plan.predicted.makespan_ms > 90_000.0 && plan.bounds.makespan_ratio >= 1.0, "{ended:?}");

    let failing = "exec:python3 -c 'raise SystemExit(\"no idea\")'";
    let ended = run(data.path(), &["plan", "hello", "--planner", failing]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("no idea") && ended.stdout.is_empty(), "{ended:?}");
}

/// Interrupts a command once its planner, a program that sleeps, runs; how it ended and how long that took.
fn interrupted(args: &[&str], naps: &str) -> (Option<i32>, Duration, String) {
    use std::io::Read;
    let data = tempfile::tempdir().unwrap();
    let mut command = foresail(data.path(), args);
    let mut child = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let nap = format!("sleep\u{0}{naps}");
    eventually("the planner runs", || !processes(&nap).is_empty());
    let began = Instant::now();
    signal(child.0.id(), "INT");
    let code = child.0.wait().unwrap().code();
    let took = began.elapsed();
    eventually("the planner ends", || processes(&nap).is_empty());
    let mut told = String::new();
    child.0.stdout.take().unwrap().read_to_string(&mut told).unwrap();
    (code, took, told)
}

#[test]
fn an_interrupt_of_a_long_planning_ends_it_and_its_program() {
    let (code, took, told) = interrupted(&["plan", "hello", "--planner", "exec:sleep 615.5"], "615.5");
    assert_eq!(code, Some(130));
    assert!(took < LIMIT / 4, "{took:?} is as good as never");
    assert!(told.is_empty(), "{told}");
}

#[test]
fn an_interrupted_comparison_shows_what_is_done() {
    let args =
        ["lab", "plans", "--shapes", "tree:8", "--planners", "simple,auto,exec:sleep 616.5", "-o", "json"];
    let (code, _, told) = interrupted(&args, "616.5");
    assert_eq!(code, Some(130));
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let done: Vec<_> = told["rows"].as_array().unwrap().iter().map(|row| row["planner"].clone()).collect();
    assert_eq!(done, ["simple", "auto"]);
}

#[test]
fn planners_are_compared_on_recorded_runs_and_shapes_with_their_truth() {
    let data = tempfile::tempdir().unwrap();
    instance(data.path());
    let folder = data.path().to_str().unwrap();
    let args = [
        "lab",
        "plans",
        "--wfformat",
        folder,
        "--shapes",
        "tsqr:4",
        "--planners",
        "simple,random,auto",
        "--tasks-ms-max",
        "60000,5000",
        "--history",
        "0,5",
        "--seeds",
        "2",
    ];
    let with = |more: &[&str]| run(data.path(), &[&args[..], more].concat());
    let ended = with(&["-o", "json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let told = ended.json();
    let rows = told["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2 * 3 * 2 * 2 * 2, "{ended:?}");
    assert!(rows.iter().all(|row| row["failure"].is_null() && row["planned"].is_object()), "{ended:?}");
    let summaries = told["summaries"].as_array().unwrap();
    assert_eq!(summaries.len(), 3 * 2 * 2);
    let of = |planner: &str, history: u64| {
        let is = |s: &&serde_json::Value| {
            s["planner"] == planner && s["history"] == history && s["task_ms_max"] == 60000.0
        };
        summaries.iter().find(is).unwrap()["makespan_ratio"].as_f64().unwrap()
    };
    assert!(of("auto", 5) < of("auto", 0), "{summaries:#?}");
    assert!(of("auto", 5) < of("random", 5), "{summaries:#?}");

    let csv = with(&["-o", "csv"]).stdout;
    assert_eq!(csv.lines().count(), 1 + rows.len(), "{csv}");
    assert!(csv.starts_with("workflow,origin,tasks,"), "{csv}");
    let table = with(&[]).stdout;
    for word in ["time/LB_T", "fork", "tsqr:4", "60.0 s", "5.00 s", "auto"] {
        assert!(table.contains(word), "`{word}` is missing: {table}");
    }
    let file = data.path().join("plans.parquet");
    let ended = with(&["-o", "parquet", "--file", file.to_str().unwrap()]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(std::fs::read(&file).unwrap().starts_with(b"PAR1"));
}

#[test]
fn a_comparison_with_a_planner_that_gave_no_plan_is_shown_and_is_code_1() {
    let data = tempfile::tempdir().unwrap();
    let args = ["lab", "plans", "--shapes", "tree:4", "--planners"];
    let some = run(data.path(), &[&args[..], &["simple,exec:false"]].concat());
    assert_eq!(some.code, Some(1), "{some:?}");
    assert!(some.stderr.contains("error: 1 of 2 problems have no plan; the first, `exec:false`"), "{some:?}");
    let row = some.stdout.lines().find(|line| line.contains("exec:false")).unwrap();
    assert!(row.contains("(1 failed)") && !row.contains("-0"), "{row}");
    let none = run(data.path(), &[&args[..], &["exec:false", "-o", "json"]].concat());
    assert_eq!(none.code, Some(1), "{none:?}");
    let failure = none.json()["rows"][0]["failure"].as_str().unwrap().to_owned();
    assert!(failure.starts_with("the program ended"), "{failure}");
}

#[test]
fn a_planner_with_a_wrong_argument_is_told_what_it_takes_and_nothing_else() {
    let data = tempfile::tempdir().unwrap();
    for (planner, hint) in [("anneal:-1", "seconds"), ("auto:0", "seconds"), ("wukong:bogus", "fan-out")] {
        let ended = run(data.path(), &["plan", "hello", "--planner", planner]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let hints: Vec<_> = ended.stderr.lines().filter(|line| line.contains("hint:")).collect();
        assert!(hints.len() == 1 && hints[0].starts_with("hint: ") && hints[0].contains(hint), "{ended:?}");
        assert!(!ended.stderr.contains("no planner `"), "{ended:?}");
    }
}

#[test]
fn a_file_that_cannot_be_written_is_named_before_anything_is_planned() {
    let data = tempfile::tempdir().unwrap();
    let missing = data.path().join("none").join("x");
    let (missing, folder) = (missing.to_str().unwrap(), data.path().to_str().unwrap());
    // Who is asked leaves a trace.
    let trace = data.path().join("asked");
    let planner = format!("exec:touch '{}'", trace.display());
    let of_lab = ["lab", "plans", "--shapes", "tree:4", "--planners", &planner, "-o", "csv", "--file"];
    let of_plan = ["plan", "hello", "--planner", &planner, "--html"];
    for (args, file) in
        [(&of_lab[..], missing), (&of_lab, folder), (&of_plan, missing), (&of_plan, "/proc/none")]
    {
        let ended = run(data.path(), &[args, &[file]].concat());
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(&format!("`{file}`")), "`{file}` is not named: {ended:?}");
        assert!(ended.stderr.contains("hint:") && !trace.exists(), "{ended:?}");
    }
}

#[test]
fn wrong_comparisons_are_code_2_with_a_hint() {
    let data = tempfile::tempdir().unwrap();
    for (args, word) in [
        (vec!["lab", "plans"], "--wfformat, or --shapes"),
        (vec!["lab", "plans", "--shapes", "star"], "tree:N"),
        (vec!["lab", "plans", "--shapes", "tree:8", "--planners", "oracle"], "simple"),
        (vec!["lab", "plans", "--wfformat", "no-such-file.json"], "no-such-file.json"),
        (vec!["lab", "plans", "--wfformat", data.path().to_str().unwrap()], "no workflow"),
        (vec!["lab", "plans", "--shapes", "tree:8", "--objective", "best"], "at-simple"),
        (vec!["runs", "-o", "csv"], "of `foresail lab` write CSV"),
    ] {
        let ended = run(data.path(), &args);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(word) && ended.stdout.is_empty(), "`{word}` is missing: {ended:?}");
    }
}

#[test]
fn a_plan_is_told_with_its_alternatives_and_as_a_page() {
    let data = tempfile::tempdir().unwrap();
    let (file, page) = (instance(data.path()), data.path().join("plan.html"));
    let html = page.to_str().unwrap();
    let args = ["plan", &file, "--platform", "aws-lambda-x86", "--explain", "b", "--html", html];
    let table = run(data.path(), &args);
    assert_eq!(table.code, Some(0), "{table:?}");
    for word in ["the best other size", "join", "b: ", "instead", "(as planned)", "3538 MB"] {
        assert!(table.stdout.contains(word), "`{word}` is missing: {table:?}");
    }
    assert!(!table.stdout.contains('\u{1b}'), "a pipe is plain: {table:?}");
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text.starts_with("<!DOCTYPE html>") && text.contains("alternatives</summary>"));

    let json = run(data.path(), &["plan", &file, "--explain", "b", "-o", "json"]);
    let plan: Plan = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(plan.tasks.len(), 5);
    assert_eq!(json.json()["alternatives"][0]["task"], "b", "{json:?}");
    let bare = run(data.path(), &["plan", &file, "-o", "json"]);
    assert!(bare.json()["alternatives"].is_null(), "{bare:?}");

    let unknown = run(data.path(), &["plan", &file, "--explain", "nobody"]);
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    assert!(unknown.stderr.contains("`nobody`") && unknown.stderr.contains("hint:"), "{unknown:?}");
}
