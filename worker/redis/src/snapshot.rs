//! Snapshots: the state of a fold at some entry, so that whoever joins late folds only what came after it.
//!
//! A snapshot is 16 bytes of hash of what follows, the version of the format, and the state in postcard. It
//! stands for the entries before its number, and for nothing else: the log stays the truth. Whoever finds a
//! snapshot that it cannot read, or one of another log, folds from the first entry.
//!
//! Snapshots are written by whoever appends an entry with one of certain numbers, so that there is one writer
//! each time without any agreement; where that one dies the next number is the next chance.
//! The distance grows with the log: at a fixed one the bytes written grow with the square of its length,
//! like this they stay a few times the last snapshot, and who joins folds a fifth of the log at most.
//!
//! Events are not part of it: who joins wants none before it came, and who wants older ones folds the log.

use std::borrow::Cow;
use std::collections::BTreeMap;

use foresail_choreography::Ledger;
use foresail_choreography::ledger::SavedLedger;
use foresail_schemas::Workflow;
use foresail_schemas::id::InstanceId;
use serde::{Deserialize, Serialize};

use crate::entry::Mark;
use crate::fold::{About, FORMAT, Fold};

/// Shortest distance between two snapshots, and from the begin to the first one, in entries: folding so many
/// takes about 10 ms.
pub const SNAPSHOT_ENTRIES_MIN: u64 = 4096;
/// The distance between two snapshots is this part of the entries so far, where that is more.
pub const SNAPSHOT_PART: u64 = 4;
/// Largest snapshot that is written: Redis does nothing else while it takes one in.
pub const SNAPSHOT_BYTES_MAX: usize = 64 << 20;
/// Bytes of the hash at its head.
const HASH_BYTES: usize = 16;
/// Bytes of the version behind it.
const VERSION_BYTES: usize = 4;

/// The state of a fold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The number of the entry that comes next.
    pub next: u64,
    /// Number of the last event before it.
    pub last_event: u64,
    /// The time of the entry before it.
    pub mark: Mark,
    /// The rest, as bytes.
    pub state: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct State<'a> {
    began_ms: f64,
    plans: Cow<'a, BTreeMap<u64, String>>,
    names: Cow<'a, [InstanceId]>,
    ledger: SavedLedger<'a>,
}

/// Whether a snapshot is written of a log that has `entries`.
#[must_use]
pub fn is_due(entries: u64) -> bool {
    let mut at = SNAPSHOT_ENTRIES_MIN;
    while at < entries {
        at += (at / SNAPSHOT_PART).max(SNAPSHOT_ENTRIES_MIN);
    }
    at == entries
}

impl Fold {
    /// Its state as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let state = State {
            began_ms: self.began_ms,
            plans: Cow::Borrowed(&self.plans),
            names: Cow::Borrowed(self.names.all()),
            ledger: self.ledger.saved(),
        };
        let mut bytes = vec![0; HASH_BYTES];
        bytes.extend(FORMAT.to_le_bytes());
        let mut bytes = postcard::to_extend(&state, bytes).expect("a state always has a postcard form");
        let hash = hash(&bytes[HASH_BYTES..]);
        bytes[..HASH_BYTES].copy_from_slice(&hash);
        Snapshot { next: self.next, last_event: self.last_event(), mark: self.mark, state: bytes }
    }

    /// A fold that goes on behind a snapshot as the one that it was taken of would.
    /// It keeps events from there on.
    ///
    /// # Errors
    /// Why the snapshot cannot be read.
    pub fn behind(about: About, workflow: &Workflow, snapshot: &Snapshot) -> Result<Self, String> {
        let (head, state) = snapshot.state.split_at_checked(HASH_BYTES + VERSION_BYTES).ok_or("it is cut")?;
        if head[..HASH_BYTES] != hash(&snapshot.state[HASH_BYTES..]) {
            return Err("its content is not what was written".to_owned());
        }
        if head[HASH_BYTES..] != FORMAT.to_le_bytes() {
            return Err(format!("its format is not `{FORMAT}`"));
        }
        let state: State<'_> = postcard::from_bytes(state).map_err(|e| e.to_string())?;
        let options = about.options;
        let ledger = Ledger::restored(workflow, options, state.ledger).map_err(|e| e.to_string())?;
        let mut fold = Self::new(about, workflow);
        fold.began_ms = state.began_ms;
        (fold.next, fold.mark) = (snapshot.next, snapshot.mark);
        fold.names = state.names.iter().cloned().collect();
        fold.kept_from = ledger.last_seq() + 1;
        fold.plans = state.plans.into_owned();
        fold.ledger = ledger;
        Ok(fold)
    }
}

