//! What happens next in a timing pass: first by time, then by order of entry.
//!
//! Answers and hints come one round trip after they were sent, pauses end after one and the same time, and
//! most workers take equally long to start: those are queues that need no sorting. Only ends of tasks, and
//! what does not come in order after all, go through a heap.

/// What happens, to which invocation.
#[derive(Debug, Clone, Copy)]
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

/// Time and order of entry. Times are not negative, so that their bits order like they do.
type Due = (u64, u32);

const LAST: Due = (u64::MAX, u32::MAX);

/// What comes in order: a ring, with the first at hand.
#[derive(Debug)]
struct Line {
    first: Due,
    /// As many as are a power of two.
    ring: Vec<(Due, Kind)>,
    from: usize,
    len: usize,
    last_bits: u64,
}

/// Room of a line that is new.
const LINE_LEN: usize = 64;
const NOTHING: (Due, Kind) = (LAST, Kind::Up(0));

impl Line {
    fn new() -> Self {
        Self { first: LAST, ring: vec![NOTHING; LINE_LEN], from: 0, len: 0, last_bits: 0 }
    }

    fn clear(&mut self) {
        (self.first, self.from, self.len, self.last_bits) = (LAST, 0, 0, 0);
    }

    #[inline]
    fn push(&mut self, due: Due, kind: Kind) {
        if self.len == 0 {
            self.first = due;
        } else if self.len == self.ring.len() {
            self.grow();
        }
        let mask = self.ring.len() - 1;
        self.ring[(self.from + self.len) & mask] = (due, kind);
        self.len += 1;
        self.last_bits = due.0;
    }

    #[cold]
    fn grow(&mut self) {
        self.ring.rotate_left(self.from);
        self.ring.resize(2 * self.ring.len(), NOTHING);
        self.from = 0;
    }

    /// Whether what comes at this time is not before what is there.
    fn suits(&self, at_bits: u64) -> bool {
        self.last_bits <= at_bits
    }

    /// The first; there must be one.
    #[inline]
    fn pop(&mut self) -> Kind {
        let mask = self.ring.len() - 1;
        let (_, kind) = self.ring[self.from & mask];
        self.from = (self.from + 1) & mask;
        self.len -= 1;
        self.first = if self.len == 0 { LAST } else { self.ring[self.from & mask].0 };
        kind
    }
}

/// Time, order of entry and a place, in one number.
type Key = u128;

fn key((at_bits, seq): Due, place: u32) -> Key {
    Key::from(at_bits) << 64 | Key::from(seq) << 32 | Key::from(place)
}

fn due(key: Key) -> Due {
    ((key >> 64) as u64, (key >> 32) as u32)
}

/// Entries of a heap that stand below each: fewer levels than two make, and as many steps.
const WAYS: usize = 4;

/// A heap, with the first at hand.
#[derive(Debug)]
struct Heap {
    first: Due,
    keys: Vec<Key>,
    /// What the places in keys stand for.
    kinds: Vec<Kind>,
    free: Vec<u32>,
}

impl Heap {
    fn new() -> Self {
        Self { first: LAST, keys: Vec::new(), kinds: Vec::new(), free: Vec::new() }
    }

    fn clear(&mut self) {
        self.first = LAST;
        self.keys.clear();
        self.kinds.clear();
        self.free.clear();
    }

    fn place(&mut self, kind: Kind) -> u32 {
        match self.free.pop() {
            Some(place) => {
                self.kinds[place as usize] = kind;
                place
            }
            None => {
                self.kinds.push(kind);
                self.kinds.len() as u32 - 1
            }
        }
    }

    fn push(&mut self, due: Due, kind: Kind) {
        let key = key(due, self.place(kind));
        let mut at = self.keys.len();
        self.keys.push(key);
        let keys = &mut self.keys[..];
        while at > 0 {
            let above = (at - 1) / WAYS;
            if keys[above] < key {
                break;
            }
            keys[at] = keys[above];
            at = above;
        }
        keys[at] = key;
        self.first = self.first.min(due);
    }

    /// The first; there must be one.
    fn pop(&mut self) -> Kind {
        let place = self.keys.first().map_or(0, |&first| first as u32);
        self.free.push(place);
        if let Some(last) = self.keys.pop() {
            self.sink(last);
        }
        self.first = self.keys.first().map_or(LAST, |&first| due(first));
        self.kinds[place as usize]
    }

    /// Puts what was last in the place of the first.
    fn sink(&mut self, last: Key) {
        let (keys, mut at) = (&mut self.keys[..], 0);
        if keys.is_empty() {
            return;
        }
        loop {
            let from = WAYS * at + 1;
            let Some(below) = keys.get(from..) else { break };
            let (least, least_key) = match below.first_chunk::<WAYS>() {
                Some(four) => {
                    let left = usize::from(four[1] < four[0]);
                    let right = 2 + usize::from(four[3] < four[2]);
                    let least = if four[right] < four[left] { right } else { left };
                    (least, four[least])
                }
                None => match (0..).zip(below).min_by_key(|&(_, &key)| key) {
                    Some((place, &key)) => (place, key),
                    None => break,
                },
            };
            if last < least_key {
                break;
            }
            keys[at] = least_key;
            at = from + least;
        }
        keys[at] = last;
    }
}

