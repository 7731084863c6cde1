//! A replica follows the log: one task that takes messages in order and hands them to the writer.
//!
//! It asks for a bounded number of messages at a time and for the next ones when those are learnt, through a
//! consumer that begins behind the last place learnt and belongs to this replica alone; the server forgets it
//! when nobody asks any more. After whatever goes wrong it begins anew from what is learnt. A message that is
//! missing in the count of the consumer is noticed and asked for again. Only where the stream does not go on
//! from what was learnt here does it end, and says why: to go on would be to learn something else.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, Message};
use async_nats::{ConnectOptions, ServerAddr};
use foresail_schemas::Problem;
use foresail_schemas::metric::BatchAnswer;
use futures_util::StreamExt;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::home::Home;
use super::message::{self, Unread};
use super::nats::BatchLog;
use crate::shared::{Shared, store_failed};
use crate::write::Command;

/// Longest wait for an answer of the server to a request.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// How long one question for messages waits for them.
const LOOK: Duration = Duration::from_secs(5);
/// Longest time beyond that until a question counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(2);
/// Pause before it is begun anew.
const PAUSE: Duration = Duration::from_millis(250);
/// Longest pause between attempts to connect.
const CONNECT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// After which time the server forgets a consumer that nobody asks.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// How long JetStream remembers ids; the writer remembers the rest.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// Most messages, and most bytes of messages, that are asked for at once.
const MESSAGES_MAX: usize = 256;
const MESSAGES_BYTES_MAX: usize = 64 << 20;
/// Most messages of one subscription that wait in this process.
const WAITING_MAX: usize = 1024;

/// What to do where the log does not go on from what was learnt.
const HINT: &str = "hint: start this replica with a copy of the --data directory of one that is up to date, \
                    or, where all began anew, with an empty one";

/// Why a round ended.
enum Ended {
    /// It is begun anew.
    Again(String),
    /// It is not.
    Parted(String),
}

fn again(error: impl ToString) -> Ended {
    Ended::Again(error.to_string())
}

