//! What goes wrong, each with its kind and with words that say what happened and what to do.

use std::fs;

use super::*;

fn fails(source: &str) -> TaskError {
    run(source, "((), {})", json!({}), vec![]).unwrap_err()
}

/// Fails, and leaves the executor fit for the next task.
fn fails_and_goes_on(executor: &PythonExecutor, source: &str, extra: Value) -> TaskError {
    let error = executor.execute(&Function::new(source, "((), {})").call(extra, vec![])).unwrap_err();
    let fine = Function::new(&tells("", "'fine'"), "((), {})").call(json!({}), vec![]);
    assert_eq!(executor.execute(&fine).unwrap().outputs, ["'fine'"], "after {error:?}");
    error
}

fn check(error: &TaskError, kind: FailureKind, words: &[&str]) {
    assert_eq!(error.kind, kind, "{}", error.message);
    for word in words {
        assert!(error.message.contains(word), "`{word}` in: {}", error.message);
    }
}

fn wait_until_gone(pid: &str) {
    let ends = Instant::now() + Duration::from_secs(10);
    let is_alive = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    while is_alive() {
        assert!(Instant::now() < ends, "process {pid} still runs");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_exception_comes_with_its_traceback_itself_and_what_was_printed() {
    let executor = PythonExecutor::new(settings());
    let source = "def g(x):\n    return {}[x]\ndef f():\n    print('so far so good')\n    return g('user')\n";
    let error = fails_and_goes_on(&executor, source, json!({}));
    check(&error, FailureKind::TaskError, &["KeyError: 'user'", "in g", "Traceback", "so far so good"]);
    assert!(!error.message.contains("_runner.py"), "{}", error.message);
    let pickled = BASE64.decode(error.exception.unwrap()).unwrap();
    assert!(pickled.windows(8).any(|bytes| bytes == b"KeyError"));
    assert_eq!(executor.idle_pids().len(), 1);
}

#[test]
fn an_exception_that_does_not_pickle_or_is_too_large_comes_with_what_of_it_can_be_sent() {
    for (source, part) in [
        ("import threading\ndef f():\n    raise ValueError(threading.Lock())\n", "_thread.lock"),
        ("def f():\n    raise ValueError('x' * 100_000)\n", " [...] "),
    ] {
        let error = fails(source);
        check(&error, FailureKind::TaskError, &["ValueError"]);
        assert!(error.message.len() < 16 << 10, "{} bytes", error.message.len());
        let pickled = BASE64.decode(error.exception.unwrap()).unwrap();
        assert!(pickled.len() < 16 << 10, "{} bytes", pickled.len());
        for word in ["ValueError", part] {
            assert!(pickled.windows(word.len()).any(|bytes| bytes == word.as_bytes()), "`{word}`");
        }
    }
}

#[test]
fn a_crash_names_its_signal_and_the_line_and_the_next_task_gets_a_new_runner() {
    let executor = PythonExecutor::new(settings());
    for source in [
        "import os\ndef f():\n    print('last words')\n    os.kill(os.getpid(), 11)\n",
        "import ctypes\ndef f():\n    print('last words')\n    ctypes.string_at(0)\n",
    ] {
        let error = fails_and_goes_on(&executor, source, json!({}));
        let words = ["signal 11", "segmentation fault", "last words", "in f"];
        check(&error, FailureKind::TaskCrash, &words);
    }
}

#[test]
fn the_end_of_the_process_is_told_with_its_code_which_may_forbid_another_attempt() {
    let executor = PythonExecutor::new(settings());
    let exit = "import os\ndef f():\n    os._exit(3)\n";
    let refusing = json!({"retry": {"not_on_exit": [3]}});
    check(
        &fails_and_goes_on(&executor, exit, json!({})),
        FailureKind::TaskCrash,
        &["exit code 3", "`os._exit`"],
    );
    check(
        &fails_and_goes_on(&executor, exit, refusing.clone()),
        FailureKind::TaskRefused,
        &["`3` (`not_on_exit`)"],
    );
    let exit = "import sys\ndef f():\n    sys.exit(3)\n";
    check(
        &fails_and_goes_on(&executor, exit, json!({})),
        FailureKind::TaskCrash,
        &["`sys.exit` with code 3"],
    );
    check(&fails_and_goes_on(&executor, exit, refusing), FailureKind::TaskRefused, &["`3` (`not_on_exit`)"]);
    let said = fails("import sys\ndef f():\n    sys.exit('no input')\n");
    check(&said, FailureKind::TaskCrash, &["code 1", "`no input`"]);
}

#[test]
fn too_little_memory_asks_for_a_larger_size() {
    let source = r#"
        import resource
        def f():
            resource.setrlimit(resource.RLIMIT_DATA, (256 << 20, 256 << 20))
            return len(bytearray(1 << 30))
    "#;
    let executor = PythonExecutor::new(settings());
    let error = fails_and_goes_on(&executor, source, json!({}));
    check(&error, FailureKind::OutOfMemory, &["MemoryError"]);
}

#[test]
fn a_runner_that_the_kernel_ended_for_memory_asks_for_a_larger_size() {
    let dir = tempfile::tempdir().unwrap();
    let counter = dir.path().join("memory.events");
    fs::write(&counter, "oom_kill 4\n").unwrap();
    let executor = PythonExecutor::new(PythonSettings { oom_counter: Some(counter.clone()), ..settings() });
    // What the kernel would do.
    let source = format!(
        "import os\ndef f():\n    open({:?}, 'w').write('oom_kill 5\\n')\n    os.kill(os.getpid(), 9)\n",
        counter.display()
    );
    check(
        &fails_and_goes_on(&executor, &source, json!({})),
        FailureKind::OutOfMemory,
        &["more memory than its worker has"],
    );
    let killed =
        fails_and_goes_on(&executor, "import os\ndef f():\n    os.kill(os.getpid(), 9)\n", json!({}));
    check(&killed, FailureKind::TaskCrash, &["signal 9", "killed"]);
}

#[test]
fn an_endless_loop_is_ended_at_its_time_with_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let (executor, mark) = (PythonExecutor::new(settings()), dir.path().join("pids"));
    let source = format!(
        r#"
        import os, subprocess
        def f():
            child = subprocess.Popen(["sleep", "600"], start_new_session=True)
            open({:?}, "w").write(f"{{os.getpid()}} {{child.pid}}")
            print("looping")
            while True:
                pass
        "#,
        mark.display()
    );
    let error = fails_and_goes_on(&executor, &source, json!({"timeout_ms": 600}));
    check(&error, FailureKind::Timeout, &["600 ms", "looping"]);
    let pids = fs::read_to_string(mark).unwrap();
    pids.split(' ').for_each(wait_until_gone);
}

#[test]
fn a_runner_that_is_ended_while_it_stands_idle_fails_no_task() {
    let executor = PythonExecutor::new(settings());
    let fine = Function::new(&tells("", "'fine'"), "((), {})").call(json!({}), vec![]);
    executor.execute(&fine).unwrap();
    for pid in executor.idle_pids() {
        // SAFETY: a plain system call on a process that this test started.
        unsafe { libc::kill(pid as i32, libc::SIGKILL) };
        wait_until_gone(&pid.to_string());
    }
    assert_eq!(executor.execute(&fine).unwrap().outputs, ["'fine'"]);
}

#[test]
fn a_given_up_call_ends_its_runner() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("pid");
    let source = format!(
        r#"
        import os, time
        def f():
            open({0:?} + ".new", "w").write(str(os.getpid()))
            os.rename({0:?} + ".new", {0:?})
            time.sleep(600)
        "#,
        mark.display()
    );
    let call = Function::new(&source, "((), {})").call(json!({}), vec![]);
    let cancel = call.cancel.clone();
    let attempt = std::thread::spawn(move || PythonExecutor::new(settings()).execute(&call).unwrap_err());
    let ends = Instant::now() + Duration::from_secs(30);
    while !mark.exists() {
        assert!(Instant::now() < ends, "the function never began");
        std::thread::sleep(Duration::from_millis(5));
    }
    cancel.set();
    assert_eq!(attempt.join().unwrap().kind, FailureKind::Cancelled);
    wait_until_gone(&fs::read_to_string(mark).unwrap());
}

