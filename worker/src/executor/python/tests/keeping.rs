//! Results that stay in the process of their function: who reads them where, and what ends that.

use std::collections::HashSet;

use super::*;

/// A result of a megabyte that nobody else has, as an array of numpy would be.
const MAKE: &str = "import pickle\ndef f():\n    return pickle.PickleBuffer(bytearray(b'x' * (1 << 20)))\n";
const LOOK: &str = "(len(a), bytes(a[:3]), memoryview(a).readonly)";
const SEEN: &str = "(1048576, b'xxx', True)";
/// How many results a runner keeps.
const COUNT: &str = "import foresail, gc\ndef f():\n    all = [o for o in gc.get_objects() \
                     if type(o).__name__ == 'Keeper']\n    \
                     return foresail.Raw(repr([len(o.kept) for o in all]))\n";

/// A call that may keep so many bytes.
fn keeping(call: Call, keep_bytes_max: u64) -> Call {
    Call { keep_bytes_max, ..call }
}

fn made(executor: &PythonExecutor, source: &str, keep_bytes_max: u64) -> Object {
    let call = Function::new(source, "((), {})").call(json!({}), vec![]);
    executor.execute(&keeping(call, keep_bytes_max)).unwrap().outputs.remove(0)
}

/// What a task says of an input.
fn read(executor: &PythonExecutor, input: Object) -> Result<Ran, TaskError> {
    let mut call = Function::new(&tells("a", LOOK), "((i(0),), {})").call(json!({}), vec!["".into()]);
    call.inputs = vec![Some(input)];
    executor.execute(&call)
}

fn is_kept(object: &Object) -> bool {
    matches!(object, Object::Kept(_))
}

fn kept_in_runner(executor: &PythonExecutor) -> String {
    let call = Function::new(COUNT, "((), {})").call(json!({}), vec![]);
    let told = executor.execute(&call).unwrap().outputs[0].bytes().unwrap();
    String::from_utf8(told.to_vec()).unwrap()
}

#[test]
fn the_next_call_reads_a_kept_result_where_it_lies_and_others_get_a_copy_with_its_hash() {
    let executor = PythonExecutor::new(settings());
    let object = made(&executor, MAKE, 2 << 20);
    assert!(is_kept(&object), "{object:?}");
    assert_eq!(read(&executor, object.clone()).unwrap().outputs, [SEEN]);
    assert_eq!(read(&PythonExecutor::new(settings()), object.clone()).unwrap().outputs, [SEEN]);
    let written = made(&executor, MAKE, 0);
    assert!(!is_kept(&written));
    let Object::Kept(kept) = &object else { unreachable!() };
    let (content, hash) = kept.bring().unwrap();
    assert!(content == written.bytes().unwrap() && hash == blake3::hash(&content));
}

#[test]
fn a_result_is_let_go_when_nobody_refers_to_it() {
    let executor = PythonExecutor::new(settings());
    let objects = [made(&executor, MAKE, 4 << 20), made(&executor, MAKE, 4 << 20)];
    assert_eq!(kept_in_runner(&executor), "[2]");
    let numbers: HashSet<bool> = objects.iter().map(is_kept).collect();
    assert_eq!(numbers, HashSet::from([true]));
    drop(objects);
    assert_eq!(kept_in_runner(&executor), "[0]");
    assert_eq!(executor.idle()[0].link.kept_bytes(), 0);
}

#[test]
fn what_is_too_large_together_or_may_change_is_written() {
    let executor = PythonExecutor::new(settings());
    let all = (1 << 20) + 4096;
    assert!(!is_kept(&made(&executor, MAKE, 1 << 20)));
    let first = made(&executor, MAKE, all);
    assert!(is_kept(&first) && !is_kept(&made(&executor, MAKE, all)));
    let shared = "import pickle\nkept = bytearray(b'x' * (1 << 20))\n\
                  def f():\n    return pickle.PickleBuffer(kept)\n";
    assert!(!is_kept(&made(&executor, shared, u64::MAX)), "the function has it too");
}

#[test]
fn a_result_is_brought_while_its_process_runs_another_call() {
    let executor = PythonExecutor::new(settings());
    let object = made(&executor, MAKE, 2 << 20);
    let wait = "import os, time\ndef f(path):\n    open(path, 'w').close()\n    \
                while os.path.exists(path):\n        time.sleep(0.001)\n";
    let path = tempfile::tempdir().unwrap().keep().join("runs");
    let call = Function::new(wait, &format!("(({:?},), {{}})", path.display().to_string()));
    let call = call.call(json!({}), vec![]);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| executor.execute(&call).map(drop));
        while !path.exists() && !running.is_finished() {
            std::thread::yield_now();
        }
        let content = object.bytes().unwrap();
        assert!(content.len() > 1 << 20 && !running.is_finished());
        std::fs::remove_file(&path).unwrap();
        running.join().unwrap().unwrap();
    });
    std::fs::remove_dir(path.parent().unwrap()).unwrap();
}

#[test]
fn a_result_is_lost_with_its_process_unless_it_was_brought() {
    let executor = PythonExecutor::new(settings());
    let [brought, lost] = [(); 2].map(|()| made(&executor, MAKE, 4 << 20));
    let content = brought.bytes().unwrap();
    let crash = Function::new("import os\ndef f():\n    os.abort()\n", "((), {})");
    executor.execute(&crash.call(json!({}), vec![])).unwrap_err();
    assert_eq!(brought.bytes().unwrap(), content);
    let error = lost.bytes().unwrap_err();
    assert!(error.to_string().contains("has ended"), "{error}");
    let error = read(&executor, lost).unwrap_err();
    assert!(error.kind == FailureKind::InputUnavailable && error.message.contains("has ended"), "{error:?}");
    assert_eq!(read(&executor, brought).unwrap().outputs, [SEEN]);
}

#[test]
fn memory_of_others_does_not_count_for_a_task() {
    let executor = PythonExecutor::new(settings());
    let large = "import pickle\ndef f():\n    return pickle.PickleBuffer(bytearray(b'x' * (300 << 20)))\n";
    let _object = made(&executor, large, 1 << 30);
    let sleep = "import time\ndef f():\n    time.sleep(0.01)\n";
    let call = Function::new(sleep, "((), {})").call(json!({}), vec![]);
    let peaks = [(); 2].map(|()| executor.execute(&call).unwrap().peak_memory_mb);
    assert!(peaks[1] < 200.0, "{peaks:?}");
}
