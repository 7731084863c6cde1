//! The start: bring models and runs back from the store.
//!
//! Models: the last checkpoint, then every raw batch after it, in order; nothing is fitted. Runs that have
//! not ended: all their events, then new leases for everybody, because heartbeats of the meantime are not
//! known.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use foresail_model::{SavedRest, SavedTask, WorkflowModel};
use foresail_schemas::TaskName;
use foresail_schemas::id::WorkflowName;
use foresail_schemas::metric::Record;
use foresail_schemas::run::RunStatus;

use crate::board::{Board, Boards, RunClock};
use crate::store::models::Former;
use crate::store::workflows::WorkflowRow;
use crate::store::{ReadView, StoreError, StoreReader};
use crate::world::{Update, View, World};
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
    let (mut workflows, mut models, mut saved) = (Vec::new(), Vec::new(), Vec::new());
    for (row, number) in rows.iter().zip(0..) {
        let (mut model, checkpoint) = recover_model(&view, number, row)?;
        let name = WorkflowName::new(&row.name).map_err(|e| StoreError::Corrupt {
            table: "workflows",
            key: number.to_string(),
            reason: e.to_string(),
        })?;
        let (new_tasks, predictor) = (model.model.take_new(), model.model.snapshot());
        let view = Arc::new(View { name, number, row: row.clone(), predictor });
        workflows.push(Update { view, new_tasks });
        models.push(model);
        saved.push(checkpoint);
    }
    let (boards, runs) = recover_runs(&view)?;
    tracing::info!(workflows = workflows.len(), runs = boards.len(), "the store is read");
    Ok(Recovered { world: World::new(workflows), boards, catalog: Catalog::new(rows, saved), models, runs })
}

/// A model as its checkpoint has it.
#[derive(Default)]
struct Found {
    model: WorkflowModel,
    /// Every batch up to this one is in it.
    sequence: u64,
    /// Tasks that contain younger batches too, up to these.
    younger: HashMap<TaskName, u64>,
}

fn recover_model(view: &ReadView, number: u32, row: &WorkflowRow) -> Result<(Model, u64), StoreError> {
    let mut former = Former::Kept;
    let Found { mut model, sequence: checkpoint, younger } = match read_checkpoint(view, number) {
        Ok(found) => found.unwrap_or_else(|| {
            former = Former::Dropped;
            Found::default()
        }),
        Err(StoreError::Corrupt { table, key, reason }) => {
            tracing::warn!(workflow = row.name, table, key, reason, "no checkpoint to use, learning anew");
            former = Former::Dropped;
            Found::default()
        }
        Err(error) => return Err(error),
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
                    for record in &batch.records {
                        match record {
                            Record::Task(r) if younger.get(&r.task).is_some_and(|known| *known >= at) => {
                                model.count(record, batch.arrival);
                            }
                            record => model.update(record, batch.arrival),
                        }
                    }
                }
                Err(error) => {
                    tracing::error!(workflow = row.name, at, %error, "a damaged batch is left out");
                }
            }
        }
    }
    Ok((Model::new(model, sequence, unsaved, former), checkpoint))
}

fn read_checkpoint(view: &ReadView, number: u32) -> Result<Option<Found>, StoreError> {
    let Some(rest) = view.saved_rest(number)? else { return Ok(None) };
    let sequence = rest.sequence;
    let rest: SavedRest = postcard::from_bytes(&rest.part).map_err(|e| StoreError::Corrupt {
        table: "models",
        key: number.to_string(),
        reason: e.to_string(),
    })?;
    let (mut tasks, mut younger) = (Vec::new(), HashMap::new());
    view.saved_tasks(number, |name, at, part| {
        let name = TaskName::new(name).map_err(|e| e.to_string())?;
        let task: SavedTask = postcard::from_bytes(part).map_err(|e| e.to_string())?;
        if at > sequence {
            younger.insert(name.clone(), at);
        }
        tasks.push((name, task));
        Ok(())
    })?;
    Ok(Some(Found { model: WorkflowModel::from_saved(rest, tasks.into_iter()), sequence, younger }))
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
