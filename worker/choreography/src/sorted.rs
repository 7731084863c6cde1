//! Collections of a ledger whose order is theirs and not that of a hash: tasks by time, things by name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::{self, Debug, Formatter};
use std::hash::Hash;
use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Tasks by a time in ms, earliest first: whoever looks for old ones need not look at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ByTime(BTreeSet<(u64, u32)>);

impl ByTime {
    /// The bits of numbers that are not negative are ordered as the numbers are; `+ 0.0` makes -0 one of
    /// them.
    fn bits(at_ms: f64) -> u64 {
        (at_ms.max(0.0) + 0.0).to_bits()
    }

    pub fn insert(&mut self, at_ms: f64, task: u32) {
        self.0.insert((Self::bits(at_ms), task));
    }

    pub fn remove(&mut self, at_ms: f64, task: u32) {
        self.0.remove(&(Self::bits(at_ms), task));
    }

    /// At most `limit` tasks whose time is not after `until_ms`.
    pub fn until(&self, until_ms: f64, limit: usize) -> impl Iterator<Item = u32> + '_ {
        let is_early = move |&&(bits, _): &&(u64, u32)| f64::from_bits(bits) <= until_ms;
        self.0.iter().take_while(is_early).take(limit).map(|(_, task)| *task)
    }

    /// Number of tasks whose time is after `at_ms`.
    pub fn count_after(&self, at_ms: f64) -> usize {
        self.0
            .range((Self::bits(at_ms), u32::MAX)..)
            .filter(|(bits, _)| f64::from_bits(*bits) > at_ms)
            .count()
    }
}

/// A hash map that prints in the order of its names: equal states print the same text, by which a check of
/// the protocol knows them again.
#[derive(Clone, PartialEq)]
pub(crate) struct ByName<K: Eq + Hash, V>(HashMap<K, V>);

impl<K: Eq + Hash, V> Default for ByName<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, V> Deref for ByName<K, V> {
    type Target = HashMap<K, V>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<K: Eq + Hash, V> DerefMut for ByName<K, V> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<K: Eq + Hash + Ord + Debug, V: Debug> Debug for ByName<K, V> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().collect::<BTreeMap<_, _>>()).finish()
    }
}

impl<K: Eq + Hash + Ord + Serialize, V: Serialize> Serialize for ByName<K, V> {
    /// In the order of the names, so that equal states have equal bytes.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.iter().collect::<BTreeMap<_, _>>().serialize(to)
    }
}

impl<'de, K: Eq + Hash + Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for ByName<K, V> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        HashMap::deserialize(from).map(Self)
    }
}
