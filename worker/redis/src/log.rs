//! A run's log as one process follows it: looks, appends, where a fold begins, and snapshots on the way.

use std::sync::atomic::Ordering;

use foresail_schemas::RunId;
use foresail_schemas::run::{Operation, RunStatus};
use foresail_schemas::workflow::Workflow;
use redis::{AsyncCommands, FromRedisValue, RedisError};

use crate::entry::Mark;
use crate::error::CoordinationError;
use crate::fold::{About, FORMAT, Fold, Outcome, Request};
use crate::keys;
use crate::listen::Followed;
use crate::runs::{ENDED_TTL_S, RUN_TTL_S, Runs, damaged, present};
use crate::snapshot::{SNAPSHOT_BYTES_MAX, Snapshot, is_due};

/// Entries that are read at once by who is behind.
const ENTRIES_PER_PAGE: usize = 4096;
/// Entries that are folded where they are read; more are folded where nothing waits behind them.
const ENTRIES_IN_PLACE_MAX: usize = 64;

/// Entries as they stand in the log.
type Entries = Vec<Vec<u8>>;
/// The time of the server in ms, and entries; none where the log is another one.
type Step = (f64, Option<Entries>);
/// A snapshot as it lies there: entry behind it, mark, last event, state.
type Found = (Option<u64>, Option<Vec<u8>>, Option<u64>, Option<Vec<u8>>);

/// What is asked of the log in one round trip.
#[derive(Default)]
struct Ask<'a> {
    from: u64,
    mark: Option<Mark>,
    limit: Option<usize>,
    request: &'a [u8],
    channel: &'a str,
}

impl Runs {
    /// Folds what is new; gives the time of the server in ms. A fold that begins here has all events after
    /// number `after`, where one is named.
    pub(crate) async fn look(
        &self,
        run: &RunId,
        fold: &mut Option<Fold>,
        followed: &Followed,
        after: Option<u64>,
    ) -> Result<f64, CoordinationError> {
        if fold.is_none() {
            *fold = Some(self.begun(run, after, false).await?);
        }
        // Once more where the log is not the one that was folded, or that the snapshot was taken of.
        for _ in 0..2 {
            match self.caught_up(run, fold, followed).await? {
                Some(now_ms) => return Ok(now_ms),
                None => {
                    followed.begin_anew();
                    *fold = Some(self.begun(run, after, true).await?);
                }
            }
        }
        *fold = None;
        Err(self.another_log(run))
    }

    /// Folds up to the end; nothing where the log is another one.
    async fn caught_up(
        &self,
        run: &RunId,
        fold: &mut Option<Fold>,
        followed: &Followed,
    ) -> Result<Option<f64>, CoordinationError> {
        loop {
            let known = present(run, fold)?;
            let (from, mark, limit) = (known.next(), known.mark(), Some(ENTRIES_PER_PAGE));
            let (now_ms, entries) = self.step(run, &Ask { from, mark, limit, ..Ask::default() }).await?;
            let Some(entries) = entries else { return Ok(None) };
            let count = entries.len();
            self.take(run, fold, entries, None, followed).await?;
            if count < ENTRIES_PER_PAGE {
                return Ok(Some(now_ms));
            }
        }
    }

    /// Appends a request and folds up to it; gives what it came to. `asked` are its operations with the
    /// questions among them.
    pub(crate) async fn append(
        &self,
        run: &RunId,
        fold: &mut Option<Fold>,
        followed: &Followed,
        request: &Request,
        asked: Option<Vec<Operation>>,
        rings: bool,
    ) -> Result<Outcome, CoordinationError> {
        if fold.is_none() {
            self.look(run, fold, followed, None).await?;
        }
        let known = present(run, fold)?;
        let (from, mark, written) = (known.next(), known.mark(), known.written(request));
        let channel = if rings { keys::channel(run) } else { String::new() };
        let ask = Ask { from, mark, limit: None, request: &written, channel: &channel };
        let (_, entries) = self.step(run, &ask).await?;
        let Some(entries) = entries.filter(|entries| !entries.is_empty()) else {
            // The server went back to an older log: what was folded may never have been.
            *fold = None;
            followed.begin_anew();
            return Err(self.another_log(run));
        };
        let last = self.take(run, fold, entries, asked, followed).await?;
        self.keep_snapshot(run, fold).await?;
        last.ok_or_else(|| damaged(run, "its log is empty".to_owned()))
    }

