//! Questions and records read in one pass, without the copy that serde makes of a form with its tag inside.
//!
//! What is read here is read by the types of `foresail-schemas` as the same value (property tests). Whatever
//! is not plain (a field that is missing, twice, of another type or out of range, or one that its kind does
//! not have) is an error without detail: the caller then reads the text again with those types,
//! which decide and find the words.

use std::borrow::Cow;
use std::fmt;

use foresail_schemas::Sla;
use foresail_schemas::metric::Record;
use foresail_schemas::prediction::Query;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::fields::{Fields, Key, Names};

/// A text that the sender wrote without escapes is not copied.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

struct FieldsOf<'n>(&'n Names);

impl<'de> DeserializeSeed<'de> for FieldsOf<'_> {
    type Value = Fields;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Fields, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldsOf<'_> {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let (mut fields, mut seen) = (Fields::default(), 0u32);
        let name = |text: &str| self.0.name(text.as_bytes()).ok_or_else(|| A::Error::custom("a name"));
        while let Some(key) = map.next_key::<Key>()? {
            let bit = key.bit();
            if seen & bit != 0 && !matches!(key, Key::Other) {
                return Err(A::Error::custom("twice"));
            }
            seen |= bit;
            match key {
                Key::Kind => fields.kind = Some(map.next_value()?),
                Key::Task => fields.task = Some(name(&map.next_value::<Text>()?.0)?),
                Key::MemoryMb => fields.memory_mb = Some(map.next_value()?),
                Key::Vcpu => fields.vcpu = map.next_value()?,
                Key::InputBytes => fields.input_bytes = Some(map.next_value()?),
                Key::OutputBytes => fields.output_bytes = map.next_value()?,
                Key::ExecMs => fields.exec_ms = Some(map.next_value()?),
                Key::PeakMemoryMb => fields.peak_memory_mb = map.next_value()?,
                Key::Attempt => fields.attempt = Some(map.next_value()?),
                Key::At => fields.at = map.next_value()?,
                Key::Forecast => fields.forecast = map.next_value()?,
                Key::Direction => fields.direction = Some(map.next_value()?),
                Key::Bytes => fields.bytes = Some(map.next_value()?),
                Key::TimeMs => fields.time_ms = Some(map.next_value()?),
                Key::Store => {
                    let text = map.next_value::<Option<Text>>()?;
                    fields.store = text.map(|text| name(&text.0)).transpose()?;
                }
                Key::State => fields.state = Some(map.next_value()?),
                Key::Value => fields.value = Some(map.next_value()?),
                Key::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        fields.seen = seen;
        Ok(fields)
    }
}

/// A list, each entry of which is made of its fields by a function.
struct ListOf<'n, T>(&'n Names, fn(Fields) -> Option<T>);

impl<'de, T> DeserializeSeed<'de> for ListOf<'_, T> {
    type Value = Vec<T>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Vec<T>, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de, T> Visitor<'de> for ListOf<'_, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut entries = Vec::new();
        while let Some(fields) = list.next_element_seed(FieldsOf(self.0))? {
            entries.push((self.1)(fields).ok_or_else(|| A::Error::custom("an entry"))?);
        }
        Ok(entries)
    }
}

/// The questions of a request.
pub struct Queries(pub Vec<Query>);

impl<'de> Deserialize<'de> for Queries {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        ListOf(&Names::default(), Fields::query).deserialize(from).map(Self)
    }
}

/// The records of a batch.
pub struct Records(pub Vec<Record>);

impl<'de> Deserialize<'de> for Records {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        ListOf(&Names::default(), Fields::record).deserialize(from).map(Self)
    }
}

/// Several questions at the same service levels.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The service levels; the median where absent.
    pub sla: Option<Vec<Sla>>,
    /// The questions.
    pub queries: Queries,
}

