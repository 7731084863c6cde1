//! Objects in the memory of the worker: what it made or fetched, so that a consumer on the same worker reads
//! nothing.
//!
//! Bounded in bytes; the least recently used objects go first. Objects are shared, not copied. Sizes in
//! bytes.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

/// A least-recently-used cache of objects, bounded in bytes.
#[derive(Debug)]
pub struct ObjectCache {
    bytes_max: u64,
    bytes: u64,
    uses: u64,
    objects: HashMap<String, (u64, Bytes)>,
    by_use: BTreeMap<u64, String>,
}

impl ObjectCache {
    /// An empty cache that keeps at most `bytes_max` bytes of content.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self { bytes_max, bytes: 0, uses: 0, objects: HashMap::new(), by_use: BTreeMap::new() }
    }

    /// The object of this key, which becomes the most recently used.
    pub fn get(&mut self, key: &str) -> Option<Bytes> {
        let (used, object) = self.objects.get_mut(key)?;
        let name = self.by_use.remove(used).expect("every object has its place in the order of use");
        self.uses += 1;
        *used = self.uses;
        self.by_use.insert(self.uses, name);
        Some(object.clone())
    }

    /// Whether an object of this size can be kept at all.
    #[must_use]
    pub fn can_keep(&self, bytes: u64) -> bool {
        bytes <= self.bytes_max
    }

    /// Keeps an object; one that is larger than the whole cache is not kept.
    pub fn put(&mut self, key: String, object: Bytes) {
        self.remove(&key);
        let len = object.len() as u64;
        if len > self.bytes_max {
            return;
        }
        while self.bytes + len > self.bytes_max {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            if let Some((_, gone)) = self.objects.remove(&oldest) {
                self.bytes -= gone.len() as u64;
            }
        }
        self.uses += 1;
        self.bytes += len;
        self.by_use.insert(self.uses, key.clone());
        self.objects.insert(key, (self.uses, object));
    }

    /// Forgets an object.
    pub fn remove(&mut self, key: &str) {
        if let Some((used, object)) = self.objects.remove(key) {
            self.by_use.remove(&used);
            self.bytes -= object.len() as u64;
        }
    }

    /// Bytes of content kept.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(cache: &ObjectCache) -> Vec<&str> {
        cache.by_use.values().map(String::as_str).collect()
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = ObjectCache::new(10);
        for key in ["a", "b", "c"] {
            cache.put(key.to_owned(), Bytes::from_static(b"123"));
        }
        assert_eq!(cache.get("a").unwrap(), "123");
        cache.put("d".to_owned(), Bytes::from_static(b"1234"));
        assert_eq!(keys(&cache), ["c", "a", "d"]);
        assert_eq!(cache.bytes(), 10);
    }

    #[test]
    fn an_object_larger_than_the_cache_displaces_nothing() {
        let mut cache = ObjectCache::new(4);
        cache.put("a".to_owned(), Bytes::from_static(b"1234"));
        cache.put("b".to_owned(), Bytes::from_static(b"12345"));
        assert_eq!(keys(&cache), ["a"]);
    }

    #[test]
    fn the_same_key_is_counted_once() {
        let mut cache = ObjectCache::new(100);
        cache.put("a".to_owned(), Bytes::from_static(b"1234"));
        cache.put("a".to_owned(), Bytes::from_static(b"12"));
        assert_eq!((cache.bytes(), keys(&cache).len()), (2, 1));
        cache.remove("a");
        assert_eq!((cache.bytes(), keys(&cache).len()), (0, 0));
    }
}
