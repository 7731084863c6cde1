//! Stores and coordination against servers that nobody here wrote: moto for S3, Debian's redis-server.
//!
//! The suites say what every implementation must do; each implementation passes the same one. Time limits are
//! there to end a test that hangs and are asserted nowhere.

#![cfg(feature = "s3")]
#![allow(clippy::unwrap_used, reason = "a test ends with the panic that tells what was unexpected")]

mod buckets;
mod clusters;
mod coordination;
mod objects;
#[allow(dead_code, reason = "tests of functions use the rest")]
mod servers;
mod shared_runs;
mod tls;
mod workloads;
