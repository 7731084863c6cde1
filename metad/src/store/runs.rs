//! Runs: their headers, the index of their ids, and the last summary of those that ended.
//!
//! Table `runs`: run number (u64, from 1, in order of creation) -> JSON of [`RunHeader`].
//! Table `run_ids`: run id -> run number.
//! Table `run_ends`: run number -> JSON of `RunSummary`; there only when the run has ended, and rewritten
//! when a worker reports its use after the end. A run with no row here is brought back at the start by
//! replaying its events.

use foresail_schemas::id::WorkflowName;
use foresail_schemas::plan::PlanSummary;
use foresail_schemas::run::{Resume, RunOptions, RunSummary};
use foresail_schemas::{RunId, TaskName};
use jiff::Timestamp;
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::change::Change;
use super::{ReadView, Result, WriteGroup, blobs, corrupt, documents, run_events};

const NAME: &str = "runs";
const HEADERS: TableDefinition<u64, &[u8]> = TableDefinition::new(NAME);
const IDS: TableDefinition<&[u8], u64> = TableDefinition::new("run_ids");
const ENDS: TableDefinition<u64, &[u8]> = TableDefinition::new("run_ends");

/// What a run is, apart from its workflow, its plans and its events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunHeader {
    /// Its id.
    pub run: RunId,
    /// Its workflow.
    pub workflow: WorkflowName,
    /// Tasks in all.
    pub tasks: u64,
    /// When it was created.
    pub created_at: Timestamp,
    /// Limits and intervals.
    pub options: RunOptions,
    /// Who made the plan in force.
    pub planner: TaskName,
    /// What the plan in force predicts.
    pub predicted: PlanSummary,
    /// The run whose results it took over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
}

/// A run as found at the start.
#[derive(Debug)]
pub struct StoredRun {
    /// Its number.
    pub number: u64,
    /// Its header.
    pub header: RunHeader,
    /// Its last summary, when it has ended.
    pub end: Option<RunSummary>,
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("numbers and text always have a JSON form")
}

fn decode<T: for<'de> Deserialize<'de>>(key: u64, value: &[u8]) -> Result<T> {
    serde_json::from_slice(value).map_err(|e| corrupt(NAME, key, e))
}

pub(super) fn prepare(group: &WriteTransaction) -> Result<()> {
    group.open_table(HEADERS)?;
    group.open_table(IDS)?;
    group.open_table(ENDS)?;
    Ok(())
}

pub(super) fn put(transaction: &WriteTransaction, number: u64, run: &[u8], header: &[u8]) -> Result<()> {
    transaction.open_table(HEADERS)?.insert(number, header)?;
    transaction.open_table(IDS)?.insert(run, number)?;
    Ok(())
}

pub(super) fn put_end(transaction: &WriteTransaction, number: u64, summary: &[u8]) -> Result<()> {
    transaction.open_table(ENDS)?.insert(number, summary)?;
    Ok(())
}

pub(super) fn drop(transaction: &WriteTransaction, number: u64, run: &[u8]) -> Result<()> {
    transaction.open_table(HEADERS)?.remove(number)?;
    transaction.open_table(IDS)?.remove(run)?;
    transaction.open_table(ENDS)?.remove(number)?;
    documents::drop_all(transaction, number)?;
    run_events::drop_all(transaction, number)?;
    blobs::drop_all(transaction, number)
}

fn header_in(table: &impl ReadableTable<u64, &'static [u8]>, number: u64) -> Result<Option<RunHeader>> {
    table.get(number)?.map(|v| decode(number, v.value())).transpose()
}

impl ReadView {
    /// Every run, in order of creation. One that cannot be read comes as its error.
    ///
    /// # Errors
    /// [`super::StoreError`] when the database fails.
    pub fn runs(&self) -> Result<Vec<Result<StoredRun>>> {
        let (headers, ends) = (self.0.open_table(HEADERS)?, self.0.open_table(ENDS)?);
        let mut runs = Vec::new();
        for entry in headers.iter()? {
            let (key, value) = entry?;
            let number = key.value();
            let end = ends.get(number)?;
            let run = decode(number, value.value()).and_then(|header| {
                let end = end.map(|v| decode(number, v.value())).transpose()?;
                Ok(StoredRun { number, header, end })
            });
            runs.push(run);
        }
        Ok(runs)
    }

