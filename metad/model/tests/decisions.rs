//! What is predicted of decisions: widths of fan-outs and branches.

#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use foresail_model::{BRANCHES_MAX, DECIDERS_MAX, WorkflowModel};
use foresail_schemas::decision::Decision;
use foresail_schemas::metric::{DecisionRecord, Record};
use foresail_schemas::prediction::{Basis, Prediction, Query, Unit};
use foresail_schemas::{Sla, TaskName};
use jiff::Timestamp;

fn name(text: &str) -> TaskName {
    TaskName::new(text).unwrap()
}

/// A model that was told these decisions of `split`, one a second.
fn told(decisions: impl IntoIterator<Item = (u64, Decision)>) -> WorkflowModel {
    let mut model = WorkflowModel::new();
    for ((input_bytes, value), second) in decisions.into_iter().zip(0..) {
        let record = DecisionRecord { task: name("split"), input_bytes, value, at: None };
        model.update(&Record::Decision(record), Timestamp::from_second(second).unwrap());
    }
    model
}

fn ask(model: &mut WorkflowModel, input_bytes: u64, slas: &[Sla]) -> Prediction {
    model.snapshot().predict(&Query::Decision { task: name("split"), input_bytes }, slas)
}

fn widths(list: impl IntoIterator<Item = u64>) -> WorkflowModel {
    told(list.into_iter().map(|width| (1000, Decision::Width(width))))
}

fn width(model: &mut WorkflowModel, sla: Sla) -> f64 {
    ask(model, 1000, &[sla]).values[&sla].unwrap()
}

#[test]
fn what_was_never_decided_is_null() {
    let answer = ask(&mut widths([]), 1000, &[Sla::MEDIAN, Sla::Mean]);
    assert_eq!((answer.unit, answer.basis, answer.samples), (Unit::Tasks, Basis::None, 0));
    assert!(answer.values.values().all(Option::is_none) && answer.branches.is_empty());
}

#[test]
fn widths_are_predicted_by_what_they_were() {
    let mut model = widths([8, 7, 9, 8, 8, 6, 10, 8, 9, 7, 8, 8, 7, 9, 8, 8, 6, 10, 8, 9]);
    assert_eq!(width(&mut model, Sla::MEDIAN), 8.0);
    assert_eq!(width(&mut model, Sla::P95), 10.0);
    assert_eq!(width(&mut model, Sla::Mean), 8.05);
    let answer = ask(&mut model, 1000, &[Sla::MEDIAN]);
    assert_eq!((answer.basis, answer.samples, answer.extrapolated), (Basis::Exact, 20, false));
    // Of two widths one is decided, never something between.
    let mut two = widths((0..40).map(|n| if n % 5 == 0 { 60 } else { 2 }));
    assert_eq!(width(&mut two, Sla::MEDIAN), 2.0);
    assert_eq!(width(&mut two, Sla::P90), 60.0);
    assert_eq!(width(&mut widths([5; 3]), Sla::P99), 5.0);
}

#[test]
fn few_widths_do_not_reach_as_far_as_a_high_quantile() {
    let p95 = width(&mut widths([4, 8, 6]), Sla::P95);
    assert!(p95 > 8.0, "a fourth one is above three with 25 %, and p95 is {p95}");
}

#[test]
fn widths_that_follow_the_input_are_predicted_by_it() {
    let width_of = |bytes: u64| bytes / 100;
    let mut model = told((1..=30).map(|n| n * 700).map(|bytes| (bytes, Decision::Width(width_of(bytes)))));
    for bytes in [2_000_u64, 9_000, 20_000] {
        let answer = ask(&mut model, bytes, &[Sla::MEDIAN]).values[&Sla::MEDIAN].unwrap();
        let off = (answer / width_of(bytes) as f64).ln().abs();
        assert!(off < 0.1, "{answer} of {} at {bytes}", width_of(bytes));
    }
    let mut alike = told((1..=30).map(|n| (n * 700, Decision::Width(5 + n % 3))));
    let far = ask(&mut alike, 1 << 30, &[Sla::MEDIAN]);
    assert_eq!((far.values[&Sla::MEDIAN], far.extrapolated), (Some(6.0), false));
}

#[test]
fn branches_are_frequencies_that_leave_a_share_to_what_was_not_seen() {
    let branch = |n: u64| Decision::Branch(if n.is_multiple_of(4) { "left" } else { "right" }.to_owned());
    let answer = ask(&mut told((0..20).map(|n| (1, branch(n)))), 1, &[Sla::MEDIAN]);
    assert_eq!((answer.values[&Sla::MEDIAN], answer.basis, answer.samples), (None, Basis::Exact, 20));
    assert_eq!(answer.branches["right"], 16.0 / 23.0);
    assert_eq!(answer.branches["left"], 6.0 / 23.0);
    // A number is a branch too, for those who wait for that number.
    assert_eq!(ask(&mut widths([3, 3, 4]), 1000, &[]).branches["3"], 3.0 / 6.0);
}

#[test]
fn memory_is_bounded_and_the_newest_decisions_count() {
    let mut model = widths((0..300).map(|n| if n < 150 { 4 } else { 40 }));
    assert_eq!(ask(&mut model, 1000, &[Sla::MEDIAN]).samples, 128);
    assert_eq!(width(&mut model, Sla::Quantile(1000)), 40.0);
    let many = told((0..128).map(|n| (1, Decision::Branch(format!("b{n}")))));
    let mut many = many;
    assert_eq!(ask(&mut many, 1, &[]).branches.len(), BRANCHES_MAX);
    let mut model = WorkflowModel::new();
    for n in 0..DECIDERS_MAX + 5 {
        let task = name(&format!("d{n}"));
        let record = DecisionRecord { task, input_bytes: 0, value: Decision::Width(1), at: None };
        model.update(&Record::Decision(record), Timestamp::UNIX_EPOCH);
    }
    let known = |n: usize| {
        let task = name(&format!("d{n}"));
        model.clone().snapshot().known(&Query::Decision { task, input_bytes: 0 }, &[Sla::MEDIAN]).is_some()
    };
    assert!(known(DECIDERS_MAX - 1) && !known(DECIDERS_MAX));
}

#[test]
fn a_rest_that_was_stored_before_there_were_decisions_is_read_without_any() {
    let model = widths([5; 3]);
    let mut stored = postcard::to_stdvec(&WorkflowModel::new().rest()).unwrap();
    // The version stands first, the decisions last: none of any.
    assert_eq!((stored[0], stored.last()), (5, Some(&0)));
    stored[0] = 4;
    let old = postcard::from_bytes(&stored).unwrap();
    let mut old = WorkflowModel::from_saved(old, std::iter::empty());
    assert_eq!(ask(&mut old, 1000, &[Sla::MEDIAN]).basis, Basis::None);
    let new = postcard::from_bytes(&postcard::to_stdvec(&model.rest()).unwrap()).unwrap();
    let mut new = WorkflowModel::from_saved(new, std::iter::empty());
    assert_eq!(width(&mut new, Sla::MEDIAN), 5.0);
}
