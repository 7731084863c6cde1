//! The client: runs in one Redis, each with the fold that this process has of it.
//!
//! Calls of one process about one run follow each other; a process has one connection for requests, made anew
//! where it breaks, and one per run that it waits for news of.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foresail_schemas::RunId;
use foresail_schemas::plan::Plan;
use foresail_schemas::run::{
    CurrentPlan, EventPage, Operation, OperationAnswer, Replanning, RunEvent, RunOptions, RunStatus,
    RunSummary,
};
use foresail_schemas::workflow::Workflow;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncCommands, Client, RedisError, Script};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep_until};

use crate::error::CoordinationError;
use crate::fold::{About, FORMAT, Fold, Outcome, Request, is_news, is_question};
use crate::keys;
use crate::listen::{Followed, subscribe};

/// Longest time until a connection stands.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Longest time until a request is answered.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Tries to connect anew before a request fails.
const CONNECTS_MAX: usize = 3;
/// How long a run lives in Redis without having ended, in s.
const RUN_TTL_S: u64 = 7 * 24 * 3600;
/// How long it lives after its end, in s: workers may still report what they used.
const ENDED_TTL_S: i64 = 3600;
/// Entries that are read at once by who is behind.
const ENTRIES_PER_PAGE: usize = 4096;
/// Events that are given at once.
const EVENTS_PER_PAGE: usize = 4096;
/// Pause between two looks at the log while nothing is told.
const POLL: Duration = Duration::from_millis(500);
/// How long a look waits after it was told of something: more often follows.
const BATCH: Duration = Duration::from_millis(2);
/// Shortest time between two looks that somebody waits through: each commit rings for everybody, and a
/// thousand workers that looked at once each time would be all that Redis does.
const LOOK_GAP: Duration = Duration::from_millis(20);
/// Runs whose folds are kept beside those in use.
const FOLDS_KEPT_MAX: usize = 64;

/// A run to begin.
#[derive(Debug)]
pub struct NewRun<'a> {
    /// The run as it was created.
    pub summary: RunSummary,
    /// Its limits and intervals.
    pub options: RunOptions,
    /// What is run, as JSON.
    pub workflow: &'a [u8],
    /// How it is run, as JSON.
    pub plan: &'a [u8],
    /// What its ledger began with.
    pub events: Vec<RunEvent>,
}

/// Runs in one Redis; clones share connections and folds.
#[derive(Debug, Clone)]
pub struct Runs(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    client: Client,
    at: String,
    connection: OnceCell<Connection>,
    append: Script,
    folds: Mutex<HashMap<RunId, Arc<Followed>>>,
}

#[derive(Clone)]
struct Connection(ConnectionManager);

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

/// The time of the server in ms, and entries.
type Step = (String, Vec<String>);

impl Runs {
    /// Runs in the Redis at `url`, for instance `redis://127.0.0.1:6379`. Nothing is asked yet.
    ///
    /// # Errors
    /// [`CoordinationError::Settings`]
    pub fn open(url: &str) -> Result<Self, CoordinationError> {
        let shown = url.rsplit_once('@').map_or(url, |(_, host)| host).to_owned();
        let client = Client::open(url)
            .map_err(|e| CoordinationError::Settings { shown: shown.clone(), cause: e.to_string() })?;
        let at = client.get_connection_info().addr().to_string();
        let append = Script::new(include_str!("append.lua"));
        let (connection, folds) = (OnceCell::new(), Mutex::default());
        Ok(Self(Arc::new(Shared { client, at, connection, append, folds })))
    }

    /// Begins a run. One that is there stays as it is.
    ///
    /// # Errors
    /// [`CoordinationError`]
    pub async fn begin(&self, new: NewRun<'_>) -> Result<(), CoordinationError> {
        let run = new.summary.run.clone();
        let hash = blake3::hash(new.plan).to_hex().to_string();
        let (summary, options) = (new.summary, new.options);
        let about = About { format: FORMAT, summary, options, plan: hash.clone() };
        let mut documents = redis::pipe();
        for (key, document) in [
            (keys::about(&run), text(&about).as_bytes()),
            (keys::workflow(&run), new.workflow),
            (keys::plan(&run, &hash), new.plan),
        ] {
            documents.cmd("SET").arg(key).arg(document).arg("NX").arg("EX").arg(RUN_TTL_S).ignore();
        }
        let mut connection = self.connection().await?;
        let failed = |e| self.unreachable(&e);
        let () = documents.query_async(&mut connection).await.map_err(failed)?;
        // The log comes last: where it is, the rest is.
        let begin = Script::new(include_str!("begin.lua"));
        let mut begun = begin.key(keys::log(&run));
        begun.arg(text(&Request::Begin(new.events))).arg(RUN_TTL_S);
        let _is_new: u64 = begun.invoke_async(&mut connection).await.map_err(failed)?;
        Ok(())
    }

