//! What every keeper of the state of runs must do, and that metad and Redis do it.

use std::sync::Arc;
use std::time::Duration;

use foresail::schemas::plan::{Objective, Plan};
use foresail::schemas::run::{
    Change, Commit, CurrentPlan, Location, Measured, Operation, OperationRequest, OperationResult,
    ReplanRequest, RunCreated, RunEvent, RunOptions, RunRequest, RunStatus, StoredObject,
};
use foresail::schemas::{ErrorCode, RunId, Sla, Workflow};
use foresail::{LocalStack, StackSettings, WorkflowBuilder};
use foresail_schemas::id::{InstanceId, WorkerId};
use foresail_schemas::metric::StartState;
use foresail_worker::api::{Api, ApiError, REQUEST_LIMIT};
use foresail_worker::coordination::{Coordination, CoordinationSettings};
use foresail_worker::metad::Metad;

use crate::servers::Redis;
use crate::workloads::settings;

/// A keeper under test: runs are created through metad, as clients do.
pub struct Subject {
    stack: LocalStack,
    settings: CoordinationSettings,
}

impl Subject {
    pub async fn new(coordination: CoordinationSettings) -> Self {
        let of_stack = StackSettings { coordination: coordination.clone(), ..settings() };
        Self { stack: LocalStack::start(of_stack).await.unwrap(), settings: coordination }
    }

    pub async fn stop(self) {
        self.stack.stop().await;
    }

    /// One more participant, with connections of its own.
    fn state(&self) -> Arc<dyn Coordination> {
        self.settings.open(&Metad::new(self.stack.metad_address(), None).unwrap()).unwrap()
    }

    async fn create(&self, run: &str, workflow: &Workflow, options: RunOptions) -> (RunId, Plan) {
        let client = self.stack.client().await.unwrap();
        let table = client.predictions(workflow, self.stack.platform(), Sla::MEDIAN).await.unwrap();
        let problem = foresail::problem(workflow, self.stack.platform(), table, Objective::Fastest, 1);
        let plan = client.plan("simple", &problem).unwrap();
        let (id, resume) = (RunId::new(run).unwrap(), None);
        let request = RunRequest {
            run: Some(id.clone()),
            workflow: workflow.clone(),
            plan: plan.clone(),
            options,
            resume,
        };
        let api = Api::new(self.stack.metad_address(), None).unwrap();
        for duplicate in [false, true] {
            let created: RunCreated = api.post("/v1/runs", &request, REQUEST_LIMIT).await.unwrap();
            assert_eq!((created.run, created.duplicate), (id.clone(), duplicate));
        }
        (id, plan)
    }
}

/// A task that two others wait for, and so many that wait for nothing.
fn workflow(wide: usize) -> Workflow {
    let mut flow = WorkflowBuilder::new("state");
    let first = flow.task("first").command("true").handle();
    for name in ["left", "right"] {
        flow.task(name).command("true").reads(&first);
    }
    for at in 0..wide {
        flow.task(format!("wide{at}")).command("true");
    }
    flow.build().unwrap()
}

fn instance(name: &str) -> InstanceId {
    InstanceId::new(name).unwrap()
}

/// A planned worker begins.
fn join(plan: &Plan, name: &str) -> Operation {
    let (worker, config) = (Some(WorkerId::new("w").unwrap()), plan.tasks[0].config);
    Operation::Join { worker, instance: instance(name), config, start: StartState::Cold }
}

/// A flexible worker begins.
fn join_free(plan: &Plan, name: &str) -> Operation {
    let (instance, config) = (instance(name), plan.tasks[0].config);
    Operation::Join { worker: None, instance, config, start: StartState::Warm }
}

fn lease(task: u32, name: &str) -> Operation {
    Operation::Lease { task, instance: instance(name), epoch: 1, assuming: Vec::new() }
}

fn commit(task: u32, attempt: u32, name: &str) -> Operation {
    let hash = blake3::hash(b"").to_hex().to_string();
    let outputs = vec![StoredObject { bytes: 0, hash, location: Location::Inline(String::new()) }];
    let measured = Measured::default();
    let commit =
        Commit { attempt, instance: instance(name), outputs, measured, decision: None, printed: None };
    Operation::Commit { task, commit, assuming: Vec::new() }
}

async fn ask(state: &dyn Coordination, run: &RunId, operations: Vec<Operation>) -> Vec<OperationResult> {
    state.operate(run, &OperationRequest { operations }).await.unwrap().results
}

async fn one(state: &dyn Coordination, run: &RunId, operation: Operation) -> OperationResult {
    ask(state, run, vec![operation]).await.remove(0)
}

