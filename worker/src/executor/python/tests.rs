//! Tests of the Python executor: real interpreters, functions pickled without cloudpickle.

mod failures;
mod keeping;

use std::path::PathBuf;
use std::process::Command;

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::data::kept::Object;
use crate::data::mapped;
use crate::executor::testing::call;

/// Pickles a function written as source (the one named `f`) and its arguments, in which `i(0)` is an input.
const PICKLE: &str = r#"
import base64, hashlib, importlib.util, pickle, sys, textwrap
spec = importlib.util.spec_from_file_location("foresail_wire", sys.argv[1])
wire = importlib.util.module_from_spec(spec)
spec.loader.exec_module(wire)
class Source:
    def __reduce__(self):
        source = textwrap.dedent(sys.argv[2])
        text = f"(lambda names: (exec({source!r}, names), names['f'])[1])({{'__name__': 'task'}})"
        return eval, (text,)
class Input:
    def __init__(self, *pid): self.pid = pid
def i(at): return Input(wire.INPUT, at)
def gathered(*at): return Input(wire.GATHERED, list(at))
def chunks(*at): return Input(wire.CHUNKS, list(at))
code = pickle.dumps(Source(), 5)
args, kwargs = eval(sys.argv[3])
args = wire.dump_args(args, kwargs, lambda value: value.pid if isinstance(value, Input) else None)
print(hashlib.sha256(code).hexdigest())
print(base64.b64encode(code).decode())
print(base64.b64encode(args).decode())
"#;

/// The interpreter of these tests: that of [`PYTHON_VARIABLE`], of a virtual environment here, or `python3`.
fn interpreter() -> PathBuf {
    let venv = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin/python");
    match std::env::var_os(PYTHON_VARIABLE) {
        None if venv.exists() => venv,
        _ => PythonSettings::default().program,
    }
}

fn settings() -> PythonSettings {
    PythonSettings { program: interpreter(), ..PythonSettings::default() }
}

/// A task that calls the function `f` of `source`.
struct Function {
    hash: String,
    code: String,
    args: String,
}

