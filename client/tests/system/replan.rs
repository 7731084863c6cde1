//! Re-planning of runs that do not go as planned, with real workers.

use std::path::Path;
use std::time::Duration;

use foresail::schemas::plan::{Objective, Plan};
use foresail::schemas::run::{Change, ReplanMode, Replanning, RunEvent, RunOptions};
use foresail::schemas::{Platform, Sla, Workflow};
use foresail::{
    Client, ClientError, RunHandle, StackSettings, SubmitOptions, Verdict, WorkerCommand, WorkflowBuilder,
};
use foresail_metad as metad;
use foresail_worker::{LocalFaas, LocalSettings};
use futures_util::TryStreamExt;
use serde_json::json;

use crate::support;

/// Tasks of the type that drifts.
const STEPS: u32 = 16;
/// What a step took when its history was made, in ms.
const USUAL_MS: u32 = 100;
/// How many times that it takes then: more than on the smallest size, where it is predicted to take four
/// times as long though it sleeps.
const SLOWER: u32 = 6;

/// Steps of one type that sleep, and one that puts their outputs together.
fn steps(sleep_ms: u32) -> Workflow {
    let mut flow = WorkflowBuilder::new("steps");
    let steps: Vec<_> = (0..STEPS)
        .map(|at| {
            let params = json!({ "sleep_ms": sleep_ms, "output_bytes": 10 });
            flow.task(format!("s{at}")).named("step").function("foresail.burn", params).handle()
        })
        .collect();
    let all = flow.task("all").function("foresail.concat", ());
    steps.iter().fold(all, foresail::TaskBuilder::reads);
    flow.build().unwrap()
}

/// Steps sleep, so that more workers than processors are of use.
fn platform() -> Platform {
    let mut platform = StackSettings::default().platform;
    platform.concurrency_max = 8;
    platform
}

/// metad and host apart, so that metad can go away and nobody looks after runs but their clients.
pub struct Services {
    metad: Option<metad::Server>,
    host: LocalFaas,
    data: tempfile::TempDir,
    address: String,
    client: Client,
}

fn metad_at(data: &Path, listen: Option<std::net::SocketAddr>) -> metad::Server {
    let mut settings = metad::Settings::embedded(data.join("metad"));
    if let Some(listen) = listen {
        settings.listen = listen;
    }
    metad::Server::start(settings).unwrap()
}

impl Services {
    pub async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let metad = metad_at(data.path(), None);
        let address = format!("http://{}", metad.address());
        let program = env!("CARGO_BIN_EXE_foresail").into();
        let settings = LocalSettings {
            worker: Some(WorkerCommand { program, args: Vec::new() }),
            ..LocalSettings::new(&address, data.path().join("workers")).for_platform(&platform())
        };
        let host = LocalFaas::start(settings).unwrap();
        let client = Client::connect(&address, host.url()).await.unwrap();
        Self { metad: Some(metad), host, data, address, client }
    }

    /// A command on these services.
    pub async fn command(&self, args: &[&str]) -> support::Ended {
        let all = [args, &["--metad", &self.address, "--host", self.host.url()]].concat();
        let mut command = support::foresail(&self.data.path().join("client"), &all);
        tokio::task::spawn_blocking(move || support::finish(&mut command)).await.unwrap()
    }

    /// The addresses as `foresail up` tells them.
    pub fn addresses(&self) -> serde_json::Value {
        json!({ "metad": self.address, "host": self.host.url() })
    }

    pub async fn stop(self) {
        let stopping = tokio::task::spawn_blocking(move || drop((self.host, self.metad, self.data)));
        stopping.await.unwrap();
    }
}

async fn plan(client: &Client, workflow: &Workflow, objective: Objective) -> Plan {
    let predictions = client.predictions(workflow, &platform(), Sla::MEDIAN).await.unwrap();
    client.plan("auto", &foresail::problem(workflow, &platform(), predictions, objective, 1)).unwrap()
}

