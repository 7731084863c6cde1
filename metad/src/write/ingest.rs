//! Batches on the writer's side: recognise repeated ones, number the others, keep what retention allows.

use std::collections::{BTreeSet, HashMap};

use foresail_schemas::metric::BatchAnswer;
use foresail_schemas::{ErrorCode, Problem};

use super::learn::Learnt;
use super::{Group, Ingest, Reply};
use crate::meter::{Meter, add};
use crate::settings::Settings;
use crate::shared::Shared;
use crate::store::StoreError;
use crate::store::batch_ids::Receipt;
use crate::store::batches::StoredBatch;
use crate::store::models::Piece;
use crate::store::workflows::WorkflowRow;

/// Most batches or ids of one workflow that retention drops in one group; what is left goes with the next
/// ones.
const DROPS_PER_GROUP_MAX: usize = 1024;

/// The workflows as the writer knows them.
#[derive(Debug, Default)]
pub struct Catalog {
    rows: Vec<WorkflowRow>,
    numbers: HashMap<String, u32>,
    /// By workflow: the batch up to which a stored checkpoint knows everything. Retention must not go beyond
    /// it, or a crash would lose what was learnt from younger batches.
    saved: Vec<u64>,
    /// Epoch of the last group with batches.
    epoch: u64,
    changed: BTreeSet<u32>,
}

impl Catalog {
    /// The catalog found in the store, with the sequences that the checkpoints contain.
    #[must_use]
    pub fn new(rows: Vec<WorkflowRow>, saved: Vec<u64>) -> Self {
        let numbers = rows.iter().zip(0..).map(|(row, n)| (row.name.clone(), n)).collect();
        let epoch = rows.iter().map(|r| r.epoch).max().unwrap_or(0);
        Self { rows, numbers, saved, epoch, changed: BTreeSet::new() }
    }

    /// Stores a batch, unless it was stored before.
    pub(super) fn ingest(
        &mut self,
        batch: Ingest,
        reply: Reply<BatchAnswer>,
        group: &mut Group,
        shared: &Shared,
    ) -> Result<(), StoreError> {
        let workflow = match self.number(batch.workflow.as_str(), &shared.settings) {
            Ok(number) => number,
            Err(problem) => {
                group.answer(reply, Err(problem));
                return Ok(());
            }
        };
        if let Some(first) = group.writes()?.receipt(workflow, batch.batch_id.as_str())? {
            add(&shared.meter.duplicates, 1);
            let (accepted, rejected) = (first.accepted, first.rejected);
            let answer = BatchAnswer { accepted, duplicate: true, rejected, epoch: 0 };
            group.lesson.answers.push((reply, answer, workflow));
            return Ok(());
        }
        let answer = self.store(workflow, batch, group, shared)?;
        group.lesson.answers.push((reply, answer, workflow));
        Ok(())
    }

    fn number(&mut self, name: &str, settings: &Settings) -> Result<u32, Problem> {
        if let Some(&number) = self.numbers.get(name) {
            return Ok(number);
        }
        let limit = settings.workflows_max;
        if self.rows.len() as u64 >= limit {
            let detail = format!("workflow `{name}` would be one too many, {limit} workflows are kept");
            return Err(Problem::new(ErrorCode::TooMany, detail).with_limit(limit));
        }
        let number = self.rows.len() as u32;
        self.rows.push(WorkflowRow::new(name));
        self.saved.push(0);
        self.numbers.insert(name.to_owned(), number);
        Ok(number)
    }

    fn store(
        &mut self,
        workflow: u32,
        batch: Ingest,
        group: &mut Group,
        shared: &Shared,
    ) -> Result<BatchAnswer, StoreError> {
        let (meter, ids_max) = (&shared.meter, shared.settings.workflow_batch_ids_max);
        match batch.place {
            // Replicas group as they are busy; the place in the log is the same for all.
            Some(place) => self.epoch = self.epoch.max(place),
            None if self.changed.is_empty() => self.epoch += 1,
            None => {}
        }
        self.changed.insert(workflow);
        let row = &mut self.rows[workflow as usize];
        let writes = group.writes()?;
        let sequence = row.next_sequence;
        let accepted = batch.records.len() as u64;
        for record in batch.quarantined() {
            writes.put_quarantined(workflow, row.next_quarantined, &record)?;
            row.next_quarantined += 1;
            row.quarantined_kept += 1;
        }
        let rejected: Vec<_> = batch.rejected.iter().map(|(r, _)| r.clone()).collect();
        let receipt = Receipt { accepted, rejected };
        writes.put_receipt(workflow, sequence, batch.batch_id.as_str(), &receipt)?;
        let stored = StoredBatch {
            batch_id: batch.batch_id.as_str().to_owned(),
            run: batch.run.map(String::from),
            worker: batch.worker.map(String::from),
            arrival: batch.arrival,
            records: batch.records,
        };
        if accepted > 0 {
            writes.put_batch(workflow, sequence, &stored)?;
        }
        row.next_sequence += 1;
        row.batches += 1;
        row.ids_kept += 1;
        // Which ids are known must not depend on how a replica groups.
        if batch.place.is_some() && row.ids_kept > ids_max && writes.drop_oldest_receipt(workflow)? {
            row.ids_kept -= 1;
        }
        row.accepted += accepted;
        row.records_kept += accepted;
        row.rejected += receipt.rejected.len() as u64;
        row.epoch = self.epoch;
        add(&meter.batches, 1);
        add(&meter.accepted, accepted);
        add(&meter.rejected, receipt.rejected.len() as u64);
        let learnt = Learnt { workflow, sequence, arrival: stored.arrival, records: stored.records };
        group.lesson.batches.push(learnt);
        Ok(BatchAnswer { accepted, duplicate: false, rejected: receipt.rejected, epoch: 0 })
    }

    /// Writes the rows that changed, after retention.
    pub(super) fn write(&mut self, group: &mut Group, settings: &Settings) -> Result<(), StoreError> {
        for workflow in std::mem::take(&mut self.changed) {
            let row = &mut self.rows[workflow as usize];
            let saved = self.saved[workflow as usize];
            let writes = group.writes()?;
            for _ in 0..DROPS_PER_GROUP_MAX {
                if row.records_kept <= settings.workflow_records_max {
                    break;
                }
                let Some(records) = writes.drop_oldest_batch(workflow, saved)? else { break };
                row.records_kept = row.records_kept.saturating_sub(records);
            }
            for _ in 0..DROPS_PER_GROUP_MAX {
                if row.ids_kept <= settings.workflow_batch_ids_max || !writes.drop_oldest_receipt(workflow)? {
                    break;
                }
                row.ids_kept -= 1;
            }
            if row.quarantined_kept > settings.workflow_quarantine_max {
                let first_kept = row.next_quarantined.saturating_sub(settings.workflow_quarantine_max);
                writes.drop_quarantined(workflow, first_kept.saturating_sub(1))?;
                row.quarantined_kept = settings.workflow_quarantine_max;
            }
            writes.put_workflow(workflow, row)?;
            group.lesson.rows.insert(workflow, row.clone());
        }
        Ok(())
    }

    /// Writes a piece of a model's checkpoint.
    pub(super) fn write_piece(
        &mut self,
        piece: Option<Piece>,
        group: &mut Group,
        meter: &Meter,
    ) -> Result<(), StoreError> {
        let Some(piece) = piece else { return Ok(()) };
        group.writes()?.put_piece(&piece)?;
        if let Some(rest) = piece.rest {
            self.saved[piece.workflow as usize] = rest.sequence;
            add(&meter.checkpoints, 1);
        }
        Ok(())
    }
}
