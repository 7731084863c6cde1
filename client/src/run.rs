//! A run as its submitter sees it: events, progress, the end, results.

use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use foresail_schemas::id::{ObjectName, RunId, TaskId};
use foresail_schemas::plan::{Plan, PlanSummary};
use foresail_schemas::platform::{Platform, Rates};
use foresail_schemas::run::{
    Commit, CurrentPlan, EventPage, Failure, Location, Operation, OperationResult, RunEvent, RunOptions,
    RunStatus, RunSummary, StoredObject,
};
use foresail_schemas::{ErrorCode, Workflow};
use futures_util::stream::{self, Stream};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::bill::{Account, Bill, bill};
use crate::client::platform_of;
use crate::error::ClientError;
use crate::http::Call;
use crate::progress::Progress;
use crate::replan::{Kept, Replanner};
use crate::watch::{self, Services};

/// Pause between two looks at the workers of a run that has ended.
const SETTLE_LOOK: Duration = Duration::from_millis(20);
/// Results that are asked for in one request: each may carry its outputs.
const COMMITS_PER_REQUEST_MAX: usize = 1_000;

/// A run. While a handle from [`Client::submit`](crate::Client::submit) lives, its run is watched over: what
/// is stuck is started again. Dropping it ends the watching and not the run.
#[derive(Debug)]
pub struct RunHandle {
    pub(crate) services: Arc<Services>,
    id: RunId,
    workflow: Workflow,
    plan: Plan,
    rates: Rates,
    /// Results taken over from an earlier run.
    pub(crate) reused: u64,
    kept: Arc<Mutex<Kept>>,
    watch: Option<Watch>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOutcome {
    /// The run.
    pub run: RunId,
    /// How it ended.
    pub status: RunStatus,
    /// Why it failed or was cancelled.
    pub failure: Option<Failure>,
    /// What the plan said.
    pub predicted: PlanSummary,
    /// What it took and cost, by what the workers reported.
    pub actual: PlanSummary,
    /// All that its events say.
    pub progress: Progress,
}

/// The watching task; it ends with the handle.
#[derive(Debug)]
struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl RunHandle {
    pub(crate) fn new(
        services: Arc<Services>,
        id: RunId,
        workflow: Workflow,
        plan: Plan,
        rates: Rates,
    ) -> Self {
        Self { services, id, workflow, plan, rates, reused: 0, kept: Arc::default(), watch: None }
    }

    pub(crate) fn watch(&mut self, epoch: u64, limits: RunOptions, replanner: Replanner) {
        let services = self.services.as_ref().clone();
        let watching = watch::watch(services, self.id.clone(), epoch, self.plan.clone(), limits);
        self.kept = replanner.kept.clone();
        let replanning = async {
            replanner.watch().await;
            std::future::pending().await
        };
        let both = async {
            tokio::select! {
                () = watching => {}
                () = replanning => {}
            }
        };
        self.watch = Some(Watch(tokio::spawn(both)));
    }

    /// Looks for a better plan that this handle had taken and that changed nothing.
    #[must_use]
    pub fn kept(&self) -> Kept {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Id of the run.
    #[must_use]
    pub fn id(&self) -> &RunId {
        &self.id
    }

    /// What is run.
    #[must_use]
    pub fn workflow(&self) -> &Workflow {
        &self.workflow
    }

    /// The plan it was started with.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Prices by which its cost is told, those of a pool included.
    #[must_use]
    pub fn rates(&self) -> &Rates {
        &self.rates
    }

    /// Results that a run which resumes another took over, of the handle that submitted it.
    #[must_use]
    pub fn reused(&self) -> u64 {
        self.reused
    }

    /// The run in short, as metad tells it.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer.
    pub async fn summary(&self) -> Result<RunSummary, ClientError> {
        self.services.metad.json(Call::get(&["v1", "runs", self.id.as_str()])).await
    }

    /// Events after number `after`, in order. Waits up to `wait` for the first; may be empty.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer.
    pub async fn events_after(&self, after: u64, wait: Duration) -> Result<EventPage, ClientError> {
        self.page(after, wait, None).await
    }

    /// A page of events of some kinds; a metad that does not answer is waited for.
    pub(crate) async fn page(
        &self,
        after: u64,
        wait: Duration,
        kinds: Option<&str>,
    ) -> Result<EventPage, ClientError> {
        let path = ["v1", "runs", self.id.as_str(), "events"];
        let mut call = Call::get(&path).query("after", after).waiting(wait);
        if let Some(kinds) = kinds {
            call = call.query("kinds", kinds);
        }
        let settings = self.services.metad.settings();
        let (began, mut tries) = (Instant::now(), 0_u64);
        loop {
            match self.services.metad.json(call.clone()).await {
                Err(error) if error.may_pass() && began.elapsed() < settings.silence_limit => {
                    if tries == 0 {
                        tracing::warn!(run = %self.id, "the run goes on unseen: {error}");
                    }
                    tries += 1;
                    tokio::time::sleep(settings.backoff).await;
                }
                done => {
                    if tries > 0 && done.is_ok() {
                        tracing::warn!(run = %self.id, "metad answers again, at try {}", tries + 1);
                    }
                    return done;
                }
            }
        }
    }

    /// How long one long poll for events waits.
    pub(crate) fn poll(&self) -> Duration {
        self.services.metad.settings().poll
    }

    /// All events from the first on, until the run has ended. An error ends the stream.
    pub fn events(&self) -> impl Stream<Item = Result<RunEvent, ClientError>> + '_ {
        let poll = self.services.metad.settings().poll;
        let start = (0, Vec::new().into_iter(), RunStatus::Running);
        stream::try_unfold(start, move |(mut after, mut page, mut status)| async move {
            loop {
                if let Some(event) = page.next() {
                    return Ok(Some((event, (after, page, status))));
                }
                let over = status != RunStatus::Running;
                let next = self.events_after(after, if over { Duration::ZERO } else { poll }).await?;
                // A page of an ended run may be followed by another: only an empty one is the last.
                if over && next.events.is_empty() {
                    return Ok(None);
                }
                (after, status, page) = (next.next_after, next.status, next.events.into_iter());
            }
        })
    }

    /// All events until now.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer.
    pub async fn events_so_far(&self) -> Result<Vec<RunEvent>, ClientError> {
        let (mut events, mut after) = (Vec::new(), 0);
        loop {
            let page = self.events_after(after, Duration::ZERO).await?;
            if page.events.is_empty() {
                return Ok(events);
            }
            after = page.next_after;
            events.extend(page.events);
        }
    }

    /// What it was predicted to cost before it began, what it has cost, and what the difference consists of,
    /// at the prices of this platform; those of the platform that its plan names where absent.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer.
    pub async fn bill(&self, platform: Option<&Platform>) -> Result<Bill, ClientError> {
        let path = ["v1", "runs", self.id.as_str(), "plans", "1"];
        let first: CurrentPlan = self.services.metad.json(Call::get(&path)).await?;
        let now_ms = self.summary().await?.elapsed_ms;
        let events = self.events_so_far().await?;
        let named = platform_of(&first.plan);
        let platform = platform.filter(|given| given.name == first.plan.platform).unwrap_or(&named);
        let (run, workflow, plan) = (&self.id, &self.workflow, &first.plan);
        Ok(bill(&Account { run, workflow, plan, platform, events: &events, now_ms }))
    }

    /// How far it is.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer.
    pub async fn progress(&self) -> Result<Progress, ClientError> {
        let mut progress = self.new_progress();
        self.follow(&mut progress, Duration::ZERO).await?;
        Ok(progress)
    }

    /// Progress of which nothing is known yet, to be kept up by [`follow`](Self::follow).
    #[must_use]
    pub fn new_progress(&self) -> Progress {
        Progress::new(self.workflow.tasks().len() as u64)
    }

    /// Brings `progress` up to date. Waits up to `wait` where there is nothing new.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer.
    pub async fn follow(&self, progress: &mut Progress, wait: Duration) -> Result<(), ClientError> {
        let mut wait = wait;
        let mut after = progress.last_event;
        loop {
            let page = self.events_after(after, wait).await?;
            page.events.iter().for_each(|event| progress.apply(event));
            if page.events.is_empty() || page.next_after <= after {
                return Ok(());
            }
            after = page.next_after;
            wait = Duration::ZERO;
        }
    }

    /// Waits for the end of the run, and then for its workers to report what they used.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer any more or the run takes longer than the settings allow. A
    /// run that failed is no error here; see [`RunOutcome::completed`].
    pub async fn wait(&self) -> Result<RunOutcome, ClientError> {
        let settings = self.services.metad.settings();
        let deadline = Instant::now() + settings.run_limit;
        // The end alone is waited for; the rest is read once it is there, so that waiting costs nothing.
        let mut after = 0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let page = self.page(after, settings.poll.min(left), Some("run_finished")).await?;
            if page.status != RunStatus::Running {
                break;
            }
            if left.is_zero() {
                let what = format!("run `{}`", self.id);
                return Err(ClientError::TimedOut { what, limit: settings.run_limit });
            }
            after = page.next_after;
        }
        let progress = self.progress().await?;
        self.settle(progress).await
    }

