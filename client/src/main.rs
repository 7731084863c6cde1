//! The binary `foresail`: the command line, and the worker processes that a local stack starts from it.

use std::process::ExitCode;

fn main() -> ExitCode {
    foresail::worker(foresail::functions::registry());
    foresail::cli::main()
}
