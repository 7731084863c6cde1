//! The lab: back-tests over files, without a stack.

use std::fmt::Write as _;
use std::path::Path;

use crate::support::run;

/// Times that follow memory and input exactly, so that a fitted model must beat the mean.
fn samples(folder: &Path) -> String {
    let mut text = "workflow,task,run,memory_mb,vcpu,input_bytes,output_bytes,exec_ms\n".to_owned();
    for run in 1..=6 {
        for mb in [256, 512, 1024, 1769] {
            let input_bytes = run * 1_000_000;
            let exec_ms = f64::from(input_bytes) / f64::from(mb);
            writeln!(text, "w,t,{run},{mb},,{input_bytes},{},{exec_ms}", input_bytes / 4).unwrap();
        }
    }
    let path = folder.join("exact.csv");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_model_is_judged_beside_simple_rules() {
    let data = tempfile::tempdir().unwrap();
    let path = samples(data.path());
    let args = ["lab", "backtest", "--samples", &path, "--protocol", "memory"];
    let ended = run(data.path(), &[&args[..], &["-o", "json"]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report = ended.json();
    assert_eq!(report["protocol"], "memory");
    let error = |method: &str| {
        let scores = report["scores"].as_array().unwrap();
        let score = scores.iter().find(|score| score["method"] == method).unwrap();
        assert_eq!(score["n"], 24, "{score:#}");
        assert!(score["pinball_ms"]["p95"].is_number() && score["coverage"]["p90"].is_number());
        score["mdape_percent"].as_f64().unwrap()
    };
    assert!(error("model") < error("mean") / 2.0, "{report:#}");

    let few = run(data.path(), &[&args[..], &["--methods", "model,median", "-o", "markdown"]].concat());
    assert_eq!(few.stdout.lines().count(), 4, "{few:?}");
    assert!(few.stdout.starts_with("| method | n | MdAPE |"), "{few:?}");
    let table = run(data.path(), &args);
    assert!(table.stdout.contains("nearest-neighbours") && table.stderr.contains("24 rows"), "{table:?}");
}

#[test]
fn a_folder_gives_one_table_the_same_every_time() {
    let data = tempfile::tempdir().unwrap();
    samples(data.path());
    let args = ["lab", "accuracy", data.path().to_str().unwrap(), "--seed", "5", "-o", "markdown"];
    let (first, second) = (run(data.path(), &args), run(data.path(), &args));
    assert_eq!(first.code, Some(0), "{first:?}");
    assert_eq!(first.stdout, second.stdout);
    for word in
        ["| file | question | n | model |", "exact", "memory, execution-time", "next-run, output-size"]
    {
        assert!(first.stdout.contains(word), "`{word}` is missing: {first:?}");
    }
}

#[test]
fn wrong_questions_and_files_are_code_2_with_a_hint() {
    let data = tempfile::tempdir().unwrap();
    let path = samples(data.path());
    let one = data.path().join("one.csv");
    std::fs::write(&one, "workflow,task,exec_ms\nw,t,5\n").unwrap();
    let bad = data.path().join("bad.csv");
    std::fs::write(&bad, "workflow,task,exec_ms\nw,t,soon\n").unwrap();
    let empty = tempfile::tempdir().unwrap();
    let blank = data.path().join("blank.csv");
    std::fs::write(&blank, "").unwrap();
    let one = one.to_str().unwrap();
    let sizes = ["lab", "backtest", "--samples", one, "--protocol", "memory", "--quantity", "output-size"];
    for (args, word) in [
        (vec!["lab", "backtest", "--samples", &path, "--protocol", "joint"], "joint:30"),
        (vec!["lab", "backtest", "--samples", one, "--protocol", "memory"], "hint:"),
        (sizes.to_vec(), "no output sizes"),
        (vec!["lab", "backtest", "--samples", blank.to_str().unwrap(), "--protocol", "memory"], "is empty"),
        (vec!["lab", "backtest", "--samples", bad.to_str().unwrap(), "--protocol", "memory"], "line 2"),
        (vec!["lab", "accuracy", empty.path().to_str().unwrap()], "no CSV file"),
        (vec!["runs", "-o", "markdown"], "only `foresail lab`"),
    ] {
        let ended = run(data.path(), &args);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(word), "`{word}` is missing: {ended:?}");
        assert!(ended.stdout.is_empty(), "{ended:?}");
    }
}

#[test]
fn a_run_at_size_is_simulated_alike_every_time_and_its_limits_are_named() {
    let data = tempfile::tempdir().unwrap();
    let args = ["lab", "scale", "--workers", "4,20", "--tasks-per-worker", "2", "--task-ms", "500"];
    let json = || run(data.path(), &[&args[..], &["-o", "json"]].concat());
    let (first, second) = (json(), json());
    assert_eq!(first.code, Some(0), "{first:?}");
    assert_eq!(first.stdout, second.stdout);
    let scales = first.json()["scales"].clone();
    assert_eq!((&scales[0]["tasks"], &scales[1]["tasks"]), (&8.into(), &40.into()));
    assert!(scales[0]["breaks_first"].is_null(), "{scales:#}");
    assert!(scales[1]["limits"].as_array().unwrap().iter().all(|limit| limit["ratio"].is_number()));

    let slow = data.path().join("slow.toml");
    let table = include_str!("../../src/lab/scale/metad.toml").replace("request_us = ", "request_us = 300");
    std::fs::write(&slow, table).unwrap();
    let named = [&args[..], &["--service", slow.to_str().unwrap(), "-o", "markdown"]].concat();
    let named = run(data.path(), &named);
    assert!(named.stdout.contains("| processor of metad |"), "{named:?}");
}

#[test]
fn a_run_that_cannot_be_simulated_is_code_2_with_a_hint() {
    let data = tempfile::tempdir().unwrap();
    for (args, word) in [
        (vec!["--workers", "0"], "0"),
        (vec!["--workers", "2", "--runs", "3"], "cannot be divided"),
        (vec!["--workers", "2", "--platform", "moon"], "`moon`"),
        (vec!["--workers", "2", "--workflow", "moon"], "no file `moon`"),
        (vec!["--workers", "2", "--service", "moon"], "`moon`"),
        (vec!["--measure", "--coordination", "redis"], "not measured"),
        (vec![], "--workers"),
    ] {
        let ended = run(data.path(), &[&["lab", "scale"], &args[..]].concat());
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(word) && ended.stdout.is_empty(), "`{word}`: {ended:?}");
    }
}