fn hash(bytes: &[u8]) -> [u8; HASH_BYTES] {
    let hash = blake3::hash(bytes);
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

#[cfg(test)]
mod tests {
    use foresail_schemas::ResourceConfig;
    use foresail_schemas::examples::{commit, run_summary};
    use foresail_schemas::metric::StartState;
    use foresail_schemas::retry::SizeMenu;
    use foresail_schemas::run::{
        Assumption, Commit, Failure, FailureKind, Operation, Promise, Replanning, RunOptions, WorkerUsage,
    };
    use proptest::prelude::*;

    use super::*;
    use crate::fold::Request;
    use crate::fold::tests::{about, stamped};

    /// Tasks of the workflow below.
    const TASKS: u32 = 7;

    /// One that decides, places that may be skipped, one that reads what there is of them, and a chain.
    fn workflow() -> Workflow {
        let place = |at: u32| {
            format!(
                r#"{{"id": "p{at}", "name": "p", "run": "true", "inputs": [{{"task": "d"}}],
                    "when": {{"task": "d", "above": {at}}}}}"#
            )
        };
        let text = format!(
            r#"{{"name": "w", "tasks": [
                {{"id": "d", "name": "d", "run": "true", "decision": "out"}}, {}, {},
                {{"id": "s", "name": "s", "run": "true", "inputs":
                    [{{"task": "p0", "optional": true}}, {{"task": "p1", "optional": true}}]}},
                {{"id": "a", "name": "t", "run": "true"}},
                {{"id": "b", "name": "t", "run": "true", "inputs": [{{"task": "a"}}]}},
                {{"id": "c", "name": "t", "run": "true", "inputs": [{{"task": "b"}}]}}]}}"#,
            place(0),
            place(1)
        );
        serde_json::from_str(&text).unwrap()
    }

    fn instance(at: u8) -> InstanceId {
        InstanceId::new(format!("i-{at}")).unwrap()
    }

    fn made(attempt: u32, by: u8, width: Option<u64>, lost: bool) -> Commit {
        let mut made = Commit { attempt, instance: instance(by), ..commit() };
        made.outputs.truncate(1);
        if lost {
            made.outputs[0].location = foresail_schemas::run::Location::Stored("lost".to_owned());
        }
        made.decision = width.map(foresail_schemas::decision::Decision::Width);
        made
    }

    fn operation() -> impl Strategy<Value = Operation> {
        let (task, by, attempt) = (0..TASKS, 0..4_u8, 0..4_u32);
        let tasks = proptest::collection::vec(0..TASKS, 0..3);
        let join = (by.clone(), 1..3_u32, any::<bool>()).prop_map(|(by, gb, planned)| Operation::Join {
            worker: planned.then(|| "w".parse().unwrap()),
            instance: instance(by),
            config: ResourceConfig::new(gb * 512, None).unwrap(),
            start: StartState::Cold,
        });
        let lease =
            (task.clone(), by.clone(), 1..3_u64, tasks.clone()).prop_map(|(task, by, epoch, assuming)| {
                let assuming = if assuming.len() == 2 { assuming } else { Vec::new() };
                Operation::Lease { task, instance: instance(by), epoch, assuming }
            });
        let commit = (task.clone(), attempt.clone(), by.clone(), 0..3_u64, any::<bool>(), any::<bool>());
        let commit = commit.prop_map(|(task, attempt, by, width, lost, assumes)| {
            let commit = made(attempt, by, (task == 0).then_some(width), lost);
            let assuming = if assumes { Vec::new() } else { vec![Assumption { task: 4, attempt }] };
            Operation::Commit { task, commit, assuming }
        });
        let fail = (task, attempt, by.clone(), 0..4_u8).prop_map(|(task, attempt, by, kind)| {
            let kinds = [FailureKind::TaskError, FailureKind::OutOfMemory, FailureKind::Timeout];
            let kind = kinds.get(usize::from(kind)).copied().unwrap_or(FailureKind::InputUnavailable);
            let lost =
                if kind == FailureKind::InputUnavailable { vec!["lost".to_owned()] } else { Vec::new() };
            let failure = Failure { kind, lost, ..run_summary().failure.unwrap() };
            Operation::Fail { task, attempt, instance: instance(by), failure }
        });
        let renew = (by.clone(), tasks.clone())
            .prop_map(|(by, tasks)| Operation::Renew { instance: instance(by), tasks });
        let duplicate = (by.clone(), tasks.clone())
            .prop_map(|(by, tasks)| Operation::Duplicate { tasks, instance: instance(by) });
        let leave = (by, tasks).prop_map(|(by, tasks)| {
            let usage = WorkerUsage { billed_ms: 0.1, gets: 2, ..WorkerUsage::default() };
            Operation::Leave { instance: instance(by), tasks, usage }
        });
        let cancel = Just(Operation::Cancel { reason: "enough".to_owned() });
        prop_oneof![
            4 => join, 9 => lease, 9 => commit, 3 => fail, 3 => renew, 1 => duplicate, 1 => leave, 1 => cancel
        ]
    }

    fn request() -> impl Strategy<Value = Request> {
        let promise = |makespan_ms| Promise { makespan_ms, cost_usd: 0.5 };
        let why = move |moved| {
            let (cause, reason) = ("slow".to_owned(), "faster".to_owned());
            Replanning { cause, reason, kept: promise(9.0), new: promise(7.0), moved }
        };
        let operate = proptest::collection::vec(operation(), 1..4).prop_map(Request::Operate);
        let replan = (1..3_u64).prop_map(move |expected_epoch| Request::Replan {
            expected_epoch,
            plan: format!("p{expected_epoch}"),
            why: Some(why(1)),
        });
        let suggest = (1..3_u64).prop_map(move |epoch| Request::Suggest { epoch, why: why(2) });
        prop_oneof![30 => operate, 1 => replan, 1 => suggest]
    }

    fn begun() -> Fold {
        let sizes = [512, 1_024].map(|mb| ResourceConfig::new(mb, None).unwrap());
        let options = RunOptions { sizes: SizeMenu::of(&sizes), lease_ms: 300.0, ..RunOptions::default() };
        let about = About { options, ..about() };
        let mut fold = Fold::new(about.clone(), &workflow());
        let begins = Request::Begin(Ledger::new(&workflow(), options).begin(0.0));
        fold.take(&stamped(1_000, &fold.written(&begins)), None).unwrap();
        fold
    }

    /// Everything that can be asked of a run, as text.
    fn told(fold: &mut Fold, at_ms: f64) -> String {
        let tasks: Vec<u32> = (0..TASKS).collect();
        let questions = [
            Operation::Commits { tasks: tasks.clone() },
            Operation::Open { tasks: tasks.clone() },
            Operation::Missing { tasks, parent: 0 },
            Operation::WhoIs { worker: "w".parse().unwrap() },
            Operation::Frontier { idle_ms_min: 0.0, limit: 9 },
        ];
        let answers = fold.ask(&questions, at_ms);
        let (plan, summary) = (fold.plan(), fold.summary(at_ms));
        format!(
            "{} {plan:?} {}",
            serde_json::to_string(&answers).unwrap(),
            serde_json::to_string(&summary).unwrap()
        )
    }

    proptest! {
        #[test]
        fn behind_a_snapshot_all_is_as_if_everything_had_been_folded(
            requests in proptest::collection::vec((request(), 0..150_u64), 1..60),
            cut in any::<prop::sample::Index>(),
        ) {
            let (mut whole, mut part, cut) = (begun(), None, cut.index(requests.len()));
            let mut at_ms = 1_000;
            for (at, (request, after_ms)) in requests.iter().enumerate() {
                if at == cut {
                    let about = About { options: whole.options(), ..about() };
                    part = Some(Fold::behind(about, &workflow(), &whole.snapshot()).unwrap());
                }
                at_ms += after_ms;
                let entry = stamped(at_ms, &whole.written(request));
                let outcome = whole.take(&entry, None).unwrap();
                if let Some(part) = &mut part {
                    prop_assert_eq!(part.written(request), &entry[6..], "what it would append");
                    prop_assert_eq!(part.take(&entry, None).unwrap(), outcome);
                    prop_assert_eq!(told(part, at_ms as f64), told(&mut whole, at_ms as f64));
                }
            }
            let mut part = part.unwrap();
            let later_ms = at_ms as f64 + 400.0;
            prop_assert_eq!(told(&mut part, later_ms), told(&mut whole, later_ms), "when leases have ended");
            prop_assert_eq!(part.snapshot(), whole.snapshot());
            let since = part.kept_from - 1;
            prop_assert!(since == 0 || part.forgot(since - 1));
            prop_assert_eq!(part.events_after(since, None, 999), whole.events_after(since, None, 999));
        }
    }

    #[test]
    fn a_snapshot_that_is_damaged_or_another_is_refused() {
        let good = begun().snapshot();
        let refused = |snapshot: &Snapshot| Fold::behind(about(), &workflow(), snapshot).unwrap_err();
        for at in 0..good.state.len() {
            let mut bad = good.clone();
            bad.state[at] ^= 1;
            assert!(refused(&bad).contains("not what was written"), "byte {at}");
            bad.state.truncate(at);
            refused(&bad);
        }
        let of_another: Workflow =
            serde_json::from_str(r#"{"name": "w", "tasks": [{"id": "a", "name": "t", "run": "true"}]}"#)
                .unwrap();
        assert!(Fold::behind(about(), &of_another, &good).unwrap_err().contains("`7` tasks"));
        let mut older = good;
        older.state[HASH_BYTES] += 1;
        let hash = hash(&older.state[HASH_BYTES..]);
        older.state[..HASH_BYTES].copy_from_slice(&hash);
        assert!(refused(&older).contains("format"));
    }

    #[test]
    fn the_distance_of_snapshots_grows_with_the_log() {
        let due: Vec<u64> = (0..60_000).filter(|&entries| is_due(entries)).collect();
        assert_eq!(due[..6], [4_096, 8_192, 12_288, 16_384, 20_480, 25_600]);
        assert!(due.windows(2).all(|pair| pair[1] - pair[0] <= (pair[1] / 4).max(SNAPSHOT_ENTRIES_MIN)));
        // What all of them have together stays a few times the largest.
        let all: u64 = (0..2_000_000).filter(|&entries| is_due(entries)).sum();
        assert!(all < 6 * 2_000_000, "{all}");
    }
}
