//! What is assumed before anything was measured.
//!
//! Execution times come from the author's hints, sizes from the workflow, everything else from the
//! platform's table. A task is taken to use one vCPU: less slows it down in proportion, more does not help,
//! until measurements say more.

use foresail_schemas::config::{ResourceConfig, Sla};
use foresail_schemas::graph::Graph;
use foresail_schemas::plan::{PredictionTable, StartupTimes, TransferTimes};
use foresail_schemas::platform::Platform;
use foresail_schemas::prediction::Basis;
use foresail_schemas::workflow::Workflow;

/// The table of a workflow without history; every basis is [`Basis::None`], the epoch is 0.
#[must_use]
pub fn blind_table(workflow: &Workflow, platform: &Platform, sla: Sla) -> PredictionTable {
    let assumed = &platform.assumed;
    let mut configs = platform.menu.clone();
    if !configs.iter().any(|c| c.key() == platform.default_config.key()) {
        configs.push(platform.default_config);
        configs.sort_by_key(ResourceConfig::key);
    }
    if let Some(pool) = &platform.pool {
        configs.push(pool.config());
        configs.sort_by_key(ResourceConfig::key);
    }
    let one_vcpu_ms = |t: usize| workflow.tasks()[t].hint.exec_ms.unwrap_or(assumed.exec_ms);
    let row = |c: &ResourceConfig| {
        let slowdown = 1.0 / c.cpu_share().min(1.0);
        (0..workflow.tasks().len()).map(|t| one_vcpu_ms(t) * slowdown).collect()
    };
    let transfer = TransferTimes {
        download_latency_ms: assumed.latency_ms,
        download_ms_per_byte: 1.0 / assumed.bytes_per_ms,
        upload_latency_ms: assumed.latency_ms,
        upload_ms_per_byte: 1.0 / assumed.bytes_per_ms,
    };
    let startup = StartupTimes { cold_ms: assumed.cold_start_ms, warm_ms: assumed.warm_start_ms };
    PredictionTable {
        sla,
        epoch: 0,
        exec_ms: configs.iter().map(row).collect(),
        object_bytes: object_bytes(workflow.graph(), assumed.output_ratio),
        transfer: vec![transfer; configs.len()],
        startup: vec![startup; configs.len()],
        engine: None,
        configs,
        basis: vec![Basis::None; workflow.tasks().len()],
        warm: Vec::new(),
        decisions: [].into(),
        uncertainty: None,
    }
}

/// Sizes as stated; an output of unknown size gets its share of `output_ratio` times the task's input.
fn object_bytes(graph: &Graph, output_ratio: f64) -> Vec<u64> {
    let mut bytes: Vec<u64> = graph.objects().iter().map(|o| o.bytes_hint.unwrap_or(0)).collect();
    for &t in graph.order() {
        let input_bytes: u64 = graph.reads(t).iter().map(|&o| bytes[o as usize]).sum();
        let writes = graph.writes(t);
        let share = output_ratio * input_bytes as f64 / writes.len().max(1) as f64;
        for &o in writes.iter().filter(|&&o| graph.objects()[o as usize].bytes_hint.is_none()) {
            bytes[o as usize] = share as u64;
        }
    }
    bytes
}
