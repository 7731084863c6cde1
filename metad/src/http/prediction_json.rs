//! The JSON of predictions, written straight into one buffer.
//!
//! It is the text that serde makes of [`SinglePrediction`] and [`PredictionAnswer`] (property tests), without
//! their copy of every answer.
//!
//! [`SinglePrediction`]: foresail_schemas::prediction::SinglePrediction
//! [`PredictionAnswer`]: foresail_schemas::prediction::PredictionAnswer

use bytes::Bytes;
use foresail_schemas::Sla;
use foresail_schemas::prediction::{Basis, Prediction, Unit};
use serde::Serialize;

/// Bytes of one answer at two service levels, about.
const ANSWER_BYTES: usize = 192;
/// Room for what stands before the first answer of many: fixed text and an epoch of at most 20 digits.
const HEAD_BYTES: usize = 64;

fn put<T: Serialize>(out: &mut Vec<u8>, value: T) {
    serde_json::to_writer(out, &value).expect("numbers have a JSON form, and memory takes it");
}

fn put_digits(out: &mut Vec<u8>, number: u16) {
    if number >= 10 {
        out.push(b'0' + (number / 10) as u8);
    }
    out.push(b'0' + (number % 10) as u8);
}

/// The name of a service level as `Display` writes it.
fn put_sla(out: &mut Vec<u8>, sla: Sla) {
    out.push(b'"');
    match sla {
        Sla::Mean => out.extend_from_slice(b"mean"),
        Sla::MEDIAN => out.extend_from_slice(b"median"),
        Sla::Quantile(hundredths) => {
            out.push(b'p');
            // Quantiles end at p99.99.
            put_digits(out, hundredths / 100 % 100);
            match hundredths % 100 {
                0 => {}
                tenths if tenths % 10 == 0 => {
                    out.push(b'.');
                    put_digits(out, tenths / 10);
                }
                fraction => {
                    out.extend_from_slice(if fraction < 10 { b".0" } else { b"." });
                    put_digits(out, fraction);
                }
            }
        }
    }
    out.extend_from_slice(b"\":");
}

/// The fields of an answer, without the braces.
fn put_fields(out: &mut Vec<u8>, prediction: &Prediction) {
    out.extend_from_slice(match prediction.unit {
        Unit::Ms => br#""unit":"ms","values":{"#,
        Unit::Bytes => br#""unit":"bytes","values":{"#,
        Unit::Tasks => br#""unit":"tasks","values":{"#,
    });
    for (place, (sla, value)) in prediction.values.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        put_sla(out, *sla);
        put(out, value);
    }
    out.extend_from_slice(match prediction.basis {
        Basis::Exact => br#"},"basis":"exact","samples":"#,
        Basis::MemoryNormalised => br#"},"basis":"memory_normalised","samples":"#,
        Basis::Pooled => br#"},"basis":"pooled","samples":"#,
        Basis::Prior => br#"},"basis":"prior","samples":"#,
        Basis::None => br#"},"basis":"none","samples":"#,
    });
    put(out, prediction.samples);
    out.extend_from_slice(match prediction.extrapolated {
        true => br#","extrapolated":true"#,
        false => br#","extrapolated":false"#,
    });
    if !prediction.interval.is_empty() {
        out.extend_from_slice(br#","interval":{"#);
        for (place, (sla, ends)) in prediction.interval.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            put_sla(out, *sla);
            put(out, ends);
        }
        out.push(b'}');
    }
    if !prediction.branches.is_empty() {
        out.extend_from_slice(br#","branches":"#);
        put(out, &prediction.branches);
    }
}

/// The answer to a single question.
pub fn single(epoch: u64, prediction: &Prediction) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 * ANSWER_BYTES);
    out.extend_from_slice(br#"{"epoch":"#);
    put(&mut out, epoch);
    out.push(b',');
    put_fields(&mut out, prediction);
    out.push(b'}');
    out
}

/// The answer to many questions, written as they are answered.
pub struct Many(Vec<u8>);

impl Many {
    /// Room for `count` answers.
    pub fn with_capacity(count: usize) -> Self {
        let mut out = Vec::with_capacity(HEAD_BYTES + ANSWER_BYTES * count + 2);
        // The epoch stands first and is known last.
        out.resize(HEAD_BYTES, b' ');
        Self(out)
    }

    /// Writes the next answer.
    pub fn push(&mut self, prediction: &Prediction) {
        let out = &mut self.0;
        out.extend_from_slice(if out.len() > HEAD_BYTES { b",{" } else { b"{" });
        put_fields(out, prediction);
        out.push(b'}');
    }

    /// The whole text.
    pub fn finish(mut self, epoch: u64) -> Bytes {
        self.0.extend_from_slice(b"]}");
        let head = format!(r#"{{"epoch":{epoch},"predictions":["#);
        let begin = HEAD_BYTES - head.len();
        self.0[begin..HEAD_BYTES].copy_from_slice(head.as_bytes());
        Bytes::from(self.0).slice(begin..)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use foresail_schemas::prediction::{PredictionAnswer, SinglePrediction};
    use proptest::collection::btree_map;
    use proptest::prelude::*;

    use super::*;

    fn any_sla() -> impl Strategy<Value = Sla> {
        prop_oneof![Just(Sla::Mean), Just(Sla::MEDIAN), (1u16..10_000).prop_map(Sla::Quantile)]
    }

    fn any_branches() -> impl Strategy<Value = BTreeMap<String, f64>> {
        prop_oneof![3 => Just(BTreeMap::new()), 1 => btree_map(".{0,8}", 0.0f64..1.0, 0..3)]
    }

    fn any_prediction() -> impl Strategy<Value = Prediction> {
        let value = prop_oneof![Just(None), any::<f64>().prop_map(Some), (0.0f64..1e9).prop_map(Some)];
        let basis =
            [Basis::Exact, Basis::MemoryNormalised, Basis::Pooled, Basis::Prior, Basis::None].to_vec();
        let interval = btree_map(any_sla(), any::<[f64; 2]>(), 0..3);
        let parts = (btree_map(any_sla(), value, 0..5), interval, any_branches());
        (parts, prop::sample::select(basis), any::<(u8, bool, u64)>()).prop_map(
            |((values, interval, branches), basis, (unit, extrapolated, samples))| {
                let unit = [Unit::Ms, Unit::Bytes, Unit::Tasks][usize::from(unit % 3)];
                Prediction { unit, values, basis, samples, extrapolated, interval, branches }
            },
        )
    }

    proptest! {
        #[test]
        fn the_text_is_that_of_the_types(
            epoch: u64, predictions in proptest::collection::vec(any_prediction(), 0..4),
        ) {
            let mut many = Many::with_capacity(predictions.len());
            for prediction in &predictions {
                many.push(prediction);
                let typed = SinglePrediction { epoch, prediction: prediction.clone() };
                let text = String::from_utf8(single(epoch, prediction)).unwrap();
                prop_assert_eq!(text, serde_json::to_string(&typed).unwrap());
            }
            let text = String::from_utf8(many.finish(epoch).to_vec()).unwrap();
            prop_assert_eq!(text, serde_json::to_string(&PredictionAnswer { epoch, predictions }).unwrap());
        }
    }

    #[test]
    fn every_service_level_is_written_like_its_display() {
        for sla in (1..10_000).map(Sla::Quantile).chain([Sla::Mean]) {
            let mut out = Vec::new();
            put_sla(&mut out, sla);
            assert_eq!(out, format!("\"{sla}\":").into_bytes());
        }
    }
}
