//! The bounded ring of the most recent samples of one series.
//!
//! Guarantee: the ring holds the newest [`OCTAVE_SAMPLES`] samples of every octave of sizes and then the
//! newest of all others, [`RING_SAMPLES`] in all, whatever the order in which they came; where the octaves
//! alone are more, the newest of these. Without the octaves a task that runs on small inputs first and on
//! large ones then would know nothing of the small ones when it runs again. Newest is the order (time,
//! contents). Times are microseconds since the Unix epoch.

use std::cell::LazyCell;
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

/// Most samples kept per task and config (and per store and direction, and per kind of start).
///
/// 128 is enough: between 32 and 256 the error of the predictions differs little on the public data sets.
pub const RING_SAMPLES: usize = 128;

/// Newest samples of sizes between one power of two and the next that stay, however many of other sizes are
/// newer.
pub const OCTAVE_SAMPLES: usize = 8;
/// Octaves of 64-bit sizes, 0 bytes being one.
const OCTAVES: usize = u64::BITS as usize + 1;

/// Longest time that is told apart; longer ones count as this (30 days).
pub const VALUE_MS_MAX: f64 = 30.0 * 86_400_000.0;

/// One measurement.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Sample {
    /// When it was measured, in microseconds since the Unix epoch.
    pub at_us: i64,
    /// Size that the time depends on, in bytes.
    pub size_bytes: u64,
    /// The time.
    pub value_ms: f64,
    /// Bytes written plus one, where known; packed so that a sample takes 32 bytes.
    output: Option<NonZeroU64>,
}

impl Sample {
    /// A sample; times are brought into 0 to [`VALUE_MS_MAX`].
    pub fn new(at_us: i64, size_bytes: u64, value_ms: f64, output_bytes: Option<u64>) -> Self {
        let value_ms = if value_ms.is_nan() { 0.0 } else { value_ms.clamp(0.0, VALUE_MS_MAX) };
        let output = output_bytes.and_then(|bytes| NonZeroU64::new(bytes.saturating_add(1)));
        // -0.0 + 0.0 is 0.0: equal times must be equal bits.
        Self { at_us, size_bytes, value_ms: value_ms + 0.0, output }
    }

    /// Bytes written, where known.
    pub fn output_bytes(&self) -> Option<u64> {
        self.output.map(|plus_one| plus_one.get() - 1)
    }

    /// The time in whole microseconds.
    pub fn value_us(&self) -> u64 {
        (self.value_ms * 1000.0).round() as u64
    }

    /// Which octave its size is in.
    fn octave(&self) -> usize {
        (u64::BITS - self.size_bytes.leading_zeros()) as usize
    }

    /// The contents as a number that looks random.
    fn mixed(&self) -> u64 {
        // Odd factors tell sizes and outputs apart before all is scattered at once.
        let output = self.output.map_or(0, NonZeroU64::get).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let sizes = self.size_bytes.wrapping_mul(0xd6e8_feb8_6659_fd93) ^ output.rotate_left(32);
        scatter(sizes, self.value_ms.to_bits())
    }

    fn order(&self, other: &Self) -> Ordering {
        self.order_beside(other, || other.mixed())
    }

    /// The same where what [`Self::mixed`] says of the other may be known already.
    fn order_beside(&self, other: &Self, mixed: impl FnOnce() -> u64) -> Ordering {
        let contents = |s: &Self| (s.size_bytes, s.output);
        // Samples of one time stand in an order that their contents decide but do not lean towards: sorted by
        // size or time, the ring would keep the largest of them only.
        self.at_us
            .cmp(&other.at_us)
            .then_with(|| self.mixed().cmp(&mixed()))
            .then_with(|| contents(self).cmp(&contents(other)))
            .then(self.value_ms.total_cmp(&other.value_ms))
    }
}

impl PartialEq for Sample {
    fn eq(&self, other: &Self) -> bool {
        self.order(other) == Ordering::Equal
    }
}

