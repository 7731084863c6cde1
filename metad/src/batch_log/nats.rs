//! The log in NATS JetStream, from the side of a request: publish, wait until it is learnt here too, answer.
//!
//! A batch is acknowledged when the stream has it. Its answer then waits for a while until this replica has
//! learnt it, so that whoever reads here after the answer sees it; a replica that is behind answers without.
//! All batches have one subject: their order over all workflows is what makes the replicas alike.
//!
//! Nothing is published while there is no connection (`unavailable`, certainly without effect). Where the
//! acknowledgement does not come, it is not known whether the stream has the batch (`timeout`): the same
//! batch is sent again and counts once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::Context;
use async_nats::jetstream::message::PublishMessage;
use foresail_schemas::metric::BatchAnswer;
use foresail_schemas::{BatchId, ErrorCode, Problem, WorkflowName};
use tokio::sync::watch;
use tokio::time::timeout;

use super::follow::follow;
use super::{Address, Place, message};
use crate::shared::{Shared, store_failed};
use crate::store::batch_ids::Receipt;
use crate::write::Ingest;

/// Longest wait for the stream to acknowledge a batch.
const PUBLISH_MAX: Duration = Duration::from_secs(5);
/// Longest wait of an acknowledged batch until it is learnt here.
const LEARN_MAX: Duration = Duration::from_secs(2);
/// Answers of the writer that are kept for the requests that wait for them.
const ANSWERS_MAX: usize = 1024;
/// Bytes that the headers of a message take at most beside its content.
const HEADERS_BYTES: usize = 1024;

/// The log that batches go through.
pub struct BatchLog {
    /// Where it is.
    pub address: Address,
    way: OnceLock<Context>,
    progress: watch::Sender<Progress>,
    /// What the writer answered to the last batches, by their places; without the records set aside.
    answers: Mutex<VecDeque<(u64, Result<BatchAnswer, Problem>)>>,
}

/// How far this replica is.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Place up to which everything is learnt.
    pub applied: u64,
    /// Last place that the log is known to have.
    pub last: u64,
    /// Place to be reached before this replica counts as up to date; nothing before the log was seen.
    pub target: Option<u64>,
    /// Why the log is not followed at the moment.
    pub trouble: Option<String>,
    /// Why it is not followed any more: what it has does not go on from what was learnt here.
    pub parted: Option<String>,
}

impl BatchLog {
    /// The log at `text`, everything up to `applied` in which is learnt.
    #[must_use]
    pub fn open(text: &str, applied: u64) -> Option<Self> {
        let address = Address::read(text).ok()?;
        let progress = watch::Sender::new(Progress { applied, last: applied, ..Progress::default() });
        Some(Self { address, way: OnceLock::new(), progress, answers: Mutex::default() })
    }

