//! Watches calls that nobody can stop: functions on threads of this process.
//!
//! A call that has passed its limit, or that is not wanted any more, is given up: whoever waits for it is
//! told, its thread goes on until the function looks at its cancel flag or ends, and it counts as stray until
//! then. One thread looks at all calls every [`LOOK`], so that a call of a few microseconds pays for two
//! entries in a table; without calls it sleeps.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use std::{io, thread};

use super::{Call, GiveUp, given_up, timed_out};
use crate::registry::Cancel;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(25);

/// The calls under way.
#[derive(Debug, Default)]
pub struct Overseer {
    shared: Arc<Shared>,
    strays: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Shared {
    calls: Mutex<Calls>,
    /// Told when the first call comes and when the overseer is no more.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Calls {
    next: u64,
    watched: BTreeMap<u64, Watched>,
    has_thread: bool,
    /// Whether the thread waits for a call.
    sleeps: bool,
}

#[derive(Debug)]
struct Watched {
    ends: Option<Instant>,
    cancel: Cancel,
    give_up: GiveUp,
    timeout_ms: f64,
    is_stray: bool,
}

impl Shared {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Overseer {
    /// Counts threads that go on although their calls were given up.
    #[must_use]
    pub fn strays(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.strays)
    }

    /// Watches a call from now on; gives its number.
    ///
    /// # Errors
    /// When the system gives no thread for the overseer.
    pub fn begin(&self, call: &Call) -> io::Result<u64> {
        let watched = Watched {
            ends: call.timeout().map(|limit| Instant::now() + limit),
            cancel: call.cancel.clone(),
            give_up: call.give_up.clone(),
            timeout_ms: call.timeout_ms(),
            is_stray: false,
        };
        let mut calls = self.shared.calls();
        if !calls.has_thread {
            let (shared, strays) = (Arc::downgrade(&self.shared), Arc::clone(&self.strays));
            thread::Builder::new().name("overseer".to_owned()).spawn(move || watch(&shared, &strays))?;
            calls.has_thread = true;
        }
        calls.next += 1;
        let number = calls.next;
        calls.watched.insert(number, watched);
        if calls.sleeps {
            self.shared.changed.notify_one();
        }
        Ok(number)
    }

    /// The function of a call has ended; whether it was given up before.
    pub fn end(&self, number: u64) -> bool {
        let was_stray = self.shared.calls().watched.remove(&number).is_some_and(|call| call.is_stray);
        if was_stray {
            self.strays.fetch_sub(1, Ordering::SeqCst);
        }
        was_stray
    }
}

impl Drop for Overseer {
    fn drop(&mut self) {
        self.shared.changed.notify_all();
    }
}

fn watch(shared: &Weak<Shared>, strays: &AtomicUsize) {
    while let Some(shared) = shared.upgrade() {
        let mut calls = shared.calls();
        if calls.watched.is_empty() {
            calls.sleeps = true;
            // With a limit: the overseer itself may be gone.
            let waited = shared.changed.wait_timeout(calls, Duration::from_secs(1));
            waited.unwrap_or_else(PoisonError::into_inner).0.sleeps = false;
            continue;
        }
        let now = Instant::now();
        let mut lost = Vec::new();
        for call in calls.watched.values_mut().filter(|call| !call.is_stray) {
            let is_unwanted = call.cancel.is_set();
            if is_unwanted || call.ends.is_some_and(|ends| ends <= now) {
                call.cancel.set();
                call.is_stray = true;
                let error = if is_unwanted { given_up() } else { timed_out(call.timeout_ms) };
                lost.push((call.give_up.clone(), error));
            }
        }
        // Counted before anybody is told, who finds it counted then.
        strays.fetch_add(lost.len(), Ordering::SeqCst);
        drop(calls);
        drop(shared);
        for (give_up, error) in lost {
            (give_up.0)(error);
        }
        thread::sleep(LOOK);
    }
}
