//! The model of a host of workers that the timing pass and the event simulator share: how many workers run
//! at the same time, who waits, which container is warm.
//!
//! A container runs one invocation at a time. An invocation takes the container of its size that went idle
//! last, if that was within the keep-alive time, otherwise a new one. When `concurrency_max` run,
//! invocations wait in order of arrival; one that waits already is not added twice (a planned worker by its
//! id, a flexible one by its tasks). Workers of the pool take no place: a plan has no more of them than may
//! run.

use std::collections::VecDeque;

/// Where and how an invocation starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Place {
    pub container: u32,
    pub is_cold: bool,
}

/// The host; `W` is what waits for a place.
#[derive(Debug)]
pub(crate) struct Host<W> {
    concurrency_max: u32,
    keep_alive_ms: f64,
    /// Size of the workers of the pool, or none.
    pool: Option<u32>,
    busy: u32,
    containers: u32,
    /// Per size, by time of going idle: when, and which container.
    idle: Vec<Vec<(f64, u32)>>,
    waiting: VecDeque<W>,
    /// Requests that waited and got their place.
    served: u64,
}

impl<W> Host<W> {
    /// A host with `warm` idle containers per size.
    pub fn new(concurrency_max: u32, keep_alive_ms: f64, warm: &[u32], pool: Option<u32>) -> Self {
        let mut host = Self {
            concurrency_max,
            keep_alive_ms,
            pool,
            busy: 0,
            containers: 0,
            idle: vec![Vec::new(); warm.len()],
            waiting: VecDeque::new(),
            served: 0,
        };
        host.reset(warm, 0.0);
        host
    }

    /// As new, with the memory that it has; the warm containers went idle at `since_ms`.
    pub fn reset(&mut self, warm: &[u32], since_ms: f64) {
        (self.busy, self.containers, self.served) = (0, 0, 0);
        self.waiting.clear();
        for (idle, &warm) in self.idle.iter_mut().zip(warm) {
            idle.clear();
            idle.extend((0..warm).map(|w| (since_ms, self.containers + w)));
            self.containers += warm;
        }
    }

    pub fn has_place(&self, size: u32) -> bool {
        self.busy < self.concurrency_max || self.pool == Some(size)
    }

    /// Takes a place; there must be one.
    pub fn start(&mut self, size: u32, now_ms: f64) -> Place {
        debug_assert!(self.has_place(size), "a place is taken only where there is one");
        self.busy += u32::from(self.pool != Some(size));
        let idle = &mut self.idle[size as usize];
        match idle.pop() {
            Some((since_ms, container)) if now_ms - since_ms <= self.keep_alive_ms => {
                Place { container, is_cold: false }
            }
            _ => {
                // The latest has gone cold, so all before it have.
                idle.clear();
                self.containers += 1;
                Place { container: self.containers - 1, is_cold: true }
            }
        }
    }

    /// The place of an invocation that runs already: a container of its own.
    pub fn occupy(&mut self, size: u32) -> u32 {
        self.busy += u32::from(self.pool != Some(size));
        self.containers += 1;
        self.containers - 1
    }

    /// Puts a request at the end of the queue and says which place it has there.
    pub fn wait(&mut self, waiting: W) -> u64 {
        self.waiting.push_back(waiting);
        self.served + self.waiting.len() as u64 - 1
    }

    /// The request at a place of the queue, if it still waits.
    pub fn waiting_mut(&mut self, place: u64) -> Option<&mut W> {
        self.waiting.get_mut(usize::try_from(place.checked_sub(self.served)?).ok()?)
    }

    /// Gives a place back and says who waited longest for one.
    pub fn end(&mut self, size: u32, container: u32, now_ms: f64) -> Option<W> {
        self.busy -= u32::from(self.pool != Some(size));
        self.idle[size as usize].push((now_ms, container));
        let first = if self.busy < self.concurrency_max { self.waiting.pop_front() } else { None };
        self.served += u64::from(first.is_some());
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_warm_within_keep_alive_and_for_its_size_only() {
        let mut host: Host<()> = Host::new(4, 100.0, &[0, 0], None);
        let first = host.start(0, 0.0);
        assert!(first.is_cold);
        assert_eq!(host.end(0, first.container, 10.0), None);
        assert!(host.start(1, 20.0).is_cold, "another size");
        assert_eq!(host.start(0, 110.0), Place { container: first.container, is_cold: false });
        host.end(0, first.container, 120.0);
        assert!(host.start(0, 220.1).is_cold, "kept alive for 100 ms only");
    }

    #[test]
    fn who_came_first_starts_first() {
        let mut host = Host::new(1, 100.0, &[0, 0], Some(1));
        let place = host.start(0, 0.0);
        host.wait("a");
        host.wait("b");
        assert!(!host.has_place(0) && host.has_place(1), "size 1 is the pool's");
        let pooled = host.start(1, 0.0);
        assert_eq!(host.end(1, pooled.container, 1.0), None, "it gives no place back");
        assert_eq!(host.waiting_mut(1), Some(&mut "b"));
        assert_eq!(host.end(0, place.container, 5.0), Some("a"));
        assert_eq!(host.waiting_mut(0), None);
        assert_eq!(host.waiting_mut(1), Some(&mut "b"));
    }

    #[test]
    fn containers_that_are_warm_from_the_start_are_used_first() {
        let mut host: Host<()> = Host::new(4, 100.0, &[0, 2], None);
        let starts = [host.start(1, 50.0), host.start(1, 50.0), host.start(1, 50.0)];
        assert_eq!(starts.map(|p| p.is_cold), [false, false, true]);
        host.reset(&[0, 2], 0.0);
        assert!(host.start(1, 101.0).is_cold, "kept alive for 100 ms only");
    }
}