    /// The subject of all batches.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("{}.batches", self.address.stream)
    }

    /// Uses this connection from now on.
    pub fn connected(&self, way: Context) {
        let _once = self.way.set(way);
    }

    /// How far this replica is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// Changes how far it is.
    pub fn note(&self, change: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(|progress| {
            change(progress);
            progress.last = progress.last.max(progress.applied);
        });
    }

    /// The batch at `place` is learnt, or refused by every replica alike.
    pub fn applied(&self, place: u64, answer: Option<Result<BatchAnswer, Problem>>) {
        if let Some(answer) = answer {
            let brief = answer.map(|answer| BatchAnswer { rejected: Vec::new(), ..answer });
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.push_back((place, brief));
            if answers.len() > ANSWERS_MAX {
                answers.pop_front();
            }
        }
        self.note(|progress| progress.applied = progress.applied.max(place));
    }

    fn connection(&self) -> Option<&Context> {
        self.way.get().filter(|way| way.client().connection_state() == State::Connected)
    }

    /// How far this replica is, for `/metrics`.
    #[must_use]
    pub fn place(&self) -> Place {
        let Progress { applied, last, .. } = self.progress();
        Place { applied, last, connected: u64::from(self.connection().is_some()) }
    }

    /// Why this replica should not be asked: it has not learnt yet what the log had when it started, or the
    /// log does not go on from what it knows. A replica that was up to date stays ready without the log.
    #[must_use]
    pub fn unready(&self) -> Option<Problem> {
        let progress = self.progress();
        if let Some(parted) = progress.parted {
            return Some(unavailable(parted));
        }
        let (applied, stream) = (progress.applied, &self.address.stream);
        match progress.target {
            Some(target) if applied >= target => None,
            Some(target) => Some(unavailable(format!(
                "this replica has learnt the stream `{stream}` up to `{applied}` of {target} and catches up"
            ))),
            None => Some(unavailable(format!(
                "this replica has not seen the stream `{stream}` since its start{}",
                progress.trouble.map(|why| format!(": {why}")).unwrap_or_default()
            ))),
        }
    }

    /// Publishes a batch and answers it once the stream has it.
    ///
    /// # Errors
    /// Unavailable without the log, too large for it, timeout where it does not acknowledge.
    pub async fn post(&self, shared: &Arc<Shared>, batch: Ingest) -> Result<BatchAnswer, Problem> {
        self.check(shared, &batch.workflow)?;
        let Some(way) = self.connection() else { return Err(self.away()) };
        let (workflow, batch_id) = (batch.workflow.clone(), batch.batch_id.clone());
        let rejected: Vec<_> = batch.rejected.iter().map(|(rejected, _)| rejected.clone()).collect();
        let accepted = batch.records.len() as u64;
        let content = message::encode(batch);
        let bytes_max = way.client().max_payload().saturating_sub(HEADERS_BYTES);
        if content.len() > bytes_max {
            let detail =
                format!("the batch has `{}` bytes in the log, which takes {bytes_max}", content.len());
            let mut problem = Problem::new(ErrorCode::TooLarge, detail).with_limit(bytes_max as u64);
            problem.hint = "split it, or raise max_payload in the settings of nats-server".to_owned();
            return Err(problem);
        }
        let (place, again) = self.publish(way, content, &workflow, &batch_id).await?;
        self.note(|progress| progress.last = progress.last.max(place));
        let learnt = self.learnt(place).await?;
        let duplicate = again || learnt.as_ref().is_some_and(|answer| answer.duplicate);
        let epoch = learnt.map_or(place, |answer| answer.epoch);
        let answer = BatchAnswer { accepted, duplicate, rejected, epoch };
        if !duplicate {
            return Ok(answer);
        }
        // What is said to a repeated batch is what was said to the first.
        let first = receipt(shared, workflow, batch_id).await?;
        Ok(match first {
            Some(Receipt { accepted, rejected }) => BatchAnswer { accepted, rejected, ..answer },
            None => answer,
        })
    }

    fn check(&self, shared: &Shared, workflow: &WorkflowName) -> Result<(), Problem> {
        if let Some(problem) = shared.health.problem() {
            return Err(problem);
        }
        if let Some(parted) = self.progress().parted {
            return Err(unavailable(parted));
        }
        let (world, limit) = (shared.world.load(), shared.settings.workflows_max);
        if world.get(workflow.as_str()).is_none() && world.views().len() as u64 >= limit {
            let detail = format!("workflow `{workflow}` would be one too many, {limit} workflows are kept");
            return Err(Problem::new(ErrorCode::TooMany, detail).with_limit(limit));
        }
        Ok(())
    }

    /// The place of a batch in the stream, and whether the stream had it before.
    async fn publish(
        &self,
        way: &Context,
        content: Vec<u8>,
        workflow: &WorkflowName,
        batch_id: &BatchId,
    ) -> Result<(u64, bool), Problem> {
        let publish = PublishMessage::build()
            .payload(content.into())
            .message_id(format!("{workflow}/{batch_id}"))
            .expected_stream(&self.address.stream);
        let acknowledged =
            timeout(PUBLISH_MAX, async { way.send_publish(self.subject(), publish).await?.await });
        let unknown = |why: &str| {
            let detail = format!("the stream `{}` did not acknowledge the batch: {why}", self.address.stream);
            let mut problem = Problem::new(ErrorCode::Timeout, detail);
            problem.hint =
                "send the same batch again; it counts once, whether the stream has it or not".into();
            problem
        };
        match acknowledged.await {
            Ok(Ok(ack)) => Ok((ack.sequence, ack.duplicate)),
            Ok(Err(error)) if self.connection().is_none() => {
                tracing::warn!(%error, "a batch is not acknowledged");
                Err(unknown("the connection broke"))
            }
            Ok(Err(error)) => Err(unknown(&error.to_string())),
            Err(_elapsed) => Err(unknown(&format!("no answer within {} s", PUBLISH_MAX.as_secs()))),
        }
    }

    /// What the writer answered to the batch at `place`; nothing where it has not come to it in time, or long
    /// ago.
    async fn learnt(&self, place: u64) -> Result<Option<BatchAnswer>, Problem> {
        let mut progress = self.progress.subscribe();
        let _late = timeout(LEARN_MAX, progress.wait_for(|progress| progress.applied >= place)).await;
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.iter().rev().find(|(at, _)| *at == place).map(|(_, answer)| answer.clone()).transpose()
    }

    fn away(&self) -> Problem {
        let stream = &self.address.stream;
        let mut problem = unavailable(format!(
            "there is no connection to NATS, which has the stream `{stream}`; the batch was not taken"
        ));
        problem.hint =
            "send the same batch again later; predictions are answered meanwhile. If it lasts, see \
                        whether nats-server runs with -js at the address in --batch-log"
                .to_owned();
        problem
    }
}

fn unavailable(detail: String) -> Problem {
    Problem::new(ErrorCode::Unavailable, detail)
}

/// What was answered to a batch the first time.
async fn receipt(
    shared: &Arc<Shared>,
    workflow: WorkflowName,
    batch_id: BatchId,
) -> Result<Option<Receipt>, Problem> {
    let shared = Arc::clone(shared);
    let look = tokio::task::spawn_blocking(move || {
        let Some(number) = shared.world.load().get(workflow.as_str()).map(|view| view.number) else {
            return Ok(None);
        };
        shared.store.view()?.receipt(number, batch_id.as_str())
    });
    match look.await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(_)) | Err(_) => Err(store_failed()),
    }
}

/// Follows the log, where there is one, until the daemon stops.
pub fn take_up(shared: &Arc<Shared>) {
    if shared.batch_log.is_none() {
        return;
    }
    if shared.coordination.is_none() {
        tracing::warn!(
            "the log shares batches, not runs: runs are kept by this replica alone; set --coordination to \
             keep their state in Redis"
        );
    }
    tokio::spawn(follow(Arc::clone(shared)));
}