async fn all_events(state: &dyn Coordination, run: &RunId) -> Vec<RunEvent> {
    let kinds = Change::KINDS.join(",");
    let (mut events, mut after) = (Vec::new(), 0);
    let last = state.summary(run).await.unwrap().last_event;
    while after < last {
        let page = state.events(run, after, &kinds).await.unwrap();
        after = page.next_after;
        events.extend(page.events);
    }
    events
}

pub async fn conforms(subject: &Subject) {
    workers_join_lease_and_commit_once(subject).await;
    leases_end_by_the_clock_of_the_store(subject).await;
    a_plan_replaces_only_the_one_it_was_made_from(subject).await;
    events_are_waited_for(subject).await;
    a_cancelled_run_takes_nothing_more(subject).await;
    eight_at_once_commit_each_task_once(subject).await;
    who_comes_late_to_a_long_run_sees_what_everybody_sees(subject).await;
    what_is_not_there_is_missing(subject).await;
}

async fn workers_join_lease_and_commit_once(subject: &Subject) {
    let (a, b) = (subject.state(), subject.state());
    let (run, plan) = subject.create("once", &workflow(0), RunOptions::default()).await;
    assert_eq!(a.workflow(&run).await.unwrap(), workflow(0));
    assert_eq!(a.plan(&run).await.unwrap().plan, plan);
    for _ in 0..2 {
        let joined = one(&*a, &run, join(&plan, "a")).await;
        assert!(matches!(joined, OperationResult::Joined { .. }), "{joined:?}");
    }
    let second = one(&*b, &run, join(&plan, "b")).await;
    assert_eq!(second, OperationResult::AlreadyAlive { instance: instance("a") });
    one(&*b, &run, join_free(&plan, "b")).await;
    let granted = one(&*a, &run, lease(0, "a")).await;
    assert!(matches!(granted, OperationResult::Granted { attempt: 1, .. }), "{granted:?}");
    assert_eq!(granted, one(&*a, &run, lease(0, "a")).await, "the same attempt");
    assert!(matches!(one(&*b, &run, lease(0, "b")).await, OperationResult::Held { .. }));
    assert_eq!(one(&*b, &run, lease(1, "b")).await, OperationResult::NotReady);
    let won = one(&*a, &run, commit(0, 1, "a")).await;
    assert_eq!(won, OperationResult::Won { ready: vec![1, 2], skipped: Vec::new() });
    let second = one(&*b, &run, commit(0, 1, "b")).await;
    let OperationResult::Committed { commit: stands } = second else { panic!("{second:?}") };
    assert_eq!(stands.instance, instance("a"));
    let results = ask(&*b, &run, vec![lease(1, "b"), commit(1, 1, "b"), lease(2, "b")]).await;
    assert!(matches!(results[0], OperationResult::Granted { .. }), "{results:?}");
    assert!(matches!(results[1], OperationResult::Won { .. }), "{results:?}");
    assert_eq!(a.summary(&run).await.unwrap().running, 1);
    assert!(matches!(one(&*b, &run, commit(2, 1, "b")).await, OperationResult::Won { .. }));
    let summary = a.summary(&run).await.unwrap();
    assert_eq!((summary.status, summary.committed), (RunStatus::Completed, 3));
}

async fn leases_end_by_the_clock_of_the_store(subject: &Subject) {
    let (a, b) = (subject.state(), subject.state());
    let options = RunOptions { lease_ms: 400.0, heartbeat_ms: 100.0, ..RunOptions::default() };
    let (run, plan) = subject.create("expiry", &workflow(1), options).await;
    let granted = ask(&*a, &run, vec![join(&plan, "a"), lease(0, "a"), lease(3, "a")]).await;
    assert!(matches!(granted[1], OperationResult::Granted { attempt: 1, .. }), "{granted:?}");
    // Task 3 is renewed and task 0 is not, for longer than a lease.
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let renew = Operation::Renew { instance: instance("a"), tasks: vec![3] };
        assert_eq!(one(&*a, &run, renew).await, OperationResult::Done);
    }
    let taken = ask(&*b, &run, vec![join_free(&plan, "b"), lease(3, "b"), lease(0, "b")]).await;
    assert!(matches!(taken[1], OperationResult::Held { .. }), "{taken:?}");
    assert!(matches!(taken[2], OperationResult::Granted { attempt: 2, .. }), "{taken:?}");
}