#[test]
fn a_result_that_cannot_be_stored_names_the_part_to_blame() {
    let executor = PythonExecutor::new(settings());
    let lock = "import threading\ndef f():\n    return {'ok': 1, 'bad': [threading.Lock()]}\n";
    let error = fails_and_goes_on(&executor, lock, json!({}));
    check(&error, FailureKind::TaskRefused, &["['bad'][0]", "`_thread.lock`", "return data"]);
}

#[test]
fn a_result_that_is_too_large_is_told_with_both_sizes() {
    let executor = PythonExecutor::new(PythonSettings { result_bytes_max: 1000, ..settings() });
    let source = "def f():\n    return b'x' * 5000\n";
    check(
        &fails_and_goes_on(&executor, source, json!({})),
        FailureKind::TaskRefused,
        &["at most 1000", "return less"],
    );
}

#[test]
fn a_missing_module_is_named_with_the_interpreter_and_how_to_install_it() {
    let words = ["`no_such_module`", "-m pip install no_such_module", "--python PATH", "python"];
    let imported = fails("import no_such_module.part\ndef f():\n    pass\n");
    check(&imported, FailureKind::TaskRefused, &words);
    let used = fails("def f():\n    import no_such_module\n");
    check(&used, FailureKind::TaskRefused, &words);
    assert!(used.exception.is_some());
}

