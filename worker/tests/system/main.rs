//! Tests of the whole worker: the local host, real worker processes, and a store of runs in memory.
//!
//! The store here is the real ledger behind a small HTTP server, so that these tests need nothing but this
//! crate; the tests with the real daemon stand elsewhere. Time limits are generous and only there to end a
//! test that hangs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall end")]

mod data;
mod failing;
mod guard;
mod held;
mod host;
mod keeping;
mod limits;
mod loss;
mod lost;
mod optimised;
mod pickled;
mod python;
mod shared;
mod store;
mod support;
