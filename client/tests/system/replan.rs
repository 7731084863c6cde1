//! Re-planning of runs that do not go as planned, with real workers.

use std::path::Path;
use std::time::Duration;

use foresail::schemas::plan::{Objective, Plan};
use foresail::schemas::run::{Change, ReplanMode, Replanning, RunEvent, RunOptions};
use foresail::schemas::{Platform, Sla, Workflow};
use foresail::{Client, RunHandle, StackSettings, SubmitOptions, WorkerCommand, WorkflowBuilder};
use foresail_metad as metad;
use foresail_worker::{LocalFaas, LocalSettings};
use futures_util::TryStreamExt;
use serde_json::json;

/// Tasks of the type that drifts.
const STEPS: u32 = 16;
/// What a step took when its history was made, in ms.
const USUAL_MS: u32 = 100;

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

/// metad and host apart, so that metad can go away.
struct Services {
    metad: Option<metad::Server>,
    host: LocalFaas,
    data: tempfile::TempDir,
    platform: Platform,
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
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let metad = metad_at(data.path(), None);
        let address = format!("http://{}", metad.address());
        let mut platform = StackSettings::default().platform;
        // Steps sleep, so that more workers than processors are of use.
        platform.concurrency_max = 8;
        let program = env!("CARGO_BIN_EXE_foresail").into();
        let settings = LocalSettings {
            worker: Some(WorkerCommand { program, args: Vec::new() }),
            ..LocalSettings::new(&address, data.path().join("workers")).for_platform(&platform)
        };
        let host = LocalFaas::start(settings).unwrap();
        let client = Client::connect(&address, host.url()).await.unwrap();
        Self { metad: Some(metad), host, data, platform, client }
    }

    async fn stop(self) {
        let stopping = tokio::task::spawn_blocking(move || drop((self.host, self.metad, self.data)));
        stopping.await.unwrap();
    }

    async fn plan(&self, workflow: &Workflow, objective: Objective) -> Plan {
        let client = &self.client;
        let predictions = client.predictions(workflow, &self.platform, Sla::MEDIAN).await.unwrap();
        let problem = foresail::problem(workflow, &self.platform, predictions, objective, 1);
        client.plan("auto", &problem).unwrap()
    }

    /// Fast runs, until the model knows all tasks.
    async fn learn(&self) {
        let workflow = steps(USUAL_MS);
        for _ in 0..2 {
            let plan = self.plan(&workflow, Objective::Fastest).await;
            let run = self.client.submit(&workflow, plan, SubmitOptions::on(&self.platform)).await.unwrap();
            run.wait().await.unwrap().completed().unwrap();
        }
        for _ in 0..200 {
            let model = self.client.model(workflow.name()).await.unwrap();
            if model.is_some_and(|(model, _)| model.tasks().count() == 2) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the workers sent nothing");
    }

    /// What a plan for the usual times is: the fewest workers that end in time.
    async fn usual_plan(&self) -> Plan {
        let makespan_ms = 1.4 * f64::from(STEPS * USUAL_MS);
        self.plan(&steps(USUAL_MS), Objective::Deadline { makespan_ms }).await
    }

    /// Starts a run whose steps take three times what its plan was made for.
    async fn drifted(&self, plan: &Plan, replan: ReplanMode) -> RunHandle {
        let mut options = SubmitOptions::on(&self.platform);
        options.limits = RunOptions { replan, watch_ms: 500.0, ..options.limits };
        self.client.submit(&steps(3 * USUAL_MS), plan.clone(), options).await.unwrap()
    }
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
    services.learn().await;
    let plan = services.usual_plan().await;
    // First the mode that has to find out by itself: later the model knows of the slow steps.
    let (events, result) = ended(&services.drifted(&plan, ReplanMode::Auto).await).await;
    let why = replaced(&events);
    assert!(!why.is_empty(), "the plan was never replaced");
    // A step passes its p95 before three of them have ended and show that the type drifts.
    assert!(why[0].cause.contains("its p95 is") || why[0].cause.contains("`step`"), "{why:?}");
    assert!(why[0].moved > 0 && why[0].new.makespan_ms < why[0].kept.makespan_ms, "{why:?}");
    assert_eq!(result.len(), 10 * STEPS as usize);

    let (events, of_suggested) = ended(&services.drifted(&plan, ReplanMode::Suggest).await).await;
    assert_eq!(replaced(&events).len(), 0);
    assert!(suggested(&events) > 0);
    assert_eq!(of_suggested, result);

    let (events, of_planned) = ended(&services.drifted(&plan, ReplanMode::Off).await).await;
    assert_eq!((replaced(&events).len(), suggested(&events)), (0, 0));
    assert_eq!(of_planned, result);
    services.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_metad_is_away_the_old_plan_goes_on() {
    let mut services = Services::start().await;
    services.learn().await;
    let plan = services.usual_plan().await;
    let run = services.drifted(&plan, ReplanMode::Auto).await;
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
