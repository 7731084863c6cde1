//! Functions on an emulated Lambda: cargo-lambda's server, which speaks the runtime interface of Lambda, and
//! the real binary of the function.

#![allow(clippy::unwrap_used, reason = "a test ends with the panic that tells what was unexpected")]

mod emulator;
mod functions;
mod refusals;
