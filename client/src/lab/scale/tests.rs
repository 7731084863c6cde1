//! Runs small enough to be counted by hand, limits that are met on purpose, and what grows with the number of
//! workers.

use foresail_planner::shapes::Shape;
use foresail_planner::simulate;
use foresail_schemas::platform::Pace;

use super::*;

/// A request with a workflow of this shape, on Lambda.
fn request(shape: &str, workers: u32) -> Request {
    let shape: Shape = shape.parse().expect("it is one");
    Request { workflow: Some(shape.workflow_of(1_000.0)), ..layered(workers) }
}

fn layered(workers: u32) -> Request {
    let keeper = Keeper::Metad;
    Request {
        workers,
        runs: 1,
        workflow: None,
        tasks_per_worker: 3,
        task_ms: 1_000.0,
        platform: Platform::built_in().swap_remove(1),
        keeper,
        service: keeper.service(),
        seed: 1,
    }
}

fn done(request: &Request) -> Scale {
    scale(request).expect("there is a run")
}

/// A name of every limit that is met.
fn met(scale: &Scale) -> Vec<&'static str> {
    scale.limits.iter().filter(|limit| limit.ratio > 1.0).map(|limit| limit.name).collect()
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let text = |seed| serde_json::to_string(&done(&Request { seed, ..layered(20) })).expect("JSON");
    assert_eq!(text(7), text(7));
    assert_ne!(text(7), text(8));
}

#[test]
fn a_chain_of_three_on_one_worker_asks_for_what_can_be_counted_by_hand() {
    // Brief tasks, so that neither heartbeats nor looks of the watchdog come in between.
    let chain = done(&Request { task_ms: 100.0, ..layered(1) });
    let all = |each: f64| (each * chain.tasks as f64).round();
    assert_eq!((chain.tasks, chain.workers_at_once), (3, 1.0));
    // Join, what is open, a lease and a commit for each task, leaving.
    assert_eq!(all(chain.per_task.operations), 2.0 + 3.0 + 3.0 + 1.0);
    // Each output is stored, and read from the memory of its maker.
    assert_eq!(all(chain.per_task.objects), 3.0);
    let in_all = |rate: Rate| (rate.mean * chain.makespan_ms / 1_000.0).round();
    assert_eq!(in_all(chain.per_second.invocations), 1.0);
    // The start, two figures of the engine, three tasks, three uploads.
    assert_eq!(in_all(chain.per_second.records), 3.0 + 3.0 + 3.0);
}

#[test]
fn a_fork_of_ten_over_two_workers_moves_what_can_be_counted_by_hand() {
    let shape: Shape = "fork-join:1x10".parse().expect("it is one");
    let fork = done(&Request { workflow: Some(shape.workflow_of(100.0)), ..layered(2) });
    assert_eq!((fork.tasks, fork.workers_at_once), (12, 2.0));
    // Twelve outputs are stored; the other worker reads that of the split, and the join its five.
    assert_eq!((fork.per_task.objects * 12.0).round(), 12.0 + 1.0 + 5.0);
    let in_all = |rate: Rate| (rate.mean * fork.makespan_ms / 1_000.0).round();
    assert_eq!((in_all(fork.per_second.puts), in_all(fork.per_second.gets)), (12.0, 6.0));
}

#[test]
fn without_limits_a_run_takes_as_long_as_the_simulator_of_planners_says() {
    let request = layered(10);
    let workflow = workflow(&request, 10).expect("few tasks");
    let (problem, plan) = dealt::dealt(&workflow, &request.platform, 10, 1).expect("they fit");
    let plain = simulate(&problem, &plan, &RunOptions::default()).expect("it ends");
    assert_eq!(done(&request).makespan_ms, plain.summary.makespan_ms);
}

#[test]
fn every_limit_that_is_not_met_leaves_the_time_of_a_small_run_nearly_as_it_is() {
    let small = done(&layered(4));
    assert_eq!((met(&small), small.breaks_first), (vec![], None), "{:?}", small.limits);
    assert!(small.limited.end == End::Completed && small.limited.retries == 0);
    // An invocation takes a request of 30 ms that the time without limits leaves out.
    assert!((1.0..1.1).contains(&small.limited.slowdown), "{:?}", small.limited);
}

