//! What surrounds a simulated run at size: counts what is asked of the keeper of its state, the platform and
//! the store, and, where it is told to, lets it wait for them.
//!
//! Every resource is a queue in order of arrival: the thread of the keeper, that of metad where it only takes
//! measurements, the link of the keeper, the store. News are told in rounds: a round begins when something
//! has happened, and not before the last one is through and every listener has asked again; a round costs
//! one answer for each listener. Of `runs` equal runs at the same time one is simulated, and all that it asks
//! counts so many times. Times in ms, sizes in bytes.

use std::collections::HashMap;

use foresail_planner::{Left, Served, Surroundings};
use foresail_schemas::platform::Pace;
use foresail_schemas::run::{Change, Operation, OperationAnswer, RunEvent};

use super::meter::{Meter, Queue, Usage};
use super::service::{Keeper, Service};
use super::wire;

/// Workers that one machine asks for at the same time, the client as well as a worker.
pub const INVOCATIONS_AT_ONCE: f64 = 16.0;
/// Requests with which a worker learns what is to be done: the run in short, its workflow, its plan.
const DOCUMENTS: f64 = 3.0;
/// Requests to a store that it takes at once before they queue, as a part of what it takes in a second.
const STORE_BURST_MS: f64 = 1_000.0;

/// What a worker reads of a run before it begins, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Documents {
    /// The workflow as JSON.
    pub workflow_bytes: u64,
    /// The plan as JSON.
    pub plan_bytes: u64,
}

/// Whether what is asked has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// Everything is answered at once, and counted.
    No,
    /// What is busy lets wait.
    Yes,
}

/// What bounds a simulated run.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// Virtual time in ms.
    pub end_ms: f64,
    /// Events handled.
    pub steps_max: u64,
}

/// The surroundings.
pub struct Around<'a> {
    service: &'a Service,
    keeper: Keeper,
    pace: Option<Pace>,
    documents: Documents,
    /// Of how many runs at the same time this is one.
    runs: f64,
    /// Round trip to the run's state in ms, before a listener asks again.
    round_trip_ms: f64,
    waits: Waits,
    ends: Ends,
    /// What was asked.
    pub usage: Usage,
    thread: Queue,
    link: Queue,
    /// The thread of metad where another keeps the state.
    learning: Queue,
    puts: Queue,
    gets: Queue,
    /// Until when each machine that asks for workers is busy with that.
    invoking: HashMap<usize, Queue>,
    /// Per size: workers that the platform may start now, less those that wait; and since when that is so.
    growth: Vec<(f64, f64)>,
    news: News,
    listeners: f64,
    alive: f64,
}

/// What is to be told to those who listen.
#[derive(Debug, Default)]
struct News {
    bytes: f64,
    entries: f64,
    /// When the next round begins.
    next_ms: Option<f64>,
    began_ms: f64,
    ended_ms: f64,
}