impl Function {
    fn new(source: &str, args: &str) -> Self {
        let wire = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../client/python/foresail/_wire.py");
        let mut command = Command::new(interpreter());
        let output = command.args(["-c", PICKLE]).arg(wire).args([source, args]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let [hash, code, args] = text.lines().map(str::to_owned).collect::<Vec<_>>().try_into().unwrap();
        Self { hash, code, args }
    }

    fn call(&self, extra: Value, inputs: Vec<Bytes>) -> Call {
        let python = json!({"code": self.hash, "args": self.args});
        self.call_with(python, extra, inputs)
    }

    fn call_with(&self, python: Value, extra: Value, inputs: Vec<Bytes>) -> Call {
        let uris: Vec<_> = inputs.iter().map(|_| json!({"uri": "x"})).collect();
        let mut task = json!({"id": "t", "name": "f", "run": {"python": python}, "inputs": uris});
        task.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let workflow = json!({"name": "w", "tasks": [task], "code": {&self.hash: self.code}});
        Call {
            workflow: std::sync::Arc::new(serde_json::from_value(workflow).unwrap()),
            ..call(json!({"id": "t", "name": "f", "run": "x"}), inputs)
        }
    }
}

/// Runs `f` of `source` in an executor of its own.
fn run(source: &str, args: &str, extra: Value, inputs: Vec<Bytes>) -> Result<Ran, TaskError> {
    PythonExecutor::new(settings()).execute(&Function::new(source, args).call(extra, inputs))
}

/// A function whose result is stored as the text of an expression.
fn tells(parameters: &str, expression: &str) -> String {
    format!("import foresail\ndef f({parameters}):\n    return foresail.Raw(repr({expression}))\n")
}

fn contents_of(ran: &Ran) -> Vec<Bytes> {
    ran.outputs.iter().map(|output| output.bytes().unwrap()).collect()
}

fn outputs(names: &[&str]) -> Value {
    let outputs: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
    json!({"outputs": outputs})
}

#[test]
fn arguments_and_keywords_arrive_and_the_result_comes_back() {
    let source = tells("a, b, *, c", "(a, b, c)");
    let ran = run(&source, "((1, [2, {'three': 4.5}]), {'c': 'x'})", json!({}), vec![]).unwrap();
    assert_eq!(ran.outputs, ["(1, [2, {'three': 4.5}], 'x')"]);
    assert!(ran.init_ms > 0.0 && ran.printed.is_none(), "{ran:?}");
}

#[test]
fn inputs_stand_where_their_numbers_stand_and_in_order_without_arguments() {
    let inputs = || vec![Bytes::from("zero"), Bytes::from("one")];
    let ran = run(&tells("a, b", "(a, b)"), "((i(1), [i(0), {'x': i(1)}]), {})", json!({}), inputs());
    assert_eq!(ran.unwrap().outputs, ["(b'one', [b'zero', {'x': b'one'}])"]);
    let function = Function::new(&tells("*a", "a"), "((), {})");
    let values = json!({"inputs": [{"value": {"k": [1, null]}}, {"uri": "x"}]});
    let inputs = vec![Bytes::from("{\"k\":[1,null]}"), Bytes::from("one")];
    let call = function.call_with(json!({"code": function.hash}), values, inputs);
    let ran = PythonExecutor::new(settings()).execute(&call).unwrap();
    assert_eq!(ran.outputs, ["({'k': [1, None]}, b'one')"]);
}

#[test]
fn an_input_of_a_skipped_task_is_none_and_is_left_out_where_inputs_are_gathered() {
    let executor = PythonExecutor::new(settings());
    let source = "def f():\n    return [[1, 3], [2], [9]]\n";
    let make = Function::new(source, "((), {})").call(outputs(&["a", "b", "c"]), vec![]);
    let parts = contents_of(&executor.execute(&make).unwrap());
    let args = "((i(2), gathered(0, 1, 2), chunks(0, 1, 2)), {})";
    let mut read = Function::new(&tells("a, b, c", "(a, b, c)"), args).call(json!({}), parts);
    read.inputs[2] = None;
    assert_eq!(executor.execute(&read).unwrap().outputs, ["(None, [[1, 3], [2]], [1, 2, 3])"]);
}

#[test]
fn values_go_from_task_to_task_in_the_same_runner() {
    let executor = PythonExecutor::new(settings());
    let make = Function::new("def f(n):\n    return {'list': list(range(n))}\n", "((3,), {})");
    let made = executor.execute(&make.call(json!({}), vec![])).unwrap();
    let pids = executor.idle_pids();
    let read = Function::new(&tells("value, more", "(value, more)"), "((i(0), gathered(0, 0)), {})");
    let ran = executor.execute(&read.call(json!({}), contents_of(&made))).unwrap();
    let value = "{'list': [0, 1, 2]}";
    assert_eq!(ran.outputs, [format!("({value}, [{value}, {value}])")]);
    assert_eq!((executor.idle_pids(), pids.len()), (pids, 1), "one runner did both");
    assert!(made.init_ms > ran.init_ms, "{made:?} {ran:?}");
}

#[test]
fn large_values_are_handed_on_without_a_copy_here() {
    let executor = PythonExecutor::new(settings());
    let make = Function::new(
        "import pickle\ndef f():\n    return pickle.PickleBuffer(bytearray(b'x' * (1 << 20)))\n",
        "((), {})",
    );
    let made = executor.execute(&make.call(json!({}), vec![])).unwrap();
    let [made] = contents_of(&made).try_into().unwrap();
    assert!(mapped::file_of(&made).is_some());
    let look = "(len(a), bytes(a[:3]), memoryview(a).readonly)";
    let read = Function::new(&tells("a", look), "((i(0),), {})");
    // As it is, and out of plain memory.
    for input in [made.clone(), Bytes::copy_from_slice(&made)] {
        let ran = executor.execute(&read.call(json!({}), vec![input])).unwrap();
        assert_eq!(ran.outputs, ["(1048576, b'xxx', True)"]);
    }
}

#[test]
fn large_outputs_are_files_where_they_will_be_stored_and_take_their_names_without_a_copy() {
    let (executor, dir) = (PythonExecutor::new(settings()), tempfile::tempdir().unwrap());
    let source = r#"
        import foresail
        def f():
            sizes = [300_000, 70_000, 10, 400_000, 90_000]
            return [foresail.Raw(bytes([n]) * size) for n, size in enumerate(sizes)]
    "#;
    let named = outputs(&["a", "b", "c", "d", "e"]);
    let mut call = Function::new(source, "((), {})").call(named, vec![]);
    for outputs_dir in [Some(dir.path().to_owned()), Some("/no/such/directory".into()), None] {
        call.outputs_dir = outputs_dir;
        let made = contents_of(&executor.execute(&call).unwrap());
        let sizes = [300_000, 70_000, 10, 400_000, 90_000];
        let whole =
            |(n, object): (usize, &Bytes)| object.len() == sizes[n] && object.iter().all(|b| *b == n as u8);
        assert!(made.iter().enumerate().all(whole));
        let is_here = call.outputs_dir.as_deref() == Some(dir.path());
        let link = |at: usize| mapped::link(&made[at], &dir.path().join(at.to_string()), |_| Ok(())).unwrap();
        assert_eq!((link(0), link(1), link(3)), (is_here, false, is_here));
    }
    assert_eq!(std::fs::read(dir.path().join("3")).unwrap(), [3; 400_000]);
}

#[test]
fn many_large_inputs_arrive_in_their_order() {
    let executor = PythonExecutor::new(settings());
    let make = Function::new(
        "import foresail\ndef f(b):\n    return foresail.Raw(bytes([b]) * (300 << 10))\n",
        "((i(0),), {})",
    );
    let of = |byte: u8| {
        let python = json!({"code": make.hash});
        let call =
            make.call_with(python, json!({"inputs": [{"value": byte}]}), vec![byte.to_string().into()]);
        contents_of(&executor.execute(&call).unwrap()).remove(0)
    };
    let made: Vec<Bytes> = (0..3).map(of).collect();
    let inputs: Vec<Bytes> = (0..300)
        .map(|at| match at % 4 {
            3 => Bytes::from(vec![3; 70_000]),
            kind => made[kind].clone(),
        })
        .collect();
    let uris: Vec<_> = inputs.iter().map(|_| json!({"uri": "x"})).collect();
    let read = Function::new(
        &tells("*a", "(len(a), all(x[0] == x[-1] == n % 4 for n, x in enumerate(a)))"),
        "((), {})",
    );
    let call = read.call_with(json!({"code": read.hash}), json!({"inputs": uris}), inputs);
    assert_eq!(executor.execute(&call).unwrap().outputs, ["(300, True)"]);
}

#[test]
fn several_outputs_come_by_order_or_by_name() {
    for result in ["(r('b'), r('a'))", "[r('b'), r('a')]", "{'a': r('a'), 'b': r('b'), 'more': 1}"] {
        let source = format!("import foresail\nr = foresail.Raw\ndef f():\n    return {result}\n");
        assert_eq!(run(&source, "((), {})", outputs(&["b", "a"]), vec![]).unwrap().outputs, ["b", "a"]);
    }
}

#[test]
fn a_task_that_decides_writes_its_decision_and_the_parts_of_a_fan_out() {
    let fan = |result: &str, names: &[&str]| {
        let mut extra = outputs(names);
        extra["decision"] = "width".into();
        run(&format!("def f():\n    return {result}\n"), "((), {})", extra, vec![])
    };
    let executor = PythonExecutor::new(settings());
    let read = Function::new(&tells("a", "a"), "((i(0),), {})");
    let value = |object: &Object| {
        let ran = executor.execute(&read.call(json!({}), vec![object.bytes().unwrap()])).unwrap();
        String::from_utf8(ran.outputs[0].bytes().unwrap().to_vec()).unwrap()
    };
    let names = ["width", "out", "part-0", "part-1", "part-2"];
    for (result, expect) in [
        ("['a', 'b', 'c', 'd']", ["b'4'", "['a', 'b', 'c', 'd']", "['a', 'd']", "['b']", "['c']"]),
        ("range(1)", ["b'1'", "[0]", "[0]", "[]", "[]"]),
        ("(x for x in ())", ["b'0'", "[]", "[]", "[]", "[]"]),
    ] {
        let ran = fan(result, &names).unwrap();
        assert_eq!(ran.outputs.iter().map(value).collect::<Vec<_>>(), expect, "{result}");
    }
    for (result, expect) in [("'left'", "\"left\""), ("True", "true"), ("7", "7"), ("[1, 2]", "2")] {
        assert_eq!(fan(result, &["width"]).unwrap().outputs, [expect], "{result}");
    }
    for (result, hint) in [("None", "decides nothing"), ("1.5", "decides nothing")] {
        let error = fan(result, &["width"]).unwrap_err();
        assert!(error.message.contains(hint) && error.kind == FailureKind::TaskRefused, "{error:?}");
    }
    let error = fan("7", &names).unwrap_err();
    assert!(error.message.contains("nothing can fan out"), "{error:?}");
}

#[test]
fn gathered_chunks_are_one_list() {
    let executor = PythonExecutor::new(settings());
    let make = Function::new("def f():\n    return [[1, 3], [2], []]\n", "((), {})");
    let parts = contents_of(&executor.execute(&make.call(outputs(&["a", "b", "c"]), vec![])).unwrap());
    let read = Function::new(&tells("a", "a"), "((chunks(0, 1, 2),), {})");
    assert_eq!(executor.execute(&read.call(json!({}), parts)).unwrap().outputs, ["[1, 2, 3]"]);
}

#[test]
fn what_is_printed_is_kept_also_of_c_code_and_children_and_for_its_own_attempt_alone() {
    let executor = PythonExecutor::new(settings());
    let source = r#"
        import ctypes, os, sys
        def f():
            print("python")
            print("error", file=sys.stderr)
            ctypes.CDLL(None).printf(b"from C\n")
            os.system("echo child")
    "#;
    let ran = executor.execute(&Function::new(source, "((), {})").call(json!({}), vec![])).unwrap();
    let printed = ran.printed.unwrap();
    for line in ["python", "error", "from C", "child"] {
        assert!(printed.lines().any(|said| said == line), "{line} in {printed}");
    }
    let quiet = Function::new("def f():\n    pass\n", "((), {})").call(json!({}), vec![]);
    assert_eq!(executor.execute(&quiet).unwrap().printed, None);
    let long = "def f():\n    print('ä' * 100_000 + 'end')\n";
    let printed = run(long, "((), {})", json!({}), vec![]).unwrap().printed.unwrap();
    assert!(
        printed.ends_with("end\n")
            && printed.starts_with('ä')
            && printed.len() as u64 <= runner::PRINTED_BYTES_MAX
    );
}

#[test]
fn a_function_that_waits_for_coroutines_is_run_to_its_end() {
    let source = r#"
        import asyncio, foresail
        async def f():
            await asyncio.sleep(0)
            return foresail.Raw("done")
    "#;
    assert_eq!(run(source, "((), {})", json!({}), vec![]).unwrap().outputs, ["done"]);
}

#[test]
fn a_running_task_knows_which_it_is() {
    let source = tells("", "foresail._runner.context()['idempotency_key']");
    assert_eq!(run(&source, "((), {})", json!({}), vec![]).unwrap().outputs, ["'r/t'"]);
}

#[test]
fn peak_memory_is_that_of_the_attempt() {
    let executor = PythonExecutor::new(settings());
    let source = "import time\ndef f(mb):\n    block = bytearray(mb << 20)\n    time.sleep(0.01)\n";
    let ran = |mb: u32| {
        let function = Function::new(source, &format!("(({mb},), {{}})"));
        executor.execute(&function.call(json!({}), vec![])).unwrap()
    };
    let (large, small) = (ran(200), ran(1));
    assert!(large.peak_memory_mb > 200.0, "{large:?}");
    // Where the kernel cannot forget a peak, it stays.
    if small.peak_memory_mb < large.peak_memory_mb {
        assert!(small.peak_memory_mb < 150.0, "{small:?}");
    }
}

#[test]
fn what_is_prepared_is_loaded_once_and_costs_the_call_nothing() {
    let executor = PythonExecutor::new(settings());
    let source = "import time\ntime.sleep(0.2)\ndef f():\n    pass\n";
    let call = Function::new(source, "((), {})").call(json!({}), vec![]);
    let prepared_ms = executor.prepare(&call.workflow, &[0], 1);
    assert!(prepared_ms >= 200.0, "{prepared_ms}");
    assert_eq!(executor.prepare(&call.workflow, &[0], 1), 0.0, "it is loaded already");
    let ran = executor.execute(&call).unwrap();
    assert!(ran.init_ms < 100.0 && ran.exec_ms < 100.0, "{ran:?}");
}

#[test]
fn a_call_that_loads_its_function_tells_that_apart_from_running_it() {
    let source = "import time\ntime.sleep(0.2)\ndef f():\n    time.sleep(0.02)\n";
    let ran = run(source, "((), {})", json!({}), vec![]).unwrap();
    assert!(ran.init_ms >= 200.0 && (20.0..200.0).contains(&ran.exec_ms), "{ran:?}");
}

#[test]
fn a_runner_that_forgot_a_function_gets_it_again() {
    let executor = PythonExecutor::new(settings());
    let forget = r#"
        import gc
        def f():
            found = [thing for thing in gc.get_objects() if type(thing).__name__ == "Functions"]
            found[0].known.clear()
    "#;
    let forget = Function::new(forget, "((), {})").call(json!({}), vec![]);
    let mut inits_ms = (0..3).map(|_| executor.execute(&forget).unwrap().init_ms);
    assert!(inits_ms.all(|ms| ms > 0.0));
}
