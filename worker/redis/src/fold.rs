//! The fold of a log: entries in, results and events out. Pure; times in ms since the run began.
//!
//! An entry is the time of the server in ms, a blank, and a [`Request`] as JSON. Everybody who folds the same
//! entries has the same state: the ledger knows no clock and no chance.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use foresail_choreography::Ledger;
use foresail_schemas::Workflow;
use foresail_schemas::run::{
    Operation, OperationAnswer, OperationResult, Replanning, RunEvent, RunOptions, RunStatus, RunSummary,
};
use serde::{Deserialize, Serialize};

/// Version of the entries and of the rules that fold them. Programs of different versions do not take part in
/// the same run: their folds could differ.
pub const FORMAT: u32 = 1;
/// Events of a run that are kept; older ones are found by folding once more.
pub const EVENTS_KEPT_MAX: usize = 200_000;

/// What is known of a run from its beginning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// [`FORMAT`] of its log.
    pub format: u32,
    /// The run as it was created.
    pub summary: RunSummary,
    /// Its limits and intervals.
    pub options: RunOptions,
    /// The hash of its first plan.
    pub plan: String,
}

/// An entry of a log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The run begins with these events.
    Begin(Vec<RunEvent>),
    /// Operations, in order.
    Operate(Vec<Operation>),
    /// A plan replaces the one in force, if that is the one expected.
    Replan {
        /// Epoch of the plan that it replaces.
        expected_epoch: u64,
        /// The hash of the new one.
        plan: String,
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<Replanning>,
    },
    /// A plan was found that could replace the one in force.
    Suggest {
        /// Epoch of the plan in force.
        epoch: u64,
        /// What it brings.
        why: Replanning,
    },
}

/// What an entry came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The run has begun.
    Begun,
    /// One result per operation.
    Results(Vec<OperationResult>),
    /// The epoch of the new plan, or the one in force where another was expected.
    Plan(Result<u64, u64>),
}

/// Whether an operation only asks: it is answered from the fold, without an entry.
#[must_use]
pub fn is_question(operation: &Operation) -> bool {
    match operation {
        Operation::Commits { .. }
        | Operation::Missing { .. }
        | Operation::Open { .. }
        | Operation::WhoIs { .. }
        | Operation::Frontier { .. } => true,
        Operation::Join { .. }
        | Operation::Leave { .. }
        | Operation::Lease { .. }
        | Operation::Duplicate { .. }
        | Operation::Renew { .. }
        | Operation::Commit { .. }
        | Operation::Fail { .. }
        | Operation::Cancel { .. } => false,
    }
}

/// Whether somebody may wait for what an operation leads to; the others are found when they are asked for.
#[must_use]
pub fn is_news(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::Commit { .. }
            | Operation::Fail { .. }
            | Operation::Cancel { .. }
            | Operation::Leave { .. }
    )
}

/// A run as far as its log was folded.
#[derive(Debug)]
pub struct Fold {
    ledger: Ledger,
    about: About,
    /// When the first entry came, by the server.
    began_ms: f64,
    next: u64,
    events: VecDeque<RunEvent>,
    /// The hash of the plan of each epoch.
    plans: BTreeMap<u64, String>,
}

impl Fold {
    /// A run before its first entry.
    #[must_use]
    pub fn new(about: About, workflow: &Workflow) -> Self {
        let ledger = Ledger::new(workflow, about.options);
        let plans = BTreeMap::from([(1, about.plan.clone())]);
        Self { ledger, about, began_ms: 0.0, next: 0, events: VecDeque::new(), plans }
    }