    /// The workflow of a run.
    ///
    /// # Errors
    /// [`CoordinationError`]
    pub async fn workflow(&self, run: &RunId) -> Result<Workflow, CoordinationError> {
        self.document(run, keys::workflow(run)).await
    }

    /// The plan in force.
    ///
    /// # Errors
    /// [`CoordinationError`]
    pub async fn plan(&self, run: &RunId) -> Result<CurrentPlan, CoordinationError> {
        let followed = self.followed(run);
        let mut fold = followed.fold.lock().await;
        self.look(run, &mut fold, &followed).await?;
        let fold = present(run, &mut fold)?;
        let ((epoch, hash), options) = (fold.plan(), fold.options());
        let hash = hash.ok_or_else(|| damaged(run, format!("its log names no plan `{epoch}`")))?;
        let plan: Plan = self.document(run, keys::plan(run, hash)).await?;
        Ok(CurrentPlan { epoch, plan, options })
    }

    /// The plan of an epoch that this process has folded.
    ///
    /// # Errors
    /// [`CoordinationError`]
    pub async fn plan_of(&self, run: &RunId, epoch: u64) -> Result<Plan, CoordinationError> {
        let followed = self.followed(run);
        let mut fold = followed.fold.lock().await;
        let hash = present(run, &mut fold)?.plan_of(epoch);
        let hash = hash.ok_or_else(|| damaged(run, format!("its log names no plan `{epoch}`")))?;
        self.document(run, keys::plan(run, hash)).await
    }

    /// The run in short.
    ///
    /// # Errors
    /// [`CoordinationError`]
    pub async fn summary(&self, run: &RunId) -> Result<RunSummary, CoordinationError> {
        let followed = self.followed(run);
        let mut fold = followed.fold.lock().await;
        let now_ms = self.look(run, &mut fold, &followed).await?;
        Ok(present(run, &mut fold)?.summary(now_ms))
    }

    /// Changes or reads the state of a run.
    ///
    /// # Errors
    /// [`CoordinationError`]
    pub async fn operate(
        &self,
        run: &RunId,
        operations: Vec<Operation>,
    ) -> Result<OperationAnswer, CoordinationError> {
        let followed = self.followed(run);
        let mut fold = followed.fold.lock().await;
        if operations.iter().all(is_question) {
            let now_ms = self.look(run, &mut fold, &followed).await?;
            let fold = present(run, &mut fold)?;
            let results = fold.ask(&operations, now_ms);
            return Ok(fold.answer(results));
        }
        let rings = operations.iter().any(is_news);
        let outcome = self.append(run, &mut fold, &followed, &Request::Operate(operations), rings).await?;
        match outcome {
            Outcome::Results(results) => Ok(present(run, &mut fold)?.answer(results)),
            other => {
                Err(damaged(run, format!("its log has something else in place of operations: {other:?}")))
            }
        }
    }

    /// How many entries of a run this process has folded: it grows while anybody works on the run.
    pub async fn folded(&self, run: &RunId) -> u64 {
        self.followed(run).fold.lock().await.as_ref().map_or(0, Fold::next)
    }

    /// Replaces the plan if `expected_epoch` is in force; gives the new epoch.
    ///
    /// # Errors
    /// [`CoordinationError::OtherPlan`] where another is.
    pub async fn replan(
        &self,
        run: &RunId,
        expected_epoch: u64,
        plan: &[u8],
        why: Option<Replanning>,
    ) -> Result<u64, CoordinationError> {
        let hash = blake3::hash(plan).to_hex().to_string();
        let mut connection = self.connection().await?;
        let kept = connection.set_ex(keys::plan(run, &hash), plan, RUN_TTL_S).await;
        let () = kept.map_err(|e| self.unreachable(&e))?;
        let request = Request::Replan { expected_epoch, plan: hash.clone(), why };
        match self.about_plan(run, &request).await {
            // The same request again: its first answer was lost on the way.
            Err(CoordinationError::OtherPlan(epoch)) if expected_epoch.checked_add(1) == Some(epoch) => {
                let followed = self.followed(run);
                let mut fold = followed.fold.lock().await;
                match present(run, &mut fold)?.plan() == (epoch, Some(hash.as_str())) {
                    true => Ok(epoch),
                    false => Err(CoordinationError::OtherPlan(epoch)),
                }
            }
            other => other,
        }
    }

