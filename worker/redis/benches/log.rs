//! What a run in Redis costs: bytes of its log, requests and bytes per task and worker, what it takes to join
//! it at its end, and the memory of Redis.
//!
//! `cargo bench -p foresail-redis --bench log -- [TASKS WORKERS]`; without numbers a table of several runs.
//! It asks the Redis of `FORESAIL_REDIS_URL`, else a `redis-server` of its own; where there is none it says
//! so and measures nothing. Redis counts requests and bytes itself, so nothing else should ask it
//! meanwhile.
//!
//! Each worker has connections of its own. It leases its share of the tasks and commits them, one request
//! each, with a heartbeat per ten tasks, and waits for events as workers do. Every second commit has an
//! output of 1 KiB inside, the others name one in a store.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use foresail_redis::{NewRun, Runs, keys};
use foresail_schemas::ResourceConfig;
use foresail_schemas::examples::run_begun;
use foresail_schemas::id::{InstanceId, RunId};
use foresail_schemas::metric::StartState;
use foresail_schemas::run::{
    Commit, Location, Measured, Operation, OperationResult, RunOptions, RunStatus, RunSummary, StoredObject,
};
use foresail_schemas::workflow::Workflow;
use redis::aio::MultiplexedConnection;
use serde_json::json;

type Anything<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What is measured without arguments: tasks and workers.
const ROWS: [(u32, u32); 4] = [(2_000, 1), (2_000, 8), (2_000, 32), (10_000, 8)];
/// How long a server may take to start.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for events.
const EVENTS_WAIT: Duration = Duration::from_secs(1);
/// Characters of an output of 1 KiB as base64.
const INLINE_CHARS: usize = 1_368;

