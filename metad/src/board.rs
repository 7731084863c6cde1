//! What is known of runs outside the writer: per run its last summary, its youngest events, and a bell.
//!
//! The writer puts something here only after it is durable, so nobody sees a state that a crash could take
//! back. Events that are no longer held here are read from the store.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use foresail_schemas::RunId;
use foresail_schemas::run::{RunOptions, RunStatus, RunSummary};
use tokio::sync::watch;

use crate::store::run_events::EventText;

/// Leases and looks without a sign of anybody, after which nobody works on a run.
const SILENT_TURNS: f64 = 3.0;
/// Most events of one run that are held in memory.
pub const TAIL_EVENTS_MAX: usize = 4096;
/// Most bytes of events of one run that are held in memory.
pub const TAIL_BYTES_MAX: usize = 4 << 20;

/// All runs, by id.
pub type Boards = BTreeMap<RunId, Arc<Board>>;

/// The clock of a run: ms since it was created. It never goes back, not even over a restart.
#[derive(Debug, Clone, Copy)]
pub struct RunClock {
    base_ms: f64,
    since: Instant,
}

impl RunClock {
    /// A clock that shows `base_ms` now.
    #[must_use]
    pub fn at(base_ms: f64) -> Self {
        Self { base_ms, since: Instant::now() }
    }

    /// The clock of a run that began at `created_at` by the clock of the system and whose last event was at
    /// `last_ms`.
    #[must_use]
    pub fn resumed(created_at: jiff::Timestamp, last_ms: f64) -> Self {
        let elapsed = jiff::Timestamp::now().duration_since(created_at).as_secs_f64() * 1000.0;
        Self::at(elapsed.max(last_ms).max(0.0))
    }

    /// ms since the run was created.
    #[must_use]
    pub fn now_ms(&self) -> f64 {
        self.base_ms + self.since.elapsed().as_secs_f64() * 1000.0
    }
}

/// One run.
#[derive(Debug)]
pub struct Board {
    /// Its number in the store.
    pub number: u64,
    /// Its limits and intervals.
    pub options: RunOptions,
    clock: RunClock,
    summary: ArcSwap<RunSummary>,
    tail: Mutex<Tail>,
    /// Number of the last event; rings when it grows.
    bell: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Tail {
    events: VecDeque<Arc<EventText>>,
    bytes: usize,
}

/// Where the events after some number are.
#[derive(Debug)]
pub enum Recent {
    /// Here they are, all of them up to the limit.
    Held(Vec<Arc<EventText>>),
    /// Some are too old to be held; read the store.
    InStore,
}

impl Board {
    /// The board of a run whose events up to the one in `summary` are in the store.
    #[must_use]
    pub fn new(number: u64, options: RunOptions, clock: RunClock, summary: RunSummary) -> Self {
        let bell = watch::Sender::new(summary.last_event);
        let (summary, tail) = (ArcSwap::from_pointee(summary), Mutex::default());
        Self { number, options, clock, summary, tail, bell }
    }

    /// The last summary, with the time that has passed by now.
    #[must_use]
    pub fn summary(&self) -> RunSummary {
        let mut summary = RunSummary::clone(&self.summary.load());
        if summary.status == RunStatus::Running {
            // Whoever works on a run or watches over it asks, and a summary is published with each answer.
            let (heard_ms, now_ms) = (summary.elapsed_ms, self.clock.now_ms());
            let silent_ms = now_ms - heard_ms;
            summary.stalled_ms = Some(silent_ms).filter(|ms| *ms > self.stalled_after_ms());
            summary.elapsed_ms = heard_ms.max(now_ms);
        }
        summary
    }

    /// Workers are heard of several times in a lease, the watchdog of a client at each look, that of a host
    /// after a few.
    fn stalled_after_ms(&self) -> f64 {
        SILENT_TURNS * (self.options.lease_ms + self.options.watch_ms)
    }

    /// Where the run stands.
    #[must_use]
    pub fn status(&self) -> RunStatus {
        self.summary.load().status
    }

    /// Epoch of the plan in force.
    #[must_use]
    pub fn plan_epoch(&self) -> u64 {
        self.summary.load().plan_epoch
    }

    /// Shows what has become durable.
    pub fn publish(&self, summary: RunSummary, events: Vec<Arc<EventText>>) {
        let last = summary.last_event;
        // The lock is held for a few pointer moves; a reader copies pointers under it.
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            tail.bytes += event.json.get().len();
            tail.events.push_back(event);
        }
        while tail.events.len() > TAIL_EVENTS_MAX || tail.bytes > TAIL_BYTES_MAX {
            let Some(oldest) = tail.events.pop_front() else { break };
            tail.bytes -= oldest.json.get().len();
        }
        drop(tail);
        self.summary.store(Arc::new(summary));
        self.bell.send_if_modified(|seq| {
            let rings = last > *seq;
            *seq = last;
            rings
        });
    }

