//! What Lambda refuses, told by an emulated one; functions at work are tested with the program of the client.

#![allow(clippy::unwrap_used, reason = "a test ends with the panic that tells what was unexpected")]

#[allow(dead_code, reason = "other tests of functions use the rest")]
mod emulator;
mod refusals;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../../../../client/tests/stores/servers.rs"]
mod servers;
