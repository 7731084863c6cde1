//! Large outputs of flexible workers: children run where the output is (task clustering), and the output is
//! kept back for children that wait for others (delayed I/O). Source: WUKONG (SoCC'20), sections 3.3, 3.4.
//!
//! A held output is in the memory of the worker and nowhere else, and its task has no result yet: the worker
//! keeps the lease, runs children under leases that assume the output, and commits parent and children in one
//! request, the parent first, once every child has run here. Where a child has to run elsewhere, or waits too
//! long, the output is stored, committed and marked like any other: stored before marked, so that no consumer
//! starts without its input. A worker that dies takes held outputs along, and their tasks run again.

use std::collections::{BTreeMap, BTreeSet};

use foresail_schemas::optimization::FlexibleRules;
use foresail_schemas::run::{Commit, Failure, FailureKind, Location, Operation, OperationResult};

use super::Worker;
use crate::protocol::{Action, Executed};

/// Most outputs held at a time; the next is stored.
const HELD_MAX: usize = 8;
/// Looks at children that wait for others before the output is stored after all, as in WUKONG.
const LOOKS_MAX: u32 = 20;
/// Pause before each look is this longer than the one before, as in WUKONG.
const LOOK_MS_STEP: f64 = 1_500.0;
/// Longest pause between two looks, as in WUKONG.
const LOOK_MS_MAX: f64 = 10_000.0;

/// Outputs that are held, and what waits for them.
#[derive(Debug, Clone, Default)]
pub(super) struct Holds {
    held: BTreeMap<u32, Hold>,
    /// Children that have run and whose commit waits for that of a held parent, with their attempt.
    settled: BTreeMap<u32, (u32, Executed)>,
    /// Commits that were sent while leases that assume them were under way.
    sent: BTreeMap<u32, Commit>,
    /// Held outputs that are to be stored.
    given_up: BTreeSet<u32>,
    /// Tasks whose large output was stored: children that it made ready run here.
    stored: BTreeSet<u32>,
}

#[derive(Debug, Clone)]
struct Hold {
    attempt: u32,
    executed: Executed,
    /// Given up.
    is_storing: bool,
    looks: u32,
    next_look_ms: Option<f64>,
}

/// What becomes of a held output for one child.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    RunHere,
    Wait,
    Store,
}

/// How the storing of a held output ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Ended {
    Well,
    Badly,
}

impl Holds {
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.settled.is_empty()
    }

    /// Tasks with a lease that is not to end.
    pub fn tasks(&self) -> impl Iterator<Item = u32> + '_ {
        self.held.keys().chain(self.settled.keys()).copied()
    }

    /// Whether the task has run here and has no result yet.
    pub fn has(&self, task: u32) -> bool {
        self.held.contains_key(&task) || self.settled.contains_key(&task)
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn holds(&self, task: u32) -> bool {
        self.held.get(&task).is_some_and(|hold| !hold.is_storing)
    }
}

impl Worker {
    fn rules(&self) -> Option<FlexibleRules> {
        self.plan.flexible().filter(|_| self.index.is_none())
    }

    /// Whether any worker of this size may run the task.
    pub(super) fn runs_here(&self, task: u32) -> bool {
        self.plan.worker(task).is_none() && self.same_config(task)
    }

    /// Outputs of this many bytes in all are to be held back by the host, where this is known to serve.
    pub(super) fn hold_bytes_min(&self, task: u32) -> Option<u64> {
        if self.index.is_some() {
            return self.keep_bytes_min(task);
        }
        let rules = self.rules().filter(|rules| rules.cluster_fan_out || rules.delayed_io)?;
        let children = self.graph.children(task);
        // What a task decides nobody knows before it is a result.
        let serves =
            !self.graph.decides(task) && !children.is_empty() && children.iter().all(|&c| self.runs_here(c));
        (serves && self.holds.held.len() < HELD_MAX).then_some(rules.large_output_bytes)
    }

    /// An attempt has ended and its outputs are held: who of the children can run here?
    pub(super) fn held(
        &mut self,
        task: u32,
        attempt: u32,
        executed: Executed,
        now_ms: f64,
        out: &mut Vec<Action>,
    ) {
        if self.running.get(&task) != Some(&attempt) {
            return;
        }
        self.running.remove(&task);
        if self.index.is_some() {
            return self.keep(task, attempt, executed, now_ms, out);
        }
        let hold = Hold { attempt, executed, is_storing: false, looks: 0, next_look_ms: None };
        self.holds.held.insert(task, hold);
        self.look_at_children(task);
    }

