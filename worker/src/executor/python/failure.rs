//! What the end of a call means, in words: each failure says what happened, where, and what to do.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use foresail_schemas::run::FailureKind;

use crate::executor::Call;
use crate::registry::TaskError;

/// What is wrong, as `_failures.py` counts it.
const MISSING_MODULE: u8 = 3;
const CODE: u8 = 2;
const MEMORY: u8 = 4;
const EXIT: u8 = 5;
const RESULT: u8 = 6;
const TOO_LARGE: u8 = 7;
const OUTPUTS: u8 = 8;
const INPUTS: u8 = 9;

/// The failure that a runner told; `printed` is what the attempt printed last.
pub(super) fn told(call: &Call, category: u8, text: &str, exception: &[u8], printed: &str) -> TaskError {
    let forbidden = (category == EXIT).then(|| call.forbidden_exit(exit_code(exception))).flatten();
    let kind = match category {
        CODE => FailureKind::UnknownFunction,
        // No other attempt ends differently.
        MISSING_MODULE | RESULT | TOO_LARGE | OUTPUTS => FailureKind::TaskRefused,
        MEMORY => FailureKind::OutOfMemory,
        EXIT => of_exit(forbidden.is_some()),
        INPUTS => FailureKind::InputUnavailable,
        _ => FailureKind::TaskError,
    };
    let text = with_rule(text, forbidden);
    let has_exception = category != EXIT && !exception.is_empty();
    let exception = has_exception.then(|| BASE64.encode(exception));
    TaskError { exception, ..TaskError::of(kind, with(text, printed)) }
}

/// The failure of a call whose runner has ended.
pub(super) fn died(call: &Call, status: ExitStatus, death: Death, printed: &str) -> TaskError {
    let (kind, text) = match (death, status.code(), status.signal()) {
        (Death::OutOfMemory, _, _) => {
            let text = "the function used more memory than its worker has, and was ended for it".to_owned();
            (FailureKind::OutOfMemory, text)
        }
        (_, Some(code), _) => {
            let text = format!(
                "the function ended its process with exit code {code} (`os._exit`, or C code that called \
                 `exit`); hint: return a value, or raise an exception"
            );
            let forbidden = call.forbidden_exit(code);
            (of_exit(forbidden.is_some()), with_rule(&text, forbidden))
        }
        (_, None, Some(signal)) => {
            let (name, hint) = signal_in_words(signal);
            (
                FailureKind::TaskCrash,
                format!("the function crashed its process by signal {signal} ({name}); {hint}"),
            )
        }
        (_, None, None) => (FailureKind::TaskCrash, format!("the process of the function ended: {status}")),
    };
    TaskError::of(kind, with(text, printed))
}

/// Whether the kernel ended a process because memory ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    OutOfMemory,
    Other,
}

/// The text, and behind it what was printed.
pub(super) fn with(text: String, printed: &str) -> String {
    match printed.trim_end() {
        "" => text,
        printed => format!("{text}\nprinted before that:\n{printed}"),
    }
}

/// The text, and what the retry settings of the task say of its exit code.
fn with_rule(text: &str, forbidden: Option<String>) -> String {
    forbidden.map_or_else(|| text.to_owned(), |rule| format!("{text}\n{rule}"))
}

/// A command with such a code is treated alike.
fn of_exit(is_forbidden: bool) -> FailureKind {
    match is_forbidden {
        true => FailureKind::TaskRefused,
        false => FailureKind::TaskCrash,
    }
}

fn exit_code(bytes: &[u8]) -> i32 {
    bytes.try_into().map_or(1, i32::from_le_bytes)
}

fn signal_in_words(signal: i32) -> (&'static str, &'static str) {
    match signal {
        libc::SIGSEGV => (
            "segmentation fault",
            "hint: C code that the function calls touched memory that is not its own; what was printed shows \
             the Python line that called it",
        ),
        libc::SIGBUS => ("bus error", "hint: a file that the function had mapped became shorter"),
        libc::SIGABRT => (
            "abort",
            "hint: C code that the function calls gave up, often because it got no memory: try more \
             (`memory_mb_min`)",
        ),
        libc::SIGFPE => ("arithmetic error", "hint: C code that the function calls divided by zero"),
        libc::SIGILL => ("illegal instruction", "hint: a C module was built for another processor"),
        libc::SIGKILL => ("killed", "hint: somebody killed it, or the whole machine ran out of memory"),
        libc::SIGTERM => ("terminated", "hint: somebody, maybe the function itself, asked it to end"),
        _ => ("see signal(7)", "hint: the function, or C code that it calls, raised it"),
    }
}
