//! The events of runs: the truth about them.
//!
//! Table `run_events`: (run number u64, number of the first event in the value u64) -> JSON array of
//! `RunEvent` with numbers without gaps. JSON, because the events' enum carries its tag inside and because
//! the text is served as it is.
//!
//! A value has at most [`VALUE_EVENTS_MAX`] events of one commit group, and reading stops at the value that
//! fills the page, so that a page costs what it has and at most two values beside it, wherever in a run it
//! begins. Values of an older metad, which wrote a commit group into one, are read as they are.

use std::sync::Arc;

use redb::{ReadableTable, TableDefinition, WriteTransaction};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ReadView, Result, WriteGroup, change, corrupt};

const NAME: &str = "run_events";
const TABLE: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new(NAME);
/// Most events in one value.
const VALUE_EVENTS_MAX: usize = 128;

/// An event as text, with what is needed to choose it.
#[derive(Debug, Clone)]
pub struct EventText {
    /// Its number.
    pub seq: u64,
    /// Its kind.
    pub kind: String,
    /// All of it as JSON.
    pub json: Box<RawValue>,
}

#[derive(Deserialize)]
struct Head {
    seq: u64,
    kind: String,
}

fn decode(value: &[u8]) -> serde_json::Result<Vec<EventText>> {
    let events: Vec<Box<RawValue>> = serde_json::from_slice(value)?;
    events
        .into_iter()
        .map(|json| {
            let Head { seq, kind } = serde_json::from_str(json.get())?;
            Ok(EventText { seq, kind, json })
        })
        .collect()
}

pub(super) fn prepare(group: &WriteTransaction) -> Result<()> {
    group.open_table(TABLE)?;
    Ok(())
}

pub(super) fn put(transaction: &WriteTransaction, key: (u64, u64), json: &[u8]) -> Result<()> {
    transaction.open_table(TABLE)?.insert(key, json)?;
    Ok(())
}

/// Drops the events of a run.
pub(super) fn drop_all(transaction: &WriteTransaction, run: u64) -> Result<()> {
    transaction.open_table(TABLE)?.retain_in((run, 0)..=(run, u64::MAX), |_, _| false)?;
    Ok(())
}

fn events_in(
    table: &impl ReadableTable<(u64, u64), &'static [u8]>,
    run: u64,
    after: u64,
    events_max: usize,
) -> Result<Vec<EventText>> {
    let wanted = after.saturating_add(1);
    let from =
        table.range((run, 0)..=(run, wanted))?.next_back().transpose()?.map_or(0, |(key, _)| key.value().1);
    let mut events = Vec::new();
    for entry in table.range((run, from)..=(run, u64::MAX))? {
        let (key, value) = entry?;
        let found = decode(value.value()).map_err(|e| corrupt(NAME, key.value(), e))?;
        events.extend(found.into_iter().filter(|event| event.seq > after));
        if events.len() >= events_max {
            events.truncate(events_max);
            break;
        }
    }
    Ok(events)
}

impl ReadView {
    /// Up to `events_max` events of a run after number `after`, in order.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn events_after(&self, run: u64, after: u64, events_max: usize) -> Result<Vec<EventText>> {
        events_in(&self.0.open_table(TABLE)?, run, after, events_max)
    }
}