#[test]
fn a_growth_that_is_too_slow_is_named_and_waited_for() {
    let mut slow = layered(40);
    let pace = slow.platform.pace.expect("Lambda has one");
    slow.platform.pace = Some(Pace { growth_workers: 4, ..pace });
    let found = done(&slow);
    assert_eq!(found.breaks_first, Some("new workers"));
    assert_eq!(found.limits[0].ratio, 10.0, "40 workers where 4 may begin in 10 s");
    // 4 begin at once, 36 others at 0.4 per s, or in the place of one that has left, when somebody looks
    // again after a lease.
    assert!(found.limited.last_start_ms >= 90_000.0 - 1.0, "{:?}", found.limited);
    assert!(found.limited.makespan_ms > found.makespan_ms + 20_000.0, "{:?}", found.limited);
    assert_eq!(found.limited.end, End::Completed, "those that leave do not start the others again and again");
}

#[test]
fn a_keeper_that_is_too_slow_is_named_and_waited_for() {
    let mut slow = layered(20);
    slow.service.request_us = 50_000.0;
    let found = done(&slow);
    assert_eq!(found.breaks_first, Some("processor of metad"));
    assert!(found.limited.wait_ms_max > 500.0 && found.limited.slowdown > 1.2, "{:?}", found.limited);
}

#[test]
fn a_quota_and_a_setting_that_are_too_low_are_named() {
    let mut low = layered(20);
    low.platform.concurrency_max = 10;
    low.service.connections_max = 20;
    let found = done(&low);
    assert!(met(&found).contains(&"workers at once") && met(&found).contains(&"connections"));
    assert_eq!(found.workers_at_once, 20.0, "the others are looked at as if the quota were raised");
}

#[test]
fn more_workers_ask_for_more_and_divided_over_runs_for_less_news() {
    let scales: Vec<Scale> = [5, 20, 80].map(|workers| done(&layered(workers))).into();
    for pair in scales.windows(2) {
        let of = |scale: &Scale| {
            [
                scale.per_second.requests.peak,
                scale.per_second.bytes.peak,
                scale.per_task.news_bytes,
                scale.documents_bytes as f64,
            ]
        };
        let grows = of(&pair[0]).iter().zip(of(&pair[1])).all(|(fewer, more)| *fewer < more);
        assert!(grows, "{:?} and {:?}", pair[0].per_second, pair[1].per_second);
    }
    let divided = done(&Request { runs: 8, ..layered(80) });
    assert_eq!((divided.tasks, divided.workers_at_once), (240, 80.0));
    assert!(divided.per_task.news_bytes < scales[2].per_task.news_bytes / 4.0);
}

#[test]
fn in_redis_every_worker_reads_what_all_of_them_write() {
    let of = |workers| {
        let keeper = Keeper::Redis;
        done(&Request { keeper, service: keeper.service(), ..layered(workers) })
    };
    let (few, many) = (of(10), of(40));
    assert!(few.log_bytes > 0.0);
    let read = |scale: &Scale| scale.per_task.news_bytes * scale.tasks as f64;
    // Log and readers both grow with the workers.
    let ratio = read(&many) / read(&few);
    assert!((8.0..24.0).contains(&ratio), "{ratio}");
}

#[test]
fn what_cannot_be_simulated_is_said() {
    let error = |request: Request| scale(&request).expect_err("wrong on purpose").to_string();
    assert!(error(Request { runs: 9, ..layered(4) }).contains("`4` workers"));
    assert!(error(Request { tasks_per_worker: 1_000_000, ..layered(4) }).contains("1000000 tasks"));
    let huge = Request { platform: tiny(), ..request("tree:4", 1) };
    assert!(error(huge).contains("a worker lives"));
}

/// A platform whose workers live too briefly.
fn tiny() -> Platform {
    Platform { life_ms_max: 1.0, ..Platform::built_in().swap_remove(1) }
}

#[test]
fn the_tables_of_keepers_are_valid_and_wrong_ones_are_refused() {
    for keeper in [Keeper::Metad, Keeper::Redis] {
        let service = keeper.service();
        let text = toml::to_string(&service).expect("TOML");
        assert_eq!(Service::from_toml(&text), Ok(service.clone()));
        for (from, to, word) in
            [("request_us = ", "request_us = -", "at least 0"), ("request_us", "requests_us", "requests_us")]
        {
            let error = Service::from_toml(&text.replacen(from, to, 1)).expect_err(word).to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
