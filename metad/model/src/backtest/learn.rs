//! The model's part: it learns and answers exactly as in the daemon.
//!
//! Tasks taken for stores share a model as long as it keeps that many stores; the answers about one store do
//! not depend on the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use foresail_schemas::TaskName;
use foresail_schemas::metric::{Direction, Record, TaskRecord, TransferRecord};
use foresail_schemas::prediction::Query;
use jiff::Timestamp;

use super::score::Board;
use super::split::Trial;
use super::{Case, QUANTILES, Quantity, Table};
use crate::model::WorkflowModel;
use crate::predictor::Predictor;
use crate::transfer::STORES_MAX;

/// The model over all trials.
pub struct ModelJudge {
    names: Vec<TaskName>,
    /// What it knew before the last trial, with the rows that taught it.
    base: Option<(Arc<Vec<usize>>, Models)>,
}

/// Models by group of tasks.
type Models = BTreeMap<usize, WorkflowModel>;

fn group(case: &Case, quantity: Quantity) -> usize {
    if quantity == Quantity::TransferTime { case.task / STORES_MAX } else { 0 }
}

impl ModelJudge {
    /// One that knows nothing.
    pub fn new(table: &Table) -> Self {
        // Numbers instead of the names of the rows, which need not be names that the model takes.
        let name = |place| TaskName::new(format!("t{place}")).expect("a letter and digits are a legal name");
        Self { names: (0..table.tasks.len()).map(name).collect(), base: None }
    }

    /// Asks about one trial, after `learned` and its base.
    pub fn judge(&mut self, table: &Table, turn: usize, trial: &Trial, learned: &[usize], board: &mut Board) {
        let names = &self.names;
        let former = self.base.take().filter(|(rows, _)| Arc::ptr_eq(rows, &trial.base));
        let known = former.unwrap_or_else(|| {
            let mut models = Models::new();
            learn(&mut models, table, names, &trial.base);
            // Fitted here, so that each trial fits what it adds only.
            models.values_mut().for_each(|model| drop(model.snapshot()));
            (Arc::clone(&trial.base), models)
        });
        let mut models = known.1.clone();
        self.base = Some(known);
        learn(&mut models, table, names, learned);
        let predictors: BTreeMap<usize, _> =
            models.iter_mut().map(|(n, model)| (*n, model.snapshot())).collect();
        let mut answers = BTreeMap::new();
        for place in &trial.ask {
            let case = &table.cases[*place];
            let Some(predictor) = predictors.get(&group(case, table.quantity)) else { continue };
            let answer =
                answers.entry(case.cell()).or_insert_with(|| ask(predictor, table.quantity, names, case));
            if let Some(values) = answer {
                board.add(&table.tasks[case.task], (turn, case.question()), values, case.value);
            }
        }
    }
}

fn learn(models: &mut Models, table: &Table, names: &[TaskName], rows: &[usize]) {
    for place in rows {
        let case = &table.cases[*place];
        let at = Timestamp::from_second(i64::from(case.order)).unwrap_or(Timestamp::UNIX_EPOCH);
        let model = models.entry(group(case, table.quantity)).or_default();
        model.update(&record(case, table.quantity, names), at);
    }
}

fn record(case: &Case, quantity: Quantity, names: &[TaskName]) -> Record {
    let (memory_mb, vcpu) = (case.memory_mb, case.vcpu);
    if quantity == Quantity::TransferTime {
        return Record::Transfer(TransferRecord {
            direction: Direction::Download,
            bytes: case.input_bytes,
            time_ms: case.value,
            memory_mb,
            vcpu,
            store: Some(names[case.task].clone()),
            at: None,
        });
    }
    let is_size = quantity == Quantity::OutputSize;
    Record::Task(TaskRecord {
        task: names[case.task].clone(),
        memory_mb,
        vcpu,
        input_bytes: case.input_bytes,
        output_bytes: is_size.then_some(case.value as u64),
        exec_ms: if is_size { 0.0 } else { case.value },
        peak_memory_mb: None,
        attempt: 1,
        at: None,
        forecast: None,
    })
}

fn ask(
    predictor: &Predictor,
    quantity: Quantity,
    names: &[TaskName],
    case: &Case,
) -> Option<[f64; QUANTILES.len()]> {
    let (task, input_bytes) = (names[case.task].clone(), case.input_bytes);
    let (memory_mb, vcpu) = (case.memory_mb, case.vcpu);
    let query = match quantity {
        Quantity::ExecutionTime => Query::ExecutionTime { task, input_bytes, memory_mb, vcpu },
        Quantity::OutputSize => Query::OutputSize { task, input_bytes },
        Quantity::TransferTime => Query::TransferTime {
            direction: Direction::Download,
            bytes: input_bytes,
            memory_mb,
            vcpu,
            store: Some(task),
        },
    };
    let values = predictor.predict(&query, &QUANTILES).values;
    let mut found = [0.0; QUANTILES.len()];
    for (place, sla) in QUANTILES.iter().enumerate() {
        found[place] = values.get(sla).copied().flatten()?;
    }
    Some(found)
}
