//! The start: bring models and runs back from the store.
//!
//! Models: the last checkpoint, then every raw batch after it, in order. Runs that have not ended: all their
//! events, then new leases for everybody, because heartbeats of the meantime are not known.

use std::collections::BTreeSet;
use std::sync::Arc;

use foresail_model::WorkflowModel;
use foresail_schemas::id::WorkflowName;
use foresail_schemas::run::RunStatus;

use crate::board::{Board, Boards, RunClock};
use crate::store::workflows::WorkflowRow;
use crate::store::{ReadView, StoreError, StoreReader};
use crate::world::{View, World};
use crate::write::{Catalog, Model, Runs, recover_run};

/// Batches read at once when they are replayed.
const REPLAY_BATCHES: usize = 256;

/// Everything that was brought back.
pub struct Recovered {
    /// What predictions are answered from.
    pub world: World,
    /// The runs as others see them.
    pub boards: Boards,
    /// The workflows for the writer.
    pub catalog: Catalog,
    /// The models for the learner.
    pub models: Vec<Model>,
    /// The runs for the writer.
    pub runs: Runs,
}

/// Brings everything back.
///
/// # Errors [`StoreError`] when the database fails or the list of workflows is damaged. A damaged batch,
/// checkpoint or run is logged and left out.
pub fn recover(store: &StoreReader) -> Result<Recovered, StoreError> {
    let view = store.view()?;
    let rows = view.workflows()?;
    let (mut views, mut models, mut saved) = (Vec::new(), Vec::new(), Vec::new());
    for (row, number) in rows.iter().zip(0..) {
        let (mut model, checkpoint) = recover_model(&view, number, row)?;
        let name = WorkflowName::new(&row.name).map_err(|e| StoreError::Corrupt {
            table: "workflows",
            key: number.to_string(),
            reason: e.to_string(),
        })?;
        views.push(Arc::new(View { name, number, row: row.clone(), predictor: model.model.snapshot() }));
        models.push(model);
        saved.push(checkpoint);
    }
    let (boards, runs) = recover_runs(&view)?;
    tracing::info!(workflows = views.len(), runs = boards.len(), "the store is read");
    Ok(Recovered { world: World::new(views), boards, catalog: Catalog::new(rows, saved), models, runs })
}

fn recover_model(view: &ReadView, number: u32, row: &WorkflowRow) -> Result<(Model, u64), StoreError> {
    let (mut model, checkpoint) = match view.checkpoint(number)? {
        None => (WorkflowModel::new(), 0),
        Some(checkpoint) => match postcard::from_bytes(&checkpoint.model) {
            Ok(model) => (model, checkpoint.sequence),
            Err(error) => {
                tracing::warn!(workflow = row.name, %error, "no checkpoint to use, learning anew");
                (WorkflowModel::new(), 0)
            }
        },
    };
    let (mut sequence, mut unsaved) = (checkpoint, 0);
    loop {
        let batches = view.batches_after(number, sequence, REPLAY_BATCHES)?;
        let Some((last, _)) = batches.last() else { break };
        sequence = *last;
        for (at, batch) in batches {
            match batch {
                Ok(batch) => {
                    unsaved += batch.records.len() as u64;
                    batch.records.iter().for_each(|record| model.update(record, batch.arrival));
                }
                Err(error) => {
                    tracing::error!(workflow = row.name, at, %error, "a damaged batch is left out");
                }
            }
        }
    }
    Ok((Model::new(model, sequence, unsaved), checkpoint))
}

fn recover_runs(view: &ReadView) -> Result<(Boards, Runs), StoreError> {
    let (mut boards, mut live, mut finished) = (Boards::new(), Vec::new(), BTreeSet::new());
    for stored in view.runs()? {
        let stored = match stored {
            Ok(stored) => stored,
            Err(error) => {
                tracing::error!(%error, "a damaged run is left out");
                continue;
            }
        };
        let (number, id) = (stored.number, stored.header.run.clone());
        if let Some(end) = stored.end.filter(|end| end.status != RunStatus::Running) {
            let clock = RunClock::at(end.elapsed_ms);
            boards.insert(id.clone(), Arc::new(Board::new(number, stored.header.options, clock, end)));
            finished.insert((number, id));
            continue;
        }
        match recover_run(view, number, stored.header) {
            Ok(run) => {
                boards.insert(id, Arc::clone(&run.board));
                live.push(run);
            }
            Err(error) => tracing::error!(run = %id, %error, "a damaged run is left out"),
        }
    }
    Ok((boards, Runs::new(live, finished, view.last_run_number()?)))
}
