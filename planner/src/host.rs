//! The model of a host of workers that the timing pass and the event simulator share: how many workers run
//! at the same time, who waits, which container is warm.
//!
//! A container runs one invocation at a time. An invocation takes the container of its size that went idle
//! last, if that was within the keep-alive time, otherwise a new one. When `concurrency_max` run,
//! invocations wait in order of arrival; one that waits already is not added twice (a planned worker by its
//! id, a flexible one by its tasks).

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
    busy: u32,
    containers: u32,
    /// Per size, by time of going idle: when, and which container.
    idle: Vec<Vec<(f64, u32)>>,
    waiting: VecDeque<W>,
}

impl<W> Host<W> {
    pub fn new(concurrency_max: u32, keep_alive_ms: f64, sizes: usize) -> Self {
        Self {
            concurrency_max,
            keep_alive_ms,
            busy: 0,
            containers: 0,
            idle: vec![Vec::new(); sizes],
            waiting: VecDeque::new(),
        }
    }

    pub fn has_place(&self) -> bool {
        self.busy < self.concurrency_max
    }

    /// Takes a place; there must be one.
    pub fn start(&mut self, size: u32, now_ms: f64) -> Place {
        debug_assert!(self.has_place(), "a place is taken only where there is one");
        self.busy += 1;
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

    pub fn wait(&mut self, waiting: W) {
        self.waiting.push_back(waiting);
    }

    /// One that waits already and may take what is asked for along: a host adds nothing twice to its queue.
    pub fn find_waiting(&mut self, is_same: impl Fn(&W) -> bool) -> Option<&mut W> {
        self.waiting.iter_mut().find(|w| is_same(w))
    }

    /// Gives a place back and says who waited longest for one.
    pub fn end(&mut self, size: u32, container: u32, now_ms: f64) -> Option<W> {
        self.busy -= 1;
        self.idle[size as usize].push((now_ms, container));
        self.waiting.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_warm_within_keep_alive_and_for_its_size_only() {
        let mut host: Host<()> = Host::new(4, 100.0, 2);
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
        let mut host = Host::new(1, 100.0, 1);
        let place = host.start(0, 0.0);
        host.wait("a");
        host.wait("b");
        assert!(!host.has_place());
        assert!(host.find_waiting(|w| *w == "b").is_some() && host.find_waiting(|w| *w == "c").is_none());
        assert_eq!(host.end(0, place.container, 5.0), Some("a"));
    }
}