impl<'a> Around<'a> {
    /// The surroundings of one of `runs` equal runs.
    pub fn new(
        (keeper, service): (Keeper, &'a Service),
        pace: Option<Pace>,
        documents: Documents,
        (runs, round_trip_ms): (u32, f64),
        (waits, ends): (Waits, Ends),
    ) -> Self {
        Self {
            service,
            keeper,
            pace,
            documents,
            runs: f64::from(runs),
            round_trip_ms,
            waits,
            ends,
            usage: Usage::default(),
            thread: Queue::default(),
            link: Queue::default(),
            learning: Queue::default(),
            puts: Queue::default(),
            gets: Queue::default(),
            invoking: HashMap::new(),
            growth: Vec::new(),
            news: News { began_ms: f64::NEG_INFINITY, ..News::default() },
            listeners: 0.0,
            alive: 0.0,
        }
    }

    /// `now_ms` where nothing waits, `later_ms` where it does.
    fn when(&self, now_ms: f64, later_ms: f64) -> f64 {
        if self.waits == Waits::Yes { later_ms.max(now_ms) } else { now_ms }
    }

    /// The keeper works: when it has done so.
    fn work(&mut self, cause: fn(&mut Usage) -> &mut Meter, us: f64, now_ms: f64) -> f64 {
        let took_ms = us * self.runs / 1_000.0;
        cause(&mut self.usage).add(now_ms, took_ms);
        self.thread.take(now_ms, took_ms)
    }

    /// The keeper sends: when it has done so.
    fn send(&mut self, cause: fn(&mut Usage) -> &mut Meter, bytes: f64, now_ms: f64) -> f64 {
        cause(&mut self.usage).add(now_ms, bytes * self.runs);
        self.link.take(now_ms, bytes * self.runs * 1_000.0 / self.service.link_bytes_per_s)
    }

    /// Tells the news whose time has come.
    fn tell_due(&mut self, now_ms: f64) {
        while let Some(at_ms) = self.news.next_ms.filter(|at_ms| *at_ms <= now_ms) {
            let (service, listeners) = (self.service, self.told_of_news());
            let News { bytes, entries, .. } = std::mem::take(&mut self.news);
            let bytes = (bytes + wire::HEAD_BYTES) * listeners;
            self.usage.pages.add(at_ms, listeners * self.runs);
            self.usage.folded.add(at_ms, entries);
            let us = service.news_us * listeners + service.byte_us * bytes;
            let worked_ms = self.work(|usage| &mut usage.news_ms, us, at_ms);
            let sent_ms = self.send(|usage| &mut usage.news_bytes, bytes, at_ms);
            self.news.began_ms = at_ms;
            self.news.ended_ms = self.when(at_ms, worked_ms.max(sent_ms));
        }
    }

    /// Those who are told: of a log, everybody who takes part and metad.
    fn told_of_news(&self) -> f64 {
        match self.keeper {
            Keeper::Metad => self.listeners,
            Keeper::Redis => self.alive + 1.0,
        }
    }

    /// When a round begins that tells what happens at `now_ms`.
    fn round_ms(&self, now_ms: f64) -> f64 {
        let gap_ms = self.service.news_gap_ms.max(self.round_trip_ms);
        let asked_again_ms = (self.news.began_ms + gap_ms).max(self.news.ended_ms + self.round_trip_ms);
        (now_ms + self.service.news_pause_ms).max(asked_again_ms)
    }

    fn happened(&mut self, bytes: f64, now_ms: f64) {
        self.news.bytes += bytes;
        if self.news.next_ms.is_none() {
            self.news.next_ms = Some(self.round_ms(now_ms));
        }
    }
}

impl Surroundings for Around<'_> {
    fn steps_max(&self) -> u64 {
        self.ends.steps_max
    }

    fn end_ms(&self) -> f64 {
        self.ends.end_ms
    }

    fn invoked(&mut self, by: usize, now_ms: f64) -> f64 {
        self.usage.invocations.add(now_ms, self.runs);
        let Some(pace) = self.pace else { return now_ms };
        let turn_ms = self.invoking.entry(by).or_default().take(now_ms, pace.invoke_ms / INVOCATIONS_AT_ONCE);
        self.when(now_ms, turn_ms + pace.invoke_ms * (1.0 - 1.0 / INVOCATIONS_AT_ONCE))
    }

    fn grown(&mut self, size: usize, now_ms: f64) -> f64 {
        self.usage.cold_starts.add(now_ms, self.runs);
        let Some(pace) = self.pace else { return now_ms };
        let full = f64::from(pace.growth_workers);
        if self.growth.len() <= size {
            self.growth.resize(size + 1, (full, 0.0));
        }
        let per_ms = full / pace.growth_ms;
        let (free, since_ms) = &mut self.growth[size];
        *free = (*free + (now_ms - *since_ms) * per_ms).min(full) - self.runs;
        *since_ms = now_ms;
        let waits_ms = (-*free / per_ms).max(0.0);
        let begins_ms = self.when(now_ms, now_ms + waits_ms);
        self.usage.last_start_ms = self.usage.last_start_ms.max(begins_ms);
        begins_ms
    }

    fn begun(&mut self, is_planned: bool, now_ms: f64) -> f64 {
        self.tell_due(now_ms);
        let Documents { workflow_bytes, plan_bytes } = self.documents;
        let log_bytes = if self.keeper == Keeper::Redis { self.usage.log_bytes } else { 0.0 };
        let bytes = workflow_bytes as f64 + plan_bytes as f64 + log_bytes + DOCUMENTS * wire::HEAD_BYTES;
        let us = DOCUMENTS * self.service.request_us + self.service.byte_us * bytes;
        self.usage.documents.add(now_ms, DOCUMENTS * self.runs);
        let worked_ms = self.work(|usage| &mut usage.documents_ms, us, now_ms);
        let sent_ms = self.send(|usage| &mut usage.documents_bytes, bytes, now_ms);
        self.alive += 1.0;
        self.listeners += f64::from(u8::from(is_planned));
        self.usage.workers_max = self.usage.workers_max.max(self.alive * self.runs);
        self.when(now_ms, worked_ms.max(sent_ms))
    }

