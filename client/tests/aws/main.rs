//! Workflows on an emulated AWS Lambda, and the commands that deploy, through the program as users have it.

#![cfg(feature = "aws")]
#![allow(clippy::unwrap_used, reason = "a test ends with the panic that tells what was unexpected")]

mod commands;
#[allow(dead_code, reason = "other tests of functions use the rest")]
#[path = "../../../worker/lambda/tests/lambda/emulator.rs"]
mod emulator;
mod functions;
#[path = "../../../worker/aws/tests/package.rs"]
mod package;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../stores/servers.rs"]
mod servers;
mod whole;
mod workflows;
