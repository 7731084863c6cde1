//! Prints how long updates, snapshots and predictions take, in process and on one core.
//!
//! `cargo run --release -p foresail-model --example prediction_speed`

use std::hint::black_box;
use std::time::Instant;

use foresail_model::WorkflowModel;
use foresail_schemas::metric::{Record, TaskRecord};
use foresail_schemas::prediction::Query;
use foresail_schemas::{Sla, TaskName};
use jiff::Timestamp;

const TASKS: u64 = 200;
const SAMPLES_PER_TASK: u64 = 1000;
const PREDICTIONS: u32 = 1_000_000;

fn record(n: u64) -> Record {
    let memory_mb = [512, 1024, 1769][(n / TASKS % 3) as usize];
    let input_bytes = 1000 * (1 + n / TASKS % 50);
    let noise = (n.wrapping_mul(2_654_435_761) >> 9) % 100;
    Record::Task(TaskRecord {
        task: TaskName::new(format!("task-{}", n % TASKS)).expect("a legal name"),
        memory_mb,
        vcpu: None,
        input_bytes,
        output_bytes: Some(input_bytes / 2),
        exec_ms: (20.0 + input_bytes as f64 * 1e-3) * 1769.0 / f64::from(memory_mb)
            * (1.0 + noise as f64 * 1e-3),
        peak_memory_mb: None,
        attempt: 1,
        at: Timestamp::from_second(n as i64).ok(),
        forecast: None,
    })
}

fn report(what: &str, count: u64, start: Instant) {
    println!("{what}: {:.3} us each ({count})", start.elapsed().as_secs_f64() * 1e6 / count as f64);
}

fn main() {
    let records: Vec<Record> = (0..TASKS * SAMPLES_PER_TASK).map(record).collect();
    let mut model = WorkflowModel::new();
    let start = Instant::now();
    records.iter().for_each(|r| model.update(r, Timestamp::UNIX_EPOCH));
    report("update", records.len() as u64, start);
    let start = Instant::now();
    let predictor = model.snapshot();
    report("snapshot, per task of 3 configs with 1,000 samples", TASKS, start);
    model.update(&records[0], Timestamp::UNIX_EPOCH);
    let start = Instant::now();
    black_box(model.snapshot());
    report("snapshot after one changed task", 1, start);
    for (what, memory_mb, slas) in [
        ("predict exact, median", 1769, vec![Sla::MEDIAN]),
        ("predict exact, median and p95", 1769, vec![Sla::MEDIAN, Sla::P95]),
        ("predict memory-normalised, median and p95", 900, vec![Sla::MEDIAN, Sla::P95]),
    ] {
        let queries: Vec<Query> = (0..TASKS)
            .map(|n| Query::ExecutionTime {
                task: TaskName::new(format!("task-{n}")).expect("a legal name"),
                input_bytes: 1000 + n * 100,
                memory_mb,
                vcpu: None,
            })
            .collect();
        let start = Instant::now();
        for query in queries.iter().cycle().take(PREDICTIONS as usize) {
            black_box(predictor.predict(black_box(query), &slas));
        }
        report(what, u64::from(PREDICTIONS), start);
    }
    let snapshot = serde_json::to_vec(&*predictor).expect("a predictor is plain data");
    println!("predictor as JSON: {:.0} bytes per (task, config)", snapshot.len() as f64 / (TASKS * 3) as f64);
    let stored = postcard::to_stdvec(&model).expect("a model is plain data");
    println!("model as postcard: {:.0} bytes per (task, config)", stored.len() as f64 / (TASKS * 3) as f64);
}
