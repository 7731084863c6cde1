//! `foresail-lambda`: the worker with the built-in functions and commands as the `bootstrap` of a Lambda
//! function.

use std::process::ExitCode;

use foresail_worker::Registry;

fn main() -> ExitCode {
    if std::env::var_os(foresail_lambda::RUNTIME_VARIABLE).is_none() {
        eprintln!(
            "error: {} is not set; hint: Lambda starts this program, `foresail deploy aws` takes it there",
            foresail_lambda::RUNTIME_VARIABLE
        );
        return ExitCode::FAILURE;
    }
    foresail_lambda::main(&Registry::new())
}
