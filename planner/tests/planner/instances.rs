//! Workflows to judge planners by: the WfFormat instances where they are, and shapes of known form.

use std::path::{Path, PathBuf};

use foresail_planner::shapes::DEFAULTS;
use foresail_schemas::Workflow;
use foresail_schemas::wfformat;

/// What the names of shapes begin with.
pub const SHAPE: &str = "shape:";

/// Where the instances are looked for.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/wfformat")
}

/// The recorded instances by name; none where there are none.
pub fn recorded() -> Vec<(String, Workflow)> {
    let Ok(entries) = std::fs::read_dir(folder()) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "json"));
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("it was listed");
        let workflow = wfformat::read(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        (path.file_stem().expect("a file").display().to_string(), workflow)
    };
    paths.into_iter().map(read).collect()
}

/// The shapes by name.
pub fn shapes() -> Vec<(String, Workflow)> {
    DEFAULTS.map(|shape| (format!("{SHAPE} {shape}"), shape.workflow())).into()
}

/// The workflow with its longest task scaled down to `task_ms_max`, the others in proportion.
pub fn scaled(workflow: &Workflow, task_ms_max: f64) -> Workflow {
    let longest_ms = workflow.tasks().iter().filter_map(|t| t.hint.exec_ms).fold(0.0, f64::max);
    let factor = if longest_ms > task_ms_max { task_ms_max / longest_ms } else { 1.0 };
    // Times alone: scaling by `wfformat` drops external inputs, whose downloads belong to the problem.
    let mut spec = workflow.spec().clone();
    spec.tasks.iter_mut().for_each(|t| t.hint.exec_ms = t.hint.exec_ms.map(|ms| ms * factor));
    spec.check().expect("only times were changed")
}