/// The agenda.
#[derive(Debug)]
pub(super) struct Agenda {
    /// Half a round trip.
    way_ms: f64,
    linger_ms: f64,
    sorted: Heap,
    answers: Line,
    pauses: Line,
    starts: Line,
    seq: u32,
}

impl Agenda {
    pub fn new(dispatch_ms: f64, linger_ms: f64) -> Self {
        let [answers, pauses, starts] = [(); 3].map(|()| Line::new());
        let way_ms = dispatch_ms / 2.0;
        Self { way_ms, linger_ms, sorted: Heap::new(), answers, pauses, starts, seq: 0 }
    }

    pub fn clear(&mut self) {
        self.sorted.clear();
        [&mut self.answers, &mut self.pauses, &mut self.starts].into_iter().for_each(Line::clear);
        self.seq = 0;
    }

    fn due(&mut self, at_ms: f64) -> Due {
        self.seq += 1;
        (at_ms.to_bits(), self.seq)
    }

    /// At any time from now on.
    pub fn at(&mut self, at_ms: f64, kind: Kind) {
        let due = self.due(at_ms);
        self.sorted.push(due, kind);
    }

    /// At a time that is seldom before that of the start before it.
    pub fn at_start(&mut self, at_ms: f64, kind: Kind) {
        let due = self.due(at_ms);
        match self.starts.suits(due.0) {
            true => self.starts.push(due, kind),
            false => self.sorted.push(due, kind),
        }
    }

    /// One round trip from now.
    pub fn after_dispatch(&mut self, now_ms: f64, kind: Kind) {
        // As messages go there and back, rounding and all: what falls together for them does so here.
        let due = self.due(now_ms + self.way_ms + self.way_ms);
        self.answers.push(due, kind);
    }

    /// Once a worker has lingered from now on.
    pub fn after_linger(&mut self, now_ms: f64, kind: Kind) {
        let due = self.due(now_ms + self.linger_ms);
        self.pauses.push(due, kind);
    }

    pub fn pop(&mut self) -> Option<(Kind, f64)> {
        let firsts = [self.sorted.first, self.answers.first, self.starts.first, self.pauses.first];
        let [sorted, answer, start, pause] = firsts;
        let at_bits = sorted.0.min(answer.0).min(start.0).min(pause.0);
        let [sorted, answer, start, pause] =
            firsts.map(|(bits, seq)| if bits == at_bits { seq } else { u32::MAX });
        let seq = sorted.min(answer).min(start).min(pause);
        let kind = if seq == u32::MAX {
            return None;
        } else if seq == answer {
            self.answers.pop()
        } else if seq == sorted {
            self.sorted.pop()
        } else if seq == start {
            self.starts.pop()
        } else {
            self.pauses.pop()
        };
        Some((kind, f64::from_bits(at_bits)))
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64;

    use super::*;

    #[test]
    fn what_is_due_first_comes_first_and_at_one_time_what_was_entered_first() {
        let mut rng = Pcg64::seed_from_u64(1);
        let mut agenda = Agenda::new(3.0, 20.0);
        for _ in 0..20 {
            agenda.clear();
            let (mut now_ms, mut entered, mut due) = (0.0, 0, Vec::new());
            while entered < 2_000 || !due.is_empty() {
                if entered < 2_000 && (due.is_empty() || rng.random_bool(0.55)) {
                    let after_ms = f64::from(rng.random_range(0..40_u32));
                    let kind = Kind::Hint(entered, 0);
                    let at_ms = match rng.random_range(0..4) {
                        0 => (agenda.at(now_ms + after_ms, kind), now_ms + after_ms).1,
                        1 => (agenda.at_start(now_ms + after_ms, kind), now_ms + after_ms).1,
                        2 => (agenda.after_dispatch(now_ms, kind), now_ms + 3.0).1,
                        _ => (agenda.after_linger(now_ms, kind), now_ms + 20.0).1,
                    };
                    due.push((at_ms.to_bits(), entered));
                    entered += 1;
                    continue;
                }
                due.sort_unstable();
                let (bits, expected) = due.remove(0);
                now_ms = f64::from_bits(bits);
                let found = agenda.pop();
                let is_it =
                    matches!(found, Some((Kind::Hint(n, 0), at_ms)) if n == expected && at_ms == now_ms);
                assert!(is_it, "{found:?}, not {expected} at {now_ms}");
            }
            assert!(agenda.pop().is_none(), "nothing is left");
        }
    }
}
