//! The lanes of an invocation: threads that run its attempts, one after another without asking in between.
//!
//! A lane runs one attempt at a time; what finds none free waits in the order in which it came, and goes on
//! the thread of the attempt that ends, so that a task of a few microseconds pays for no hand-over. An
//! attempt gives its lane back early where its code has ended and its outputs are being stored, or where
//! nobody waits for it any more; its thread goes on by itself then. Threads are kept for the next attempts,
//! across invocations, at most [`IDLE_MAX`] of them. How many wait is bounded by the machine, which asks for
//! them.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Stack of a thread: that of a main thread.
const STACK_BYTES: usize = 8 << 20;
/// Threads that stand idle.
const IDLE_MAX: usize = 16;

/// What a lane runs.
pub(super) type Attempt = Box<dyn FnOnce(&Lane) + Send>;

/// The lanes of one invocation.
#[derive(Clone)]
pub(super) struct Lanes(Arc<Shared>);

struct Shared {
    count: u32,
    threads: Threads,
    queue: Mutex<Queue>,
}

struct Queue {
    free: u32,
    waiting: VecDeque<Attempt>,
}

/// The lane that an attempt runs in.
#[derive(Clone)]
pub(super) struct Lane {
    lanes: Lanes,
    is_given_back: Arc<AtomicBool>,
}

impl Lanes {
    /// So many lanes, on `threads`.
    pub fn new(lanes: u32, threads: Threads) -> Self {
        let count = lanes.max(1);
        let queue = Mutex::new(Queue { free: count, waiting: VecDeque::new() });
        Self(Arc::new(Shared { count, threads, queue }))
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.0.count
    }

    /// Runs an attempt, which does not panic, when a lane is free and those before it have begun.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn run(&self, attempt: impl FnOnce(&Lane) + Send + 'static) -> io::Result<()> {
        let mut queue = self.queue();
        queue.waiting.push_back(Box::new(attempt));
        let begun = self.begin(&mut queue);
        if begun.is_err() {
            queue.waiting.pop_back();
        }
        begun
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a free lane for what waits.
    fn begin(&self, queue: &mut Queue) -> io::Result<()> {
        if queue.free == 0 || queue.waiting.is_empty() {
            return Ok(());
        }
        let lanes = self.clone();
        self.0.threads.run(move || lanes.work())?;
        queue.free -= 1;
        Ok(())
    }

    /// Runs attempts in one lane until none waits or one has given the lane back.
    fn work(&self) {
        loop {
            let next = {
                let mut queue = self.queue();
                let next = queue.waiting.pop_front();
                queue.free += u32::from(next.is_none());
                next
            };
            let Some(attempt) = next else { return };
            let lane = Lane { lanes: self.clone(), is_given_back: Arc::default() };
            attempt(&lane);
            if lane.is_given_back.swap(true, Ordering::SeqCst) {
                return;
            }
        }
    }
}

impl Lane {
    /// Lets the next attempt begin although this one has not ended.
    pub fn give_back(&self) {
        if self.is_given_back.swap(true, Ordering::SeqCst) {
            return;
        }
        let mut queue = self.lanes.queue();
        queue.free += 1;
        // Without a thread it waits for the end of the next attempt.
        if let Err(error) = self.lanes.begin(&mut queue) {
            tracing::error!(%error, "no thread for the next attempt");
        }
    }
}

/// Threads, used again.
#[derive(Debug, Clone, Default)]
pub(super) struct Threads(Arc<Mutex<Vec<SyncSender<Work>>>>);

type Work = Box<dyn FnOnce() + Send>;

impl Threads {
    fn run(&self, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut work: Work = Box::new(work);
        // One that has ended since it became idle is passed over.
        while let Some(idle) = self.pop() {
            match idle.try_send(work) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) => work = back,
            }
        }
        let (sender, given) = sync_channel::<Work>(1);
        let threads = self.clone();
        let body = move || {
            let mut next = Some(work);
            while let Some(work) = next {
                work();
                next = if threads.push(sender.clone()) { given.recv().ok() } else { None };
            }
        };
        thread::Builder::new().name("task".to_owned()).stack_size(STACK_BYTES).spawn(body).map(drop)
    }

    fn pop(&self) -> Option<SyncSender<Work>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// False where enough stand idle.
    fn push(&self, sender: SyncSender<Work>) -> bool {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stays = idle.len() < IDLE_MAX;
        if stays {
            idle.push(sender);
        }
        stays
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn attempts_run_in_their_order_on_one_thread_per_lane() {
        let (to_test, told) = channel();
        let lanes = Lanes::new(1, Threads::default());
        for number in 0..100 {
            let to_test = to_test.clone();
            lanes.run(move |_| to_test.send((number, thread::current().id())).unwrap()).unwrap();
        }
        let seen: Vec<_> = (0..100).map(|_| told.recv_timeout(SOON).unwrap()).collect();
        assert!(seen.iter().enumerate().all(|(at, (number, _))| at == *number), "{seen:?}");
        let mut threads: Vec<_> = seen.iter().map(|(_, thread)| format!("{thread:?}")).collect();
        threads.dedup();
        // A thread becomes idle a moment after its lane does, so that another may have been begun meanwhile.
        assert!(threads.len() < 50, "{} changes of thread", threads.len());
    }

    #[test]
    fn no_more_than_the_lanes_run_at_a_time_unless_one_is_given_back() {
        let (to_test, told) = channel();
        let (gate, opened) = sync_channel::<()>(0);
        let opened = Arc::new(Mutex::new(opened));
        let lanes = Lanes::new(1, Threads::default());
        for gives_back in [false, true, false] {
            let (to_test, opened) = (to_test.clone(), Arc::clone(&opened));
            let attempt = move |lane: &Lane| {
                to_test.send(()).unwrap();
                if gives_back {
                    lane.give_back();
                    lane.give_back();
                }
                opened.lock().unwrap().recv().unwrap();
            };
            lanes.run(attempt).unwrap();
        }
        told.recv_timeout(SOON).unwrap();
        assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "the second waits");
        gate.send(()).unwrap();
        told.recv_timeout(SOON).unwrap();
        told.recv_timeout(SOON).expect("the third begins while the second goes on");
        gate.send(()).unwrap();
        gate.send(()).unwrap();
        let free = || lanes.queue().free;
        let until = std::time::Instant::now() + SOON;
        while free() == 0 {
            assert!(std::time::Instant::now() < until);
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(20));
        assert_eq!(free(), 1, "a lane that was given back counts once");
    }
}
