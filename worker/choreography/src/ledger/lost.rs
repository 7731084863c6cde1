//! Results whose objects are lost: they are taken back, so that their tasks run again.
//!
//! Who finds nothing under the key of an input, or something else than was committed, says so with its
//! failure. The results that stand with such a key are taken back: their tasks have none, what reads them
//! waits for them again, and they are ready for a flexible worker of the size that they ran on, because their
//! planned worker, which may live, has them for done. What a task reads may be lost too: its next attempt
//! says so in the same way. Who tells of a loss is told, as by a look at what is stuck, which tasks can make
//! it again now, and starts them. The attempt that failed for want of an input is not counted. A task whose
//! result was taken back [`INVALIDATIONS_MAX`] times, and one that decides what follows and could decide
//! otherwise, end the run.

use foresail_schemas::run::{Change, Failure, LargerTask, Location, OperationResult};

use super::Ledger;

/// How often the result of one task is taken back.
pub(super) const INVALIDATIONS_MAX: usize = 2;

impl Ledger {
    /// The parents of a task whose standing results have an object that is lost, and what they were made of
    /// where that was never stored.
    pub(super) fn lost_parents(&self, task: u32, failure: &Failure) -> Vec<u32> {
        if failure.lost.is_empty() {
            return Vec::new();
        }
        let is_lost = |location: &Location| match location {
            Location::Stored(key) | Location::Unstored(key) => failure.lost.contains(key),
            Location::Inline(_) => false,
        };
        let mut lost = self.parents_with(task, is_lost);
        let mut at = 0;
        while let Some(&task) = lost.get(at) {
            at += 1;
            for parent in self.parents_with(task, |location| matches!(location, Location::Unstored(_))) {
                if !lost.contains(&parent) {
                    lost.push(parent);
                }
            }
        }
        lost
    }

    /// Parents of a task whose results have an output in such a place.
    fn parents_with(&self, task: u32, is_such: impl Fn(&Location) -> bool) -> Vec<u32> {
        let has_such = |parent: &u32| {
            let commit = self.state.task(*parent).commit.as_ref();
            commit.is_some_and(|commit| commit.outputs.iter().any(|output| is_such(&output.location)))
        };
        self.graph.parents(task).iter().copied().filter(has_such).collect()
    }

    /// Why one of these results cannot be made again.
    pub(super) fn lost_for_good(&self, parents: &[u32]) -> Option<String> {
        parents.iter().find_map(|&parent| {
            let id = &self.ids[parent as usize].0;
            let state = self.state.task(parent);
            if state.commit.as_ref().is_some_and(|commit| commit.decision.is_some()) {
                return Some(format!(
                    "the result of task `{id}`, which decided what follows, is lost; it is not run again, as \
                     it could decide otherwise; hint: resume the run"
                ));
            }
            let times = state.lost.len();
            (times >= INVALIDATIONS_MAX).then(|| {
                format!(
                    "the result of task `{id}` is lost, and was {times} times before; hint: look who deletes \
                     or changes objects"
                )
            })
        })
    }

    /// Which of these results, once they are taken back, can be made again at once, and on what: for who told
    /// of the loss to start them.
    pub(super) fn made_next(&self, lost: &[u32]) -> OperationResult {
        let ready = self.ready_again(lost);
        let config = |&task: &u32| {
            let state = self.state.task(task);
            let ran_by = state.commit.as_ref().map(|commit| &commit.instance);
            let ran_on = ran_by.and_then(|instance| Some(self.state.instances.get(instance)?.config));
            Some(LargerTask { task, config: state.larger.or(ran_on)? })
        };
        let larger = ready.iter().filter_map(config).collect();
        again(ready, larger)
    }

    /// The same for who repeats the report: what the task waits for, was lost, and nobody has.
    pub(super) fn made_meanwhile(&self, task: u32, now_ms: f64) -> OperationResult {
        let is_missing = |task: &u32| {
            let state = self.state.task(*task);
            state.commit.is_none() && !state.skipped
        };
        let (mut waiting, mut at) = (vec![task], 0);
        let mut ready = Vec::new();
        while let Some(&task) = waiting.get(at) {
            at += 1;
            for &parent in self.graph.parents(task).iter().filter(|parent| is_missing(parent)) {
                let state = self.state.task(parent);
                match state.idle_since_ms {
                    Some(_) if state.lost.is_empty() || state.live_lease(now_ms).is_some() => {}
                    Some(_) if ready.contains(&parent) => {}
                    Some(_) => ready.push(parent),
                    None if waiting.contains(&parent) => {}
                    None => waiting.push(parent),
                }
            }
        }
        let larger = self.larger_of(&ready);
        again(ready, larger)
    }

    /// Those of these tasks that wait for nothing once the results of all of them are taken back.
    fn ready_again(&self, lost: &[u32]) -> Vec<u32> {
        let waits = |task: u32| {
            let reads_lost = self.graph.parents(task).iter().any(|parent| lost.contains(parent));
            reads_lost || (self.state.task(task).marked as usize) < self.graph.parents(task).len()
        };
        lost.iter().copied().filter(|&task| !waits(task)).collect()
    }

    /// Takes the results back. Tasks that read none of them are ready.
    pub(super) fn taken_back(&self, parents: Vec<u32>, by: u32) -> Vec<Change> {
        let ready = self.ready_again(&parents).into_iter().map(|task| Change::TaskReady { task });
        [Change::TasksInvalidated { tasks: parents, by }].into_iter().chain(ready).collect()
    }
}

fn again(ready: Vec<u32>, larger: Vec<LargerTask>) -> OperationResult {
    match ready.is_empty() {
        true => OperationResult::NotReady,
        false => OperationResult::Frontier { ready, larger, untried: Vec::new() },
    }
}
