//! What every host holds, as checks that any host can be put to.
//!
//! [`check`] takes a [`Subject`]: a host with workers that have the built-in functions, one that is full, one
//! that cannot be reached, and a metad. It returns the first thing that a host does otherwise. Every host of
//! Foresail passes it; one of your own should.

use std::sync::Arc;
use std::time::{Duration, Instant};

use foresail_schemas::config::{ResourceConfig, Sla};
use foresail_schemas::error::ErrorCode;
use foresail_schemas::id::{RunId, TaskName};
use foresail_schemas::invocation::{Invocation, Purpose};
use foresail_schemas::metric::StartState;
use foresail_schemas::plan::{Bounds, Objective, Plan, PlanSummary, PlannedTask};
use foresail_schemas::run::{Change, EventPage, RunCreated, RunOptions, RunRequest, RunStatus, RunSummary};
use foresail_schemas::workflow::Workflow;
use serde_json::{Value, json};

use super::{Host, HostError};
use crate::api::{Api, REQUEST_LIMIT};

/// Longest wait for anything that a host has promised.
const WAIT_LIMIT: Duration = Duration::from_secs(60);
/// Longest time a host may take to say that it cannot be reached.
const SILENCE_LIMIT: Duration = Duration::from_secs(20);
/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// Invocations after which a host that is full must have refused one.
const REFUSED_AFTER_MAX: usize = 32;

/// What is checked.
#[derive(Clone)]
pub struct Subject {
    /// A host whose workers are cold when the check begins and stay warm while it lasts, with a place for
    /// two.
    pub host: Arc<dyn Host>,
    /// A host that has no place, or one that is soon taken by tasks that sleep.
    pub full: Arc<dyn Host>,
    /// A host that cannot be reached.
    pub gone: Arc<dyn Host>,
    /// Address of metad.
    pub metad: String,
    /// A size that the hosts offer.
    pub config: ResourceConfig,
    /// A size that they do not.
    pub not_offered: ResourceConfig,
    /// Whether the host hears of the ends of its workers.
    pub hears: Hears,
}

/// What a host hears of its workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hears {
    /// When they end, and how they began: its status counts them.
    Ends,
    /// That the platform took the invocation.
    Nothing,
}

/// Puts a host to all checks.
///
/// # Errors
/// What it does otherwise than a host must, in words.
pub async fn check(subject: &Subject) -> Result<(), String> {
    let api = Api::new(&subject.metad, None).map_err(|e| e.to_string())?;
    let check = Check { subject, api };
    check.an_idle_host_counts_nothing().await?;
    check.a_prewarmed_worker_is_warm().await?;
    check.an_invocation_is_carried_out_to_its_end().await?;
    check.workers_invoke_other_workers().await?;
    check.a_second_invocation_of_the_same_changes_nothing().await?;
    check.a_busy_worker_is_counted().await?;
    check.an_unknown_size_is_refused_with_the_menu().await?;
    check.a_full_host_refuses_for_now().await?;
    check.an_unreachable_host_is_a_failure_that_may_pass().await
}

struct Check<'a> {
    subject: &'a Subject,
    api: Api,
}

/// A run in the store.
struct Run {
    id: RunId,
    tasks: usize,
}

