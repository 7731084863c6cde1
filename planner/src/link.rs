//! The links of workers and the objects in the memory of their containers.
//!
//! Each worker has one down-link and one up-link; an object at a time moves on each. What a container made
//! or fetched stays in its memory, so a later task there downloads nothing. Objects inside commits cost
//! nothing.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use foresail_schemas::plan::TransferTimes;
use foresail_schemas::run::WorkerUsage;

use crate::dense::{Dense, NONE, Traffic, fetch};
use crate::draw::Transfers;

/// The places of the links among those of an invocation.
const DOWN: usize = 0;
const UP: usize = 1;

/// The links of one invocation.
#[derive(Debug, Default)]
pub(crate) struct Links {
    down_free_ms: f64,
    up_free_ms: f64,
    /// By how much transfers take longer than predicted, where that is drawn.
    drawn: Option<Box<Transfers>>,
    pub puts: u64,
    pub gets: u64,
    pub download_bytes: u64,
    pub upload_bytes: u64,
    pub saved_bytes: u64,
}

impl Links {
    /// Links whose transfers take as long as is drawn.
    pub fn drawn(transfers: Transfers) -> Self {
        Self { drawn: Some(Box::new(transfers)), ..Self::default() }
    }

    /// Time to upload what `task` stores: each object has a factor of its own.
    fn upload_ms(&mut self, dense: &Dense, size: u32, task: u32) -> f64 {
        let all_ms = dense.upload_ms(size, task);
        let Some(drawn) = &mut self.drawn else { return all_ms };
        if all_ms <= 0.0 {
            return all_ms;
        }
        if dense.uploads[task as usize].objects == 1 {
            return drawn.next(UP) * all_ms;
        }
        let (transfer, inline_max) = (&dense.size(size).transfer, dense.problem.platform.inline_bytes_max);
        let mut factor = 1.0;
        for bytes in dense.graph.writes(task).iter().map(|&o| dense.object_bytes(o)) {
            if bytes > inline_max {
                let one_ms = transfer.upload_latency_ms + bytes as f64 * transfer.upload_ms_per_byte;
                factor += one_ms / all_ms * (drawn.next(UP) - 1.0);
            }
        }
        factor * all_ms
    }
}

impl Links {
    /// What an invocation that lived so long and had these links used.
    pub fn usage(&self, billed_ms: f64) -> WorkerUsage {
        WorkerUsage {
            billed_ms,
            puts: self.puts,
            gets: self.gets,
            download_bytes: self.download_bytes,
            upload_bytes: self.upload_bytes,
            saved_bytes: self.saved_bytes,
            ..WorkerUsage::default()
        }
    }
}

/// Up to this many readers the copies of an object stand in a list, which is read faster than a hash.
const LISTED_READERS_MAX: u32 = 16;

/// What is where, and how many bytes were moved.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    objects: Vec<Whereabouts>,
    /// Downloaded copies of objects that several tasks read.
    copies: Vec<Copy>,
    /// The same for objects of many readers, by container and object.
    hashed: HashMap<u64, f64, Mixed>,
    /// Objects that nobody makes in this draw; empty: all are made.
    absent: Vec<bool>,
    /// Fetched ahead and not known to be there: container, object, when it is.
    ahead: Vec<(u32, u32, f64)>,
    pub download_bytes: u64,
    pub upload_bytes: u64,
}

/// Where an object is.
#[derive(Debug, Clone, Copy)]
struct Whereabouts {
    /// Since when its maker has it.
    made_ms: f64,
    /// The container whose task made it.
    maker: u32,
    /// The last of its copies.
    copies: u32,
}

/// An object in the memory of a container that downloaded it.
#[derive(Debug, Clone, Copy)]
struct Copy {
    there_ms: f64,
    container: u32,
    /// The copy before it.
    next: u32,
}

/// How an object came to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bringing {
    WasThere,
    Downloaded,
}

/// A multiplicative hash, for keys that no stranger chooses.
#[derive(Debug, Default)]
pub(crate) struct Mixer(u64);