    /// Tells that a plan was found which could replace the one of `epoch`.
    ///
    /// # Errors
    /// [`CoordinationError::OtherPlan`] where another is in force.
    pub async fn suggest(&self, run: &RunId, epoch: u64, why: Replanning) -> Result<u64, CoordinationError> {
        self.about_plan(run, &Request::Suggest { epoch, why }).await
    }

    async fn about_plan(&self, run: &RunId, request: &Request) -> Result<u64, CoordinationError> {
        let followed = self.followed(run);
        let mut fold = followed.fold.lock().await;
        match self.append(run, &mut fold, &followed, request, true).await? {
            Outcome::Plan(replaced) => replaced.map_err(CoordinationError::OtherPlan),
            other => Err(damaged(run, format!("its log has something else in place of a plan: {other:?}"))),
        }
    }

    /// Events after number `after` of these kinds, of all where none are named; waits for the first.
    ///
    /// # Errors
    /// [`CoordinationError`]
    pub async fn events(
        &self,
        run: &RunId,
        after: u64,
        kinds: Option<&BTreeSet<String>>,
        wait: Duration,
    ) -> Result<EventPage, CoordinationError> {
        let followed = self.followed(run);
        let ends = Instant::now() + wait;
        loop {
            let looked = Instant::now();
            let mut rung = std::pin::pin!(followed.bell.notified());
            // From here on no ring is lost, though nobody waits yet.
            rung.as_mut().enable();
            let page = self.page(run, &followed, after, kinds).await?;
            if !page.events.is_empty() || page.status != RunStatus::Running || Instant::now() >= ends {
                return Ok(page);
            }
            subscribe(&self.0.client, run, &followed);
            tokio::select! {
                () = rung => sleep_until((Instant::now() + BATCH).max(looked + LOOK_GAP).min(ends)).await,
                () = sleep_until(ends.min(Instant::now() + POLL)) => {}
            }
        }
    }

    async fn page(
        &self,
        run: &RunId,
        followed: &Arc<Followed>,
        after: u64,
        kinds: Option<&BTreeSet<String>>,
    ) -> Result<EventPage, CoordinationError> {
        let mut fold = followed.fold.lock().await;
        if fold.as_ref().is_some_and(|fold| fold.forgot(after)) {
            *fold = None;
        }
        self.look(run, &mut fold, followed).await?;
        let fold = present(run, &mut fold)?;
        let (events, next_after) = fold.events_after(after, kinds, EVENTS_PER_PAGE);
        Ok(EventPage { status: fold.status(), events, next_after })
    }

    /// Folds what is new; gives the time of the server in ms.
    async fn look(
        &self,
        run: &RunId,
        fold: &mut Option<Fold>,
        followed: &Followed,
    ) -> Result<f64, CoordinationError> {
        if fold.is_none() {
            *fold = Some(self.begun(run).await?);
        }
        loop {
            let known = present(run, fold)?;
            let (now_ms, entries) = self.step(run, known.next(), Some(ENTRIES_PER_PAGE), "", "").await?;
            let count = entries.len();
            self.take(run, known, entries, followed).await?;
            if count < ENTRIES_PER_PAGE {
                return Ok(now_ms);
            }
        }
    }

    /// Appends a request and folds up to it; gives what it came to.
    async fn append(
        &self,
        run: &RunId,
        fold: &mut Option<Fold>,
        followed: &Followed,
        request: &Request,
        rings: bool,
    ) -> Result<Outcome, CoordinationError> {
        if fold.is_none() {
            self.look(run, fold, followed).await?;
        }
        let known = present(run, fold)?;
        let channel = if rings { keys::channel(run) } else { String::new() };
        let (_, entries) = self.step(run, known.next(), None, &text(request), &channel).await?;
        match self.take(run, known, entries, followed).await? {
            Some(last) => Ok(last),
            None => {
                // The server went back to an older log: what was folded may never have been.
                *fold = None;
                let cause = format!("the log of run `{run}` is shorter than it was");
                Err(CoordinationError::Unreachable { at: self.0.at.clone(), cause })
            }
        }
    }

