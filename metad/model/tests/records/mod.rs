//! Measurements for tests: executions of the task `t`.

use foresail_schemas::TaskName;
use foresail_schemas::metric::{Record, TaskRecord};

/// The task.
pub fn task() -> TaskName {
    TaskName::new("t").expect("a legal name")
}

/// An execution of it on a worker.
pub fn execution(
    (memory_mb, vcpu): (u32, Option<f64>),
    input_bytes: u64,
    output_bytes: Option<u64>,
    exec_ms: f64,
) -> Record {
    Record::Task(TaskRecord {
        task: task(),
        memory_mb,
        vcpu,
        input_bytes,
        output_bytes,
        exec_ms,
        peak_memory_mb: None,
        attempt: 1,
        at: None,
        forecast: None,
    })
}
