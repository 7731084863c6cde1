//! The fold of a log: entries in, results and events out. Pure; times in ms since the run began.
//!
//! An entry is the time of the server and a [`Request`] ([`crate::entry`]). Everybody who folds the same
//! entries has the same state: the ledger knows no clock and no chance.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use foresail_choreography::Ledger;
use foresail_schemas::run::{
    Operation, OperationAnswer, OperationResult, Replanning, RunEvent, RunOptions, RunStatus, RunSummary,
};
use foresail_schemas::{RunId, Workflow};
use serde::{Deserialize, Serialize};

use crate::entry::{self, Mark, Names, TIME_BYTES};

/// Version of the entries and of the rules that fold them. Programs of different versions do not take part in
/// the same run: their folds could differ.
pub const FORMAT: u32 = 2;
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
    pub(crate) ledger: Ledger,
    about: About,
    /// When the first entry came, by the server.
    pub(crate) began_ms: f64,
    pub(crate) next: u64,
    /// The time of the last entry.
    pub(crate) mark: Mark,
    pub(crate) names: Names,
    /// Number of the first event that is or will be kept.
    pub(crate) kept_from: u64,
    events: VecDeque<RunEvent>,
    /// The hash of the plan of each epoch.
    pub(crate) plans: BTreeMap<u64, String>,
}

impl Fold {
    /// A run before its first entry.
    #[must_use]
    pub fn new(about: About, workflow: &Workflow) -> Self {
        let ledger = Ledger::new(workflow, about.options);
        let plans = BTreeMap::from([(1, about.plan.clone())]);
        Self {
            ledger,
            about,
            began_ms: 0.0,
            next: 0,
            mark: [0; TIME_BYTES],
            names: Names::default(),
            kept_from: 1,
            events: VecDeque::new(),
            plans,
        }
    }

    /// The number of the entry that comes next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The time of the last entry, by which the log that was folded is known again; nothing before the first.
    #[must_use]
    pub fn mark(&self) -> Option<Mark> {
        (self.next > 0).then_some(self.mark)
    }

    /// A request as it is appended behind what was folded.
    #[must_use]
    pub fn written(&self, request: &Request) -> Vec<u8> {
        entry::write(request, &self.names, self.run())
    }

    fn run(&self) -> &RunId {
        &self.about.summary.run
    }

