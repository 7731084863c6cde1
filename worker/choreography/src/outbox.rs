//! The way to the store: at most one request is outstanding, what comes up meanwhile travels together in the
//! next.
//!
//! A request without an answer is sent again with growing pauses; operations are idempotent. After
//! [`SILENCE_MS_MAX`] without any answer the store counts as lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use foresail_schemas::id::WorkerId;
use foresail_schemas::run::{OPERATIONS_PER_REQUEST_MAX, Operation};

use crate::protocol::Action;

/// Longest silence of the store before a machine gives up.
pub(crate) const SILENCE_MS_MAX: f64 = 120_000.0;
/// Most operations in one request, half of what metad takes by default; the rest goes with the next.
const OPERATIONS_PER_SEND_MAX: usize = OPERATIONS_PER_REQUEST_MAX / 2;
/// First pause before a request is sent again.
const RESEND_MS_FIRST: f64 = 25.0;
/// Longest pause before a request is sent again.
const RESEND_MS_MAX: f64 = 2_000.0;

/// Operations on their way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outbox {
    pending: Vec<Operation>,
    sent: Option<Sent>,
    last_request: u64,
    /// Workers that the next request asks for.
    asking: BTreeSet<WorkerId>,
}

#[derive(Debug, Clone)]
struct Sent {
    request: u64,
    operations: Arc<[Operation]>,
    first_ms: f64,
    tries: u32,
    resend_ms: Option<f64>,
}

impl Outbox {
    pub fn push(&mut self, operation: Operation) {
        self.pending.push(operation);
    }

    /// Asks whether a worker lives, once per request.
    pub fn who_is(&mut self, worker: &WorkerId) {
        if !self.asking.contains(worker) {
            self.asking.insert(worker.clone());
            self.pending.push(Operation::WhoIs { worker: worker.clone() });
        }
    }

    /// Forgets what is pending, but what `keeps` names.
    pub fn clear_pending_but(&mut self, keeps: impl Fn(&Operation) -> bool) {
        self.pending.retain(keeps);
        self.asking.clear();
    }

    /// Whether an answer is waited for.
    pub fn waits(&self) -> bool {
        self.sent.is_some()
    }

    /// Whether the next flush sends what is pending.
    pub fn sends(&self) -> bool {
        self.sent.is_none() && !self.pending.is_empty()
    }

    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.sent.is_none()
    }

    /// The operations that `request` carried, if it is the one that is waited for.
    pub fn answered(&mut self, request: u64) -> Option<Arc<[Operation]>> {
        self.sent.take_if(|sent| sent.request == request).map(|sent| sent.operations)
    }

    pub fn unanswered(&mut self, request: u64, now_ms: f64) {
        if let Some(sent) = self.sent.as_mut().filter(|sent| sent.request == request) {
            let pause_ms = (RESEND_MS_FIRST * f64::from(1_u32 << sent.tries.min(16))).min(RESEND_MS_MAX);
            sent.tries += 1;
            sent.resend_ms = Some(now_ms + pause_ms);
        }
    }

    /// Whether the store has been silent for too long.
    pub fn is_lost(&self, now_ms: f64) -> bool {
        self.sent
            .as_ref()
            .is_some_and(|sent| sent.resend_ms.is_some() && now_ms - sent.first_ms > SILENCE_MS_MAX)
    }

    /// Sends what is due.
    pub fn flush(&mut self, now_ms: f64, out: &mut Vec<Action>) {
        match &mut self.sent {
            Some(sent) if sent.resend_ms.is_some_and(|due| due <= now_ms) => {
                sent.resend_ms = None;
                out.push(Action::Operate { request: sent.request, operations: Arc::clone(&sent.operations) });
            }
            None if !self.pending.is_empty() => {
                self.last_request += 1;
                self.asking.clear();
                let request = self.last_request;
                let send = self.pending.len().min(OPERATIONS_PER_SEND_MAX);
                let operations: Arc<[Operation]> = self.pending.drain(..send).collect();
                out.push(Action::Operate { request, operations: Arc::clone(&operations) });
                self.sent = Some(Sent { request, operations, first_ms: now_ms, tries: 0, resend_ms: None });
            }
            _ => {}
        }
    }

    /// When a request must be sent again.
    pub fn resend_ms(&self) -> Option<f64> {
        self.sent.as_ref().and_then(|sent| sent.resend_ms)
    }
}
