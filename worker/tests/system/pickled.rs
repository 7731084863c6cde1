//! Workflows of Python functions that are pickled without any package.

use std::path::PathBuf;
use std::process::Command;

use foresail_schemas::Workflow;
use serde_json::{Value, json};

/// Pickles the function `f` of a source.
const PICKLE: &str = r#"
import base64, hashlib, pickle, sys, textwrap
class Source:
    def __reduce__(self):
        source = textwrap.dedent(sys.argv[1])
        return eval, (f"(lambda names: (exec({source!r}, names), names['f'])[1])(dict(__name__='task'))",)
code = pickle.dumps(Source(), 5)
print(hashlib.sha256(code).hexdigest(), base64.b64encode(code).decode())
"#;

/// The interpreter of tests and benches.
pub fn interpreter() -> PathBuf {
    let venv = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin/python");
    match std::env::var_os("FORESAIL_PYTHON").filter(|named| !named.is_empty()) {
        Some(named) => named.into(),
        None if venv.exists() => venv,
        None => "python3".into(),
    }
}

/// A workflow of tasks, each with the source of its function in the place of `run`.
pub fn sources(mut tasks: Value) -> Workflow {
    let mut code = serde_json::Map::new();
    for task in tasks.as_array_mut().unwrap() {
        let source = task["run"].as_str().unwrap();
        let output = Command::new(interpreter()).args(["-c", PICKLE, source]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (hash, pickled) = text.trim().split_once(' ').unwrap();
        code.insert(hash.to_owned(), pickled.into());
        task["run"] = json!({"python": {"code": hash}});
    }
    serde_json::from_value(json!({"name": "w", "tasks": tasks, "code": code})).unwrap()
}
