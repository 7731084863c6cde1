//! Runs of real processes under kill -9: one to three workers and metad die in each, and each completes with
//! the result that the same functions give in one process; no task has two results, no process is left.
//!
//! `FORESAIL_PROOF=1` makes it 300 runs instead of 6; `FORESAIL_SEED=n` repeats one with the same draws:
//! the plan, what is killed and after how many results.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use crate::proof::{RUN_LIMIT, Repeat, Stack, amount, expected, finish, reaches, seed, submit, workflow};
use crate::runs::workers;

/// Stacks that carry out runs at the same time.
const STACKS: u64 = 3;
/// Planned workers, flexible ones, and a drawn plan.
const PLANNERS: [&str; 3] = ["uniform", "simple", "random"];
/// How long a task sleeps.
const SLEEP_MS: u64 = 150;

#[derive(Default)]
struct Killed {
    workers: AtomicU64,
    metads: AtomicU64,
    runs: AtomicU64,
}

/// Kills one worker of those that live; waits for one where none does.
async fn kill_one(host: &crate::stack::Process, rng: &mut Pcg64) {
    let until = Instant::now() + RUN_LIMIT;
    loop {
        let alive = workers(host);
        if !alive.is_empty() {
            let victim = alive[rng.random_range(0..alive.len())];
            // SAFETY: kill has no memory effects.
            if unsafe { libc::kill(victim, libc::SIGKILL) } == 0 {
                return;
            }
        }
        assert!(Instant::now() < until, "no worker lives");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One run: at drawn moments 1 to 3 workers die and metad once.
async fn run_under_fire(stack: &mut Stack, number: u64, killed: &Killed) {
    let _repeat = Repeat { test: "killed", number };
    let mut rng = Pcg64::seed_from_u64(number);
    let workflow = workflow(SLEEP_MS);
    let tasks = workflow.tasks().len() as u64;
    let planner = PLANNERS[number as usize % PLANNERS.len()];
    let name = format!("run {number} under `{planner}`");
    let client = stack.client(&stack.address()).await;
    let handle = submit(&client, &workflow, planner, number).await;
    let kills = 1 + number / PLANNERS.len() as u64 % 3;
    let restart = rng.random_range(0..=kills);
    // The last result that a fault waits for leaves some tasks to do.
    let mut moments: Vec<u64> = (0..=kills).map(|_| rng.random_range(0..tasks / 2)).collect();
    moments.sort_unstable();
    for (at, moment) in (0..).zip(moments) {
        assert!(reaches(&handle, moment).await, "{name} is over before everything was killed");
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..40))).await;
        if at == restart {
            stack.restart_metad();
            killed.metads.fetch_add(1, Ordering::Relaxed);
        } else {
            kill_one(&stack.host, &mut rng).await;
            killed.workers.fetch_add(1, Ordering::Relaxed);
        }
    }
    finish(&handle, &expected(), &name).await;
}

#[test]
fn runs_complete_with_the_right_result_whichever_process_is_killed() {
    let numbers = seed().map_or_else(|| 0..amount(6, 300), |seed| seed..seed + 1);
    let runs = numbers.end - numbers.start;
    let (next, killed, began) = (AtomicU64::new(numbers.start), Killed::default(), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..STACKS {
            scope.spawn(|| {
                let mut stack = Stack::start();
                let runtime =
                    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
                let runtime = runtime.expect("a runtime");
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        break;
                    }
                    runtime.block_on(run_under_fire(&mut stack, number, &killed));
                    let done = killed.runs.fetch_add(1, Ordering::Relaxed) + 1;
                    if done.is_multiple_of(20) {
                        eprintln!("{done} of {runs} runs, {:.0} s", began.elapsed().as_secs_f64());
                    }
                }
                stack.end();
            });
        }
    });
    let [done, workers, metads] =
        [&killed.runs, &killed.workers, &killed.metads].map(|count| count.load(Ordering::Relaxed));
    assert_eq!((done, metads), (runs, runs), "metad died once in every run");
    assert!(workers >= runs && workers <= 3 * runs, "{workers} workers died");
    eprintln!(
        "{done} runs complete and right, {workers} workers and {metads} times metad killed, {:.0} s",
        began.elapsed().as_secs_f64()
    );
}
