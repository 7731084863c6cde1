//! Entries of a log as bytes: 6 bytes of time, then the request in few bytes.
//!
//! The time is that of the server in ms, an unsigned integer of 6 bytes, the lowest first, written by the
//! script that appends. What is asked often has a form of its own without names of fields, the rest is JSON.
//! An invocation is named once; from then on it is a number, in the order in which the names stand in the
//! log. So an entry is read only behind all those before it, and whoever writes one refers to names that it
//! has read: the script refuses it where the log is another one. Keys of objects have marks in place of the
//! names of the run and of the invocation. Nothing is lost: a request comes back equal.

use std::collections::HashMap;

use foresail_schemas::RunId;
use foresail_schemas::config::ResourceConfig;
use foresail_schemas::id::{InstanceId, WorkerId};
use foresail_schemas::metric::StartState;
use foresail_schemas::packed::{self, PackedCommit, PackedLocation};
use foresail_schemas::run::{Assumption, Change, Commit, Operation, RunEvent, WorkerUsage};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::fold::Request;

/// Bytes of the time at the head of an entry.
pub const TIME_BYTES: usize = 6;
/// Stands for the name of the invocation in a key.
const INSTANCE_MARK: char = '\u{1}';
/// Stands for the name of the run in a key.
const RUN_MARK: char = '\u{2}';
/// Begins a key that is written as it is, because it has marks of its own.
const AS_IT_IS: char = '\u{3}';

/// The time at the head of an entry: with its number it tells logs apart that were the same once.
pub type Mark = [u8; TIME_BYTES];

/// The names of invocations, in the order in which a log names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    all: Vec<InstanceId>,
    numbers: HashMap<InstanceId, u32>,
}

impl Names {
    /// All of them, in order.
    #[must_use]
    pub fn all(&self) -> &[InstanceId] {
        &self.all
    }

    fn learn(&mut self, name: &InstanceId) {
        if !self.numbers.contains_key(name) {
            self.numbers.insert(name.clone(), self.all.len() as u32);
            self.all.push(name.clone());
        }
    }
}

impl FromIterator<InstanceId> for Names {
    fn from_iter<T: IntoIterator<Item = InstanceId>>(names: T) -> Self {
        let mut known = Self::default();
        names.into_iter().for_each(|name| known.learn(&name));
        known
    }
}

#[derive(Serialize, Deserialize)]
enum PackedRequest {
    Operate(Vec<PackedOperation>),
    /// Events from number 1 on, all of one time.
    Begin(f64, Vec<PackedChange>),
    Json(String),
}

#[derive(Serialize, Deserialize)]
enum PackedOperation {
    Lease { task: u32, who: Who, epoch: u64, assuming: Vec<u32> },
    Commit { task: u32, who: Who, commit: PackedCommit, assuming: Vec<Assumption> },
    Renew { who: Who, tasks: Vec<u32> },
    Join { worker: Option<WorkerId>, who: Who, config: Size, start: StartState },
    Leave { who: Who, tasks: Vec<u32>, usage: WorkerUsage },
    Duplicate { tasks: Vec<u32>, who: Who },
    Json(String),
}

#[derive(Serialize, Deserialize)]
enum PackedChange {
    Ready(u32),
    Committed(u32, Who, PackedCommit),
    Json(String),
}