    fn asked(&mut self, operations: &[Operation], now_ms: f64) -> Served {
        self.tell_due(now_ms);
        let service = self.service;
        let bytes = wire::request_bytes(operations) as f64;
        self.usage.requests.add(now_ms, self.runs);
        self.usage.operations += operations.len() as f64 * self.runs;
        self.usage.request_bytes.add(now_ms, bytes * self.runs);
        if self.keeper == Keeper::Redis && !operations.iter().all(wire::is_question) {
            self.usage.log_bytes += bytes;
            self.news.entries += 1.0;
            self.happened(bytes, now_ms);
        }
        let us = service.request_us + service.operation_us * operations.len() as f64;
        let done_ms = self.work(|usage| &mut usage.requests_ms, us, now_ms);
        let at_ms = self.when(now_ms, done_ms);
        self.usage.waits_ms = self.usage.waits_ms.max(at_ms - now_ms);
        let given_up_ms = (at_ms - now_ms > service.answer_ms_max).then_some(now_ms + service.answer_ms_max);
        self.usage.given_up += f64::from(u8::from(given_up_ms.is_some()));
        Served { at_ms, given_up_ms }
    }

    fn answered(&mut self, answer: &OperationAnswer, events: &[RunEvent], now_ms: f64) -> f64 {
        self.tell_due(now_ms);
        let bytes = match self.keeper {
            Keeper::Metad => wire::answer_bytes(answer) as f64,
            // The entry itself comes back with what others appended, which rounds count.
            Keeper::Redis => wire::HEAD_BYTES,
        };
        self.usage.answer_bytes_max = self.usage.answer_bytes_max.max(bytes);
        let stored: usize = events.iter().map(wire::event_bytes).sum();
        self.usage.stored_bytes += stored as f64 * self.runs;
        if self.keeper == Keeper::Metad {
            let told: usize = events.iter().filter(|e| is_told(&e.change)).map(wire::event_bytes).sum();
            if told > 0 {
                self.happened(told as f64, now_ms);
            }
        }
        let sent_ms = self.send(|usage| &mut usage.answers_bytes, bytes, now_ms);
        self.when(now_ms, sent_ms)
    }

    fn told(&mut self, now_ms: f64) -> f64 {
        let at_ms = self.news.next_ms.unwrap_or_else(|| self.round_ms(now_ms));
        // On the average a listener is told when half of them have been.
        let half = 0.5 * self.told_of_news() * self.runs;
        let took_ms = half * self.service.news_us / 1_000.0;
        let sent_ms = half * self.news.bytes * 1_000.0 / self.service.link_bytes_per_s;
        let worked_ms = self.thread.until_ms().max(at_ms) + took_ms;
        self.when(now_ms, worked_ms.max(self.link.until_ms().max(at_ms) + sent_ms))
    }

    fn fetched(&mut self, gets: u64, now_ms: f64) -> f64 {
        let count = gets as f64 * self.runs;
        self.usage.gets.add(now_ms, count);
        let Some(pace) = self.pace else { return now_ms };
        let until_ms = self.gets.take(now_ms, count * 1_000.0 / pace.gets_per_s);
        self.when(now_ms, until_ms - STORE_BURST_MS)
    }

    fn stored(&mut self, puts: u64, now_ms: f64) -> f64 {
        let count = puts as f64 * self.runs;
        self.usage.puts.add(now_ms, count);
        let Some(pace) = self.pace else { return now_ms };
        let until_ms = self.puts.take(now_ms, count * 1_000.0 / pace.puts_per_s);
        self.when(now_ms, until_ms - STORE_BURST_MS)
    }

    fn left(&mut self, left: &Left, now_ms: f64) {
        self.alive -= 1.0;
        self.listeners -= f64::from(u8::from(left.is_planned));
        let records = wire::records(left) as f64;
        self.usage.batches.add(now_ms, self.runs);
        self.usage.records.add(now_ms, records * self.runs);
        let us = self.service.batch_us + self.service.record_us * records;
        match self.keeper {
            Keeper::Metad => drop(self.work(|usage| &mut usage.learning_ms, us, now_ms)),
            Keeper::Redis => {
                let took_ms = us * self.runs / 1_000.0;
                self.usage.learning_ms.add(now_ms, took_ms);
                self.learning.take(now_ms, took_ms);
            }
        }
    }
}

/// What workers ask to hear of.
fn is_told(change: &Change) -> bool {
    matches!(change, Change::TaskReady { .. } | Change::TasksSkipped { .. } | Change::RunFinished { .. })
}
