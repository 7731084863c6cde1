//! What an interrupt, an end of the stack or a cancel leaves behind: a cancelled run and no process.

use std::io::Read;
use std::path::Path;
use std::process::Stdio;

use crate::support::{Running, eventually, foresail, processes, run, signal, stack};

/// A workflow that sleeps; the odd number makes its process easy to find.
fn sleeper(folder: &Path, seconds: &str) -> String {
    let path = folder.join("sleeper.json");
    let text =
        format!(r#"{{"name":"sleeper","tasks":[{{"id":"nap","name":"nap","run":"exec sleep {seconds}"}}]}}"#);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn an_interrupt_cancels_the_run_and_leaves_no_process() {
    let data = tempfile::tempdir().unwrap();
    let file = sleeper(data.path(), "611.25");
    let mut child = Running(
        foresail(data.path(), &["run", &file]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap(),
    );
    eventually("the task runs", || !processes("sleep\u{0}611.25").is_empty());
    signal(child.0.id(), "INT");
    let status = child.0.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    assert_eq!(processes("sleep\u{0}611.25"), Vec::<u32>::new());
    eventually("the workers end", || processes(data.path().to_str().unwrap()).is_empty());

    let runs = run(data.path(), &["runs", "-o", "json"]);
    assert_eq!(runs.json()[0]["status"], "cancelled", "{runs:?}");
}

#[test]
fn a_running_stack_is_found_used_and_ended() {
    let data = tempfile::tempdir().unwrap();
    let (mut up, addresses) = stack(data.path(), &[]);
    let metad = addresses["metad"].as_str().unwrap();

    let used = run(data.path(), &["run", "hello", "-o", "json"]);
    assert_eq!(used.code, Some(0), "{used:?}");
    assert!(used.stderr.contains(metad), "{used:?}");

    let file = sleeper(data.path(), "612.25");
    let mut sleeping = Running(
        foresail(data.path(), &["run", &file]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap(),
    );
    eventually("the task runs", || !processes("sleep\u{0}612.25").is_empty());
    let runs = run(data.path(), &["runs", "-o", "json"]).json();
    let running = runs.as_array().unwrap().iter().find(|run| run["status"] == "running").unwrap();
    let cancel = run(data.path(), &["cancel", running["run"].as_str().unwrap()]);
    assert!(cancel.stderr.contains("cancelled"), "{cancel:?}");
    assert_eq!(sleeping.0.wait().unwrap().code(), Some(1));

    signal(up.0.id(), "TERM");
    assert_eq!(up.0.wait().unwrap().code(), Some(0));
    assert!(!data.path().join("stack.json").exists());
    assert_eq!(processes("sleep\u{0}612.25"), Vec::<u32>::new());
}

#[test]
fn an_interrupt_that_cannot_cancel_says_that_the_run_may_go_on() {
    let data = tempfile::tempdir().unwrap();
    let (mut up, _) = stack(data.path(), &[]);
    let file = sleeper(data.path(), "613.25");
    let mut child = Running(
        foresail(data.path(), &["run", &file]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap(),
    );
    eventually("the task runs", || !processes("sleep\u{0}613.25").is_empty());
    up.0.kill().unwrap();
    up.0.wait().unwrap();
    signal(child.0.id(), "INT");
    assert_eq!(child.0.wait().unwrap().code(), Some(130));
    let mut said = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(
        said.contains("was to be cancelled and was not") && said.contains("foresail cancel r-"),
        "{said}"
    );
    assert!(said.matches("the run goes on unseen").count() <= 1, "{said}");
}

#[test]
fn an_interrupt_of_a_command_without_a_run_speaks_of_none() {
    use std::net::TcpListener;

    // A metad that takes the connection and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    let data = tempfile::tempdir().unwrap();
    let args = ["export", "samples", "w", "--file", "out.ndjson", "--metad", &address];
    let mut command = foresail(data.path(), &args);
    let command = command.current_dir(data.path()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = Running(command.spawn().unwrap());
    let (mut request, _) = silent.accept().unwrap();
    request.read_exact(&mut [0]).unwrap();
    signal(child.0.id(), "INT");
    assert_eq!(child.0.wait().unwrap().code(), Some(130));
    let mut said = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("interrupted") && said.contains("no file was written"), "{said}");
    assert!(!said.contains("cancelled") && !data.path().join("out.ndjson").exists(), "{said}");
}
