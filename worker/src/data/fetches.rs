//! Objects on their way into the memory of the worker: whoever wants one that is being fetched waits for it
//! instead of fetching it again.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

/// Longest wait for what somebody else fetches; then it is fetched here. Longer than any store tries.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// The keys under way.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    keys: Mutex<HashSet<String>>,
    ended: Condvar,
}

/// The right to fetch one object; ends when dropped, however the fetching went.
pub(super) struct Fetch<'a> {
    fetches: &'a Fetches,
    key: &'a str,
}

/// Where an object was found.
pub(super) enum Found<'a> {
    /// In memory.
    Here(Bytes),
    /// It has to be fetched, and nobody else does.
    Nowhere(Fetch<'a>),
}

impl Fetches {
    /// Looks with `look`, and waits while the object is on its way.
    pub fn find<'a>(&'a self, key: &'a str, look: impl Fn() -> Option<Bytes>) -> Found<'a> {
        // A panic elsewhere leaves a set of keys, valid at every moment.
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fetched = |keys: &mut HashSet<String>| keys.contains(key);
        let waited = self.ended.wait_timeout_while(keys, WAIT_MAX, is_fetched);
        let (mut keys, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if let Some(object) = look() {
            return Found::Here(object);
        }
        keys.insert(key.to_owned());
        Found::Nowhere(Fetch { fetches: self, key })
    }
}

impl Drop for Fetch<'_> {
    fn drop(&mut self) {
        let mut keys = self.fetches.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.remove(self.key);
        self.fetches.ended.notify_all();
    }
}
