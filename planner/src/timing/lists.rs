//! Short lists of tasks and queues by rank that cost no allocation of their own.
//!
//! Lists stand in one arena, whose entries are used again once they are taken out; queues are heaps that are
//! handed back and reused.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::dense::NONE;

/// A list in the arena of [`Lists`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct List {
    head: u32,
    tail: u32,
}

impl List {
    pub const EMPTY: Self = Self { head: NONE, tail: NONE };

    pub fn is_empty(self) -> bool {
        self.head == NONE
    }
}

/// The arena: task and next entry.
#[derive(Debug)]
pub(super) struct Lists {
    entries: Vec<(u32, u32)>,
    /// The entry that was taken out last, and through it those before.
    free: u32,
}

impl Lists {
    pub fn new() -> Self {
        Self { entries: Vec::new(), free: NONE }
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.free = NONE;
    }

    /// A list of one task.
    pub fn of(&mut self, task: u32) -> List {
        let mut list = List::EMPTY;
        self.push(&mut list, task);
        list
    }

    pub fn push(&mut self, list: &mut List, task: u32) {
        let mut at = self.free;
        match self.entries.get_mut(at as usize) {
            Some(entry) => self.free = std::mem::replace(entry, (task, NONE)).1,
            None => {
                at = self.entries.len() as u32;
                self.entries.push((task, NONE));
            }
        }
        self.append(list, List { head: at, tail: at });
    }

    /// Puts `more` behind `list`.
    pub fn append(&mut self, list: &mut List, more: List) {
        if more.is_empty() {
            return;
        }
        if list.is_empty() {
            *list = more;
        } else {
            self.entries[list.tail as usize].1 = more.head;
            list.tail = more.tail;
        }
    }

    /// The first task; [`NONE`] in an empty list.
    pub fn first(&self, list: List) -> u32 {
        self.entries.get(list.head as usize).map_or(NONE, |&(task, _)| task)
    }

    /// The first task, which leaves the list; its place may be used again, so that no copy of the list may
    /// be left.
    pub fn take(&mut self, list: &mut List) -> Option<u32> {
        let at = list.head;
        let task = self.pop(list)?;
        self.entries[at as usize].1 = std::mem::replace(&mut self.free, at);
        Some(task)
    }

    /// The first task, which leaves this copy of the list.
    pub fn pop(&self, list: &mut List) -> Option<u32> {
        if list.is_empty() {
            return None;
        }
        let (task, next) = self.entries[list.head as usize];
        list.head = next;
        Some(task)
    }
}

/// Heaps by rank, reused.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// Rank and task in one number.
    heaps: Vec<BinaryHeap<Reverse<u64>>>,
    free: Vec<u32>,
}

impl Queues {
    pub fn clear(&mut self) {
        self.heaps.iter_mut().for_each(BinaryHeap::clear);
        self.free.clear();
        self.free.extend(0..self.heaps.len() as u32);
    }

    pub fn push(&mut self, queue: &mut u32, rank: u32, task: u32) {
        if *queue == NONE {
            *queue = self.free.pop().unwrap_or_else(|| {
                self.heaps.push(BinaryHeap::new());
                self.heaps.len() as u32 - 1
            });
        }
        self.heaps[*queue as usize].push(Reverse(u64::from(rank) << 32 | u64::from(task)));
    }

    pub fn pop(&mut self, queue: u32) -> Option<u32> {
        self.heaps.get_mut(queue as usize)?.pop().map(|Reverse(ranked)| ranked as u32)
    }

    pub fn len(&self, queue: u32) -> usize {
        self.heaps.get(queue as usize).map_or(0, BinaryHeap::len)
    }

    /// Gives a queue back.
    pub fn release(&mut self, queue: &mut u32) {
        if *queue != NONE {
            self.heaps[*queue as usize].clear();
            self.free.push(*queue);
            *queue = NONE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_their_order_and_can_be_joined() {
        let mut lists = Lists::new();
        let (mut a, mut b) = (lists.of(1), lists.of(7));
        lists.push(&mut a, 2);
        lists.push(&mut b, 8);
        lists.append(&mut a, b);
        let all: Vec<u32> = std::iter::from_fn(|| lists.pop(&mut a)).collect();
        assert_eq!(all, [1, 2, 7, 8]);
        assert!(a.is_empty() && lists.pop(&mut a).is_none());
    }

    #[test]
    fn what_is_taken_out_makes_room_for_the_next() {
        let mut lists = Lists::new();
        let (mut a, mut b) = (lists.of(1), lists.of(7));
        lists.push(&mut a, 2);
        assert_eq!((lists.take(&mut a), lists.take(&mut b)), (Some(1), Some(7)));
        [3, 4, 5].iter().for_each(|&task| lists.push(&mut a, task));
        assert_eq!(lists.entries.len(), 4, "two of the three stand where others were");
        let all: Vec<u32> = std::iter::from_fn(|| lists.take(&mut a)).collect();
        assert_eq!(all, [2, 3, 4, 5]);
        assert!(b.is_empty() && lists.take(&mut b).is_none());
    }

    #[test]
    fn a_queue_gives_the_lowest_rank_first_and_is_empty_when_reused() {
        let mut queues = Queues::default();
        let mut queue = NONE;
        [(3, 30), (1, 10), (2, 20)].iter().for_each(|&(rank, task)| queues.push(&mut queue, rank, task));
        assert_eq!((queues.pop(queue), queues.pop(queue), queues.len(queue)), (Some(10), Some(20), 1));
        queues.release(&mut queue);
        queues.push(&mut queue, 5, 50);
        assert_eq!((queues.pop(queue), queues.pop(queue)), (Some(50), None));
    }
}
