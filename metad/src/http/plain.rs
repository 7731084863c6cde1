//! Batches that are written plainly, read without a general parser.
//!
//! Plain is what a program writes: known fields, each once, texts of ASCII without escapes, numbers without
//! an exponent. What is read here is read by serde as the same value (property tests); whatever is not plain
//! is nothing, and the caller reads the text again with serde, which decides and finds the words.

use foresail_schemas::decision::Decision;
use foresail_schemas::metric::{Direction, Forecast, Record, StartState};
use foresail_schemas::{BatchId, InstanceId, RunId};

use super::batches::{Origin, Parsed};
use super::fields::{Fields, Key, Kind, Names};

/// Bytes of a short record, by which room is made for as many as a text may have, up to so many.
const RECORD_BYTES_LIKELY: usize = 80;
const RECORDS_LIKELY_MAX: usize = 1024;
/// Digits of a whole number that fits into 64 bits whatever they are.
const DIGITS_MAX: usize = 18;
/// Largest whole number up to which all are exact, and the powers of ten that are: a quotient of both is the
/// nearest number there is. Source: W. D. Clinger, "How to read floating point numbers accurately", PLDI
/// 1990.
const EXACT_MAX: u64 = 1 << 53;
const TENS: [f64; 19] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18];

/// A batch of at most `records_max` records; nothing where it is not plain, or has more.
pub fn batch(bytes: &[u8], records_max: u64) -> Option<Parsed> {
    let (mut text, names) = (Text { bytes, at: 0 }, Names::default());
    let (mut origin, mut records) = (Origin::default(), None);
    text.object(|text, key| match key {
        b"batch_id" => once(&mut origin.batch_id, BatchId::new(text.string()?).ok()?),
        b"run" => once(&mut origin.run, RunId::new(text.string()?).ok()?),
        b"worker" => once(&mut origin.worker, InstanceId::new(text.string()?).ok()?),
        b"records" => {
            let list = text.records(&names, records_max)?;
            once(&mut records, list)
        }
        _ => None,
    })?;
    text.space();
    (text.at == bytes.len()).then_some(Parsed { origin, records: records?, rejected: Vec::new() })
}

/// One record.
#[cfg(test)]
pub fn record(text: &str, names: &Names) -> Option<Record> {
    let mut text = Text { bytes: text.as_bytes(), at: 0 };
    let fields = text.fields(names)?;
    text.space();
    if text.at == text.bytes.len() { fields.record() } else { None }
}

/// Fills a place that is empty.
fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

