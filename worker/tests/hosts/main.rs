//! Every host of this crate is put to the same checks, with real worker processes and the real metad.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall end")]

mod http;
mod local;
mod stand;