    fn another_log(&self, run: &RunId) -> CoordinationError {
        CoordinationError::Unreachable {
            at: self.0.address.shown.clone(),
            cause: format!("the log of run `{run}` is not the one that was folded so far"),
            hint: "Redis went back to an earlier state; the run is folded anew with the next request",
        }
    }

    /// Folds entries. A fold that fails is not kept, so that the next request begins anew.
    async fn take(
        &self,
        run: &RunId,
        slot: &mut Option<Fold>,
        entries: Entries,
        asked: Option<Vec<Operation>>,
        followed: &Followed,
    ) -> Result<Option<Outcome>, CoordinationError> {
        let mut fold = slot.take().ok_or_else(|| nothing_read(run))?;
        let (count, events) = (entries.len(), fold.last_event());
        let work = move || {
            let taken = take_all(&mut fold, &entries, asked.as_deref());
            (fold, taken)
        };
        let (fold, taken) = match count {
            ..=ENTRIES_IN_PLACE_MAX => work(),
            _ => aside(run, work).await?,
        };
        let last = taken.map_err(|cause| damaged(run, cause))?;
        let fold = slot.insert(fold);
        followed.folded.store(fold.next(), Ordering::SeqCst);
        if fold.last_event() > events {
            followed.bell.notify_waiters();
        }
        if fold.status() != RunStatus::Running && !followed.is_over.swap(true, Ordering::SeqCst) {
            self.expire(run, fold).await;
        }
        Ok(last)
    }

    /// One round trip: appends, where there is something, and reads.
    async fn step(&self, run: &RunId, ask: &Ask<'_>) -> Result<Step, CoordinationError> {
        let last = ask.limit.map_or(-1, |limit| ask.from as i64 + limit as i64 - 1);
        let mark = ask.mark.as_ref().map_or(&[][..], |mark| &mark[..]);
        let mut script = self.0.append.key(keys::log(run));
        script.arg(ask.request).arg(ask.from).arg(last).arg(ask.channel).arg(mark);
        let mut link = self.link().await?;
        let step: Option<(u64, Option<Entries>)> =
            script.invoke_async(&mut link).await.map_err(|e| self.unreachable(&e))?;
        let (now_ms, entries) = step.ok_or_else(|| CoordinationError::NoSuchRun(run.clone()))?;
        Ok((now_ms as f64, entries))
    }

    /// Where a fold begins: behind the newest snapshot, or before the first entry where there is none
    /// that can be read, or where events are wanted that came before it.
    async fn begun(&self, run: &RunId, after: Option<u64>, whole: bool) -> Result<Fold, CoordinationError> {
        let mut documents = redis::pipe();
        documents.get(keys::about(run)).get(keys::workflow(run));
        let (about, workflow): (Option<Vec<u8>>, Option<Vec<u8>>) = self.ask(&documents).await?;
        let about: About = self.document(run, &keys::about(run), about)?;
        if about.format != FORMAT {
            let cause = format!(
                "its log has format `{}`, this program folds `{FORMAT}`; hint: use programs of one version",
                about.format
            );
            return Err(damaged(run, cause));
        }
        let workflow: Workflow = self.document(run, &keys::workflow(run), workflow)?;
        let snapshot = if whole { None } else { self.snapshot(run, after).await? };
        aside(run, move || {
            if let Some(snapshot) = snapshot {
                match Fold::behind(about.clone(), &workflow, &snapshot) {
                    Ok(fold) => return fold,
                    Err(cause) => {
                        tracing::warn!(run = %about.summary.run, "a snapshot is left aside: {cause}")
                    }
                }
            }
            Fold::new(about, &workflow)
        })
        .await
    }

