//! What happens next in a simulated run: by time, and in the order of asking at the same time.
//!
//! What only follows from something before, as an answer follows from its request, has the order of that: so
//! one happening more on the way changes no order, and the timing pass, which has fewer, has the same.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use foresail_choreography::{Event, Invoke};
use foresail_schemas::config::ResourceConfig;
use foresail_schemas::run::Operation;

use super::requests;

/// Something that happens to somebody.
#[derive(Debug)]
pub(super) enum Happening {
    /// A machine hears of something.
    Hear(usize, Box<Event>),
    /// A request arrives at the run's state.
    Request(usize, u64, Arc<[Operation]>),
    /// Its turn comes there.
    Served(Box<requests::Waiting>),
    /// The platform has taken an invocation.
    Invoke(Box<Invoke>),
    /// The worker runs, and asks what is to be done.
    Begin(usize),
    /// The worker knows what is to be done.
    Up(usize),
    /// The user's code has ended.
    Computed(usize, u32, u32),
    /// The platform ends an invocation, with what it runs.
    LifeEnds(usize),
    /// A time that a machine asked for has come, unless it asked for another since.
    Timer(usize),
    /// The time of a start that the client sends beforehand.
    PreWarm(ResourceConfig),
    /// A worker that was started beforehand is up, and done.
    Warm { size: u32, container: u32, start_ms: f64 },
}

/// The agenda, on a clock that only goes on.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    pub now_ms: f64,
    entries: BinaryHeap<Reverse<Entry>>,
    /// What the entries are about, by place; places are used again.
    happenings: Vec<Option<Happening>>,
    free: Vec<u32>,
    seq: u64,
    /// Order of what happens now.
    asked: u64,
}

/// Small, because entries are moved about.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at_bits: u64,
    asked: u64,
    seq: u64,
    place: u32,
}

impl Agenda {
    pub fn later(&mut self, delay_ms: f64, happening: Happening) {
        self.at(self.now_ms + delay_ms, happening);
    }

    pub fn at(&mut self, at_ms: f64, happening: Happening) {
        self.enter(at_ms, self.seq + 1, happening);
    }

    /// What follows from what happens now, and from nothing else.
    pub fn follow(&mut self, at_ms: f64, happening: Happening) {
        self.enter(at_ms, self.asked, happening);
    }

    fn enter(&mut self, at_ms: f64, asked: u64, happening: Happening) {
        self.seq += 1;
        // The bits of numbers that are not negative are ordered as the numbers are.
        let at_bits = at_ms.max(self.now_ms).to_bits();
        let place = self.free.pop().unwrap_or_else(|| {
            self.happenings.push(None);
            self.happenings.len() as u32 - 1
        });
        self.happenings[place as usize] = Some(happening);
        self.entries.push(Reverse(Entry { at_bits, asked, seq: self.seq, place }));
    }

    /// Goes on to what happens next.
    pub fn next(&mut self) -> Option<Happening> {
        let Reverse(Entry { at_bits, asked, place, .. }) = self.entries.pop()?;
        (self.now_ms, self.asked) = (f64::from_bits(at_bits), asked);
        self.free.push(place);
        self.happenings[place as usize].take()
    }
}
