//! What the Python executor costs: calls of a function that does nothing, and a large array that goes from
//! one function to the next.
//!
//! ```text
//! cargo bench -p foresail-worker --bench python_calls [-- [--calls N] [--bytes N] [--rounds N]]
//! ```
//!
//! Calls go through the executor as a worker makes them, one after the other on one thread: us per call, best
//! and median of the rounds. The hand-over is told in parts: `make` is the call that makes the array (that of
//! a function that makes it and lets it go is taken off), `first` the call that reads one byte of every page
//! of it for the first time, `again` another such call, each by the same process. Where the result stays in
//! its process, `bring` is the copy, with its hash, that the worker makes for the store while the next call
//! runs. Arrays are bytearrays: no module is needed. The
//! interpreter is that of `FORESAIL_PYTHON`, else `python3`.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on shall end")]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use foresail_schemas::RunId;
use foresail_worker::data::kept::Object;
use foresail_worker::executor::python::{PythonExecutor, PythonSettings};
use foresail_worker::executor::{Call, Executor, GiveUp, Ran};
use foresail_worker::registry::Cancel;
use serde_json::json;

const PICKLE: &str = r#"
import base64, hashlib, pickle, sys
class Source:
    def __reduce__(self):
        return eval, (f"(lambda names: (exec({sys.argv[1]!r}, names), names['f'])[1])(dict())",)
code = pickle.dumps(Source(), 5)
print(hashlib.sha256(code).hexdigest(), base64.b64encode(code).decode())
"#;

fn main() {
    let (mut calls, mut bytes, mut rounds) = (20_000, 100_000_000_u64, 7);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--calls" => calls = words.next().unwrap().parse().unwrap(),
            "--bytes" => bytes = words.next().unwrap().parse().unwrap(),
            "--rounds" => rounds = words.next().unwrap().parse().unwrap(),
            // What cargo adds.
            "--bench" => {}
            other => panic!("`{other}` is not known; hint: --calls, --bytes, --rounds"),
        }
    }
    let executor = PythonExecutor::new(PythonSettings::default());
    no_ops(&executor, calls, rounds);
    let dir = tempfile::tempdir_in(".").unwrap();
    for (place, dir, keep_bytes_max) in [
        ("memory files", None, 0),
        ("files", Some(dir.path()), 0),
        ("the process that made it", Some(dir.path()), u64::MAX),
    ] {
        println!("{bytes} bytes from one function to the next, in {place}");
        hand_over(&executor, bytes, rounds, dir, keep_bytes_max);
    }
}

fn no_ops(executor: &PythonExecutor, calls: u32, rounds: usize) {
    let with_args = BASE64.encode(b"\x80\x05)}\x86.");
    let small = Object::from(Bytes::from(vec![7; 100]));
    let nothing = "def f(*args):\n    return None\n";
    for (what, args, inputs) in [
        ("no arguments", None, vec![]),
        ("pickled arguments", Some(with_args.as_str()), vec![]),
        ("an input of 100 bytes", None, vec![small]),
    ] {
        let call = call(nothing, args, inputs, None);
        executor.execute(&call).unwrap();
        let round = || {
            let began = Instant::now();
            for _ in 0..calls {
                executor.execute(&call).unwrap();
            }
            began.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
        };
        let (best, median) = best_and_median((0..rounds).map(|_| round()).collect());
        println!("{what:22} {best:8.1} us best {median:8.1} us median");
    }
}

fn hand_over(executor: &PythonExecutor, bytes: u64, rounds: usize, dir: Option<&Path>, keep_bytes_max: u64) {
    let source = |result: &str| {
        let made = format!("made = bytearray(b'x') * {bytes}");
        format!("import pickle\ndef f():\n    {made}\n    return {result}pickle.PickleBuffer(made)\n")
    };
    let read = "def f(array):\n    return sum(memoryview(array)[::4096]) > 0\n";
    let [mut make, drops] = ["", "None and "].map(|lead| call(&source(lead), None, vec![], dir));
    make.keep_bytes_max = keep_bytes_max;
    let timed = |call: &Call| -> (Ran, f64) {
        let began = Instant::now();
        let ran = executor.execute(call).unwrap();
        (ran, began.elapsed().as_secs_f64() * 1e3)
    };
    // Loads the code.
    for call in [&make, &drops, &call(read, None, vec![Bytes::from_static(b"x").into()], dir)] {
        timed(call);
    }
    let mut parts = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        let (_, drops_ms) = timed(&drops);
        let (made, make_ms) = timed(&make);
        let reader = call(read, None, made.outputs, dir);
        let [first_ms, again_ms] = [timed(&reader).1, timed(&reader).1];
        let began = Instant::now();
        if let Some(Some(Object::Kept(kept))) = reader.inputs.first() {
            kept.bring().unwrap();
        }
        let bring_ms = began.elapsed().as_secs_f64() * 1e3;
        let measured = [make_ms - drops_ms, first_ms, again_ms, bring_ms];
        measured.iter().zip(&mut parts).for_each(|(ms, part)| part.push(*ms));
    }
    let told = if keep_bytes_max > 0 { 4 } else { 3 };
    for (what, times) in ["make", "first", "again", "bring"].iter().zip(parts).take(told) {
        let (best, median) = best_and_median(times);
        println!("{what:22} {best:8.1} ms best {median:8.1} ms median");
    }
}

fn best_and_median(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[0], times[times.len() / 2])
}

/// A call of the function `f` of this source.
fn call(source: &str, args: Option<&str>, inputs: Vec<Object>, outputs_dir: Option<&Path>) -> Call {
    let program = PythonSettings::default().program;
    let output = std::process::Command::new(program).args(["-c", PICKLE, source]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (hash, code) = text.trim().split_once(' ').unwrap();
    let uris: Vec<_> = inputs.iter().map(|_| json!({"uri": "x"})).collect();
    let mut python = json!({"code": hash});
    if let Some(args) = args {
        python["args"] = args.into();
    }
    let task = json!({"id": "t", "name": "f", "run": {"python": python}, "inputs": uris});
    let workflow = json!({"name": "w", "tasks": [task], "code": {hash: code}});
    Call {
        run: RunId::new("r").unwrap(),
        workflow: Arc::new(serde_json::from_value(workflow).unwrap()),
        task: 0,
        attempt: 1,
        inputs: inputs.into_iter().map(Some).collect(),
        give_up: GiveUp(Arc::new(|_| ())),
        cancel: Cancel::default(),
        outputs_dir: outputs_dir.map(Path::to_owned),
        keep_bytes_max: 0,
    }
}