/// Follows the log until the daemon stops.
pub async fn follow(shared: Arc<Shared>) {
    let Some(log) = &shared.batch_log else { return };
    let mut stop = shared.stopping.subscribe();
    let rounds = async {
        let way = connect(log).await;
        loop {
            let ended = match &way {
                Ok(way) => round(&shared, log, way).await,
                Err(error) => Err(Ended::Parted(error.clone())),
            };
            match ended {
                Ok(()) => {}
                Err(Ended::Again(why)) => {
                    if log.progress().trouble.is_none() {
                        tracing::warn!(why, "the log of batches is not followed for the moment");
                    }
                    log.note(|progress| progress.trouble = Some(why));
                }
                Err(Ended::Parted(why)) => {
                    tracing::error!(why, "the log of batches is not followed any more");
                    log.note(|progress| progress.parted = Some(why));
                    return pending().await;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = rounds => {}
        _stopping_or_gone = stop.wait_for(|&stopping| stopping) => {}
    }
}

/// The way to the servers, which comes up, and comes up again, by itself.
async fn connect(log: &BatchLog) -> Result<jetstream::Context, String> {
    let servers: Result<Vec<ServerAddr>, _> = log.address.servers.iter().map(|text| text.parse()).collect();
    let client = ConnectOptions::new()
        .name("foresail-metad")
        .retry_on_initial_connect()
        .max_reconnects(None)
        .connection_timeout(REQUEST_MAX)
        .request_timeout(Some(REQUEST_MAX))
        .subscription_capacity(WAITING_MAX)
        .reconnect_delay_callback(|attempt| CONNECT_PAUSE_MAX.min(PAUSE * attempt.min(8) as u32))
        .connect(servers.map_err(|error| error.to_string())?)
        .await
        .map_err(|error| error.to_string())?;
    let way = jetstream::ContextBuilder::new().timeout(REQUEST_MAX).ack_timeout(REQUEST_MAX).build(client);
    log.connected(way.clone());
    Ok(way)
}

/// Follows the log as long as nothing goes wrong.
async fn round(shared: &Shared, log: &BatchLog, way: &jetstream::Context) -> Result<(), Ended> {
    let config = Config {
        name: log.address.stream.clone(),
        subjects: vec![log.subject()],
        retention: RetentionPolicy::Limits,
        // A stream that is full refuses new batches rather than forget old ones that a replica may need.
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        num_replicas: log.address.copies,
        duplicate_window: DUPLICATE_WINDOW,
        deny_delete: true,
        deny_purge: true,
        ..Config::default()
    };
    let stream =
        timeout(REQUEST_MAX, way.get_or_create_stream(config)).await.map_err(again)?.map_err(again)?;
    // What is in an `Info` of a moment ago would say that the log is shorter than it is.
    let info = timeout(REQUEST_MAX, stream.get_info()).await.map_err(again)?.map_err(again)?;
    let applied = log.progress().applied;
    settle(shared, &info, applied)?;
    if !info.config.subjects.contains(&log.subject()) {
        return Err(again(format!("the stream `{}` does not take `{}`", info.config.name, log.subject())));
    }
    let last = info.state.last_sequence;
    log.note(|progress| {
        progress.last = last;
        progress.target = progress.target.or(Some(last));
    });
    let begin = pull::Config {
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: applied + 1 },
        ack_policy: AckPolicy::None,
        inactive_threshold: FORGOTTEN_AFTER,
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let consumer =
        timeout(REQUEST_MAX, stream.create_consumer(begin)).await.map_err(again)?.map_err(again)?;
    tracing::info!(stream = log.address.stream, applied, last, "the log of batches is followed");
    log.note(|progress| progress.trouble = None);
    let messages_max = (MESSAGES_BYTES_MAX / way.client().max_payload().max(1)).clamp(1, MESSAGES_MAX);
    let mut count = Count { messages: 0, place: applied };
    loop {
        let ask = consumer.batch().max_messages(messages_max).expires(LOOK).messages();
        let mut messages = timeout(REQUEST_MAX, ask).await.map_err(again)?.map_err(again)?;
        let mut waiting = Waiting::default();
        let read = page(shared, log, &mut messages, &mut count, &mut waiting).await;
        // What was handed over is learnt, however the page ended.
        while !waiting.0.is_empty() {
            let (place, answer) = waiting.next().await;
            learnt(shared, log, place, answer)?;
        }
        read?;
        // A question that nothing came of may also be one that was lost; this tells, and the lag with it.
        let info = timeout(REQUEST_MAX, stream.get_info()).await.map_err(again)?.map_err(again)?;
        settle(shared, &info, log.progress().applied)?;
        log.note(|progress| progress.last = progress.last.max(info.state.last_sequence));
    }
}

/// Takes what comes of one question for messages.
async fn page(
    shared: &Shared,
    log: &BatchLog,
    messages: &mut pull::Batch,
    count: &mut Count,
    waiting: &mut Waiting,
) -> Result<(), Ended> {
    loop {
        tokio::select! {
            next = timeout(LOOK + LOST_AFTER, messages.next()) => match next {
                Ok(Some(Ok(message))) => take(shared, log, &message, count, waiting).await?,
                Ok(Some(Err(error))) => return Err(again(error)),
                Ok(None) => return Ok(()),
                Err(_elapsed) => return Err(again("the server does not answer")),
            },
            (place, answer) = waiting.next() => learnt(shared, log, place, answer)?,
        }
    }
}

/// Checks that the stream goes on from what was learnt up to `applied`, and has the data directory follow it.
fn settle(shared: &Shared, info: &Info, applied: u64) -> Result<(), Ended> {
    let (stream, state, data) = (&info.config.name, &info.state, &shared.settings.data);
    let found = Home { stream: stream.clone(), created_ns: info.created.unix_timestamp_nanos().to_string() };
    let known = Home::of(data).map_err(Ended::Parted)?;
    if known.as_ref().is_some_and(|known| *known != found) {
        return Err(Ended::Parted(format!(
            "the stream `{stream}` was made anew since this replica followed it\n{HINT}"
        )));
    }
    if state.last_sequence < applied {
        let last = state.last_sequence;
        return Err(Ended::Parted(format!(
            "the stream `{stream}` ends at `{last}`, this replica has learnt it up to {applied}: it was put \
             back to an earlier state\n{HINT}"
        )));
    }
    if state.first_sequence > applied + 1 && state.last_sequence > applied {
        let first = state.first_sequence;
        return Err(Ended::Parted(format!(
            "the stream `{stream}` begins at `{first}`, this replica has learnt it up to {applied}: what \
             lies between is gone\n{HINT}"
        )));
    }
    if known.is_none() {
        found.keep(data).map_err(|error| again(format!("the data directory: {error}")))?;
    }
    Ok(())
}

/// What a consumer has sent so far, and the place of the last of it.
struct Count {
    messages: u64,
    place: u64,
}

/// What the writer answers to a batch.
type Answered = Result<BatchAnswer, Problem>;

/// Answers of the writer that have not come, in the order of the log; none is awaited for what is no batch.
#[derive(Default)]
struct Waiting(VecDeque<(u64, Option<oneshot::Receiver<Answered>>)>);

impl Waiting {
    /// The next answer; waits for ever where none is outstanding. What is dropped meanwhile is not lost.
    async fn next(&mut self) -> (u64, Option<Answered>) {
        let Some((place, answer)) = self.0.front_mut() else { return pending().await };
        let place = *place;
        let answered = match answer {
            Some(answer) => Some(answer.await.unwrap_or_else(|_| Err(store_failed()))),
            None => None,
        };
        self.0.pop_front();
        (place, answered)
    }
}

/// Hands a message to the writer.
async fn take(
    shared: &Shared,
    log: &BatchLog,
    message: &Message,
    count: &mut Count,
    waiting: &mut Waiting,
) -> Result<(), Ended> {
    let info = message.info().map_err(again)?;
    let place = info.stream_sequence;
    let after = std::mem::replace(count, Count { messages: count.messages + 1, place });
    if info.consumer_sequence != count.messages {
        return Err(again(format!("message `{}` of the consumer is missing", count.messages)));
    }
    if place != after.place + 1 {
        return Err(Ended::Parted(format!(
            "the messages between `{}` and {place} were deleted from the log: what other replicas learnt \
             cannot be learnt here\n{HINT}",
            after.place
        )));
    }
    log.note(|progress| progress.last = progress.last.max(place + info.pending));
    let batch = match message::decode(&message.payload, place) {
        Ok(batch) => Box::new(batch),
        Err(Unread::Foreign(reason)) => {
            tracing::warn!(place, reason, "a message of the log is no batch; every replica passes over it");
            waiting.0.push_back((place, None));
            return Ok(());
        }
        Err(Unread::Newer(version)) => {
            return Err(Ended::Parted(format!(
                "message `{place}` of the log has form `{version}`, which this metad does not know\n\
                 hint: start the newer metad that the other replicas are"
            )));
        }
    };
    let answer = shared.hand_over(|reply| Command::Ingest(batch, reply)).await;
    waiting.0.push_back((place, Some(answer.map_err(|problem| Ended::Parted(problem.detail))?)));
    Ok(())
}

/// Notes what the writer answered to the batch at `place`.
fn learnt(shared: &Shared, log: &BatchLog, place: u64, answer: Option<Answered>) -> Result<(), Ended> {
    if let Some(problem) = shared.health.problem() {
        return Err(Ended::Parted(problem.detail));
    }
    if let Some(Err(problem)) = &answer {
        tracing::warn!(place, detail = problem.detail, "a batch of the log is refused");
    }
    log.applied(place, answer);
    Ok(())
}
