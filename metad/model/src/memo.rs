//! What is computed from the rest of a value at the first need, and forgotten when the value changes.
//!
//! Two readers may ask at once: one computes, the other waits for it. A writer never computes, so that no
//! reader waits for one.

use std::sync::OnceLock;

/// A computed part. It says nothing that the value does not say: all are equal, and a copy starts without.
#[derive(Debug)]
pub struct Memo<T>(OnceLock<T>);

impl<T> Memo<T> {
    /// The part, computed where it is not known yet.
    pub fn get(&self, compute: impl FnOnce() -> T) -> &T {
        self.0.get_or_init(compute)
    }

    /// The part, where it is known.
    pub fn known(&self) -> Option<&T> {
        self.0.get()
    }
}

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T> Clone for Memo<T> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<T> PartialEq for Memo<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
