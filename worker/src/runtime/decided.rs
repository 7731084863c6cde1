//! What committed tasks decided, as measurements.
//!
//! A decision is recorded when its commit stands: an attempt whose result is not taken has decided nothing.

use foresail_schemas::metric::{DecisionRecord, Record};
use foresail_schemas::run::{Operation, OperationAnswer, OperationResult};
use foresail_schemas::workflow::Workflow;
use jiff::Timestamp;

/// What the commits of one request decide, with their places in it.
#[derive(Debug, Default)]
pub(super) struct Decided(Vec<(usize, Record)>);

impl Decided {
    /// What the commits among `operations` decide.
    pub fn of(workflow: &Workflow, operations: &[Operation]) -> Self {
        let record = |(place, operation): (usize, &Operation)| {
            let Operation::Commit { task, commit, .. } = operation else { return None };
            let record = DecisionRecord {
                task: workflow.task(*task).name.clone(),
                input_bytes: commit.measured.input_bytes,
                value: commit.decision.clone()?,
                at: Some(Timestamp::now()),
            };
            Some((place, Record::Decision(record)))
        };
        Self(operations.iter().enumerate().filter_map(record).collect())
    }

    /// Whether nothing is decided.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is decided once the request was answered.
    pub fn standing(self, answer: &OperationAnswer) -> impl Iterator<Item = Record> {
        let is_won = |place: usize| matches!(answer.results.get(place), Some(OperationResult::Won { .. }));
        self.0.into_iter().filter(move |(place, _)| is_won(*place)).map(|(_, record)| record)
    }
}

#[cfg(test)]
mod tests {
    use foresail_schemas::decision::Decision;
    use foresail_schemas::run::{Commit, Measured, RunStatus};

    use super::*;

    #[test]
    fn only_a_commit_that_stands_has_decided() {
        let workflow: Workflow = serde_json::from_value(serde_json::json!({"name": "w", "tasks": [
            {"id": "d", "name": "split", "run": "true", "decision": "out"},
            {"id": "e", "name": "other", "run": "true"},
        ]}))
        .unwrap();
        let commit = |task: u32, decision: Option<Decision>| Operation::Commit {
            task,
            commit: Commit {
                printed: None,
                attempt: 1,
                instance: "i".parse().unwrap(),
                outputs: Vec::new(),
                measured: Measured { input_bytes: 7, ..Measured::default() },
                decision,
            },
            assuming: Vec::new(),
        };
        let operations = [commit(1, None), commit(0, Some(Decision::Width(3)))];
        let won = OperationResult::Won { ready: Vec::new(), skipped: Vec::new() };
        let answer = |result: OperationResult| OperationAnswer {
            status: RunStatus::Running,
            plan_epoch: 1,
            results: vec![won.clone(), result],
        };
        let decided = || Decided::of(&workflow, &operations);
        let records: Vec<Record> = decided().standing(&answer(won.clone())).collect();
        let [Record::Decision(record)] = &records[..] else { panic!("{records:?}") };
        assert_eq!((record.task.as_str(), record.input_bytes), ("split", 7));
        assert_eq!(record.value, Decision::Width(3));
        assert_eq!(decided().standing(&answer(OperationResult::RunOver)).count(), 0);
        assert!(Decided::of(&workflow, &operations[..1]).is_empty());
    }
}
