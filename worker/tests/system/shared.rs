//! Objects between real worker processes of one machine: read in place, within a quota, never in memory
//! twice, checked before they are used, and gone when nobody needs them.

use std::path::{Path, PathBuf};

use foresail_schemas::invocation::Invocation;
use foresail_schemas::run::{Change, FailureKind, Location, RunOptions, RunStatus, WorkerUsage};
use foresail_schemas::{RunId, WorkerId, Workflow};
use foresail_worker::host::local::{LocalSettings, ObjectPlace};
use serde_json::json;

use crate::support::*;

const LARGE_BYTES: u64 = 2 << 20;
const OBJECT_PLACES: [ObjectPlace; 2] = [ObjectPlace::Files, ObjectPlace::Metad];

/// `make` writes a large object, `copy` reads it and writes one as large, `count` counts that.
fn chain(bytes: u64) -> Workflow {
    let copy = json!({"id": "copy", "name": "copy", "run": {"function": "foresail.concat"},
        "inputs": [{"task": "make"}]});
    let count = json!({"id": "count", "name": "count", "run": "wc -c", "inputs": [{"task": "copy"}]});
    workflow(json!([burn("make", json!({"output_bytes": bytes})), copy, count]))
}

fn on_two_workers(workflow: &Workflow, memory_mb: u32) -> foresail_schemas::Plan {
    let size = config(memory_mb, 1.0);
    let names = (0..workflow.tasks().len()).map(|at| (Some(["a", "b"][at % 2]), size));
    plan(workflow, &names.collect::<Vec<_>>())
}

fn usage(bench: &Bench, run: &RunId) -> WorkerUsage {
    let mut sum = WorkerUsage::default();
    bench.store.summary(run).usage.iter().for_each(|of_config| sum.add(&of_config.usage));
    sum
}

/// All files below a directory, with their sizes.
fn files(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(about) if about.is_dir() => found.extend(files(&entry.path())),
            Ok(about) => found.push((entry.path(), about.len())),
            Err(_) => {}
        }
    }
    found
}

fn objects(bench: &Bench) -> Vec<(PathBuf, u64)> {
    let mut found = files(&bench.data.path().join("objects"));
    found.retain(|(path, _)| !path.ends_with(".settled"));
    found
}

fn key(bench: &Bench, run: &RunId, task: u32) -> Option<String> {
    let held = bench.store.held();
    match &held.runs[run].ledger.commit(task)?.outputs[0].location {
        Location::Stored(key) => Some(key.clone()),
        Location::Inline(_) | Location::Unstored(_) => None,
    }
}

#[test]
fn workers_of_one_machine_read_each_others_objects_in_place() {
    for place in OBJECT_PLACES {
        let bench = Bench::new(|settings| settings.objects = place.clone());
        let workflow = chain(LARGE_BYTES);
        let run = bench.complete("r", &workflow, &on_two_workers(&workflow, 256));
        let usage = usage(&bench, &run);
        assert_eq!((usage.gets, usage.download_bytes), (0, 0), "{place:?}");
        assert_eq!((usage.shared_bytes, usage.upload_bytes), (2 * LARGE_BYTES, 2 * LARGE_BYTES), "{place:?}");
    }
}

#[test]
fn without_room_in_shared_memory_objects_come_from_the_store() {
    for shared_bytes_max in [0, LARGE_BYTES - 1] {
        let adjust = |settings: &mut LocalSettings| {
            settings.objects = ObjectPlace::Metad;
            settings.shared_bytes_max = shared_bytes_max;
        };
        let bench = Bench::new(adjust);
        let workflow = chain(LARGE_BYTES);
        let run = bench.complete("r", &workflow, &on_two_workers(&workflow, 256));
        let usage = usage(&bench, &run);
        assert_eq!((usage.gets, usage.download_bytes, usage.shared_bytes), (2, 2 * LARGE_BYTES, 0));
        assert_eq!(files(&bench.data.path().join("shared")).len(), 0);
    }
}