    /// Waits until the workers of a run that has ended have reported what they used, up to the limit of the
    /// settings.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer.
    pub async fn settle(&self, mut progress: Progress) -> Result<RunOutcome, ClientError> {
        let settings = self.services.metad.settings();
        let deadline = Instant::now() + settings.settle_limit;
        self.follow(&mut progress, Duration::ZERO).await?;
        while progress.workers() > 0 && Instant::now() < deadline {
            // metad does not hold back answers about a run that has ended, so the pause is made here.
            tokio::time::sleep(SETTLE_LOOK).await;
            self.follow(&mut progress, Duration::ZERO).await?;
        }
        Ok(RunOutcome {
            run: self.id.clone(),
            status: progress.status,
            failure: progress.failure.clone(),
            predicted: self.plan.predicted,
            actual: progress.summary(&self.rates, progress.at_ms),
            progress,
        })
    }

    /// Ends the run. Ending a run that has ended changes nothing.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer.
    pub async fn cancel(&self, reason: &str) -> Result<(), ClientError> {
        let call = Call::post(&["v1", "runs", self.id.as_str(), "cancel"], &json!({ "reason": reason }));
        match self.services.metad.bytes(call).await {
            Err(error) if error.code() == Some(ErrorCode::RunOver) => Ok(()),
            done => done.map(drop),
        }
    }

