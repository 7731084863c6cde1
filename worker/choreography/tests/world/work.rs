//! What workers do with tasks, in times drawn, and what they must never do.

use foresail_choreography::{Event, Executed};
use foresail_schemas::decision::Decision;
use foresail_schemas::id::InstanceId;
use foresail_schemas::run::{Commit, Failure, FailureKind, Location, Measured, StoredObject};
use rand::RngExt;

use super::{Running, Stage, World, tell};

/// Whether an output of the commit is nowhere but in the memory of its maker.
pub(super) fn is_unstored(commit: &Commit) -> bool {
    commit.outputs.iter().any(|output| matches!(output.location, Location::Unstored(_)))
}

impl World {
    /// A time to gather and compute, and another to store where there is something to store.
    pub(super) fn execute(
        &mut self,
        id: u64,
        task: u32,
        attempt: u32,
        parents: &[Option<Commit>],
        hold_bytes_min: Option<u64>,
    ) {
        match attempt {
            0 if self.is_copy(id, task) => self.seen.copies += 1,
            attempt => {
                self.executed += 1;
                self.seen.ahead += u64::from(attempt == 0);
            }
        }
        if parents.len() != self.workflow.graph().parents(task).len() {
            self.broken = Some(format!("task {task} runs with {} of its parents", parents.len()));
        }
        self.doom(id);
        self.check_inputs(id, task, attempt, parents);
        let maker = |commit: &Commit| (commit.instance.clone(), commit.attempt);
        let read = parents.iter().map(|parent| parent.as_ref().map(maker)).collect();
        self.read.insert((id, task), read);
        self.change(id, |m| {
            m.begun.insert(task, Stage::Computes);
        });
        self.check_lanes(id);
        let decision = self.decide(task);
        let mut executed = self.executed(task, Self::stored(id, task, attempt), decision);
        if let Some(failure) = self.misses_input(id, task, attempt, parents) {
            let delay_ms = self.rng.random_range(0.1..50.0);
            return self.later(delay_ms, tell(id, Event::Executed { task, attempt, outcome: Err(failure) }));
        }
        if self.machines.get(&id).is_some_and(|m| m.memory_mb < self.needs_mb[task as usize]) {
            return self.run_out_of_memory(id, task, attempt);
        }
        let computed_ms = self.rng.random_range(1.0..6_000.0);
        executed.measured.exec_ms = computed_ms;
        let mut outcome = Ok(executed);
        if hold_bytes_min.is_some() && !self.chance(self.faults.fail) && self.rng.random_bool(0.8) {
            self.seen.held += 1;
            let Location::Stored(key) = Self::stored(id, task, attempt) else { return };
            let mut executed = self.executed(task, Location::Unstored(key), None);
            executed.measured.exec_ms = computed_ms;
            return self.later(computed_ms, tell(id, Event::Held { task, attempt, executed }));
        }
        let mut stored_ms = computed_ms;
        if self.options.overlap_uploads && self.rng.random_bool(0.6) {
            self.seen.overlaps += 1;
            stored_ms += self.rng.random_range(0.0..4_000.0);
            self.later(computed_ms, tell(id, Event::Computed { task, attempt }));
        }
        if self.chance(self.faults.fail) {
            let kind =
                if stored_ms > computed_ms { FailureKind::OutputNotStored } else { FailureKind::TaskError };
            outcome = Err(Failure {
                task: None,
                attempt,
                kind,
                message: "drawn".to_owned(),
                exception: None,
                lost: Vec::new(),
            });
        }
        self.later(stored_ms, tell(id, Event::Executed { task, attempt, outcome }));
    }

    /// Whether a task without a lease belongs to another worker.
    fn is_copy(&self, id: u64, task: u32) -> bool {
        let planned = &self.plan.tasks[task as usize].worker;
        self.machines.get(&id).is_some_and(|m| m.worker != *planned)
    }

    /// The attempt ends, or takes its worker along.
    fn run_out_of_memory(&mut self, id: u64, task: u32, attempt: u32) {
        self.seen.out_of_memory += 1;
        let delay_ms = self.rng.random_range(1.0..3_000.0);
        let (kind, message) = (FailureKind::OutOfMemory, "drawn".to_owned());
        let outcome = Err(Failure { task: None, attempt, kind, message, exception: None, lost: Vec::new() });
        self.later(delay_ms, tell(id, Event::Executed { task, attempt, outcome }));
    }

