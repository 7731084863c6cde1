//! The client: runs in one Redis, each with the fold that this process has of it.
//!
//! Calls of one process about one run follow each other; a process has one connection for requests (in a
//! cluster one per node), made anew where it breaks, and one per run that it waits for news of.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foresail_schemas::RunId;
use foresail_schemas::plan::Plan;
use foresail_schemas::run::{
    CurrentPlan, EventPage, Operation, OperationAnswer, Replanning, RunEvent, RunOptions, RunStatus,
    RunSummary,
};
use foresail_schemas::workflow::Workflow;
use redis::{AsyncCommands, RedisError, Script};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep_until};

use crate::address::{Address, Link};
use crate::entry::{self, Names};
use crate::error::CoordinationError;
use crate::fold::{About, FORMAT, Fold, Outcome, Request, is_news, is_question};
use crate::keys;
use crate::listen::{Followed, subscribe};
use crate::log::nothing_read;

/// How long a run lives in Redis without having ended, in s.
pub(crate) const RUN_TTL_S: u64 = 7 * 24 * 3600;
/// How long it lives after its end, in s: workers may still report what they used.
pub(crate) const ENDED_TTL_S: i64 = 3600;
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
pub struct Runs(pub(crate) Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    pub address: Arc<Address>,
    link: OnceCell<Link>,
    pub append: Script,
    pub snapshot: Script,
    folds: Mutex<HashMap<RunId, Arc<Followed>>>,
}

impl Runs {
    /// Runs in the Redis at `url`, for instance `redis://127.0.0.1:6379`. Nothing is asked yet.
    ///
    /// # Errors
    /// [`CoordinationError::Settings`]
    pub fn open(url: &str) -> Result<Self, CoordinationError> {
        let address = Arc::new(Address::new(url)?);
        let append = Script::new(include_str!("append.lua"));
        let snapshot = Script::new(include_str!("snapshot.lua"));
        let (link, folds) = (OnceCell::new(), Mutex::default());
        Ok(Self(Arc::new(Shared { address, link, append, snapshot, folds })))
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
        // The log comes last: where it is, the rest is.
        let begin = Script::new(include_str!("begin.lua"));
        let mut begun = begin.key(keys::log(&run));
        let first = entry::write(&Request::Begin(new.events), &Names::default(), &run);
        begun.arg(first).arg(RUN_TTL_S);
        let mut link = self.link().await?;
        let asked = async {
            let () = documents.query_async(&mut link).await?;
            begun.invoke_async::<u64>(&mut link).await
        };
        asked.await.map(drop).map_err(|e| self.unreachable(&e))
    }

    /// The workflow of a run.
    ///
    /// # Errors
    /// [`CoordinationError`]
    pub async fn workflow(&self, run: &RunId) -> Result<Workflow, CoordinationError> {
        self.fetched(run, keys::workflow(run)).await
    }

    /// The plan in force.
    ///
    /// # Errors
    /// [`CoordinationError`]
    pub async fn plan(&self, run: &RunId) -> Result<CurrentPlan, CoordinationError> {
        let followed = self.followed(run);
        let mut fold = followed.fold.lock().await;
        self.look(run, &mut fold, &followed, None).await?;
        let fold = present(run, &mut fold)?;
        let ((epoch, hash), options) = (fold.plan(), fold.options());
        let hash = hash.ok_or_else(|| damaged(run, format!("its log names no plan `{epoch}`")))?;
        let plan: Plan = self.fetched(run, keys::plan(run, hash)).await?;
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
        self.fetched(run, keys::plan(run, hash)).await
    }

