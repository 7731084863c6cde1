//! The host as a platform: cold and warm starts, places, keep-alive, refusals, its end.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use foresail_schemas::error::ErrorCode;
use foresail_schemas::invocation::Invocation;
use foresail_schemas::metric::StartState;
use foresail_schemas::run::{Change, RunOptions, RunStatus};
use foresail_schemas::{ResourceConfig, RunId};
use foresail_worker::host::local::{LocalError, WorkerCommand};
use foresail_worker::host::{Host, HttpHost};
use foresail_worker::{LocalFaas, LocalSettings};
use serde_json::json;

use crate::store::Store;
use crate::support::*;

#[test]
fn the_first_start_is_cold_and_the_next_of_the_same_size_is_warm() {
    let bench = Bench::new(|_| {});
    let workflow = workflow(json!([burn("t", json!({}))]));
    let plan = flexible(&workflow, config(256, 1.0));
    bench.complete("r-1", &workflow, &plan);
    bench.complete("r-2", &workflow, &plan);
    let status = bench.status();
    assert_eq!((status.cold_starts, status.warm_starts, status.idle), (1, 1, 1));
    assert_eq!(starts(&bench.store.records()), [StartState::Cold, StartState::Warm]);
    assert_eq!(bench.host.pids().len(), 1);
}

#[test]
fn another_size_or_a_drain_makes_the_next_start_cold() {
    let bench = Bench::new(|_| {});
    let workflow = workflow(json!([burn("t", json!({}))]));
    bench.complete("r-1", &workflow, &flexible(&workflow, config(256, 1.0)));
    bench.complete("r-2", &workflow, &flexible(&workflow, config(512, 1.0)));
    let status = bench.block_on(HttpHost::new(bench.host.url()).unwrap().drain()).unwrap();
    assert_eq!((status.cold_starts, status.idle), (2, 0));
    bench.complete("r-3", &workflow, &flexible(&workflow, config(512, 1.0)));
    assert_eq!(bench.status().cold_starts, 3);
}

#[test]
fn a_cold_start_takes_longer_than_a_warm_one_and_a_simulated_delay_counts() {
    let bench = Bench::new(|settings| settings.cold_start_ms = 300.0);
    let workflow = workflow(json!([burn("t", json!({}))]));
    let plan = flexible(&workflow, config(256, 1.0));
    for run in ["r-1", "r-2"] {
        bench.complete(run, &workflow, &plan);
    }
    let times: Vec<f64> = bench.store.records().iter().filter_map(startup_ms).collect();
    assert!(times[0] > 300.0 && times[1] < times[0] - 300.0, "{times:?}");
}

fn startup_ms(record: &foresail_schemas::metric::Record) -> Option<f64> {
    match record {
        foresail_schemas::metric::Record::Startup(startup) => Some(startup.time_ms),
        _ => None,
    }
}

#[test]
fn no_more_tasks_run_at_the_same_time_than_there_are_places() {
    let bench = Bench::new(|_| {});
    let tasks: Vec<_> = (0..6).map(|i| burn(&format!("t{i}"), json!({"sleep_ms": 100}))).collect();
    let workflow = workflow(json!(tasks));
    let run = bench.submit("r", &workflow, &flexible(&workflow, config(256, 1.0)), RunOptions::default());
    assert!(bench.status().queued >= 3);
    bench.wait_for_end(&run);
    let held = bench.store.held();
    let (mut running, mut most) = (0_i32, 0);
    for event in &held.runs[&run].events {
        match event.change {
            Change::TaskLeased { .. } => running += 1,
            Change::TaskCommitted { .. } => running -= 1,
            _ => {}
        }
        most = most.max(running);
    }
    assert_eq!(most, 2);
}

#[test]
fn an_idle_worker_ends_when_its_keep_alive_is_over() {
    let bench = Bench::new(|settings| settings.keep_alive_ms = 100.0);
    let workflow = workflow(json!([burn("t", json!({}))]));
    bench.complete("r", &workflow, &flexible(&workflow, config(256, 1.0)));
    wait_until("the worker to end", || bench.host.pids().is_empty());
    assert_eq!(bench.status().idle, 0);
}

#[test]
fn a_host_refuses_what_it_does_not_offer_and_what_it_cannot_hold() {
    let bench = Bench::new(|settings| {
        settings.menu = vec![config(256, 1.0)];
        settings.concurrency_max = 1;
        settings.queue_max = 1;
    });
    let host = HttpHost::new(bench.host.url()).unwrap();
    let workflow = workflow(json!([burn("t", json!({"sleep_ms": 30_000}))]));
    let plan = flexible(&workflow, config(256, 1.0));
    let run = bench.submit("r", &workflow, &plan, RunOptions::default());
    let ask = |task: u32, memory_mb| {
        Invocation::new(run.clone(), None, config(memory_mb, 1.0), vec![task], bench.store.url.clone())
    };
    let error = bench.block_on(host.invoke(ask(0, 512))).unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnknownConfig);
    assert!(error.to_string().contains("256 MB") && !error.is_retryable(), "{error}");
    wait_until("the worker to be busy", || bench.status().busy == 1);
    bench.block_on(host.invoke(ask(1, 256))).unwrap();
    let error = bench.block_on(host.invoke(ask(2, 256))).unwrap_err();
    assert_eq!(error.code(), ErrorCode::CapacityExceeded);
    assert!(error.is_retryable(), "{error}");
}