fn main() -> Anything<()> {
    let numbers: Vec<u32> = std::env::args().filter_map(|text| text.parse().ok()).collect();
    let rows = match numbers[..] {
        [tasks, workers, ..] => vec![(tasks, workers)],
        _ => ROWS.to_vec(),
    };
    let own = OwnServer::start();
    let url = match (std::env::var("FORESAIL_REDIS_URL"), &own) {
        (Ok(url), _) => url,
        (Err(_), Some(own)) => own.url.clone(),
        (Err(_), None) => {
            println!("nothing is measured: FORESAIL_REDIS_URL names no Redis, and there is no redis-server");
            return Ok(());
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    println!(
        "| tasks | workers | requests/s | bytes of log per entry | per task | requests per task | bytes read \
         per task and worker | join: ms | bytes | without snapshot: ms | bytes | memory of Redis, MB |\n\
         |---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    );
    for (tasks, workers) in rows {
        runtime.block_on(measure(&url, tasks, workers))?;
    }
    Ok(())
}

/// A server that ends with this value.
struct OwnServer {
    url: String,
    process: Child,
}

impl OwnServer {
    fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port().to_string();
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        let server = Self { url: format!("redis://127.0.0.1:{port}"), process };
        let began = Instant::now();
        while redis::Client::open(&*server.url).ok()?.get_connection().is_err() {
            if began.elapsed() > START_LIMIT {
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // One that has ended already is what is wanted.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// What Redis has counted so far.
struct Counted {
    requests: f64,
    read_bytes: f64,
}

impl Counted {
    /// Scripts that ran and bytes that were answered.
    async fn now(redis: &mut MultiplexedConnection) -> Anything<Self> {
        let info: String = redis::cmd("INFO").arg("everything").query_async(redis).await?;
        let after = |name: &str| {
            let rest = info.split_once(name).map_or("0", |(_, rest)| rest);
            rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse::<f64>().ok())
        };
        Ok(Self {
            requests: after("cmdstat_evalsha:calls=").unwrap_or_default(),
            read_bytes: after("total_net_output_bytes:").unwrap_or_default(),
        })
    }
}

async fn measure(url: &str, tasks: u32, workers: u32) -> Anything<()> {
    let at = jiff::Timestamp::now().as_millisecond();
    let run = RunId::new(format!("bench-{at}-{tasks}-{workers}"))?;
    let workflow = wide(tasks)?;
    begin(&Runs::open(url)?, &run, &workflow).await?;
    let mut redis = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let (before, began) = (Counted::now(&mut redis).await?, Instant::now());
    let mut working = Vec::new();
    for worker in 0..workers {
        let (runs, run) = (Runs::open(url)?, run.clone());
        working.push(tokio::spawn(async move {
            let listening = tokio::spawn(listen(runs.clone(), run.clone()));
            let name = InstanceId::new(format!("w-{worker}-{at:x}-{worker}"))?;
            work(&runs, &run, name, (worker..tasks).step_by(workers as usize)).await?;
            listening.await?
        }));
    }
    for worked in working {
        worked.await??;
    }
    let (worked_s, worked) = (began.elapsed().as_secs_f64(), Counted::now(&mut redis).await?);
    let (entries, bytes, memory) = size(&mut redis, &run).await?;
    let (join_ms, join_bytes) = join(url, &run, &mut redis, tasks).await?;
    let _: u64 = redis::cmd("DEL").arg(keys::snapshot(&run)).query_async(&mut redis).await?;
    let (whole_ms, whole_bytes) = join(url, &run, &mut redis, tasks).await?;
    let (tasks, requests) = (f64::from(tasks), worked.requests - before.requests);
    let read = (worked.read_bytes - before.read_bytes) / tasks / f64::from(workers);
    println!(
        "| {tasks} | {workers} | {:.0} | {:.0} | {:.0} | {:.1} | {read:.0} | {join_ms:.0} | \
         {join_bytes:.0} | {whole_ms:.0} | {whole_bytes:.0} | {:.1} |",
        requests / worked_s,
        bytes / entries,
        bytes / tasks,
        requests / tasks,
        memory / 1e6,
    );
    Ok(())
}

/// What it takes somebody new to know all of a run that has ended: ms, and bytes read.
async fn join(url: &str, run: &RunId, redis: &mut MultiplexedConnection, tasks: u32) -> Anything<(f64, f64)> {
    let (before, began) = (Counted::now(redis).await?, Instant::now());
    let late = Runs::open(url)?.summary(run).await?;
    let join_ms = began.elapsed().as_secs_f64() * 1000.0;
    assert_eq!((late.status, late.committed), (RunStatus::Completed, u64::from(tasks)));
    Ok((join_ms, Counted::now(redis).await?.read_bytes - before.read_bytes))
}

fn wide(tasks: u32) -> Anything<Workflow> {
    let tasks: Vec<_> =
        (0..tasks).map(|at| json!({"id": format!("t{at}"), "name": "t", "run": "true"})).collect();
    Ok(serde_json::from_value(json!({"name": "wide", "tasks": tasks}))?)
}

async fn begin(runs: &Runs, run: &RunId, workflow: &Workflow) -> Anything<()> {
    let options = RunOptions::default();
    let events = foresail_choreography::Ledger::new(workflow, options).begin(0.0);
    let tasks = workflow.tasks().len() as u64;
    let summary = RunSummary { run: run.clone(), workflow: workflow.name().clone(), tasks, ..run_begun() };
    let workflow = serde_json::to_vec(workflow)?;
    runs.begin(NewRun { summary, options, workflow: &workflow, plan: b"{}", events }).await?;
    Ok(())
}

/// Waits for what becomes ready, until the run has ended.
async fn listen(runs: Runs, run: RunId) -> Anything<()> {
    let kinds = ["task_ready", "tasks_skipped", "run_finished"].map(str::to_owned).into();
    let mut after = runs.summary(&run).await?.last_event;
    loop {
        let page = runs.events(&run, after, Some(&kinds), EVENTS_WAIT).await?;
        if page.status != RunStatus::Running {
            return Ok(());
        }
        after = page.next_after;
    }
}

async fn work(
    runs: &Runs,
    run: &RunId,
    instance: InstanceId,
    tasks: impl Iterator<Item = u32>,
) -> Anything<()> {
    let (config, start) = (ResourceConfig::new(1_769, None)?, StartState::Warm);
    let join = Operation::Join { worker: None, instance: instance.clone(), config, start };
    runs.operate(run, vec![join]).await?;
    for task in tasks {
        let lease = Operation::Lease { task, instance: instance.clone(), epoch: 1, assuming: Vec::new() };
        let answer = runs.operate(run, vec![lease]).await?;
        let Some(OperationResult::Granted { attempt, .. }) = answer.results.first() else {
            return Err(format!("task {task}: {answer:?}").into());
        };
        let commit = commit(run, task, *attempt, &instance);
        let mut operations = vec![Operation::Commit { task, commit, assuming: Vec::new() }];
        if task % 10 == 0 {
            operations.push(Operation::Renew { instance: instance.clone(), tasks: Vec::new() });
        }
        runs.operate(run, operations).await?;
    }
    Ok(())
}

/// A result as workers report it: times in ns, a hash, an output inside or the key of one elsewhere.
fn commit(run: &RunId, task: u32, attempt: u32, instance: &InstanceId) -> Commit {
    let ns = |salt: u32| f64::from(task.wrapping_mul(2_654_435_761).rotate_left(salt) % 50_000_000) / 1e6;
    let location = match task % 2 {
        0 => Location::Inline("a".repeat(INLINE_CHARS)),
        _ => Location::Stored(format!("{run}/t{task}/{attempt}-{instance}/out")),
    };
    let hash = format!("{:016x}", u64::from(task).wrapping_mul(0x9e37_79b9_7f4a_7c15)).repeat(4);
    let measured = Measured {
        download_ms: ns(3),
        exec_ms: ns(7),
        upload_ms: ns(11),
        input_bytes: 20_000,
        output_bytes: 1_024,
        peak_memory_mb: f64::from(4_000 + task % 997) / 256.0,
    };
    Commit {
        attempt,
        instance: instance.clone(),
        outputs: vec![StoredObject { bytes: 1_024, hash, location }],
        measured,
        decision: None,
        printed: None,
    }
}

/// Entries and bytes of the log, and the memory of all that Redis has of the run, in bytes.
async fn size(redis: &mut MultiplexedConnection, run: &RunId) -> Anything<(f64, f64, f64)> {
    let log = keys::log(run);
    let log: Vec<Vec<u8>> = redis::cmd("LRANGE").arg(log).arg(0).arg(-1).query_async(redis).await?;
    let keys: Vec<String> =
        redis::cmd("KEYS").arg(format!("foresail:{{{run}}}:*")).query_async(redis).await?;
    let mut memory = 0.0;
    for key in keys {
        let of_key: f64 =
            redis::cmd("MEMORY").arg("USAGE").arg(key).arg("SAMPLES").arg(0).query_async(redis).await?;
        memory += of_key;
    }
    Ok((log.len() as f64, log.iter().map(Vec::len).sum::<usize>() as f64, memory))
}