    fn look_at_children(&mut self, parent: u32) {
        let tasks = self.graph.children(parent).iter().copied().filter(|&c| !self.has_begun(c)).collect();
        self.outbox.push(Operation::Missing { tasks, parent });
    }

    pub(super) fn missing_known(
        &mut self,
        parent: u32,
        children: &[u32],
        result: OperationResult,
        now_ms: f64,
        out: &mut Vec<Action>,
    ) {
        if !self.holds.holds(parent) {
            return;
        }
        // The plan may be another than when the task began.
        let Some(rules) = self.rules() else {
            self.holds.given_up.insert(parent);
            return self.store_given_up(out);
        };
        let counts = if let OperationResult::Missing { counts } = result { counts } else { Vec::new() };
        let counts = counts.into_iter().chain(std::iter::repeat(None));
        let fates: Vec<(u32, Fate)> = children
            .iter()
            .zip(counts)
            .filter(|(child, _)| !self.has_begun(**child))
            .map(|(&child, missing)| (child, self.fate(&rules, parent, child, missing)))
            .collect();
        for (child, _) in fates.iter().filter(|(_, fate)| *fate == Fate::RunHere) {
            self.enqueue(*child);
        }
        let gives_up = |hold: &Hold| hold.looks >= LOOKS_MAX;
        let waits = fates.iter().any(|(_, fate)| *fate == Fate::Wait);
        let Some(hold) = self.holds.held.get_mut(&parent) else { return };
        if fates.iter().any(|(_, fate)| *fate == Fate::Store) || (waits && gives_up(hold)) {
            self.holds.given_up.insert(parent);
            self.store_given_up(out);
        } else if waits {
            hold.looks += 1;
            hold.next_look_ms = Some(now_ms + (LOOK_MS_STEP * f64::from(hold.looks)).min(LOOK_MS_MAX));
        } else {
            self.settle();
        }
        self.take_tasks(now_ms, out);
    }

    fn fate(&self, rules: &FlexibleRules, parent: u32, child: u32, missing: Option<u32>) -> Fate {
        let held = |&&p: &&u32| p != parent && self.holds.has(p);
        let held_too = self.graph.parents(child).iter().filter(held).count() as u32;
        match missing {
            _ if !self.runs_here(child) => Fate::Store,
            Some(missing) if missing == held_too && rules.cluster_fan_out => Fate::RunHere,
            Some(missing)
                if missing > held_too && rules.delayed_io && !self.expects_large(rules, parent, child) =>
            {
                Fate::Wait
            }
            _ => Fate::Store,
        }
    }

    /// Whether another parent of the child, which is not here, is expected to have a large output: then one
    /// of the two has to be moved anyway.
    fn expects_large(&self, rules: &FlexibleRules, parent: u32, child: u32) -> bool {
        let others = self.graph.parents(child).iter().filter(|&&p| p != parent && !self.holds.has(p));
        others.into_iter().any(|&p| self.plan.output_bytes(p).is_some_and(|b| b >= rules.large_output_bytes))
    }

    /// A child cannot run here after all: what it reads is to be stored. False where nothing is held for it.
    pub(super) fn give_up_parents(&mut self, child: u32) -> bool {
        let assumed = self.assumed(child);
        self.holds.given_up.extend(&assumed);
        self.keeps.give_up_for(child) || !assumed.is_empty()
    }

    /// Nothing is held for a plan that is not in force any more.
    pub(super) fn give_up_all(&mut self) {
        self.holds.given_up.extend(self.holds.held.keys());
        self.keeps.give_up_all();
    }

    /// Has the host store what was given up.
    pub(super) fn store_given_up(&mut self, out: &mut Vec<Action>) {
        for task in std::mem::take(&mut self.holds.given_up) {
            if let Some(hold) = self.holds.held.get_mut(&task).filter(|hold| !hold.is_storing) {
                hold.is_storing = true;
                hold.next_look_ms = None;
                self.storing.insert(task, hold.attempt);
                out.push(Action::Store { task, attempt: hold.attempt });
            }
        }
    }