    /// The number of the entry that comes next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// Why it is none.
    pub fn take(&mut self, entry: &str) -> Result<Outcome, String> {
        let (at_ms, request) = entry.split_once(' ').ok_or("it has no time")?;
        let at_ms: f64 = at_ms.parse().map_err(|e| format!("its time `{at_ms}`: {e}"))?;
        let request: Request = serde_json::from_str(request).map_err(|e| e.to_string())?;
        let now_ms = at_ms - self.began_ms;
        let outcome = match request {
            Request::Begin(events) => {
                self.began_ms = at_ms;
                events.iter().for_each(|event| self.ledger.replay(event));
                self.keep(events);
                Outcome::Begun
            }
            Request::Operate(operations) => {
                let mut results = Vec::with_capacity(operations.len());
                for operation in &operations {
                    let (result, events) = self.ledger.apply(operation, now_ms);
                    self.keep(events);
                    results.push(result);
                }
                Outcome::Results(results)
            }
            Request::Replan { expected_epoch, plan, why } => {
                let replaced = self.ledger.replan(expected_epoch, why, now_ms);
                Outcome::Plan(replaced.map(|events| {
                    self.keep(events);
                    self.plans.insert(expected_epoch + 1, plan);
                    expected_epoch + 1
                }))
            }
            Request::Suggest { epoch, why } => {
                let suggested = self.ledger.suggest(epoch, why, now_ms);
                Outcome::Plan(suggested.map(|events| {
                    self.keep(events);
                    epoch
                }))
            }
        };
        self.next += 1;
        Ok(outcome)
    }

    fn keep(&mut self, events: Vec<RunEvent>) {
        self.events.extend(events);
        let surplus = self.events.len().saturating_sub(EVENTS_KEPT_MAX);
        self.events.drain(..surplus);
    }

    /// Answers questions as things stand at `server_ms`, by the clock of the server.
    pub fn ask(&mut self, questions: &[Operation], server_ms: f64) -> Vec<OperationResult> {
        debug_assert!(questions.iter().all(is_question), "an operation that changes something is an entry");
        let now_ms = server_ms - self.began_ms;
        questions.iter().map(|question| self.ledger.apply(question, now_ms).0).collect()
    }

    /// Results, and where the run stands.
    #[must_use]
    pub fn answer(&self, results: Vec<OperationResult>) -> OperationAnswer {
        let (status, plan_epoch) = (self.ledger.status(), self.ledger.plan_epoch());
        OperationAnswer { status, plan_epoch, results }
    }

    /// Whether events after this number are no longer kept.
    #[must_use]
    pub fn forgot(&self, after: u64) -> bool {
        self.events.front().is_some_and(|first| first.seq > after + 1)
    }

    /// Up to `limit` events after this number of these kinds, all kinds where none are named, and the number
    /// up to which was looked.
    #[must_use]
    pub fn events_after(
        &self,
        after: u64,
        kinds: Option<&BTreeSet<String>>,
        limit: usize,
    ) -> (Vec<RunEvent>, u64) {
        let first = self.events.front().map_or(0, |event| event.seq);
        let skipped = (after + 1).saturating_sub(first) as usize;
        let (mut found, mut looked) = (Vec::new(), after.max(self.ledger.last_seq()));
        for event in self.events.iter().skip(skipped) {
            if kinds.is_none_or(|kinds| kinds.contains(event.change.kind())) {
                found.push(event.clone());
                if found.len() == limit {
                    looked = event.seq;
                    break;
                }
            }
        }
        (found, looked)
    }

    /// Where the run stands.
    #[must_use]
    pub fn status(&self) -> RunStatus {
        self.ledger.status()
    }

    /// Epoch and hash of the plan in force.
    #[must_use]
    pub fn plan(&self) -> (u64, Option<&str>) {
        let epoch = self.ledger.plan_epoch();
        (epoch, self.plans.get(&epoch).map(String::as_str))
    }

    /// The hash of the plan of an epoch.
    #[must_use]
    pub fn plan_of(&self, epoch: u64) -> Option<&str> {
        self.plans.get(&epoch).map(String::as_str)
    }

    /// Limits and intervals.
    #[must_use]
    pub fn options(&self) -> RunOptions {
        self.about.options
    }

    /// The run in short at `server_ms`.
    #[must_use]
    pub fn summary(&self, server_ms: f64) -> RunSummary {
        let state = self.ledger.summary(server_ms - self.began_ms);
        RunSummary {
            status: self.ledger.status(),
            failure: state.failure,
            plan_epoch: self.ledger.plan_epoch(),
            committed: state.committed,
            skipped: state.skipped,
            running: state.running,
            retries: state.retries,
            elapsed_ms: state.elapsed_ms,
            usage: state.usage,
            last_event: self.ledger.last_seq(),
            ..self.about.summary.clone()
        }
    }
}