impl Check<'_> {
    async fn an_idle_host_counts_nothing(&self) -> Result<(), String> {
        let status = self.subject.host.status().await.map_err(|e| format!("its status: {e}"))?;
        ensure((status.busy, status.queued) == (0, 0), || format!("an idle host counts {status:?}"))?;
        ensure(status.concurrency_max > 0, || "its status names no most workers at a time".to_owned())
    }

    async fn a_prewarmed_worker_is_warm(&self) -> Result<(), String> {
        let run = self.create("prewarm", &[burn("t", &json!({}), &[])]).await?;
        let prewarm = Invocation { purpose: Purpose::PreWarm, ..self.invocation(&run, &[]) };
        self.invoke(prewarm).await?;
        let is_counted = |summary: &RunSummary| summary.usage.iter().map(|u| u.invocations).sum::<u64>() == 1;
        self.wait("a worker that was started beforehand has left", &run, is_counted).await?;
        self.wait_idle().await?;
        self.invoke(self.invocation(&run, &[0])).await?;
        self.completed(&run).await?;
        let starts = self.starts(&run).await?;
        ensure(starts == [StartState::Cold, StartState::Warm], || {
            format!("after a worker was started beforehand the starts are {starts:?}, not cold and warm")
        })
    }

    async fn an_invocation_is_carried_out_to_its_end(&self) -> Result<(), String> {
        let tasks =
            [burn("a", &json!({}), &[]), burn("b", &json!({}), &["a"]), burn("c", &json!({}), &["b"])];
        let run = self.create("chain", &tasks).await?;
        self.invoke(self.invocation(&run, &[0])).await?;
        self.completed(&run).await?;
        self.wait_idle().await
    }

    async fn workers_invoke_other_workers(&self) -> Result<(), String> {
        let mut tasks = vec![burn("a", &json!({}), &[])];
        tasks.extend((0..4).map(|i| burn(&format!("b{i}"), &json!({"sleep_ms": 20}), &["a"])));
        let run = self.create("fan-out", &tasks).await?;
        self.invoke(self.invocation(&run, &[0])).await?;
        self.completed(&run).await?;
        let began = self.starts(&run).await?.len();
        ensure(began > 1, || "a fan-out of 4 was run by the worker that found it alone".to_owned())?;
        self.wait_idle().await
    }

    async fn a_second_invocation_of_the_same_changes_nothing(&self) -> Result<(), String> {
        let tasks = [burn("a", &json!({"sleep_ms": 50}), &[]), burn("b", &json!({}), &["a"])];
        let run = self.create("twice", &tasks).await?;
        for _ in 0..2 {
            self.invoke(self.invocation(&run, &[0])).await?;
        }
        self.completed(&run).await?;
        self.wait_idle().await?;
        let commits = self.count(&run, |change| matches!(change, Change::TaskCommitted { .. })).await?;
        ensure(commits == run.tasks, || format!("{commits} commits of {} tasks", run.tasks))
    }

    async fn a_busy_worker_is_counted(&self) -> Result<(), String> {
        let before = self.subject.host.status().await.map_err(|e| e.to_string())?;
        let run = self.create("busy", &[burn("t", &json!({"sleep_ms": 400}), &[])]).await?;
        self.invoke(self.invocation(&run, &[0])).await?;
        if self.subject.hears == Hears::Ends {
            let busy = async || self.subject.host.status().await.is_ok_and(|status| status.busy == 1);
            until("the status counts a busy worker", busy).await?;
        }
        self.completed(&run).await?;
        self.wait_idle().await?;
        let after = self.subject.host.status().await.map_err(|e| e.to_string())?;
        let started = (after.cold_starts + after.warm_starts) - (before.cold_starts + before.warm_starts);
        let expected = u64::from(self.subject.hears == Hears::Ends);
        ensure(started == expected, || format!("one invocation was counted as {started} starts"))
    }

    async fn an_unknown_size_is_refused_with_the_menu(&self) -> Result<(), String> {
        let run = self.create("size", &[burn("t", &json!({}), &[])]).await?;
        let config = self.subject.not_offered;
        let asked = Invocation { config, ..self.invocation(&run, &[0]) };
        let error = refused(self.subject.host.invoke(asked).await, "a size that it does not offer")?;
        let offered = format!("{} MB", self.subject.config.memory_mb);
        ensure(error.code() == ErrorCode::UnknownConfig && !error.is_retryable(), || {
            format!("a size that is not offered is refused with `{}`: {error}", error.code())
        })?;
        ensure(error.to_string().contains(&offered), || format!("the refusal names no menu: {error}"))
    }

    async fn a_full_host_refuses_for_now(&self) -> Result<(), String> {
        let tasks: Vec<_> = (0..REFUSED_AFTER_MAX)
            .map(|i| burn(&format!("t{i}"), &json!({"sleep_ms": 30_000}), &[]))
            .collect();
        let run = self.create("full", &tasks).await?;
        let mut refusal = None;
        for task in 0..REFUSED_AFTER_MAX as u32 {
            let invoked =
                tokio::time::timeout(WAIT_LIMIT, self.subject.full.invoke(self.invocation(&run, &[task])));
            match invoked.await.map_err(|_| "a full host gives no answer".to_owned())? {
                Ok(_) => {}
                Err(error) => {
                    refusal = Some(error);
                    break;
                }
            }
        }
        let cancel = format!("/v1/runs/{}/cancel", run.id);
        let cancelled: Result<RunSummary, _> =
            self.api.post(&cancel, &json!({"reason": "the check is over"}), REQUEST_LIMIT).await;
        cancelled.map_err(|e| e.to_string())?;
        let error = refusal.ok_or_else(|| format!("a full host took {REFUSED_AFTER_MAX} invocations"))?;
        ensure(error.code() == ErrorCode::CapacityExceeded && error.is_retryable(), || {
            format!("a full host refuses with `{}`: {error}", error.code())
        })?;
        ensure(error.to_string().contains("hint: "), || format!("without a hint: {error}"))
    }

    async fn an_unreachable_host_is_a_failure_that_may_pass(&self) -> Result<(), String> {
        let run = self.create("gone", &[burn("t", &json!({}), &[])]).await?;
        let began = Instant::now();
        let asked = self.subject.gone.invoke(self.invocation(&run, &[0]));
        let answer = tokio::time::timeout(SILENCE_LIMIT, asked).await;
        let answer = answer.map_err(|_| format!("no answer after {:?}", began.elapsed()))?;
        let error = refused(answer, "an invocation although it cannot be reached")?;
        ensure(error.code() == ErrorCode::Unavailable && error.is_retryable(), || {
            format!("an unreachable host fails with `{}`: {error}", error.code())
        })?;
        ensure(error.to_string().contains("hint: "), || format!("without a hint: {error}"))
    }

    fn invocation(&self, run: &Run, tasks: &[u32]) -> Invocation {
        let metad = self.subject.metad.clone();
        Invocation::new(run.id.clone(), None, self.subject.config, tasks.to_vec(), metad)
    }

    async fn invoke(&self, invocation: Invocation) -> Result<(), String> {
        let invoked = tokio::time::timeout(WAIT_LIMIT, self.subject.host.invoke(invocation)).await;
        let invoked = invoked.map_err(|_| "an invocation is not answered".to_owned())?;
        invoked.map(drop).map_err(|e| format!("an invocation is refused: {e}"))
    }

    /// A run of these tasks, all of them flexible.
    async fn create(&self, name: &str, tasks: &[Value]) -> Result<Run, String> {
        let workflow: Workflow = serde_json::from_value(json!({"name": "conformance", "tasks": tasks}))
            .map_err(|e| format!("the workflow of the check: {e}"))?;
        let plan = plan(&workflow, self.subject.config)?;
        let count = workflow.tasks().len();
        let request = RunRequest { run: None, workflow, plan, options: RunOptions::default(), resume: None };
        let created: Result<RunCreated, _> = self.api.post("/v1/runs", &request, REQUEST_LIMIT).await;
        let created = created.map_err(|e| format!("the run of the check `{name}`: {e}"))?;
        Ok(Run { id: created.run, tasks: count })
    }

    async fn summary(&self, run: &Run) -> Option<RunSummary> {
        self.api.get(&format!("/v1/runs/{}", run.id), REQUEST_LIMIT).await.ok()
    }

    async fn wait(&self, what: &str, run: &Run, is_so: impl Fn(&RunSummary) -> bool) -> Result<(), String> {
        until(what, async || self.summary(run).await.is_some_and(|summary| is_so(&summary))).await
    }

    async fn completed(&self, run: &Run) -> Result<(), String> {
        let has_ended = |summary: &RunSummary| summary.status != RunStatus::Running;
        self.wait("a run has ended", run, has_ended).await?;
        let summary = self.summary(run).await.ok_or_else(|| "metad does not answer".to_owned())?;
        ensure(summary.status == RunStatus::Completed, || format!("the run failed: {:?}", summary.failure))
    }

    async fn wait_idle(&self) -> Result<(), String> {
        let status = async || self.subject.host.status().await;
        let idle = async || status().await.is_ok_and(|status| status.busy == 0 && status.queued == 0);
        until("the host is idle again", idle).await
    }

    async fn events(&self, run: &Run) -> Result<EventPage, String> {
        let path = format!("/v1/runs/{}/events?after=0", run.id);
        self.api.get(&path, REQUEST_LIMIT).await.map_err(|e| e.to_string())
    }

    async fn count(&self, run: &Run, is_it: impl Fn(&Change) -> bool) -> Result<usize, String> {
        Ok(self.events(run).await?.events.iter().filter(|event| is_it(&event.change)).count())
    }

    /// How the invocations of a run began.
    async fn starts(&self, run: &Run) -> Result<Vec<StartState>, String> {
        let events = self.events(run).await?.events.into_iter();
        Ok(events.filter_map(|event| start_of(&event.change)).collect())
    }
}

