//! Programs that plan well, badly, too long, too much or not at all.

use foresail_schemas::plan::Objective;
use foresail_schemas::{Platform, Sla};

use super::*;
use crate::lab::shapes::Shape;

fn problem() -> Problem {
    let (workflow, platform) = (Shape::Tree(8).workflow(), Platform::built_in().remove(1));
    let table = planner::blind_table(&workflow, &platform, Sla::MEDIAN);
    crate::problem(&workflow, &platform, table, Objective::Fastest, 0)
}

fn run(line: &str) -> Result<Plan, String> {
    let program = Program { line, limit: Duration::from_secs(30), bytes_max: 1 << 20 };
    program.plan(&problem(), &Stop::never()).map_err(|e| e.to_string())
}

/// A program that writes this text whatever it reads.
fn writes(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("answer.json");
    std::fs::write(&path, text).unwrap();
    let line = format!("cat '{}'", path.display());
    (folder, line)
}

#[test]
fn a_plan_that_comes_back_is_timed_here() {
    let problem = problem();
    let mut made = plan_until("simple", &problem, &Stop::never()).unwrap();
    let promised = made.predicted;
    made.predicted.makespan_ms = 1.0;
    made.tasks.iter_mut().for_each(|t| (t.start_ms, t.end_ms, t.exec_ms) = (0.0, 0.0, 0.0));
    let (_folder, line) = writes(&serde_json::to_string(&made).unwrap());
    let found = run(&line).unwrap();
    assert_eq!(found.predicted, promised, "lies about time change nothing");
    assert_eq!(found.planner.as_str(), "exec");
    planner::validate(&problem, &found).unwrap();
}

#[test]
fn optimisations_of_a_program_are_in_the_plan() {
    let problem = problem();
    let mut made = plan_until("uniform", &problem, &Stop::never()).unwrap();
    let last = made.tasks.len() - 1;
    made.tasks[last].worker = made.tasks[0].worker.clone();
    made.tasks[last].config = made.tasks[0].config;
    made.tasks[last].optimizations = vec![Optimization::PreLoad];
    let (config, serves) = (made.tasks[last].config, made.tasks[last].task.clone());
    made.prewarms = vec![PreWarming { config, after: None, delay_ms: 5.0, serves }];
    let (_folder, line) = writes(&serde_json::to_string(&made).unwrap());
    let found = run(&line).unwrap();
    assert_eq!(found.prewarms, made.prewarms);
    let expected = [Optimization::PreLoad, Optimization::PreWarm];
    assert_eq!(found.tasks[last].optimizations, expected);
    made.prewarms[0].serves = "nobody".parse().unwrap();
    let (_folder, line) = writes(&serde_json::to_string(&made).unwrap());
    let error = run(&line).unwrap_err();
    assert!(error.contains("`nobody`"), "{error}");
}

#[test]
fn the_problem_is_on_stdin_and_little_is_needed_in_the_answer() {
    let script = "python3 -c 'import json, sys\nproblem = json.load(sys.stdin)\n\
        size = problem[\"predictions\"][\"configs\"][-1]\n\
        tasks = [{\"task\": t[\"id\"], \"config\": size} for t in problem[\"workflow\"][\"tasks\"]]\n\
        json.dump({\"tasks\": tasks}, sys.stdout)'";
    let found = run(script).unwrap();
    assert_eq!(found.tasks.len(), 7);
    assert_eq!(found.tasks[0].config.memory_mb, 10_240, "{:?}", found.tasks[0]);
}

#[test]
fn what_is_no_plan_is_told_with_what_the_program_said() {
    let task = r#"{"task":"add-0","config":{"memory_mb":1769}}"#;
    for (line, words) in [
        ("sh -c 'echo the reason >&2; exit 7'", vec!["exit status: 7", "the reason"]),
        ("true", vec!["no plan", "said nothing"]),
        ("echo hello", vec!["no plan"]),
        ("no-such-program-at-all", vec!["127", "no-such-program-at-all"]),
        ("", vec!["hint: write exec:"]),
        (&format!("echo '{{\"tasks\":[{task}]}}'"), vec!["`add-1` is not placed"]),
        (&format!("echo '{{\"tasks\":[{task},{task}]}}'"), vec!["`add-0` is placed twice"]),
        ("head -c 2000000 /dev/zero", vec!["more than 1048576 bytes"]),
    ] {
        let error = run(line).expect_err(line);
        for word in words {
            assert!(error.contains(word), "`{word}` is missing for `{line}`: {error}");
        }
    }
}

#[test]
fn a_program_that_does_not_end_is_ended_with_what_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("pid");
    let line = format!("sh -c 'sleep 613 & echo $! > {}; echo slow >&2; wait'", note.display());
    let program = Program { line: &line, limit: Duration::from_millis(700), bytes_max: 1 << 20 };
    let error = program.plan(&problem(), &Stop::never()).unwrap_err().to_string();
    assert!(error.contains("0.7 s") && error.contains("slow"), "{error}");
    let pid = std::fs::read_to_string(&note).unwrap();
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    let is_gone = || state().is_empty() || state().contains(") Z ");
    let until = Instant::now() + LIMIT;
    while !is_gone() {
        assert!(Instant::now() < until, "process {pid} is left: {}", state());
        std::thread::sleep(LOOK_PAUSE);
    }
}

#[test]
fn a_stop_ends_the_program() {
    let stop = Stop::never();
    let asked = stop.clone();
    let asking = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        asked.ask();
    });
    let program = Program { line: "sleep 614", limit: LIMIT, bytes_max: 1 << 20 };
    assert!(matches!(program.plan(&problem(), &stop), Err(ProgramFailure::Stopped)));
    asking.join().unwrap();
}
