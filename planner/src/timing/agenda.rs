//! What happens next in a timing pass: first by time, then by order of entry.
//!
//! Answers and hints come one round trip after they were sent and pauses end after one and the same time,
//! so both are queues that need no sorting; only starts and ends of tasks go through a heap.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// What happens, to which invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The worker runs its first instruction.
    Up(u32),
    /// The answer to its request is there.
    Answer(u32),
    /// The user's code has ended and there is something to store.
    Computed(u32, u32),
    /// The outputs are stored.
    Done(u32, u32),
    /// A task of its own became ready.
    Hint(u32, u32),
    /// A task has a result whose outputs its own read.
    Committed(u32, u32),
    /// A task became ready that it may run too.
    CopyHint(u32, u32),
    /// A worker is started beforehand, by this invocation or by the client.
    PreWarm(u32, u32),
    /// It hears that the run has ended.
    RunEnded(u32),
    /// It has lingered since the pause of this number.
    Linger(u32, u32),
}

/// Order: time, then order of entry. Times are not negative, so that their bits order like they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at_bits: u64,
    seq: u32,
    kind: Kind,
}

const LAST: (u64, u32) = (u64::MAX, u32::MAX);

/// The agenda.
#[derive(Debug)]
pub(super) struct Agenda {
    dispatch_ms: f64,
    linger_ms: f64,
    sorted: BinaryHeap<Reverse<Entry>>,
    answers: VecDeque<Entry>,
    pauses: VecDeque<Entry>,
    seq: u32,
}

impl Agenda {
    pub fn new(dispatch_ms: f64, linger_ms: f64) -> Self {
        let (sorted, answers, pauses) = (BinaryHeap::new(), VecDeque::new(), VecDeque::new());
        Self { dispatch_ms, linger_ms, sorted, answers, pauses, seq: 0 }
    }

    pub fn clear(&mut self) {
        self.sorted.clear();
        self.answers.clear();
        self.pauses.clear();
        self.seq = 0;
    }

    fn entry(&mut self, at_ms: f64, kind: Kind) -> Entry {
        self.seq += 1;
        Entry { at_bits: at_ms.to_bits(), seq: self.seq, kind }
    }

    /// At any time from now on.
    pub fn at(&mut self, at_ms: f64, kind: Kind) {
        let entry = self.entry(at_ms, kind);
        self.sorted.push(Reverse(entry));
    }

    /// One round trip from now.
    pub fn after_dispatch(&mut self, now_ms: f64, kind: Kind) {
        let entry = self.entry(now_ms + self.dispatch_ms, kind);
        self.answers.push_back(entry);
    }

    /// Once a worker has lingered from now on.
    pub fn after_linger(&mut self, now_ms: f64, kind: Kind) {
        let entry = self.entry(now_ms + self.linger_ms, kind);
        self.pauses.push_back(entry);
    }

    pub fn pop(&mut self) -> Option<(Kind, f64)> {
        let key = |e: Option<&Entry>| e.map_or(LAST, |e| (e.at_bits, e.seq));
        let sorted = self.sorted.peek().map_or(LAST, |Reverse(e)| (e.at_bits, e.seq));
        let (answer, pause) = (key(self.answers.front()), key(self.pauses.front()));
        let entry = if answer < sorted && answer < pause {
            self.answers.pop_front()
        } else if pause < sorted {
            self.pauses.pop_front()
        } else {
            self.sorted.pop().map(|Reverse(e)| e)
        };
        entry.map(|e| (e.kind, f64::from_bits(e.at_bits)))
    }
}