    /// The first output of a task.
    ///
    /// # Errors
    /// [`ClientError`] when there is no such task, it has no result yet, or the result is damaged.
    pub async fn result(&self, task: &str) -> Result<Bytes, ClientError> {
        let at = self.task_index(task)?;
        let commit = self.commit(at).await?;
        let object = commit.outputs.first().ok_or_else(|| ClientError::NoResult(task.to_owned()))?;
        self.object(task, object).await
    }

    /// One named output of a task.
    ///
    /// # Errors
    /// [`ClientError`] when there is no such task or output, it has no result yet, or the result is damaged.
    pub async fn result_output(&self, task: &str, output: &str) -> Result<Bytes, ClientError> {
        let at = self.task_index(task)?;
        let names = self.workflow.task(at).output_names();
        let place = names.iter().position(|name| name.as_str() == output);
        let missing = || ClientError::NoSuchResult(format!("{task}/{output}"));
        let commit = self.commit(at).await?;
        let object = commit.outputs.get(place.ok_or_else(missing)?).ok_or_else(missing)?;
        self.object(task, object).await
    }

    /// The outputs of the tasks that nothing waits for, with their hashes: the results of the workflow. Tasks
    /// that were skipped have none.
    ///
    /// # Errors
    /// [`ClientError`] when metad does not answer or a task has no result yet.
    pub async fn results(&self) -> Result<Vec<(TaskId, ObjectName, StoredObject)>, ClientError> {
        let sinks: Vec<u32> = self.workflow.graph().sinks().collect();
        let mut results = Vec::new();
        for (at, commit) in sinks.iter().zip(self.commits(&sinks).await?) {
            let task = self.workflow.task(*at);
            let Some(commit) = commit else {
                match self.summary().await?.status {
                    RunStatus::Completed => continue,
                    _ => return Err(ClientError::NoResult(task.id.to_string())),
                }
            };
            let named = task.output_names().into_iter().zip(commit.outputs);
            results.extend(named.map(|(name, object)| (task.id.clone(), name, object)));
        }
        Ok(results)
    }

