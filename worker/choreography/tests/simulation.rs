//! Whole runs in virtual time, with the real machines, a seed and faults.
//!
//! Random graphs and plans, a clock of its own for every machine; crashes of workers, lost, doubled and late
//! requests, lost and late answers, lost, doubled and late invocations, lost hints, restarts of the store,
//! replaced plans, failing attempts, tasks that need more memory than they were planned with, objects of
//! results that are lost, attempts that decide something else than the one before, workers that make way for
//! others; with and without branches, fan-outs, running ahead and each optimisation. Whatever happens:
//! exactly the tasks that the decisions call for have a commit, one each beside those that were taken back
//! because they were lost, the others are skipped; none runs before its parents or on what does not stand,
//! no worker has more under way than its lanes allow, fetches what is no result or reads what another
//! holds, the run ends and every worker leaves.
//! `FORESAIL_PROOF=1` runs 10,000 seeds instead of 2,000; `FORESAIL_SEED=n` replays one.

mod world;

use foresail_schemas::run::{FailureKind, OPERATIONS_PER_REQUEST_MAX};
use world::{Faults, Seen, World};

/// How long it takes at most, in virtual ms, until what is lost is being made again: an answer, and a request
/// for the lease or for a worker.
const BEGUN_MS_MAX: f64 = 10.0;

#[test]
fn every_run_completes_once_whatever_happens() {
    let seeds: Vec<u64> = match (std::env::var("FORESAIL_SEED"), std::env::var("FORESAIL_PROOF")) {
        (Ok(seed), _) => vec![seed.parse().expect("FORESAIL_SEED is a number")],
        (_, Ok(_)) => (0..10_000).collect(),
        _ => (0..2_000).collect(),
    };
    let mut late = 0;
    let all = seeds.len();
    for seed in seeds {
        let replay = format!("FORESAIL_SEED={seed} cargo test -p foresail-choreography --test simulation");
        let mut world = World::new(seed, Faults::all());
        if let Err(broken) = world.run() {
            panic!("seed {seed}: {broken}\nreplay: {replay}\n{}", world.trace_tail(60));
        }
        late += world.seen().late;
    }
    assert!(all == 1 || late > all as u64 / 4, "{late} requests and answers were late in {all} runs");
}

#[test]
fn a_run_without_faults_wastes_nothing() {
    let mut all = Seen::default();
    let seeds = if std::env::var("FORESAIL_PROOF").is_ok() { 4_000 } else { 500 };
    for seed in 0..seeds {
        let mut world = World::new(seed, Faults::none());
        world.run().unwrap_or_else(|broken| panic!("seed {seed}: {broken}\n{}", world.trace_tail(60)));
        let (seen, tasks) = (world.seen(), world.tasks() as u64);
        assert_eq!(world.retries(), 0, "seed {seed}: no task has a second lease");
        let executed = world.executions();
        let tasks = tasks - seen.skipped;
        // What began on a result that lost against its copy is stopped and runs again.
        let stopped = if seen.copies_won > 0 { seen.stopped } else { 0 };
        assert!(executed <= tasks + stopped, "seed {seed}: {executed} attempts of {tasks} tasks");
        // Of a task whose copy was first the owner may have no need to begin.
        assert!(executed + seen.copies_won >= tasks, "seed {seed}: {executed} and {}", seen.copies_won);
        all.copies += seen.copies;
        all.copies_won += seen.copies_won;
        all.preloads += seen.preloads;
        all.prewarms += seen.prewarms;
        all.overlaps += seen.overlaps;
        all.backlog += seen.backlog;
        all.held += seen.held;
        all.out_of_memory += seen.out_of_memory;
        all.never_stored += seen.never_stored;
        all.kept += seen.kept;
        all.ahead += seen.ahead;
        all.skipped += seen.skipped;
        all.without += seen.without;
        all.without_ahead += seen.without_ahead;
    }
    let Seen { copies, copies_won, preloads, prewarms, overlaps, held, out_of_memory, never_stored, .. } =
        all;
    let Seen { kept, backlog, ahead, skipped, without, without_ahead, .. } = all;
    assert!(skipped > 300, "{skipped} tasks were skipped");
    assert!(without > without_ahead && without_ahead > 10, "{without}, {without_ahead} without a parent");
    assert!(ahead > 200, "{ahead} tasks began without waiting for their lease");
    assert_eq!(out_of_memory, 0, "every worker has the memory that its tasks need");
    assert!(copies > copies_won && copies_won > 0, "copies win and lose: {copies_won} of {copies}");
    assert!(
        held > never_stored && never_stored > 20,
        "{never_stored} of {held} held outputs were not stored"
    );
    assert!(never_stored > kept && kept > 10, "{kept} of them were results of planned workers");
    assert!(backlog > 20, "{backlog} tasks waited for a lane");
    assert!(preloads > 100 && prewarms > 100 && overlaps > 100, "{preloads}, {prewarms}, {overlaps}");
}