/// A text and how far it was read.
struct Text<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Text<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// The next sign behind white space, if it is this one.
    fn sign(&mut self, sign: u8) -> Option<()> {
        if self.peek() != Some(sign) {
            self.space();
        }
        if self.peek()? != sign {
            return None;
        }
        self.at += 1;
        Some(())
    }

    /// `,` and true, or the end of a list or an object and false.
    fn goes_on(&mut self, end: u8) -> Option<bool> {
        if self.sign(b',').is_some() {
            return Some(true);
        }
        self.sign(end).map(|()| false)
    }

    /// An object; `field` reads the value of a key.
    fn object(&mut self, mut field: impl FnMut(&mut Self, &'a [u8]) -> Option<()>) -> Option<()> {
        self.sign(b'{')?;
        if self.sign(b'}').is_some() {
            return Some(());
        }
        loop {
            let key = self.ascii()?;
            self.sign(b':')?;
            field(self, key)?;
            if !self.goes_on(b'}')? {
                return Some(());
            }
        }
    }

    /// A text of ASCII without escapes.
    fn string(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.ascii()?).ok()
    }

    /// The same as bytes, which are not looked at twice.
    fn ascii(&mut self) -> Option<&'a [u8]> {
        self.sign(b'"')?;
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|b| !matches!(b, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~'))?;
        self.at += length + 1;
        (rest[length] == b'"').then_some(&rest[..length])
    }

    /// `null`, if that is next.
    fn null(&mut self) -> Option<()> {
        self.space();
        self.bytes[self.at..].starts_with(b"null").then(|| self.at += 4)
    }

    /// Digits, as a number, and how many: at most [`DIGITS_MAX`].
    fn digits(&mut self, mut number: u64) -> Option<(u64, usize)> {
        let first = self.at;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            number = number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        let count = self.at - first;
        (1..=DIGITS_MAX).contains(&count).then_some((number, count))
    }

    /// A whole number >= 0 up to a fraction or an exponent.
    fn front(&mut self) -> Option<(u64, usize)> {
        self.space();
        let zero_first = self.peek()? == b'0';
        let (number, count) = self.digits(0)?;
        (count == 1 || !zero_first).then_some((number, count))
    }

    /// A whole number >= 0.
    fn whole(&mut self) -> Option<u64> {
        let (number, _) = self.front()?;
        (!matches!(self.peek(), Some(b'.' | b'e' | b'E'))).then_some(number)
    }

    fn whole_u32(&mut self) -> Option<u32> {
        self.whole()?.try_into().ok()
    }

    /// A number >= 0 without an exponent.
    fn number(&mut self) -> Option<f64> {
        let (whole, count) = self.front()?;
        let number = if self.peek() == Some(b'.') {
            self.at += 1;
            let (number, decimals) = self.digits(whole)?;
            if count + decimals > DIGITS_MAX || number > EXACT_MAX {
                return None;
            }
            number as f64 / TENS[decimals]
        } else {
            whole as f64
        };
        (!matches!(self.peek(), Some(b'e' | b'E'))).then_some(number)
    }

    fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.null().is_some() { Some(None) } else { read(self).map(Some) }
    }

    /// An object without objects or texts with braces in it, read by serde.
    fn forecast(&mut self) -> Option<Forecast> {
        self.space();
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|b| *b == b'}')? + 1;
        self.at += length;
        serde_json::from_slice(&rest[..length]).ok()
    }

    fn records(&mut self, names: &Names, records_max: u64) -> Option<Vec<Record>> {
        let likely = (self.bytes.len() / RECORD_BYTES_LIKELY).min(RECORDS_LIKELY_MAX);
        let mut records = Vec::with_capacity(likely);
        self.sign(b'[')?;
        if self.sign(b']').is_some() {
            return Some(records);
        }
        loop {
            records.push(self.fields(names)?.record()?);
            if records.len() as u64 > records_max {
                return None;
            }
            if !self.goes_on(b']')? {
                return Some(records);
            }
        }
    }

    fn fields(&mut self, names: &Names) -> Option<Fields> {
        let (mut fields, mut seen) = (Fields::default(), 0);
        self.object(|text, key| {
            let key = text.field(key, names, &mut fields)?;
            let is_new = seen & key.bit() == 0;
            seen |= key.bit();
            is_new.then_some(())
        })?;
        fields.seen = seen;
        Some(fields)
    }

    /// Reads the value of a field.
    fn field(&mut self, key: &[u8], names: &Names, fields: &mut Fields) -> Option<Key> {
        Some(match key {
            b"kind" => {
                fields.kind = Some(match self.ascii()? {
                    b"task" => Kind::Task,
                    b"transfer" => Kind::Transfer,
                    b"startup" => Kind::Startup,
                    b"decision" => Kind::Decision,
                    _ => return None,
                });
                Key::Kind
            }
            b"task" => {
                fields.task = Some(names.name(self.ascii()?)?);
                Key::Task
            }
            b"memory_mb" => {
                fields.memory_mb = Some(self.whole_u32()?);
                Key::MemoryMb
            }
            b"input_bytes" => {
                fields.input_bytes = Some(self.whole()?);
                Key::InputBytes
            }
            b"output_bytes" => {
                fields.output_bytes = self.optional(Self::whole)?;
                Key::OutputBytes
            }
            b"exec_ms" => {
                fields.exec_ms = Some(self.number()?);
                Key::ExecMs
            }
            b"at" => {
                fields.at = self.optional(|text| text.string()?.parse().ok())?;
                Key::At
            }
            _ => return self.rare_field(key, names, fields),
        })
    }

    fn rare_field(&mut self, key: &[u8], names: &Names, fields: &mut Fields) -> Option<Key> {
        Some(match key {
            b"vcpu" => {
                fields.vcpu = self.optional(Self::number)?;
                Key::Vcpu
            }
            b"peak_memory_mb" => {
                fields.peak_memory_mb = self.optional(Self::number)?;
                Key::PeakMemoryMb
            }
            b"attempt" => {
                fields.attempt = Some(self.whole_u32()?);
                Key::Attempt
            }
            b"forecast" => {
                fields.forecast = self.optional(Self::forecast)?;
                Key::Forecast
            }
            b"direction" => {
                fields.direction = Some(match self.ascii()? {
                    b"download" => Direction::Download,
                    b"upload" => Direction::Upload,
                    _ => return None,
                });
                Key::Direction
            }
            b"bytes" => {
                fields.bytes = Some(self.whole()?);
                Key::Bytes
            }
            b"time_ms" => {
                fields.time_ms = Some(self.number()?);
                Key::TimeMs
            }
            b"store" => {
                fields.store = self.optional(|text| names.name(text.ascii()?))?;
                Key::Store
            }
            b"state" => {
                fields.state = Some(match self.ascii()? {
                    b"cold" => StartState::Cold,
                    b"warm" => StartState::Warm,
                    _ => return None,
                });
                Key::State
            }
            b"value" => {
                self.space();
                fields.value = Some(match self.peek()? {
                    b'"' => Decision::Branch(self.string()?.to_owned()),
                    _ => Decision::Width(self.whole()?),
                });
                Key::Value
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::flat;
    use super::*;

    /// A number as programs write it, or almost.
    fn any_number() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<u64>().prop_map(|n| n.to_string()),
            (0u64..10_000_000, 0u32..1_000_000).prop_map(|(whole, part)| format!("{whole}.{part}")),
            (0.0f64..1e9).prop_map(|n| n.to_string()),
            any::<f64>().prop_map(|n| n.to_string()),
            "[0-9]{0,20}\\.?[0-9]{0,20}([eE][+-]?[0-9]{0,3})?",
        ]
    }

    fn both(text: &str) -> (Option<Record>, Option<Record>) {
        (record(text, &Names::default()), serde_json::from_str(text).ok())
    }

    proptest! {
        #[test]
        fn numbers_are_those_that_serde_reads(ms in any_number(), bytes in any_number()) {
            let text = format!(
                r#"{{"kind":"task","task":"t","memory_mb":1,"exec_ms":{ms},"input_bytes":{bytes}}}"#
            );
            let (plain, typed) = both(&text);
            prop_assert!(plain.is_none() || plain == typed, "{text}\n{plain:?}\n{typed:?}");
        }

        #[test]
        fn what_is_read_plainly_is_what_serde_reads(object in flat::tests::any_object()) {
            let text = object.to_string();
            let (plain, typed) = both(&text);
            prop_assert!(plain.is_none() || plain == typed, "{text}\n{plain:?}\n{typed:?}");
        }

        #[test]
        fn damaged_text_is_nothing_or_read_as_serde_reads_it(
            object in flat::tests::any_object(), at in any::<prop::sample::Index>(), to in any::<u8>(),
        ) {
            let mut bytes = object.to_string().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = to;
            let text = String::from_utf8_lossy(&bytes);
            let (plain, typed) = both(&text);
            prop_assert!(plain.is_none() || plain == typed, "{text}");
            let (plain, typed) = both(&text[..text.floor_char_boundary(at)]);
            prop_assert!(plain.is_none() || plain == typed, "{text} up to {at}");
        }
    }

    const RECORDS: &str = r#"[{"kind":"task","task":"a","memory_mb":1769,"exec_ms":12.5,"vcpu":null},
        { "kind" : "startup" , "state" : "cold" , "time_ms" : 640.25 , "memory_mb" : 1769 , "at" : null },
        {"kind":"transfer","direction":"upload","bytes":1,"time_ms":3,"memory_mb":1,"store":"s3",
         "at":"2025-01-02T03:04:05Z"},
        {"kind":"task","task":"a","memory_mb":1,"exec_ms":0,"input_bytes":7,"output_bytes":8,"attempt":2,
         "peak_memory_mb":1.5,"forecast":{"median_ms":1,"p90_ms":2,"p95_ms":3.5,"p99_ms":4e0}}]"#;

    #[test]
    fn what_programs_write_is_plain() {
        let text = format!(r#" {{"batch_id":"b","run":"r","worker":"w","records":{RECORDS}}} "#);
        let parsed = batch(text.as_bytes(), 4).unwrap();
        let typed: Vec<Record> = serde_json::from_str(RECORDS).unwrap();
        assert_eq!(parsed.records, typed);
        let Origin { batch_id, run, worker } = parsed.origin;
        assert_eq!((batch_id.unwrap().as_str(), run.unwrap().as_str()), ("b", "r"));
        assert_eq!(worker.unwrap().as_str(), "w");
        assert!(batch(br#"{"records":[]}"#, 4).unwrap().records.is_empty());
    }

    #[test]
    fn what_is_unusual_is_left_to_serde() {
        let plain = format!(r#"{{"batch_id":"b","records":{RECORDS}}}"#);
        assert!(batch(plain.as_bytes(), 3).is_none(), "too many records");
        for (from, to) in [
            (r#""batch_id":"b""#, r#""batch_id":"b","batch_id":"b""#),
            (r#""batch_id":"b""#, r#""batch_id":null"#),
            (r#""batch_id":"b""#, r#""batch_id":"b","wroker":"w""#),
            (r#""task":"a""#, r#""task":"\u0061""#),
            (r#""task":"a""#, r#""task":"ä""#),
            (r#""exec_ms":0"#, r#""exec_ms":1e2"#),
            (r#""exec_ms":0"#, r#""exec_ms":01"#),
            (r#""exec_ms":0"#, r#""exec_ms":-0"#),
            (r#""exec_ms":0"#, r#""exec_ms":1."#),
            (r#""exec_ms":0"#, r#""exec_ms":0.12345678901234567"#),
            (r#""bytes":1"#, r#""bytes":1.0"#),
            (r#""bytes":1"#, r#""bytes":"1""#),
            (r#""memory_mb":1,"store""#, r#""memory_mb":4294967296,"store""#),
            ("}]}", "}]}}"),
            ("}]}", "},]}"),
            ("}]}", "}"),
        ] {
            let changed = plain.replacen(from, to, 1);
            assert_ne!(changed, plain);
            assert!(batch(changed.as_bytes(), 9).is_none(), "{changed}");
        }
    }
}