#[test]
fn a_host_works_for_its_own_metad_only() {
    let bench = Bench::new(|_| {});
    let asked = |metad: String| {
        let run = RunId::new("r").unwrap();
        Invocation::new(run, None, config(256, 1.0), vec![0], metad)
    };
    let host = HttpHost::new(bench.host.url()).unwrap();
    let error = bench.block_on(host.invoke(asked("http://127.0.0.1:9".to_owned()))).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidParameter);
    assert!(error.to_string().contains("`http://127.0.0.1:9`") && !error.is_retryable(), "{error}");
    bench.block_on(host.invoke(asked(format!("{}/", bench.store.url)))).unwrap();
}

#[test]
fn an_invocation_that_is_not_declared_as_json_is_refused() {
    let bench = Bench::new(|_| {});
    let body = json!({"run": "r", "config": {"memory_mb": 256, "vcpu": 1.0}, "tasks": [0],
        "metad": bench.store.url})
    .to_string();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = |kind: &str| {
        let url = format!("{}/v1/invocations", bench.host.url());
        let request = client.post(url).header("content-type", kind).body(body.clone());
        bench.block_on(request.send()).unwrap().status().as_u16()
    };
    assert_eq!((post("text/plain"), post("application/json; charset=utf-8")), (415, 202));
}

#[test]
fn a_host_without_a_token_takes_no_invocation_of_a_page_of_the_web() {
    let bench = Bench::new(|_| {});
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = |name: &str, value: &str| {
        let request = client.get(format!("{}/v1/status", bench.host.url())).header(name, value);
        bench.block_on(request.send()).unwrap().status().as_u16()
    };
    assert_eq!(ask("origin", "https://example.org"), 401);
    assert_eq!(ask("host", "rebound.example.org"), 401, "a name that was turned to this address");
    assert_eq!((ask("origin", bench.host.url()), ask("accept", "*/*")), (200, 200));
}

#[test]
fn a_host_with_a_token_wants_it_and_its_workers_send_it() {
    let bench = Bench::new(|settings| settings.token = Some("secret".to_owned()));
    for token in [None, Some("wrong")] {
        let host = HttpHost::with_token(bench.host.url(), token).unwrap();
        assert_eq!(bench.block_on(host.status()).unwrap_err().code(), ErrorCode::Unauthorized);
    }
    let host = HttpHost::with_token(bench.host.url(), Some("secret")).unwrap();
    bench.block_on(host.status()).unwrap();
    // A fan-out: the first worker invokes the other over HTTP.
    let workflow = workflow(json!([burn("a", json!({})),
        {"id": "b", "name": "b", "run": "true", "after": ["a"]},
        {"id": "c", "name": "c", "run": "true", "after": ["a"]}]));
    let both = (None, config(256, 1.0));
    let plan = plan(&workflow, &[both, both, (None, config(512, 1.0))]);
    bench.complete("r", &workflow, &plan);
    assert_eq!(bench.status().cold_starts, 2);
}

#[test]
fn stopping_the_host_leaves_no_process_and_no_file_behind() {
    let mut bench = Bench::new(|_| {});
    let pids_file = bench.data.path().join("pids");
    let line =
        format!("sleep 600 & echo $! >> {0}; setsid sleep 600 & echo $! >> {0}; wait", pids_file.display());
    let workflow = workflow(json!([
        {"id": "c", "name": "c", "run": line}, burn("t", json!({"cpu_ms": 600_000}))]));
    bench.submit("r", &workflow, &flexible(&workflow, config(256, 1.0)), RunOptions::default());
    let sleepers = || {
        let text = std::fs::read_to_string(&pids_file).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<u32>>()
    };
    wait_until("the command to start", || sleepers().len() == 2 && bench.host.pids().len() == 2);
    let mut pids = bench.host.pids();
    pids.extend(sleepers());
    bench.host.stop();
    let workers = &pids[..2];
    assert!(workers.iter().all(|pid| !is_alive(*pid)), "{workers:?}");
    if bench.host.holds_cpu_share() {
        // A process that left the session is found through its group.
        pids.into_iter().for_each(wait_until_gone);
    } else {
        wait_until_gone(pids[2]);
        // SAFETY: a plain system call on a process that this test started.
        unsafe { libc::kill(pids[3] as i32, libc::SIGKILL) };
    }
    assert_eq!(std::fs::read_dir(bench.data.path().join("scratch")).unwrap().count(), 0);
}

