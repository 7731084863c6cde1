//! Measurements: imported, asked, compared, exported; lines and names that are wrong.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{finish, foresail, run};

const HEADER: &str = "workflow,task,run,memory_mb,vcpu,input_bytes,output_bytes,exec_ms\n";

fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A task with a second that does not depend on memory and a part that halves with every doubling up to
/// 2,048 MB, 20 times at each size with 2 % of jitter, and a task of another workflow.
fn history() -> String {
    let mut text = HEADER.to_owned();
    for round in 0..20 {
        for mb in [512, 1024, 2048, 4096] {
            let exec_ms = 1000.0 + 2_048_000.0 / f64::from(mb.min(2048));
            let exec_ms = exec_ms * (1.0 + 0.001 * f64::from(round * 7 % 20));
            writeln!(text, "resize,scale,{round},{mb},,1000000,{},{exec_ms}", 500_000 + round).unwrap();
        }
        writeln!(text, "other,wait,{round},,,,,{}", 100 + round % 3).unwrap();
    }
    text
}

fn imported(data: &Path) -> String {
    let path = file(data, "history.csv", &history());
    let ended = run(data, &["import", &path]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    path
}

fn predict(data: &Path, task: &str) -> Value {
    let args = ["predict", task, "--input", "1MB", "--memory", "512,4096", "--sla", "p50,p95", "-o", "json"];
    let ended = run(data, &args);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.json()
}

#[test]
fn what_was_imported_is_predicted_as_it_was_asked() {
    let data = tempfile::tempdir().unwrap();
    let path = file(data.path(), "history.csv", &history());
    let ended = run(data.path(), &["import", &path, "-o", "json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report = ended.json();
    assert_eq!(
        [&report["lines"], &report["stored"], &report["stored_before"], &report["refused"]],
        [100, 100, 0, 0]
    );
    assert_eq!(report["workflows"], json!({ "other": 20, "resize": 80 }));
    assert!(ended.stderr.contains("20 lines name no memory: 1769 MB was taken"), "{ended:?}");

    let answer = predict(data.path(), "resize/scale");
    let [small, large] = [&answer["execution_time"][0], &answer["execution_time"][1]];
    let near = |value: &Value, expect: f64| (value.as_f64().unwrap() / expect - 1.0).abs() < 0.03;
    assert!(near(&small["values"]["p50"], 5_048.0) && near(&large["values"]["p50"], 2_019.0), "{answer:#}");
    assert_eq!((&small["basis"], &small["config"]["memory_mb"]), (&json!("exact"), &json!(512)));
    assert_eq!(small["samples"], 20);
    assert!(small["values"]["median"].is_null(), "it was not asked by that name: {answer:#}");
    assert!(small["interval"]["p50"].is_array(), "{answer:#}");
    assert!(near(&answer["output_size"]["values"]["p95"], 500_018.0), "{answer:#}");
    assert!(answer["epoch"].as_u64() > Some(0));

    let table = run(data.path(), &["predict", "resize/scale", "--sla", "p50", "--what", "time"]);
    assert!(table.stdout.contains("p50") && !table.stdout.contains("median"), "{table:?}");
    assert!(!table.stdout.contains("output") && table.stderr.contains("epoch"), "{table:?}");
}

#[test]
fn importing_the_same_file_again_changes_nothing() {
    let data = tempfile::tempdir().unwrap();
    let path = imported(data.path());
    let before = predict(data.path(), "resize/scale");
    let copy = file(data.path(), "copy.csv", &std::fs::read_to_string(path).unwrap());
    let again = run(data.path(), &["import", &copy, "-o", "json"]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!([&again.json()["stored"], &again.json()["stored_before"]], [0, 100]);
    assert!(again.stderr.contains("imported before"), "{again:?}");
    assert_eq!(predict(data.path(), "resize/scale"), before);
}

/// Lines `from..to` of a task whose times differ from line to line.
fn lines(from: u32, to: u32) -> String {
    (from..to).map(|n| format!("w,t,,512,,1,,{}\n", 100 + n % 7)).collect()
}

#[test]
fn of_a_file_that_grew_only_the_new_lines_are_stored() {
    let data = tempfile::tempdir().unwrap();
    let mut stored = 0;
    for end in [3, 4, 4, 2_000, 2_001, 5_000, 5_001] {
        let path = file(data.path(), "log.csv", &format!("{HEADER}{}", lines(0, end)));
        let ended = run(data.path(), &["import", &path, "-o", "json"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let report = ended.json();
        assert_eq!([&report["stored"], &report["stored_before"]], [end - stored, stored], "{end} lines");
        stored = end;
    }
    let out = run(data.path(), &["export", "samples", "w"]);
    assert_eq!(out.stdout.lines().count(), 5_001);
    let kept = run(data.path(), &["export", "samples", "w", "--form", "csv"]).stdout;
    let times: Vec<&str> = kept.lines().skip(1).map(|line| line.split(',').nth(6).unwrap()).collect();
    let expect: Vec<String> = (0..5_001).map(|n| (100 + n % 7).to_string()).collect();
    assert_eq!(times, expect, "every line is there once, in the order of the file");
}

#[test]
fn a_file_that_was_changed_is_refused_from_there_on_however_often_it_is_imported() {
    let data = tempfile::tempdir().unwrap();
    let whole = format!("{HEADER}{}", lines(0, 2_500));
    let path = file(data.path(), "log.csv", &whole);
    assert_eq!(run(data.path(), &["import", &path]).code, Some(0));
    // Line 2,205: the 204th of the second chunk.
    let mut changed: Vec<&str> = whole.lines().collect();
    changed[2_204] = "w,t,,512,,1,,9999";
    for more in ["", "w,t,,512,,1,,7\n"] {
        let path = file(data.path(), "changed.csv", &format!("{}\n{more}", changed.join("\n")));
        for _ in 0..2 {
            let ended = run(data.path(), &["import", &path, "-o", "json"]);
            assert_eq!(ended.code, Some(1), "{ended:?}");
            let (report, behind) = (ended.json(), 500 + more.lines().count());
            assert_eq!(
                [&report["stored"], &report["stored_before"], &report["refused"]],
                [&json!(0), &json!(2_000), &json!(behind)]
            );
            assert_eq!(report["refusals"][0]["line"], 2_002, "{report:#}");
            assert!(ended.stderr.contains("imported before"), "{ended:?}");
        }
    }
    assert_eq!(run(data.path(), &["export", "samples", "w"]).stdout.lines().count(), 2_500);
}

#[test]
fn an_exported_file_has_the_mode_that_the_umask_leaves_and_a_folder_that_is_there() {
    use std::os::unix::fs::PermissionsExt;

    let data = tempfile::tempdir().unwrap();
    imported(data.path());
    let (made, other) = (data.path().join("made.csv"), data.path().join("other"));
    let target = made.to_str().unwrap();
    assert_eq!(run(data.path(), &["export", "samples", "resize", "--file", target]).code, Some(0));
    std::fs::write(&other, "").unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&made), mode(&other));

    let nowhere = data.path().join("nodir/x.csv");
    let ended = run(data.path(), &["export", "samples", "resize", "--file", nowhere.to_str().unwrap()]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("nodir`") && ended.stderr.contains("mkdir"), "{ended:?}");
}

#[test]
fn bad_lines_are_told_with_number_and_reason_and_the_others_are_stored() {
    let data = tempfile::tempdir().unwrap();
    let lines = "w,good,1,512,,1,,10\nw,bad name,1,512,,1,,10\nw,good,1,512,,1,,soon\nw,good,1,512,,1\n\
                 w,long,1,512,,1,,1e12\nw,good,1,512,,1,,11\n";
    let path = file(data.path(), "mixed.csv", &format!("{HEADER}{lines}"));
    let ended = run(data.path(), &["import", &path]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for word in ["line 3: `bad name`", "line 4: exec_ms `soon`", "line 5: has 6 fields", "line 6: exec_ms"] {
        assert!(ended.stderr.contains(word), "`{word}` is missing: {ended:?}");
    }
    assert!(ended.stdout.contains("6 lines: 2 stored, 0 stored before, 4 refused"), "{ended:?}");
    let mapped = run(data.path(), &["import", &path, "--map-names"]);
    assert!(mapped.stderr.contains("imported before"), "a chunk is never changed: {mapped:?}");

    let elsewhere = tempfile::tempdir().unwrap();
    let mapped = run(elsewhere.path(), &["import", &path, "--map-names", "-o", "json"]);
    assert_eq!(mapped.json()["stored"], 3, "{mapped:?}");
    assert_eq!(run(elsewhere.path(), &["predict", "w/bad_name"]).code, Some(0));
}

#[test]
fn a_file_that_is_none_is_refused_before_anything_is_stored() {
    let data = tempfile::tempdir().unwrap();
    let no_times = file(data.path(), "no-times.csv", "workflow,task,duration\nw,t,1\n");
    let no_workflow = file(data.path(), "no-workflow.csv", "task,exec_ms\nt,1\n");
    for (path, words) in [
        (no_times.as_str(), ["`exec_ms`", "workflow,task,duration"]),
        (no_workflow.as_str(), ["`workflow`", "--workflow NAME"]),
        ("absent.csv", ["absent.csv", "hint:"]),
    ] {
        let ended = run(data.path(), &["import", path]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(words.iter().all(|word| ended.stderr.contains(word)), "{ended:?}");
        assert!(ended.stdout.is_empty(), "{ended:?}");
    }
    assert_eq!(run(data.path(), &["import", &no_workflow, "--workflow", "w"]).code, Some(0));
}

#[test]
fn unknown_names_are_told_with_those_that_are_known() {
    let data = tempfile::tempdir().unwrap();
    imported(data.path());
    for command in ["predict", "tune"] {
        for (task, words) in [
            ("resize/sclae", ["resize/sclae", "tasks measured in `resize`: scale"]),
            ("rezise/none", ["`rezise`", "known workflows: other, resize"]),
        ] {
            let ended = run(data.path(), &[command, task]);
            assert_eq!(ended.code, Some(2), "{ended:?}");
            assert!(words.iter().all(|word| ended.stderr.contains(word)), "{ended:?}");
            assert!(ended.stdout.is_empty(), "{ended:?}");
        }
    }
    let ended = run(data.path(), &["predict", "resize/scale", "--memory", "0"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
}

#[test]
fn memory_sizes_are_compared_from_history_alone() {
    let data = tempfile::tempdir().unwrap();
    imported(data.path());
    let sizes = ["tune", "resize/scale", "--input", "1MB", "--memory", "512,1024,2048,4096", "--sla", "p95"];
    let json = [&sizes[..], &["--deadline", "3.5s", "--platform", "aws-lambda-x86", "-o", "json"]].concat();
    let ended = run(data.path(), &json);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let tuning = ended.json();
    let memory = |choice: &str| tuning[choice]["memory_mb"].as_u64();
    assert_eq!((memory("cheapest"), memory("fastest")), (Some(512), Some(2048)), "{tuning:#}");
    assert_eq!(memory("best"), Some(2048), "{tuning:#}");
    assert_eq!((memory("cheapest_in_time"), &tuning["sla"]), (Some(1024), &json!("p95")), "{tuning:#}");
    let points = tuning["points"].as_array().unwrap();
    let times: Vec<f64> = points.iter().map(|p| p["time_ms"].as_f64().unwrap()).collect();
    assert!(
        times[0] > 1.6 * times[1] && times[1] > 1.4 * times[2] && times[3] > 0.97 * times[2],
        "{times:?}"
    );
    assert!(points.iter().all(|p| p["basis"] == "exact" && p["cost_usd"].as_f64() > Some(0.0)), "{tuning:#}");

    let table = run(data.path(), &[&sizes[..], &["--deadline", "1ms"]].concat());
    for word in ["####", "best trade-off", "cheapest within 1.00 ms: none", "per million executions"] {
        assert!(table.stdout.contains(word), "`{word}` is missing: {table:?}");
    }
    assert!(table.stderr.contains("no size stays within 1.00 ms"), "{table:?}");
    let menu = run(data.path(), &["tune", "resize/scale", "--input", "9MB", "--platform", "aws-lambda-x86"]);
    assert!(menu.stdout.contains("10240 MB") && menu.stderr.contains("extrapolated"), "{menu:?}");
}

#[test]
fn exported_measurements_are_imported_to_the_same_predictions() {
    let data = tempfile::tempdir().unwrap();
    imported(data.path());
    let expect = predict(data.path(), "resize/scale");
    for ending in ["ndjson", "csv"] {
        let target = data.path().join(format!("out.{ending}"));
        let target = target.to_str().unwrap();
        let ended = run(data.path(), &["export", "samples", "resize", "--file", target]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(
            std::fs::read_to_string(target).unwrap().lines().count(),
            80 + usize::from(ending == "csv")
        );
        let elsewhere = tempfile::tempdir().unwrap();
        let back = run(elsewhere.path(), &["import", target, "--workflow", "resize", "-o", "json"]);
        assert_eq!((back.code, &back.json()["stored"]), (Some(0), &json!(80)), "{back:?}");
        let mut found = predict(elsewhere.path(), "resize/scale");
        found["epoch"] = expect["epoch"].clone();
        assert_eq!(found, expect, "{ending}");
    }
    let to_stdout = run(data.path(), &["export", "samples", "resize"]);
    assert_eq!(to_stdout.stdout.lines().count(), 80);
    let unknown = run(data.path(), &["export", "samples", "resiez"]);
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    assert!(unknown.stderr.contains("known workflows: other, resize"), "{unknown:?}");
}

#[test]
fn stdin_is_imported_like_a_file() {
    let data = tempfile::tempdir().unwrap();
    let path = file(data.path(), "history.csv", &history());
    let mut command = foresail(data.path(), &["import", "-", "-o", "json"]);
    let ended = finish(command.stdin(std::fs::File::open(&path).unwrap()));
    assert_eq!((ended.code, &ended.json()["stored"]), (Some(0), &json!(100)), "{ended:?}");
    let again = run(data.path(), &["import", &path, "-o", "json"]);
    assert_eq!(again.json()["stored_before"], 100, "the content counts, not the name: {again:?}");
}
