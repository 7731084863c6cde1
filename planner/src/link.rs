//! The links of workers and the objects in the memory of their containers.
//!
//! Each worker has one down-link and one up-link; an object at a time moves on each. What a container made
//! or fetched stays in its memory, so a later task there downloads nothing. Objects inside commits cost
//! nothing.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::dense::Dense;

/// The links of one invocation.
#[derive(Debug, Default)]
pub(crate) struct Links {
    down_free_ms: f64,
    up_free_ms: f64,
    pub puts: u64,
    pub gets: u64,
    pub download_bytes: u64,
    pub upload_bytes: u64,
    pub saved_bytes: u64,
}

/// What is where, and how many bytes were moved.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    /// When an object is there, by container and object.
    held: HashMap<u64, f64, BuildHasherDefault<Mixer>>,
    pub download_bytes: u64,
    pub upload_bytes: u64,
}

/// A multiplicative hash: the keys are two indices, never a stranger's text.
#[derive(Debug, Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }
    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 29);
    }
}

fn key(container: u32, object: u32) -> u64 {
    u64::from(container) << 32 | u64::from(object)
}

impl Moved {
    /// Brings the inputs of `task`; answers when the last is there.
    pub fn download(
        &mut self,
        dense: &Dense,
        links: &mut Links,
        size: u32,
        container: u32,
        task: u32,
        now_ms: f64,
    ) -> f64 {
        let mut all_ms = now_ms;
        for object in dense.stored_reads(task) {
            let bytes = dense.object_bytes(object);
            let there_ms = match self.held.get(&key(container, object)) {
                Some(&there_ms) => {
                    links.saved_bytes += bytes;
                    there_ms
                }
                None => {
                    let there_ms = links.down_free_ms.max(now_ms) + dense.download_ms(size, object);
                    links.down_free_ms = there_ms;
                    links.gets += 1;
                    links.download_bytes += bytes;
                    self.download_bytes += bytes;
                    if dense.graph.consumers(object).len() > 1 {
                        self.held.insert(key(container, object), there_ms);
                    }
                    there_ms
                }
            };
            all_ms = all_ms.max(there_ms);
        }
        all_ms
    }

    /// Stores the outputs of `task` from `executed_ms` on; answers when the last is stored.
    pub fn upload(
        &mut self,
        dense: &Dense,
        links: &mut Links,
        size: u32,
        container: u32,
        task: u32,
        executed_ms: f64,
    ) -> f64 {
        let stored = dense.uploads[task as usize];
        if stored.objects == 0 {
            return executed_ms;
        }
        let done_ms = links.up_free_ms.max(executed_ms) + dense.upload_ms(size, task);
        links.up_free_ms = done_ms;
        links.puts += u64::from(stored.objects);
        links.upload_bytes += stored.bytes;
        self.upload_bytes += stored.bytes;
        for &object in dense.graph.writes(task) {
            if dense.stored[object as usize] && !dense.graph.consumers(object).is_empty() {
                self.held.insert(key(container, object), done_ms);
            }
        }
        done_ms
    }
}