    /// When to look again; nothing while there is other work.
    pub(super) fn next_look_ms(&self) -> Option<f64> {
        let looks = self.holds.held.values().filter_map(|hold| hold.next_look_ms);
        looks.reduce(f64::min).filter(|_| !self.is_busy())
    }

    fn is_busy(&self) -> bool {
        self.running.len() + self.leasing.len() + self.queue.len() > 0
    }

    /// Looks again at children that wait for others, when there is nothing else to do.
    pub(super) fn look_again(&mut self, now_ms: f64) {
        if self.is_busy() {
            return;
        }
        let due: Vec<u32> = self
            .holds
            .held
            .iter_mut()
            .filter(|(_, hold)| hold.next_look_ms.is_some_and(|at| at <= now_ms))
            .map(|(&task, hold)| {
                hold.next_look_ms = None;
                task
            })
            .collect();
        due.into_iter().for_each(|task| self.look_at_children(task));
    }

    /// The parents of a task whose outputs are held here: its lease assumes them. None that decides.
    pub(super) fn assumed(&self, task: u32) -> Vec<u32> {
        if self.holds.is_empty() {
            return Vec::new();
        }
        self.graph.parents(task).iter().copied().filter(|&p| self.is_assumable(p)).collect()
    }

    fn is_assumable(&self, task: u32) -> bool {
        self.holds.has(task) && !self.graph.decides(task)
    }

    /// The commits of the parents of a task whose lease assumed some, those among them, in the order of the
    /// graph; nothing where one that was assumed is lost.
    pub(super) fn with_held(
        &self,
        task: u32,
        parents: Vec<Option<Commit>>,
        assumed: &[u32],
    ) -> Option<Vec<Option<Commit>>> {
        let with = |(parent, known): (&u32, Option<Commit>)| match known {
            None if assumed.contains(parent) => self.held_commit(*parent).map(Some),
            known => Some(known),
        };
        self.graph.parents(task).iter().zip(parents).map(with).collect()
    }

    /// What a task made here that has no result yet, or whose commit was just sent.
    fn held_commit(&self, task: u32) -> Option<Commit> {
        let held = self.holds.held.get(&task).map(|hold| (hold.attempt, &hold.executed));
        let made = held.or_else(|| self.holds.settled.get(&task).map(|(attempt, made)| (*attempt, made)));
        let here = made.map(|(attempt, executed)| self.commit_of(attempt, executed.clone()));
        here.or_else(|| self.holds.sent.get(&task).cloned())
    }

    /// An output that a lease assumed was lost before it was granted: storing it, or what it was made of,
    /// failed.
    pub(super) fn give_back(&mut self, task: u32, attempt: u32) {
        let (instance, kind) = (self.settings.instance.clone(), FailureKind::InputUnavailable);
        let message = "an input that was held in memory is lost and made again".to_owned();
        let failure = Failure { task: None, attempt, kind, message, exception: None, lost: Vec::new() };
        self.outbox.push(Operation::Fail { task, attempt, instance, failure });
    }

    /// A result was refused, because what it was made of does not stand. Held parents that were committed
    /// in the same request are results now and nowhere, and whoever runs the task next would find that out
    /// when it reads them. The lease goes back in any case: what this attempt stored is discarded, and
    /// another that is granted here must not store under its name.
    pub(super) fn refused(&mut self, task: u32, commit: &Commit, unstored: &BTreeMap<u32, &Commit>) {
        let parents = self.graph.parents(task).iter().filter_map(|parent| unstored.get(parent));
        let keys = parents.flat_map(|parent| &parent.outputs).filter_map(|output| match &output.location {
            Location::Unstored(key) => Some(key.clone()),
            _ => None,
        });
        let lost: Vec<String> = keys.collect();
        if lost.is_empty() && commit.attempt == 0 {
            return;
        }
        let (attempt, instance) = (commit.attempt, self.settings.instance.clone());
        let message = "what it was made of does not stand, so that its result was refused".to_owned();
        let kind = FailureKind::InputUnavailable;
        let failure = Failure { task: None, attempt, kind, message, exception: None, lost };
        self.outbox.push(Operation::Fail { task, attempt, instance, failure });
    }