/// What hashes by it.
pub(crate) type Mixed = BuildHasherDefault<Mixer>;

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }
    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
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
    /// With room for a copy of everything that is read: growing would move what is there.
    pub fn for_reads(dense: &Dense) -> Self {
        Self { copies: Vec::with_capacity(dense.reads_count()), ..Self::default() }
    }

    /// Nothing is anywhere, and what tasks that are absent would make never will be.
    pub fn reset(&mut self, dense: &Dense, absent: &[bool]) {
        self.absent.clear();
        if !absent.is_empty() {
            let is_absent = |maker: u32| absent[maker as usize];
            let objects = 0..dense.objects.len() as u32;
            self.absent.extend(objects.map(|o| dense.maker(o).is_some_and(is_absent)));
        }
        let nowhere = Whereabouts { made_ms: 0.0, maker: NONE, copies: NONE };
        self.objects.clear();
        self.objects.resize(dense.objects.len(), nowhere);
        self.copies.clear();
        self.hashed.clear();
        self.ahead.clear();
        (self.download_bytes, self.upload_bytes) = (0, 0);
    }

    /// Asks for what is needed about an object.
    #[inline(always)]
    pub fn look_at(&self, object: usize) {
        fetch(&self.objects, object);
    }

    /// When the object is in the memory of the container, if it is or will be.
    #[inline]
    fn there_ms(&self, container: u32, object: u32, readers: u32) -> Option<f64> {
        let place = &self.objects[object as usize];
        if place.maker == container {
            return Some(place.made_ms);
        }
        if readers > LISTED_READERS_MAX {
            if self.hashed.is_empty() {
                return None;
            }
            return self.hashed.get(&key(container, object)).copied();
        }
        let mut at = place.copies;
        while at != NONE {
            let copy = self.copies[at as usize];
            if copy.container == container {
                return Some(copy.there_ms);
            }
            at = copy.next;
        }
        None
    }

    /// From `there_ms` on the container has a copy of the object.
    pub fn keep_copy(&mut self, container: u32, object: u32, readers: u32, there_ms: f64) {
        if readers > LISTED_READERS_MAX {
            self.hashed.insert(key(container, object), there_ms);
        } else {
            let last = &mut self.objects[object as usize].copies;
            self.copies.push(Copy { there_ms, container, next: *last });
            *last = self.copies.len() as u32 - 1;
        }
    }

    /// Brings an object to the memory of a container, unless it is there or on its way; answers when it is
    /// there, and whether that took a download.
    #[inline(always)]
    fn bring(
        &mut self,
        links: &mut Links,
        (transfer, container): (&TransferTimes, u32),
        (object, Traffic { bytes, readers, .. }): (u32, Traffic),
        now_ms: f64,
    ) -> (f64, Bringing) {
        if let Some(there_ms) = self.there_ms(container, object, readers) {
            return (there_ms, Bringing::WasThere);
        }
        let moved_ms = transfer.download_latency_ms + bytes as f64 * transfer.download_ms_per_byte;
        let moved_ms = match &mut links.drawn {
            None => moved_ms,
            Some(drawn) => drawn.next(DOWN) * moved_ms,
        };
        links.down_free_ms = links.down_free_ms.max(now_ms) + moved_ms;
        links.gets += 1;
        links.download_bytes += bytes;
        self.download_bytes += bytes;
        (links.down_free_ms, Bringing::Downloaded)
    }

    /// Brings what `task` reads from outside the workflow and of these parents before it begins.
    pub fn preload(
        &mut self,
        dense: &Dense,
        links: &mut Links,
        place: (u32, u32),
        task: u32,
        is_made: impl Fn(u32) -> bool,
        now_ms: f64,
    ) {
        for &object in dense.stored_reads(task) {
            if dense.maker(object).is_none_or(&is_made) {
                self.fetch_ahead(dense, links, place, object, now_ms);
            }
        }
    }

    /// Brings an object before a task that reads it begins.
    pub fn fetch_ahead(
        &mut self,
        dense: &Dense,
        links: &mut Links,
        (size, container): (u32, u32),
        object: u32,
        now_ms: f64,
    ) {
        let (traffic, place) = (dense.objects[object as usize], (&dense.size(size).transfer, container));
        let (there_ms, bringing) = self.bring(links, place, (object, traffic), now_ms);
        if bringing == Bringing::Downloaded {
            self.keep_copy(container, object, traffic.readers, there_ms);
            self.ahead.push((container, object, there_ms));
        }
    }

    /// A worker leaves: what is on its way to the container then does not arrive.
    pub fn leave(&mut self, dense: &Dense, links: &Links, container: u32, now_ms: f64) {
        if self.ahead.is_empty() || links.down_free_ms <= now_ms {
            return;
        }
        let mut ahead = std::mem::take(&mut self.ahead);
        ahead.retain(|&(place, object, there_ms)| {
            if place == container && there_ms > now_ms {
                self.forget_copy(container, object, dense.objects[object as usize].readers);
            }
            place != container && there_ms > now_ms
        });
        self.ahead = ahead;
    }

    fn forget_copy(&mut self, container: u32, object: u32, readers: u32) {
        if readers > LISTED_READERS_MAX {
            self.hashed.remove(&key(container, object));
            return;
        }
        let mut at = self.objects[object as usize].copies;
        while at != NONE {
            let copy = &mut self.copies[at as usize];
            if copy.container == container {
                copy.container = NONE;
            }
            at = copy.next;
        }
    }

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
        let place = (&dense.size(size).transfer, container);
        for &object in dense.stored_reads(task) {
            if self.absent.get(object as usize) == Some(&true) {
                continue;
            }
            let traffic = dense.objects[object as usize];
            let (there_ms, bringing) = self.bring(links, place, (object, traffic), now_ms);
            match bringing {
                Bringing::WasThere => links.saved_bytes += traffic.bytes,
                // Nobody asks again for what only this task reads.
                Bringing::Downloaded if traffic.readers > 1 => {
                    self.keep_copy(container, object, traffic.readers, there_ms);
                }
                Bringing::Downloaded => {}
            }
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
        task: u32,
        executed_ms: f64,
    ) -> f64 {
        let stored = dense.uploads[task as usize];
        if stored.objects == 0 {
            return executed_ms;
        }
        let moved_ms = links.upload_ms(dense, size, task);
        let done_ms = links.up_free_ms.max(executed_ms) + moved_ms;
        links.up_free_ms = done_ms;
        links.puts += u64::from(stored.objects);
        links.upload_bytes += stored.bytes;
        self.upload_bytes += stored.bytes;
        done_ms
    }

    /// The outputs of `task` that the container stored are those that stand: it has them in memory. A
    /// container that made the same and lost has nothing that anybody asks for.
    pub fn made(&mut self, dense: &Dense, container: u32, task: u32, now_ms: f64) {
        for &object in dense.graph.writes(task) {
            let place = &mut self.objects[object as usize];
            (place.maker, place.made_ms) = (container, now_ms);
        }
    }
}
