//! The system tests: Foresail as a whole, in one binary with one module per theme.

#![allow(clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

mod crash;
mod deaf;
mod killed;
mod orphans;
mod plans;
mod proof;
mod resumed;
mod runs;
mod schemas;
mod stack;
mod tidy;
