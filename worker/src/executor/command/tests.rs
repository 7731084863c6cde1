//! Tests of the command executor: real `sh` processes in temporary directories.

use super::*;
use crate::executor::testing::call;
use serde_json::{Value, json};

fn task(line: &str, extra: Value) -> Value {
    let mut task = json!({"id": "t-1", "name": "cmd", "run": line});
    task.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    task
}

fn run_line(line: &str, extra: Value, inputs: Vec<Bytes>) -> Result<Ran, TaskError> {
    CommandExecutor::default().execute(&call(task(line, extra), inputs))
}

#[test]
fn standard_output_is_the_only_output_unless_a_file_was_written() {
    assert_eq!(run_line("echo hello", json!({}), vec![]).unwrap().outputs[0], "hello\n");
    let line = "echo noise; printf file > $FORESAIL_OUTPUTS/out";
    assert_eq!(run_line(line, json!({}), vec![]).unwrap().outputs[0], "file");
}

#[test]
fn inputs_are_files_and_the_first_is_standard_input() {
    let line = "cat; cat $FORESAIL_INPUTS/1";
    let ran = run_line(line, json!({}), vec!["first ".into(), "second".into()]).unwrap();
    assert_eq!(ran.outputs[0], "first second");
}

#[test]
fn declared_outputs_come_in_their_order_and_may_be_paths() {
    let extra = json!({"outputs": [{"name": "b"}, {"name": "/sub/a.txt"}]});
    let line = "printf B > $FORESAIL_OUTPUTS/b; printf A > $FORESAIL_OUTPUTS/sub/a.txt";
    assert_eq!(run_line(line, extra.clone(), vec![]).unwrap().outputs, ["B", "A"]);
    let error = run_line("printf B > $FORESAIL_OUTPUTS/b", extra, vec![]).unwrap_err();
    assert_eq!(error.kind, FailureKind::OutputNotStored);
    assert!(error.message.contains("`/sub/a.txt`"), "{error:?}");
}

#[test]
fn an_output_name_cannot_leave_its_directory() {
    for name in ["../x", "a/../../x", "/"] {
        let error = run_line("true", json!({"outputs": [{"name": name}]}), vec![]).unwrap_err();
        assert!(error.message.contains("cannot be a file name"), "{error:?}");
    }
}

#[test]
fn exit_codes_and_signals_are_crashes_with_the_end_of_stderr() {
    let error = run_line("echo why >&2; exit 7", json!({}), vec![]).unwrap_err();
    assert_eq!(error.kind, FailureKind::TaskCrash);
    assert!(error.message.contains("exit code 7") && error.message.contains("why"), "{error:?}");
    let error = run_line("kill -SEGV $$", json!({}), vec![]).unwrap_err();
    assert!(error.message.contains("signal 11"), "{error:?}");
}

#[test]
fn a_timeout_kills_the_whole_group() {
    let mark = tempfile::tempdir().unwrap();
    let file = mark.path().join("pid");
    let line = format!("sleep 600 & echo $! > {}; wait", file.display());
    let error = run_line(&line, json!({"timeout_ms": 150}), vec![]).unwrap_err();
    assert_eq!(error.kind, FailureKind::Timeout);
    assert!(error.message.contains("150 ms"), "{error:?}");
    let sleeper: i32 = fs::read_to_string(file).unwrap().trim().parse().unwrap();
    wait_until_gone(sleeper);
}

#[test]
fn what_a_command_leaves_in_the_background_is_killed() {
    let ran = run_line("sleep 600 & echo $!", json!({}), vec![]).unwrap();
    wait_until_gone(std::str::from_utf8(&ran.outputs[0].bytes().unwrap()).unwrap().trim().parse().unwrap());
}

#[test]
fn a_given_up_command_ends() {
    let call = call(task("sleep 600", json!({})), vec![]);
    call.cancel.set();
    assert_eq!(CommandExecutor::default().execute(&call).unwrap_err().kind, FailureKind::Cancelled);
}

#[test]
fn the_environment_names_run_task_and_attempt() {
    let line = "echo $FORESAIL_RUN $FORESAIL_TASK $FORESAIL_ATTEMPT $FORESAIL_IDEMPOTENCY_KEY";
    assert_eq!(run_line(line, json!({}), vec![]).unwrap().outputs[0], "r t-1 1 r/t-1\n");
}

#[test]
fn the_directory_of_an_attempt_is_gone_soon_afterwards() {
    let scratch = tempfile::tempdir().unwrap();
    let executor = CommandExecutor { scratch: Some(scratch.path().to_owned()), oom_counter: None };
    let ran = executor.execute(&call(task("pwd", json!({})), vec![])).unwrap();
    assert!(ran.outputs[0].bytes().unwrap().starts_with(scratch.path().as_os_str().as_encoded_bytes()));
    let ends = Instant::now() + Duration::from_secs(10);
    while fs::read_dir(scratch.path()).unwrap().count() > 0 {
        assert!(Instant::now() < ends, "the directory is still there");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn the_oom_count_is_read_from_both_forms() {
    let dir = tempfile::tempdir().unwrap();
    for (text, count) in [
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", 3),
        ("low 0\nhigh 0\noom 2\noom_kill 1\noom_group_kill 0\n", 1),
        ("", 0),
    ] {
        let file = dir.path().join("f");
        fs::write(&file, text).unwrap();
        assert_eq!(oom_kills(&file), count);
    }
}

fn wait_until_gone(pid: i32) {
    let ends = Instant::now() + Duration::from_secs(10);
    let is_alive = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    while is_alive() {
        assert!(Instant::now() < ends, "process {pid} still runs");
        std::thread::sleep(Duration::from_millis(5));
    }
}