#[test]
fn two_hosts_do_not_share_a_data_directory() {
    let mut bench = Bench::new(|_| {});
    let settings = LocalSettings::new(&bench.store.url, bench.data.path());
    let error = LocalFaas::start(settings.clone()).unwrap_err();
    assert!(matches!(error, LocalError::InUse(_)), "{error}");
    bench.host.stop();
    LocalFaas::start(settings).unwrap();
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let bench = Bench::new(|_| {});
    let with = |adjust: fn(&mut LocalSettings)| {
        let mut settings = LocalSettings::new(&bench.store.url, bench.data.path().join("other"));
        adjust(&mut settings);
        LocalFaas::start(settings).unwrap_err().to_string()
    };
    assert!(with(|s| s.concurrency_max = 0).contains("`concurrency_max` is `0`"));
    assert!(with(|s| s.keep_alive_ms = -1.0).contains("`keep_alive_ms` is `-1`"));
    let nothing = WorkerCommand { program: "/no/such/program".into(), args: Vec::new() };
    let mut settings = LocalSettings::new(&bench.store.url, bench.data.path().join("other"));
    settings.worker = Some(nothing);
    assert!(LocalFaas::start(settings).unwrap_err().to_string().contains("`/no/such/program`"));
    assert!(with(|s| s.listen = "0.0.0.0:0".parse().unwrap()).contains("127.0.0.1"));
}

/// A host as a process of its own, with a data directory given by a relative path.
struct Alone {
    process: Child,
    store: Store,
    dir: tempfile::TempDir,
    url: String,
}

impl Alone {
    fn start() -> Self {
        let (store, dir) = (Store::start(), tempfile::tempdir().unwrap());
        let mut process = Command::new(worker_program())
            .args(["host", "--data", "host-data", "--metad", &store.url])
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("host listening on ").unwrap().to_owned();
        Self { process, store, dir, url }
    }

    fn run_command(&self, line: &str) -> RunId {
        let workflow = workflow(json!([{"id": "c", "name": "c", "run": line, "inputs": [{"value": 7}]}]));
        let plan = flexible(&workflow, ResourceConfig::new(442, None).unwrap());
        let run = RunId::new("r").unwrap();
        self.store.create(&run, &workflow, &plan, RunOptions::default());
        let (config, metad) = (plan.tasks[0].config, self.store.url.clone());
        let invocation = Invocation::new(run.clone(), None, config, vec![0], metad);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(HttpHost::new(&self.url).unwrap().invoke(invocation)).unwrap();
        run
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        // SAFETY: a plain system call on a process that this test started and has not waited for.
        if matches!(self.process.try_wait(), Ok(None)) {
            unsafe { libc::kill(self.process.id() as i32, libc::SIGTERM) };
        }
        let _ = self.process.wait();
    }
}

/// Runs itself a second time with the variable that makes a process a worker.
#[test]
fn a_program_that_forgot_to_become_a_worker_does_not_start_workers_without_end() {
    const VARIABLE: &str = "FORESAIL_WORKER_SOCKET";
    if std::env::var_os(VARIABLE).is_some() {
        let error = LocalFaas::start(LocalSettings::new("http://127.0.0.1:9", "/no/such/directory"));
        assert!(matches!(error, Err(LocalError::InsideWorker)), "{error:?}");
        return;
    }
    let itself = "host::a_program_that_forgot_to_become_a_worker_does_not_start_workers_without_end";
    let said = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", itself])
        .env(VARIABLE, "/no/such/socket")
        .output()
        .unwrap();
    assert!(said.status.success(), "{said:?}");
    assert!(String::from_utf8_lossy(&said.stdout).contains("1 passed"), "{said:?}");
}

#[test]
fn a_host_of_its_own_works_below_a_relative_path_and_ends_well_on_sigterm() {
    let mut alone = Alone::start();
    let run = alone.run_command("cat $FORESAIL_INPUTS/0 > $FORESAIL_OUTPUTS/out");
    wait_until("the run to end", || alone.store.status(&run) != RunStatus::Running);
    assert_eq!(alone.store.status(&run), RunStatus::Completed, "{:?}", alone.store.summary(&run).failure);
    // SAFETY: a plain system call on a process that this test started.
    unsafe { libc::kill(alone.process.id() as i32, libc::SIGTERM) };
    assert!(alone.process.wait().unwrap().success());
}

#[test]
fn workers_end_with_a_host_that_is_killed() {
    let mut alone = Alone::start();
    let pid_file = alone.dir.path().join("pid");
    alone.run_command(&format!("sleep 600 & echo $PPID $$ $! > {}; wait", pid_file.display()));
    let pids = || -> Vec<u32> {
        let text = std::fs::read_to_string(&pid_file).unwrap_or_default();
        text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    };
    wait_until("the command to run", || pids().len() == 3);
    alone.process.kill().unwrap();
    alone.process.wait().unwrap();
    pids().into_iter().for_each(wait_until_gone);
    // Nobody was left to remove its groups: the next host does.
    drop(Alone::start());
    let prefix = format!("foresail-{}-", alone.process.id());
    let mounts = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let groups = mounts.flat_map(|mount| std::fs::read_dir(mount.path())).flatten().flatten();
    let left: Vec<_> = groups.filter(|g| g.file_name().to_string_lossy().starts_with(&prefix)).collect();
    assert!(left.is_empty(), "{left:?}");
}
