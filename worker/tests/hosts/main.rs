//! Every host of this crate is put to the same checks, with real worker processes and the
//! real ledger.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall end")]

mod http;
mod local;
#[path = "../../../client/tests/stores/ports.rs"]
mod ports;
mod stand;
#[allow(dead_code, reason = "other tests of this crate use the rest")]
#[path = "../system/store.rs"]
mod store;