    /// The content of a stored output; its hash is checked.
    ///
    /// # Errors
    /// [`ClientError`] when the store does not answer or the content was changed.
    pub async fn object(&self, task: &str, object: &StoredObject) -> Result<Bytes, ClientError> {
        let content = match &object.location {
            Location::Inline(text) => STANDARD.decode(text).map(Bytes::from).map_err(|e| {
                let (service, url) = ("metad", format!("the commit of `{task}`"));
                ClientError::Unreadable { service, url, reason: e.to_string() }
            })?,
            Location::Stored(key) => self.stored(task, key).await?,
            Location::Unstored(_) => return Err(ClientError::NotKept(task.to_owned())),
        };
        let found = blake3::hash(&content).to_hex();
        match found.as_str() == object.hash {
            true => Ok(content),
            false => Err(ClientError::Damaged {
                task: task.to_owned(),
                expected: object.hash.clone(),
                found: found.to_string(),
            }),
        }
    }

    /// An object outside the commit record: in the bucket where there is one, a file of the workers'
    /// directory where that is known, else a blob.
    async fn stored(&self, task: &str, key: &str) -> Result<Bytes, ClientError> {
        if let Some(bucket) = &self.services.bucket {
            return bucket.get(key).await.map_err(|reason| lost(task, key, reason));
        }
        let Some(file) = self.file_of(task, key)? else {
            let mut path = vec!["v1", "runs", self.id.as_str(), "blobs"];
            path.extend(key.split('/'));
            return self.services.metad.bytes(Call::get(&path)).await.map_err(|e| e.of_blob(task));
        };
        tokio::fs::read(file).await.map(Bytes::from).map_err(|e| lost(task, key, e.to_string()))
    }

    /// The file that a stored output lies in, where it is one of this machine.
    pub(crate) fn object_file(
        &self,
        task: &str,
        object: &StoredObject,
    ) -> Result<Option<PathBuf>, ClientError> {
        match &object.location {
            Location::Stored(key) => self.file_of(task, key),
            Location::Inline(_) | Location::Unstored(_) => Ok(None),
        }
    }

    fn file_of(&self, task: &str, key: &str) -> Result<Option<PathBuf>, ClientError> {
        let settings = self.services.metad.settings();
        let Some(folder) = settings.objects.as_ref().filter(|_| settings.bucket.is_none()) else {
            return Ok(None);
        };
        // Keys are made of plain parts; one that would lead out of the folder is none of ours.
        if !Path::new(key).components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(lost(task, key, "the key is not a plain path".to_owned()));
        }
        Ok(Some(folder.join(key)))
    }

    /// The results of tasks, in their order; nothing for one that has none.
    pub(crate) async fn commits(&self, tasks: &[u32]) -> Result<Vec<Option<Commit>>, ClientError> {
        let mut all = Vec::with_capacity(tasks.len());
        for part in tasks.chunks(COMMITS_PER_REQUEST_MAX) {
            let asked = vec![Operation::Commits { tasks: part.to_vec() }];
            let answer = self.services.operate(&self.id, asked).await?;
            let found = answer.results.into_iter().find_map(|result| match result {
                OperationResult::Commits { commits } => Some(commits),
                _ => None,
            });
            let mut found = found.unwrap_or_default();
            found.resize(part.len(), None);
            all.append(&mut found);
        }
        Ok(all)
    }

    async fn commit(&self, at: u32) -> Result<Commit, ClientError> {
        let found = self.commits(&[at]).await?.into_iter().next().flatten();
        found.ok_or_else(|| ClientError::NoResult(self.workflow.task(at).id.to_string()))
    }

    pub(crate) fn task_index(&self, task: &str) -> Result<u32, ClientError> {
        let missing = || ClientError::NoSuchResult(task.to_owned());
        let id = TaskId::new(task).map_err(|_| missing())?;
        self.workflow.graph().find(&id).ok_or_else(missing)
    }
}

fn lost(task: &str, key: &str, reason: String) -> ClientError {
    ClientError::Lost { task: task.to_owned(), key: key.to_owned(), reason }
}

impl RunOutcome {
    /// The outcome of a run that completed.
    ///
    /// # Errors
    /// [`ClientError::RunEnded`] when it failed or was cancelled, with the cause.
    pub fn completed(self) -> Result<Self, ClientError> {
        match self.status {
            RunStatus::Completed => Ok(self),
            status => Err(ClientError::RunEnded { run: self.run, status, failure: self.failure }),
        }
    }
}
