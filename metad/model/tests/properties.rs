//! What must hold for any history: order and batches do not matter, merging adds histories, stored forms
//! predict alike, answers are finite, monotone and never negative.

#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use foresail_model::WorkflowModel;
use foresail_schemas::decision::Decision;
use foresail_schemas::metric::{
    DecisionRecord, Direction, Record, StartState, StartupRecord, TaskRecord, TransferRecord,
};
use foresail_schemas::prediction::{Basis, Prediction, Query};
use foresail_schemas::{Sla, TaskName};
use jiff::Timestamp;
use proptest::prelude::*;

fn name(n: u8) -> TaskName {
    TaskName::new(format!("t{n}")).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1..1000_u64, (0..12_u32).prop_map(|d| 10_u64.pow(d)), any::<u64>()]
}

fn time() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(f64::MAX), 0.0..1.0, 0.0..1e6, (-9..12_i32).prop_map(|d| 10_f64.powi(d))]
}

fn vcpu() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![Just(None), Just(None), (0.05..16.0).prop_map(Some)]
}

fn record() -> impl Strategy<Value = Record> {
    let memory = prop_oneof![Just(128_u32), Just(1769), Just(3008), 1..10_240_u32];
    let second = prop_oneof![Just(None), (0..40_i64).prop_map(|s| Some(at(s)))];
    (0..6_u8, 0..3_u8, memory, vcpu(), size(), proptest::option::of(size()), time(), second).prop_map(
        |(kind, n, memory_mb, vcpu, bytes, output_bytes, time_ms, at)| match kind {
            0 => Record::Startup(StartupRecord {
                state: if n == 0 { StartState::Cold } else { StartState::Warm },
                time_ms,
                memory_mb,
                vcpu,
                at,
            }),
            1 => Record::Transfer(TransferRecord {
                direction: if n == 0 { Direction::Upload } else { Direction::Download },
                bytes,
                time_ms,
                memory_mb,
                vcpu,
                store: (n == 1).then(|| name(9)),
                at,
            }),
            2 => {
                let branch = Decision::Branch(format!("b{}", bytes % 5));
                let value = output_bytes.map_or(branch, Decision::Width);
                Record::Decision(DecisionRecord { task: name(n), input_bytes: bytes, value, at })
            }
            _ => Record::Task(TaskRecord {
                task: name(n),
                memory_mb,
                vcpu,
                input_bytes: bytes,
                output_bytes,
                exec_ms: time_ms,
                peak_memory_mb: None,
                attempt: 1,
                at,
                forecast: None,
            }),
        },
    )
}

fn queries(bytes: u64, memory_mb: u32) -> Vec<Query> {
    let mut queries = Vec::new();
    for n in 0..3 {
        for vcpu in [None, Some(2.0)] {
            queries.push(Query::ExecutionTime { task: name(n), input_bytes: bytes, memory_mb, vcpu });
        }
        queries.push(Query::OutputSize { task: name(n), input_bytes: bytes });
        queries.push(Query::Decision { task: name(n), input_bytes: bytes });
    }
    for direction in [Direction::Upload, Direction::Download] {
        for store in [None, Some(name(9)), Some(name(8))] {
            queries.push(Query::TransferTime { direction, bytes, memory_mb, vcpu: None, store });
        }
    }
    for state in [StartState::Cold, StartState::Warm] {
        queries.push(Query::StartupTime { state, memory_mb, vcpu: None });
    }
    queries
}

fn slas() -> Vec<Sla> {
    let mut slas: Vec<Sla> =
        [1, 10, 500, 1234, 2500, 5000, 7500, 9000, 9500, 9900, 9999].map(Sla::Quantile).to_vec();
    slas.push(Sla::Mean);
    slas
}

/// Whether it is of a task that decides by texts alone, which have no width.
fn is_named(answer: &Prediction) -> bool {
    !answer.branches.is_empty() && answer.branches.keys().all(|text| text.starts_with('b'))
}

fn told<'a>(records: impl IntoIterator<Item = &'a Record>) -> WorkflowModel {
    let mut model = WorkflowModel::new();
    records.into_iter().for_each(|record| model.update(record, at(20)));
    model
}

