//! Tests of the pool's decisions: invocations in, steps out.

use super::*;
use foresail_schemas::config::ResourceConfig;
use foresail_schemas::id::{RunId, WorkerId};
use foresail_schemas::invocation::Purpose;

const LIMITS: Limits =
    Limits { concurrency_max: 2, pool: None, processes_max: 3, queue_max: 4, keep_alive_ms: 100.0 };

fn invocation(worker: Option<&str>, tasks: &[u32], memory_mb: u32) -> Invocation {
    Invocation {
        run: RunId::new("r").unwrap(),
        worker: worker.map(|w| WorkerId::new(w).unwrap()),
        config: ResourceConfig::new(memory_mb, None).unwrap(),
        tasks: tasks.to_vec(),
        metad: "http://127.0.0.1:1".to_owned(),
        purpose: Purpose::Work,
        asked_at: None,
        documents: None,
    }
}

/// A pool that names its invocations `i-1`, `i-2`, ….
struct Bench {
    pool: Pool,
    named: u32,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        Self { pool: Pool::new(limits), named: 0 }
    }

    fn invoke(&mut self, invocation: Invocation) -> Result<String, u64> {
        let named = &mut self.named;
        let name = || {
            *named += 1;
            InstanceId::new(format!("i-{named}")).unwrap()
        };
        self.pool.invoke(invocation, name).map(|i| i.to_string())
    }

    /// The steps, in short.
    fn dispatch(&mut self, now_ms: f64) -> String {
        self.pool.dispatch(now_ms).iter().map(short).collect::<Vec<_>>().join(" ")
    }
}

fn short(step: &Step) -> String {
    match step {
        Step::Spawn { process, instance, .. } => format!("spawn {process} {instance}"),
        Step::Give { process, instance, .. } => format!("give {process} {instance}"),
        Step::End { process } => format!("end {process}"),
    }
}

#[test]
fn workers_of_the_serverful_pool_have_places_of_their_own() {
    let of_pool = ResourceConfig::new(4096, None).unwrap().key();
    let mut bench = Bench::new(Limits { pool: Some((of_pool, 1)), queue_max: 8, ..LIMITS });
    for (task, memory_mb) in [(0, 4096), (1, 4096), (2, 512), (3, 512), (4, 512)] {
        bench.invoke(invocation(None, &[task], memory_mb)).unwrap();
    }
    assert_eq!(bench.dispatch(0.0), "spawn 1 i-1 spawn 2 i-3 spawn 3 i-4", "the second for the pool waits");
    bench.pool.done(2, 1.0);
    assert_eq!(bench.dispatch(1.0), "give 2 i-5", "whoever waits for the pool is in nobody's way");
    bench.pool.done(3, 2.0);
    assert_eq!(bench.dispatch(2.0), "");
    bench.pool.done(1, 3.0);
    assert_eq!(bench.dispatch(3.0), "give 1 i-2");
}

#[test]
fn no_more_are_busy_than_allowed_and_the_rest_waits_in_order() {
    let mut bench = Bench::new(LIMITS);
    for task in 0..4 {
        bench.invoke(invocation(None, &[task], 512)).unwrap();
    }
    assert_eq!(bench.dispatch(0.0), "spawn 1 i-1 spawn 2 i-2");
    assert_eq!(bench.dispatch(0.0), "");
    bench.pool.done(2, 1.0);
    assert_eq!(bench.dispatch(1.0), "give 2 i-3");
    bench.pool.gone(1);
    assert_eq!(bench.dispatch(1.0), "spawn 3 i-4");
    let status = bench.pool.status();
    assert_eq!((status.busy, status.queued, status.cold_starts, status.warm_starts), (2, 0, 3, 1));
    assert_eq!(status.warm, []);
    bench.pool.done(3, 2.0);
    let config = invocation(None, &[], 512).config;
    assert_eq!(bench.pool.status().warm, [WarmWorkers { config, count: 1 }]);
}

#[test]
fn a_full_queue_refuses() {
    let mut bench = Bench::new(LIMITS);
    for task in 0..4 {
        bench.invoke(invocation(None, &[task], 512)).unwrap();
    }
    assert_eq!(bench.invoke(invocation(None, &[9], 512)), Err(4));
}

#[test]
fn without_a_queue_an_invocation_is_taken_while_there_is_a_place() {
    let mut bench = Bench::new(Limits { queue_max: 0, concurrency_max: 1, ..LIMITS });
    bench.invoke(invocation(None, &[0], 512)).unwrap();
    assert_eq!(bench.dispatch(0.0), "spawn 1 i-1");
    assert_eq!(bench.invoke(invocation(None, &[1], 512)), Err(0));
}