/// One record; `names` are those that earlier ones had.
pub fn record(text: &str, names: &Names) -> Option<Record> {
    let mut from = serde_json::Deserializer::from_str(text);
    let fields = FieldsOf(names).deserialize(&mut from).ok()?;
    from.end().ok()?;
    fields.record()
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::fields::{OF_DECISION, OF_STARTUP, OF_TASK, OF_TRANSFER};
    use super::*;

    /// Whether a record or a question of a kind has a field.
    fn has(kind: &Value, name: &str) -> bool {
        let own = match kind.as_str() {
            Some("task") => OF_TASK,
            Some("transfer") => OF_TRANSFER,
            Some("startup") => OF_STARTUP,
            Some("decision") => OF_DECISION,
            _ => return name != "foreign",
        };
        let key = Key::deserialize(serde::de::value::StrDeserializer::<serde_json::Error>::new(name));
        own & key.unwrap().bit() != 0
    }

    /// Objects that are almost questions or records: fields of all kinds, good, bad, null and foreign.
    pub fn any_object() -> impl Strategy<Value = Value> {
        let kind = prop_oneof![
            8 => prop::sample::select(vec![
                "task", "transfer", "startup", "decision", "execution_time", "output_size",
                "transfer_time", "startup_time",
            ]).prop_map(Value::from),
            1 => Just(json!("unheard")),
            1 => Just(Value::Null),
            2 => prop::sample::select(vec![
                json!({"task": null}), json!({"startup": null}), json!({"output_size": null}),
                json!({"startup_time": {}}), json!(["task"]), json!(0),
            ]),
        ];
        let good = json!({
            "task": "count", "memory_mb": 1769, "vcpu": 1.5, "input_bytes": 7, "output_bytes": 8,
            "exec_ms": 2.5, "peak_memory_mb": 3.0, "attempt": 2, "at": "2025-01-02T03:04:05Z",
            "direction": "upload", "bytes": 9,
            "forecast": {"median_ms": 1.0, "p90_ms": 2.0, "p95_ms": 3.0, "p99_ms": 4}, "time_ms": 1.25,
            "store": "s3", "state": "cold", "value": 12, "foreign": [1, {"a": 2}]
        });
        let names: Vec<String> = good.as_object().unwrap().keys().cloned().collect();
        let odd = vec![
            Value::Null,
            json!(-1),
            json!(0),
            json!(0.5),
            json!(1e300),
            json!("x y"),
            json!("cold"),
            json!([]),
            json!(5_000_000_000_u64),
            json!("p\u{e9}"),
            json!("a\"b"),
            json!(true),
            json!({}),
            json!({"cold": null}),
            json!({"upload": null}),
            json!(["cold"]),
        ];
        let changes =
            prop::collection::vec((prop::sample::select(names.clone()), prop::sample::select(odd)), 0..3);
        let removed = prop::collection::vec(prop::sample::select(names), 0..4);
        let strays = prop::collection::vec(any::<prop::sample::Index>(), 0..2);
        (kind, changes, removed, strays).prop_map(move |(kind, changes, removed, strays)| {
            let mut object = good.clone();
            let fields = object.as_object_mut().unwrap();
            let (own, others): (Vec<_>, Vec<_>) =
                std::mem::take(fields).into_iter().partition(|(name, _)| has(&kind, name));
            fields.extend(own);
            // Of what its kind does not have, none or one comes along.
            fields.extend(strays.iter().filter(|_| !others.is_empty()).map(|n| n.get(&others).clone()));
            removed.iter().for_each(|name| drop(fields.remove(name)));
            fields.extend(changes);
            fields.insert("kind".to_owned(), kind);
            object
        })
    }

    proptest! {
        #[test]
        fn what_is_read_flat_is_what_the_types_read(object in any_object()) {
            let text = object.to_string();
            let plain = record(&text, &Names::default());
            let typed = serde_json::from_str::<Record>(&text).ok();
            if let Some(record) = &typed {
                // Neither reader passes over a field.
                let again = serde_json::to_value(record).unwrap();
                let known = |name: &String| again.get(name).is_some() || object[name].is_null();
                prop_assert!(object.as_object().unwrap().keys().all(known), "{text}");
            }
            prop_assert!(plain.is_none() || plain == typed, "{text}\n{plain:?}\n{typed:?}");
            let list = format!("[{text}]");
            let plain = serde_json::from_str::<Queries>(&list).ok().map(|q| q.0);
            let typed = serde_json::from_str::<Vec<Query>>(&list).ok();
            if let Some(query) = typed.as_ref().and_then(|typed| typed.first()) {
                let again = serde_json::to_value(query).unwrap();
                let known = |name: &String| again.get(name).is_some() || object[name].is_null();
                prop_assert!(object.as_object().unwrap().keys().all(known), "{text}");
            }
            prop_assert!(plain.is_none() || plain == typed, "{text}\n{plain:?}\n{typed:?}");
        }

        #[test]
        fn damaged_text_is_refused_or_read_as_the_types_read_it(
            object in any_object(), at in any::<prop::sample::Index>(), to in any::<u8>(),
        ) {
            let mut bytes = object.to_string().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = to;
            let text = String::from_utf8_lossy(&bytes);
            let plain = record(&text, &Names::default());
            prop_assert!(plain.is_none() || plain == serde_json::from_str(&text).ok(), "{text}");
        }
    }

    #[test]
    fn good_records_and_questions_need_no_second_reading() {
        for text in [
            r#"{"kind":"task","task":"count","memory_mb":1769,"exec_ms":1,"vcpu":null,"output_bytes":null}"#,
            r#"{"time_ms":640.2,"state":"cold","memory_mb":1769,"kind":"startup"}"#,
            r#"{"kind":"transfer","direction":"upload","bytes":1,"time_ms":1e3,"memory_mb":1,"store":"s3"}"#,
            r#"{"kind":"decision","task":"split","value":12}"#,
            r#"{"kind":"decision","task":"split","input_bytes":7,"value":"left"}"#,
        ] {
            assert!(record(text, &Names::default()).is_some(), "{text}");
        }
        let text = r#"{"queries":[{"kind":"output_size","task":"t"},
            {"kind":"execution_time","memory_mb":5,"task":"t","input_bytes":3},
            {"kind":"transfer_time","direction":"download","memory_mb":5},
            {"kind":"decision","task":"t","input_bytes":3},
            {"kind":"startup_time","state":"warm","memory_mb":5}]}"#;
        assert_eq!(serde_json::from_str::<Request>(text).unwrap().queries.0.len(), 5);
    }

    #[test]
    fn a_list_in_the_place_of_an_object_is_not_plain() {
        assert!(record(r#"["task","count",1769]"#, &Names::default()).is_none());
        assert!(record(r#"{"kind":"startup","kind":"task"}"#, &Names::default()).is_none());
        let (kind, rest) = (r#"{"task":null}"#, r#""task":"count","memory_mb":1,"exec_ms":1"#);
        for (kind, is_plain) in [(r#""task""#, true), (kind, false), ("[\"task\"]", false), ("0", false)] {
            let text = format!(r#"{{"kind":{kind},{rest}}}"#);
            assert_eq!(record(&text, &Names::default()).is_some(), is_plain, "{text}");
            assert_eq!(serde_json::from_str::<Record>(&text).is_ok(), is_plain, "{text}");
        }
    }

    #[test]
    fn more_names_than_are_remembered_are_read_right() {
        let names = Names::default();
        for text in (0..1000).map(|n| format!("t{}", n % 300)) {
            assert_eq!(names.name(text.as_bytes()).unwrap().as_str(), text);
        }
        assert!(names.name(b"a b").is_none());
    }
}