/// The most that a process has had in memory since its last task began, in bytes.
fn peak_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// The peaks of the worker that makes an object and of the one that reads it, the object counted out.
fn peaks_beside(bytes: u64, place: ObjectPlace, shared_bytes_max: u64) -> Vec<i64> {
    let bench = Bench::new(|settings| {
        settings.objects = place.clone();
        settings.shared_bytes_max = shared_bytes_max;
    });
    // The function of the reader does not exist, which is noticed after its inputs are there and before the
    // measurement of memory begins anew for it.
    let read =
        json!({"id": "read", "name": "read", "run": {"function": "none"}, "inputs": [{"task": "make"}]});
    let workflow = workflow(json!([burn("make", json!({"output_bytes": bytes})), read]));
    let run = bench.submit("r", &workflow, &on_two_workers(&workflow, 1024), RunOptions::default());
    bench.wait_for_end(&run);
    let failure = bench.store.summary(&run).failure.unwrap();
    assert_eq!(failure.kind, FailureKind::UnknownFunction, "{failure:?}");
    let pids = bench.host.pids();
    assert_eq!(pids.len(), 2);
    pids.into_iter().map(|pid| peak_bytes(pid) as i64 - bytes as i64).collect()
}

#[test]
fn a_large_object_is_never_in_the_memory_of_a_worker_twice() {
    const BYTES: u64 = 64 << 20;
    let [files, blobs] = OBJECT_PLACES;
    for (place, shared_bytes_max) in [(files, 0), (blobs.clone(), 2 * BYTES), (blobs, 0)] {
        let beside = peaks_beside(BYTES, place.clone(), shared_bytes_max);
        assert!(beside.iter().all(|bytes| *bytes > 0), "the object was in memory once: {beside:?}");
        let most = BYTES as i64 / 2;
        let so = format!("{place:?}, {shared_bytes_max} shared");
        assert!(beside.iter().all(|bytes| *bytes < most), "{so}: {beside:?} bytes beside the object");
    }
}

#[test]
fn a_damaged_object_is_an_unavailable_input_that_is_tried_again() {
    let bench = Bench::new(|_| {});
    let wait = burn("wait", json!({"sleep_ms": 1500}));
    let read = json!({"id": "read", "name": "read", "run": "wc -c",
        "inputs": [{"task": "make"}, {"task": "wait"}]});
    let workflow = workflow(json!([burn("make", json!({"output_bytes": LARGE_BYTES})), wait, read]));
    let size = config(256, 1.0);
    let plan = plan(&workflow, &[(Some("a"), size), (Some("b"), size), (Some("b"), size)]);
    let options = RunOptions { attempts_max: 1_000_000, ..RunOptions::default() };
    let run = bench.submit("r", &workflow, &plan, options);
    wait_until("the object", || key(&bench, &run, 0).is_some());
    let file = bench.data.path().join("objects").join(key(&bench, &run, 0).unwrap());
    let object = std::fs::read(&file).unwrap();
    let mut damaged = object.clone();
    damaged[LARGE_BYTES as usize / 2] ^= 1;
    std::fs::write(&file, damaged).unwrap();
    let failed = || {
        let held = bench.store.held();
        held.runs[&run].events.iter().find_map(|event| match &event.change {
            Change::TaskFailed { failure, .. } => Some(failure.clone()),
            _ => None,
        })
    };
    wait_until("the damage to be noticed", || failed().is_some());
    let failure = failed().unwrap();
    assert_eq!(failure.kind, FailureKind::InputUnavailable, "{failure:?}");
    assert!(failure.message.contains("`make/out`") && failure.message.contains("hash"), "{failure:?}");
    std::fs::write(&file, object).unwrap();
    bench.wait_for_end(&run);
    assert_eq!(bench.store.status(&run), RunStatus::Completed);
}

fn often(settings: &mut LocalSettings) {
    settings.sweep_ms = 20.0;
}

#[test]
fn a_completed_run_keeps_its_results_alone_unless_it_wants_more() {
    let workflow = workflow(json!([burn("make", json!({"output_bytes": LARGE_BYTES})),
        {"id": "copy", "name": "copy", "run": {"function": "foresail.concat"},
            "inputs": [{"task": "make"}]}]));
    for place in OBJECT_PLACES {
        let bench = Bench::new(|settings| {
            settings.objects = place.clone();
            often(settings);
        });
        let plan = on_two_workers(&workflow, 256);
        let kept = bench.submit(
            "kept",
            &workflow,
            &plan,
            RunOptions { keep_intermediate: true, ..RunOptions::default() },
        );
        bench.wait_for_end(&kept);
        let run = bench.complete("r", &workflow, &plan);
        let [kept_make, kept_copy] = [0, 1].map(|task| key(&bench, &kept, task).unwrap());
        let [make, copy] = [0, 1].map(|task| key(&bench, &run, task).unwrap());
        let has = |key: &str| match &place {
            ObjectPlace::Files => bench.data.path().join("objects").join(key).exists(),
            _ => {
                let run = key.split('/').next().unwrap();
                bench.store.held().blobs.contains_key(&format!("{run}/{key}"))
            }
        };
        wait_until("the intermediate object to be deleted", || !has(&make));
        wait_until("shared memory to be empty", || {
            files(&bench.data.path().join("shared")).iter().all(|(path, _)| path.ends_with(".lock"))
        });
        // Another run goes through while nothing else is deleted.
        bench.complete("another", &workflow, &plan);
        assert!(has(&copy) && has(&kept_make) && has(&kept_copy), "{place:?}");
    }
}

