//! Tests of invoking many workers at a time, with a host that counts, and of what is recorded of a task.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Json;
use axum::extract::State;
use axum::routing::post;
use foresail_schemas::invocation::Invoked;
use foresail_schemas::{ResourceConfig, RunId};

use super::*;
use crate::host::HttpHost;

#[derive(Default)]
struct Counts {
    now: AtomicUsize,
    most: AtomicUsize,
    all: AtomicUsize,
}

async fn count(State(counts): State<Arc<Counts>>) -> Json<Invoked> {
    let now = counts.now.fetch_add(1, Ordering::SeqCst) + 1;
    counts.most.fetch_max(now, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(2)).await;
    counts.now.fetch_sub(1, Ordering::SeqCst);
    counts.all.fetch_add(1, Ordering::SeqCst);
    Json(Invoked { instance: InstanceId::new("i").unwrap() })
}

#[tokio::test]
async fn a_wide_fan_out_asks_the_host_for_a_few_workers_at_a_time_and_for_all_in_the_end() {
    const CHILDREN: usize = 200;
    let counts = Arc::new(Counts::default());
    let routes = axum::Router::new().route("/v1/invocations", post(count)).with_state(Arc::clone(&counts));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("http://{}", listener.local_addr().unwrap());
    let host: Arc<dyn Host> = Arc::new(HttpHost::new(&at).unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, routes).await });
    let places = Arc::new(Semaphore::new(INVOCATIONS_AT_ONCE));
    let mut chores = JoinSet::new();
    for task in 0..CHILDREN as u32 {
        let run = RunId::new("r").unwrap();
        let config = ResourceConfig { memory_mb: 256, vcpu: None };
        let metad = "http://127.0.0.1:9".to_owned();
        let invocation = Invocation::new(run, None, config, vec![task], metad);
        chores.spawn(invoke_in_turn(Arc::clone(&places), Arc::clone(&host), invocation, |_| None));
    }
    while chores.join_next().await.is_some() {}
    server.abort();
    let (most, all) = (counts.most.load(Ordering::SeqCst), counts.all.load(Ordering::SeqCst));
    assert_eq!((most, all), (INVOCATIONS_AT_ONCE, CHILDREN));
}

#[test]
fn a_forecast_goes_with_the_measurement_only_where_the_planned_size_runs_the_task() {
    let mut plan = foresail_schemas::examples::plan();
    let promised = Forecast::new([10.0, 12.0, 13.0, 15.0]);
    plan.tasks[1].forecast = Some(promised);
    let planned = plan.tasks[1].config;
    let other = ResourceConfig { memory_mb: planned.memory_mb * 2, vcpu: None };
    let written = ResourceConfig { vcpu: Some(planned.cpu_share()), ..planned };
    for (task, config, expected) in [
        (1, planned, Some(promised)),
        (1, written, Some(promised)),
        (1, other, None),
        (u32::MAX, planned, None),
    ] {
        assert_eq!(forecast(&plan, task, config), expected, "task {task} on {config}");
    }
    plan.tasks[1].forecast = None;
    assert_eq!(forecast(&plan, 1, planned), None);
}