#[derive(Serialize, Deserialize)]
struct Size(#[serde(with = "packed::config")] ResourceConfig);

#[derive(Serialize, Deserialize)]
enum Who {
    Known(u32),
    Named(InstanceId),
}

/// A request as bytes, for whoever has read `names`; the time is not part of it.
#[must_use]
pub fn write(request: &Request, names: &Names, run: &RunId) -> Vec<u8> {
    let writer = Writer { names, run };
    let packed = match request {
        Request::Operate(operations) => {
            PackedRequest::Operate(operations.iter().map(|operation| writer.operation(operation)).collect())
        }
        Request::Begin(events) => match at_once(events) {
            Some(at_ms) => {
                let changes = events.iter().map(|event| writer.change(&event.change)).collect();
                PackedRequest::Begin(at_ms, changes)
            }
            None => PackedRequest::Json(json(request)),
        },
        Request::Replan { .. } | Request::Suggest { .. } => PackedRequest::Json(json(request)),
    };
    postcard::to_allocvec(&packed).expect("numbers, texts and lists always have a postcard form")
}

/// The time of an entry in ms, its mark and its request.
///
/// # Errors
/// Why it is none.
pub fn read(entry: &[u8], names: &mut Names, run: &RunId) -> Result<(f64, Mark, Request), String> {
    let (mark, rest) = entry.split_first_chunk::<TIME_BYTES>().ok_or("it has no time")?;
    let at_ms = mark.iter().rev().fold(0_u64, |ms, byte| ms << 8 | u64::from(*byte)) as f64;
    let packed: PackedRequest = postcard::from_bytes(rest).map_err(|e| e.to_string())?;
    let mut reader = Reader { names, run };
    let request = match packed {
        PackedRequest::Operate(operations) => {
            let read = operations.into_iter().map(|operation| reader.operation(operation));
            Request::Operate(read.collect::<Result<_, _>>()?)
        }
        PackedRequest::Begin(at_ms, changes) => {
            let event = |(seq, change)| Ok(RunEvent { seq, at_ms, change: reader.change(change)? });
            Request::Begin((1..).zip(changes).map(event).collect::<Result<_, String>>()?)
        }
        PackedRequest::Json(text) => of_json(&text)?,
    };
    Ok((at_ms, *mark, request))
}

/// The time of events that are numbered from 1 on and happened at once.
fn at_once(events: &[RunEvent]) -> Option<f64> {
    let at_ms = events.first().map_or(0.0, |event| event.at_ms);
    let are_such = (1..).zip(events).all(|(seq, event)| event.seq == seq && event.at_ms == at_ms);
    are_such.then_some(at_ms)
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("wire types always have a JSON form")
}

fn of_json<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|e| e.to_string())
}

struct Writer<'a> {
    names: &'a Names,
    run: &'a RunId,
}

impl Writer<'_> {
    fn who(&self, instance: &InstanceId) -> Who {
        let number = self.names.numbers.get(instance);
        number.map_or_else(|| Who::Named(instance.clone()), |number| Who::Known(*number))
    }

    fn commit(&self, commit: &Commit) -> (Who, PackedCommit) {
        let mut packed = PackedCommit::from(commit);
        each_key(&mut packed, |key| *key = shortened(key, &commit.instance, self.run));
        (self.who(&commit.instance), packed)
    }

    fn operation(&self, operation: &Operation) -> PackedOperation {
        match operation {
            Operation::Lease { task, instance, epoch, assuming } => {
                let (who, assuming) = (self.who(instance), assuming.clone());
                PackedOperation::Lease { task: *task, who, epoch: *epoch, assuming }
            }
            Operation::Commit { task, commit, assuming } => {
                let ((who, commit), assuming) = (self.commit(commit), assuming.clone());
                PackedOperation::Commit { task: *task, who, commit, assuming }
            }
            Operation::Renew { instance, tasks } => {
                PackedOperation::Renew { who: self.who(instance), tasks: tasks.clone() }
            }
            Operation::Join { worker, instance, config, start } => PackedOperation::Join {
                worker: worker.clone(),
                who: self.who(instance),
                config: Size(*config),
                start: *start,
            },
            Operation::Leave { instance, tasks, usage } => {
                PackedOperation::Leave { who: self.who(instance), tasks: tasks.clone(), usage: *usage }
            }
            Operation::Duplicate { tasks, instance } => {
                PackedOperation::Duplicate { tasks: tasks.clone(), who: self.who(instance) }
            }
            Operation::Fail { .. }
            | Operation::Cancel { .. }
            | Operation::Commits { .. }
            | Operation::Missing { .. }
            | Operation::Open { .. }
            | Operation::WhoIs { .. }
            | Operation::Frontier { .. } => PackedOperation::Json(json(operation)),
        }
    }

    fn change(&self, change: &Change) -> PackedChange {
        match change {
            Change::TaskReady { task } => PackedChange::Ready(*task),
            Change::TaskCommitted { task, commit } => {
                let (who, commit) = self.commit(commit);
                PackedChange::Committed(*task, who, commit)
            }
            other => PackedChange::Json(json(other)),
        }
    }
}