#[test]
fn what_runs_out_of_memory_runs_again_on_the_next_size_and_at_the_top_fails_the_run() {
    let mut raised = 0;
    for seed in 0..300 {
        let mut world = World::new(seed, Faults::memory());
        world.run().unwrap_or_else(|broken| panic!("seed {seed}: {broken}\n{}", world.trace_tail(60)));
        raised += world.seen().out_of_memory;
    }
    assert!(raised > 300, "{raised} attempts ran out of memory");
    let mut world = World::new(0, Faults::memory());
    world.need(0, 10_000);
    let broken = world.run().expect_err("no size is large enough");
    assert!(broken.contains("Failed"), "{broken}");
    let failure = world.failure().expect("it has a cause");
    assert_eq!(failure.kind, FailureKind::OutOfMemory);
    assert!(failure.message.contains("7076 MB") && failure.message.contains("no larger size"), "{failure:?}");
}

#[test]
fn what_is_lost_is_made_again_and_the_run_completes() {
    let mut taken_back = 0;
    for seed in 0..300 {
        let mut world = World::new(seed, Faults::lost());
        world.run().unwrap_or_else(|broken| panic!("seed {seed}: {broken}\n{}", world.trace_tail(60)));
        taken_back += world.taken_back();
        let waited_ms = world.waited_for_lost_ms();
        assert!(waited_ms < BEGUN_MS_MAX, "seed {seed}: {waited_ms} ms\n{}", world.trace_tail(200));
        world.check_replay();
    }
    assert!(taken_back > 300, "{taken_back} results were lost");
}

#[test]
fn a_dead_worker_is_noticed_within_two_heartbeats_and_a_second_of_the_end_of_its_lease() {
    let (mut deaths, mut latest_ms) = (0, 0.0_f64);
    for seed in 0..500 {
        let mut world = World::new(seed, Faults::none()).with_a_death();
        world.run().unwrap_or_else(|broken| panic!("seed {seed}: {broken}\n{}", world.trace_tail(60)));
        let Some(after_ms) = world.noticed_after_ms() else { continue };
        let limit_ms = world.notice_ms_max();
        assert!(after_ms <= limit_ms, "seed {seed}: {after_ms} ms\n{}", world.trace_tail(400));
        deaths += 1;
        latest_ms = latest_ms.max(after_ms);
    }
    assert!(deaths > 100, "{deaths} workers died with a task");
    assert!(latest_ms > 0.0, "none was noticed before its lease had ended in all of {deaths} deaths");
}

#[test]
fn a_fan_out_wider_than_a_request_completes() {
    let mut world = World::wide(OPERATIONS_PER_REQUEST_MAX + 500);
    world.run().unwrap_or_else(|broken| panic!("{broken}"));
}

#[test]
fn a_fan_out_runs_as_many_as_are_decided_however_many_there_could_be() {
    let width_max = OPERATIONS_PER_REQUEST_MAX + 500;
    for width in [0, 3] {
        let mut world = World::fan_out(width_max, width);
        world.run().unwrap_or_else(|broken| panic!("width {width}: {broken}"));
        assert_eq!(world.executions(), 2 + width);
        assert_eq!(world.seen().skipped, width_max as u64 - width);
    }
}

#[test]
fn the_same_seed_is_the_same_run_to_the_byte() {
    for seed in [1, 7, 42] {
        let trace = || {
            let mut world = World::new(seed, Faults::all());
            world.run().expect("this seed completes in the test above");
            world.trace_tail(usize::MAX)
        };
        assert_eq!(trace(), trace());
    }
}

#[test]
fn a_replayed_ledger_is_the_same_ledger() {
    for seed in 0..50 {
        let mut world = World::new(seed, Faults::all());
        world.run().expect("this seed completes in the test above");
        world.check_replay();
    }
}