async fn a_plan_replaces_only_the_one_it_was_made_from(subject: &Subject) {
    let (a, b) = (subject.state(), subject.state());
    let (run, plan) = subject.create("replan", &workflow(0), RunOptions::default()).await;
    let mut better = plan.clone();
    better.predicted.makespan_ms += 1.0;
    let request = ReplanRequest { expected_epoch: 1, plan: better.clone(), why: None };
    for _ in 0..2 {
        let CurrentPlan { epoch, plan, .. } = a.replan(&run, &request).await.unwrap();
        assert_eq!((epoch, &plan), (2, &better), "repeated, it is the same");
    }
    let late = b.replan(&run, &ReplanRequest { expected_epoch: 1, plan, why: None }).await;
    let Err(ApiError::Refused { problem, .. }) = late else { panic!("{late:?}") };
    assert_eq!(problem.code, ErrorCode::PlanEpochConflict);
    let found = b.plan(&run).await.unwrap();
    assert_eq!((found.epoch, found.plan), (2, better.clone()));
    let leased = ask(&*b, &run, vec![join_free(&better, "b"), lease(0, "b")]).await;
    assert_eq!(leased[1], OperationResult::StaleEpoch);
    // metad is asked last: it stores what others did.
    let metad = Metad::new(subject.stack.metad_address(), None).unwrap();
    until(|| async { metad.plan(&run).await.unwrap().epoch == 2 }).await;
    assert_eq!(metad.plan(&run).await.unwrap().plan, better);
}

/// Waits for what comes of itself; the limit only ends a test that hangs.
async fn until<F: Future<Output = bool>>(mut is_so: impl FnMut() -> F) {
    for _ in 0..3_000 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not become so");
}

async fn events_are_waited_for(subject: &Subject) {
    let (a, b) = (subject.state(), subject.state());
    let (run, plan) = subject.create("events", &workflow(0), RunOptions::default()).await;
    ask(&*a, &run, vec![join(&plan, "a"), lease(0, "a")]).await;
    let before = all_events(&*b, &run).await;
    assert!(before.iter().map(|event| event.seq).eq(1..=before.len() as u64));
    let (waiting, of) = (Arc::clone(&b), run.clone());
    let after = before.len() as u64;
    let waits = tokio::spawn(async move { waiting.events(&of, after, "task_ready").await.unwrap() });
    tokio::time::sleep(Duration::from_millis(50)).await;
    one(&*a, &run, commit(0, 1, "a")).await;
    let page = waits.await.unwrap();
    let ready: Vec<u32> = page
        .events
        .iter()
        .map(|event| match event.change {
            Change::TaskReady { task } => task,
            _ => panic!("it was not asked for: {event:?}"),
        })
        .collect();
    assert_eq!(ready, [1, 2]);
}

async fn a_cancelled_run_takes_nothing_more(subject: &Subject) {
    let (a, b) = (subject.state(), subject.state());
    let (run, plan) = subject.create("cancelled", &workflow(0), RunOptions::default()).await;
    let cancel = Operation::Cancel { reason: "enough".to_owned() };
    assert_eq!(one(&*a, &run, cancel.clone()).await, OperationResult::Done);
    assert_eq!(one(&*b, &run, cancel).await, OperationResult::RunOver);
    assert_eq!(one(&*b, &run, join(&plan, "b")).await, OperationResult::RunOver);
    let summary = b.summary(&run).await.unwrap();
    assert_eq!(summary.status, RunStatus::Cancelled);
    assert_eq!(summary.failure.unwrap().message, "enough");
}

async fn eight_at_once_commit_each_task_once(subject: &Subject) {
    let (run, plan) = subject.create("many", &workflow(100), RunOptions::default()).await;
    let mut working = Vec::new();
    for at in 0..8 {
        let (state, run, name) = (subject.state(), run.clone(), format!("i{at}"));
        let joins = join_free(&plan, &name);
        working.push(tokio::spawn(async move {
            one(&*state, &run, joins).await;
            for task in [(0..103).collect::<Vec<u32>>(), vec![1, 2]].concat() {
                let results = ask(&*state, &run, vec![lease(task, &name)]).await;
                if let OperationResult::Granted { attempt, .. } = results[0] {
                    let won = one(&*state, &run, commit(task, attempt, &name)).await;
                    assert!(matches!(won, OperationResult::Won { .. }), "{won:?}");
                }
            }
            all_events(&*state, &run).await
        }));
    }
    let mut streams = Vec::new();
    for worked in working {
        streams.push(worked.await.unwrap());
    }
    let state = subject.state();
    one(&*state, &run, join_free(&plan, "last")).await;
    // Whoever came to tasks 1 and 2 while task 0 was had leaves them to nobody.
    for task in [1, 2] {
        if let OperationResult::Granted { attempt, .. } = one(&*state, &run, lease(task, "last")).await {
            one(&*state, &run, commit(task, attempt, "last")).await;
        }
    }
    let all = all_events(&*state, &run).await;
    assert!(streams.iter().all(|stream| all.starts_with(stream)), "somebody saw something else");
    let mut committed: Vec<u32> = Vec::new();
    for event in &all {
        if let Change::TaskCommitted { task, .. } = event.change {
            committed.push(task);
        }
    }
    committed.sort_unstable();
    assert!(committed.into_iter().eq(0..103), "each task has one result");
    assert_eq!(state.summary(&run).await.unwrap().status, RunStatus::Completed);
    let metad = Metad::new(subject.stack.metad_address(), None).unwrap();
    until(|| async { metad.summary(&run).await.unwrap().last_event >= all.len() as u64 }).await;
    assert_eq!(all_events(&metad, &run).await, all, "metad stores what everybody saw");
}