/// A number that looks random, made of one that does and a further field. Source: the finaliser of SplitMix64
/// (G. Steele, D. Lea and C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
pub fn scatter(mixed: u64, field: u64) -> u64 {
    let mut z = (mixed ^ field).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The most recent samples, oldest first.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Ring {
    samples: VecDeque<Sample>,
    /// How many of them are in each octave.
    #[serde(skip)]
    octaves: [u8; OCTAVES],
}

impl Default for Ring {
    fn default() -> Self {
        Self { samples: VecDeque::new(), octaves: [0; OCTAVES] }
    }
}

/// A ring as it is stored: samples of one time may stand in the order of another version.
#[derive(Deserialize)]
#[serde(rename = "Ring")]
struct Stored {
    samples: VecDeque<Sample>,
}

impl From<Stored> for Ring {
    fn from(Stored { mut samples }: Stored) -> Self {
        samples.make_contiguous().sort_by(Sample::order);
        let mut ring =
            Self { samples: VecDeque::with_capacity(samples.len().min(RING_SAMPLES)), ..Self::default() };
        samples.into_iter().for_each(|sample| ring.push(sample));
        ring
    }
}

/// Two block copies, where the derived one goes sample by sample: a ring is copied at the first update after
/// a snapshot. The copy has room for one more sample, which is what it is made for.
impl Clone for Ring {
    fn clone(&self) -> Self {
        let (front, back) = self.samples.as_slices();
        let capacity = (self.samples.len() + 1).next_power_of_two().min(RING_SAMPLES);
        let mut samples = VecDeque::with_capacity(capacity);
        samples.extend(front);
        samples.extend(back);
        Self { samples, octaves: self.octaves }
    }
}

impl Ring {
    /// Takes a sample in; where the ring is full, the oldest of those leaves that no octave keeps.
    pub fn push(&mut self, sample: Sample) {
        // A batch often has one time for all its records.
        let mixed = LazyCell::new(|| sample.mixed());
        let order = |s: &Sample| s.order_beside(&sample, || *mixed);
        let octave = sample.octave();
        self.octaves[octave] += 1;
        if self.samples.len() == RING_SAMPLES {
            let is_spare = |s: &Sample| usize::from(self.octaves[s.octave()]) > OCTAVE_SAMPLES;
            let oldest = self.samples.iter().position(is_spare);
            let may_go = is_spare(&sample) || oldest.is_none();
            let place = oldest.unwrap_or(0);
            if may_go && order(&self.samples[place]) != Ordering::Less {
                self.octaves[octave] -= 1;
                return;
            }
            if let Some(left) = self.samples.remove(place) {
                self.octaves[left.octave()] -= 1;
            }
        }
        match self.samples.back() {
            Some(last) if order(last) == Ordering::Greater => {
                let place = self.samples.partition_point(|s| order(s) != Ordering::Greater);
                self.samples.insert(place, sample);
            }
            _ => self.samples.push_back(sample),
        }
    }

    /// Takes in every sample of `other`.
    pub fn merge(&mut self, other: &Self) {
        other.samples.iter().for_each(|sample| self.push(*sample));
    }

    /// The samples, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Sample> {
        self.samples.iter()
    }

    /// The sample at a place, the oldest first.
    pub fn at(&self, place: usize) -> &Sample {
        &self.samples[place]
    }

    /// The place of the first of the newest `count` samples, or of an older one of the same time.
    pub fn newest(&self, count: usize) -> usize {
        let mut first = self.len().saturating_sub(count);
        while first > 0 && self.samples.get(first).is_some_and(|s| s.at_us == self.samples[first - 1].at_us) {
            first -= 1;
        }
        first
    }

    /// How many are older than a time.
    pub fn before(&self, at_us: i64) -> usize {
        self.samples.partition_point(|sample| sample.at_us < at_us)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Time of the newest sample.
    pub fn newest_us(&self) -> i64 {
        self.samples.back().map_or(i64::MIN, |sample| sample.at_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_samples_stay_whatever_the_order_of_arrival() {
        let sample = |n: u64| Sample::new(n as i64 / 2, 1024 + n, n as f64, None);
        let (mut up, mut down) = (Ring::default(), Ring::default());
        (0..400).for_each(|n| up.push(sample(n)));
        (0..400).rev().for_each(|n| down.push(sample(n)));
        assert_eq!(up, down);
        let mut sizes: Vec<u64> = up.iter().map(|s| s.size_bytes).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, (1424 - RING_SAMPLES as u64..1424).collect::<Vec<_>>());
    }

    #[test]
    fn what_stays_does_not_depend_on_the_order_and_has_every_octave() {
        // Few small ones, then many large ones of two octaves, then more octaves than there is room for.
        let small = (0..40).map(|n| Sample::new(n, 3, n as f64, None));
        let large = (0..900).map(|n| Sample::new(100 + n, 1000 + n as u64, n as f64, None));
        let first: Vec<Sample> = small.chain(large).collect();
        let many = (0..30_u32).flat_map(|octave| {
            (0..20).map(move |n| Sample::new(2_000 + i64::from(octave) * 7 + n, 1 << octave, n as f64, None))
        });
        let all: Vec<Sample> = first.iter().copied().chain(many).collect();
        for samples in [first, all] {
            let (mut forward, mut backward, mut scattered) =
                (Ring::default(), Ring::default(), Ring::default());
            samples.iter().for_each(|s| forward.push(*s));
            samples.iter().rev().for_each(|s| backward.push(*s));
            let mut places: Vec<usize> = (0..samples.len()).collect();
            places.sort_by_key(|place| scatter(*place as u64, 1));
            let halves = places.split_at(places.len() / 2);
            for half in [halves.0, halves.1] {
                let mut part = Ring::default();
                half.iter().for_each(|place| part.push(samples[*place]));
                scattered.merge(&part);
            }
            assert_eq!((&forward, &forward), (&backward, &scattered));
            assert_eq!(forward.len(), RING_SAMPLES);
        }
        let mut ring = Ring::default();
        (0..40).for_each(|n| ring.push(Sample::new(n, 3, n as f64, None)));
        (0..900).for_each(|n| ring.push(Sample::new(100 + n, 5000, n as f64, None)));
        let small: Vec<i64> = ring.iter().filter(|s| s.size_bytes == 3).map(|s| s.at_us).collect();
        assert_eq!(small, (32..40).collect::<Vec<_>>());
        assert_eq!(ring.iter().next_back().map(|s| s.at_us), Some(999));
    }

    #[test]
    fn samples_of_one_time_stay_without_regard_to_their_values() {
        let mut ring = Ring::default();
        (0..4000).for_each(|n| ring.push(Sample::new(0, 0, f64::from(n), None)));
        let middle = ring.iter().map(|s| s.value_ms).sum::<f64>() / RING_SAMPLES as f64;
        assert!((1600.0..2400.0).contains(&middle), "the kept ones are {middle} in the mean of 0 to 3999");
    }

    #[test]
    fn a_ring_stored_in_another_order_is_read_in_this_one() {
        let mut ring = Ring::default();
        (0..20).for_each(|n| ring.push(Sample::new(0, n, n as f64, Some(n))));
        let mut stored = serde_json::to_value(&ring).unwrap();
        stored["samples"].as_array_mut().unwrap().reverse();
        assert_eq!(serde_json::from_value::<Ring>(stored).unwrap(), ring);
    }

    #[test]
    fn a_sample_takes_32_bytes() {
        assert_eq!(std::mem::size_of::<Sample>(), 32);
    }
}