    /// The newest snapshot, unless an event after number `after` came before it.
    async fn snapshot(&self, run: &RunId, after: Option<u64>) -> Result<Option<Snapshot>, CoordinationError> {
        let key = keys::snapshot(run);
        if let Some(after) = after {
            let mut link = self.link().await?;
            let last_event: Option<u64> =
                link.hget(&key, "last_event").await.map_err(|e| self.unreachable(&e))?;
            if last_event.is_none_or(|last_event| last_event > after) {
                return Ok(None);
            }
        }
        let mut all = redis::cmd("HMGET");
        all.arg(key).arg("next").arg("mark").arg("last_event").arg("state");
        let mut link = self.link().await?;
        let found: Found = all.query_async(&mut link).await.map_err(|e| self.unreachable(&e))?;
        let (Some(next), Some(mark), Some(last_event), Some(state)) = found else { return Ok(None) };
        let Ok(mark) = mark.try_into() else { return Ok(None) };
        // One that came in the meantime may be behind what is wanted.
        let is_wanted = after.is_none_or(|after| last_event <= after);
        Ok(is_wanted.then_some(Snapshot { next, last_event, mark, state }))
    }

    /// Writes a snapshot where this process has appended the entry that one is due at.
    /// Nobody waits for it, and where it fails whoever joins folds more.
    async fn keep_snapshot(&self, run: &RunId, slot: &mut Option<Fold>) -> Result<(), CoordinationError> {
        let Some(fold) = slot.take_if(|fold| is_due(fold.next())) else { return Ok(()) };
        let (fold, snapshot) = aside(run, move || {
            let snapshot = fold.snapshot();
            (fold, snapshot)
        })
        .await?;
        *slot = Some(fold);
        if snapshot.state.len() > SNAPSHOT_BYTES_MAX {
            tracing::debug!(%run, bytes = snapshot.state.len(), "a snapshot is too large to be kept");
            return Ok(());
        }
        let (runs, run) = (self.clone(), run.clone());
        tokio::spawn(async move {
            let mut script = runs.0.snapshot.key(keys::snapshot(&run));
            script.key(keys::log(&run)).arg(snapshot.next).arg(&snapshot.mark[..]);
            script.arg(snapshot.last_event).arg(snapshot.state).arg(RUN_TTL_S);
            let Ok(mut link) = runs.link().await else { return };
            let kept: Result<u64, RedisError> = script.invoke_async(&mut link).await;
            tracing::debug!(%run, next = snapshot.next, ?kept, "a snapshot was taken");
        });
        Ok(())
    }

    async fn ask<T: FromRedisValue>(&self, questions: &redis::Pipeline) -> Result<T, CoordinationError> {
        let mut link = self.link().await?;
        questions.query_async(&mut link).await.map_err(|e| self.unreachable(&e))
    }

    /// Lets what lies there of a run that has ended go after a while. Where this is not heard it goes later.
    async fn expire(&self, run: &RunId, fold: &Fold) {
        let plan = fold.plan().1.map(|hash| keys::plan(run, hash));
        let all = [keys::log(run), keys::workflow(run), keys::about(run), keys::snapshot(run)];
        let mut expiring = redis::pipe();
        for key in all.into_iter().chain(plan) {
            expiring.expire(key, ENDED_TTL_S).ignore();
        }
        let _heard: Result<(), CoordinationError> = self.ask(&expiring).await;
    }
}

/// Folds entries in order; gives what the last one came to. It is the one that was `asked` for.
fn take_all(
    fold: &mut Fold,
    entries: &Entries,
    asked: Option<&[Operation]>,
) -> Result<Option<Outcome>, String> {
    let mut last = None;
    for (at, entry) in (1..).zip(entries) {
        let asked = asked.filter(|_| at == entries.len());
        let number = fold.next();
        last = Some(fold.take(entry, asked).map_err(|e| format!("entry `{number}`: {e}"))?);
    }
    Ok(last)
}

/// Does what takes long where no other request waits behind it.
async fn aside<T: Send + 'static>(
    run: &RunId,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CoordinationError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| damaged(run, format!("its log was not folded: {e}")))
}

pub(crate) fn nothing_read(run: &RunId) -> CoordinationError {
    damaged(run, "nothing of its log was read".to_owned())
}
