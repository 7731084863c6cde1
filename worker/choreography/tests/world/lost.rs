//! Objects of results that are lost: whoever would read one finds nothing, until its task has run again.

use std::collections::BTreeMap;

use foresail_schemas::run::{Change, Commit, Failure, FailureKind, Location, Operation, RunEvent};

use super::World;
use super::work::is_unstored;

/// How often the result of one task may be lost, as the ledger has it.
const LOST_MAX: usize = 2;

/// What is lost.
#[derive(Default)]
pub(super) struct Lost {
    /// Tasks and keys.
    keys: Vec<(u32, String)>,
    /// Results that were taken back.
    taken_back: Vec<(u32, Commit)>,
    /// Since when what was taken back could be made again, where nobody has begun to.
    waiting: BTreeMap<u32, f64>,
    /// The longest that this took, in ms.
    waited_ms_max: f64,
}

impl World {
    /// Where the outputs of an attempt lie.
    pub(super) fn stored(id: u64, task: u32, attempt: u32) -> Location {
        Location::Stored(format!("{task}/{attempt}-i{id}"))
    }

    /// Why an attempt cannot begin: an input that this machine has not made is lost, now or before.
    pub(super) fn misses_input(
        &mut self,
        id: u64,
        task: u32,
        attempt: u32,
        read: &[Option<Commit>],
    ) -> Option<Failure> {
        let parents = self.workflow.graph().parents(task).to_vec();
        let mut lost = Vec::new();
        for (parent, commit) in parents.into_iter().zip(read) {
            // What decides cannot be made again.
            let Some(commit) = commit.as_ref().filter(|commit| commit.decision.is_none()) else { continue };
            let key = commit.outputs.iter().find_map(|output| match &output.location {
                Location::Stored(key) => Some(key.clone()),
                Location::Inline(_) | Location::Unstored(_) => None,
            });
            let Some(key) = key.filter(|_| commit.instance.as_str() != format!("i{id}")) else { continue };
            if self.may_be_lost(parent)
                && self.ledger.commit(parent) == Some(commit)
                && self.chance(self.faults.lost)
            {
                self.note(&format!("the object {key} is lost"));
                self.lost.keys.push((parent, key.clone()));
            }
            if self.lost.keys.contains(&(parent, key.clone())) {
                lost.push(key);
            }
        }
        let (kind, message) = (FailureKind::InputUnavailable, "drawn".to_owned());
        (!lost.is_empty()).then_some(Failure { task: None, attempt, kind, message, lost, exception: None })
    }

    /// Whether a result can be made again, and what it was made of where that was never stored.
    fn may_be_lost(&self, task: u32) -> bool {
        let graph = self.workflow.graph();
        let mut again = vec![task];
        let mut at = 0;
        while let Some(&task) = again.get(at) {
            at += 1;
            let times = self.lost.keys.iter().filter(|(lost, _)| *lost == task).count();
            if times.max(self.times_taken_back(task)) >= LOST_MAX {
                return false;
            }
            let unstored = |parent: &u32| self.ledger.commit(*parent).is_some_and(is_unstored);
            again.extend(graph.parents(task).iter().copied().filter(unstored));
        }
        true
    }

    /// The results that stand, where an operation may take some back.
    pub(super) fn standing(&self, operation: &Operation) -> Vec<Option<Commit>> {
        match operation {
            Operation::Fail { failure, .. } if !failure.lost.is_empty() => {
                (0..self.tasks() as u32).map(|task| self.ledger.commit(task).cloned()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Remembers results before they are taken back, and from when on they can be made again.
    pub(super) fn note_taken_back(&mut self, commits: &[Option<Commit>], event: &RunEvent) {
        if let Change::TaskReady { task } = &event.change
            && self.lost.taken_back.iter().any(|(taken, _)| taken == task)
            && !commits.is_empty()
        {
            self.lost.waiting.insert(*task, self.now_ms);
        }
        if let Change::TasksInvalidated { tasks, .. } = &event.change {
            let taken = tasks.iter().filter_map(|&task| Some((task, commits[task as usize].clone()?)));
            self.lost.taken_back.extend(taken);
        }
    }

    /// Whether a task had this result once.
    pub(super) fn was_taken_back(&self, task: u32, is_it: impl Fn(&Commit) -> bool) -> bool {
        self.lost.taken_back.iter().any(|(taken, commit)| *taken == task && is_it(commit))
    }

    /// Results of a task that were taken back.
    pub(super) fn times_taken_back(&self, task: u32) -> usize {
        self.lost.taken_back.iter().filter(|(taken, _)| *taken == task).count()
    }

    /// Somebody begins these tasks, or starts a worker for them.
    pub(super) fn note_begun(&mut self, tasks: &[u32]) {
        for task in tasks {
            if let Some(since_ms) = self.lost.waiting.remove(task) {
                self.lost.waited_ms_max = self.lost.waited_ms_max.max(self.now_ms - since_ms);
            }
        }
    }

    /// The longest time from the loss of a result until somebody began to make it again, in ms.
    pub fn waited_for_lost_ms(&self) -> f64 {
        if self.lost.waiting.is_empty() { self.lost.waited_ms_max } else { f64::INFINITY }
    }

    /// Results that were taken back.
    pub fn taken_back(&self) -> usize {
        self.lost.taken_back.len()
    }
}