struct Reader<'a> {
    names: &'a mut Names,
    run: &'a RunId,
}

impl Reader<'_> {
    fn who(&mut self, who: Who) -> Result<InstanceId, String> {
        match who {
            Who::Named(name) => {
                self.names.learn(&name);
                Ok(name)
            }
            Who::Known(number) => {
                let name = self.names.all.get(number as usize).cloned();
                name.ok_or_else(|| format!("it refers to invocation `{number}`, which was not named"))
            }
        }
    }

    fn commit(&mut self, who: Who, mut packed: PackedCommit) -> Result<Commit, String> {
        let instance = self.who(who)?;
        each_key(&mut packed, |key| *key = lengthened(key, &instance, self.run));
        packed.unpack(instance)
    }

    fn operation(&mut self, packed: PackedOperation) -> Result<Operation, String> {
        Ok(match packed {
            PackedOperation::Lease { task, who, epoch, assuming } => {
                Operation::Lease { task, instance: self.who(who)?, epoch, assuming }
            }
            PackedOperation::Commit { task, who, commit, assuming } => {
                Operation::Commit { task, commit: self.commit(who, commit)?, assuming }
            }
            PackedOperation::Renew { who, tasks } => Operation::Renew { instance: self.who(who)?, tasks },
            PackedOperation::Join { worker, who, config: Size(config), start } => {
                Operation::Join { worker, instance: self.who(who)?, config, start }
            }
            PackedOperation::Leave { who, tasks, usage } => {
                Operation::Leave { instance: self.who(who)?, tasks, usage }
            }
            PackedOperation::Duplicate { tasks, who } => {
                Operation::Duplicate { tasks, instance: self.who(who)? }
            }
            PackedOperation::Json(text) => of_json(&text)?,
        })
    }

    fn change(&mut self, packed: PackedChange) -> Result<Change, String> {
        Ok(match packed {
            PackedChange::Ready(task) => Change::TaskReady { task },
            PackedChange::Committed(task, who, commit) => {
                Change::TaskCommitted { task, commit: self.commit(who, commit)? }
            }
            PackedChange::Json(text) => of_json(&text)?,
        })
    }
}

fn each_key(commit: &mut PackedCommit, change: impl Fn(&mut String)) {
    for output in &mut commit.outputs {
        match &mut output.location {
            PackedLocation::Stored(key) | PackedLocation::Unstored(key) => change(key),
            PackedLocation::Bytes(_) | PackedLocation::Text(_) => {}
        }
    }
}

fn shortened(key: &str, instance: &InstanceId, run: &RunId) -> String {
    if key.contains([INSTANCE_MARK, RUN_MARK, AS_IT_IS]) {
        return format!("{AS_IT_IS}{key}");
    }
    let marked = key.replace(instance.as_str(), INSTANCE_MARK.encode_utf8(&mut [0; 4]));
    marked.replace(run.as_str(), RUN_MARK.encode_utf8(&mut [0; 4]))
}

