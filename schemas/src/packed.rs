//! Compact forms of results, sizes and failures, for stores whose format has no names of fields (postcard).
//!
//! JSON writes the name of each field, hashes in hexadecimal and bytes as base64, and leaves absent fields
//! out, which a format without names cannot read. These forms have every field in a fixed order. They are
//! without loss: what was packed comes back equal, to the last bit of a number, whatever the texts are. The
//! order of fields and variants is a format: whoever stores it gives it a version. Units as in
//! [`crate::run`].

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::ResourceConfig;
use crate::decision::Decision;
use crate::id::InstanceId;
use crate::run::{Commit, Location, Measured, StoredObject};

/// Bytes of a hash.
const HASH_BYTES: usize = 32;
/// Parts of a ms in which clocks count: ns.
const PER_MS: f64 = 1e6;
/// Parts of a MB in which memory is counted: at most pages of 256 bytes.
const PER_MB: f64 = 4096.0;
/// Largest integer below which a float has all of them.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// A result without the name of who made it, which whoever stores it has in a better form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PackedCommit {
    attempt: u32,
    /// The outputs, in the order of the task.
    pub outputs: Vec<PackedObject>,
    /// Download, execution and upload in ms, memory in MB.
    numbers: [Number; 4],
    input_bytes: u64,
    output_bytes: u64,
    decision: Option<PackedDecision>,
    printed: Option<String>,
}

/// An output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PackedObject {
    bytes: u64,
    hash: Hash,
    /// Where it is.
    pub location: PackedLocation,
}

/// Where an output is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum PackedLocation {
    /// Here: the content.
    Bytes(Vec<u8>),
    /// Here: text that is no base64 as it would be written from its content.
    Text(String),
    /// Under this key of the store.
    Stored(String),
    /// Under this key in the memory of a worker.
    Unstored(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Hash {
    Binary([u8; HASH_BYTES]),
    Text(String),
}

/// A number that is most often a small count of parts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Number {
    PerMs(u64),
    /// ns of a clock that were turned into s and then into ms, which rounds twice.
    Elapsed(u64),
    PerMb(u64),
    Exact(f64),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum PackedDecision {
    Width(u64),
    Branch(String),
}

impl From<&Commit> for PackedCommit {
    fn from(commit: &Commit) -> Self {
        let measured = &commit.measured;
        let numbers = [measured.download_ms, measured.exec_ms, measured.upload_ms, measured.peak_memory_mb]
            .map(Number::of);
        let decision = commit.decision.as_ref().map(|decision| match decision {
            Decision::Width(width) => PackedDecision::Width(*width),
            Decision::Branch(branch) => PackedDecision::Branch(branch.clone()),
        });
        Self {
            attempt: commit.attempt,
            outputs: commit.outputs.iter().map(PackedObject::from).collect(),
            numbers,
            input_bytes: measured.input_bytes,
            output_bytes: measured.output_bytes,
            decision,
            printed: commit.printed.clone(),
        }
    }
}

impl PackedCommit {
    /// The result, which `instance` made.
    ///
    /// # Errors
    /// A number that no result has.
    pub fn unpack(self, instance: InstanceId) -> Result<Commit, String> {
        let [download_ms, exec_ms, upload_ms, peak_memory_mb] = self.numbers.map(Number::value);
        for number in [download_ms, exec_ms, upload_ms, peak_memory_mb] {
            crate::number::check(number)?;
        }
        let (input_bytes, output_bytes) = (self.input_bytes, self.output_bytes);
        let decision = self.decision.map(|decision| match decision {
            PackedDecision::Width(width) => Decision::Width(width),
            PackedDecision::Branch(branch) => Decision::Branch(branch),
        });
        Ok(Commit {
            attempt: self.attempt,
            instance,
            outputs: self.outputs.into_iter().map(StoredObject::from).collect(),
            measured: Measured { download_ms, exec_ms, upload_ms, input_bytes, output_bytes, peak_memory_mb },
            decision,
            printed: self.printed,
        })
    }
}

impl From<&StoredObject> for PackedObject {
    fn from(object: &StoredObject) -> Self {
        let location = match &object.location {
            Location::Inline(text) => match STANDARD.decode(text) {
                // Only what is written again in the same way.
                Ok(content) if STANDARD.encode(&content) == *text => PackedLocation::Bytes(content),
                _ => PackedLocation::Text(text.clone()),
            },
            Location::Stored(key) => PackedLocation::Stored(key.clone()),
            Location::Unstored(key) => PackedLocation::Unstored(key.clone()),
        };
        Self { bytes: object.bytes, hash: Hash::of(&object.hash), location }
    }
}

impl From<PackedObject> for StoredObject {
    fn from(packed: PackedObject) -> Self {
        let location = match packed.location {
            PackedLocation::Bytes(content) => Location::Inline(STANDARD.encode(content)),
            PackedLocation::Text(text) => Location::Inline(text),
            PackedLocation::Stored(key) => Location::Stored(key),
            PackedLocation::Unstored(key) => Location::Unstored(key),
        };
        Self { bytes: packed.bytes, hash: packed.hash.text(), location }
    }
}

impl Hash {
    fn of(text: &str) -> Self {
        let digit = |c: u8| match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        };
        let byte = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
        let is_even = text.len().is_multiple_of(2);
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks_exact(2).map(byte).collect();
        match bytes.filter(|_| is_even).and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => Self::Binary(bytes),
            None => Self::Text(text.to_owned()),
        }
    }

    fn text(self) -> String {
        match self {
            Self::Binary(bytes) => {
                let digit = |value: u8| b"0123456789abcdef"[usize::from(value)] as char;
                bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
            }
            Self::Text(text) => text,
        }
    }
}

