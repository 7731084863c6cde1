//! Objects of results that are lost while their run goes on.

use std::path::{Path, PathBuf};

use foresail_schemas::run::{Change, RunOptions, RunStatus};
use serde_json::json;

use crate::support::*;

/// `first`, `second` of it, `wait`, which lasts until it is told to go, and `count`, which reads `second`
/// then. Each notes that it ran.
fn lose(what: impl Fn(&Path)) -> (Bench, Vec<Change>, String) {
    let bench = Bench::new(|settings| {
        settings.guard_ms = 100.0;
        // What a process has in memory is not lost with the file.
        settings.cache_bytes_max = 0;
    });
    let (ran, go) = (bench.data.path().join("ran"), bench.data.path().join("go"));
    let note = |task: &str| format!("echo {task} >> {}; ", ran.display());
    let first = format!("{}head -c 20000 /dev/zero", note("first"));
    let second = format!("{}cat", note("second"));
    let wait = format!("{}while ! test -e {}; do sleep 0.02; done", note("wait"), go.display());
    let count = format!("{}wc -c", note("count"));
    let workflow = workflow(json!([
        {"id": "first", "name": "first", "run": first},
        {"id": "second", "name": "second", "run": second, "inputs": [{"task": "first"}]},
        {"id": "wait", "name": "wait", "run": wait, "after": ["second"]},
        {"id": "count", "name": "count", "run": count, "inputs": [{"task": "second"}], "after": ["wait"],
            "attempts_max": 1},
    ]));
    let size = config(256, 1.0);
    let on = |worker| (Some(worker), size);
    let plan = plan(&workflow, &[on("w1"), on("w1"), on("w2"), on("w3")]);
    let options = RunOptions { watch_ms: 100.0, ..RunOptions::default() };
    let run = bench.submit("r", &workflow, &plan, options);
    let text = || std::fs::read_to_string(&ran).unwrap_or_default();
    wait_until("the wait", || text().contains("wait"));
    what(&bench.data.path().join("objects"));
    std::fs::write(&go, "").unwrap();
    wait_until("the run to end", || bench.store.status(&run) != RunStatus::Running);
    assert_eq!(bench.store.status(&run), RunStatus::Completed, "{:?}", bench.store.summary(&run).failure);
    let changes = bench.store.held().runs[&run].events.iter().map(|event| event.change.clone()).collect();
    let text = text();
    (bench, changes, text)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn taken_back(changes: &[Change]) -> Vec<Vec<u32>> {
    let tasks = changes.iter().filter_map(|change| match change {
        Change::TasksInvalidated { tasks, .. } => Some(tasks.clone()),
        _ => None,
    });
    tasks.collect()
}

#[test]
fn an_object_that_was_deleted_is_made_again_and_nothing_else() {
    let of_second = |path: &PathBuf| path.to_string_lossy().contains("/second==");
    let (_bench, changes, ran) = lose(|objects| {
        let found: Vec<PathBuf> = files(objects).into_iter().filter(of_second).collect();
        assert_eq!(found.len(), 1);
        std::fs::remove_file(&found[0]).unwrap();
    });
    assert_eq!(taken_back(&changes), [[1]]);
    assert_eq!(ran, "first\nsecond\nwait\nsecond\ncount\n");
}

#[test]
fn what_a_lost_object_was_made_of_is_made_again_where_it_is_lost_too() {
    let (_bench, changes, ran) =
        lose(|objects| files(objects).iter().for_each(|file| std::fs::remove_file(file).unwrap()));
    assert_eq!(taken_back(&changes), [[1], [0]]);
    assert_eq!(ran, "first\nsecond\nwait\nfirst\nsecond\ncount\n");
}

#[test]
fn an_object_with_another_content_is_lost() {
    let (_bench, changes, _) = lose(|objects| {
        for file in files(objects).iter().filter(|path| path.to_string_lossy().contains("/second==")) {
            std::fs::write(file, [1; 20_000]).unwrap();
        }
    });
    assert_eq!(taken_back(&changes), [[1]]);
}