fn lengthened(key: &str, instance: &InstanceId, run: &RunId) -> String {
    match key.strip_prefix(AS_IT_IS) {
        Some(key) => key.to_owned(),
        None => key.replace(RUN_MARK, run.as_str()).replace(INSTANCE_MARK, instance.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use foresail_schemas::examples;
    use foresail_schemas::run::{Location, RunStatus, StoredObject};
    use proptest::prelude::*;

    use super::*;

    fn run() -> RunId {
        RunId::new("r-1").unwrap()
    }

    fn named(name: &str) -> InstanceId {
        InstanceId::new(name).unwrap()
    }

    /// What was written for `known` is read behind `more` as well.
    fn comes_back(request: &Request, known: &[&str], more: &[&str]) -> usize {
        let writer: Names = known.iter().map(|name| named(name)).collect();
        let bytes = write(request, &writer, &run());
        let entry = [&[2, 1, 0, 0, 0, 0], &bytes[..]].concat();
        let mut reader: Names = known.iter().chain(more).map(|name| named(name)).collect();
        let (at_ms, mark, read) = read(&entry, &mut reader, &run()).unwrap();
        assert_eq!((at_ms, mark, &read), (258.0, [2, 1, 0, 0, 0, 0], request));
        bytes.len()
    }

    /// One of each kind that is written.
    fn operations() -> Vec<Operation> {
        let (i, tasks) = (named("i-3"), vec![1, 400]);
        let (config, start) = (ResourceConfig::new(512, Some(0.3)).unwrap(), StartState::Warm);
        let usage = WorkerUsage { billed_ms: 0.1, puts: 3, ..WorkerUsage::default() };
        let failure = examples::run_summary().failure.unwrap();
        let assuming = vec![Assumption { task: 2, attempt: 1 }];
        let worker = Some(WorkerId::new("w").unwrap());
        vec![
            Operation::Join { worker, instance: i.clone(), config, start },
            Operation::Lease { task: 3, instance: i.clone(), epoch: 9, assuming: tasks.clone() },
            Operation::Duplicate { tasks: tasks.clone(), instance: i.clone() },
            Operation::Renew { instance: i.clone(), tasks: tasks.clone() },
            Operation::Commit { task: 1, commit: examples::commit(), assuming },
            Operation::Fail { task: 1, attempt: 2, instance: i.clone(), failure },
            Operation::Leave { instance: i, tasks, usage },
            Operation::Cancel { reason: "enough".to_owned() },
        ]
    }

    #[test]
    fn every_operation_comes_back() {
        let operations = operations();
        for known in [&[][..], &["i-3"]] {
            comes_back(&Request::Operate(operations.clone()), known, &["x", "i-9"]);
        }
    }

    #[test]
    fn every_beginning_comes_back() {
        let committed = Change::TaskCommitted { task: 1, commit: examples::commit() };
        let finished = Change::RunFinished { status: RunStatus::Completed, failure: None };
        let changes = [Change::TaskReady { task: 7 }, committed, finished];
        let events = |at_ms: [f64; 3]| {
            let timed = (1..).zip(changes.clone()).zip(at_ms);
            timed.map(|((seq, change), at_ms)| RunEvent { seq, at_ms, change }).collect()
        };
        comes_back(&Request::Begin(Vec::new()), &[], &[]);
        let at_once = comes_back(&Request::Begin(events([0.5; 3])), &[], &[]);
        assert!(at_once < comes_back(&Request::Begin(events([0.5, 0.5, 0.75])), &[], &[]));
    }

    #[test]
    fn an_invocation_is_named_once() {
        let renew = Request::Operate(vec![Operation::Renew { instance: named("w-17-long"), tasks: vec![3] }]);
        let (first, later) =
            (comes_back(&renew, &["a"], &[]), comes_back(&renew, &["a", "w-17-long"], &["b"]));
        assert_eq!(first - later, "w-17-long".len());
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        let unnamed = Request::Operate(vec![Operation::Renew { instance: named("a"), tasks: Vec::new() }]);
        let of_another = write(&unnamed, &std::iter::once(named("a")).collect(), &run());
        let of_another = [&[0; TIME_BYTES], &of_another[..]].concat();
        for bad in [&b""[..], b"1", b"123456", b"123456\x09", b"123456\x02\x02{}", &of_another] {
            assert!(read(bad, &mut Names::default(), &run()).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn keys_come_back_whatever_they_are(key in "(r-1|i-3|/|\u{1}|\u{2}|\u{3}|\\PC){0,9}") {
            let instance = named("i-3");
            prop_assert_eq!(lengthened(&shortened(&key, &instance, &run()), &instance, &run()), key.clone());
            let hash = "0".repeat(64);
            let outputs = vec![StoredObject { bytes: 1, hash, location: Location::Stored(key) }];
            let commit = Commit { instance, outputs, ..examples::commit() };
            let commit = Operation::Commit { task: 0, commit, assuming: Vec::new() };
            comes_back(&Request::Operate(vec![commit]), &["i-3"], &[]);
        }
    }
}
