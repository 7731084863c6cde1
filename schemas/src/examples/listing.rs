//! Examples of the lists that metad answers with.

use super::{name, run_summary, task_name, time, workflow_name};
use crate::error::ErrorCode;
use crate::id::BatchId;
use crate::listing::{QuarantineList, RunList, TaskEntry, TaskList, WorkflowEntry, WorkflowList};
use crate::metric::{Quarantined, Rejected};

/// A workflow of which three tasks were measured.
#[must_use]
pub fn workflow_entry() -> WorkflowEntry {
    WorkflowEntry {
        workflow: workflow_name(),
        epoch: 412,
        tasks: 3,
        batches: 107,
        records_accepted: 2140,
        records_rejected: 1,
        records_kept: 2140,
        quarantined_kept: 1,
    }
}

/// One workflow.
#[must_use]
pub fn workflow_list() -> WorkflowList {
    WorkflowList { epoch: 412, workflows: vec![workflow_entry()], next_after: None }
}

/// Two tasks, one measured where vCPUs are given apart from memory.
#[must_use]
pub fn task_list() -> TaskList {
    let count = TaskEntry {
        task: task_name("count"),
        samples: 214,
        configs: 2,
        memory_mb: Some(1769),
        vcpu: Some(1.0),
        median_ms: Some(1480.1),
        p95_ms: Some(1623.5),
    };
    let split = TaskEntry {
        task: task_name("split"),
        samples: 107,
        configs: 1,
        memory_mb: Some(885),
        vcpu: None,
        median_ms: Some(801.3),
        p95_ms: Some(840.9),
    };
    TaskList { epoch: 412, tasks: vec![count, split], next_after: Some(task_name("split")) }
}

/// One record with a time below 0.
#[must_use]
pub fn quarantine_list() -> QuarantineList {
    let detail = "exec_ms `-3` must be finite and at least 0".to_owned();
    let record = serde_json::json!({"kind": "task", "task": "count", "memory_mb": 1769, "exec_ms": -3});
    let record = Quarantined {
        batch_id: name(BatchId::new("b-1")),
        at: time("2026-01-05T10:00:01Z"),
        rejected: Rejected { index: 1, code: ErrorCode::InvalidRecord, detail },
        record,
    };
    QuarantineList { rejected: 1, kept: 1, records: vec![record] }
}

/// One run.
#[must_use]
pub fn run_list() -> RunList {
    RunList { runs: vec![run_summary()] }
}
