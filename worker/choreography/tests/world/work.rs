//! What workers do with tasks, in times drawn, and what they must never do.

use foresail_choreography::{Event, Executed};
use foresail_schemas::run::{Commit, Failure, FailureKind, Location, Measured, StoredObject};
use rand::RngExt;

use super::{Running, Stage, World, tell};

impl World {
    /// A time to gather and compute, and another to store where there is something to store.
    pub(super) fn execute(&mut self, id: u64, task: u32, attempt: u32, parents: &[Commit]) {
        match attempt {
            0 => self.seen.copies += 1,
            _ => self.executed += 1,
        }
        if parents.len() != self.workflow.graph().parents(task).len() {
            self.broken = Some(format!("task {task} runs with {} of its parents", parents.len()));
        }
        self.change(id, |m| {
            m.begun.insert(task, Stage::Computes);
        });
        self.check_lanes(id);
        let object =
            StoredObject { bytes: 1, hash: String::new(), location: Location::Inline(String::new()) };
        let outputs = vec![object; self.workflow.graph().writes(task).len()];
        let mut outcome = Ok(Executed { outputs, measured: Measured::default() });
        let computed_ms = self.rng.random_range(1.0..6_000.0);
        let mut stored_ms = computed_ms;
        if self.options.overlap_uploads && self.rng.random_bool(0.6) {
            self.seen.overlaps += 1;
            stored_ms += self.rng.random_range(0.0..4_000.0);
            self.later(computed_ms, tell(id, Event::Computed { task, attempt }));
        }
        if self.chance(self.faults.fail) {
            let kind =
                if stored_ms > computed_ms { FailureKind::OutputNotStored } else { FailureKind::TaskError };
            outcome = Err(Failure { task: None, attempt, kind, message: "drawn".to_owned() });
        }
        self.later(stored_ms, tell(id, Event::Executed { task, attempt, outcome }));
    }

    fn check_lanes(&mut self, id: u64) {
        let Some(Running { lanes, begun, .. }) = self.machines.get(&id) else { return };
        let computing = begun.values().filter(|stage| **stage == Stage::Computes).count();
        if computing > *lanes || begun.len() > 2 * lanes {
            let all = begun.len();
            self.broken = Some(format!("{id} has {lanes} lanes; {computing} compute, {all} are under way"));
        }
    }

    pub(super) fn preload(&mut self, id: u64, task: u32, parents: &[(u32, Commit)]) {
        self.seen.preloads += 1;
        let graph = self.workflow.graph();
        if parents.iter().any(|(p, commit)| self.ledger.commit(*p) != Some(commit)) {
            self.broken = Some(format!("{id} fetches for task {task} what is no result"));
        }
        if parents.iter().any(|(p, _)| !graph.parents(task).contains(p)) {
            self.broken = Some(format!("{id} fetches for task {task} what that does not read"));
        }
        if self.machines.get(&id).is_some_and(|m| m.begun.contains_key(&task)) {
            self.broken = Some(format!("{id} fetches for task {task} beforehand, which has begun"));
        }
    }
}
