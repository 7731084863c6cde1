//! Prints what the model costs in process, on one core: updates, snapshots, cold and warm predictions, the
//! download, and the memory per (task, config). Times are those that the thread had a core, where the system
//! tells them, so that other programs disturb them less.
//!
//! `cargo bench -p foresail-model --bench prediction_speed`, `-- cold warm` for some parts of it.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use foresail_model::{Predictor, WorkflowModel};
use foresail_schemas::metric::{Record, TaskRecord};
use foresail_schemas::prediction::Query;
use foresail_schemas::{Sla, TaskName};
use jiff::Timestamp;
use mimalloc::MiMalloc;

const MEMORY_MB: [u32; 3] = [512, 1024, 1769];
const PREDICTIONS: usize = 1_000_000;
const COLD_ROUNDS: u64 = 2000;

/// Counts the bytes in use, of the one thread that there is: nothing is locked, so that it hardly costs time.
/// Memory comes from the allocator of the daemon.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

fn count(more: usize, less: usize) {
    IN_USE.store(IN_USE.load(Ordering::Relaxed).wrapping_add(more).wrapping_sub(less), Ordering::Relaxed);
}

// SAFETY: every call goes to the allocator of the daemon as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's layout is passed on.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's layout is passed on.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the block came from that allocator with this layout.
        unsafe { MiMalloc.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the block came from that allocator with this layout.
        unsafe { MiMalloc.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The `n`th execution of a task: sizes and times vary, all configs in turn.
fn record(task: &TaskName, n: u64) -> Record {
    let memory_mb = MEMORY_MB[(n % 3) as usize];
    let input_bytes = 1000 * (1 + n / 3 % 50);
    let noise = (n.wrapping_mul(2_654_435_761) >> 9) % 100;
    Record::Task(TaskRecord {
        task: task.clone(),
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

fn names(count: u64) -> Vec<TaskName> {
    (0..count).map(|n| TaskName::new(format!("task-{n}")).expect("a legal name")).collect()
}

fn query(task: &TaskName, memory_mb: u32, input_bytes: u64) -> Query {
    Query::ExecutionTime { task: task.clone(), input_bytes, memory_mb, vcpu: None }
}

/// A model of `tasks`, each with `samples` per config.
fn told(tasks: &[TaskName], samples: u64) -> WorkflowModel {
    let mut model = WorkflowModel::new();
    for n in 0..samples * 3 {
        tasks.iter().for_each(|task| model.update(&record(task, n), Timestamp::MAX));
    }
    model
}

/// Time on a core so far, in steps of a tick; time passed where the system does not tell.
fn on_core() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = told.and_then(|text| text.split(' ').next().and_then(|first| first.parse().ok()));
    nanos.map_or_else(|| START.elapsed(), Duration::from_nanos)
}

fn print(what: &str, time: Duration, count: u64) {
    println!("{what}: {:.3} us ({count} times)", time.as_secs_f64() * 1e6 / count as f64);
}

fn updates() {
    let tasks = names(200);
    let records: Vec<Record> = (0..3000).flat_map(|n| tasks.iter().map(move |t| record(t, n))).collect();
    let mut model = WorkflowModel::new();
    let start = on_core();
    records.iter().for_each(|r| model.update(r, Timestamp::MAX));
    print("update", on_core() - start, records.len() as u64);
    let start = on_core();
    for batch in records.chunks(100) {
        batch.iter().for_each(|r| model.update(r, Timestamp::MAX));
        black_box(model.snapshot());
    }
    print("update, 100 tasks per snapshot, the former one alive", on_core() - start, records.len() as u64);
}

fn cold() {
    let tasks = names(200);
    for (samples, what) in [(128, "128 samples"), (1000, "1,000 samples")] {
        let mut model = told(&tasks, samples);
        let slas = [Sla::MEDIAN, Sla::P95];
        for (kind, memory_mb) in [("exact", 1769), ("memory-normalised", 900)] {
            let asked: Vec<(Record, Query)> = (0..COLD_ROUNDS)
                .map(|n| {
                    let task = &tasks[(n % 200) as usize];
                    (record(task, samples * 3 + n * 3 + 2), query(task, memory_mb, 10_000))
                })
                .collect();
            let start = on_core();
            for (record, query) in &asked {
                model.update(record, Timestamp::MAX);
                black_box(model.snapshot().predict(query, &slas));
            }
            let what = format!("cold {kind}: update, snapshot, p50 + p95, {what}");
            print(&what, on_core() - start, COLD_ROUNDS);
        }
    }
}

fn warm() {
    let tasks = names(200);
    let predictor = told(&tasks, 128).snapshot();
    for (what, memory_mb, slas) in [
        ("warm exact, p50", 1769, vec![Sla::MEDIAN]),
        ("warm exact, p50 + p95", 1769, vec![Sla::MEDIAN, Sla::P95]),
        ("warm memory-normalised, p50 + p95", 900, vec![Sla::MEDIAN, Sla::P95]),
    ] {
        let queries: Vec<Query> = tasks.iter().map(|task| query(task, memory_mb, 10_000)).collect();
        let start = on_core();
        queries.iter().for_each(|query| drop(predictor.predict(query, &slas)));
        print(&format!("first question, {}", &what[5..]), on_core() - start, queries.len() as u64);
        let start = on_core();
        for query in queries.iter().cycle().take(PREDICTIONS) {
            black_box(predictor.predict(black_box(query), &slas));
        }
        print(what, on_core() - start, PREDICTIONS as u64);
    }
}

fn many_tasks() {
    let tasks = names(65_536);
    let mut model = told(&tasks, 1);
    let start = Instant::now();
    black_box(model.snapshot());
    print("first snapshot of 65,536 tasks", start.elapsed(), 1);
    let records: Vec<Record> =
        (0..COLD_ROUNDS * 10).map(|n| record(&tasks[(n * 31 % 65_536) as usize], n)).collect();
    let (mut held, start) = (model.snapshot(), on_core());
    for record in &records {
        model.update(record, Timestamp::MAX);
        held = model.snapshot();
    }
    print("update and snapshot of 65,536 tasks, one changed", on_core() - start, records.len() as u64);
    black_box(held);
}

/// Asks every kind of question, so that every curve is fitted.
fn ask_everything(predictor: &Predictor, tasks: &[TaskName]) {
    for task in tasks {
        for memory_mb in [MEMORY_MB[0], MEMORY_MB[1], MEMORY_MB[2], 900] {
            black_box(predictor.predict(&query(task, memory_mb, 10_000), &[Sla::MEDIAN]));
        }
        let output = Query::OutputSize { task: task.clone(), input_bytes: 10_000 };
        black_box(predictor.predict(&output, &[Sla::MEDIAN]));
    }
}

fn memory() {
    for (tasks, samples) in [(1000, 1000), (2, 1_000_000)] {
        let names = names(tasks);
        let before = IN_USE.load(Ordering::Relaxed);
        let mut model = told(&names, samples);
        let keys = (tasks * 3) as usize;
        let measured = (IN_USE.load(Ordering::Relaxed) - before) / keys;
        let predictor = model.snapshot();
        ask_everything(&predictor, &names);
        let fitted = (IN_USE.load(Ordering::Relaxed) - before) / keys;
        println!(
            "memory per (task, config) with {samples} samples: {measured} bytes, with every curve {fitted}"
        );
    }
}

fn download() {
    let tasks = names(1000);
    let mut model = told(&tasks, 1000);
    let predictor = model.snapshot();
    for what in ["fits included", "again"] {
        let start = on_core();
        let packed = postcard::to_stdvec(&*predictor).expect("a predictor is plain data");
        let (time, per_key) = (on_core() - start, packed.len() / 3000);
        println!("download of 1,000 tasks x 3 configs, {what}: {time:.0?}, {per_key} bytes per key");
    }
    let start = on_core();
    let stored = postcard::to_stdvec(&model).expect("a model is plain data");
    println!("model stored: {:.0?}, {} bytes per key", on_core() - start, stored.len() / 3000);
    let start = on_core();
    black_box(postcard::from_bytes::<WorkflowModel>(&stored).expect("it was just stored"));
    println!("model read: {:.0?}", on_core() - start);
}

fn main() {
    let parts: [(&str, fn()); 6] = [
        ("updates", updates),
        ("cold", cold),
        ("warm", warm),
        ("many-tasks", many_tasks),
        ("memory", memory),
        ("download", download),
    ];
    // Cargo adds an option of its own.
    let asked: Vec<String> = std::env::args().skip(1).filter(|part| !part.starts_with("--")).collect();
    let is_asked = |name: &str| asked.is_empty() || asked.iter().any(|part| part == name);
    parts.iter().filter(|(name, _)| is_asked(name)).for_each(|(_, part)| part());
}
