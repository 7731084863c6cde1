//! The bridge: what it answers, and that nothing is left of a session however it ends.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::support::{Running, eventually, foresail, processes, signal, stack};

/// A session and its pipes.
struct Session {
    process: Running,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    told: Vec<Value>,
    folder: PathBuf,
}

impl Session {
    fn start(data: &Path) -> Self {
        let mut command = foresail(data, &["bridge"]);
        // A session that the test kills leaves its folder behind: in that of the test.
        command.env("TMPDIR", data);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = Running(command.spawn().unwrap());
        let stdin = process.0.stdin.take();
        let stdout = BufReader::new(process.0.stdout.take().unwrap());
        let mut session = Self { process, stdin, stdout, told: Vec::new(), folder: PathBuf::new() };
        let about = session.ask("hello", &json!({ "protocol": 1 })).unwrap();
        session.folder = PathBuf::from(about["folder"].as_str().unwrap());
        session
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"))
    }

    /// The answer to a request; what is told meanwhile is kept.
    fn ask(&mut self, method: &str, params: &Value) -> Result<Value, Value> {
        let request = json!({ "jsonrpc": "2.0", "id": method, "method": method, "params": params });
        writeln!(self.stdin.as_mut().unwrap(), "{request}").unwrap();
        loop {
            let line = self.line();
            if line["id"] != method {
                self.told.push(line);
                continue;
            }
            return match line.get("error") {
                Some(error) => Err(error.clone()),
                None => Ok(line["result"].clone()),
            };
        }
    }

    /// Waits for a notification.
    fn hear(&mut self, method: &str) -> Value {
        if let Some(found) = self.told.iter().find(|line| line["method"] == method) {
            return found["params"].clone();
        }
        loop {
            let line = self.line();
            assert_ne!(line["method"], "lost", "{line}");
            if line["method"] == method {
                return line["params"].clone();
            }
        }
    }
}

/// Nothing is left of a session on `data`: no process, no files of its own.
fn nothing_is_left(data: &Path, folder: &Path) {
    eventually("every process ends", || processes(data.to_str().unwrap()).is_empty());
    assert!(!folder.exists(), "{} is left", folder.display());
}

fn sleeper(seconds: &str) -> Value {
    json!({ "name": "sleeper",
        "tasks": [{ "id": "nap", "name": "nap", "run": format!("exec sleep {seconds}") }] })
}

#[test]
fn a_session_plans_runs_tells_and_hands_out_results() {
    let data = tempfile::tempdir().unwrap();
    let mut session = Session::start(data.path());
    let workflow = json!({ "name": "lines", "tasks": [
        { "id": "list", "name": "list", "run": "printf 'a\\nb\\n'" },
        { "id": "count", "name": "count", "run": "wc -l", "inputs": [{ "task": "list" }] },
        { "id": "long", "name": "long", "run": "seq 1 100000", "inputs": [{ "task": "list" }] }] });
    let planned = session.ask("plan", &json!({ "workflow": workflow })).unwrap();
    assert_eq!(planned["plan"]["tasks"].as_array().unwrap().len(), 3);
    let explained = session.ask("explain", &json!({ "plan": planned["id"], "tasks": ["count"] })).unwrap();
    assert!(explained["text"].as_str().unwrap().starts_with("count: "), "{explained}");
    let page = session.ask("page", &json!({ "plan": planned["id"] })).unwrap();
    assert!(std::fs::read_to_string(page["file"].as_str().unwrap()).unwrap().contains("<svg"));

    let run = session.ask("submit", &json!({ "plan": planned["id"] })).unwrap()["run"].clone();
    session.ask("follow", &json!({ "run": run, "every_ms": 50.0 })).unwrap();
    assert_eq!(session.hear("ended")["status"], "completed");
    assert_eq!(session.hear("settled")["actual"]["invocations"].as_u64().unwrap().min(1), 1);
    let progress = session.ask("progress", &json!({ "run": run })).unwrap();
    assert_eq!((&progress["done"], &progress["left_ms"]), (&json!(3), &json!(0.0)));

    let wanted = json!({ "run": run, "outputs": [["count", "out"], ["long", "out"]] });
    let found = session.ask("result", &wanted).unwrap();
    let packed = std::fs::read(found["file"].as_str().unwrap()).unwrap();
    let (at, bytes) = (&found["places"][0]["at"], &found["places"][0]["bytes"]);
    let (at, bytes) = (at.as_u64().unwrap() as usize, bytes.as_u64().unwrap() as usize);
    assert_eq!(std::str::from_utf8(&packed[at..at + bytes]).unwrap().trim(), "2");
    let long = std::fs::read(found["places"][1]["path"].as_str().unwrap()).unwrap();
    assert!(long.ends_with(b"\n100000\n"));
}

