//! The start: bring models and runs back from the store.
//!
//! Models: the last checkpoint, then every raw batch after it, in order; nothing is fitted. A row of a
//! checkpoint that cannot be read costs what only it knows: it is left out, named in the log and counted
//! (`foresail_metad_model_rows_damaged`), and what it is about is learnt anew from the batches that retention
//! still keeps. Runs that have not ended: all their events, then new leases for everybody, because heartbeats
//! of the meantime are not known.

use std::collections::{BTreeSet, HashMap, HashSet};
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
    /// Rows of checkpoints that could not be read.
    pub damaged_rows: u64,
}

/// Brings everything back.
///
/// # Errors
/// [`StoreError`] when the database fails or the list of workflows is damaged. A damaged batch,
/// checkpoint or run is logged and left out.
pub fn recover(store: &StoreReader) -> Result<Recovered, StoreError> {
    let view = store.view()?;
    let rows = view.workflows()?;
    let (mut workflows, mut models, mut saved, mut damaged_rows) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for (row, number) in rows.iter().zip(0..) {
        let Rebuilt { mut model, checkpoint, damaged } = recover_model(&view, number, row)?;
        damaged_rows += damaged;
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
    let (world, catalog) = (World::new(workflows), Catalog::new(rows, saved));
    Ok(Recovered { world, boards, catalog, models, runs, damaged_rows })
}

/// A model as its checkpoint has it.
#[derive(Default)]
struct Found {
    model: WorkflowModel,
    /// Every batch up to this one is in it, but for what the damaged rows had.
    sequence: u64,
    /// Tasks that contain younger batches too, up to these.
    younger: HashMap<TaskName, u64>,
    /// Tasks whose rows cannot be read.
    lost: HashSet<TaskName>,
    damaged: u64,
}

/// A model as it goes on.
struct Rebuilt {
    model: Model,
    /// The batch up to which its checkpoint can be relied on.
    checkpoint: u64,
    damaged: u64,
}

fn recover_model(view: &ReadView, number: u32, row: &WorkflowRow) -> Result<Rebuilt, StoreError> {
    let (found, former) = match read_checkpoint(view, number, row)? {
        Some(found) => (found, Former::Kept),
        None => (Found::default(), Former::Dropped),
    };
    let Found { mut model, sequence: checkpoint, younger, lost, damaged } = found;
    // What only the lost rows had may be in any batch that is kept.
    let mut sequence = if lost.is_empty() { checkpoint } else { 0 };
    let mut unsaved = 0;
    loop {
        let batches = view.batches_after(number, sequence, REPLAY_BATCHES)?;
        let Some((last, _)) = batches.last() else { break };
        sequence = *last;
        for (at, batch) in batches {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    tracing::error!(workflow = row.name, at, %error, "a damaged batch is left out");
                    continue;
                }
            };
            for record in &batch.records {
                let task = if let Record::Task(r) = record { Some(&r.task) } else { None };
                if at > checkpoint {
                    unsaved += 1;
                    match task.and_then(|task| younger.get(task)) {
                        Some(known) if *known >= at => {
                            model.count(record, batch.arrival);
                        }
                        _ => model.update(record, batch.arrival),
                    }
                } else if task.is_some_and(|task| lost.contains(task)) {
                    unsaved += 1;
                    model.relearn(record, batch.arrival);
                }
            }
        }
    }
    let model = Model::new(model, sequence.max(checkpoint), unsaved, former);
    Ok(Rebuilt { model, checkpoint, damaged })
}

/// The checkpoint of a workflow without the rows that cannot be read; nothing where there is none.
fn read_checkpoint(view: &ReadView, number: u32, row: &WorkflowRow) -> Result<Option<Found>, StoreError> {
    let Some(rest) = view.saved_rest(number)? else { return Ok(None) };
    let damaged = |table: &str, task: &str, reason: &str| {
        tracing::error!(
            workflow = row.name,
            table,
            task,
            reason,
            "a row of a model cannot be read and is left out until the next checkpoint replaces it; \
             what it knew is learnt anew from the batches that are kept"
        );
    };
    let mut found = Found { sequence: rest.sequence, ..Found::default() };
    let rest: SavedRest = postcard::from_bytes(&rest.part).unwrap_or_else(|error| {
        damaged("models", "", &error.to_string());
        found.damaged += 1;
        // Of every task it is known up to which batch it was told; all else is learnt anew.
        found.sequence = 0;
        WorkflowModel::new().rest()
    });
    let mut tasks = Vec::new();
    view.saved_tasks(number, |name, saved| {
        let key = TaskName::new(name).ok();
        let read = match (&key, saved) {
            (None, _) => Err("its name is none".to_owned()),
            (_, None) => Err("unknown version".to_owned()),
            (Some(_), Some((at, part))) => {
                postcard::from_bytes::<SavedTask>(part).map(|task| (at, task)).map_err(|e| e.to_string())
            }
        };
        match (key, read) {
            (Some(name), Ok((at, task))) => {
                if at > found.sequence {
                    found.younger.insert(name.clone(), at);
                }
                tasks.push((name, task));
            }
            (key, Err(reason)) => {
                damaged("model_tasks", name, &reason);
                found.damaged += 1;
                found.lost.extend(key);
            }
            (None, Ok(_)) => {}
        }
    })?;
    found.model = WorkflowModel::from_saved(rest, tasks.into_iter());
    Ok(Some(found))
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
