//! What is written as JSON is read back as it was, and names and service levels keep their rules.

use foresail_schemas::metric::Batch;
use foresail_schemas::run::{Change, Operation, OperationResult, RunEvent};
use foresail_schemas::{ObjectName, Plan, Sla, TaskId, Workflow};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::builders;

fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let text = serde_json::to_string(value).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value, "{text}");
    // What passes through an untyped value, as in a proxy, must survive too.
    let untyped = serde_json::to_value(value).unwrap();
    assert_eq!(&serde_json::from_value::<T>(untyped).unwrap(), value);
}

proptest! {
    #[test]
    fn workflows_round_trip(workflow in builders::workflow()) { check::<Workflow>(&workflow); }

    #[test]
    fn batches_round_trip(batch in builders::batch()) { check::<Batch>(&batch); }

    #[test]
    fn plans_round_trip(plan in builders::plan()) { check::<Plan>(&plan); }

    #[test]
    fn events_round_trip(event in builders::event()) { check::<RunEvent>(&event); }

    #[test]
    fn events_of_every_kind_can_be_asked_for(event in builders::event()) {
        prop_assert!(Change::KINDS.contains(&event.change.kind()), "{event:?}");
    }

    #[test]
    fn operations_round_trip(operation in builders::operation()) { check::<Operation>(&operation); }

    #[test]
    fn results_round_trip(result in builders::result()) { check::<OperationResult>(&result); }

    #[test]
    fn a_text_is_a_name_exactly_when_it_has_the_charset(text in "(?s).{0,8}|[A-Za-z0-9_.:@+~-]{1,300}") {
        let inner = |c: char| c.is_ascii_alphanumeric() || "_.:@+~-".contains(c);
        let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let legal = text.chars().all(inner) && text.starts_with(first) && text.len() <= 255;
        prop_assert_eq!(TaskId::new(&text).is_ok(), legal);
        let object = !text.is_empty() && text.len() <= 1024 && !text.chars().any(char::is_control);
        prop_assert_eq!(ObjectName::new(&text).is_ok(), object);
    }

    #[test]
    fn every_quantile_is_written_as_it_is_read(hundredths in 1u16..10_000) {
        let sla = Sla::Quantile(hundredths);
        prop_assert_eq!(sla.to_string().parse::<Sla>().unwrap(), sla);
        check(&sla);
    }

    #[test]
    fn no_text_makes_a_service_level_panic_or_leave_its_range(text in "p?[0-9.]{0,6}|\\PC{0,6}") {
        if let Ok(sla) = text.parse::<Sla>() {
            prop_assert!(sla.quantile().is_none_or(|q| q > 0.0 && q < 1.0));
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(serde_json::from_slice::<Workflow>(&bytes).is_err());
        prop_assert!(serde_json::from_slice::<Batch>(&bytes).is_err());
        let _ = foresail_schemas::wfformat::read(&String::from_utf8_lossy(&bytes));
    }

    /// One character of a good document replaced: whatever is still read must be valid.
    #[test]
    fn a_damaged_workflow_is_refused_or_valid(at in any::<prop::sample::Index>(), with in "[ -~]") {
        let mut text = serde_json::to_string(&foresail_schemas::examples::workflow()).unwrap();
        let at = at.index(text.len());
        text.replace_range(at..=at, &with);
        if let Ok(workflow) = serde_json::from_str::<Workflow>(&text) {
            check(&workflow);
            crate::graphs::assert_invariants(&workflow);
        }
    }
}