impl Number {
    /// The shortest form that gives the same bits.
    fn of(value: f64) -> Self {
        let count = |per: f64| {
            let count = (value * per).round();
            if (0.0..EXACT_MAX).contains(&count) { count as u64 } else { 0 }
        };
        let (per_ms, per_mb) = (count(PER_MS), count(PER_MB));
        let forms = [Self::PerMs(per_ms), Self::Elapsed(per_ms), Self::PerMb(per_mb)];
        let same = forms.into_iter().find(|form| form.value().to_bits() == value.to_bits());
        same.unwrap_or(Self::Exact(value))
    }

    fn value(self) -> f64 {
        match self {
            Self::PerMs(count) => count as f64 / PER_MS,
            Self::Elapsed(count) => Duration::from_nanos(count).as_secs_f64() * 1000.0,
            Self::PerMb(count) => count as f64 / PER_MB,
            Self::Exact(value) => value,
        }
    }
}

/// A result, or nothing, as a field of what is stored.
pub mod commit {
    use super::{Commit, Deserialize, Deserializer, InstanceId, PackedCommit, Serialize, Serializer};

    /// Writes it.
    ///
    /// # Errors
    /// Those of the format.
    pub fn serialize<S: Serializer>(commit: &Option<Commit>, to: S) -> Result<S::Ok, S::Error> {
        commit.as_ref().map(|commit| (&commit.instance, PackedCommit::from(commit))).serialize(to)
    }

    /// Reads it.
    ///
    /// # Errors
    /// Those of the format, and a number that no result has.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Commit>, D::Error> {
        let packed = Option::<(InstanceId, PackedCommit)>::deserialize(from)?;
        let unpacked = packed.map(|(instance, packed)| packed.unpack(instance)).transpose();
        unpacked.map_err(serde::de::Error::custom)
    }
}

/// A size as a field of what is stored.
pub mod config {
    use super::{Deserialize, Deserializer, ResourceConfig, Serialize, Serializer};

    /// Writes it.
    ///
    /// # Errors
    /// Those of the format.
    pub fn serialize<S: Serializer>(config: &ResourceConfig, to: S) -> Result<S::Ok, S::Error> {
        (config.memory_mb, config.vcpu).serialize(to)
    }

    /// Reads it.
    ///
    /// # Errors
    /// Those of the format, and a size that there is none of.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ResourceConfig, D::Error> {
        let (memory_mb, vcpu) = Deserialize::deserialize(from)?;
        ResourceConfig::new(memory_mb, vcpu).map_err(serde::de::Error::custom)
    }
}

/// A size, or nothing, as a field of what is stored.
pub mod config_opt {
    use super::{Deserialize, Deserializer, ResourceConfig, Serialize, Serializer};

    /// Writes it.
    ///
    /// # Errors
    /// Those of the format.
    pub fn serialize<S: Serializer>(config: &Option<ResourceConfig>, to: S) -> Result<S::Ok, S::Error> {
        config.map(|config| (config.memory_mb, config.vcpu)).serialize(to)
    }

    /// Reads it.
    ///
    /// # Errors
    /// Those of the format, and a size that there is none of.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ResourceConfig>, D::Error> {
        let packed = Option::<(u32, Option<f64>)>::deserialize(from)?;
        let unpacked = packed.map(|(memory_mb, vcpu)| ResourceConfig::new(memory_mb, vcpu)).transpose();
        unpacked.map_err(serde::de::Error::custom)
    }
}