#[test]
fn a_failed_run_keeps_what_was_committed_and_nothing_half_written() {
    let bench = Bench::new(often);
    let fail = json!({"id": "fail", "name": "fail", "run": "exit 3", "inputs": [{"task": "make"}]});
    let workflow = workflow(json!([burn("make", json!({"output_bytes": LARGE_BYTES})), fail]));
    let options = RunOptions { attempts_max: 1, ..RunOptions::default() };
    let run = bench.submit("r", &workflow, &on_two_workers(&workflow, 256), options);
    wait_until("the object", || key(&bench, &run, 0).is_some());
    let file = bench.data.path().join("objects").join(key(&bench, &run, 0).unwrap());
    let torn = file.with_file_name(".new-x");
    // What a worker leaves that is killed while it writes.
    std::fs::write(&torn, "half").unwrap();
    bench.wait_for_end(&run);
    assert_eq!(bench.store.status(&run), RunStatus::Failed);
    wait_until("the half-written file to be deleted", || !torn.exists());
    wait_until("the run to be settled", || bench.data.path().join("objects/r/.settled").exists());
    assert_eq!(objects(&bench), [(file, LARGE_BYTES)]);
}

#[test]
fn of_ended_runs_the_newest_stay_and_a_stopping_host_deletes_before_it_ends() {
    let mut bench = Bench::new(|settings| settings.object_runs_kept_max = 2);
    let workflow = workflow(json!([burn("make", json!({"output_bytes": 100_000}))]));
    let plan = on_two_workers(&workflow, 256);
    for run in ["r-1", "r-2", "r-3"] {
        bench.complete(run, &workflow, &plan);
    }
    bench.host.stop();
    let left: Vec<_> = objects(&bench).into_iter().map(|(path, _)| path).collect();
    let of = |run: &str| left.iter().filter(|path| path.to_string_lossy().contains(run)).count();
    assert_eq!((of("r-1"), of("r-2"), of("r-3")), (0, 1, 1), "{left:?}");
}

#[test]
fn a_killed_worker_leaves_nothing_and_its_objects_serve_on() {
    for place in OBJECT_PLACES {
        let bench = Bench::new(|settings| {
            settings.objects = place.clone();
            often(settings);
        });
        let slow =
            json!({"id": "slow", "name": "slow", "run": "sleep 1; wc -c", "inputs": [{"task": "make"}]});
        let workflow = workflow(json!([burn("make", json!({"output_bytes": LARGE_BYTES})), slow]));
        let options = RunOptions { attempts_max: 5, ..RunOptions::default() };
        let run = bench.submit("r", &workflow, &on_two_workers(&workflow, 256), options);
        wait_until("the object", || key(&bench, &run, 0).is_some());
        // Both: who made the object, and who reads it or is about to.
        let killed = bench.host.pids();
        for pid in &killed {
            // SAFETY: a plain system call on a worker of this test.
            unsafe { libc::kill(*pid as libc::pid_t, libc::SIGKILL) };
        }
        killed.iter().for_each(|pid| wait_until_gone(*pid));
        // What the watchdog of a client does: a worker that comes before the dead one is known to be dead
        // leaves.
        wait_until("the run to end", || {
            let (worker, url) = (Some(WorkerId::new("b").unwrap()), bench.store.url.clone());
            bench.invoke(Invocation::new(run.clone(), worker, config(256, 1.0), vec![1], url)).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(500));
            bench.store.status(&run) != RunStatus::Running
        });
        bench.wait_for_end(&run);
        assert_eq!(bench.store.status(&run), RunStatus::Completed, "{place:?}");
        wait_until("the objects to be deleted", || objects(&bench).is_empty());
        wait_until("shared memory to be empty", || {
            files(&bench.data.path().join("shared")).iter().all(|(path, _)| path.ends_with(".lock"))
        });
        let scratch = std::fs::read_dir(bench.data.path().join("scratch")).unwrap().count();
        assert!(scratch <= bench.host.pids().len(), "{scratch} directories of processes");
    }
}