#[test]
fn what_waits_already_is_not_added_twice() {
    let mut bench = Bench::new(LIMITS);
    let first = bench.invoke(invocation(Some("w"), &[1], 512)).unwrap();
    assert_eq!(bench.invoke(invocation(Some("w"), &[2], 512)).unwrap(), first);
    let flexible = bench.invoke(invocation(None, &[5], 512)).unwrap();
    assert_eq!(bench.invoke(invocation(None, &[5], 512)).unwrap(), flexible);
    assert_ne!(bench.invoke(invocation(None, &[6], 512)).unwrap(), flexible);
    let steps = bench.pool.dispatch(0.0);
    let Step::Spawn { invocation: merged, .. } = &steps[0] else { panic!("{steps:?}") };
    assert_eq!(merged.tasks, [1, 2]);
    // It runs now; a second instance of the same planned worker is the run's concern, not the queue's.
    assert_ne!(bench.invoke(invocation(Some("w"), &[3], 512)).unwrap(), first);
}

#[test]
fn only_a_process_of_the_same_size_is_used_again_and_the_last_used_first() {
    let mut bench = Bench::new(LIMITS);
    for task in 0..2 {
        bench.invoke(invocation(None, &[task], 512)).unwrap();
    }
    bench.dispatch(0.0);
    bench.pool.done(2, 1.0);
    bench.pool.done(1, 2.0);
    bench.invoke(invocation(None, &[2], 1024)).unwrap();
    bench.invoke(invocation(None, &[3], 512)).unwrap();
    assert_eq!(bench.dispatch(3.0), "spawn 3 i-3 give 1 i-4");
}

#[test]
fn at_the_limit_of_processes_the_one_idle_longest_makes_room() {
    let mut bench = Bench::new(LIMITS);
    for (task, process) in [(0, 1), (1, 2), (2, 3)] {
        bench.invoke(invocation(None, &[task], 512 + task)).unwrap();
        bench.dispatch(0.0);
        bench.pool.done(process, f64::from(task));
    }
    bench.invoke(invocation(None, &[3], 2048)).unwrap();
    assert_eq!(bench.dispatch(5.0), "end 1 spawn 4 i-4");
}

#[test]
fn an_idle_process_ends_when_its_keep_alive_is_over() {
    let mut bench = Bench::new(LIMITS);
    bench.invoke(invocation(None, &[0], 512)).unwrap();
    bench.dispatch(0.0);
    assert_eq!(bench.pool.next_expiry_ms(), None);
    bench.pool.done(1, 10.0);
    assert_eq!(bench.pool.next_expiry_ms(), Some(110.0));
    assert_eq!(bench.dispatch(109.0), "");
    assert_eq!(bench.dispatch(110.0), "end 1");
    assert_eq!(bench.dispatch(111.0), "");
}

#[test]
fn drain_ends_the_idle_and_leaves_the_busy() {
    let mut bench = Bench::new(LIMITS);
    for task in 0..2 {
        bench.invoke(invocation(None, &[task], 512)).unwrap();
    }
    bench.dispatch(0.0);
    bench.pool.done(1, 1.0);
    assert_eq!(bench.pool.drain().iter().map(short).collect::<Vec<_>>(), ["end 1"]);
    assert_eq!(bench.pool.status().busy, 1);
    bench.invoke(invocation(None, &[2], 512)).unwrap();
    assert_eq!(bench.dispatch(2.0), "spawn 3 i-3");
}

#[test]
fn workers_to_be_there_are_started_as_often_as_they_are_asked_for() {
    let mut bench = Bench::new(Limits { concurrency_max: 1, ..LIMITS });
    bench.invoke(invocation(None, &[0], 512)).unwrap();
    assert_eq!(bench.dispatch(0.0), "spawn 1 i-1");
    for memory_mb in [512, 512, 1024] {
        bench.invoke(Invocation { purpose: Purpose::PreWarm, ..invocation(None, &[], memory_mb) }).unwrap();
    }
    assert_eq!(bench.pool.status().queued, 3);
}

#[test]
fn of_many_flexible_tasks_a_worker_takes_some_along_and_the_last_ones_go_one_by_one() {
    let mut bench = Bench::new(Limits { queue_max: 1000, ..LIMITS });
    for task in 0..40 {
        bench.invoke(invocation(None, &[task], 512)).unwrap();
    }
    bench.invoke(invocation(Some("w"), &[40], 512)).unwrap();
    bench.invoke(invocation(None, &[41], 1024)).unwrap();
    let (mut begun, mut lengths) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        for step in bench.pool.dispatch(0.0) {
            let (Step::Spawn { process, invocation, .. } | Step::Give { process, invocation, .. }) = step
            else {
                continue;
            };
            lengths.push(invocation.tasks.len());
            begun.extend(invocation.tasks);
            bench.pool.done(process, 0.0);
        }
    }
    assert_eq!(begun, (0..42).collect::<Vec<_>>(), "each once, and in order");
    assert_eq!(lengths[0], 1 + 39 / 8);
    assert!(lengths.len() < 30 && lengths[lengths.len() - 6..] == [1; 6], "{lengths:?}");
}
