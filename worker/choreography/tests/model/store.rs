//! The store of the explored runs: the real ledger, and beside it a record of its own of what was told.
//!
//! The record is what the invariants are checked against, so that a ledger that contradicts itself is found
//! by what it said, not by what it thinks. A [`Mutant`] changes what the ledger is told or tells, to show
//! that each invariant can fail.

use std::collections::{BTreeMap, BTreeSet};

use foresail_choreography::Ledger;
use foresail_schemas::graph::Graph;
use foresail_schemas::id::InstanceId;
use foresail_schemas::run::{Change, Commit, Location, Operation, OperationResult, RunEvent, RunOptions};

/// A mistake that a store could have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Gives a task that somebody has to whoever asks.
    GrantsTwice,
    /// Counts marks instead of keeping a set, and takes a repeated request for another parent.
    CountsMarks,
    /// Forgets the in-edges of a task that another worker than the one who asks marked.
    ForgetsMarks,
    /// Takes the last commit instead of the first.
    TakesTheLast,
    /// Does not look whether what a commit rests on stands.
    TrustsWhatRanAhead,
}

/// Who made a result, or read it: instance and attempt.
pub type Made = (InstanceId, u32);

/// What was told, and what workers did with it.
#[derive(Debug, Clone, Default)]
struct Record {
    results: BTreeMap<u32, Made>,
    /// Who has a task, until when in ms.
    leases: BTreeMap<u32, (InstanceId, f64)>,
    /// What each attempt read.
    read: BTreeMap<(InstanceId, u32, u32), Vec<Option<Made>>>,
    /// Tasks that will not run.
    skipped: BTreeSet<u32>,
    /// Outputs that are gone.
    discarded: BTreeSet<(InstanceId, u32, u32)>,
    /// How many commits of parents came, of a ledger that counts.
    counted: BTreeMap<u32, u32>,
}

/// The ledger and the record.
#[derive(Debug, Clone)]
pub struct Store {
    pub ledger: Ledger,
    record: Record,
}

fn made(commit: &Commit) -> Made {
    (commit.instance.clone(), commit.attempt)
}

fn is_unstored(commit: &Commit) -> bool {
    commit.outputs.iter().any(|output| matches!(output.location, Location::Unstored(_)))
}