#[test]
fn a_missing_cloudpickle_is_named_where_code_or_a_result_needs_it() {
    let executor = PythonExecutor::new(settings());
    let result = "import sys\nsys.modules['cloudpickle'] = None\ndef f():\n    return [lambda: 1]\n";
    let error = fails_and_goes_on(&executor, result, json!({}));
    check(&error, FailureKind::TaskRefused, &["function", "cloudpickle", "not installed"]);
    let code = fails_and_goes_on(&executor, "import cloudpickle\ndef f():\n    pass\n", json!({}));
    check(&code, FailureKind::TaskRefused, &["`cloudpickle`", "-m pip install cloudpickle"]);
}

#[test]
fn a_package_of_another_version_is_told_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("foresail")).unwrap();
    fs::write(dir.path().join("foresail/_wire.py"), "WIRE_VERSION = 999\n").unwrap();
    let program = dir.path().join("python");
    let (place, python) = (dir.path().display(), interpreter());
    let script = format!("#!/bin/sh\nPYTHONPATH={place} exec {} \"$@\"\n", python.display());
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let executor = PythonExecutor::new(PythonSettings { program, ..settings() });
    let call = Function::new("def f():\n    pass\n", "((), {})").call(json!({}), vec![]);
    let words = ["version 999", "hint: install the package", &format!("{place}/foresail")];
    check(&executor.execute(&call).unwrap_err(), FailureKind::UnknownFunction, &words);
}

#[test]
fn code_that_is_not_what_the_task_names_is_refused() {
    let mut function = Function::new("def f():\n    pass\n", "((), {})");
    function.code = BASE64.encode(b"something else");
    let error = PythonExecutor::new(settings()).execute(&function.call(json!({}), vec![])).unwrap_err();
    check(&error, FailureKind::UnknownFunction, &["SHA-256", &function.hash]);
    function.code = "%".to_owned();
    let error = PythonExecutor::new(settings()).execute(&function.call(json!({}), vec![])).unwrap_err();
    check(&error, FailureKind::UnknownFunction, &["not base64"]);
}