    /// The header of a run.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn run_header(&self, number: u64) -> Result<Option<RunHeader>> {
        header_in(&self.0.open_table(HEADERS)?, number)
    }

    /// The largest run number ever given, 0 where there was none.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn last_run_number(&self) -> Result<u64> {
        let table = self.0.open_table(HEADERS)?;
        Ok(table.last()?.map_or(0, |(key, _)| key.value()))
    }
}

impl WriteGroup {
    /// The header of a run, as far as this group knows.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn run_header(&self, number: u64) -> Result<Option<RunHeader>> {
        header_in(&self.transaction()?.open_table(HEADERS)?, number)
    }

    /// Writes the header of a run.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn put_run(&self, number: u64, header: &RunHeader) -> Result<()> {
        let (run, header) = (header.run.as_str().as_bytes(), &encode(header));
        self.make(Change::PutRun { number, run, header })
    }

    /// Writes the last summary of a run that has ended.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn put_run_end(&self, number: u64, summary: &RunSummary) -> Result<()> {
        self.make(Change::PutRunEnd { number, summary: &encode(summary) })
    }

    /// Removes a run and all that belongs to it.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn drop_run(&self, number: u64, run: &RunId) -> Result<()> {
        self.make(Change::DropRun { number, run: run.as_str().as_bytes() })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use foresail_schemas::examples::run_begun;
    use foresail_schemas::run::RunStatus;
    use proptest::prelude::*;

    use super::*;
    use crate::store::run_events::tests::texts;
    use crate::store::testing;

    pub fn header(run: &str, makespan_ms: f64) -> RunHeader {
        RunHeader {
            run: RunId::new(run).unwrap(),
            workflow: WorkflowName::new("w").unwrap(),
            tasks: 3,
            created_at: Timestamp::from_millisecond(1_700_000_000_123).unwrap(),
            options: RunOptions::default(),
            planner: TaskName::new("simple").unwrap(),
            resume: None,
            predicted: PlanSummary { makespan_ms, ..PlanSummary::default() },
        }
    }

    fn summary(header: &RunHeader, elapsed_ms: f64) -> RunSummary {
        RunSummary {
            run: header.run.clone(),
            workflow: header.workflow.clone(),
            status: RunStatus::Completed,
            created_at: header.created_at,
            planner: header.planner.clone(),
            tasks: 3,
            committed: 3,
            elapsed_ms,
            predicted: header.predicted,
            last_event: 9,
            ..run_begun()
        }
    }

    proptest! {
        #[test]
        fn headers_and_summaries_round_trip(
            run in "[a-z0-9_]{1,30}", number in any::<u64>(), ms in 0.0f64..1e15,
        ) {
            let header = header(&run, ms);
            let end = summary(&header, ms);
            prop_assert_eq!(decode::<RunHeader>(number, &encode(&header)).unwrap(), header);
            prop_assert_eq!(decode::<RunSummary>(number, &encode(&end)).unwrap(), end);
        }
    }

    #[test]
    fn a_dropped_run_leaves_nothing_behind() {
        let (writer, reader) = testing::in_memory();
        let (first, second) = (header("r-1", 1.0), header("r-2", 2.0));
        let group = writer.begin().unwrap();
        for (number, header) in [(1, &first), (2, &second)] {
            group.put_run(number, header).unwrap();
            group.put_run_end(number, &summary(header, 5.0)).unwrap();
            group.put_workflow_document(number, b"{}").unwrap();
            group.put_plan_document(number, 1, b"{}").unwrap();
            group.put_events(number, &texts(1..=3)).unwrap();
            group.put_blob(number, "a", b"xy", 99).unwrap();
        }
        group.drop_run(1, &first.run).unwrap();
        group.commit().unwrap();
        let view = reader.view().unwrap();
        let runs: Vec<_> = view.runs().unwrap().into_iter().map(|r| r.unwrap().number).collect();
        assert_eq!(runs, [2]);
        assert!(view.run_header(1).unwrap().is_none());
        assert!(view.workflow_document(1).unwrap().is_none() && view.plan_document(1, 1).unwrap().is_none());
        assert!(view.blob(1, "a").unwrap().is_none() && view.blob(2, "a").unwrap().is_some());
        assert!(view.events_after(1, 0, 9).unwrap().is_empty());
        assert_eq!(view.events_after(2, 0, 9).unwrap().len(), 3);
        assert_eq!(view.last_run_number().unwrap(), 2);
    }
}