impl WriteGroup {
    /// Up to `events_max` events of a run after number `after`, in order, as far as this group knows.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn events_after(&self, run: u64, after: u64, events_max: usize) -> Result<Vec<EventText>> {
        events_in(&self.transaction()?.open_table(TABLE)?, run, after, events_max)
    }

    /// Writes the events that one commit group has of a run.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn put_events(&self, run: u64, events: &[Arc<EventText>]) -> Result<()> {
        for part in events.chunks(VALUE_EVENTS_MAX) {
            let texts: Vec<&str> = part.iter().map(|event| event.json.get()).collect();
            let json = format!("[{}]", texts.join(","));
            self.make(change::Change::PutEvents { run, first: part[0].seq, json: json.as_bytes() })?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use foresail_schemas::InstanceId;
    use foresail_schemas::run::{
        Change, Commit, Failure, FailureKind, Location, Measured, RunEvent, RunStatus, StoredObject,
    };
    use proptest::prelude::*;

    use super::*;
    use crate::store::testing;

    fn any_change() -> impl Strategy<Value = Change> {
        (0u8..5, any::<u32>(), ".{0,30}", 0.0f64..1e12).prop_map(|(kind, task, text, ms)| {
            let instance = InstanceId::new("i-1").unwrap();
            match kind {
                0 => Change::TaskReady { task },
                1 => Change::TaskLeased {
                    task,
                    attempt: 1,
                    instance,
                    epoch: 1,
                    expires_ms: ms,
                    assuming: Vec::new(),
                },
                2 => {
                    let location = Location::Inline(text.clone());
                    let outputs = vec![StoredObject { bytes: 3, hash: text, location }];
                    let measured = Measured { exec_ms: ms, ..Measured::default() };
                    Change::TaskCommitted {
                        task,
                        commit: Commit {
                            attempt: 2,
                            instance,
                            outputs,
                            measured,
                            decision: None,
                            printed: None,
                        },
                    }
                }
                3 => Change::PlanReplaced { epoch: 7, why: None },
                _ => {
                    let failure = Failure {
                        task: None,
                        attempt: 0,
                        kind: FailureKind::Cancelled,
                        message: text,
                        exception: None,
                        lost: Vec::new(),
                    };
                    Change::RunFinished { status: RunStatus::Cancelled, failure: Some(failure) }
                }
            }
        })
    }

    proptest! {
        #[test]
        fn events_come_back_as_they_were(
            changes in proptest::collection::vec((any_change(), 0.0f64..1e12), 1..9),
        ) {
            let events: Vec<RunEvent> = changes.into_iter().zip(1..)
                .map(|((change, at_ms), seq)| RunEvent { seq, at_ms, change }).collect();
            let texts = decode(&serde_json::to_vec(&events).unwrap()).unwrap();
            for (text, event) in texts.iter().zip(&events) {
                prop_assert_eq!(text.seq, event.seq);
                prop_assert_eq!(&text.kind, event.change.kind());
                prop_assert_eq!(&serde_json::from_str::<RunEvent>(text.json.get()).unwrap(), event);
            }
        }
    }

    /// Events of these numbers.
    pub fn texts(seqs: std::ops::RangeInclusive<u64>) -> Vec<Arc<EventText>> {
        let text = |seq| format!(r#"{{"seq":{seq},"at_ms":0.0,"kind":"task_ready","task":1}}"#);
        let json = |seq| RawValue::from_string(text(seq)).unwrap();
        seqs.map(|seq| Arc::new(EventText { seq, kind: "task_ready".into(), json: json(seq) })).collect()
    }

    #[test]
    fn reading_begins_in_the_middle_of_a_group() {
        let (writer, reader) = testing::in_memory();
        let group = writer.begin().unwrap();
        for (run, first, last) in [(6, 1, 9), (7, 1, 3), (7, 4, 4), (7, 5, 9), (8, 1, 2)] {
            group.put_events(run, &texts(first..=last)).unwrap();
        }
        group.commit().unwrap();
        let view = reader.view().unwrap();
        let seqs = |after, events_max| -> Vec<u64> {
            view.events_after(7, after, events_max).unwrap().into_iter().map(|e| e.seq).collect()
        };
        assert_eq!(seqs(0, 99), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(seqs(1, 3), [2, 3, 4]);
        assert_eq!(seqs(3, 1), [4]);
        assert_eq!(seqs(6, 99), [7, 8, 9]);
        assert_eq!(seqs(9, 99), [0u64; 0]);
    }

    #[test]
    fn a_page_reads_no_value_before_its_first_and_behind_its_last_event() {
        let (writer, reader) = testing::in_memory();
        let group = writer.begin().unwrap();
        let events = VALUE_EVENTS_MAX as u64;
        group.put_events(7, &texts(1..=6 * events)).unwrap();
        // What a page reads beyond its need shows: it cannot be read.
        for damaged in [0, 1, 4, 5] {
            put(group.transaction().unwrap(), (7, damaged * events + 1), b"x").unwrap();
        }
        group.commit().unwrap();
        let view = reader.view().unwrap();
        let page = view.events_after(7, 2 * events + 5, 2 * events as usize - 5).unwrap();
        let seqs: Vec<u64> = page.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, (2 * events + 6..=4 * events).collect::<Vec<_>>());
        assert!(view.events_after(7, 2 * events + 5, 2 * events as usize).is_err());
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for bad in [&b"x"[..], b"[1]", b"{}", b"", b"[{\"seq\":1}]"] {
            assert!(decode(bad).is_err());
        }
    }
}
