//! Python functions on real workers: what they hand on, how their start is measured, that nothing outlives
//! its worker.

use std::path::Path;

use foresail_schemas::invocation::{Invocation, Purpose};
use foresail_schemas::metric::Record;
use foresail_schemas::run::{Change, Commit, Failure, FailureKind, RunOptions};
use serde_json::json;

use crate::pickled::{interpreter, sources};
use crate::support::*;

/// A host whose workers have the interpreter of these tests.
fn python_bench() -> Bench {
    Bench::new(|settings| settings.python = Some(interpreter()))
}

fn commits(bench: &Bench) -> Vec<Commit> {
    let held = bench.store.held();
    let of = |change: &Change| match change {
        Change::TaskCommitted { commit, .. } => Some(commit.clone()),
        _ => None,
    };
    held.runs.values().flat_map(|run| run.events.iter().filter_map(|event| of(&event.change))).collect()
}

/// How long the starts of workers took.
fn starts_ms(bench: &Bench) -> Vec<f64> {
    let start = |record: &Record| match record {
        Record::Startup(startup) => Some(startup.time_ms),
        _ => None,
    };
    bench.store.records().iter().filter_map(start).collect()
}

fn fails_once(bench: &Bench, source: &str, memory_mb: u32) -> Failure {
    let workflow = sources(json!([{"id": "t", "name": "t", "run": source}]));
    let options = RunOptions { attempts_max: 1, ..RunOptions::default() };
    let run = bench.submit("r", &workflow, &flexible(&workflow, config(memory_mb, 1.0)), options);
    bench.wait_for_end(&run);
    bench.store.summary(&run).failure.unwrap()
}

#[test]
fn large_values_go_from_worker_to_worker_in_place_and_what_was_printed_is_in_the_commit() {
    let bench = python_bench();
    let make = r#"
        import pickle
        def f():
            print("made")
            return pickle.PickleBuffer(bytearray(b"x") * 2_000_000)
    "#;
    let read = "import foresail\ndef f(a):\n    return foresail.Raw(f'{len(a)} {bytes(a[-3:])}')\n";
    let workflow = sources(json!([
        {"id": "make", "name": "make", "run": make},
        {"id": "read", "name": "read", "run": read, "inputs": [{"task": "make"}]},
    ]));
    let size = config(512, 1.0);
    bench.complete("r", &workflow, &plan(&workflow, &[(Some("a"), size), (Some("b"), size)]));
    let commits = commits(&bench);
    assert_eq!(commits[0].printed.as_deref(), Some("made\n"));
    assert_eq!(commits[1].printed, None);
    let expect = json!({"inline": "MjAwMDAwMCBiJ3h4eCc="});
    assert_eq!(serde_json::to_value(&commits[1].outputs[0].location).unwrap(), expect);
    let usage = bench.store.summary(&"r".parse().unwrap()).usage;
    let shared: u64 = usage.iter().map(|used| used.usage.shared_bytes).sum();
    assert_eq!(shared, commits[0].outputs[0].bytes, "the reader brought nothing");
}

#[test]
fn the_start_of_the_interpreter_and_imports_belong_to_the_start_of_the_worker() {
    let bench = python_bench();
    let slow_import = "import time\ntime.sleep(0.5)\ndef f():\n    pass\n";
    let workflow = sources(json!([{"id": "t", "name": "t", "run": slow_import}]));
    let plan = plan(&workflow, &[(Some("a"), config(512, 1.0))]);
    for run in ["cold", "warm"] {
        bench.complete(run, &workflow, &plan);
    }
    let (records, starts) = (bench.store.records(), starts_ms(&bench));
    assert!(starts.len() == 2 && starts[0] >= 500.0 && starts[1] < 500.0, "{starts:?}");
    let exec_ms = |record: &Record| match record {
        Record::Task(task) => Some(task.exec_ms),
        _ => None,
    };
    assert!(records.iter().filter_map(exec_ms).all(|ms| ms < 500.0), "{records:?}");
}

#[test]
fn a_worker_that_is_only_warmed_loads_what_the_run_will_call() {
    let bench = python_bench();
    let slow_import = "import time\ntime.sleep(0.5)\ndef f():\n    pass\n";
    let workflow = sources(json!([{"id": "t", "name": "t", "run": slow_import}]));
    let (run, size) = ("r".parse().unwrap(), config(512, 1.0));
    bench.store.create(&run, &workflow, &flexible(&workflow, size), RunOptions::default());
    for (purpose, tasks) in [(Purpose::PreWarm, vec![]), (Purpose::Work, vec![0])] {
        let work = Invocation::new(run.clone(), None, size, tasks, bench.store.url.clone());
        bench.invoke(Invocation { purpose, ..work }).unwrap();
        bench.wait_until_idle();
    }
    bench.wait_for_end(&run);
    let starts = starts_ms(&bench);
    assert!(starts.len() == 2 && starts[0] >= 500.0 && starts[1] < 500.0, "{starts:?}");
}

#[test]
fn an_exception_reaches_the_store_as_text_and_as_itself() {
    let failure = fails_once(&python_bench(), "def f():\n    raise KeyError('user')\n", 512);
    assert_eq!(failure.kind, FailureKind::TaskError, "{failure:?}");
    assert!(failure.message.contains("KeyError: 'user'") && failure.exception.is_some(), "{failure:?}");
}

#[test]
fn a_function_that_takes_too_much_memory_is_told_and_its_worker_goes_on() {
    let bench = python_bench();
    if !bench.host.holds_cpu_share() {
        eprintln!("skipped: control groups are not writable here, memory is limited per process only");
        return;
    }
    let failure = fails_once(&bench, "def f():\n    return len(bytearray(b'x') * (400 << 20))\n", 128);
    assert_eq!(failure.kind, FailureKind::OutOfMemory, "{failure:?}");
    assert!(failure.message.contains("memory_mb_min"), "{failure:?}");
    assert_eq!(bench.host.pids().len(), 1);
}

/// The id that a function wrote.
fn pid_in(file: &Path) -> u32 {
    std::fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

#[test]
fn no_interpreter_outlives_its_worker_whatever_it_does() {
    let dir = tempfile::tempdir().unwrap();
    for (what, body) in [("idle", "pass"), ("busy", "time.sleep(600)"), ("deaf", "time.sleep(600)")] {
        let bench = python_bench();
        let mark = dir.path().join(what);
        let deaf = "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))";
        let source = format!(
            r#"
            import os, signal, time
            def f():
                {0}
                open({1:?} + ".new", "w").write(str(os.getpid()))
                os.rename({1:?} + ".new", {1:?})
                {body}
            "#,
            if what == "deaf" { deaf } else { "pass" },
            mark.display()
        );
        let workflow = sources(json!([{"id": "t", "name": "t", "run": source}]));
        let plan = plan(&workflow, &[(Some("a"), config(512, 1.0))]);
        let run =
            bench.submit("r", &workflow, &plan, RunOptions { attempts_max: 1, ..RunOptions::default() });
        wait_until("the function to begin", || mark.exists());
        if what == "idle" {
            bench.wait_for_end(&run);
        }
        let runner = pid_in(&mark);
        assert!(is_alive(runner), "{what}");
        for pid in bench.host.pids() {
            // SAFETY: a plain system call on a process that this test started.
            unsafe { libc::kill(pid as i32, libc::SIGKILL) };
        }
        wait_until_gone(runner);
    }
}
