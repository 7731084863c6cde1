//! A stack that wants a token, and what the environment must not change: proxies, logs into a file.

use std::os::unix::fs::PermissionsExt;

use crate::support::{finish, foresail, run, stack};

const TOKEN: &str = "open-sesame";

#[test]
fn a_stack_with_a_token_serves_those_who_have_it_past_any_proxy() {
    let data = tempfile::tempdir().unwrap();
    let (_up, addresses) = stack(data.path(), &["--token", TOKEN]);
    assert!(!addresses.to_string().contains(TOKEN), "{addresses}");
    let (metad, host) = (addresses["metad"].as_str().unwrap(), addresses["host"].as_str().unwrap());
    let mode = std::fs::metadata(data.path().join("stack.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let found = run(data.path(), &["run", "hello", "-o", "json"]);
    assert_eq!(found.code, Some(0), "{found:?}");
    assert!(found.stderr.contains(metad), "{found:?}");

    let elsewhere = tempfile::tempdir().unwrap();
    let without = run(elsewhere.path(), &["runs", "--metad", metad]);
    assert_eq!(without.code, Some(2), "{without:?}");
    assert!(without.stderr.contains("unauthorized"), "{without:?}");
    let mut with = foresail(elsewhere.path(), &["run", "hello", "--metad", metad, "--host", host]);
    let with = finish(with.env("FORESAIL_METAD_TOKEN", TOKEN).env("http_proxy", "http://127.0.0.1:9"));
    assert_eq!(with.code, Some(0), "{with:?}");
}

#[test]
fn what_a_stack_keeps_is_for_its_owner_alone() {
    let parent = tempfile::tempdir().unwrap();
    let data = parent.path().join("new");
    let found = run(&data, &["run", "hello", "-o", "json"]);
    assert_eq!(found.code, Some(0), "{found:?}");
    for place in ["", "metad", "workers/objects"] {
        let mode = std::fs::metadata(data.join(place)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "`{place}` can be read by others");
    }
}

#[test]
fn tasks_are_not_told_the_secrets_of_the_environment() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("env.json");
    let line = "test -z \\\"$FORESAIL_METAD_TOKEN$FORESAIL_METAD_BATCH_LOG$FORESAIL_WORKER_SETTINGS\\\"";
    let task = format!(r#"{{"id": "a", "name": "a", "run": "{line}", "attempts_max": 1}}"#);
    std::fs::write(&file, format!(r#"{{"name": "env", "tasks": [{task}]}}"#)).unwrap();
    let mut with = foresail(data.path(), &["run", file.to_str().unwrap()]);
    let address = "nats://user:password@127.0.0.1:9?stream=s";
    let ended = finish(with.env("FORESAIL_METAD_TOKEN", TOKEN).env("FORESAIL_METAD_BATCH_LOG", address));
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn the_help_does_not_show_the_token() {
    let data = tempfile::tempdir().unwrap();
    let help = finish(foresail(data.path(), &["runs", "--help"]).env("FORESAIL_METAD_TOKEN", TOKEN));
    assert!(help.stdout.contains("FORESAIL_METAD_TOKEN"), "{help:?}");
    assert!(!help.stdout.contains(TOKEN), "{help:?}");
}

#[test]
fn logs_have_no_colour_codes_where_stderr_is_no_terminal() {
    let data = tempfile::tempdir().unwrap();
    let gone = r#"{"metad":"http://127.0.0.1:9","host":"http://127.0.0.1:9","pid":1}"#;
    std::fs::write(data.path().join("stack.json"), gone).unwrap();
    let ended = run(data.path(), &["runs", "-v"]);
    assert!(ended.stderr.contains("has ended"), "{ended:?}");
    assert!(!ended.stderr.contains('\u{1b}'), "{ended:?}");
}
