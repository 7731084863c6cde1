//! Code that travels with a workflow: pickled Python functions, each once, named by the hash of its bytes.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most bytes of code in one workflow, as base64.
pub const CODE_BYTES_MAX: usize = 16 << 20;

/// SHA-256 of the bytes of a pickled function, 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct CodeHash(pub String);

/// The functions of a workflow: their bytes as base64, by hash.
pub type Code = BTreeMap<CodeHash, String>;

/// A call of a Python function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PythonCall {
    /// The function: a pickle in the `code` of the workflow.
    pub code: CodeHash,
    /// Its arguments: the pickle of `(args, kwargs)` as base64, in which inputs of the task stand by their
    /// number; the inputs in order where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<String>,
    /// Version of Python that pickled the function, as `3.11`: bytecode is that of one version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
}

impl fmt::Display for CodeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