    /// The run in short.
    ///
    /// # Errors
    /// [`CoordinationError`]
    pub async fn summary(&self, run: &RunId) -> Result<RunSummary, CoordinationError> {
        let followed = self.followed(run);
        let mut fold = followed.fold.lock().await;
        let now_ms = self.look(run, &mut fold, &followed, None).await?;
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
            let now_ms = self.look(run, &mut fold, &followed, None).await?;
            let fold = present(run, &mut fold)?;
            let results = fold.ask(&operations, now_ms);
            return Ok(fold.answer(results));
        }
        let rings = operations.iter().any(is_news);
        // Questions change nothing: only who asks folds them.
        let changes = operations.iter().filter(|operation| !is_question(operation)).cloned().collect();
        let request = Request::Operate(changes);
        let outcome = self.append(run, &mut fold, &followed, &request, Some(operations), rings).await?;
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
        let mut link = self.link().await?;
        let kept = link.set_ex(keys::plan(run, &hash), plan, RUN_TTL_S).await;
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
        match self.append(run, &mut fold, &followed, request, None, true).await? {
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
        // What this process has folded anyway is given without a look.
        let (mut looks, mut has_looked) = (false, false);
        loop {
            let began = Instant::now();
            let mut rung = std::pin::pin!(followed.bell.notified());
            // From here on no ring is lost, though nobody waits yet.
            rung.as_mut().enable();
            let page = self.page(run, &followed, after, kinds, looks).await?;
            let is_late = has_looked && Instant::now() >= ends;
            if !page.events.is_empty() || page.status != RunStatus::Running || is_late {
                return Ok(page);
            }
            if !std::mem::replace(&mut has_looked, true) {
                looks = true;
                continue;
            }
            subscribe(&self.0.address, run, &followed);
            tokio::select! {
                () = rung => looks = followed.is_behind(),
                () = sleep_until(ends.min(Instant::now() + POLL)) => looks = true,
            }
            if looks {
                sleep_until((Instant::now() + BATCH).max(began + LOOK_GAP).min(ends)).await;
            }
        }
    }

    /// What there is to tell, as far as this process has folded or, where it `looks`, as things stand.
    async fn page(
        &self,
        run: &RunId,
        followed: &Arc<Followed>,
        after: u64,
        kinds: Option<&BTreeSet<String>>,
        looks: bool,
    ) -> Result<EventPage, CoordinationError> {
        let mut fold = followed.fold.lock().await;
        if fold.as_ref().is_some_and(|fold| fold.forgot(after)) {
            *fold = None;
        }
        if looks || fold.is_none() {
            self.look(run, &mut fold, followed, Some(after)).await?;
        }
        let fold = present(run, &mut fold)?;
        let (events, next_after) = fold.events_after(after, kinds, EVENTS_PER_PAGE);
        Ok(EventPage { status: fold.status(), events, next_after })
    }

    async fn fetched<T: serde::de::DeserializeOwned>(
        &self,
        run: &RunId,
        key: String,
    ) -> Result<T, CoordinationError> {
        let mut link = self.link().await?;
        let found: Option<Vec<u8>> = link.get(&key).await.map_err(|e| self.unreachable(&e))?;
        self.document(run, &key, found)
    }

    pub(crate) fn document<T: serde::de::DeserializeOwned>(
        &self,
        run: &RunId,
        key: &str,
        found: Option<Vec<u8>>,
    ) -> Result<T, CoordinationError> {
        let found = found.ok_or_else(|| CoordinationError::NoSuchRun(run.clone()))?;
        serde_json::from_slice(&found).map_err(|e| damaged(run, format!("`{key}`: {e}")))
    }

    pub(crate) async fn link(&self) -> Result<Link, CoordinationError> {
        let link = self.0.link.get_or_try_init(|| self.0.address.link()).await;
        link.cloned().map_err(|e| self.unreachable(&e))
    }

    pub(crate) fn unreachable(&self, error: &RedisError) -> CoordinationError {
        self.0.address.unreachable(error)
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

pub(crate) fn present<'a>(
    run: &RunId,
    fold: &'a mut Option<Fold>,
) -> Result<&'a mut Fold, CoordinationError> {
    fold.as_mut().ok_or_else(|| nothing_read(run))
}

pub(crate) fn damaged(run: &RunId, cause: String) -> CoordinationError {
    CoordinationError::Damaged { run: run.clone(), cause }
}

fn text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("wire types always have a JSON form")
}
