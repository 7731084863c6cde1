//! One row for all measurements of the same task, worker and input size: their median.
//!
//! Single measurements scatter, and no prediction follows that; medians show how well the model knows the
//! task. Published errors of models are mostly of this kind. Pure; the same for the same rows.

use std::collections::HashMap;

use super::Row;
use crate::stats::{Weighted, median};

/// The rows folded, in the order of the first of each; output sizes by their median too.
///
/// A blank counts as a value of its own. The run is that of the first row, so that runs named `train…` and
/// `test` stay apart as far as their inputs do.
#[must_use]
pub fn medians(rows: &[Row]) -> Vec<Row> {
    let mut places = HashMap::new();
    let mut groups: Vec<Vec<&Row>> = Vec::new();
    for row in rows {
        let worker = (row.memory_mb, row.vcpu.map(f64::to_bits));
        let place =
            *places.entry((&row.workflow, &row.task, worker, row.input_bytes)).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(row),
            None => groups.push(vec![row]),
        }
    }
    let of = |group: Vec<&Row>| {
        let values = |value: fn(&Row) -> Option<f64>| -> Option<f64> {
            let mut known: Vec<Weighted> =
                group.iter().filter_map(|row| value(row)).map(|value| (value, 1.0)).collect();
            (!known.is_empty()).then(|| median(&mut known))
        };
        let exec_ms = values(|row| Some(row.exec_ms)).unwrap_or_default();
        let output_bytes = values(|row| row.output_bytes.map(|bytes| bytes as f64)).map(|bytes| bytes as u64);
        Row { exec_ms, output_bytes, ..group[0].clone() }
    };
    groups.into_iter().map(of).collect()
}
