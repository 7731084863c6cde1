//! The whole of it: a deployment, functions, a bucket and Redis, through the program as users have it, while
//! connections break and invocations are throttled.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::commands::{Account, DEPLOY, text};
use crate::emulator::Emulator;
use crate::servers::Redis;
use crate::workflows::{FORESAIL, Up, look, results, run};

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(120);
/// Time between two disturbances.
const DISTURBED_EVERY: Duration = Duration::from_millis(200);
/// Largest output inside a commit record.
const INLINE_BYTES_MAX: u64 = 8192;

/// Says that something is over, however that came.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Breaks every connection of Redis and throttles an invocation, again and again, while `work` goes on; gives
/// what that gives, and how many connections were broken.
fn disturbed<T>(redis: &Redis, emulator: &Emulator, work: impl FnOnce() -> T) -> (T, u64) {
    let (is_over, broken) = (AtomicBool::new(false), AtomicU64::new(0));
    let done = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                broken.fetch_add(redis.kill_connections(), Ordering::SeqCst);
                emulator.refuse(1, (429, "TooManyRequestsException"));
                std::thread::sleep(DISTURBED_EVERY);
            }
        });
        let _over = Over(&is_over);
        work()
    });
    (done, broken.into_inner())
}

/// What the functions told of their invocations, by instance: billed and initialisation, in ms.
fn logged(emulator: &Emulator) -> BTreeMap<String, (f64, f64)> {
    let log = emulator.log.lock().unwrap();
    let lines = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let told = lines.filter_map(|mut line| line.get_mut("foresail").map(Value::take));
    let figures =
        |line: &Value| (line["billed_ms"].as_f64().unwrap(), line["init_ms"].as_f64().unwrap_or(0.0));
    told.map(|line| (line["instance"].as_str().unwrap().to_owned(), figures(&line))).collect()
}

/// Looks again and again until something is there.
fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let ends = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < ends, "{what}");
        std::thread::sleep(DISTURBED_EVERY);
    }
}

/// The bill of a run is that of the log lines of its functions, and its causes add up.
fn bill_is_that_of_the_log(data: &std::path::Path, run: &str, emulator: &Emulator) {
    let bill = until("all workers have said what they used", || {
        Some(look(data, &["bill", run])).filter(|bill| bill["estimated"] == 0)
    });
    let detail = look(data, &["runs", run]);
    let left = detail["events"].as_array().unwrap().iter().filter(|event| event["kind"] == "worker_left");
    let mut invocations = 0;
    for event in left {
        let instance = event["instance"].as_str().unwrap();
        // The line is written after the run was told.
        let (billed_ms, init_ms) =
            until("every invocation is in the log", || logged(emulator).get(instance).copied());
        let usage = &event["usage"];
        assert_eq!(
            (usage["billed_ms"].as_f64(), usage["init_ms"].as_f64()),
            (Some(billed_ms), Some(init_ms))
        );
        invocations += 1;
    }
    let lines = bill["lines"].as_array().unwrap();
    assert_eq!(lines[0]["kind"], "requests");
    assert_eq!(lines[0]["billed"]["quantity"].as_f64(), Some(f64::from(invocations)), "{bill:#}");
    let causes = bill["causes"].as_array().unwrap();
    let sum: f64 = causes.iter().map(|cause| cause["usd"].as_f64().unwrap()).sum();
    assert!((sum - bill["difference_usd"].as_f64().unwrap()).abs() < 1e-12, "{bill:#}");
}

/// Waits until no more than so many objects are left in the bucket.
fn only_are_left(account: &Account, count: usize) {
    until("what nobody needs is deleted", || (account.moto().keys().len() <= count).then_some(()));
    assert_eq!(account.moto().keys().len(), count, "{:?}", account.moto().keys());
}

#[test]
fn runs_over_functions_a_bucket_and_redis_give_what_local_ones_give_and_leave_nothing_behind() {
    let (Some(account), Some(redis)) = (Account::new(), Redis::start()) else { return };
    let store = format!("s3://bucket/foresail?endpoint={}", account.moto().url());
    let told = [("FORESAIL_STORE", store.as_str()), ("FORESAIL_COORDINATION", redis.url.as_str())];
    let Some(emulator) = Emulator::start_with(FORESAIL, &[512, 1769], 2, &told) else { return };
    account.done(&[&DEPLOY[..], &["--bucket", "bucket", "--redis", &redis.url]].concat());
    let (there, here) = (account.dir().join("lambda"), account.dir().join("local"));
    let up = Up::start(&there, &emulator.url, &["--store", &store, "--coordination", &redis.url]);
    let (mut kept, mut stored, mut on_lambda_runs) = (0, 0, Vec::new());
    for workflow in [&["gemm", "--planner", "simple"][..], &["text-analysis", "--planner", "simple"]] {
        let (on_lambda, broken) = disturbed(&redis, &emulator, || run(&there, workflow));
        let on_processes = run(&here, workflow);
        assert_eq!(results(&on_lambda), results(&on_processes), "{workflow:?}");
        assert!(!results(&on_lambda).is_empty() && broken > 3, "{workflow:?}: {broken} connections broke");
        let id = on_lambda["run"].as_str().unwrap();
        let log = redis.ask(&format!("LLEN foresail:{{{id}}}:log"));
        assert!(log.strip_prefix(':').unwrap().parse::<u64>().unwrap() > 1, "its state lay there: {log}");
        bill_is_that_of_the_log(&there, id, &emulator);
        let all = on_lambda["results"].as_array().unwrap().iter();
        kept += all.filter(|result| result["bytes"].as_u64().unwrap() > INLINE_BYTES_MAX).count();
        on_lambda_runs.push(id.to_owned());
        stored += on_lambda["usage"]["puts"].as_u64().unwrap() as usize;
    }
    assert!(emulator.told.refused.load(Ordering::SeqCst) > 3, "too little was throttled");
    assert!(stored > kept, "{stored} objects lay in the bucket, {kept} of them results");
    // Of objects that only tasks read, and of attempts that lost, nothing stays.
    only_are_left(&account, kept);
    drop(up);
    // A host that was not there during the run learns of it, and touches nobody else's.
    let ours = on_lambda_runs.iter().map(|id| format!("foresail/{id}/stray/1-w/out"));
    ours.for_each(|key| account.moto().put(&key, "left by a worker that was killed"));
    account.moto().put("foresail/of-another/t/1-w/out", "of a run that this metad does not know");
    let up = Up::start(&there, &emulator.url, &["--store", &store, "--coordination", &redis.url]);
    only_are_left(&account, kept + 1);
    drop(up);
    assert!(account.moto().keys().contains(&"foresail/of-another/t/1-w/out".to_owned()));
    let gone = account.done(&["destroy", "aws", "--objects"]);
    assert_eq!(gone["parts"].as_array().unwrap().len(), 5, "{gone}");
    assert!(account.moto().keys().is_empty(), "{:?}", account.moto().keys());
    let doctor = account.foresail(&["doctor", "aws"]);
    assert!(text(&doctor.stderr).contains("3 parts of the deployment"), "{}", text(&doctor.stderr));
    assert!(text(&account.foresail(&["destroy", "aws"]).stderr).contains("there was nothing"));
}
