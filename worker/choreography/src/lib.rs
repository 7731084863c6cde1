//! The protocol of a run, as state machines without I/O.
//!
//! - [`ledger::Ledger`]: the state of a run, the fold of its events. Whoever hosts it (metad, the planner's
//!   simulator) passes operations and the time in and stores the events that come out.
//! - [`worker::Worker`]: what one invocation of a worker does: take tasks, run them, commit, mark edges, hand
//!   on.
//! - [`watchdog::Watchdog`]: what the client does while it waits: find what is stuck and start it again.
//!
//! Events go in, actions come out, `now_ms` is an argument. Nothing here reads a clock, draws a number or
//! waits, so a plan is simulated by the very machines that will carry it out.
//!
//! Guarantees, whatever crashes, is lost, doubled or late: a task has one commit; no task runs before the
//! commits of its parents, but for those that are skipped because of what a task decided, and no skipped
//! task runs; a run whose watchdog lives either ends or has a task under a live lease.

pub mod ledger;
mod ledger_state;
mod outbox;
mod plan_view;
pub mod protocol;
mod skips;
mod sorted;
pub mod watchdog;
pub mod worker;

pub use ledger::{Ledger, LedgerSummary};
pub use plan_view::{PlanView, TimedStart, first_invocations, invocations_for};
pub use protocol::{Action, CommitHints, Event, Executed, Invoke};
pub use watchdog::Watchdog;
pub use worker::{Worker, WorkerSettings};
