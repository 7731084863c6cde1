//! The tests of the wire types from outside: one binary, one module per subject.

#![allow(clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

mod builders;
mod generated;
mod graphs;
mod numbers;
mod round_trips;
mod unknown;
mod wfformat;
