//! Threads for functions, used again: a task of a few microseconds must not pay for a thread of its own.
//!
//! A thread that its caller does not wait for any more (see [`super::function`]) goes on with its function
//! and is idle again when that ends. As many threads stand idle as there were calls at the same time, at most
//! [`IDLE_MAX`].

use std::io;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Stack of a function's thread: that of a main thread.
const STACK_BYTES: usize = 8 << 20;
/// Threads that stand idle.
const IDLE_MAX: usize = 16;

/// What a thread does, and then what it tells once it is idle again.
type Job = Box<dyn FnOnce() -> Told + Send>;
/// Tells how a job ended.
pub(super) type Told = Box<dyn FnOnce()>;

/// The threads.
#[derive(Debug, Clone, Default)]
pub(super) struct Threads(Arc<Mutex<Vec<SyncSender<Job>>>>);

impl Threads {
    /// Runs `job`, which does not panic, on an idle thread or on a new one.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn run(&self, job: impl FnOnce() -> Told + Send + 'static) -> io::Result<()> {
        let mut job: Job = Box::new(job);
        // One that has ended since it became idle is passed over.
        while let Some(idle) = self.pop() {
            match idle.try_send(job) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) => job = back,
            }
        }
        let (sender, jobs) = sync_channel::<Job>(1);
        let threads = self.clone();
        let work = move || {
            let mut next = Some(job);
            while let Some(job) = next {
                let tell = job();
                let stays = threads.push(sender.clone());
                tell();
                next = if stays { jobs.recv().ok() } else { None };
            }
        };
        thread::Builder::new().name("task".to_owned()).stack_size(STACK_BYTES).spawn(work).map(drop)
    }

    fn pop(&self) -> Option<SyncSender<Job>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// False where enough stand idle.
    fn push(&self, sender: SyncSender<Job>) -> bool {
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
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_thread_that_has_told_its_end_takes_the_next_job() {
        let threads = Threads::default();
        let mut seen = Vec::new();
        for _ in 0..100 {
            let (to_caller, told) = channel();
            let job = move || -> Told {
                let id = thread::current().id();
                Box::new(move || to_caller.send(id).unwrap())
            };
            threads.run(job).unwrap();
            seen.push(told.recv().unwrap());
        }
        assert!(seen.iter().all(|id| *id == seen[0]), "one thread after another");
        assert_eq!(threads.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn jobs_at_the_same_time_have_threads_of_their_own() {
        let threads = Threads::default();
        let (to_caller, told) = channel();
        let barrier = Arc::new(std::sync::Barrier::new(3));
        for _ in 0..3 {
            let (to_caller, barrier) = (to_caller.clone(), Arc::clone(&barrier));
            let job = move || -> Told {
                barrier.wait();
                Box::new(move || to_caller.send(()).unwrap())
            };
            threads.run(job).unwrap();
        }
        (0..3).for_each(|_| told.recv().unwrap());
    }
}