    /// Remembers a commit for the leases that are under way.
    pub(super) fn note_sent(&mut self, task: u32, commit: &Commit) {
        if self.graph.children(task).iter().any(|child| self.leasing.contains(child)) {
            self.holds.sent.insert(task, commit.clone());
        }
    }

    /// No lease is under way that could assume what was sent.
    pub(super) fn forget_sent(&mut self) {
        if self.leasing.is_empty() {
            self.holds.sent.clear();
        }
    }

    /// A child of a held output has run: its commit waits for that of the parent. False where it has none.
    pub(super) fn waits_for_parent(&mut self, task: u32, attempt: u32, executed: &Executed) -> bool {
        if self.assumed(task).is_empty() {
            return false;
        }
        self.holds.settled.insert(task, (attempt, executed.clone()));
        self.settle();
        true
    }

    /// An output is not held any more: it was stored, or that failed. In the second case what has begun on it
    /// here is given up and runs again.
    pub(super) fn release(&mut self, task: u32, end: Ended, out: &mut Vec<Action>) {
        if self.holds.held.remove(&task).is_none() || end == Ended::Well {
            return;
        }
        let graph = self.graph.clone();
        let mut lost = vec![task];
        while let Some(parent) = lost.pop() {
            for &child in graph.children(parent) {
                if let Some(attempt) = self.forget(child, out) {
                    self.give_back(child, attempt);
                    lost.push(child);
                }
            }
        }
    }

    /// Gives up an attempt of a task that runs here or waits for the commit of a parent.
    fn forget(&mut self, task: u32, out: &mut Vec<Action>) -> Option<u32> {
        let held = self.holds.held.remove(&task).map(|hold| hold.attempt);
        let begun = self.running.remove(&task).or_else(|| self.storing.remove(&task));
        if begun.is_some() {
            out.push(Action::Abort { task });
        }
        let made = held.or_else(|| self.holds.settled.remove(&task).map(|(attempt, _)| attempt));
        if let Some(attempt) = made {
            out.push(Action::Discard { task, attempt });
        }
        begun.or(made)
    }

    /// Commits held outputs whose children have all run here, and what waited for parents that have their
    /// commits by now; parents before children.
    pub(super) fn settle(&mut self) {
        if self.holds.is_empty() {
            return;
        }
        let mut whole: BTreeSet<u32> = self.holds.settled.keys().copied().collect();
        whole.extend(self.holds.held.iter().filter(|(_, hold)| !hold.is_storing).map(|(task, _)| *task));
        // The greatest set in which every held task has its children and everything its held parents.
        loop {
            let stays = |task: &u32| {
                let parents = self.assumed(*task).iter().all(|p| whole.contains(p));
                let children =
                    !self.holds.holds(*task) || self.graph.children(*task).iter().all(|c| whole.contains(c));
                parents && children
            };
            let kept: BTreeSet<u32> = whole.iter().copied().filter(stays).collect();
            if kept.len() == whole.len() {
                break;
            }
            whole = kept;
        }
        while !whole.is_empty() {
            let is_next = |task: &&u32| self.assumed(**task).iter().all(|p| !whole.contains(p));
            // A set of tasks of an acyclic graph has one without a parent in it.
            let Some(task) = whole.iter().find(is_next).copied() else { return };
            whole.remove(&task);
            let hold = self.holds.held.remove(&task).map(|hold| (hold.attempt, hold.executed));
            if let Some((attempt, executed)) = hold.or_else(|| self.holds.settled.remove(&task)) {
                self.commit(task, attempt, executed);
            }
        }
    }

    /// Whether children that the task made ready run here rather than on workers of their own.
    pub(super) fn clusters_children(&self, parent: u32) -> bool {
        self.rules().is_some_and(|rules| rules.cluster_fan_in) && self.holds.stored.contains(&parent)
    }

    /// Remembers that the output was large and had to be stored.
    pub(super) fn note_stored(&mut self, task: u32, executed: &Executed) {
        let Some(rules) = self.rules().filter(|rules| rules.cluster_fan_in) else { return };
        let bytes: u64 = executed.outputs.iter().map(|output| output.bytes).sum();
        if bytes >= rules.large_output_bytes {
            self.holds.stored.insert(task);
        }
    }
}