    /// Forgets the events held here, once the run is over and nobody follows it any more.
    pub fn forget_events(&self) {
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        *tail = Tail::default();
    }

    /// Up to `limit` events after number `after`.
    #[must_use]
    pub fn recent(&self, after: u64, limit: usize) -> Recent {
        let last = *self.bell.borrow();
        if after >= last {
            return Recent::Held(Vec::new());
        }
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        match tail.events.front() {
            Some(first) if first.seq <= after + 1 => {
                let skipped = (after + 1 - first.seq) as usize;
                Recent::Held(tail.events.iter().skip(skipped).take(limit).cloned().collect())
            }
            _ => Recent::InStore,
        }
    }

    /// The bell: changes when there is an event with a larger number.
    #[must_use]
    pub fn listen(&self) -> watch::Receiver<u64> {
        self.bell.subscribe()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use foresail_schemas::examples::run_begun;

    use super::*;

    pub fn summary(last_event: u64) -> RunSummary {
        RunSummary { last_event, ..run_begun() }
    }

    fn event(seq: u64, bytes: usize) -> Arc<EventText> {
        let json = serde_json::value::RawValue::from_string(format!("\"{}\"", "x".repeat(bytes))).unwrap();
        Arc::new(EventText { seq, kind: "task_ready".into(), json })
    }

    fn held(board: &Board, after: u64, limit: usize) -> Option<Vec<u64>> {
        match board.recent(after, limit) {
            Recent::Held(events) => Some(events.iter().map(|e| e.seq).collect()),
            Recent::InStore => None,
        }
    }

    #[test]
    fn events_are_held_up_to_the_limits_and_older_ones_are_in_the_store() {
        let board = Board::new(1, RunOptions::default(), RunClock::at(0.0), summary(2));
        assert_eq!(held(&board, 0, 9), None, "those of an earlier life are in the store");
        assert_eq!(held(&board, 2, 9), Some(vec![]));
        board.publish(summary(5), (3..=5).map(|n| event(n, 1)).collect());
        assert_eq!(held(&board, 2, 2), Some(vec![3, 4]));
        assert_eq!(held(&board, 4, 9), Some(vec![5]));
        assert_eq!(held(&board, 1, 9), None);
        board.publish(summary(6), vec![event(6, TAIL_BYTES_MAX - 100)]);
        assert_eq!(held(&board, 2, 9), Some(vec![3, 4, 5, 6]));
        board.publish(summary(7), vec![event(7, 200)]);
        assert_eq!(held(&board, 5, 9), None);
        assert_eq!(held(&board, 6, 9), Some(vec![7]));
    }

    #[test]
    fn the_bell_rings_for_events_and_for_nothing_else() {
        let board = Board::new(1, RunOptions::default(), RunClock::at(0.0), summary(2));
        let mut bell = board.listen();
        board.publish(summary(2), Vec::new());
        assert!(!bell.has_changed().unwrap());
        board.publish(summary(3), vec![event(3, 1)]);
        assert!(bell.has_changed().unwrap());
        assert_eq!(*bell.borrow_and_update(), 3);
    }

    #[test]
    fn a_run_that_nobody_asks_about_is_stalled_until_somebody_does() {
        let options = RunOptions { lease_ms: 1_000.0, watch_ms: 500.0, ..RunOptions::default() };
        let heard = |ms| RunSummary { elapsed_ms: ms, ..summary(2) };
        let board = Board::new(1, options, RunClock::at(100_000.0), heard(96_000.0));
        assert_eq!(board.summary().stalled_ms, None);
        board.publish(heard(95_000.0), Vec::new());
        assert!(board.summary().stalled_ms.is_some_and(|ms| ms >= 5_000.0), "{:?}", board.summary());
        assert!(board.summary().elapsed_ms >= 100_000.0);
        let ended = RunSummary { status: RunStatus::Failed, ..heard(95_000.0) };
        board.publish(ended, Vec::new());
        assert_eq!(board.summary().stalled_ms, None, "it has ended");
    }

    #[test]
    fn the_clock_of_a_run_does_not_go_back_over_a_restart() {
        let ahead = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3600);
        assert!(RunClock::resumed(ahead, 5_000.0).now_ms() >= 5_000.0);
        let before = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(60);
        assert!(RunClock::resumed(before, 5_000.0).now_ms() >= 60_000.0);
    }
}