    /// Takes the next entry. Whoever appended it gives the operations that it asked for in `asked`, with the
    /// questions among them, which are not part of the entry and change nothing.
    ///
    /// # Errors
    /// Why it is none.
    pub fn take(&mut self, entry: &[u8], asked: Option<&[Operation]>) -> Result<Outcome, String> {
        let run = self.about.summary.run.clone();
        let (at_ms, mark, request) = entry::read(entry, &mut self.names, &run)?;
        let now_ms = at_ms - self.began_ms;
        let outcome = match request {
            Request::Begin(events) => {
                self.began_ms = at_ms;
                events.iter().for_each(|event| self.ledger.replay(event));
                self.keep(events);
                Outcome::Begun
            }
            Request::Operate(operations) => {
                let operations = asked.unwrap_or(&operations);
                let mut results = Vec::with_capacity(operations.len());
                for operation in operations {
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
        (self.next, self.mark) = (self.next + 1, mark);
        Ok(outcome)
    }

    fn keep(&mut self, events: Vec<RunEvent>) {
        self.events.extend(events);
        let surplus = self.events.len().saturating_sub(EVENTS_KEPT_MAX);
        self.events.drain(..surplus);
        self.kept_from += surplus as u64;
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
        self.kept_from > after + 1
    }

    /// Number of the last event.
    #[must_use]
    pub fn last_event(&self) -> u64 {
        self.ledger.last_seq()
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
        let skipped = (after + 1).saturating_sub(self.kept_from) as usize;
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

#[cfg(test)]
pub(crate) mod tests {
    use foresail_schemas::ResourceConfig;
    use foresail_schemas::examples::run_begun;
    use foresail_schemas::id::InstanceId;
    use foresail_schemas::metric::StartState;

    use super::*;

    /// What the script makes of what was written.
    pub fn stamped(at_ms: u64, written: &[u8]) -> Vec<u8> {
        [&at_ms.to_le_bytes()[..TIME_BYTES], written].concat()
    }

    fn workflow() -> Workflow {
        let tasks = r#"[{"id": "a", "name": "t", "run": "true"},
            {"id": "b", "name": "t", "run": "true"}]"#;
        serde_json::from_str(&format!(r#"{{"name": "w", "tasks": {tasks}}}"#)).unwrap()
    }

    pub fn about() -> About {
        let summary = run_begun();
        About { format: FORMAT, summary, options: RunOptions::default(), plan: "p1".to_owned() }
    }

    /// A fold of a run that has begun at `1_000_000`, and a ledger that has begun alike.
    fn begun() -> (Fold, Ledger) {
        let mut ledger = Ledger::new(&workflow(), RunOptions::default());
        let mut fold = Fold::new(about(), &workflow());
        assert_eq!(fold.take(&entry(0, &Request::Begin(ledger.begin(0.0))), None), Ok(Outcome::Begun));
        (fold, ledger)
    }

    fn entry(after_ms: u64, request: &Request) -> Vec<u8> {
        stamped(1_000_000 + after_ms, &entry::write(request, &Names::default(), &about().summary.run))
    }

    fn operations() -> Vec<Operation> {
        let instance = InstanceId::new("i").unwrap();
        let (config, start) = (ResourceConfig::new(512, None).unwrap(), StartState::Cold);
        let join = Operation::Join { worker: None, instance: instance.clone(), config, start };
        let lease =
            |task| Operation::Lease { task, instance: instance.clone(), epoch: 1, assuming: Vec::new() };
        vec![join, lease(0), lease(1), lease(0), Operation::Cancel { reason: "enough".to_owned() }]
    }

    #[test]
    fn a_log_folds_to_what_a_ledger_decides_at_the_same_times() {
        let ((mut fold, mut ledger), mut expected) = (begun(), Vec::new());
        for (at, operation) in operations().into_iter().enumerate() {
            let (result, events) = ledger.apply(&operation, at as f64 * 7.0);
            expected.extend(events);
            let folded = fold.take(&entry(at as u64 * 7, &Request::Operate(vec![operation])), None);
            assert_eq!(folded, Ok(Outcome::Results(vec![result])));
        }
        let (events, looked) = fold.events_after(2, None, usize::MAX);
        assert_eq!((events, looked), (expected, ledger.last_seq()));
        assert_eq!(fold.status(), RunStatus::Cancelled);
        assert_eq!(fold.next(), 6);
    }

    #[test]
    fn questions_change_nothing_and_everything_else_is_none() {
        let (mut fold, _) = begun();
        let questions = [
            Operation::Commits { tasks: vec![0, 1] },
            Operation::Open { tasks: vec![0, 1] },
            Operation::Frontier { idle_ms_min: 0.0, limit: 9 },
        ];
        let before = fold.summary(1_050_000.0);
        assert_eq!(fold.ask(&questions, 1_050_000.0).len(), 3);
        assert_eq!(fold.summary(1_050_000.0), before);
        assert!(questions.iter().all(is_question) && !operations().iter().any(is_question));
    }

    #[test]
    fn a_plan_replaces_only_the_one_it_was_made_from() {
        let (mut fold, _) = begun();
        let replan = |plan: &str| Request::Replan { expected_epoch: 1, plan: plan.to_owned(), why: None };
        assert_eq!(fold.take(&entry(1, &replan("p2")), None), Ok(Outcome::Plan(Ok(2))));
        assert_eq!(fold.take(&entry(2, &replan("p3")), None), Ok(Outcome::Plan(Err(2))));
        assert_eq!((fold.plan(), fold.plan_of(1), fold.plan_of(3)), ((2, Some("p2")), Some("p1"), None));
    }

    #[test]
    fn events_are_found_by_number_and_kind_up_to_a_limit() {
        let (mut fold, _) = begun();
        for (at, operation) in operations().into_iter().enumerate() {
            fold.take(&entry(at as u64, &Request::Operate(vec![operation])), None).unwrap();
        }
        let leased = BTreeSet::from(["task_leased".to_owned()]);
        let (events, looked) = fold.events_after(0, Some(&leased), 1);
        assert_eq!((events.len(), events[0].seq, looked), (1, 4, 4));
        let (events, looked) = fold.events_after(looked, Some(&leased), 9);
        assert_eq!((events.len(), looked), (1, 6), "all were looked at");
        assert!(!fold.forgot(0));
    }

    #[test]
    fn whoever_asked_has_its_questions_answered_where_they_stood() {
        let ((mut fold, mut ledger), open) = (begun(), Operation::Open { tasks: vec![0, 1] });
        let [join, lease, ..] = &operations()[..] else { unreachable!("there are five") };
        let asked = [open.clone(), join.clone(), lease.clone(), open];
        let expected = asked.iter().map(|operation| ledger.apply(operation, 5.0).0).collect();
        let written = entry(5, &Request::Operate(vec![join.clone(), lease.clone()]));
        assert_eq!(fold.take(&written, Some(&asked)), Ok(Outcome::Results(expected)));
        assert_eq!(fold.ledger.saved(), ledger.saved(), "as everybody else has it");
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        let (mut fold, _) = begun();
        for bad in [&b""[..], b"1", b"123456", b"123456\x07"] {
            assert!(fold.take(bad, None).is_err(), "{bad:?}");
        }
        assert_eq!(fold.next(), 1);
    }
}
