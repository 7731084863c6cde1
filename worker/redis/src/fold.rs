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

#[cfg(test)]
mod tests {
    use foresail_schemas::id::InstanceId;
    use foresail_schemas::metric::StartState;
    use foresail_schemas::plan::PlanSummary;
    use foresail_schemas::{ResourceConfig, RunId};

    use super::*;

    fn workflow() -> Workflow {
        let tasks = r#"[{"id": "a", "name": "t", "run": "true"},
            {"id": "b", "name": "t", "run": "true"}]"#;
        serde_json::from_str(&format!(r#"{{"name": "w", "tasks": {tasks}}}"#)).unwrap()
    }

    fn about() -> About {
        let summary = RunSummary {
            run: RunId::new("r").unwrap(),
            workflow: "w".parse().unwrap(),
            status: RunStatus::Running,
            failure: None,
            created_at: jiff::Timestamp::UNIX_EPOCH,
            planner: "simple".parse().unwrap(),
            plan_epoch: 1,
            tasks: 2,
            committed: 0,
            skipped: 0,
            running: 0,
            retries: 0,
            elapsed_ms: 0.0,
            predicted: PlanSummary::default(),
            usage: Vec::new(),
            last_event: 0,
            stalled_ms: None,
        };
        About { format: FORMAT, summary, options: RunOptions::default(), plan: "p1".to_owned() }
    }

    /// A fold of a run that has begun at `1_000_000`, and a ledger that has begun alike.
    fn begun() -> (Fold, Ledger) {
        let mut ledger = Ledger::new(&workflow(), RunOptions::default());
        let mut fold = Fold::new(about(), &workflow());
        assert_eq!(fold.take(&entry(0, &Request::Begin(ledger.begin(0.0)))), Ok(Outcome::Begun));
        (fold, ledger)
    }

    fn entry(after_ms: u64, request: &Request) -> String {
        format!("{} {}", 1_000_000 + after_ms, serde_json::to_string(request).unwrap())
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
            let folded = fold.take(&entry(at as u64 * 7, &Request::Operate(vec![operation])));
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
        assert_eq!(fold.take(&entry(1, &replan("p2"))), Ok(Outcome::Plan(Ok(2))));
        assert_eq!(fold.take(&entry(2, &replan("p3"))), Ok(Outcome::Plan(Err(2))));
        assert_eq!((fold.plan(), fold.plan_of(1), fold.plan_of(3)), ((2, Some("p2")), Some("p1"), None));
    }

    #[test]
    fn events_are_found_by_number_and_kind_up_to_a_limit() {
        let (mut fold, _) = begun();
        for (at, operation) in operations().into_iter().enumerate() {
            fold.take(&entry(at as u64, &Request::Operate(vec![operation]))).unwrap();
        }
        let leased = BTreeSet::from(["task_leased".to_owned()]);
        let (events, looked) = fold.events_after(0, Some(&leased), 1);
        assert_eq!((events.len(), events[0].seq, looked), (1, 4, 4));
        let (events, looked) = fold.events_after(looked, Some(&leased), 9);
        assert_eq!((events.len(), looked), (1, 6), "all were looked at");
        assert!(!fold.forgot(0));
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        let (mut fold, _) = begun();
        for bad in ["", "1", "x {}", "1 {}", r#"1 {"operate": [{"op": "dance"}]}"#] {
            assert!(fold.take(bad).is_err(), "{bad}");
        }
        assert_eq!(fold.next(), 1);
    }
}