/// More heartbeats than a keeper may have to go through again.
const HEARTBEATS: usize = 4_200;

async fn who_comes_late_to_a_long_run_sees_what_everybody_sees(subject: &Subject) {
    let early = subject.state();
    let (run, plan) = subject.create("long", &workflow(2), RunOptions::default()).await;
    let begun =
        ask(&*early, &run, vec![join(&plan, "a"), lease(0, "a"), commit(0, 1, "a"), lease(3, "a")]).await;
    assert!(matches!(begun[3], OperationResult::Granted { .. }), "{begun:?}");
    for _ in 0..HEARTBEATS {
        let renew = Operation::Renew { instance: instance("a"), tasks: vec![3] };
        assert_eq!(one(&*early, &run, renew).await, OperationResult::Done);
    }
    let late = subject.state();
    let held = one(&*late, &run, lease(3, "a")).await;
    assert!(matches!(held, OperationResult::Granted { attempt: 1, .. }), "it has it already: {held:?}");
    let questions = || {
        let tasks: Vec<u32> = (0..5).collect();
        vec![Operation::Open { tasks: tasks.clone() }, Operation::Commits { tasks }]
    };
    let told = ask(&*late, &run, questions()).await;
    assert_eq!(told, ask(&*early, &run, questions()).await);
    assert_eq!(all_events(&*late, &run).await, all_events(&*early, &run).await);
    assert!(matches!(one(&*late, &run, commit(3, 1, "a")).await, OperationResult::Won { .. }));
    assert_eq!(early.summary(&run).await.unwrap().committed, 2);
}

async fn what_is_not_there_is_missing(subject: &Subject) {
    let (state, run) = (subject.state(), RunId::new("nobody").unwrap());
    let missing = state.summary(&run).await.unwrap_err();
    assert!(missing.is_missing(), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metad_conforms() {
    let subject = Subject::new(CoordinationSettings::Metad).await;
    conforms(&subject).await;
    subject.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_conforms() {
    let Some(redis) = Redis::start() else { return };
    let subject = Subject::new(CoordinationSettings::Redis(redis.url.clone())).await;
    conforms(&subject).await;
    assert_eq!(redis.ask_all("HGET foresail:{long}:snapshot next").lines().nth(1), Some("4096"));
    subject.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_went_back_and_on_otherwise_is_folded_anew() {
    let Some(redis) = Redis::start() else { return };
    let subject = Subject::new(CoordinationSettings::Redis(redis.url.clone())).await;
    let (a, b) = (subject.state(), subject.state());
    let (run, plan) = subject.create("back", &workflow(4), RunOptions::default()).await;
    ask(&*a, &run, vec![join_free(&plan, "a")]).await;
    ask(&*b, &run, vec![join_free(&plan, "b")]).await;
    assert!(matches!(one(&*a, &run, lease(3, "a")).await, OperationResult::Granted { .. }));
    // As a replica would that is promoted without the last entries, and others go on.
    redis.ask("RPOP foresail:{back}:log 2");
    let c = subject.state();
    ask(&*c, &run, vec![join_free(&plan, "c")]).await;
    assert!(matches!(one(&*c, &run, lease(3, "c")).await, OperationResult::Granted { .. }));
    let refused = a.operate(&run, &OperationRequest { operations: vec![lease(4, "a")] }).await.unwrap_err();
    assert!(refused.is_retryable(), "{refused}");
    assert!(matches!(one(&*a, &run, lease(3, "a")).await, OperationResult::Held { .. }), "c has it");
    let summary = one(&*b, &run, Operation::Open { tasks: vec![3, 4] }).await;
    assert_eq!(
        summary,
        OperationResult::Open { tasks: vec![3, 4], ready: vec![4] },
        "looks notice it as well"
    );
    subject.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_away_is_an_error_that_may_pass() {
    let nobody = CoordinationSettings::Redis("redis://user:secret@127.0.0.1:9".to_owned());
    let state = nobody.open(&Metad::new("http://127.0.0.1:9", None).unwrap()).unwrap();
    let error = state.summary(&RunId::new("r").unwrap()).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("127.0.0.1:9"), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
}