fn start_of(change: &Change) -> Option<StartState> {
    match change {
        Change::WorkerJoined { start, .. } => Some(*start),
        _ => None,
    }
}

fn refused<T>(answer: Result<T, HostError>, what: &str) -> Result<HostError, String> {
    answer.err().ok_or_else(|| format!("the host took {what}"))
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) -> Result<(), String> {
    let ends = Instant::now() + WAIT_LIMIT;
    while !is_so().await {
        ensure(Instant::now() < ends, || format!("waited in vain until {what}"))?;
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    Ok(())
}

fn burn(id: &str, params: &Value, after: &[&str]) -> Value {
    json!({"id": id, "name": "burn", "run": {"function": "foresail.burn", "params": params}, "after": after})
}

/// A plan that leaves every task to whoever comes first, on workers of this size.
///
/// # Errors
/// None but for a name that is not legal.
pub fn plan(workflow: &Workflow, config: ResourceConfig) -> Result<Plan, String> {
    let name = |text: &str| TaskName::new(text).map_err(|e| e.to_string());
    let task = |(at, task): (usize, &foresail_schemas::workflow::Task)| PlannedTask {
        task: task.id.clone(),
        worker: None,
        config,
        rank: at as u32,
        start_ms: 0.0,
        end_ms: 0.0,
        exec_ms: 1.0,
        output_bytes: None,
        optimizations: Vec::new(),
        unexpected: false,
        why: String::new(),
        forecast: None,
    };
    Ok(Plan {
        workflow: workflow.name().clone(),
        planner: name("by-hand")?,
        seed: 0,
        objective: Objective::Fastest,
        sla: Sla::MEDIAN,
        platform: "local".parse().map_err(|_| "a platform needs a name".to_owned())?,
        model_epoch: 0,
        workers: Vec::new(),
        tasks: workflow.tasks().iter().enumerate().map(task).collect(),
        prewarms: Vec::new(),
        flexible: None,
        predicted: PlanSummary::default(),
        usage: Vec::new(),
        outlook: None,
        bounds: Bounds::default(),
        critical_path: Vec::new(),
        explanation: Vec::new(),
    })
}