impl Store {
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, record: Record::default() }
    }

    /// An attempt begins with these inputs: results, or what this very worker made.
    pub fn begins(
        &mut self,
        graph: &Graph,
        instance: &InstanceId,
        (task, attempt): (u32, u32),
        inputs: &[Option<Commit>],
    ) -> Result<(), String> {
        let parents = graph.parents(task);
        if parents.len() != inputs.len() {
            return Err(format!("task {task} runs with {} of {} inputs", inputs.len(), parents.len()));
        }
        for (&parent, commit) in parents.iter().zip(inputs) {
            let is_fine = match commit {
                Some(commit) => {
                    commit.instance == *instance || self.record.results.get(&parent) == Some(&made(commit))
                }
                // Ahead of a lease it may be skipped by what the worker decided itself.
                None => {
                    let is_skipped = attempt == 0 || self.record.skipped.contains(&parent);
                    is_skipped && graph.is_optional(parent, task)
                }
            };
            if !is_fine {
                return Err(format!("task {task} runs on what is no result of task {parent}: {commit:?}"));
            }
        }
        let read = inputs.iter().map(|input| input.as_ref().map(made)).collect();
        self.record.read.insert((instance.clone(), task, attempt), read);
        Ok(())
    }

    /// Whether the task will not run.
    pub fn is_skipped(&self, task: u32) -> bool {
        self.record.skipped.contains(&task)
    }

    /// The outputs of an attempt are deleted.
    pub fn discards(&mut self, instance: &InstanceId, task: u32, attempt: u32) -> Result<(), String> {
        self.record.discarded.insert((instance.clone(), task, attempt));
        // What stayed in memory is read by nobody once its children have results.
        let is_unstored = self.ledger.commit(task).is_some_and(is_unstored);
        match !is_unstored && self.record.results.get(&task) == Some(&(instance.clone(), attempt)) {
            true => Err(format!("the result of task {task}, which stands, is discarded")),
            false => Ok(()),
        }
    }

    /// Decides an operation and checks what is told.
    pub fn apply(
        &mut self,
        graph: &Graph,
        options: &RunOptions,
        operation: &Operation,
        now_ms: f64,
        mutant: Option<Mutant>,
    ) -> Result<(OperationResult, Vec<RunEvent>), String> {
        let taken = match (mutant, operation) {
            (Some(Mutant::TrustsWhatRanAhead), Operation::Commit { task, commit, .. }) => {
                Operation::Commit { task: *task, commit: commit.clone(), assuming: Vec::new() }
            }
            _ => operation.clone(),
        };
        let (told, events) = self.ledger.apply(&taken, now_ms);
        let told = match mutant {
            Some(mutant) => self.mutate(mutant, graph, operation, told),
            None => told,
        };
        self.check(graph, options, operation, &told, now_ms)?;
        for event in &events {
            self.check_event(graph, event)?;
        }
        Ok((told, events))
    }

    fn mutate(
        &mut self,
        mutant: Mutant,
        graph: &Graph,
        operation: &Operation,
        told: OperationResult,
    ) -> OperationResult {
        let stands = |ledger: &Ledger, task: u32| -> Vec<Option<Commit>> {
            graph.parents(task).iter().map(|&p| ledger.commit(p).cloned()).collect()
        };
        match (mutant, operation, told) {
            (Mutant::GrantsTwice, Operation::Lease { task, .. }, OperationResult::Held { .. }) => {
                OperationResult::Granted { attempt: 1, parents: stands(&self.ledger, *task) }
            }
            (Mutant::TakesTheLast, Operation::Commit { .. }, OperationResult::Committed { .. }) => {
                OperationResult::Won { ready: Vec::new(), skipped: Vec::new() }
            }
            (
                Mutant::CountsMarks,
                Operation::Commit { task, .. },
                OperationResult::Won { mut ready, skipped },
            ) => {
                for &child in graph.children(*task) {
                    let counted = self.record.counted.entry(child).or_default();
                    *counted += 1;
                    if *counted as usize == graph.parents(child).len() && !ready.contains(&child) {
                        ready.push(child);
                    }
                }
                OperationResult::Won { ready, skipped }
            }
            (Mutant::CountsMarks, Operation::Lease { task, .. }, OperationResult::NotReady)
                if self
                    .record
                    .counted
                    .get(task)
                    .is_some_and(|&n| n as usize >= graph.parents(*task).len()) =>
            {
                OperationResult::Granted { attempt: 1, parents: stands(&self.ledger, *task) }
            }
            (Mutant::ForgetsMarks, Operation::Lease { task, instance, .. }, told) => {
                let stands = stands(&self.ledger, *task);
                let others = stands.iter().flatten().any(|commit| commit.instance != *instance);
                if others { OperationResult::NotReady } else { told }
            }
            (_, _, told) => told,
        }
    }

    fn check(
        &mut self,
        graph: &Graph,
        options: &RunOptions,
        operation: &Operation,
        told: &OperationResult,
        now_ms: f64,
    ) -> Result<(), String> {
        let record = &mut self.record;
        match (operation, told) {
            (Operation::Commit { task, commit, .. }, OperationResult::Won { skipped, .. }) => {
                record.skipped.extend(skipped);
                record.leases.remove(task);
                return self.check_result(graph, *task, commit);
            }
            (
                Operation::Commit { task, .. } | Operation::Lease { task, .. },
                OperationResult::Committed { commit },
            ) if record.results.get(task) != Some(&made(commit)) => {
                return Err(format!("what is told to be the result of task {task} is none: {commit:?}"));
            }
            (Operation::Lease { task, .. }, OperationResult::Granted { .. })
                if record.skipped.contains(task) =>
            {
                return Err(format!("task {task} is granted, which is skipped"));
            }
            (Operation::Lease { task, instance, assuming, .. }, OperationResult::Granted { parents, .. }) => {
                if record.leases.get(task).is_some_and(|(who, end)| who != instance && *end > now_ms) {
                    return Err(format!("task {task} has two live leases, the second of `{instance}`"));
                }
                record.leases.insert(*task, (instance.clone(), now_ms + options.lease_ms));
                let known = |p: &&u32| {
                    let has = |r: &Made| parents.iter().flatten().any(|c| made(c) == *r);
                    assuming.contains(p)
                        || record.skipped.contains(*p)
                        || record.results.get(*p).is_some_and(has)
                };
                if let Some(missing) = graph.parents(*task).iter().find(|p| !known(p)) {
                    return Err(format!("task {task} is granted before task {missing} has a result"));
                }
            }
            (Operation::Renew { instance, tasks }, OperationResult::Done) => {
                for task in tasks {
                    if let Some((_, end)) = record.leases.get_mut(task).filter(|(who, _)| who == instance) {
                        *end = now_ms + options.lease_ms;
                    }
                }
            }
            (Operation::Fail { task, instance, .. }, _) => {
                record.leases.retain(|t, (who, _)| t != task || who != instance);
            }
            (Operation::Leave { instance, .. }, OperationResult::Done) => {
                record.leases.retain(|_, (who, _)| who != instance);
            }
            _ => {}
        }
        Ok(())
    }

    /// A task has one result, made of results, by an attempt whose outputs are there.
    fn check_result(&mut self, graph: &Graph, task: u32, commit: &Commit) -> Result<(), String> {
        let result = made(commit);
        if let Some(first) = self.record.results.get(&task) {
            return match *first == result {
                true => Ok(()),
                false => Err(format!("task {task} has two results, by {first:?} and {result:?}")),
            };
        }
        let key = (commit.instance.clone(), task, commit.attempt);
        let read = self.record.read.get(&key).cloned().unwrap_or_default();
        let stand = graph.parents(task).iter().map(|parent| self.record.results.get(parent));
        let is_to_come =
            |parent: &u32| !self.record.results.contains_key(parent) && !self.record.skipped.contains(parent);
        if !stand.eq(read.iter().map(Option::as_ref)) || graph.parents(task).iter().any(is_to_come) {
            return Err(format!("the result of task {task} by {result:?} was made of {read:?}, no results"));
        }
        if self.record.skipped.contains(&task) {
            return Err(format!("task {task} has a result and is skipped"));
        }
        if self.record.discarded.contains(&key) {
            return Err(format!("the result of task {task} by {result:?} was discarded before it stood"));
        }
        self.record.results.insert(task, result);
        Ok(())
    }

    fn check_event(&self, graph: &Graph, event: &RunEvent) -> Result<(), String> {
        let Change::TaskReady { task } = &event.change else { return Ok(()) };
        let has_result =
            |parent: &u32| self.record.results.contains_key(parent) || self.record.skipped.contains(parent);
        match graph.parents(*task).iter().all(has_result) && !self.record.skipped.contains(task) {
            true => Ok(()),
            false => Err(format!("task {task} is ready before its parents have results")),
        }
    }
}