/// Fast runs, until the model knows all tasks; then a plan for the usual times with the fewest workers that
/// end in time.
async fn learned(client: &Client) -> Plan {
    let workflow = steps(USUAL_MS);
    for _ in 0..2 {
        let plan = plan(client, &workflow, Objective::Fastest).await;
        let run = client.submit(&workflow, plan, SubmitOptions::on(&platform())).await.unwrap();
        run.wait().await.unwrap().completed().unwrap();
    }
    for _ in 0..200 {
        let model = client.model(workflow.name()).await.unwrap();
        if model.is_some_and(|(model, _)| model.tasks().count() == 2) {
            let makespan_ms = 1.4 * f64::from(STEPS * USUAL_MS);
            return plan(client, &workflow, Objective::Deadline { makespan_ms }).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the workers sent nothing");
}

/// Starts a run whose steps take so many times what its plan was made for.
async fn drifted(client: &Client, plan: &Plan, replan: ReplanMode, slower: u32) -> RunHandle {
    let mut options = SubmitOptions::on(&platform());
    options.limits = RunOptions { replan, watch_ms: 500.0, ..options.limits };
    client.submit(&steps(slower * USUAL_MS), plan.clone(), options).await.unwrap()
}

async fn ended(run: &RunHandle) -> (Vec<RunEvent>, Vec<u8>) {
    run.wait().await.unwrap().completed().unwrap();
    let events: Vec<RunEvent> = run.events().try_collect().await.unwrap();
    (events, run.result("all").await.unwrap().to_vec())
}

fn replaced(events: &[RunEvent]) -> Vec<&Replanning> {
    let why = |event| match event {
        &RunEvent { change: Change::PlanReplaced { why: Some(ref why), .. }, .. } => Some(&**why),
        _ => None,
    };
    events.iter().filter_map(why).collect()
}

fn suggested(events: &[RunEvent]) -> usize {
    events.iter().filter(|event| matches!(event.change, Change::PlanSuggested { .. })).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_drifts_is_replanned_as_its_mode_says_with_the_same_result() {
    let services = Services::start().await;
    let client = &services.client;
    let plan = learned(client).await;
    // First the mode that has to find out by itself: later the model knows of the slow steps.
    let (events, result) = ended(&drifted(client, &plan, ReplanMode::Auto, SLOWER).await).await;
    let why = replaced(&events);
    assert!(!why.is_empty(), "the plan was never replaced");
    // A step passes its p95 before three of them have ended and show that the type drifts.
    assert!(why[0].cause.contains("its p95 is") || why[0].cause.contains("`step`"), "{why:?}");
    assert!(why[0].moved > 0 && why[0].new.makespan_ms < why[0].kept.makespan_ms, "{why:?}");
    assert_eq!(result.len(), 10 * STEPS as usize);

    let (events, of_suggested) = ended(&drifted(client, &plan, ReplanMode::Suggest, SLOWER).await).await;
    assert_eq!(replaced(&events).len(), 0);
    assert!(suggested(&events) > 0);
    assert_eq!(of_suggested, result);

    let (events, of_planned) = ended(&drifted(client, &plan, ReplanMode::Off, SLOWER).await).await;
    assert_eq!((replaced(&events).len(), suggested(&events)), (0, 0));
    assert_eq!(of_planned, result);
    services.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_replaced_before_the_first_of_the_slow_steps_has_ended() {
    let services = Services::start().await;
    let plan = learned(&services.client).await;
    // So slow that whatever the machine does besides, a step is past its p95 long before it ends.
    let (events, _) = ended(&drifted(&services.client, &plan, ReplanMode::Auto, 30).await).await;
    let place = |is_such: fn(&Change) -> bool| events.iter().position(|event| is_such(&event.change));
    let replaced_at = place(|change| matches!(change, Change::PlanReplaced { .. }));
    let ended_at = place(|change| matches!(change, Change::TaskCommitted { .. }));
    assert!(replaced_at.is_some() && replaced_at < ended_at, "{replaced_at:?} {ended_at:?}");
    let why = replaced(&events)[0];
    assert!(why.cause.contains("its p95 is"), "{why:?}");
    assert!(why.cause.contains("`step` is expected to take"), "its siblings are suspected: {why:?}");
    services.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suggested_plan_is_shown_and_put_in_force_by_hand() {
    let services = Services::start().await;
    let client = &services.client;
    let plan = learned(client).await;
    let run = drifted(client, &plan, ReplanMode::Suggest, 30).await;
    let mut suggestion = None;
    while suggestion.is_none() {
        assert!(run.progress().await.unwrap().settled() < u64::from(STEPS), "nothing was suggested");
        tokio::time::sleep(Duration::from_millis(50)).await;
        suggestion = client.suggestion(run.id()).await.unwrap();
    }
    let why = suggestion.and_then(|request| request.why).expect("a suggestion says why");
    assert!(why.new.makespan_ms < why.kept.makespan_ms, "{why:?}");
    let id = run.id().as_str();
    let shown = services.command(&["runs", id]).await;
    assert!(shown.stdout.contains(&format!("foresail replan {id} --accept")), "{shown:?}");
    let accepted = services.command(&["replan", id, "--accept", "-o", "json"]).await;
    assert_eq!(accepted.code, Some(0), "{accepted:?}");
    assert_eq!(accepted.json()["epoch"], json!(2), "{accepted:?}");
    assert_eq!(client.suggestion(run.id()).await.unwrap(), None, "it is in force");
    let (events, result) = ended(&run).await;
    assert_eq!((replaced(&events).len(), result.len()), (1, 10 * STEPS as usize));
    services.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_replanned_when_it_is_asked_for() {
    let services = Services::start().await;
    let client = &services.client;
    let plan = learned(client).await;
    let run = drifted(client, &plan, ReplanMode::Off, 30).await;
    let id = run.id().clone();
    let mut found = client.propose(&id, Some(platform())).await.unwrap();
    while found.verdict == Verdict::Keep {
        assert!(run.progress().await.unwrap().settled() < u64::from(STEPS), "no better plan was found");
        tokio::time::sleep(Duration::from_millis(100)).await;
        found = client.propose(&id, Some(platform())).await.unwrap();
    }
    let shown = services.command(&["replan", id.as_str(), "--auto"]).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains("plan in force") && shown.stdout.contains("it was asked for"), "{shown:?}");
    assert!(shown.stderr.contains("plan 2 of run"), "{shown:?}");
    let late = client.put_in_force(&id, &found.request).await;
    assert!(late.is_err(), "the plan that it was made from is not in force any more: {late:?}");
    ended(&run).await;
    assert!(matches!(client.propose(&id, None).await, Err(ClientError::RunEnded { .. })));
    let none = services.command(&["replan", id.as_str(), "--accept"]).await;
    assert_eq!(none.code, Some(2), "{none:?}");
    services.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_client_is_gone_is_replanned_by_its_stack() {
    let data = tempfile::tempdir().unwrap();
    let (_up, addresses) = support::stack(data.path(), &["--concurrency", "8"]);
    let [metad, host] = ["metad", "host"].map(|key| addresses[key].as_str().unwrap());
    let client = Client::connect(metad, host).await.unwrap();
    let plan = learned(&client).await;
    let run = drifted(&client, &plan, ReplanMode::Auto, 30).await;
    let id = run.id().clone();
    // A handle that is dropped is a client that is gone.
    drop(run);
    let run = client.attach(&id).await.unwrap();
    let (events, _) = ended(&run).await;
    assert!(!replaced(&events).is_empty(), "nobody re-planned it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_run_is_replanned_as_the_one_before_was_to_be() {
    let services = Services::start().await;
    let client = &services.client;
    let plan = learned(client).await;
    let run = drifted(client, &plan, ReplanMode::Auto, 30).await;
    run.cancel("it is resumed").await.unwrap();
    run.wait().await.unwrap();
    let resumed = services.command(&["resume", run.id().as_str(), "-o", "json"]).await;
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    assert!(resumed.json()["replanned"].as_u64().is_some_and(|count| count > 0), "{resumed:?}");
    services.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_metad_is_away_the_old_plan_goes_on() {
    let mut services = Services::start().await;
    let plan = learned(&services.client).await;
    let run = drifted(&services.client, &plan, ReplanMode::Auto, 3).await;
    while run.progress().await.unwrap().running() == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let metad = services.metad.take().unwrap();
    let listen = metad.address();
    let data = services.data.path().to_owned();
    // Away for longer than it takes three steps to show that they drift.
    let again = move || {
        drop(metad);
        std::thread::sleep(Duration::from_millis(2_000));
        metad_at(&data, Some(listen))
    };
    services.metad = Some(tokio::task::spawn_blocking(again).await.unwrap());
    let (_, result) = ended(&run).await;
    assert_eq!(result.len(), 10 * STEPS as usize);
    services.stop().await;
}