#[test]
fn bytecode_of_another_version_of_python_is_refused_before_it_is_run() {
    // The name of the module that makes functions of bytecode is what tells it from a reference.
    let function = Function::new("# cloudpickle.cloudpickle\ndef f():\n    pass\n", "((), {})");
    let call = |version: &str| {
        let python = json!({"code": function.hash, "args": function.args, "python": version});
        PythonExecutor::new(settings()).execute(&function.call_with(python, json!({}), vec![]))
    };
    check(&call("3.4").unwrap_err(), FailureKind::UnknownFunction, &["Python 3.4", "--python PATH"]);
    let output = Command::new(interpreter()).arg("--version").output().unwrap();
    let version = String::from_utf8(output.stdout).unwrap().trim().replace("Python ", "");
    assert!(call(&version).is_ok());
}

#[test]
fn an_input_or_arguments_that_cannot_be_unpickled_are_told() {
    let executor = PythonExecutor::new(settings());
    let function = Function::new(&tells("a", "a"), "((i(0),), {})");
    let broken = Bytes::from_static(b"FSPY1\0\0\0\0\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0nonsense");
    let error = executor.execute(&function.call(json!({}), vec![broken])).unwrap_err();
    check(&error, FailureKind::InputUnavailable, &["input 0", "cannot be unpickled"]);
    let python = json!({"code": function.hash, "args": BASE64.encode("nonsense")});
    let error = executor.execute(&function.call_with(python, json!({}), vec![])).unwrap_err();
    check(&error, FailureKind::InputUnavailable, &["the arguments cannot be unpickled"]);
}

#[test]
fn the_wrong_number_of_outputs_is_told() {
    for (result, words) in [("(1, 2, 3)", "3 values"), ("7", "a `int`"), ("{'a': 1}", "no output `b`")] {
        let error =
            run(&format!("def f():\n    return {result}\n"), "((), {})", outputs(&["a", "b"]), vec![]);
        check(&error.unwrap_err(), FailureKind::TaskRefused, &[words]);
    }
}

#[test]
fn an_interpreter_that_is_missing_ends_at_once_or_is_none_is_told() {
    let start = |program: &str| {
        let executor = PythonExecutor::new(PythonSettings { program: program.into(), ..settings() });
        executor
            .execute(&Function::new("def f():\n    pass\n", "((), {})").call(json!({}), vec![]))
            .unwrap_err()
    };
    let missing = start("/no/such/python");
    check(&missing, FailureKind::UnknownFunction, &["`/no/such/python`", "--python PATH", "FORESAIL_PYTHON"]);
    check(&start("false"), FailureKind::TaskCrash, &["`false`", "ended before it was ready", "Python 3.9"]);
    let dir = tempfile::tempdir().unwrap();
    let garbage = dir.path().join("garbage");
    fs::write(&garbage, "#!/bin/sh\necho broken installation >&2\nprintf 'this is no frame at all' >&0\n")
        .unwrap();
    fs::set_permissions(&garbage, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let words = ["no Foresail runner", "this is no frame", "broken installation"];
    check(&start(&garbage.display().to_string()), FailureKind::TaskCrash, &words);
}

#[test]
fn a_function_that_writes_to_the_socket_of_its_runner_is_told() {
    let source = r#"
        import os, stat
        def f():
            for n in range(3, 64):
                try:
                    if stat.S_ISSOCK(os.fstat(n).st_mode):
                        os.write(n, b"garbage garbage garbage")
                except OSError:
                    pass
    "#;
    let executor = PythonExecutor::new(settings());
    check(
        &fails_and_goes_on(&executor, source, json!({})),
        FailureKind::TaskCrash,
        &["cannot be understood"],
    );
}

#[test]
fn a_child_that_a_function_forks_and_lets_go_answers_nothing() {
    let source = r#"
        import os, foresail
        def f():
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
            return foresail.Raw("parent" if pid else "child")
    "#;
    assert_eq!(run(source, "((), {})", json!({}), vec![]).unwrap().outputs, ["parent"]);
}
