//! The model's part: it learns and answers exactly as in the daemon.

use std::collections::BTreeMap;
use std::sync::Arc;

use foresail_schemas::TaskName;
use foresail_schemas::metric::{Direction, Record, TaskRecord, TransferRecord};
use foresail_schemas::prediction::Query;
use jiff::Timestamp;

use super::score::Board;
use super::split::Split;
use super::{Case, QUANTILES, Quantity, Table};
use crate::model::WorkflowModel;
use crate::predictor::Predictor;

/// Asks the model about every trial.
pub fn judge_model(table: &Table, split: &Split, board: &mut Board) {
    // Numbers instead of the names of the rows, which need not be names that the model takes.
    let name = |place| TaskName::new(format!("t{place}")).expect("a letter and digits are a legal name");
    let names: Vec<TaskName> = (0..table.tasks.len()).map(name).collect();
    let mut base: Option<(Arc<Vec<usize>>, WorkflowModel)> = None;
    for (turn, trial) in split.trials.iter().enumerate() {
        let former = base.take().filter(|(rows, _)| Arc::ptr_eq(rows, &trial.base));
        let known = former.unwrap_or_else(|| {
            let mut model = WorkflowModel::new();
            learn(&mut model, table, &names, &trial.base);
            // Fitted here, so that each trial fits what it adds only.
            model.snapshot();
            (Arc::clone(&trial.base), model)
        });
        let mut model = known.1.clone();
        base = Some(known);
        learn(&mut model, table, &names, &trial.learn);
        let predictor = model.snapshot();
        let mut answers = BTreeMap::new();
        for place in &trial.ask {
            let case = &table.cases[*place];
            let answer =
                answers.entry(case.cell()).or_insert_with(|| ask(&predictor, table.quantity, &names, case));
            if let Some(values) = answer {
                board.add(&table.tasks[case.task], (turn, case.question()), values, case.value);
            }
        }
    }
}

fn learn(model: &mut WorkflowModel, table: &Table, names: &[TaskName], rows: &[usize]) {
    for place in rows {
        let case = &table.cases[*place];
        let at = Timestamp::from_second(i64::from(case.order)).unwrap_or(Timestamp::UNIX_EPOCH);
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