/// What is stored rarely, as the text of its JSON.
pub mod json {
    use serde::de::DeserializeOwned;

    use super::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes it.
    ///
    /// # Errors
    /// Those of the format.
    pub fn serialize<S: Serializer>(value: &impl Serialize, to: S) -> Result<S::Ok, S::Error> {
        serde_json::to_string(value).map_err(serde::ser::Error::custom)?.serialize(to)
    }

    /// Reads it.
    ///
    /// # Errors
    /// Those of the format, and what is no such JSON.
    pub fn deserialize<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<T, D::Error> {
        serde_json::from_str(&String::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Stored {
        #[serde(with = "commit")]
        commit: Option<Commit>,
        #[serde(with = "config")]
        config: ResourceConfig,
        #[serde(with = "config_opt")]
        larger: Option<ResourceConfig>,
        #[serde(with = "json")]
        failure: Option<crate::run::Failure>,
    }

    fn number() -> impl Strategy<Value = f64> {
        let ns = any::<u32>().prop_map(|ns| f64::from(ns) / PER_MS);
        let elapsed = any::<u32>().prop_map(|ns| Duration::from_nanos(ns.into()).as_secs_f64() * 1000.0);
        let pages = any::<u32>().prop_map(|pages| f64::from(pages) / 256.0);
        prop_oneof![ns, elapsed, pages, 0.0..f64::MAX, Just(0.0), Just(5e-324)]
    }

    fn location() -> impl Strategy<Value = Location> {
        let content = proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| STANDARD.encode(bytes));
        prop_oneof![
            content.prop_map(Location::Inline),
            "\\PC{0,9}".prop_map(Location::Inline),
            "[ -~]{0,30}".prop_map(Location::Stored),
            "\\PC{0,9}".prop_map(Location::Unstored),
        ]
    }

    prop_compose! {
        fn any_commit()(
            (attempt, input_bytes, output_bytes) in any::<(u32, u64, u64)>(),
            numbers in proptest::array::uniform4(number()),
            outputs in proptest::collection::vec(
                (any::<u64>(), prop_oneof!["[0-9a-f]{64}", "[0-9A-F]{64}", "[a-f]{0,9}"], location()), 0..3),
            decision in proptest::option::of(prop_oneof![
                any::<u64>().prop_map(Decision::Width), "\\PC{0,9}".prop_map(Decision::Branch)]),
            printed in proptest::option::of("\\PC{0,9}"),
        ) -> Commit {
            let [download_ms, exec_ms, upload_ms, peak_memory_mb] = numbers;
            let stored = |(bytes, hash, location)| StoredObject { bytes, hash, location };
            Commit {
                attempt,
                instance: InstanceId::new("i").unwrap(),
                outputs: outputs.into_iter().map(stored).collect(),
                measured:
                    Measured { download_ms, exec_ms, upload_ms, input_bytes, output_bytes, peak_memory_mb },
                decision,
                printed,
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_back_equal(commit in proptest::option::of(any_commit()), mb in 1_u32..999) {
            let config = ResourceConfig::new(mb, (mb % 2 == 0).then_some(0.7)).unwrap();
            let failure = (mb % 3 == 0).then(|| crate::examples::run_summary().failure).flatten();
            let stored = Stored { commit, config, larger: (mb % 5 == 0).then_some(config), failure };
            let bytes = postcard::to_allocvec(&stored).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Stored>(&bytes).unwrap(), stored);
        }
    }

    #[test]
    fn a_packed_result_has_a_third_of_the_bytes() {
        let commit = Commit {
            attempt: 1,
            instance: InstanceId::new("i").unwrap(),
            outputs: vec![StoredObject {
                bytes: 1_024,
                hash: "0f".repeat(HASH_BYTES),
                location: Location::Stored("r/t/1-i/out".to_owned()),
            }],
            measured: Measured { exec_ms: 12.345_678, peak_memory_mb: 31.25, ..Measured::default() },
            decision: None,
            printed: None,
        };
        let packed = postcard::to_allocvec(&PackedCommit::from(&commit)).unwrap().len();
        let json = serde_json::to_vec(&commit).unwrap().len();
        assert!(packed * 3 < json, "{packed} of {json}");
    }

    #[test]
    fn numbers_that_no_result_has_are_refused() {
        for bad in [f64::NAN, f64::INFINITY, -1.0] {
            let measured = Measured { exec_ms: bad, ..Measured::default() };
            let instance = InstanceId::new("i").unwrap();
            let commit = Commit { measured, ..crate::examples::commit() };
            assert!(PackedCommit::from(&commit).unpack(instance).is_err(), "{bad}");
        }
    }
}
