//! A streaming HDR histogram of times that is kept in its compact V2 form.
//!
//! An HDR histogram with two significant digits takes 10 to 40 KB as an array of counters and a few hundred
//! bytes in the V2 encoding, so the encoding is what is kept; new values wait in a short buffer and are taken
//! in together. Units: microseconds. Error: at most 1 % of a value. Source: G. Tene, HdrHistogram, histogram
//! log format V2.

use std::sync::Arc;

use hdrhistogram::Histogram as Hdr;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize};

use crate::ring::VALUE_MS_MAX;

/// Longest time told apart, in microseconds: that of a sample. The range is fixed, so that the stored form
/// does not depend on which values came first.
const VALUE_US_MAX: u64 = (VALUE_MS_MAX * 1000.0) as u64;
/// Significant decimal digits kept.
const DIGITS: u8 = 2;
/// Values that wait before they are taken in; decoding and encoding costs some microseconds, spread over
/// these.
const PENDING_MAX: usize = 64;
/// Longest encoded form accepted: two digits over 30 days need at most 9 bytes for each of about 4,500
/// counters.
const ENCODED_BYTES_MAX: usize = 64 * 1024;

/// The histogram.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    /// Shared by copies: it is replaced as a whole.
    encoded: Arc<[u8]>,
    pending: Vec<u64>,
}

impl Histogram {
    /// Counts one value; one beyond the range counts as its end.
    pub fn record(&mut self, value_us: u64) {
        self.pending.push(value_us);
        if self.pending.len() >= PENDING_MAX {
            self.encoded = encode(&self.decode()).into();
            self.pending.clear();
        }
    }

    /// Counts everything that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        let mut sum = self.decode();
        sum.add(other.decode()).expect("both have the same range");
        self.encoded = encode(&sum).into();
        self.pending.clear();
    }

    /// The histogram as an array of counters.
    pub fn decode(&self) -> Hdr<u64> {
        let mut hdr = if self.encoded.is_empty() {
            Hdr::new_with_bounds(1, VALUE_US_MAX, DIGITS).expect("2 digits over 30 days are a legal range")
        } else {
            Deserializer::new()
                .deserialize(&mut &self.encoded[..])
                .expect("checked when it was encoded or read")
        };
        self.pending.iter().for_each(|value| hdr.saturating_record(*value));
        hdr
    }

    fn canonical(&self) -> Vec<u8> {
        if self.encoded.is_empty() && self.pending.is_empty() { Vec::new() } else { encode(&self.decode()) }
    }
}

impl PartialEq for Histogram {
    fn eq(&self, other: &Self) -> bool {
        self.decode() == other.decode()
    }
}

/// On the wire the encoding alone: which values wait is not part of the state.
impl Serialize for Histogram {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut form = to.serialize_struct("Histogram", 1)?;
        form.serialize_field("v2", &self.canonical())?;
        form.end()
    }
}

#[derive(Deserialize)]
struct Stored {
    v2: Vec<u8>,
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Stored { v2 } = Stored::deserialize(from)?;
        let refuse = |why: String| serde::de::Error::custom(format!("stored histogram refused: {why}"));
        if v2.len() > ENCODED_BYTES_MAX {
            return Err(refuse(format!("`{}` bytes, at most {ENCODED_BYTES_MAX} are expected", v2.len())));
        }
        if !v2.is_empty() {
            let hdr: Hdr<u64> =
                Deserializer::new().deserialize(&mut &v2[..]).map_err(|error| refuse(error.to_string()))?;
            if (hdr.low(), hdr.high(), hdr.sigfig()) != (1, VALUE_US_MAX, DIGITS) {
                let (low, high, digits) = (hdr.low(), hdr.high(), hdr.sigfig());
                return Err(refuse(format!(
                    "`{digits}` digits from `{low}` to `{high}` us, \
                     {DIGITS} digits from 1 to {VALUE_US_MAX} us are expected"
                )));
            }
        }
        Ok(Self { encoded: v2.into(), pending: Vec::new() })
    }
}

fn encode(hdr: &Hdr<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(hdr, &mut bytes).expect("writing to a Vec does not fail");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_survive_buffering_merging_and_storing() {
        let (mut all, mut left, mut right) =
            (Histogram::default(), Histogram::default(), Histogram::default());
        for n in 0..1000_u64 {
            let value = n * n * 37;
            all.record(value);
            if n % 3 == 0 { left.record(value) } else { right.record(value) }
        }
        left.merge(&right);
        assert_eq!(left, all);
        let bytes = postcard::to_stdvec(&left).unwrap();
        assert_eq!(bytes, postcard::to_stdvec(&all).unwrap());
        assert_eq!(postcard::from_bytes::<Histogram>(&bytes).unwrap(), all);
        assert_eq!(all.decode().len(), 1000);
    }

    #[test]
    fn quantiles_are_within_one_percent_from_a_microsecond_to_thirty_days() {
        for value in [1, 255, 256, 1_523_400, 1_000_000_007, VALUE_US_MAX] {
            let mut waiting = Histogram::default();
            waiting.record(value);
            let mut taken_in = Histogram::default();
            (0..PENDING_MAX).for_each(|_| taken_in.record(value));
            for histogram in [waiting, taken_in] {
                let found = histogram.decode().value_at_quantile(0.5) as f64;
                assert!((found / value as f64 - 1.0).abs() < 0.01, "{found} instead of {value}");
            }
        }
    }

    #[test]
    fn another_range_is_refused() {
        let mut small = Hdr::<u64>::new(DIGITS).unwrap();
        small.record(5).unwrap();
        let bytes = postcard::to_stdvec(&encode(&small)).unwrap();
        let error = postcard::from_bytes::<Histogram>(&bytes);
        assert!(error.is_err(), "{error:?}");
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let bytes = postcard::to_stdvec(&vec![1_u8, 2, 3, 4, 5]).unwrap();
        assert!(postcard::from_bytes::<Histogram>(&bytes).is_err());
    }
}