    async fn take(
        &self,
        run: &RunId,
        fold: &mut Fold,
        entries: Vec<String>,
        followed: &Followed,
    ) -> Result<Option<Outcome>, CoordinationError> {
        let mut last = None;
        for entry in entries {
            let at = fold.next();
            last = Some(fold.take(&entry).map_err(|e| damaged(run, format!("entry `{at}`: {e}")))?);
        }
        if fold.status() != RunStatus::Running && !followed.is_over.swap(true, Ordering::SeqCst) {
            self.expire(run, fold).await;
        }
        Ok(last)
    }

    /// One round trip: appends, where there is something, and reads.
    async fn step(
        &self,
        run: &RunId,
        from: u64,
        limit: Option<usize>,
        request: &str,
        channel: &str,
    ) -> Result<(f64, Vec<String>), CoordinationError> {
        let last = limit.map_or(-1, |limit| from as i64 + limit as i64 - 1);
        let mut script = self.0.append.key(keys::log(run));
        script.arg(request).arg(from).arg(last).arg(channel);
        let mut connection = self.connection().await?;
        let step: Option<Step> =
            script.invoke_async(&mut connection).await.map_err(|e| self.unreachable(&e))?;
        let (now_ms, entries) = step.ok_or_else(|| CoordinationError::NoSuchRun(run.clone()))?;
        let now_ms = now_ms.parse().map_err(|_| damaged(run, format!("the server's time is `{now_ms}`")))?;
        Ok((now_ms, entries))
    }

    async fn begun(&self, run: &RunId) -> Result<Fold, CoordinationError> {
        let about: About = self.document(run, keys::about(run)).await?;
        if about.format != FORMAT {
            let cause = format!(
                "its log has format `{}`, this program folds `{FORMAT}`; hint: use programs of one version",
                about.format
            );
            return Err(damaged(run, cause));
        }
        Ok(Fold::new(about, &self.workflow(run).await?))
    }

    async fn document<T: serde::de::DeserializeOwned>(
        &self,
        run: &RunId,
        key: String,
    ) -> Result<T, CoordinationError> {
        let mut connection = self.connection().await?;
        let found: Option<Vec<u8>> = connection.get(&key).await.map_err(|e| self.unreachable(&e))?;
        let found = found.ok_or_else(|| CoordinationError::NoSuchRun(run.clone()))?;
        serde_json::from_slice(&found).map_err(|e| damaged(run, format!("`{key}`: {e}")))
    }

    /// Lets what lies there of a run that has ended go after a while. Where this is not heard it goes later.
    async fn expire(&self, run: &RunId, fold: &Fold) {
        let plan = fold.plan().1.map(|hash| keys::plan(run, hash));
        let all = [keys::log(run), keys::workflow(run), keys::about(run)].into_iter().chain(plan);
        let mut expiring = redis::pipe();
        for key in all {
            expiring.expire(key, ENDED_TTL_S).ignore();
        }
        if let Ok(mut connection) = self.connection().await {
            let _heard: Result<(), RedisError> = expiring.query_async(&mut connection).await;
        }
    }

    async fn connection(&self) -> Result<ConnectionManager, CoordinationError> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_LIMIT))
            .set_response_timeout(Some(ANSWER_LIMIT))
            .set_number_of_retries(CONNECTS_MAX);
        let connect =
            || async { self.0.client.get_connection_manager_with_config(config).await.map(Connection) };
        let connection = self.0.connection.get_or_try_init(connect).await;
        connection.map(|connection| connection.0.clone()).map_err(|e| self.unreachable(&e))
    }

    fn unreachable(&self, error: &RedisError) -> CoordinationError {
        CoordinationError::Unreachable { at: self.0.at.clone(), cause: error.to_string() }
    }

    fn followed(&self, run: &RunId) -> Arc<Followed> {
        // A panic elsewhere leaves a map of folds, each of which guards itself.
        let mut folds = self.0.folds.lock().unwrap_or_else(PoisonError::into_inner);
        if folds.len() >= FOLDS_KEPT_MAX && !folds.contains_key(run) {
            folds.retain(|_, followed| Arc::strong_count(followed) > 1);
        }
        Arc::clone(folds.entry(run.clone()).or_default())
    }
}

fn present<'a>(run: &RunId, fold: &'a mut Option<Fold>) -> Result<&'a mut Fold, CoordinationError> {
    fold.as_mut().ok_or_else(|| damaged(run, "nothing of its log was read".to_owned()))
}

fn damaged(run: &RunId, cause: String) -> CoordinationError {
    CoordinationError::Damaged { run: run.clone(), cause }
}

fn text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("wire types always have a JSON form")
}