    /// What was held goes to the store after all.
    pub(super) fn store_held(&mut self, id: u64, task: u32, attempt: u32) {
        self.change(id, |m| {
            m.begun.insert(task, Stage::StoresHeld);
        });
        let mut outcome = Ok(self.executed(task, Self::stored(id, task, attempt), None));
        if self.chance(self.faults.fail) {
            let (kind, message) = (FailureKind::OutputNotStored, "drawn".to_owned());
            outcome = Err(Failure { task: None, attempt, kind, message, exception: None, lost: Vec::new() });
        }
        let delay_ms = self.rng.random_range(0.0..4_000.0);
        self.later(delay_ms, tell(id, Event::Executed { task, attempt, outcome }));
    }

    fn executed(&self, task: u32, location: Location, decision: Option<Decision>) -> Executed {
        let object = StoredObject { bytes: 10, hash: String::new(), location };
        let outputs = vec![object; self.workflow.graph().writes(task).len()];
        Executed { outputs, measured: Measured::default(), decision, printed: None }
    }

    /// Inputs are results that stand and are stored, or what this very worker made and has not committed. One
    /// is missing where its task is skipped, or will be once what this worker made is a result.
    fn check_inputs(&mut self, id: u64, task: u32, attempt: u32, parents: &[Option<Commit>]) {
        let graph = self.workflow.graph().clone();
        let mut is_without = false;
        for (&parent, commit) in graph.parents(task).iter().zip(parents) {
            let Some(commit) = commit else {
                is_without = true;
                if !graph.is_optional(parent, task) {
                    self.broken = Some(format!("{id} runs task {task}, which needs task {parent}, without"));
                }
                if attempt > 0 && !self.ledger.is_skipped(parent) {
                    self.broken = Some(format!("task {task} is leased without task {parent}, not skipped"));
                }
                continue;
            };
            let is_own = commit.instance.as_str() == format!("i{id}");
            if is_unstored(commit) && !is_own {
                self.broken =
                    Some(format!("{id} runs task {task} on an output of task {parent} held elsewhere"));
            }
            let stood =
                self.ledger.commit(parent) == Some(commit) || self.was_taken_back(parent, |c| c == commit);
            if !is_own && !stood {
                self.broken = Some(format!("{id} runs task {task} on what is no result of task {parent}"));
            }
        }
        self.seen.without += u64::from(is_without);
        self.seen.without_ahead += u64::from(is_without && attempt == 0 && !self.is_copy(id, task));
    }

    /// What has become a result was made of results, without those that are skipped and no others.
    pub(super) fn check_read(&mut self, id: u64, task: u32) {
        let read = self.read.get(&(id, task)).cloned().unwrap_or_default();
        let stood = |(&parent, read): (&u32, &Option<(InstanceId, u32)>)| {
            let Some((instance, attempt)) = read else { return self.ledger.commit(parent).is_none() };
            let is_it = |c: &Commit| (&c.instance, c.attempt) == (instance, *attempt);
            self.ledger.commit(parent).is_some_and(is_it) || self.was_taken_back(parent, is_it)
        };
        let parents = self.workflow.graph().parents(task);
        if parents.len() != read.len() || !parents.iter().zip(&read).all(stood) {
            self.broken = Some(format!("{id} made the result of task {task} of what is no result"));
        }
        let missing = parents.iter().zip(read).filter(|(_, read)| read.is_none());
        if missing.into_iter().any(|(&parent, _)| !self.ledger.is_skipped(parent)) {
            self.broken = Some(format!("{id} made the result of task {task} without one that is to come"));
        }
    }

    fn check_lanes(&mut self, id: u64) {
        let Some(Running { lanes, begun, has_backlog, .. }) = self.machines.get(&id) else { return };
        let computing = begun.values().filter(|stage| **stage == Stage::Computes).count();
        let all = begun.values().filter(|stage| **stage != Stage::StoresHeld).count();
        if *has_backlog {
            self.seen.backlog += u64::from(computing > *lanes);
        } else if computing > *lanes || all > 2 * lanes {
            self.broken = Some(format!("{id} has {lanes} lanes; {computing} compute, {all} are under way"));
        }
    }

    pub(super) fn preload(&mut self, id: u64, task: u32, parents: &[(u32, Commit)]) {
        self.seen.preloads += 1;
        let graph = self.workflow.graph();
        let stood = |(p, commit): &(u32, Commit)| {
            self.ledger.commit(*p) == Some(commit) || self.was_taken_back(*p, |c| c == commit)
        };
        if !parents.iter().all(stood) {
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
