//! Whether a problem is one: what planners read of it has the right lengths, is finite and not negative, and
//! its sizes are those of the platform.

use foresail_schemas::config::ResourceConfig;
use foresail_schemas::graph::Graph;
use foresail_schemas::plan::{PredictionTable, Problem, TransferTimes};

use crate::error::PlanFailure;

/// Whether every column of the table has as many rows as there are tasks, objects or sizes.
pub(super) fn dimensions(graph: &Graph, table: &PredictionTable) -> Result<(), PlanFailure> {
    let check = |field, expected: usize, found: usize| match expected == found {
        true => Ok(()),
        false => Err(PlanFailure::Dimensions { field, expected, found }),
    };
    let sizes = table.configs.len();
    check("exec_ms", sizes, table.exec_ms.len())?;
    table.exec_ms.iter().try_for_each(|row| check("exec_ms[..]", graph.len(), row.len()))?;
    check("object_bytes", graph.objects().len(), table.object_bytes.len())?;
    check("transfer", sizes, table.transfer.len())?;
    check("startup", sizes, table.startup.len())?;
    table.engine.iter().try_for_each(|engine| check("engine", sizes, engine.attempt_ms.len()))?;
    check("basis", graph.len(), table.basis.len())?;
    if table.warm.is_empty() { Ok(()) } else { check("warm", sizes, table.warm.len()) }
}

/// Whether every number is one, and not negative.
pub(super) fn numbers(table: &PredictionTable) -> Result<(), PlanFailure> {
    // All of a row at once: nearly every row is right, and looking for the first that is not takes longer.
    let is_right = |row: &[f64]| row.iter().fold(true, |is, x| is & (*x >= 0.0) & (*x <= f64::MAX));
    fn check(field: &'static str, mut values: impl Iterator<Item = f64>) -> Result<(), PlanFailure> {
        match values.find(|x| !(x.is_finite() && *x >= 0.0)) {
            None => Ok(()),
            Some(value) => Err(PlanFailure::Number { field, value }),
        }
    }
    let mut wrong = table.exec_ms.iter().filter(|row| !is_right(row));
    wrong.try_for_each(|row| check("exec_ms", row.iter().copied()))?;
    let rates = |t: &TransferTimes| {
        [t.download_latency_ms, t.download_ms_per_byte, t.upload_latency_ms, t.upload_ms_per_byte]
    };
    check("transfer", table.transfer.iter().flat_map(rates))?;
    let engine = table.engine.iter().flat_map(|e| e.attempt_ms.iter().copied().chain([e.dispatch_ms]));
    check("engine", engine)?;
    check("startup", table.startup.iter().flat_map(|s| [s.cold_ms, s.warm_ms]))
}

/// Whether every size is one of the platform's, in order.
pub(super) fn menu(problem: &Problem) -> Result<(), PlanFailure> {
    let (configs, platform) = (&problem.predictions.configs, &problem.platform);
    if configs.is_empty() {
        return Err(PlanFailure::NoConfigs);
    }
    if let Some(pair) = configs.windows(2).find(|w| w[0].key() >= w[1].key()) {
        return Err(PlanFailure::Order(pair[1].to_string()));
    }
    let offered = |c: &ResourceConfig| {
        let pool = platform.pool.map(|pool| pool.config());
        let others = [Some(platform.default_config), pool].into_iter().flatten();
        platform.menu.iter().copied().chain(others).any(|m| m.key() == c.key())
    };
    match configs.iter().find(|c| !offered(c)) {
        None => Ok(()),
        Some(config) => {
            Err(PlanFailure::NotOnMenu { config: config.to_string(), platform: platform.name.to_string() })
        }
    }
}