fn same_answers(a: &mut WorkflowModel, b: &mut WorkflowModel) -> Result<(), TestCaseError> {
    let (a, b) = (a.snapshot(), b.snapshot());
    for query in queries(1_000_000, 1769).into_iter().chain(queries(0, 128)) {
        prop_assert_eq!(a.predict(&query, &slas()), b.predict(&query, &slas()));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn order_and_batches_do_not_matter(
        (records, shuffled) in proptest::collection::vec(record(), 0..400)
            .prop_flat_map(|records| (Just(records.clone()), Just(records).prop_shuffle())),
        cut in 1..50_usize,
    ) {
        let mut one = told(&records);
        let mut other = WorkflowModel::new();
        for batch in shuffled.chunks(cut) {
            other.update_all(batch, at(20));
            other.snapshot();
        }
        prop_assert_eq!(postcard::to_stdvec(&one).unwrap(), postcard::to_stdvec(&other).unwrap());
        same_answers(&mut one, &mut other)?;
    }

    #[test]
    fn neither_snapshots_nor_questions_change_an_answer(
        records in proptest::collection::vec(record(), 1..300),
        cut in 1..50_usize,
        asked in proptest::collection::vec(any::<prop::sample::Index>(), 1..8),
        looked_at in any::<prop::sample::Index>(),
    ) {
        let (all, mut model) = (queries(1_000_000, 1769), WorkflowModel::new());
        let mut held = Vec::new();
        for (n, batch) in records.chunks(cut).enumerate() {
            batch.iter().for_each(|record| model.update(record, at(20)));
            let snapshot = model.snapshot();
            for (k, index) in asked.iter().enumerate().filter(|(k, _)| (n + k) % 3 > 0) {
                let query = &all[(index.index(all.len()) + k) % all.len()];
                let _asked_for_its_fits = snapshot.predict(query, &slas());
            }
            held.push(snapshot);
        }
        let looked_at = looked_at.index(held.len());
        for n in [looked_at, held.len() - 1] {
            let fresh = told(records.iter().take((n + 1) * cut)).snapshot();
            prop_assert_eq!(held[n].samples(), fresh.samples());
            for query in all.iter().rev() {
                prop_assert_eq!(held[n].predict(query, &slas()), fresh.predict(query, &slas()));
            }
            for task in fresh.tasks() {
                prop_assert_eq!(held[n].report(task), fresh.report(task));
            }
        }
    }

    #[test]
    fn merging_two_models_is_one_model_of_both_histories(
        records in proptest::collection::vec(record(), 0..400), part in 0.0..1.0_f64,
    ) {
        let (left, right) = records.split_at((records.len() as f64 * part) as usize);
        let (mut both, mut merged) = (told(&records), told(left));
        merged.merge(&told(right));
        prop_assert_eq!(postcard::to_stdvec(&both).unwrap(), postcard::to_stdvec(&merged).unwrap());
        same_answers(&mut both, &mut merged)?;
    }

    #[test]
    fn stored_forms_predict_alike(records in proptest::collection::vec(record(), 0..200)) {
        let mut model = told(&records);
        let mut back: WorkflowModel = postcard::from_bytes(&postcard::to_stdvec(&model).unwrap()).unwrap();
        prop_assert_eq!(&model, &back);
        same_answers(&mut model, &mut back)?;
        let predictor = model.snapshot();
        let text = serde_json::to_string(&*predictor).unwrap();
        let downloaded: foresail_model::Predictor = serde_json::from_str(&text).unwrap();
        for query in queries(123_456, 3008) {
            prop_assert_eq!(predictor.predict(&query, &slas()), downloaded.predict(&query, &slas()));
        }
        for task in predictor.tasks() {
            prop_assert_eq!(predictor.report(task), downloaded.report(task));
        }
    }

    #[test]
    fn answers_are_finite_monotone_and_never_negative(
        records in proptest::collection::vec(record(), 0..120),
        bytes in size(),
        memory_mb in prop_oneof![1..20_000_u32, Just(1 << 20)],
    ) {
        let predictor = told(&records).snapshot();
        for query in queries(bytes, memory_mb) {
            let answer = predictor.predict(&query, &slas());
            prop_assert_eq!(answer.values.len(), slas().len());
            let mut last = 0.0;
            for (sla, value) in &answer.values {
                let has_none = answer.basis == Basis::None || is_named(&answer);
                prop_assert_eq!(value.is_none(), has_none);
                let Some(value) = *value else { continue };
                prop_assert!(value.is_finite() && value >= 0.0, "{} = {}", sla, value);
                if sla.quantile().is_some() {
                    prop_assert!(value >= last, "{} = {} under {}", sla, value, last);
                    last = value;
                }
            }
            let shares = || answer.branches.values();
            prop_assert!(shares().all(|share| *share > 0.0) && shares().sum::<f64>() < 1.0);
            for [low, high] in answer.interval.values() {
                prop_assert!(low <= high && *low >= 0.0 && high.is_finite());
            }
        }
        for task in predictor.tasks() {
            let report = serde_json::to_string(&predictor.report(task)).unwrap();
            prop_assert!(!report.contains("null,\"count\""), "a histogram without numbers: {}", report);
        }
    }
}
