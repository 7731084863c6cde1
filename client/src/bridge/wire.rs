//! The frames of the bridge: requests, answers, notifications and faults of JSON-RPC 2.0.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::ClientError;

/// Code of a line that is no request, by the specification of JSON-RPC.
const NO_REQUEST: i32 = -32_600;
/// Code of a method that does not exist.
const NO_METHOD: i32 = -32_601;
/// Code of parameters that do not fit.
const WRONG_PARAMS: i32 = -32_602;
/// Code of everything that went wrong while a request was carried out.
const FAILED: i32 = -32_000;

/// A request; a notification where it has no id.
#[derive(Debug, Deserialize)]
pub struct Request {
    /// What the answer is found by.
    #[serde(default)]
    pub id: Option<Value>,
    /// What is asked for.
    pub method: String,
    /// Its parameters.
    #[serde(default)]
    pub params: Value,
}

/// Why a request was not carried out.
#[derive(Debug, Serialize, PartialEq)]
pub struct Fault {
    code: i32,
    message: String,
    data: FaultData,
}

/// What a program can decide by.
#[derive(Debug, Serialize, PartialEq)]
struct FaultData {
    /// Stable name of the kind of fault.
    kind: String,
    /// What to do next.
    hint: String,
}

impl Fault {
    fn new(code: i32, kind: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: FaultData { kind: kind.to_owned(), hint: hint.into() } }
    }

    /// A line that is no request.
    pub fn no_request(reason: &str) -> Self {
        Self::new(NO_REQUEST, "no_request", format!("this is no request: {reason}"), "see docs/bridge.md")
    }

    /// A method that does not exist.
    pub fn no_method(method: &str) -> Self {
        let hint = "are the package and the program `foresail` of the same version?";
        Self::new(NO_METHOD, "no_method", format!("there is no method `{method}`"), hint)
    }

    /// Parameters, or something that they name, that make no sense.
    pub fn wrong(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(WRONG_PARAMS, "wrong_request", message, hint)
    }
}

impl From<ClientError> for Fault {
    fn from(error: ClientError) -> Self {
        let kind = match &error {
            ClientError::Refused { problem, .. } => problem.code.to_string(),
            ClientError::NoPlan { .. } => "no_plan".to_owned(),
            ClientError::TimedOut { .. } => "timed_out".to_owned(),
            ClientError::Unreachable { .. } => "unreachable".to_owned(),
            ClientError::NoResult(_) | ClientError::NoSuchResult(_) => "no_result".to_owned(),
            ClientError::NotKept(_) | ClientError::Lost { .. } | ClientError::Damaged { .. } => {
                "lost_result".to_owned()
            }
            _ => "failed".to_owned(),
        };
        Self::new(FAILED, &kind, error.to_string(), error.hint())
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        let message = format!("a file of the session cannot be read or written: {error}");
        Self::new(FAILED, "failed", message, "is the disk of the temporary directory full?")
    }
}

/// The line that answers a request.
#[must_use]
pub fn answer(id: Option<Value>, done: Result<Value, Fault>) -> String {
    let id = id.unwrap_or(Value::Null);
    match done {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(fault) => json!({ "jsonrpc": "2.0", "id": id, "error": fault }),
    }
    .to_string()
}

/// The line of a notification.
#[must_use]
pub fn notification(method: &str, params: &impl Serialize) -> String {
    json!({ "jsonrpc": "2.0", "method": method, "params": params }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_carry_a_kind_and_a_hint_and_the_id_of_their_request() {
        let fault = Fault::from(ClientError::NoPlan { planner: "x".to_owned(), reason: "y".to_owned() });
        let line: Value = serde_json::from_str(&answer(Some(json!(7)), Err(fault))).unwrap();
        assert_eq!((&line["id"], &line["error"]["data"]["kind"]), (&json!(7), &json!("no_plan")));
        assert!(line["error"]["data"]["hint"].as_str().unwrap().contains("planners"));
        let read: Request = serde_json::from_str(r#"{"jsonrpc":"2.0","method":"hello"}"#).unwrap();
        assert_eq!((read.id, read.params), (None, Value::Null));
    }
}