#[test]
fn what_is_wrong_is_told_with_a_kind_and_a_hint() {
    let data = tempfile::tempdir().unwrap();
    let mut session = Session::start(data.path());
    let kind = |fault: Result<Value, Value>| fault.unwrap_err()["data"]["kind"].clone();
    assert_eq!(kind(session.ask("dance", &json!({}))), "no_method");
    assert_eq!(kind(session.ask("hello", &json!({ "protocol": 99 }))), "wrong_request");
    assert_eq!(kind(session.ask("submit", &json!({ "plan": "plan-99" }))), "wrong_request");
    assert_eq!(kind(session.ask("progress", &json!({ "run": "r-none" }))), "run_not_found");
    let cycle = json!({ "name": "w", "tasks": [{ "id": "a", "name": "a", "run": "true", "after": ["a"] }] });
    assert_eq!(kind(session.ask("plan", &json!({ "workflow": cycle }))), "wrong_request");
    let large = json!({ "name": "w",
        "tasks": [{ "id": "a", "name": "a", "run": "true", "memory_mb_min": 900_000 }] });
    assert_eq!(kind(session.ask("plan", &json!({ "workflow": large }))), "no_plan");
}

#[test]
fn nothing_is_left_when_stdin_is_closed_or_the_process_is_told_to_end() {
    for end in ["close", "TERM", "INT"] {
        let data = tempfile::tempdir().unwrap();
        let mut session = Session::start(data.path());
        let seconds = format!("613.{}", end.len());
        session.ask("submit", &json!({ "workflow": sleeper(&seconds) })).unwrap();
        eventually("the task runs", || !processes(&format!("sleep\u{0}{seconds}")).is_empty());
        match end {
            "close" => drop(session.stdin.take()),
            name => signal(session.process.0.id(), name),
        }
        assert_eq!(session.process.0.wait().unwrap().code(), Some(0), "{end}");
        assert_eq!(processes(&format!("sleep\u{0}{seconds}")), Vec::<u32>::new(), "{end}");
        nothing_is_left(data.path(), &session.folder);
    }
}

#[test]
fn a_session_ends_with_its_parent_although_the_pipe_stays_open() {
    let data = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new("sh");
    // The shell stays the parent, and the sleeping process goes on holding the pipe.
    let line = r#"sleep 614.5 | "$0" bridge --data "$1"; true"#;
    command.arg("-c").arg(line).arg(env!("CARGO_BIN_EXE_foresail")).arg(data.path());
    command
        .env("TMPDIR", data.path())
        .env_remove("FORESAIL_METAD")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut shell = Running(command.spawn().unwrap());
    let bridges =
        || processes("bridge\u{0}--data").into_iter().filter(|pid| is_on(*pid, data.path())).count();
    eventually("the session begins", || bridges() > 0 && data.path().join("workers").exists());
    shell.0.kill().unwrap();
    shell.0.wait().unwrap();
    eventually("the session ends", || bridges() == 0);
    processes("sleep\u{0}614.5").into_iter().for_each(|pid| signal(pid, "KILL"));
}

fn is_on(pid: u32, data: &Path) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).into_owned();
    line.contains(data.to_str().unwrap()) && !line.starts_with("sh\u{0}")
}

#[test]
fn two_sessions_on_one_directory_work_beside_each_other_and_one_finds_a_stack_that_runs() {
    let data = tempfile::tempdir().unwrap();
    let (mut first, mut second) = (Session::start(data.path()), Session::start(data.path()));
    let about = |session: &mut Session| session.ask("hello", &json!({ "protocol": 1 })).unwrap();
    let (one, two) = (about(&mut first), about(&mut second));
    assert_ne!(one["metad"], two["metad"]);
    assert_eq!(one["data"].as_str().unwrap(), data.path().to_str().unwrap());
    assert!(two["data"].as_str().unwrap().starts_with(data.path().to_str().unwrap()));

    let shared = tempfile::tempdir().unwrap();
    let (_up, addresses) = stack(shared.path(), &[]);
    let mut third = Session::start(shared.path());
    let found = about(&mut third);
    assert_eq!((&found["metad"], &found["data"]), (&addresses["metad"], &Value::Null));
}
