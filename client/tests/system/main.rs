//! The client against a real stack: metad, a host and worker processes, through the binary and through the
//! library.

#![allow(clippy::unwrap_used, reason = "a test ends with the panic that tells what was unexpected")]

mod bridge;
mod cli;
mod fan_out;
mod history;
mod interrupt;
mod lab;
mod library;
mod planning;
mod pools;
mod replan;
mod resume;
mod stalled;
mod support;
mod token;
mod workloads;
